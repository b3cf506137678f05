"""Read and write tables as files: on this machine, or at any URL that fsspec knows (``s3://bucket/data/*.csv``).

A pattern reads all files that match it, in the order of their names, as one table. What is written appears whole or not
at all. Addresses of the web are not read: fetch them with http.download, which judges where it connects.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import pandas as pd

from flowkit.errors import Unavailable, UsageError
from flowkit.nodes import places
from flowkit.nodes.frames import Frame

__all__ = [
    "csv_to_parquet",
    "find",
    "read_csv",
    "read_excel",
    "read_json_lines",
    "read_parquet",
    "write_csv",
    "write_excel",
    "write_json_lines",
    "write_parquet",
]

_PACKED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".zip": "zip"}

#: Bytes of a CSV that are read and typed at a time, and how many such blocks are a row group. Arrow reads dozens of
#: blocks ahead: with 4 MB it held 210 MB, with 1 MB 60 MB, at the same speed.
_BLOCK, _GROUP = 1 << 20, 8


def find(path: str) -> list[str]:
    """The files that a pattern such as ``data/2013-*.csv`` matches, by name: to map a node over.

    Raises:
        Unavailable: there is none.
    """
    return places.find(path)


def read_csv(
    path: str,
    *,
    columns: list[str] | None = None,
    types: dict[str, str] | None = None,
    separator: str = ",",
    encoding: str = "utf-8",
) -> pd.DataFrame:
    """Read CSV files, packed or not (``.gz``, ``.zst`` …), with a line of names at their top.

    Args:
        path: of a file, or a pattern.
        columns: read only these.
        types: column -> type, as pandas names it: ``{"zip": "str"}`` keeps the zero in 01234.

    Raises:
        Unavailable: there is no such file, or it cannot be read.
    """

    def read(file: IO[bytes], name: str) -> pd.DataFrame:
        packed: Any = next((how for end, how in _PACKED.items() if name.endswith(end)), None)
        return pd.read_csv(
            file, sep=separator, usecols=columns, dtype=types, encoding=encoding, compression=packed
        )  # fmt: skip

    return _every(path, read)


def read_parquet(path: str, *, columns: list[str] | None = None) -> pd.DataFrame:
    """Read Parquet files.

    Args:
        path: of a file, or a pattern.
        columns: read only these, which costs no more than they hold.

    Raises:
        Unavailable: there is no such file, or it cannot be read.
    """
    _arrow()
    return _every(path, lambda file, name: pd.read_parquet(file, columns=columns))


def read_json_lines(path: str) -> pd.DataFrame:
    """Read files with a JSON object on each line. Texts stay texts, also those that look like a number or a date.

    Args:
        path: of a file, or a pattern.

    Raises:
        Unavailable: there is no such file, or it cannot be read.
    """

    def read(file: IO[bytes], name: str) -> pd.DataFrame:
        packed: Any = next((how for end, how in _PACKED.items() if name.endswith(end)), None)
        return pd.read_json(file, lines=True, dtype=False, compression=packed)

    return _every(path, read)


def read_excel(path: str, *, sheet: str | None = None) -> pd.DataFrame:
    """Read a sheet of Excel workbooks (``.xlsx``), with a row of names at its top. Texts stay texts.

    Args:
        path: of a file, or a pattern.
        sheet: its name; the first if none is given.

    Raises:
        Unavailable: there is no such file or sheet, or it cannot be read.
    """
    _excel()

    def read(file: IO[bytes], name: str) -> pd.DataFrame:
        # As the cells have it: else pandas would make a number of the text 01234.
        return pd.read_excel(file, sheet_name=sheet or 0, engine="openpyxl", dtype=object).infer_objects()

    return _every(path, read)


def write_csv(frame: Frame, path: str, *, separator: str = ",") -> str:
    """Write a table as CSV in UTF-8, without the index of pandas, and return *path*.

    Raises:
        Unavailable: it cannot be written; what was there is as it was.
    """
    with places.whole(path) as place:
        if isinstance(frame, pd.DataFrame):
            packed: Any = next((how for end, how in _PACKED.items() if path.endswith(end)), None)
            frame.to_csv(place, sep=separator, index=False, compression=packed)
        else:
            _of_polars(frame).write_csv(place, separator=separator)
    return path


def write_parquet(frame: Frame, path: str) -> str:
    """Write a table as Parquet, without the index of pandas, and return *path*.

    Raises:
        Unavailable: it cannot be written; what was there is as it was.
    """
    _arrow()
    with places.whole(path) as place:
        if isinstance(frame, pd.DataFrame):
            frame.to_parquet(place, index=False)
        else:
            _of_polars(frame).write_parquet(place)
    return path


def write_json_lines(frame: Frame, path: str) -> str:
    """Write a table with a JSON object on each line, times as ISO 8601, and return *path*.

    Raises:
        Unavailable: it cannot be written; what was there is as it was.
    """
    with places.whole(path) as place:
        if isinstance(frame, pd.DataFrame):
            frame.to_json(place, orient="records", lines=True, date_format="iso", force_ascii=False, compression=None)
        else:
            _of_polars(frame).write_ndjson(place)
    return path


def write_excel(frame: Frame, path: str, *, sheet: str = "Sheet1") -> str:
    """Write a table as an Excel workbook with one sheet, and return *path*. Texts stay texts, also those with ``=``.

    Raises:
        Unavailable: it cannot be written; what was there is as it was.
        UsageError: Excel has no room for it: more than 1,048,575 rows, or 16,384 columns.
    """
    _excel()
    table = frame if isinstance(frame, pd.DataFrame) else _of_polars(frame).to_pandas()
    if len(table) > 1_048_575 or len(table.columns) > 16_384:
        size = f"{len(table):,} rows and {len(table.columns):,} columns"
        raise UsageError(
            f"{path} is to have {size}, and Excel's sheets end at 1,048,575 and 16,384; write_csv has no end"
        )
    with places.whole(path) as place, pd.ExcelWriter(place, engine="openpyxl") as writer:
        table.to_excel(writer, sheet_name=sheet, index=False)
        for row in writer.sheets[sheet].iter_rows():
            for cell in row:
                if cell.data_type == "f":  # a text from somebody's data, which Excel would run
                    cell.data_type = "s"
    return path


def csv_to_parquet(
    path: str, target: str, *, types: dict[str, str] | None = None, separator: str = ",", encoding: str = "utf-8"
) -> str:
    """Turn CSV files of any size into one Parquet file, a few megabytes at a time, and return *target*.

    Args:
        path: of a file, or a pattern; all have the same columns.
        types: column -> type, as Arrow names it: ``string``, ``int64``, ``double``, ``bool``, ``date32``,
            ``timestamp[us]``. Others have the type of the first megabytes; a column that is empty there is text.

    Raises:
        Unavailable: there is no such file, it cannot be read, or a value later on is of another type; say which by
            types=.
    """
    pa = _arrow()
    import pyarrow.csv
    import pyarrow.parquet

    pool = pa.system_memory_pool()  # Arrow's own keeps what was freed, and grows by that
    reading = pyarrow.csv.ReadOptions(block_size=_BLOCK, use_threads=False, encoding=encoding)
    parsing = pyarrow.csv.ParseOptions(delimiter=separator)
    try:
        known = {name: pa.type_for_alias(kind) for name, kind in (types or {}).items()}
    except ValueError as error:
        raise UsageError(f"types= names what Arrow does not know: {error}; as in string, int64, double") from error

    @contextmanager
    def batches(name: str, known: dict[str, Any]) -> Iterator[Any]:
        converting = pyarrow.csv.ConvertOptions(column_types=known, strings_can_be_null=True)
        with places.read(name) as plain:
            file: Any = plain
            if codec := next((how for end, how in _PACKED.items() if name.endswith(end)), None):
                try:
                    file = pa.CompressedInputStream(plain, codec)
                except ValueError as error:
                    raise UsageError(f"{name} cannot be unpacked as it comes; pack it as .gz or .zst") from error
            with pyarrow.csv.open_csv(
                file, read_options=reading, parse_options=parsing, convert_options=converting, memory_pool=pool
            ) as found:
                yield found

    found = places.find(path)
    with places.whole(target) as place:
        writer = None
        name = found[0]
        try:
            with batches(name, known) as first:
                kinds = {one.name: pa.string() if pa.types.is_null(one.type) else one.type for one in first.schema}
            writer = pyarrow.parquet.ParquetWriter(place, pa.schema(list(kinds.items())), memory_pool=pool)
            for name in found:
                with batches(name, kinds) as read:
                    while group := list(itertools.islice(read, _GROUP)):
                        writer.write_table(pa.Table.from_batches(group))
        except pa.ArrowInvalid as error:
            raise Unavailable(f"{name} cannot become Parquet: {error}; if a type is wrong, say it by types=") from error
        finally:
            if writer is not None:
                writer.close()
    return target


def _every(path: str, read: Callable[[IO[bytes], str], pd.DataFrame]) -> pd.DataFrame:
    found: list[pd.DataFrame] = []
    for name in places.find(path):
        with places.read(name) as file:
            try:
                found.append(read(file, name))
            except (ValueError, OSError, UnicodeError) as error:
                raise Unavailable(f"{name} cannot be read: {' '.join(str(error).split())}") from error
    return found[0] if len(found) == 1 else pd.concat(found, ignore_index=True)


def _of_polars(frame: Any) -> Any:
    if not hasattr(frame, "write_ndjson"):
        raise UsageError(f"a table is a data frame of pandas or polars, not {type(frame).__name__}")
    return frame


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as missing:
        raise UsageError('Parquet needs pyarrow; pip install "flowkit[files]"') from missing
    return pyarrow


def _excel() -> None:
    try:
        import openpyxl  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as missing:
        raise UsageError('Excel needs openpyxl; pip install "flowkit[files]"') from missing
