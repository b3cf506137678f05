import { expect, test } from "vitest";
import { layers, layout, type Box } from "../src/layout";

type Edges = [number, number][];

/** The same for the same seed. */
function random(seed: number): () => number {
  return () => ((seed = (seed * 1103515245 + 12345) & 0x7fffffff) / 0x7fffffff);
}

function graph(count: number, seed: number): { boxes: Box[]; edges: Edges } {
  const next = random(seed);
  const boxes = Array.from({ length: count }, () => ({ width: 200, height: 46 + 20 * Math.floor(next() * 5) }));
  const edges: Edges = [];
  for (let to = 1; to < count; to++) {
    for (let times = Math.floor(next() * 3); times > 0; times--) edges.push([Math.floor(to * next()), to]);
  }
  return { boxes, edges };
}

test("an edge leads to a later layer, whatever the graph", () => {
  for (let seed = 1; seed < 60; seed++) {
    const { boxes, edges } = graph(40, seed);
    const { layer } = layout(boxes, edges);
    for (const [from, to] of edges) expect(layer[to]!).toBeGreaterThan(layer[from]!);
  }
});

test("no card lies on another, and all lie on the sheet", () => {
  for (let seed = 1; seed < 60; seed++) {
    const { boxes, edges } = graph(40, seed);
    const { x, y, width, height } = layout(boxes, edges);
    boxes.forEach((box, one) => {
      expect(x[one]! >= -0.01 && y[one]! >= -0.01 && x[one]! + box.width <= width + 0.01 && y[one]! + box.height <= height + 0.01).toBe(true);
      for (let other = 0; other < one; other++) {
        const apart = x[one] !== x[other] || y[one]! >= y[other]! + boxes[other]!.height || y[other]! >= y[one]! + box.height;
        expect(apart, `seed ${seed}: ${other} and ${one}`).toBe(true);
      }
    });
  }
});

test("a long edge passes between the cards of the layers it crosses", () => {
  const boxes = Array.from({ length: 7 }, () => ({ width: 200, height: 60 }));
  const edges: Edges = [[0, 1], [1, 2], [2, 3], [0, 3], [0, 4], [4, 5], [5, 6], [6, 3]];
  const { x, y, bends } = layout(boxes, edges);
  const chain = bends.get(3)!;
  expect(chain.length).toBeGreaterThan(0);
  for (const [bendX, bendY] of chain) {
    boxes.forEach((box, node) => {
      const inside = bendX > x[node]! && bendX < x[node]! + box.width && bendY > y[node]! && bendY < y[node]! + box.height;
      expect(inside).toBe(false);
    });
  }
});

test("a chain is drawn straight, and a lone reader beside its giver", () => {
  const boxes = Array.from({ length: 4 }, () => ({ width: 200, height: 60 }));
  expect(new Set(layout(boxes, [[0, 1], [1, 2], [2, 3]]).y.map(Math.round)).size).toBe(1);
});

test("a circle is broken at one edge, and everything has its place", () => {
  const { back, depth } = layers(4, [[0, 1], [1, 2], [2, 1], [2, 3]]);
  expect(back.size).toBe(1);
  expect(depth[3]!).toBeGreaterThan(depth[2]!);
  expect(layers(1, [[0, 0]]).back.size).toBe(1);
});

test("an empty sheet and a very wide one are laid out", () => {
  expect(layout([], []).width).toBe(0);
  const many = 10_000;
  const boxes = Array.from({ length: many }, () => ({ width: 200, height: 60 }));
  const edges = boxes.map((_, at): [number, number] => [Math.max(0, at - 100), at]).slice(100);
  const began = performance.now();
  const { y } = layout(boxes, edges);
  expect(y.every(Number.isFinite)).toBe(true);
  expect(performance.now() - began).toBeLessThan(10_000); // 0.3 s on a free machine
});
