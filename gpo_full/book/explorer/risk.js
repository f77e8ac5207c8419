// What a share p of raters makes of f: the target x*(p) and the psi-transform, from C_p(x) = p f(x) + (1-p) f(-x).

const FAR = 20; // a target beyond it is called infinite
const SIDE = Array.from({ length: 600 }, (_, k) => 1e-4 * (FAR / 1e-4) ** (k / 599));
const GRID = [...SIDE.map((each) => -each).reverse(), 0, ...SIDE];

// Return {x, value} of the least C_p over [-20, 20] or its left half; x is infinite where it falls to the border.
function least(f, p, grid = GRID) {
  const risk = (x) => p * f(x)[0] + (1 - p) * f(-x)[0];
  const slope = (x) => p * f(x)[1] - (1 - p) * f(-x)[1];
  const values = grid.map((x) => ((value) => (Number.isNaN(value) ? Infinity : value))(risk(x)));
  let best = values.indexOf(Math.min(...values));
  // Where rounding has levelled the risk, its slope still tells the way.
  while (best < grid.length - 1 && slope(grid[best]) < 0 && values[best + 1] <= values[best]) best++;
  while (best > 0 && slope(grid[best]) > 0 && values[best - 1] <= values[best]) best--;
  if (best === 0 || (best === grid.length - 1 && grid[best] > 0)) {
    return { x: grid[best] < 0 ? -Infinity : Infinity, value: values[best] };
  }
  let [low, high] = [grid[best - 1], grid[Math.min(best + 1, grid.length - 1)]];
  if (!(slope(low) < 0 && slope(high) > 0)) return { x: grid[best], value: values[best] };
  for (let middle; (middle = (low + high) / 2) > low && middle < high; ) slope(middle) < 0 ? (low = middle) : (high = middle);
  const ends = [low, high, grid[best]].map((x) => ({ x, value: risk(x) }));
  return ends.reduce((a, b) => (b.value < a.value ? b : a));
}

// x*(p), where training on a pair of which a share p prefers the first response settles.
export const target = (f, p) => least(f, p).x;

// inf over x <= 0 of C_p, less inf C_p, at p = (1 + theta)/2: the psi-transform of a convex f, before its convex hull.
export function psi(f, theta) {
  const p = (1 + theta) / 2;
  const wrong = least(f, p, GRID.filter((x) => x <= 0)).value;
  return Math.max(0, wrong - least(f, p).value);
}
