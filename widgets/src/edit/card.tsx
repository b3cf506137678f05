// A node as it is edited: every port can be taken hold of.
import { Handle, Position } from "@xyflow/react";
import { memo } from "react";
import { HEAD, PAD, ROW, portY, rows } from "../card";
import type { Node, Problem } from "../model";
import { colour } from "../node";

/** Of a port while an edge is drawn: why it cannot end here, or what it would replace. */
export interface Light {
  why: string;
  replaces: string;
}

export interface EditData extends Record<string, unknown> {
  node: Node;
  width: number;
  height: number;
  lights: ReadonlyMap<string, Light> | null; // by handle; null while none is drawn
  problems: readonly Problem[];
  choose: (node: string, handle: string, element: Element) => void;
}

export const EditCard = memo(function EditCard({ data, selected }: { data: EditData; selected?: boolean }) {
  const { node, lights, problems } = data;
  const wrong = problems.find((problem) => !problem.open);
  const handle = (id: string, side: "in" | "out", at: number, name: string) => {
    const light = lights?.get(id);
    return (
      <Handle key={id} id={id} type={side === "in" ? "target" : "source"} position={side === "in" ? Position.Left : Position.Right}
        style={{ top: `${portY(node, side, at)}px` }} role="button" tabIndex={0} data-port={id} title={light ? light.why || light.replaces : undefined}
        aria-label={`${side === "in" ? "input" : "output"} ${name} of ${node.name}`}
        onClick={((event: MouseEvent) => { event.stopPropagation(); data.choose(node.name, id, event.currentTarget as Element); }) as never}
        onKeyDown={((event: KeyboardEvent) => {
          if (!["c", "Enter", " "].includes(event.key) || event.ctrlKey || event.metaKey) return;
          event.preventDefault();
          event.stopPropagation();
          data.choose(node.name, id, event.currentTarget as Element);
        }) as never} />
    );
  };
  return (
    <div class={`fk-card${selected ? " selected" : ""}${node.map ? " pile" : ""}${wrong ? " failed" : ""}`} style={{ width: `${data.width}px`, height: `${data.height}px` }}>
      <div class="fk-head" style={{ height: `${HEAD}px` }}>
        <div class="fk-name" title={node.name}>{node.name}</div>
        <div class={`fk-line${wrong ? " failed" : ""}`} title={wrong?.text ?? node.doc}>{wrong?.text ?? node.doc}</div>
      </div>
      <div class="fk-rows" style={{ padding: `${PAD - 1}px 0 ${PAD}px` }}>
        {rows(node).map((row) => {
          const id = `${row.side === "out" ? "o" : "i"}${row.at}`;
          const light = lights?.get(id);
          const problem = row.side === "in" ? problems.find((one) => one.port === node.ports[row.at]?.name) : undefined;
          const shown = !lights ? "" : light && !light.why ? " fits" : light || row.side ? " dim" : "";
          return (
            <div class={`fk-row ${row.side} ${row.kind}${shown}${problem ? (problem.open ? " open" : " wrong") : ""}`} style={{ height: `${ROW}px`, ...colour(row.type) }} title={problem?.text ?? row.title}>
              <span class="fk-label">{row.label}</span>
              <span class="fk-type">{row.type}</span>
              {row.kind !== "more" && <i class="fk-dot" />}
            </div>
          );
        })}
      </div>
      {node.ports.map((port, at) => handle(`i${at}`, "in", at, port.name))}
      {node.outputs.map((output, at) => handle(`o${at}`, "out", at, output.name || "result"))}
    </div>
  );
});
