"""A node's result compared with a Pandera schema; what does not fit is told row by row.

Pandera is not imported here: whoever has a schema has it already.
"""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from flowkit.errors import FlowkitError, GraphError, did_you_mean

#: Checks, and failing values of each, that an error names; rows that stand below it.
_CHECKS, _VALUES, _ROWS = 5, 3, 10
#: Of the rows that an event tells: columns, and characters of a value.
_COLUMNS, _CHARACTERS = 20, 60

_OTHERWISE = "its result does not fit its schema"


class SchemaBroken(FlowkitError):
    """What a node returned does not fit its schema: which checks failed, and for which rows."""

    #: The first of them as JSON: ``columns``, the row's own name first; ``values`` of each row; how many ``more`` there
    #: are. None if it is not about rows.
    rows: dict[str, Any] | None = None


def usable(schema: Any, node: str, outputs: Sequence[str] = ()) -> Any:
    """A copy of the schema to validate with, or of those of a node's outputs. Pandera changes what it validates with,
    and the schema is in the keys of results."""
    if isinstance(schema, Mapping):
        for output in schema:
            if output not in outputs:
                has = f"its outputs are {', '.join(outputs)}" if outputs else "it has no outputs="
                hint = did_you_mean(str(output), outputs)
                raise GraphError(f"node {node!r} has a schema for {output!r}, but {has}{hint}")
        return {output: usable(one, node) for output, one in schema.items()}
    if outputs:
        raise GraphError(f"node {node!r} has outputs= and one schema; say whose it is: schema={{{outputs[0]!r}: …}}")
    made = schema.to_schema() if isinstance(schema, type) and hasattr(schema, "to_schema") else schema
    if isinstance(made, type) or not hasattr(made, "validate"):
        if importlib.util.find_spec("pandera") is None:
            raise GraphError(f"node {node!r} has schema=, which needs Pandera: pip install 'flowkit[schema]'")
        raise GraphError(
            f"node {node!r} has schema={made!r}; it must be a DataFrameSchema or a DataFrameModel of Pandera"
        )
    return copy.deepcopy(made)


def checked(function: Callable[..., Any], schema: Any, outputs: Sequence[str], /, *args: Any, **kwargs: Any) -> Any:
    """What the function returns, as the schema leaves it: coerced, say. Raises SchemaBroken."""
    value = function(*args, **kwargs)
    if not outputs:
        return fitting(value, schema)
    if isinstance(value, dict):
        return {name: _part(one, schema, name) for name, one in value.items()}
    if isinstance(value, tuple) and len(value) == len(outputs):
        return tuple(_part(one, schema, name) for one, name in zip(value, outputs, strict=True))
    return value  # it has no such parts, which whoever takes it apart will tell


def _part(value: Any, schemas: Mapping[str, Any], name: str) -> Any:
    known = name in schemas
    return fitting(value, schemas[name], f"its output {name!r} does not fit its schema") if known else value


def fitting(value: Any, schema: Any, otherwise: str = _OTHERWISE) -> Any:
    """The value as its schema leaves it. Raises SchemaBroken."""
    try:
        return copy.deepcopy(schema).validate(value, lazy=True)
    except Exception as error:
        cases = getattr(error, "failure_cases", None)
        if cases is None:
            if isinstance(error, TypeError):  # it is no table at all
                raise SchemaBroken(f"{otherwise}: {error}") from None
            raise
        broken = SchemaBroken(f"{otherwise}: {_in_words(cases)}")
        with suppress(Exception):  # names of rows may be anything
            some, names, more = _rows(value, cases)
            if some is not None:
                after = f"\n… {more:,} more rows" if more else ""
                broken.rows = _as_json(some, names, more)
                broken.add_note(f"{_text(some)}{after}")
    raise broken


def _in_words(cases: Any) -> str:
    found: dict[tuple[str, str], list[tuple[Any, Any]]] = {}
    for case in _records(cases):
        key = str(case.get("column") or ""), str(case.get("check"))
        found.setdefault(key, []).append((case.get("index"), case.get("failure_case")))
    parts = []
    for (column, check), failed in list(found.items())[:_CHECKS]:
        values = [f"row {index}: {value}" if _is_row(index) else str(value) for index, value in failed[:_VALUES]]
        more = f", and {len(failed) - _VALUES:,} more" if len(failed) > _VALUES else ""
        parts.append(f"{f'{column}: ' if column else ''}{check} fails ({', '.join(values)}{more})")
    if len(found) > _CHECKS:
        parts.append(f"and {len(found) - _CHECKS} more checks")
    return " ".join("; ".join(parts).split())


def _rows(value: Any, cases: Any) -> tuple[Any, list[Any], int]:
    """The rows themselves as a table, how they are called, and how many more there are; None if there are none."""
    wanted: list[Any] = list(dict.fromkeys(case.get("index") for case in _records(cases) if _is_row(case.get("index"))))
    more = max(0, len(wanted) - _ROWS)
    if not wanted:
        return None, [], 0
    if hasattr(value, "loc"):
        some = value.loc[[index for index in wanted[:_ROWS] if index in value.index]].head(_ROWS)
        return some, list(some.index), more
    places = [int(index) for index in wanted[:_ROWS]]  # polars has no index
    return value[places], places, more


def _text(some: Any) -> str:
    return str(some.to_string(max_cols=12, max_colwidth=30)) if hasattr(some, "to_string") else str(some)


def _as_json(some: Any, names: list[Any], more: int) -> dict[str, Any]:
    rows = some.itertuples(index=False, name=None) if hasattr(some, "itertuples") else some.rows()
    columns = ["row", *map(str, some.columns)]
    cells = [[_cell(one) for one in (name, *row[:_COLUMNS])] for name, row in zip(names, rows, strict=True)]
    return {"columns": [_cell(name) for name in columns[: _COLUMNS + 1]], "values": cells, "more": more}


def _cell(value: Any) -> Any:
    """As JSON has it, and short."""
    value = value.item() if hasattr(value, "item") else value
    if value is None or type(value) in (bool, int) or (type(value) is float and math.isfinite(value)):
        return value
    if type(value) is float and math.isnan(value):  # as pandas has what is missing
        return None
    text = str(value)
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"


def _records(cases: Any) -> list[dict[str, Any]]:
    found = cases.to_dict("records") if hasattr(cases, "loc") else cases.to_dicts()
    return [{str(key): value for key, value in one.items()} for one in found]


def _is_row(index: Any) -> bool:
    return index is not None and index == index  # NaN: it is about the column
