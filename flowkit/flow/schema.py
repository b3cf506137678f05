"""A node's result compared with a Pandera schema; what does not fit is told row by row.

Pandera is not imported here: whoever has a schema has it already.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

from flowkit.errors import FlowkitError, GraphError

#: Checks, and failing values of each, that an error names; rows that stand below it.
_CHECKS, _VALUES, _ROWS = 5, 3, 10


class SchemaBroken(FlowkitError):
    """What a node returned does not fit its schema: which checks failed, and for which rows."""


def usable(schema: Any, node: str) -> Any:
    """A copy of the schema to validate with. Pandera changes what it validates with, and the schema is in the keys of
    results."""
    made = schema.to_schema() if isinstance(schema, type) and hasattr(schema, "to_schema") else schema
    if isinstance(made, type) or not hasattr(made, "validate"):
        if importlib.util.find_spec("pandera") is None:
            raise GraphError(f"node {node!r} has schema=, which needs Pandera: pip install 'flowkit[schema]'")
        raise GraphError(
            f"node {node!r} has schema={made!r}; it must be a DataFrameSchema or a DataFrameModel of Pandera"
        )
    return copy.deepcopy(made)


def checked(function: Callable[..., Any], schema: Any, /, *args: Any, **kwargs: Any) -> Any:
    """What the function returns, as the schema leaves it: coerced, say. Raises SchemaBroken."""
    value = function(*args, **kwargs)
    try:
        return copy.deepcopy(schema).validate(value, lazy=True)
    except Exception as error:
        cases = getattr(error, "failure_cases", None)
        if cases is None:
            if isinstance(error, TypeError):  # it is no table at all
                raise SchemaBroken(f"its result does not fit its schema: {error}") from None
            raise
        broken = SchemaBroken(f"its result does not fit its schema: {_in_words(cases)}")
        if rows := _rows(value, cases):
            broken.add_note(rows)
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


def _rows(value: Any, cases: Any) -> str:
    """The rows themselves, of pandas, which has names for them."""
    wanted = list(dict.fromkeys(case.get("index") for case in _records(cases) if _is_row(case.get("index"))))
    if not wanted or not hasattr(value, "loc"):
        return ""
    some = value.loc[[index for index in wanted[:_ROWS] if index in value.index]]
    more = f"\n… {len(wanted) - _ROWS:,} more rows" if len(wanted) > _ROWS else ""
    return f"{some.head(_ROWS).to_string(max_cols=12, max_colwidth=30)}{more}"


def _records(cases: Any) -> list[dict[str, Any]]:
    found = cases.to_dict("records") if hasattr(cases, "loc") else cases.to_dicts()
    return [{str(key): value for key, value in one.items()} for one in found]


def _is_row(index: Any) -> bool:
    return index is not None and index == index  # NaN: it is about the column
