// Whether an edge may be drawn. Types are judged by Python; `compat` is its answers: given type -> wanted type -> why
// not. A pair that is not in it fits: an annotation that nobody could read does not forbid anything.
import type { Edge, Graph } from "./model";

export type Compat = Record<string, Record<string, string>>;

/** Why this edge may not be, or "" if it may. */
export function refusal(graph: Graph, compat: Compat, edge: Edge): string {
  const [from, output, to, port] = edge;
  const given = graph.nodes[from]?.outputs[output];
  const wanted = graph.nodes[to]?.ports[port];
  if (!given || !wanted) return "there is no such port";
  const others = graph.edges.filter(([, , reader, taken]) => reader !== to || taken !== port); // it would be replaced
  if (from === to) return `would make a circle: ${graph.nodes[to]!.name} would read itself`;
  if (reaches(others, to, from)) return `would make a circle: ${graph.nodes[from]!.name} waits for ${graph.nodes[to]!.name}`;
  return compat[given.type]?.[wanted.each ? `each ${wanted.type}` : wanted.type] ?? "";
}

/** What drawing this edge would take away; "" if nothing. */
export function replaced(graph: Graph, [, , to, port]: Edge): string {
  const wanted = graph.nodes[to]?.ports[port];
  const edge = graph.edges.find(([, , reader, taken]) => reader === to && taken === port);
  if (edge) {
    const giver = graph.nodes[edge[0]]!;
    return `already fed by ${giver.outputs[edge[1]]?.name || giver.name}: dropping replaces it`;
  }
  return wanted?.kind === "constant" && wanted.value !== undefined ? `is ${wanted.value}: dropping replaces it` : "";
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
