// Small pieces of a page. Text becomes text and nothing else: no name of a job can become markup.

export function element(tag, attributes = {}, ...children) {
  return made(document.createElement(tag), attributes, children);
}

export function drawn(tag, attributes = {}, ...children) {
  return made(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function made(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

// Leaves alone what says so already, and with it what a reader has selected, or a screen reader is at.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function table(caption, heads, rows, from = 1) {
  const cell = (content, index) => {
    if (index === 0) return element("th", { scope: "row" }, content);
    return element("td", index >= from ? { class: "number" } : {}, content);
  };
  const head = heads.map((text, index) => element("th", { scope: "col", class: index >= from ? "number" : "" }, text));
  return element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    element("table", {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell))))));
}

// Numbers come as JSON has them: 64-bit ones as text, as are NaN and Infinity; what is 0 may be left out.
export const value = (number) => (number === undefined || number === null ? undefined : Number(number));
export const whole = (number) => Math.round(Number(number ?? 0)).toLocaleString("en");

export function figure(number) {
  if (number === undefined) return "–";
  if (!Number.isFinite(number)) return String(number);
  const size = Math.abs(number);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return number.toExponential(2).replace(/\.?0+e/, "e");
  return number.toLocaleString("en", { maximumSignificantDigits: 4 });
}

export const percent = (number) => (number === undefined ? "–" : `${figure(Math.round(number * 1000) / 10)} %`);
export const sentence = (text) => text && `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
export const words = (name) => (name.charAt(0) + name.slice(1).toLowerCase()).replaceAll("_", " ");

export function clock(time) {
  return element("time", { datetime: time }, new Date(time).toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" }));
}

export function lasting(seconds) {
  if (seconds < 60) return `${figure(seconds < 10 ? Math.round(seconds * 10) / 10 : Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function state(name) {
  return element("span", { class: `state ${name}` }, words(name));
}

export function bar(progress, label) {
  const total = Number(progress.totalSteps ?? 0);
  return element("progress", { max: total || 1, value: Number(progress.step ?? 0), "aria-label": label });
}
