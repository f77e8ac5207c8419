// Text to formula: the grammar of `gpo analyze`, read by hand. No text is ever run.

const LIMITS = { characters: 1000, depth: 40, nodes: 300, digits: 30, exponent: 32, power: 64 };
const UNARY = ["abs", "exp", "log", "log1p", "expm1", "sqrt", "sigmoid", "softplus", "tanh", "sinh", "cosh", "atan",
  "asinh", "erf", "erfc", "log_ndtr", "sin", "cos"];
const MANY = ["max", "min"];
const CONSTANTS = { pi: Math.PI, e: Math.E };
const COMPARISONS = ["<", "<=", ">", ">="];
const TOKEN = /\s*(?:((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?)(?![\w.])|([A-Za-z_]\w*(?:\s*\.\s*[A-Za-z_]\w*)*)|(\*\*|<=|>=|[-+*/(),<>^|]))/y;
// Other spellings, the tables of gpo_theory/formula/spelling.py.
const { spellings: SPELLINGS, prefixes: PREFIXES, characters: CHARACTERS, superscripts: SUPERSCRIPTS } = JSON.parse(document.getElementById("data").textContent).grammar;
const RAISED = `[${Object.keys(SUPERSCRIPTS).join("")}]`;

export class FormulaError extends Error {}

const node = (op, ...args) => ({ op, args });
const dependsOnX = (tree) => tree.op === "x" || tree.args.some((each) => typeof each === "object" && dependsOnX(each));
const hasParameter = (tree) =>
  tree.op === "parameter" || tree.args.some((each) => typeof each === "object" && hasParameter(each));

function tokens(text) {
  const found = [];
  for (TOKEN.lastIndex = 0; TOKEN.lastIndex < text.trimEnd().length; ) {
    const start = TOKEN.lastIndex;
    const match = TOKEN.exec(text);
    if (!match) throw new FormulaError(`cannot read ${JSON.stringify(text.slice(start).trim().slice(0, 20))}`);
    const [, number, name, sign] = match;
    found.push({ number, name, sign, text: number ?? name ?? sign });
  }
  return found;
}

function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length];
}

export function nearest(name, allowed) {
  const [best] = [...allowed].sort((a, b) => distance(name, a) - distance(name, b));
  return best !== undefined && distance(name, best) <= Math.max(1, name.length / 3) ? `; did you mean '${best}'?` : "";
}

// A name without the libraries in front of it: log for np.log.
function bare(name) {
  const parts = name.split(".").map((each) => each.trim());
  while (parts.length > 1 && PREFIXES.includes(parts[0])) parts.shift();
  return parts.join(".");
}

// A function of the grammar, or a formula in its arguments u and v.
function meaning(name) {
  for (const each of [name, name.toLowerCase()]) {
    if ([...UNARY, ...MANY, "where"].includes(each)) return each;
    if (Object.hasOwn(SPELLINGS, each)) return SPELLINGS[each];
  }
  return null;
}

class Reader {
  constructor(text, parameters, bound = {}) {
    this.tokens = tokens(text);
    this.at = 0;
    this.count = 0;
    this.parameters = parameters;
    this.bound = bound; // what the names of a spelling's formula stand for
  }

  peek(...signs) {
    const next = this.tokens[this.at];
    return next !== undefined && next.number === undefined && signs.includes(next.text);
  }

  take(...signs) {
    return this.peek(...signs) ? this.tokens[this.at++].text : null;
  }

  need(sign) {
    if (!this.take(sign)) throw new FormulaError(`'${sign}' is missing before ${this.rest()}`);
  }

  rest() {
    return this.at < this.tokens.length ? `'${this.tokens[this.at].text}'` : "the end";
  }

  enter(depth) {
    if (depth > LIMITS.depth || ++this.count > LIMITS.nodes) {
      throw new FormulaError(`too large: at most ${LIMITS.nodes} operations, nested ${LIMITS.depth} deep, are allowed`);
    }
  }

  sum(depth) {
    let left = this.product(depth + 1);
    for (let sign; (sign = this.take("+", "-")); ) left = node(sign, left, this.product(depth + 1));
    return left;
  }

  product(depth) {
    let left = this.signed(depth + 1);
    for (let sign; (sign = this.take("*", "/")); ) {
      const right = this.signed(depth + 1);
      if (sign === "/" && vanishes(right)) throw new FormulaError("division by zero");
      left = node(sign, left, right);
    }
    return left;
  }

  signed(depth) {
    this.enter(depth / 3);
    if (this.take("-")) return node("negative", this.signed(depth + 3));
    if (this.take("+")) return this.signed(depth + 3);
    const base = this.atom(depth);
    return this.take("**", "^") ? this.power(base, this.signed(depth + 3)) : base;
  }

  power(base, exponent) {
    const fixed = !dependsOnX(exponent) && (hasParameter(exponent) || isRational(exponent));
    if (!fixed && (base.op === "constant" || (!hasParameter(base) && isRational(base) && constant(base, {}) > 0))) {
      return node("exp", base.args[0] === "e" ? exponent : node("*", exponent, node("log", base)));
    }
    if (dependsOnX(exponent)) throw new FormulaError("the exponent depends on x; write exp(...) instead");
    const value = constant(exponent, this.parameters);
    const rational = !hasParameter(exponent) && isRational(exponent);
    if (!rational && !hasParameter(exponent)) {
      throw new FormulaError("the exponent is neither rational nor a parameter");
    }
    if (rational && Math.abs(value) > LIMITS.exponent) {
      throw new FormulaError(`the exponent ${value} is above ${LIMITS.exponent}`);
    }
    if (value <= 0 && vanishes(base)) {
      throw new FormulaError("zero to a power that is not positive");
    }
    return node("**", base, exponent);
  }

  atom(depth) {
    const token = this.tokens[this.at++];
    if (token === undefined) throw new FormulaError("the formula ends too early");
    if (token.number !== undefined) return this.number(token.number);
    if (token.sign === "(") {
      const inner = this.sum(depth + 2);
      this.need(")");
      return inner;
    }
    if (token.sign === "|") {
      const inner = this.sum(depth + 2);
      this.need("|");
      return node("abs", inner);
    }
    if (token.name === undefined) throw new FormulaError(`'${token.text}' is not expected here`);
    return this.peek("(") ? this.call(token.name, depth) : this.name(token.name);
  }

  number(text) {
    if (text.replace(/[eE].*/, "").replace(/\D/g, "").length > LIMITS.digits) {
      throw new FormulaError(`'${text.slice(0, 40)}' has more than ${LIMITS.digits} digits`);
    }
    return node("number", Number(text));
  }

  name(name) {
    if (name === "x") return node("x");
    if (Object.hasOwn(this.bound, name)) return this.bound[name];
    if (Object.hasOwn(this.parameters, name)) return node("parameter", name);
    const constantName = name.toLowerCase() === "pi" ? "pi" : bare(name);
    if (Object.hasOwn(CONSTANTS, constantName)) return node("constant", constantName);
    const known = ["x", ...Object.keys(CONSTANTS), ...Object.keys(this.parameters)];
    if (meaning(name)) {
      throw new FormulaError(`'${name}' is a function and needs its argument in parentheses`);
    }
    throw new FormulaError(`unknown name '${name}'${nearest(name, known)}; allowed: ${known.join(", ")}`);
  }

  call(typed, depth) {
    if (Object.hasOwn(this.parameters, typed)) throw new FormulaError(`'${typed}' is a parameter; a product is written with *`);
    const name = meaning(bare(typed));
    if (name === null) {
      const functions = [...UNARY, ...MANY, "where"];
      throw new FormulaError(`unknown function '${typed}'${nearest(typed, functions)}; allowed: ${functions.join(", ")}`);
    }
    this.need("(");
    const args = name === "where" ? [this.condition(depth + 3)] : [this.sum(depth + 2)];
    while (this.take(",")) args.push(this.sum(depth + 2));
    this.need(")");
    const body = [...UNARY, ...MANY, "where"].includes(name) ? null : name;
    const count = body ? new Set(body.match(/\b[uv]\b/g)).size : 1;
    const [least, most] = name === "where" ? [3, 3] : MANY.includes(name) ? [2, 8] : [count, count];
    if (args.length < least || args.length > most) {
      throw new FormulaError(`${typed} takes ${least === most ? least : `${least} to ${most}`} argument(s)`);
    }
    return body ? new Reader(body, {}, { u: args[0], v: args[1] }).sum(depth + 2) : node(name, ...args);
  }

  condition(depth) {
    const first = this.comparison(depth);
    const sign = this.take("and", "or");
    return sign ? node(sign, first, this.comparison(depth)) : first;
  }

  comparison(depth) {
    // A parenthesis may hold the whole comparison or its left side alone.
    const start = this.at;
    if (this.take("(")) {
      try {
        const inner = this.comparison(depth);
        this.need(")");
        return inner;
      } catch (error) {
        if (!(error instanceof FormulaError)) throw error;
        this.at = start;
      }
    }
    const left = this.sum(depth + 2);
    const sign = this.take(...COMPARISONS);
    if (!sign) throw new FormulaError("a condition is one comparison (<, <=, >, >=) or and/or of two");
    return node(sign, left, this.sum(depth + 2));
  }
}

const isRational = (tree) =>
  tree.op === "number" ||
  (["+", "-", "*", "/", "negative"].includes(tree.op) && tree.args.every(isRational)) ||
  (tree.op === "**" && tree.args.every(isRational) && Number.isInteger(constant(tree.args[1], {})));

// Return the numeric value at x of a tree without functions; NaN where there is one.
export function constant(tree, parameters, x = Number.NaN) {
  const [a, b] = tree.args.map((each) => (typeof each === "object" ? constant(each, parameters, x) : each));
  switch (tree.op) {
    case "x": return x;
    case "number": return a;
    case "parameter": return parameters[a];
    case "constant": return CONSTANTS[a];
    case "negative": return -a;
    case "+": return a + b;
    case "-": return a - b;
    case "*": return a * b;
    case "/": return a / b;
    case "**": return a ** b;
    default: return Number.NaN;
  }
}

// Whether a tree without functions and parameters is 0 for every x, as x - x is.
const vanishes = (tree) => !hasParameter(tree) && [-1.25, 0.375, 2.5].every((x) => constant(tree, {}, x) === 0);

function checkPowers(tree, outer, parameters) {
  if (tree.op === "**" && isRational(tree.args[1])) {
    outer *= Math.max(Math.abs(constant(tree.args[1], parameters)), 1);
    if (outer > LIMITS.power) throw new FormulaError(`the powers multiply to more than ${LIMITS.power}`);
  }
  const inner = tree.args.filter((each) => typeof each === "object");
  const tower = tree.op === "exp" && inner[0].op === "exp" && inner[0].args[0].op === "exp";
  if (tower) throw new FormulaError("exp may be nested at most twice");
  inner.forEach((each) => checkPowers(each, outer, parameters));
}

// A copied formula in the grammar's characters.
function respelled(text) {
  if (new RegExp(`${RAISED}\\s*(\\^|\\*\\*)`).test(text)) throw new FormulaError("two powers follow each other; put one in parentheses");
  const raised = (digits) => `**(${[...digits].map((each) => SUPERSCRIPTS[each]).join("")})`;
  const plain = [...text.replace(new RegExp(`${RAISED}+`, "g"), raised)].map((each) => CHARACTERS[each] ?? each).join("");
  const place = plain.search(/[^\x20-\x7e]/);
  if (place >= 0) throw new FormulaError(`'${String.fromCodePoint(plain.codePointAt(place))}' is not printable ASCII`);
  return plain;
}

// Return the tree of `text`, a formula in x and the named parameters; FormulaError says why there is none.
export function parse(text, parameters = {}) {
  if (text.replaceAll(" ", "").length > LIMITS.characters) throw new FormulaError(`more than ${LIMITS.characters} characters`);
  const plain = respelled(text);
  if (!plain.trim()) throw new FormulaError("a formula in x is needed");
  const reader = new Reader(plain, parameters);
  const tree = reader.sum(1);
  if (reader.at < reader.tokens.length) throw new FormulaError(`${reader.rest()} is not expected here`);
  checkPowers(tree, 1, parameters);
  return tree;
}

const BINDING = { "+": 1, "-": 1, "*": 2, "/": 9, negative: 1, "**": 3 };

// Return a tree as LaTeX.
export function latex(tree, outer = 0) {
  const [a, b] = tree.args;
  const own = BINDING[tree.op] ?? 9;
  const wrap = (body) => (own < outer ? `\\left(${body}\\right)` : body);
  switch (tree.op) {
    case "number": return String(a).replace(/e\+?(-?\d+)/, " \\cdot 10^{$1}");
    case "x": return "x";
    case "parameter": return a.length === 1 ? a : `\\mathrm{${a.replaceAll("_", "\\_")}}`;
    case "constant": return a === "pi" ? "\\pi" : "e";
    case "+": return wrap(`${latex(a, 1)} + ${latex(b, 1)}`);
    case "-": return wrap(`${latex(a, 1)} - ${latex(b, 2)}`);
    case "*": return wrap(`${latex(a, 2)} \\, ${latex(b, 2)}`);
    case "/": return `\\frac{${latex(a)}}{${latex(b)}}`;
    case "negative": return wrap(`-${latex(a, 2)}`);
    case "**": return wrap(`${latex(a, 4)}^{${latex(b)}}`);
    case "exp": return `e^{${latex(a)}}`;
    case "sqrt": return `\\sqrt{${latex(a)}}`;
    case "abs": return `\\left|${latex(a)}\\right|`;
    case "where": return `\\begin{cases}${latex(b)} & ${latex(a)}\\\\${latex(tree.args[2])} & \\text{else}\\end{cases}`;
    case "and": case "or": return `${latex(a)} \\text{ ${tree.op} } ${latex(b)}`;
    case "<": case ">": return `${latex(a)} ${tree.op} ${latex(b)}`;
    case "<=": return `${latex(a)} \\le ${latex(b)}`;
    case ">=": return `${latex(a)} \\ge ${latex(b)}`;
    default: return `\\operatorname{${tree.op.replaceAll("_", "\\_")}}\\left(${tree.args.map((each) => latex(each)).join(", ")}\\right)`;
  }
}
