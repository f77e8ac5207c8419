// A formula as a function of x that brings f, f', f'' and bounds on the rounding errors of f and f'.

import { constant } from "./formula.js";
import { erf, erfc, hazard, logNdtr, sigmoid, softplus } from "./special.js";

const EPSILON = 2 ** -53;
// A jet is [value, slope, curvature, error of the value, error of the slope].
const number = (value) => [value, 0, 0, 0, 0];

const add = (a, b, sign = 1) => {
  const [value, slope] = [a[0] + sign * b[0], a[1] + sign * b[1]];
  return [value, slope, a[2] + sign * b[2], a[3] + b[3] + EPSILON * Math.abs(value),
    a[4] + b[4] + EPSILON * Math.abs(slope)];
};

const multiply = (a, b) => {
  const value = a[0] * b[0];
  const parts = [a[1] * b[0], a[0] * b[1]];
  return [value, parts[0] + parts[1], a[2] * b[0] + 2 * a[1] * b[1] + a[0] * b[2],
    Math.abs(a[0]) * b[3] + Math.abs(b[0]) * a[3] + EPSILON * Math.abs(value),
    Math.abs(a[1]) * b[3] + Math.abs(b[0]) * a[4] + Math.abs(a[0]) * b[4] + Math.abs(b[1]) * a[3] +
      2 * EPSILON * (Math.abs(parts[0]) + Math.abs(parts[1]))];
};

// g(u) from g, g', g'' at u's value.
const chain = (u, [g, g1, g2], accuracy = 2) => {
  const slope = times(g1, u[1]);
  return [g, slope, times(g2, u[1] * u[1]) + times(g1, u[2]),
    times(Math.abs(g1), u[3]) + accuracy * EPSILON * Math.abs(g),
    times(Math.abs(g2 * u[1]), u[3]) + times(Math.abs(g1), u[4]) + 2 * accuracy * EPSILON * Math.abs(slope)];
};

// Where the inner function does not move, an infinite slope of the outer one does no harm.
const times = (a, b) => (b === 0 ? 0 : a * b);

const power = (v, p) => {
  const term = (factor, exponent) => (factor === 0 ? 0 : factor * v ** exponent);
  return [v ** p, term(p, p - 1), term(p * (p - 1), p - 2)];
};

const FUNCTIONS = {
  exp: (v) => Array(3).fill(Math.exp(v)),
  log: (v) => [Math.log(v), 1 / v, -1 / (v * v)],
  log1p: (v) => [Math.log1p(v), 1 / (1 + v), -1 / (1 + v) ** 2],
  expm1: (v) => [Math.expm1(v), Math.exp(v), Math.exp(v)],
  sqrt: (v) => power(v, 0.5),
  sigmoid: (v) => {
    const slope = sigmoid(v) * sigmoid(-v);
    return [sigmoid(v), slope, -slope * Math.tanh(v / 2)];
  },
  softplus: (v) => [softplus(v), sigmoid(v), sigmoid(v) * sigmoid(-v)],
  tanh: (v) => {
    const slope = 4 * sigmoid(2 * v) * sigmoid(-2 * v);
    return [Math.tanh(v), slope, -2 * Math.tanh(v) * slope];
  },
  sinh: (v) => [Math.sinh(v), Math.cosh(v), Math.sinh(v)],
  cosh: (v) => [Math.cosh(v), Math.sinh(v), Math.cosh(v)],
  atan: (v) => [Math.atan(v), 1 / (1 + v * v), (-2 * v) / (1 + v * v) ** 2],
  asinh: (v) => [Math.asinh(v), 1 / Math.hypot(1, v), -v / Math.hypot(1, v) ** 3],
  erf: (v) => [erf(v), ...bell(v)],
  erfc: (v) => [erfc(v), ...bell(v).map((each) => -each)],
  log_ndtr: (v) => [logNdtr(v), hazard(v), -hazard(v) * (v + hazard(v))],
  sin: (v) => [Math.sin(v), Math.cos(v), -Math.sin(v)],
  cos: (v) => [Math.cos(v), -Math.sin(v), -Math.cos(v)],
  abs: (v) => [Math.abs(v), Math.sign(v), 0],
};

// Errors of the functions that are our own, in units of EPSILON; what JavaScript brings is good to 2. The argument of the
// normal law is divided by a rounded root of 2, which its tail multiplies by the argument's square.
const ACCURACY = { erf: () => 100, erfc: () => 100, log_ndtr: (v) => 100 + 2 * v * v };

function bell(v) {
  const slope = (2 / Math.sqrt(Math.PI)) * Math.exp(-v * v);
  return [slope, -2 * v * slope];
}

const COMPARE = { "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b };
const isOne = (tree) => tree.op === "number" && tree.args[0] === 1;
const negative = (tree) => (tree.op === "negative" ? tree.args[0] : { op: "negative", args: [tree] });
const call = (op, ...args) => ({ op, args });

// The other term of 1 + u or u + 1.
const besideOne = (tree) => (tree.op !== "+" ? null : isOne(tree.args[0]) ? tree.args[1] : isOne(tree.args[1]) ? tree.args[0] : null);

// Forms whose obvious evaluation overflows or cancels, as the same function written well.
function stable(tree) {
  const [a, b] = tree.args;
  if (tree.op === "log") {
    if (a.op === "sigmoid") return call("negative", call("softplus", negative(a.args[0])));
    const rest = besideOne(a);
    if (rest?.op === "exp") return call("softplus", rest.args[0]);
    if (rest) return call("log1p", rest);
  }
  if (tree.op === "/" && isOne(a) && besideOne(b)?.op === "exp") return call("sigmoid", negative(besideOne(b).args[0]));
  if (tree.op === "-" && isOne(b) && a.op === "exp") return call("expm1", a.args[0]);
  return tree;
}

// Return the function x -> jet of a tree, with its parameters' values.
export function compile(tree, parameters = {}) {
  const { op, args } = stable(tree);
  if (op === "x") return (x) => [x, 1, 0, 0, 0];
  if (["number", "parameter", "constant"].includes(op)) {
    const value = number(constant({ op, args }, parameters));
    return () => value;
  }
  if (op === "**") {
    const [base, p] = [compile(args[0], parameters), constant(args[1], parameters)];
    return (x) => ((u) => chain(u, power(u[0], p)))(base(x));
  }
  const inner = args.map((each) => compile(each, parameters));
  if (op === "where") return (x) => (inner[0](x) ? inner[1](x) : inner[2](x));
  if (op in COMPARE) return (x) => COMPARE[op](inner[0](x)[0], inner[1](x)[0]);
  if (op === "and") return (x) => inner[0](x) && inner[1](x);
  if (op === "or") return (x) => inner[0](x) || inner[1](x);
  const [a, b] = inner;
  if (op === "negative") return (x) => multiply(number(-1), a(x));
  if (op === "+") return (x) => add(a(x), b(x));
  if (op === "-") return (x) => add(a(x), b(x), -1);
  if (op === "*") return (x) => multiply(a(x), b(x));
  if (op === "/") return (x) => ((u, v) => multiply(u, chain(v, power(v[0], -1))))(a(x), b(x));
  if (op === "max" || op === "min") {
    const wins = op === "max" ? (u, v) => u[0] >= v[0] : (u, v) => u[0] <= v[0];
    return (x) => inner.map((each) => each(x)).reduce((u, v) => (wins(u, v) ? u : v));
  }
  return (x) => ((u) => chain(u, FUNCTIONS[op](u[0]), ACCURACY[op]?.(u[0])))(a(x));
}
