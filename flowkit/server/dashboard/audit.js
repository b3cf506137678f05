// The page Audit: who did what, the newest first.
class AuditPage {
  constructor(frame) {
    this.frame = frame;
    this.pages = [null];
    this.data = new Map();
    this.order = [];
    this.names = [];
    this.who = h("select", { "aria-label": "By whom", "data-search": true, onchange: () => this.turn({ who: this.who.value }) });
    this.place = h("span", { class: "place" });
    this.newer = h("button", { type: "button", onclick: () => {
      this.pages.pop();
      this.turn({ who: this.chosen, before: this.pages.at(-1) });
    } }, "← Newer");
    this.older = h("button", { type: "button", onclick: () => {
      this.pages.push(this.order.at(-1));
      this.turn({ who: this.chosen, before: this.order.at(-1) });
    } }, "Older →");
    this.table = table("What was done, the newest first", ["When", "Who", "Role", "What", "Answer", "From"]);
    walk(this.table.body, { open: () => {} });
    this.empty = h("div", { class: "empty", hidden: true });
    this.bar = h("div", { class: "bar" }, this.who, this.place, this.newer, this.older);
    this.root = h("section", { class: "audit-page list", "aria-label": "Audit" }, this.bar,
      h("div", { class: "scroller" }, this.table.element, this.empty));
    this.drawNames();
  }

  open(query) {
    this.chosen = query.get("who") || null;
    this.before = query.get("before") || null;
    if (!this.before) this.pages = [null];
    else if (this.pages.at(-1) !== this.before) this.pages = [null, this.before];
    this.drawNames();
    if (this.frame.may("admin")) return;
    this.bar.hidden = true;
    this.table.element.hidden = true;
    this.empty.hidden = false;
    this.empty.replaceChildren(h("h2", {}, "For admins"), h("p", {}, `Who did what is shown to admins, and you came in as ${this.frame.role}. On a machine that has the store:`), h("pre", {}, "flowkit audit"));
  }

  ask() {
    return this.frame.may("admin") ? { acts: { who: this.chosen, before: this.before }, actors: {} } : {};
  }

  turn({ who, before }) {
    const query = new URLSearchParams({ page: "audit", ...(who && { who }), ...(before && { before }) });
    this.frame.go(`?${query}`);
  }

  drawNames() {
    const names = this.chosen && !this.names.includes(this.chosen) ? [this.chosen, ...this.names] : this.names;
    const said = JSON.stringify([names, this.chosen]);
    if (said === this.drawn) return; // an open list would close
    this.drawn = said;
    this.who.replaceChildren(h("option", { value: "" }, "Everybody"), ...names.map((name) => h("option", { value: name }, name)));
    this.who.value = this.chosen || "";
  }

  draw({ acts: { acts } = {}, actors: { names } = {} }) {
    if (names) {
      this.names = names;
      this.drawNames();
    }
    if (!acts) return;
    for (const row of acts.rows) this.data.set(row.id, row);
    this.order = acts.order;
    rows(this.table, acts.order.map((id) => this.data.get(id)), (row, one) => [
      h("td", { class: "time" }, when(one.at, true)),
      h("td", { class: "who-of", title: one.who }, one.who),
      h("td", { class: "time" }, one.role || "–"),
      h("td", { class: "what-of", title: one.what }, one.what),
      h("td", { class: one.status >= 400 ? "alarm" : "" }, outcome(one.status)),
      h("td", { class: "time" }, one.address),
    ]);
    const paged = acts.more || this.pages.length > 1;
    this.newer.hidden = this.older.hidden = !paged;
    this.newer.disabled = this.pages.length === 1;
    this.older.disabled = !acts.more;
    write(this.place, paged ? `page ${this.pages.length}` : "");
    this.empty.hidden = acts.order.length > 0;
    this.table.element.hidden = !acts.order.length;
    if (acts.order.length) return;
    this.empty.replaceChildren(h("h2", {}, this.chosen ? `Nothing by ${this.chosen} is on record` : "Nothing is on record yet"),
      h("p", {}, "What is done here or over the API is kept for 90 days. Let somebody in:"), h("pre", {}, "flowkit token create NAME --role operator"));
  }
}

function outcome(status) {
  const said = { 401: "not let in", 403: "not allowed", 404: "not there", 409: "conflict", 422: "not accepted", 429: "too many" }[status];
  return status < 400 ? "done" : `${said ?? "refused"} (${status})`;
}
