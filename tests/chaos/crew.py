"""Workers in processes of their own on one store and broker, to be injured; all of them end with this process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple, Self

from flowkit.client import Client
from flowkit.config import Config
from flowkit.errors import FlowkitError, Unavailable
from flowkit.model import Policy, Run, State
from tests.notebooks_made import write
from tests.processes import FLOWKIT, with_parent
from tests.servers import PostgresServer, RedisServer

ROOT = Path(__file__).parent.parent.parent

#: What fake kernels know, as the notebook's parameters.
PARAMETERS = "seconds: float = 0.0\nfailures: int = 0\npoison: bool = False"


class Begun(NamedTuple):
    """A line of the journal: an attempt begins, in the worker with that process number."""

    run: str
    attempt: int
    pid: int
    at: float  #: on the machine's monotonic clock


class Crew:
    """``with Crew(folder, servers=…, lease=…) as crew: crew.hire(3)``. The deployment is called ``volume``."""

    def __init__(self, folder: Path, *, servers: bool, lease: float = 15.0) -> None:
        self._folder = folder
        self._env = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWKIT_", "REDIS_"))}
        self._env |= {"FLOWKIT_HOME": str(folder / "home"), "FLOWKIT_LEASE": str(lease), "FLOWKIT_GRACE": "1"}
        self._servers = servers
        self._stack = ExitStack()
        self.journal = folder / "journal"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.chance = random.Random(1)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._servers:
                self.postgres = stack.enter_context(PostgresServer())
                self.redis = stack.enter_context(RedisServer())
                self._env |= {"FLOWKIT_DATABASE_URL": self.postgres.url, "FLOWKIT_REDIS_URL": self.redis.url}
            self.client = stack.enter_context(Client(Config.from_env(self._env)))
            volume = write(self._folder / "volume.ipynb", "1", parameters=PARAMETERS)
            policy = Policy(queue="fake", retries=2, backoff=0.1)
            self.client.deploy(volume, policy=policy, keep_succeeded=10**6, keep_failed=10**6)
            stack.callback(self._dismiss)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def hire(self, count: int, *command: str, at: Path = ROOT) -> list[subprocess.Popen[bytes]]:
        """*command*: of flowkit; none: workers with fake kernels. *at*: the code they run."""
        fake = [sys.executable, "-m", "tests.chaos.worker", "fake", str(self.journal)]
        return self._hire(count, [*FLOWKIT, *command] if command else fake, at)

    def hire_newer(self) -> subprocess.Popen[bytes]:
        """A worker of a later version; see ``versions``."""
        return self._hire(1, [sys.executable, "-m", "tests.chaos.versions", str(self.journal)], ROOT)[0]

    def _hire(self, count: int, what: list[str], at: Path) -> list[subprocess.Popen[bytes]]:
        hired = []
        for _ in range(count):
            with (self._folder / f"worker-{len(self.workers)}.log").open("wb") as log:
                worker = subprocess.Popen(
                    what, stderr=log, env=self._env | {"PYTHONPATH": str(at)}, cwd=at, preexec_fn=with_parent
                )
            hired.append(worker)
            self.workers.append(worker)
        return hired

    def ready(self, count: int) -> None:
        self.until(lambda: len(self.client.workers()) >= count, 120.0)

    def alive(self) -> list[subprocess.Popen[bytes]]:
        return [worker for worker in self.workers if worker.poll() is None]

    def submit(self, **parameters: float) -> Run:
        while True:
            with suppress(Unavailable):
                return self.client.submit("volume", parameters=parameters)

    def begun(self) -> list[Begun]:
        if not self.journal.exists():
            return []
        lines = [line.split() for line in self.journal.read_text().splitlines()]
        return [Begun(run, int(attempt), int(pid), float(at)) for run, attempt, pid, at in lines]

    def doubled(self) -> int:
        """Attempts that began twice."""
        seen: dict[tuple[str, int], int] = defaultdict(int)
        for begun in self.begun():
            seen[begun.run, begun.attempt] += 1
        return sum(count > 1 for count in seen.values())

    def open(self) -> list[Run]:
        return self.client.store.runs(limit=10_000, states=(State.PENDING, State.RUNNING))

    def settle(self, seconds: float = 60.0) -> int:
        """Until all runs have ended; how many have not."""
        with suppress(TimeoutError):
            self.until(lambda: not self.open(), seconds)
        return len(self.open())

    def until(self, true: Callable[[], object], seconds: float) -> None:
        limit = time.monotonic() + seconds
        while True:
            with suppress(FlowkitError):
                if true():
                    return
            if time.monotonic() > limit:
                raise TimeoutError(f"not within {seconds} s")
            time.sleep(0.1)

    def _dismiss(self) -> None:
        for worker in self.alive():
            worker.send_signal(signal.SIGCONT)
            worker.terminate()
        for worker in self.workers:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


class Keeper:
    """``with Keeper(crew, count):`` what a service manager does: dead workers are replaced."""

    def __init__(self, crew: Crew, count: int) -> None:
        self._crew, self._count = crew, count
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._crew._dismiss()  # before the thread that started them ends, and they with it
        self._thread.join()

    def _keep(self) -> None:
        while not self._over.wait(0.2):
            self._crew.hire(max(0, self._count - len(self._crew.alive())))
        while self._crew.alive():
            time.sleep(0.1)
