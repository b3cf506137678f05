"""A node whose result does not fit its schema fails, and says which rows."""

from __future__ import annotations

import json
import sys
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pandera.polars
import polars as pl
import pytest

from flowkit.errors import GraphError, NodeFailed
from flowkit.flow import code, editor, identity
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


def test_the_rows_are_told_as_json_short_and_with_their_names() -> None:
    frame = pd.DataFrame({"a": [1, -2, -3], "b": ["x" * 100, None, "é"], "c": pd.to_datetime(["2013-07-01"] * 3)})
    with pytest.raises(NodeFailed) as failure:
        returning(frame.set_index(pd.Index(["one", "two", "three"])), whole()).run()

    cause = failure.value.__cause__
    assert isinstance(cause, SchemaBroken)
    assert cause.rows == {
        "columns": ["row", "a", "b", "c"],
        "values": [["two", -2, None, "2013-07-01 00:00:00"], ["three", -3, "é", "2013-07-01 00:00:00"]],
        "more": 0,
    }
    wide = pd.DataFrame({f"c{place}": [-1] * 500 for place in range(300)}).assign(a=-1, text="y" * 10_000)
    with pytest.raises(NodeFailed) as failure:
        returning(wide[["text", "a", *wide.columns[:-2]]], whole()).run()
    assert isinstance(failure.value.__cause__, SchemaBroken)
    assert len(json.dumps(failure.value.__cause__.rows)) < 20_000


def test_each_output_may_have_a_schema_and_the_one_that_does_not_fit_is_named() -> None:
    def splitting(early: Any, outputs: Any = ("late", "early"), schema: Any = None) -> Flow:
        flow = Flow("some")

        @flow.node(outputs=outputs, schema=schema or {"early": whole()})
        def split() -> Any:
            late = pd.DataFrame({"a": ["no number"]})
            return {"late": late, "early": early} if isinstance(outputs, list) else (late, early)

        return flow

    for outputs in (("late", "early"), ["late", "early"]):
        assert splitting(pd.DataFrame({"a": ["7"]}), outputs).run()["early"].a.tolist() == [7]
        with pytest.raises(NodeFailed, match=r"its output 'early' does not fit its schema: a: .* \(row 0: -7\)"):
            splitting(pd.DataFrame({"a": [-7]}), outputs).run()
    with pytest.raises(GraphError, match="has a schema for 'earli', but its outputs are late, early; did you mean"):
        splitting(None, schema={"earli": whole()})
    with pytest.raises(GraphError, match=r"has outputs= and one schema; say whose it is: schema=\{'late': …\}"):
        splitting(None, schema=whole())
    with pytest.raises(GraphError, match="has a schema for 'early', but it has no outputs="):
        splitting(None, (), schema={"early": whole()})
    with pytest.raises(NodeFailed, match="'split' returned 2 values; its outputs are early"):
        splitting(None, ("early",), schema={"early": whole()}).run()


def test_what_fits_comes_out_as_the_schema_makes_it() -> None:
    assert returning(pd.DataFrame({"a": ["1"]}), whole()).run()["table"].a.tolist() == [1]


def test_polars_frames_have_schemas_too() -> None:
    schema = pandera.polars.DataFrameSchema({"a": pandera.polars.Column(int, pandera.polars.Check.ge(0))})

    with pytest.raises(NodeFailed, match=r"row 1: -2") as failure:
        returning(pl.DataFrame({"a": [1, -2], "b": ["x", None]}), schema).run()
    assert isinstance(failure.value.__cause__, SchemaBroken)
    assert failure.value.__cause__.rows == {"columns": ["row", "a", "b"], "values": [[1, -2, None]], "more": 0}


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

    @flow.node(schema={"late": shape}, outputs=("late", "early"))
    def split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        return table, table

    assert "@flow.node(schema=Checked)" in code.source(flow, "flow")
    assert '@flow.node(outputs=("late", "early"), schema={"late": Checked})' in code.source(flow, "flow")


def test_the_editor_keeps_a_schema_and_may_take_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "Checked", shape := whole(), raising=False)
    flow = Flow("some")

    @flow.node(schema=shape)
    def table() -> pd.DataFrame:
        return pd.DataFrame({"a": [1]})

    draft = json.loads(json.dumps(editor.offered(flow)["draft"]))
    assert draft["nodes"][0]["options"] == {"schema": {"kept": "table", "text": "Checked"}}
    assert "@flow.node(schema=Checked)" in editor.written(flow, draft)["code"]
    draft["nodes"][0]["options"]["schema"] = None
    assert "schema" not in editor.written(flow, draft)["code"]
    draft["nodes"][0]["options"]["schema"] = {"kept": "other"}
    assert "to keep the schema of node 'other', which has none" in editor.written(flow, draft)["problem"]
    draft["nodes"][0]["options"]["schema"] = "Checked"
    assert 'must be null or {"kept": node}' in editor.written(flow, draft)["problem"]
