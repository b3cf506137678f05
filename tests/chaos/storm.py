"""Real workers on a real store and broker, all that can befall them, and a history of it that is judged at the end."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import redis

from flowkit.client import Client
from flowkit.config import Config
from flowkit.errors import FlowkitError
from flowkit.model import CatchUp, Overlap, Policy, Run, Schedule, State, now
from tests.notebooks_made import write
from tests.processes import with_parent
from tests.servers import PostgresServer, RedisBySentinel, RedisServer

LEASE = 3.0
#: Seconds without any run ending, after which what has not ended counts as lost: no backlog, however long, is a loss.
PATIENCE = 60.0
#: Runs that wait, from which on submitters hold back: faults are to meet runs, not a queue that only grows.
BACKLOG = 300
#: How many workers with fake kernels, and with real ones, are kept alive.
FAKE, REAL = 3, 1

FAILOVER = "failover of Redis"

ENDED = re.compile(r"run (\w{8}) of [\w.]+: succeeded")


class Storm:
    """``with Storm(folder, servers=…, seed=…) as storm: storm.rage(seconds); storm.settle()``."""

    def __init__(self, folder: Path, *, servers: bool, seed: int, sentinel: bool = False) -> None:
        """*servers*: PostgreSQL and Redis, instead of SQLite. *sentinel*: a Redis that fails over, instead of one that
        is started again."""
        self.random = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.accepted: dict[str, str] = {}  #: key -> run
        self.maybe: set[str] = set()  #: keys whose submit was not answered
        self.surprises: list[str] = []  #: of the verdict, in words
        self._folder = folder
        self._stack = ExitStack()
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("FLOWKIT_")}
        self._env |= {"FLOWKIT_HOME": str(folder / "home"), "FLOWKIT_LEASE": str(LEASE), "FLOWKIT_GRACE": "1"}
        self._postgres: PostgresServer | None = None
        self._redis: RedisServer | RedisBySentinel | None = None
        if servers:
            self._postgres = self._stack.enter_context(PostgresServer())
            self._redis = self._stack.enter_context(RedisBySentinel() if sentinel else RedisServer())
            self._env |= {"FLOWKIT_DATABASE_URL": self._postgres.url, "FLOWKIT_REDIS_URL": self._redis.url}
        self._workers: list[subprocess.Popen[bytes]] = []
        self._kinds: dict[int, str] = {}
        self._started = 0
        self._over = threading.Event()  # no more submits
        self._ended = threading.Event()  # no more workers

    def __enter__(self) -> Storm:
        try:
            self.client = self._stack.enter_context(Client(Config.from_env(self._env)))
            self._deploy()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._ended.set()
        time.sleep(0.5)  # one may just be starting
        for process in self._workers:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self._workers:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._stack.close()

    def _deploy(self) -> None:
        volume = write(self._folder / "volume.ipynb", "1", parameters="seconds: float = 0.0\nfailures: int = 0")
        small = write(self._folder / "small.ipynb", "1 + 1")
        keep = {"keep_succeeded": 10**6, "keep_failed": 10**6}
        self.client.deploy(volume, policy=Policy(queue="fake", retries=2, backoff=0.1), **keep)
        self.client.deploy(small, policy=Policy(queue="real", retries=20, backoff=0.1), **keep)
        every_second = Schedule(every=1.0, catch_up=CatchUp.ALL, catch_up_limit=1000, overlap=Overlap.ALLOW)
        ticking = {"policy": Policy(queue="fake"), "schedule": every_second}
        deployed, _ = self.client.deploy(volume, name="ticking", **ticking, **keep)
        assert deployed.schedule is not None
        assert deployed.schedule.next is not None
        self._first = deployed.schedule.next

    # -- what goes on -------------------------------------------------------------------------------------------------

    def rage(self, seconds: float, *, failovers: int = 0) -> None:
        """Submit runs and injure what runs them, for so long, and until Redis has failed over so often."""
        submitters = [threading.Thread(target=self._submit, args=(number,)) for number in range(2)]
        keeper = threading.Thread(target=self._keep_alive, daemon=True)
        for thread in (*submitters, keeper):
            thread.start()
        until = time.monotonic() + seconds
        faults = self._choice()
        while time.monotonic() < until or self.faults[FAILOVER] < failovers:
            time.sleep(self.random.uniform(0.3, 1.2))
            name = self.random.choice(list(faults))
            if faults[name]():
                self.faults[name] += 1
        self._over.set()
        for thread in submitters:
            thread.join()
        while True:  # the store may be coming back
            with suppress(FlowkitError):
                self.client.store.pause("ticking", now=now())
                return

    def settle(self) -> None:
        """Until all that may be in the store has ended, or none ends any more."""
        fewest, since = 10**9, time.monotonic()
        while fewest and time.monotonic() < since + PATIENCE:
            with suppress(FlowkitError):
                left = self._open()
                if left < fewest:
                    fewest, since = left, time.monotonic()
            time.sleep(0.2)

    def _submit(self, number: int) -> None:
        chance = random.Random(number)
        with Client(Config.from_env(self._env)) as client:
            for count in range(10**9):
                if self._over.wait(chance.uniform(0.0, 0.06)):
                    return
                if count % 20 == 0:
                    self._hold_back(client)
                key = f"{number}-{count}"
                parameters = {"seconds": chance.choice([0.0, 0.0, 0.1, 0.3, 2.0]), "failures": chance.choice([0, 0, 1])}
                small = chance.random() < 0.04
                for _ in range(chance.choice([1, 3])):  # some give up when they get no answer, some ask again
                    try:
                        run = client.submit(
                            "small" if small else "volume", parameters={} if small else parameters, key=key
                        )
                    except FlowkitError:
                        self.maybe.add(key)
                        continue
                    self.maybe.discard(key)
                    self.accepted[key] = run.id
                    break

    def _hold_back(self, client: Client) -> None:
        with suppress(FlowkitError):
            while sum(client.store.depth(now()).values()) > BACKLOG and not self._over.wait(0.2):
                pass

    def _keep_alive(self) -> None:
        """What a service manager does."""
        while not self._ended.wait(0.2):
            alive = [process for process in list(self._workers) if process.poll() is None]
            for kind, wanted in (("fake", FAKE), ("real", REAL)):
                for _ in range(wanted - sum(self._kinds[process.pid] == kind for process in alive)):
                    self._start(kind)
        while any(process.poll() is None for process in self._workers):  # they end with the thread that started them
            time.sleep(0.1)

    def _start(self, kind: str) -> None:
        self._started += 1
        command = [sys.executable, "-m", "flowkit", "worker", "--queue", "real"]
        if kind == "fake":
            command = [sys.executable, "-m", "tests.chaos.worker", "fake", str(self._folder / "journal")]
        with (self._folder / f"worker-{self._started}.log").open("wb") as log:
            process = subprocess.Popen(
                command, stderr=log, env=self._env, cwd=Path(__file__).parent.parent.parent, preexec_fn=with_parent
            )
        self._kinds[process.pid] = kind
        self._workers.append(process)

    # -- faults -------------------------------------------------------------------------------------------------------

    def _choice(self) -> Mapping[str, Callable[[], bool]]:
        common = {
            "kill -9 of a worker": self._kill_worker,
            "kill -9 of a kernel": self._kill_kernel,
            "a worker stopped beyond its lease": self._stop_worker,
            "SIGTERM to a worker": self._drain_worker,
            "all messages lost": self._lose_messages,
        }
        if self._postgres is None:
            return common | {"the store locked for 2 s": self._lock_store}
        if isinstance(self._redis, RedisBySentinel):
            return common | {FAILOVER: self._fail_over, "kill -9 of PostgreSQL": self._kill_postgres}
        return common | {"kill -9 of Redis": self._kill_redis, "kill -9 of PostgreSQL": self._kill_postgres}

    def _worker(self) -> subprocess.Popen[bytes] | None:
        alive = [process for process in list(self._workers) if process.poll() is None]
        return self.random.choice(alive) if alive else None

    def _signal(self, how: signal.Signals) -> subprocess.Popen[bytes] | None:
        process = self._worker()
        if process is not None:
            process.send_signal(how)
        return process

    def _kill_worker(self) -> bool:
        return self._signal(signal.SIGKILL) is not None

    def _drain_worker(self) -> bool:
        return self._signal(signal.SIGTERM) is not None

    def _stop_worker(self) -> bool:
        process = self._signal(signal.SIGSTOP)
        if process is None:
            return False
        threading.Timer(LEASE + 2.0, process.send_signal, [signal.SIGCONT]).start()
        return True

    def _kill_kernel(self) -> bool:
        real = [process.pid for process in list(self._workers) if self._kinds[process.pid] == "real"]
        with suppress(psutil.Error):
            kernels = [child for pid in real if psutil.pid_exists(pid) for child in psutil.Process(pid).children(True)]
            if kernels:
                self.random.choice(kernels).kill()
                return True
        return False

    def _lose_messages(self) -> bool:
        try:
            if self._redis is None:
                with sqlite3.connect(self._folder / "home" / "queue.db", timeout=5) as connection:
                    connection.execute("DELETE FROM task")
                connection.close()
            else:
                server = self._redis.master if isinstance(self._redis, RedisBySentinel) else self._redis
                with redis.Redis(port=server.port, socket_timeout=2) as client:
                    client.flushall()
        except (redis.RedisError, sqlite3.Error):
            return False
        return True

    def _lock_store(self) -> bool:
        connection = sqlite3.connect(self._folder / "home" / "flowkit.db", timeout=10, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(2.0)
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        finally:
            connection.close()
        return True

    def _fail_over(self) -> bool:
        assert isinstance(self._redis, RedisBySentinel)
        self._redis.fail_over()
        self._redis.revive()
        return True

    def _kill_redis(self) -> bool:
        assert isinstance(self._redis, RedisServer)
        self._redis.kill()
        time.sleep(self.random.uniform(0.0, 2.0))
        self._redis.start()
        return True

    def _kill_postgres(self) -> bool:
        assert self._postgres is not None
        self._postgres.kill()
        time.sleep(self.random.uniform(0.0, 1.0))
        self._postgres.start()
        return True

    # -- judgement ----------------------------------------------------------------------------------------------------

    def verdict(self) -> dict[str, int]:
        """Counts of what there was, and of what must not be: ``lost``, ``doubled``, ``unexpected``."""
        runs = {run.key: run for run in self.client.store.runs(limit=10**6)}
        by_hand = {key: run for key, run in runs.items() if run.scheduled_for is None}
        lost = [key for key, run in self.accepted.items() if key not in runs or runs[key].id != run]
        open_ = [run for run in runs.values() if not run.state.final]
        journal = (self._folder / "journal").read_text().splitlines()
        begun = Counter(tuple(line.split()[:2]) for line in journal)
        succeeded = Counter(
            match for log in self._folder.glob("worker-*.log") for match in ENDED.findall(log.read_text())
        )
        due, fired = self._firings(list(runs.values()))
        failed = [run for run in runs.values() if run.state is State.FAILED]
        surprising = [run for run in failed if run.crashes < 3]
        self.surprises = [f"{run.id} failed in attempt {run.attempt}: {run.error}" for run in surprising]
        return {
            "accepted": len(self.accepted),
            "unanswered submits": len(self.maybe),
            "of these stored": len(self.maybe & set(by_hand)),
            "firings": due,
            "attempts lost with their worker": sum(run.crashes for run in runs.values()),
            "failed after three of these": sum(run.crashes >= 3 for run in failed),
            "accepted and not stored": len(lost),
            "not ended": len(open_),
            "firings that are nothing": due - fired,
            "lost": len(lost) + len(open_) + due - fired,
            "doubled": sum(count > 1 for count in begun.values()) + sum(count > 1 for count in succeeded.values()),
            "unexpected": len(set(by_hand) - set(self.accepted) - self.maybe) + len(surprising),
        }

    def _firings(self, runs: list[Run]) -> tuple[int, int]:
        """How many there were up to the last one known, and how many of them are a run or a skip."""
        skips = self.client.store.skips("ticking", limit=10**6)
        started = [run.scheduled_for for run in runs if run.scheduled_for is not None]
        known = started + [skip.last for skip in skips]
        if not known:
            return 0, 0
        last = max(known)
        return round((last - self._first).total_seconds()) + 1, len(set(started)) + sum(skip.count for skip in skips)

    def _open(self) -> int:
        return len(self.client.store.runs(limit=10**6, states=(State.PENDING, State.RUNNING)))
