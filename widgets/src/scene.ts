// What is on the sheet now: a card for each node or folded group, the links between them, and where all of it stands.
import * as card from "./card";
import type { Group } from "./fold";
import { layout, type Box, type Placed } from "./layout";
import type { Graph } from "./model";

export interface Card extends Box {
  id: string;
  name: string;
  node: number; // -1 for a folded group
  group: number; // -1 for a node of no group
  nodes: number[];
  x: number;
  y: number;
}

export interface Link {
  id: string;
  from: number; // cards
  to: number;
  path: [x: number, y: number][]; // from port to port, through the lanes between cards
  back: boolean; // it closes a circle
  type: string;
  edges: number;
  output: number;
  port: number;
}

export interface Scene {
  cards: Card[];
  links: Link[];
  cardOf: Int32Array; // node -> its card
  width: number;
  height: number;
}

export function scene(graph: Graph, groups: readonly Group[], unfolded: ReadonlySet<number>): Scene {
  const cards: Card[] = [];
  const cardOf = new Int32Array(graph.nodes.length);
  const add = (made: Omit<Card, "x" | "y">) => {
    for (const node of made.nodes) cardOf[node] = cards.length;
    cards.push({ ...made, x: 0, y: 0 });
  };
  const single = (node: number, group: number) => {
    const one = graph.nodes[node]!;
    add({ id: `n${node}`, name: one.name, node, group, nodes: [node], ...card.box(one) });
  };
  if (!groups.length) graph.nodes.forEach((_, node) => single(node, -1));
  groups.forEach((group, at) => {
    if (unfolded.has(at) || group.nodes.length === 1) group.nodes.forEach((node) => single(node, at));
    else add({ id: `g${at}`, name: group.name, node: -1, group: at, nodes: group.nodes, width: card.WIDTH, height: card.GROUP_HEIGHT });
  });
  const links = connect(graph, cards, cardOf);
  const placed = layout(cards, links.map((link) => [link.from, link.to] as const));
  cards.forEach((one, at) => ((one.x = placed.x[at]!), (one.y = placed.y[at]!)));
  links.forEach((link, at) => route(graph, cards, link, placed, at));
  return { cards, links, cardOf, width: placed.width, height: placed.height };
}

function connect(graph: Graph, cards: Card[], cardOf: Int32Array): Link[] {
  const found = new Map<string | number, Link>();
  for (const [from, output, to, port] of graph.edges) {
    const [giver, reader] = [cardOf[from]!, cardOf[to]!];
    const folded = cards[giver]!.node < 0 || cards[reader]!.node < 0;
    if (folded && giver === reader) continue;
    const key = folded ? giver * cards.length + reader : `${from}.${output}.${to}.${port}`;
    const known = found.get(key);
    if (known) known.edges++;
    else found.set(key, {
      id: String(key), from: giver, to: reader, path: [], back: false, edges: 1, output, port,
      type: folded ? "" : (graph.nodes[from]!.outputs[output]?.type ?? ""),
    });
  }
  return [...found.values()];
}

function route(graph: Graph, cards: Card[], link: Link, placed: Placed, at: number): void {
  const [giver, reader] = [cards[link.from]!, cards[link.to]!];
  const down = (one: Card, side: "in" | "out", port: number) =>
    one.node < 0 ? one.height / 2 : card.portY(graph.nodes[one.node]!, side, port);
  const start: [number, number] = [giver.x + giver.width, giver.y + down(giver, "out", link.output)];
  const end: [number, number] = [reader.x, reader.y + down(reader, "in", link.port)];
  link.back = placed.layer[link.from]! >= placed.layer[link.to]!;
  link.path = [start, ...(placed.bends.get(at) ?? []), end];
}

/** The link as an SVG path: straight within a layer, curved between two. */
export function curve(link: Link): string {
  let path = "";
  walk(link, {
    move: (x, y) => (path = `M${x} ${y}`),
    line: (x, y) => (path += `L${x} ${y}`),
    bend: (a, b, c, d, x, y) => (path += `C${a} ${b} ${c} ${d} ${x} ${y}`),
  });
  return path;
}

export interface Pen {
  move(x: number, y: number): void;
  line(x: number, y: number): void;
  bend(a: number, b: number, c: number, d: number, x: number, y: number): void;
}

/** The same line for the DOM and for a canvas. */
export function walk(link: Link, pen: Pen): void {
  const points = link.path;
  let [x, y] = points[0]!;
  pen.move(x, y);
  if (link.back) { // around, below both
    const [endX, endY] = points[points.length - 1]!;
    const low = Math.max(y, endY) + 70;
    pen.bend(x + 70, y, x + 70, low, (x + endX) / 2, low);
    pen.bend(endX - 70, low, endX - 70, endY, endX, endY);
    return;
  }
  for (let at = 1; at < points.length; at++) {
    const [nextX, nextY] = points[at]!;
    if (at % 2 === 0) pen.line(nextX, nextY); // a layer is passed on one level
    else {
      const reach = Math.max((nextX - x) / 2, 20);
      pen.bend(x + reach, y, nextX - reach, nextY, nextX, nextY);
    }
    [x, y] = [nextX, nextY];
  }
}

/** The card an arrow key leads to: along the links, or up and down within the layer; -1 if there is none. */
export function neighbour(scene: Scene, at: number, key: string): number {
  const card = scene.cards[at]!;
  const middle = (one: Card) => one.y + one.height / 2;
  const nearest = (cards: number[]) => cards.reduce((best, one) =>
    best < 0 || Math.abs(middle(scene.cards[one]!) - middle(card)) < Math.abs(middle(scene.cards[best]!) - middle(card)) ? one : best, -1);
  if (key === "ArrowRight") return nearest(scene.links.filter((link) => link.from === at).map((link) => link.to));
  if (key === "ArrowLeft") return nearest(scene.links.filter((link) => link.to === at).map((link) => link.from));
  if (key !== "ArrowUp" && key !== "ArrowDown") return -1;
  const down = key === "ArrowDown";
  return nearest(scene.cards.flatMap((one, place) => (one.x === card.x && place !== at && (down ? one.y > card.y : one.y < card.y) ? [place] : [])));
}
