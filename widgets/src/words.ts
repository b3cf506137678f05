// How times and states are said.
import type { State, Times } from "./model";

export function span(seconds: number): string {
  if (seconds < 0.0005) return "<1 ms";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds < 9.95 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h} h ${m} min` : `${m} min ${s} s`;
}

/** One line about a node; empty if there is nothing to say. */
export function told(state: State, times: Times | undefined, now: number, retries = 0): string {
  const parts: string[] = [];
  const { started, finished, attempt = 1, done, items, due, error } = times ?? {};
  if (state === "idle") return "";
  if (state === "failed") return error ? error : "failed";
  if (state === "skipped" || state === "cancelled") return error ? `${state}: ${error}` : state;
  if (state === "pending") return "waiting";
  if (items !== undefined && (state === "running" || state === "succeeded")) parts.push(`${done ?? 0}/${items}`);
  if (attempt > 1 && state !== "waiting") parts.push(`attempt ${attempt}${retries ? ` of ${retries + 1}` : ""}`);
  if (state === "running") parts.push(started === undefined ? "running" : clock(now - started));
  if (state === "waiting") {
    parts.push(due === undefined ? "tries again" : `tries again in ${Math.max(0, Math.ceil(due - now))} s`);
    parts.push(`${attempt} of ${retries + 1} failed`);
  }
  if (state === "succeeded") parts.push(started !== undefined && finished !== undefined ? span(finished - started) : "done");
  return parts.join(" · ");
}

/** A duration that runs: whole steps, so that it does not flicker. */
export function clock(seconds: number): string {
  if (seconds < 0.1) return "running";
  return seconds < 10 ? `${seconds.toFixed(1)} s` : span(Math.floor(seconds));
}

export function count(number: number): string {
  return number.toLocaleString("en-US");
}

export function plural(number: number, noun: string): string {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** Of what one chooses from: more would take long to list, and longer to read. */
export const MOST_LISTED = 200;
