"""What runs use is seen and limited, whatever they start, and the seeing costs next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from flowkit.events import POINTS, Event, Point, usage
from flowkit.model import Cause, Ending, State
from flowkit.worker.usage import Sampler, cost, shared_out, tree
from tests.worker.execution import Execution

MB = 1_000_000

#: A child of the kernel holds it, not the kernel.
HOLDS = """
import subprocess, sys, time
held = subprocess.Popen([sys.executable, "-c", "x = b'x' * {bytes}; print(1, flush=True); import time; time.sleep(60)"],
                        stdout=subprocess.PIPE)
held.stdout.readline()
until = time.process_time() + {busy}
while time.process_time() < until: pass
time.sleep({seconds})
"""


def test_a_run_tells_what_its_processes_used(tmp_path: Path) -> None:
    execution = Execution(tmp_path)

    ending = execution.run(HOLDS.format(bytes=300 * MB, busy=1.0, seconds=1.5))

    assert ending == Ending(State.SUCCEEDED)
    found = usage(execution.events)
    assert found is not None
    assert 300 * MB < found.peak_memory < 600 * MB
    total = sum(point.cpu * point.seconds for point in found.points)
    assert 1.0 <= total < 8.0, found.points
    assert sum(point.seconds for point in found.points) <= execution.seconds
    assert usage(event for event in execution.events if event.kind != "usage") is None


def test_a_run_beyond_its_memory_ends_at_once_and_says_so(tmp_path: Path) -> None:
    execution = Execution(tmp_path)

    ending = execution.run("1", HOLDS.format(bytes=500 * MB, busy=0, seconds=60), memory=400 * MB)

    assert (ending.state, ending.cause) == (State.FAILED, Cause.MEMORY)
    assert ending.error is not None
    assert ending.error.startswith("out of memory: used ")
    assert ending.error.endswith(" MB, its limit is 400 MB; raise --memory, or hold less at once in cell 2")
    assert execution.seconds < 40
    assert "OutOfMemory" in execution.shown(1)


def test_what_processes_share_is_counted_once_against_the_limit() -> None:
    forks = "import os, time\nx = b'x' * 200_000_000\nfor _ in range(3): os.fork() or time.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", forks + "print(1, flush=True); time.sleep(60)"], stdout=-1) as root:
        assert root.stdout is not None
        root.stdout.readline()
        pids = tree(root.pid)
        resident, held = cost(pids)[1], shared_out(pids)
        for pid in pids:
            os.kill(pid, 9)

    assert len(pids) == 4
    assert resident > 4 * 200 * MB
    assert 200 * MB < held < 300 * MB


def test_a_long_run_has_few_points_and_its_peak_stays() -> None:
    day = [Point(float(second), 1.0, second % 2, 100 * MB) for second in range(86_400)]
    day[777] = day[777]._replace(memory=900 * MB)

    found = usage([Event("usage", 1.0, data=day)])

    assert found is not None
    assert POINTS / 2 < len(found.points) <= POINTS
    assert found.peak_memory == 900 * MB
    assert abs(found.mean_cpu - 0.5) < 0.01
    assert abs(sum(point.seconds for point in found.points) - 86_400) < 1


def test_to_watch_eight_runs_takes_less_than_half_a_percent_of_a_core() -> None:
    sampler, told = Sampler(), threading.Event()
    script = "import subprocess, sys, time\nsubprocess.Popen(['sleep', '60'])\nprint(1, flush=True)\ntime.sleep(60)"
    roots = [subprocess.Popen([sys.executable, "-c", script], stdout=-1, start_new_session=True) for _ in range(8)]
    try:
        for root in roots:
            assert root.stdout is not None
            root.stdout.readline()
        began = time.thread_time()
        looks = 20
        for _ in range(looks):
            for root in roots:
                cost(tree(root.pid))
        spent = (time.thread_time() - began) / looks
        with sampler.watching(roots[0].pid, tell=lambda _: told.set()):
            pass
    finally:
        for root in roots:
            os.killpg(root.pid, 9)
            root.communicate()

    assert told.is_set()
    assert spent < 0.005, f"{spent * 1000:.1f} ms a second"
