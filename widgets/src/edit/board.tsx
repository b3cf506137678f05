// The sheet on which a flow is built: every node an element, every port a place to begin or end an edge.
import { BaseEdge, ReactFlow, Position, type Connection, type ConnectionLineComponentProps, type InternalNode, type Edge as FlowEdge, type Node as FlowNode, type NodeChange, type ReactFlowInstance, type Viewport } from "@xyflow/react";
import { memo, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { MOST_IN_DOM, SETTLED, draw, mountable, paints, under, type Paints } from "../canvas";
import { ROW, WIDTH, box, hue, portY } from "../card";
import type { Draft, Edge, Graph, Problem, Shown } from "../model";
import { glide } from "../parts";
import { reached, refusal, replaced, type Compat } from "../rules";
import type { Link, Scene } from "../scene";
import { clear } from "./draft";
import { EditCard, type EditData, type Light } from "./card";
import { onStage, type Place } from "./menu";

export type Chosen = { node: string } | { edge: Edge } | null;

export interface BoardHandle {
  fit(): void;
  zoom(by: number): void;
  /** In the draft's own measure. */
  place(at?: { clientX: number; clientY: number }): [number, number];
  focus(node: string): void;
}

interface Props {
  draft: Draft;
  graph: Graph;
  fits: Compat;
  problems: readonly Problem[];
  chosen: Chosen;
  choose: (chosen: Chosen) => void;
  connect: (edge: Edge) => void;
  refuse: (why: string) => void;
  moved: (to: Record<string, [number, number]>) => void;
  menu: (node: string, at: Place) => void;
  ports: (node: string, handle: string, at: Place) => void;
  handle: { current: BoardHandle | null };
  beside: number; // width that the form covers
}

const LEAST = 0.02; // zoom
const READABLE = 0.7;
const nodeTypes = { node: EditCard };
const edgeTypes = { edge: memo(Line) };
const NO_PROBLEMS: readonly Problem[] = [];
const NO_STATES = new Uint8Array();

function bend(x: number, y: number, toX: number, toY: number): string {
  const reach = Math.max(30, Math.abs(toX - x) / 2);
  return `M${x} ${y}C${x + reach} ${y} ${toX - reach} ${toY} ${toX} ${toY}`;
}

function Line({ id, sourceX, sourceY, targetX, targetY }: { id: string; sourceX: number; sourceY: number; targetX: number; targetY: number }) {
  return <BaseEdge id={id} path={bend(sourceX, sourceY, targetX, targetY)} interactionWidth={16} />;
}

/** The edge that is being drawn: from the side of the card, as a handle covers its whole row. */
function Drawn({ fromNode, fromHandle, fromY, toNode, toHandle, toX, toY }: ConnectionLineComponentProps) {
  const side = (node: InternalNode, out: boolean) => node.internals.positionAbsolute.x + (out ? node.measured.width ?? 0 : 0);
  const out = fromHandle.type === "source";
  const [start, end] = [side(fromNode, out), toNode && toHandle ? side(toNode, !out) : toX];
  return <path class="react-flow__connection-path" fill="none" d={out ? bend(start, fromY, end, toY) : bend(end, toY, start, fromY)} />;
}

/** For every port but those of its own side: whether an edge from this one may end there. */
export function lights(graph: Graph, fits: Compat, from: number, handle: string): Map<number, Map<string, Light>> {
  const out = handle[0] === "o";
  const at = Number(handle.slice(1));
  const around = reached(graph.edges, from, out); // with whom it would make a circle
  const circular = (giver: number, reader: number) => around.has(out ? reader : giver);
  return new Map(graph.nodes.map((node, other) => [other, new Map((out ? node.ports : node.outputs).map((_, place) => {
    const edge: Edge = out ? [from, at, other, place] : [other, place, from, at];
    return [`${out ? "i" : "o"}${place}`, { why: refusal(graph, fits, edge, circular), replaces: replaced(graph, edge) }];
  }))]));
}

/** As what is drawn on a canvas is described. */
function sceneOf(draft: Draft, graph: Graph, nudge: Record<string, [number, number]>): Scene {
  const cards = draft.nodes.map((one, at) => {
    const [x, y] = nudge[one.name] ?? one.position ?? [0, 0];
    return { id: one.name, name: one.name, node: at, group: -1, nodes: [at], x, y, ...box(graph.nodes[at]!) };
  });
  const links = graph.edges.map(([from, output, to, port]): Link => {
    const [giver, reader] = [cards[from]!, cards[to]!];
    const path: Link["path"] = [[giver.x + giver.width, giver.y + portY(graph.nodes[from]!, "out", output)], [reader.x, reader.y + portY(graph.nodes[to]!, "in", port)]];
    return { id: "", from, to, path, back: false, edges: 1, type: "", output, port };
  });
  const most = (side: (card: (typeof cards)[number]) => number) => cards.reduce((found, card) => Math.max(found, side(card)), -Infinity);
  return { cards, links, cardOf: new Int32Array(), width: most((card) => card.x + card.width), height: most((card) => card.y + card.height) };
}

export function Board(props: Props) {
  const { draft, graph, fits, problems, chosen } = props;
  const root = useRef<HTMLDivElement>(null);
  const flow = useRef<ReactFlowInstance<FlowNode, FlowEdge> | null>(null);
  const [size, setSize] = useState<[number, number] | null>(null);
  const [nudge, setNudge] = useState<Record<string, [number, number]>>({});
  const [from, setFrom] = useState<{ node: number; handle: string } | null>(null);
  const [note, setNote] = useState<(Place & { text: string; bad: boolean }) | null>(null);
  const gliding = useRef(() => undefined as void);
  const view = useRef<Viewport>({ x: 0, y: 0, zoom: 1 });
  useLayoutEffect(() => {
    const element = root.current!;
    const measure = () => { if (element.clientWidth) setSize([element.clientWidth, element.clientHeight]); };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const place = (name: string) => graph.nodes.findIndex((node) => node.name === name);
  const lit = useMemo(() => (from ? lights(graph, fits, from.node, from.handle) : null), [graph, fits, from]);

  const callbacks = useRef(props);
  callbacks.current = props;
  const big = draft.nodes.length > MOST_IN_DOM; // then all is drawn on a canvas, and only what is in view is mounted
  const scene = useMemo(() => sceneOf(draft, graph, nudge), [draft, graph, nudge]);
  const [near, setNear] = useState<number[]>([]);
  const [wanted, setWanted] = useState(""); // to be focused
  const mounted = useMemo(() => {
    if (!big) return draft.nodes.map((_, at) => at);
    const held = [from?.node ?? -1, ...[wanted, chosen && "node" in chosen ? chosen.node : "", ...Object.keys(nudge)].map(place)];
    return [...new Set([...near, ...held])].filter((at) => draft.nodes[at]);
  }, [big, draft, near, from, wanted, chosen, nudge]);
  const canvas = useRef<HTMLCanvasElement>(null);
  const colours = useRef<{ of: string | undefined; paints: Paints } | null>(null); // of which theme
  const frame = useRef(0);
  const timer = useRef(0);
  const latest = useRef({ scene, graph, size });
  latest.current = { scene, graph, size };
  const paint = () => {
    if (frame.current || !big) return;
    frame.current = requestAnimationFrame(() => {
      frame.current = 0;
      const { scene, graph } = latest.current;
      const root = canvas.current?.closest<HTMLElement>(".flowkit");
      if (!root) return;
      if (colours.current?.of !== root.dataset.seen) colours.current = { of: root.dataset.seen, paints: paints(root) };
      const shown: Shown = { graph, status: NO_STATES, run: { state: "idle" }, state: () => "idle" };
      draw(canvas.current!, scene, shown, view.current, colours.current!.paints, -1);
    });
  };
  const settle = (wait: number) => {
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => { if (latest.current.size) setNear(mountable(latest.current.scene, view.current, latest.current.size)); }, wait);
  };
  useEffect(() => { if (big) { paint(); settle(0); } }, [big, scene, size]);
  useEffect(() => () => { cancelAnimationFrame(frame.current); clearTimeout(timer.current); }, []);
  const troubles = useMemo(() => {
    const found = new Map<string, Problem[]>();
    for (const one of problems) if (one.node) found.set(one.node, [...(found.get(one.node) ?? []), one]);
    return found;
  }, [problems]);
  const nodes = useMemo(() => mounted.map((at): FlowNode<EditData> => {
    const one = draft.nodes[at]!;
    const node = graph.nodes[at]!;
    const { x, y, width, height } = scene.cards[at]!;
    const row = (id: string, side: "in" | "out", output: number) => ({
      id, type: side === "in" ? ("target" as const) : ("source" as const), position: side === "in" ? Position.Left : Position.Right,
      x: 0, y: portY(node, side, output) - ROW / 2, width, height: ROW,
    });
    const mine = troubles.get(one.name) ?? NO_PROBLEMS;
    return {
      id: one.name, type: "node", position: { x, y }, width, height, measured: { width, height }, dragHandle: ".fk-head",
      handles: [...node.ports.map((_, port) => row(`i${port}`, "in", port)), ...node.outputs.map((_, output) => row(`o${output}`, "out", output))],
      selected: Boolean(chosen && "node" in chosen && chosen.node === one.name),
      ariaLabel: [one.name, ...mine.map((problem) => problem.text)].join(", "),
      ariaRole: "group",
      data: {
        node, width, height, problems: mine, lights: from?.node === at ? new Map([[from.handle, { why: "", replaces: "" }]]) : lit?.get(at) ?? null,
        choose: (name, handle, element) => {
          const bounds = element.getBoundingClientRect();
          callbacks.current.ports(name, handle, onStage(element, { clientX: handle[0] === "o" ? bounds.right : bounds.left, clientY: bounds.bottom }));
        },
      },
    };
  }), [mounted, draft, graph, troubles, chosen, scene, lit, from]);
  const edges = useMemo(() => (big ? graph.edges.filter(([one, , other]) => mounted.includes(one) && mounted.includes(other)) : graph.edges).map((edge): FlowEdge => ({
    id: edge.join(" "), type: "edge", data: { edge }, focusable: false,
    source: graph.nodes[edge[0]]!.name, sourceHandle: `o${edge[1]}`, target: graph.nodes[edge[2]]!.name, targetHandle: `i${edge[3]}`,
    selected: Boolean(chosen && "edge" in chosen && chosen.edge.join() === edge.join()),
    className: fits[graph.nodes[edge[0]]!.outputs[edge[1]]!.type]?.[graph.nodes[edge[2]]!.ports[edge[3]]!.type] && !graph.nodes[edge[2]]!.ports[edge[3]]!.each ? "back" : "",
  })), [graph, chosen, fits, big && mounted]);

  const edgeOf = (made: Connection | FlowEdge): Edge => [
    place(made.source), Number(made.sourceHandle?.slice(1)), place(made.target), Number(made.targetHandle?.slice(1))];
  const show = (to: Viewport, slowly = true) => {
    const from = flow.current?.getViewport() ?? view.current;
    gliding.current();
    view.current = to;
    gliding.current = glide(from, to, slowly && flow.current ? 150 : 0, (now) => { void flow.current?.setViewport(now); });
    settle(slowly ? 190 : 0);
  };
  const fit = (slowly = true) => {
    if (!size) return;
    if (!draft.nodes.length) return show({ x: 0, y: 0, zoom: 1 }, false);
    const left = scene.cards.reduce((least, card) => Math.min(least, card.x), Infinity);
    const top = scene.cards.reduce((least, card) => Math.min(least, card.y), Infinity);
    const [width, height] = [scene.width - left, scene.height - top];
    const zoom = Math.max(LEAST, Math.min(1, (size[0] - 60) / width, (size[1] - 60) / height));
    show({ zoom, x: (size[0] - width * zoom) / 2 - left * zoom, y: (size[1] - height * zoom) / 2 - top * zoom }, slowly);
  };
  useEffect(() => { if (size) fit(false); }, [size !== null]);
  useEffect(() => { // from below the form
    const card = chosen && "node" in chosen ? scene.cards[place(chosen.node)] : undefined;
    if (!card || !size || !props.beside) return;
    const { x, y, zoom } = view.current;
    if (zoom < READABLE) return show({ zoom: READABLE, x: (size[0] - props.beside) / 2 - (card.x + WIDTH / 2) * READABLE, y: size[1] / 2 - (card.y + card.height / 2) * READABLE });
    const over = (card.x + card.width) * zoom + x - (size[0] - props.beside - 16);
    if (over > 0 && card.width * zoom < size[0] - props.beside) show({ x: x - over, y, zoom });
  }, [chosen, props.beside]);
  const centre = (): Place => ({ x: ((size?.[0] ?? 600) - props.beside) / 2, y: (size?.[1] ?? 400) / 2 });
  props.handle.current = {
    fit,
    zoom: (by) => {
      const zoom = Math.min(2, Math.max(LEAST, view.current.zoom * by));
      const { x, y } = centre();
      show({ zoom, x: x - ((x - view.current.x) * zoom) / view.current.zoom, y: y - ((y - view.current.y) * zoom) / view.current.zoom });
    },
    place: (at) => {
      const bounds = root.current!.getBoundingClientRect();
      const { x, y } = at ? { x: at.clientX - bounds.left, y: at.clientY - bounds.top } : centre();
      const { x: left, y: top, zoom } = view.current;
      const wanted: [number, number] = [Math.round((x - left) / zoom - WIDTH / 2), Math.round((y - top) / zoom - (at ? 20 : 45))];
      return at ? wanted : clear(wanted, scene.cards);
    },
    focus: (node) => {
      setWanted(node);
      requestAnimationFrame(() => root.current?.querySelector<HTMLElement>(`.react-flow__node[data-id="${node}"]`)?.focus({ preventScroll: true }));
    },
  };
  const hover = (event: PointerEvent) => {
    if (!from || !lit) return;
    const port = (event.target as Element).closest?.<HTMLElement>("[data-port]");
    const light = port && lit.get(place(port.getAttribute("data-nodeid") ?? ""))?.get(port.dataset.port!);
    const text = light ? light.why || light.replaces : "";
    const bounds = root.current!.getBoundingClientRect();
    setNote(text ? { x: Math.min(event.clientX - bounds.left + 14, bounds.width - 310), y: event.clientY - bounds.top + 16, text, bad: Boolean(light!.why) } : null);
  };

  return (
    <div ref={root} tabIndex={-1} class={`fk-board${from ? " linking" : ""}`} style={from ? kindOf(graph, from) : {}} onPointerMove={hover as never}>
      {big && <canvas ref={canvas} class="fk-canvas" aria-hidden="true" />}
      {size && (
        <ReactFlow
          nodes={nodes} edges={edges} nodeTypes={nodeTypes as never} edgeTypes={edgeTypes as never}
          connectionLineComponent={Drawn as never} defaultViewport={view.current} minZoom={LEAST} maxZoom={2}
          nodesDraggable nodesConnectable elementsSelectable={false} nodesFocusable edgesFocusable={false} disableKeyboardA11y connectOnClick={false} connectionRadius={12}
          zoomOnScroll={false} preventScrolling={false} zoomOnDoubleClick={false} autoPanOnNodeFocus={false} nodeDragThreshold={3}
          deleteKeyCode={null} selectionKeyCode={null} multiSelectionKeyCode={null} panActivationKeyCode={null} proOptions={{ hideAttribution: true }}
          onInit={((instance: ReactFlowInstance<FlowNode, FlowEdge>) => { flow.current = instance; fit(false); }) as never}
          onMove={(event, to: Viewport) => { if (event) gliding.current(); view.current = to; paint(); settle(SETTLED); }}
          isValidConnection={(made) => !refusal(graph, fits, edgeOf(made as Connection))}
          onConnectStart={((_: unknown, start: { nodeId: string | null; handleId: string | null }) => setFrom({ node: place(start.nodeId ?? ""), handle: start.handleId ?? "" })) as never}
          onConnect={(made) => props.connect(edgeOf(made))}
          onConnectEnd={((event: MouseEvent) => {
            const port = (event.target as Element).closest?.<HTMLElement>("[data-port]");
            const light = port && lit?.get(place(port.getAttribute("data-nodeid") ?? ""))?.get(port.dataset.port!);
            if (light?.why) props.refuse(light.why);
            setFrom(null);
            setNote(null);
          }) as never}
          onNodesChange={((changes: NodeChange[]) => {
            for (const one of changes) if (one.type === "position" && one.position) setNudge((before) => ({ ...before, [one.id]: [Math.round(one.position!.x), Math.round(one.position!.y)] }));
          }) as never}
          onNodeDragStop={(_, node) => { props.moved({ [node.id]: [Math.round(node.position.x), Math.round(node.position.y)] }); setNudge({}); }}
          onNodeClick={(_, node) => props.choose({ node: node.id })}
          onNodeContextMenu={((event: MouseEvent, node: FlowNode) => { event.preventDefault(); event.stopPropagation(); props.menu(node.id, onStage(root.current!, event)); }) as never}
          onEdgeClick={(_, edge) => { props.choose({ edge: edgeOf(edge) }); setTimeout(() => root.current?.focus({ preventScroll: true })); }}
          onPaneClick={((event: MouseEvent) => {
            const at = big && canvas.current ? under(scene, view.current, event, canvas.current) : -1;
            props.choose(at < 0 ? null : { node: draft.nodes[at]!.name });
          }) as never}
          aria-label="The sheet: Tab goes from node to node and port to port, c connects a port, Enter opens a node, Delete removes it"
        />
      )}
      {note && <p class={`fk-note${note.bad ? " bad" : ""}`} role="tooltip" style={{ left: `${note.x}px`, top: `${note.y}px` }}>{note.text}</p>}
    </div>
  );
}

function kindOf(graph: Graph, { node, handle }: { node: number; handle: string }): Record<string, string> {
  const one = graph.nodes[node];
  const degrees = hue((handle[0] === "o" ? one?.outputs : one?.ports)?.[Number(handle.slice(1))]?.type ?? "");
  return degrees === null ? {} : { "--fk-hue": String(degrees) };
}
