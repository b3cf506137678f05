"""The fault table: a row is a promise, the fault that would break it, how often it is asked for, and what injects it.

Each fault is given a budget of time, does what it can of what is asked, and returns figures. Nothing of it is faked
but, where the row says so, the kernels: a minute has room for a thousand of those.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from flowkit import failpoints
from flowkit.errors import FlowkitError, NotFound, Unavailable
from flowkit.model import Policy, Run, Schedule, State
from flowkit.store import Store
from flowkit.worker import cron
from tests import simulation
from tests.chaos.crew import Crew, Keeper
from tests.chaos.partitions import CELL, Partition, read_journal
from tests.chaos.storm import FAILOVER, Storm
from tests.chaos.versions import mixed
from tests.network import Link, Proxy, links
from tests.notebooks_made import write
from tests.servers import PostgresServer
from tests.store import given
from tests.store.given import T0, TEXT
from tests.store.races import cancel_against_finish, outages
from tests.test_failpoints import DISK, STORE, fails_at
from tests.worker import test_orphans as orphans

FILE, SERVERS = "SQLite", "PostgreSQL + Redis"


@dataclass
class Budget:
    """Its clock runs from when it is first asked: servers and workers have to be started before."""

    seconds: float
    asked: int
    folder: Path
    place: str  #: FILE or SERVERS

    _until: float | None = None

    @property
    def left(self) -> float:
        if self._until is None:
            self._until = time.monotonic() + self.seconds
        return self._until - time.monotonic()

    def more(self, done: int) -> bool:
        return done < self.asked and self.left > 0

    @property
    def servers(self) -> bool:
        return self.place != FILE


@dataclass
class Figures:
    done: int = 0
    lost: int = 0
    doubled: int = 0
    unexpected: int = 0
    times: list[float] = field(default_factory=list)  #: seconds
    notes: list[str] = field(default_factory=list)

    @property
    def p99(self) -> float | None:
        return sorted(self.times)[min(len(self.times) - 1, int(len(self.times) * 0.99))] if self.times else None


@dataclass(frozen=True)
class Fault:
    promise: str
    fault: str
    asked: int
    share: float  #: of the time
    run: Callable[[Budget], Figures]
    within: float | None = None  #: seconds that 99 % may take
    places: tuple[str, ...] = (FILE, SERVERS)


# -- everything at once -----------------------------------------------------------------------------------------------


def storm(budget: Budget) -> Figures:
    return _storm(budget, sentinel=False)


def storm_by_sentinel(budget: Budget) -> Figures:
    return _storm(budget, sentinel=True)


def _storm(budget: Budget, *, sentinel: bool) -> Figures:
    with Storm(budget.folder, servers=budget.servers, seed=int(time.time()), sentinel=sentinel) as one:
        one.rage(max(5.0, budget.seconds - 45), failovers=5 if sentinel and budget.seconds > 120 else int(sentinel))
        one.settle()
        verdict = one.verdict()
    told = [f"{count} {name}" for name, count in sorted(one.faults.items())]
    told.append(f"{verdict['unanswered submits']} unanswered submits, of which {verdict['of these stored']} are stored")
    told += [f"{verdict[name]} {name}" for name in ("accepted and not stored", "not ended", "firings that are nothing")]
    told += one.surprises[:3]
    done = one.faults[FAILOVER] if sentinel else verdict["accepted"]
    return Figures(done, verdict["lost"], verdict["doubled"], verdict["unexpected"], notes=told)


def seeds(budget: Budget) -> Figures:
    return _simulated(budget, simulation.KINDS)


def jumps(budget: Budget) -> Figures:
    return _simulated(budget, ("jump",), count="jump")


def _simulated(budget: Budget, kinds: tuple[str, ...], count: str | None = None) -> Figures:
    figures, total = Figures(), Counter[str]()
    seed = first = int(time.time())
    with simulation.memory_store() as store:
        while budget.more(total[count] if count else seed - first):
            try:
                total += simulation.simulate(seed, store, kinds=kinds)
            except simulation.Violation as violation:
                figures.unexpected += 1
                figures.notes.append(f"seed {seed}: {violation}")
            seed += 1
    figures.done = total[count] if count else seed - first
    figures.notes.append(f"{total['runs']} runs, {total['rescued']} taken over, seeds from {first}")
    return figures


# -- what dies --------------------------------------------------------------------------------------------------------


def worker_kills(budget: Budget) -> Figures:
    """Of six workers three at a time: the others have room for their runs. How long until these have begun again."""
    figures = Figures()
    with Crew(budget.folder, servers=budget.servers) as crew:
        crew.hire(6)
        crew.ready(6)
        while budget.more(figures.done):
            runs = [crew.submit(seconds=120.0) for _ in range(12)]
            crew.until(lambda runs=runs: {one.run for one in crew.begun()} >= {run.id for run in runs}, 60)  # type: ignore[misc]
            owners = {one.run: one for one in crew.begun()}
            doomed = crew.chance.sample(crew.alive(), 3)
            killed = time.monotonic()
            for worker in doomed:
                worker.kill()
            crew.hire(3)
            dead = {worker.pid for worker in doomed}
            lost = {run.id for run in runs if owners[run.id].pid in dead}

            def again(lost: set[str] = lost) -> bool:
                return {one.run for one in crew.begun() if one.attempt == 2} >= lost

            with suppress(TimeoutError):
                crew.until(again, 40)
            second = {one.run: one.at for one in crew.begun() if one.attempt == 2}
            figures.times += [second[run] - killed for run in lost if run in second]
            figures.lost += sum(run not in second for run in lost)
            figures.unexpected += sum(run.id in second and run.id not in lost for run in runs)
            figures.done += 3
            for run in runs:
                with suppress(FlowkitError):
                    crew.client.cancel(run.id)
            figures.unexpected += crew.settle()
        figures.doubled = crew.doubled()
    return figures


def zombies(budget: Budget) -> Figures:
    """Workers with real kernels, stopped until others have taken their runs over; then they wake up."""
    figures = Figures()
    tick = budget.folder / "ticks"
    with Crew(budget.folder, servers=budget.servers, lease=3.0) as crew:
        notebook = write(budget.folder / "effects.ipynb", CELL, parameters="journal: str\nseconds: float = 1.0")
        crew.client.deploy(notebook, name="effects", policy=Policy(queue="real", retries=3, backoff=0.1))
        workers = crew.hire(3, "worker", "--queue", "real", "--concurrency", "4")  # one has room for all
        crew.ready(3)
        stale = 0
        while budget.more(figures.done):
            given_ = {"journal": str(tick), "seconds": 60.0}
            runs = [crew.client.submit("effects", parameters=given_) for _ in range(4)]
            crew.until(lambda runs=runs: all(read_journal(tick)[run.id] for run in runs), 60)  # type: ignore[misc]
            owners = {run.id: crew.client.store.run(run.id).worker or "" for run in runs}
            chosen = [one for one in workers if any(f"-{one.pid}-" in owner for owner in owners.values())][:2]
            for worker in chosen:
                worker.send_signal(signal.SIGSTOP)
            theirs = [run for run in runs if any(f"-{one.pid}-" in owners[run.id] for one in chosen)]

            def taken(theirs: list[Run] = theirs) -> bool:
                return all(crew.client.store.run(run.id).attempt > 1 for run in theirs)

            with suppress(TimeoutError):
                crew.until(taken, 30)
            # One that is not taken over is no zombie's: its worker goes on with it, and rightly.
            late = [run for run in theirs if crew.client.store.run(run.id).attempt == 1]
            figures.lost += len(late)
            theirs = [run for run in theirs if run not in late]
            before = {run.id: crew.client.store.events(run.id, attempt=1)[0] for run in theirs}
            woken = time.monotonic()
            for worker in chosen:
                worker.send_signal(signal.SIGCONT)
            figures.done += len(chosen)
            for run in runs:
                if run not in theirs:
                    with suppress(FlowkitError):
                        crew.client.cancel(run.id)
            figures.lost += crew.settle(90)
            for run in theirs:
                stale += 1
                figures.doubled += crew.client.store.events(run.id, attempt=1)[0] != before[run.id]
                figures.times.append(max(0.0, read_journal(tick)[run.id][1].last - woken))
                figures.lost += crew.client.store.run(run.id).state is not State.SUCCEEDED
    figures.notes.append(f"{stale} stale attempts; the time is from waking until their kernels are gone")
    return figures


def drains(budget: Budget) -> Figures:
    figures = Figures()
    with Crew(budget.folder, servers=budget.servers) as crew, Keeper(crew, 3):
        crew.ready(3)
        runs: list[Run] = []
        while budget.more(figures.done):
            runs += [crew.submit(seconds=crew.chance.choice([0.0, 0.3, 2.0, 4.0])) for _ in range(8)]
            time.sleep(1.5)
            ready = [worker for worker in crew.alive() if any(one.pid == worker.pid for one in crew.begun()[-200:])]
            if ready:
                crew.chance.choice(ready).terminate()
                figures.done += 1
        figures.lost = crew.settle(180)
        found = [crew.client.store.run(run.id) for run in runs]
        figures.lost += sum(run.state is not State.SUCCEEDED for run in found)
        figures.unexpected = sum(run.crashes for run in found)
        figures.doubled = crew.doubled()
        figures.notes.append(f"{len(runs)} runs, {sum(run.attempt - 1 for run in found)} handed back")
    return figures


def poison(budget: Budget) -> Figures:
    """One run that kills its worker, among good ones; *done* counts the good ones that succeeded."""
    with Crew(budget.folder, servers=budget.servers, lease=3.0) as crew, Keeper(crew, 2):
        crew.ready(2)
        bad = crew.submit(poison=True)
        good = [crew.submit(seconds=crew.chance.choice([0.1, 0.5, 3.0])) for _ in range(budget.asked)]
        left = crew.settle(max(180.0, budget.left))
        ended = [crew.client.store.run(run.id) for run in good]
        poisoned = crew.client.store.run(bad.id)
        figures = Figures(sum(run.state is State.SUCCEEDED for run in ended), left, crew.doubled())
        figures.unexpected = int((poisoned.state, poisoned.crashes) != (State.FAILED, 3))
        figures.unexpected += sum(run.state is State.FAILED for run in ended)
        beside = sum(run.crashes > 0 for run in ended)
        figures.notes.append(
            f"the poison run {poisoned.state} after {poisoned.crashes}; {beside} good ones were beside it"
        )
    return figures


# -- what is asked at once --------------------------------------------------------------------------------------------


def keys(budget: Budget) -> Figures:
    """Each key by twenty at once; on PostgreSQL a third of them by connections that are cut all the time."""
    figures = Figures()
    with ExitStack() as stack:
        stores, cut = _stores(budget, stack, 20)
        over = threading.Event()

        def cutting() -> None:
            while not over.wait(random.uniform(0.02, 0.1)):
                for proxy in cut:
                    proxy.mode = "reset"
                    proxy.mode = "pass"

        cutter = threading.Thread(target=cutting)
        cutter.start()
        unanswered = 0
        while budget.more(figures.done):
            key = f"key {figures.done}"

            def submit(number: int, key: str = key) -> str | None:
                try:
                    return stores[number].submit(given.run(key=key), TEXT)[0].id
                except Unavailable:
                    return None

            answers = given.together(20, submit)
            unanswered += answers.count(None)
            figures.doubled += len({one for one in answers if one}) > 1
            figures.done += 1
        over.set()
        cutter.join()
        stored = Counter(run.key for run in stores[0].runs(limit=10**6))
        figures.lost = sum(f"key {number}" not in stored for number in range(figures.done))
        figures.unexpected = len(stored) - figures.done + figures.lost
        figures.notes.append(f"{20 * figures.done} submits, {unanswered} not answered")
    return figures


def _stores(budget: Budget, stack: ExitStack, count: int) -> tuple[list[Store], list[Proxy]]:
    """The first is one that answers; a third of the others is cut, where there is a network."""
    if not budget.servers:
        url = f"sqlite:///{budget.folder}/flowkit.db"
        return [stack.enter_context(Store.open(url)) for _ in range(count)], []
    server = stack.enter_context(PostgresServer())
    proxy = stack.enter_context(Proxy(server.port))
    behind = server.url.replace(str(server.port), str(proxy.port))
    urls = [behind if number % 3 == 2 else server.url for number in range(count)]
    return [stack.enter_context(Store.open(url)) for url in urls], [proxy]


def tickers(budget: Budget) -> Figures:
    """Eight that tick and die in the middle of their transactions, until so many have; then how long 10,000 take."""
    figures = Figures()
    with ExitStack() as stack:
        url = f"sqlite:///{budget.folder}/flowkit.db"
        if budget.servers:
            url = stack.enter_context(PostgresServer()).url
        with Store.open(url) as store:
            schedule = Schedule(every=60.0, anchor=T0 - timedelta(minutes=1), next=T0)
            for number in range(10_000 if budget.seconds > 40 else 2_000):
                store.deploy(given.deployment(f"flights {number}", schedule=schedule), TEXT, now=T0)
        many = number + 1
        killed = 0
        while budget.more(killed) and killed < budget.asked:
            ends = [_forked(_tick, url, True) for _ in range(8)]
            killed += sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL for pid in ends)
        figures.done = killed
        began = time.monotonic()
        ends = [_forked(_tick, url, False) for _ in range(8)]
        figures.unexpected += sum(os.waitpid(pid, 0)[1] != 0 for pid in ends)
        rest = time.monotonic() - began
        with Store.open(url) as store:
            runs = store.runs(limit=10**6)
            figures.lost = many - len({run.deployment for run in runs})
            figures.doubled = len(runs) - len({(run.deployment, run.scheduled_for) for run in runs})
            with store.writing() as connection:  # again, nobody dies
                connection.execute(sa.text("DELETE FROM events"))
                connection.execute(sa.text("DELETE FROM runs"))
                connection.execute(sa.text("UPDATE deployments SET next = :at"), {"at": _stored(store, T0)})
        began = time.monotonic()
        ends = [_forked(_tick, url, False) for _ in range(8)]
        figures.unexpected += sum(os.waitpid(pid, 0)[1] != 0 for pid in ends)
        figures.times = [time.monotonic() - began]
        with Store.open(url) as store:
            figures.lost += many - len(store.runs(limit=10**6))
        figures.notes.append(
            f"{many} due; {rest:.1f} s for what the dying left; the time is for all, by those that live"
        )
    return figures


def _stored(store: Store, at: object) -> object:
    from flowkit.store.schema import deployments

    kind = deployments.c.next.type
    process = kind.bind_processor(store._engine.dialect)
    return process(at) if process else at


def _tick(url: str, dying: bool) -> None:
    if dying:
        chance = random.Random()

        @sa.event.listens_for(sa.Engine, "after_cursor_execute")
        def die(connection: object, cursor: object, statement: str, *_: object) -> None:
            if statement.startswith(("INSERT INTO runs", "UPDATE deployments")) and chance.random() < 0.5:
                os.kill(os.getpid(), signal.SIGKILL)

    with Store.open(url) as store:
        while store.due(now=T0, limit=1):
            store.fire(lambda deployment: cron.plan(deployment, T0), now=T0, limit=20 if dying else 200)


def _forked(act: Callable[..., None], *args: object) -> int:
    """Its process: a child of this one, which has everything loaded already."""
    pid = os.fork()
    if pid == 0:
        try:
            act(*args)
        except BaseException as error:
            os.write(2, f"{error}\n".encode())
            os._exit(1)
        os._exit(0)
    return pid


def all_outages(budget: Budget) -> Figures:
    figures = Figures()
    seed = int(time.time())
    with simulation.memory_store() as store:
        while budget.more(figures.done):
            with store.writing() as connection:
                for table in reversed(simulation.schema.metadata.sorted_tables):
                    connection.execute(table.delete())
            try:
                figures.done += outages(store, seed)
            except AssertionError as error:
                figures.lost += 1
                figures.notes.append(str(error))
            seed += 1
    return figures


def races(budget: Budget) -> Figures:
    figures = Figures()
    with ExitStack() as stack:
        [store], _ = _stores(budget, stack, 1)
        ended: Counter[State] = Counter()
        while budget.more(figures.done):
            try:
                ended += cancel_against_finish(store, 100)
            except AssertionError as error:
                figures.doubled += 1
                figures.notes.append(str(error))
            figures.done += 100
        figures.notes.append(", ".join(f"{count} {state}" for state, count in sorted(ended.items())))
    return figures


# -- kernels ----------------------------------------------------------------------------------------------------------


def cancels(budget: Budget) -> Figures:
    return _behaviours(budget, orphans.cancel)


def timeouts(budget: Budget) -> Figures:
    def beyond(folder: Path, behaviour: str) -> orphans.Ended:
        ended = orphans.resist(folder, behaviour, timeout=orphans.LIMIT)
        return replace(ended, seconds=ended.seconds - orphans.LIMIT)

    return _behaviours(budget, beyond)


def _behaviours(budget: Budget, one: Callable[[Path, str], orphans.Ended]) -> Figures:
    """The nine kernels that resist, three at a time, over and over."""
    figures = Figures()
    with orphans.slow_kernel(budget.folder), ThreadPoolExecutor(3) as pool:
        rounds = 0
        while budget.more(figures.done):
            rounds += 1
            folders = {name: budget.folder / f"{rounds}.{name}" for name in orphans.BEHAVIOURS}
            for folder in folders.values():
                folder.mkdir()
            for ended in pool.map(one, folders.values(), folders):
                figures.done += 1
                figures.times.append(ended.seconds)
                figures.unexpected += len(ended.left)
                if ended.left:
                    figures.notes.append(f"left after {ended.seconds:.1f} s, {ended.ending.state}: {ended.left}")
    return figures


def killed_kernels(budget: Budget) -> Figures:
    """Nine resisting kernels of one worker, which is killed; what is left of them five seconds later."""
    figures = Figures()
    with orphans.slow_kernel(budget.folder):
        rounds = 0
        while budget.more(figures.done):
            rounds += 1
            base = budget.folder / str(rounds)
            base.mkdir()
            figures.unexpected += sum(
                map(len, orphans.left_by_a_killed_worker(base, (orphans.process.isolation(), "cold")).values())
            )
            figures.done += len(orphans.BEHAVIOURS)
    return figures


# -- servers and networks ---------------------------------------------------------------------------------------------


def without_redis(budget: Budget) -> Figures:
    """Redis is stopped for the whole time; *done* counts seconds."""
    figures = Figures()
    with Crew(budget.folder, servers=True) as crew:
        crew.hire(2)
        crew.ready(2)
        crew.redis.kill()
        began = time.monotonic()
        runs = []
        while budget.more(figures.done):
            runs.append(crew.submit())
            time.sleep(crew.chance.uniform(0.1, 0.6))
            figures.done = int(time.monotonic() - began)
        figures.lost = crew.settle(120)
        for run in runs:
            with suppress(NotFound):
                found = crew.client.store.run(run.id)
                if found.started is not None:
                    figures.times.append((found.started - found.created).total_seconds())
        figures.lost += len(runs) - len(figures.times)
        figures.doubled = crew.doubled()
        figures.notes.append(f"{len(runs)} runs")
    return figures


def partitions(budget: Budget) -> Figures:
    """Packets lost, answers lost, answers late, peers that hang: 5 s, and 30 s and 120 s if there is time."""
    kinds = {
        "packets": lambda: Link("packets", "lost packets"),
        "answers": lambda: Link("answers", "half-open"),
        "late": lambda: Link("late", "late"),
        "redis": lambda: Link("redis", "blackhole", redis_only=True),
    }
    figures = Figures()
    for seconds in (5.0, 30.0, 120.0):
        if seconds + 60 > budget.left and figures.done:
            break
        folder = budget.folder / f"{seconds:g}"
        folder.mkdir()
        with links(*kinds.values()) as made, Partition(folder, made, lease=15.0) as one:
            outcomes = one.happens(seconds)
        for name, outcome in outcomes.items():
            figures.done += 1
            figures.lost += len(outcome.lost)
            figures.doubled += len(outcome.overlaps) + len(outcome.repeated)
            figures.times += [outcome.recovery] if outcome.recovery is not None else []
            slowest = max(took for took, _, _ in outcome.commands.values())
            figures.unexpected += slowest > 6.5 and name != "late"
            figures.lost += outcome.recovery is None
            how = f"{outcome.how} {seconds:g} s: recovery {outcome.recovery or -1:.1f} s, commands {slowest:.1f} s"
            figures.notes.append("; ".join([how, *outcome.lost, *outcome.overlaps, *outcome.repeated]))
    return figures


def versions(budget: Budget) -> Figures:
    done, lost, doubled, note = mixed(budget.folder, servers=budget.servers, runs=budget.asked, seconds=budget.seconds)
    return Figures(done, lost, doubled, notes=[note])


def every_failpoint(budget: Budget) -> Figures:
    figures = Figures()
    rules = DISK + STORE
    with ExitStack() as stack:
        if budget.servers:
            [store], _ = _stores(budget, stack, 1)
        else:
            store = stack.enter_context(simulation.memory_store())
        for number, rule in enumerate(rules):
            if not budget.more(figures.done):
                break
            folder = budget.folder / str(number)
            folder.mkdir()
            try:
                fails_at(store, folder, rule)
            except AssertionError as error:
                figures.unexpected += 1
                figures.notes.append(f"{rule}: {error}")
            finally:
                failpoints.arm("")
            figures.done += 1
    return figures


TABLE = [
    Fault("No accepted run is lost", "all below at random, runs accepted", 10_000, 3.0, storm),
    Fault("No accepted run is lost", "failover by Sentinel", 5, 1.5, storm_by_sentinel, places=(SERVERS,)),
    Fault("No accepted run is lost", "simulated worlds", 2_000, 1.0, seeds, places=(FILE,)),
    Fault("A key is one run", "keys, 20 submits at once each", 1_000, 0.8, keys),
    Fault("A firing is one run", "tickers killed in mid-transaction", 300, 1.0, tickers, within=10.0),
    Fault("No firing vanishes", "outages of schedules with random policies", 100_000, 1.0, all_outages, places=(FILE,)),
    Fault("A zombie cannot write", "SIGSTOP beyond the lease", 200, 1.5, zombies, within=2.0),
    Fault("A dead worker's run goes on", "kill -9 of a worker", 100, 1.5, worker_kills, within=20.0),
    Fault("A poison run stops", "good runs beside one that kills its worker", 100, 0.7, poison),
    Fault("Cancel ends", "nine resisting kernels cancelled", 900, 2.0, cancels, within=6.0, places=(FILE,)),
    Fault("Cancel has one winner", "cancel and finish at once", 10_000, 0.8, races),
    Fault("No orphans", "nine resisting kernels, worker killed", 90, 0.7, killed_kernels, places=(FILE,)),
    Fault("Succeeded means saved", "a failpoint at every write and commit", len(DISK + STORE), 0.7, every_failpoint),
    Fault("Redis down is slower", "seconds without Redis", 600, 1.0, without_redis, within=5.0, places=(SERVERS,)),
    Fault("Store away: fenced", "networks that fail", 12, 3.0, partitions, within=20.0, places=(SERVERS,)),
    Fault(
        "Clock jumps change no lease",
        "jumps by up to a day, and to 1970 (simulated)",
        1_000,
        0.6,
        jumps,
        places=(FILE,),
    ),
    Fault("A drain loses nothing", "SIGTERM under load", 100, 1.0, drains),
    Fault("Timeouts hold", "nine resisting kernels beyond their limit", 90, 0.7, timeouts, within=5.0, places=(FILE,)),
    Fault("Versions coexist", "runs by an old and a new worker", 1_000, 0.6, versions),
]


def inject(fault: Fault, place: str, seconds: float) -> Figures:
    with tempfile.TemporaryDirectory(prefix="flowkit-fault-") as folder:
        return fault.run(Budget(seconds, fault.asked, Path(folder), place))


def verdict(fault: Fault, figures: Figures) -> str:
    if figures.lost or figures.doubled or figures.unexpected:
        return "BROKEN"
    if fault.within is not None and figures.p99 is not None and figures.p99 > fault.within:
        return "LATE"
    return "held" if figures.done else "nothing done"


def machine() -> str:
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "no commit"
