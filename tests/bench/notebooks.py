"""One run of a notebook, submitted until recorded, beside papermill on the same notebook; and what it costs.

``python -m tests.bench.notebooks [MINUTES]``. The ways are taken in turns, so that a change of the machine's load meets
all of them; medians, each with the load it was taken at, beside the bar that it must reach and the one it reaches for.
Every row is printed when it is known. With less time there are fewer repeats, and never fewer than three.

flowkit: workers that idle, on the embedded default, from ``submit`` until the store says succeeded; one forks its
kernels, one starts them. papermill: ``execute_notebook`` in this process, already imported, and its command line.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import papermill
import psutil

from flowkit.client import Client
from flowkit.config import Config, kernel_environment
from flowkit.model import State
from flowkit.worker import kernels
from flowkit.worker.process import KernelProcess
from flowkit.worker.usage import cost, shared_out, tree
from flowkit.worker.zygote import Zygotes
from tests.notebooks_made import write
from tests.processes import worker

REPEATS, FEWEST = 9, 3

#: Rows that share the time there is.
ROWS = 8

NOTEBOOKS = {
    "trivial": ("1 + 1",),
    "import pandas": ("import pandas",),
    "50 cells": ("1 + 1",) * 50,
    "10 MB of prints": ("for _ in range(10): print('x' * 1_000_000)",),
}

#: How many times better than papermill in a warm process it must be, and is meant to become; of the tail: how large
#: it may be.
BARS = {
    "trivial": (15, 80),
    "trivial, CLI": (30, 150),
    "import pandas": (15, 60),
    "import pandas, CLI": (25, 95),
    "50 cells": (8, 20),
    "four at once": (10, 27),
    "CPU": (5, 15),
    "memory": (3, 6),
    "tail": (2, 1.3),
}

#: Where the time of a run goes: the name of a stretch, and what it ends with.
STRETCHES = ("submit", "claim", "kernel, parameters", "its first answer", "cells", "its end, saving", "seen")


class Clock:
    """Shares the time that is left among the rows that are left."""

    def __init__(self, minutes: float) -> None:
        self._until = time.monotonic() + 60 * minutes
        self._rows = ROWS

    def row(self) -> float:
        """When the next row should be done with, monotonic."""
        now = time.monotonic()
        share = max(0.0, self._until - now) / max(1, self._rows)
        self._rows -= 1
        return now + share


def main(minutes: float = 10.0) -> None:
    clock = Clock(minutes)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with idle(place / "warm") as (client, pid), idle(place / "cold", FLOWKIT_WARM="off") as (cold, _):
            notebook = write(place / "first.ipynb", "1")
            by_flowkit(client, notebook)
            await_parked(client, notebook)
            print(f"\n{'':31}{'flowkit':>10}{'papermill':>11}{'':>10}{'must':>7}{'for':>6}{'load':>12}", flush=True)
            _one_at_a_time(client, cold, place, clock)
            _tail(client, place, clock)
            _four_at_once(client, cold, place, clock)
            _processor(client, pid, place, clock)
            _memory(place, clock)
            _where_it_goes(client, write(place / "notebook.ipynb", *NOTEBOOKS["trivial"]))


@contextmanager
def idle(home: Path, **environment: str) -> Iterator[tuple[Client, int]]:
    """A client of a worker of its own that runs four at once, and that worker's pid."""
    with (
        worker("--concurrency", 4, mute=True, FLOWKIT_HOME=str(home), **environment) as process,
        Client(Config.from_env({"FLOWKIT_HOME": str(home)})) as client,
    ):
        yield client, process.pid


def await_parked(client: Client, notebook: Path) -> None:
    """Until the worker's runs get kernels that were parked."""
    until = time.monotonic() + 120
    while start_of(client, by_flowkit(client, notebook)) != "parked":
        assert time.monotonic() < until, "no kernel is parked"
        time.sleep(1.0)  # kernels are parked when nothing runs


def _one_at_a_time(client: Client, cold: Client, place: Path, clock: Clock) -> None:
    for name, cells in NOTEBOOKS.items():
        notebook = write(place / "notebook.ipynb", *cells)
        by_flowkit(client, notebook)
        before, times = (
            load(),
            measure(
                partial(by_flowkit, client, notebook),
                partial(by_flowkit, cold, notebook),
                partial(by_papermill, notebook, place / "out.ipynb"),
                partial(by_its_cli, notebook, place / "out.ipynb"),
                until=clock.row(),
            ),
        )
        ours, started, theirs, cli = (1000 * statistics.median(taken) for taken in times)
        at = f"{before}-{load()}"
        _row(f"{name}, ms", f"{ours:.0f}", f"{theirs:.0f}", theirs / ours, BARS.get(name), at)
        _row("  against its CLI", "", f"{cli:.0f}", cli / ours, BARS.get(f"{name}, CLI"), at)
        _row("  with a kernel that is started", f"{started:.0f}", "", theirs / started, None, at)


def _tail(client: Client, place: Path, clock: Clock) -> None:
    """Runs that each find a parked kernel, for as long as the row has time."""
    notebook = write(place / "notebook.ipynb", *NOTEBOOKS["trivial"])
    until, before, taken = min(clock.row(), time.monotonic() + 60), load(), list[float]()
    while len(taken) < 20 or (len(taken) < 200 and time.monotonic() < until):
        time.sleep(0.25)
        began = time.perf_counter()
        by_flowkit(client, notebook)
        taken.append(1000 * (time.perf_counter() - began))
    middle, last = statistics.median(taken), statistics.quantiles(taken, n=20)[-1]
    name = f"p50, p95 of {len(taken)} trivial, ms"
    _row(name, f"{middle:.0f}, {last:.0f}", "", last / middle, BARS["tail"], f"{before}-{load()}", less=True)


def _four_at_once(client: Client, cold: Client, place: Path, clock: Clock, runs: int = 12) -> None:
    notebook = write(place / "notebook.ipynb", *NOTEBOOKS["trivial"])
    outputs = [place / f"out{number}.ipynb" for number in range(runs)]

    def by_worker(client: Client, runs: int) -> None:
        pending = [client.submit(notebook).id for _ in range(runs)]
        while pending:
            pending = [run for run in pending if not client.store.run(run).state.final]
            time.sleep(0.005)

    with ProcessPoolExecutor(4) as pool:
        list(pool.map(by_papermill, [notebook] * 4, outputs[:4]))  # imported once
        before, times = (
            load(),
            measure(
                lambda: by_worker(client, 8 * runs),
                lambda: by_worker(cold, runs),
                lambda: list(pool.map(by_papermill, [notebook] * runs, outputs)),
                until=clock.row(),
            ),
        )
    ours, started, theirs = (number * runs / statistics.median(t) for number, t in zip((8, 1, 1), times, strict=True))
    at = f"{before}-{load()}"
    _row("four at once, runs a second", f"{ours:.1f}", f"{theirs:.1f}", ours / theirs, BARS["four at once"], at)
    _row("  with kernels that are started", f"{started:.1f}", "", started / theirs, None, at)


def _processor(client: Client, pid: int, place: Path, clock: Clock) -> None:
    """It does not depend on the load as time does."""
    notebook, output = write(place / "notebook.ipynb", *NOTEBOOKS["trivial"]), place / "out.ipynb"
    burning = write(place / "burning.ipynb", "import time\nwhile time.process_time() < 0.5: pass")
    until, before, ours, theirs = clock.row(), load(), list[float](), list[float]()
    while len(ours) < FEWEST or (len(ours) < REPEATS and time.monotonic() < until):
        await_parked(client, notebook)
        ours.append(1000 * processor_of_flowkit(client, pid, notebook, runs=20))
        theirs.append(1000 * processor_of_papermill(notebook, output, runs=3))
    mine, other = statistics.median(ours), statistics.median(theirs)
    _row("CPU of a trivial run, ms", f"{mine:.0f}", f"{other:.0f}", other / mine, BARS["CPU"], f"{before}-{load()}")
    counted = 1000 * processor_of_flowkit(client, pid, burning, runs=3)
    print(f"  of 500 ms that a cell burns are counted {counted - mine:.0f}", flush=True)


def processor_of_flowkit(client: Client, pid: int, notebook: Path, *, runs: int) -> float:
    """Seconds of user and system time a run, of all processes: of the worker *pid*, its zygote, the kernels that ran
    and the one parked for the next; and what submitting takes the client."""
    submitting, began = 0.0, cost(tree(pid))[0]
    for _ in range(runs):
        before = time.process_time()
        run = client.submit(notebook).id
        submitting += time.process_time() - before
        while not client.store.run(run).state.final:
            time.sleep(0.002)
    time.sleep(0.5)  # in which the next is parked, and the last is reaped
    return (cost(tree(pid))[0] - began + submitting) / runs


def processor_of_papermill(notebook: Path, output: Path, *, runs: int) -> float:
    """The same of papermill in this process, and of its kernels."""
    before = sum(psutil.Process().cpu_times()[:4])
    for _ in range(runs):
        by_papermill(notebook, output)
    return (sum(psutil.Process().cpu_times()[:4]) - before) / runs


def _memory(place: Path, clock: Clock) -> None:
    """Of kernels that have imported pandas, as their zygote has. What several processes have in common is divided among
    them (PSS): the more kernels, the less each; so one is looked at, then four. Private is what nobody shares."""
    spec, env = kernels.find(None), kernel_environment(place)
    before, zygotes = load(), Zygotes(lambda: ("numpy", "pandas"))
    until, found = clock.row(), list[list[float]]()
    try:
        while len(found) < FEWEST or (len(found) < REPEATS and time.monotonic() < until):
            zygotes.await_ready(spec, env)
            with ExitStack() as stack:
                forks, others = list[KernelProcess](), list[KernelProcess]()

                def one_more(stack: ExitStack = stack, forks: list = forks, others: list = others) -> None:  # type: ignore[type-arg]
                    fork, _ = zygotes.take(spec, cwd=place, env=env, log=place / "log")
                    assert fork is not None
                    forks.append(stack.enter_context(closing(fork)))
                    started = KernelProcess(spec, cwd=place, env=env, log=place / "log")
                    others.append(stack.enter_context(closing(started)))
                    _executed(started, "import pandas")

                one_more()
                figures = [_megabytes(shared_out, forks), _megabytes(shared_out, others)]
                figures += [_megabytes(private, forks), _megabytes(private, others)]
                for _ in range(3):
                    one_more()
                for fork in forks:
                    _executed(fork, "import pandas")
                found.append([*figures, _megabytes(shared_out, forks), _megabytes(shared_out, others)])
    finally:
        zygotes.close()
    one, other, own, its, four, fours = (statistics.median(values) for values in zip(*found, strict=True))
    at = f"{before}-{load()}"
    _row("a parked kernel with pandas, MB", f"{one:.0f}", f"{other:.0f}", other / one, BARS["memory"], at)
    _row("  private", f"{own:.0f}", f"{its:.0f}", its / own, None, at)
    _row("  each of four that run", f"{four / 4:.0f}", f"{fours / 4:.0f}", fours / four, None, at)


def _megabytes(measure: Callable[[list[int]], int], processes: list[KernelProcess]) -> float:
    return sum(measure(tree(process.pid)) for process in processes) / 1e6


def _executed(kernel: KernelProcess, code: str) -> None:
    request = kernel.execute(code, stop_on_error=True)
    for _ in range(60):
        messages = kernel.receive(1.0, unwanted=lambda *_: False)
        if any(message.type == "execute_reply" and message.parent == request for message in messages):
            return
    raise AssertionError("the kernel does not answer")


def _where_it_goes(client: Client, notebook: Path) -> None:
    stretches = []
    for _ in range(2 * REPEATS):
        time.sleep(0.1)
        began = time.time()
        submitted = client.submit(notebook)
        instants = [began, time.time()]
        while not (run := client.store.run(submitted.id)).state.final:
            time.sleep(0.001)
        seen = time.time()
        events = client.store.events(run.id)[1]
        kernel = next(event.at for event in events if event.kind == "kernel")
        cells = [event.at for event in events if event.kind == "cell" and event.state is not State.PENDING]
        assert run.started is not None
        assert run.finished is not None
        instants += [run.started.timestamp(), kernel, cells[0], cells[-1], run.finished.timestamp(), seen]
        stretches.append([later - earlier for earlier, later in pairwise(instants)])
    print(f"\nWhere the milliseconds of a trivial run go (load {load()})\n")
    for name, values in zip(STRETCHES, zip(*stretches, strict=True), strict=True):
        print(f"{name:22}{1000 * statistics.median(values):>7.1f}")


def _row(
    name: str, ours: str, theirs: str, times: float, bar: tuple[float, float] | None, at: str, *, less: bool = False
) -> None:
    must, goal = bar or (0.0, 0.0)
    met = (times <= must) if less else (times >= must)
    told = f"{must:>6g}x{goal:>5g}x" if bar else " " * 13
    verdict = ("" if met else "  below the bar") if bar else ""
    print(f"{name:33}{ours:>8}{theirs:>11}{times:>9.1f}x{told}{at:>12}{verdict}", flush=True)


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def private(pids: list[int]) -> int:
    """Bytes of memory that only these processes have."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_"):
                total += 1024 * int(line.split()[1])
    return total


def measure(*ways: Callable[[], object], until: float = float("inf")) -> list[list[float]]:
    """Seconds of each way, taken in turns; fewer times if it is later than *until*, monotonic."""
    times: list[list[float]] = [[] for _ in ways]
    for number in range(REPEATS):
        if number >= FEWEST and time.monotonic() > until:
            break
        for way, taken in zip(ways, times, strict=True):
            began = time.perf_counter()
            way()
            taken.append(time.perf_counter() - began)
    return times


def by_flowkit(client: Client, notebook: Path) -> str:
    run = client.submit(notebook)
    until = time.monotonic() + 120
    while not (run := client.store.run(run.id)).state.final:
        assert time.monotonic() < until, f"run {run.id} is {run.state}"
        time.sleep(0.002)
    assert run.state is State.SUCCEEDED
    return run.id


def start_of(client: Client, run: str) -> str:
    events = client.store.events(run)[1]
    return str(next(event.data["start"] for event in events if event.kind == "kernel"))


def by_papermill(notebook: Path, output: Path) -> None:
    with silent():
        papermill.execute_notebook(str(notebook), str(output), progress_bar=False)


def by_its_cli(notebook: Path, output: Path) -> None:
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook), str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


@contextmanager
def silent() -> Iterator[None]:
    """Without what a kernel writes on this process's own stderr, such as that it listens on a port."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
