"""How a result is written and read back as it was: a format by its type, pickle for the rest.

A format takes only what comes back exactly: where Parquet would lose an index, or JSON a tuple, pickle keeps it. A
library is imported only to read what it has written; to write, it is there already.
"""

from __future__ import annotations

import json
import reprlib
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from flowkit.errors import UsageError

#: Values in a list or dict, all told, up to which JSON is worth looking through.
_FEW = 20_000

#: The part of a node's own time that its profile may take, and the seconds it may take anyhow.
_SHARE, _GRANTED = 0.05, 0.002

#: Seconds that a look at one value of a column may take; by that it is told whether there is time for the first column.
_LOOK = 5e-9

#: Columns of a profile.
_COLUMNS = 200

#: Characters of a preview.
_PREVIEW = 2_000


class Misfit(Exception):
    """This value would not come back from this format as it was."""


@dataclass(frozen=True, slots=True)
class Format:
    name: str
    suffix: str  #: of its files: ``.parquet``
    dump: Callable[[Any, IO[bytes]], None]  #: may raise Misfit, having written what is then thrown away
    load: Callable[[IO[bytes]], Any]


#: Those of authors, by exact type.
_registered: dict[type, Format] = {}


def format(
    kind: type,
    name: str,
    *,
    dump: Callable[[Any, IO[bytes]], None],
    load: Callable[[IO[bytes]], Any],
) -> None:
    """Keep results of this type, and of no subclass, in a format of your own. A second time replaces the first.

    ``fk.format(Model, "onnx", dump=lambda model, file: …, load=lambda file: …)``: *file* is open for bytes.

    Args:
        name: also the end of the files' names.
    """
    if not isinstance(kind, type):
        raise UsageError(f"format() was given {kind!r}; its first argument is a type")
    if not name.isidentifier() or name in _OWN:
        raise UsageError(f"a format cannot be named {name!r}; use letters and digits, and none of {', '.join(_OWN)}")
    _registered[kind] = Format(name, f".{name}", dump, load)


def write(value: Any, file: IO[bytes]) -> Format:
    """Write it in the best format that keeps it as it is. Raises whatever pickle does if none can."""
    for fitting in _candidates(value):
        try:
            fitting.dump(value, file)
            return fitting
        except Misfit:
            file.seek(0)
            file.truncate()
    _PICKLE.dump(value, file)
    return _PICKLE


def read(name: str, file: IO[bytes]) -> Any:
    """What was written in the format of this name."""
    known = _OWN | {one.name: one for one in _registered.values()}
    if name not in known:
        raise UsageError(f"a result was kept in the format {name!r}, which is not known here; register it: fk.format()")
    return known[name].load(file)


def kind_of(value: Any) -> str:
    """``pandas.DataFrame``: the library and the name of its type."""
    kind = type(value)
    top = kind.__module__.partition(".")[0]
    return kind.__qualname__ if top in ("builtins", "__main__") else f"{top}.{kind.__qualname__}"


def _candidates(value: Any) -> list[Format]:
    own = _registered.get(type(value))
    if own is not None:
        return [own]
    found = _BY_KIND.get(kind_of(value))
    return [found] if found else []


# -- pandas, polars, Arrow ---------------------------------------------------------------------------------------------


def _dump_pandas(frame: Any, file: IO[bytes]) -> None:
    arrow, parquet = _arrow()
    plain = (
        not frame.attrs
        and frame.flags.allows_duplicate_labels
        and frame.shape[1]
        and all(type(name) is str for name in frame.columns)
        and frame.columns.is_unique
        and getattr(frame.index, "freq", None) is None
        and frame.index.nlevels == 1
    )
    if not plain or not all(map(_plain_column, [frame.index, *(frame[name] for name in frame.columns)])):
        raise Misfit
    try:
        table = arrow.Table.from_pandas(frame)
        again = table.schema.empty_table().to_pandas()
        parquet.write_table(table, file)
    except (arrow.ArrowException, TypeError, ValueError) as error:
        raise Misfit from error
    if not (_same_shape(frame, again) and _restored(parquet, file).equals(table.schema, check_metadata=True)):
        raise Misfit


def _plain_column(column: Any) -> bool:
    """Arrow has each of its values; that the type comes back is looked at afterwards."""
    kind = column.dtype
    if hasattr(kind, "num"):  # one of NumPy's
        if kind.kind == "O":
            return set(map(type, column)) <= {str, type(None)}  # a NaN among them would come back as None
        return kind.kind in "biufmM" and kind.itemsize != 2 and kind.isnative
    # Not "category": Parquet has only those that occur.
    return str(kind).startswith(("Int", "UInt", "boolean", "str", "datetime64["))


def _same_shape(frame: Any, again: Any) -> bool:
    """Types, names and index of the frame without its rows."""
    return bool(
        type(again) is type(frame)
        and type(again.index) is type(frame.index)
        and again.index.name == frame.index.name
        and type(again.index.name) is type(frame.index.name)
        and _same_type(again.index.dtype, frame.index.dtype)
        and type(again.columns) is type(frame.columns)
        and again.columns.dtype == frame.columns.dtype
        and list(again.columns) == list(frame.columns)
        and again.columns.name == frame.columns.name
        and all(map(_same_type, again.dtypes, frame.dtypes))
    )


def _same_type(one: Any, other: Any) -> bool:
    zones = [type(getattr(kind, "tz", None)) for kind in (one, other)]
    return bool(one == other and type(one) is type(other) and repr(one) == repr(other) and zones[0] is zones[1])


def _load_pandas(file: IO[bytes]) -> Any:
    _, parquet = _arrow()
    return parquet.read_table(file).to_pandas()


_PLAIN = ("Int", "UInt", "Float", "Boolean", "String", "Date")  #: types of polars that Parquet gives back


def _dump_polars(frame: Any, file: IO[bytes]) -> None:
    if not frame.width or not all(str(kind).startswith(_PLAIN) for kind in frame.dtypes):
        raise Misfit
    frame.write_parquet(file)


def _load_polars(file: IO[bytes]) -> Any:
    import polars

    return polars.read_parquet(file.read())


def _dump_arrow(table: Any, file: IO[bytes]) -> None:
    arrow, parquet = _arrow()
    try:
        parquet.write_table(table, file)
    except (arrow.ArrowException, TypeError, ValueError) as error:
        raise Misfit from error
    names = table.schema.names
    if not names or len(set(names)) < len(names) or not all(map(_plain_arrow, table.schema.types)):
        raise Misfit
    if not _restored(parquet, file).equals(table.schema, check_metadata=True):
        raise Misfit


def _plain_arrow(kind: Any) -> bool:
    types = sys.modules["pyarrow"].types
    telling = (types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string)
    return any(
        tell(kind) for tell in (*telling, types.is_binary, types.is_date32, types.is_timestamp, types.is_decimal)
    )


def _load_arrow(file: IO[bytes]) -> Any:
    _, parquet = _arrow()
    return parquet.read_table(file)


def _restored(parquet: Any, file: IO[bytes]) -> Any:
    file.flush()
    file.seek(0)
    found = parquet.read_schema(file)
    file.seek(0, 2)
    return found


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise Misfit from error
    return pyarrow, pyarrow.parquet


# -- the rest ----------------------------------------------------------------------------------------------------------


def _dump_numpy(array: Any, file: IO[bytes]) -> None:
    import numpy

    kind = array.dtype
    if kind.kind not in "biufcmMSU" or kind.metadata:
        raise Misfit
    numpy.save(file, array, allow_pickle=False)


def _load_numpy(file: IO[bytes]) -> Any:
    import numpy

    return numpy.load(file, allow_pickle=False)


def _dump_json(value: Any, file: IO[bytes]) -> None:
    _check_json(value)
    try:
        file.write(json.dumps(value, separators=(",", ":")).encode())
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits
        raise Misfit from error


def _check_json(value: Any) -> None:
    """Exact types only, and no list twice: it would come back as two."""
    seen: set[int] = set()
    waiting, count = [value], 0
    while waiting:
        one = waiting.pop()
        count += 1
        if count > _FEW:
            raise Misfit
        kind = type(one)
        if kind in (list, dict):
            if id(one) in seen:
                raise Misfit
            seen.add(id(one))
            if kind is dict and not all(type(key) is str for key in one):
                raise Misfit
            waiting.extend(one.values() if kind is dict else one)
        elif one is not None and kind not in (bool, int, float, str):
            raise Misfit


def _load_json(file: IO[bytes]) -> Any:
    return json.loads(file.read())


def _load_pickle(file: IO[bytes]) -> Any:
    import pickle

    return pickle.load(file)


def _dump_pickle(value: Any, file: IO[bytes]) -> None:
    try:
        # What a notebook defines is not in a module that another kernel could import: cloudpickle takes it along.
        import cloudpickle as pickler
    except ImportError:
        import pickle as pickler
    pickler.dump(value, file, protocol=5)


_PICKLE = Format("pickle", ".pickle", _dump_pickle, _load_pickle)
_JSON = Format("json", ".data", _dump_json, _load_json)

_BY_KIND: dict[str, Format] = {
    "pandas.DataFrame": Format("pandas", ".parquet", _dump_pandas, _load_pandas),
    "polars.DataFrame": Format("polars", ".parquet", _dump_polars, _load_polars),
    "pyarrow.Table": Format("arrow", ".parquet", _dump_arrow, _load_arrow),
    "numpy.ndarray": Format("numpy", ".npy", _dump_numpy, _load_numpy),
    **dict.fromkeys(("NoneType", "bool", "int", "float", "str", "list", "dict"), _JSON),
}

_OWN = {one.name: one for one in [*_BY_KIND.values(), _PICKLE]}


# -- what others may know of it without reading it ---------------------------------------------------------------------


def picture(value: Any) -> bytes | None:
    """A figure as PNG; None for anything else."""
    if kind_of(value) != "matplotlib.Figure":
        return None
    import io

    page = io.BytesIO()
    value.savefig(page, format="png", dpi=80)
    return page.getvalue()


def profile(value: Any, seconds: float, *, granted: float | None = None) -> dict[str, Any]:
    """Rows, and of each column its type, nulls, smallest and largest value; less if that takes too long.

    Args:
        seconds: that the node took.
        granted: seconds that this may take, if somebody else has counted them.
    """
    began = time.perf_counter()
    until = began + (max(_GRANTED, seconds * _SHARE) if granted is None else granted)
    kind = kind_of(value)
    if kind in ("pandas.DataFrame", "polars.DataFrame", "pyarrow.Table"):
        columns = _columns(value)
        told = []
        longest = _LOOK * len(value)
        for name, column in columns[:_COLUMNS]:
            in_time = began + longest < until
            told.append(_told(name, column, in_time))
            before, began = began, time.perf_counter()
            longest = max(longest, began - before) if in_time else longest
        return {"rows": len(value), "width": len(columns), "columns": told}
    if kind == "numpy.ndarray":
        return {"shape": list(value.shape), "dtype": str(value.dtype)}
    return {"length": len(value)} if isinstance(value, str | bytes | list | tuple | dict | set | frozenset) else {}


class Items:
    """The profiles of a mapped node's items as one: rows and nulls added up, the types of each column, its range.

    Items end in several threads.
    """

    def __init__(self) -> None:
        self._kinds: set[str] = set()
        self._tables: list[int] = []  # rows of each
        self._dtypes: dict[str, set[str]] = {}
        self._columns: dict[str, dict[str, Any]] = {}
        self._seconds = self._spent = 0.0
        self._unseen = False
        self._lock = threading.Lock()

    def look(self, value: Any, seconds: float) -> None:
        """At the result of an item that nobody has profiled. All of them have together what one node may take.

        Args:
            seconds: that the item took.
        """
        self._seconds += seconds
        left = max(_GRANTED, self._seconds * _SHARE) - self._spent
        if left <= 0:
            self._unseen = True
            return
        began = time.perf_counter()
        self.add({"kind": kind_of(value), **profile(value, 0, granted=left)})
        self._spent += time.perf_counter() - began

    def add(self, told: Mapping[str, Any]) -> None:
        with self._lock:
            self._kinds.add(told["kind"])
            if "rows" in told:
                self._tables.append(told["rows"])
                for column in told["columns"]:
                    self._add_column(column["name"], column)

    def _add_column(self, name: str, told: Mapping[str, Any]) -> None:
        if name in self._dtypes:
            self._columns[name] = _joined(self._columns[name], told)
        elif len(self._dtypes) < _COLUMNS:
            self._dtypes[name] = set()
            self._columns[name] = {key: told[key] for key in ("nulls", "min", "max") if key in told}
        else:
            return
        self._dtypes[name].add(told["dtype"])

    def told(self, count: int, failed: int) -> dict[str, Any]:
        """The profile of the node, of so many items."""
        kind = next(iter(self._kinds)) if len(self._kinds) == 1 else None
        found: dict[str, Any] = {"kind": f"list of {kind}" if kind else "list", "length": count}
        if failed:
            found["failed"] = failed
        if kind and self._tables:
            columns = [{"name": name, "dtype": ", ".join(sorted(kinds))} for name, kinds in self._dtypes.items()]
            if not self._unseen:  # else what is added up is not all there is
                found["rows"] = sum(self._tables)
                columns = [{**column, **self._columns[str(column["name"])]} for column in columns]
            found |= {"width": len(columns), "columns": columns}
        return found


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of both."""
    found: dict[str, Any] = {}
    if "nulls" in one and "nulls" in other:
        found["nulls"] = one["nulls"] + other["nulls"]
    with suppress(TypeError):  # such as the text of a time and a number
        if "min" in one and "min" in other:
            found |= {"min": min(one["min"], other["min"]), "max": max(one["max"], other["max"])}
    return found


def _columns(table: Any) -> list[tuple[str, Any]]:
    if kind_of(table) == "pandas.DataFrame":
        return [(str(name), table.iloc[:, place]) for place, name in enumerate(table.columns)]
    if kind_of(table) == "polars.DataFrame":
        return [(name, table[name]) for name in table.columns]
    return list(zip(table.column_names, table.columns, strict=True))


def _told(name: str, column: Any, in_time: bool) -> dict[str, Any]:
    kind = str(getattr(column, "dtype", None) or column.type)
    if not in_time:
        return {"name": name, "dtype": kind}
    found: dict[str, Any] = {"name": name, "dtype": kind}
    try:
        found["nulls"] = int(column.isna().sum() if hasattr(column, "isna") else column.null_count)
    except (TypeError, AttributeError):
        found["nulls"] = int(column.null_count())
    if kind.lower().startswith(("int", "uint", "float", "double", "datetime", "date")) and hasattr(column, "min"):
        found |= {"min": _shown(column.min()), "max": _shown(column.max())}
    return found


def _shown(value: Any) -> Any:
    """As JSON has it."""
    value = value.item() if hasattr(value, "item") else value
    if type(value) is float and (value != value or value in (float("inf"), float("-inf"))):
        return repr(value)
    return value if type(value) in (int, float, bool) else str(value)


def preview(value: Any) -> str:
    """A few lines of it, as text."""
    kind = kind_of(value)
    try:
        if kind == "pandas.DataFrame":
            text = value.head(5).to_string(max_cols=12, max_colwidth=30)
        elif kind == "polars.DataFrame":
            text = str(value.head(5))
        elif kind.partition(".")[0] in ("pandas", "numpy", "pyarrow"):
            text = str(value)
        else:
            text = str(_BRIEF.repr(value))
    except Exception as error:  # an author's own repr may raise anything
        text = f"<{kind}, which cannot be shown: {type(error).__name__}>"
    return text if len(text) <= _PREVIEW else f"{text[:_PREVIEW]}…"


_BRIEF = reprlib.Repr()
_BRIEF.maxlist = _BRIEF.maxdict = _BRIEF.maxset = _BRIEF.maxtuple = 20
_BRIEF.maxstring = _BRIEF.maxother = 500


def described(value: Any, seconds: float) -> dict[str, Any]:
    return {"kind": kind_of(value), "profile": profile(value, seconds), "preview": preview(value)}
