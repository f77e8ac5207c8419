// Line plots as SVG: text that can be looked at, copied and saved.

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [430, 290, 58, 16, 24, 42];
const ROW = 16; // a line of the legend, which stands between title and plot and makes the picture higher

function ticks(low, high, log) {
  if (log) {
    const every = Math.max(1, Math.ceil((Math.log10(high) - Math.log10(low)) / 6));
    const first = Math.ceil(Math.log10(low) - 1e-9);
    return Array.from({ length: 40 }, (_, k) => 10 ** (first + k * every)).filter((each) => each <= high * (1 + 1e-9));
  }
  const rough = (high - low) / 6;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * unit).find((each) => each >= rough);
  return Array.from({ length: 14 }, (_, k) => (Math.ceil(low / step - 1e-9) + k) * step).filter((each) => each <= high + step * 1e-9);
}

const label = (value, log) => {
  if (log && (value < 0.01 || value > 100)) return `10${superscript(Math.round(Math.log10(value)))}`;
  return String(Number(value.toPrecision(6))).replace("-", "\u2212");
};
const superscript = (power) => [...String(power)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("");
const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

function range(values, log) {
  const usable = values.filter((each) => Number.isFinite(each) && (!log || each > 0));
  if (!usable.length) return log ? [0.1, 1] : [0, 1];
  let [low, high] = [Math.min(...usable), Math.max(...usable)];
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 1, high + 1];
  if (log) { const room = (high / low) ** 0.04; return [low / room, high * room]; }
  const room = 0.04 * (high - low);
  return [low - room, high + room];
}

// Return the SVG of series {name, colour, dash, x, y}; a value that is not finite, or not positive on a log axis, is a gap.
// `mark` is an x at which a line is drawn.
export function plot({ title, xlabel, ylabel, series, xlog = false, ylog = false, ylim = null, legend = false, mark = null }) {
  const rows = legend ? Math.ceil(series.length / 2) : 0;
  const [top, bottom] = [TOP + ROW * rows, HEIGHT + ROW * rows - BOTTOM];
  const [x0, x1] = spread(series.flatMap((each) => each.x));
  const [y0, y1] = ylim ?? range(series.flatMap((each) => each.y), ylog);
  const scale = (low, high, from, to, log) => (value) => {
    const [a, b, v] = log ? [low, high, value].map(Math.log) : [low, high, value];
    return from + ((to - from) * (v - a)) / (b - a);
  };
  const px = scale(x0, x1, LEFT, WIDTH - RIGHT, xlog);
  const py = scale(y0, y1, bottom, top, ylog);
  const path = ({ x, y }) => {
    let pen = "M";
    return x.map((each, i) => {
      if (!Number.isFinite(y[i]) || (ylog && y[i] <= 0) || (xlog && each <= 0)) { pen = "M"; return ""; }
      const step = `${pen}${px(each).toFixed(2)} ${Math.max(-1e4, Math.min(1e4, py(y[i]))).toFixed(2)}`;
      pen = "L";
      return step;
    }).join("");
  };
  const id = `clip${plot.count = (plot.count ?? 0) + 1}`;
  const grid = [
    ...ticks(x0, x1, xlog).map((t) => `<path class="grid" d="M${px(t).toFixed(1)} ${top}V${bottom}" stroke="#8884"/><text x="${px(t).toFixed(1)}" y="${bottom + 15}" text-anchor="middle">${label(t, xlog)}</text>`),
    ...ticks(y0, y1, ylog).map((t) => `<path class="grid" d="M${LEFT} ${py(t).toFixed(1)}H${WIDTH - RIGHT}" stroke="#8884"/><text x="${LEFT - 6}" y="${(py(t) + 4).toFixed(1)}" text-anchor="end">${label(t, ylog)}</text>`),
  ];
  const lines = series.map((each) => `<path fill="none" stroke="${each.colour}" stroke-width="2"${dashed(each)} d="${path(each)}"><title>${escape(each.name)}</title></path>`);
  if (mark !== null) lines.push(`<path class="mark" d="M${px(mark).toFixed(1)} ${top}V${bottom}" stroke="currentColor" stroke-dasharray="2 2"/>`);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${bottom + BOTTOM}" role="img" aria-label="${escape(`${title}: ${series.map((each) => each.name).join(", ")}`)}" font-family="sans-serif" font-size="12" fill="currentColor">
<clipPath id="${id}"><rect x="${LEFT}" y="${top}" width="${WIDTH - LEFT - RIGHT}" height="${bottom - top}"/></clipPath>
<text x="${LEFT}" y="15" font-size="13" font-weight="bold">${escape(title)}</text>${grid.join("")}
<rect x="${LEFT}" y="${top}" width="${WIDTH - LEFT - RIGHT}" height="${bottom - top}" fill="none" stroke="currentColor"/>
<g clip-path="url(#${id})">${lines.join("")}</g>${legend ? keys(series) : ""}
<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${bottom + BOTTOM - 8}" text-anchor="middle">${escape(xlabel)}</text>
<text transform="translate(13 ${(top + bottom) / 2}) rotate(-90)" text-anchor="middle">${escape(ylabel)}</text></svg>`;
}

const dashed = ({ dash }) => (dash ? ` stroke-dasharray="${dash}"` : "");
// The legend: two names a line, from under the title.
const keys = (series) => series.map(({ name, colour, dash }, i) => {
  const [x, y] = [LEFT + (i % 2) * 180, TOP + 4 + ROW * Math.floor(i / 2)];
  return `<path d="M${x} ${y}h26" stroke="${colour}" stroke-width="2"${dashed({ dash })}/><text x="${x + 32}" y="${y + 4}">${escape(name)}</text>`;
}).join("");
const spread = (values) => [Math.min(...values), Math.max(...values)];

// The triangle of policies over three responses, with paths of probabilities.
export function triangle({ title, paths, points }) {
  const [x0, y0, side] = [85, 282, 262];
  const at = ([, b, c]) => `${(x0 + side * (b + c / 2)).toFixed(2)} ${(y0 - side * c * Math.sqrt(3) / 2).toFixed(2)}`;
  const lines = paths.map((each) => `<path fill="none" stroke="${each.colour}" stroke-width="2"${dashed(each)} d="M${each.policy.map(at).join("L")}"><title>${escape(each.name)}</title></path>`);
  const marks = points.map((each) => `<circle transform="translate(${at(each.policy)})" r="5" fill="${each.colour}" stroke="currentColor"><title>${escape(each.name)}</title></circle><text transform="translate(${at(each.policy)})" dx="${each.dx ?? 10}" dy="${each.dy ?? 4}">${escape(each.name)}</text>`);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT + ROW}" role="img" aria-label="${escape(title)}" font-family="sans-serif" font-size="12" fill="currentColor">
<text x="8" y="15" font-size="13" font-weight="bold">${escape(title)}</text><path d="M${at([1, 0, 0])}L${at([0, 1, 0])}L${at([0, 0, 1])}Z" fill="none" stroke="currentColor"/>
${keys(paths)}${["response 1", "response 2", "response 3"].map((name, i) => `<text transform="translate(${at([0, 1, 2].map((k) => Number(k === i)))})" dx="${[-70, 8, -74][i]}" dy="${[5, 5, 4][i]}">${name}</text>`).join("")}${lines.join("")}${marks.join("")}</svg>`;
}
