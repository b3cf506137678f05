// Small parts: a badge, a duration, a time, an element.

// A table's rows by mouse and keyboard: each has `data-row`, one of them tabindex 0.
// *open(id)*: it was chosen; *moved(id)*: it has the focus now; *toggle(id)*: x was pressed.
function walk(body, { open, moved, toggle }) {
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-row]");
    if (!row || event.target.closest("a, button, input, label") || event.shiftKey || String(getSelection())) return;
    if (!event.metaKey && !event.ctrlKey) open(row.dataset.row);
  });
  body.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr[data-row]");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const rows = body.rows;
    const at = row.sectionRowIndex;
    const key = { j: "ArrowDown", k: "ArrowUp", " ": "Enter" }[event.key] ?? event.key;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[key];
    if (key === "Enter" && event.target === row) open(row.dataset.row);
    else if (key === "x" && toggle) toggle(row.dataset.row);
    else if (to !== undefined && rows[to]) {
      row.tabIndex = -1;
      rows[to].tabIndex = 0;
      rows[to].focus();
      moved?.(rows[to].dataset.row);
    } else if (to === undefined) return;
    event.preventDefault();
  });
}

// What to do first, where nothing has run yet.
function teach(empty, deployments) {
  const code = (text) => h("pre", {}, text);
  if (deployments?.length) {
    empty.replaceChildren(h("h2", {}, "No runs yet"), h("p", {}, "The first one comes with the schedule, or now:"),
      code(`flowkit run ${shell(deployments[0])}`));
  } else {
    empty.replaceChildren(h("h2", {}, "Nothing has run yet"),
      h("p", {}, "Run a notebook once:"), code("flowkit run NOTEBOOK.ipynb"),
      h("p", {}, "Run it every morning at six:"), code('flowkit deploy NOTEBOOK.ipynb --cron "0 6 * * *"'),
      h("p", {}, "And let somebody do the work:"), code("flowkit worker"));
  }
}

function nodeRow() {
  return h("tr", {}, h("td", { class: "state" }), h("td", { class: "node" }, h("div", { class: "name" }), h("div", { class: "why" })),
    h("td", { class: "lane" }, h("div", { class: "bar" })), h("td", { class: "duration" }));
}

function fillNode(row, node, { from, to, now }) {
  const [state, name, lane, took] = row.cells;
  if (row.dataset.state !== node.state) {
    row.dataset.state = node.state;
    state.replaceChildren(mark(node.state));
    state.title = node.state;
  }
  write(name.children[0], node.name);
  name.children[0].title = node.name;
  write(name.children[1], node.error || node.note || (node.waits ? `waits for ${node.waits[0]} until ${timeOfDay(node.waits[1])}` : ""));
  const bar = lane.firstChild;
  bar.className = `bar ${node.state}`;
  const begin = node.started ?? to;
  const end = node.finished ?? (node.state === "running" ? now : begin);
  bar.hidden = node.started === null;
  bar.style.left = `${(100 * (begin - from)) / (to - from)}%`;
  bar.style.width = `${(100 * (end - begin)) / (to - from)}%`;
  write(took, duration(node, now));
}

const WHAT = {
  cell: "", parameter: "parameter", package: "package", python: "", host: "", commit: "", result: "result of",
  duration: "time of", output: "output of",
};

// One thing that differs from an earlier run.
function change({ kind, name, before, after, lines, suspect }) {
  const code = kind === "cell" || kind === "output";
  const none = kind === "parameter" ? "its default" : "none";
  const short = (value) => (kind === "commit" ? value.replace(/^([0-9a-f]{10})[0-9a-f]*/, "$1") : value);
  const side = (value, style) => h("span", { class: value === null ? "none" : style, title: value }, value === null ? none : short(value));
  const from = code || (before === after) ? "" : h("span", { class: "values" }, side(before, "old"), " → ", side(after, "new"));
  const fresh = kind === "cell" && !before ? h("span", { class: "new" }, "new") : kind === "cell" && !after ? h("span", { class: "old" }, "gone") : "";
  const body = lines.map((line) => h("span", { class: code ? { "+": "new", "-": "old", "…": "none" }[line[0]] : null }, `${line}\n`));
  return h("li", {},
    h("div", { class: "what" }, h("span", { class: "kind" }, WHAT[kind]), h("b", {}, name), fresh, from),
    suspect ? h("div", { class: "suspect" }, suspect) : "",
    lines.length ? h("pre", { tabindex: "0" }, ...body) : "");
}

function timeOfDay(seconds) {
  return new Date(seconds * 1000).toTimeString().slice(0, 8);
}

function fact([name, value, width]) {
  return h("div", { class: width }, h("dt", { title: name }, name), h("dd", { title: value }, value));
}

// What was used over the run's time, as a line. *column*: of the points; *top*: the end of its scale.
function meter(name, text, points, column, top = 0, limit = null) {
  const svg = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const from = points[0][0] - points[0][1];
  const span = Math.max(points.at(-1)[0] - from, 0.001);
  const high = Math.max(top, ...points.map((point) => point[column])) * 1.08 || 1;
  const x = (at) => (100 * (at - from)) / span;
  const y = (value) => 28 - (27 * value) / high;
  const steps = points.map((point) => `${x(point[0] - point[1]).toFixed(2)},${y(point[column]).toFixed(2)} ${x(point[0]).toFixed(2)},${y(point[column]).toFixed(2)}`).join(" ");
  const chart = svg("svg", { viewBox: "0 0 100 28", preserveAspectRatio: "none", "aria-hidden": "true" });
  chart.append(svg("polygon", { points: `0,28 ${steps} 100,28` }), svg("polyline", { points: steps }));
  if (limit) chart.append(svg("line", { x1: 0, x2: 100, y1: y(limit), y2: y(limit) }));
  return h("figure", {}, h("figcaption", {}, h("b", {}, name), h("span", {}, text)), chart);
}

function bytes(amount) {
  for (const unit of ["bytes", "kB", "MB"]) {
    if (amount < 1000) return `${Number(amount.toPrecision(3))} ${unit}`;
    amount /= 1000;
  }
  return `${Number(amount.toPrecision(3))} GB`;
}

function badge({ state, cancelling }) {
  const soon = cancelling ? "cancelled" : state; // it runs, until its kernel has ended
  return h("span", { class: `badge ${soon}`, title: cancelling ? "running, until its kernel has ended" : state },
    mark(state), h("span", {}, cancelling ? "cancelling" : state));
}

const MARKS = {
  pending: "M6 1.75a4.25 4.25 0 1 0 0 8.5a4.25 4.25 0 1 0 0-8.5z",
  running: "M6 1.75a4.25 4.25 0 0 1 4.25 4.25",
  succeeded: "M2 6.4l2.8 2.8L10.2 3",
  failed: "M2.5 2.5l7 7m0-7l-7 7",
  cancelled: "M2.5 6h7",
  skipped: "M2 3l4 3-4 3zm6 0v6",
};

// A shape for each state, so that it is not told by colour alone.
function mark(state) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 12 12");
  svg.setAttribute("class", `mark ${state}`);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", MARKS[state]);
  svg.append(path);
  return svg;
}

function duration({ state, started, finished }, now) {
  if (!started || (!finished && state !== "running")) return "";
  const seconds = Math.max(0, (finished ?? now) - started);
  if (!finished) return clock(Math.floor(seconds));
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : clock(Math.round(seconds));
}

function clock(seconds) {
  if (seconds < 60) return `${seconds} s`;
  const two = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

// In the viewer's own zone. Short: without the date if it is today's, without the year if it is this one's.
function when(seconds, whole = false) {
  if (!seconds) return "";
  const at = new Date(seconds * 1000);
  const two = (n) => String(n).padStart(2, "0");
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const today = new Date();
  if (whole) return `${day} ${time}`;
  if (at.toDateString() === today.toDateString()) return time;
  return `${at.getFullYear() === today.getFullYear() ? day.slice(5) : day} ${time.slice(0, 5)}`;
}

function count(number) {
  return number.toLocaleString("en-US");
}

// As a terminal shows it: without colours, and what stood before a \r written over.
function plain(text) {
  text = text.replace(/\x1b\[[0-?]*[ -/]*[@-~]/g, "").replace(/\r\n/g, "\n");
  if (!text.includes("\r")) return text;
  return text.split("\n").map((line, index, lines) => {
    const end = index === lines.length - 1 && line.endsWith("\r") ? line.slice(0, -1).split("\r").at(-1) + "\r" : null;
    return end ?? line.split("\r").at(-1);
  }).join("\n");
}

function shell(name) {
  return /^[\w.-]+$/.test(name) ? name : `"${name}"`;
}

function write(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}

// An element with attributes and children; strings become text.
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // A browser that keeps nothing still shows everything.
  }
}
