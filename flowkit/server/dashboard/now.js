// The page Now: what waits, who works, and what is wrong at this moment.
class NowPage {
  constructor(frame) {
    this.frame = frame;
    this.chips = new Map();
    const chips = h("div", { class: "chips", role: "group", "aria-label": "Runs by state" });
    for (const state of [null, ...STATES]) {
      const figure = h("b", {}, "0");
      this.chips.set(state, figure);
      chips.append(frame.link(state ? `?page=runs&state=${state}` : "?page=runs", { class: `chip ${state || "all"}` },
        state && mark(state), figure, h("span", {}, state || "runs")));
    }
    this.queues = h("div", { class: "figures" });
    this.workers = h("div", { class: "figures" });
    this.unserved = h("p", { class: "line warn", role: "status", hidden: true });
    this.shut = h("p", { class: "line", role: "status", hidden: true });
    this.empty = h("div", { class: "empty", hidden: true });
    this.root = h("section", { class: "now-page", "aria-label": "Now" },
      h("div", { class: "now" }, chips, h("div", { class: "lanes" }, this.queues, this.workers)),
      this.unserved, this.shut, this.empty);
  }

  open() {}

  ask() {
    return { now: {} };
  }

  draw({ now: { overview } }) {
    if (!overview) return;
    const { counts, most, queues, unserved, closed, workers, deployments } = overview;
    const all = STATES.reduce((sum, state) => sum + counts[state], 0);
    for (const [state, figure] of this.chips) {
      const more = (state ? [state] : STATES).some((one) => counts[one] >= most);
      write(figure, count(state ? counts[state] : all) + (more ? "+" : ""));
    }
    const lanes = queues.slice(0, 6).map(([queue, waiting]) =>
      h("span", { class: waiting ? "figure" : "figure none", title: `${waiting} waiting on queue ${queue}` },
        h("b", {}, count(waiting)), h("span", { class: "name" }, queue)));
    if (queues.length > 6) lanes.push(h("span", { class: "figure none" }, `and ${queues.length - 6} more`));
    this.queues.replaceChildren(h("span", { class: "label" }, "waiting"), ...lanes);
    this.queues.hidden = !queues.length;
    this.workers.replaceChildren(h("span", { class: workers ? "figure" : "figure none" },
      h("b", {}, count(workers)), h("span", { class: "name" }, workers === 1 ? "worker" : "workers")));
    this.warn(unserved);
    this.closed = closed;
    this.tick();
    this.empty.hidden = all > 0;
    if (!all) teach(this.empty, deployments);
  }

  tick() {
    const closed = this.closed ?? [];
    this.shut.hidden = !closed.length;
    this.shut.classList.toggle("warn", closed.length > 0);
    write(this.shut, closed.map(([name, until, error]) => {
      const how = until > this.frame.now() ? `is closed until ${timeOfDay(until)}` : "was closed, and the next call tries it";
      return `The limit ${name} ${how}; the last failure: ${error}.`;
    }).join(" "));
  }

  warn(unserved) {
    this.unserved.hidden = !unserved.length;
    if (!unserved.length) return;
    const [queue, waiting] = unserved[0];
    const runs = waiting === 1 ? "1 run waits" : `${count(waiting)} runs wait`;
    const others = unserved.length > 1 ? `, nor on ${unserved.slice(1, 4).map(([name]) => name).join(", ")}${unserved.length > 4 ? ", …" : ""}` : "";
    this.unserved.replaceChildren(`${runs} on queue ${queue} and no worker is alive there${others}. Start one: `,
      h("code", {}, queue === "default" ? "flowkit worker" : `flowkit worker --queue ${queue}`));
  }
}
