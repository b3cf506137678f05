"""All there is to say about one node to whoever clicks it: code, inputs, result, lines, failures. Text only."""

from __future__ import annotations

import inspect
import textwrap
import traceback
from typing import Any

from flowkit.flow.graph import Graph
from flowkit.flow.node import Node, author
from flowkit.flow.outcome import Outcome
from flowkit.flow.preview import preview
from flowkit.model import State
from flowkit.scene import CODES

_SOURCE, _TRACE, _FAILURES, _ITEMS = 20_000, 12_000, 12, 10_000


def detail(graph: Graph, outcome: Outcome | None, name: str) -> dict[str, Any]:
    node = graph.node(name)
    told: dict[str, Any] = {"node": node.name, **_code(node)}
    if outcome is None or node.name not in outcome.states:
        return told
    values = {**outcome.parameters, **outcome.results}
    told["inputs"] = [
        {"name": port.name, "from": port.source, "preview": preview(values[port.source], brief=True)}
        for port in node.ports
        if port.source in values
    ]
    if node.name in outcome.results:
        told["result"] = preview(outcome.results[node.name])
    if node.name in outcome.errors:
        told["error"] = outcome.reasons[node.name][:_TRACE]
        told["traceback"] = _trace(outcome.errors[node.name])
    elif node.name in outcome.causes:
        cause = outcome.causes[node.name]
        told["error"] = f"node {cause!r} failed: {outcome.reasons.get(cause, '')}"[:_TRACE]
    if node.name in outcome.counts:
        told |= _items(node, outcome)
    if outcome.lines is not None and (lines := outcome.lines.of(node.name)):
        told["lines"] = lines
    return told


def _code(node: Node) -> dict[str, Any]:
    function = author(node.function)
    told: dict[str, Any] = {}
    doc = inspect.getdoc(node.function)
    if doc:
        told["doc"] = doc.strip()[:_SOURCE]
    try:
        told["source"] = textwrap.dedent(inspect.getsource(function)).rstrip()[:_SOURCE]
        file, line = inspect.getsourcefile(function) or "", inspect.getsourcelines(function)[1]
        if file and "ipykernel_" not in file and not file.startswith("<"):
            told["where"] = f"{file}:{line}"
    except (OSError, TypeError):  # built in, or typed where nobody kept it
        told["source"] = f"# Python does not have the source of {node.name}"
    return told


def _trace(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # the author's exception may not even print
        text = type(error).__name__
    return text if len(text) <= _TRACE else f"…\n{text[-_TRACE:]}"


def _items(node: Node, outcome: Outcome) -> dict[str, Any]:
    count = outcome.counts[node.name][1]
    codes = bytearray(b"1") * min(count, _ITEMS)
    failures: dict[str, str] = {}
    start = f"{node.name}["
    for _, name, state, error, _ in list(outcome.records):
        if not name.startswith(start):
            continue
        index = int(name[len(start) : -1])
        if index < len(codes):
            codes[index] = ord("0") + CODES[state]
        if state is State.FAILED and error:
            failures[name] = error
        else:
            failures.pop(name, None)
    shown = list(failures.items())[:_FAILURES]
    return {"items": codes.decode("ascii"), "failures": [{"name": name, "error": text[:500]} for name, text in shown]}
