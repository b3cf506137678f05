// The page Now: what is broken, since when, why; what runs, what waits, who works, what comes.
class NowPage {
  constructor(frame) {
    this.frame = frame;
    this.live = {}; // what grows older while nothing is told, by part: [element, text() each half second]
    this.chips = new Map();
    const chips = h("div", { class: "chips", role: "group", "aria-label": "Runs by state" });
    for (const state of [null, ...STATES]) {
      const figure = h("b", {}, "0");
      this.chips.set(state, figure);
      chips.append(frame.link(state ? `?page=runs&state=${state}` : "?page=runs", { class: `chip ${state || "all"}` },
        state && mark(state), figure, h("span", {}, state || "runs")));
    }
    this.verdict = h("h1", { role: "status" });
    this.remarks = h("div", { role: "status" });
    this.failures = table("Failures of the last 24 hours, by error", ["", "Deployment and error", "Times", "First", "Last", ""]);
    this.going = table("Runs under way, the longest first", ["Deployment", "Run", "Elapsed, of its usual time", "CPU", "Memory", "Worker"]);
    this.queues = table("Queues", ["Queue", "Waiting", "Oldest", "In/min", "Out/min"]);
    this.workers = table("Workers", ["Worker", "Queues", "Seen"]);
    this.firings = table("Next firings", ["Deployment", "Fires", "In"]);
    const opens = (one) => walk(one.body, { open: (id) => frame.go(`?run=${id}`) });
    opens(this.failures);
    opens(this.going);
    walk(this.firings.body, { open: (name) => frame.go(deploymentAddress(name)) });
    this.empty = h("div", { class: "empty", hidden: true });
    this.columns = h("div", { class: "columns" },
      h("div", {},
        panel("Failures, last 24 hours", this.failures, frame.link("?page=runs&state=failed", {}, "All that failed")),
        panel("Under way", this.going, frame.link("?page=runs&state=running", {}, "All that run"))),
      h("div", {},
        panel("Queues", this.queues, frame.link("?page=queue", {}, "Over time")),
        panel("Workers", this.workers),
        panel("Next firings", this.firings, frame.link("?page=deployments", {}, "All deployments"))));
    this.root = h("section", { class: "board now-page", "aria-label": "Now" },
      h("div", { class: "head" }, this.verdict, chips), this.remarks, this.empty, this.columns);
  }

  open() {}

  ask() {
    return { now: {}, lanes: {} };
  }

  draw({ now = {}, lanes = {} }) {
    if (now.counts) this.drawCounts(now.counts);
    if (now.remarks || now.closed) this.drawRemarks(now);
    if (now.failures) this.drawFailures(now.failures);
    if (now.workers) this.drawWorkers(now.workers);
    if (now.going) this.drawGoing(now.going);
    if (now.firings) this.drawFirings(now.firings);
    if (lanes.lanes) this.drawQueues(lanes.lanes);
    this.drawVerdict();
    this.tick();
  }

  tick() {
    for (const some of Object.values(this.live)) for (const [element, text] of some) write(element, text());
  }

  // An element whose text is a matter of the time.
  aging(part, attributes, text) {
    const element = h("span", attributes, text());
    this.live[part].push([element, text]);
    return element;
  }

  drawCounts({ of, most, deployments }) {
    const all = STATES.reduce((sum, state) => sum + of[state], 0);
    for (const [state, figure] of this.chips) {
      const more = (state ? [state] : STATES).some((one) => of[one] >= most);
      write(figure, count(state ? of[state] : all) + (more ? "+" : ""));
    }
    this.empty.hidden = all > 0;
    this.columns.hidden = !all && !deployments.length;
    if (!all) teach(this.empty, deployments);
  }

  // The answer before all figures: is anything broken, and since when.
  drawVerdict() {
    const problems = (this.found ?? []).filter(([, health]) => health === "problem").length;
    const { broken = 0, since } = this.broken ?? {};
    const parts = [];
    if (broken) parts.push(`${broken === 1 ? "1 thing fails" : `${count(broken)} things fail`} since ${when(since)}`);
    if (problems) parts.push(problems === 1 ? "1 problem of the set-up" : `${problems} problems of the set-up`);
    write(this.verdict, parts.length ? `${parts.join(", ")}.` : "Nothing is broken.");
    this.verdict.classList.toggle("bad", parts.length > 0);
  }

  drawRemarks({ remarks = this.found ?? [], closed = this.closed ?? [] }) {
    this.found = remarks;
    this.closed = closed;
    this.live.remarks = [];
    const lines = remarks.map(([, health, found, remedy]) => h("p", { class: `line ${health === "problem" ? "bad" : "warn"}` },
      `${capital(found)}. `, looksTyped(remedy) ? h("code", {}, remedy) : h("span", { class: "remedy" }, `${capital(remedy)}.`)));
    const few = lines.length > 4 ? 3 : 4; // of many the page below would not be seen
    this.remarks.replaceChildren(...lines.slice(0, few),
      lines.length > few ? h("details", { class: "others", open: this.remarks.querySelector("details")?.open }, h("summary", {}, `${lines.length - few} others`), ...lines.slice(few)) : "",
      ...closed.map(([name, until, error]) => h("p", { class: "line warn" }, this.aging("remarks", {}, () => {
        const how = until > this.frame.now() ? `is closed until ${timeOfDay(until)}` : "was closed, and the next call tries it";
        return `The limit ${name} ${how}; the last failure: ${error}.`;
      }))));
  }

  drawFailures({ groups, all, broken, more }) {
    this.broken = { broken, since: Math.min(...groups.filter((one) => !one.recovered).map((one) => one.first)) };
    rows(this.failures, groups, (row, one) => [
      h("td", { class: "mark-of", title: one.recovered ? "it succeeded since" : "nothing succeeded since" }, mark(one.recovered ? "succeeded" : "failed")),
      h("td", { class: "what-fails", title: one.error }, h("b", {}, one.label), h("span", {}, one.error || "no error is known")),
      h("td", { class: "figure" }, one.deployment
        ? this.frame.link(`?${new URLSearchParams({ page: "runs", state: "failed", deployment: one.deployment, last: "24h" })}`, { tabindex: "-1", title: "All of it that failed" }, count(one.count))
        : count(one.count)),
      h("td", { class: "time" }, when(one.first)),
      h("td", { class: "time" }, when(one.last)),
      h("td", { class: "way" }, ...one.recovered ? [h("span", { class: "good" }, `well since ${when(one.recovered)}`)]
        : [this.frame.may("operator") ? h("button", { type: "button", title: "The newest of them, from the beginning", onclick: () => this.frame.act("retry", { runs: [one.id] }) }, "Retry") : "",
          this.frame.link(`?run=${one.id}`, { tabindex: "-1" }, "Why")]),
    ]);
    const note = more ? "There were more failures than are read; the newest are here." : all > groups.length ? `and ${count(all - groups.length)} others` : "";
    this.failures.note(groups.length ? note : "None.");
  }

  drawGoing({ runs, more }) {
    this.live.going = [];
    rows(this.going, runs, (row, one) => {
      const now = () => this.frame.now();
      return [
        h("td", { class: "name", title: one.label }, one.label),
        h("td", { class: "run" }, this.frame.link(`?run=${one.id}`, { tabindex: "-1" }, one.id.slice(0, 8)),
          one.cancelling ? h("span", { class: "hint-of" }, " cancelling") : one.attempt > 1 ? h("span", { class: "hint-of" }, ` attempt ${one.attempt}`) : ""),
        h("td", { class: "elapsed" }, this.elapsed(one, now)),
        h("td", { class: "figure" }, one.uses ? `${one.uses[0].toFixed(1)}` : "–"),
        h("td", { class: "figure" }, one.uses ? bytes(one.uses[1]) : "–"),
        h("td", { class: "worker", title: one.worker }, this.alive?.has(one.worker) === false ? h("span", { class: "alarm", title: "silent: another worker takes the run over" }, one.worker) : one.worker),
      ];
    }, true);
    this.going.note(runs.length ? (more ? "and others" : "") : "Nothing runs now.");
  }

  // A bar up to where it is now, with marks at the median and the 95th percentile of its successes.
  elapsed({ started, usual }, now) {
    const [bar, median, high] = ["bar", "tick", "tick high"].map((name) => h("i", { class: name }));
    const text = this.aging("going", { class: "figure" }, () => {
      const spent = Math.max(0, now() - started);
      if (usual) {
        const whole = Math.max(usual[1] * 1.25, spent);
        bar.style.width = `${(100 * spent) / whole}%`;
        median.style.left = `${(100 * usual[0]) / whole}%`;
        high.style.left = `${(100 * usual[1]) / whole}%`;
        bar.classList.toggle("late", spent > usual[1]);
      }
      return clock(Math.floor(spent));
    });
    if (!usual) return h("span", { class: "gauge none" }, text, h("span", { class: "hint-of" }, "no usual time yet"));
    const title = `usually ${span(usual[0])}; 95 of 100 within ${span(usual[1])}`;
    return h("span", { class: "gauge", title }, text, h("span", { class: "track" }, bar, median, high),
      h("span", { class: "hint-of" }, `usually ${span(usual[0])}`));
  }

  drawWorkers({ shown, all, live }) {
    this.live.workers = [];
    this.alive = new Set(shown.filter((one) => this.frame.now() - one.seen <= live).map((one) => one.id));
    rows(this.workers, shown, (row, one) => {
      const seen = this.aging("workers", {}, () => {
        const ago = Math.max(0, this.frame.now() - one.seen);
        row.classList.toggle("silent", ago > live);
        return ago > live ? `silent for ${span(ago)}` : ago < 1 ? "now" : `${span(ago)} ago`;
      });
      return [
        h("td", { class: "name", title: `${one.id}, since ${when(one.started)}` }, one.host, h("span", { class: "hint-of" }, ` ${one.pid}, ${one.concurrency} at once`)),
        h("td", { class: "queues", title: one.queues.join(", ") }, one.queues.join(", ")),
        h("td", { class: "time" }, seen),
      ];
    }, true);
    this.workers.note(all > shown.length ? `and ${count(all - shown.length)} others` : shown.length ? "" : ["No worker is alive. Start one:", "flowkit worker"]);
  }

  drawFirings(firings) {
    this.live.firings = [];
    rows(this.firings, firings.map(([id, at]) => ({ id, at })), (row, { id, at }) => [
      h("td", { class: "name", title: id }, id),
      h("td", { class: "time" }, when(at)),
      h("td", { class: "time" }, this.aging("firings", {}, () => (at > this.frame.now() ? span(at - this.frame.now()) : "now"))),
    ], true);
    this.firings.note(firings.length ? "" : ["Nothing is scheduled. Let a notebook run each morning:", 'flowkit deploy NOTEBOOK.ipynb --cron "0 6 * * *"']);
  }

  drawQueues({ shown, all }) {
    this.live.queues = [];
    rows(this.queues, shown.map((one) => ({ id: one.name, ...one })), (row, one) => laneCells(this, "queues", one), true);
    this.queues.note(all > shown.length ? `and ${count(all - shown.length)} others` : shown.length ? "" : "No run has come to any queue yet.");
  }
}

// Name, depth, age of the oldest, and how fast runs come and go: of one queue.
function laneCells(page, part, one) {
  const blocked = one.waiting && !one.served;
  return [
    h("td", { class: "name", title: blocked ? `${one.name}: no worker is alive there` : one.name }, h("div", { class: "noted" }, h("span", {}, one.name),
      blocked ? h("span", { class: "alarm" }, "no worker") : one.limit !== null ? h("span", { class: "hint-of" }, `at most ${one.limit}`) : "")),
    h("td", { class: one.waiting ? "figure" : "figure nil" }, count(one.waiting)),
    h("td", { class: "time" }, one.oldest ? page.aging(part, {}, () => span(Math.max(0, page.frame.now() - one.oldest))) : "–"),
    ...one.rate.map((rate) => h("td", { class: rate ? "figure" : "figure nil" }, rate < 10 ? String(rate) : count(Math.round(rate)))),
  ];
}

// A table with a head, whose note below says what is not in it.
function table(label, columns) {
  const body = h("tbody");
  const note = h("p", { class: "note", hidden: true });
  const element = h("table", { "aria-label": label }, h("thead", {}, h("tr", {}, ...columns.map((text) => h("th", { scope: "col" }, text)))), body);
  return {
    body, element, noted: note,
    note(said) {
      note.hidden = !said.length;
      element.hidden = !body.rows.length;
      if (Array.isArray(said)) note.replaceChildren(said[0], h("pre", {}, said[1]));
      else note.replaceChildren(said);
    },
  };
}

function panel(title, one, more) {
  return h("section", { class: "panel-of", "aria-label": title }, h("div", { class: "bar-of" }, h("h2", {}, title), more ?? ""), h("div", { class: "wide" }, one.element), one.noted);
}

// The table's rows as they are now; one that stays the same is left alone, and what has the focus keeps it.
// *always*: fill each anew, since something in it grows older.
function rows({ body }, items, fill, always = false) {
  const root = body.getRootNode();
  const focused = body.contains(root.activeElement) ? root.activeElement.closest("tr").dataset.row : null;
  const known = new Map([...body.rows].map((row) => [row.dataset.row, row]));
  let next = body.firstChild;
  for (const item of items) {
    const row = known.get(item.id) ?? h("tr", { "data-row": item.id, tabindex: "-1" });
    known.delete(item.id);
    const said = JSON.stringify(item);
    if (always || row.said !== said) row.replaceChildren(...fill(row, item));
    row.said = said;
    if (row === next) next = next.nextSibling;
    else body.insertBefore(row, next);
  }
  for (const gone of known.values()) gone.remove();
  const all = [...body.rows];
  const chosen = all.find((row) => row.dataset.row === focused) ?? all.find((row) => row.tabIndex === 0) ?? all[0];
  for (const row of all) row.tabIndex = row === chosen ? 0 : -1;
  if (focused && chosen?.dataset.row === focused && root.activeElement !== chosen) chosen.focus({ preventScroll: true });
}

// A length of time, in one figure.
function span(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

// A remedy that is a command alone is shown as one, to be copied.
function looksTyped(remedy) {
  return /^flowkit [a-z-]+( |$)[^;:]*$/.test(remedy);
}

function deploymentAddress(name) {
  return `?${new URLSearchParams({ page: "deployments", name })}`;
}
