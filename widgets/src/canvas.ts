// The whole sheet on one canvas, for flows with more cards than the DOM bears: cards that React Flow has mounted lie
// exactly over what is drawn here. Also the small map in the corner.
import { HEAD, PAD, ROW, hue, portY, rows } from "./card";
import { STATES, type Shown, type State } from "./model";
import { isStale, tally } from "./node";
import { walk, type Card, type Scene } from "./scene";

export const MOST_IN_DOM = 200; // cards; measured: beyond, each step of a pan takes longer than a frame
export const SETTLED = 120; // ms after the last movement: mounting during it would make it stutter
const NEAR = 0.35; // zoom from which cards are mounted over the canvas
const MOST_MOUNTED = 133;

export interface View {
  x: number;
  y: number;
  zoom: number;
}

export interface Paints {
  ground: string;
  surface: string;
  ink: string;
  muted: string;
  line: string;
  edge: string;
  accent: string;
  state: Record<State, string>;
  dark: boolean;
}

export function paints(root: HTMLElement): Paints {
  // Resolved by the browser: the variables themselves may hold light-dark() or another variable.
  const probe = document.createElement("i");
  probe.style.display = "none";
  root.append(probe);
  const get = (name: string) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const state = Object.fromEntries(STATES.map((one) => [one, get(`--fk-${one}`)])) as Record<State, string>;
  const found = {
    ground: get("--fk-ground"), surface: get("--fk-surface"), ink: get("--fk-ink"), muted: get("--fk-muted"),
    line: get("--fk-line"), edge: get("--fk-edge"), accent: get("--fk-accent"), state, dark: root.classList.contains("dark"),
  };
  probe.remove();
  return found;
}

const LOUD = new Set<State>(["running", "waiting", "failed"]); // states that a card's border tells
const TEXT_FROM = 0.3; // zoom from which names can be read

export function draw(canvas: HTMLCanvasElement, scene: Scene, store: Shown, view: View, colours: Paints, chosen: number): void {
  const { width, height, pen } = prepare(canvas);
  if (!pen) return;
  pen.translate(view.x, view.y);
  pen.scale(view.zoom, view.zoom);
  const left = -view.x / view.zoom - 20;
  const top = -view.y / view.zoom - 20;
  const right = left + width / view.zoom + 40;
  const bottom = top + height / view.zoom + 40;
  edges(pen, scene, view.zoom, colours, [left, top, right, bottom]);
  const detailed = view.zoom >= TEXT_FROM;
  const order: number[][] = STATES.map(() => []); // many of one colour are one path
  scene.cards.forEach((card, at) => {
    if (card.x > right || card.x + card.width < left || card.y > bottom || card.y + card.height < top) return;
    if (detailed || card.node < 0) full(pen, card, scene, store, colours, at === chosen);
    else order[store.status[card.node] ?? 0]!.push(at);
  });
  order.forEach((cards, state) => {
    if (!cards.length) return;
    pen.beginPath();
    for (const at of cards) {
      const card = scene.cards[at]!;
      pen.rect(card.x, card.y, card.width, card.height);
    }
    pen.fillStyle = state < 2 ? colours.surface : colours.state[STATES[state]!];
    pen.globalAlpha = state < 2 ? 1 : 0.85;
    pen.fill();
    pen.globalAlpha = 1;
    if (state < 2) {
      pen.strokeStyle = colours.edge;
      pen.lineWidth = Math.max(1, 0.7 / view.zoom);
      pen.stroke();
    }
  });
  const one = scene.cards[chosen];
  if (one && !detailed) {
    pen.strokeStyle = colours.accent;
    pen.lineWidth = 2 / view.zoom;
    pen.strokeRect(one.x, one.y, one.width, one.height);
  }
}

function edges(pen: CanvasRenderingContext2D, scene: Scene, zoom: number, colours: Paints, [left, top, right, bottom]: number[]): void {
  const crowded = scene.links.length > 600;
  pen.strokeStyle = colours.edge;
  pen.lineWidth = Math.max(1.4, 0.6 / zoom);
  pen.globalAlpha = crowded && zoom < 0.5 ? 0.35 : 0.9;
  pen.beginPath();
  const line = { move: pen.moveTo.bind(pen), line: pen.lineTo.bind(pen), bend: zoom < 0.12
    ? (_a: number, _b: number, _c: number, _d: number, x: number, y: number) => pen.lineTo(x, y)
    : pen.bezierCurveTo.bind(pen) };
  for (const link of scene.links) {
    const [startX, startY] = link.path[0]!;
    const [endX, endY] = link.path[link.path.length - 1]!;
    if (Math.max(startX, endX) < left! || Math.min(startX, endX) > right!) continue;
    if (link.path.length === 2 && (Math.max(startY, endY) < top! || Math.min(startY, endY) > bottom!)) continue;
    walk(link, line);
  }
  pen.stroke();
  pen.globalAlpha = 1;
}

function full(pen: CanvasRenderingContext2D, card: Card, scene: Scene, store: Shown, colours: Paints, chosen: boolean): void {
  const node = store.graph.nodes[card.node];
  const state = node ? store.state(card.node) : "idle";
  pen.beginPath();
  pen.roundRect(card.x, card.y, card.width, card.height, 8);
  pen.fillStyle = colours.surface;
  pen.fill();
  pen.setLineDash(node && isStale(store, card.node) ? [4, 3] : []);
  pen.lineWidth = chosen ? 2 : 1;
  pen.strokeStyle = chosen ? colours.accent : LOUD.has(state) ? colours.state[state] : colours.line;
  pen.stroke();
  pen.setLineDash([]);
  pen.fillStyle = colours.ink;
  pen.font = "600 13px system-ui, sans-serif";
  const marked = node && store.status.length; // none has a state while it is edited
  pen.fillText(cut(node?.name ?? card.name, 24), card.x + (marked ? 32 : 14), card.y + 20);
  if (node) {
    pen.beginPath();
    if (marked) pen.arc(card.x + 18, card.y + 16, 4, 0, 7);
    pen.fillStyle = pen.strokeStyle = colours.state[state];
    if (state === "idle" || state === "pending") pen.stroke();
    else pen.fill();
    pen.font = "11.5px system-ui, sans-serif";
    for (const [place, row] of rows(node).entries()) {
      const y = card.y + HEAD + PAD + (place + 0.5) * ROW;
      pen.fillStyle = colours.muted;
      pen.textAlign = row.side === "out" ? "right" : "left";
      pen.fillText(cut(row.side === "out" ? row.label || row.type : row.label, 26), row.side === "out" ? card.x + card.width - 14 : card.x + 14, y + 4);
      pen.textAlign = "left";
      const degrees = hue(row.type);
      if (row.side === "none" || row.kind === "more") continue;
      pen.beginPath();
      pen.arc(row.side === "out" ? card.x + card.width : card.x, y, 3.5, 0, 7);
      pen.fillStyle = degrees === null ? colours.edge : `oklch(${colours.dark ? 0.72 : 0.62} 0.13 ${degrees})`;
      pen.fill();
    }
    if (!rows(node).some((row) => row.side === "out") && scene.links.length) {
      pen.beginPath();
      pen.arc(card.x + card.width, card.y + portY(node, "out", 0), 3, 0, 7);
      pen.fillStyle = colours.edge;
      pen.fill();
    }
  } else {
    let x = card.x + 14;
    const room = card.width - 28;
    for (const [one, number] of tally(store, card.nodes)) {
      const part = (room * number) / card.nodes.length;
      pen.fillStyle = one === "idle" || one === "pending" ? colours.line : colours.state[one];
      pen.fillRect(x, card.y + card.height - 16, part, 5);
      x += part;
    }
  }
}

/** All cards as dots of their states' colours, and where the window is. */
export function drawMap(canvas: HTMLCanvasElement, scene: Scene, store: Shown, view: View, size: [number, number], colours: Paints): void {
  const { width, height, pen } = prepare(canvas);
  if (!pen) return;
  const { scale, x, y } = mapPlace(scene, width, height);
  pen.translate(x, y);
  pen.scale(scale, scale);
  for (const card of scene.cards) {
    const state = card.node < 0 ? mainState(store, card.nodes) : store.state(card.node);
    pen.fillStyle = state === "idle" || state === "pending" ? colours.edge : colours.state[state];
    pen.fillRect(card.x, card.y, Math.max(card.width, 1.5 / scale), Math.max(card.height, 1.5 / scale));
  }
  const whole = -view.x < 0 && -view.y < 0 && size[0] - view.x > scene.width * view.zoom && size[1] - view.y > scene.height * view.zoom;
  if (whole) return;
  pen.strokeStyle = colours.accent;
  pen.lineWidth = 1.5 / scale;
  pen.strokeRect(-view.x / view.zoom, -view.y / view.zoom, size[0] / view.zoom, size[1] / view.zoom);
}

export function mapPlace(scene: Scene, width: number, height: number): { scale: number; x: number; y: number } {
  const scale = Math.min((width - 16) / Math.max(scene.width, 1), (height - 16) / Math.max(scene.height, 1));
  return { scale, x: (width - scene.width * scale) / 2, y: (height - scene.height * scale) / 2 };
}

function mainState(store: Shown, nodes: readonly number[]): State {
  const counts = tally(store, nodes);
  for (const state of ["failed", "running", "waiting", "cancelled"] as const) if (counts.get(state)) return state;
  return counts.get("succeeded") === nodes.length ? "succeeded" : "idle";
}

function prepare(canvas: HTMLCanvasElement): { width: number; height: number; pen: CanvasRenderingContext2D | null } {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen?.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen?.clearRect(0, 0, width, height);
  return { width, height, pen };
}

function cut(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** The cards, in view or close to it, that are mounted there. */
export function mountable(scene: Scene, view: View, [width, height]: [number, number]): number[] {
  const grow = 0.25;
  const left = (-view.x - grow * width) / view.zoom;
  const top = (-view.y - grow * height) / view.zoom;
  const right = (-view.x + (1 + grow) * width) / view.zoom;
  const bottom = (-view.y + (1 + grow) * height) / view.zoom;
  const found: number[] = [];
  scene.cards.forEach((card, at) => {
    if (card.x < right && card.x + card.width > left && card.y < bottom && card.y + card.height > top) found.push(at);
  });
  return found.length <= (view.zoom >= NEAR ? MOST_MOUNTED : 60) ? found : [];
}

export function under(scene: Scene, view: View, event: MouseEvent, canvas: HTMLCanvasElement): number {
  const bounds = canvas.getBoundingClientRect();
  const x = (event.clientX - bounds.left - view.x) / view.zoom;
  const y = (event.clientY - bounds.top - view.y) / view.zoom;
  const slack = 4 / view.zoom;
  return scene.cards.findIndex((card) => x > card.x - slack && x < card.x + card.width + slack && y > card.y - slack && y < card.y + card.height + slack);
}
