// The editor: palette, sheet and form over one draft, which lives here until its code is written.
import { useEffect, useMemo, useReducer, useRef, useState } from "react";
import type { Draft, Edge, Entry, Offer, Problem, Store } from "../model";
import { Icon, useStore } from "../parts";
import { MOST_LISTED, plural } from "../words";
import { Board, lights, type BoardHandle, type Chosen } from "./board";
import * as edit from "./draft";
import { Form } from "./form";
import { History } from "./history";
import { Menu, type Item, type Place } from "./menu";
import { Palette } from "./palette";
import { save, saved } from "./saved";

interface Kept {
  history: History<Draft> | null;
  clean: Draft | null; // as the notebook has it, or as it was written last
  seen: string; // the notebook's flow when this was begun
}

export function Editor({ store, leave }: { store: Store; leave: () => void }) {
  useStore(store, "offered");
  const [, again] = useReducer((count: number) => count + 1, 0);
  const redraw = () => again(undefined as never);
  const kept = store.kept<Kept>(() => ({ history: null, clean: null, seen: "" }));
  const offer = store.get<Offer>("offered");
  const known = useMemo(() => (offer ? edit.catalog(offer) : new Map<string, Entry>()), [offer]);
  const [problems, setProblems] = useState<readonly Problem[]>([]);
  const [chosen, setChosen] = useState<Chosen>(null);
  const [menu, setMenu] = useState<{ at: Place; title: string; items: Item[] } | null>(null);
  const [said, setSaid] = useState<{ text: string; bad?: boolean } | null>(null);
  const [code, setCode] = useState("");
  const [moved, setMoved] = useState(false);
  const board = useRef<BoardHandle | null>(null);
  const root = useRef<HTMLDivElement>(null);
  const asked = useRef({ judge: 0, write: 0, writing: null as Draft | null });

  useEffect(() => { store.ask("offer"); }, [store]);
  useEffect(() => {
    if (!offer) return;
    const text = edit.text(offer.draft);
    const take = () => {
      const places = new Map(kept.history?.now.nodes.map((node) => [node.name, node.position]));
      const now = edit.arrange({ ...offer.draft, nodes: offer.draft.nodes.map((node) => ({ position: places.get(node.name), ...node })) }, known);
      kept.history = new History(now);
      kept.clean = now;
    };
    if (!kept.history) {
      const before = saved(store);
      take();
      if (before && edit.text(before.draft) !== text) kept.history!.do(edit.arrange(before.draft, known));
      if (before && before.seen !== text) setMoved(kept.history!.undoable);
    } else if (text !== kept.seen) {
      if (kept.history.now === kept.clean) take();
      else setMoved(true);
    }
    kept.seen = text;
    redraw();
  }, [offer]);
  const draft = kept.history?.now;
  useEffect(() => { if (draft) save(store, draft === kept.clean ? null : { draft, seen: kept.seen }); }, [draft, kept.clean, kept.seen]);
  const graph = useMemo(() => (draft ? edit.wire(draft, known) : null), [draft, known]);
  useEffect(() => {
    if (!draft || !offer) return;
    const timer = window.setTimeout(() => { asked.current.judge = store.ask("judge", { draft: told(draft) }); }, 120);
    return () => clearTimeout(timer);
  }, [draft, offer]);
  useEffect(() => store.listen("judged", () => {
    const judged = store.get<{ n: number; problems: Problem[] }>("judged");
    if (judged && judged.n >= asked.current.judge) setProblems(judged.problems);
  }), [store]);
  useEffect(() => store.listen("written", () => {
    const written = store.get<{ n: number; code?: string; problem?: string }>("written");
    if (!written || written.n !== asked.current.write) return;
    if (written.problem) return setSaid({ text: written.problem, bad: true });
    if (asked.current.writing === kept.history?.now) kept.clean = asked.current.writing;
    if (intoNotebook(root.current!, written.code!)) setSaid({ text: "Written into the cell below. Run it, and this is the graph of what it makes." });
    else setCode(written.code!);
    redraw();
  }), [store]);
  useEffect(() => {
    if (!said) return;
    const timer = window.setTimeout(() => setSaid(null), 8_000);
    return () => clearTimeout(timer);
  }, [said]);

  if (!draft || !graph || !offer || !kept.history) return <div class="fk-stage fk-edit"><p class="fk-empty">asking the kernel what there is to build of …</p></div>;
  const history = kept.history;
  const change = (next: Draft) => { history.do(next); setSaid(null); redraw(); };
  const step = (back: boolean) => {
    if (back) history.undo();
    else history.redo();
    if (chosen && !("node" in chosen && history.now.nodes.some((node) => node.name === chosen.node))) setChosen(null);
    redraw();
  };
  const node = chosen && "node" in chosen ? draft.nodes.find((one) => one.name === chosen.node) : undefined;
  const add = (entry: Entry, at?: { clientX: number; clientY: number }) => {
    if (entry.problem) return setSaid({ text: entry.problem, bad: true });
    const next = edit.add(draft, entry, board.current?.place(at) ?? [0, 0]);
    change(next);
    if (!at) board.current?.focus(next.nodes.at(-1)!.name);
  };
  const nameOf = ([from, output]: Edge) => graph.nodes[from]!.outputs[output]!.name || graph.nodes[from]!.name;
  const connect = (edge: Edge) => change(edit.connect(draft, known, nameOf(edge), graph.nodes[edge[2]]!.name, graph.nodes[edge[2]]!.ports[edge[3]]!.name));
  const cut = (edge: Edge) => change(edit.disconnect(draft, known, graph.nodes[edge[2]]!.name, graph.nodes[edge[2]]!.ports[edge[3]]!.name));
  const remove = () => {
    if (node) change(edit.remove(draft, node.name));
    else if (chosen && "edge" in chosen) cut(chosen.edge);
    setChosen(null);
  };
  const ports = (name: string, handle: string, at: Place) => { // what a port can be connected with
    const own = graph.nodes.findIndex((one) => one.name === name);
    const place = Number(handle.slice(1));
    const out = handle[0] === "o";
    const items = [...lights(graph, offer.fits, own, handle)].flatMap(([other, found]) => other === own ? [] : [...found].map(([id, light]): Item => {
      const one = graph.nodes[other]!;
      const end = Number(id.slice(1));
      const edge: Edge = out ? [own, place, other, end] : [other, end, own, place];
      return {
        label: out ? `${one.name} · ${one.ports[end]!.name}` : one.outputs[end]!.name ? `${one.name} · ${one.outputs[end]!.name}` : one.name,
        hint: light.why || (graph.edges.some((known) => known.join() === edge.join()) ? "as it is" : light.replaces), off: Boolean(light.why),
        run: () => { connect(edge); board.current?.focus(name); },
      };
    }));
    items.sort((one, two) => Number(one.off) - Number(two.off));
    const more = items.splice(MOST_LISTED).filter((item) => !item.off).length;
    if (more) items.push({ label: `and ${plural(more, "other")}`, hint: "draw the edge", off: true, run: () => undefined });
    const edge = out ? undefined : graph.edges.find(([, , to, port]) => to === own && port === place);
    if (edge) items.push({ label: "Take the edge off", run: () => { cut(edge); board.current?.focus(name); } });
    if (!items.length) items.push({ label: "there is no other node yet", off: true, run: () => undefined });
    setMenu({ at, title: out ? `${name}${graph.nodes[own]!.outputs[place]!.name ? ` · ${graph.nodes[own]!.outputs[place]!.name}` : ""} feeds` : `${graph.nodes[own]!.ports[place]!.name} of ${name} is fed by`, items });
  };
  const onNode = (name: string, at: Place) => setMenu({
    at, title: name, items: [
      { label: "Duplicate", run: () => change(edit.duplicate(draft, name)) },
      { label: "Delete", hint: "Del", run: () => { change(edit.remove(draft, name)); setChosen(null); } },
    ],
  });
  const write = () => {
    asked.current.writing = draft;
    asked.current.write = store.ask("write", { draft: told(draft) });
  };
  const press = (event: KeyboardEvent) => {
    const target = event.target as HTMLElement;
    const typing = Boolean(target.closest("input:not([type=checkbox]), textarea, select"));
    const focused = target.closest?.(".react-flow__node")?.getAttribute("data-id");
    if ((event.ctrlKey || event.metaKey) && !event.altKey && "zZyY".includes(event.key) && !(typing && target instanceof HTMLInputElement && target.value !== target.defaultValue)) step("zZ".includes(event.key) && !event.shiftKey);
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (event.key === "Escape" && (code || chosen)) {
      if (node) board.current?.focus(node.name);
      setCode("");
      setChosen(null);
    } else if (typing) return;
    else if (event.key === "Delete" || event.key === "Backspace") {
      const port = target.closest("[data-port]")?.getAttribute("data-port");
      const edge = port?.[0] === "i" && graph.edges.find(([, , to, place]) => graph.nodes[to]!.name === focused && place === Number(port.slice(1)));
      if (edge) cut(edge);
      else if (focused && !port) { change(edit.remove(draft, focused)); setChosen(null); } else if (!port) remove();
    } else if (event.key === "Enter" && focused) setChosen({ node: focused });
    else if ((event.key === "m" || event.key === "ContextMenu" || (event.key === "F10" && event.shiftKey)) && focused) onNode(focused, placeOf(target));
    else if (event.key === "+" || event.key === "=") board.current?.zoom(1.25);
    else if (event.key === "-") board.current?.zoom(0.8);
    else if (event.key === "0") board.current?.fit();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const wrong = problems.filter((problem) => !problem.open);
  const adrift = wrong.find((problem) => !problem.node);
  const mac = navigator.platform.startsWith("Mac") ? "⌘" : "Ctrl+";
  return (
    <div ref={root} class="fk-edit" onKeyDown={press as never}>
      <header class="fk-top">
        <h1 title={draft.flow}>{draft.flow}</h1>
        <p class="fk-state" role="status">{said ? <span class={said.bad ? "fk-bad" : ""} title={said.text}>{said.text}</span>
          : <><span>{plural(draft.nodes.length, "node")}</span>{wrong.length > 0 ? <span class="fk-bad" title={wrong.map((problem) => problem.text).join("\n")}>{plural(wrong.length, "problem")}</span> : draft === kept.clean ? null : <span>not written yet</span>}</>}</p>
        <button type="button" class="fk-tool" title={`Undo (${mac}Z)`} aria-label="Undo" disabled={!history.undoable} onClick={() => step(true)}><Icon name="undo" /></button>
        <button type="button" class="fk-tool" title={`Redo (${mac}Shift+Z)`} aria-label="Redo" disabled={!history.redoable} onClick={() => step(false)}><Icon name="redo" /></button>
        <button type="button" class="fk-tool" title="Lay out anew" aria-label="Lay out anew" onClick={() => { change(edit.arrange(draft, known, true)); requestAnimationFrame(() => board.current?.fit()); }}><Icon name="layout" /></button>
        <span class="fk-tools">
          <button type="button" class="fk-tool" title="Show all ( 0 )" aria-label="Show all" onClick={() => board.current?.fit()}><Icon name="fit" /></button>
        </span>
        <button type="button" class="fk-button" onClick={leave}>Done</button>
        <button type="button" class="fk-button fk-main" disabled={!draft.nodes.length} title="Into the cell below, as Python" onClick={write}>Write code</button>
      </header>
      {moved && (
        <p class="fk-problem fk-plain">The flow in the notebook has changed since. What is here is your draft of before.
          <button type="button" class="fk-link" onClick={() => { change(edit.arrange(offer.draft, known)); kept.clean = history.now; setMoved(false); setChosen(null); }}>Take the notebook's</button>
          <button type="button" class="fk-link" onClick={() => setMoved(false)}>Keep mine</button>
        </p>
      )}
      {adrift && <p class="fk-problem" role="alert">{adrift.text}</p>}
      <div class="fk-stage">
        <Palette entries={offer.catalog} add={add} hint />
        <Board draft={draft} graph={graph} fits={offer.fits} problems={problems} chosen={chosen} choose={setChosen} connect={connect} refuse={(text) => setSaid({ text, bad: true })}
          moved={(to) => change(edit.move(draft, to))} menu={onNode} ports={ports} handle={board} beside={node ? 300 : 0} />
        {!draft.nodes.length && (
          <ol class="fk-first">
            <li>Drag a function from the list onto this sheet, or double-click it.</li>
            <li>Drag from a port on the right of a node to one on the left of another.</li>
            <li><b>Write code</b> puts the Python into the cell below.</li>
          </ol>
        )}
        {node && <Form {...{ draft, node, known, graph, fits: offer.fits, problems, change, chosen: (name) => setChosen({ node: name }), close: () => { setChosen(null); board.current?.focus(node.name); } }} />}
        {menu && <Menu {...menu} close={() => setMenu(null)} />}
        {code && <Code text={code} close={() => setCode("")} />}
      </div>
    </div>
  );
}

/** Where the notebook cannot be reached from here. */
function Code({ text, close }: { text: string; close: () => void }) {
  const area = useRef<HTMLTextAreaElement>(null);
  const [copied, setCopied] = useState(false);
  useEffect(() => { area.current!.focus({ preventScroll: true }); area.current!.select(); }, []);
  const copy = () => {
    area.current!.select();
    const done = () => setCopied(true);
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => document.execCommand("copy") && done());
    else if (document.execCommand("copy")) done();
  };
  return (
    <div class="fk-code-of" role="dialog" aria-label="The code of this flow">
      <p>Copy it into the next cell, and run that.</p>
      <textarea ref={area} readOnly value={text} class="fk-code" aria-label="Code" />
      <p><button type="button" class="fk-button fk-main" onClick={copy}>{copied ? "Copied" : "Copy"}</button><button type="button" class="fk-button" onClick={close}>Close</button></p>
    </div>
  );
}

/** Whether the notebook took it: in JupyterLab and Notebook flowkit's own extension hears this and says so. */
function intoNotebook(from: HTMLElement, text: string): boolean {
  return !from.dispatchEvent(new CustomEvent("flowkit:write-below", { bubbles: true, composed: true, cancelable: true, detail: { text } }));
}

function told(draft: Draft): Draft {
  return { ...draft, nodes: draft.nodes.map(({ position: _, ...node }) => node) };
}

export function placeOf(element: Element): Place {
  const bounds = element.getBoundingClientRect();
  const stage = element.closest(".fk-stage")!.getBoundingClientRect();
  return { x: bounds.left - stage.left + 20, y: bounds.top - stage.top + 30 };
}
