"""Change tables: data frames of pandas or polars, whichever a node is given; it returns the same kind.

Conditions and new columns are written as expressions, which look like Python and are not run as such: columns by their
names (``col("dep delay")`` for others), values, ``+ - * / // %``, comparisons, ``in``, ``is None``, ``and or not``,
``a if condition else b``, ``date("2013-07-01")``, ``time("2013-07-01T06:00")``, and the functions ``abs round lower
upper strip length contains starts_with ends_with replace year month day hour weekday fill``. A comparison with what is
missing is false.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import narwhals as nw
import pandas as pd

from flowkit.errors import ExpressionError, UsageError, did_you_mean
from flowkit.flow import schema as schemas
from flowkit.nodes import expressions
from flowkit.nodes.frames import Frame

__all__ = [
    "cast",
    "compute",
    "deduplicate",
    "from_rows",
    "group",
    "join",
    "pivot",
    "rename",
    "rows",
    "select",
    "sort",
    "validate",
    "where",
]

_TYPES: dict[str, Any] = {
    "integer": nw.Int64,
    "number": nw.Float64,
    "text": nw.String,
    "boolean": nw.Boolean,
    "date": nw.Date,
    "time": nw.Datetime,
    "category": nw.Categorical,
}

#: What becomes of a group's values of a column, or of a cell's in a pivot.
_SUMMARIES = ("sum", "mean", "median", "min", "max", "count", "first", "last", "std", "n_unique")


def where(frame: Frame, condition: str, *, values: dict[str, Any] | None = None) -> Frame:
    """Keep the rows for which an expression is true, as in ``dep_delay > 15 and carrier in ["AA", "UA"]``.

    Args:
        condition: over the columns.
        values: what other names in it stand for.

    Raises:
        ExpressionError: it cannot be read, or names what is not there; the message shows where.
    """
    table = _read(frame)
    found = expressions.read(condition, table.columns, values)
    if not isinstance(found, nw.Expr):
        raise ExpressionError(f"where needs a condition over the columns, and {condition!r} names none")
    return _given(frame, table.filter(found))


def compute(
    frame: Frame, columns: dict[str, str], *, keep: bool = False, values: dict[str, Any] | None = None
) -> Frame:
    """Make new columns by expressions: ``{"id": "order_id", "total": "price * count"}``.

    Args:
        columns: new name -> expression over the columns that there were.
        keep: the other columns stay, and come first.
        values: what other names in the expressions stand for.

    Raises:
        ExpressionError: one cannot be read, or names what is not there; the message shows where.
    """
    table = _read(frame)
    made = []
    for name, text in columns.items():
        try:
            found = expressions.read(text, table.columns, values)
        except ExpressionError as error:
            raise ExpressionError(f"column {name!r}: {error}") from None
        made.append((found if isinstance(found, nw.Expr) else nw.lit(found)).alias(name))
    return _given(frame, table.with_columns(*made) if keep else table.with_columns(*made).select(*columns))


def select(frame: Frame, columns: list[str]) -> Frame:
    """Keep these columns, in this order.

    Raises:
        UsageError: there is no such column.
    """
    table = _read(frame)
    _known(table, columns)
    return _given(frame, table.select(*columns))


def rename(frame: Frame, names: dict[str, str]) -> Frame:
    """Give columns other names: ``{"dep_delay": "delay"}``.

    Raises:
        UsageError: there is no such column, or two would have one name.
    """
    table = _read(frame)
    _known(table, names)
    after = [names.get(name, name) for name in table.columns]
    twice = sorted({name for name in after if after.count(name) > 1})
    if twice:
        raise UsageError(f"two columns would be called {twice[0]!r}; select those you want first")
    return _given(frame, table.rename(names))


def cast(frame: Frame, types: dict[str, str]) -> Frame:
    """Read columns as another type: ``{"delay": "integer", "day": "date"}``; what is missing stays so.

    Args:
        types: column -> integer, number, text, boolean, date, time or category. Texts become dates and times by ISO
            8601.

    Raises:
        UsageError: there is no such column or type. A value that cannot be read so is an error of pandas or polars.
    """
    table = _read(frame)
    _known(table, types)
    made = []
    for name, kind in types.items():
        if kind not in _TYPES:
            hint = did_you_mean(kind, _TYPES) or f"; there are {', '.join(_TYPES)}"
            raise UsageError(f"column {name!r} cannot become {kind!r}, which is no type{hint}")
        text = table.schema[name] == nw.String
        if text and kind == "boolean":
            raise UsageError(f"column {name!r} is text, which is true by no rule; compute it, as in {name} == 'yes'")
        column = nw.col(name).str.to_datetime() if text and kind in ("date", "time") else nw.col(name)
        made.append(column.cast(_TYPES[kind]).alias(name))
    return _given(frame, table.with_columns(*made))


def join(
    left: Frame, right: Frame, on: list[str], *, how: Literal["inner", "left", "full", "semi", "anti"] = "inner"
) -> Frame:
    """Put together the rows of two tables that agree in some columns.

    Other columns of one name are told apart by ``_right``.

    Args:
        how: inner, only rows that found one; left, all of the left; full, all of both; semi and anti, those of the left
            that found one, or none, with no columns of the right.

    Raises:
        UsageError: one of the tables has no such column.
    """
    one, other = _read(left), _read(right)
    _known(one, on, "the left table has")
    _known(other, on, "the right table has")
    found = one.join(other, on=on, how=how)
    if how == "full":  # both sides' keys come, of which one may be missing
        keys = [nw.coalesce(nw.col(name), nw.col(f"{name}_right")).alias(name) for name in on]
        found = found.with_columns(*keys).drop([f"{name}_right" for name in on])
    return _given(left, found)


def group(frame: Frame, by: list[str], columns: dict[str, str]) -> Frame:
    """Summarise the rows that agree in some columns: ``{"flights": "count()", "worst": "max(dep_delay)"}``.

    Args:
        by: these columns come first, in the order of their values.
        columns: new name -> ``count()`` of rows, or sum, mean, median, min, max, count, first, last, std or n_unique of
            a column's values that are not missing.

    Raises:
        UsageError: there is no such column or summary.
    """
    table = _read(frame)
    _known(table, by)
    made = []
    for name, text in columns.items():
        read = re.fullmatch(r"\s*(\w+)\(\s*(.*?)\s*\)\s*", text)
        how, column = (read[1], read[2]) if read else ("", "")
        if read and not column and how == "count":
            made.append(nw.len().alias(name))
            continue
        if how not in _SUMMARIES:
            hint = did_you_mean(how, _SUMMARIES) or f"; there are {', '.join(_SUMMARIES)}"
            raise UsageError(f"column {name!r} is to be {text!r}; write it as in 'max(dep_delay)'{hint}")
        _known(table, [column])
        made.append(getattr(nw.col(column), how)().alias(name))
    return _given(frame, table.group_by(*by).agg(*made).sort(*by))


def pivot(
    frame: Frame,
    index: list[str],
    on: str,
    values: str,
    *,
    how: Literal["sum", "mean", "median", "min", "max", "first", "last", "len"] = "sum",
) -> Frame:
    """Turn the values of a column into columns: one row for each *index*, one column for each value of *on*.

    Args:
        values: the column whose values stand in the cells.
        how: what becomes of several values for one cell; len counts them.

    Raises:
        UsageError: there is no such column.
    """
    table = _read(frame)
    _known(table, [*index, on, values])
    return _given(
        frame, table.pivot(on, index=index, values=values, aggregate_function=how, sort_columns=True).sort(*index)
    )


def deduplicate(
    frame: Frame, by: list[str] | None = None, *, keep: Literal["first", "last", "none"] = "first"
) -> Frame:
    """Keep one of the rows that agree; the order of the rest stays.

    Args:
        by: in these columns; in all, if none are given.
        keep: which one; none: only rows that agree with no other.

    Raises:
        UsageError: there is no such column.
    """
    table = _read(frame)
    _known(table, by or [])
    return _given(frame, table.unique(subset=by, keep=keep, maintain_order=True))


def sort(frame: Frame, by: list[str], *, descending: bool = False) -> Frame:
    """Order the rows by some columns; what is missing comes last.

    Raises:
        UsageError: there is no such column.
    """
    table = _read(frame)
    _known(table, by)
    return _given(frame, table.sort(*by, descending=descending, nulls_last=True))


def rows(frame: Frame) -> list[dict[str, Any]]:
    """The rows as dicts of Python's own values, what is missing as None: to map a node over, or to send."""
    table = _read(frame)
    return [
        {name: None if pd.isna(value) is True else value for name, value in row.items()}
        for row in table.iter_rows(named=True)
    ]


def from_rows(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A data frame of dicts, one for each row; a key that one of them lacks is missing there."""
    return pd.DataFrame(rows)


def validate(frame: Frame, rules: Any) -> Frame:
    """Check a table by Pandera, and return it as the schema has it, which may coerce types.

    Args:
        rules: a DataFrameSchema or DataFrameModel; or JSON for some columns, each with any of ``type`` (as Pandera
            names it), ``min``, ``max``, ``in``, ``matches``, ``unique``, ``nullable``: ``{"delay": {"min": -60}}``.
            JSON is for data frames of pandas; columns of which it says nothing are let through.

    Raises:
        SchemaBroken: something does not fit; the message has the checks that failed, and the first rows of each.
        UsageError: the rules cannot be read.
    """
    schema = _schema(rules) if isinstance(rules, dict) else rules
    return schemas.fitting(frame, schema)  # type: ignore[no-any-return]


def _schema(rules: dict[str, Any]) -> Any:
    try:
        import pandera.pandas as pandera
    except ImportError as missing:
        raise UsageError('validate needs Pandera; pip install "flowkit[schema]"') from missing

    known: dict[str, Any] = {
        "min": pandera.Check.ge,
        "max": pandera.Check.le,
        "in": pandera.Check.isin,
        "matches": pandera.Check.str_matches,
    }
    plain = ("type", "unique", "nullable")
    columns = {}
    for name, rule in rules.items():
        for key in rule:
            if key not in known and key not in plain:
                hint = did_you_mean(key, [*known, *plain]) or f"; there are {', '.join([*plain, *known])}"
                raise UsageError(f"column {name!r} has the rule {key!r}, which is none{hint}")
        checks = [known[key](value) for key, value in rule.items() if key in known]
        options: dict[str, Any] = {key: bool(rule.get(key, False)) for key in ("unique", "nullable")}
        columns[name] = pandera.Column(rule.get("type"), checks, coerce="type" in rule, **options)
    return pandera.DataFrameSchema(columns)


def _read(frame: Any) -> nw.DataFrame[Any]:
    try:
        return nw.from_native(frame, eager_only=True)
    except TypeError as error:
        raise UsageError(
            f"a table is a data frame of pandas or polars, not {type(frame).__name__}; make one by table.from_rows"
        ) from error


def _given(frame: Frame, table: nw.DataFrame[Any]) -> Frame:
    """Of the same kind as *frame*."""
    return table.to_native()  # type: ignore[no-any-return]


def _known(table: nw.DataFrame[Any], names: Any, where: str = "there is") -> None:
    for name in names:
        if name not in table.columns:
            hint = did_you_mean(str(name), table.columns) or f"; there are {', '.join(table.columns)}"
            raise UsageError(f"{where} no column {name!r}{hint}")
