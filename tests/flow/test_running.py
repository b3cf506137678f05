"""What a run does: in parallel, again, too late, and when nodes fail."""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import flowkit as fk
from flowkit.errors import UsageError
from flowkit.model import State


@pytest.fixture
def flow() -> fk.Flow:
    return fk.Flow("flight delays")


@pytest.fixture(params=["default", "one thread", "pool", "processes"])
def how(request):
    """Every way to run, as keywords of ``run``."""
    if request.param == "pool":
        with concurrent.futures.ThreadPoolExecutor(3) as executor:
            yield {"executor": executor}
    elif request.param == "processes":
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
            yield {"executor": executor}
    else:
        yield {"threads": 1} if request.param == "one thread" else {}


def one(start):
    return start + 1


def twice(one):
    return one * 2


def halves(one):
    if one == 3:
        raise ValueError("bad day")
    return one / 2


def total(twice, halves):
    return twice + halves


class Stubborn(Exception):
    """Cannot be unpickled: it would break a pool of processes."""

    def __init__(self, day, reason):
        super().__init__(f"{day}: {reason}")


def stubborn(one):
    raise Stubborn("monday", "no")


def square(number):
    if number == 3:
        raise ValueError("three")
    return number * number


def test_every_way_of_running_gives_the_same(how, flow):
    for function in (one, twice, halves, total):
        flow.node(function)
    flow.node(map="number", inputs={"number": "numbers"})(square)

    outcome = flow.run(start=1, numbers=[1, 2, 4], **how)

    assert dict(outcome) == {"one": 2, "twice": 4, "halves": 1, "total": 5, "square": [1, 4, 16]}
    assert outcome.ok
    assert {run.state for run in outcome.nodes} == {State.SUCCEEDED}


def test_every_way_of_running_fails_the_same(how, flow):
    for function in (one, twice, halves, total, stubborn):
        flow.node(function)
    flow.node(map="number", inputs={"number": "numbers"})(square)

    with pytest.raises(fk.NodeFailed) as caught:
        flow.run(start=2, numbers=[1, 3, 4], **how)

    assert str(caught.value).startswith("node 'halves' failed: ValueError: bad day; so did stubborn, square")
    assert repr(caught.value.__cause__) == "ValueError('bad day')"
    assert flow.outcome["twice"] == 6
    assert flow.outcome.states["total"] is State.SKIPPED
    assert "monday: no" in flow.outcome.reasons["stubborn"]
    assert flow.outcome.reasons["square"] == "square[1] failed: ValueError: three; 1 of 3 items failed"


def test_independent_nodes_run_at_the_same_time(flow):
    both = threading.Barrier(2, timeout=5)

    @flow.node
    def left():
        both.wait()

    @flow.node
    def right():
        both.wait()

    assert flow.run(threads=2).ok


def test_no_more_nodes_run_at_once_than_threads(flow):
    running, most = [], []

    @flow.node(map="number", inputs={"number": "numbers"})
    def work(number):
        running.append(number)
        most.append(len(running))
        time.sleep(0.01)
        running.remove(number)

    flow.run(numbers=range(12), threads=3)

    assert max(most) <= 3


def test_one_thread_is_the_callers_own(flow):
    @flow.node
    def where():
        return threading.current_thread()

    assert flow.run(threads=1)["where"] is threading.current_thread()


def test_a_failed_node_skips_only_its_descendants(flow):
    @flow.node
    def late():
        raise ValueError("bad day")

    @flow.node
    def join(late): ...

    @flow.node
    def report(join): ...

    @flow.node
    def other():
        return 1

    with pytest.raises(fk.NodeFailed) as caught:
        flow.run()

    assert str(caught.value) == "node 'late' failed: ValueError: bad day (2 skipped after it: join, report)"
    assert caught.value.outcome is flow.outcome
    assert flow.outcome["other"] == 1
    skipped = [run for run in flow.outcome.nodes if run.state is State.SKIPPED]
    assert [(run.name, run.error) for run in skipped] == [
        ("join", "node 'late' failed"),
        ("report", "node 'late' failed"),
    ]


def test_asking_for_a_result_that_is_not_there_says_why(flow):
    @flow.node(outputs=("rows", "count"))
    def late():
        raise ValueError("bad day")

    @flow.node
    def report(rows): ...

    with pytest.raises(fk.NodeFailed):
        flow.run()

    for name, said in [
        ("late", "node 'late' failed: ValueError: bad day"),
        ("rows", "output 'rows' of node 'late' failed: ValueError: bad day"),
        ("report", "node 'report' was skipped, because node 'late' failed: ValueError: bad day"),
        ("repotr", "no node or output is called 'repotr'; did you mean 'report'?"),
    ]:
        with pytest.raises(KeyError) as caught:
            flow.outcome[name]
        assert str(caught.value) == said
    assert flow.outcome.get("late") is None


def test_the_traceback_begins_with_the_authors_own_line(flow):
    @flow.node
    def late():
        raise ValueError("bad day")

    with pytest.raises(fk.NodeFailed) as caught:
        flow.run()

    assert caught.value.__cause__.__traceback__.tb_frame.f_code.co_name == "late"


def test_an_error_of_many_lines_is_told_on_one(flow):
    @flow.node
    def late():
        raise ValueError("first\nsecond")

    with pytest.raises(fk.NodeFailed, match=r"node 'late' failed: ValueError: first…$"):
        flow.run()


@pytest.mark.parametrize("threads", [1, 4])
def test_a_node_that_exits_fails_instead_of_taking_the_run_along(flow, threads):
    @flow.node
    def leaves():
        sys.exit(3)

    @flow.node
    def stays():
        return 1

    with pytest.raises(fk.NodeFailed, match="node 'leaves' failed: SystemExit: 3"):
        flow.run(threads=threads)

    assert flow.outcome["stays"] == 1


@pytest.mark.parametrize("threads", [1, 4])
def test_a_node_is_tried_again_after_a_pause_that_doubles(flow, threads):
    at = []

    @flow.node(retries=3, delay=0.05)
    def flaky():
        at.append(time.monotonic())
        if len(at) < 4:
            raise ValueError(len(at))
        return "well"

    assert flow.run(threads=threads)["flaky"] == "well"
    pauses = [after - before for before, after in itertools.pairwise(at)]
    assert all(pause >= least for pause, least in zip(pauses, (0.05, 0.1, 0.2), strict=True))
    told = [(event.state.value, event.attempt, event.error) for event in flow.outcome.events[1:]]
    assert told == [
        ("running", 1, None),
        ("failed", 1, "ValueError: 1"),
        ("running", 2, None),
        ("failed", 2, "ValueError: 2"),
        ("running", 3, None),
        ("failed", 3, "ValueError: 3"),
        ("running", 4, None),
        ("succeeded", 4, None),
    ]


def test_a_pause_before_a_retry_keeps_no_thread_from_others(flow):
    tried = []

    @flow.node(retries=1, delay=0.4)
    def flaky():
        tried.append(time.monotonic())
        if len(tried) == 1:
            raise ValueError

    @flow.node(map="number", inputs={"number": "numbers"})
    def quick(number):
        return time.monotonic()

    outcome = flow.run(numbers=range(20), threads=2)

    assert max(outcome["quick"]) < tried[1]


@pytest.mark.parametrize("threads", [1, 4])
def test_a_node_out_of_time_fails_and_is_left_behind(flow, threads):
    free = threading.Event()

    @flow.node(timeout=0.1)
    def slow():
        free.wait(10)

    @flow.node(timeout=5)
    def quick():
        return 1

    began = time.monotonic()
    with pytest.raises(fk.NodeFailed, match=r"node 'slow' failed: TimeoutError: still running after 0.1 s"):
        flow.run(threads=threads)

    assert time.monotonic() - began < 5
    assert flow.outcome["quick"] == 1
    free.set()


def test_items_run_in_parallel_and_come_out_in_order(flow):
    all_at_once = threading.Barrier(4, timeout=5)

    @flow.node(map="number", inputs={"number": "numbers"})
    def slow(number):
        all_at_once.wait()
        time.sleep(0.02 * (4 - number))
        return number

    @flow.node
    def after(slow):
        return slow

    outcome = flow.run(numbers=(n for n in range(4)), threads=4)

    assert outcome["after"] == [0, 1, 2, 3]
    assert [run.name for run in outcome.nodes] == ["slow", "slow[0]", "slow[1]", "slow[2]", "slow[3]", "after"]


def test_mapping_over_nothing_gives_nothing(flow):
    flow.node(map="number")(square)

    assert flow.run(number=[])["square"] == []


def test_a_failed_item_fails_its_node_by_index_after_all_others_ran(flow):
    flow.node(map="number")(square)
    flow.add(len, "count", obj="square")

    with pytest.raises(fk.NodeFailed) as caught:
        flow.run(number=[3, 1, 3])

    assert str(caught.value) == (
        "node 'square' failed: square[0] failed: ValueError: three; 2 of 3 items failed (1 skipped after it: count)"
    )
    assert isinstance(caught.value.__cause__, ValueError)
    states = {run.name: run.state.value for run in flow.outcome.nodes}
    assert states == {
        "square": "failed",
        "square[0]": "failed",
        "square[1]": "succeeded",
        "square[2]": "failed",
        "count": "skipped",
    }


def test_items_are_retried_one_by_one(flow):
    calls = []

    @flow.node(map="number", retries=1, delay=0)
    def flaky(number):
        calls.append(number)
        if number == 1 and calls.count(1) == 1:
            raise ValueError
        return number

    assert flow.run(number=[0, 1, 2])["flaky"] == [0, 1, 2]
    assert sorted(calls) == [0, 1, 1, 2]


def test_two_parameters_are_mapped_in_step(flow):
    @flow.node(map=("a", "b"), outputs=("total", "product"))
    def both(a, b):
        return a + b, a * b

    outcome = flow.run(a=[1, 2], b=[3, 4])

    assert outcome["total"] == [4, 6]
    assert outcome["product"] == [3, 8]
    with pytest.raises(fk.NodeFailed, match="node 'both' failed: ValueError"):
        flow.run(a=[1, 2], b=[3])


@pytest.mark.parametrize(("given", "said"), [("abc", "which is a str; give it a list"), (3, "TypeError: 'int' object")])
def test_what_is_no_list_at_run_time_is_the_mapped_nodes_failure(flow, given, said):
    flow.node(map="number")(square)

    with pytest.raises(fk.NodeFailed, match=said):
        flow.run(number=given)


def test_a_node_may_run_a_flow_of_its_own(flow):
    @flow.node(map="number", inputs={"number": "numbers"})
    def nested(number):
        inner = fk.Flow("inner")
        inner.add(lambda: number * 10, "ten")
        return inner.run()["ten"]

    assert flow.run(numbers=[1, 2, 3])["nested"] == [10, 20, 30]


def test_the_outcome_fills_while_the_flow_runs(flow):
    go, seen = threading.Event(), threading.Event()

    @flow.node
    def first():
        return 1

    @flow.node
    def second(first):
        seen.set()
        go.wait(5)

    run = threading.Thread(target=flow.run)
    run.start()
    seen.wait(5)

    assert flow.outcome.states == {"first": State.SUCCEEDED, "second": State.RUNNING}
    assert flow.outcome["first"] == 1
    assert flow.outcome.finished is None
    go.set()
    run.join()
    assert flow.outcome.ok


@pytest.mark.parametrize("threads", [None, 1])
def test_a_chain_of_ten_thousand_nodes_runs(flow, threads):
    flow.add(lambda: 0, "n0")
    for index in range(1, 10_000):
        flow.add(lambda before: before + 1, f"n{index}", before=f"n{index - 1}")

    assert flow.run(threads=threads)["n9999"] == 9999


def test_a_failure_above_ten_thousand_nodes_skips_them_all(flow):
    flow.add(lambda: 1 / 0, "n0")
    for index in range(1, 10_000):
        flow.add(lambda before: before + 1, f"n{index}", before=f"n{index - 1}")

    with pytest.raises(fk.NodeFailed, match=r"9999 skipped after it: n1, .*, and 9992 more"):
        flow.run()


def test_an_empty_flow_runs(flow):
    assert dict(flow.run()) == {}


def test_a_number_of_threads_that_is_none_is_refused(flow):
    with pytest.raises(UsageError, match="run\\(\\) was given threads=0; it must be a whole number, 1 or more"):
        flow.run(threads=0)


def test_a_pool_that_broke_fails_the_nodes_and_not_the_run(flow):
    flow.add(os._exit, "dies", status=1)
    flow.add(one, "after", start="dies")
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor,
        pytest.raises(fk.NodeFailed, match="node 'dies' failed: BrokenProcessPool"),
    ):
        flow.run(executor=executor)

    assert flow.outcome.states["after"] is State.SKIPPED


@pytest.mark.parametrize("threads", [1, 4])
def test_ctrl_c_stops_at_once_and_starts_nothing_more(threads):
    code = f"""
    import time, flowkit as fk
    flow = fk.Flow("long")
    @flow.node
    def slow():
        print("started", flush=True)
        time.sleep(60)
    @flow.node
    def after(slow):
        print("wrong", flush=True)
    try:
        flow.run(threads={threads})
    except KeyboardInterrupt:
        print(*(f"{{run.name}}={{run.state}}" for run in flow.outcome.nodes), flush=True)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"

    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=10)

    assert rest == "slow=cancelled after=skipped\n"
    assert process.returncode == 0
    assert time.monotonic() - began < 3


def test_a_node_that_ends_after_ctrl_c_starts_no_other_and_changes_nothing():
    code = """
    import time, flowkit as fk
    flow = fk.Flow("long")
    started = []
    @flow.node(map="number")
    def each(number):
        started.append(number)
        if len(started) == 2:
            print("started", flush=True)
        time.sleep(0.5)
    try:
        flow.run(number=range(50), threads=2)
    except KeyboardInterrupt:
        before = flow.outcome.events
        time.sleep(1.5)
        print(len(started), flow.outcome.events == before, flush=True)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=10)

    assert rest == "2 True\n"


def test_an_outcome_is_a_table_for_people(flow):
    @flow.node
    def late():
        raise ValueError("<bad> day")

    with pytest.raises(fk.NodeFailed):
        flow.run()

    assert "flight delays: 1 failed in " in repr(flow.outcome)
    assert "late  failed" in repr(flow.outcome)
    assert "ValueError: &lt;bad&gt; day" in flow.outcome._repr_html_()
