"""A value as a few lines of text, a table or a picture, for whoever clicks a node.

Values are the author's: whatever has the shape of a data frame or a figure is taken for one, without importing the
library it is from; a ``repr`` that raises, hangs or is a book costs two seconds at most and shows what it can.
"""

from __future__ import annotations

import base64
import io
import reprlib
from typing import Any

from flowkit.flow import ports
from flowkit.flow.runner import within

#: Seconds one value may take.
PATIENCE = 2.0

_ROWS, _COLUMNS, _CELL, _TEXT = 8, 30, 60, 4_000
_PICTURE = 3_000_000  # bytes


def preview(value: Any, *, brief: bool = False) -> dict[str, Any]:
    """``{"kind": "table" | "picture" | "text", "title": …}``; all of it text, or a PNG.

    Args:
        brief: title only where the rest would be much.
    """
    try:
        found: dict[str, Any] = within(PATIENCE, lambda: _look(value, brief), {})
        return found
    except TimeoutError:
        return _text(_kind(value), f"not shown: it took longer than {PATIENCE:g} s to look at")
    except Exception as error:  # the value's own code
        return _text(_kind(value), f"not shown: looking at it raised {type(error).__name__}")


def _look(value: Any, brief: bool) -> dict[str, Any]:
    kind = _kind(value)
    if hasattr(value, "to_frame") and hasattr(value, "dtype") and hasattr(value, "name"):
        value = value.to_frame(value.name if value.name is not None else "value")
    if _is_frame(value):
        return _table(kind, value, brief)
    if callable(getattr(value, "savefig", None)):
        return _picture(kind, value, brief)
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and hasattr(value, "dtype"):
        kind = f"{kind} · {' × '.join(map(str, shape)) or 'scalar'} · {value.dtype}"
    elif isinstance(value, str | bytes | list | tuple | dict | set | frozenset):
        kind = f"{kind} · {len(value):,} {_of(value)}"
    return _text(kind, _written(value, 200 if brief else _TEXT))


def _kind(value: Any) -> str:
    return ports.describe(type(value))


def _of(value: Any) -> str:
    nouns: dict[type, str] = {str: "character", bytes: "byte", dict: "key"}
    noun = nouns.get(type(value), "item")
    return noun if len(value) == 1 else f"{noun}s"


def _text(title: str, text: str) -> dict[str, Any]:
    return {"kind": "text", "title": title, "text": text}


def _written(value: Any, most: int) -> str:
    if isinstance(value, str):
        return _cut(value, most)
    short = reprlib.Repr()
    short.maxlist = short.maxtuple = short.maxset = short.maxfrozenset = short.maxdict = short.maxdeque = 40
    short.maxstring = short.maxother = short.maxlong = most
    short.maxlevel = 4
    return _cut(short.repr(value) if isinstance(value, list | tuple | dict | set | frozenset) else repr(value), most)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _is_frame(value: Any) -> bool:
    shape = getattr(value, "shape", None)
    return (
        isinstance(shape, tuple)
        and len(shape) == 2
        and hasattr(value, "columns")
        and hasattr(value, "dtypes")
        and callable(getattr(value, "head", None))
    )


def _table(kind: str, value: Any, brief: bool) -> dict[str, Any]:
    rows, width = value.shape
    title = f"{kind} · {rows:,} row{'' if rows == 1 else 's'} × {width:,} column{'' if width == 1 else 's'}"
    if brief:
        return {"kind": "table", "title": title, "columns": [], "rows": []}
    names = list(value.columns)[:_COLUMNS]
    types = list(value.dtypes)[:_COLUMNS]
    nulls = _nulls(value)[:_COLUMNS]
    first = value.head(_ROWS)
    # pandas gives rows by itertuples, polars by rows().
    lines = list(first.rows()) if callable(getattr(first, "rows", None)) else list(first.itertuples(index=False))
    return {
        "kind": "table",
        "title": title + (f", the first {_COLUMNS}" if width > _COLUMNS else ""),
        "columns": [
            {"name": _cell(name), "type": str(type_), "nulls": f"{count:,}"}
            for name, type_, count in zip(names, types, nulls, strict=True)
        ],
        "rows": [[_cell(cell) for cell in list(line)[:_COLUMNS]] for line in lines],
    }


def _nulls(value: Any) -> list[int]:
    if callable(getattr(value, "null_count", None)):
        return [int(count) for count in value.null_count().rows()[0]]
    return [int(count) for count in value.isna().sum()]


def _cell(cell: Any) -> str:
    try:
        text = f"{cell:.6g}" if isinstance(cell, float) else str(cell)
    except Exception:  # the cell's own code
        text = f"<{type(cell).__name__}>"
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _picture(kind: str, value: Any, brief: bool) -> dict[str, Any]:
    if brief:
        return {"kind": "picture", "title": kind, "png": ""}
    file = io.BytesIO()
    value.savefig(file, format="png", dpi=80, bbox_inches="tight")
    data = file.getvalue()
    if not data.startswith(b"\x89PNG") or len(data) > _PICTURE:
        return _text(kind, "not shown: its picture is too large")
    return {"kind": "picture", "title": kind, "png": base64.b64encode(data).decode("ascii")}
