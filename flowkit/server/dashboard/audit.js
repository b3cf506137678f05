// The page Audit.
class AuditPage {
  constructor(frame) {
    this.frame = frame;
    this.root = h("section", { class: "audit-page", "aria-label": "Audit" },
      h("div", { class: "empty" }, h("p", {}, "Who did what over HTTP:"), h("pre", {}, "flowkit audit")));
  }

  open() {}

  ask() {
    return {};
  }

  draw() {}
}
