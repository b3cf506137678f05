// A recorded run, moved through in time.
import { useEffect, useState } from "react";
import { STATES, type Store, type Story, type Times } from "./model";
import { Icon } from "./parts";
import { span } from "./words";

const SECONDS = 8; // that all of it takes when it is played, if it took longer
const STEPS = 500;

export function Replay({ store, story }: { store: Store; story: Story }) {
  const start = story.instants[0] ?? 0;
  const end = story.instants[story.instants.length - 1] ?? 0;
  const [at, setAt] = useState(end);
  const [playing, setPlaying] = useState(false);
  useEffect(() => stand(store, story, at, end), [store, story, at]);
  useEffect(() => {
    if (!playing) return;
    const speed = Math.max(1, (end - start) / SECONDS);
    const began = performance.now();
    const from = at >= end ? start : at;
    let frame = requestAnimationFrame(function go() {
      const now = from + ((performance.now() - began) / 1000) * speed;
      setAt(Math.min(now, end));
      if (now < end) frame = requestAnimationFrame(go);
      else setPlaying(false);
    });
    return () => cancelAnimationFrame(frame);
  }, [playing]);
  const long = Math.max(end - start, 1e-6);
  const passed = span(Math.max(0, at - start));
  return (
    <div class="fk-replay">
      <button type="button" class="fk-tool" aria-label={playing ? "Pause" : "Play"} title={playing ? "Pause" : "Play"} onClick={() => setPlaying(!playing)}><Icon name={playing ? "pause" : "play"} /></button>
      <input type="range" min={0} max={STEPS} step={1} value={Math.round(((at - start) / long) * STEPS)} aria-label="Time" aria-valuetext={`${passed} of ${span(long)}`}
        onInput={(event) => { setPlaying(false); const step = Number((event.target as HTMLInputElement).value); setAt(step === STEPS ? end : start + (step / STEPS) * long); }} />
      <output>{passed} of {span(long)}<span>{new Date(at * 1000).toLocaleString()}</span></output>
    </div>
  );
}

export function stand(store: Store, story: Story, at: number, end: number): void {
  const status = new Uint8Array(store.graph.nodes.length).fill(1);
  const times: Record<string, Times> = {};
  for (const [then, node, code, count, more] of story.changes) {
    if (then > at) break;
    const told = (times[node] ??= {});
    if (code < 0) {
      told.done = count;
      told.items = Number(more);
      continue;
    }
    status[node] = code;
    const state = STATES[code];
    told.error = typeof more === "string" ? more : undefined;
    if (state === "running") {
      if (count === 1 || told.started === undefined) told.started = then;
      told.attempt = count;
      told.finished = undefined;
    } else told.finished = state === "pending" ? undefined : then;
  }
  const over = at >= end;
  store.stood(at, status, times, { state: over ? story.state : "running", started: story.instants[0], finished: over && story.state !== "running" ? end : undefined });
}
