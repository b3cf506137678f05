"""What changed between two runs: the likeliest cause comes first."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowkit.changes import Record, compare
from flowkit.client import Client
from flowkit.model import Deployment, NodeRun, Run, State, now
from tests.notebooks_made import notebook, write
from tests.processes import answer, flowkit, worker
from tests.test_end_to_end import client, on_both, place

__all__ = ["client", "place"]  # the fixtures

HEAD = "import pandas as pd\nimport flowkit as fk\nflow = fk.Flow('delays')"
FLIGHTS = "@flow.node\ndef flights(day):\n    return pd.DataFrame({'delay': [3, 20]})"
LATE = "@flow.node\ndef late(flights, least):\n    return flights[flights['delay'] >= least]"
RUN = "print('day', day)\nflow.run(day=day, least=least)"
PARAMETERS = "day = 1\nleast = 15"


@on_both
def test_the_cell_that_broke_it_is_named_first(client: Client, tmp_path: Path) -> None:
    place = write(tmp_path / "delays.ipynb", HEAD, FLIGHTS, LATE, RUN, parameters=PARAMETERS)
    client.deploy(place)
    with worker():
        good = client.follow(client.submit("delays").id, lambda *_: None)
        none_before = flowkit("diff", good.id)
        same = client.follow(client.submit("delays").id, lambda *_: None)
        write(place, HEAD, FLIGHTS.replace("'delay'", "'minutes'"), LATE, RUN, parameters=PARAMETERS)
        client.deploy(place, parameters={"day": 2})
        bad = client.follow(client.submit("delays").id, lambda *_: None)

    assert (good.state, bad.state) == (State.SUCCEEDED, State.FAILED)
    assert none_before.returncode == 2
    assert none_before.stderr.endswith(f"name the one to compare with: flowkit diff {good.id[:8]} OTHER\n")
    assert "Nothing that is known differs." in flowkit("diff", same.id).stdout

    found = answer("diff", bad.id[:8])
    told = [(change["kind"], change["name"]) for change in found["changes"]]
    assert found["before"]["id"] == same.id
    assert told == [
        ("cell", "cell 3, flights"),
        ("result", "flights"),
        ("parameter", "day"),
        ("output", "cell 5"),
    ]
    assert found["changes"][0]["suspect"] == "it defines flights, which late reads"
    assert found["changes"][1]["suspect"] == "the error names its column delay"
    assert {"packages", "Python", "host", "durations"} <= set(found["same"])
    assert "git commit" in found["unknown"]

    shown = flowkit("diff", bad.id, good.id).stdout
    assert "-    return pd.DataFrame({'delay': [3, 20]})" in shown
    assert shown.index("cell 3, flights".removeprefix("cell ")) < shown.index("parameter day")


AT = now()


def record(*cells: str, state: State = State.SUCCEEDED, nodes: Any = (), **more: Any) -> Record:
    run = {name: more.pop(name) for name in ("error", "commit", "parameters") if name in more}
    text = notebook(*cells)
    made = Run.of(Deployment(name="some", notebook="/some.ipynb", snapshot=text, version=1), now=AT)
    return Record(replace(made, state=state, attempt=1, **run), text, nodes=list(nodes), **more)


def node(name: str, *, state: State = State.SUCCEEDED, seconds: float = 1.0, **more: Any) -> NodeRun:
    return NodeRun(name, "some", state, started=AT, finished=AT + timedelta(seconds=seconds), **more)


def frame(rows: int = 9, **columns: tuple[str, int]) -> dict[str, Any]:
    told = [{"name": name, "dtype": kind, "nulls": nulls} for name, (kind, nulls) in columns.items()]
    return {"kind": "pandas.DataFrame", "rows": rows, "width": len(told), "columns": told}


def kinds(before: Record, after: Record) -> list[str]:
    return [f"{change.kind} {change.name}" for change in compare(before, after).changes]


def test_a_package_that_the_traceback_goes_through_comes_before_all_that_it_does_not_name() -> None:
    error = {"output_type": "error", "traceback": ["File /x/site-packages/some_lib/core.py:3"]}
    outputs = json.loads(notebook("1"))
    outputs["cells"][0]["outputs"] = [error]
    before = record("1", "2", packages=["some-lib==1.0", "other==1.9", "numpy==1.0"], parameters={"a": 1})
    after = record(
        "1",
        "3",
        packages=["some-lib==1.1", "other==2.0", "numpy==1.1"],
        parameters={"a": 2},
        state=State.FAILED,
        outputs=json.dumps(outputs),
    )

    assert kinds(before, after) == [
        "package some-lib",
        "parameter a",
        "package other",  # a new major version
        "package numpy",
        "cell cell 2",  # it comes after the failure
    ]


def test_a_parameter_that_the_error_names_comes_before_the_others() -> None:
    before = record("1", parameters={"day": 1, "least": 1})
    given = {"day": 2, "least": "x"}
    after = record("1", parameters=given, state=State.FAILED, error="TypeError: least must be a number")

    assert kinds(before, after) == ["parameter least", "parameter day"]
    assert kinds(before, replace(after, run=replace(after.run, error="no"))) == ["parameter day", "parameter least"]


@pytest.mark.parametrize(
    ("was", "now", "lines"),
    [
        (frame(a=("int64", 0)), frame(a=("str", 0)), ("a: int64 → str",)),
        (frame(a=("int64", 0)), frame(a=("int64", 3)), ("a: 0 → 3 nulls",)),
        (frame(a=("int64", 0)), frame(b=("int64", 0)), ("without a", "with b")),
        (frame(a=("int64", 0)), frame(0, a=("int64", 0)), ()),
        ({"kind": "list", "length": 3}, {"kind": "list", "length": 0}, ()),
        ({"kind": "list", "length": 3}, {"kind": "NoneType"}, ("list → NoneType",)),
    ],
)
def test_a_result_that_the_failed_node_reads_comes_before_packages_if_it_is_of_another_kind(
    was: dict[str, Any], now: dict[str, Any], lines: tuple[str, ...]
) -> None:
    reads = {"late": ["flights"], "flights": [], "aside": []}
    before = record("1", packages=["x==1"], nodes=[node("flights", profile=was), node("aside", profile=was)])
    failed = node("late", state=State.FAILED, error="ValueError: no")
    nodes = [node("flights", profile=now), node("aside", profile=now), failed]
    after = record("1", packages=["x==2"], nodes=nodes, reads=reads, state=State.FAILED)

    assert kinds(before, after) == ["result flights", "package x", "result aside"]
    assert compare(before, after).changes[0].lines == lines


def test_a_duration_counts_if_it_is_twice_another_and_a_second_from_it() -> None:
    before = record("1", nodes=[node("a"), node("b"), node("c", seconds=0.01), node("d", reused="attempt 1")])
    longer = [node("a", seconds=2.5), node("b", seconds=1.9), node("c", seconds=0.9), node("d", seconds=9)]

    assert kinds(before, record("1", nodes=longer)) == ["duration a"]


def test_cells_without_ids_are_those_that_took_their_place() -> None:
    old, new = (record("a = 1", source, "c = 3") for source in ("b = 1", "b = 2"))
    stripped = []
    for one in (old, new):
        content = json.loads(one.notebook)
        content["nbformat_minor"] = 4
        for cell in content["cells"]:
            del cell["id"]
        stripped.append(replace(one, notebook=json.dumps(content)))

    [change] = compare(*stripped).changes
    assert (change.name, change.lines) == ("cell 2", ("-b = 1", "+b = 2"))
