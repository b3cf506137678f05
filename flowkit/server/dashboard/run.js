// The page of one run.
class RunPage {
  constructor(frame) {
    this.frame = frame;
    this.detail = new Detail(frame, {});
    this.root = h("div", { class: "run-page" }, this.detail.root);
  }

  open(query) {
    this.detail.open(query.get("run") || "-");
  }

  ask() {
    return this.detail.ask();
  }

  draw(told) {
    this.detail.draw(told);
  }

  tick() {
    this.detail.tick();
  }

  recolour() {
    this.detail.frameOf(true);
  }
}

const TAIL = 64000; // characters of a log that stay on the page

// One run, on a page of its own or beside the table. *close*: what its button does there.
class Detail {
  constructor(frame, { close }) {
    this.frame = frame;
    this.close = close;
    this.tab = "nodes";
    this.root = h("section", { class: "detail", "aria-label": "Run", hidden: true });
  }

  ask() {
    if (!this.run) return {};
    const question = { run: this.run };
    return { run: question, ...(["graph", "changes"].includes(this.tab) && { [this.tab]: question }) };
  }

  draw({ run, graph, changes }) {
    if (changes?.missing) this.drawChanges({ problem: changes.missing });
    else if (changes) this.drawChanges(changes.changes);
    if (run || graph) this.hear({ ...graph, ...run });
  }

  open(run, row) {
    if (run === this.run) return;
    this.run = run;
    this.data = row || null;
    this.whole = null; // all facts, not only those of the table
    this.nodes = null;
    this.drawn = null; // what the frame shows
    this.missing = null;
    this.graph?.close();
    this.graph = null;
    this.root.hidden = !run;
    if (!run) return this.root.replaceChildren();
    this.build();
    if (row) this.drawHead();
    else write(this.title, run.slice(0, 8));
  }

  build() {
    this.title = h("h2", {});
    this.sub = h("p", { class: "sub" });
    this.error = h("div", { class: "failure", hidden: true });
    this.facts = h("dl", { class: "facts" });
    this.parameters = h("dl", { class: "facts parameters", hidden: true });
    this.usage = h("div", { class: "usage", hidden: true });
    this.log = h("pre", { class: "log", tabindex: "0" });
    this.logNote = h("p", { class: "hint" }, "Nothing printed.");
    this.nodesBody = h("div", { class: "nodes" });
    this.frames = h("div", { class: "frames" });
    this.notebookBar = h("div", { class: "hint notebook-bar" });
    this.graphBody = h("div", { class: "graph" });
    this.graphNote = h("p", { class: "hint" }, "Looking at its events …");
    this.changesBody = h("div", { class: "changes" }, h("p", { class: "hint" }, "Comparing it with the last run that succeeded …"));
    this.panels = {
      graph: h("div", { class: "panel", role: "tabpanel" }, this.graphNote, this.graphBody),
      nodes: h("div", { class: "panel", role: "tabpanel" }, this.nodesBody),
      log: h("div", { class: "panel", role: "tabpanel" }, this.logNote, this.log),
      notebook: h("div", { class: "panel", role: "tabpanel" }, this.notebookBar, this.frames),
      changes: h("div", { class: "panel", role: "tabpanel" }, this.changesBody),
    };
    this.tabs = Object.fromEntries(["graph", "nodes", "log", "notebook", "changes"].map((name) => [name,
      h("button", { type: "button", role: "tab", onclick: () => this.show(name) }, TITLES[name] || name[0].toUpperCase() + name.slice(1))]));
    const tabs = h("div", { class: "tabs", role: "tablist" }, ...Object.values(this.tabs));
    tabs.addEventListener("keydown", (event) => {
      const names = Object.keys(this.tabs);
      const to = names[names.indexOf(this.tab) + { ArrowRight: 1, ArrowLeft: -1 }[event.key]];
      if (!to) return;
      this.show(to);
      this.tabs[to].focus();
    });
    const close = this.close ? h("button", { class: "close", type: "button", title: "Close (Esc)", "aria-label": "Close", onclick: () => this.close() }, "✕") : "";
    this.root.replaceChildren(
      h("div", { class: "top" }, h("div", { class: "name" }, this.title, this.sub), close),
      h("div", { class: "about" }, this.error, this.facts, this.usage, this.parameters), tabs, ...Object.values(this.panels));
    this.show(this.tab, true);
  }

  show(name, first = false) {
    this.tab = name;
    if ((name === "graph" || name === "changes") && !first) this.frame.ask(); // it is told only while somebody looks at it
    for (const [other, panel] of Object.entries(this.panels)) {
      panel.hidden = other !== name;
      this.tabs[other].setAttribute("aria-selected", String(other === name));
      this.tabs[other].tabIndex = other === name ? 0 : -1;
    }
    if (name === "log") this.log.scrollTop = this.log.scrollHeight;
    if (name === "notebook") this.frameOf();
  }

  hear({ run, nodes, usage, log, missing, graph, standing }) {
    if (missing) return this.drawMissing(missing);
    if (this.missing) this.build();
    this.missing = null;
    if (graph !== undefined || standing) this.drawGraph(graph, standing);
    if (run) {
      this.data = this.whole = run;
      this.drawHead();
      this.drawFacts();
      this.frameOf();
    }
    if (nodes) this.nodes = nodes;
    if (usage) this.drawUsage(usage);
    if (nodes || run) this.drawNodes();
    if (log) this.drawLog(log);
  }

  tick() {
    if (this.data?.state !== "running" || !this.whole) return;
    this.drawSub();
    this.drawNodes();
  }

  drawMissing(why) {
    if (this.missing === why) return; // again: the button keeps its focus
    this.missing = why;
    this.root.replaceChildren(h("div", { class: "top" }, h("p", { class: "hint" }, why),
      this.close ? h("button", { type: "button", onclick: () => this.close() }, "Close")
        : this.frame.link("?page=runs", {}, "All runs")));
  }

  drawHead() {
    write(this.title, this.data.label);
    this.title.title = this.data.label;
    if (!this.close) this.frame.entitle(this.data.label);
    this.drawSub();
    this.error.hidden = !this.data.error;
    const again = this.data.state === "pending" || this.data.state === "running";
    this.error.classList.toggle("past", again || this.data.state === "succeeded");
    const failed = this.data.state === "failed";
    this.error.replaceChildren(
      h("b", {}, `${again ? "The attempt before: " : ""}${CAUSES[this.data.cause] || "It failed"}`),
      h("span", {}, this.data.error),
      failed ? h("p", { class: "next" },
        h("button", { type: "button", onclick: () => this.show("changes") }, "What changed since the last success"),
        h("span", {}, "Stand where it failed: ", h("code", {}, `flowkit open ${this.data.id.slice(0, 8)}`), " or ",
          h("a", { href: `book/${this.data.id}.ipynb`, download: "" }, "download the notebook"))) : "");
  }

  drawSub() {
    const { state, cancelling, attempt, attempts } = this.data;
    const took = duration(this.data, this.frame.now());
    const tries = attempts > 1 && attempt ? `attempt ${attempt} of at most ${attempts}` : "";
    const parts = [took, tries].filter(Boolean).map((text) => h("span", {}, text));
    const standing = `${state} ${cancelling}`;
    if (this.standing !== standing || !this.sub.firstChild) this.sub.replaceChildren(badge(this.data));
    this.standing = standing;
    while (this.sub.childNodes.length > 1) this.sub.lastChild.remove();
    this.sub.append(...parts);
  }

  drawFacts() {
    const run = this.whole;
    const facts = [
      ["Run", run.id, "wide"],
      ["Created", when(run.created, true), "left"],
      ["Scheduled for", when(run.scheduled, true), "left"],
      ["Started", when(run.started, true), "left"],
      ["Finished", when(run.finished, true), "left"],
      ["Queue", run.priority ? `${run.queue}, priority ${run.priority}` : run.queue, "right"],
      ["Worker", run.worker, "right"],
      ["Version", run.version && String(run.version), "right"],
      ["Next attempt", run.state === "pending" && run.available ? when(run.available, true) : "", "right"],
      ["Waits", run.wait && run.wait[0] + (run.wait[1] ? `, until ${when(run.wait[1], true)}` : ""), "wide"],
      ["Notebook", run.notebook, "wide"],
    ];
    this.facts.replaceChildren(...facts.filter(([, value]) => value).map(fact));
    this.parameters.hidden = !run.parameters.length;
    const more = run.unshown ? [["…", `and ${run.unshown} more`]] : [];
    this.parameters.replaceChildren(...run.parameters.concat(more).map(fact));
  }

  drawUsage({ where, isolation, points, peak, mean, limit }) {
    this.usage.hidden = !points.length;
    if (!points.length) return;
    const last = points.at(-1);
    const ended = this.data?.finished;
    const most = limit ? `${bytes(peak)} of ${bytes(limit)}` : bytes(peak);
    this.usage.replaceChildren(
      meter("Memory", ended ? `at most ${most}` : `${bytes(last[3])}, at most ${most}`, points, 3, Math.max(peak, limit || 0), limit),
      meter("CPU", `${ended ? "" : `${last[2].toFixed(1)} cores, `}on average ${mean.toFixed(1)}`, points, 2));
    this.usage.title = where ? `${where}, ${ISOLATION[isolation]}` : "";
  }

  drawNodes() {
    if (!this.nodes || !this.whole) return;
    const { all, done, shown } = this.nodes;
    write(this.tabs.nodes, all ? `Nodes ${done}/${all}` : "Nodes");
    if (!all) {
      const why = this.whole.state === "pending" ? "It waits for a worker." : "No node has started.";
      return this.nodesBody.replaceChildren(h("p", { class: "hint" }, why));
    }
    const now = this.frame.now();
    const from = Math.min(...shown.map((node) => node.started ?? Infinity));
    const to = Math.max(from + 0.001, ...shown.map((node) => node.finished ?? (node.started ? now : -Infinity)));
    // Rows stay where they are and only their values change, so that nothing under the pointer moves.
    if (this.nodesTable?.parentNode !== this.nodesBody || this.nodesTable.tBodies[0].rows.length !== shown.length) {
      this.nodesTable = h("table", {}, h("tbody", {}, ...shown.map(() => nodeRow())));
      const less = all > shown.length ? h("p", { class: "hint" }, `${count(shown.length)} of ${count(all)}: those that failed or are running come first.`) : "";
      this.nodesBody.replaceChildren(this.nodesTable, less);
    }
    shown.forEach((node, index) => fillNode(this.nodesTable.tBodies[0].rows[index], node, { from, to, now }));
    drawMisfits(this.nodesBody, shown);
  }

  drawChanges({ problem, since, changes, unshown, same, unknown }) {
    if (problem) return this.changesBody.replaceChildren(h("p", { class: "hint" }, problem));
    const rest = [["The same", same], ["Not known", unknown]].filter(([, names]) => names.length);
    this.changesBody.replaceChildren(
      h("p", { class: "hint" }, "Since run ",
        this.frame.link(`?run=${since.id}`, {}, since.id.slice(0, 8)),
        `, which succeeded ${when(since.finished, true)}. What most likely broke it comes first.`),
      changes.length ? h("ol", {}, ...changes.map(change)) : h("p", { class: "hint" }, "Nothing that is known differs."),
      unshown ? h("p", { class: "hint" }, `and ${count(unshown)} more: flowkit diff ${this.data.id.slice(0, 8)}`) : "",
      ...rest.map(([title, names]) => h("p", { class: "hint" }, h("b", {}, title), ` ${names.join(", ")}`)));
  }

  // The same graph as in a notebook, from the file that this server gives.
  async drawGraph(graph, standing) {
    if (graph === false) return write(this.graphNote, "No flow has run in this notebook.");
    this.graph ??= new GraphModel(this.graphBody);
    this.graph.tell({ ...(graph && { graph }), ...standing });
    try {
      await this.graph.draw();
      this.graphNote.hidden = true;
    } catch (error) {
      write(this.graphNote, `The graph cannot be drawn: ${error.message}`);
    }
  }

  drawLog({ anew, cut, pieces }) {
    const atEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 8;
    if (anew) this.log.replaceChildren();
    if (cut) this.log.append(h("span", { class: "hint" }, "… what came before is in the notebook, and in flowkit logs …\n"));
    for (const [stream, text] of pieces) {
      const last = this.log.lastChild;
      if (last?.className === stream) last.textContent = plain(last.textContent + text);
      else this.log.append(h("span", { class: stream }, plain(text)));
    }
    let length = this.log.textContent.length;
    while (length > TAIL && this.log.childNodes.length > 1) {
      length -= this.log.firstChild.textContent.length;
      this.log.firstChild.remove();
    }
    if (length > TAIL) this.log.lastChild.textContent = this.log.lastChild.textContent.slice(-TAIL);
    this.logNote.hidden = length > 0;
    this.log.hidden = !length;
    if (atEnd || anew) this.log.scrollTop = this.log.scrollHeight;
  }

  // The notebook, in a frame where nothing runs. A new one is shown when it is there, not before.
  frameOf(anew = false) {
    if (this.tab !== "notebook" || !this.whole) return;
    const { id, attempt, state, finished } = this.whole;
    const wanted = `${id}/${attempt}/${finished || ""}`;
    if (wanted === this.drawn && !anew) return;
    this.drawn = wanted;
    if (!attempt) {
      this.frames.replaceChildren();
      return this.notebookBar.replaceChildren("It waits for a worker; there is no notebook yet.");
    }
    const theme = this.frame.theme === "auto" ? "" : `?theme=${this.frame.theme}`;
    const address = `notebook/${id}/${attempt}`;
    const frame = h("iframe", {
      class: "coming", title: "Executed notebook", sandbox: "allow-popups allow-popups-to-escape-sandbox",
      referrerpolicy: "no-referrer", src: `${address}${theme}#failed`,
    });
    frame.addEventListener("load", () => {
      frame.className = "";
      for (const other of [...this.frames.children]) if (other !== frame) other.remove();
    });
    this.frames.append(frame);
    const reload = h("button", { type: "button", onclick: () => this.frameOf(true) }, "Reload");
    this.notebookBar.replaceChildren(
      state === "running" ? h("span", {}, "As far as it was saved. ") : "", state === "running" ? reload : "",
      h("a", { href: `${address}${theme}#failed`, target: "_blank", rel: "noopener" }, "Open in a tab"),
      h("a", { href: `${address}.ipynb`, download: "" }, "Download"));
  }
}

// What the notebook's widget is to the graph's front-end: named values, and who wants to hear of them.
class GraphModel {
  constructor(el) {
    this.el = el;
    this.values = {};
    this.hearers = new Map();
  }

  tell(values) {
    Object.assign(this.values, values);
    for (const name of Object.keys(values)) for (const hear of this.hearers.get(`change:${name}`) || []) hear();
  }

  async draw() {
    this.drawn ??= import(new URL("graph.js", document.baseURI).href).then(({ render }) => {
      if (!this.closed) this.end = render({ model: this, el: this.el });
    });
    await this.drawn;
  }

  close() {
    this.closed = true;
    this.end?.();
  }

  get(name) {
    return this.values[name];
  }

  on(event, hear) {
    this.hearers.set(event, [...(this.hearers.get(event) || []), hear]);
  }

  off(event, hear) {
    this.hearers.set(event, (this.hearers.get(event) || []).filter((other) => other !== hear));
  }

  // It is only looked at: nothing of it is sent back.
  set() {}
  save_changes() {}
}

const TITLES = { changes: "What changed" };

const CAUSES = {
  notebook: "The notebook raised an error", crashed: "Its kernel or worker died",
  timeout: "It took longer than allowed", memory: "It ran out of memory", setup: "It could not begin",
};

const ISOLATION = {
  namespace: "alone in a PID namespace", reaper: "kept together by a reaper", group: "kept together by its process group",
};
