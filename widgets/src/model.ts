// What kernel and browser tell each other: plain values in named traits, the same through anywidget, Panel or a page.

/** The part of an anywidget model that is used; the dashboard has an object of its own that does the same. */
export interface Model {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  on(event: string, callback: () => void): void;
  off(event: string, callback: () => void): void;
}

export interface Port {
  name: string;
  kind: "edge" | "parameter" | "constant";
  type: string; // "" if anything fits
  source?: string; // what feeds it, if it is called otherwise
  value?: string; // a default or a constant, in words
  each?: boolean; // it is given an item at a time
  takes?: boolean; // in the editor: it can be connected, also if it has a constant
}

export interface Output {
  name: string; // "" for the node's own result
  type: string;
}

export interface Node {
  name: string;
  ports: Port[];
  outputs: Output[]; // the node's own result first
  doc?: string; // first line
  retries?: number;
  map?: boolean;
}

/** From node and output to node and port, by place in their lists. */
export type Edge = [from: number, output: number, to: number, port: number];

export interface Graph {
  flow: string;
  nodes: Node[];
  edges: Edge[];
  problems: string[];
}

/** One byte of the trait `status` is one node; flowkit/scene.py writes them. */
export const STATES = ["idle", "pending", "running", "succeeded", "failed", "skipped", "cancelled", "waiting"] as const;
export type State = (typeof STATES)[number];

/** Of one node, in seconds since 1970 by the kernel's clock. */
export interface Times {
  started?: number;
  finished?: number;
  attempt?: number;
  done?: number; // items of a mapped node
  items?: number;
  due?: number; // when its next attempt starts
  error?: string;
}

export interface Run {
  state: State;
  started?: number;
  finished?: number;
  now?: number; // the kernel's clock when this was sent
  critical?: number[]; // the nodes that the end waited for
  live?: boolean; // somebody answers: details can be asked for, the run can be cancelled
  stale?: number[]; // the nodes that would run again if all were to be up to date
  notebook?: string; // where it is, if anything says so
}

export type Preview =
  | { kind: "table"; title: string; columns: { name: string; type: string; nulls: string }[]; rows: string[][] }
  | { kind: "picture"; title: string; png: string }
  | { kind: "text"; title: string; text: string };

export interface Detail {
  node: string;
  signature?: string;
  source?: string;
  doc?: string;
  where?: string;
  inputs?: { name: string; from: string; preview: Preview }[];
  result?: Preview;
  error?: string;
  traceback?: string;
  items?: string; // a digit for the state of each
  failures?: { name: string; error: string }[];
  lines?: Line[];
}

/** What a node wrote; flowkit/flow/lines.py. */
export interface Line {
  text: string;
  error?: boolean; // to stderr
  item?: number; // of a mapped node
  attempt?: number; // from the second on
}

export interface Question {
  n: number;
  kind: string;
  [key: string]: unknown;
}

/** How a value is asked for; nothing: only a node can give it. */
export interface Ask {
  kind: "text" | "integer" | "number" | "boolean" | "choice" | "json";
  choices?: unknown[];
  optional?: boolean;
}

/** A function of the palette; flowkit/flow/palette.py writes them. */
export interface Entry {
  key: string;
  name: string;
  module: string; // "" for the notebook's own
  doc: string;
  problem: string; // why it is not offered
  ports: { name: string; type: string; required: boolean; default: string | null; form: Ask | null }[];
  outputs: { name: string; type: string; listed: string }[]; // of which type if it is mapped
}

export type Given = { from: string } | { value: unknown } | { kept: string; text: string } | null;

/** The document of flowkit/flow/draft.py. */
export interface DraftNode {
  name: string;
  function: string;
  by_name?: boolean;
  inputs?: Record<string, Given>;
  options?: Record<string, unknown>;
  position?: [x: number, y: number];
}

export interface Draft {
  flow: string;
  nodes: DraftNode[];
}

export interface Offer {
  catalog: Entry[];
  made: Entry[]; // what the flow's own nodes are made of
  fits: Record<string, Record<string, string>>;
  draft: Draft; // the flow as the notebook has it
}

export interface Problem {
  node: string | null;
  port: string | null;
  text: string;
  open: boolean; // not wrong: to be given when the flow runs
}

/** A recorded run over time; flowkit/flow/recorded.py has what a change is. */
export interface Story {
  instants: number[];
  changes: [at: number, node: number, code: number, count: number, more: string | number | null][];
  state: State;
}

const OTHERS = ["mode", "notice", "offered", "judged", "written", "story"]; // traits that only few read
const NONE: Graph = { flow: "", nodes: [], edges: [], problems: [] };

/** What is needed of it to draw. */
export type Shown = Pick<Store, "graph" | "status" | "run" | "state">;

const memory = new WeakMap<Model, object>();

/** The traits as the parts of the picture read them: each hears of its own change only. */
export class Store {
  graph: Graph = NONE;
  status: Uint8Array = new Uint8Array();
  times: Record<string, Times> = {};
  run: Run = { state: "idle" };
  /** By node, so that two views of one flow do not take each other's. */
  details = new Map<string, Detail>();
  lines = new Map<string, Line[]>();
  skew = 0; // the kernel's clock minus ours, s
  still: number | null = null; // the instant that is shown of a recorded run
  /** Bound to change, so that whoever draws all at once knows when. */
  version = 0;
  private asked = 0;
  private outbox: Question[] = [];
  private readonly listeners = new Map<string, Set<() => void>>();
  private readonly bound: [string, () => void][] = [];

  constructor(private readonly model: Model) {
    const watch = (name: string, hear: () => void) => {
      hear();
      const heard = () => hear();
      model.on(`change:${name}`, heard);
      this.bound.push([`change:${name}`, heard]);
    };
    watch("graph", () => {
      const graph = model.get("graph") as Graph | undefined;
      this.graph = graph?.nodes ? graph : NONE;
      this.tell("graph");
    });
    watch("status", () => this.heardStatus(bytes(model.get("status"))));
    watch("times", () => this.heardTimes((model.get("times") as Record<string, Times>) ?? {}));
    watch("run", () => {
      this.run = (model.get("run") as Run) ?? { state: "idle" };
      if (this.run.now) this.skew = this.run.now - Date.now() / 1000;
      this.tell("run");
    });
    watch("detail", () => {
      const detail = model.get("detail") as Detail | null;
      if (detail?.node) {
        this.details.set(detail.node, detail);
        this.lines.set(detail.node, detail.lines ?? []);
      }
      this.tell("detail");
    });
    watch("lines", () => {
      const wrote = model.get("lines") as { node?: string; lines: Line[] } | null;
      if (wrote?.node) this.lines.set(wrote.node, wrote.lines);
      this.tell("lines");
    });
    watch("outbox", () => { // another view of the same flow has asked
      this.outbox = (model.get("outbox") as Question[]) ?? [];
      this.asked = Math.max(this.asked, ...this.outbox.map((question) => question.n));
    });
    for (const name of OTHERS) watch(name, () => this.tell(name));
    watch("ack", () => {
      const ack = Number(model.get("ack") ?? 0);
      this.asked = Math.max(this.asked, ack);
      this.outbox = this.outbox.filter((question) => question.n > ack);
    });
  }

  close(): void {
    for (const [event, callback] of this.bound) this.model.off(event, callback);
    this.listeners.clear();
  }

  now(): number {
    return this.still ?? Date.now() / 1000 + this.skew;
  }

  /** One of the other traits; undefined if nothing is in it. */
  get<T>(name: string): T | undefined {
    const value = this.model.get(name);
    return value && (typeof value !== "object" || Object.keys(value).length) ? (value as T) : undefined;
  }

  /** What lasts as long as the model, of which there is one for all views. */
  kept<T extends object>(make: () => T): T {
    if (!memory.has(this.model)) memory.set(this.model, make());
    return memory.get(this.model) as T;
  }

  state(node: number): State {
    return STATES[this.status[node] ?? 0] ?? "idle";
  }

  listen(topic: string, callback: () => void): () => void {
    let set = this.listeners.get(topic);
    if (!set) this.listeners.set(topic, (set = new Set()));
    set.add(callback);
    return () => set.delete(callback);
  }

  /**
   * To the kernel. A trait that holds only the last event would lose the one before it while the kernel is busy, so
   * what is not yet acknowledged stays in the box. Returns the question's number.
   */
  ask(kind: string, more: Record<string, unknown> = {}): number {
    const question = { n: ++this.asked, kind, ...more };
    const still = this.outbox.filter((other) => other.kind !== kind || (kind !== "judge" && kind !== "lines")); // the newest will do
    this.outbox = [...still, question];
    this.model.set("outbox", this.outbox);
    this.model.save_changes();
    return question.n;
  }

  /** Of what the last word counts, so no queue: `visible`, of a large flow the nodes whose times are worth telling. */
  put(name: "visible" | "draft", value: unknown): void {
    this.model.set(name, value);
    this.model.save_changes();
  }

  /** As a recorded run stood at an instant. */
  stood(at: number, status: Uint8Array, times: Record<string, Times>, run: Run): void {
    this.still = at;
    this.run = run;
    this.heardStatus(status);
    this.heardTimes(times);
    this.tell("run");
  }

  private heardStatus(status: Uint8Array): void {
    const before = this.status;
    this.status = status;
    this.version++;
    for (let node = 0; node < Math.max(status.length, before.length); node++) {
      if (status[node] !== before[node]) this.tell(`node ${node}`);
    }
    this.tell("status");
  }

  private heardTimes(times: Record<string, Times>): void {
    const before = this.times;
    this.times = times;
    for (const node of new Set([...Object.keys(times), ...Object.keys(before)])) {
      if (JSON.stringify(times[node]) !== JSON.stringify(before[node])) this.tell(`node ${node}`);
    }
  }

  private tell(topic: string): void {
    for (const callback of [...(this.listeners.get(topic) ?? [])]) callback();
  }
}

function bytes(value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value;
  if (value instanceof DataView) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  return new Uint8Array(Array.isArray(value) ? value : []);
}
