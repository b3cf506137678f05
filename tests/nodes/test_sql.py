"""The SQL nodes on real PostgreSQL and SQLite: values stay values, names are looked up, and limits hold."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pandas as pd
import polars as pl
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit.errors import Unavailable, UsageError
from flowkit.nodes import sql

ORDERS = pd.DataFrame(
    {
        "id": [1, 2, 3],
        "customer": ["anna", None, "o'brien; drop table orders; --"],
        "total": [1.5, 2.5, None],
        "at": [pd.Timestamp("2013-07-01T06:00"), pd.NaT, pd.Timestamp("2013-07-02")],
    }
)


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(
            sa.text("create table orders (id integer primary key, customer text, total float, at timestamp)")
        )
        connection.execute(sa.text('create table "odd name" (id integer, "select" text)'))
    yield database_url
    with engine.begin() as connection:
        for table in ("orders", '"odd name"', "made"):
            connection.execute(sa.text(f"drop table if exists {table}"))


def ids(url: str, table: str = "orders") -> list[int]:
    return sql.query(url, f'select id from "{table}" order by id').id.tolist()


def test_rows_are_written_read_and_replaced(url):
    assert sql.write(url, ORDERS, "orders") == 3
    found = sql.query(url, "select * from orders where total > :low order by id", values={"low": 1})

    assert found.customer.tolist()[0] == "anna"
    assert pd.isna(found.customer[1])
    assert pd.Timestamp(found["at"][0]) == pd.Timestamp("2013-07-01T06:00")
    some = sql.query(url, "select id from orders where id in :some order by id", values={"some": [1, 3]})
    assert some.id.tolist() == [1, 3]
    nothing = sql.query(url, "select id, total from orders where id = :id", values={"id": 9})
    assert list(nothing.columns) == ["id", "total"]

    sql.write(url, pl.DataFrame({"id": [7], "customer": ["eve"]}), "orders", how="replace")
    assert ids(url) == [7]
    sql.write(url, pd.DataFrame({"id": [1], "select": ["x"]}), "odd name")
    assert ids(url, "odd name") == [1]
    sql.write(url, ORDERS, "made", how="new")
    assert ids(url, "made") == [1, 2, 3]
    with pytest.raises(UsageError, match="has a table 'made' already; append to it"):
        sql.write(url, ORDERS, "made", how="new")


def test_rows_come_some_at_a_time_and_too_many_are_an_error(url):
    sql.write(url, pd.DataFrame({"id": range(2500)}), "orders")

    parts = list(sql.query_each(url, "select id from orders order by id", rows=1000))
    assert [len(part) for part in parts] == [1000, 1000, 500]
    assert pd.concat(parts).id.tolist() == list(range(2500))
    with pytest.raises(UsageError, match="gives more than 2,000 rows; narrow it down, raise rows=, or use query_each"):
        sql.query(url, "select id from orders", rows=2000)


def test_an_upsert_done_twice_leaves_the_same_as_once(url):
    sql.write(url, ORDERS.head(2), "orders")
    new = pd.DataFrame({"id": [2, 5], "customer": ["bob", "eve"]})

    for _ in range(2):
        assert sql.upsert(url, new, "orders", ["id"]) == 2

    found = sql.query(url, "select id, customer, total from orders order by id")
    assert found.id.tolist() == [1, 2, 5]
    assert found.customer.tolist() == ["anna", "bob", "eve"]
    assert found.total.tolist()[:2] == [1.5, 2.5], "what it does not name stays"
    with pytest.raises(UsageError, match="has no unique index of customer"):
        sql.upsert(url, new, "orders", ["customer"])
    with pytest.raises(UsageError, match="two rows have the same id"):
        sql.upsert(url, pd.concat([new, new]), "orders", ["id"])


def test_all_rows_are_written_or_none(url):
    sql.write(url, ORDERS, "orders")
    many = pd.DataFrame({"id": [*range(10, 2010), 1]})  # the last one is there already, two batches on

    with pytest.raises(Unavailable, match=r"the database refused: .*(unique|UNIQUE|duplicate)"):
        sql.write(url, many, "orders")
    with pytest.raises(Unavailable):
        sql.write(url, pd.DataFrame({"id": [8, 8]}), "orders", how="replace")
    assert ids(url) == [1, 2, 3]


def test_a_query_changes_nothing_and_ends_in_time(url):
    sql.write(url, ORDERS, "orders")
    with pytest.raises(
        Unavailable, match=r"the database refused: .*(read-only|readonly|syntax error at or near \"insert\")"
    ):
        sql.query(url, "insert into orders (id) values (9) returning id")

    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    with pytest.raises(Unavailable, match=r"the database gave up after 0\.5 s, as within= says"):
        sql.query(url, endless, within=0.5)
    assert ids(url) == [1, 2, 3]


NAMES = ["order", "orders; drop table orders", 'orders" --', "nowhere.orders", "orders'", "", "*", "pg_catalog"]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_or_column_that_is_not_there_is_refused_whatever_it_says(url, name):
    with pytest.raises(UsageError, match="the database has no table"):
        sql.write(url, ORDERS, name)
    with pytest.raises(UsageError, match=r"table 'orders' has no column|cannot be the name"):
        sql.write(url, pd.DataFrame({name or "x": [1]}), "orders")
    with pytest.raises(UsageError, match=r"have no column|no unique index"):
        sql.upsert(url, pd.DataFrame({"id": [1]}), "orders", [name])
    if not name.isidentifier():
        with pytest.raises(UsageError, match=r"cannot be the name of a new table|has no schema"):
            sql.write(url, ORDERS, name, how="new")
    assert ids(url) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_is_a_value_and_comes_back_as_it_was(url, text):
    for value in (text, f"{text}' or 1=1 --", f":{text}", f"{text}%s{{}}"):
        found = sql.query(url, "select cast(:value as text) as value", values={"value": value})
        assert found.value.tolist() == [value]


def test_what_is_wrong_is_said_before_the_database_is_asked(url):
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("select :day", {}, "the statement names :day, of which no value is given"),
        ("select 1", {"day": 1}, "a value is given for 'day', which the statement does not name; write :day there"),
    ]
    for statement, values, told in cases:
        with pytest.raises(UsageError, match=told):
            sql.query(url, statement, values=values)
    with pytest.raises(Unavailable, match="the database refused: "):
        sql.query(url, "selct 1")
    with pytest.raises(UsageError, match="is no URL of a database that is installed") as caught:
        sql.query("nosuch://anna:s3cret@host/db", "select 1")
    assert "s3cret" not in str(caught.value)


def test_a_database_that_is_away_is_told_without_its_password():
    with pytest.raises(Unavailable, match=r"the database refused: .*onnection.*refused") as caught:
        sql.query("postgresql+psycopg://anna:s3cret@127.0.0.1:1/db", "select 1")
    assert "s3cret" not in str(caught.value)


def test_times_of_day_and_dates_are_values_too(url):
    day = datetime.date(2013, 7, 1)
    sql.write(url, ORDERS, "orders")
    found = sql.query(url, "select id from orders where at >= :day", values={"day": day})
    assert 3 in found.id.tolist()
