// Small parts: the mark of a state, icons, a hook that hears the store.
import { useEffect, useReducer } from "react";
import type { View } from "./canvas";
import type { State, Store } from "./model";

const MARKS: Record<State, string> = {
  idle: "M6 2.25a3.75 3.75 0 1 0 0 7.5a3.75 3.75 0 1 0 0-7.5z",
  pending: "M6 2.25a3.75 3.75 0 1 0 0 7.5a3.75 3.75 0 1 0 0-7.5z",
  running: "M6 1.75a4.25 4.25 0 0 1 4.25 4.25",
  succeeded: "M2 6.4l2.8 2.8L10.2 3",
  failed: "M2.5 2.5l7 7m0-7l-7 7",
  skipped: "M2 3l4 3-4 3zm6.5 0v6",
  cancelled: "M2.5 6h7",
  waiting: "M6 1.75a4.25 4.25 0 1 0 4.25 4.25M6 3.5V6l1.8 1.2",
};

/** A shape for each state, so that it is not told by colour alone. */
export function Mark({ state }: { state: State }) {
  return (
    <svg class={`fk-mark ${state}`} viewBox="0 0 12 12" aria-hidden="true">
      {state === "running" && <circle cx="6" cy="6" r="4.25" />}
      <path d={MARKS[state]} />
    </svg>
  );
}

const ICONS = {
  search: "M7 2.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9zM10.3 10.3l3.2 3.2",
  fit: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
  plus: "M8 3v10M3 8h10",
  minus: "M3 8h10",
  close: "M4 4l8 8m0-8l-8 8",
  unfold: "M3 6.5L8 2l5 4.5M3 9.5L8 14l5-4.5",
  fold: "M3 2.5L8 7l5-4.5M3 13.5L8 9l5 4.5",
  stop: "M4.5 4.5h7v7h-7z",
  undo: "M3 6.5h7a3.25 3.25 0 0 1 0 6.5H6M6 3.5l-3 3l3 3",
  redo: "M13 6.5H6a3.25 3.25 0 0 0 0 6.5h4M10 3.5l3 3l-3 3",
  layout: "M2.5 5.5h4v5h-4zM9.5 2.5h4v4h-4zM9.5 9.5h4v4h-4zM6.5 8h3",
  play: "M5 3l8 5l-8 5z",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  more: "M3 8h.01M8 8h.01M13 8h.01",
  again: "M13 8a5 5 0 1 1-1.6-3.7M13 2v3h-3",
  edit: "M3 13l.7-3L11 2.7a1.4 1.4 0 0 1 2.3 2.3L6 12.3z",
};

export function Icon({ name }: { name: keyof typeof ICONS }) {
  return <svg class="fk-icon" viewBox="0 0 16 16" aria-hidden="true"><path d={ICONS[name]} /></svg>;
}

/** Draws again whenever one of these topics has news. */
export function useStore(store: Store, ...topics: string[]): void {
  const [, again] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    const ends = topics.map((topic) => store.listen(topic, () => again(undefined as never)));
    again(undefined as never); // what came between drawing and listening
    return () => ends.forEach((end) => end());
  }, [store, topics.join(" ")]);
}

/** Draws again every *ms* while *on*: for what counts up or down. */
export function useClock(on: boolean, ms = 100): void {
  const [, again] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    if (!on) return;
    const timer = setInterval(() => again(undefined as never), ms);
    return () => clearInterval(timer);
  }, [on, ms]);
}

/** Moves a view there in *ms*, at once for who wants no motion; whatever moves it meanwhile should call what is returned. */
export function glide(from: View, to: View, ms: number, show: (view: View) => void): () => void {
  if (!ms || matchMedia("(prefers-reduced-motion: reduce)").matches) {
    show(to);
    return () => undefined;
  }
  const began = performance.now();
  let frame = requestAnimationFrame(function step() {
    const part = Math.min(1, (performance.now() - began) / ms);
    const eased = 1 - (1 - part) ** 3;
    const between = (key: keyof View) => from[key] + (to[key] - from[key]) * eased;
    show(part < 1 ? { x: between("x"), y: between("y"), zoom: between("zoom") } : to);
    if (part < 1) frame = requestAnimationFrame(step);
  });
  return () => cancelAnimationFrame(frame);
}
