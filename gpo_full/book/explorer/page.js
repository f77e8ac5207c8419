// The page: a state, drawn again whenever a control changes it, and kept in the address so that it can be shared.

import { FormulaError, latex, nearest, parse } from "./formula.js";
import { compile } from "./jets.js";
import { plot, triangle } from "./plot.js";
import { psi, target } from "./risk.js";
import { strength } from "./strength.js";
import { mixturePath, simplexPath } from "./toys.js";

const DATA = JSON.parse(document.getElementById("data").textContent);
// Names and aliases are found in any case, and with _ for hyphens.
const spelled = (name) => name.trim().toLowerCase().replace(/[-. ]/g, "_");
const CATALOGUE = new Map(DATA.losses.map((each) => [each.name, each]));
const NAMED = new Map([...CATALOGUE, ...Object.entries(DATA.aliases).map(([alias, name]) => [spelled(alias), CATALOGUE.get(name)])]);
const OTHERS = ["#44AA99", "#CC6677", "#7788DD", "#228833", "#AA8866", "#661100", "#999999"];
const DASHES = [null, "8 3", "3 3", "10 3 2 3", "1 3", "12 5", "5 2 1 2"];
const DEFAULTS = {
  losses: ["logistic", "squared", "hinge"], beta: 0.1, match: true, convention: "beta", length: 150, axis: "x", span: 6,
  reference: "0.7, 0.29, 0.01", start: "0.01, 0.5, 0.49", behaviour: "reference", means: "-2, 2", weights: "3, 0", sampler: "wide", time: 100,
};
const $ = (id) => document.getElementById(id);
let state = { ...DEFAULTS };
const drawn = {};

function fraction(text) {
  const match = /^\s*(-?\d*\.?\d+(?:e-?\d+)?)\s*(?:\/\s*(\d*\.?\d+))?\s*$/i.exec(text);
  return match ? Number(match[1]) / Number(match[2] ?? 1) : Number.NaN;
}

// "formula; tau = 0.1" or a catalogue name, with the same parameters.
function read(text) {
  const [head, ...rest] = text.split(";").map((each) => each.trim());
  const known = NAMED.get(spelled(head));
  const parameters = Object.fromEntries(Object.entries(known?.parameters ?? {}).map(([name, value]) => [name, fraction(value)]));
  for (const each of rest.flatMap((part) => part.split(",")).filter((part) => part.trim())) {
    const [, name, value] = /^\s*([A-Za-z_]\w*)\s*=\s*(.+)$/.exec(each) ?? [];
    const number = fraction(value ?? "");
    if (!Number.isFinite(number)) throw new FormulaError(`'${each.trim()}' is not NAME=NUMBER`);
    if (known && !(name in parameters)) throw new FormulaError(`${head} has no parameter '${name}'${nearest(name, Object.keys(parameters))}`);
    parameters[name] = number;
  }
  if (!known && /^[a-z_]\w*$/i.test(head) && head !== "x") {
    throw new FormulaError(`unknown loss '${head}'${nearest(head, [...CATALOGUE.keys(), ...Object.keys(DATA.aliases)])}`);
  }
  const tree = parse(known?.formula ?? head, parameters);
  const f = compile(tree, parameters);
  if (!Number.isFinite(f(0)[0])) throw new FormulaError("f(0) is not a finite number");
  return { name: known?.name ?? head, text, f, tree, known, ...strength(f) };
}

function styled(losses) {
  let other = 0;
  return losses.map((each, i) => ({ ...each, colour: DATA.colours[each.name] ?? OTHERS[other++ % OTHERS.length], dash: DASHES[i % DASHES.length] }));
}

// The first loss has the beta of the slider; with matching, the others what gives the same beta R.
function withBetas(losses) {
  const anchor = losses[0];
  return losses.map((each) => {
    const refused = each.refusal ?? (anchor.refusal && `the first loss: ${anchor.refusal}`);
    if (!state.match || each === anchor) return { ...each, beta: state.beta };
    return refused ? { ...each, beta: null, refused } : { ...each, beta: (state.beta * anchor.R) / each.R };
  });
}

const linspace = (low, high, count) => Array.from({ length: count }, (_, i) => low + ((high - low) * i) / (count - 1));
const show = (value) => (value === null || Number.isNaN(value) ? "none" : Number.isFinite(value) ? String(Number(value.toPrecision(6))) : value > 0 ? "∞" : "−∞").replace("-", "−");

// A picture is copied with its legend, which on the page is the table of losses.
function draw(id, options) {
  drawn[id] = { series: options.series, svg: () => plot({ ...options, legend: true }) };
  $(id).querySelector(".figure").innerHTML = plot(options);
}

function drawShapes(losses) {
  const inRho = state.axis === "rho";
  const x = linspace(-state.span, state.span, 601);
  const usable = losses.filter((each) => !inRho || each.beta !== null);
  const label = inRho ? "margin ρ (nats)" : "scaled margin x = βρ";
  [["f", "f(x)", [-0.4, 5]], ["slope", "f′(x)", [-4, 1.2]], ["curvature", "f″(x)", [-1, 3]]].forEach(([id, title, ylim], order) => {
    const series = usable.map(({ name, colour, dash, f, beta }) => ({ name, colour, dash, x, y: x.map((each) => f(inRho ? beta * each : each)[order]) }));
    draw(id, { title: inRho ? title.replace("x", "βρ") : title, xlabel: label, ylabel: inRho ? title.replace("x", "βρ") : title, series, ylim: inRho ? null : ylim });
  });
}

// Below a hundred times its own rounding error a value says nothing: it is left out.
const sure = (value, error) => (Math.abs(value) > 100 * error ? Math.abs(value) : Number.NaN);

function drawTails(losses) {
  const x = Array.from({ length: 200 }, (_, i) => 0.1 * 1000 ** (i / 199));
  for (const [id, side, title] of [["right", 1, "Slope on the right: how hard a learnt pair is still pushed"], ["left", -1, "Loss on the left: what a wrong pair costs"]]) {
    const series = losses.map(({ name, colour, dash, f }) => ({ name, colour, dash, x, y: x.map((each) => {
      const jet = f(side * each);
      return side > 0 ? sure(jet[1], jet[4]) : sure(jet[0], jet[3]);
    }) }));
    draw(id, { title, xlabel: side > 0 ? "x" : "−x", ylabel: side > 0 ? "|f′(x)|" : "|f(x)|", series, xlog: true, ylog: true, ylim: [1e-12, 1e6] });
  }
}

function drawTargets(losses) {
  const p = linspace(0.01, 0.99, 99);
  const theta = linspace(0, 0.98, 50);
  const finite = (value) => (Number.isFinite(value) ? value : Number.NaN);
  const link = losses.map(({ name, colour, dash, f }) => ({ name, colour, dash, x: p, y: p.map((each) => finite(target(f, each))) }));
  const gap = losses.map(({ name, colour, dash, f }) => ({ name, colour, dash, x: theta, y: theta.map((each) => psi(f, each)) }));
  draw("link", { title: "Link: the target x*(p)", xlabel: "share p of raters for the first response", ylabel: "x* = βρ*", series: link, ylim: [-5, 5] });
  draw("psi", { title: "ψ(θ): what a wrong sign costs at least", xlabel: "θ = 2p − 1", ylabel: "ψ", series: gap });
}

function drawTable(losses) {
  const rows = losses.map(({ name, known, text, R, left, right, jumps, refused, beta, f, colour, dash }, i) => {
    const x = target(f, 0.75);
    const shown = refused ? `none: ${refused}` : inConvention(name, beta);
    const margin = beta === null ? "" : show(x / beta);
    return `<tr><th scope="row"><svg class="swatch" viewBox="0 0 40 6" aria-hidden="true"><path d="M0 3H40" stroke="${colour}" stroke-width="3"${dash ? ` stroke-dasharray="${dash}"` : ""}/></svg> ${escapeHtml(text)}</th><td>${known && text === name ? known.mathml : `<code>${escapeHtml(known?.formula ?? text)}</code>`}</td><td>${show(R)}${jumps ? ` (left ${show(left)}, right ${show(right)})` : ""}</td><td>${shown}</td><td>${beta === null || R === null ? "" : show(beta * R)}</td><td>${show(x)}</td><td>${margin}</td><td><button type="button" data-latex="${i}">LaTeX</button> <button type="button" data-remove="${i}" aria-label="remove ${escapeHtml(text)}">×</button></td></tr>`;
  });
  $("rows").innerHTML = rows.join("");
  $("said").textContent = `ρ is summed over the tokens of a response, in nats, but for what is named TRL's. ${SAID[state.convention].replaceAll("N", state.length)} ${state.match ? "The other losses have the β that gives the same βR as the first: as strong a regularisation, to second order in the margin. That 0 alone minimises f(x) + f(−x) is looked at within ±20, where gpo beta asks for a proof." : "All losses have the same β."}`;
}

const SAID = {
  beta: "IPO is written (x − 1)², x = βρ.",
  tau: "IPO is written (ρ − 1/(2τ))²: τ = β/2.",
  mean: "IPO is written as TRL does, (ρ̄ − 1/(2β))² with ρ̄ averaged over the tokens: about N times τ, where responses have N tokens in the mean.",
};

// (x - 1)^2 with x = beta rho is IPO's (rho - 1/(2 tau))^2 up to scale, with beta = 2 tau; TRL averages rho over N tokens.
function inConvention(name, beta) {
  if (!["squared", "ipo_tau"].includes(name)) return `β = ${show(beta)}`;
  const tau = name === "squared" ? beta / 2 : beta;
  if (state.convention === "mean") return `TRL's β = ${show(tau * state.length)}`;
  return state.convention === "tau" || name === "ipo_tau" ? `τ = ${show(tau)}` : `β = ${show(beta)}`;
}

const escapeHtml = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

function numbers(id, count, { positive = false, total = null } = {}) {
  const values = state[id].split(",").map(fraction);
  if (values.length !== count || values.some((each) => !Number.isFinite(each) || (positive && each <= 0))) {
    throw new FormulaError(`${$(id).dataset.name}: ${count} ${positive ? "positive " : ""}numbers, separated by commas, are needed, not '${state[id]}'`);
  }
  if (total !== null && Math.abs(values.reduce((a, b) => a + b) - total) > 1e-9) throw new FormulaError(`${$(id).dataset.name}: the numbers must sum to ${total}, not '${state[id]}'`);
  return values;
}

const FLOWS = [["kl", "on KL(π‖π_ref)", "#0072B2", null], ["regularizer", "on the offline regulariser", "#D55E00", "6 3"]];

function drawSimplex() {
  const [reference, start] = [numbers("reference", 3, { positive: true, total: 1 }), numbers("start", 3, { positive: true, total: 1 })];
  const mu = { reference, uniform: [1 / 3, 1 / 3, 1 / 3], policy: null }[state.behaviour];
  const steps = 2000;
  const paths = FLOWS.map(([objective, name, colour, dash]) => ({ ...simplexPath({ reference, start, mu, objective, lr: 0.05, steps }), name, colour, dash }));
  const thin = (values) => values.filter((_, i) => i % 10 === 0);
  const svg = triangle({ title: "Descent over three responses, 2,000 steps of 0.05", paths: paths.map((each) => ({ ...each, policy: thin(each.policy) })),
    points: [{ name: "reference", policy: reference, colour: "#009E73", dx: 4, dy: 17 }, { name: "start", policy: start, colour: "#CC79A7" }] });
  const shares = paths.flatMap(({ name, policy }) => [0, 1, 2].map((k) => ({ name: `${name}, response ${k + 1}`, x: policy.map((_, i) => i), y: policy.map((each) => each[k]) })));
  drawn.triangle = { svg: () => svg, series: shares };
  $("triangle").querySelector(".figure").innerHTML = svg;
  const x = Array.from({ length: steps + 1 }, (_, i) => i);
  const series = paths.map((each) => ({ name: each.name, colour: each.colour, dash: each.dash, x, y: each.kl }));
  draw("simplexKl", { title: "KL(π‖π_ref) along the way", xlabel: "step", ylabel: "nats", series, legend: true });
}

let movie = null;

function computeMixture() {
  const means = numbers("means", 2), logits = numbers("weights", 2);
  const behaviour = { reference: "reference", policy: "policy", near: [2, 0.5], wide: [2, 1] }[state.sampler];
  movie = mixturePath({ reference: { means: [-2, 2], logits: [0, 0] }, means, logits, behaviour, objective: "regularizer", lr: 0.05, steps: 400 });
}

function drawMixture() {
  const t = Math.round((state.time / 100) * 400);
  const series = [{ name: "π_ref", colour: "#009E73", dash: "4 3", x: movie.grid, y: movie.reference }, { name: `π at step ${t}`, colour: "#0072B2", dash: null, x: movie.grid, y: movie.policy[t] }];
  draw("density", { title: `Density of the policy at step ${t}`, xlabel: "response y", ylabel: "density", series, ylim: [-0.01, 0.45], legend: true });
  const x = Array.from({ length: 401 }, (_, i) => i);
  const along = [{ name: "KL(π‖π_ref), nats", colour: "#0072B2", dash: null, x, y: movie.kl }, { name: "regulariser E_μ[ρ²/2], nats²", colour: "#D55E00", dash: "6 3", x, y: movie.regularizer }];
  draw("mixturePath", { title: "Descent on the regulariser, 400 steps of 0.05", xlabel: "step", ylabel: "nats, nats²", series: along, ylog: true, legend: true, mark: t });
  $("timeSaid").textContent = `step ${t}: KL ${show(movie.kl[t])} nats, regulariser ${show(movie.regularizer[t])} nats²`;
}

function say(text) {
  $("error").textContent = text;
}

function attempt(work) {
  try {
    work();
    return true;
  } catch (error) {
    if (!(error instanceof FormulaError)) throw error;
    say(error.message);
    return false;
  }
}

function render(changed = Object.keys(DEFAULTS)) {
  say("");
  const touches = (...keys) => keys.some((key) => changed.includes(key));
  if (touches("losses", "beta", "match", "convention", "length", "axis", "span")) {
    attempt(() => {
      const losses = withBetas(styled(state.losses.map(read)));
      drawTable(losses);
      drawShapes(losses);
      if (touches("losses")) { drawTails(losses); drawTargets(losses); }
    });
  }
  if (touches("reference", "start", "behaviour")) attempt(drawSimplex);
  if (touches("means", "weights", "sampler")) attempt(computeMixture);
  if (movie && touches("means", "weights", "sampler", "time")) drawMixture();
  const kept = Object.entries(state).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(DEFAULTS[key]));
  history.replaceState(null, "", kept.length ? `#${encodeURIComponent(JSON.stringify(Object.fromEntries(kept)))}` : "#");
}

function change(values) {
  Object.assign(state, values);
  render(Object.keys(values));
}

function fits(key, value) {
  if (key === "losses") return Array.isArray(value) && value.length > 0 && value.every((each) => typeof each === "string");
  if (typeof value !== typeof DEFAULTS[key]) return false;
  if ($(key)?.tagName === "SELECT") return [...$(key).options].some((each) => each.value === value);
  if (["beta", "length"].includes(key)) return value > 0 && Number.isFinite(value);
  return typeof value !== "number" || (value >= $(key).min && value <= $(key).max);
}

// What an address holds may be anything: only known keys of the right kind are taken.
function restore() {
  try {
    const found = JSON.parse(decodeURIComponent(location.hash.slice(1)) || "{}");
    for (const [key, value] of Object.entries(found)) {
      if (Object.hasOwn(DEFAULTS, key) && fits(key, value)) state[key] = Array.isArray(value) ? value.slice(0, 12) : value;
    }
    state.losses.map(read);
  } catch {
    state = { ...DEFAULTS };
    say("the address holds no state of this page: it was left out");
    return false;
  }
  return true;
}

function showControls() {
  for (const key of ["convention", "axis", "behaviour", "sampler", "reference", "start", "means", "weights", "time", "span", "length"]) $(key).value = state[key];
  $("lengthLabel").hidden = state.convention !== "mean";
  $("match").checked = state.match;
  $("beta").value = Math.log10(state.beta);
  $("betaNumber").value = state.beta;
}

function add() {
  const text = $("formula").value.trim();
  if (attempt(() => read(text)) && !state.losses.includes(text)) {
    change({ losses: [...state.losses, text] });
    $("formula").value = "";
  }
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  $("copied").textContent = "copied";
}

function csv({ series }) {
  const rows = series.flatMap(({ name, x, y }) => x.map((each, i) => `"${name.replaceAll('"', '""')}",${each},${y[i]}`));
  return ["name,x,y", ...rows].join("\n");
}

function listen() {
  $("add").addEventListener("click", add);
  $("formula").addEventListener("keydown", (event) => event.key === "Enter" && add());
  for (const key of ["convention", "axis", "behaviour", "sampler"]) $(key).addEventListener("change", () => { change({ [key]: $(key).value }); showControls(); });
  $("length").addEventListener("change", () => {
    const length = Number($("length").value);
    length > 0 && Number.isFinite(length) ? change({ length }) : say(`the mean length must be above 0, not '${$("length").value}'`);
  });
  for (const key of ["reference", "start", "means", "weights"]) $(key).addEventListener("change", () => change({ [key]: $(key).value }));
  for (const key of ["time", "span"]) $(key).addEventListener("input", () => change({ [key]: Number($(key).value) }));
  $("match").addEventListener("change", () => change({ match: $("match").checked }));
  $("beta").addEventListener("input", () => { change({ beta: Number((10 ** Number($("beta").value)).toPrecision(3)) }); $("betaNumber").value = state.beta; });
  $("betaNumber").addEventListener("change", () => {
    const beta = Number($("betaNumber").value);
    beta > 0 && Number.isFinite(beta) ? change({ beta }) : say(`β must be above 0, not '${$("betaNumber").value}'`);
    $("beta").value = Math.log10(state.beta);
  });
  $("rows").addEventListener("click", ({ target: { dataset } }) => {
    if (dataset.remove !== undefined && state.losses.length > 1) {
      change({ losses: state.losses.filter((_, i) => i !== Number(dataset.remove)) });
      ($("rows").querySelectorAll("[data-remove]")[dataset.remove] ?? $("formula")).focus(); // who comes by key goes on from here
    }
    if (dataset.latex !== undefined) { const loss = read(state.losses[Number(dataset.latex)]); copy(loss.known?.latex ?? latex(loss.tree)); }
  });
  document.addEventListener("click", ({ target: { dataset } }) => {
    if (dataset.svg) copy(drawn[dataset.svg].svg());
    if (dataset.csv) copy(csv(drawn[dataset.csv]));
  });
  $("theme").addEventListener("click", toggleTheme);
  $("permalink").addEventListener("click", () => copy(location.href));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") document.activeElement.blur();
    if (/^(SELECT|TEXTAREA)$/.test(event.target.tagName) || (event.target.tagName === "INPUT" && !/^(range|checkbox)$/.test(event.target.type))) return;
    if (event.key === "/") { event.preventDefault(); $("formula").focus(); }
    if (event.key === "d") toggleTheme();
    if (event.key === "[" || event.key === "]") { $("beta").value = Number($("beta").value) + (event.key === "]" ? 0.1 : -0.1); $("beta").dispatchEvent(new Event("input")); }
  });
  addEventListener("hashchange", () => { state = { ...DEFAULTS }; if (restore()) { showControls(); render(); } });
}

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

$("known").innerHTML = [...CATALOGUE.keys(), ...Object.keys(DATA.aliases)].map((name) => `<option value="${name}">`).join("");
for (const figure of document.querySelectorAll("figure[id]")) {
  figure.insertAdjacentHTML("beforeend", `<p class="tools"><button type="button" data-svg="${figure.id}">copy SVG</button> <button type="button" data-csv="${figure.id}">copy CSV</button></p>`);
}
listen();
const whole = restore();
showControls();
render();
if (!whole) say("the address holds no state of this page: it was left out");
// For the tests, which compare these numbers with the packages'.
window.explorer = { compile, read, parse, target, psi, simplexPath, mixturePath };
