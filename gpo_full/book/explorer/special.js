// Functions that JavaScript lacks, to about 1e-14 relative.

const ROOT_PI = Math.sqrt(Math.PI);

// exp(-x^2): the square of a float is exact in a double, so that its rounding is not multiplied by x^2.
function bell(x) {
  const near = Math.fround(x);
  return Math.exp(-near * near) * Math.exp((near - x) * (near + x));
}

// exp(x^2) erfc(x) for x >= 2, by its continued fraction x + (1/2)/(x + 1/(x + (3/2)/(x + ...))), from the inside.
function scaledErfc(x) {
  let tail = x;
  for (let k = 120; k >= 1; k--) tail = x + k / 2 / tail;
  return 1 / (ROOT_PI * tail);
}

// erf(x) for |x| < 2: 2 x exp(-x^2)/sqrt(pi) times sum of (2x^2)^n / (1 3 5 ... (2n+1)), all terms positive.
function erfNear(x) {
  let term = 1, total = 1;
  for (let n = 1; term > 1e-18 * total; n++) total += term *= (2 * x * x) / (2 * n + 1);
  return (2 * x * bell(x) * total) / ROOT_PI;
}

export function erfc(x) {
  if (x < 0) return 2 - erfc(-x);
  return x < 2 ? 1 - erfNear(x) : bell(x) * scaledErfc(x);
}

export const erf = (x) => (Math.abs(x) < 2 ? erfNear(x) : x > 0 ? 1 - erfc(x) : erfc(-x) - 1);

// log Phi(x) of the standard normal law.
export function logNdtr(x) {
  const y = -x / Math.SQRT2;
  return y < 2 ? (x > 0 ? Math.log1p(-erfc(-y) / 2) : Math.log(erfc(y) / 2)) : -y * y + Math.log(scaledErfc(y) / 2);
}

// phi(x)/Phi(x), the slope of log Phi.
export function hazard(x) {
  const y = -x / Math.SQRT2;
  return y < 2 ? bell(y) * Math.sqrt(2 / Math.PI) / erfc(y) : Math.sqrt(2 / Math.PI) / scaledErfc(y);
}

export const sigmoid = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
export const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
