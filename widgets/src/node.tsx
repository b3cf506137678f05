// The card of a node, and of a folded group, as React Flow mounts them. Each hears of its own node only.
import { Handle, Position } from "@xyflow/react";
import { memo, useEffect, useRef } from "react";
import { HEAD, PAD, ROW, hue, portY, rows } from "./card";
import { STATES, type State, type Shown, type Store } from "./model";
import { Mark, useClock, useStore } from "./parts";
import type { Card } from "./scene";
import { count, plural, told } from "./words";

export interface CardData extends Record<string, unknown> {
  card: Card;
  store: Store;
  critical: boolean;
  unfold: (group: number) => void;
}

interface Props {
  data: CardData;
  selected?: boolean;
}

export function colour(type: string): Record<string, string> {
  const degrees = hue(type);
  return degrees === null ? {} : { "--fk-hue": String(degrees), "--fk-chroma": "1" };
}

export const NodeCard = memo(function NodeCard({ data, selected }: Props) {
  const { card, store } = data;
  const at = card.node;
  const node = store.graph.nodes[at];
  useStore(store, `node ${at}`, "run");
  const state = store.state(at);
  const times = store.times[at];
  useClock(state === "running" || state === "waiting");
  const root = useRef<HTMLDivElement>(null);
  const stale = isStale(store, at);
  const line = node ? (stale ? (state === "idle" ? "changed, not run yet" : "out of date") : told(state, times, store.now(), node.retries) || node.doc || "") : "";
  const spoken = [node?.name, stale ? "out of date" : state === "idle" ? "not run" : state, state === "failed" ? (times?.error ?? "") : ""].filter(Boolean).join(", ");
  useEffect(() => root.current?.closest(".react-flow__node")?.setAttribute("aria-label", spoken), [spoken]);
  if (!node) return null;
  const { done = 0, items = 0 } = times ?? {};
  return (
    <div
      ref={root}
      class={`fk-card ${state}${selected ? " selected" : ""}${data.critical ? " critical" : ""}${node.map ? " pile" : ""}${stale ? " stale" : ""}`}
      style={{ width: `${card.width}px`, height: `${card.height}px` }}
    >
      <div class="fk-head" style={{ height: `${HEAD}px` }}>
        <Mark state={state} />
        <div class="fk-name" title={node.name}>{node.name}</div>
        <div class={`fk-line ${state}`} title={line}>{line}</div>
        {items > 0 && state === "running" && <div class="fk-bar"><i style={{ width: `${(100 * done) / items}%` }} /></div>}
      </div>
      {rows(node).length > 0 && (
        <div class="fk-rows" style={{ padding: `${PAD - 1}px 0 ${PAD}px` }}>
          {rows(node).map((row) => (
            <div class={`fk-row ${row.side} ${row.kind}`} style={{ height: `${ROW}px`, ...colour(row.type) }} title={row.title}>
              <span class="fk-label">{row.label}</span>
              <span class="fk-type">{row.type}</span>
              {(row.kind === "parameter" || row.kind === "edge") && <i class="fk-dot" />}
              {row.kind === "output" && <i class="fk-dot" />}
            </div>
          ))}
        </div>
      )}
      {node.ports.map((port, place) => port.kind !== "constant" && (
        <Handle key={`i${place}`} id={`i${place}`} type="target" position={Position.Left} isConnectable={false} style={{ top: `${portY(node, "in", place)}px` }} />
      ))}
      {node.outputs.map((_, place) => (
        <Handle key={`o${place}`} id={`o${place}`} type="source" position={Position.Right} isConnectable={false} style={{ top: `${portY(node, "out", place)}px` }} />
      ))}
    </div>
  );
});

/** Its result is one that a run would not give now; whether there is none, or it failed, its state tells already. */
export function isStale(store: Shown, node: number): boolean {
  return (store.state(node) === "succeeded" || store.state(node) === "idle") && Boolean(store.run.stale?.includes(node));
}

export const GroupCard = memo(function GroupCard({ data, selected }: Props) {
  const { card, store } = data;
  useStore(store, "status");
  const counts = tally(store, card.nodes);
  const root = useRef<HTMLDivElement>(null);
  const said = summary(counts);
  const spoken = `group ${card.name}, ${plural(card.nodes.length, "node")}, ${said || "not run"}; Enter unfolds it`;
  useEffect(() => root.current?.closest(".react-flow__node")?.setAttribute("aria-label", spoken), [spoken]);
  return (
    <div ref={root} class={`fk-card group${selected ? " selected" : ""}`} style={{ width: `${card.width}px`, height: `${card.height}px` }}
      title={said} onDblClick={() => data.unfold(card.group)}>
      <div class="fk-head">
        <div class="fk-name">{card.name}</div>
        <div class="fk-line">{said || plural(card.nodes.length, "node")}</div>
      </div>
      <Shares counts={counts} all={card.nodes.length} />
      <Handle id="i0" type="target" position={Position.Left} isConnectable={false} />
      <Handle id="o0" type="source" position={Position.Right} isConnectable={false} />
    </div>
  );
});

export function Shares({ counts, all }: { counts: Map<State, number>; all: number }) {
  return (
    <div class="fk-shares" aria-hidden="true">
      {SHOWN.filter((state) => counts.get(state)).map((state) => <i class={state} style={{ flexGrow: String(counts.get(state)! / all) }} />)}
    </div>
  );
}

const SHOWN: readonly State[] = ["succeeded", "running", "waiting", "failed", "cancelled", "skipped", "pending", "idle"];

export function tally(store: Shown, nodes?: readonly number[]): Map<State, number> {
  const found = new Array<number>(STATES.length).fill(0);
  if (nodes) for (const node of nodes) found[store.status[node] ?? 0]!++;
  else for (let node = 0; node < store.graph.nodes.length; node++) found[store.status[node] ?? 0]!++;
  return new Map(STATES.map((state, at) => [state, found[at]!]));
}

/** `12 of 40 succeeded, 1 failed`; empty before the first run. */
export function summary(counts: Map<State, number>): string {
  const all = [...counts.values()].reduce((sum, number) => sum + number, 0);
  if (counts.get("idle") === all) return "";
  const done = counts.get("succeeded") ?? 0;
  const parts = [done === all ? `all ${count(all)} succeeded` : `${count(done)} of ${count(all)} succeeded`];
  for (const state of ["running", "waiting", "failed", "cancelled", "skipped"] as const) {
    if (counts.get(state)) parts.push(`${count(counts.get(state)!)} ${state === "waiting" ? "to be tried again" : state}`);
  }
  return parts.join(", ");
}
