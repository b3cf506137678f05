"""Values as the Python text that gives them again: constants of nodes, defaults in a form."""

from __future__ import annotations

import ast
import builtins
import enum
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flowkit.flow.graph import same

#: Makes a name known to the text it stands in: (name, object) -> the name to write, which may be another.
Import = Callable[[str, Any], str]

#: What the repr of a value may be made of, for it to be read back here. Nothing else is evaluated: a repr may hold a
#: text that somebody else wrote.
_HARMLESS = (
    *(ast.Expression, ast.Call, ast.keyword, ast.Attribute, ast.Name, ast.Load, ast.Constant, ast.UnaryOp, ast.USub),
    *(ast.Tuple, ast.List, ast.Dict, ast.Set),
)
_CALLED = {
    *(("datetime", name) for name in ("date", "time", "datetime", "timedelta", "timezone")),
    *(("builtins", name) for name in ("range", "slice", "bytearray", "frozenset")),
    *(("zoneinfo", "ZoneInfo"), ("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID")),
    *(("collections", name) for name in ("OrderedDict", "deque", "Counter")),
    *(("numpy", name) for name in ("int64", "int32", "float64", "float32", "bool", "str_", "datetime64")),
    *(("pandas", name) for name in ("Timestamp", "Timedelta")),
}


class NoText(ValueError):
    """There is no Python text that gives an equal value."""


def text(value: Any, name: Import) -> str:
    """Python that gives an equal value, in the names that *name* gives for what has to be imported."""
    try:
        return _text(value, name)
    except RecursionError:
        raise NoText("it contains itself, or is too deep") from None


def quoted(value: str) -> str:
    written = repr(value)
    return f'"{written[1:-1]}"' if written[0] == "'" and '"' not in value else written


def _text(value: Any, name: Import) -> str:
    kind = type(value)
    if value is None or value is Ellipsis or kind is bool or kind is bytes:
        return repr(value)
    if kind is int:
        return repr(value) if abs(value) < 10**4000 else hex(value)  # Python limits the length of decimals
    if kind is float:
        return repr(value) if math.isfinite(value) else f'float("{value}")'
    if kind is complex:
        return f"complex({_text(value.real, name)}, {_text(value.imag, name)})"
    if kind is str:
        return quoted(value)
    if kind is list:
        return f"[{', '.join(_text(one, name) for one in value)}]"
    if kind is tuple:
        return f"({', '.join(_text(one, name) for one in value)}{',' if len(value) == 1 else ''})"
    if kind is dict:
        return f"{{{', '.join(f'{_text(key, name)}: {_text(one, name)}' for key, one in value.items())}}}"
    if kind in (set, frozenset):
        inside = ", ".join(sorted(_text(one, name) for one in value))
        if kind is frozenset:
            return f"frozenset({{{inside}}})" if inside else "frozenset()"
        return f"{{{inside}}}" if inside else "set()"
    if isinstance(value, enum.Enum) and value.name in kind.__members__:
        return f"{reference(kind, name)}.{value.name}"
    if kind is type(Path()):
        return f"{name('Path', Path)}({quoted(str(value))})"
    if isinstance(value, type) or (callable(value) and home(value) is not None):
        return reference(value, name)
    return _by_repr(value, name)


def home(thing: Any) -> tuple[str, str] | None:
    """The module, by its shortest name, and the name in it, under which a function or class can be imported."""
    inside = getattr(thing, "__qualname__", None)
    owner = getattr(thing, "__self__", thing)
    module = getattr(thing, "__module__", None) or getattr(owner, "__module__", None) or "builtins"
    if not isinstance(inside, str) or not isinstance(module, str) or "<" in inside:
        return None
    parts = module.split(".")
    for name in ("builtins", *(".".join(parts[: count + 1]) for count in range(len(parts)))):
        found: Any = None if name == "__main__" else sys.modules.get(name)
        for part in inside.split("."):
            found = getattr(found, part, None)
        if found is thing or (found is not None and not isinstance(found, type) and same(found, thing)):
            return name, inside
    return None


def reference(thing: Any, name: Import) -> str:
    """A function or class by its name."""
    found = home(thing)
    first, *rest = (found[1] if found else getattr(thing, "__qualname__", "?")).split(".")
    if found is None:
        if rest:
            raise _none(thing)
        return name(first, thing)
    root = getattr(sys.modules[found[0]], first)
    return ".".join([name(first, root), *rest])


def _by_repr(value: Any, name: Import) -> str:
    """The repr, if it is an expression of a few harmless kinds that gives an equal value."""
    try:
        written = repr(value)
        tree = ast.parse(written, mode="eval")
    except Exception:  # an author's repr may do anything, and mostly is no Python
        raise _none(value) from None
    if len(written) > 10_000 or not all(isinstance(node, _HARMLESS) for node in ast.walk(tree)):
        raise _none(value)
    roots = {node.id: _root(node.id, value) for node in ast.walk(tree) if isinstance(node, ast.Name)}
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    if not all(home(_resolved(one, roots)) in _CALLED for one in calls):
        raise _none(value)
    try:
        again = eval(compile(tree, "<repr>", "eval"), dict(roots))
    except Exception:  # as above
        raise _none(value) from None
    if type(again) is not type(value) or not same(again, value):
        raise _none(value)

    class Named(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            renamed = ast.parse(name(node.id, roots[node.id]), mode="eval").body
            return ast.copy_location(renamed, node)

    return ast.unparse(Named().visit(tree))


def _resolved(expression: ast.expr, roots: Mapping[str, Any]) -> Any:
    if isinstance(expression, ast.Attribute):
        return getattr(_resolved(expression.value, roots), expression.attr, None)
    return roots[expression.id] if isinstance(expression, ast.Name) else None


def _root(first: str, value: Any) -> Any:
    """What a name in the repr of *value* stands for."""
    kind, modules = type(value), sys.modules
    builtin = getattr(builtins, first, None)
    if isinstance(builtin, type):
        return builtin
    if kind.__module__.split(".")[0] == first:  # datetime.datetime(2013, 7, 1): the module, not the class
        return modules.get(first)
    if kind.__name__ == first:
        return kind
    return getattr(modules.get(kind.__module__), first, None) or modules.get("numpy" if first == "np" else first)


def _none(value: Any) -> NoText:
    return NoText(f"a value of type {type(value).__name__} has no text that Python reads back as the same")
