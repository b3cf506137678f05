// Whether an edge may be drawn. Types are judged by Python; `compat` is its answers: given type -> wanted type -> why
// not. A pair that is not in it fits: an annotation that nobody could read does not forbid anything.
import type { Edge, Graph } from "./model";

export type Compat = Record<string, Record<string, string>>;

const into = new WeakMap<Graph, Map<string, Edge>>(); // by node and port that it ends at

/** Why this edge may not be, or "" if it may. *circular* has its other ends, if they are known, that close a circle. */
export function refusal(graph: Graph, compat: Compat, edge: Edge, circular?: (from: number, to: number) => boolean): string {
  const [from, output, to, port] = edge;
  const given = graph.nodes[from]?.outputs[output];
  const wanted = graph.nodes[to]?.ports[port];
  if (!given || !wanted) return "there is no such port";
  if (from === to) return `would make a circle: ${graph.nodes[to]!.name} would read itself`;
  // The edge that it would replace ends at *to*, so no way from there leads over it.
  if (circular ? circular(from, to) : reached(graph.edges, to).has(from)) return `would make a circle: ${graph.nodes[from]!.name} waits for ${graph.nodes[to]!.name}`;
  return compat[given.type]?.[wanted.each ? `each ${wanted.type}` : wanted.type] ?? "";
}

/** What drawing this edge would take away; "" if nothing. */
export function replaced(graph: Graph, [, , to, port]: Edge): string {
  const wanted = graph.nodes[to]?.ports[port];
  let ends = into.get(graph);
  if (!ends) into.set(graph, (ends = new Map(graph.edges.map((one) => [`${one[2]} ${one[3]}`, one]))));
  const edge = ends.get(`${to} ${port}`);
  if (edge) {
    const giver = graph.nodes[edge[0]]!;
    return `already fed by ${giver.outputs[edge[1]]?.name || giver.name}: dropping replaces it`;
  }
  return wanted?.kind === "constant" && wanted.value !== undefined ? `is ${wanted.value}: dropping replaces it` : "";
}

/** The nodes at which what *start* gives arrives, through whatever others; *back*: from which something arrives there. */
export function reached(edges: readonly Edge[], start: number, back = false): Set<number> {
  const after = new Map<number, number[]>();
  for (const edge of edges) {
    const [from, to] = back ? [edge[2], edge[0]] : [edge[0], edge[2]];
    const list = after.get(from);
    if (list) list.push(to);
    else after.set(from, [to]);
  }
  const seen = new Set<number>([start]);
  const open = [start];
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    for (const next of after.get(node) ?? []) {
      if (!seen.has(next)) {
        seen.add(next);
        open.push(next);
      }
    }
  }
  return seen;
}
