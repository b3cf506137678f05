from __future__ import annotations

from datetime import UTC, datetime

from flowkit.events import Event, fold
from flowkit.model import State


def declared(*nodes: str) -> Event:
    return Event("flow", 1.0, flow="f", data={"nodes": {node: [] for node in nodes}})


def node(name: str, state: State, at: float = 2.0, **more) -> Event:
    return Event("node", at, name, "f", state, **more)


def test_an_event_survives_its_line() -> None:
    events = [
        declared("a", "b"),
        node("a", State.FAILED, error="ValueError: né\nxt \u2028", attempt=2),
        Event("output", 3.5, "stdout", data="a\nb\r\x1b[0m"),
    ]

    for event in events:
        line = event.to_json()
        assert "\n" not in line
        assert Event.from_json(line) == event


def test_a_line_of_a_newer_flowkit_is_read_without_what_it_added() -> None:
    assert Event.from_json('{"kind":"node","at":1,"name":"a","state":"running","colour":"red"}').name == "a"


def test_nodes_stand_in_the_order_they_were_declared_with_items_behind_their_node() -> None:
    events = [
        declared("a", "each", "z"),
        node("z", State.RUNNING),
        node("each", State.RUNNING),
        node("each[10]", State.RUNNING),
        node("each[2]", State.SUCCEEDED),
        node("a", State.SUCCEEDED),
    ]

    assert [run.name for run in fold(events)] == ["a", "each", "each[2]", "each[10]", "z"]


def test_a_node_is_timed_from_its_first_attempt_to_its_end() -> None:
    events = [
        declared("a"),
        node("a", State.RUNNING, 10.0),
        node("a", State.RUNNING, 12.0, attempt=2),
        node("a", State.SUCCEEDED, 15.0, attempt=2),
    ]

    (a,) = fold(events)

    assert (a.finished - a.started).total_seconds() == 5.0


def test_a_flow_that_runs_again_begins_anew() -> None:
    events = [declared("a", "b"), node("a", State.FAILED), declared("a", "b")]

    assert [run.state for run in fold(events)] == [State.PENDING, State.PENDING]


def test_cells_stand_for_nodes_only_where_there_is_no_flow() -> None:
    cells = [Event("cell", 1.0, "1", state=State.SUCCEEDED), Event("cell", 2.0, "2", state=State.RUNNING)]

    assert [(run.name, run.state) for run in fold(cells)] == [("cell 1", State.SUCCEEDED), ("cell 2", State.RUNNING)]
    assert [run.name for run in fold([*cells, declared("a")])] == ["a"]


def test_after_the_end_nothing_is_shown_as_running_or_waiting() -> None:
    events = [declared("a", "b", "c"), node("a", State.SUCCEEDED), node("b", State.RUNNING)]

    a, b, c = fold(events, ended=True)

    assert (a.state, b.state, c.state) == (State.SUCCEEDED, State.FAILED, State.SKIPPED)
    assert "stopped here" in b.error


def test_a_node_that_waits_for_a_limit_says_so_until_it_runs() -> None:
    waits = Event("node", 10.0, "push", "f", State.PENDING, data={"limit": "crm-api", "until": 12.5})
    [node] = fold([Event("flow", 9.0, flow="f", data={"nodes": {"push": []}}), waits])
    assert (node.limit, node.until) == ("crm-api", datetime.fromtimestamp(12.5, UTC))

    [node] = fold([waits, Event("node", 12.5, "push", "f", State.RUNNING)])
    assert (node.limit, node.until) == (None, None)
    [node] = fold([waits], ended=True)
    assert (node.state, node.limit) == (State.SKIPPED, None)
