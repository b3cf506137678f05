"""The nodes that change tables: the same answers from pandas and from polars, and errors that show where."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pandas as pd
import polars as pl
import pytest

import flowkit as fk
from flowkit.errors import ExpressionError, UsageError
from flowkit.flow.schema import SchemaBroken
from flowkit.nodes import table

Make = Callable[[dict[str, Any]], Any]

FLIGHTS = {
    "carrier": ["AA", "UA", "DL", None],
    "delay": [5.0, None, 30.0, 20.0],
    "n": [1, 2, 3, 4],
    "dep day": ["2013-07-01", "2013-07-02", None, "2013-07-03"],
}


@pytest.fixture(params=[pd.DataFrame, pl.DataFrame])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


@pytest.fixture
def flights(make: Make) -> Any:
    return make(FLIGHTS)


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("delay > 10", [3, 4]),
        ("not delay > 10", [1, 2]),
        ("delay != 5", [3, 4]),
        ("10 < delay <= 20", [4]),
        ("delay is None", [2]),
        ("delay is not None and carrier is None", [4]),
        ("carrier in ['AA', 'UA']", [1, 2]),
        ("carrier not in ('AA',)", [2, 3]),
        ("n % 2 == 1 and (delay > 10 or carrier == 'AA')", [1, 3]),
        ("contains(carrier, 'A') and lower(carrier) == 'ua'", [2]),
        ("col('dep day') == '2013-07-01'", [1]),
        ("n > low and n * 60 < 60 * 4", [3]),
        ("-n < -3", [4]),
        ("n in some", [1, 4]),
        ("fill(delay, 0) < 1", [2]),
        ("(n if delay > 10 else 0) > 3", [4]),
    ],
)
def test_a_condition_keeps_the_rows_it_is_true_for_and_none_that_lack_a_value(flights, condition, kept):
    found = table.where(flights, condition, values={"low": 2, "some": [1, 4]})

    assert type(found) is type(flights)
    assert [row["n"] for row in table.rows(found)] == kept


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        (
            "n > 1 and dela > 1",
            "there is no column 'dela'; did you mean 'delay'?\n  n > 1 and dela > 1\n            ^^^^",
        ),
        (
            "lowr(carrier) == 'aa'",
            "there is no function 'lowr'; did you mean 'lower'?\n  lowr(carrier) == 'aa'\n  ^^^^",
        ),
        ("n >", "it cannot be read: invalid syntax\n  n >\n  ^"),
        ("n == None", "nothing equals None; write: is None, or: is not None\n  n == None\n  ^^^^^^^^^"),
        ("carrier == 'ä' and\n x > 1", "there is no column 'x'; there are carrier, delay, n, dep day"),
    ],
)
def test_a_mistake_is_shown_where_it_is(flights, condition, told):
    with pytest.raises(ExpressionError) as caught:
        table.where(flights, condition)
    assert str(caught.value).startswith(told)
    *_, shown, marks = str(caught.value).split("\n")
    if "ä" in condition:
        assert shown[marks.index("^") : marks.rindex("^") + 1] == "x"


@pytest.mark.parametrize(
    "text",
    [
        *("__import__('os').system('x')", "().__class__.__bases__", "n.__class__", "n[0]", "(lambda: 1)()", "f'{n}'"),
        *(
            "[x for x in n]",
            "{'a': n}",
            "(n := 3)",
            "n ** 9 ** 9",
            "carrier == 'a' * 99",
            "n << 2",
            "open('x')",
            "abs(*n)",
        ),
        *("eval('1')", "getattr(n, 'x')", "str.upper('a')", "contains(carrier, n)", "abs(x=n)", "b'x' == n", "1j * n"),
        *("date('x') == n", "1 / 0 + n", "n is 3", "n in carrier", "1 < 2", "True", "(" * 500 + "n" + ")" * 500),
        *("n" * 10_001, "\0", "", "delay and n.real", "...", "await_(n)", "col(n)", "round(n)"),
    ],
)
def test_an_expression_is_nothing_but_an_expression(flights, text):
    with pytest.raises(ExpressionError):
        table.where(flights, text)


def test_a_name_that_is_a_column_and_a_value_is_refused(flights):
    """Else a new column in the data would change what a condition means."""
    with pytest.raises(ExpressionError, match="'n' is a column and a value"):
        table.where(flights, "n > 1", values={"n": 1})


def test_columns_are_made_renamed_cast_and_selected(flights):
    made = table.compute(
        flights, {"id": "n", "late": "delay > 10", "half": "delay / 2", "from": "'JFK'"}, values={"unused": 1}
    )
    assert table.rows(made)[2] == {"id": 3, "late": True, "half": 15.0, "from": "JFK"}
    assert list(table.compute(flights, {"m": "n"}, keep=True).columns) == [*FLIGHTS, "m"]

    cast = table.cast(table.rename(flights, {"dep day": "day"}), {"day": "date", "n": "text", "delay": "number"})
    assert table.rows(table.select(cast, ["day", "n"]))[:1] == [{"day": datetime.date(2013, 7, 1), "n": "1"}]
    assert table.rows(table.where(cast, "day >= date('2013-07-02')"))[0]["n"] == "2"

    with pytest.raises(UsageError, match="there is no column 'dely'; did you mean 'delay'"):
        table.select(flights, ["dely"])
    with pytest.raises(UsageError, match="two columns would be called 'n'"):
        table.rename(flights, {"delay": "n"})
    with pytest.raises(UsageError, match="cannot become 'int', which is no type; did you mean"):
        table.cast(flights, {"n": "int"})
    with pytest.raises(ExpressionError, match=r"^column 'x': there is no column 'y'"):
        table.compute(flights, {"x": "y"})


def test_tables_are_joined_grouped_pivoted_deduplicated_and_sorted(make, flights):
    names = make({"carrier": ["AA", "DL", "B6"], "n": [7, 8, 9]})
    found = table.sort(table.join(flights, names, ["carrier"], how="left"), ["n"])
    assert [row["n_right"] for row in table.rows(found)] == [7, None, 8, None]
    every = table.join(flights, names, ["carrier"], how="full")
    assert {row["carrier"] for row in table.rows(every)} == {"AA", "UA", "DL", "B6", None}
    assert [row["n"] for row in table.rows(table.join(flights, names, ["carrier"], how="anti"))] == [2, 4]

    more = make({"day": [1, 1, 2, 2], "from": ["JFK", "LGA", "JFK", "JFK"], "late": [3, 4, 5, 6]})
    grouped = table.group(more, ["day"], {"flights": "count()", "worst": "max(late)", "all": "sum(late)"})
    assert table.rows(grouped) == [
        {"day": 1, "flights": 2, "worst": 4, "all": 7},
        {"day": 2, "flights": 2, "worst": 6, "all": 11},
    ]
    assert [row["JFK"] for row in table.rows(table.pivot(more, ["day"], "from", "late"))] == [3, 11]
    assert [row["late"] for row in table.rows(table.deduplicate(more, ["day"], keep="last"))] == [4, 6]
    assert [row["late"] for row in table.rows(table.sort(more, ["day", "late"], descending=True))] == [6, 5, 4, 3]

    with pytest.raises(UsageError, match=r"is to be 'biggest\(late\)'; write it as in 'max\(dep_delay\)'"):
        table.group(more, ["day"], {"x": "biggest(late)"})
    with pytest.raises(UsageError, match="the right table has no column 'delay'"):
        table.join(flights, names, ["delay"])
    with pytest.raises(UsageError, match=r"not list; make one by table\.from_rows"):
        table.where([1], "x > 1")


def test_rules_are_checked_and_what_breaks_them_is_told_with_its_rows():
    flights = table.from_rows([{"carrier": "AA", "delay": 5}, {"carrier": "XX", "delay": -90}])
    rules = {"carrier": {"in": ["AA", "UA"]}, "delay": {"type": "float", "min": -60}}

    assert table.validate(flights.head(1), rules).delay.tolist() == [5.0]
    with pytest.raises(SchemaBroken) as caught:
        table.validate(flights, rules)
    assert "(row 1: XX)" in str(caught.value)
    assert "(row 1: -90.0)" in str(caught.value)
    with pytest.raises(UsageError, match="has the rule 'minimum', which is none"):
        table.validate(flights, {"delay": {"minimum": 1}})


def test_in_a_flow_frames_of_both_kinds_fit_the_ports_and_a_number_does_not(make, flights):
    flow = fk.Flow("late")

    def source() -> pd.DataFrame:
        return flights

    flow.add(source)
    flow.add(table.where, "late", frame="source", condition=fk.value("delay > 10"))
    flow.add(table.rows, "items", frame="late")
    assert [row["n"] for row in flow.run()["items"]] == [3, 4]

    def number() -> int:
        return 3

    flow.add(number)
    flow.add(table.where, "wrong", frame="number", condition=fk.value("n > 1"))
    with pytest.raises(fk.FlowkitError, match="takes 'frame' as Frame, but node 'number' returns int"):
        flow.check()
