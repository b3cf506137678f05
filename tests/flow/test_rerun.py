"""A part of a flow again, with the results at hand; and which results are out of date."""

from __future__ import annotations

import threading

import pytest

import flowkit as fk
from flowkit.errors import GraphError, UsageError
from flowkit.events import Event, fold
from flowkit.flow.log import Log
from flowkit.model import State
from tests.flow.noted import note, ran

__all__ = ["ran"]  # the fixture


def authored(*, factor: int = 2) -> fk.Flow:
    """flights(day) -> late(min_delay) -> report, and planes, which is read by report alone."""
    flow = fk.Flow("delays")

    @flow.node
    def flights(day):
        note("flights")
        return [day, 20]

    @flow.node
    def planes():
        note("planes")
        return 3

    @flow.node(outputs=("late", "early"))
    def split(flights, min_delay=15):
        note("split")
        return [f for f in flights if f >= min_delay], [f for f in flights if f < min_delay]

    @flow.node
    def report(late, planes):
        note("report")
        return len(late) * factor * planes

    return flow


def test_a_node_runs_again_with_what_depends_on_it_and_nothing_else(ran: list[str]):
    flow = authored()
    before = flow.run(day=10)
    ran.clear()

    outcome = flow.rerun("split")

    assert ran == ["split", "report"]
    assert dict(outcome) == dict(before)
    assert outcome is flow.outcome
    assert outcome.ok
    assert {node.name: node.state for node in outcome.nodes} == before.states


def test_a_parameter_given_anew_also_runs_the_nodes_that_read_it(ran: list[str]):
    flow = authored()
    flow.run(day=10)
    ran.clear()

    assert flow.rerun("report", min_delay=5)["report"] == 12
    assert ran == ["split", "report"]
    assert flow.rerun("report").parameters == {"day": 10, "min_delay": 5}


def test_a_result_that_is_needed_and_not_there_is_refused_before_anything_runs(ran: list[str]):
    flow = authored()

    with pytest.raises(GraphError) as caught:
        flow.rerun("split", day=1)

    assert str(caught.value) == (
        "node 'split' needs 'flights', but 'flights' has no result yet; run the whole flow, or again from there: "
        "flow.rerun('flights')"
    )
    assert ran == []
    with pytest.raises(GraphError, match="no node or output is called 'spilt'; did you mean 'split'"):
        flow.rerun("spilt", day=1)


def test_what_failed_is_mended_and_run_again_while_the_rest_stays_as_it_was(ran: list[str]):
    flow = authored()

    @flow.node
    def broken(planes):
        raise ValueError("bad day")

    @flow.node(map="flights")
    def each(flights):
        if flights == 20:
            raise ValueError(flights)

    with pytest.raises(fk.NodeFailed):
        flow.run(day=10)
    assert flow.stale() == ["broken", "each"]
    flow.rerun("report")
    assert flow.outcome.states["broken"] is State.FAILED, "it was not run again"
    assert [node.state for node in flow.outcome.nodes if node.name.startswith("each")] == [
        State.FAILED,
        State.SUCCEEDED,
        State.FAILED,
    ]
    with pytest.raises(KeyError, match="node 'broken' failed: ValueError: bad day"):
        flow.outcome["broken"]

    @flow.node
    def broken(planes):
        return planes

    flow.remove("each")
    ran.clear()
    assert flow.rerun()["broken"] == 3
    assert ran == []
    assert flow.outcome.ok
    assert flow.outcome.errors == {}


def test_stale_is_what_changed_in_code_wiring_or_parameters_and_all_that_reads_it(ran: list[str]):
    flow = authored()
    assert flow.stale() == ["flights", "planes", "split", "report"]
    last = flow.run(day=10)
    assert flow.stale() == []
    assert flow.rerun() is last, "nothing to do"
    assert flow.stale(day=11) == ["flights", "split", "report"]
    assert flow.stale(min_delay=16) == ["split", "report"]

    for name in ("flights", "planes", "split", "report"):  # every cell again, as it was
        flow._nodes[name] = authored()._nodes[name]
    flow._graph = None
    assert flow.stale() == []

    @flow.node
    def planes():
        return 4

    assert flow.stale() == ["planes", "report"]
    ran.clear()
    assert flow.rerun()["report"] == 8
    assert ran == ["report"]

    flow._add(authored(factor=5)._nodes["report"])
    assert flow.stale() == ["report"], "what a function closes over is part of it"
    flow.rerun("report")

    @flow.node(inputs={"planes": 7})
    def report(late, planes): ...

    assert flow.stale() == ["report"], "it reads another thing"


RATE = 3


def scaled(day):
    return day * RATE


def test_what_a_node_only_names_counts_as_it_does_for_what_is_kept(monkeypatch: pytest.MonkeyPatch):
    flow = fk.Flow("named")

    @flow.node
    def one(day):
        return scaled(day)

    @flow.node
    def two(one): ...

    @flow.node
    def other(day): ...

    flow.run(day=1)
    assert flow.stale() == []
    monkeypatch.setattr(f"{__name__}.RATE", 4)
    assert flow.stale() == ["one", "two"]
    assert flow.rerun()["one"] == 4
    assert flow.stale() == []


def test_what_cannot_be_told_from_another_is_out_of_date_at_once():
    flow = fk.Flow("open")

    @flow.node
    def asked(text):
        return eval(text)

    @flow.node
    def other(day): ...

    flow.run(text="1", day=threading.Lock())
    assert flow.stale() == ["asked", "other"]
    assert flow.stale(day=1) == ["asked", "other"]
    assert flow.rerun(day=1)["asked"] == 1
    assert flow.stale() == ["asked"]


def test_outputs_in_another_order_are_another_result(home):
    flow = fk.Flow("swapped")

    def define(*outputs):
        @flow.node(outputs=outputs, cache="1d")
        def split():
            return 1, 2

        @flow.node(cache="1d")
        def reader(late):
            return late

    define("late", "early")
    assert flow.run()["reader"] == 1
    define("early", "late")
    assert flow.stale() == ["split", "reader"]
    assert flow.run()["reader"] == 2


def test_a_changed_default_of_a_parameter_counts_unless_the_parameter_was_given(ran: list[str]):
    flow = authored()
    flow.run(day=10)

    def redefined() -> None:
        @flow.node(outputs=("late", "early"))
        def split(flights, min_delay=5):
            return flights, []

    redefined()
    assert flow.stale() == ["split", "report"]
    flow.rerun()
    assert flow.outcome.parameters["min_delay"] == 5


def test_a_result_kept_over_several_runs_is_judged_by_the_run_that_made_it(ran: list[str]):
    flow = authored()
    flow.run(day=10)

    @flow.node
    def flights(day):
        return [day, day]

    flow.rerun("report")  # with the old flights, as asked
    flow.rerun("planes")

    assert flow.stale() == ["flights", "split", "report"]
    assert flow.svg().count("✓") == 3, "the picture shows no state for what was replaced since"


def test_a_flow_that_is_still_running_is_not_run_again():
    flow = fk.Flow("slow")
    begun, go = threading.Event(), threading.Event()

    @flow.node
    def patient():
        begun.set()
        go.wait(60)

    thread = threading.Thread(target=flow.run)
    thread.start()
    try:
        assert begun.wait(60)
        with pytest.raises(UsageError, match="still running"):
            flow.rerun("patient")
    finally:
        go.set()
        thread.join(60)


def test_whoever_follows_the_log_keeps_seeing_the_nodes_that_did_not_run_again(tmp_path, monkeypatch):
    flow = authored()
    flow.run(day=10)
    log = Log(tmp_path / "log")
    monkeypatch.setattr("flowkit.flow.flow.log_of_current_run", lambda: log)

    flow.rerun("report")

    lines = (tmp_path / "log").read_text().splitlines()
    told = fold(map(Event.from_json, lines))
    assert {node.name: node.state for node in told} == dict.fromkeys(
        ["flights", "planes", "split", "report"], State.SUCCEEDED
    )


def test_an_interrupted_part_leaves_the_rest_as_it_was():
    flow = authored()
    flow.run(day=10)

    @flow.node
    def report(late, planes):
        raise KeyboardInterrupt

    @flow.node
    def other(): ...

    with pytest.raises(KeyboardInterrupt):
        flow.rerun("report", threads=1)

    states = flow.outcome.states
    assert (states["flights"], states["report"], states["other"]) == (
        State.SUCCEEDED,
        State.CANCELLED,
        State.PENDING,
    )


def test_items_of_a_node_that_runs_again_are_those_of_its_newest_run():
    flow = fk.Flow("items")

    @flow.node
    def days(count):
        return list(range(count))

    @flow.node(map="days")
    def each(days):
        return days

    flow.run(count=3)
    flow.rerun("days", count=1)

    assert [node.name for node in flow.outcome.nodes] == ["days", "each", "each[0]"]


def test_items_of_a_node_that_does_not_run_again_are_still_counted():
    flow = fk.Flow("items")

    @flow.node(map="days")
    def each(days):
        return days

    @flow.node
    def total(each): ...

    flow.run(days=[1, 2])

    assert flow.rerun("total").counts == {"each": (2, 2)}


def test_a_node_named_by_its_output_is_computed_though_its_result_is_cached(home):
    flow = fk.Flow("cached")

    @flow.node(cache="1d", outputs=("late", "early"))
    def split(day):
        return day, None

    flow.run(day=1)
    flow.run(day=1)
    assert flow.outcome.notes["split"] == {"reused": "the cache"}

    assert "split" not in flow.rerun("late").notes
