"""fk.view: a run of the store as a graph, at any instant."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

import flowkit as fk
from flowkit.config import Config
from flowkit.errors import UsageError
from flowkit.events import Event
from flowkit.flow.recorded import Recorded
from flowkit.model import Ending, Run, State
from flowkit.store import Store
from tests.store.given import T0, claimed

START = T0.timestamp()


def node(at: float, name: str, state: str, error: str | None = None) -> Event:
    return Event("node", START + at, name, "delays", State(state), error)


EVENTS = [
    Event("cell", START, "1", state=State.RUNNING),
    Event("output", START, "stdout", data="noise"),
    Event(
        "flow", START + 1, flow="delays", data={"nodes": {"flights": [], "late": ["flights"], "report": ["late"]}}
    ),
    node(2, "flights", "running"),
    node(4, "flights", "succeeded"),
    node(5, "late[0]", "running"),
    node(6, "late[0]", "succeeded"),
    node(7, "late", "succeeded"),
    node(8, "report", "running"),
]  # fmt: skip


@pytest.fixture
def store(home) -> Store:
    with Store.open(Config.from_env().database_url) as store:
        yield store


def recorded(store: Store, events: list[Event], *, finish: State | None = State.FAILED, **changes) -> Run:
    run = claimed(store, **changes)
    store.record(run.id, run.attempt, events)
    if finish:
        store.finish(run.id, run.attempt, Ending(finish, error="its kernel died"), now=T0 + timedelta(seconds=9))
    return run


def states(seen: Recorded, at: float | None) -> dict[str, str]:
    return {node.name: node.state.value for node in seen.at(None if at is None else START + at)}


def test_a_run_is_seen_as_it_stood_at_any_instant(store):
    seen = fk.view(recorded(store, EVENTS).id[:6])

    assert seen.graphs == {"delays": {"flights": [], "late": ["flights"], "report": ["late"]}}
    assert [round(at - START, 3) for at in seen.instants] == [1, 2, 4, 5, 6, 7, 8, 9]
    assert states(seen, 0) == {"flights": "pending", "late": "pending", "report": "pending"}
    assert states(seen, 3) == {"flights": "running", "late": "pending", "report": "pending"}
    assert states(seen, 5.5)["late[0]"] == "running"
    assert states(seen, 8.5)["report"] == "running"
    assert states(seen, 9)["report"] == "failed"
    report = seen.nodes[-1]
    assert (report.name, report.error) == ("report", "cut off: its kernel or worker stopped here")


def test_it_is_drawn_and_told_in_text(store):
    run = recorded(store, EVENTS)

    bundle = fk.view(run.id)._repr_mimebundle_()

    assert bundle["image/svg+xml"].count("<path d='M") >= 5  # three heads and two edges
    assert f"delays · run {run.id[:8]}" in bundle["image/svg+xml"]
    assert "2 s ✓" in bundle["image/svg+xml"]
    assert "running" in fk.view(run.id).svg(START + 3)
    assert "→ None" not in bundle["image/svg+xml"], "nobody recorded a type"
    headline, *rows = bundle["text/plain"].splitlines()
    assert headline == f"flights.ipynb · run {run.id[:8]}: failed in 8 s"
    assert " ".join(rows[-1].split()) == "report failed cut off: its kernel or worker stopped here"


def test_a_browser_is_told_what_changed_at_each_instant(store):
    story = fk.view(recorded(store, EVENTS).id).story()

    assert [node["name"] for node in story["graph"]["nodes"]] == ["flights", "late", "report"]
    assert story["state"] == "failed"
    changes = [(round(at - START), *what) for at, *what in story["changes"]]
    assert changes[:5] == [
        (1, 0, 1, 1, None),
        (1, 1, 1, 1, None),
        (1, 2, 1, 1, None),
        (2, 0, 2, 1, None),
        (4, 0, 3, 1, None),
    ]
    assert changes[5:7] == [(5, 1, -1, 0, 1), (6, 1, -1, 1, 1)], "items of a mapped node"
    assert changes[-1] == (9, 2, 4, 1, "cut off: its kernel or worker stopped here")
    assert json.loads(json.dumps(story)) == story


def test_what_a_flow_recorded_is_what_its_outcome_says(store):
    flow = fk.Flow("f")

    @flow.node
    def days():
        return [1, 0]

    @flow.node(map="days")
    def each(days):
        return 1 / days

    @flow.node
    def total(each): ...

    with pytest.raises(fk.NodeFailed):
        flow.run()
    run = recorded(store, flow.outcome.events, finish=None)

    assert fk.view(run.id).nodes == flow.outcome.nodes


def test_a_notebook_of_several_flows_has_a_graph_for_each_and_one_of_none_has_its_cells(store):
    two = fk.view(
        recorded(store, [*EVENTS, Event("flow", START + 20, flow="next", data={"nodes": {"flights": []}})]).id
    )
    assert list(two.graphs) == ["delays", "next"]
    assert two._repr_mimebundle_()["text/html"].count("<svg") == 2

    cells = fk.view(
        recorded(store, [EVENTS[0], Event("cell", START + 1, "1", state=State.SUCCEEDED),
                         Event("cell", START + 2, "2", state=State.RUNNING)], finish=None).id
    )  # fmt: skip
    assert cells.graphs == {"": {"cell 1": [], "cell 2": ["cell 1"]}}
    assert states(cells, 0.5) == {"cell 1": "running", "cell 2": "pending"}
    assert states(cells, None) == {"cell 1": "succeeded", "cell 2": "running"}


def test_an_earlier_attempt_can_be_seen_and_a_missing_one_is_refused(store):
    run = recorded(store, EVENTS[:6], finish=None, retries=1)
    store.finish(run.id, 1, Ending(State.FAILED, error="bad day"), now=T0 + timedelta(seconds=9))
    again = store.claim([run.policy.queue], "w2", now=T0 + timedelta(hours=1))
    assert again is not None
    assert again.attempt == 2

    first = fk.view(run.id, attempt=1)

    assert first.nodes[0].state is State.SUCCEEDED
    assert first.nodes[-1].state is State.SKIPPED, "it never started"
    assert "attempt 1: failed" in repr(first)
    assert fk.view(run.id).graphs == {}
    assert "nothing is recorded" in fk.view(run.id).svg()
    with pytest.raises(UsageError, match="has attempts 1 to 2; there is no attempt 3"):
        fk.view(run.id, attempt=3)
