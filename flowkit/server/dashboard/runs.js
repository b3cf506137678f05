// The page Runs: the table, and beside it the run that was chosen in it.
const SPANS = { // what can be chosen, and its seconds
  "1h": ["The last hour", 3600], "24h": ["The last 24 hours", 86400], "7d": ["The last 7 days", 7 * 86400], "30d": ["The last 30 days", 30 * 86400],
};
const PICKED = { // what can be done to those selected: to which, its button, and the question
  cancel: [["pending", "running"], "Cancel", (many) => `Cancel ${many}? What is under way is stopped, its kernel too.`],
  retry: [["failed", "cancelled"], "Retry", (many) => `Run ${many} again? Nodes that have finished keep their results.`],
};
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
    this.picked = new Set(); // ids of the rows that are selected
    this.may = frame.may("operator");
    this.detail = new Detail(frame, { close: () => this.close() });
    this.build();
  }

  open(query) {
    this.states = STATES.filter((state) => query.getAll("state").includes(state));
    this.deployment = query.get("deployment");
    this.queue = query.get("queue");
    this.parameters = query.getAll("parameter");
    this.error = query.get("error");
    this.last = query.get("last") in SPANS ? query.get("last") : null;
    this.since = query.get("since");
    this.until = query.get("until");
    this.run = query.get("run");
    const before = query.get("before");
    if (before !== this.pages.at(-1)) {
      const known = this.pages.indexOf(before);
      this.pages = known >= 0 ? this.pages.slice(0, known + 1) : [null, ...(before ? [before] : [])];
    }
    const filter = this.address({ run: null });
    if (filter !== this.filter) {
      this.scroller.scrollTop = 0;
      this.picked.clear();
      // From when it was chosen: a question that changed each second would be a new one each second.
      this.from = this.last ? Math.floor(this.frame.now() / 60) * 60 - SPANS[this.last][1] : instant(this.since);
    }
    this.filter = filter;
    this.detail.open(this.run, this.run && this.rows.get(this.run)?.data);
    this.drawChoice();
    this.drawFilters();
    this.drawPicked();
    this.mark();
  }

  address(change = {}) {
    const { states, deployment, queue, parameters, error, last, since, until, run } = this;
    const at = { states, deployment, queue, parameters, error, last, since, until, run, before: this.pages.at(-1), ...change };
    const url = new URLSearchParams({ page: "runs" });
    for (const state of at.states) url.append("state", state);
    for (const pair of at.parameters) url.append("parameter", pair);
    for (const name of ["deployment", "queue", "error", "last", "since", "until", "before", "run"]) if (at[name]) url.set(name, at[name]);
    return `?${url}`;
  }

  ask() {
    const { states, deployment, queue, parameters, error } = this;
    const runs = { states, deployment, queue, parameters, error, since: this.from, until: instant(this.until), before: this.pages.at(-1) };
    return { choice: {}, runs, ...this.detail.ask() };
  }

  draw({ choice, runs, ...told }) {
    if (choice?.choice) this.drawCounts(choice.choice);
    if (runs?.table) this.drawRows(runs.table);
    if (runs?.scanned !== undefined) this.drawScanned(runs.scanned);
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
    const chooser = (label, name) => h("select", { "aria-label": label, onchange: (event) => this.narrow({ [name]: event.target.value || null }) });
    this.choice = chooser("Deployment", "deployment");
    this.queues = chooser("Queue", "queue");
    this.when = h("select", { "aria-label": "Submitted", onchange: () => this.chooseSpan() },
      h("option", { value: "" }, "Any time"), ...Object.entries(SPANS).map(([value, [text]]) => h("option", { value }, text)),
      h("option", { value: "span" }, "Between …"));
    this.search = h("input", {
      type: "search", "data-search": true, "aria-label": "Search", placeholder: "Text in the error, or parameter=value",
      title: "A text in the error, or parameter=value (/)", maxlength: 500,
      onkeydown: (event) => event.key === "Enter" && this.find(),
    });
    const day = (name) => h("input", { type: "datetime-local", "aria-label": name, onchange: () => this.narrow({ last: null, since: this.sinceField.value || null, until: this.untilField.value || null }) });
    this.sinceField = day("From");
    this.untilField = day("Until");
    this.span = h("span", { class: "span", hidden: true }, this.sinceField, "to", this.untilField);
    this.filters = h("div", { class: "filters", hidden: true });
    this.acts = h("div", { class: "bar picked", role: "group", "aria-label": "Selected runs", hidden: true });
    this.place = h("span", { class: "place" });
    this.newer = h("button", { type: "button", onclick: () => this.frame.go(this.address({ before: this.pages.at(-2) })) }, "← Newer");
    this.older = h("button", { type: "button", onclick: () => this.turnOn(this.order.at(-1)) }, "Older →");
    this.body = h("tbody");
    this.every = h("input", { type: "checkbox", "aria-label": "Select all on this page", onchange: () => this.pick(this.every.checked ? this.order : []) });
    this.table = h("table", { role: "grid", "aria-label": "Runs, newest first", "aria-multiselectable": this.may ? "true" : null },
      h("thead", {}, h("tr", {}, this.may ? h("th", { class: "pick" }, this.every) : "", ...COLUMNS.map(([name, text]) =>
        h("th", { scope: "col", class: name }, text)))), this.body);
    walk(this.body, {
      open: (id) => this.select(id), moved: (id) => this.run && this.select(id),
      toggle: this.may ? (id) => this.toggle(id) : null,
    });
    this.body.addEventListener("change", (event) => this.toggle(event.target.closest("tr").dataset.row));
    this.empty = h("div", { class: "empty" });
    this.scanned = h("div", { class: "scanned", hidden: true });
    this.scroller = h("div", { class: "scroller" }, this.table, this.empty, this.scanned);
    this.root = h("section", { class: "runs-page", "aria-label": "Runs" },
      h("div", { class: "now" }, chips),
      h("div", { class: "split" },
        h("section", { class: "runs" },
          h("div", { class: "bar" }, this.search, this.choice, this.queues, this.when, this.span,
            h("span", { class: "paging" }, this.place, this.newer, this.older)),
          this.filters, this.acts, this.scroller),
        this.detail.root));
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.run) this.close();
    });
  }

  turnOn(before) {
    this.pages.push(before);
    this.frame.go(this.address({ before }));
  }

  // What stands in the search's field.
  find() {
    const text = this.search.value.trim();
    this.search.value = "";
    if (!text) return;
    if (/^[^\s=]+\s*=/.test(text)) {
      const pair = text.replace(/\s*=\s*/, "=");
      this.narrow({ parameters: [...new Set([...this.parameters, pair])] });
    } else this.narrow({ error: text });
  }

  chooseSpan() {
    const { value } = this.when;
    if (value !== "span") return this.narrow({ last: value || null, since: null, until: null });
    this.span.hidden = false;
    this.sinceField.focus();
  }

  drawFilters() {
    const one = (text, value, change) => h("span", { class: "filter" }, text && h("span", { class: "label" }, text), h("b", { title: value }, value),
      h("button", { type: "button", "aria-label": `Without ${value}`, onclick: () => this.narrow(change) }, "✕"));
    const made = this.parameters.map((pair) => one("", pair, { parameters: this.parameters.filter((other) => other !== pair) }));
    if (this.error) made.push(one("error has", this.error, { error: null }));
    this.filters.hidden = !made.length;
    this.filters.replaceChildren(...made);
    const span = Boolean(this.since || this.until);
    this.span.hidden = !span;
    this.when.value = span ? "span" : this.last || "";
    this.sinceField.value = this.since || "";
    this.untilField.value = this.until || "";
  }

  drawScanned(scanned) {
    this.cutShort = scanned;
    this.scanned.hidden = !scanned;
    if (scanned) {
      this.scanned.replaceChildren(
        h("span", {}, `Of what no index knows, ${count(scanned.most)} runs are looked at in one go: these are back to ${when(scanned.to, true)}.`),
        h("button", { type: "button", onclick: () => this.turnOn(scanned.before) }, "Look further back"));
    }
    this.drawEmpty();
  }

  // -- the selected -----------------------------------------------------------------------------------------------

  pick(ids) {
    this.picked = new Set(ids);
    this.drawPicked();
  }

  toggle(id) {
    if (!this.picked.delete(id)) this.picked.add(id);
    this.drawPicked();
  }

  drawPicked() {
    if (!this.may) return;
    for (const [id, { tr }] of this.rows) {
      const box = tr.querySelector("input");
      if (box) box.checked = this.picked.has(id);
      tr.classList.toggle("picked", this.picked.has(id));
    }
    const many = this.picked.size;
    this.every.checked = many > 0 && many === this.order.length;
    this.every.indeterminate = many > 0 && !this.every.checked;
    this.acts.hidden = !many;
    if (!many) return;
    const which = Object.entries(PICKED).map(([name, [states]]) => [name,
      [...this.picked].filter((id) => states.includes(this.rows.get(id)?.data.state) && !this.rows.get(id)?.data.cancelling)]);
    const drawn = JSON.stringify([many, which.map(([, ids]) => ids.length)]);
    if (drawn === this.drawnPicked && this.acts.firstChild) return; // a button keeps the focus
    this.drawnPicked = drawn;
    this.acts.replaceChildren(h("b", {}, `${count(many)} selected`),
      ...which.map(([name, ids]) => h("button", { type: "button", disabled: !ids.length, onclick: () => this.act(name) },
        ids.length ? `${PICKED[name][1]} ${count(ids.length)}` : PICKED[name][1])),
      h("button", { type: "button", class: "quiet", onclick: () => this.pick([]) }, "Select none"));
  }

  async act(name) {
    const [states, button, question] = PICKED[name];
    const ids = [...this.picked].filter((id) => states.includes(this.rows.get(id)?.data.state));
    const many = ids.length === 1 ? "1 run" : `${count(ids.length)} runs`;
    if (!await this.frame.confirm(question(many), `${button} ${many}`)) return;
    if (await this.frame.act(name, { runs: ids })) this.pick([]);
    this.frame.ask();
  }

  drawCounts({ counts, most, deployments, queues }) {
    this.all = STATES.reduce((sum, state) => sum + counts[state], 0);
    for (const [state, { figure }] of this.chips) {
      const more = (state ? [state] : STATES).some((one) => counts[one] >= most);
      write(figure, count(state ? counts[state] : this.all) + (more ? "+" : ""));
    }
    this.deployments = deployments;
    this.queueNames = queues;
    this.drawChoice();
    this.drawEmpty();
  }

  drawChoice() {
    for (const [state, { chip }] of this.chips) {
      chip.setAttribute("aria-pressed", String(state ? this.states.includes(state) : !this.states.length));
    }
    options(this.choice, "All deployments", this.deployments ?? [], this.deployment);
    options(this.queues, "All queues", this.queueNames ?? [], this.queue);
  }

  // -- the table --------------------------------------------------------------------------------------------------

  drawRows({ order, more, rows }) {
    for (const data of rows) {
      const tr = this.rows.get(data.id)?.tr || h("tr", { "data-run": data.id, "data-row": data.id, tabindex: "-1" });
      this.rows.set(data.id, { data, tr });
      this.fill(tr, data);
    }
    this.arrange(order, more);
    for (const id of this.picked) if (!this.rows.has(id)) this.picked.delete(id);
    this.drawPicked();
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
      this.may ? h("td", { class: "pick" }, h("input", { type: "checkbox", tabindex: "-1", "aria-label": `Select run ${data.id.slice(0, 8)}` })) : "",
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
    if (this.cutShort) {
      this.empty.replaceChildren(h("h2", {}, "Not among these"));
    } else if (this.all) {
      const all = h("button", { type: "button", onclick: () => this.frame.go("?page=runs") }, "Show all runs");
      this.empty.replaceChildren(h("h2", {}, "No run is like that"), h("p", {}, "There are runs, but none fits what you chose above."), all);
    } else teach(this.empty, this.deployments);
  }
}

// A select's options; an open list would close if they were the same again.
function options(select, none, names, chosen) {
  const all = names.includes(chosen) || !chosen ? names : [chosen, ...names];
  const drawn = JSON.stringify([all, chosen]);
  if (select.dataset.drawn === drawn) return;
  select.dataset.drawn = drawn;
  select.replaceChildren(h("option", { value: "" }, none), ...all.map((name) => h("option", { value: name }, name)));
  select.value = chosen || "";
}

// Seconds since 1970 of a time in the viewer's own zone; null if it is none.
function instant(text) {
  const at = text ? new Date(text).getTime() : NaN;
  return Number.isNaN(at) ? null : at / 1000;
}
