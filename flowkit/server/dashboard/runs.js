// The page Runs: the table, and beside it the run that was chosen in it.
const COLUMNS = [
  ["state", "State"], ["deployment", "Deployment"], ["run", "Run"], ["attempt", "Attempt"], ["scheduled", "Scheduled for"],
  ["created", "Created"], ["started", "Started"], ["duration", "Duration"], ["why", "Error"],
];

class RunsPage {
  constructor(frame) {
    this.frame = frame;
    this.pages = [null]; // the run before each page gone through so far; the last is the one shown
    this.rows = new Map(); // id -> {data, tr}
    this.order = [];
    this.detail = new Detail(frame, { close: () => this.close() });
    this.build();
  }

  open(query) {
    this.states = STATES.filter((state) => query.getAll("state").includes(state));
    this.deployment = query.get("deployment");
    this.run = query.get("run");
    const before = query.get("before");
    if (before !== this.pages.at(-1)) {
      const known = this.pages.indexOf(before);
      this.pages = known >= 0 ? this.pages.slice(0, known + 1) : [null, ...(before ? [before] : [])];
    }
    const filter = JSON.stringify([this.states, this.deployment, before]);
    if (filter !== this.filter) this.scroller.scrollTop = 0;
    this.filter = filter;
    this.detail.open(this.run, this.run && this.rows.get(this.run)?.data);
    this.drawChoice();
    this.mark();
  }

  address(change = {}) {
    const { states, deployment, before, run } = { states: this.states, deployment: this.deployment, before: this.pages.at(-1), run: this.run, ...change };
    const url = new URLSearchParams({ page: "runs" });
    for (const state of states) url.append("state", state);
    if (deployment) url.set("deployment", deployment);
    if (before) url.set("before", before);
    if (run) url.set("run", run);
    return `?${url}`;
  }

  ask() {
    const asked = { choice: {}, runs: { states: this.states, deployment: this.deployment, before: this.pages.at(-1) } };
    return { ...asked, ...this.detail.ask() };
  }

  draw({ choice, runs, ...told }) {
    if (choice?.choice) this.drawCounts(choice.choice);
    if (runs?.table) this.drawRows(runs.table);
    this.detail.draw(told);
  }

  tick() {
    for (const { data, tr } of this.rows.values()) {
      if (data.state === "running") write(tr.querySelector(".duration"), duration(data, this.frame.now()));
    }
    this.detail.tick();
  }

  recolour() {
    this.detail.frameOf(true);
  }

  // -- going elsewhere --------------------------------------------------------------------------------------------

  narrow(change) {
    this.frame.go(this.address({ before: null, ...change }));
  }

  select(run) {
    if (run !== this.run) this.frame.go(this.address({ run }), { replace: Boolean(this.run) });
  }

  close() {
    const row = this.rows.get(this.selected());
    this.frame.go(this.address({ run: null }), { replace: true });
    row?.tr.focus();
  }

  // -- how it looks -----------------------------------------------------------------------------------------------

  build() {
    this.chips = new Map();
    const chips = h("div", { class: "chips", role: "group", "aria-label": "Runs by state" });
    for (const state of [null, ...STATES]) {
      const figure = h("b", {}, "0");
      const toggle = () => this.narrow({ states: state ? [state] : [] });
      const chip = h("button", { class: `chip ${state || "all"}`, type: "button", onclick: toggle },
        state && mark(state), figure, h("span", {}, state || "runs"));
      this.chips.set(state, { chip, figure });
      chips.append(chip);
    }
    this.choice = h("select", { "aria-label": "Deployment", "data-search": true, onchange: () =>
      this.narrow({ deployment: this.choice.value || null }) });
    this.place = h("span", { class: "place" });
    this.newer = h("button", { type: "button", onclick: () => this.frame.go(this.address({ before: this.pages.at(-2) })) }, "← Newer");
    this.older = h("button", { type: "button", onclick: () => this.turnOn() }, "Older →");
    this.body = h("tbody");
    this.table = h("table", { role: "grid", "aria-label": "Runs, newest first" },
      h("thead", {}, h("tr", {}, ...COLUMNS.map(([name, text]) =>
        h("th", { scope: "col", class: name }, text)))), this.body);
    walk(this.body, { open: (id) => this.select(id), moved: (id) => this.run && this.select(id) });
    this.empty = h("div", { class: "empty" });
    this.scroller = h("div", { class: "scroller" }, this.table, this.empty);
    this.root = h("section", { class: "runs-page", "aria-label": "Runs" },
      h("div", { class: "now" }, chips),
      h("div", { class: "split" },
        h("section", { class: "runs" }, h("div", { class: "bar" }, this.choice, this.place, this.newer, this.older), this.scroller),
        this.detail.root));
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.run) this.close();
    });
  }

  turnOn() {
    const before = this.order.at(-1);
    this.pages.push(before);
    this.frame.go(this.address({ before }));
  }

  drawCounts({ counts, most, deployments }) {
    this.all = STATES.reduce((sum, state) => sum + counts[state], 0);
    for (const [state, { figure }] of this.chips) {
      const more = (state ? [state] : STATES).some((one) => counts[one] >= most);
      write(figure, count(state ? counts[state] : this.all) + (more ? "+" : ""));
    }
    this.deployments = deployments;
    this.drawChoice();
    this.drawEmpty();
  }

  drawChoice() {
    for (const [state, { chip }] of this.chips) {
      chip.setAttribute("aria-pressed", String(state ? this.states.includes(state) : !this.states.length));
    }
    const known = this.deployments ?? [];
    const names = known.includes(this.deployment) || !this.deployment ? known : [this.deployment, ...known];
    const drawn = JSON.stringify([names, this.deployment]);
    if (drawn === this.drawnChoice) return; // an open list would close
    this.drawnChoice = drawn;
    this.choice.replaceChildren(h("option", { value: "" }, "All deployments"),
      ...names.map((name) => h("option", { value: name }, name)));
    this.choice.value = this.deployment || "";
  }

  // -- the table --------------------------------------------------------------------------------------------------

  drawRows({ order, more, rows }) {
    for (const data of rows) {
      const tr = this.rows.get(data.id)?.tr || h("tr", { "data-run": data.id, "data-row": data.id, tabindex: "-1" });
      this.rows.set(data.id, { data, tr });
      this.fill(tr, data);
    }
    this.arrange(order, more);
    this.mark();
    this.drawEmpty();
  }

  arrange(order, more) {
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
    const link = this.frame.link(`?run=${data.id}`, { tabindex: "-1", title: "Its own page" }, data.id.slice(0, 8));
    tr.replaceChildren(
      h("td", { class: "state" }, badge(data)),
      h("td", { class: "deployment", title: data.label }, data.label),
      h("td", { class: "run" }, link),
      h("td", { class: "attempt" }, data.attempt ? String(data.attempt) : ""),
      h("td", { class: "scheduled" }, when(data.scheduled)),
      h("td", { class: "created" }, when(data.created)),
      h("td", { class: "started" }, when(data.started)),
      h("td", { class: "duration" }, duration(data, this.frame.now())),
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

  drawEmpty() {
    this.empty.hidden = this.order.length > 0;
    this.table.hidden = !this.empty.hidden;
    if (this.empty.hidden || this.all === undefined) return;
    if (this.all) {
      const all = h("button", { type: "button", onclick: () => this.frame.go("?page=runs") }, "Show all runs");
      this.empty.replaceChildren(h("h2", {}, "No run is like that"), h("p", {}, "There are runs, but none fits what you chose above."), all);
    } else teach(this.empty, this.deployments);
  }
}
