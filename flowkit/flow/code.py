"""A flow as the Python an author would write for it, one definition a cell.

What a function is comes from its own source; what the flow makes of it (names, edges, constants, options) from its
node. So the text says what the flow *is*, however it was put together, and running it gives the same flow.
"""

from __future__ import annotations

import ast
import builtins
import dis
import functools
import inspect
import itertools
import keyword
import linecache
import sys
import textwrap
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from flowkit.errors import GraphError
from flowkit.family import DEPLOYMENT
from flowkit.flow import literal, node
from flowkit.flow.child import Child
from flowkit.flow.graph import same
from flowkit.flow.literal import quoted
from flowkit.flow.node import Node

if TYPE_CHECKING:
    from flowkit.flow.flow import Flow

_WIDE = 100  # a call longer than this has an argument a line

#: Keywords of ``Flow.add``, which a parameter of the same name cannot be.
_OPTIONS = ("name", "outputs", "map", "retries", "delay", "timeout", "checkpoint", "cache", "limit", "schema", "inputs")


def source(flow: Flow, variable: str | None = None) -> str:
    """All cells as one text: calls follow each other, definitions stand apart.

    Args:
        variable: what the flow shall be called; what the notebook calls it, or ``flow``, if nothing is said.
    """
    found = cells(flow, variable)
    text = found[0]
    for before, cell in itertools.pairwise(found):
        text += ("\n" if _is_line(before) and _is_line(cell) else "\n\n\n") + cell
    return text + "\n"


def cells(flow: Flow, variable: str | None = None) -> list[str]:
    """The imports and the flow itself first, then a definition each; no cell ends with a newline."""
    return _Writer(flow, variable or variable_of(flow)).cells()


class _Writer:
    def __init__(self, flow: Flow, variable: str) -> None:
        self._flow = flow
        self._nodes = [wired.node for wired in flow.graph.nodes]
        self._variable = variable
        self._written = {
            id(one.function): _Written.of(one, self._variable)
            for one in self._nodes
            if one.child is None and not _library(one)
        }
        self._names: dict[str, Any] = {"fk": sys.modules["flowkit"], self._variable: flow}
        self._imports = {"fk": "import flowkit as fk"}
        self._cells: list[str] = []
        self._defined: dict[str, str] = {}  # name -> text of what was defined under it last
        self._missing: dict[str, str] = {}
        self._future = False

    def cells(self) -> list[str]:
        for function in self._written.values():  # so that no import takes a name that the notebook uses
            self._names[function.name] = function.function
        for function in list(self._written.values()):
            for name, thing in function.needs():
                self._names.setdefault(name, thing)
        for one in self._nodes:
            self._write(one)
        return [self._first(), *self._cells]

    def _first(self) -> str:
        future = ["from __future__ import annotations", ""] if self._future else []
        missing = [f"# {name} is {what}: it stands elsewhere in the notebook" for name, what in self._missing.items()]
        lines = [*future, *sorted(set(self._imports.values()), key=_sorted_as), "", *missing]
        return "\n".join([*lines, f"{self._variable} = fk.Flow({quoted(self._flow.name)})"])

    def _write(self, one: Node) -> None:
        if one.child is not None:
            self._cells.append(self._added(one, _notebook(one.child)))
            return
        function = self._written.get(id(one.function))
        if function is None:
            self._cells.append(self._added(one, literal.reference(one.function, self._name)))
            return
        by_name = matches(one, by_name=True)
        if self._defined.get(function.name) == function.text:
            self._cells.append(self._decorated(one, function.name) if by_name else self._added(one, function.name))
        elif by_name:
            self._define(function, self._decorator(one))
        else:
            self._define(function, None)
            self._cells.append(self._added(one, function.name))

    def _define(self, function: _Written, decorator: str | None) -> None:
        self._defined[function.name] = function.text
        self._future = self._future or function.future
        for name, thing in function.needs():
            self._need(name, thing, function)
        self._cells.append(function.definition(decorator))

    def _need(self, name: str, thing: Any, whose: _Written | None = None) -> None:
        """What a function of the notebook uses of the notebook's globals."""
        if name == self._variable or thing is self._flow or name in self._imports or name in self._defined:
            return
        if statement := _import(name, thing):
            self._imports[name] = statement
            return
        if isinstance(thing, FunctionType):
            if id(thing) in self._written and (whose is None or name not in whose.needed_at_once):
                return  # a node, which has its own place
            try:
                other = self._written.get(id(thing)) or _Written(thing, self._variable, f"function {name!r}")
            except GraphError:
                self._missing.setdefault(name, "a function without a source of its own")
                return
            if self._defined.get(other.name) != other.text:
                self._define(other, None)
            if other.name != name:
                self._defined[name] = other.name
                self._cells.append(f"{name} = {other.name}")
            return
        if isinstance(thing, type) and (source := _class_source(thing)):
            self._defined[name] = source
            self._cells.append(source)
            return
        if not _is_assigned(name, thing):
            self._missing.setdefault(name, f"of type {type(thing).__name__}")
            return
        written = self._defined[name] = literal.text(thing, self._name)
        self._cells.append(f"{name} = {written}")

    # -- one node ------------------------------------------------------------------------------------------------------

    def _decorator(self, one: Node) -> str:
        arguments = self._node_arguments(one)
        return _call(f"@{self._variable}.node", arguments) if arguments else f"@{self._variable}.node"

    def _decorated(self, one: Node, function: str) -> str:
        arguments = self._node_arguments(one)
        if not arguments:
            return f"{self._variable}.node({function})"
        return _call(f"{self._variable}.node", arguments) + f"({function})"

    def _added(self, one: Node, function: str) -> str:
        if not matches(one, by_name=False):
            return self._decorated(one, function)
        name = [] if getattr(one.function, "__name__", None) == one.name else [quoted(one.name)]
        given = self._inputs(one)
        plain = all(key.isidentifier() and not keyword.iskeyword(key) and key not in _OPTIONS for key in given)
        inputs = [f"{key}={value}" for key, value in given.items()] if plain else [_inputs(given)]
        return _call(f"{self._variable}.add", [function, *name, *inputs, *self._options(one)])

    def _node_arguments(self, one: Node) -> list[str]:
        given = self._inputs(one)
        return ([_inputs(given)] if given else []) + self._options(one)

    def _inputs(self, one: Node) -> dict[str, str]:
        """parameter -> the text of what is bound to it, in the order of the function's parameters."""
        found = {port.name: quoted(port.source) for port in one.ports if port.bound}
        for key, constant in one.constants.items():
            try:
                written = literal.text(constant, self._name)
            except literal.NoText as error:
                raise GraphError(
                    f"node {one.name!r} is given {key!r}, and {error}; let a node return it, or give it to run()"
                ) from None
            found[key] = f"fk.value({written})" if isinstance(constant, str) else written
        order = list(inspect.signature(one.function).parameters)
        return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))

    def _options(self, one: Node) -> list[str]:
        several = {"outputs": one.outputs, "map": one.map}
        found = {key: names[0] if len(names) == 1 else names for key, names in several.items() if names}
        numbers: dict[str, Any] = {
            "retries": (one.retries, 0),
            "delay": (one.delay, 1.0),
            "timeout": (one.timeout, None),
        }
        numbers |= {"checkpoint": (one.checkpoint, True), "cache": (one.cache, None), "limit": (one.limit, None)}
        changed = {key: value for key, (value, default) in numbers.items() if value != default}
        written = [f"{key}={literal.text(value, self._name)}" for key, value in (found | changed).items()]
        return written if one.schema is None else [*written, f"schema={self._schema(one)}"]

    def _schema(self, one: Node) -> str:
        """By the name it has in the notebook, or those of its outputs."""
        if (name := schema_name(one, one.schema)) is not None:
            self._need(name, one.schema)
            return name
        if not isinstance(one.schema, Mapping):
            raise GraphError(f"node {one.name!r} has a schema without a name; assign it to a variable of the notebook")
        written = []
        for output, schema in one.schema.items():
            if (name := schema_name(one, schema)) is None:
                raise GraphError(
                    f"node {one.name!r} has a schema for {output!r} without a name; assign it to a variable of the "
                    "notebook"
                )
            self._need(name, schema)
            written.append(f"{literal.quoted(output)}: {name}")
        return f"{{{', '.join(written)}}}"

    def _name(self, first: str, thing: Any) -> str:
        """How *thing* is written here, which the notebook has or which is imported for it."""
        if getattr(builtins, first, None) is thing and first not in self._names:
            return first
        if first not in self._names or self._names[first] is thing:
            statement = _import(first, thing)
            if statement or first in self._names or first in self._defined:
                self._names[first] = thing
                if statement:
                    self._imports[first] = statement
                return first
        if isinstance(thing, ModuleType):
            return self._name(f"{first}_", thing)
        module = literal.home(thing)
        if module is None:
            raise literal.NoText(f"{first!r} cannot be imported")
        self._imports[module[0]] = f"import {module[0]}"
        return f"{module[0]}.{module[1]}"


class _Written:
    """A function of the notebook, with its text."""

    def __init__(self, function: Any, variable: str, whose: str) -> None:
        """
        Args:
            whose: what an error is about.
        """
        self.function = function
        author = node.author(function)
        if isinstance(function, functools.partial):
            inner = getattr(function.func, "__name__", "function")
            raise GraphError(
                f"{whose} is a partial, which has no text of its own; bind its values as inputs: flow.add({inner}, …)"
            )
        if not isinstance(author, FunctionType) or isinstance(function, type):
            kind = "class" if isinstance(function, type) else type(function).__name__
            raise GraphError(
                f"{whose} is a {kind} of the notebook, which cannot be written; wrap it in a def, or import it"
            )
        if author.__name__ == "<lambda>":
            raise GraphError(f"{whose} is a lambda, which has no text of its own; write it as a def")
        if author.__code__.co_freevars:
            names = ", ".join(author.__code__.co_freevars)
            raise GraphError(
                f"{whose} was made inside another function, whose {names} it uses; define it in a cell of its own"
            )
        self.name = author.__name__
        self.future = bool(author.__code__.co_flags & 0x1000000)  # from __future__ import annotations
        self._author = author
        definition, lines = _definition(author, whose)
        kept, self._place = _without_nodes(definition, author.__globals__, variable)
        self._above = ["\n".join(lines[one.lineno - 1 : one.end_lineno]) for one in kept]
        self._body = "\n".join(lines[definition.lineno - 1 : definition.end_lineno]).rstrip()
        if author is not function and not self._above:
            raise GraphError(f"{whose} is wrapped by something that is not in its text; decorate its def with it")
        self.text = self.definition(None)
        #: Names that must be there before the function is defined, and not only when it is called.
        self.needed_at_once = [*dict.fromkeys(_names_around(definition, kept))]

    @classmethod
    def of(cls, one: Node, variable: str) -> _Written:
        return cls(one.function, variable, f"node {one.name!r}")

    def definition(self, decorator: str | None) -> str:
        above = [*self._above[: self._place], *([decorator] if decorator else []), *self._above[self._place :]]
        return "\n".join([*above, self._body])

    def needs(self) -> Iterator[tuple[str, Any]]:
        """What it uses of its notebook: (name, object)."""
        known = self._author.__globals__
        for name in dict.fromkeys([*self.needed_at_once, *_globals_used(self._author.__code__)]):
            if name in known and known[name] is not self._author and name != "__builtins__":
                yield name, known[name]


def _definition(author: FunctionType, whose: str) -> tuple[ast.FunctionDef, list[str]]:
    try:
        source = textwrap.dedent(inspect.getsource(author))
        found = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        found = None
    if not isinstance(found, ast.FunctionDef) or found.name != author.__code__.co_name:
        raise GraphError(f"the source of {whose} is gone; run the cell that defines it again")
    return found, source.splitlines()


def _without_nodes(definition: ast.FunctionDef, known: Mapping[str, Any], variable: str) -> tuple[list[ast.expr], int]:
    """Its decorators but ``@flow.node``, and the place among them where that stood; on top if it did not."""
    kept: list[ast.expr] = []
    place = 0
    for one in definition.decorator_list:
        called = one.func if isinstance(one, ast.Call) else one
        if isinstance(called, ast.Attribute) and called.attr == "node" and isinstance(called.value, ast.Name):
            owner = known.get(called.value.id)
            if called.value.id == variable or owner is None or type(owner).__name__ == "Flow":
                place = len(kept)
                continue
        kept.append(one)
    return kept, place


def _names_around(definition: ast.FunctionDef, decorators: list[ast.expr]) -> Iterator[str]:
    """Names in its decorators, defaults and annotations."""
    given = definition.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    annotations = [one.annotation for one in every if one is not None] + [definition.returns]
    for part in [*decorators, *given.defaults, *given.kw_defaults, *annotations]:
        for one in ast.walk(part) if part is not None else ():
            if isinstance(one, ast.Name):
                yield one.id


def _globals_used(code: CodeType) -> Iterator[str]:
    for one in dis.get_instructions(code):
        if one.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield one.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_used(constant)


def _import(name: str, thing: Any) -> str | None:
    """The statement that gives *thing* under *name*."""
    if isinstance(thing, ModuleType):
        module = thing.__name__
        if sys.modules.get(module) is not thing or module == "__main__":
            return None
        return f"import {module}" if module == name else f"import {module} as {name}"
    found = literal.home(thing) if callable(thing) else None
    if found is None:
        return _import_of_value(name, thing)
    module, inside = found
    if "." in inside:
        return None
    return f"from {module} import {inside}" + ("" if inside == name else f" as {name}")


def _import_of_value(name: str, thing: Any) -> str | None:
    """Of what says where it is from and is no function or class, such as ``typing.Optional``."""
    module = getattr(thing, "__module__", None)
    owner = sys.modules.get(module) if isinstance(module, str) and module != "__main__" else None
    return f"from {module} import {name}" if owner and getattr(owner, name, None) is thing else None


def _class_source(kind: type) -> str | None:
    """A class of the notebook, found by one of its methods: Python itself knows only where functions were written."""
    methods = [one for one in vars(kind).values() if isinstance(one, FunctionType)]
    for file in dict.fromkeys(one.__code__.co_filename for one in methods):
        text = "".join(linecache.getlines(file))
        try:
            body = ast.parse(text).body
        except SyntaxError:
            continue
        for one in body:
            if isinstance(one, ast.ClassDef) and one.name == kind.__name__:
                first = min([one.lineno, *(decorator.lineno for decorator in one.decorator_list)])
                return "\n".join(text.splitlines()[first - 1 : one.end_lineno])
    return None


def _is_assigned(name: str, value: Any) -> bool:
    """Whether a cell assigns this very literal. What a cell computed may be a secret, or of this machine alone."""
    cells = [entry[2] for entry in list(linecache.cache.values()) if len(entry) == 4 and entry[1] is None]
    for lines in cells:
        text = "".join(lines)
        if name not in text:
            continue
        try:
            body = ast.parse(text).body
        except SyntaxError:
            continue
        for one in body:
            targets = (
                one.targets if isinstance(one, ast.Assign) else [one.target] if isinstance(one, ast.AnnAssign) else []
            )
            if any(isinstance(target, ast.Name) and target.id == name for target in targets) and _gives(one, value):
                return True
    return False


def _gives(assignment: Any, value: Any) -> bool:
    try:
        found = ast.literal_eval(assignment.value)
    except (ValueError, TypeError, SyntaxError):
        return False
    return type(found) is type(value) and same(found, value)


def _notebook(child: Child) -> str:
    """The call that gives it, as it is looked for in the source when a notebook is deployed."""
    if child.target.startswith(DEPLOYMENT):
        return f"fk.notebook(deployment={quoted(child.target.removeprefix(DEPLOYMENT))})"
    return f"fk.notebook({quoted(child.target)})"


def _library(one: Node) -> bool:
    return literal.home(one.function) is not None


def schema_name(one: Node, schema: Any) -> str | None:
    """The name of a schema in the notebook, or where the node's function is."""
    for known in (getattr(node.author(one.function), "__globals__", {}), vars(sys.modules["__main__"])):
        for name, thing in known.items():
            if thing is schema and not name.startswith("_"):
                return str(name)
    return None


def matches(one: Node, *, by_name: bool) -> bool:
    """Whether its function would become this node in this way, ``@flow.node`` or ``flow.add``."""
    if by_name and getattr(one.function, "__name__", None) != one.name:
        return False
    bound: dict[str, Any] = {port.name: port.source for port in one.ports if port.bound}
    bound |= {key: node.Value(constant) for key, constant in one.constants.items()}
    again = node.make(one.function, one.name, inputs=bound, by_name=by_name, **node.DEFAULTS)
    return [(port.name, port.source) for port in again.ports] == [(port.name, port.source) for port in one.ports]


def _is_line(cell: str) -> bool:
    return not cell.startswith(("@", "def ", "class ", "import ", "from "))


def variable_of(flow: Flow) -> str:
    """What the notebook calls the flow."""
    known = vars(sys.modules["__main__"])
    found = next((name for name, one in known.items() if one is flow and not name.startswith("_")), "flow")
    functions = {getattr(wired.node.function, "__name__", "") for wired in flow.graph.nodes}
    return found if found not in functions else f"{found}_"


def _inputs(given: Mapping[str, str]) -> str:
    pairs = [f"{quoted(key)}: {value}" for key, value in given.items()]
    line = f"inputs={{{', '.join(pairs)}}}"
    if len(line) + 5 <= _WIDE:
        return line
    return "\n".join(["inputs={", *(f"        {pair}," for pair in pairs), "    }"])


def _call(head: str, arguments: list[str]) -> str:
    line = f"{head}({', '.join(arguments)})"
    if len(line) <= _WIDE and "\n" not in line:
        return line
    return "\n".join([f"{head}(", *(f"    {one}," for one in arguments), ")"])


def _sorted_as(statement: str) -> tuple[bool, str]:
    return statement.startswith("from "), statement
