// Whether an edge may be drawn. Types are judged by Python; `compat` is its answers: given type -> wanted type -> why
// not, or "" if it fits. A pair that is not in it fits: an annotation that nobody could read does not forbid anything.
import type { Edge, Graph } from "./model";

export type Compat = Record<string, Record<string, string>>;

/** Why this edge may not be, or "" if it may. */
export function refusal(graph: Graph, compat: Compat, edge: Edge): string {
  const [from, output, to, port] = edge;
  const given = graph.nodes[from]?.outputs[output];
  const wanted = graph.nodes[to]?.ports[port];
  if (!given || !wanted) return "there is no such port";
  if (graph.edges.some(([, , reader, taken]) => reader === to && taken === port)) {
    return `${wanted.name} of ${graph.nodes[to]!.name} has its source`;
  }
  if (from === to || reaches(graph.edges, to, from)) {
    return `${graph.nodes[from]!.name} waits for ${graph.nodes[to]!.name}`;
  }
  return compat[given.type]?.[wanted.type] ?? "";
}

/** Whether what *start* gives arrives, through whatever nodes, at *end*. */
export function reaches(edges: readonly Edge[], start: number, end: number): boolean {
  const after = new Map<number, number[]>();
  for (const [from, , to] of edges) {
    const list = after.get(from);
    if (list) list.push(to);
    else after.set(from, [to]);
  }
  const seen = new Set<number>([start]);
  const open = [start];
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    if (node === end) return true;
    for (const next of after.get(node) ?? []) {
      if (!seen.has(next)) {
        seen.add(next);
        open.push(next);
      }
    }
  }
  return false;
}
