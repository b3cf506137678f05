"""Expressions over columns, as text: ``delay > 15 and carrier in ["AA", "UA"]``.

They come from forms, parameters and files, so Python's own ``eval`` is out of the question. The text is parsed by
Python and read node by node; what is not listed here is refused at its place. Nothing is called but the functions
below.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime
from typing import Any

import narwhals as nw

from flowkit.errors import ExpressionError, did_you_mean

_LONGEST = 10_000  # characters

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}

#: name -> (how many arguments, what it makes of them). The first is a column or what was made of one.
FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "abs": (1, lambda x: x.abs()),
    "round": (2, lambda x, digits: x.round(digits)),
    "lower": (1, lambda x: x.str.to_lowercase()),
    "upper": (1, lambda x: x.str.to_uppercase()),
    "strip": (1, lambda x: x.str.strip_chars()),
    "length": (1, lambda x: x.str.len_chars()),
    "contains": (2, lambda x, text: x.str.contains(text, literal=True)),
    "starts_with": (2, lambda x, text: x.str.starts_with(text)),
    "ends_with": (2, lambda x, text: x.str.ends_with(text)),
    "replace": (3, lambda x, old, new: x.str.replace_all(old, new, literal=True)),
    "year": (1, lambda x: x.dt.year()),
    "month": (1, lambda x: x.dt.month()),
    "day": (1, lambda x: x.dt.day()),
    "hour": (1, lambda x: x.dt.hour()),
    "weekday": (1, lambda x: x.dt.weekday()),
    "fill": (2, lambda x, value: x.fill_null(value)),
}
_TIMES = {"date": date.fromisoformat, "time": datetime.fromisoformat}


def read(text: str, columns: Collection[str], values: Mapping[str, Any] | None = None) -> Any:
    """The expression of narwhals that *text* stands for; a constant of Python if it names no column.

    Args:
        values: what other names stand for.

    Raises:
        ExpressionError: it is none; the message shows where.
    """
    return _Reader(text, columns, values or {}).read()


class _Reader:
    def __init__(self, text: str, columns: Collection[str], values: Mapping[str, Any]) -> None:
        self._text = " ".join(text.splitlines()).strip()
        self._columns, self._values = columns, values

    def read(self) -> Any:
        if len(self._text) > _LONGEST:
            raise ExpressionError(f"the expression has {len(self._text)} characters; write one of at most {_LONGEST}")
        try:
            tree = ast.parse(self._text, mode="eval").body
        except SyntaxError as error:
            start = max(0, (error.offset or 1) - 1)
            raise self._wrong(f"it cannot be read: {error.msg}", start, start + 1) from None
        except (ValueError, RecursionError, MemoryError):
            raise ExpressionError("the expression cannot be read; it has a null character, or is too deep") from None
        try:
            return self._value(tree)
        except RecursionError:
            raise ExpressionError("the expression is too deep; compute a part of it as a column of its own") from None

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=None | bool() | int() | float() | str()):
                return node.value
            case ast.Name():
                return self._named(node, node.id)
            case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str())], keywords=[]):
                return self._column(node.args[0], node.args[0].value)  # type: ignore[attr-defined]
            case ast.Call(func=ast.Name(), keywords=[]):
                return self._called(node)
            case ast.List() | ast.Tuple():
                return [self._constant(one) for one in node.elts]
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                return self._combined(node, _ARITHMETIC[type(node.op)], self._value(node.left), self._value(node.right))
            case ast.UnaryOp(op=ast.USub()):
                return self._combined(node, operator.sub, 0, self._value(node.operand))
            case ast.UnaryOp(op=ast.Not()):
                return ~self._truth(node.operand)
            case ast.BoolOp():
                found = self._truth(node.values[0])
                for other in node.values[1:]:
                    found = found & self._truth(other) if isinstance(node.op, ast.And) else found | self._truth(other)
                return found
            case ast.Compare():
                return self._compared(node)
            case ast.IfExp():
                chosen = nw.when(self._truth(node.test)).then(_expression(self._value(node.body)))
                return chosen.otherwise(_expression(self._value(node.orelse)))
        raise self._refused("an expression takes columns, values, operators and functions, and not this", node)

    def _named(self, node: ast.expr, name: str) -> Any:
        if name in self._columns and name in self._values:
            raise self._refused(f"{name!r} is a column and a value; call the value something else", node)
        return self._values[name] if name in self._values else self._column(node, name)

    def _column(self, node: ast.expr, name: str) -> nw.Expr:
        if name not in self._columns:
            hint = did_you_mean(name, [*self._columns, *self._values]) or f"; there are {', '.join(self._columns)}"
            raise self._refused(f"there is no column {name!r}{hint}", node)
        return nw.col(name)

    def _called(self, node: ast.Call) -> Any:
        name = node.func.id  # type: ignore[attr-defined]
        if name in _TIMES:
            value = self._constant(node.args[0]) if len(node.args) == 1 else None
            try:
                return _TIMES[name](str(value))
            except ValueError:
                raise self._refused(f"{name} takes one text in ISO format, as in {name}('2013-07-01')", node) from None
        if name not in FUNCTIONS:
            hint = did_you_mean(name, FUNCTIONS) or f"; there are {', '.join(['col', *_TIMES, *FUNCTIONS])}"
            raise self._refused(f"there is no function {name!r}{hint}", node.func)
        count, function = FUNCTIONS[name]
        if len(node.args) != count:
            raise self._refused(f"{name} takes {count} argument{'s' * (count > 1)}, not {len(node.args)}", node)
        first, *others = node.args
        value = self._value(first)
        if not isinstance(value, nw.Expr):
            raise self._refused(f"{name} is of a column, and this is none", first)
        return function(value, *map(self._constant, others))

    def _constant(self, node: ast.expr) -> Any:
        value = self._value(node)
        if isinstance(value, nw.Expr):
            raise self._refused("here stands a value, not a column", node)
        return value

    def _combined(self, node: ast.expr, how: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
        if isinstance(left, nw.Expr) or isinstance(right, nw.Expr):
            return how(left, right)
        if not all(type(one) in (int, float) for one in (left, right)):  # a text times a million would be one, too
            raise self._refused("without a column, only numbers are computed with", node)
        try:
            return how(left, right)
        except (ArithmeticError, ValueError) as error:
            raise self._refused(str(error), node) from None

    def _compared(self, node: ast.Compare) -> nw.Expr:
        """A comparison with what is missing is false, whichever it is: pandas and polars differ there."""
        found: nw.Expr | None = None
        one = self._value(node.left)
        for how, right in zip(node.ops, node.comparators, strict=True):
            other = self._value(right)
            if isinstance(how, ast.Is | ast.IsNot):
                if other is not None or not isinstance(one, nw.Expr):
                    raise self._refused("'is' is for a column that is None; compare by ==", node)
                told = one.is_null() if isinstance(how, ast.Is) else ~one.is_null()
            elif isinstance(how, ast.In | ast.NotIn):
                if not isinstance(other, list) or not isinstance(one, nw.Expr):
                    raise self._refused(
                        "'in' is for a column and a list of values, as in carrier in ['AA', 'UA']", node
                    )
                told = one.is_in(other) if isinstance(how, ast.In) else ~one.is_in(other)
                told = told & ~one.is_null()
            elif one is None or other is None:
                raise self._refused("nothing equals None; write: is None, or: is not None", node)
            elif not (isinstance(one, nw.Expr) or isinstance(other, nw.Expr)):
                raise self._refused("a comparison is of a column, and here is none", node)
            else:
                told = _COMPARISONS[type(how)](one, other).fill_null(False)
                for side in (one, other):
                    told = told & ~side.is_null() if isinstance(side, nw.Expr) else told
            found = told if found is None else found & told
            one = other
        assert found is not None  # Python knows no comparison without one
        return found

    def _truth(self, node: ast.expr) -> nw.Expr:
        value = self._value(node)
        if not isinstance(value, nw.Expr):
            raise self._refused("here stands a comparison, or a column of true and false", node)
        return value

    def _refused(self, problem: str, node: ast.expr) -> ExpressionError:
        # Python counts in bytes, a person in characters.
        start, end = (len(self._text.encode()[:place].decode()) for place in (node.col_offset, node.end_col_offset))
        return self._wrong(problem, start, end)

    def _wrong(self, problem: str, start: int, end: int) -> ExpressionError:
        return ExpressionError(f"{problem}\n  {self._text}\n  {' ' * start}{'^' * max(1, end - start)}")


def _expression(value: Any) -> nw.Expr:
    return value if isinstance(value, nw.Expr) else nw.lit(value)
