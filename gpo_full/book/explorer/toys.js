// The toy models: gradient descent of a softmax policy and of a Gaussian mixture, with KL and regulariser along the way.

const sum = (values) => values.reduce((a, b) => a + b, 0);
const dot = (a, b) => a.reduce((total, each, i) => total + each * b[i], 0);

function logSoftmax(logits) {
  const top = Math.max(...logits);
  const rest = top + Math.log(sum(logits.map((each) => Math.exp(each - top))));
  return logits.map((each) => each - rest);
}

// KL(pi||pi_ref) and Var_mu(s), s = log pi - log pi_ref, and the gradients of both per response: for KL, pi (s + 1).
function measured(logPolicy, logReference, mu) {
  const policy = logPolicy.map(Math.exp);
  const sampler = mu ?? policy.map((each) => each / sum(policy));
  const ratio = logPolicy.map((each, i) => each - logReference[i]);
  const mean = dot(sampler, ratio);
  return {
    policy,
    kl: Math.max(0, dot(policy, ratio)),
    regularizer: sum(ratio.map((each, i) => sampler[i] * (each - mean) ** 2)),
    slopes: { kl: policy.map((each, i) => each * (ratio[i] + 1)), regularizer: ratio.map((each, i) => 2 * sampler[i] * (each - mean)) },
  };
}

// Descend from `start` (probabilities) on "kl" or "regularizer"; mu null means that the policy itself samples.
export function simplexPath({ reference, start, mu, objective, lr, steps }) {
  const logReference = logSoftmax(reference.map(Math.log));
  let logits = start.map(Math.log);
  const path = { kl: [], regularizer: [], policy: [] };
  for (let step = 0; step <= steps; step++) {
    const now = measured(logSoftmax(logits), logReference, mu);
    for (const key of Object.keys(path)) path[key].push(now[key]);
    const slope = now.slopes[objective];
    const total = sum(slope); // d log pi_i / d theta_k = [i = k] - pi_k
    logits = logits.map((each, k) => each - lr * (slope[k] - now.policy[k] * total));
  }
  return path;
}

// Mixtures of Gaussians of variance 1 on a grid; behaviour: "reference", "policy" or [mean, variance].
export function mixturePath({ reference, means, logits, behaviour, objective, lr, steps, low = -14, high = 14, step = 0.05 }) {
  const count = Math.round((high - low) / step) + 1;
  const grid = Array.from({ length: count }, (_, i) => low + ((high - low) * i) / (count - 1));
  const logReference = mixture(grid, step, reference.means, reference.logits).log;
  const mu = sampler(grid, behaviour, logReference);
  const path = { grid, reference: logReference.map((each) => Math.exp(each) / step), kl: [], regularizer: [], policy: [] };
  for (let t = 0; t <= steps; t++) {
    const now = mixture(grid, step, means, logits);
    const { policy, kl, regularizer, slopes } = measured(now.log, logReference, mu);
    path.kl.push(kl);
    path.regularizer.push(regularizer);
    path.policy.push(policy.map((each) => each / step));
    const slope = slopes[objective];
    const total = sum(slope);
    // d log pi(y) / d mean_c = r_c(y) (y - mean_c), d log pi(y) / d logit_c = r_c(y) - w_c.
    const shares = now.shares.map((share) => dot(share, slope));
    means = means.map((mean, c) => mean - lr * sum(grid.map((y, i) => slope[i] * now.shares[c][i] * (y - mean))));
    logits = logits.map((logit, c) => logit - lr * (shares[c] - now.weights[c] * total));
  }
  return path;
}

function sampler(grid, behaviour, logReference) {
  if (behaviour === "policy") return null;
  const [mean, variance] = behaviour === "reference" ? [0, 1] : behaviour;
  const mass = behaviour === "reference" ? logReference.map(Math.exp) : grid.map((y) => Math.exp(-((y - mean) ** 2) / (2 * variance)));
  const total = sum(mass);
  return mass.map((each) => each / total);
}

// log(pi step) on the grid, and of each component its share r_c(y) and weight.
function mixture(grid, step, means, logits) {
  const logWeights = logSoftmax(logits);
  const scale = Math.log(step / Math.sqrt(2 * Math.PI));
  const parts = means.map((mean, c) => grid.map((y) => logWeights[c] + scale - (y - mean) ** 2 / 2));
  const log = grid.map((_, i) => {
    const top = Math.max(...parts.map((part) => part[i]));
    return top + Math.log(sum(parts.map((part) => Math.exp(part[i] - top))));
  });
  return { log, weights: logWeights.map(Math.exp), shares: parts.map((part) => part.map((each, i) => Math.exp(each - log[i]))) };
}
