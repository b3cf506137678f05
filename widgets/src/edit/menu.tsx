// A short list at a place of the stage: what can be done with a node, or what a port can be connected with.
import { useEffect, useLayoutEffect, useRef, useState } from "react";

export interface Item {
  label: string;
  hint?: string;
  off?: boolean; // with the reason as its hint
  run: () => void;
}

export interface Place {
  x: number;
  y: number;
}

export function Menu({ at, title, items, close }: { at: Place; title: string; items: Item[]; close: () => void }) {
  const root = useRef<HTMLDivElement>(null);
  const [place, setPlace] = useState(at);
  useLayoutEffect(() => { // within the stage
    const box = root.current!;
    const stage = box.parentElement!;
    setPlace({ x: Math.max(6, Math.min(at.x, stage.clientWidth - box.offsetWidth - 6)), y: Math.max(6, Math.min(at.y, stage.clientHeight - box.offsetHeight - 6)) });
  }, [at.x, at.y]);
  useEffect(() => {
    (root.current!.querySelector<HTMLElement>("[role=menuitem]:not([aria-disabled=true])") ?? root.current!).focus({ preventScroll: true });
    const away = (event: Event) => { if (!event.composedPath().includes(root.current!)) close(); };
    document.addEventListener("pointerdown", away, true);
    return () => document.removeEventListener("pointerdown", away, true);
  }, []);
  const press = (event: KeyboardEvent) => {
    const all = [...root.current!.querySelectorAll<HTMLElement>("[role=menuitem]")];
    const now = all.indexOf((root.current!.getRootNode() as Document).activeElement as HTMLElement);
    if (event.key === "ArrowDown") all[(now + 1) % all.length]?.focus();
    else if (event.key === "ArrowUp") all[(now + all.length - 1) % all.length]?.focus();
    else if (event.key === "Escape" || event.key === "Tab") close();
    else if (event.key !== "Enter" && event.key !== " ") return;
    else if (now >= 0) choose(items[now]!);
    event.preventDefault();
    event.stopPropagation();
  };
  const choose = (item: Item) => {
    if (item.off) return;
    close();
    item.run();
  };
  return (
    <div ref={root} class="fk-menu" role="menu" aria-label={title} tabIndex={-1} style={{ left: `${place.x}px`, top: `${place.y}px` }} onKeyDown={press as never}>
      <p>{title}</p>
      {items.map((item) => (
        <div role="menuitem" tabIndex={-1} aria-disabled={Boolean(item.off)} onClick={() => choose(item)}>
          <b>{item.label}</b>{item.hint && <span>{item.hint}</span>}
        </div>
      ))}
    </div>
  );
}

/** A pointer's place on the stage that *element* is part of. */
export function onStage(element: Element, event: { clientX: number; clientY: number }): Place {
  const bounds = element.closest(".fk-stage")!.getBoundingClientRect();
  return { x: event.clientX - bounds.left, y: event.clientY - bounds.top };
}
