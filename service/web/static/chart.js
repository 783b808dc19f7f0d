// Curves over steps: drawn as SVG, read out by pointer or arrow keys, and there as a table.

import { drawn, element, figure as told, table, whole } from "./dom.js";

const HEIGHT = 230;
const MARGIN = { left: 58, right: 14, top: 8, bottom: 26 };
const DASHES = ["", "7 4", "2 3", "9 3 2 3", "", "7 4", "2 3", "9 3 2 3"];
const TABLE_ROWS = 100;
const LOG_BEYOND = 30; // times the smallest

// A figure with a heading, hidden while it is empty; of orders of magnitude, where `log` allows it. It draws series: { name, points: [[step, value], ...], thin }.
export function lineChart(title, { log = false } = {}) {
  const frame = element("figure", { "aria-label": title });
  const scale = element("small");
  const picture = drawn("svg", { role: "img", tabindex: "0", height: HEIGHT });
  const readout = element("output");
  const legend = element("ul", { class: "legend" });
  const details = element("details", {}, element("summary", {}, `${title} as a table`));
  frame.append(element("h2", {}, title, scale), picture, legend, readout, details);
  frame.hidden = true;
  let series = [], steps = [], at, chosen, plot;

  function draw(given) {
    if (given) series = given.map((line, place) => ({ ...line, place: place % DASHES.length })).filter(({ points }) => points.length);
    frame.hidden = series.length === 0;
    if (frame.hidden) return;
    steps = [...new Set(series.flatMap(({ points }) => points.map(([step]) => step)))].sort((a, b) => a - b);
    plot = plane(series, Math.max(frame.clientWidth, 260), log);
    scale.textContent = plot.log ? "logarithmic" : "";
    picture.setAttribute("viewBox", `0 0 ${plot.width} ${HEIGHT}`);
    picture.setAttribute("aria-label", `${title}: ${series.map((line) => `${line.name} ${told(line.points.at(-1)[1])}`).join(", ")}, at step ${whole(steps.at(-1))}`);
    picture.replaceChildren(...axes(plot), ...series.map((line) => curve(line, plot)));
    legend.replaceChildren(...series.map((line) => element("li", {},
      drawn("svg", { viewBox: "0 0 30 10", "aria-hidden": "true" }, drawn("path", { d: "M0 5H30", ...look(line) })), line.name)));
    if (at !== undefined) point(nearest(chosen));
    if (details.open) tabulate();
  }

  function point(index) {
    at = Math.min(Math.max(index, 0), steps.length - 1);
    const step = chosen = steps[at];
    picture.querySelector(".cursor")?.remove();
    picture.append(drawn("path", { class: "cursor", d: `M${plot.x(step)} ${MARGIN.top}V${HEIGHT - MARGIN.bottom}` }));
    const values = series.map((line) => [line.name, line.points.find((each) => each[0] === step)?.[1]]);
    readout.textContent = `step ${whole(step)}: ${values.filter(([, y]) => y !== undefined).map(([name, y]) => `${name} ${told(y)}`).join(", ")}`;
  }

  function nearest(step) {
    return steps.reduce((best, each, index) => (Math.abs(each - step) < Math.abs(steps[best] - step) ? index : best), 0);
  }

  function tabulate() {
    const shown = steps.slice(-TABLE_ROWS).reverse();
    const lines = series.map(({ points }) => new Map(points));
    details.querySelector("div")?.remove();
    details.append(table(`${title} at the newest ${shown.length} of ${steps.length} steps`, ["Step", ...series.map((line) => line.name)],
      shown.map((step) => [whole(step), ...lines.map((line) => told(line.get(step)))])));
  }

  picture.addEventListener("pointermove", (event) => {
    point(nearest(plot.step((event.offsetX / picture.clientWidth) * plot.width)));
  });
  picture.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: (at ?? steps.length) - 1, ArrowRight: (at ?? -1) + 1, Home: 0, End: steps.length - 1 };
    if (event.key in moves) {
      event.preventDefault();
      point(moves[event.key]);
    }
  });
  details.addEventListener("toggle", () => details.open && tabulate());
  new ResizeObserver(() => plot && frame.clientWidth !== plot.width && draw()).observe(frame);
  return { frame, draw };
}

function look(line) {
  return { class: line.thin ? "curve thin" : "curve", stroke: `var(--s${line.place + 1})`, "stroke-dasharray": DASHES[line.place] };
}

// Where things lie in the picture.
function plane(series, width, mayBend) {
  const values = series.flatMap(({ points }) => points.map(([, y]) => y)).filter(Number.isFinite);
  const xs = series.flatMap(({ points }) => points.map(([step]) => step));
  const first = xs.reduce((a, b) => Math.min(a, b)), last = xs.reduce((a, b) => Math.max(a, b));
  let low = values.reduce((a, b) => Math.min(a, b), Infinity), high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (low > high) [low, high] = [0, 1];
  const log = mayBend && low > 0 && high / low > LOG_BEYOND;
  if (low === high) [low, high] = [low - Math.abs(low || 1) * 0.1, high + Math.abs(high || 1) * 0.1];
  const bend = log ? Math.log10 : (y) => y;
  const padding = (bend(high) - bend(low)) * 0.04;
  const bottom = bend(low) - padding, top = bend(high) + padding;
  const across = width - MARGIN.left - MARGIN.right, up = HEIGHT - MARGIN.top - MARGIN.bottom;
  const span = last - first || 1;
  return {
    width, log, first, last,
    x: (step) => MARGIN.left + ((step - first) / span) * across,
    y: (y) => HEIGHT - MARGIN.bottom - ((bend(y) - bottom) / (top - bottom)) * up,
    step: (x) => first + ((x - MARGIN.left) / across) * span,
    xTicks: ticks(first, last, Math.max(2, Math.floor(across / 70))).filter(Number.isInteger),
    yTicks: log ? decades(bottom, top) : ticks(bottom, top, 5),
  };
}

function ticks(low, high, count) {
  const rough = (high - low || 1) / count, unit = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 5, 10].find((factor) => factor * unit >= rough) * unit;
  const found = [];
  for (let n = Math.ceil(low / size); n * size <= high; n += 1) found.push(Number((n * size).toPrecision(12)));
  return found;
}

function decades(bottom, top) {
  const every = Math.max(1, Math.ceil((top - bottom) / 6)), marks = top - bottom < 2.5 ? [1, 2, 5] : [1];
  const found = [];
  for (let n = Math.floor(bottom); n <= top; n += every) found.push(...marks.map((mark) => mark * 10 ** n));
  return found.filter((y) => Math.log10(y) >= bottom && Math.log10(y) <= top);
}

function axes(plot) {
  const floor = HEIGHT - MARGIN.bottom;
  const across = plot.yTicks.flatMap((y) => [
    drawn("path", { class: "grid", d: `M${MARGIN.left} ${plot.y(y)}H${plot.width - MARGIN.right}` }),
    drawn("text", { x: MARGIN.left - 8, y: plot.y(y) + 4, "text-anchor": "end" }, told(y))]);
  const along = plot.xTicks.map((step) => drawn("text", { x: plot.x(step), y: floor + 18, "text-anchor": "middle" }, whole(step)));
  return [...across, ...along];
}

function curve(line, plot) {
  const fit = line.points.filter(([, y]) => Number.isFinite(y) && (!plot.log || y > 0));
  if (fit.length === 1) return drawn("circle", { cx: plot.x(fit[0][0]), cy: plot.y(fit[0][1]), r: 3.5, fill: `var(--s${line.place + 1})` });
  const path = fit.map(([step, y], number) => `${number ? "L" : "M"}${plot.x(step).toFixed(1)} ${plot.y(y).toFixed(1)}`).join("");
  return drawn("path", { d: path, ...look(line) });
}
