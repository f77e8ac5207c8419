// R = |f''(0)/f'(0)|, and why a loss has no matched beta: the rules of `gpo beta`, looked at in numbers.

const NEAR = 1e-12; // so near to 0 that a smooth f has the same derivatives there, and one with a joint at 0 has not
const FAR = Array.from({ length: 400 }, (_, k) => 1e-3 * (20 / 1e-3) ** (k / 399));
const same = (a, b) => Math.abs(a - b) <= 1e-9 * (1 + Math.abs(a) + Math.abs(b));

// Return {R, left, right, refusal}; where f'' jumps at 0, R comes from the mean of both sides: what f(x) + f(-x) bends by.
export function strength(f) {
  const [value, slope, curvature] = f(0);
  const [before, after] = [f(-NEAR), f(NEAR)];
  if (!same(before[1], after[1])) return { R: null, refusal: "f has a kink at 0" };
  const smooth = same(before[2], curvature) && same(after[2], curvature);
  const bend = smooth ? curvature : (before[2] + after[2]) / 2;
  const R = Math.abs(bend / slope);
  const sides = [before, after].map((each) => ((Math.sign(bend) || 1) * each[2]) / Math.abs(slope)); // with the mean R
  const found = { R: Number.isFinite(R) ? R : null, left: sides[0], right: sides[1], jumps: !smooth };
  return { ...found, refusal: refusal(f, value, slope, bend, found.R) };
}

function refusal(f, value, slope, bend, R) {
  if (!(slope < 0)) return "f′(0) ≥ 0: it does not prefer the chosen response";
  if (R === null) return "R does not exist";
  if (bend < 0) return "f″(0) < 0: it does not regularise near 0";
  if (R === 0) return "R = 0: no β regularises near 0";
  // With as many raters for either response, nothing but 0 must be asked for.
  if (FAR.some((x) => f(x)[0] + f(-x)[0] <= 2 * value)) return "0 alone does not minimise f(x) + f(−x)";
  return null;
}
