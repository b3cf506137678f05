// Large flows are shown by groups: nodes whose names begin alike, or, where that would close a circle or says nothing,
// nodes of neighbouring layers. A folded group is one card.
import { layers } from "./layout";
import type { Graph } from "./model";

export const FOLD_ABOVE = 1_500; // nodes; beyond, a picture of each is a picture of none
const MOST_GROUPS = 80;
const MOST_LAYERS = 7; // groups in a row, which can still be read side by side

export interface Group {
  name: string;
  nodes: number[];
}

/** Every node in one group; an empty list for a flow that is small enough to be shown as it is. */
export function groups(graph: Graph, above = FOLD_ABOVE): Group[] {
  if (graph.nodes.length <= above) return [];
  const edges = graph.edges.map(([from, , to]) => [from, to] as const);
  const named = by(graph.nodes.map((node) => `${prefix(node.name)}…`));
  if (named.length > 1 && named.length <= MOST_GROUPS && !circular(named, edges, graph.nodes.length)) return named;
  const { depth } = layers(graph.nodes.length, edges);
  const deepest = depth.reduce((most, layer) => Math.max(most, layer), 0) + 1;
  const step = Math.ceil(deepest / MOST_LAYERS);
  return by(depth.map((layer) => {
    const first = Math.floor(layer / step) * step;
    const last = Math.min(first + step, deepest);
    return step === 1 ? `layer ${first + 1}` : `layers ${first + 1}–${last}`;
  }));
}

/** `extract_2013_07` and `extract_2013_08` begin alike: `extract_`. */
export function prefix(name: string): string {
  const cut = name.indexOf("_", 1);
  return cut > 0 ? name.slice(0, cut + 1) : name.replace(/\d+$/, "");
}

function by(keys: string[]): Group[] {
  const found = new Map<string, number[]>();
  keys.forEach((key, node) => {
    const nodes = found.get(key);
    if (nodes) nodes.push(node);
    else found.set(key, [node]);
  });
  return [...found].map(([name, nodes]) => ({ name, nodes }));
}

function circular(found: Group[], edges: (readonly [number, number])[], count: number): boolean {
  const owner = new Array<number>(count);
  found.forEach((group, at) => group.nodes.forEach((node) => (owner[node] = at)));
  const between = edges.map(([from, to]) => [owner[from]!, owner[to]!] as const).filter(([from, to]) => from !== to);
  return layers(found.length, between).back.size > 0;
}
