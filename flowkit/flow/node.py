"""A node: a function of a flow, and what is given to each of its parameters."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from flowkit.errors import GraphError, did_you_mean
from flowkit.flow import ports
from flowkit.flow.child import Child
from flowkit.flow.schema import usable

#: The default of a parameter that has none; not None, which is a fine default.
REQUIRED: Any = inspect.Parameter.empty


#: The options of a node of which nothing is said, as ``make`` takes them.
DEFAULTS: Mapping[str, Any] = {
    "outputs": (),
    "map": (),
    "retries": 0,
    "delay": 1.0,
    "timeout": None,
    "checkpoint": True,
    "cache": None,
    "limit": None,
    "schema": None,
}


@dataclass(frozen=True, slots=True)
class Value:
    """A constant in the place where a bare string would be a name."""

    value: Any


def value(constant: Any) -> Any:
    """*constant* itself as a node's input: ``flow.add(read_csv, path=fk.value("flights.csv"))``.

    Needed only for text, because a bare string names a node or a parameter of the flow.
    """
    return Value(constant)


@dataclass(frozen=True, slots=True)
class Port:
    """A parameter of a node that is fed at run time."""

    name: str
    source: str  #: the name of a node, of an output, or of a parameter of the flow
    default: Any = REQUIRED  #: for a parameter of the flow; one bound explicitly has none
    annotation: Any = REQUIRED
    bound: bool = False  #: explicitly, by ``inputs=`` or ``add``


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    function: Callable[..., Any]
    ports: tuple[Port, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()  #: names of the parts of what it returns
    map: tuple[str, ...] = ()  #: ports that are given an item at a time
    retries: int = 0
    delay: float = 1.0  #: seconds before the first retry; doubles each time
    timeout: float | None = None  #: seconds for one attempt
    checkpoint: bool = True  #: a worker's run keeps what it returns, for its later attempts
    cache: float | None = None  #: seconds for which any run may reuse what it returned; None: none does
    limit: str | None = None  #: the name of what each call asks before it begins
    schema: Any = None  #: of Pandera, which what it returns has to fit; output -> schema if it has outputs
    positional: tuple[str, ...] = ()  #: parameters that cannot be given by name, in order
    child: Child | None = None  #: the notebook that it is

    def item(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def produced(self) -> dict[str, Any]:
        """What it is known by, and of which type: its own name first, then its outputs."""
        returned = _returned(self.function)
        found = {self.name: returned} | dict(zip(self.outputs, ports.parts(returned, len(self.outputs)), strict=True))
        return {name: ports.listed(kind) for name, kind in found.items()} if self.map else found

    def accepted(self, port: Port) -> Any:
        """The type of the parameter itself, of one item if it is mapped over."""
        return Any if port.annotation is REQUIRED else ports.read(port.annotation, author(self.function))

    def split(self, value: Any) -> tuple[Any, ...]:
        """What it returned, in the order of its outputs."""
        expected = f"its outputs are {', '.join(self.outputs)}"
        if isinstance(value, dict):
            if set(value) != set(self.outputs):
                raise ValueError(f"{self.name!r} returned the keys {', '.join(map(repr, value))}; {expected}")
            return tuple(value[name] for name in self.outputs)
        if not isinstance(value, tuple):
            raise TypeError(f"{self.name!r} returned {ports.describe(type(value))}, not a tuple or a dict; {expected}")
        if len(value) != len(self.outputs):
            raise ValueError(f"{self.name!r} returned {len(value)} values; {expected}")
        return value


def make(
    function: Callable[..., Any],
    name: str | None,
    *,
    inputs: Mapping[str, Any],
    by_name: bool,
    outputs: str | Sequence[str],
    map: str | Sequence[str],
    retries: int,
    delay: float,
    timeout: float | None,
    checkpoint: bool,
    cache: str | float | timedelta | None,
    limit: str | None,
    schema: Any,
) -> Node:
    """The node a function makes.

    Args:
        inputs: parameter -> name of what feeds it, or a constant if it is not a string.
        by_name: a parameter with a default, not in *inputs*, is fed by what bears its name. Else it keeps its default.
    """
    if not callable(function):
        raise GraphError(f"a node is a function, not {function!r}; write @flow.node above a def, or flow.add(function)")
    name = name or getattr(function, "__name__", None)
    if name is None:
        raise GraphError(f"a {type(function).__name__} has no name of its own; give the node one with name=")
    if not isinstance(name, str) or not name.isidentifier():
        raise GraphError(f"{name!r} cannot be a node's name, which must be a Python identifier; give one with name=")
    _check_options(name, retries, delay, timeout, limit)
    if isinstance(function, Child) and limit is not None:
        raise GraphError(f"node {name!r} is a notebook and has limit=; limit a node of that, or its deployment")
    if inspect.iscoroutinefunction(function):
        raise GraphError(f"node {name!r} is async; a node is a plain function, which may call asyncio.run() itself")
    named_outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    for output in named_outputs:
        if not isinstance(output, str) or not output.isidentifier():
            raise GraphError(f"node {name!r} has an output {output!r}; its name must be a Python identifier")
    if schema is not None:
        usable(schema, name, named_outputs)
    parameters = _parameters(function, name)
    fed, constants = _bind(name, parameters, inputs, function, by_name)
    mapped = (map,) if isinstance(map, str) else tuple(map)
    for parameter in mapped:
        if parameter not in [port.name for port in fed]:
            hint = did_you_mean(parameter, [port.name for port in fed])
            raise GraphError(f"node {name!r} maps over {parameter!r}, which is not one of its inputs{hint}")
    return Node(
        name=name,
        function=function,
        ports=fed,
        constants=constants,
        outputs=named_outputs,
        map=mapped,
        retries=retries,
        delay=delay,
        timeout=timeout,
        checkpoint=checkpoint,
        cache=None if cache is None else _lifetime(name, cache),
        limit=limit,
        schema=schema,
        positional=tuple(key for key, one in parameters.items() if one.kind is inspect.Parameter.POSITIONAL_ONLY),
        child=function if isinstance(function, Child) else None,
    )


def _check_options(name: str, retries: int, delay: float, timeout: float | None, limit: str | None) -> None:
    if limit is not None and not (isinstance(limit, str) and re.fullmatch(r"[\w.-]+", limit)):
        raise GraphError(f"node {name!r} has limit={limit!r}; it must be a limit's name, such as 'crm-api'")
    if not isinstance(retries, int) or retries < 0:
        raise GraphError(f"node {name!r} has retries={retries!r}; it must be a whole number, 0 or more")
    if not isinstance(delay, int | float) or not 0 <= delay < float("inf"):
        raise GraphError(f"node {name!r} has delay={delay!r}; it must be a number of seconds, 0 or more")
    if timeout is not None and (not isinstance(timeout, int | float) or not timeout > 0):
        raise GraphError(f"node {name!r} has timeout={timeout!r}; it must be a number of seconds above 0, or None")


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def _lifetime(name: str, cache: str | float | timedelta) -> float:
    """Seconds; ``"1d"``, ``"12h"``, a timedelta."""
    seconds: float = -1.0
    if isinstance(cache, timedelta):
        seconds = cache.total_seconds()
    elif isinstance(cache, int | float) and not isinstance(cache, bool):
        seconds = cache
    elif isinstance(cache, str) and (read := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", cache.strip())):
        seconds = float(read[1]) * _UNITS[read[2]]
    if not 0 < seconds < float("inf"):
        raise GraphError(f"node {name!r} has cache={cache!r}; say for how long: '12h', '1d', or a number of seconds")
    return float(seconds)


def _parameters(function: Callable[..., Any], name: str) -> dict[str, inspect.Parameter]:
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise GraphError(f"node {name!r}: Python does not know its parameters; wrap it in a def of your own") from None
    for parameter in found.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            raise GraphError(
                f"node {name!r} takes *{parameter.name}, and inputs are given by name; name each of them, or take "
                f"a list (if a decorator made it so: functools.wraps keeps the names)"
            )
    return dict(found)


def _bind(
    name: str,
    parameters: Mapping[str, inspect.Parameter],
    inputs: Mapping[str, Any],
    function: Callable[..., Any],
    by_name: bool,
) -> tuple[tuple[Port, ...], dict[str, Any]]:
    takes_more = [key for key, one in parameters.items() if one.kind is inspect.Parameter.VAR_KEYWORD]
    named = {key: one for key, one in parameters.items() if key not in takes_more}
    if not takes_more:
        for given in inputs:
            if given not in named:
                takes = f"it takes {', '.join(named)}" if named else "it takes none"
                raise GraphError(f"node {name!r} has no parameter {given!r}; {takes}{did_you_mean(given, named)}")
    # What a partial has bound is settled; it is no parameter of the flow.
    settled = set(function.keywords) if isinstance(function, functools.partial) else set()
    found: list[Port] = []
    constants: dict[str, Any] = {}
    for key in [*named, *(given for given in inputs if given not in named)]:
        parameter = named.get(key)
        annotation = parameter.annotation if parameter else REQUIRED
        if key in inputs:
            source = inputs[key]
            if isinstance(source, str):
                found.append(Port(key, source, REQUIRED, annotation, bound=True))
            else:
                constants[key] = source.value if isinstance(source, Value) else source
        elif parameter and key not in settled and (by_name or parameter.default is REQUIRED):
            found.append(Port(key, key, parameter.default, annotation))
    return tuple(found), constants


def author(function: Any) -> Any:
    """The function whose annotations these are, below decorators and partials."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if isinstance(function, type):
        return function.__init__  # type: ignore[misc]
    return function if hasattr(function, "__globals__") else getattr(function, "__call__", function)  # noqa: B004


def _returned(function: Any) -> Any:
    if isinstance(function, type):
        return function
    written = author(function)
    annotation = getattr(written, "__annotations__", {}).get("return", REQUIRED)
    kind = Any if annotation is REQUIRED else ports.read(annotation, written)
    if inspect.isgeneratorfunction(written):
        return ports.listed(ports.element(kind))
    return kind
