// The dashboard in the browser. It asks ("what I look at is …"), and draws the answers; the server sends only what has
// changed. All texts become text nodes: nothing here ever reads markup.

const STATES = ["pending", "running", "succeeded", "failed", "cancelled"];
const COLUMNS = [
  ["state", "State"], ["deployment", "Deployment"], ["run", "Run"], ["attempt", "Attempt"], ["scheduled", "Scheduled for"],
  ["created", "Created"], ["started", "Started"], ["duration", "Duration"], ["why", "Error"],
];
const SILENCE = 5000; // ms without a word, after which the server counts as gone
const TAIL = 64000; // characters of a log that stay on the page

export function render({ model, el }) {
  const page = new Page(model);
  el.append(page.root);
  page.start();
  return () => page.stop();
}

class Page {
  constructor(model) {
    this.model = model;
    this.turns = [0, 0]; // how often we have turned to another page, and to another run
    this.pages = [null]; // the run before each page gone through so far; the last is the one shown
    this.rows = new Map(); // id -> {data, tr}
    this.order = [];
    this.skew = 0; // the server's clock minus ours, s
    const url = new URLSearchParams(location.search);
    this.states = STATES.filter((state) => url.getAll("state").includes(state));
    this.deployment = url.get("deployment");
    this.run = url.get("run");
    this.theme = remembered("flowkit-theme") || "auto";
    this.detail = new Detail(this);
    this.build();
  }

  start() {
    this.model.on("msg:custom", (event) => this.hear(JSON.parse(event.data ?? event)));
    this.clock = setInterval(() => this.tick(), 500);
    this.heard = Date.now();
    this.ask();
  }

  stop() {
    clearInterval(this.clock);
  }

  now() {
    return Date.now() / 1000 + this.skew;
  }

  // -- what is asked ----------------------------------------------------------------------------------------------

  ask() {
    this.model.send_msg({
      turns: this.turns, states: this.states, deployment: this.deployment, before: this.pages.at(-1), run: this.run,
      graph: Boolean(this.run) && this.detail.tab === "graph",
      changes: Boolean(this.run) && this.detail.tab === "changes",
    });
    const url = new URLSearchParams();
    for (const state of this.states) url.append("state", state);
    if (this.deployment) url.set("deployment", this.deployment);
    if (this.run) url.set("run", this.run);
    history.replaceState(null, "", url.size ? `?${url}` : location.pathname);
  }

  filter(change) {
    Object.assign(this, change);
    this.turn([null]);
  }

  turn(pages) {
    this.pages = pages;
    this.turns[0] += 1;
    this.scroller.scrollTop = 0;
    this.ask();
  }

  select(run) {
    if (run === this.run) return;
    this.run = run;
    this.turns[1] += 1;
    this.detail.open(run, run && this.rows.get(run)?.data);
    this.mark();
    this.ask();
  }

  close() {
    const row = this.rows.get(this.run);
    this.select(null);
    row?.tr.focus();
  }

  // -- what is heard ----------------------------------------------------------------------------------------------

  hear(news) {
    this.heard = Date.now();
    this.skew = news.now - this.heard / 1000;
    this.root.classList.remove("lost");
    this.problem.textContent = news.problem ? `No news from the store: ${news.problem}` : "";
    this.problem.hidden = !news.problem;
    if (news.overview) this.drawOverview(news.overview);
    // News of what we have turned away from is dropped; what we turned to comes in full.
    if (news.turns[0] === this.turns[0] && (news.runs || news.rows)) this.drawRows(news.runs, news.rows || []);
    if (news.turns[1] === this.turns[1] && this.run) this.detail.hear(news);
    this.root.classList.add("ready");
  }

  tick() {
    for (const { data, tr } of this.rows.values()) {
      if (data.state === "running") write(tr.querySelector(".duration"), duration(data, this.now()));
    }
    this.drawShut();
    this.detail.tick();
    if (Date.now() - this.heard < SILENCE) return;
    this.root.classList.add("lost");
    this.problem.hidden = false;
    write(this.problem, "The dashboard does not answer. This page comes back by itself when it does.");
    if (this.trying) return;
    this.trying = true;
    fetch(location.pathname, { method: "GET", cache: "no-store" })
      .then((answer) => (answer.ok || answer.status === 401) && location.reload(), () => {})
      .finally(() => setTimeout(() => (this.trying = false), 2000));
  }

  // -- the frame --------------------------------------------------------------------------------------------------

  build() {
    this.chips = new Map();
    const chips = h("div", { class: "chips", role: "group", "aria-label": "Runs by state" });
    for (const state of [null, ...STATES]) {
      const figure = h("b", {}, "0");
      const toggle = () => this.filter({ states: state ? [state] : [] });
      const chip = h("button", { class: `chip ${state || "all"}`, type: "button", onclick: toggle },
        state && mark(state), figure, h("span", {}, state || "runs"));
      this.chips.set(state, { chip, figure });
      chips.append(chip);
    }
    this.queues = h("div", { class: "figures" });
    this.workers = h("div", { class: "figures" });
    this.problem = h("p", { class: "line bad", role: "alert", hidden: true });
    this.unserved = h("p", { class: "line warn", role: "status", hidden: true });
    this.shut = h("p", { class: "line", role: "status", hidden: true });
    this.choice = h("select", { "aria-label": "Deployment", onchange: () =>
      this.filter({ deployment: this.choice.value || null }) });
    this.place = h("span", { class: "place" });
    this.newer = h("button", { type: "button", onclick: () => this.turn(this.pages.slice(0, -1)) }, "← Newer");
    this.older = h("button", { type: "button", onclick: () => this.turn([...this.pages, this.order.at(-1)]) }, "Older →");
    this.body = h("tbody");
    this.table = h("table", { role: "grid", "aria-label": "Runs, newest first" },
      h("thead", {}, h("tr", {}, ...COLUMNS.map(([name, text]) =>
        h("th", { scope: "col", class: name }, text)))), this.body);
    this.body.addEventListener("click", (event) => this.clicked(event));
    this.body.addEventListener("keydown", (event) => this.pressed(event));
    this.empty = h("div", { class: "empty" });
    this.scroller = h("div", { class: "scroller" }, this.table, this.empty);
    this.look = h("button", { class: "look", type: "button", onclick: () => this.turnLook() });
    this.root = h("div", { class: "page" },
      h("header", {},
        h("h1", {}, "flowkit"),
        h("span", { class: "store", title: this.model.store }, this.model.store),
        this.look),
      h("section", { class: "now", "aria-label": "Now" }, chips, h("div", { class: "lanes" }, this.queues, this.workers)),
      this.problem, this.unserved, this.shut,
      h("main", {},
        h("section", { class: "runs" }, h("div", { class: "bar" }, this.choice, this.place, this.newer, this.older), this.scroller),
        this.detail.root));
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.run) this.close();
    });
    this.setLook();
    if (this.run) this.detail.open(this.run);
  }

  turnLook() {
    this.theme = { auto: "light", light: "dark", dark: "auto" }[this.theme];
    remember("flowkit-theme", this.theme);
    this.setLook();
    this.detail.frame(true);
  }

  setLook() {
    const scheme = this.theme === "auto" ? "light dark" : this.theme;
    this.root.style.colorScheme = scheme;
    document.documentElement.style.colorScheme = scheme;
    write(this.look, { auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[this.theme]);
    this.look.title = `Colours: ${this.theme === "auto" ? "as the system has them" : this.theme}. Press to change`;
  }

  drawOverview({ counts, most, queues, unserved, closed, workers, deployments }) {
    const all = STATES.reduce((sum, state) => sum + counts[state], 0);
    for (const [state, { figure }] of this.chips) {
      const more = (state ? [state] : STATES).some((one) => counts[one] >= most);
      write(figure, count(state ? counts[state] : all) + (more ? "+" : ""));
    }
    this.all = all;
    this.deployments = deployments;
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
    this.drawShut();
    this.drawChoice();
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

  drawShut() {
    const closed = this.closed ?? [];
    this.shut.hidden = !closed.length;
    this.shut.classList.toggle("warn", closed.length > 0);
    write(this.shut, closed.map(([name, until, error]) => {
      const how = until > this.now() ? `is closed until ${timeOfDay(until)}` : "was closed, and the next call tries it";
      return `The limit ${name} ${how}; the last failure: ${error}.`;
    }).join(" "));
  }

  drawChoice() {
    const names = this.deployments.includes(this.deployment) || !this.deployment
      ? this.deployments : [this.deployment, ...this.deployments];
    const drawn = JSON.stringify([names, this.deployment]);
    if (drawn === this.drawnChoice) return; // an open list would close
    this.drawnChoice = drawn;
    this.choice.replaceChildren(h("option", { value: "" }, "All deployments"),
      ...names.map((name) => h("option", { value: name }, name)));
    this.choice.value = this.deployment || "";
  }

  // -- the table --------------------------------------------------------------------------------------------------

  drawRows(runs, changed) {
    for (const data of changed) {
      const tr = this.rows.get(data.id)?.tr || h("tr", { "data-run": data.id, tabindex: "-1" });
      this.rows.set(data.id, { data, tr });
      this.fill(tr, data);
    }
    if (runs) this.arrange(runs);
    for (const [state, { chip }] of this.chips) {
      chip.setAttribute("aria-pressed", String(state ? this.states.includes(state) : !this.states.length));
    }
    this.mark();
    this.drawEmpty();
  }

  arrange({ order, more }) {
    this.order = order;
    const kept = new Set(order);
    for (const [id, { tr }] of this.rows) {
      if (kept.has(id)) continue;
      tr.remove();
      this.rows.delete(id);
    }
    let next = this.body.firstChild;
    for (const id of order) {
      const { tr } = this.rows.get(id);
      if (tr === next) next = next.nextSibling;
      else this.body.insertBefore(tr, next);
    }
    this.newer.disabled = this.pages.length === 1;
    this.older.disabled = !more;
    const paged = more || this.pages.length > 1;
    this.newer.hidden = this.older.hidden = !paged;
    write(this.place, !order.length ? "" : paged ? `${count(order.length)} runs, page ${this.pages.length}`
      : order.length === 1 ? "1 run" : `${count(order.length)} runs`);
  }

  fill(tr, data) {
    const link = h("a", { href: `?run=${data.id}`, tabindex: "-1" }, data.id.slice(0, 8));
    tr.replaceChildren(
      h("td", { class: "state" }, badge(data)),
      h("td", { class: "deployment", title: data.label }, data.label),
      h("td", { class: "run" }, link),
      h("td", { class: "attempt" }, data.attempt ? String(data.attempt) : ""),
      h("td", { class: "scheduled" }, when(data.scheduled)),
      h("td", { class: "created" }, when(data.created)),
      h("td", { class: "started" }, when(data.started)),
      h("td", { class: "duration" }, duration(data, this.now())),
      h("td", { class: "why", title: data.error }, data.error));
  }

  mark() {
    const selected = this.selected();
    for (const [id, { tr }] of this.rows) {
      tr.setAttribute("aria-selected", String(id === selected));
      tr.tabIndex = id === (selected || this.order[0]) ? 0 : -1;
    }
    this.root.classList.toggle("open", Boolean(this.run));
  }

  // A link may carry the beginning of an id only.
  selected() {
    return this.run && this.order.find((id) => id.startsWith(this.run));
  }

  clicked(event) {
    const row = event.target.closest("tr");
    if (!row || event.metaKey || event.ctrlKey || event.shiftKey || String(getSelection())) return;
    event.preventDefault();
    this.select(row.dataset.run);
  }

  pressed(event) {
    const row = event.target.closest("tr");
    const rows = this.body.rows;
    const at = row.sectionRowIndex;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (event.key === "Enter" || event.key === " ") this.select(row.dataset.run);
    else if (to !== undefined && rows[to]) {
      row.tabIndex = -1;
      rows[to].tabIndex = 0;
      rows[to].focus();
      if (this.run) this.select(rows[to].dataset.run);
    } else if (to === undefined) return;
    event.preventDefault();
  }

  drawEmpty() {
    this.empty.hidden = this.order.length > 0;
    this.table.hidden = !this.empty.hidden;
    if (this.empty.hidden) return;
    const code = (text) => h("pre", {}, text);
    if (this.all) {
      const all = h("button", { type: "button", onclick: () => this.filter({ states: [], deployment: null }) }, "Show all runs");
      this.empty.replaceChildren(h("h2", {}, "No run is like that"), h("p", {}, "There are runs, but none fits what you chose above."), all);
    } else if (this.deployments?.length) {
      this.empty.replaceChildren(h("h2", {}, "No runs yet"), h("p", {}, "The first one comes with the schedule, or now:"),
        code(`flowkit run ${shell(this.deployments[0])}`));
    } else {
      this.empty.replaceChildren(h("h2", {}, "Nothing has run yet"),
        h("p", {}, "Run a notebook once:"), code("flowkit run NOTEBOOK.ipynb"),
        h("p", {}, "Run it every morning at six:"), code('flowkit deploy NOTEBOOK.ipynb --cron "0 6 * * *"'),
        h("p", {}, "And let somebody do the work:"), code("flowkit worker"));
    }
  }
}
