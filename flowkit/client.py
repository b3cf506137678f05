"""What a person's shell or notebook does with flowkit: deploy, submit, follow. Composes store, broker and artifacts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from time import sleep
from typing import Any

from flowkit import checks, notebooks
from flowkit.artifacts import Artifacts
from flowkit.changes import Comparison
from flowkit.commit import commit_of
from flowkit.config import Config
from flowkit.errors import Conflict, NotebookError, NotFound, Unavailable, UsageError, did_you_mean
from flowkit.events import Event, Usage, fold, usage, with_children
from flowkit.family import DEPLOYMENT, Family, asked, gather
from flowkit.flow.current import current_run
from flowkit.flow.recorded import Recorded
from flowkit.history import changed
from flowkit.model import (
    KEEP_FAILED,
    KEEP_SUCCEEDED,
    LIVE,
    Backfill,
    Deployment,
    Finding,
    Limit,
    NodeRun,
    Policy,
    Queue,
    Run,
    Schedule,
    State,
    Worker,
    now,
)
from flowkit.notebooks import Notebook
from flowkit.rates import Rate, check_name
from flowkit.remote import Remote
from flowkit.shelf import CACHE, Shelf, kept_path
from flowkit.store import Store
from flowkit.worker import cron, kernels
from flowkit.worker.broker import Broker
from flowkit.worker.timing import schedule as schedule  # for who knows the client alone
from flowkit.worker.timing import seconds

#: Seconds between two looks of somebody who follows a run.
FOLLOW = 0.2

NAME = re.compile(r"\w[\w .-]{0,99}")
NAMING = "use letters, digits, blanks, '.', '-' and '_'"

#: What each number of a policy may be. The upper ends only keep what comes of them within a calendar.
POSSIBLE = {
    "priority": (-1_000_000, 1_000_000),
    "retries": (0, 1_000),
    "backoff": (0, 86_400),  # seconds
    "timeout": (0.001, 366 * 86_400),  # seconds
    "max_concurrent": (1, 100_000),
    "cell_timeout": (0.001, 366 * 86_400),
    "memory": (1_000_000, 2**50),  # bytes
}


class Client:
    """The connections of this process, made from its settings. A context manager."""

    def __init__(self, config: Config) -> None:
        """Raises Unavailable, naming which and where, if the store cannot be reached."""
        self.config = config
        try:
            self.store = Store.open(config.database_url)
        except Unavailable as error:
            raise Unavailable(f"{error}; check {config.database_setting}") from error
        self.broker = Broker(config, self.store.secret("messages"))
        self.artifacts = Artifacts(config.artifacts_url)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    # -- deployments --------------------------------------------------------------------------------------------------

    def deploy(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        schedule: Schedule | None = None,
        policy: Policy | None = None,
        keep_succeeded: int = KEEP_SUCCEEDED,
        keep_failed: int = KEEP_FAILED,
    ) -> tuple[Deployment, bool]:
        """Deploy the notebook as it is now, with its child notebooks as they are now. False: it was deployed exactly so
        already, and nothing has changed."""
        notebook = notebooks.read(path)
        return self._deploy(
            notebook,
            gather(notebook, Path(path).resolve()),
            path,
            name,
            parameters or {},
            schedule,
            policy or Policy(),
            keep_succeeded,
            keep_failed,
        )

    def deploy_text(
        self,
        text: str,
        path: str,
        *,
        name: str | None,
        parameters: Mapping[str, Any],
        schedule: Schedule | None,
        policy: Policy,
        keep_succeeded: int,
        keep_failed: int,
        commit: str | None = None,
    ) -> tuple[Deployment, bool]:
        """The same with a notebook's text, that has *path* on another machine, in a folder at *commit* there."""
        notebook = notebooks.parse(text, name=Path(path).name)
        family, kept = _alone(notebook), (keep_succeeded, keep_failed)
        return self._deploy(notebook, family, path, name, parameters, schedule, policy, *kept, commit)

    def _deploy(
        self,
        notebook: Notebook,
        family: Family | None,
        path: str | Path,
        name: str | None,
        parameters: Mapping[str, Any],
        schedule: Schedule | None,
        policy: Policy,
        keep_succeeded: int,
        keep_failed: int,
        commit: str | None = None,
    ) -> tuple[Deployment, bool]:
        # A schedule must have every value; whoever runs a deployment by hand may still give one.
        complete = schedule is not None
        deployment, text = self._prepare(notebook, path, parameters, policy, family, complete=complete, commit=commit)
        name = Path(path).stem if name is None else name
        if not NAME.fullmatch(name):
            raise UsageError(f"a deployment cannot be named {name!r}; {NAMING}; --name gives another")
        if min(keep_succeeded, keep_failed) < 0:
            raise UsageError("how many runs to keep cannot be less than 0")
        at = now()
        deployment = replace(deployment, name=name, keep_succeeded=keep_succeeded, keep_failed=keep_failed)
        if schedule is not None:
            schedule = cron.began(cron.validate(schedule), at)
        return self.store.deploy(replace(deployment, schedule=schedule), text, now=at, family=family)

    def change(
        self,
        name: str,
        *,
        path: str | Path | None = None,
        parameters: Mapping[str, Any] | None = None,
        schedule: Schedule | None = None,
    ) -> Deployment:
        """Deploy it again with these differences. None: as it is.

        Args:
            path: the notebook, read now.
            parameters: all of them; what is not among them has the notebook's own value.
        """
        deployment, at = self.store.deployment(name), now()
        notebook = self._notebook(name) if path is None else notebooks.read(path)
        family = None if path is None else gather(notebook, Path(path).resolve())
        wanted = deployment.schedule if schedule is None else cron.began(cron.validate(schedule), at)
        values = deployment.parameters if parameters is None else parameters
        changed = replace(
            deployment,
            notebook=deployment.notebook if path is None else str(Path(path).absolute()),
            snapshot=notebook.digest,
            family=deployment.family if path is None else family.digest if family else None,
            commit=deployment.commit if path is None else commit_of(Path(path).absolute()),
            parameters=notebook.check(values, complete=wanted is not None),
            policy=self._possible(deployment.policy, notebook),
            schedule=wanted,
        )
        return self.store.deploy(changed, notebook.text, now=at, family=family)[0]

    def delete(self, name: str, *, cancel: bool = False) -> None:
        """Forget the deployment; its runs go by retention.

        Raises: Conflict if runs of it are under way, unless they are to be cancelled.
        """
        self.store.delete(name, cancel=cancel, now=now())

    def pause(self, name: str) -> Deployment:
        """It fires nothing until it is resumed; runs that wait or run go on."""
        return self.store.pause(name, now=now())

    def resume(self, name: str) -> Deployment:
        """Fires again from now on; what was missed while it was paused is not made up."""
        at = now()
        schedule = self.store.deployment(name).schedule
        return self.store.resume(name, next=cron.next_firing(schedule, at) if schedule else None, now=at)

    def upcoming(self, target: str, *, tz: str | None, count: int) -> tuple[Schedule, list[datetime]]:
        """The next firings of a cron expression, or of a deployment's schedule as if it were not paused."""
        if len(target.split()) > 1 or target.startswith("@"):
            schedule = cron.validate(Schedule(cron=target, zone=tz or "UTC"))
        else:
            found = self.store.deployment(target).schedule
            if found is None:
                raise UsageError(f"{target} has no schedule; deploy it with --cron or --every")
            if tz is not None:
                raise UsageError(f"the schedule of {target} has a zone, {found.zone}; leave --tz out")
            schedule = found
        return self._firings(schedule, count)

    def firings(self, schedule: Schedule, *, count: int) -> tuple[Schedule, list[datetime]]:
        """The next firings of a schedule that nobody has."""
        return self._firings(cron.validate(schedule), count)

    def _firings(self, schedule: Schedule, count: int) -> tuple[Schedule, list[datetime]]:
        firings: list[datetime] = []
        after: datetime | None = now()
        while after is not None and len(firings) < count:
            after = cron.next_firing(schedule, after)
            firings += [after] if after else []
        return schedule, firings

    # -- runs ---------------------------------------------------------------------------------------------------------

    def submit(
        self,
        target: str | Path,
        *,
        parameters: Mapping[str, Any] | None = None,
        key: str | None = None,
        name: str | None = None,
        policy: Mapping[str, Any] | None = None,
    ) -> Run:
        """Submit a run of a notebook (a path) or of a deployment (its name). It is stored when this returns.

        A Redis that does not answer costs a warning and a second: workers find the run by looking.

        Args:
            parameters: laid over the deployment's own.
            key: submitting the same key again gives the run it has made already.
            name: what it is called, if not as its deployment or notebook.
            policy: fields of ``Policy`` that differ from the deployment's.
        """
        if shared := sorted({"max_concurrent", "rate"} & (policy or {}).keys()):
            raise UsageError(f"{shared[0]} limits all runs of a deployment; deploy it with that, or leave it out")
        deployment, text, family = self._target(target, parameters or {}, policy or {})
        return self._submit(deployment, text, family, key=key, name=name)

    def submit_deployment(
        self, name: str, *, parameters: Mapping[str, Any], key: str | None, policy: Mapping[str, Any]
    ) -> Run:
        """As ``submit``, of a name that is never read as a path."""
        deployment = self._deployed(self.store.deployment(name), parameters, policy)
        return self._submit(deployment, None, None, key=key, name=None)

    def submit_text(
        self,
        text: str,
        path: str,
        *,
        parameters: Mapping[str, Any],
        key: str | None,
        policy: Mapping[str, Any],
        commit: str | None = None,
    ) -> Run:
        """As ``submit``, of a notebook's text, that has *path* on another machine, in a folder at *commit* there."""
        notebook = notebooks.parse(text, name=Path(path).name)
        family = _alone(notebook)
        deployment, text = self._prepare(notebook, path, parameters, Policy(**policy), family, commit=commit)
        return self._submit(deployment, text, family, key=key, name=None)

    def _submit(
        self, deployment: Deployment, text: str | None, family: Family | None, *, key: str | None, name: str | None
    ) -> Run:
        run = Run.of(deployment, now=now(), key=key, name=name)
        stored, new = self.store.submit(run, text, family)
        if new:
            self.ring(stored)
        return stored

    def retry(self, run: str, *, forget: str | None = None) -> Run:
        """Another attempt of a run that failed or was cancelled; it keeps its parameters and its firing.

        Args:
            forget: a node that is computed again, with all that depends on it. The others keep their results.
        """
        found = self.store.run(run)
        if forget is not None and found.state in (State.FAILED, State.CANCELLED):
            self._forget(found, forget)
        again = self.store.retry(found.id, now=now())
        self.ring(again)
        return again

    def backfill(
        self,
        name: str,
        parameter: str,
        values: Sequence[str],
        *,
        concurrency: int,
        only_failed: bool = False,
    ) -> Backfill:
        """One run of the deployment for each value of the parameter, in this order, *concurrency* of them at once.

        What is there already is not made again; cancelled runs are taken up again.

        Args:
            values: texts, read as the command line's are.
            only_failed: run the failed ones of these again, and nothing else.
        """
        deployment, at = self.store.deployment(name), now()
        notebook = self._snapshot(deployment)
        runs = []
        for number, text in enumerate(values):
            value = notebook.from_text({parameter: text})
            complete = replace(deployment, parameters=notebook.check({**deployment.parameters, **value}))
            # Not of the version: a backfill goes on where it was, also after another deploy.
            key = f"{deployment.name}:{parameter}={text}"
            runs.append(Run.of(complete, now=at + number * timedelta(microseconds=1), key=key))
        id = f"{deployment.name}:{parameter}"
        wanted = Backfill(
            id=id, deployment=deployment.name, parameter=parameter, concurrency=concurrency, created=at, counts={}
        )
        again = State.FAILED if only_failed else State.CANCELLED
        runs = [replace(run, series=id) for run in runs]
        found = self.store.backfill(wanted, runs, again=[again], only_again=only_failed, now=at)
        for run in runs[:concurrency]:  # a ring only says "look"
            if not self.ring(run):
                break  # neither would the others be heard, and each says so
        return found

    def follow_backfill(self, id: str, on_change: Callable[[Backfill], None]) -> Backfill:
        """Until all of its runs have ended."""
        while True:
            [seen] = self.store.backfills(id)
            on_change(seen)
            if seen.ended == seen.total:
                return seen
            sleep(FOLLOW)

    def _forget(self, run: Run, node: str) -> None:
        readers = self._readers(run)
        if not readers:
            raise UsageError(f"run {run.id[:8]} came to no flow, so it has no node {node!r}; retry it without --from")
        if node not in readers:
            raise NotFound(f"no node of run {run.id[:8]} is called {node!r}{did_you_mean(node, readers)}")
        doomed, waiting = {node}, [node]
        while waiting:
            new = readers[waiting.pop()] - doomed
            doomed |= new
            waiting += new
        shelf, cache = Shelf(self.artifacts, kept_path(run.id)), Shelf(self.artifacts, CACHE)
        for _, facts in shelf.described(doomed):
            if facts.get("cached"):
                cache.drop(facts["cached"])
        shelf.forget(doomed)
        self._forget_children(run, doomed)

    def _forget_children(self, run: Run, nodes: set[str]) -> None:
        """Those that these nodes are: they are made anew."""
        theirs = [child.id for child in self.store.children(run.id) if (child.name or "").partition("[")[0] in nodes]
        self._forget_whole(theirs)

    def _forget_whole(self, ids: Sequence[str]) -> None:
        """With all below them, once that has ended: kernels of what was cancelled may take a moment."""
        while len(whole := self.store.whole(ids)) < len(ids):
            sleep(FOLLOW)
        for id, theirs in whole.items():
            for one in (id, *theirs):
                self.artifacts.remove(f"runs/{one}")  # files first: without a row nobody would ever find them
        self.store.forget(list(whole))

    def _readers(self, run: Run) -> dict[str, set[str]]:
        """node -> the nodes that read it, of all flows of the newest attempt that came to one."""
        readers: dict[str, set[str]] = {}
        for attempt in range(run.attempt, 0, -1):
            for event in self.store.events(run.id, attempt=attempt, output=False)[1]:
                if event.kind == "flow":
                    for name, reads in event.data["nodes"].items():
                        readers.setdefault(name, set())
                        for one in reads:
                            readers.setdefault(one, set()).add(name)
            if readers:
                break
        return readers

    def cancel(self, run: str) -> Run:
        return self.store.cancel(self.store.run(run).id, now=now())

    def cancel_backfill(self, id: str) -> Backfill:
        """All of its runs that have not ended. Raises: NotFound."""
        self.store.backfills(id)
        self.store.cancel_backfill(id, now=now())
        return self.store.backfills(id)[0]

    def forget(self, run: str) -> None:
        """Delete the run with its events and artifacts. One that has not ended is cancelled, which may take seconds."""
        found = self.store.run(run)
        if not found.state.final:
            with suppress(Conflict):  # it has ended meanwhile
                self.cancel(found.id)
            self.follow(found.id, lambda *_: None)
        self._forget_whole([found.id])

    def ring(self, run: Run) -> bool:
        """Wake a worker. False: the broker does not answer, which a warning has said."""
        return self.broker.ring(run.policy.queue, run.id, priority=run.policy.priority)

    def values(self, target: str | Path, pairs: Mapping[str, str]) -> dict[str, Any]:
        """The command line's texts as values of the types that *target*'s parameters declare."""
        return self._notebook(target).from_text(pairs) if pairs else {}

    def typed(self, name: str, pairs: Mapping[str, str]) -> dict[str, Any]:
        """Texts as values of the types that the parameters of the deployment of that name declare."""
        return self._snapshot(self.store.deployment(name)).from_text(pairs)

    def nodes(self, run: Run) -> list[NodeRun]:
        """Node runs of the newest attempt; those that are runs of their own as these stand."""
        return with_children(fold(self.recorded(run), ended=run.state.final), self.children(run))

    def children(self, run: Run) -> list[Run]:
        """Runs that are nodes of it."""
        return self.store.children(run.id) if run.family else []

    def recorded(self, run: Run) -> list[Event]:
        """What happened in the newest attempt, without what it printed."""
        return self.store.events(run.id, attempt=run.attempt, output=False)[1]

    def busy(self) -> dict[str, list[tuple[Run, Usage | None]]]:
        """The runs under way by their worker, each with what it uses."""
        found: dict[str, list[tuple[Run, Usage | None]]] = {}
        for run in self.store.runs(states=[State.RUNNING], limit=1_000):
            found.setdefault(run.worker or "", []).append((run, usage(self.recorded(run))))
        return found

    def follow(
        self, run: str, on_events: Callable[[Run, Sequence[Event]], None], *, output: bool | None = False
    ) -> Run:
        """Hand over the run and its new events until it has ended; returns it as it ended.

        A retry's events begin anew with a higher ``run.attempt``. *output*: as in ``Store.events``.
        """
        seen = self.store.run(run)
        attempt, after = seen.attempt, 0
        if seen.state is State.PENDING:  # what an attempt before this retry did is an old story
            after, _ = self.store.events(run, attempt=attempt, output=output)
        while True:
            seen = self.store.run(run)  # before its events, so that none of a run that has ended is missed
            if seen.attempt != attempt:
                attempt, after = seen.attempt, 0
            after, events = self.store.events(run, attempt=attempt, after=after, output=output)
            on_events(seen, events)
            if seen.state.final:
                return seen
            sleep(FOLLOW)

    def workers(self, queue: str | None = None) -> list[Worker]:
        """Those that showed a sign of life lately, of one queue or of all."""
        found = self.store.workers(since=now() - LIVE)
        return [worker for worker in found if queue is None or queue in worker.queues]

    def queues(self) -> list[Queue]:
        """Those of the store, and those at which a worker listens; by name."""
        found = {queue.name: queue for queue in self.store.queues()}
        for worker in self.workers():
            for name in worker.queues:
                found.setdefault(name, Queue(name=name, waiting=0, running=0, max_concurrent=None, oldest=None))
        return [found[name] for name in sorted(found)]

    def parameters(self, name: str) -> list[dict[str, Any]]:
        """What a run of the deployment takes, with the values it has if none are given."""
        deployment = self.store.deployment(name)
        return [
            {
                "name": one.name,
                "type": one.type,
                "default": repr(deployment.parameters[one.name]) if one.name in deployment.parameters else one.default,
                "help": one.help,
            }
            for one in self._snapshot(deployment).parameters or ()
        ]

    def remarks(self) -> list[Finding]:
        """What the doctor would say of the parts that all processes share, the worst first."""
        return checks.remarks(self.store, self.broker, now(), embedded=self.config.embedded)

    def redis(self) -> dict[str, float] | None:
        """Figures of Redis, see ``Broker.figures``; None: there is none."""
        return self.broker.figures()

    def limit_queue(self, name: str, at_once: int | None) -> None:
        if not NAME.fullmatch(name):
            raise UsageError(f"a queue cannot be named {name!r}; {NAMING}")
        self.store.limit_queue(name, at_once)

    def set_limit(self, name: str, rate: str, *, failures: int | None, within: float, close_for: float) -> Limit:
        """Define what nodes share that name it, or define it anew: then it is open."""
        check_name(name)
        for option, given in (("within", within), ("close-for", close_for)):
            if not 0 < given <= 366 * 86_400:
                raise UsageError(f"{option} cannot be {given:g}; it is a number of seconds above 0")
        limit = Limit(name=name, rate=str(Rate.parse(rate)), failures=failures, within=within, close_for=close_for)
        self.store.set_limit(limit)
        return limit

    def diff(self, run: str, other: str | None = None) -> Comparison:
        """How a run differs from another, or from the last one of its deployment that succeeded before it."""
        return changed(self.store, self.artifacts, self.store.run(run), self.store.run(other) if other else None)

    # -- what is to be run --------------------------------------------------------------------------------------------

    def _target(
        self, target: str | Path, parameters: Mapping[str, Any], policy: Mapping[str, Any]
    ) -> tuple[Deployment, str | None, Family | None]:
        if notebooks.is_path(target):
            notebook = notebooks.read(target)
            family = gather(notebook, Path(target).resolve())
            return *self._prepare(notebook, target, parameters, Policy(**policy), family), family
        return self._deployed(self._deployment(str(target)), parameters, policy), None, None

    def _deployed(self, deployment: Deployment, parameters: Mapping[str, Any], policy: Mapping[str, Any]) -> Deployment:
        """With these differences, for one run."""
        notebook = self._snapshot(deployment)
        values = notebook.check({**deployment.parameters, **parameters})
        changed = self._possible(replace(deployment.policy, **policy), notebook)
        return replace(deployment, parameters=values, policy=changed)

    def _notebook(self, target: str | Path) -> Notebook:
        if notebooks.is_path(target):
            return notebooks.read(target)
        return self._snapshot(self._deployment(str(target)))

    def _snapshot(self, deployment: Deployment) -> Notebook:
        return notebooks.parse(self.store.snapshot(deployment.snapshot), name=Path(deployment.notebook).name)

    def _deployment(self, name: str) -> Deployment:
        try:
            return self.store.deployment(name)
        except NotFound as error:
            if Path(name).exists():
                notebooks.read(name)  # says what is wrong with the file or folder of that name
            raise NotFound(f"{error}; a notebook is named by its path, ending in .ipynb") from error

    def _prepare(
        self,
        notebook: Notebook,
        path: str | Path,
        parameters: Mapping[str, Any],
        policy: Policy,
        family: Family | None,
        *,
        complete: bool = True,
        commit: str | None = None,
    ) -> tuple[Deployment, str]:
        """The notebook as a deployment that has no version yet, checked, and its snapshot."""
        deployment = Deployment(
            name=notebook.name,
            notebook=str(Path(path).absolute()),
            snapshot=notebook.digest,
            commit=commit or commit_of(Path(path).absolute()),
            family=family.digest if family else None,
            parameters=notebook.check(parameters, complete=complete),
            policy=self._possible(policy, notebook),
        )
        return deployment, notebook.text

    def _possible(self, policy: Policy, notebook: Notebook) -> Policy:
        """The policy, if the notebook can be run by it."""
        if not NAME.fullmatch(policy.queue):
            raise UsageError(f"a queue cannot be named {policy.queue!r}; {NAMING}")
        for name, (least, most) in POSSIBLE.items():
            given = getattr(policy, name)
            if given is not None and not least <= given <= most:
                raise UsageError(f"{name} cannot be {given:g}; it is a number from {least:g} to {most:g}")
        if policy.rate is not None:
            policy = replace(policy, rate=str(Rate.parse(policy.rate)))
        if self.config.embedded:
            # Its worker is this machine: a kernel missing here is missing there. On many machines only the run knows.
            kernels.find(policy.kernel or notebook.kernel)
        return policy


def connected() -> Client | Remote:
    """By this process's settings: what has a server elsewhere do it if they name one."""
    config = Config.from_env()
    return Remote(config) if config.api_url else Client(config)


def _alone(notebook: Notebook) -> Family | None:
    """The family of a notebook whose file is on another machine: deployments."""
    names = asked(notebook)
    for name in names:
        if not name.startswith(DEPLOYMENT):
            raise NotebookError(
                f"{notebook.name} runs {name!r} as a child, which did not come with it; deploy it where that lies, or "
                'name a deployment: fk.notebook(deployment="…")'
            )
    return Family({name: {} for name in names}) if names else None


def deploy(
    path: str | Path,
    *,
    name: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    cron: str | None = None,
    tz: str = "UTC",
    every: str | float | None = None,
    start: str | datetime | None = None,
    end: str | datetime | None = None,
    catch_up: str | None = None,
    overlap: str | None = None,
    jitter: str | float | None = None,
    keep_succeeded: int = KEEP_SUCCEEDED,
    keep_failed: int = KEEP_FAILED,
    **policy: Any,
) -> Deployment | None:
    """Deploy a notebook, as ``flowkit deploy`` does; the same again changes nothing.

    In a worker's run of that very notebook it does nothing and returns None, so the last cell of a notebook may
    deploy it.

    Args:
        every: seconds, or a text such as ``"15m"``; so is *jitter*, the longest that a firing's run may wait.
        start, end: the first and the last instant at which it may fire; without an offset in the zone *tz*.
        catch_up: of the firings missed while no worker was there, ``"latest"`` runs the newest if it is not older than
            an hour, ``"all"`` the newest 100 in order, ``"skip"`` none.
        overlap: while an earlier run of the schedule has not ended, a firing does not run (``"skip"``), waits
            (``"queue"``, the default where all is caught up), cancels it (``"cancel-running"``) or runs (``"allow"``).
        policy: ``queue``, ``priority``, ``retries``, ``backoff``, ``timeout`` and ``cell_timeout`` (seconds),
            ``memory`` (bytes), ``kernel``, ``max_concurrent``, ``rate`` (such as ``"30/minute"``).
    """
    current = current_run()
    if current is not None:
        if Path(current.notebook) == Path(path).absolute() or Path(current.notebook).name == Path(path).name:
            return None
        raise UsageError(f"a run cannot deploy {path}: kernels have no access to the store; deploy it from a shell")
    with connected() as client:
        deployment, _ = client.deploy(
            path,
            name=name,
            parameters=parameters,
            schedule=schedule(
                cron=cron,
                tz=tz,
                every=every,
                start=start,
                end=end,
                catch_up=catch_up,
                overlap=overlap,
                jitter=None if jitter is None else seconds(jitter),
            ),
            policy=Policy(**policy),
            keep_succeeded=keep_succeeded,
            keep_failed=keep_failed,
        )
        return deployment


def submit(
    target: str | Path, *, parameters: Mapping[str, Any] | None = None, key: str | None = None, **policy: Any
) -> Run:
    """Submit a run of a notebook (a path) or a deployment (its name), as ``flowkit run`` does, and return it."""
    if current_run() is not None:  # it would find a store of its own, in the user's home
        raise UsageError(f"a run cannot submit {target}: kernels have no access to the store; do it from a shell")
    with connected() as client:
        return client.submit(target, parameters=parameters, key=key, policy=policy)


def view(run: str, *, attempt: int | None = None) -> Recorded:
    """A recorded run of the store as a graph, as the last line of a cell; how it stands now if it has not ended.

    Args:
        run: its id, or the beginning of it.
        attempt: counted from 1; the newest if none is given.
    """
    if current_run() is not None:
        raise UsageError(f"a run cannot view {run}: kernels have no access to the store; do it from a notebook")
    with connected() as client:
        found = client.store.run(run)
        if attempt is not None and not 1 <= attempt <= found.attempt:
            had = f"attempts 1 to {found.attempt}" if found.attempt > 1 else f"{found.attempt or 'no'} attempt so far"
            raise UsageError(f"run {found.id} has {had}; there is no attempt {attempt}")
        chosen = attempt or found.attempt
        _, events = client.store.events(found.id, attempt=chosen, output=False)
        children = client.children(found) if chosen == found.attempt else []
        return Recorded(found, chosen, events, children)
