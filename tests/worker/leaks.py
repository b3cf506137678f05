"""``python -m tests.worker.leaks [RUNS] [STARTS]``: what is left of many runs, and of many kernels at once.

RUNS forked runs through one worker process, four at once: descriptors, processes, threads, temporary files and memory
of the worker and its zygote are compared with what they were after the first of them, when caches are full. Then STARTS
kernels by the provisioner, all at once: each must be the one that its client talks to.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import psutil
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager

from flowkit.client import Client
from flowkit.config import Config, whole_environment
from flowkit.model import State
from flowkit.worker import provisioner
from flowkit.worker.usage import tree
from flowkit.worker.zygote import Zygotes
from tests.notebooks_made import write
from tests.processes import worker

#: Runs before the first look: caches of SQLAlchemy, SQLite and the allocator are full then.
BEFORE = 1000

#: MB that 1,000 runs may add to what a process has for itself; less is the allocator's noise.
GROWTH = 1.0

CELLS = ("import tempfile, threading\nnoted = open(tempfile.mkstemp()[1], 'w')", "print('x' * 100_000)")


class Look(NamedTuple):
    descriptors: int
    processes: int
    threads: int
    files: int  #: temporary ones, of this worker and its kernels' own
    worker: float  #: MB that it alone has
    zygote: float


def runs_through_one_worker(count: int, folder: Path) -> bool:
    home, temporary = folder / "home", folder / "tmp"
    temporary.mkdir()
    # A notebook that leaves a file behind is its author's: it goes elsewhere.
    notebook = write(folder / "leaves.ipynb", f"import tempfile; tempfile.tempdir = {str(folder)!r}", *CELLS)
    with (
        worker("--concurrency", 4, mute=True, FLOWKIT_HOME=str(home), TMPDIR=str(temporary)) as process,
        Client(Config.from_env({"FLOWKIT_HOME": str(home)})) as client,
    ):
        starts = _run(client, notebook, BEFORE)
        first = last = _settled(process.pid, temporary)
        _tell("after the first", BEFORE, first)
        for done in range(count // 4, count + 1, count // 4):
            for how, number in _run(client, notebook, count // 4).items():
                starts[how] = starts.get(how, 0) + number
            last = _settled(process.pid, temporary)
            _tell("and then", done, last)
    left = [
        f"{name}: {before} -> {after}"
        for name, before, after in zip(Look._fields, first, last, strict=True)
        if after - before > (GROWTH * max(1, count / 1000) if name in ("worker", "zygote") else 0)
    ]
    # The first few may have come before the zygote was up.
    print(f"starts: {starts}; left behind: {', '.join(left) or 'nothing'} (load {os.getloadavg()[0]:.1f})", flush=True)
    return not left


def _run(client: Client, notebook: Path, count: int) -> dict[str, int]:
    """So many, eight of them submitted at a time; by how their kernels were started."""
    starts: dict[str, int] = {}
    for _ in range(0, count, 8):
        pending = [client.submit(notebook).id for _ in range(8)]
        until = time.monotonic() + 120
        for one in pending:
            while not (run := client.store.run(one)).state.final:
                assert time.monotonic() < until, f"run {one} is {run.state}"
                time.sleep(0.005)
            assert run.state is State.SUCCEEDED, run.error
            how = next(event.data["start"] for event in client.store.events(one)[1] if event.kind == "kernel")
            starts[str(how)] = starts.get(str(how), 0) + 1
    return starts


def _settled(pid: int, temporary: Path) -> Look:
    """When nothing runs any more, and the next kernel is parked: when two looks, a while apart, are the same."""
    before = _look(pid, temporary)
    for _ in range(60):
        time.sleep(0.5)
        after = _look(pid, temporary)
        if before[:4] == after[:4]:
            return after
        before = after
    return before


def _look(pid: int, temporary: Path) -> Look:
    both = (pid, *(child.pid for child in psutil.Process(pid).children()))
    return Look(
        descriptors=sum(len(os.listdir(f"/proc/{one}/fd")) for one in both),
        processes=len(tree(pid)),
        threads=sum(len(os.listdir(f"/proc/{one}/task")) for one in both),
        files=sum(1 for _ in temporary.rglob("*")),
        worker=_own(pid),
        zygote=sum(map(_own, both[1:])),
    )


def _own(pid: int) -> float:
    """MB of memory that no file is behind, shared with forks or not."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1000, 1)


def _tell(what: str, count: int, look: Look) -> None:
    told = ", ".join(f"{name} {value}" for name, value in look._asdict().items())
    print(f"{what} {count} runs: {told}", flush=True)


def kernels_at_once(count: int, folder: Path) -> bool:
    """Each is told a word of its own, by a variable that needs no zygote of its own, and asked for it by its client."""
    place = folder / "kernels" / "warm"
    place.mkdir(parents=True)
    spec = {
        "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "warm",
        "language": "python",
        "metadata": {"kernel_provisioner": {"provisioner_name": "flowkit"}},
    }
    (place / "kernel.json").write_text(json.dumps(spec))
    specs = KernelSpecManager(kernel_dirs=[str(folder / "kernels")])
    provisioner.ZYGOTES = zygotes = Zygotes(lambda: (), served=True)
    zygotes.await_ready(specs.get_kernel_spec("warm"), whole_environment())
    pool, managers = ThreadPoolExecutor(32), list[KernelManager]()

    def start(number: int) -> tuple[bool, int, str]:
        manager = KernelManager(kernel_name="warm", kernel_spec_manager=specs)
        managers.append(manager)
        manager.start_kernel(env={**os.environ, "JPY_SESSION_NAME": f"word {number}"}, cwd=str(folder))
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=120)
            heard: list[str] = []
            client.execute_interactive(
                "import os; print(os.environ['JPY_SESSION_NAME'], os.getpid(), sep=';')",
                timeout=120,
                output_hook=lambda message: heard.append(message["content"].get("text", "")),
            )
        finally:
            client.stop_channels()
        return isinstance(manager.provisioner.process, provisioner._Process), manager.provisioner.pid, "".join(heard)

    began = time.monotonic()
    try:
        outcomes = list(pool.map(_caught(start), range(count)))
        took, alive = time.monotonic() - began, sum(manager.is_alive() for manager in managers)
    finally:
        list(pool.map(lambda manager: manager.shutdown_kernel(now=True), managers))
        zygotes.close()
    failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    whole = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    wrong = [said for number, (_, _, said) in enumerate(whole) if not failed and said.split(";")[0] != f"word {number}"]
    forked = sum(how for how, _, _ in whole)
    pids = len({pid for _, pid, _ in whole})
    _, left = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=30)
    print(
        f"{count} kernels asked for by 32 threads, {alive} alive together after {took:.0f} s, {forked} of them forked, "
        f"{pids} pids: {len(failed)} failed, {len(wrong)} talked to another's; {len(left)} processes left "
        f"(load {os.getloadavg()[0]:.1f})"
    )
    for error in failed[:3]:
        print(f"  {type(error).__name__}: {error}")
    return not failed and not wrong and not left and alive == pids == count


def _caught(do: Callable[[int], tuple[bool, int, str]]) -> Callable[[int], tuple[bool, int, str] | Exception]:
    def caught(number: int) -> tuple[bool, int, str] | Exception:
        try:
            return do(number)
        except Exception as error:
            return error

    return caught


def main(runs: int = 1000, starts: int = 200) -> int:
    with tempfile.TemporaryDirectory() as folder:
        clean = runs_through_one_worker(runs, Path(folder))
        clean &= kernels_at_once(starts, Path(folder) / "jupyter")
    return int(not clean)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
