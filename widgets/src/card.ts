// A card's anatomy: which rows it has, how high it is and where on its sides each port sits. Drawn by node.tsx in the
// DOM and by canvas.ts, to the same measure.
import type { Node, Port } from "./model";
import type { Box } from "./layout";

export const WIDTH = 212;
export const HEAD = 46;
export const ROW = 20;
export const PAD = 5;
export const GROUP_HEIGHT = 64;
const MOST_ROWS = 8; // inputs of one card

export interface Row {
  side: "in" | "out" | "none";
  label: string;
  type: string;
  at: number; // place of the port or output it stands for; -1 for none
  kind: Port["kind"] | "output" | "more";
  title: string;
}

const known = new WeakMap<Node, Row[]>();

export function rows(node: Node): Row[] {
  let found = known.get(node);
  if (!found) known.set(node, (found = make(node)));
  return found;
}

function make(node: Node): Row[] {
  let inputs = node.ports.map((port, at): Row => {
    const source = port.source ? ` ← ${port.source}` : "";
    const value = port.value ? ` = ${port.value}` : "";
    return {
      side: port.kind === "constant" && !port.takes ? "none" : "in",
      label: `${port.name}${source}${value}`,
      type: port.each ? `each ${port.type}`.trim() : port.type,
      at,
      kind: port.kind,
      title: `${port.name}${port.type ? `: ${port.type}` : ""}${source}${value}${port.each ? ", an item at a time" : ""}`,
    };
  });
  if (inputs.length > MOST_ROWS) {
    const more = inputs.length - MOST_ROWS + 1;
    const rest = node.ports.slice(-more).map((port) => port.name).join(", ");
    inputs = [...inputs.slice(0, MOST_ROWS - 1), { side: "in", label: `and ${more} more`, type: "", at: -1, kind: "more", title: rest }];
  }
  const outputs = node.outputs
    .map((output, at): Row => ({ side: "out", label: output.name, type: output.type, at, kind: "output", title: `${output.name || "result"}: ${output.type || "anything"}` }))
    .filter((row) => row.label || row.type);
  return [...inputs, ...outputs];
}

export function box(node: Node): Box {
  const count = rows(node).length;
  return { width: WIDTH, height: HEAD + (count ? count * ROW + 2 * PAD : 0) };
}

/** How far below the card's top a port sits; one without a row of its own sits at the row that stands for it. */
export function portY(node: Node, side: "in" | "out", at: number): number {
  const all = rows(node);
  let row = all.findIndex((one) => one.side === side && one.at === at);
  if (row < 0 && side === "in") row = all.findIndex((one) => one.kind === "more");
  return row < 0 ? HEAD / 2 : HEAD + PAD + (row + 0.5) * ROW;
}

const FAMILIES: [RegExp, number][] = [
  [/^(int|float|complex|bool|Decimal|number)\b/i, 255],
  [/(DataFrame|Series|Table|ndarray|Array|Frame)/, 190],
  [/^(list|tuple|set|frozenset|Sequence|Iterable|Iterator|deque)\b/i, 300],
  [/^(dict|Mapping|OrderedDict|defaultdict)\b/i, 75],
  [/^(str|bytes|Path)\b/, 150],
  [/(Figure|Axes|Image|Chart)/, 350],
  [/(date|time|Timestamp|Timedelta)/i, 45],
];

/** The hue of a type, in degrees; null where anything fits. The same word always has the same one. */
export function hue(type: string): number | null {
  const word = type.replace(/^each /, "");
  if (!word || word === "Any" || word === "object") return null;
  for (const [family, degrees] of FAMILIES) if (family.test(word)) return degrees;
  let hash = 0;
  for (const letter of word) hash = (hash * 31 + letter.charCodeAt(0)) | 0;
  return 20 + ((hash >>> 0) % 12) * 28;
}
