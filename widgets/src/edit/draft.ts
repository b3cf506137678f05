// The document that is edited, and each edit as a function from one document to the next. What feeds an input is decided
// as flowkit/flow/draft.py does it, so that an edge appears at once; whether all of it makes sense, the kernel tells.
import type { Draft, DraftNode, Edge, Entry, Given, Graph, Node, Offer, Port } from "../model";
import { WIDTH } from "../card";
import { scene } from "../scene";

export type Catalog = ReadonlyMap<string, Entry>;
export type Fed =
  | { kind: "edge" | "parameter"; from: string }
  | { kind: "constant" | "default"; text: string }
  | { kind: "off" };

const NEW = 160; // as high as most cards that are added

export const OPTIONS: Record<string, unknown> = { outputs: [], map: [], retries: 0, delay: 1, timeout: null, checkpoint: true, cache: null, limit: null, schema: null };

export function catalog(offer: Offer): Catalog {
  return new Map([...offer.catalog, ...offer.made].map((entry) => [entry.key, entry]));
}

export function option<T>(node: DraftNode, key: string): T {
  return (node.options?.[key] ?? OPTIONS[key]) as T;
}

/** Every name that feeds an input: name -> node and output by place. */
export function names(draft: Draft): Map<string, [number, number]> {
  const found = new Map<string, [number, number]>();
  draft.nodes.forEach((node, at) => [node.name, ...option<string[]>(node, "outputs")].forEach((name, output) => found.has(name) || found.set(name, [at, output])));
  return found;
}

export function feed(node: DraftNode, port: Entry["ports"][number], entry: Entry | undefined, known: ReadonlyMap<string, unknown>): Fed {
  const given = node.inputs?.[port.name];
  const named = (from: string): Fed => ({ kind: known.has(from) ? "edge" : "parameter", from });
  if (given && "from" in given) return named(given.from);
  if (given && "kept" in given) return { kind: "constant", text: given.text };
  if (given) return { kind: "constant", text: python(given.value) };
  const usual: Fed = { kind: "default", text: port.default ?? "" };
  if (given === null) return !port.required ? usual : known.has(port.name) ? { kind: "off" } : named(port.name);
  const own = node.name === entry?.name;
  const byName = node.by_name ?? (own && entry?.module === "");
  return port.required || (byName && (own || known.has(port.name))) ? named(port.name) : usual;
}

export function python(value: unknown): string {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  return typeof value === "string" ? `'${value}'` : JSON.stringify(value);
}

/** Its ports as the palette has them; those of a function that is gone as the draft names them. */
export function portsOf(node: DraftNode, entry: Entry | undefined): Entry["ports"] {
  return entry?.ports ?? Object.keys(node.inputs ?? {}).map((name) => ({ name, type: "", required: true, default: null, form: null }));
}

export function wire(draft: Draft, known: Catalog): Graph {
  const feeds = names(draft);
  const edges: Edge[] = [];
  const nodes = draft.nodes.map((node, at): Node => {
    const entry = known.get(node.function);
    const mapped = option<string[]>(node, "map");
    const ports = portsOf(node, entry).map((port, place): Port => {
      const fed = feed(node, port, entry, feeds);
      if (fed.kind === "edge") edges.push([...feeds.get(fed.from)!, at, place]);
      const told: Port = { name: port.name, type: port.type, takes: true, kind: fed.kind === "edge" || fed.kind === "parameter" ? fed.kind : "constant" };
      if ("from" in fed && fed.from !== port.name) told.source = fed.from;
      if ("text" in fed) told.value = fed.text;
      else if (fed.kind === "parameter" && port.default !== null && !told.source) told.value = port.default;
      if (mapped.includes(port.name)) told.each = true;
      return told;
    });
    const own = entry?.outputs[0];
    return {
      name: node.name,
      ports,
      outputs: [
        { name: "", type: (mapped.length ? own?.listed : own?.type) || "Any" },
        ...option<string[]>(node, "outputs").map((name) => ({ name, type: entry?.outputs.find((output) => output.name === name)?.type ?? "" })),
      ],
      doc: entry?.doc,
      retries: option<number>(node, "retries"),
      map: mapped.length > 0,
    };
  });
  return { flow: draft.flow, nodes, edges, problems: [] };
}

/** A name for another node of this kind: `late`, `late_2`, … */
export function free(draft: Draft, wanted: string): string {
  const taken = names(draft);
  if (!taken.has(wanted)) return wanted;
  const base = wanted.replace(/_\d+$/, "");
  for (let number = 2; ; number++) if (!taken.has(`${base}_${number}`)) return `${base}_${number}`;
}

function change(draft: Draft, name: string, made: (node: DraftNode) => DraftNode): Draft {
  return { ...draft, nodes: draft.nodes.map((node) => (node.name === name ? made(node) : node)) };
}

export function add(draft: Draft, entry: Entry, position: [number, number]): Draft {
  return { ...draft, nodes: [...draft.nodes, { name: free(draft, entry.name), function: entry.key, inputs: {}, options: {}, position }] };
}

export function duplicate(draft: Draft, name: string): Draft {
  const node = draft.nodes.find((one) => one.name === name);
  if (!node) return draft;
  const [x, y] = node.position ?? [0, 0];
  const options = { ...node.options };
  if (options.outputs) delete options.schema; // it is for each of them
  delete options.outputs; // two nodes cannot have an output of the same name
  return { ...draft, nodes: [...draft.nodes, { ...node, name: free(draft, name), options, position: [x + 28, y + 28] }] };
}

export function remove(draft: Draft, name: string): Draft {
  const gone = draft.nodes.find((node) => node.name === name);
  if (!gone) return draft;
  const lost = new Set([name, ...option<string[]>(gone, "outputs")]);
  const nodes = draft.nodes.filter((node) => node !== gone).map((node) => {
    const inputs = Object.entries(node.inputs ?? {}).filter(([, given]) => !(given && "from" in given && lost.has(given.from)));
    return { ...node, inputs: Object.fromEntries(inputs) };
  });
  return { ...draft, nodes };
}

/** What read it still does. */
export function rename(draft: Draft, known: Catalog, from: string, to: string): Draft {
  const feeds = names(draft);
  const nodes = draft.nodes.map((node) => {
    const entry = known.get(node.function);
    const inputs = { ...node.inputs };
    for (const port of portsOf(node, entry)) {
      const fed = feed(node, port, entry, feeds);
      if (fed.kind === "edge" && fed.from === from) inputs[port.name] = { from: to };
    }
    return { ...node, inputs, name: node.name === from ? to : node.name };
  });
  return { ...draft, nodes };
}

export function give(draft: Draft, name: string, port: string, given: Given | undefined): Draft {
  return change(draft, name, (node) => {
    const inputs = { ...node.inputs };
    if (given === undefined) delete inputs[port];
    else inputs[port] = given;
    return { ...node, inputs };
  });
}

function fedBy(draft: Draft, known: Catalog, name: string, port: string): Fed | undefined {
  const node = draft.nodes.find((one) => one.name === name);
  const entry = node && known.get(node.function);
  const found = node && portsOf(node, entry).find((one) => one.name === port);
  return node && found && feed(node, found, entry, names(draft));
}

/** Nothing is said where the name alone does it: so it is in the code. */
export function connect(draft: Draft, known: Catalog, source: string, name: string, port: string): Draft {
  const unsaid = give(draft, name, port, undefined);
  const fed = fedBy(unsaid, known, name, port);
  return fed?.kind === "edge" && fed.from === source ? unsaid : give(draft, name, port, { from: source });
}

export function disconnect(draft: Draft, known: Catalog, name: string, port: string): Draft {
  const unsaid = give(draft, name, port, undefined);
  return fedBy(unsaid, known, name, port)?.kind === "edge" ? give(draft, name, port, null) : unsaid;
}

export function setOption(draft: Draft, name: string, key: string, value: unknown): Draft {
  return change(draft, name, (node) => {
    const options = { ...node.options };
    if (JSON.stringify(value) === JSON.stringify(OPTIONS[key])) delete options[key];
    else options[key] = value;
    return { ...node, options };
  });
}

export function move(draft: Draft, to: Record<string, [number, number]>): Draft {
  return { ...draft, nodes: draft.nodes.map((node) => (to[node.name] ? { ...node, position: to[node.name] } : node)) };
}

/** Where the layout puts them: all, or those that have no place yet. */
export function arrange(draft: Draft, known: Catalog, all = false): Draft {
  if (!all && draft.nodes.every((node) => node.position)) return draft;
  const { cards } = scene(wire(draft, known), [], new Set());
  return { ...draft, nodes: draft.nodes.map((node, at) => (!all && node.position ? node : { ...node, position: [Math.round(cards[at]!.x), Math.round(cards[at]!.y)] })) };
}

/** The place nearest to the wanted one at which a new card covers no other. */
export function clear([x, y]: [number, number], others: readonly { x: number; y: number; height: number }[]): [number, number] {
  const tried: [number, number][] = [];
  for (let column = -4; column <= 4; column++) for (let row = -8; row <= 8; row++) tried.push([x + column * 80, y + row * 50]);
  tried.sort((one, two) => Math.hypot(one[0] - x, one[1] - y) - Math.hypot(two[0] - x, two[1] - y));
  return tried.find(([left, top]) => others.every((one) => Math.abs(one.x - left) > WIDTH + 24 || top > one.y + one.height + 16 || top + NEW < one.y)) ?? [x, y];
}

/** What is told of it to the kernel, and whether two are the same. */
export function text(draft: Draft): string {
  return JSON.stringify(draft.nodes.map(({ position: _, ...node }) => node));
}
