"""One run of a notebook, submitted until recorded, beside papermill on the same notebook; and what it costs.

Interleaved repeats, medians, with the machine's load. flowkit: workers that idle, on the embedded default, from
``submit`` until the store says succeeded; one forks its kernels, one starts them. papermill: ``execute_notebook`` in
this process, already imported, and its command line.
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
from contextlib import contextmanager
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
from flowkit.worker.usage import shared_out, tree
from flowkit.worker.zygote import Zygotes
from tests.notebooks_made import write
from tests.processes import worker

REPEATS = 9

NOTEBOOKS = {
    "trivial": ("1 + 1",),
    "import pandas": ("import pandas",),
    "50 cells": ("1 + 1",) * 50,
    "10 MB of prints": ("for _ in range(10): print('x' * 1_000_000)",),
}

#: Where the time of a run goes: the name of a stretch, and what it ends with.
STRETCHES = ("submit", "claim", "kernel, parameters", "its first answer", "cells", "its end, saving", "seen")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        homes = {name: place / name for name in ("warm", "cold")}
        with (
            worker("--concurrency", 4, FLOWKIT_HOME=str(homes["warm"])) as warm,
            worker("--concurrency", 4, FLOWKIT_HOME=str(homes["cold"]), FLOWKIT_WARM="off"),
            Client(Config.from_env({"FLOWKIT_HOME": str(homes["warm"])})) as client,
            Client(Config.from_env({"FLOWKIT_HOME": str(homes["cold"])})) as cold,
        ):
            notebook = write(place / "first.ipynb", "1")
            while start_of(client, by_flowkit(client, notebook)) != "parked":
                time.sleep(1.0)  # kernels are parked when nothing runs
            _one_at_a_time(client, cold, place)
            _where_it_goes(client, write(place / "notebook.ipynb", *NOTEBOOKS["trivial"]))
            _four_at_once(client, cold, place)
            _processor(client, warm.pid, place)
        _memory(place)


def _one_at_a_time(client: Client, cold: Client, place: Path) -> None:
    print(f"\nOne run of a notebook, ms, median of {REPEATS}, and the last tenth over the median\n")
    print(f"{'':18}{'flowkit':>14}{'cold':>8}{'papermill':>11}{'its CLI':>9}{'ratios':>15}{'load':>7}")
    for name, cells in NOTEBOOKS.items():
        notebook = write(place / "notebook.ipynb", *cells)
        by_flowkit(client, notebook)
        times = measure(
            partial(by_flowkit, client, notebook),
            partial(by_flowkit, cold, notebook),
            partial(by_papermill, notebook, place / "out.ipynb"),
            partial(by_its_cli, notebook, place / "out.ipynb"),
        )
        ours, started, theirs, cli = (1000 * statistics.median(taken) for taken in times)
        tail = 1000 * statistics.quantiles(times[0], n=10)[-1] / ours
        ratios = f"{theirs / ours:.1f}x {cli / ours:.1f}x"
        print(f"{name:18}{ours:>8.0f} {tail:>4.1f}x{started:>8.0f}{theirs:>11.0f}{cli:>9.0f}{ratios:>15}{load():>7}")


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


def _four_at_once(client: Client, cold: Client, place: Path, runs: int = 24) -> None:
    notebook = write(place / "notebook.ipynb", *NOTEBOOKS["trivial"])

    def by_worker(client: Client, runs: int) -> float:
        began = time.perf_counter()
        pending = [client.submit(notebook).id for _ in range(runs)]
        while pending:
            pending = [run for run in pending if not client.store.run(run).state.final]
            time.sleep(0.005)
        return runs / (time.perf_counter() - began)

    with ProcessPoolExecutor(4) as pool:
        outputs = [place / f"out{number}.ipynb" for number in range(runs)]
        list(pool.map(by_papermill, [notebook] * 4, outputs[:4]))
        began = time.perf_counter()
        list(pool.map(by_papermill, [notebook] * runs, outputs))
        theirs = runs / (time.perf_counter() - began)
    ours, started = by_worker(client, 4 * runs), by_worker(cold, runs)
    print(
        f"\nRuns a second, four at once: {ours:.1f}, cold {started:.1f}, papermill in four processes {theirs:.1f}: ",
        end="",
    )
    print(f"{ours / theirs:.1f}x (load {load()})")


def _processor(client: Client, pid: int, place: Path, runs: int = 20) -> None:
    notebook = write(place / "notebook.ipynb", *NOTEBOOKS["trivial"])
    processes = [psutil.Process(pid), *psutil.Process(pid).children()]

    def used(processes: list[psutil.Process]) -> float:
        return sum(sum(process.cpu_times()[:4]) for process in processes)

    before = used(processes)
    for _ in range(runs):
        by_flowkit(client, notebook)
    ours = (used(processes) - before) / runs
    before = used([psutil.Process()])
    for _ in range(5):
        by_papermill(notebook, place / "out.ipynb")
    theirs = (used([psutil.Process()]) - before) / 5
    print(f"CPU ms a run: {1000 * ours:.0f}, papermill in a warm process {1000 * theirs:.0f}: 1/{theirs / ours:.1f}")


def _memory(place: Path) -> None:
    spec, env = kernels.find(None), kernel_environment(place)
    zygotes = Zygotes(lambda: ("numpy", "pandas"))
    zygotes.await_ready(spec, env)
    parked, _ = zygotes.take(spec, cwd=place, env=env, log=place / "log")
    assert parked is not None
    started = KernelProcess(spec, cwd=place, env=env, log=place / "log")
    try:
        for kernel in (parked, started):
            request = kernel.execute("import pandas", stop_on_error=True)
            while not any(
                message.type == "execute_reply" and message.parent == request
                for message in kernel.receive(1.0, unwanted=lambda *_: False)
            ):
                pass
        ours, theirs = (shared_out(tree(kernel.pid)) / 1e6 for kernel in (parked, started))
        print(f"Memory with pandas (PSS), MB: forked {ours:.0f}, started {theirs:.0f}: 1/{theirs / ours:.1f}")
    finally:
        parked.close()
        started.close()
        zygotes.close()


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def measure(*ways: Callable[[], object]) -> list[list[float]]:
    """Seconds of each way, taken in turns so that a change of the machine's load meets all of them."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(REPEATS):
        for way, taken in zip(ways, times, strict=True):
            began = time.perf_counter()
            way()
            taken.append(time.perf_counter() - began)
    return times


def by_flowkit(client: Client, notebook: Path) -> str:
    run = client.submit(notebook)
    while not (run := client.store.run(run.id)).state.final:
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
    subprocess.run(command, check=True, capture_output=True)


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
    main()
