// The list of all nodes, to be searched and walked: the way to a node for whoever does not see or point.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { flushSync } from "react-dom";
import type { Store } from "./model";
import { Icon, Mark, useStore } from "./parts";
import { count } from "./words";

const MOST = 100;

export function Search({ store, go, close }: { store: Store; go: (node: number) => void; close: () => void }) {
  const [wanted, setWanted] = useState("");
  const [at, setAt] = useState(0);
  const input = useRef<HTMLInputElement>(null);
  const list = useRef<HTMLUListElement>(null);
  useStore(store, "status", "graph");
  useLayoutEffect(() => input.current?.focus(), []);
  const found = useMemo(() => find(store, wanted), [store.graph, store.version, wanted]);
  const shown = found.slice(0, MOST);
  const here = Math.min(at, shown.length - 1);
  useEffect(() => list.current?.children[here]?.scrollIntoView({ block: "nearest" }), [here]);
  const press = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown") setAt(Math.min(here + 1, shown.length - 1));
    else if (event.key === "ArrowUp") setAt(Math.max(here - 1, 0));
    else if (event.key === "Enter" && shown[here] !== undefined) go(shown[here]!);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class="fk-search" role="search">
      <label class="fk-find">
        <Icon name="search" />
        <input ref={input} type="text" placeholder="Find a node, or a state" value={wanted} aria-label="Find a node" role="combobox" aria-expanded="true"
          aria-controls="fk-found" aria-activedescendant={shown.length ? `fk-found-${here}` : undefined} spellcheck={false}
          onInput={(event) => flushSync(() => { setWanted((event.target as HTMLInputElement).value); setAt(0); })} onKeyDown={press} />
      </label>
      <ul ref={list} id="fk-found" role="listbox" aria-label="Nodes">
        {shown.map((node, place) => (
          <li key={node} id={`fk-found-${place}`} role="option" aria-selected={place === here} onClick={() => go(node)}>
            <Mark state={store.state(node)} />
            <span class="fk-name">{store.graph.nodes[node]!.name}</span>
            <span class="fk-state">{store.state(node) === "idle" ? "" : store.state(node)}</span>
          </li>
        ))}
      </ul>
      <p class="fk-hint" role="status">
        {found.length > MOST ? `the first ${MOST} of ${count(found.length)}` : found.length ? "" : "no node is called so"}
      </p>
    </div>
  );
}

/** By a part of the name, those that begin so first; or by a state. */
export function find(store: Store, wanted: string): number[] {
  const text = wanted.trim().toLowerCase();
  const first: number[] = [];
  const rest: number[] = [];
  store.graph.nodes.forEach((node, at) => {
    const name = node.name.toLowerCase();
    if (name.startsWith(text)) first.push(at);
    else if (name.includes(text) || (text.length > 2 && store.state(at).startsWith(text))) rest.push(at);
  });
  return [...first, ...rest];
}
