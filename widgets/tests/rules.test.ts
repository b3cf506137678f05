import { expect, test } from "vitest";
import type { Graph } from "../src/model";
import { reached, refusal, replaced } from "../src/rules";

const graph: Graph = {
  flow: "f",
  nodes: [
    { name: "flights", ports: [], outputs: [{ name: "", type: "DataFrame" }] },
    { name: "late", ports: [{ name: "flights", kind: "edge", type: "DataFrame" }, { name: "limit", kind: "parameter", type: "int" }], outputs: [{ name: "", type: "DataFrame" }] },
    { name: "report", ports: [{ name: "rows", kind: "edge", type: "" }], outputs: [{ name: "", type: "str" }] },
  ],
  edges: [[0, 0, 1, 0]],
  problems: [],
};
const compat = { DataFrame: { DataFrame: "", int: "DataFrame does not fit int" } };

test("what fits may be connected", () => {
  expect(refusal(graph, compat, [1, 0, 2, 0])).toBe("");
});

test("a misfit is refused in Python's own words", () => {
  expect(refusal({ ...graph, edges: [] }, compat, [0, 0, 1, 1])).toBe("DataFrame does not fit int");
});

test("a port has one source: what is dropped on it replaces that", () => {
  expect(refusal(graph, compat, [2, 0, 1, 0])).toBe("");
  expect(replaced(graph, [2, 0, 1, 0])).toBe("already fed by flights: dropping replaces it");
  expect(replaced(graph, [0, 0, 2, 0])).toBe("");
  const given: Graph = { ...graph, nodes: [{ name: "late", ports: [{ name: "limit", kind: "constant", type: "int", value: "15", takes: true }], outputs: [] }] };
  expect(replaced(given, [0, 0, 0, 0])).toBe("is 15: dropping replaces it");
});

test("an item at a time is judged as such", () => {
  const each: Graph = { ...graph, nodes: graph.nodes.map((node) => ({ ...node, ports: node.ports.map((port) => ({ ...port, each: true })) })) };
  expect(refusal({ ...each, edges: [] }, { DataFrame: { "each int": "DataFrame is not a list" } }, [0, 0, 1, 1])).toBe("DataFrame is not a list");
});

test("no node waits for itself, directly or through others", () => {
  const asking = { name: "flights", ports: [{ name: "again", kind: "parameter" as const, type: "" }], outputs: [] };
  const circle: Graph = { ...graph, nodes: [asking, ...graph.nodes.slice(1)], edges: [[0, 0, 1, 0], [1, 0, 2, 0]] };
  expect(refusal(circle, compat, [2, 0, 0, 0])).toBe("would make a circle: report waits for flights");
  expect(refusal(graph, compat, [1, 0, 1, 1])).toBe("would make a circle: late would read itself");
  expect([...reached([[0, 0, 1, 0], [1, 0, 2, 0]], 0)]).toEqual([0, 1, 2]);
  expect([...reached([[0, 0, 1, 0], [1, 0, 2, 0]], 2)]).toEqual([2]);
  expect([...reached([[0, 0, 1, 0], [1, 0, 2, 0]], 2, true)]).toEqual([2, 1, 0]);
});

test("a port that is not there is refused", () => {
  expect(refusal(graph, compat, [0, 3, 1, 0])).toBe("there is no such port");
});
