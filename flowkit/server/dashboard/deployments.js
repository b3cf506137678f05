// The page Deployments: all of them, or one with its versions, its year and its backfills.
class DeploymentsPage {
  constructor(frame) {
    this.frame = frame;
    this.list = new Shelf(this);
    this.single = new Single(this);
    this.root = h("section", { class: "deployments-page", "aria-label": "Deployments" });
  }

  open(query) {
    this.name = query.get("name");
    this.part = this.name ? this.single : this.list;
    if (this.root.firstChild !== this.part.root) this.root.replaceChildren(this.part.root);
    this.part.open(query);
  }

  ask() {
    return this.part.ask();
  }

  draw(told) {
    this.part.draw(told);
  }

  tick() {
    this.part.tick();
  }

  // Buttons for who may press them.
  buttons({ id, paused, schedule }) {
    const disabled = !this.frame.may("operator");
    const title = disabled ? "It takes an operator's token" : null;
    const button = (text, onclick, more = {}) => h("button", { type: "button", disabled, title, onclick, ...more }, text);
    return h("span", { class: "acts" },
      button("Run now", () => this.runNow(id)),
      schedule ? button(paused ? "Resume" : "Pause", () => this.frame.act(paused ? "resume" : "pause", { name: id })) : "");
  }

  // The form needs the parameters, which the page of one deployment has.
  runNow(name) {
    if (this.single.form && this.single.about?.id === name) return this.single.ask_for_values();
    this.frame.go(deploymentAddress(name));
    this.single.wanted = true;
  }
}

class Shelf {
  constructor(page) {
    this.page = page;
    this.frame = page.frame;
    this.data = new Map();
    this.order = [];
    this.live = { rows: [] };
    this.pages = [null];
    this.search = h("input", { type: "search", placeholder: "Find by name", "aria-label": "Find by name", "data-search": true });
    this.search.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.turn({ like: this.search.value.trim() }, true), 200);
    });
    this.place = h("span", { class: "place" });
    this.newer = h("button", { type: "button", onclick: () => {
      this.pages.pop();
      this.turn({ like: this.like, after: this.pages.at(-1) });
    } }, "← Before");
    this.older = h("button", { type: "button", onclick: () => {
      this.pages.push(this.order.at(-1));
      this.turn({ like: this.like, after: this.order.at(-1) });
    } }, "Next →");
    this.table = table("Deployments, by name", ["Deployment", "Schedule", "Next", "Last runs", "Succeeded", "Usually", "Trend", ""]);
    walk(this.table.body, { open: (name) => this.frame.go(deploymentAddress(name)) });
    this.empty = h("div", { class: "empty", hidden: true });
    this.root = h("div", { class: "list" }, h("div", { class: "bar" }, this.search, this.place, this.newer, this.older),
      h("div", { class: "scroller" }, this.table.element, this.empty));
  }

  open(query) {
    this.like = query.get("like") || null;
    this.after = query.get("after") || null;
    if (!this.after) this.pages = [null];
    else if (this.pages.at(-1) !== this.after) this.pages = [null, this.after];
    if (this.search.getRootNode().activeElement !== this.search) this.search.value = this.like || "";
  }

  ask() {
    return { shelf: { like: this.like, after: this.after } };
  }

  turn({ like, after }, replace = false) {
    const query = new URLSearchParams({ page: "deployments", ...(like && { like }), ...(after && { after }) });
    this.frame.go(`?${query}`, { replace });
  }

  draw({ shelf: { shelf } = {} }) {
    if (!shelf) return;
    for (const row of shelf.rows) this.data.set(row.id, row);
    this.order = shelf.order;
    this.live.rows = [];
    const frame = this.frame;
    rows(this.table, shelf.order.map((id) => this.data.get(id)), (row, one) => [
      h("td", { class: "name", title: one.id }, frame.link(deploymentAddress(one.id), { tabindex: "-1" }, one.id), one.paused ? h("span", { class: "paused" }, "paused") : ""),
      h("td", { class: "schedule", title: one.schedule ? `${one.schedule}, ${one.zone}` : "" }, one.schedule ? h("code", {}, one.schedule) : h("span", { class: "hint-of" }, "by hand"), one.zone && one.zone !== "UTC" ? h("span", { class: "hint-of" }, ` ${one.zone}`) : ""),
      h("td", { class: "time" }, fires(this, one)),
      h("td", { class: "dots-of" }, dots(frame, one)),
      h("td", { class: "figure" }, share(one.succeeded)),
      h("td", { class: "figure" }, usually(one.usual)),
      h("td", { class: "trend" }, trend(one.took)),
      h("td", { class: "way" }, this.page.buttons(one)),
    ]);
    this.table.element.hidden = !shelf.order.length;
    this.newer.hidden = this.older.hidden = !shelf.more && this.pages.length === 1;
    this.newer.disabled = this.pages.length === 1;
    this.older.disabled = !shelf.more;
    write(this.place, shelf.order.length === 1 ? "1 deployment" : shelf.order.length ? `${shelf.order.length} deployments${this.pages.length > 1 ? `, page ${this.pages.length}` : shelf.more ? ", and more" : ""}` : "");
    this.empty.hidden = shelf.order.length > 0;
    if (this.like) this.empty.replaceChildren(h("h2", {}, "No deployment is called like that"), h("button", { type: "button", onclick: () => {
      this.search.value = "";
      this.turn({});
    } }, "Show all"));
    else this.empty.replaceChildren(h("h2", {}, "Nothing is deployed yet"), h("p", {}, "Run a notebook every morning at six:"),
      h("pre", {}, 'flowkit deploy NOTEBOOK.ipynb --cron "0 6 * * *"'), h("p", {}, "Or without a schedule, to be run from here:"), h("pre", {}, "flowkit deploy NOTEBOOK.ipynb"));
  }

  aging(part, attributes, text) {
    return NowPage.prototype.aging.call(this, part, attributes, text);
  }

  tick() {
    NowPage.prototype.tick.call(this);
  }
}

class Single {
  constructor(page) {
    this.page = page;
    this.frame = page.frame;
    this.live = { about: [], firings: [] };
    this.title = h("h1");
    this.acts = h("span");
    this.facts = h("dl", { class: "facts" });
    this.lately = h("div", { class: "lately" });
    this.firings = h("ol", { class: "firings" });
    this.year = h("div", { class: "year" });
    this.versions = table("Versions, the newest first", ["Version", "Deployed", "Commit", ""]);
    this.backfills = table("Backfills, the newest first", ["Parameter", "Progress", "Failed", "At once", "Begun", ""]);
    this.difference = h("div", { class: "changes difference", tabindex: "-1" });
    this.missing = h("div", { class: "empty", hidden: true });
    const plain = (title, element, more) => h("section", { class: "panel-of", "aria-label": title },
      h("div", { class: "bar-of" }, h("h2", {}, title), more ?? ""), h("div", { class: "inner" }, element));
    this.runs = h("span");
    this.body = h("div", {},
      h("div", { class: "columns" },
        h("div", {}, plain("Last runs", this.lately, this.runs), plain("The last year", this.year),
          h("section", { class: "panel-of", "aria-label": "Versions" }, h("div", { class: "bar-of" }, h("h2", {}, "Versions")), this.versions.element, this.versions.noted, this.difference)),
        h("div", {}, plain("About", this.facts), plain("Next firings", this.firings), panel("Backfills", this.backfills))));
    this.root = h("div", { class: "board single" },
      h("div", { class: "head" }, h("div", { class: "titled" }, this.frame.link("?page=deployments", { class: "back" }, "← Deployments"), this.title), this.acts),
      this.missing, this.body);
  }

  open(query) {
    const name = query.get("name");
    if (name !== this.name) {
      this.name = name;
      this.about = this.form = this.told = null;
      write(this.title, name);
      this.body.hidden = true;
      this.missing.hidden = true;
    }
    this.version = query.get("version");
    if (!this.version) this.difference.replaceChildren();
    this.frame.entitle(name);
  }

  ask() {
    return { deployment: { name: this.name }, ...(/^\d{1,9}$/.test(this.version) && { version: { name: this.name, version: this.version } }) };
  }

  draw({ deployment = {}, version = {} }) {
    if (deployment.missing) {
      this.missing.hidden = false;
      this.body.hidden = true;
      this.acts.replaceChildren();
      this.missing.replaceChildren(h("h2", {}, capital(deployment.missing)), h("p", {}, "Deploy it:"), h("pre", {}, `flowkit deploy NOTEBOOK.ipynb --name ${shell(this.name)}`));
      return;
    }
    if (deployment.about) this.drawAbout(deployment.about);
    if (deployment.firings) this.drawFirings(deployment.firings);
    if (deployment.year) this.year.replaceChildren(...year(deployment.year));
    if (deployment.versions) this.drawVersions(deployment.versions);
    if (deployment.backfills) this.drawBackfills(deployment.backfills);
    if (deployment.form) {
      this.form = deployment.form;
      if (this.wanted) this.ask_for_values();
      this.wanted = false;
    }
    if (version.missing) this.difference.replaceChildren(h("p", { class: "hint" }, capital(version.missing)));
    if (version.difference) this.drawDifference(version.difference);
    this.tick();
  }

  tick() {
    NowPage.prototype.tick.call(this);
  }

  aging(part, attributes, text) {
    return NowPage.prototype.aging.call(this, part, attributes, text);
  }

  drawAbout(one) {
    this.about = one;
    this.missing.hidden = true;
    this.body.hidden = false;
    this.title.replaceChildren(one.id, one.paused ? h("span", { class: "paused" }, "paused") : "");
    this.title.title = one.id;
    this.acts.replaceChildren(this.page.buttons(one));
    const parameters = Object.entries(one.parameters);
    const facts = [
      ["Schedule", one.schedule ? `${one.schedule}, ${one.zone}` : "none: it is run by hand"],
      ["Queue", one.queue], ["Notebook", one.notebook], ["Version", String(one.version)], ["Commit", one.commit || ""],
      ["Created", when(one.created, true)], ["Keeps", `${one.keeps[0]} that succeeded, ${one.keeps[1]} others`],
      ...Object.entries(one.policy).map(([name, value]) => [capital(name.replaceAll("_", " ")), value]),
    ].filter(([, value]) => value);
    this.facts.replaceChildren(...facts.map(([name, value]) => fact([name, value, "wide"])),
      parameters.length ? h("div", { class: "wide parameters" }, ...parameters.map(([name, value]) => fact([name, value, "wide"]))) : "");
    const [succeeded, ended] = one.succeeded;
    this.runs.replaceChildren(this.frame.link(`?${new URLSearchParams({ page: "runs", deployment: one.id })}`, {}, "All its runs"));
    this.lately.replaceChildren(
      h("div", { class: "line-of" }, dots(this.frame, one),
        h("span", { class: "hint-of" }, ended ? `${succeeded} of the last ${ended} succeeded` : "none has ended yet")),
      one.took.length > 1 ? durations(one) : h("p", { class: "hint-of" }, one.dots.length ? "How long it takes shows after two successes." : h("span", {}, "It has not run yet. Press Run now, or: ", h("code", {}, `flowkit run ${shell(one.id)}`))));
  }

  drawFirings(firings) {
    this.live.firings = [];
    const now = () => this.frame.now();
    this.firings.replaceChildren(...firings.map((at) => h("li", {}, h("span", {}, when(at, true)), this.aging("firings", { class: "hint-of" }, () => `in ${span(Math.max(0, at - now()))}`))));
    if (firings.length) this.firings.append(h("li", { class: "hint-of" }, "Times are of your own zone."));
    if (!firings.length) this.firings.replaceChildren(h("li", { class: "hint-of" }, this.about?.paused ? "none while it is paused" : "none: it has no schedule, or its end has passed"));
    else if (this.about?.paused) this.firings.prepend(h("li", { class: "hint-of" }, "if it were not paused:"));
  }

  drawVersions(versions) {
    rows(this.versions, versions.map((one) => ({ id: String(one.version), ...one })), (row, one) => [
      h("td", { class: "name" }, String(one.version), one.current ? h("span", { class: "hint-of" }, " current") : ""),
      h("td", { class: "time" }, when(one.at, true)),
      h("td", { class: "run" }, (one.commit || "").slice(0, 10)),
      h("td", { class: "way" }, one.version > versions.at(-1).version ? this.frame.link(`?${new URLSearchParams({ page: "deployments", name: this.name, version: one.version })}`, {}, "What changed") : ""),
    ]);
    this.versions.note("");
  }

  drawDifference({ cells, unshown, others }) {
    const before = (text, style) => h("span", { class: style }, text);
    const settings = others.map(([name, was, now]) => h("li", {}, h("div", { class: "what" }, h("span", { class: "kind" }, "setting"),
      h("b", {}, name), h("span", { class: "values" }, before(was, "old"), " → ", before(now, "new")))));
    const list = [...cells.map(change), ...settings];
    this.difference.replaceChildren(
      h("p", { class: "hint" }, `Version ${this.version} against the one before it. `, this.frame.link(deploymentAddress(this.name), {}, "Close")),
      list.length ? h("ol", {}, ...list) : h("p", { class: "hint" }, "Its cells and settings are the same."),
      unshown ? h("p", { class: "hint" }, `and ${count(unshown)} other cells`) : "");
    this.difference.scrollIntoView({ block: "nearest" });
  }

  drawBackfills(backfills) {
    const may = this.frame.may("operator");
    rows(this.backfills, backfills, (row, one) => {
      const done = one.total ? (100 * one.ended) / one.total : 0;
      const failed = one.counts.failed;
      const cancel = async () => {
        const sure = await this.frame.confirm(`Cancel the ${count(one.total - one.ended)} runs of the backfill of ${one.parameter} that have not ended?`, "Cancel them");
        if (sure) this.frame.act("cancel-backfill", { id: one.id });
      };
      return [
        h("td", { class: "name", title: one.id }, one.parameter),
        h("td", { class: "progress" }, h("span", { class: "track", role: "progressbar", "aria-valuenow": Math.round(done), "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": one.parameter },
          h("i", { class: "bar good", style: `width: ${done}%` }), h("i", { class: "bar failed", style: `width: ${one.total ? (100 * failed) / one.total : 0}%` })),
        h("span", { class: "hint-of" }, `${count(one.ended)} of ${count(one.total)}`)),
        h("td", { class: failed ? "figure alarm" : "figure nil" }, count(failed)),
        h("td", { class: "figure" }, count(one.concurrency)),
        h("td", { class: "time" }, when(one.created)),
        h("td", { class: "way" }, one.ended < one.total && may ? h("button", { type: "button", onclick: cancel }, "Cancel") : ""),
      ];
    });
    this.backfills.note(backfills.length ? "" : ["Run it once for each day of a span:", `flowkit backfill ${shell(this.name)} day --from 2013-07-01 --to 2013-07-31`]);
  }

  // The form of a run by hand: what differs from the deployment's own values is given along.
  ask_for_values() {
    // Not randomUUID, which a browser has only where the page came by TLS or from its own machine.
    const key = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const fields = this.form.map((one) => ({ one, field: field(one) }));
    const send = h("button", { type: "submit", class: "bold" }, "Run");
    const wrong = h("p", { class: "line bad", role: "alert", hidden: true });
    const form = h("form", {},
      h("h2", {}, `Run ${this.name}`),
      ...fields.map(({ one, field }) => h("label", {}, h("span", {}, h("b", {}, one.name), h("span", { class: "hint-of" }, ` ${one.type}`)), field,
        one.help ? h("span", { class: "hint-of" }, one.help) : "")),
      fields.length ? "" : h("p", { class: "hint-of" }, "It takes no parameters."),
      wrong,
      h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => dialog.close() }, "Leave it"), send));
    const dialog = h("dialog", { class: "form" }, form);
    dialog.addEventListener("close", () => dialog.remove());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      send.disabled = true;
      const values = Object.fromEntries(fields.filter(({ field }) => field.value !== "").map(({ one, field }) => [one.name, field.value]));
      const done = await this.frame.act("run", { name: this.name, values, key });
      send.disabled = false;
      if (!done) { // the frame says it below, which the dialog covers
        write(wrong, this.frame.said.firstChild.textContent);
        wrong.hidden = false;
        this.frame.say("");
        return;
      }
      dialog.close();
      this.frame.go(`?run=${done.run}`);
    });
    this.frame.root.append(dialog);
    dialog.showModal();
    (form.querySelector("input, select") ?? send).focus();
  }
}

// For a value of that type; empty: the deployment's own.
function field({ name, type, default: own }) {
  const without = own === null ? "" : own;
  if (/^bool( \| None)?$/.test(type)) {
    return h("select", { name }, h("option", { value: "" }, without || "–"), ...["True", "False"].map((value) => h("option", { value }, value)));
  }
  const number = /^(int|float)( \| None)?$/.test(type);
  return h("input", { name, type: "text", placeholder: without, autocomplete: "off", spellcheck: "false", ...(number && { inputmode: "decimal" }), required: own === null });
}

function fires(page, { paused, next }) {
  if (paused) return h("span", { class: "hint-of" }, "–");
  return next ? page.aging("rows", { title: when(next, true) }, () => (next > page.frame.now() ? `in ${span(next - page.frame.now())}` : "now")) : "";
}

// Newest last: each by shape and colour, a link to its run.
function dots(frame, { dots: some, waiting }) {
  const one = (run) => {
    const took = run.started && run.finished ? `, ${span(run.finished - run.started)}` : "";
    const said = `${run.cancelling ? "cancelling" : run.state}, ${when(run.started ?? run.created)}${took}${run.error ? `: ${run.error}` : ""}`;
    return frame.link(`?run=${run.id}`, { class: `dot ${run.state}`, title: said, "aria-label": said, tabindex: "-1" }, mark(run.state));
  };
  return h("span", { class: "dots", role: "group", "aria-label": "Last runs, the newest last" }, ...some.map(one),
    waiting ? h("span", { class: "hint-of" }, waiting === 1 ? "1 waits" : `${waiting}${waiting < 20 ? "" : "+"} wait`) : "");
}

function share([succeeded, ended]) {
  if (!ended) return "–";
  const part = Math.floor((100 * succeeded) / ended);
  return h("span", { class: part < 90 ? "alarm" : "", title: `${succeeded} of the last ${ended}` }, `${part} %`);
}

function usually(usual) {
  return usual ? h("span", { title: "the median, and within what 95 of 100 succeed" }, span(usual[0]), h("span", { class: "hint-of" }, ` · ${span(usual[1])}`)) : "–";
}

function trend(took) {
  if (took.length < 2) return "";
  return chart([{ values: took, name: "" }], { height: 22, small: true });
}

// How long the newest successes took, one after the other, with the median and the 95th percentile.
function durations({ took, usual }) {
  return h("figure", { class: "chart" }, h("figcaption", {}, h("b", {}, "Duration"), h("span", {}, `of the last ${took.length} that succeeded${usual ? `; usually ${span(usual[0])}, 95 of 100 within ${span(usual[1])}` : ""}`)),
    chart([{ values: took, name: "" }], { height: 84, shown: span, marks: usual ?? [] }));
}

// A square for each day, in columns of weeks that begin on Monday.
function year({ today, days }) {
  const day = 86400000;
  const last = Date.parse(today);
  const first = last - 364 * day;
  const start = first - ((new Date(first).getUTCDay() + 6) % 7) * day;
  const cells = svg("svg", { viewBox: "0 0 742 116", role: "img", class: "heat" });
  const most = Math.max(1, ...Object.values(days).map(([good]) => good));
  let good = 0, bad = 0, months = -1;
  for (let at = start; at <= last; at += day) {
    const name = new Date(at).toISOString().slice(0, 10);
    const [succeeded = 0, failed = 0, all = 0] = days[name] ?? [];
    const x = 2 + 14 * Math.floor((at - start) / (7 * day));
    const y = 16 + 14 * ((new Date(at).getUTCDay() + 6) % 7);
    if (at >= first) {
      good += all > 0 && !failed;
      bad += failed > 0;
      const style = !all ? "none" : failed ? "failed" : succeeded ? "succeeded" : "other";
      const cell = svg("rect", { x, y, width: 11, height: 11, rx: 2.5, class: style, ...(style === "succeeded" && { "fill-opacity": (0.35 + 0.65 * (succeeded / most)).toFixed(2) }) });
      const title = svg("title", {});
      title.textContent = all ? `${name}: ${all === 1 ? "1 run" : `${all} runs`}${failed ? `, ${failed} failed` : ""}` : `${name}: none`;
      cell.append(title);
      cells.append(cell);
      if (failed) cells.append(svg("path", { d: `M${x + 3} ${y + 3}l5 5m0-5l-5 5`, class: "cross" }));
    }
    const month = new Date(at).getUTCMonth();
    if (month !== months && new Date(at).getUTCDate() <= 7 && at >= first) {
      const text = svg("text", { x, y: 10 });
      text.textContent = new Date(at).toLocaleDateString("en", { month: "short", timeZone: "UTC" });
      cells.append(text);
      months = month;
    }
  }
  const said = good + bad ? `${good === 1 ? "1 day" : `${good} days`} without a failure, ${bad} with one` : "no run within a year";
  cells.setAttribute("aria-label", said);
  return [h("div", { class: "wide" }, cells), h("p", { class: "hint-of" }, `${capital(said)}. Days are those of its zone. Runs that are no longer kept count too.`)];
}
