"""What the editor and the node's menu in the browser ask of the kernel, and what it answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

import flowkit as fk
from flowkit.flow import editor
from flowkit.flow.view import View
from tests.flow.noted import note, ran

__all__ = ["ran"]  # the fixture


@pytest.fixture
def flow() -> fk.Flow:
    flow = fk.Flow("delays")

    @flow.node(retries=1)
    def flights(day: str) -> list[int]:
        note("flights")
        return [1, 20]

    @flow.node(outputs=("late", "early"))
    def split(flights: list[int], limit: int = 15) -> tuple[list[int], list[int]]:
        note("split")
        return [20], [1]

    return flow


def until(true: Callable[[], Any]) -> Any:
    end = time.monotonic() + 20
    while not (found := true()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.01)
    return found


def ask(view: View, kind: str, **more: Any) -> int:
    number = view._widget.ack + 1
    view._widget.outbox = [{"n": number, "kind": kind, **more}]
    return number


def test_what_a_node_of_the_flow_is_made_of_is_told_though_its_name_is_gone(flow: fk.Flow):
    offer = editor.offered(flow)

    made = {entry["key"]: entry for entry in offer["made"]}
    assert [port["name"] for port in made["node:split"]["ports"]] == ["flights", "limit"]
    assert [(one["name"], one["type"]) for one in made["node:split"]["outputs"]] == [
        ("split", "tuple[list[int], list[int]]"),
        ("late", "list[int]"),
        ("early", "list[int]"),
    ]
    assert [node["function"] for node in offer["draft"]["nodes"]] == ["node:flights", "node:split"]
    assert json.loads(json.dumps(offer)) == offer


def test_code_of_a_draft_with_a_problem_is_refused_with_it(flow: fk.Flow):
    draft = editor.offered(flow)["draft"]
    draft["nodes"][1]["options"]["limit"] = "crm-api"
    assert "@flow.node(retries=1)" in editor.written(flow, draft)["code"]
    assert 'limit="crm-api"' in editor.written(flow, draft)["code"]

    draft["nodes"][1]["inputs"]["limit"] = {"from": "flights"}
    wrong = "node 'split' takes 'limit' as int, but node 'flights' returns list[int]"
    assert editor.written(flow, draft)["problem"].startswith(wrong)
    assert [(one["node"], one["port"]) for one in editor.judged(flow, draft)] == [("split", "limit")]
    assert "nodes must be a list" in editor.judged(flow, {"flow": "x"})[0]["text"]


def test_a_node_runs_again_from_the_graph_and_what_is_out_of_date_is_marked(flow: fk.Flow, ran: list[str]):
    view = flow._view = View(flow)
    flow.run(day="x")
    ran.clear()

    ask(view, "rerun", node="split")
    until(lambda: ran == ["split"] and flow.outcome.finished)
    until(lambda: view._widget.run["state"] == "succeeded")
    assert view._widget.run["stale"] == []

    @flow.node
    def flights(day: str) -> list[int]:
        note("other flights")
        return [2]

    view._after_cell()
    until(lambda: view._widget.run["stale"] == [0, 1])
    assert list(view._widget.status) == [0, 3], "what was changed has not run; what reads it has"

    ask(view, "rerun")
    until(lambda: ran == ["split", "other flights", "split"])
    until(lambda: view._widget.run["stale"] == [])


LIMIT = 1


def test_a_changed_constant_is_marked_after_its_cell_and_unmarked_when_it_is_as_before(monkeypatch):
    flow = fk.Flow("limited")

    @flow.node
    def limited(day: int) -> int:
        return day * LIMIT

    view = flow._view = View(flow)
    flow.run(day=1)
    monkeypatch.setattr(f"{__name__}.LIMIT", 2)
    view._after_cell()
    until(lambda: view._widget.run["stale"] == [0])
    assert list(view._widget.status) == [3], "it has run, with another limit"
    monkeypatch.setattr(f"{__name__}.LIMIT", 1)
    view._after_cell()
    until(lambda: view._widget.run["stale"] == [])


def test_what_cannot_run_again_says_why_on_the_graph(flow: fk.Flow):
    view = flow._view = View(flow)

    ask(view, "rerun", node="split")

    told = until(lambda: view._widget.notice)
    assert told["text"].startswith("node 'flights' needs 'day', which is neither a node nor a parameter")


def test_a_cell_that_is_run_again_without_a_change_leaves_its_result_up_to_date(flow: fk.Flow):
    view = flow._view = View(flow)
    for _ in range(2):

        @flow.node
        def again() -> int:
            return 1

        if flow.outcome is None:
            flow.run(day="x")
    view._after_cell()

    until(lambda: list(view._widget.status) == [3, 3, 3])
    assert view._widget.run["stale"] == []


def test_the_graph_above_shows_the_flow_that_its_written_code_makes(flow: fk.Flow):
    view = flow._view = View(flow)
    ask(view, "offer")
    draft = until(lambda: view._widget.offered)["draft"]
    number = ask(view, "judge", draft=draft)
    judged = until(lambda: view._widget.judged)
    assert (judged["n"], [one["open"] for one in judged["problems"]]) == (number, [True])
    ask(view, "write", draft=draft)
    until(lambda: view._widget.written.get("code"))

    made = fk.Flow("delays")

    @made.node
    def other(): ...

    view._after_cell()
    until(lambda: [node["name"] for node in view._widget.graph["nodes"]] == ["other"])
    until(lambda: [node["name"] for node in view._widget.offered["draft"]["nodes"]] == ["other"])
    made.run()
    until(lambda: view._widget.run["state"] == "succeeded")
    assert fk.Flow("delays")._view is None, "only the next one"
