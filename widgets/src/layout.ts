// Where the cards stand. Layers from left to right by longest path; in each, an order by barycentre sweeps; then each
// card moves as near to its neighbours as that order allows (pool adjacent violators). An edge over several layers
// passes through each as a bend with a lane of its own, so that it runs between the cards and not behind them.

export interface Box {
  width: number;
  height: number;
}

export interface Placed {
  x: number[]; // left edges, by node
  y: number[]; // top edges
  layer: number[];
  bends: Map<number, [x: number, y: number][]>; // of edges that pass through layers, by edge
  width: number;
  height: number;
}

interface Spot {
  node: number; // -1 for a bend
  size: number;
  before: Spot[];
  after: Spot[];
  centre: number;
  rank: number;
  key: number;
}

export interface Gaps {
  between: number; // layers
  gap: number; // cards of a layer
  lane: number; // height that a passing edge takes
}

const GAPS: Gaps = { between: 72, gap: 26, lane: 14 };
const MOST_BENDS = 60_000; // beyond, long edges run straight: they would be a cloud anyway

/** Layers by longest path. Edges that close a cycle are left out; there is one in each. */
export function layers(count: number, edges: readonly (readonly [number, number])[]): { depth: number[]; back: Set<number> } {
  const after: number[][] = Array.from({ length: count }, () => []);
  const waits = new Array<number>(count).fill(0);
  edges.forEach(([from, to], edge) => {
    if (from === to) return;
    after[from]!.push(edge);
    waits[to]!++;
  });
  const depth = new Array<number>(count).fill(0);
  const done = new Array<boolean>(count).fill(false);
  const back = new Set<number>();
  const ready: number[] = [];
  for (let node = 0; node < count; node++) if (!waits[node]) ready.push(node);
  let next = 0;
  let stuck = 0;
  for (;;) {
    while (next < ready.length) {
      const node = ready[next++]!;
      done[node] = true;
      for (const edge of after[node]!) {
        const to = edges[edge]![1];
        if (done[to]) continue;
        depth[to] = Math.max(depth[to]!, depth[node]! + 1);
        if (--waits[to]! === 0) ready.push(to);
      }
    }
    while (stuck < count && done[stuck]) stuck++;
    if (stuck === count) break;
    waits[stuck] = 0; // the first of those that wait for each other goes ahead
    ready.push(stuck);
  }
  const place = new Array<number>(count);
  ready.forEach((node, at) => (place[node] = at));
  edges.forEach(([from, to], edge) => {
    if (from === to || place[from]! >= place[to]!) back.add(edge);
  });
  return { depth, back };
}

export function layout(boxes: readonly Box[], edges: readonly (readonly [number, number])[], gaps: Gaps = GAPS): Placed {
  const count = boxes.length;
  const { depth, back } = layers(count, edges);
  const columns: Spot[][] = Array.from({ length: Math.max(-1, ...maximum(depth)) + 1 }, () => []);
  const spots = boxes.map((box, node) => spot(node, box.height));
  spots.forEach((one, node) => columns[depth[node]!]!.push(one));
  let long = 0;
  edges.forEach(([from, to], edge) => {
    if (!back.has(edge)) long += depth[to]! - depth[from]! - 1;
  });
  const chains = new Map<number, Spot[]>();
  const shared = new Map<string, Spot[]>(); // one node's edges to the same layer and further share a lane
  edges.forEach(([from, to], edge) => {
    if (back.has(edge)) return;
    let last = spots[from]!;
    const chain: Spot[] = [];
    if (long <= MOST_BENDS) {
      for (let layer = depth[from]! + 1; layer < depth[to]!; layer++) {
        const key = `${from} ${layer}`;
        let bend = shared.get(key)?.[0];
        if (!bend) {
          bend = spot(-1, gaps.lane);
          shared.set(key, [bend]);
          columns[layer]!.push(bend);
          link(last, bend);
        }
        chain.push(bend);
        last = bend;
      }
    }
    link(last, spots[to]!);
    if (chain.length) chains.set(edge, chain);
  });
  arrange(columns);
  settle(columns, gaps.gap);

  const widths = columns.map((column) => Math.max(0, ...maximum(column.map((one) => (one.node < 0 ? 0 : boxes[one.node]!.width)))));
  const starts: number[] = [];
  widths.reduce((at, width, layer) => ((starts[layer] = at), at + width + gaps.between), 0);
  let top = Infinity;
  let bottom = -Infinity;
  for (const column of columns) {
    for (const one of column) {
      top = Math.min(top, one.centre - one.size / 2);
      bottom = Math.max(bottom, one.centre + one.size / 2);
    }
  }
  if (!count) top = bottom = 0;
  const bends = new Map<number, [number, number][]>();
  for (const [edge, chain] of chains) {
    const first = depth[edges[edge]![0]]! + 1;
    bends.set(edge, chain.flatMap((bend, at): [number, number][] => {
      const x = starts[first + at]!;
      return [[x, bend.centre - top], [x + widths[first + at]!, bend.centre - top]];
    }));
  }
  return {
    x: boxes.map((_, node) => starts[depth[node]!]!),
    y: spots.map((one, node) => one.centre - boxes[node]!.height / 2 - top),
    layer: depth,
    bends,
    width: count ? starts[starts.length - 1]! + widths[widths.length - 1]! : 0,
    height: bottom - top,
  };
}

function spot(node: number, size: number): Spot {
  return { node, size, before: [], after: [], centre: 0, rank: 0, key: 0 };
}

function link(one: Spot, other: Spot): void {
  one.after.push(other);
  other.before.push(one);
}

function maximum(values: readonly number[]): number[] {
  // Math.max(...values) of a long list overflows the stack.
  let found = -Infinity;
  for (const value of values) found = Math.max(found, value);
  return values.length ? [found] : [];
}

function arrange(columns: Spot[][]): void {
  columns.forEach(rank);
  const sweeps = columns.reduce((sum, column) => sum + column.length, 0) > 20_000 ? 4 : 12;
  for (let sweep = 0; sweep < sweeps; sweep++) {
    for (let at = 1; at < columns.length; at++) sort(columns[at]!, "before");
    for (let at = columns.length - 2; at >= 0; at--) sort(columns[at]!, "after");
  }
}

function sort(column: Spot[], side: "before" | "after"): void {
  for (const one of column) {
    const near = one[side];
    let sum = 0;
    for (const other of near) sum += other.rank;
    one.key = near.length ? sum / near.length : one.rank;
  }
  column.sort((one, other) => one.key - other.key);
  rank(column);
}

function rank(column: Spot[]): void {
  column.forEach((one, at) => (one.rank = (at + 0.5) / column.length));
}

function settle(columns: Spot[][], gap: number): void {
  for (const column of columns) {
    let at = 0;
    for (const one of column) {
      one.centre = at + one.size / 2;
      at += one.size + gap;
    }
    for (const one of column) one.centre -= (at - gap) / 2;
  }
  for (let sweep = 0; sweep < 6; sweep++) {
    for (let at = 1; at < columns.length; at++) spread(columns[at]!, "before", gap);
    for (let at = columns.length - 2; at >= 0; at--) spread(columns[at]!, "after", gap);
  }
}

function spread(column: Spot[], side: "before" | "after", gap: number): void {
  const offsets: number[] = [];
  const sums: number[] = [];
  const counts: number[] = [];
  let at = 0;
  column.forEach((one, index) => {
    at += one.size / 2 + (index ? gap + column[index - 1]!.size / 2 : 0);
    offsets.push(at);
    const near = one[side];
    let wanted = 0;
    for (const other of near) wanted += other.centre;
    sums.push((near.length ? wanted / near.length : one.centre) - at);
    counts.push(1);
    for (;;) {
      const last = sums.length - 1;
      if (last < 1 || sums[last - 1]! / counts[last - 1]! <= sums[last]! / counts[last]!) break;
      sums[last - 1]! += sums.pop()!;
      counts[last - 1]! += counts.pop()!;
    }
  });
  let index = 0;
  sums.forEach((sum, block) => {
    for (let left = counts[block]!; left > 0; left--, index++) column[index]!.centre = sum / counts[block]! + offsets[index]!;
  });
}
