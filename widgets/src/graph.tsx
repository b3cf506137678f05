// The sheet: React Flow for pointing, panning and mounting cards; a canvas behind it when there are too many of them.
import { BaseEdge, ReactFlow, type Edge as FlowEdge, type Node as FlowNode, Position, type ReactFlowInstance, type Viewport } from "@xyflow/react";
import { memo, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { flushSync } from "react-dom";
import { portY } from "./card";
import { MOST_IN_DOM, SETTLED, draw, drawMap, mapPlace, mountable, paints, under, type Paints, type View } from "./canvas";
import { Detail } from "./detail";
import { groups as grouped } from "./fold";
import { text } from "./edit/draft";
import { Editor, placeOf } from "./edit/editor";
import { Menu, onStage, type Place } from "./edit/menu";
import { saved } from "./edit/saved";
import type { Store, Story } from "./model";
import { GroupCard, NodeCard, summary, tally, type CardData } from "./node";
import { Icon, Mark, glide, useClock, useStore } from "./parts";
import { curve, neighbour, scene as arrange, type Card, type Link, type Scene } from "./scene";
import { Replay } from "./replay";
import { Search } from "./search";
import { clock, count, plural, span } from "./words";

const MARGIN = 28;

const nodeTypes = { card: NodeCard, group: GroupCard };
const edgeTypes = { link: memo(LinkLine) };

interface LinkData extends Record<string, unknown> {
  path: string;
  title: string;
}

function LinkLine({ id, data }: { id: string; data?: LinkData }) {
  return <BaseEdge id={id} path={data?.path ?? ""} interactionWidth={0} />;
}

export function GraphView({ store, root }: { store: Store; root: HTMLElement }) {
  useStore(store, "graph", "run", "notice", "mode", "story");
  const graph = store.graph;
  const groups = useMemo(() => grouped(graph), [graph]);
  const [unfolded, setUnfolded] = useState<ReadonlySet<number>>(new Set());
  useEffect(() => setUnfolded(new Set()), [groups]);
  const scene = useMemo(() => arrange(graph, groups, unfolded), [graph, groups, unfolded]);
  const [open, setOpen] = useState(-1); // node whose detail is shown
  const [searching, setSearching] = useState(false);
  const [source, setSource] = useState(-1); // node whose code was asked for
  const [editing, setEditing] = useState(false);
  const [menu, setMenu] = useState<{ node: number; at: Place } | null>(null);
  const builds = store.get("mode") === "build" && Boolean(store.run.live); // its kernel answers
  const waits = useMemo(() => {
    const draft = builds && !editing ? saved(store) : null;
    return draft !== null && text(draft.draft) !== draft.seen;
  }, [builds, editing, graph, store.run.notebook]);
  const sheet = useRef<SheetHandle | null>(null);
  useEffect(() => { if (open >= graph.nodes.length) setOpen(-1); }, [graph]);

  const shown = useRef<{ node: number } | null>(null); // to be shown once its group is unfolded
  const reach = useCallback((node: number) => {
    const group = groups.findIndex((one) => one.nodes.includes(node));
    setOpen(node);
    if (group >= 0 && groups[group]!.nodes.length > 1 && !unfolded.has(group)) {
      shown.current = { node };
      setUnfolded(new Set([...unfolded, group]));
    } else sheet.current?.show(scene.cardOf[node]!);
  }, [groups, unfolded, scene]);
  useEffect(() => {
    if (shown.current) sheet.current?.show(scene.cardOf[shown.current.node]!);
    shown.current = null;
  }, [scene]);
  const close = useCallback(() => {
    sheet.current?.focus(open >= 0 ? scene.cardOf[open]! : -1);
    setOpen(-1);
  }, [open, scene]);
  const unfold = useCallback((group: number) => setUnfolded((before) => {
    const after = new Set(before);
    if (!after.delete(group)) after.add(group);
    return after;
  }), []);

  const press = (event: KeyboardEvent) => {
    if ((event.target as HTMLElement).closest("input, textarea, .fk-detail pre, .fk-table") && event.key !== "Escape") return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") flushSync(() => setSearching(true)); // at once: what is typed next is meant for it
    else if (event.key === "+" || event.key === "=") sheet.current?.zoom(1.25);
    else if (event.key === "-") sheet.current?.zoom(0.8);
    else if (event.key === "0") sheet.current?.fit();
    else if (event.key === "Escape" && (searching || open >= 0)) {
      if (searching) setSearching(false);
      else close();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };

  if (editing) return <div class="fk-all" style={{ "--fk-tall": "520px" }} data-lm-suppress-shortcuts="true"><Editor store={store} leave={() => setEditing(false)} /></div>;
  const stale = builds ? (store.run.stale ?? []) : [];
  const busy = store.run.state === "running";
  const notice = store.get<{ text: string }>("notice");
  const story = store.get<Story>("story");
  const height = tall(scene, root.clientWidth || 900, open >= 0 || searching);
  return (
    <div class="fk-all" style={{ "--fk-tall": `${height}px` }} onKeyDown={press as never} data-lm-suppress-shortcuts="true">
      <Bar store={store} graphName={graph.flow}>
        {stale.length > 0 && !busy && (
          <button type="button" class="fk-button fk-due" title={`Without a result, or with one that is out of date:\n${stale.slice(0, 20).map((node) => graph.nodes[node]?.name).join(", ")}${stale.length > 20 ? " …" : ""}`} onClick={() => store.ask("rerun")}>
            <Icon name="again" />Run what is stale ({count(stale.length)})
          </button>
        )}
        {builds && <button type="button" class="fk-button" title={waits ? "Go on with the draft that is not written yet" : "Build this flow by mouse"} onClick={() => setEditing(true)}><Icon name="edit" />{waits ? "Edit draft" : "Edit"}</button>}
        <button type="button" class="fk-tool" title="Find a node ( / )" aria-label="Find a node" aria-pressed={searching} onClick={() => setSearching(!searching)}><Icon name="search" /></button>
        {groups.length > 0 && (
          <button type="button" class="fk-tool" title={unfolded.size ? "Fold all groups" : "Show every node"} aria-label={unfolded.size ? "Fold all groups" : "Show every node"}
            onClick={() => setUnfolded(new Set(unfolded.size ? [] : groups.map((_, at) => at)))}><Icon name={unfolded.size ? "fold" : "unfold"} /></button>
        )}
        <span class="fk-tools">
          <button type="button" class="fk-tool" title="Smaller ( − )" aria-label="Zoom out" onClick={() => sheet.current?.zoom(0.8)}><Icon name="minus" /></button>
          <button type="button" class="fk-tool" title="Larger ( + )" aria-label="Zoom in" onClick={() => sheet.current?.zoom(1.25)}><Icon name="plus" /></button>
          <button type="button" class="fk-tool" title="Show all ( 0 )" aria-label="Show all" onClick={() => sheet.current?.fit()}><Icon name="fit" /></button>
        </span>
      </Bar>
      {graph.problems.length > 0 && (
        <p class="fk-problem" role="alert" title={graph.problems.join("\n")}>
          {graph.problems[0]}{graph.problems.length > 1 ? ` (and ${graph.problems.length - 1} more)` : ""}
        </p>
      )}
      {notice && <p class="fk-problem" role="alert">{notice.text}</p>}
      <div class="fk-stage">
        {graph.nodes.length === 0
          ? <p class="fk-empty">no nodes yet: write <code>@flow.node</code> above a function{builds && <>, or <button type="button" class="fk-link" onClick={() => setEditing(true)}>build it by mouse</button></>}</p>
          : <Sheet store={store} root={root} scene={scene} open={open} choose={setOpen} unfold={unfold} handle={sheet} menu={builds ? (node, at) => setMenu({ node, at }) : undefined} />}
        {searching && <Search store={store} go={(node) => { setSearching(false); reach(node); }} close={() => { setSearching(false); sheet.current?.focus(-1); }} />}
        {open >= 0 && graph.nodes[open] && (
          <Detail store={store} node={open} source={source === open} close={close} go={(name) => {
            const node = graph.nodes.findIndex((one) => one.name === name || one.outputs.some((output) => output.name === name));
            if (node >= 0) reach(node);
          }} menu={builds ? (element) => setMenu({ node: open, at: placeOf(element) }) : undefined} />
        )}
        {menu && graph.nodes[menu.node] && (
          <Menu at={menu.at} title={graph.nodes[menu.node]!.name} close={() => setMenu(null)} items={[
            { label: "Run again from here", hint: busy ? "the flow is running" : "and what depends on it", off: busy, run: () => store.ask("rerun", { node: graph.nodes[menu.node]!.name }) },
            { label: "Run what is stale", hint: busy ? "the flow is running" : stale.length ? plural(stale.length, "node") : "nothing is", off: busy || !stale.length, run: () => store.ask("rerun") },
            { label: "Show source", run: () => { setSource(menu.node); reach(menu.node); } },
          ]} />
        )}
      </div>
      {story && <Replay store={store} story={story} />}
    </div>
  );
}

/** As high as the picture at its natural size, within what a notebook's reader wants to scroll over. */
function tall(scene: Scene, width: number, beside: boolean): number {
  const zoom = Math.min(1, (width - 2 * MARGIN) / Math.max(scene.width, 1));
  const wanted = scene.height * Math.max(zoom, 0.5) + 2 * MARGIN;
  return Math.round(Math.min(560, Math.max(beside ? 400 : 190, wanted)));
}

function Bar({ store, graphName, children }: { store: Store; graphName: string; children: preact.ComponentChildren }) {
  useStore(store, "run", "status", "graph");
  const { state, started, finished, critical, live } = store.run;
  useClock(state === "running");
  const [asked, setAsked] = useState(false);
  useEffect(() => setAsked(false), [state, started]);
  const counts = tally(store);
  const nodes = store.graph.nodes.length;
  const done = nodes - (counts.get("pending") ?? 0) - (counts.get("running") ?? 0) - (counts.get("waiting") ?? 0) - (counts.get("idle") ?? 0);
  const took = started === undefined ? "" : state === "running" ? clock(Math.max(0, store.now() - started)) : finished === undefined ? "" : span(finished - started);
  const failed = counts.get("failed") ?? 0;
  const said = state === "idle" ? plural(nodes, "node")
    : state === "running" ? `${done}/${nodes} nodes`
    : failed ? `${failed} of ${plural(nodes, "node")} failed` : state === "succeeded" ? `${plural(nodes, "node")}` : summary(counts);
  return (
    <header class="fk-top">
      <h1 title={graphName}>{graphName}</h1>
      <p class={`fk-state ${state}`}>
        {state !== "idle" && <><Mark state={state} /><b>{state}</b></>}
        <span>{said}</span>
        {took && took !== "running" && <span class="fk-took">{took}</span>}
        {critical && critical.length > 1 && state !== "running" && (
          <span class="fk-critical" title={`The run took as long as these, one after another:\n${critical.map((node) => store.graph.nodes[node]?.name).join(" → ")}`}>critical path: {plural(critical.length, "node")}</span>
        )}
      </p>
      {state === "running" && live && (
        <button type="button" class="fk-button" disabled={asked} onClick={() => { store.ask("cancel"); setAsked(true); }}>
          <Icon name="stop" />{asked ? "Cancelling …" : "Cancel"}
        </button>
      )}
      {children}
    </header>
  );
}

interface SheetHandle {
  fit(): void;
  zoom(by: number): void;
  show(card: number): void;
  focus(card: number): void;
}

interface SheetProps {
  store: Store;
  root: HTMLElement;
  scene: Scene;
  open: number;
  choose: (node: number) => void;
  unfold: (group: number) => void;
  handle: { current: SheetHandle | null };
  menu?: (node: number, at: Place) => void;
}

function Sheet({ store, root, scene, open, choose, unfold, handle, menu }: SheetProps) {
  const box = useRef<HTMLDivElement>(null);
  const [size, setSize] = useState<[number, number] | null>(null);
  useLayoutEffect(() => {
    const element = box.current!;
    const measure = () => {
      const [width, height] = [element.clientWidth, element.clientHeight];
      if (width && height) setSize((before) => (before && before[0] === width && before[1] === height ? before : [width, height]));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return <div ref={box} class="fk-sheet">{size && <Drawn {...{ store, root, scene, open, choose, unfold, handle, menu, size }} />}</div>;
}

/** What is left of the sheet beside the detail. */
function besides([width, height]: [number, number], open: boolean): [number, number] {
  return [open && width > 760 ? width - 352 : width, height];
}

function fitted(scene: Scene, [width, height]: [number, number]): View {
  const across = (width - 2 * MARGIN) / Math.max(scene.width, 1);
  const down = (height - 2 * MARGIN) / Math.max(scene.height, 1);
  // All of it, but not as a thread: of one long column or row the middle is shown, and the small map has the rest.
  const zoom = Math.max(0.02, Math.min(1, Math.max(Math.min(across, down), Math.min(0.35, Math.max(across, down) * 0.3))));
  return { zoom, x: (width - scene.width * zoom) / 2, y: (height - scene.height * zoom) / 2 };
}

function Drawn({ store, root, scene, open, choose, unfold, handle, menu, size }: SheetProps & { size: [number, number] }) {
  const big = scene.cards.length > MOST_IN_DOM;
  const flow = useRef<ReactFlowInstance<FlowNode, FlowEdge> | null>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const map = useRef<HTMLCanvasElement>(null);
  const room = besides(size, open >= 0);
  const view = useRef<View>(fitted(scene, room));
  const moved = useRef(false); // the reader has a view of his own, which a new size does not take away
  const [mounted, setMounted] = useState<number[]>([]);
  const wanted = useRef(-1); // card to be focused once it is mounted
  const colours = useRef<Paints | null>(null);
  const frame = useRef(0);
  const gliding = useRef(() => undefined as void);
  const timer = useRef(0);
  const chosen = open >= 0 ? (scene.cardOf[open] ?? -1) : -1;
  const latest = useRef({ scene, big, size, chosen });
  latest.current = { scene, big, size, chosen };
  useStore(store, "run");

  const paint = useCallback(() => {
    if (frame.current) return;
    frame.current = requestAnimationFrame(() => {
      frame.current = 0;
      const { scene, big, size, chosen } = latest.current;
      colours.current ??= paints(root);
      if (big && canvas.current) draw(canvas.current, scene, store, view.current, colours.current, chosen);
      if (map.current) drawMap(map.current, scene, store, view.current, size, colours.current);
    });
  }, [root, store]);
  useEffect(() => () => cancelAnimationFrame(frame.current), []);

  const settle = useCallback((wait: number) => {
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => {
      const { scene, big, size } = latest.current;
      if (!big) return;
      const near = mountable(scene, view.current, size);
      setMounted((before) => (before.length === near.length && before.every((one, at) => one === near[at]) ? before : near));
    }, wait);
  }, []);
  useEffect(() => () => clearTimeout(timer.current), []);

  const place = useCallback((to: View, slowly = false) => {
    const from = flow.current?.getViewport() ?? view.current;
    gliding.current();
    view.current = to; // what comes next begins there, also while it glides
    gliding.current = glide(from, to, slowly && flow.current ? 180 : 0, (now) => { void flow.current?.setViewport(now); });
    paint();
    settle(slowly ? 220 : 0);
  }, [paint, settle]);

  useEffect(() => { // a new sheet, or another size of the window on it
    if (!moved.current) place(fitted(scene, room));
    else { paint(); settle(0); }
  }, [scene, room[0], room[1]]);
  useEffect(() => store.listen("status", paint), [store, paint]);
  useEffect(paint, [chosen]);
  useEffect(() => {
    const redraw = () => { colours.current = null; paint(); };
    root.addEventListener("fk-theme", redraw);
    return () => root.removeEventListener("fk-theme", redraw);
  }, [root, paint]);
  useEffect(() => {
    if (store.graph.nodes.length > MOST_IN_DOM) {
      const cards = big ? mounted : scene.cards.map((_, at) => at);
      store.put("visible", cards.flatMap((at) => (scene.cards[at] && scene.cards[at]!.node >= 0 ? [scene.cards[at]!.node] : [])));
    }
  }, [store, scene, mounted, big]);

  const focus = useCallback((card: number) => {
    const id = latest.current.scene.cards[card]?.id;
    const element = id ? root.querySelector<HTMLElement>(`.react-flow__node[data-id="${id}"]`) : root.querySelector<HTMLElement>(".react-flow__node");
    if (element) element.focus({ preventScroll: true });
    else wanted.current = card;
  }, [root]);
  useEffect(() => {
    if (wanted.current >= 0 && mounted.includes(wanted.current)) {
      const card = wanted.current;
      wanted.current = -1;
      requestAnimationFrame(() => focus(card));
    }
  }, [mounted, focus]);

  handle.current = {
    fit: () => { moved.current = false; place(fitted(scene, room), true); },
    zoom: (by) => {
      moved.current = true;
      const zoom = Math.min(2, Math.max(0.02, view.current.zoom * by));
      const factor = zoom / view.current.zoom;
      const [x, y] = [size[0] / 2, size[1] / 2];
      place({ zoom, x: x - (x - view.current.x) * factor, y: y - (y - view.current.y) * factor }, true);
    },
    show: (at) => {
      const card = scene.cards[at];
      if (!card) return;
      moved.current = true;
      const zoom = Math.max(view.current.zoom, 0.7);
      const beside = besides(size, true)[0];
      place({ zoom, x: beside / 2 - (card.x + card.width / 2) * zoom, y: size[1] / 2 - (card.y + card.height / 2) * zoom }, true);
    },
    focus,
  };

  const critical = useMemo(() => {
    const path = store.run.critical ?? [];
    return { cards: new Set(path.map((node) => scene.cardOf[node])), steps: new Set(path.slice(1).map((node, at) => `${scene.cardOf[path[at]!]} ${scene.cardOf[node]}`)) };
  }, [store.run.critical, scene]);
  const nodes = useMemo(() => {
    const cards = big ? mounted.filter((at) => at < scene.cards.length) : scene.cards.map((_, at) => at);
    return cards.map((at): FlowNode => flowNode(scene.cards[at]!, store, at === chosen, critical.cards.has(at), unfold));
  }, [scene, store, big, mounted, chosen, critical, unfold]);
  const edges = useMemo(() => (big ? [] : scene.links.map((link) => flowEdge(link, scene, critical.steps.has(`${link.from} ${link.to}`)))), [scene, big, critical]);

  const press = (event: KeyboardEvent) => {
    const id = (event.target as HTMLElement).closest?.(".react-flow__node")?.getAttribute("data-id");
    const at = scene.cards.findIndex((card) => card.id === id);
    if (at < 0) return;
    if (event.key === "Enter" || event.key === " ") activate(at);
    else if (menu && scene.cards[at]!.node >= 0 && (event.key === "m" || event.key === "ContextMenu" || (event.key === "F10" && event.shiftKey))) menu(scene.cards[at]!.node, placeOf(event.target as Element));
    else {
      const next = neighbour(scene, at, event.key);
      if (next < 0) return;
      const card = scene.cards[next]!;
      const { x, y, zoom } = view.current;
      const [left, top] = [card.x * zoom + x, card.y * zoom + y];
      if (left < 8 || top < 8 || left + card.width * zoom > size[0] - 8 || top + card.height * zoom > size[1] - 8) {
        moved.current = true;
        place({ zoom, x: size[0] / 2 - (card.x + card.width / 2) * zoom, y: size[1] / 2 - (card.y + card.height / 2) * zoom });
      }
      focus(next);
    }
    event.preventDefault();
    event.stopPropagation();
  };
  const activate = (at: number) => {
    const card = scene.cards[at];
    if (!card) return;
    if (card.node >= 0) choose(card.node);
    else unfold(card.group);
  };
  const hit = (event: MouseEvent) => { // on a card that is drawn, not mounted
    const at = big && canvas.current ? under(scene, view.current, event, canvas.current) : -1;
    if (at >= 0) activate(at);
    else choose(-1);
  };
  const jump = (event: PointerEvent) => {
    if (!(event.buttons & 1)) return;
    const element = map.current!;
    const bounds = element.getBoundingClientRect();
    const { scale, x, y } = mapPlace(scene, element.clientWidth, element.clientHeight);
    const zoom = view.current.zoom;
    moved.current = true;
    place({ zoom, x: size[0] / 2 - ((event.clientX - bounds.left - x) / scale) * zoom, y: size[1] / 2 - ((event.clientY - bounds.top - y) / scale) * zoom });
  };

  return (
    <div class="fk-drawn" onKeyDown={press as never}>
      {big && <canvas ref={canvas} class="fk-canvas" aria-hidden="true" />}
      <ReactFlow
        nodes={nodes}
        edges={edges}
        nodeTypes={nodeTypes as never}
        edgeTypes={edgeTypes as never}
        defaultViewport={view.current}
        minZoom={0.02}
        maxZoom={2}
        nodesDraggable={false}
        nodesConnectable={false}
        elementsSelectable={false}
        edgesFocusable={false}
        nodesFocusable
        disableKeyboardA11y
        zoomOnScroll={false}
        preventScrolling={false}
        zoomOnDoubleClick={false}
        autoPanOnNodeFocus={false}
        deleteKeyCode={null}
        selectionKeyCode={null}
        multiSelectionKeyCode={null}
        panActivationKeyCode={null}
        proOptions={{ hideAttribution: true }}
        onInit={((instance: ReactFlowInstance<FlowNode, FlowEdge>) => { flow.current = instance; void instance.setViewport(view.current); paint(); settle(0); }) as never}
        onMove={(event, to: Viewport) => { if (event) gliding.current(); view.current = to; if (event) moved.current = true; paint(); settle(SETTLED); }}
        onNodeClick={(_, node) => activate(scene.cards.findIndex((card) => card.id === node.id))}
        onPaneClick={hit as never}
        onNodeContextMenu={((event: MouseEvent, node: FlowNode) => {
          const card = scene.cards.find((one) => one.id === node.id);
          if (!menu || !card || card.node < 0) return;
          event.preventDefault();
          event.stopPropagation();
          menu(card.node, onStage(event.target as Element, event));
        }) as never}
        aria-label={`Graph of the flow ${store.graph.flow}: ${plural(store.graph.nodes.length, "node")}. Arrow keys go from node to node, Enter opens one, / finds one.`}
      />
      {(big || scene.cards.length > 24) && (
        <canvas ref={map} class="fk-map" aria-hidden="true" onPointerDown={jump as never} onPointerMove={jump as never} />
      )}
    </div>
  );
}

function flowNode(card: Card, store: Store, selected: boolean, critical: boolean, unfold: (group: number) => void): FlowNode<CardData> {
  const node = card.node < 0 ? null : store.graph.nodes[card.node]!;
  const handle = (id: string, side: "in" | "out", y: number) => ({
    id, type: side === "in" ? ("target" as const) : ("source" as const), position: side === "in" ? Position.Left : Position.Right,
    x: side === "in" ? 0 : card.width, y, width: 1, height: 1,
  });
  return {
    id: card.id,
    type: node ? "card" : "group",
    position: { x: card.x, y: card.y },
    width: card.width,
    height: card.height,
    measured: { width: card.width, height: card.height },
    handles: node
      ? [...node.ports.map((_, at) => handle(`i${at}`, "in", portY(node, "in", at))), ...node.outputs.map((_, at) => handle(`o${at}`, "out", portY(node, "out", at)))]
      : [handle("i0", "in", card.height / 2), handle("o0", "out", card.height / 2)],
    selected,
    data: { card, store, critical, unfold },
    ariaRole: "button",
  };
}

function flowEdge(link: Link, scene: Scene, critical: boolean): FlowEdge<LinkData> {
  const [from, to] = [scene.cards[link.from]!, scene.cards[link.to]!];
  return {
    id: link.id,
    type: "link",
    source: from.id,
    target: to.id,
    sourceHandle: from.node < 0 ? "o0" : `o${link.output}`,
    targetHandle: to.node < 0 ? "i0" : `i${link.port}`,
    className: `${critical ? "critical" : ""}${link.back ? " back" : ""}`,
    data: { path: curve(link), title: link.type },
    focusable: false,
  };
}
