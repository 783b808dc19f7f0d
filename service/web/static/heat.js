// A heat map: a row a layer, a column a look at them.

import { element, figure as told, table, whole } from "./dom.js";

const COLOURS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis
const LABELS = 150;
const MOST_COLUMNS = 160;
const TABLE_COLUMNS = 10;

// `read` gives a layer's number, or undefined; `log` colours by its order of magnitude.
export function heatMap(title, read, { log = false, tell = told } = {}) {
  const frame = element("figure", { "aria-label": title });
  const picture = element("canvas", { role: "img", tabindex: "0" });
  const readout = element("output");
  const details = element("details", {}, element("summary", {}, `${title} as a table`));
  frame.append(element("h2", {}, title, element("small", {}, log ? "logarithmic" : "")), picture, readout, details);
  frame.hidden = true;
  let looks = [], names = [], cells = [], row = 0, column = 0, pointed = false, high, low, drawnWidth;

  function draw(given) {
    if (given) arrange(given);
    frame.hidden = names.length === 0 || looks.length === 0;
    if (frame.hidden) return;
    drawnWidth = frame.clientWidth;
    const width = Math.max(drawnWidth, 260), each = names.length > 24 ? 10 : 18, tall = names.length * each;
    const pen = canvas(width, tall + 44);
    const style = getComputedStyle(frame), step = (width - LABELS) / looks.length;
    pen.font = `12px ${style.fontFamily}`;
    pen.textBaseline = "middle";
    names.forEach((name, r) => {
      pen.fillStyle = style.color;
      if (each > 12 || r % 2 === 0) pen.fillText(cut(name), 0, (r + 0.5) * each, LABELS - 10);
      cells[r].forEach((number, c) => {
        const share = portion(number);
        if (share === undefined) return;
        pen.fillStyle = colour(share);
        pen.fillRect(LABELS + c * step, r * each, step + 0.5, each - 1);
      });
    });
    pen.fillStyle = style.color;
    pen.fillText(`step ${whole(looks[0])}`, LABELS, tall + 10);
    pen.textAlign = "right";
    pen.fillText(`step ${whole(looks.at(-1))}`, width, tall + 10);
    legend(pen, style, width, tall + 32);
    if (pointed) {
      pen.strokeStyle = style.color;
      pen.lineWidth = 2;
      pen.strokeRect(LABELS + column * step, row * each, step, each - 1);
    }
    picture.setAttribute("aria-label", `${title} of ${names.length} layers in ${looks.length} looks, from ${tell(low)} to ${tell(high)}`);
    if (details.open) tabulate();
  }

  function arrange(given) {
    const every = Math.ceil(given.length / MOST_COLUMNS);
    const kept = given.filter((_, index) => (given.length - 1 - index) % every === 0);
    looks = kept.map((look) => look.step);
    names = [];
    cells = [];
    (given.at(-1)?.layers ?? []).forEach((layer, place) => {
      const numbers = kept.map((look) => (look.layers[place] ? read(look.layers[place]) : undefined));
      if (numbers.every((number) => number === undefined)) return;
      names.push(`${layer.layer} ${layer.kind}`);
      cells.push(numbers);
    });
    const all = cells.flat().filter((number) => Number.isFinite(number) && (!log || number > 0));
    low = log ? all.reduce((a, b) => Math.min(a, b), Infinity) : 0;
    high = log ? all.reduce((a, b) => Math.max(a, b), -Infinity) : 1;
    row = Math.min(row, Math.max(names.length - 1, 0));
    column = Math.min(column, Math.max(looks.length - 1, 0));
  }

  function canvas(width, height) {
    const sharp = window.devicePixelRatio || 1;
    picture.width = width * sharp;
    picture.height = height * sharp;
    picture.style.height = `${height}px`;
    const pen = picture.getContext("2d");
    pen.scale(sharp, sharp);
    return pen;
  }

  function portion(number) {
    if (number === undefined || Number.isNaN(number)) return undefined;
    if (!log) return Math.min(Math.max(number, 0), 1);
    if (number <= 0) return 0;
    if (!Number.isFinite(number) || low === high) return 1;
    return (Math.log(number) - Math.log(low)) / (Math.log(high) - Math.log(low));
  }

  function legend(pen, style, width, y) {
    const from = LABELS + 70, to = width - 70;
    for (let x = from; x < to; x += 1) {
      pen.fillStyle = colour((x - from) / (to - from));
      pen.fillRect(x, y - 5, 1.5, 10);
    }
    pen.fillStyle = style.color;
    pen.fillText(tell(low), from - 8, y);
    pen.textAlign = "left";
    pen.fillText(tell(high), to + 8, y);
  }

  function point(r, c) {
    pointed = true;
    row = Math.min(Math.max(r, 0), names.length - 1);
    column = Math.min(Math.max(c, 0), looks.length - 1);
    readout.textContent = `${names[row]}, step ${whole(looks[column])}: ${tell(cells[row][column])}`;
    draw();
  }

  function tabulate() {
    const from = Math.max(looks.length - TABLE_COLUMNS, 0);
    details.querySelector("div")?.remove();
    details.append(table(`${title} in the newest ${looks.length - from} of the looks shown`,
      ["Layer", ...looks.slice(from).map((step) => `Step ${whole(step)}`)],
      names.map((name, r) => [name, ...cells[r].slice(from).map(tell)])));
  }

  picture.addEventListener("pointermove", (event) => {
    const c = Math.floor(((event.offsetX - LABELS) / (picture.clientWidth - LABELS)) * looks.length);
    if (c >= 0) point(Math.floor(event.offsetY / (names.length > 24 ? 10 : 18)), c);
  });
  picture.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    point(pointed ? row + move[0] : 0, pointed ? column + move[1] : looks.length - 1);
  });
  details.addEventListener("toggle", () => details.open && tabulate());
  new ResizeObserver(() => frame.clientWidth !== drawnWidth && draw()).observe(frame);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  return { frame, draw };
}

const cut = (name) => (name.length > 24 ? `…${name.slice(-23)}` : name);

function colour(share) {
  const place = share * (COLOURS.length - 1), index = Math.min(Math.floor(place), COLOURS.length - 2), rest = place - index;
  const [red, green, blue] = COLOURS[index].map((from, part) => Math.round(from + (COLOURS[index + 1][part] - from) * rest));
  return `rgb(${red} ${green} ${blue})`;
}
