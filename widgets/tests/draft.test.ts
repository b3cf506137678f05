import { expect, test } from "vitest";
import type { Draft, Entry, Offer } from "../src/model";
import * as edit from "../src/edit/draft";
import { History } from "../src/edit/history";

const entry = (name: string, ports: [string, string, string | null][], gives: string, module = ""): Entry => ({
  key: module ? `${module}:${name}` : name, name, module, doc: "", problem: "",
  ports: ports.map(([port, type, usual]) => ({ name: port, type, required: usual === null, default: usual, form: { kind: "json" } })),
  outputs: [{ name, type: gives, listed: `list[${gives}]` }],
});
const offer: Offer = {
  catalog: [
    entry("flights", [["day", "str", null]], "DataFrame"),
    entry("late", [["flights", "DataFrame", null], ["limit", "int", "15"]], "DataFrame"),
    entry("tail", [["rows", "DataFrame", null], ["limit", "int", "5"]], "DataFrame", "nodes"),
  ],
  made: [], fits: {}, draft: { flow: "f", nodes: [] },
};
const known = edit.catalog(offer);
const built = (...keys: string[]): Draft => keys.reduce((draft, key) => edit.add(draft, known.get(key)!, [0, 0]), offer.draft);
const edges = (draft: Draft) => edit.wire(draft, known).edges.map(([from, , to, port]) => `${draft.nodes[from]!.name} > ${draft.nodes[to]!.name}.${edit.wire(draft, known).nodes[to]!.ports[port]!.name}`);

test("what bears the name of a port feeds it", () => {
  expect(edges(built("late", "flights"))).toEqual(["flights > late.flights"]);
});

test("what is not fed is a parameter of the flow, or has its default if the library made it", () => {
  const [late, tail] = edit.wire(built("late", "nodes:tail"), known).nodes;
  expect(late!.ports.map((port) => port.kind)).toEqual(["parameter", "parameter"]);
  expect(tail!.ports.map((port) => [port.kind, port.value])).toEqual([["parameter", undefined], ["constant", "5"]]);
});

test("a node that is called otherwise than its function keeps its defaults, unless a node bears their name", () => {
  const draft: Draft = { flow: "f", nodes: [{ name: "later", function: "late", by_name: true }] };
  expect(edit.wire(draft, known).nodes[0]!.ports.map((port) => port.kind)).toEqual(["parameter", "constant"]);
  const fed: Draft = { ...draft, nodes: [...draft.nodes, { name: "limit", function: "flights" }] };
  expect(edges(fed)).toEqual(["limit > later.limit"]);
});

test("a second node of a kind has a name of its own, which feeds nothing by itself", () => {
  const draft = built("flights", "flights", "late");
  expect(draft.nodes.map((node) => node.name)).toEqual(["flights", "flights_2", "late"]);
  expect(edges(draft)).toEqual(["flights > late.flights"]);
});

test("an edge is said only where the name does not say it, and stays off when it is taken off", () => {
  const draft = built("flights", "flights", "late");
  const other = edit.connect(draft, known, "flights_2", "late", "flights");
  expect(other.nodes[2]!.inputs).toEqual({ flights: { from: "flights_2" } });
  expect(edit.connect(other, known, "flights", "late", "flights").nodes[2]!.inputs).toEqual({});
  const off = edit.disconnect(draft, known, "late", "flights");
  expect(off.nodes[2]!.inputs).toEqual({ flights: null });
  expect(edges(off)).toEqual([]);
  expect(edit.disconnect(edit.connect(draft, known, "late", "flights_2", "day"), known, "flights_2", "day").nodes[1]!.inputs).toEqual({});
});

test("a node that is called otherwise still feeds what it fed; one that goes leaves nothing behind", () => {
  const renamed = edit.rename(built("flights", "late"), known, "flights", "all");
  expect(edges(renamed)).toEqual(["all > late.flights"]);
  const gone = edit.remove(edit.rename(renamed, known, "all", "every"), "every");
  expect(gone.nodes).toHaveLength(1);
  expect(gone.nodes[0]!.inputs).toEqual({});
});

test("a mapped node gives a list, and takes an item at a time", () => {
  const node = edit.wire(edit.setOption(built("late"), "late", "map", ["flights"]), known).nodes[0]!;
  expect(node.outputs[0]!.type).toBe("list[DataFrame]");
  expect(node.ports.map((port) => Boolean(port.each))).toEqual([true, false]);
});

test("an option that is as usual is not said", () => {
  const draft = edit.setOption(built("late"), "late", "retries", 2);
  expect(draft.nodes[0]!.options).toEqual({ retries: 2 });
  expect(edit.setOption(draft, "late", "retries", 0).nodes[0]!.options).toEqual({});
});

test("every edit is one step back and one forth; a new one forgets what was undone", () => {
  const history = new History("a");
  history.do("b");
  history.do("b"); // no edit
  history.do("c");
  history.undo();
  history.undo();
  expect([history.now, history.undoable, history.redoable]).toEqual(["a", false, true]);
  history.undo();
  history.redo();
  history.do("d");
  history.redo();
  expect([history.now, history.redoable]).toEqual(["d", false]);
});

test("what is added lies on nothing that is there", () => {
  const there = [{ x: 0, y: 0, height: 120 }, { x: 284, y: 0, height: 90 }];
  const [x, y] = edit.clear([140, 20], there);
  expect(there.every((one) => Math.abs(one.x - x) >= 212 || y >= one.y + one.height || y + 130 <= one.y)).toBe(true);
  expect(edit.clear([900, 900], there)).toEqual([900, 900]);
});
