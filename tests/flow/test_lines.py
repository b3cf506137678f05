"""What a node writes is told apart from what the others write, and still goes where it went."""

# ruff: noqa: T201  # printing is what is tested

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import flowkit as fk
from flowkit.flow.detail import detail
from flowkit.flow.lines import MOST
from flowkit.flow.view import View


@pytest.fixture
def flow() -> fk.Flow:
    flow = fk.Flow("f")
    flow._view = View(flow)  # somebody may look
    return flow


def lines(flow: fk.Flow, name: str) -> list[dict[str, object]]:
    assert flow.outcome is not None
    found: list[dict[str, object]] = detail(flow.graph, flow.outcome, name).get("lines", [])
    return found


def texts(flow: fk.Flow, name: str) -> list[object]:
    return [line["text"] for line in lines(flow, name)]


def side_by_side(flow: fk.Flow) -> None:
    """Two nodes that write in turn."""
    turns = threading.Barrier(2, timeout=20)

    def write(name: str) -> None:
        for number in range(3):
            turns.wait()
            print(f"{name} {number}")

    @flow.node
    def one() -> None:
        write("one")

    @flow.node(timeout=20)  # in a thread of its own
    def two() -> None:
        write("two")


def run_in_threads(flow: fk.Flow) -> None:
    flow.run(threads=2)


def run_on_an_executor(flow: fk.Flow) -> None:
    with ThreadPoolExecutor(2) as executor:
        flow.run(executor=executor)


@pytest.mark.parametrize("run", [run_in_threads, run_on_an_executor])
def test_nodes_that_write_at_the_same_time_have_their_own_lines(flow, run, capsys):
    side_by_side(flow)

    run(flow)

    assert texts(flow, "one") == ["one 0", "one 1", "one 2"]
    assert texts(flow, "two") == ["two 0", "two 1", "two 2"]
    printed = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("Flow(")]  # the picture's
    assert sorted(printed) == sorted(texts(flow, "one") + texts(flow, "two"))


def test_what_a_logger_writes_belongs_to_the_node_that_logged(flow, capsys):
    handler = logging.StreamHandler()  # it holds stderr as it is before the run
    logger = logging.getLogger("tests.lines")
    logger.addHandler(handler)

    @flow.node
    def warns() -> None:
        logger.warning("no rows of %s", "monday")

    try:
        flow.run()
    finally:
        logger.removeHandler(handler)

    assert lines(flow, "warns") == [{"text": "no rows of monday", "error": True}]
    assert capsys.readouterr().err == "no rows of monday\n"


def test_lines_are_put_together_kept_to_the_last_and_named_by_item_and_attempt(flow):
    tries = []

    @flow.node(retries=1, delay=0.0)
    def flaky() -> None:
        tries.append(1)
        print("try", len(tries))
        if len(tries) == 1:
            raise ValueError("bad day")

    @flow.node
    def bar() -> list[int]:
        for part in range(3):
            print(f"\r{part}0%", end="")
        print("\ndone", end="")
        return [4, 5]

    @flow.node(map="bar")
    def each(bar: int) -> None:
        print("item", bar)

    @flow.node
    def chatty() -> None:
        sys.stdout.write("x" * 5_000 + "\n" + "\n".join(map(str, range(10_000))) + "\n")
        print("\x1b[31mred\x1b[0m \udcff")

    flow.run(threads=1)

    assert lines(flow, "flaky") == [{"text": "try 1"}, {"text": "try 2", "attempt": 2}]
    assert texts(flow, "bar") == ["20%", "done"]
    assert lines(flow, "each") == [{"text": "item 4", "item": 0}, {"text": "item 5", "item": 1}]
    told = texts(flow, "chatty")
    assert (len(told), told[-2:]) == (MOST, ["9999", "red ?"])


def test_a_node_that_is_not_run_again_keeps_its_lines(flow):
    @flow.node
    def first() -> int:
        print("first")
        return 1

    @flow.node
    def then(first: int) -> None:
        print("then", first)

    flow.run()
    flow.rerun("then")

    assert (texts(flow, "first"), texts(flow, "then")) == (["first"], ["then 1"])


def test_streams_are_as_before_after_the_last_of_two_runs(flow):
    other = fk.Flow("other")
    other._view = View(other)
    stream, begun, go = io.StringIO(), threading.Event(), threading.Event()

    @other.node
    def patient() -> None:
        begun.set()
        go.wait(20)
        print("patient")

    @flow.node
    def quick() -> None:
        print("quick")

    with contextlib.redirect_stdout(stream):
        thread = threading.Thread(target=other.run)
        thread.start()
        begun.wait(20)
        flow.run()
        go.set()
        thread.join(20)

    assert (texts(flow, "quick"), texts(other, "patient")) == (["quick"], ["patient"])
    assert [line for line in stream.getvalue().splitlines() if "Flow(" not in line] == ["quick", "patient"]
    assert "write" not in vars(stream)


def test_where_nobody_can_look_nothing_is_kept_and_no_stream_is_touched():
    flow = fk.Flow("f")
    seen = []

    @flow.node
    def writes() -> None:
        seen.append(vars(sys.stdout).get("write"))
        print("hello")

    flow.run()

    assert seen == [None]
    assert flow.outcome.lines is None
