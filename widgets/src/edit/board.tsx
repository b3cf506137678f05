// The sheet on which a flow is built: every node an element, every port a place to begin or end an edge.
import { BaseEdge, ReactFlow, Position, type Connection, type ConnectionLineComponentProps, type InternalNode, type Edge as FlowEdge, type Node as FlowNode, type NodeChange, type ReactFlowInstance, type Viewport } from "@xyflow/react";
import { memo, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { ROW, WIDTH, box, hue, portY } from "../card";
import type { Draft, Edge, Graph, Problem } from "../model";
import { glide } from "../parts";
import { refusal, replaced, type Compat } from "../rules";
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

const nodeTypes = { node: EditCard };
const edgeTypes = { edge: memo(Line) };
const NO_PROBLEMS: readonly Problem[] = [];

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
  return new Map(graph.nodes.map((node, other) => [other, new Map((out ? node.ports : node.outputs).map((_, place) => {
    const edge: Edge = out ? [from, at, other, place] : [other, place, from, at];
    return [`${out ? "i" : "o"}${place}`, { why: refusal(graph, fits, edge), replaces: replaced(graph, edge) }];
  }))]));
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
  const nodes = useMemo(() => draft.nodes.map((one, at): FlowNode<EditData> => {
    const node = graph.nodes[at]!;
    const { width, height } = box(node);
    const [x, y] = nudge[one.name] ?? one.position ?? [0, 0];
    const row = (id: string, side: "in" | "out", output: number) => ({
      id, type: side === "in" ? ("target" as const) : ("source" as const), position: side === "in" ? Position.Left : Position.Right,
      x: 0, y: portY(node, side, output) - ROW / 2, width, height: ROW,
    });
    const mine = problems.filter((problem) => problem.node === one.name);
    return {
      id: one.name, type: "node", position: { x, y }, width, height, measured: { width, height }, dragHandle: ".fk-head",
      handles: [...node.ports.map((_, port) => row(`i${port}`, "in", port)), ...node.outputs.map((_, output) => row(`o${output}`, "out", output))],
      selected: Boolean(chosen && "node" in chosen && chosen.node === one.name),
      ariaLabel: [one.name, ...mine.map((problem) => problem.text)].join(", "),
      ariaRole: "group",
      data: {
        node, width, height, problems: mine.length ? mine : NO_PROBLEMS, lights: from?.node === at ? new Map([[from.handle, { why: "", replaces: "" }]]) : lit?.get(at) ?? null,
        choose: (name, handle, element) => {
          const bounds = element.getBoundingClientRect();
          callbacks.current.ports(name, handle, onStage(element, { clientX: handle[0] === "o" ? bounds.right : bounds.left, clientY: bounds.bottom }));
        },
      },
    };
  }), [draft, graph, problems, chosen, nudge, lit, from]);
  const edges = useMemo(() => graph.edges.map((edge): FlowEdge => ({
    id: edge.join(" "), type: "edge", data: { edge }, focusable: false,
    source: graph.nodes[edge[0]]!.name, sourceHandle: `o${edge[1]}`, target: graph.nodes[edge[2]]!.name, targetHandle: `i${edge[3]}`,
    selected: Boolean(chosen && "edge" in chosen && chosen.edge.join() === edge.join()),
    className: fits[graph.nodes[edge[0]]!.outputs[edge[1]]!.type]?.[graph.nodes[edge[2]]!.ports[edge[3]]!.type] && !graph.nodes[edge[2]]!.ports[edge[3]]!.each ? "back" : "",
  })), [graph, chosen, fits]);

  const edgeOf = (made: Connection | FlowEdge): Edge => [
    place(made.source), Number(made.sourceHandle?.slice(1)), place(made.target), Number(made.targetHandle?.slice(1))];
  const show = (to: Viewport, slowly = true) => {
    const from = flow.current?.getViewport() ?? view.current;
    gliding.current();
    view.current = to;
    gliding.current = glide(from, to, slowly && flow.current ? 150 : 0, (now) => { void flow.current?.setViewport(now); });
  };
  const fit = (slowly = true) => {
    if (!size) return;
    const boxes = nodes.map((node) => [node.position.x, node.position.y, node.position.x + node.width!, node.position.y + node.height!] as const);
    const [left, top] = [Math.min(...boxes.map((one) => one[0])), Math.min(...boxes.map((one) => one[1]))];
    const [width, height] = [Math.max(...boxes.map((one) => one[2])) - left, Math.max(...boxes.map((one) => one[3])) - top];
    if (!boxes.length) return show({ x: 0, y: 0, zoom: 1 }, false);
    const zoom = Math.max(0.1, Math.min(1, (size[0] - 60) / width, (size[1] - 60) / height));
    show({ zoom, x: (size[0] - width * zoom) / 2 - left * zoom, y: (size[1] - height * zoom) / 2 - top * zoom }, slowly);
  };
  useEffect(() => { if (size) fit(false); }, [size !== null]);
  useEffect(() => { // from below the form
    const node = chosen && "node" in chosen ? nodes.find((one) => one.id === chosen.node) : undefined;
    if (!node || !size || !props.beside) return;
    const { x, y, zoom } = view.current;
    const over = (node.position.x + node.width!) * zoom + x - (size[0] - props.beside - 16);
    if (over > 0 && node.width! * zoom < size[0] - props.beside) show({ x: x - over, y, zoom });
  }, [chosen, props.beside]);
  const centre = (): Place => ({ x: ((size?.[0] ?? 600) - props.beside) / 2, y: (size?.[1] ?? 400) / 2 });
  props.handle.current = {
    fit,
    zoom: (by) => {
      const zoom = Math.min(2, Math.max(0.1, view.current.zoom * by));
      const { x, y } = centre();
      show({ zoom, x: x - ((x - view.current.x) * zoom) / view.current.zoom, y: y - ((y - view.current.y) * zoom) / view.current.zoom });
    },
    place: (at) => {
      const bounds = root.current!.getBoundingClientRect();
      const { x, y } = at ? { x: at.clientX - bounds.left, y: at.clientY - bounds.top } : centre();
      const { x: left, y: top, zoom } = view.current;
      const wanted: [number, number] = [Math.round((x - left) / zoom - WIDTH / 2), Math.round((y - top) / zoom - (at ? 20 : 45))];
      return at ? wanted : clear(wanted, nodes);
    },
    focus: (node) => requestAnimationFrame(() => root.current?.querySelector<HTMLElement>(`.react-flow__node[data-id="${node}"]`)?.focus({ preventScroll: true })),
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
      {size && (
        <ReactFlow
          nodes={nodes} edges={edges} nodeTypes={nodeTypes as never} edgeTypes={edgeTypes as never}
          connectionLineComponent={Drawn as never} defaultViewport={view.current} minZoom={0.1} maxZoom={2}
          nodesDraggable nodesConnectable elementsSelectable={false} nodesFocusable edgesFocusable={false} disableKeyboardA11y connectOnClick={false} connectionRadius={12}
          zoomOnScroll={false} preventScrolling={false} zoomOnDoubleClick={false} autoPanOnNodeFocus={false} nodeDragThreshold={3}
          deleteKeyCode={null} selectionKeyCode={null} multiSelectionKeyCode={null} panActivationKeyCode={null} proOptions={{ hideAttribution: true }}
          onInit={((instance: ReactFlowInstance<FlowNode, FlowEdge>) => { flow.current = instance; fit(false); }) as never}
          onMove={(event, to: Viewport) => { if (event) gliding.current(); view.current = to; }}
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
          onPaneClick={() => props.choose(null)}
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
