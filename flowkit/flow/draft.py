"""The document that a visual editor edits: plain JSON, which becomes a flow, and the Python that makes it.

    {"flow": "flight delays", "nodes": [{
        "name": "late",
        "function": "node:late",     a key of the palette
        "by_name": true,             @flow.node, and not flow.add: inputs of which nothing is said are fed by name
        "inputs": {
            "flights": {"from": "cleaned"},      a node, an output, or a parameter of the flow
            "limit": {"value": 5},               JSON
            "day": {"kept": "late", "text": "datetime.date(2013, 7, 1)"},   the constant that this node has in the flow
            "top": null                          taken off: neither fed by name nor by anything else
        },
        "options": {"outputs": ["a", "b"], "map": ["x"], "retries": 2, "delay": 1.0, "timeout": null,
                    "checkpoint": true, "cache": 86400, "limit": "crm-api",
                    "schema": {"kept": "late", "text": "Delays"}},   the one that this node has in the flow
        "position": [0, 0]           for the editor alone
    }]}

It comes from a browser: nothing in it is evaluated, and no function is reached that is not in the palette.
"""

from __future__ import annotations

import enum
import keyword
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowkit.errors import FlowkitError, GraphError, UsageError, did_you_mean
from flowkit.flow import code, ports
from flowkit.flow.graph import Graph, Problem
from flowkit.flow.node import DEFAULTS, REQUIRED, Node, Port, Value, make
from flowkit.flow.palette import NODE, Palette, is_json

if TYPE_CHECKING:
    from flowkit.flow.flow import Flow


@dataclass(frozen=True, slots=True)
class Draft:
    document: Mapping[str, Any]  #: as above, of the right shape; whether it makes sense, ``problems`` tells

    @classmethod
    def of(cls, flow: Flow) -> Draft:
        """The flow as it is now."""
        return cls({"flow": flow.name, "nodes": [_written(wired.node) for wired in flow.graph.nodes]})

    @classmethod
    def read(cls, document: Any) -> Draft:
        """What a browser sent; refused, with the place, if it is not of that shape."""
        _shape(document)
        return cls(document)

    def problems(self, palette: Palette) -> list[dict[str, Any]]:
        """What is wrong: ``text``, and at which ``node`` and ``port``, or None.

        If nothing is, what is still ``open``: parameters that have to be given when the flow runs.
        """
        nodes, found = self._build(palette)
        graph = Graph({one.name: one for one in nodes})
        found += graph.problems
        return [_told(one, open=False) for one in found] or [_told(one, open=True) for one in _open(graph)]

    def flow(self, palette: Palette) -> Flow:
        """The flow it describes, with all that may be wrong with its graph; refused if a node cannot be made."""
        nodes, found = self._build(palette)
        if found:
            raise GraphError(found[0])
        # Not imported: a flow shows itself in the editor, which reads drafts.
        made = type(palette.flow)(self.document["flow"])
        for one in nodes:
            made._add(one)
        return made

    def code(self, palette: Palette) -> str:
        """The Python that makes the flow it describes."""
        return code.source(self.flow(palette), code.variable_of(palette.flow))

    def _build(self, palette: Palette) -> tuple[list[Node], list[Problem]]:
        nodes: dict[str, Node] = {}
        problems: list[Problem] = []
        names = {name for one in self.document["nodes"] for name in (one["name"], *_options(one)["outputs"])}
        for one in self.document["nodes"]:
            name = one["name"]
            if name in nodes:
                problems.append(Problem(f"two nodes are called {name!r}; give one of them another name", name))
                continue
            try:
                made, wrong = _Build(one, palette, names).node()
            except GraphError as error:
                problems.append(Problem(str(error), name))
            else:
                nodes[name] = made
                problems += wrong
        return list(nodes.values()), problems


class _Build:
    """One node of the document, as it is made."""

    def __init__(self, entry: Mapping[str, Any], palette: Palette, names: set[str]) -> None:
        self._entry = entry
        self._palette = palette
        self._names = names  # that feed inputs by name
        self._name: str = entry["name"]

    def node(self) -> tuple[Node, list[Problem]]:
        """Raises GraphError if it cannot be made at all."""
        if keyword.iskeyword(self._name):
            raise GraphError(f"{self._name!r} cannot be a node's name, because it is a word of Python; give it another")
        function = self._function()
        every = {port.name: port for port in self._make(function, {}, by_name=True, options=DEFAULTS).ports}
        inputs: dict[str, Any] = {}
        problems: list[Problem] = []
        for port, given in self._entry.get("inputs", {}).items():
            known = every.get(port)
            kind = Any if known is None else self._make(function, {}, by_name=True, options=DEFAULTS).accepted(known)
            if given is None:
                problems += self._taken_off(port, known, inputs)
            elif "from" in given:
                inputs[port] = given["from"]
            else:
                inputs[port] = Value(self._value(port, given, kind))
                value = inputs[port].value
                if ports.plainly_wrong(value, kind) and port not in _options(self._entry)["map"]:
                    text = (
                        f"node {self._name!r} takes {port!r} as {ports.describe(kind)}, but was given {value!r}, "
                        f"a {ports.describe(type(value))}"
                    )
                    problems.append(Problem(text, self._name, port))
        named = getattr(function, "__name__", None) == self._name
        by_name = self._entry.get("by_name", named and self._palette.own(self._entry["function"]))
        if by_name and not named:
            # flow.add is what gives another name; what would have been fed by name still is.
            by_name = False
            fed = [port for port, one in every.items() if one.default is not REQUIRED and port in self._names]
            inputs |= {port: port for port in fed if port not in self._entry.get("inputs", {})}
        options = _options(self._entry)
        if options["schema"] is not None:
            options["schema"] = self._schema(options["schema"]["kept"])
        return self._make(function, inputs, by_name=by_name, options=options), problems

    def _function(self) -> Callable[..., Any]:
        key = self._entry["function"]
        function = self._palette.function(key)
        if function is None:
            owner, _, name = key.partition(":")
            where = "the flow has no such node" if owner == NODE else "it is not in the palette"
            raise GraphError(
                f"node {self._name!r} is to be made of {name or key!r}, but {where}; choose another function"
            )
        return function

    def _make(
        self, function: Callable[..., Any], inputs: Mapping[str, Any], *, by_name: bool, options: Mapping[str, Any]
    ) -> Node:
        return make(function, self._name, inputs=inputs, by_name=by_name, **options)

    def _taken_off(self, port: str, known: Port | None, inputs: dict[str, Any]) -> list[Problem]:
        """An input that nothing shall feed has its default."""
        if known is None:
            return []
        if known.default is not REQUIRED:
            inputs[port] = Value(known.default)
        elif port in self._names:
            text = f"node {self._name!r} needs {port!r}, which was taken off; connect it, or give it a value"
            return [Problem(text, self._name, port)]
        return []

    def _schema(self, kept: str) -> Any:
        owner = self._palette.node(kept)
        if owner is None or owner.schema is None:
            raise GraphError(
                f"node {self._name!r} is to keep the schema of node {kept!r}, which has none any more; take it off"
            )
        return owner.schema

    def _value(self, port: str, given: Mapping[str, Any], kind: Any) -> Any:
        if "kept" in given:
            owner = self._palette.node(given["kept"])
            if owner is None or port not in owner.constants:
                raise GraphError(
                    f"node {self._name!r} is to keep {port!r} of node {given['kept']!r}, which has none any more; "
                    f"give it a value"
                )
            return owner.constants[port]
        value = given["value"]
        if isinstance(kind, type) and issubclass(kind, enum.Enum) and isinstance(value, str):
            if value not in kind.__members__:
                hint = did_you_mean(value, kind.__members__)
                raise GraphError(f"node {self._name!r} takes {port!r} as {kind.__name__}, which has no {value!r}{hint}")
            return kind[value]
        return value


def _written(one: Node) -> dict[str, Any]:
    inputs: dict[str, Any] = {port.name: {"from": port.source} for port in one.ports if port.bound}
    for key, constant in one.constants.items():
        kept = {"kept": one.name, "text": _text(constant)}
        inputs[key] = {"value": constant} if is_json(constant) else kept
    options = {key: getattr(one, key) for key in DEFAULTS if key != "schema" and getattr(one, key) != DEFAULTS[key]}
    if one.schema is not None:
        options["schema"] = {"kept": one.name, "text": _schema_text(one)}
    return {
        "name": one.name,
        "function": f"{NODE}:{one.name}",
        "by_name": code.matches(one, by_name=True),
        "inputs": inputs,
        "options": {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()},
    }


def _schema_text(one: Node) -> str:
    """Its name, or those of its outputs' schemas."""
    each = one.schema.values() if isinstance(one.schema, dict) else [one.schema]
    names = [code.schema_name(one, schema) or "a schema without a name" for schema in [one.schema, *each]]
    return names[0] if names[0][:2] != "a " else ", ".join(names[1:])


def _text(constant: Any) -> str:
    try:
        text = repr(constant)
    except Exception:  # an author's repr
        text = type(constant).__name__
    return text if len(text) <= 80 else text[:79] + "…"


def _options(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**DEFAULTS, **entry.get("options", {})}


def _told(problem: Problem, *, open: bool) -> dict[str, Any]:
    return {"node": problem.node, "port": problem.port, "text": str(problem), "open": open}


def _open(graph: Graph) -> list[Problem]:
    """Parameters of the flow that have no value of their own."""
    found = []
    for name, asking in graph.parameters.items():
        try:
            graph.settle(name, {})
        except FlowkitError as error:
            owner, port = asking[0]
            found.append(Problem(str(error), owner.name, port.name))
    return found


def _shape(document: Any) -> None:
    _must(isinstance(document, dict), "the draft", "an object")
    flow = document.get("flow")
    _must(isinstance(flow, str) and bool(flow.strip()), "flow", "the name of the flow")
    _must(isinstance(document.get("nodes"), list), "nodes", "a list")
    for place, one in enumerate(document["nodes"]):
        at = f"nodes[{place}]"
        _must(isinstance(one, dict), at, "an object")
        for key in ("name", "function"):
            _must(isinstance(one.get(key), str), f"{at}.{key}", "a text")
        _must(isinstance(one.get("by_name", True), bool), f"{at}.by_name", "true or false")
        inputs, options = one.get("inputs", {}), one.get("options", {})
        _must(isinstance(inputs, dict), f"{at}.inputs", "an object")
        for port, given in inputs.items():
            ways = given is None or (
                isinstance(given, dict)
                and any(key in given for key in ("from", "value", "kept"))
                and all(isinstance(given.get(key, ""), str) for key in ("from", "kept"))
            )
            _must(ways, f"{at}.inputs.{port}", 'null, {"from": name}, {"value": JSON} or {"kept": node}')
        _must(isinstance(options, dict), f"{at}.options", "an object")
        for key, value in options.items():
            _must(key in DEFAULTS, f"{at}.options.{key}", f"one of {', '.join(DEFAULTS)}")
            if key in ("outputs", "map"):
                texts = isinstance(value, list) and all(isinstance(name, str) for name in value)
                _must(texts, f"{at}.options.{key}", "a list of names")
            elif key == "checkpoint":
                _must(isinstance(value, bool), f"{at}.options.{key}", "true or false")
            elif key == "limit":
                _must(value is None or isinstance(value, str), f"{at}.options.{key}", "the name of a limit")
            elif key == "schema":
                kept = value is None or (isinstance(value, dict) and isinstance(value.get("kept"), str))
                _must(kept, f"{at}.options.{key}", 'null or {"kept": node}')
            elif not (value is None and key in ("timeout", "cache")):
                number = isinstance(value, int | float) and not isinstance(value, bool)
                _must(number, f"{at}.options.{key}", "a number")


def _must(right: bool, what: str, expected: str) -> None:
    if not right:
        raise UsageError(f"the editor sent a draft that cannot be read: {what} must be {expected}")
