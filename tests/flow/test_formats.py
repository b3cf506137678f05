"""A result comes back from its file as it was, or its format does not take it."""

from __future__ import annotations

import io
import math
import os
import time
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings

import flowkit as fk
from flowkit.errors import UsageError
from flowkit.flow import formats


def there_and_back(value: Any) -> tuple[str, Any]:
    file = io.BytesIO()
    name = formats.write(value, file).name
    file.seek(0)
    return name, formats.read(name, file)


ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_any_plain_value_comes_back_with_its_types(value: Any) -> None:
    _, back = there_and_back(value)

    assert repr(back) == repr(value)  # 1 is not 1.0, a tuple no list, and NaN is NaN


def test_a_list_that_is_there_twice_is_one_list_again() -> None:
    row = [0]

    _, back = there_and_back([row, row])

    assert back[0] is back[1]


COLUMNS = {
    "integers": st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3).map(lambda v: np.array(v, "int64")),
    "small": st.lists(st.integers(0, 255), min_size=3, max_size=3).map(lambda v: np.array(v, "uint8")),
    "floats": st.lists(st.floats(), min_size=3, max_size=3).map(lambda v: np.array(v, "float64")),
    "halves": st.lists(st.floats(width=16), min_size=3, max_size=3).map(lambda v: np.array(v, "float16")),
    "booleans": st.lists(st.booleans(), min_size=3, max_size=3).map(lambda v: np.array(v, "bool")),
    "texts": st.lists(st.text(st.characters(codec="utf-8")) | st.none(), min_size=3, max_size=3),
    "objects": st.lists(st.one_of(st.text(max_size=3), st.none(), st.just(math.nan), st.integers(), st.tuples(ATOMS)),
                        min_size=3, max_size=3).map(lambda v: pd.Series(v, dtype=object)),
    "nullable": st.lists(st.integers(0, 9) | st.none(), min_size=3, max_size=3).map(lambda v: pd.array(v, "Int64")),
    "categories": st.lists(st.sampled_from("abc"), min_size=3, max_size=3).map(
        lambda v: pd.Categorical(v, categories=list("abcd"), ordered=True)),
    "instants": st.sampled_from(["s", "ms", "us", "ns"]).map(lambda u: np.array([0, 1, "NaT"], f"datetime64[{u}]")),
    "zoned": st.sampled_from(["UTC", "Europe/Berlin", "+02:00"]).map(lambda z: pd.date_range("2020", periods=3, tz=z)),
    "spans": st.just(pd.to_timedelta([1, 2, None], unit="h")),
    "periods": st.just(pd.period_range("2020", periods=3, freq="M")),
}  # fmt: skip

INDEXES = st.sampled_from(
    [
        pd.RangeIndex(3),
        pd.RangeIndex(5, 11, 2, name="step"),
        pd.Index([3, 1, 2], name="id"),
        pd.Index(["x", "y", "x"]),
        pd.date_range("2020", periods=3),
        pd.DatetimeIndex(["2020-01-01", "2021-01-01", "2022-01-02"], name="day"),
        pd.MultiIndex.from_tuples([(1, "a"), (1, "b"), (2, "a")]),
    ]
)


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), max_size=4, unique=True))
    made = pd.DataFrame({name: draw(COLUMNS[name]) for name in names}, index=pd.RangeIndex(3))
    made.index = draw(INDEXES)
    labels = draw(st.sampled_from(["names", "numbers", "doubled", "named"]))
    if labels == "numbers":
        made.columns = range(len(names))
    elif labels == "doubled":
        made.columns = ["same"] * len(names)
    elif labels == "named":
        made.columns.name = "kind"
    if draw(st.booleans()):
        made.attrs["source"] = ("a", 1)
    return made.iloc[draw(st.sampled_from([slice(None), slice(1, None), slice(0, 0)]))]


@settings(max_examples=150, deadline=None)
@given(frames())
def test_any_pandas_frame_comes_back_exactly(frame: pd.DataFrame) -> None:
    _, back = there_and_back(frame)

    pd.testing.assert_frame_equal(back, frame, check_exact=True, check_freq=True)
    assert type(back.index) is type(frame.index)
    assert back.attrs == frame.attrs
    for place in range(frame.shape[1]):
        one, other = back.iloc[:, place], frame.iloc[:, place]
        assert list(map(type, one)) == list(map(type, other))
        assert repr(one.dtype) == repr(other.dtype)


def test_a_usual_frame_is_parquet_that_others_can_read() -> None:
    frame = pd.DataFrame({"id": [1, 2], "name": ["x", None], "paid": [1.5, math.nan]})

    assert there_and_back(frame)[0] == "pandas"
    assert there_and_back(pl.DataFrame({"id": [1, 2], "name": ["x", None]}))[0] == "polars"
    assert there_and_back(pa.table({"id": [1, 2], "name": ["x", None]}))[0] == "arrow"


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"a": [1, None], "b": ["x", None], "c": [math.nan, None], "d": [True, None]}),
        pl.DataFrame({"a": [1, 2]}, schema={"a": pl.UInt8}),
        pl.DataFrame({"a": ["x", "y"]}, schema={"a": pl.Categorical}),
        pl.DataFrame({"a": [[1], [2, 3]], "b": [{"x": 1}, {"x": None}]}),
        pl.DataFrame({"a": pl.datetime_range(pl.datetime(2020, 1, 1), pl.datetime(2020, 1, 2), eager=True)}),
        pl.DataFrame(),
    ],
)
def test_polars_frames_come_back(frame: pl.DataFrame) -> None:
    _, back = there_and_back(frame)

    assert back.schema == frame.schema
    assert back.equals(frame, null_equal=True)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"a": [1, None], "b": ["x", None]}).replace_schema_metadata({"who": "me"}),
        pa.table({"a": pa.array(["x", "y"]).dictionary_encode()}),
        pa.table({"a": pa.array([[1], [2, 3]]), "b": pa.array([{"x": 1}, None])}),
        pa.table({"a": pa.array([0, None], pa.timestamp("s"))}),
        pa.table({}),
    ],
)
def test_arrow_tables_come_back(table: pa.Table) -> None:
    _, back = there_and_back(table)

    assert back.schema.equals(table.schema, check_metadata=True)
    assert back.equals(table)


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (np.arange(6).reshape(2, 3).T, "numpy"),
        (np.array(1.5), "numpy"),
        (np.array(["NaT", "2020"], "datetime64[D]"), "numpy"),
        (np.array([1, 2], ">i4"), "numpy"),
        (np.array([{}, None], object), "pickle"),
        (np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]), "pickle"),
        (np.ma.array([1, 2], mask=[0, 1]), "pickle"),
    ],
)
def test_arrays_come_back_and_those_of_objects_by_pickle(array: np.ndarray, name: str) -> None:
    used, back = there_and_back(array)

    assert used == name
    assert (back.dtype, back.shape, type(back)) == (array.dtype, array.shape, type(array))
    np.testing.assert_array_equal(back, array)


def test_what_a_notebook_has_defined_comes_back() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("class Point:\n def __init__(self, x): self.x = x\nmade = Point(3)", names)

    name, back = there_and_back(names["made"])

    assert (name, back.x) == ("pickle", 3)


def test_a_format_of_ones_own_is_used_for_its_type_alone() -> None:
    @dataclass
    class Text:
        words: str

    class Shout(Text):
        pass

    fk.format(
        Text, "plain", dump=lambda text, file: file.write(text.words.encode()), load=lambda f: Text(f.read().decode())
    )

    assert there_and_back(Text("hello")) == ("plain", Text("hello"))
    assert there_and_back(Shout("hello"))[0] == "pickle"
    with pytest.raises(UsageError, match="cannot be named 'json'"):
        fk.format(Text, "json", dump=lambda *_: None, load=lambda _: None)


def test_a_figure_is_kept_with_its_picture() -> None:
    os.environ.setdefault("MPLBACKEND", "agg")
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])

    assert formats.picture(figure)[:4] == b"\x89PNG"
    assert there_and_back(figure)[1].axes[0].lines[0].get_ydata().tolist() == [1, 2]
    assert formats.picture([1]) is None


def test_a_profile_tells_the_shape_and_the_range_of_each_column() -> None:
    frame = pd.DataFrame({"id": [1, 5], "name": ["x", None], "day": pd.to_datetime(["2020-01-01", None])})

    found = formats.profile(frame, seconds=10)

    assert (found["rows"], found["width"]) == (2, 3)
    assert found["columns"][0] == {"name": "id", "dtype": "int64", "nulls": 0, "min": 1, "max": 5}
    assert (found["columns"][1]["name"], found["columns"][1]["nulls"]) == ("name", 1)
    assert found["columns"][2]["min"] == found["columns"][2]["max"] == "2020-01-01 00:00:00"
    assert formats.profile(pl.DataFrame({"a": [1, None]}), 10)["columns"][0]["nulls"] == 1
    assert formats.profile(pa.table({"a": [1, None]}), 10)["columns"][0]["nulls"] == 1
    assert formats.profile([1, 2], 0) == {"length": 2}


def test_a_preview_is_short_whatever_the_value() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise ValueError

    for value in (pd.DataFrame({f"c{n}": range(9) for n in range(90)}), list(range(10**6)), "x" * 10**6, Rude()):
        assert 0 < len(formats.preview(value)) < 2_500


def test_the_profiles_of_items_are_added_up_as_far_as_there_was_time_for_them() -> None:
    items = formats.Items()
    for low, kind in ((1, "int64"), (-1, "float64")):
        items.look(pd.DataFrame({"a": pd.Series([low, 5], dtype=kind)}), 10)
    items.add({"kind": "pandas.DataFrame", "rows": 1, "columns": [{"name": "a", "dtype": "int64"}]})
    column = {"name": "a", "dtype": "float64, int64"}
    told = {"kind": "list of pandas.DataFrame", "length": 4, "failed": 1, "rows": 5, "width": 1, "columns": [column]}
    assert items.told(4, 1) == told, "of the third, nulls and range are not known"

    many = formats.Items()
    frame = pd.DataFrame({f"c{place}": range(1000) for place in range(100)})
    began = time.thread_time()
    for _ in range(500):
        many.look(frame, 0.0)
    assert time.thread_time() - began < 1, "each has not the time that one alone would have"
    found = many.told(500, 0)
    assert "rows" not in found
    assert len(found["columns"]) == 100

    mixed = formats.Items()
    mixed.look(1, 1)
    mixed.look("x", 1)
    assert mixed.told(2, 0) == {"kind": "list", "length": 2}
