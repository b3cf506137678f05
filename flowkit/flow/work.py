"""What the nodes of a flow do, each under a digest, by which results are kept, found, and known to be out of date."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any

from flowkit.errors import explain
from flowkit.flow import identity
from flowkit.flow.graph import Graph, Wired
from flowkit.flow.identity import Unidentified


class Work:
    """A flow's nodes and parameters as they stand when this is made: what they name may be changed by any cell, and by
    any node.

    What cannot be told from another has no digest, and is not the same as anything.
    """

    def __init__(self, graph: Graph, values: Mapping[str, Any]) -> None:
        """
        Args:
            values: of the flow's parameters. What reads one that is not there has no key.
        """
        self._graph = graph
        self.unknown: dict[str, str] = {}  #: node, or ``parameter 'day'``, that has no digest -> why
        self.given = digests(values, self.unknown)
        self._codes: dict[str, str | None] = {}
        self._keys: dict[str, str | None] | None = None
        self.kept: dict[str, Work] = {}  #: node -> what an earlier result of it, which still stands, was made by
        self._wired = {wired.node.name: wired for wired in graph.nodes}
        tables: identity.Tables = {}
        shared: dict[int, str | None] = {}  # a function may be many nodes
        for name, wired in self._wired.items():
            if wired.fixed:
                self._codes[name] = self._identified(wired, tables)
            elif not _names_nothing(wired.call):
                if id(wired.call) not in shared:
                    shared[id(wired.call)] = self._identified(wired, tables)
                self._codes[name] = shared[id(wired.call)]

    def keep(self, earlier: Work, names: Iterable[str]) -> None:
        """The results of these nodes stay those that *earlier* has told of."""
        self.kept |= {name: earlier.behind(name) for name in names}

    def behind(self, name: str) -> Work:
        """What the result of this node was made by."""
        return self.kept.get(name, self)

    def code(self, name: str) -> str | None:
        """The digest of a node's function with its constants, and with the conversions of its inputs."""
        if name in self.kept:
            return self.kept[name].code(name)
        if name not in self._codes and name in self._wired:  # it names nothing that could have changed since
            self._codes[name] = self._identified(self._wired[name], {})
        return self._codes.get(name)

    def key(self, name: str) -> str | None:
        """The digest of all that a node's result depends on: code, parameters, and the keys of what it reads."""
        if self._keys is None:
            self._keys = keys = dict[str, str | None]()
            for wired in self._graph.order:  # what is read comes first
                node = wired.node.name
                if node in self.kept:
                    keys[node] = self.kept[node].key(node)
                else:
                    keys[node] = self.made_of(wired, [self._source(source, keys) for _, source in wired.inputs])
        return self._keys.get(name)

    def made_of(self, wired: Wired, inputs: Sequence[str | None]) -> str | None:
        """The key of a result.

        Args:
            inputs: digests of what it is given, in the order of the node's inputs.
        """
        node = wired.node
        parts = [node.name, identity.of_parts(*node.map), identity.of_parts(*node.outputs), self.code(node.name)]
        for (parameter, _), digest in zip(wired.inputs, inputs, strict=True):
            parts += [parameter, digest]
        there = [part for part in parts if part is not None]
        return identity.of_parts(*there) if len(there) == len(parts) else None

    def _source(self, source: str, keys: Mapping[str, str | None]) -> str | None:
        if source in self._graph.parameters:
            return self.given.get(source)
        key = keys.get(self._graph.node(source).name)
        return None if key is None else identity.of_parts(key, source)

    def _identified(self, wired: Wired, tables: identity.Tables) -> str | None:
        work: Any = wired.call, wired.fixed
        return known(lambda: identity.of_code(work, tables), self.unknown, wired.node.name)


def digests(values: Mapping[str, Any], unknown: dict[str, str] | None = None) -> dict[str, str | None]:
    """Of parameters."""
    unknown = {} if unknown is None else unknown
    return {
        name: known(functools.partial(identity.of_value, value), unknown, f"parameter {name!r}")
        for name, value in values.items()
    }


def known(digest: Callable[[], str], unknown: dict[str, str], what: str) -> str | None:
    """The digest; None, and why in *unknown*, if there is no telling it from another."""
    try:
        return digest()
    except Exception as error:  # an author's object may raise anything when it is looked at
        unknown[what] = str(error) if isinstance(error, Unidentified) else explain(error)
        return None


def _names_nothing(function: Any) -> bool:
    """It is all in its code, which nobody changes: its digest may be made when it is asked for."""
    if type(function) is not FunctionType or function.__closure__ or hasattr(function, "__wrapped__"):
        return False
    code = function.__code__
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    plain = all(one is None or type(one) in (bool, int, float, str) for one in defaults)
    return plain and not code.co_names and not any(isinstance(one, CodeType) for one in code.co_consts)
