"""What a computation is: a digest of its code and of all that the code names, and a digest of a value.

The code is what Python compiled, not the source: it is what runs, a lambda has it too, and comments, blanks and
docstrings are not in it. What it names is followed through the notebook and local modules: functions, classes,
constants, closures, defaults, decorators. Installed libraries count by their version.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import importlib.util
import os
import sys
import types
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

#: Goes into every key: a digest that is made differently, or another Python, knows none of the old results.
VERSION = f"1 python {sys.version_info[0]}.{sys.version_info[1]}"

#: More objects than this take longer to compare than most nodes take to run.
MOST = 500_000

#: By these a function reaches what no reading of its code can find.
_OPEN_ENDED = frozenset({"eval", "exec", "globals", "locals", "vars", "__import__", "compile"})

#: Of a class, what says nothing about how it behaves.
_UNTOLD = frozenset(
    {
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__abstractmethods__"),
        *("__static_attributes__", "__dataclass_fields__", "__dataclass_params__", "__match_args__", "_abc_impl"),
    }
)

_ATOMS = (type(None), bool, int, complex, str, bytes, types.EllipsisType, types.NotImplementedType)

_MOVED = ("LOAD_ATTR", "LOAD_METHOD")
_NAMED = ("LOAD_GLOBAL", "LOAD_NAME")
_HAS_DOCSTRING = 0x4000000  # a flag of Python 3.13's
_PADDING = frozenset({"NOP", "CACHE", "EXTENDED_ARG"})


class Unidentified(Exception):
    """There is no telling whether this will be the same next time; the message says what and why."""


#: id of a table -> its digest and the table itself, which is so kept alive.
Tables = dict[int, tuple[str, Any]]


def of_code(function: Callable[..., Any], tables: Tables | None = None) -> str:
    """The digest of a callable and of everything it names, recursively.

    Args:
        tables: remembers the digests of arrays and frames, for as long as nobody can change them: many nodes may name
            the same one.
    """
    return _digest(function, tables)


def of_value(value: Any) -> str:
    """The digest of a value's content, the same in every process."""
    return _digest(value)


def of_parts(*parts: str) -> str:
    """The digest of digests and names, in order."""
    found = hashlib.sha256(VERSION.encode())
    for part in parts:
        found.update(b"%d:" % len(part))
        found.update(part.encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def _digest(thing: Any, tables: Tables | None = None) -> str:
    walk = _Walk(tables=tables)
    try:
        walk.take(thing)
    except RecursionError:
        raise Unidentified(f"a {type(thing).__name__} is nested too deep") from None
    return walk.digest()


class _Walk:
    """One pass over an object and what it refers to. Each function, class and mutable object is told once; where it
    turns up again, by its number."""

    def __init__(self, budget: list[int] | None = None, tables: Tables | None = None) -> None:
        self._hash = hashlib.sha256()
        self._numbers: dict[object, int] = {}
        self._alive: list[Any] = []  # what was made on the way: its id must not be given to another
        self._budget = budget or [MOST]
        self._tables: Tables = {} if tables is None else tables

    def digest(self) -> str:
        return self._hash.hexdigest()

    def take(self, thing: Any) -> None:
        self._budget[0] -= 1
        if self._budget[0] < 0:
            raise Unidentified("it refers to more objects than can be compared in reasonable time")
        kind = type(thing)
        if kind in _ATOMS:
            text = f"{thing:x}" if kind is int else repr(thing)  # decimal digits are limited, hexadecimal ones are not
            self._tell(kind.__name__, thing if kind in (str, bytes) else text)
        elif kind is float:
            self._tell("float", thing.hex())
        elif kind is tuple:
            self._several("tuple", thing)
        elif kind in (set, frozenset):
            self._several(kind.__name__, sorted(self._apart(one) for one in thing))
        elif isinstance(thing, PurePath):
            self._tell(kind.__name__, os.fspath(thing))
        elif kind is types.CodeType:
            self._code(thing, {})
        elif self._new(thing):
            self._compound(thing, kind)

    def _compound(self, thing: Any, kind: type) -> None:
        if kind is list:
            self._several("list", thing)
        elif kind is dict:
            self._tell("dict", str(len(thing)))
            for key, value in thing.items():
                self.take(key)
                self.take(value)
        elif kind is types.FunctionType:
            self._function(thing)
        elif kind is types.MethodType:
            self._method(thing)
        elif kind is types.BuiltinFunctionType:
            self._builtin(thing)
        elif kind is functools.partial:
            self._several("partial", (thing.func, thing.args, dict(thing.keywords)))
        elif kind is types.ModuleType:
            self._module(thing.__name__)
        elif kind is property:
            self._several("property", (thing.fget, thing.fset, thing.fdel))
        elif kind in (classmethod, staticmethod):
            self._several(kind.__name__, (thing.__func__,))
        elif kind is types.MappingProxyType:
            self._several("mapping", (dict(thing),))
        elif isinstance(thing, type):
            self._class(thing)
        elif kind is functools.cached_property:
            self._several("cached property", (thing.func,))
        elif kind.__module__ == "functools" and hasattr(thing, "__wrapped__"):
            self._several("functools", (thing.__wrapped__,))  # lru_cache's: what it holds is no part of what it does
        elif not self._table(thing, kind):
            self._instance(thing, kind)

    # -- code ---------------------------------------------------------------------------------------------------------

    def _function(self, function: types.FunctionType) -> None:
        version = _library(function.__module__)
        if version is not None:
            self._tell("library", f"{function.__module__}.{function.__qualname__} {version}")
            self._closure(function, tolerant=hasattr(function, "__wrapped__"))
            if hasattr(function, "__wrapped__"):
                self.take(function.__wrapped__)
            return
        self._tell("function", "")
        self.take(function.__defaults__)
        self.take(function.__kwdefaults__)
        self._closure(function)
        self._code(function.__code__, function.__globals__)
        if hasattr(function, "__wrapped__"):
            self.take(function.__wrapped__)

    def _closure(self, function: types.FunctionType, *, tolerant: bool = False) -> None:
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self._tell("cell", name)
            try:
                held = cell.cell_contents
            except ValueError:  # not bound yet
                continue
            try:
                self.take(held)
            except Unidentified:
                if not tolerant:  # a library's decorator may hold a lock; what it decorates is told beside it
                    raise

    def _code(self, code: types.CodeType, names: dict[str, Any]) -> None:
        """What it does, without where it stands; then what it names."""
        steps = [step for step in dis.get_instructions(code) if step.opname not in _PADDING]
        starts = [step.offset for step in steps]
        told = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & ~_HAS_DOCSTRING)
        self._tell("code", repr((*told, code.co_varnames, code.co_freevars, code.co_cellvars)))
        nested: list[types.CodeType] = []
        for step in steps:
            if isinstance(step.argval, types.CodeType):
                self._tell(step.opname, "code")
                nested.append(step.argval)
            elif step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
                self._tell(step.opname, str(bisect_left(starts, step.argval)))
            elif step.opcode in dis.hasconst:
                self._tell(step.opname, "")
                self.take(step.argval)
            else:
                self._tell(step.opname, f"{step.arg if step.opcode not in _BY_NAME else ''} {step.argrepr}")
        for entry in dis.Bytecode(code).exception_entries:  # type: ignore[attr-defined]
            around = [bisect_left(starts, at) for at in (entry.start, entry.end, entry.target)]
            self._tell("except", f"{around} {entry.depth} {entry.lasti}")
        for one in nested:
            self._code(one, names)
        self._names(steps, names)

    def _names(self, steps: list[dis.Instruction], names: dict[str, Any]) -> None:
        for number, step in enumerate(steps):
            if step.opname in _NAMED:
                self._name(step.argval, [later.argval for later in _attributes(steps[number + 1 :])], names)
            elif step.opname == "IMPORT_NAME" and names:
                level = steps[number - 2].argval if number > 1 else 0
                self._module(_absolute(step.argval, level if isinstance(level, int) else 0, names))

    def _name(self, name: str, attributes: list[str], names: dict[str, Any]) -> None:
        self._tell("name", name)
        if name not in names:
            if name in _OPEN_ENDED and names:
                raise Unidentified(f"its code calls {name}(), so what it depends on cannot be known")
            return  # a builtin, or not there (yet)
        found = names[name]
        if name == "get_ipython":
            return
        while attributes and type(found) is types.ModuleType and _library(found.__name__) is None:
            # Only what is used of a local module counts, so that its other functions may change.
            attribute = attributes.pop(0)
            self._tell("attribute", attribute)
            if not hasattr(found, attribute):
                return
            found = getattr(found, attribute)
        self.take(found)

    def _method(self, method: types.MethodType) -> None:
        self._several("method", (method.__func__, method.__self__))

    def _builtin(self, function: types.BuiltinFunctionType) -> None:
        owner = function.__self__
        module = function.__module__ or (owner.__name__ if isinstance(owner, types.ModuleType) else "builtins")
        self._tell("builtin", f"{module}.{function.__qualname__} {_library(module) or ''}")
        if owner is not None and not isinstance(owner, types.ModuleType | type):
            self.take(owner)

    def _class(self, kind: type) -> None:
        version = _library(kind.__module__)
        self._tell("class", f"{kind.__qualname__} {kind.__module__ + ' ' + version if version is not None else ''}")
        if version is not None:
            return
        self._several("bases", kind.__bases__)
        if type(kind) is not type:
            self.take(type(kind))
        for name in sorted(vars(kind)):
            value = vars(kind)[name]
            if name in _UNTOLD or isinstance(value, types.GetSetDescriptorType | types.MemberDescriptorType):
                continue
            self._tell("member", name)
            try:
                self.take(value)
            except Unidentified:
                if not name.startswith("__"):  # what a metaclass has put there is made of what is told already
                    raise

    def _module(self, name: str) -> None:
        """A module used as a whole: by its version, or a local one by its source and what that imports."""
        version = _library(name)
        self._tell("module", f"{name} {version or ''}")
        if version is None and self._new(("module", name)):
            for part in _source(name):
                if isinstance(part, str):
                    self._tell("source", part)
                else:
                    self._module(part[0])

    # -- values -------------------------------------------------------------------------------------------------------

    def _table(self, thing: Any, kind: type) -> bool:
        """Arrays and frames, each told apart from where it stands. False: it is none."""
        if kind.__module__.partition(".")[0] not in ("numpy", "pandas", "polars", "pyarrow"):
            return False
        if id(thing) not in self._tables:
            walk = _Walk(self._budget)
            if not walk._content(thing, kind):
                return False
            self._tables[id(thing)] = walk.digest(), thing
        self._tell("table", self._tables[id(thing)][0])
        return True

    def _content(self, thing: Any, kind: type) -> bool:
        """By their buffers. Their libraries are there if one of their values is."""
        top = kind.__module__.partition(".")[0]
        if top == "numpy" and kind.__name__ == "ndarray":
            self._array(thing)
        elif top == "pandas" and kind.__name__ in ("DataFrame", "Series", "Index", "RangeIndex", "DatetimeIndex"):
            self._tell("pandas", kind.__name__)
            if kind.__name__ == "DataFrame":
                self._several("frame", [thing.index, thing.columns, dict(thing.attrs)])
                for place in range(thing.shape[1]):
                    self._column(thing.iloc[:, place])
            elif kind.__name__ == "Series":
                self._several("series", [thing.index, thing.name, dict(thing.attrs)])
                self._column(thing)
            else:
                self.take(thing.name)
                self._column(thing)
        elif top == "polars" and kind.__name__ in ("DataFrame", "Series"):
            frame = thing.to_frame() if kind.__name__ == "Series" else thing
            self._tell("polars", f"{kind.__name__} {frame.schema} {frame.shape}")
            self._tell("rows", frame.rechunk().serialize())
        elif top == "pyarrow" and kind.__name__ == "Table":
            self._arrow(thing)
        else:
            return False
        return True

    def _column(self, column: Any) -> None:
        self._tell("column", str(column.dtype))
        arrow = sys.modules.get("pyarrow")
        if hasattr(column.dtype, "num"):  # one of NumPy's
            self._array(column.to_numpy())
            return
        try:
            table = arrow.table({"": arrow.array(column.array)}) if arrow is not None else None
        except Exception:  # it has no such type
            table = None
        if table is not None:
            self._arrow(table)
        else:
            self._instance(column.array, type(column.array))

    def _arrow(self, table: Any) -> None:
        arrow = sys.modules["pyarrow"]
        sink = arrow.BufferOutputStream()
        with arrow.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table.combine_chunks())
        self._tell("arrow", sink.getvalue())

    def _array(self, array: Any) -> None:
        self._tell("array", f"{array.dtype} {array.shape}")
        if array.dtype.hasobject:
            self._several("objects", array.ravel().tolist())
        else:
            contiguous = sys.modules["numpy"].ascontiguousarray(array)
            self._tell("buffer", contiguous.reshape(-1).view("u1").data if array.size else b"")

    def _instance(self, thing: Any, kind: type) -> None:
        """As pickle would take it apart: how it is made, from what, with which state."""
        if kind.__module__.startswith("flowkit.flow.") and kind.__name__ in ("Flow", "Outcome"):
            raise Unidentified(f"its code uses a {kind.__name__}, which changes with every run")
        try:
            reducer = copyreg.dispatch_table.get(kind)
            reduced = reducer(thing) if reducer else thing.__reduce_ex__(4)
        except Exception as error:  # an author's class may raise anything
            raise Unidentified(f"it depends on a {kind.__qualname__}, which cannot be compared ({error})") from error
        if isinstance(reduced, str):
            self._tell("global", f"{getattr(thing, '__module__', '')}.{reduced}")
            return
        parts = [list(part) if isinstance(part, Iterator) else part for part in reduced]
        self._alive.append(parts)
        self._several("instance", parts)

    # -- telling ------------------------------------------------------------------------------------------------------

    def _new(self, thing: Any) -> bool:
        key = thing if type(thing) is tuple else id(thing)
        if key in self._numbers:
            self._tell("again", str(self._numbers[key]))
            return False
        self._numbers[key] = len(self._numbers)
        self._alive.append(thing)
        return True

    def _several(self, what: str, things: Any) -> None:
        kinds = set(map(type, things))
        if len(kinds) == 1 and (bulk := _bulk(kinds.pop(), things)) is not None:
            self._tell(f"{what} alike", str(len(things)))
            self._tell("bulk", bulk)
            return
        self._tell(what, str(len(things)))
        for thing in things:
            self.take(thing)

    def _apart(self, thing: Any) -> str:
        walk = _Walk(self._budget)
        walk.take(thing)
        return walk.digest()

    def _tell(self, what: str, data: Any) -> None:
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        self._hash.update(f"{what} {len(data)} ".encode())
        self._hash.update(data)


def _bulk(kind: type, things: Any) -> str | None:
    """Many numbers or texts of one type at once, a hundred times as fast as one by one."""
    if kind in (int, float):
        convert = "{:x}".format if kind is int else float.hex
        return kind.__name__ + ",".join(map(convert, things))
    if kind is str:
        return "str" + ",".join(map(str, map(len, things))) + ":" + "".join(things)
    return None


#: Operands that are a place in a table of names, which moves when another name comes before: only the name counts.
_BY_NAME = frozenset({*dis.hasname, *dis.haslocal, *dis.hasfree})


def _attributes(steps: list[dis.Instruction]) -> Iterator[dis.Instruction]:
    for step in steps:
        if step.opname not in _MOVED:
            return
        yield step


def _absolute(name: str, level: int, names: dict[str, Any]) -> str:
    if not level:
        return name
    package = (names.get("__package__") or "").split(".")
    return ".".join([*package[: len(package) - level + 1], *([name] if name else [])])


@functools.cache
def _library(module: str | None) -> str | None:
    """Its version if it is installed, or comes with Python; None for the notebook and for local modules."""
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names and top != "__main__":
        return ""
    if top in ("", "__main__", "__mp_main__"):
        return None
    if top == "flowkit":
        return _version("flowkit", None)
    found = sys.modules.get(module or "") or sys.modules.get(top)
    if found is None:
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            return None
        places = [spec.origin or "", *(spec.submodule_search_locations or ())] if spec else []
    else:
        places = [getattr(found, "__file__", None) or "", *getattr(found, "__path__", ())]
    if any(part in ("site-packages", "dist-packages") for place in places for part in place.split(os.sep)):
        return _version(top, found)
    return None


def _version(top: str, module: types.ModuleType | None) -> str:
    stated = getattr(sys.modules.get(top) or module, "__version__", None) if top != "flowkit" else None
    if isinstance(stated, str):
        return stated
    from importlib import metadata  # heavy, and only for a library that does not say it itself

    try:
        return metadata.version(top)
    except metadata.PackageNotFoundError:
        names = metadata.packages_distributions().get(top, [])
        return " ".join(f"{name} {metadata.version(name)}" for name in names)


def _source(name: str) -> Iterator[str | tuple[str]]:
    """The source of a local module without comments and docstrings, and in tuples the modules that it imports."""
    import ast

    try:
        found = sys.modules.get(name)
        spec = found.__spec__ if found is not None and found.__spec__ else importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin or not os.path.isfile(spec.origin):
        return  # not there: the import will fail, and the node with it
    if not spec.origin.endswith(".py"):
        with open(spec.origin, "rb") as file:
            yield hashlib.file_digest(file, "sha256").hexdigest()
        return
    with open(spec.origin, "rb") as file:
        tree = ast.parse(file.read())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str:
                first.value.value = ""
    yield ast.dump(tree)
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name,) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            whole = _absolute(node.module or "", node.level, {"__package__": package})
            yield (whole,)
            yield from ((f"{whole}.{alias.name}",) for alias in node.names if f"{whole}.{alias.name}" in sys.modules)
