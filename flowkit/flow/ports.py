"""Which type fits which port: judged as a type checker would, and in favour of the author where none could decide.

Annotations are the author's code. They are read when a flow is checked, not when a node is defined, so that a name may
be defined later; one that cannot be read is ``Any``.
"""

from __future__ import annotations

import collections
import collections.abc as abc
import enum
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union

Converter = Callable[[Any], Any]

#: Containers one can write into: ``list[int]`` does not fit ``list[float]``, which could then be given a 0.5.
_WRITABLE = (list, dict, set, collections.deque, abc.MutableSequence, abc.MutableMapping, abc.MutableSet)
_PROMOTED: dict[Any, tuple[type, ...]] = {float: (int,), complex: (int, float)}  # PEP 484's numeric tower
_CALLABLE: Any = abc.Callable
_PLAIN = (bool, int, float, str, list, dict, types.NoneType)

#: What iterating over something that cannot be iterated over gives.
NOTHING = typing.Never

_conversions: dict[tuple[Any, Any], Converter] = {}
#: Grows with each conversion, so that flows know when to look at their edges again.
registered = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether one type may flow into another: true or false, and ``str()`` says why."""

    fits: bool
    why: str
    convert: Converter | None = None  #: applied to the value on its way, if it fits only so

    def __bool__(self) -> bool:
        return self.fits

    def __str__(self) -> str:
        return self.why


def convert(source: Any, target: Any, function: Converter) -> None:
    """From now on *source* may flow into *target* in every flow, through *function*. The last one registered wins."""
    global registered
    _conversions.pop((source, target), None)
    _conversions[source, target] = function
    registered += 1


def fit(source: Any, target: Any) -> Fit:
    if accepts(target, source):
        return Fit(True, f"{describe(source)} fits {describe(target)}")
    for (given, wanted), function in reversed(_conversions.items()):
        if accepts(given, source) and accepts(target, wanted):
            return Fit(True, f"{describe(source)} is converted to {describe(target)} by {_name(function)}", function)
    return Fit(False, f"{describe(source)} does not fit {describe(target)}{_reason(source, target)}")


def accepts(target: Any, source: Any) -> bool:
    """Whether a value of type *source* may be given where *target* is expected; conversions aside."""
    source, target = _plain(source), _plain(target)
    if target is Any or source is Any or target is object or target == source:
        return True
    if source in (typing.NoReturn, typing.Never):
        return True
    if _is_union(source):
        return all(accepts(target, member) for member in typing.get_args(source))
    if _is_union(target):
        return any(accepts(member, source) for member in typing.get_args(target)) or _literals_cover(target, source)
    if isinstance(target, TypeVar):
        return _accepts_variable(target, source)
    if isinstance(source, TypeVar):
        return source.__bound__ is None or accepts(target, source.__bound__)
    if isinstance(target, typing.NewType):
        return False  # equal ones were accepted above, and nothing else makes one
    if isinstance(source, typing.NewType):
        return accepts(target, source.__supertype__)
    if typing.get_origin(target) is Literal:
        return _literals_cover(target, source)
    if typing.get_origin(source) is Literal:
        return all(accepts(target, type(value)) for value in typing.get_args(source))
    return _accepts_class(target, source)


def plainly_wrong(value: Any, target: Any) -> bool:
    """Whether a value given by hand cannot be meant for *target*. Only simple values and simple types are judged."""
    target = _plain(target)
    members = typing.get_args(target) if _is_union(target) else (target,)
    if type(value) not in _PLAIN or not all((typing.get_origin(member) or member) in _PLAIN for member in members):
        return False
    return not accepts(target, type(value))


def read(annotation: Any, function: Any) -> Any:
    """The type an annotation of *function* stands for; ``Any`` if it has none or it cannot be read here."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, getattr(function, "__globals__", {}))
    except Exception:  # the author's text: a name for type checkers only, or any other surprise
        return Any


def element(source: Any) -> Any:
    """The type of what iterating over *source* gives; ``Any`` if unknown, ``NOTHING`` if it cannot be iterated over."""
    source = _plain(source)
    if _is_union(source):
        found = [element(member) for member in typing.get_args(source)]
        return NOTHING if NOTHING in found else Union[tuple(found)]  # noqa: UP007 (made at run time)
    origin = typing.get_origin(source) or source
    if source is Any or origin is object or not isinstance(origin, type):
        return Any
    if not hasattr(origin, "__iter__") and not hasattr(origin, "__getitem__"):
        return NOTHING
    arguments = _arguments(source, abc.Iterable)
    return arguments[0] if arguments else Any


def parts(source: Any, count: int) -> list[Any]:
    """The types of *count* outputs of a function that returns *source*, a tuple or a dict of them."""
    origin, arguments = typing.get_origin(source), typing.get_args(source)
    if origin is tuple and len(arguments) == count and Ellipsis not in arguments:
        return list(arguments)
    if origin is dict and len(arguments) == 2:
        return [arguments[1]] * count
    return [Any] * count


def listed(item: Any) -> Any:
    """``list[item]``, for a type known only at run time."""
    return list[item] if item is not Any else list


def describe(kind: Any) -> str:
    """A type as an author would write it."""
    if kind is Any:
        return "Any"
    if kind is types.NoneType or kind is None:
        return "None"
    if kind is Ellipsis:
        return "..."
    if _is_union(kind):
        return " | ".join(describe(member) for member in typing.get_args(kind))
    if isinstance(kind, list):  # the parameters of a Callable
        return f"[{', '.join(map(describe, kind))}]"
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return describe(arguments[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin is not None and arguments:
        return f"{_name(origin)}[{', '.join(map(describe, arguments))}]"
    return _name(kind)


def _plain(kind: Any) -> Any:
    """Without what does not change its values: ``Annotated``, ``Final``, aliases; what is no type at all is ``Any``."""
    for _ in range(20):  # an alias may stand for itself
        if kind is None:
            return types.NoneType
        if isinstance(kind, str | typing.ForwardRef):
            return Any
        origin = typing.get_origin(kind)
        if origin in (typing.Annotated, typing.Final, typing.ClassVar):
            kind = typing.get_args(kind)[0]
        elif hasattr(kind, "__value__") and type(kind).__name__ == "TypeAliasType":
            kind = kind.__value__
        elif kind is typing.LiteralString:
            return str
        elif origin is None and kind in (typing.List, typing.Dict, typing.Tuple, typing.Type):  # noqa: UP006
            return kind.__origin__
        else:
            break
    known = isinstance(kind, type | TypeVar | typing.NewType) or typing.get_origin(kind) is not None
    if known or kind in (typing.NoReturn, typing.Never):
        return kind
    return getattr(kind, "__origin__", Any)  # typing.Sequence and the like, without arguments


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (Union, types.UnionType)


def _accepts_variable(variable: TypeVar, source: Any) -> bool:
    if variable.__constraints__:
        return any(accepts(choice, source) for choice in variable.__constraints__)
    return variable.__bound__ is None or accepts(variable.__bound__, source)


def _literals_cover(target: Any, source: Any) -> bool:
    """Whether every value *source* can have is among the literals of *target*."""
    choices = _literals(target)
    if typing.get_origin(source) is Literal:
        values = list(typing.get_args(source))
    elif source is bool:
        values = [True, False]
    elif isinstance(source, type) and issubclass(source, enum.Enum):
        values = list(source)
    else:
        return False
    return all(any(type(value) is type(choice) and value == choice for choice in choices) for value in values)


def _literals(target: Any) -> list[Any]:
    if typing.get_origin(target) is Literal:
        return list(typing.get_args(target))
    return [value for member in typing.get_args(target) for value in _literals(member)] if _is_union(target) else []


def _accepts_class(target: Any, source: Any) -> bool:
    wanted, given = typing.get_origin(target) or target, typing.get_origin(source) or source
    if not isinstance(wanted, type) or not isinstance(given, type):
        return True
    if given in _PROMOTED.get(wanted, ()) or (wanted in (float, complex) and issubclass(given, int)):
        return True
    if typing.is_typeddict(wanted):
        return issubclass(given, abc.Mapping)
    if not _is_subclass(given, wanted):
        return False
    arguments, expected = _arguments(source, wanted), typing.get_args(target)
    if not arguments or not expected or wanted is _CALLABLE:
        return True
    if wanted is tuple:
        return _accepts_tuple(expected, arguments)
    if wanted is type:
        return accepts(expected[0], arguments[0])
    return all(
        _accepts_argument(wanted, place, mine, theirs)
        for place, (mine, theirs) in enumerate(zip(expected, arguments, strict=False))
    )


def _is_subclass(given: Any, wanted: Any) -> bool:
    if getattr(wanted, "_is_protocol", False) and not getattr(wanted, "_is_runtime_protocol", False):
        return True
    try:
        return issubclass(given, wanted)
    except TypeError:  # a protocol with data members, or a metaclass that cannot say
        return True


def _accepts_tuple(expected: tuple[Any, ...], arguments: tuple[Any, ...]) -> bool:
    if expected[-1] is Ellipsis:
        return all(accepts(expected[0], kind) for kind in arguments if kind is not Ellipsis)
    if arguments[-1] is Ellipsis:
        return all(accepts(kind, arguments[0]) for kind in expected)  # of any length: who knows
    same_length = len(expected) == len(arguments)
    return same_length and all(accepts(mine, theirs) for mine, theirs in zip(expected, arguments, strict=True))


def _accepts_argument(owner: type, place: int, mine: Any, theirs: Any) -> bool:
    if owner in _WRITABLE:
        return accepts(mine, theirs) and accepts(theirs, mine)
    variables = getattr(owner, "__parameters__", ())
    variable = variables[place] if place < len(variables) else None
    if isinstance(variable, TypeVar) and variable.__contravariant__:
        return accepts(theirs, mine)
    if isinstance(variable, TypeVar) and not variable.__covariant__:
        return accepts(mine, theirs) and accepts(theirs, mine)
    return accepts(mine, theirs)  # what a foreign class does with its arguments is not to be known


def _arguments(source: Any, owner: type) -> tuple[Any, ...]:
    """The arguments *source* has when seen as an *owner*: ``(str,)`` for ``dict[str, int]`` as an ``Iterable``.

    Empty if unknown.
    """
    origin, arguments = typing.get_origin(source) or source, typing.get_args(source)
    if origin is owner:
        return arguments
    if origin is str:
        return (str,)
    if origin in (bytes, bytearray, range):
        return (int,)
    if origin is tuple:
        kinds = [kind for kind in arguments if kind is not Ellipsis]
        return (Union[tuple(kinds)],) if kinds else ()  # noqa: UP007 (made at run time)
    if origin.__module__ in ("builtins", "collections", "collections.abc"):
        pairs = owner in (abc.Mapping, abc.MutableMapping, dict)
        return arguments if pairs else arguments[:1]
    variables = getattr(origin, "__parameters__", ())
    known: dict[Any, Any] = dict(zip(variables, arguments, strict=False))
    for parent in getattr(origin, "__orig_bases__", ()):
        above = typing.get_origin(parent)
        if isinstance(above, type) and above is not typing.Generic and _is_subclass(above, owner):
            filled = tuple(known.get(kind, Any if isinstance(kind, TypeVar) else kind) for kind in parent.__args__)
            return _arguments(parent[filled], owner) if parent.__parameters__ else _arguments(parent, owner)
    return ()


def _reason(source: Any, target: Any) -> str:
    owner, expected = typing.get_origin(target), typing.get_args(target)
    if owner is list and typing.get_origin(source) is list and accepts(abc.Sequence[expected[0]], source):  # type: ignore[valid-type]
        return f": a list may be written into; take Sequence[{describe(expected[0])}]"
    if _is_union(source):
        strays = [member for member in typing.get_args(source) if not accepts(target, member)]
        return f": {' and '.join(map(describe, strays))} would not" if strays else ""
    return ""


def _name(thing: Any) -> str:
    return getattr(thing, "__name__", None) or repr(thing)
