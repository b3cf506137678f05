import { expect, test } from "vitest";
import { box, portY, rows } from "../src/card";
import { groups, prefix } from "../src/fold";
import { Store, type Graph, type Model } from "../src/model";
import { curve, neighbour, scene } from "../src/scene";
import { told } from "../src/words";

function flow(names: string[], edges: Graph["edges"] = []): Graph {
  const ports = Array.from({ length: 12 }, (_, at) => ({ name: `p${at}`, kind: "edge" as const, type: "int" }));
  return { flow: "f", problems: [], edges, nodes: names.map((name) => ({ name, ports: ports.slice(0, 1), outputs: [{ name: "", type: "int" }] })) };
}

test("a small flow has no groups; a large one is grouped by how names begin", () => {
  expect(groups(flow(["a_1", "a_2"]))).toEqual([]);
  const found = groups(flow(["extract_1", "extract_2", "load_1", "load_2"], [[0, 0, 2, 0], [1, 0, 3, 0]]), 3);
  expect(found.map((group) => [group.name, group.nodes])).toEqual([["extract_…", [0, 1]], ["load_…", [2, 3]]]);
  expect(prefix("n123")).toBe("n");
});

test("groups that would wait for each other, or a single one, give way to layers", () => {
  const circle = groups(flow(["a_1", "b_1", "a_2", "b_2"], [[0, 0, 1, 0], [1, 0, 2, 0]]), 3);
  expect(circle.every((group) => group.name.startsWith("layer"))).toBe(true);
  expect(groups(flow(["n1", "n2", "n3"], [[0, 0, 1, 0], [1, 0, 2, 0]]), 2)).toHaveLength(3);
});

test("a folded group is one card with one link; unfolded, each node has its own", () => {
  const graph = flow(["a_1", "a_2", "b_1"], [[0, 0, 2, 0], [1, 0, 2, 0]]);
  const found = groups(graph, 2);
  const folded = scene(graph, found, new Set());
  expect(folded.cards.map((card) => card.name)).toEqual(["a_…", "b_1"]);
  expect(folded.links.map((link) => link.edges)).toEqual([2]);
  expect(scene(graph, found, new Set([0])).cards.map((card) => card.name)).toEqual(["a_1", "a_2", "b_1"]);
});

test("a link begins and ends at its ports, and arrow keys follow it", () => {
  const graph = flow(["a", "b", "c"], [[0, 0, 1, 0], [0, 0, 2, 0]]);
  const sheet = scene(graph, [], new Set());
  const [a, b] = sheet.cards;
  const path = sheet.links[0]!.path;
  expect(path[0]).toEqual([a!.x + a!.width, a!.y + portY(graph.nodes[0]!, "out", 0)]);
  expect(path.at(-1)).toEqual([b!.x, b!.y + portY(graph.nodes[1]!, "in", 0)]);
  expect(curve(sheet.links[0]!)).toMatch(/^M[-\d.]+ [-\d.]+C/);
  expect(neighbour(sheet, 1, "ArrowLeft")).toBe(0);
  expect(neighbour(sheet, 1, "ArrowDown")).toBe(2);
  expect(neighbour(sheet, 0, "ArrowLeft")).toBe(-1);
});

test("a card with many inputs stays small, and its last row stands for the rest", () => {
  const node = { name: "wide", outputs: [], ports: Array.from({ length: 40 }, (_, at) => ({ name: `p${at}`, kind: "edge" as const, type: "int" })) };
  expect(rows(node)).toHaveLength(8);
  expect(rows(node).at(-1)!.label).toBe("and 33 more");
  expect(portY(node, "in", 39)).toBeLessThan(box(node).height);
});

test("what a node does is said in one line", () => {
  expect(told("running", { started: 10, done: 37, items: 365 }, 14.2)).toBe("37/365 · 4.2 s");
  expect(told("running", { started: 10, attempt: 2 }, 10, 2)).toBe("attempt 2 of 3 · running");
  expect(told("waiting", { attempt: 1, due: 12.4 }, 10, 2)).toBe("tries again in 3 s · 1 of 3 failed");
  expect(told("failed", { error: "ValueError: bad day" }, 0)).toBe("ValueError: bad day");
});

class Traits implements Model {
  values: Record<string, unknown> = { ack: 0 };
  calls: Record<string, (() => void)[]> = {};
  get(name: string) { return this.values[name]; }
  set(name: string, value: unknown) { this.values[name] = value; }
  save_changes() {}
  on(event: string, call: () => void) { (this.calls[event] ??= []).push(call); }
  off() {}
  say(name: string, value: unknown) { this.values[name] = value; this.calls[`change:${name}`]?.forEach((call) => call()); }
}

test("a question stays in the box until it is acknowledged, so that a busy kernel loses none", () => {
  const traits = new Traits();
  const store = new Store(traits);
  store.ask("open", { node: "a" });
  store.ask("cancel");
  expect((traits.values.outbox as { kind: string }[]).map((one) => one.kind)).toEqual(["open", "cancel"]);
  traits.say("ack", 1);
  store.ask("open", { node: "b" });
  expect((traits.values.outbox as { n: number }[]).map((one) => one.n)).toEqual([2, 3]);
});

test("a change of one node's byte is told to that node alone", () => {
  const traits = new Traits();
  const store = new Store(traits);
  traits.say("status", new DataView(new Uint8Array([1, 1, 1]).buffer));
  const heard: number[] = [];
  for (const node of [0, 1, 2]) store.listen(`node ${node}`, () => heard.push(node));
  traits.say("status", new DataView(new Uint8Array([1, 2, 1]).buffer));
  expect(heard).toEqual([1]);
  expect(store.state(1)).toBe("running");
});
