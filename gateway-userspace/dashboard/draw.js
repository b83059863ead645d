// Elements, numbers and charts.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  // Text becomes text nodes only: nothing that a client sent is ever taken for markup.
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return `${(value / 1e9).toFixed(1)}G`;
  if (size >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (size >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  return size >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

export const rate = (value) => `${number(value)}/s`;

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 60) return `${Math.round(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min`;
  if (value < 86400) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} d`;
}

export const milliseconds = (value) =>
  value === null || value === undefined ? "–" : value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value.toFixed(value < 10 ? 2 : 0)} ms`;

const GOOD = new Set(["up", "ok", "running", "closed", "native", "on", "200"]);
const BAD = new Set(["down", "expired", "firing", "open", "failed"]);

export const badge = (text, kind) =>
  h("span", { class: `badge ${kind ?? (GOOD.has(text) ? "good" : BAD.has(text) ? "bad" : "warn")}` }, text);

export const card = (title, ...children) =>
  h("section", { class: "card" }, title === null ? null : h("h2", null, title), ...children);

/** columns: [title, cell(row), "number" | "actions" | undefined] */
export function table(caption, columns, rows, none) {
  if (rows.length === 0) return card(caption, h("p", { class: "faint" }, none ?? "None."));
  return h("div", { class: "card" }, h("table", null,
    h("caption", null, caption),
    h("thead", null, h("tr", null, columns.map(([title, , kind]) => h("th", { scope: "col", class: kind }, title)))),
    h("tbody", null, rows.map((row) => h("tr", null, columns.map(([, cell, kind]) => h("td", { class: kind }, cell(row))))))));
}

export const button = (text, action, kind) => h("button", { type: "button", class: kind, onclick: action }, text);

/** lines: [class, name, numbers]; the same time lies between all numbers. */
export function chart(title, lines, show, every) {
  const [width, height, left, bottom] = [600, 110, 4, 16];
  const most = Math.max(1e-9, ...lines.flatMap(([, , values]) => values));
  const longest = Math.max(2, ...lines.map(([, , values]) => values.length));
  const x = (index, count) => left + ((width - 2 * left) * (longest - count + index)) / (longest - 1);
  const y = (value) => 14 + (height - bottom - 14) * (1 - value / most);
  const points = (values) => values.map((value, index) => `${x(index, values.length).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const [first] = lines;
  const area = first[2].length < 2 ? null : s("polygon", {
    class: "area",
    points: `${x(0, first[2].length)},${y(0)} ${points(first[2])} ${x(first[2].length - 1, first[2].length)},${y(0)}`,
  });
  const last = lines.map(([, name, values]) => `${name} ${values.length === 0 ? "–" : show(values.at(-1))}`).join(", ");
  return h("section", { class: "card" },
    h("h2", null, title),
    s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${last}` },
      s("line", { class: "axis", x1: left, x2: width - left, y1: y(0), y2: y(0) }),
      area,
      lines.map(([kind, , values]) => s("polyline", { class: kind, points: points(values), "vector-effect": "non-scaling-stroke" }))),
    h("div", { class: "legend" },
      lines.map(([kind, name, values]) => h("span", { class: kind }, `${name} ${values.length === 0 ? "–" : show(values.at(-1))}`)),
      h("span", null, `most ${show(most <= 1e-9 ? 0 : most)}, last ${seconds(longest * every)}`)));
}

/** Both halves, and what goes through them at the moment. */
export function flow(now) {
  const box = (x, y, wide, title, text) => [
    s("rect", { x, y, width: wide, height: 58, rx: 8 }),
    s("text", { class: "title", x: x + 10, y: y + 24 }, title),
    s("text", { class: "rate", x: x + 10, y: y + 44 }, text),
  ];
  const arrow = (d, value, lost) =>
    s("path", { d, class: [lost ? "lost" : "", value > 0 ? "moving" : ""].join(" "), "marker-end": "url(#head)" });
  const said = `packets ${rate(now.packets)}, dropped ${rate(now.dropped)}, forwarded ${rate(now.forwarded)}, requests ${rate(now.requests)}, `
    + `answered by the gateway ${rate(now.own)}, to upstreams ${rate(now.upstream)}`;
  return h("section", { class: "card" }, h("h2", null, "Two halves"),
    s("svg", { class: "flow", viewBox: "0 0 980 196", role: "img", "aria-label": said },
      s("defs", null, s("marker", { id: "head", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
        s("path", { d: "M0 0L8 4L0 8z" }))),
      s("rect", { class: "half", x: 150, y: 8, width: 330, height: 180, rx: 10 }),
      s("text", { x: 162, y: 26 }, now.kernel),
      s("rect", { class: "half", x: 500, y: 8, width: 330, height: 180, rx: 10 }),
      s("text", { x: 512, y: 26 }, "userspace"),
      box(10, 56, 110, "clients", rate(now.packets) + " pkt"),
      box(170, 56, 130, "XDP", rate(now.passed) + " pass"),
      box(330, 56, 130, "steering", rate(now.connections) + " conn"),
      box(520, 56, 130, "requests", rate(now.requests)),
      box(680, 56, 130, "balancer", rate(now.upstream)),
      box(860, 56, 110, "upstreams", `${now.up} of ${now.targets} up`),
      arrow("M120 85H168", now.packets), arrow("M300 85H328", now.passed), arrow("M460 85H518", now.connections),
      arrow("M650 85H678", now.upstream), arrow("M810 85H858", now.upstream),
      arrow("M235 114V150", now.dropped, true), s("text", { class: "lost", x: 180, y: 170 }, `${rate(now.dropped)} dropped`),
      arrow("M280 114C320 150 400 160 486 160", now.forwarded), s("text", { class: "rate", x: 330, y: 178 }, `${rate(now.forwarded)} L4 forwarded`),
      arrow("M585 114V150", now.own, true), s("text", { class: "lost", x: 528, y: 170 }, `${rate(now.own)} answered here`)));
}
