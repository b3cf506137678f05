"""What a kernel leaves behind of its run: the event log, whatever happens to the kernel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import flowkit as fk
from flowkit.config import RUN_FOLDER
from flowkit.errors import Unavailable
from flowkit.events import LOG, Event, fold
from flowkit.flow.current import FILE
from flowkit.flow.log import Log
from flowkit.model import CurrentRun, State

RUN = CurrentRun(id="1", key="k", attempt=2, deployment="flights", notebook="/flights.ipynb")


@pytest.fixture
def folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder as a worker makes one, announced as a worker does."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / FILE).write_text(RUN.to_json())
    monkeypatch.setenv(RUN_FOLDER, str(folder))
    return folder


def logged(folder: Path) -> list[Event]:
    text = (folder / LOG).read_text()
    assert text.endswith("\n")
    return [Event.from_json(line) for line in text.splitlines()]


def kernel(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])


def wait_for(text: str, folder: Path) -> None:
    deadline = time.monotonic() + 10
    while not (folder / LOG).exists() or text not in (folder / LOG).read_text():
        assert time.monotonic() < deadline, f"no {text} in the log"
        time.sleep(0.02)


def test_the_current_run_is_what_the_worker_wrote(folder):
    assert fk.current_run() == RUN


def test_there_is_no_current_run_in_an_authors_own_notebook(home, tmp_path, monkeypatch):
    assert fk.current_run() is None
    monkeypatch.setenv(RUN_FOLDER, str(tmp_path / "gone"))
    assert fk.current_run() is None


def test_the_log_holds_the_same_events_as_the_outcome(folder):
    flow = fk.Flow('"flights"\n')

    @flow.node
    def numbers():
        return [1, 0]

    @flow.node(map="numbers", retries=1, delay=0)
    def inverse(numbers):
        return 1 / numbers

    @flow.node
    def total(inverse): ...

    with pytest.raises(fk.NodeFailed):
        flow.run(threads=3)

    events = logged(folder)
    assert events == flow.outcome.events
    assert events[0].data == {"nodes": {"numbers": [], "inverse": ["numbers"], "total": ["inverse"]}}
    assert fold(events) == flow.outcome.nodes
    assert [(run.name, run.state.value, run.error) for run in fold(events)] == [
        ("numbers", "succeeded", None),
        ("inverse", "failed", "inverse[1] failed: ZeroDivisionError: division by zero; 1 of 2 items failed"),
        ("inverse[0]", "succeeded", None),
        ("inverse[1]", "failed", "ZeroDivisionError: division by zero"),
        ("total", "skipped", "node 'inverse' failed"),
    ]


def test_nothing_is_written_outside_of_a_run(folder, monkeypatch):
    monkeypatch.delenv(RUN_FOLDER)
    flow = fk.Flow("f")
    flow.add(lambda: 1, "one")

    flow.run()

    assert not (folder / LOG).exists()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_kernel_killed_in_a_node_leaves_that_node_running_in_the_log(folder, threads):
    """It kills itself as the very first thing the function does: no other thread had time to write anything."""
    killed = kernel(
        f"""
        import os, signal, flowkit as fk
        flow = fk.Flow("f")
        @flow.node
        def before(): return 1
        @flow.node
        def deadly(before): os.kill(os.getpid(), signal.SIGKILL)
        flow.run(threads={threads})
        """
    )
    assert killed.wait(20) == -signal.SIGKILL

    states = {run.name: run.state for run in fold(logged(folder))}
    assert states == {"before": State.SUCCEEDED, "deadly": State.RUNNING}


def test_a_node_that_ended_is_in_the_log_while_another_still_runs(folder):
    running = kernel(
        """
        import time, flowkit as fk
        flow = fk.Flow("f")
        @flow.node
        def quick(): return 1
        @flow.node
        def long(): time.sleep(60)
        @flow.node
        def after(long): ...
        flow.run()
        """
    )
    try:
        wait_for("succeeded", folder)
        wait_for('"long","flow":"f","state":"running"', folder)
        states = {run.name: run.state.value for run in fold(logged(folder))}
    finally:
        running.kill()
        running.wait()

    assert states == {"quick": "succeeded", "long": "running", "after": "pending"}


def test_lines_of_threads_and_processes_never_mix(folder):
    """Three processes of four threads each; lines are longer than a pipe's atomic write."""
    code = """
    import threading, flowkit.flow.log as log
    from flowkit.events import Event
    found = log.log_of_current_run()
    def write():
        for number in range(100):
            found.add(Event("node", number, "x" * 3000))
            found.flush()
    threads = [threading.Thread(target=write) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    """
    processes = [kernel(code) for _ in range(3)]
    assert [process.wait(30) for process in processes] == [0, 0, 0]

    lines = (folder / LOG).read_text().splitlines()
    assert len(lines) == 1200
    assert all(json.loads(line)["name"] == "x" * 3000 for line in lines)


def test_an_interrupted_run_says_so_in_the_log(folder):
    interrupted = kernel(
        """
        import time, flowkit as fk
        flow = fk.Flow("f")
        @flow.node(map="x")
        def each(x):
            time.sleep(60)
        @flow.node
        def after(each): ...
        try:
            flow.run(x=[1])
        except KeyboardInterrupt:
            pass
        """
    )
    wait_for("each[0]", folder)
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(10) == 0

    assert [(run.name, run.state.value, run.error) for run in fold(logged(folder))] == [
        ("each", "cancelled", "interrupted"),
        ("each[0]", "cancelled", "interrupted"),
        ("after", "skipped", "interrupted before it started"),
    ]


def test_a_log_that_cannot_be_written_stops_the_run_and_says_where(folder):
    (folder / LOG).mkdir()
    flow = fk.Flow("f")
    flow.add(lambda: 1, "one")

    with pytest.raises(Unavailable, match=r"cannot write the run's event log .*: Is a directory"):
        flow.run()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_log_that_fails_in_the_middle_is_not_taken_for_the_nodes_failure(folder, threads):
    os.symlink("/dev/full", folder / LOG)
    flow = fk.Flow("f")
    flow.add(lambda: 1, "one")

    with pytest.raises(Unavailable, match="No space left on device"):
        flow.run(threads=threads)


def test_text_that_is_no_unicode_does_not_break_the_log(tmp_path):
    log = Log(tmp_path / LOG)
    log.add(Event("node", 1.0, "late", error="bad \udcff name"))

    log.flush()
    log.close()

    assert len((tmp_path / LOG).read_bytes().splitlines()) == 1


def test_closing_twice_is_fine_and_nothing_is_written_after(tmp_path):
    log = Log(tmp_path / LOG)
    log.close()
    log.close()
    log.add(Event("node", 1.0, "late"))

    with pytest.raises(Unavailable):
        log.flush()
