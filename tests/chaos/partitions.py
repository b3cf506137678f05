"""Several workers, each behind a network of its own that fails in its own way, and one that is well and takes over.

What the kernels do is seen from outside: every node writes into a journal that it begins, that it lives (ten times a
second), that it ends. So it is known when a kernel was alive, whatever the store says.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from flowkit.client import Client
from flowkit.config import Config
from flowkit.errors import Unavailable
from flowkit.model import Policy, Run, State
from tests.network import Link
from tests.notebooks_made import write
from tests.processes import FLOWKIT, with_parent
from tests.servers import PostgresServer, RedisServer

ROOT = Path(__file__).parent.parent.parent

CELL = """
import os, time
import flowkit as fk
def tell(node, what):  # what it has open is no part of a node's key
    mine = fk.current_run()
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{mine.id} {mine.attempt} {node} {what} {time.monotonic()}\\n".encode())
    os.close(file)
flow = fk.Flow("effects")
def lives(node, seconds):
    tell(node, "begins")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        tell(node, "lives")
        time.sleep(0.1)
    tell(node, "ends")
    return 1
@flow.node
def first():
    return lives("first", 0.2)
@flow.node
def second(first, seconds: float):
    return lives("second", seconds if fk.current_run().attempt == 1 else 0.5)
@flow.node
def third(second):
    return lives("third", 0.2)
flow.run(seconds=seconds)
"""

#: A command whose last line says how long it took, without what a busy machine needs to load it.
TIMED = """
import atexit, time
from flowkit import cli, client
began = time.monotonic()
atexit.register(lambda: print(time.monotonic() - began))
cli.main()
"""


@dataclass
class Told:
    """What the journal says of one attempt: node -> when it began and ended, on the machine's monotonic clock."""

    begins: dict[str, float] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    first: float = float("inf")
    last: float = 0.0


def read_journal(path: Path) -> dict[str, dict[int, Told]]:
    runs: dict[str, dict[int, Told]] = defaultdict(lambda: defaultdict(Told))
    for line in path.read_text().splitlines() if path.exists() else ():
        run, attempt, node, what, at = line.split()
        told, when = runs[run][int(attempt)], float(at)
        told.first, told.last = min(told.first, when), max(told.last, when)
        if what != "lives":
            getattr(told, what)[node] = when
    return runs


@dataclass
class Outcome:
    """Of what happened behind one link."""

    how: str
    runs: list[Run]
    overlaps: list[str] = field(default_factory=list)  #: two kernels of a run that were alive at once
    repeated: list[str] = field(default_factory=list)  #: nodes that had been finished, and were computed again
    lost: list[str] = field(default_factory=list)
    commands: dict[str, tuple[float, int, str]] = field(default_factory=dict)
    #: command -> seconds, exit code, stderr
    recovery: float | None = None  #: seconds from the healing until a worker behind the link has begun a run again


class Partition:
    """``with Partition(folder, links, lease=…) as it: outcomes = it.happens(seconds)``."""

    def __init__(self, folder: Path, links: Sequence[Link], *, lease: float) -> None:
        self._folder, self._links, self._lease = folder, links, lease
        self._stack = ExitStack()
        self._journal = folder / "journal"

    def __enter__(self) -> Partition:
        with ExitStack() as stack:
            self._postgres, self._redis = PostgresServer(), RedisServer()
            for server in (self._postgres, self._redis):
                server.addresses += [link.address for link in self._links if link.address]
                server.networks += [link.network for link in self._links if link.network]
                stack.enter_context(server)
            base = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWKIT_", "REDIS_"))}
            base |= {"FLOWKIT_HOME": str(self._folder / "home"), "FLOWKIT_LEASE": str(self._lease)}
            base |= {"FLOWKIT_GRACE": "1", "PYTHONPATH": str(ROOT)}
            urls = self._postgres.url, self._redis.url
            self._env = base | {"FLOWKIT_DATABASE_URL": urls[0], "FLOWKIT_REDIS_URL": urls[1]}
            self._behind = {link.name: base | link.environment(*urls) for link in self._links}
            self.client = stack.enter_context(Client(Config.from_env(self._env)))
            notebook = write(self._folder / "effects.ipynb", CELL, parameters="journal: str\nseconds: float = 1.0")
            for link in self._links:
                self.client.deploy(notebook, name=link.name, policy=Policy(queue=link.name, retries=3, backoff=0.1))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links:
            link.heal()
        self._stack.close()

    def happens(self, seconds: float) -> dict[str, Outcome]:
        """All links fail at once for so long (at least), while each worker behind one is busy. By their names."""
        outcomes = {}
        runs = {link.name: [self._submit(link.name, seconds + self._lease)] for link in self._links}
        for link in self._links:
            self._stack.enter_context(self._worker(link))
        self._until(lambda: all(self._ticks(run) for some in runs.values() for run in some), 90.0)
        with self._worker(None):  # which takes over; but only now, so that the others have begun
            self._until(lambda: len(self.client.workers()) > len(self._links), 60.0)
            for link in self._links:
                link.cut()
            began = time.monotonic()
            asking = [threading.Thread(target=self._ask, args=(link, outcomes)) for link in self._links]
            for link, thread in zip(self._links, asking, strict=True):
                outcomes[link.name] = Outcome(link.how, runs[link.name])
                thread.start()
            time.sleep(max(0.0, began + seconds - time.monotonic()))
            for thread in asking:  # on a busy machine a command begins late, and is to find it cut
                thread.join(30.0)
            for link in self._links:
                link.heal()
            healed = time.monotonic()
            late = {link.name: self._submit(link.name, 0.0, queue=f"only.{link.name}") for link in self._links}
            for thread in asking:
                thread.join()
            for link in self._links:
                outcomes[link.name].runs.append(late[link.name])
            patience = 3 * self._lease + 60.0 + seconds
            for name, run in late.items():
                with suppress(AssertionError):
                    self._until(lambda run=run: self._ticks(run), patience)  # type: ignore[misc]
                    outcomes[name].recovery = read_journal(self._journal)[run.id][1].first - healed
            with suppress(AssertionError):
                self._until(lambda: all(self._ended(run) for some in outcomes.values() for run in some.runs), patience)
        for outcome in outcomes.values():
            self._judge(outcome)
        return outcomes

    def _judge(self, outcome: Outcome) -> None:
        told = read_journal(self._journal)
        for submitted in outcome.runs:
            run = self.client.store.run(submitted.id)
            attempts = sorted(told[run.id].items())
            if run.state is not State.SUCCEEDED:
                outcome.lost.append(f"{run.id[:8]} is {run.state} ({run.error})")
            for (number, before), (_, after) in itertools.pairwise(attempts):
                if after.first < before.last:
                    outcome.overlaps.append(
                        f"{run.id[:8]}: attempt {number} lived {before.last - after.first:.1f} s on"
                    )
                # The last one may have been killed between its end and its being kept.
                kept = set(before.ends) - {max(before.ends, key=before.ends.__getitem__, default="")}
                outcome.repeated += [f"{run.id[:8]}: {node}" for node in sorted(kept & set(after.begins))]

    # -- what goes on -------------------------------------------------------------------------------------------------

    def _submit(self, name: str, seconds: float, *, queue: str | None = None) -> Run:
        """*queue*: if not the one of that name, of which the well worker hears too."""
        given = {"journal": str(self._journal), "seconds": seconds}
        while True:
            with suppress(Unavailable):
                return self.client.submit(name, parameters=given, policy={"queue": queue} if queue else {})

    def _ticks(self, run: Run) -> bool:
        return bool(read_journal(self._journal)[run.id])

    def _ended(self, run: Run) -> bool:
        return self.client.store.run(run.id).state.final

    def _until(self, true: Callable[[], bool], seconds: float) -> None:
        limit = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < limit, f"not within {seconds} s; {self._logs()}"
            time.sleep(0.1)

    def _logs(self) -> str:
        return "\n".join(log.read_text()[-2000:] for log in sorted(self._folder.glob("worker-*.log")))

    def _ask(self, link: Link, outcomes: dict[str, Outcome]) -> None:
        """What people do meanwhile, behind that link."""
        journal = f"journal={self._journal}"
        asked = [("runs", "-n", "1"), ("run", link.name, "-p", *journal.split("="), "--key", f"asked {link.name}")]
        with ThreadPoolExecutor(len(asked)) as pool:
            told = list(pool.map(lambda arguments: self._command(link, *arguments), asked))
        for arguments, (seconds, code, said) in zip(asked, told, strict=True):
            outcomes[link.name].commands[arguments[0]] = seconds, code, said

    def _command(self, link: Link, *arguments: str) -> tuple[float, int, str]:
        command = [*link.inside, sys.executable, "-c", TIMED, *arguments]
        env = self._behind[link.name]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        return float(done.stdout.splitlines()[-1]), done.returncode, done.stderr

    @contextmanager
    def _worker(self, link: Link | None) -> Iterator[None]:
        queues = [link.name, f"only.{link.name}"] if link else [link.name for link in self._links]
        inside, env = (link.inside, self._behind[link.name]) if link else ([], self._env)
        command = [*inside, *FLOWKIT, "worker", *(word for queue in queues for word in ("--queue", queue))]
        if link is None:
            command += ["--concurrency", str(2 * len(queues))]
        log = self._folder / f"worker-{link.name if link else 'well'}-{time.monotonic_ns()}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, stderr=file, env=env, preexec_fn=with_parent)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main(mode: str, seconds: float, lease: float) -> None:
    """``python -m tests.chaos.partitions MODE SECONDS LEASE``: one link, and all that was told."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="flowkit-partition-") as folder:
        link = Link("a", mode)  # type: ignore[arg-type]
        with Partition(Path(folder), [link], lease=lease) as it:
            print(it.happens(seconds)["a"])
        for log in sorted(Path(folder).glob("worker-*.log")):
            print(log.name, log.read_text(), sep="\n")
        link.close()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
