// The dashboard in the browser: its frame, around one page at a time. A page asks ("what I look at is …") and draws the
// answers; the server sends only what has changed. All texts become text nodes: nothing here ever reads markup. What a
// page is, and what it has of the frame, is said in frame.py.

const STATES = ["pending", "running", "succeeded", "failed", "cancelled"];
const SILENCE = 5000; // ms without a word, after which the server counts as gone
const SOON = 1500; // ms in which the second key of two is to come

// In the order of the navigation: a page's name in the address, its title, the key after g, and its class.
const PAGES = () => [
  ["now", "Now", "n", NowPage], ["runs", "Runs", "r", RunsPage], ["deployments", "Deployments", "d", DeploymentsPage],
  ["queue", "Queue", "q", QueuePage], ["audit", "Audit", "a", AuditPage], ["run", "", "", RunPage],
];

export function render({ model, el }) {
  const frame = new Frame(model);
  el.append(frame.root);
  frame.start();
  return () => frame.stop();
}

class Frame {
  constructor(model) {
    this.model = model;
    this.asked = new Map(); // name -> {said, turn}: what is asked now
    this.turns = 0;
    this.skew = 0; // the server's clock minus ours, s
    this.who = document.querySelector("meta[name=flowkit-who]")?.content || "";
    this.role = document.querySelector("meta[name=flowkit-role]")?.content || "viewer";
    this.theme = remembered("flowkit-theme") || "auto";
    this.pages = new Map(); // made when they are first looked at
    this.build();
  }

  start() {
    this.model.on("msg:custom", (event) => this.hear(JSON.parse(event.data ?? event)));
    this.onPop = () => this.turn();
    this.onKey = (event) => this.pressed(event);
    addEventListener("popstate", this.onPop);
    document.addEventListener("keydown", this.onKey);
    this.clock = setInterval(() => this.tick(), 500);
    this.heard = Date.now();
    this.turn();
  }

  stop() {
    clearInterval(this.clock);
    removeEventListener("popstate", this.onPop);
    document.removeEventListener("keydown", this.onKey);
  }

  // -- what pages have of it --------------------------------------------------------------------------------------

  // The server's time, in seconds.
  now() {
    return Date.now() / 1000 + this.skew;
  }

  // To another address, "?page=…"; *replace*: the one before is no place to come back to.
  go(address, { replace = false } = {}) {
    if (address !== (location.search || "?")) {
      history[replace ? "replaceState" : "pushState"](null, "", address === "?" ? location.pathname : address);
    }
    this.turn();
  }

  link(address, attributes, ...children) {
    return h("a", { href: address === "?" ? location.pathname : address, "data-go": address, ...attributes }, ...children);
  }

  // What the page shown asks now. It is told anew what it asks otherwise than before.
  ask() {
    const asked = new Map();
    const message = {};
    for (const [name, question] of Object.entries(this.page.ask())) {
      const said = JSON.stringify(question);
      const before = this.asked.get(name);
      const turn = before?.said === said ? before.turn : ++this.turns;
      asked.set(name, { said, turn });
      message[name] = { ...question, turn };
    }
    this.asked = asked;
    this.model.send_msg(message);
  }

  // Whether who looks may do what takes that role. The server asks itself again.
  may(role) {
    const roles = ["viewer", "operator", "admin"];
    return roles.indexOf(this.role) >= roles.indexOf(role);
  }

  // Have it done. What came of it is shown, and returned; null if it was refused.
  async act(name, given = {}) {
    let answer;
    let told;
    try {
      answer = await fetch(`act/${name}`, {
        method: "POST", body: JSON.stringify(given), headers: { "Content-Type": "application/json", "X-Flowkit-Page": "1" },
      });
      told = await answer.json();
    } catch {
      this.say(answer ? `The server answered ${answer.status}; load the page again.` : "The dashboard does not answer.", true);
      return null;
    }
    if (!answer.ok) {
      this.say(told.detail || `The server answered ${answer.status}.`, true);
      return null;
    }
    this.say(told.said);
    return told;
  }

  // One line, for some seconds; of what went wrong until the next.
  say(text, bad = false) {
    clearTimeout(this.saying);
    this.said.classList.toggle("bad", bad);
    write(this.said.firstChild, text);
    this.said.hidden = !text;
    if (!bad) this.saying = setTimeout(() => (this.said.hidden = true), 8000);
  }

  // Asks back; true if the button was pressed.
  confirm(text, button) {
    return new Promise((resolve) => {
      const dialog = h("dialog", { class: "ask" }, h("p", {}, text),
        h("div", { class: "buttons" },
          h("button", { type: "button", onclick: () => dialog.close("") }, "Leave it"),
          h("button", { type: "button", class: "bold", onclick: () => dialog.close("yes") }, button)));
      dialog.addEventListener("close", () => {
        dialog.remove();
        resolve(dialog.returnValue === "yes");
      });
      this.root.append(dialog);
      dialog.showModal();
      dialog.querySelector(".bold").focus();
    });
  }

  // -- which page -------------------------------------------------------------------------------------------------

  turn() {
    const query = new URLSearchParams(location.search);
    const name = query.get("page") || (query.has("run") ? "run" : query.size ? "runs" : "now");
    const [found, title, , Kind] = PAGES().find(([one]) => one === name) ?? PAGES()[0];
    if (!this.pages.has(found)) this.pages.set(found, new Kind(this));
    const before = this.page;
    this.page = this.pages.get(found);
    if (this.page !== before) {
      this.asked.clear(); // another page has none of the answers
      this.main.replaceChildren(this.page.root);
      if (before) this.main.focus({ preventScroll: true }); // a reader begins with the new page
      this.root.classList.remove("ready"); // with the first answer again
    }
    for (const [one, link] of this.nav) link.toggleAttribute("aria-current", one === found);
    this.nav.get(found)?.setAttribute("aria-current", "page");
    if (found === "run") this.nav.get("runs").setAttribute("aria-current", "true");
    this.entitle(title);
    this.page.open(query);
    this.ask();
  }

  entitle(title) {
    document.title = title ? `${title} · flowkit` : "flowkit";
  }

  hear(news) {
    this.heard = Date.now();
    this.skew = news.now - this.heard / 1000;
    this.root.classList.remove("lost");
    write(this.problem, news.problem ? `No news from the store: ${news.problem}` : "");
    this.problem.hidden = !news.problem;
    // Answers to what we have turned away from are dropped; what we turned to comes in full.
    const told = Object.fromEntries(Object.entries(news.told)
      .filter(([name, { turn }]) => this.asked.get(name)?.turn === turn));
    if (Object.keys(told).length) {
      this.page.draw(told);
      this.root.classList.add("ready");
    } else if (!this.asked.size || news.problem) this.root.classList.add("ready");
  }

  tick() {
    this.page.tick?.();
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

  // -- the keyboard -----------------------------------------------------------------------------------------------

  pressed(event) {
    const at = event.composedPath()[0];
    const typing = at.matches?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
    if (event.key === "Escape" && typing) return at.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || this.root.querySelector("dialog[open]")) return;
    const second = Date.now() - (this.first ?? 0) < SOON;
    this.first = event.key === "g" && !second ? Date.now() : 0;
    if (second) {
      const page = PAGES().find(([, , key]) => key && key === event.key);
      if (page) this.go(page[0] === "now" ? "?" : `?page=${page[0]}`);
      return;
    }
    if (event.key === "?") this.keys();
    else if (event.key === "/") this.page.root.querySelector("[data-search]")?.focus();
    else if (event.key === "j" || event.key === "k") {
      if (at.closest?.("tr[data-row]")) return; // the table sees to it
      this.page.root.querySelector("tr[data-row][tabindex='0']")?.focus();
    } else return;
    event.preventDefault();
  }

  keys() {
    const row = ([keys, text]) => h("div", {}, h("dt", {}, ...keys.map((key) => h("kbd", {}, key))), h("dd", {}, text));
    const dialog = h("dialog", { class: "keys" }, h("h2", {}, "Keys"), h("dl", {},
      ...PAGES().filter(([, title]) => title).map(([, title, key]) => row([["g", key], title])),
      row([["/"], "Search"]), row([["j"], "Next row"]), row([["k"], "Row before"]), row([["Enter"], "Open the row"]),
      row([["x"], "Select the row"]), row([["Esc"], "Close"]), row([["?"], "These keys"])),
    h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => dialog.close() }, "Close")));
    dialog.addEventListener("close", () => dialog.remove());
    this.root.append(dialog);
    dialog.showModal();
  }

  // -- its looks --------------------------------------------------------------------------------------------------

  build() {
    this.nav = new Map(PAGES().filter(([, title]) => title).map(([name, title, key]) =>
      [name, this.link(name === "now" ? "?" : `?page=${name}`, { title: `${title} (g ${key})` }, title)]));
    this.problem = h("p", { class: "line bad", role: "alert", hidden: true });
    this.said = h("div", { class: "said", role: "status", hidden: true }, h("span", {}),
      h("button", { type: "button", "aria-label": "Close", onclick: () => this.say("") }, "✕"));
    this.look = h("button", { class: "look", type: "button", onclick: () => this.turnLook() });
    this.main = h("main", { tabindex: "-1" });
    const skip = h("a", { class: "skip", href: "#main", onclick: (event) => {
      event.preventDefault();
      this.main.focus();
    } }, "Skip to the page");
    this.root = h("div", { class: "page" },
      skip,
      h("header", {},
        this.link("?", { class: "brand" }, "flowkit"),
        h("nav", { "aria-label": "Pages" }, ...this.nav.values()),
        h("span", { class: "store", title: this.model.store }, this.model.store),
        this.who ? h("span", { class: "who", title: `${this.who}, ${this.role}` }, this.who === this.role ? this.who : `${this.who}, ${this.role}`) : "",
        h("button", { class: "look", type: "button", title: "Keys (?)", "aria-label": "Keys", onclick: () => this.keys() }, "?"),
        this.look),
      this.problem, this.main, this.said);
    this.root.addEventListener("click", (event) => {
      const link = event.target.closest("a[data-go]");
      if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
      event.preventDefault();
      this.go(link.dataset.go);
    });
    this.setLook();
  }

  turnLook() {
    this.theme = { auto: "light", light: "dark", dark: "auto" }[this.theme];
    remember("flowkit-theme", this.theme);
    this.setLook();
    this.page.recolour?.();
  }

  setLook() {
    const scheme = this.theme === "auto" ? "light dark" : this.theme;
    this.root.style.colorScheme = scheme;
    document.documentElement.style.colorScheme = scheme;
    write(this.look, { auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[this.theme]);
    this.look.title = `Colours: ${this.theme === "auto" ? "as the system has them" : this.theme}. Press to change`;
  }
}
