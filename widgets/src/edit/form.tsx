// The chosen node as a form, made from the signature of its function.
import { useEffect, useMemo, useState } from "react";
import type { Ask, Draft, DraftNode, Entry, Given, Graph, Problem } from "../model";
import { Icon } from "../parts";
import { reached, refusal, type Compat } from "../rules";
import { MOST_LISTED } from "../words";
import * as edit from "./draft";

interface Props {
  draft: Draft;
  node: DraftNode;
  known: edit.Catalog;
  graph: Graph;
  fits: Compat;
  problems: readonly Problem[];
  change: (draft: Draft) => void;
  chosen: (name: string) => void;
  close: () => void;
}

export function Form({ draft, node, known, graph, fits, problems, change, chosen, close }: Props) {
  const entry = known.get(node.function);
  const set = (key: string) => (value: unknown) => change(edit.setOption(draft, node.name, key, value));
  const ports = edit.portsOf(node, entry);
  const mapped = edit.option<string[]>(node, "map");
  const schema = edit.option<{ text: string } | null>(node, "schema");
  const mine = problems.filter((problem) => problem.node === node.name);
  return (
    <aside class="fk-detail fk-form" aria-label={`Form of ${node.name}`}>
      <header>
        <h2 title={node.name}>{node.name}</h2>
        <button type="button" class="fk-tool" aria-label="Close" title="Close (Esc)" onClick={close}><Icon name="close" /></button>
        <p>{entry ? entry.doc || `${entry.module || "this notebook"}: ${entry.name}()` : "its function is not there any more"}</p>
      </header>
      <div class="fk-body">
        {mine.filter((problem) => !problem.port).map((problem) => <p class="fk-error">{problem.text}</p>)}
        <section>
          <Text label="Name" value={node.name} read={(text) => {
            if (!/^[\p{L}_][\p{L}\p{N}_]*$/u.test(text)) return "letters, digits and _, and no digit first";
            if (text !== node.name && edit.names(draft).has(text)) return `there is another ${text}`;
            return () => { change(edit.rename(draft, known, node.name, text)); chosen(text); };
          }} />
        </section>
        {ports.length > 0 && <section><h3>Inputs</h3>{ports.map((port) => <Input {...{ draft, node, known, graph, fits, change, port, entry }} problem={mine.find((one) => one.port === port.name)} />)}</section>}
        <details>
          <summary>Options</summary>
          {ports.length > 0 && (
            <fieldset>
              <legend>Once for each item of</legend>
              {ports.map((port) => (
                <label class="fk-check"><input type="checkbox" checked={mapped.includes(port.name)} onClick={(() => set("map")(mapped.includes(port.name) ? mapped.filter((name) => name !== port.name) : [...mapped, port.name])) as never} />{port.name}</label>
              ))}
            </fieldset>
          )}
          <Text label="Outputs" usual="one result" value={edit.option<string[]>(node, "outputs").join(", ")} title="Names for the parts of what it returns, with commas between" read={(text) => {
            const wanted = text.split(/[\s,]+/).filter(Boolean);
            const bad = wanted.find((name) => !/^[\p{L}_][\p{L}\p{N}_]*$/u.test(name));
            return bad ? `${bad} cannot be a name` : () => set("outputs")(wanted);
          }} />
          <Text label="Retries" usual="0" value={said(node, "retries")} read={number(set("retries"), 0, true)} />
          <Text label="Delay, s" title="Before the first retry; doubles each time" usual="1" value={said(node, "delay")} read={number(set("delay"), 1)} />
          <Text label="Timeout, s" usual="none" value={said(node, "timeout")} read={number(set("timeout"), null)} />
          <Text label="Reuse results for" usual="not at all" value={said(node, "cache")} title="Seconds, or 30m, 12h, 1d" read={(text) => {
            const [, count, unit] = /^(\d+(?:\.\d+)?)\s*([smhdw]?)$/.exec(text) ?? [];
            if (text && !Number(count)) return "seconds, or 30m, 12h, 1d";
            return () => set("cache")(text ? Number(count) * { s: 1, m: 60, h: 3600, d: 86400, w: 604800 }[unit || "s"]! : null);
          }} />
          <Text label="Limit" usual="none" value={said(node, "limit")} title="The name of a limit that each call waits for" read={(text) => (/^[\w.-]*$/.test(text) ? () => set("limit")(text || null) : "a limit's name, such as crm-api")} />
          <label class="fk-check"><input type="checkbox" checked={edit.option(node, "checkpoint")} onClick={(() => set("checkpoint")(!edit.option(node, "checkpoint"))) as never} />keep its result for later attempts</label>
          {schema && <label class="fk-check"><input type="checkbox" checked onClick={(() => set("schema")(null)) as never} />check what it returns by {schema.text}</label>}
        </details>
        <section class="fk-acts">
          <button type="button" class="fk-button" onClick={() => { const next = edit.duplicate(draft, node.name); change(next); chosen(next.nodes.at(-1)!.name); }}>Duplicate</button>
          <button type="button" class="fk-button" onClick={() => { change(edit.remove(draft, node.name)); close(); }}>Delete</button>
        </section>
      </div>
    </aside>
  );
}

function said(node: DraftNode, key: string): string {
  const value = node.options?.[key];
  return value === undefined || value === null ? "" : String(value);
}

function number(set: (value: unknown) => void, usual: unknown, whole = false) {
  return (text: string) => {
    if (!text) return () => set(usual);
    const value = Number(text);
    if (!Number.isFinite(value) || value < 0 || (whole && !Number.isInteger(value))) return whole ? "a whole number, 0 or more" : "a number, 0 or more";
    return () => set(value);
  };
}

function Input({ draft, node, known, graph, fits, change, port, entry, problem }: Omit<Props, "problems" | "chosen" | "close"> & { port: Entry["ports"][number]; entry: Entry | undefined; problem?: Problem }) {
  const feeds = edit.names(draft);
  const fed = edit.feed(node, port, entry, feeds);
  const [naming, setNaming] = useState(false);
  const given = node.inputs?.[port.name];
  const place: [number, number] = [draft.nodes.indexOf(node), edit.portsOf(node, entry).indexOf(port)];
  const fitting = useMemo(() => {
    const after = reached(graph.edges, place[0]);
    return [...feeds].filter(([, [giver, output]]) => !refusal(graph, fits, [giver, output, ...place], (from) => after.has(from))).map(([name]) => name).slice(0, MOST_LISTED);
  }, [graph, fits, ...place]);
  const parameters = new Set([port.name, ...graph.nodes.flatMap((one) => one.ports.filter((other) => other.kind === "parameter").map((other) => other.source ?? other.name))].filter((name) => !feeds.has(name)));
  const now = fed.kind === "edge" ? `e:${fed.from}` : fed.kind === "parameter" ? `p:${fed.from}` : "";
  const put = (value: Given | undefined) => change(edit.give(draft, node.name, port.name, value));
  const choose = (event: Event) => {
    const value = (event.target as HTMLSelectElement).value;
    setNaming(value === "+");
    const name = value.slice(2);
    if (value.startsWith("e:")) change(edit.connect(draft, known, name, node.name, port.name));
    else if (value.startsWith("p:")) {
      const unsaid = edit.give(draft, node.name, port.name, undefined);
      const usual = edit.feed(unsaid.nodes[place[0]]!, port, entry, feeds);
      if (usual.kind === "parameter" && usual.from === name) change(unsaid);
      else put({ from: name });
    } else if (!value) {
      if (fed.kind === "parameter" && !port.required) put(null);
      else if (fed.kind === "edge" || fed.kind === "parameter") change(edit.disconnect(draft, known, node.name, port.name));
    }
  };
  const asked = port.form;
  const value = given && "value" in given ? given.value : undefined;
  return (
    <div class={`fk-asked${problem && !problem.open ? " wrong" : ""}`}>
      <p><b title={port.name}>{port.name}</b> <span class="fk-type" title={port.type}>{port.type}</span>
        <select aria-label={`${port.name} is fed by`} value={naming ? "+" : now} onChange={choose as never}>
          <option value="">{!port.form && port.required ? "nothing" : port.required || given ? "a value" : "its default"}</option>
          {fitting.length > 0 && <optgroup label="What a node gives">{fitting.map((name) => <option value={`e:${name}`}>from {name}</option>)}</optgroup>}
          {fed.kind === "edge" && !fitting.includes(fed.from) && <option value={now}>from {fed.from}</option>}
          <optgroup label="Given when the flow runs">{[...parameters].map((name) => <option value={`p:${name}`}>{name === port.name ? "when it runs" : `parameter ${name}`}</option>)}<option value="+">another parameter …</option></optgroup>
        </select>
      </p>
      {naming && <Text label={`parameter of the flow for ${port.name}`} bare usual="its name" value="" read={(text) => {
        if (!/^[\p{L}_][\p{L}\p{N}_]*$/u.test(text)) return "letters, digits and _";
        return () => { setNaming(false); put({ from: text }); };
      }} />}
      {!naming && fed.kind !== "edge" && (asked
        ? <Value ask={asked} label={port.name} value={value} usual={given && "kept" in given ? given.text : port.default ?? (fed.kind === "parameter" ? "given when it runs" : "")} put={put} />
        : <p class="fk-hint">{port.required ? `only a node can give ${port.type ? `a ${port.type}` : "it"}` : `its default: ${port.default}`}</p>)}
      {problem && <p class={problem.open ? "fk-hint" : "fk-error"}>{problem.open ? `give it when the flow runs: flow.run(${port.name}=…), or here` : problem.text}</p>}
    </div>
  );
}

function Value({ ask, label, value, usual, put }: { ask: Ask; label: string; value: unknown; usual: string; put: (given: Given | undefined) => void }) {
  const choices = ask.kind === "boolean" ? [true, false] : ask.kind === "choice" ? ask.choices! : null;
  if (choices) {
    const all = ask.optional ? [...choices, null] : choices;
    return (
      <select class="fk-value" aria-label={label} value={value === undefined ? "" : String(all.findIndex((one) => one === value))}
        onChange={((event: Event) => { const at = (event.target as HTMLSelectElement).value; put(at ? { value: all[Number(at)] } : undefined); }) as never}>
        <option value="">{usual || "not set"}</option>
        {all.map((one, at) => <option value={String(at)}>{typeof one === "string" ? one : edit.python(one)}</option>)}
      </select>
    );
  }
  const shown = value === undefined ? "" : value === null ? "None" : ask.kind === "text" && value !== "" ? String(value) : JSON.stringify(value);
  return <Text label={label} bare usual={usual} value={shown} title={ask.kind === "text" ? 'Text. "" is the empty text' : HINTS[ask.kind]} read={(text) => {
    if (!text) return () => put(undefined);
    if (text === "None" && ask.optional) return () => put({ value: null });
    if (ask.kind === "text") return () => put({ value: text === '""' ? "" : text });
    try {
      const read: unknown = JSON.parse(text);
      if (ask.kind === "json" || (typeof read === "number" && (ask.kind === "number" || Number.isSafeInteger(read)))) return () => put({ value: read });
    } catch { /* said below */ }
    return HINTS[ask.kind]!;
  }} />;
}

const HINTS: Record<string, string> = { integer: "a whole number", number: "a number", json: 'JSON, such as [1, 2], {"a": 1} or "text"' };

/** Read when it is left, or at Enter; what cannot be read is not taken. Esc takes back what was typed. */
function Text({ label, value, usual = "", title, bare, read }: { label: string; value: string; usual?: string; title?: string; bare?: boolean; read: (text: string) => string | (() => void) }) {
  const [typed, setTyped] = useState(value);
  const [wrong, setWrong] = useState("");
  useEffect(() => { setTyped(value); setWrong(""); }, [value]);
  const take = () => {
    if (typed.trim() === value) return setWrong("");
    const found = read(typed.trim());
    if (typeof found === "string") return setWrong(found);
    setWrong("");
    found();
  };
  const field = (
    <input type="text" class="fk-value" aria-label={label} aria-invalid={Boolean(wrong)} placeholder={usual} title={title} value={typed} spellcheck={false}
      onInput={(event) => setTyped((event.target as HTMLInputElement).value)} onBlur={take}
      onKeyDown={((event: KeyboardEvent) => {
        if (event.key === "Enter") take();
        else if (event.key === "Escape" && typed !== value) { setTyped(value); setWrong(""); }
        else return;
        event.preventDefault();
        event.stopPropagation();
      }) as never} />
  );
  return <>{bare ? field : <label class="fk-field"><span>{label}</span>{field}</label>}{wrong && <p class="fk-error" role="alert">{wrong}</p>}</>;
}
