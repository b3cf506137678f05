// What a flow can be built of. A function is dragged onto the sheet, or added to its middle.
import { useMemo, useRef, useState } from "react";
import type { Entry } from "../model";
import { Icon } from "../parts";

interface Drag {
  entry: Entry;
  x: number;
  y: number;
  from: [number, number];
}

export function Palette({ entries, add, hint }: { entries: readonly Entry[]; add: (entry: Entry, at?: { clientX: number; clientY: number }) => void; hint: boolean }) {
  const [wanted, setWanted] = useState("");
  const [drag, setDrag] = useState<Drag | null>(null);
  const list = useRef<HTMLDivElement>(null);
  const groups = useMemo(() => {
    const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
    const found = new Map<string, Entry[]>();
    for (const entry of entries) {
      const said = `${entry.name} ${entry.module} ${entry.doc} ${signature(entry)}`.toLowerCase();
      if (words.every((word) => said.includes(word))) found.set(entry.module, [...(found.get(entry.module) ?? []), entry]);
    }
    return [...found];
  }, [entries, wanted]);
  const press = (event: KeyboardEvent, entry: Entry) => {
    const all = [...list.current!.querySelectorAll<HTMLElement>("[role=option]")];
    const now = all.indexOf(event.currentTarget as HTMLElement);
    if (event.key === "Enter" || event.key === " ") add(entry);
    else if (event.key === "ArrowDown") all[now + 1]?.focus();
    else if (event.key === "ArrowUp") all[now - 1]?.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const begin = (event: PointerEvent, entry: Entry) => {
    if (event.button || entry.problem) return;
    const from: [number, number] = [event.clientX, event.clientY];
    const far = (to: PointerEvent) => Math.hypot(to.clientX - from[0], to.clientY - from[1]) > 5;
    const moved = (to: PointerEvent) => { if (far(to)) setDrag({ entry, x: to.clientX, y: to.clientY, from }); };
    const ended = (to: PointerEvent) => {
      removeEventListener("pointermove", moved);
      removeEventListener("pointerup", ended);
      removeEventListener("pointercancel", ended);
      setDrag(null);
      const root = list.current?.getRootNode() as Document | undefined;
      const below = to.type === "pointerup" && far(to) ? root?.elementFromPoint(to.clientX, to.clientY) : null;
      if (below?.closest(".fk-board") && below.closest(".fk-all") === list.current?.closest(".fk-all")) add(entry, to);
    };
    addEventListener("pointermove", moved);
    addEventListener("pointerup", ended);
    addEventListener("pointercancel", ended);
  };
  return (
    <div class="fk-palette" role="region" aria-label="Functions">
      <label class="fk-find">
        <Icon name="search" />
        <input type="text" placeholder="Find a function" aria-label="Find a function" value={wanted} onInput={(event) => setWanted((event.target as HTMLInputElement).value)}
          onKeyDown={((event: KeyboardEvent) => {
            const first = list.current?.querySelector<HTMLElement>("[role=option]:not([aria-disabled=true])");
            if (event.key === "ArrowDown") first?.focus();
            else if (event.key === "Enter" && groups[0]) add(groups[0][1][0]!);
            else if (event.key === "Escape" && wanted) setWanted("");
            else return;
            event.preventDefault();
            event.stopPropagation();
          }) as never} />
      </label>
      <div ref={list} class="fk-offers" role="listbox" aria-label="Functions">
        {groups.map(([module, found]) => (
          <div role="group" aria-label={module || "This notebook"}>
            <h3 title={module}>{module || "This notebook"}</h3>
            {found.map((entry) => (
              <div role="option" class="fk-offer" tabIndex={0} aria-selected="false" aria-disabled={Boolean(entry.problem)} title={[entry.problem || entry.doc, signature(entry), entry.problem ? "" : "Drag it onto the sheet, or press Enter"].filter(Boolean).join("\n")}
                onPointerDown={((event: PointerEvent) => begin(event, entry)) as never} onDblClick={() => add(entry)} onKeyDown={((event: KeyboardEvent) => press(event, entry)) as never}>
                <b>{entry.name}</b><span>{entry.problem || signature(entry)}</span>
              </div>
            ))}
          </div>
        ))}
        {!groups.length && <p class="fk-hint">{wanted ? `Nothing here is called ${wanted}.` : ""}</p>}
        {hint && !entries.some((entry) => !entry.module) && (
          <p class="fk-hint">Functions of this notebook stand here once their cell has run. They need annotations:<code>def flights(day: str) -&gt; list:</code></p>
        )}
      </div>
      {drag && <div class="fk-ghost" style={{ left: `${drag.x}px`, top: `${drag.y}px` }}>{drag.entry.name}</div>}
    </div>
  );
}

function signature(entry: Entry): string {
  const gives = entry.outputs[0]?.type;
  return `${entry.ports.map((port) => port.type || port.name).join(", ")} → ${gives || "any"}`;
}
