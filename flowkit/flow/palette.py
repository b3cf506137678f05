"""What an editor can build a flow of: the notebook's own functions, the node library, and which port fits which.

The library is what packages offer under the entry point group ``flowkit.nodes``: modules, whose ``__all__`` names the
functions. What a browser asks for is looked up here and nowhere else.
"""

from __future__ import annotations

import contextlib
import enum
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from flowkit.errors import GraphError, explain
from flowkit.flow import node, ports
from flowkit.flow.node import REQUIRED, Node

if TYPE_CHECKING:
    from flowkit.flow.flow import Flow

GROUP = "flowkit.nodes"

#: In the key of the function that a node of the flow has: ``node:late``.
NODE = "node"


class Palette:
    """The functions that are there now: of a notebook, of its flow's nodes, of the library."""

    def __init__(self, flow: Flow, namespace: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            namespace: of the notebook; that of ``__main__`` if none is given.
        """
        self.flow = flow
        self._nodes = {wired.node.name: wired.node for wired in flow.graph.nodes}
        self._broken: dict[str, str] = {}  # library -> why it cannot be loaded
        self._offered: dict[str, tuple[str, Node]] = {}  # key -> (where it is from, the node it would make)
        for name, function in self._of_the_notebook(vars(sys.modules["__main__"]) if namespace is None else namespace):
            self._offer(name, "", function)
        for module, name, function in self._of_the_library():
            self._offer(f"{module}:{name}", module, function)

    def function(self, key: str) -> Callable[..., Any] | None:
        """``late`` of the notebook, ``module:name`` of the library, or ``node:late``; None if there is none."""
        owner, _, name = key.partition(":")
        if owner == NODE and name in self._nodes:
            return self._nodes[name].function
        return self._offered[key][1].function if key in self._offered else None

    def own(self, key: str) -> bool:
        """Whether it is the notebook's, where a function becomes a node under its own name by ``@flow.node``."""
        return key in self._offered and not self._offered[key][0]

    def node(self, name: str) -> Node | None:
        """The node that the flow has under this name."""
        return self._nodes.get(name)

    def catalog(self) -> list[dict[str, Any]]:
        """What is offered, as JSON: the notebook's first, in order of definition. One with a ``problem`` is not."""
        found = [_entry(key, module, made) for key, (module, made) in self._offered.items()]
        broken = {"key": "", "doc": "", "ports": [], "outputs": []}
        return found + [{**broken, "name": name, "module": name, "problem": why} for name, why in self._broken.items()]

    def made(self) -> list[dict[str, Any]]:
        """What the flow's nodes are made of, as in ``catalog``, by the keys their draft has; named outputs as well."""
        found = []
        for name, one in self._nodes.items():
            whole = _as_offered(one) or one
            entry = _entry(f"{NODE}:{name}", "", whole)
            known = {port["name"] for port in entry["ports"]}
            more = {"type": "", "required": False, "default": None, "form": {"kind": "json"}}  # of its **parameters
            given = [*(port.name for port in one.ports), *one.constants]
            entry["ports"] += [{"name": port, **more} for port in given if port not in known]
            entry["outputs"] += [_output(part, kind) for part, kind in one.produced().items() if part != name]
            found.append({**entry, "name": getattr(one.function, "__name__", name)})
        return found

    def fits(self) -> dict[str, dict[str, str]]:
        """given type -> wanted type -> why it does not fit. Pairs that fit are left out.

        The wanted type of a port that is mapped over is called ``each …``.
        """
        every = [made for _, made in self._offered.values()]
        every += [made for made in map(_as_offered, self._nodes.values()) if made is not None]
        given: dict[str, Any] = {}
        for made in [*every, *self._nodes.values()]:
            for kind in made.produced().values():
                given |= {label(kind): kind, label(ports.listed(kind)): ports.listed(kind)}
        wanted = {label(kind): kind for made in every for kind in map(made.accepted, made.ports)}
        found: dict[str, dict[str, str]] = {}
        for source, kind in given.items():
            item = ports.element(kind)
            for target, other in wanted.items():
                fit = ports.fit(kind, other)
                if not fit:
                    found.setdefault(source, {})[target] = fit.why
                if item is ports.NOTHING:
                    found.setdefault(source, {})[f"each {target}"] = f"{source} is not a list"
                elif not (each := ports.fit(item, other)):
                    found.setdefault(source, {})[f"each {target}"] = f"of {source}, {each.why}"
        return found

    def _offer(self, key: str, module: str, function: Callable[..., Any]) -> None:
        with contextlib.suppress(GraphError):  # it takes *arguments, or is async
            self._offered[key] = module, _made(function, None)

    def _of_the_notebook(self, namespace: Mapping[str, Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
        used = [one.function for one in self._nodes.values()]
        for name, one in list(namespace.items()):
            own = isinstance(one, types.FunctionType) and one.__module__ == "__main__" and one.__name__ == name
            if name.startswith("_") or not callable(one):
                continue
            if (own and inspect.unwrap(one).__annotations__) or any(one is function for function in used):
                yield name, one

    def _of_the_library(self) -> Iterator[tuple[str, str, Callable[..., Any]]]:
        from importlib.metadata import entry_points

        for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
            try:
                module = point.load()
                names = list(module.__all__)
                functions = [(name, getattr(module, name)) for name in names]
            except Exception as error:  # somebody else's module may fail in any way; the others are still offered
                self._broken[point.value] = f"the node library {point.value!r} cannot be loaded: {explain(error)}"
                continue
            yield from ((module.__name__, name, one) for name, one in functions if callable(one))


def label(kind: Any) -> str:
    """A type for people; empty for what fits everything."""
    return "" if kind is Any else ports.describe(kind)


def form(kind: Any) -> dict[str, Any] | None:
    """How a value of this type is asked for: its ``kind``, and ``choices``; None: only a node can give it."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        members = typing.get_args(kind)
        found = [asked for one in members if one is not types.NoneType and (asked := form(one))]
        optional = {"optional": True} if types.NoneType in members else {}
        return {**(found[0] if len(found) == 1 else {"kind": "json"}), **optional} if found else None
    names = {bool: "boolean", int: "integer", float: "number", str: "text"}
    if isinstance(kind, type) and kind in names:
        return {"kind": names[kind]}
    if typing.get_origin(kind) is Literal and all(is_json(one) for one in typing.get_args(kind)):
        return {"kind": "choice", "choices": list(typing.get_args(kind))}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"kind": "choice", "choices": list(kind.__members__)}
    return {"kind": "json"} if ports.accepts(kind, list) or ports.accepts(kind, dict) else None


def is_json(value: Any) -> bool:
    """Whether JSON gives the very same value again."""
    if isinstance(value, enum.Enum):
        return False
    try:
        again = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return False
    return _equal(again, value)


def _equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _entry(key: str, module: str, made: Node) -> dict[str, Any]:
    doc = (inspect.getdoc(made.function) or "").strip().splitlines()
    return {
        "key": key,
        "name": made.name,
        "module": module,
        "doc": doc[0] if doc else "",
        "ports": [
            {
                "name": port.name,
                "type": label(made.accepted(port)),
                "required": port.default is REQUIRED,
                "default": None if port.default is REQUIRED else _short(port.default),
                "form": form(made.accepted(port)),
            }
            for port in made.ports
        ],
        "outputs": [_output(name, kind) for name, kind in made.produced().items()],
        "problem": "",
    }


def _output(name: str, kind: Any) -> dict[str, str]:
    return {"name": name, "type": label(kind), "listed": label(ports.listed(kind))}


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # an author's repr
        text = type(value).__name__
    return text if len(text) <= 80 else text[:79] + "…"


def _as_offered(one: Node) -> Node | None:
    """With all its parameters as ports, which one that was added need not have."""
    try:
        return _made(one.function, one.name)
    except GraphError:
        return None


def _made(function: Callable[..., Any], name: str | None) -> Node:
    return node.make(function, name, inputs={}, by_name=True, **node.DEFAULTS)
