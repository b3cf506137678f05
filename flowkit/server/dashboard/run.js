// The page of one run.
class RunPage {
  constructor(frame) {
    this.frame = frame;
    this.detail = new Detail(frame, { turned: (tab, attempt) => this.turned(tab, attempt) });
    this.root = h("div", { class: "run-page" }, this.detail.root);
  }

  open(query) {
    this.run = query.get("run") || "-";
    this.detail.open(this.run, null, { tab: query.get("tab"), attempt: Number(query.get("attempt")) || null });
  }

  // The address says what is looked at of it.
  turned(tab, attempt) {
    const url = new URLSearchParams({ run: this.run, ...(tab !== "nodes" && { tab }), ...(attempt && { attempt }) });
    history.replaceState(null, "", `?${url}`);
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

// One run, on a page of its own or beside the table. *close*: what its button does there; *turned*: hears which tab and
// which attempt are looked at.
class Detail {
  constructor(frame, { close, turned }) {
    this.frame = frame;
    this.close = close;
    this.turned = turned;
    this.attempt = null; // one before the newest
    this.tab = "nodes";
    this.root = h("section", { class: "detail", "aria-label": "Run", hidden: true });
  }

  ask() {
    if (!this.run) return {};
    const question = { run: this.run };
    const asked = { run: question, attempts: question, cell: question };
    if (this.attempt) asked.past = { ...question, attempt: this.attempt };
    if (["graph", "files"].includes(this.tab)) asked[this.tab] = question;
    if (this.tab === "changes") asked.changes = { ...question, other: this.other };
    return asked;
  }

  draw({ run, graph, changes, attempts, past, cell, files }) {
    if (changes?.missing) this.drawChanges({ problem: changes.missing });
    else if (changes) this.drawChanges(changes.changes);
    if (run || graph) this.hear({ ...graph, ...run });
    if (attempts?.attempts) this.drawAttempts(attempts.attempts);
    if (past?.missing) this.choose(null);
    else if (past) this.hearPast(past);
    if (cell && !cell.missing) this.drawCell(cell.cell);
    if (files?.files) this.drawFiles(files.files);
  }

  open(run, row, { tab, attempt } = {}) {
    if (run === this.run && (!attempt || attempt === this.attempt)) return;
    this.run = run;
    this.attempt = attempt ?? null;
    this.other = null;
    if (tab in TITLES) this.tab = tab;
    this.data = row || null;
    this.whole = null; // all facts, not only those of the table
    this.nodes = null; // of the newest attempt; and of an earlier one
    this.past = null;
    this.attempts = [];
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
    this.acts = h("div", { class: "run-acts" });
    this.error = h("div", { class: "failure", hidden: true });
    this.cell = h("div", { class: "cell", hidden: true });
    this.facts = h("dl", { class: "facts" });
    this.parameters = h("dl", { class: "facts parameters", hidden: true });
    this.usage = h("div", { class: "usage", hidden: true });
    this.tries = h("div", { class: "tries", role: "group", "aria-label": "Attempts", hidden: true });
    this.log = h("pre", { class: "log", tabindex: "0", onscroll: () => this.scrolled() });
    this.follow = h("input", { type: "checkbox", checked: true, onchange: () => this.follow.checked && this.toEnd() });
    this.logFile = h("a", { download: "" }, "Download all of it");
    this.logBar = h("div", { class: "hint log-bar", hidden: true }, h("label", {}, this.follow, "Follow"), this.logFile);
    this.filesBody = h("div", { class: "files" }, h("p", { class: "hint" }, "Looking at its files …"));
    this.otherField = h("input", { type: "search", placeholder: "another run", "aria-label": "Compare with run", maxlength: 100,
      onkeydown: (event) => event.key === "Enter" && this.compare(this.otherField.value.trim()) });
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
      log: h("div", { class: "panel", role: "tabpanel" }, this.logBar, this.logNote, this.log),
      notebook: h("div", { class: "panel", role: "tabpanel" }, this.notebookBar, this.frames),
      files: h("div", { class: "panel", role: "tabpanel" }, this.filesBody),
      changes: h("div", { class: "panel", role: "tabpanel" },
        h("div", { class: "hint other" }, h("span", {}, "Compare with"), this.otherField,
          h("button", { type: "button", onclick: () => this.compare(this.otherField.value.trim()) }, "Compare")), this.changesBody),
    };
    this.tabs = Object.fromEntries(Object.keys(TITLES).map((name) => [name,
      h("button", { type: "button", role: "tab", onclick: () => this.show(name) }, TITLES[name])]));
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
      h("div", { class: "side" },
        h("div", { class: "top" }, h("div", { class: "name" }, this.title, this.sub), close), this.acts,
        h("div", { class: "about" }, this.error, this.facts, this.usage, this.parameters)),
      h("div", { class: "rest" }, this.tries, tabs, ...Object.values(this.panels)));
    this.show(this.tab, true);
  }

  show(name, first = false) {
    this.tab = name;
    if (!first) {
      this.frame.ask(); // some is told only while somebody looks at it
      this.turned?.(name, this.attempt);
    }
    for (const [other, panel] of Object.entries(this.panels)) {
      panel.hidden = other !== name;
      this.tabs[other].setAttribute("aria-selected", String(other === name));
      this.tabs[other].tabIndex = other === name ? 0 : -1;
    }
    if (name === "log" && this.follow.checked) this.toEnd();
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
      this.drawActs();
      this.frameOf();
    }
    if (nodes) this.nodes = nodes;
    if (log) this.pieces = log.anew ? [log] : [...(this.pieces || []).slice(-500), log];
    if (this.attempt) return;
    if (usage) this.drawUsage(usage);
    if (nodes || run) this.drawNodes();
    if (log) this.drawLog(log);
  }

  // What is told of an earlier attempt stands in the place of the newest's.
  hearPast({ nodes, usage, log }) {
    if (nodes) this.past = nodes;
    if (usage) this.drawUsage(usage);
    if (nodes) this.drawNodes();
    if (log) this.drawLog(log);
  }

  choose(attempt) {
    this.attempt = attempt === this.data?.attempt ? null : attempt;
    this.past = null;
    this.drawAttempts(this.attempts);
    this.frame.ask();
    this.frameOf();
    this.turned?.(this.tab, this.attempt);
    if (this.attempt) return this.nodesBody.replaceChildren(h("p", { class: "hint" }, "Looking at its events …"));
    this.drawNodes();
    (this.pieces || []).forEach((log, place) => this.drawLog({ ...log, anew: !place }));
  }

  // When each attempt was under way, on one scale.
  drawAttempts(attempts) {
    this.attempts = attempts;
    this.tries.hidden = attempts.length < 2;
    if (this.tries.hidden) return;
    const now = this.frame.now();
    const from = Math.min(...attempts.map(([, started]) => started || Infinity));
    const to = Math.max(from + 0.001, ...attempts.map(([, , finished]) => finished ?? now));
    const chosen = this.attempt ?? attempts.at(-1)[0];
    this.tries.replaceChildren(...attempts.map(([number, started, finished, state, error]) => {
      const bar = h("span", { class: `bar ${state}` });
      bar.style.left = `${(100 * (started - from)) / (to - from)}%`;
      bar.style.width = `${(100 * ((finished ?? now) - started)) / (to - from)}%`;
      return h("button", { type: "button", "aria-pressed": String(number === chosen), title: error || state, onclick: () => this.choose(number) },
        mark(state), h("span", { class: "number" }, `Attempt ${number}`), h("span", { class: "lane" }, bar),
        h("span", { class: "took" }, duration({ state, started, finished }, now)));
    }));
    if (!this.attempt) this.tries.scrollTop = this.tries.scrollHeight;
  }

  drawActs() {
    const { id, state, cancelling, attempt } = this.data;
    const drawn = `${id} ${state} ${cancelling} ${attempt}`;
    if (this.drawnActs === drawn && this.acts.firstChild) return; // a button keeps the focus
    this.drawnActs = drawn;
    const button = (text, press, style) => h("button", { type: "button", class: style, onclick: press }, text);
    const over = state === "failed" || state === "cancelled";
    const may = this.frame.may("operator");
    const made = [
      may && (state === "pending" || state === "running") && !cancelling && button("Cancel", () => this.act("cancel", "Cancel this run?" + (state === "running" ? " Its kernel is stopped." : ""), "Cancel the run")),
      may && over && button("Retry", () => this.act("retry", "Run it again? Nodes that have finished keep their results.", "Retry"), "bold"),
      attempt && state !== "failed" && h("a", { class: "button", href: `book/${id}.ipynb`, download: "", title: "A notebook whose first cell loads this run's results" }, "Open as notebook"),
      this.close && this.frame.link(`?run=${id}`, { class: "button" }, "Own page"),
    ].filter(Boolean);
    this.acts.replaceChildren(...made);
    this.acts.hidden = !made.length;
  }

  async act(name, question, button, more = {}) {
    if (await this.frame.confirm(question, button)) await this.frame.act(name, { runs: [this.data.id], ...more });
    this.frame.ask();
  }

  // The cell it failed in, below the error.
  drawCell(cell) {
    this.cell.hidden = !cell;
    if (!cell) return;
    const trace = plain(cell.trace).trim();
    this.cell.replaceChildren(
      h("div", { class: "caption" }, cell.count ? `Cell In [${cell.count}]` : "The cell that failed"),
      h("pre", { tabindex: "0" }, cell.source),
      trace ? h("details", {}, h("summary", {}, "Traceback"), h("pre", { tabindex: "0" }, trace)) : "");
  }

  compare(other) {
    this.other = other || null;
    this.changesBody.replaceChildren(h("p", { class: "hint" }, "Comparing …"));
    this.frame.ask();
  }

  drawFiles({ left, results, more }) {
    const { id } = this.whole ?? this.data ?? { id: this.run };
    const place = (folder, name) => h("a", { href: `file/${id}/${folder}/${encodeURIComponent(name)}`, download: name }, name);
    const known = new Set(results.map(({ node }) => node));
    const source = (node) => h("span", { class: known.has(node) ? "from" : "from none" }, node);
    const table = (heads, rows) => h("table", {}, h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, ...rows.map((cells) => h("tr", {}, ...cells.map((one) => h("td", {}, ...[one].flat()))))));
    const size = (amount) => (amount === null ? "" : bytes(amount));
    this.filesBody.replaceChildren(
      h("h3", {}, "Results of nodes"),
      results.length ? table(["Node", "Made from", "Kind", "Attempt", "Size", "File"], results.map((one) =>
        [h("b", {}, one.node), one.reads.map(source), one.kind, String(one.attempt ?? ""), size(one.bytes), place("kept", one.file)]))
        : h("p", { class: "hint" }, "No node has kept a result."),
      more ? h("p", { class: "hint" }, `The first ${count(results.length)}.`) : "",
      h("h3", {}, "Files of its attempts"),
      left.length ? table(["Attempt", "File", "Size"], left.map(([attempt, name, amount]) => [String(attempt), place(attempt, name), size(amount)]))
        : h("p", { class: "hint" }, "It has left none."));
  }

  toEnd() {
    this.log.scrollTop = this.log.scrollHeight;
  }

  scrolled() {
    this.follow.checked = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 8;
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
      h("span", { class: "message" }, this.data.error), this.cell,
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
    const nodes = this.attempt ? this.past : this.nodes;
    if (!nodes || !this.whole) return;
    const { all, done, shown } = nodes;
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
      this.scale = h("thead", {}, h("tr", {}, h("td", { class: "state" }), h("td", { class: "node" }), h("td", { class: "lane" }), h("td", { class: "duration" })));
      this.nodesTable.prepend(this.scale);
      const less = all > shown.length ? h("p", { class: "hint" }, `${count(shown.length)} of ${count(all)}: those that failed or are running come first.`) : "";
      this.nodesBody.replaceChildren(this.nodesTable, less);
    }
    const whole = this.nodesTable.tBodies[0].rows;
    shown.forEach((node, index) => {
      const row = whole[index];
      if (node.child && row.dataset.child !== node.child) { // it is a run of its own
        row.dataset.child = node.child;
        row.cells[1].firstChild.replaceWith(this.frame.link(`?run=${node.child}`, { class: "name" }));
      }
      fillNode(row, node, { from, to, now });
    });
    this.drawScale(to - from);
    const over = !this.attempt && ["failed", "cancelled"].includes(this.whole.state) && this.frame.may("operator");
    shown.forEach(({ name, state }, index) => this.offer(whole[index].cells[1], over && state !== "skipped" ? name : null));
    drawMisfits(this.nodesBody, shown);
  }

  // Seconds above the bars, at round figures.
  drawScale(span) {
    const step = [1, 2, 5, 10, 20, 50].map((one) => one * 10 ** Math.floor(Math.log10(span / 5))).find((one) => span / one <= 5.5) || span;
    if (this.scale.dataset.drawn === `${step} ${Math.floor(span / step)}`) return this.nodesTable.style.setProperty("--step", `${(100 * step) / span}%`);
    this.scale.dataset.drawn = `${step} ${Math.floor(span / step)}`;
    this.nodesTable.style.setProperty("--step", `${(100 * step) / span}%`);
    const marks = [];
    for (let at = 0; at <= span * 1.0001; at += step) {
      const one = h("span", { class: "tick" }, at === 0 ? "0" : at < 1 ? `${Number((1000 * at).toPrecision(3))} ms` : at < 60 ? `${Number(at.toPrecision(3))} s` : clock(Math.round(at)));
      one.style.left = `calc(${at / step} * var(--step))`;
      marks.push(one);
    }
    this.scale.rows[0].cells[2].replaceChildren(...marks);
  }

  // A button by a node: from there on again.
  offer(cell, node) {
    const there = cell.querySelector("button");
    if (!node) return there?.remove();
    if (there) return;
    cell.append(h("button", { type: "button", class: "again", title: `Retry from ${node}`, onclick: () =>
      this.act("retry", `Run it again from ${node}? That and what depends on it are computed anew; other nodes keep their results.`, "Retry from there", { node }) }, "Retry from here"));
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
    const { checked } = this.follow;
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
    this.logBar.hidden = !length;
    const attempt = this.attempt ?? this.data?.attempt;
    if (attempt) this.logFile.href = `log/${this.data.id}/${attempt}.txt`;
    if (checked || anew) this.toEnd();
  }

  // The notebook, in a frame where nothing runs. A new one is shown when it is there, not before.
  frameOf(anew = false) {
    if (this.tab !== "notebook" || !this.whole) return;
    const { id, state, finished } = this.whole;
    const attempt = this.attempt ?? this.whole.attempt;
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
      state === "running" && !this.attempt ? h("span", {}, "As far as it was saved. ") : "", state === "running" ? reload : "",
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

const TITLES = { graph: "Graph", nodes: "Nodes", log: "Log", notebook: "Notebook", files: "Files", changes: "What changed" };

const CAUSES = {
  notebook: "The notebook raised an error", crashed: "Its kernel or worker died",
  timeout: "It took longer than allowed", memory: "It ran out of memory", setup: "It could not begin",
};

const ISOLATION = {
  namespace: "alone in a PID namespace", reaper: "kept together by a reaper", group: "kept together by its process group",
};
