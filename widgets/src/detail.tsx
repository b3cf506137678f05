// One node, beside the graph: what it is, what it was given, what it gave. All of it is text; nothing is read as markup.
import { useEffect, useRef } from "react";
import { hue } from "./card";
import type { Detail as Found, Line, Preview, Store } from "./model";
import { STATES } from "./model";
import { Icon, Mark, useClock, useStore } from "./parts";
import { colour } from "./node";
import { told } from "./words";

export function Detail({ store, node, close, go, menu, source }: { store: Store; node: number; close: () => void; go: (name: string) => void; menu?: (element: Element) => void; source?: boolean }) {
  useStore(store, "detail", "lines", "run", `node ${node}`);
  const one = store.graph.nodes[node];
  const state = store.state(node);
  const times = store.times[node];
  const live = Boolean(store.run.live);
  const name = one?.name;
  useClock(state === "running" || state === "waiting");
  useEffect(() => {
    if (live && name) store.ask("open", { node: name });
  }, [store, name, state, live, store.graph]);
  useEffect(() => {
    if (!live || !name || state !== "running") return;
    const timer = setInterval(() => store.ask("lines", { node: name }), 700);
    return () => clearInterval(timer);
  }, [store, name, state, live]);
  const title = useRef<HTMLHeadingElement>(null);
  useEffect(() => title.current?.focus({ preventScroll: true }), [node]);
  const code = useRef<HTMLElement>(null);
  const known = store.details.get(name ?? "")?.source;
  useEffect(() => { if (source) code.current?.scrollIntoView({ block: "nearest" }); }, [source, known, node]);
  if (!one) return null;
  const found: Found | undefined = store.details.get(name ?? "");
  const line = told(state, state === "failed" ? { ...times, error: undefined } : times, store.now(), one.retries);
  const lines = store.lines.get(name ?? "");
  const error = found?.error ?? (state === "failed" || state === "skipped" ? times?.error : undefined);
  return (
    <aside class="fk-detail" aria-label={`Node ${name}`}>
      <header>
        <h2 ref={title} tabIndex={-1} title={name}>{name}</h2>
        {menu && <button type="button" class="fk-tool" aria-label="What to do with it" title="What to do with it ( m )" aria-haspopup="menu" onClick={(event) => menu(event.currentTarget)}><Icon name="more" /></button>}
        <button type="button" class="fk-tool" aria-label="Close" title="Close (Esc)" onClick={close}><Icon name="close" /></button>
        <p class={`fk-state ${state}`}><Mark state={state} /> {state === "idle" ? "not run yet" : line && !line.startsWith(state) ? `${state} · ${line}` : line || state}</p>
      </header>
      <div class="fk-body">
        {error && <Section title={state === "skipped" ? "Why" : "Error"}><p class="fk-error">{error}</p></Section>}
        {found?.failures && found.failures.length > 0 && (
          <Section title="Items that failed">
            {found.failures.map((item) => <p class="fk-error"><b>{item.name}</b> {item.error}</p>)}
          </Section>
        )}
        {found?.doc ? <p class="fk-doc">{found.doc}</p> : one.doc ? <p class="fk-doc">{one.doc}</p> : null}
        {found?.items && <Section title={`Items (${found.items.length})`}><Items items={found.items} /></Section>}
        {lines && lines.length > 0 && <Section title="Log"><Log lines={lines} mapped={Boolean(one.map)} /></Section>}
        {found?.result && <Section title="Result"><Shown preview={found.result} /></Section>}
        {one.ports.length > 0 && (
          <Section title="Inputs">
            {one.ports.map((port) => {
              const input = found?.inputs?.find((other) => other.name === port.name);
              const from = port.source ?? port.name;
              const short = input?.preview.kind === "text" && input.preview.text.length <= 40 ? input.preview.text : undefined;
              return (
                <div class="fk-input" style={colour(port.type)}>
                  <p>
                    <i class={`fk-dot ${hue(port.type) === null ? "any" : ""}`} /><b>{port.name}</b> <span class="fk-type">{port.type}</span>
                    {port.kind === "edge" ? <button type="button" class="fk-link" onClick={() => go(from)}>{from}</button>
                      : (short ?? port.value) !== undefined && <code title={port.value === undefined ? undefined : `default: ${port.value}`}>{short ?? port.value}</code>}
                  </p>
                  {input && (short === undefined || port.kind === "edge") && <Shown preview={input.preview} brief />}
                </div>
              );
            })}
          </Section>
        )}
        {found?.traceback && <Section title="Traceback"><pre class="fk-code" tabIndex={0}>{found.traceback}</pre></Section>}
        {found?.source && <Section title="Source" more={found.where} at={code}><pre class="fk-code fk-source" tabIndex={0}>{found.source}</pre></Section>}
        {!found && live && <p class="fk-hint">asking the kernel …</p>}
        {!live && !found && store.run.state === "idle" && <p class="fk-hint">The kernel that knows more is gone; run the cell again.</p>}
      </div>
    </aside>
  );
}

function Section({ title, more, at, children }: { title: string; more?: string; at?: preact.RefObject<HTMLElement | null>; children?: preact.ComponentChildren }) {
  return <section ref={at}><h3>{title}{more && <span class="fk-where" title={more}>{more}</span>}</h3>{children}</section>;
}

/** The end of it is in view until somebody scrolls away from there. */
function Log({ lines, mapped }: { lines: readonly Line[]; mapped: boolean }) {
  const box = useRef<HTMLPreElement>(null);
  const away = useRef(false);
  useEffect(() => { if (!away.current) box.current!.scrollTop = box.current!.scrollHeight; });
  return (
    <pre ref={box} class="fk-code fk-log" tabIndex={0} onScroll={() => { const { scrollTop, scrollHeight, clientHeight } = box.current!; away.current = scrollTop + clientHeight < scrollHeight - 8; }}>
      {lines.map((line, at) => (
        <>
          {!mapped && (line.attempt ?? 1) > (lines[at - 1]?.attempt ?? 1) && <i>{`attempt ${line.attempt}`}</i>}
          <span class={line.error ? "err" : ""}>{line.item !== undefined && <b>{`[${line.item}]`}</b>}{line.text}{"\n"}</span>
        </>
      ))}
    </pre>
  );
}

function Items({ items }: { items: string }) {
  const shown = items.slice(0, 2_000);
  return (
    <div class="fk-items" role="img" aria-label={`${items.length} items`}>
      {[...shown].map((code, at) => <i class={STATES[Number(code)]} title={`item ${at}: ${STATES[Number(code)]}`} />)}
    </div>
  );
}

function Shown({ preview, brief = false }: { preview: Preview; brief?: boolean }) {
  if (preview.kind === "picture") {
    return <figure><figcaption>{preview.title}</figcaption>{!brief && <img alt={preview.title} src={`data:image/png;base64,${preview.png}`} />}</figure>;
  }
  if (preview.kind === "text") return <figure><figcaption>{preview.title}</figcaption><pre class="fk-code" tabIndex={0}>{preview.text}</pre></figure>;
  if (brief) return <figure><figcaption>{preview.title}</figcaption></figure>;
  return (
    <figure>
      <figcaption>{preview.title}</figcaption>
      <div class="fk-table" tabIndex={0}>
        <table>
          <thead>
            <tr>{preview.columns.map((column) => <th scope="col">{column.name}<span>{column.type}</span><span class={column.nulls === "0" ? "none" : "some"}>{column.nulls === "0" ? "no nulls" : `${column.nulls} null`}</span></th>)}</tr>
          </thead>
          <tbody>{preview.rows.map((row) => <tr>{row.map((cell) => <td title={cell}>{cell}</td>)}</tr>)}</tbody>
        </table>
      </div>
    </figure>
  );
}
