// The page Queue.
class QueuePage {
  constructor(frame) {
    this.frame = frame;
    this.root = h("section", { class: "queue-page", "aria-label": "Queue" },
      h("div", { class: "empty" }, h("p", {}, "What waits on each queue:"), h("pre", {}, "flowkit queues")));
  }

  open() {}

  ask() {
    return {};
  }

  draw() {}
}
