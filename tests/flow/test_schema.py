"""A node whose result does not fit its schema fails, and says which rows."""

from __future__ import annotations

import sys
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pandera.polars
import polars as pl
import pytest

from flowkit.errors import GraphError, NodeFailed
from flowkit.flow import code, identity
from flowkit.flow.flow import Flow
from flowkit.flow.schema import SchemaBroken


def whole(least: int = 0) -> pa.DataFrameSchema:
    return pa.DataFrameSchema({"a": pa.Column(int, pa.Check.ge(least), coerce=True)})


class Model(pa.DataFrameModel):
    a: int = pa.Field(ge=0)


def returning(value: Any, schema: Any) -> Flow:
    flow = Flow("some")

    @flow.node(schema=schema)
    def table() -> Any:
        return value

    return flow


@pytest.mark.parametrize("schema", [whole(), Model])
def test_a_result_that_does_not_fit_fails_with_its_rows(schema: Any) -> None:
    frame = pd.DataFrame({"a": [1, -2, *range(30), -4], "b": "told too"})

    with pytest.raises(NodeFailed) as failure:
        returning(frame, schema).run()

    cause = failure.value.__cause__
    assert isinstance(cause, SchemaBroken)
    assert "a: greater_than_or_equal_to(0) fails (row 1: -2, row 32: -4)" in str(failure.value)
    assert [line.split()[:2] for line in cause.__notes__[0].splitlines()[1:]] == [["1", "-2"], ["32", "-4"]]
    assert "told too" in cause.__notes__[0]


def test_many_bad_rows_are_counted_and_not_all_shown() -> None:
    with pytest.raises(NodeFailed, match=r"row 2: -1, and 997 more") as failure:
        returning(pd.DataFrame({"a": [-1] * 1000}), whole()).run()

    cause = failure.value.__cause__
    assert cause is not None
    assert cause.__notes__[0].endswith("… 990 more rows")


def test_what_fits_comes_out_as_the_schema_makes_it() -> None:
    assert returning(pd.DataFrame({"a": ["1"]}), whole()).run()["table"].a.tolist() == [1]


def test_polars_frames_have_schemas_too() -> None:
    schema = pandera.polars.DataFrameSchema({"a": pandera.polars.Column(int, pandera.polars.Check.ge(0))})

    with pytest.raises(NodeFailed, match=r"row 1: -2"):
        returning(pl.DataFrame({"a": [1, -2]}), schema).run()


def test_what_is_no_table_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NodeFailed, match="does not fit its schema: expected"):
        returning([1], whole()).run()
    with pytest.raises(GraphError, match=r"schema='x'; it must be a DataFrameSchema or a DataFrameModel"):
        returning([1], "x")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(GraphError, match=r"needs Pandera: pip install 'flowkit\[schema\]'"):
        returning([1], "x")


def test_a_schema_is_part_of_what_a_node_is_and_running_does_not_change_it() -> None:
    flows = [returning(pd.DataFrame({"a": [5]}), schema) for schema in (whole(), whole(1), Model)]

    def keys() -> list[str]:
        return [identity.of_code(flow.graph.order[0].call) for flow in flows]

    before = keys()
    for flow in flows:
        flow.run()

    assert len(set(before)) == 3
    assert keys() == before
    again = [returning(pd.DataFrame({"a": [5]}), schema) for schema in (whole(), whole(1), Model)]
    assert [identity.of_code(flow.graph.order[0].call) for flow in again] == before


def test_a_schema_is_written_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "Checked", shape := whole(), raising=False)
    flow = Flow("some")

    @flow.node(schema=shape)
    def table() -> pd.DataFrame:
        return pd.DataFrame({"a": [1]})

    assert "@flow.node(schema=Checked)" in code.source(flow, "flow")
