// The page Queue & Redis: how deep, how long, how fast; and how Redis is.
class QueuePage {
  constructor(frame) {
    this.frame = frame;
    this.live = { lanes: [] };
    this.spans = {};
    this.since = h("span", { class: "hint-of" });
    this.lanes = table("Queues", ["Queue", "Waiting", "Oldest", "In/min", "Out/min", "Running", "Workers", "Waited", "Took"]);
    this.depth = h("div", { class: "inner" });
    this.store = h("div", { class: "inner" });
    this.redis = h("div", { class: "inner" });
    this.capped = h("p", { class: "note" });
    const plain = (title, element, more) => h("section", { class: "panel-of", "aria-label": title }, h("div", { class: "bar-of" }, h("h2", {}, title), more ?? ""), element);
    this.root = h("section", { class: "board queue-page", "aria-label": "Queue and Redis" },
      h("div", { class: "head" }, h("h1", {}, "Queue & Redis"), this.since),
      h("div", { class: "stack" },
        plain("Queues", h("div", {}, h("div", { class: "wide" }, this.lanes.element), this.lanes.noted, this.capped)),
        plain("Waiting runs", this.depth),
        plain("Store", this.store),
        plain("Redis", this.redis)));
  }

  open() {}

  ask() {
    return { lanes: {}, pulse: {}, times: {} };
  }

  draw({ lanes = {}, pulse = {}, times = {} }) {
    if (times.spans) this.spans = times.spans;
    if (lanes.lanes) this.shown = lanes.lanes;
    if ((times.spans || lanes.lanes) && this.shown) this.drawLanes();
    // Of what has not changed nothing is told.
    this.felt = { ...this.felt, ...pulse };
    if (Object.keys(pulse).length) this.drawPulse(this.felt);
    this.tick();
  }

  tick() {
    NowPage.prototype.tick.call(this);
  }

  aging(part, attributes, text) {
    return NowPage.prototype.aging.call(this, part, attributes, text);
  }

  drawLanes() {
    this.live.lanes = [];
    const { shown, all } = this.shown;
    const three = (values) => (values?.length ? h("span", { title: "the median, the 95th and the 99th percentile" }, span(values[0]), h("span", { class: "hint-of" }, ` · ${span(values[1])} · ${span(values[2])}`)) : "–");
    rows(this.lanes, shown.map((one) => ({ id: one.name, ...one })), (row, one) => [
      ...laneCells(this, "lanes", one),
      h("td", { class: one.running ? "figure" : "figure nil" }, count(one.running)),
      h("td", { class: one.served ? "figure" : "figure nil" }, count(one.served)),
      h("td", { class: "figure" }, three(this.spans.queues?.[one.name]?.waited)),
      h("td", { class: "figure" }, three(this.spans.queues?.[one.name]?.took)),
    ], true);
    this.lanes.note(all > shown.length ? `and ${count(all - shown.length)} others` : shown.length ? "" : ["No run has come to any queue yet. Submit one:", "flowkit run NOTEBOOK.ipynb"]);
    this.capped.hidden = !shown.length;
    write(this.capped, `Waited and took: of the runs that ended in the last hour, from the store${this.spans.capped ? `; of more than are read, those since ${when(this.spans.oldest)}` : ""}. The median · 95 % · 99 %.`);
  }

  drawPulse({ times, since, depth, others, running, latency, redis, silent, ping, memory, clients, hits }) {
    write(this.since, `Lines since ${when(since)}, when this server started; six hours at most. They begin anew with it.`);
    const lines = [...Object.entries(depth).map(([name, values]) => ({ name, values })), ...(others.length ? [{ name: "all other queues", values: others }] : [])];
    const charts = (...some) => h("div", { class: "charts" }, ...some);
    this.depth.replaceChildren(charts(
      plot("Waiting", lines.length ? "" : "nothing has waited", lines.length ? lines : [{ name: "", values: times.map(() => 0) }], times, { shown: (value) => count(Math.round(value)) }),
      plot("Running", `${count(running.at(-1) ?? 0)} now`, [{ name: "", values: running }], times, { shown: (value) => count(Math.round(value)) })));
    const last = latency.at(-1);
    this.store.replaceChildren(charts(plot("Latency", last === null || last === undefined ? "it does not answer" : `${span(last)} for the time and the queues`, [{ name: "", values: latency }], times, { shown: span })));
    this.drawRedis({ times, redis, silent, ping, memory, clients, hits });
  }

  drawRedis({ times, redis, silent, ping, memory, clients, hits }) {
    if (!redis) {
      const why = silent ? [h("p", { class: "line bad" }, `${capital(silent)}.`)]
        : [h("p", { class: "hint-of" }, "There is no Redis: a file of this machine announces runs. With workers on several machines, set "), h("pre", { class: "code" }, "export FLOWKIT_REDIS_URL=redis://HOST:6379/0")];
      this.redis.replaceChildren(...why);
      return;
    }
    const limit = redis.maxmemory || redis.total_system_memory;
    const asked = hits[0] + hits[1];
    const figures = [
      ["Memory", `${bytes(redis.used_memory)} of ${bytes(limit)}`, redis.maxmemory ? "its maxmemory" : "the machine's; it sets no maxmemory"],
      ["Connections", `${count(redis.connected_clients)} of ${count(redis.maxclients)}`, `${count(redis.blocked_clients)} wait for a message`],
      ["Evicted", count(redis.evicted_keys), redis.evicted_keys ? "messages may be lost: set maxmemory-policy noeviction" : "keys since it started"],
      ["Hit", asked ? `${Math.round((100 * hits[0]) / asked)} %` : "–", asked ? `${count(hits[0])} hit, ${count(hits[1])} missed since this server started` : "nothing was looked for"],
      ["Commands", `${count(redis.instantaneous_ops_per_sec)} a second`, `up for ${span(redis.uptime_in_seconds)}`],
    ];
    this.redis.replaceChildren(
      h("dl", { class: "tiles" }, ...figures.map(([name, value, hint]) => h("div", { class: name === "Evicted" && redis.evicted_keys ? "bad" : "" }, h("dt", {}, name), h("dd", {}, value), h("span", { class: "hint-of" }, hint)))),
      h("div", { class: "charts" },
        plot("Latency of a PING", span(redis.latency), [{ name: "", values: ping }], times, { shown: span }),
        plot("Memory used", bytes(redis.used_memory), [{ name: "", values: memory }], times, { shown: bytes, top: redis.maxmemory }),
        plot("Connections", count(redis.connected_clients), [{ name: "", values: clients }], times, { shown: (value) => count(Math.round(value)) })));
  }
}

function svg(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// A chart with its name, its scale, the time below it, and a key if it has several lines.
function plot(name, text, lines, times, options) {
  const key = lines.length > 1 ? h("ul", { class: "key" }, ...lines.map((line, place) => h("li", { class: `line-${place}`, title: line.name }, svgKey(), h("span", {}, line.name)))) : "";
  return h("figure", { class: "chart" }, h("figcaption", {}, h("b", {}, name), h("span", {}, text || (lines.length === 1 ? lines[0].name : ""))),
    times.length > 1 ? chart(lines, { height: 96, ...options }) : h("p", { class: "hint-of" }, "The first line comes within ten seconds."),
    times.length > 1 ? h("div", { class: "axis" }, h("span", {}, when(times[0])), h("span", {}, when(times.at(-1)))) : "", key);
}

function svgKey() {
  const made = svg("svg", { viewBox: "0 0 18 8", "aria-hidden": "true" });
  made.append(svg("path", { d: "M0 4h18" }));
  return made;
}

// Lines over equal steps, from 0 up; null: nothing is known there. *marks*: dashed, at these values.
function chart(lines, { height, shown, top = 0, marks = [], small = false }) {
  const known = lines.flatMap((line) => line.values).filter((value) => value !== null);
  const high = Math.max(top || 0, ...known, ...marks) || 1;
  const scale = 1.06 * high;
  const y = (value) => (height - 1 - ((height - 3) * value) / scale).toFixed(2);
  const made = svg("svg", { viewBox: `0 0 100 ${height}`, preserveAspectRatio: "none", class: "lines", role: "img" });
  made.setAttribute("aria-label", known.length && shown ? `from ${shown(Math.min(...known))} to ${shown(Math.max(...known))}` : "a line");
  made.style.height = `${height}px`;
  lines.forEach((line, place) => {
    const step = 100 / Math.max(1, line.values.length - 1);
    let path = "";
    let pen = false;
    line.values.forEach((value, at) => {
      if (value !== null) path += `${pen ? "L" : "M"}${(at * step).toFixed(2)} ${y(value)}`;
      pen = value !== null;
    });
    made.append(svg("path", { d: path, class: `line-${place}` }));
  });
  for (const value of marks) made.append(svg("path", { d: `M0 ${y(value)}h100`, class: "marked" }));
  if (small || !shown) return made;
  return h("div", { class: "scaled" }, h("span", {}, shown(high)), h("span", {}, "0"), made);
}
