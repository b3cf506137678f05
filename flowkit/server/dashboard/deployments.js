// The page Deployments.
class DeploymentsPage {
  constructor(frame) {
    this.frame = frame;
    this.root = h("section", { class: "deployments-page", "aria-label": "Deployments" },
      h("div", { class: "empty" }, h("p", {}, "What is deployed, and when it runs next:"), h("pre", {}, "flowkit deployments")));
  }

  open() {}

  ask() {
    return {};
  }

  draw() {}
}
