"""What a notebook's ``parameters`` cell declares, and which values may be given for it.

Read with Python's own parser: a line-wise regular expression (papermill's way) loses ``s = "a=b"`` and
``x: None | str = None``. The cell is never executed, so an annotation is matched by its words, not by what they
mean in the notebook; one that is not understood accepts every value.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from flowkit.errors import NotebookError, ParameterError

#: A parameter of this name is filled by flowkit with the time of the firing. By hand it is given as ISO text.
SCHEDULED_FOR = "scheduled_for"

MAX_DEPTH = 20  # of nested lists and dicts
MAX_BITS = 14_000  # of an int: Python writes at most 4,300 decimal digits


@dataclass(frozen=True, slots=True)
class Parameter:
    """A name that the cell assigns or annotates at its top level."""

    name: str
    annotation: str | None = None  #: as written, on one line
    default: str | None = None  #: source of the default; None: it has none, a value must be given
    value: Any = ...  #: the default itself if it is a literal, else ``...``: flowkit does not run the cell
    help: str = ""  #: the comment behind it

    @property
    def type(self) -> str:
        """The annotation, else the type of the literal default; ``Any`` where that says nothing (None, a call).

        An int fits float, as for a type checker; a bool is no int, and a float no int.
        """
        if self.annotation is not None:
            return self.annotation
        if self.name == SCHEDULED_FOR:
            return "datetime | None"
        kind = type(self.value).__name__
        return kind if kind in _FITS and self.value is not None else "Any"

    def check(self, value: Any) -> Any:
        """The value, if it may be given.

        Only what JSON can hold (and nan and the infinities), of exactly these types: what else has a repr would run
        as code in the notebook. ``date`` and ``datetime`` take ISO 8601 text, which arrives as that text.
        """
        if fault := _not_plain(value):
            raise ParameterError(f"parameter {self.name!r} {fault}")
        if not _fits(value, self.type):
            raise ParameterError(self._mismatch(value))
        return value

    def from_text(self, text: str) -> Any:
        """The value that the command line means, by the declared type.

        str takes the text as it is; bool takes true, false, yes, no, 1, 0; list and dict take JSON or a Python literal;
        None is ``null`` or ``None``, where it is allowed. Of a union the narrowest member that fits: ``5`` for
        ``int | str`` is 5. Without a type it is JSON if it reads as JSON, else the text.
        """
        for kind in sorted(_members(_tree(self.type)), key=_narrowness):
            for value in _readings(text, kind):
                if _fits_one(value, kind):
                    return self.check(value)
        raise ParameterError(self._mismatch(text))

    def _mismatch(self, value: Any) -> str:
        names = {_word(kind) for kind in _members(_tree(self.type))}
        remedy = "; write a time as ISO 8601 text, such as '2013-07-01'" if names & {"date", "datetime"} else ""
        return f"parameter {self.name!r} takes {self.type}, not {shown(value)}{remedy}"


def declared(source: str, notebook: str) -> tuple[Parameter, ...]:
    """The parameters of a Python cell, in the order of the cell; *notebook* is its name, for errors.

    ``name = default``, ``name: type = default  # help`` and ``name: type`` count, at the top level only. Tuple targets,
    other statements and names like ``__all__`` do not.
    """
    module, source = _parse(source, notebook)
    comments = _comments(source)
    found: dict[str, Parameter] = {}
    for statement in module.body:
        comment = comments.get(statement.end_lineno or 0) or comments.get(statement.lineno, "")
        for name, annotation, default in _assigned(statement):
            before = found.get(name, Parameter(name))
            found[name] = Parameter(
                name,
                annotation=before.annotation if annotation is None else _unquoted(annotation),
                default=before.default if default is None else ast.get_source_segment(source, default),
                value=before.value if default is None else _literal(default),
                help=comment or before.help,
            )
    return tuple(found.values())


def shown(value: Any, limit: int = 60) -> str:
    """A value as an error shows it: on one line, and not too long a one."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:40]}… ({len(text):,} characters)"


# The cell


_MAGIC = re.compile(r"\s*([%!?]|[\w.]+\?+\s*$|[\w, ]+=\s*[%!])")


def _parse(source: str, notebook: str) -> tuple[ast.Module, str]:
    """The cell as a tree, and the source it was made of: IPython's own lines replaced."""
    lines = source.split("\n")
    for _ in range(100):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # of the author's "\d": shown when the cell runs
                return ast.parse("\n".join(lines)), "\n".join(lines)
        except SyntaxError as error:
            # Only a line that Python cannot read is taken for a magic: one that looks like it may stand in a string.
            at = error.lineno or 1
            line = lines[at - 1] if at <= len(lines) else ""
            if not _MAGIC.match(line):
                where = f"{error.msg} in its line {at}: {shown(line.strip())}"
                raise NotebookError(f"the parameters cell of {notebook} is not Python: {where}") from None
            lines[at - 1] = line[: len(line) - len(line.lstrip())] + "pass"
        except (ValueError, RecursionError, MemoryError) as error:  # a NUL character; nested too deeply
            raise NotebookError(f"the parameters cell of {notebook} cannot be read: {error}") from None
    raise NotebookError(f"the parameters cell of {notebook} has more than 100 IPython lines; keep it to assignments")


def _comments(source: str) -> dict[int, str]:
    """Comments by line number, counted from 1."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {at.start[0]: at.string.lstrip("#").strip() for at in tokens if at.type == tokenize.COMMENT}


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, ast.expr | None, ast.expr | None]]:
    """Name, annotation and default of each parameter in a statement."""
    match statement:
        case ast.Assign(targets=targets):
            for target in targets:
                if isinstance(target, ast.Name) and not _dunder(target.id):
                    yield target.id, None, statement.value
        case ast.AnnAssign(target=ast.Name(id=name)) if not _dunder(name):
            yield name, statement.annotation, statement.value


def _dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _unquoted(annotation: ast.expr) -> str:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return " ".join(annotation.value.split())
    return ast.unparse(annotation)


def _literal(default: ast.expr) -> Any:
    try:
        return ast.literal_eval(default)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return ...


# Values


def _not_plain(value: Any, depth: int = 0) -> str | None:
    """What is wrong with a value that JSON cannot hold, with the remedy; None if it is plain."""
    if depth > MAX_DEPTH:
        return f"is nested deeper than {MAX_DEPTH} levels; put such data into a file and give its path"
    kind = type(value)  # exactly: a subclass may have a repr of its own, which would run in the notebook
    if value is None or kind is bool or kind is float:
        return None
    if kind is int:
        too_long = value.bit_length() > MAX_BITS
        return "is an int of more than 4,200 digits; give it as a str" if too_long else None
    if kind is str:
        return None if _encodable(value) else "has half of a surrogate pair, which is no text; give valid Unicode"
    if kind is list:
        return next(filter(None, (_not_plain(item, depth + 1) for item in value)), None)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                return f"has a dict with the key {shown(key)}; keys must be str"
            if fault := _not_plain(key, depth + 1) or _not_plain(item, depth + 1):
                return fault
        return None
    return f"cannot be given a {_full_name(kind)}; {_remedy(value)}"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _full_name(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _remedy(value: Any) -> str:
    if isinstance(value, date):
        return "give its .isoformat()"
    if isinstance(value, tuple | set | frozenset):
        return "give a list"
    if hasattr(value, "tolist"):  # numpy, pandas
        return "give its .tolist()"
    if isinstance(value, bytes | bytearray):
        return "give its .decode()"
    return "give None, bool, int, float, str, list or dict"


# Types, as the words of an annotation


_FITS = {
    "None": lambda value: value is None,
    "NoneType": lambda value: value is None,
    "bool": lambda value: type(value) is bool,
    "int": lambda value: type(value) is int,
    "float": lambda value: type(value) in (float, int),
    "str": lambda value: type(value) is str,
    "list": lambda value: type(value) is list,
    "dict": lambda value: type(value) is dict,
    "date": lambda value: _iso(date, value),
    "datetime": lambda value: _iso(datetime, value),
    "Secret": lambda value: type(value) is str,  # its name
}
_ALIASES = {
    **dict.fromkeys(("List", "Sequence", "MutableSequence", "Iterable", "Collection"), "list"),
    **dict.fromkeys(("Dict", "Mapping", "MutableMapping"), "dict"),
    "Timestamp": "datetime",
}
_NARROWNESS = ("None", "NoneType", "Literal", "bool", "int", "float", "date", "datetime", "list", "dict")


def _tree(text: str) -> ast.expr:
    """The annotation as an expression; ``Any`` for what cannot be read."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Name("Any")


def _members(kind: ast.expr) -> Iterator[ast.expr]:
    """The members of a union, flat; a type that is no union is its own only member."""
    match kind:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            yield from _members(left)
            yield from _members(right)
        case ast.Constant(value=str() as quoted):
            yield from _members(_tree(quoted))
        case ast.Subscript(slice=inner) if _word(kind) in ("Union", "Optional", "Annotated", "Final", "Required"):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            for part in parts if _word(kind) == "Union" else parts[:1]:
                yield from _members(part)
            if _word(kind) == "Optional":
                yield ast.Constant(None)
        case _:
            yield kind


def _word(kind: ast.expr) -> str:
    """The name that says what it is: ``list`` for ``list[int]`` and for ``typing.List``."""
    match kind:
        case ast.Constant(value=None):
            return "None"
        case ast.Subscript(value=outer):
            return _word(outer)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return _ALIASES.get(name, name)
    return ""


def _fits(value: Any, kind: ast.expr | str) -> bool:
    return any(_fits_one(value, member) for member in _members(_tree(kind) if isinstance(kind, str) else kind))


def _fits_one(value: Any, kind: ast.expr) -> bool:
    word = _word(kind)
    inside = kind.slice if isinstance(kind, ast.Subscript) else None
    parts = inside.elts if isinstance(inside, ast.Tuple) else [inside] if inside is not None else []
    if word == "Literal":
        return any(type(value) is type(choice) and value == choice for choice in map(_literal, parts))
    if word not in _FITS:
        return True
    if not _FITS[word](value):
        return False
    if word == "list" and len(parts) == 1:
        return all(_fits(item, parts[0]) for item in value)
    if word == "dict" and len(parts) == 2:
        return all(_fits(item, parts[1]) for item in value.values())
    return True


def _iso(kind: type[date], value: Any) -> bool:
    if type(value) is not str:
        return False
    try:
        kind.fromisoformat(value)
    except ValueError:
        return False
    return True


# Text of the command line


def _narrowness(kind: ast.expr) -> int:
    """In which order a union's members try to read a text: str after all that can refuse one, unknown types last."""
    word = _word(kind)
    return _NARROWNESS.index(word) if word in _NARROWNESS else len(_NARROWNESS) + (word != "str")


def _readings(text: str, kind: ast.expr) -> Iterator[Any]:
    """What the text may mean as this type, the likeliest first. Whether it fits is asked later."""
    match _word(kind):
        case "None" | "NoneType":
            if text in ("null", "None"):
                yield None
        case "bool":
            if text.lower() in _BOOLS:
                yield _BOOLS[text.lower()]
        case "int":
            yield from _number(int, text)
        case "float":
            yield from _number(float, text)
        case "list" | "dict":
            yield from _json(text)
            yield from _python(text)
        case "Literal":
            yield text
            yield from _json(text)
            yield from _python(text)
        case "str" | "date" | "datetime" | "Secret":
            yield text
        case _:
            yield from _json(text)
            yield from [_WORDS[text]] if text in _WORDS else []
            yield text


_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_WORDS = {"None": None, "True": True, "False": False}


def _number(kind: type[int] | type[float], text: str) -> Iterator[int | float]:
    try:
        yield kind(text)
    except ValueError:
        return


def _json(text: str) -> Iterator[Any]:
    try:
        yield json.loads(text)
    except (ValueError, RecursionError):
        return


def _python(text: str) -> Iterator[Any]:
    try:
        yield ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return
