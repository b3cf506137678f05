"""What a person's shell or notebook does with flowkit: deploy, submit, follow. Composes store, broker and artifacts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any

from flowkit import notebook as notebooks
from flowkit.artifacts import Artifacts
from flowkit.config import Config
from flowkit.errors import NotFound, Unavailable, UsageError
from flowkit.events import Event, fold
from flowkit.flow.current import current_run
from flowkit.model import KEEP_FAILED, KEEP_SUCCEEDED, LIVE, Deployment, NodeRun, Policy, Run, Schedule, Worker, now
from flowkit.notebook import Notebook
from flowkit.store import Store
from flowkit.worker import cron, kernels
from flowkit.worker.broker import Broker

#: Seconds between two looks of somebody who follows a run.
FOLLOW = 0.2

NAME = re.compile(r"\w[\w .-]{0,99}")


class Client:
    """The connections of this process, made from its settings. A context manager."""

    def __init__(self, config: Config) -> None:
        """Raises Unavailable, naming which and where, if the store cannot be reached."""
        self.config = config
        try:
            self.store = Store.open(config.database_url)
        except Unavailable as error:
            setting = "FLOWKIT_HOME" if config.embedded else "FLOWKIT_DATABASE_URL"
            raise Unavailable(f"{error}; check {setting}") from error
        self.broker = Broker(config)
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
        """Deploy the notebook as it is now. False: it was deployed exactly so already, and nothing has changed."""
        # A schedule must have every value; whoever runs a deployment by hand may still give one.
        deployment, text = self._prepare(
            notebooks.read(path), path, parameters or {}, policy or Policy(), complete=schedule is not None
        )
        name = Path(path).stem if name is None else name
        if not NAME.fullmatch(name):
            raise UsageError(f"a deployment cannot be named {name!r}; use letters, digits, blanks, '.', '-' and '_'")
        if min(keep_succeeded, keep_failed) < 0:
            raise UsageError("how many runs to keep cannot be less than 0")
        at = now()
        deployment = replace(deployment, name=name, keep_succeeded=keep_succeeded, keep_failed=keep_failed)
        if schedule is not None:
            schedule = replace(cron.validate(schedule), anchor=None if schedule.cron else at)
            schedule = replace(schedule, next=cron.next_firing(schedule, at))
        return self.store.deploy(replace(deployment, schedule=schedule), text, now=at)

    def resume(self, name: str) -> Deployment:
        """Fires again from now on; what was missed while it was paused is not made up."""
        at = now()
        schedule = self.store.deployment(name).schedule
        return self.store.resume(name, next=cron.next_firing(schedule, at) if schedule else None, now=at)

    # -- runs ---------------------------------------------------------------------------------------------------------

    def submit(
        self,
        target: str | Path,
        *,
        parameters: Mapping[str, Any] | None = None,
        key: str | None = None,
        policy: Mapping[str, Any] | None = None,
    ) -> Run:
        """Submit a run of a notebook (a path) or of a deployment (its name). It is stored when this returns.

        Args:
            parameters: laid over the deployment's own.
            key: submitting the same key again gives the run it has made already.
            policy: fields of ``Policy`` that differ from the deployment's.
        """
        # Before anything is stored: a wrong address should be told, not discovered by a run that starts late.
        self.broker.check()
        deployment, text = self._target(target, parameters or {}, policy or {})
        run = Run.of(deployment, now=now(), key=key)
        stored, new = self.store.submit(run, text)
        if new:
            self.ring(stored)
        return stored

    def retry(self, run: str) -> Run:
        """Another attempt of a run that failed or was cancelled; it keeps its parameters and its firing."""
        again = self.store.retry(self.store.run(run).id, now=now())
        self.ring(again)
        return again

    def cancel(self, run: str) -> Run:
        return self.store.cancel(self.store.run(run).id, now=now())

    def ring(self, run: Run) -> None:
        self.broker.ring(run.policy.queue, run.id, priority=run.policy.priority)

    def values(self, target: str | Path, pairs: Mapping[str, str]) -> dict[str, Any]:
        """The command line's texts as values of the types that *target*'s parameters declare."""
        return self._notebook(target).from_text(pairs) if pairs else {}

    def nodes(self, run: Run) -> list[NodeRun]:
        """Node runs of the newest attempt."""
        _, events = self.store.events(run.id, attempt=run.attempt, output=False)
        return fold(events, ended=run.state.final)

    def follow(
        self, run: str, on_events: Callable[[Run, Sequence[Event]], None], *, output: bool | None = False
    ) -> Run:
        """Hand over the run and its new events until it has ended; returns it as it ended.

        A retry's events begin anew with a higher ``run.attempt``. *output*: as in ``Store.events``.
        """
        attempt, after = 0, 0
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

    # -- what is to be run --------------------------------------------------------------------------------------------

    def _target(
        self, target: str | Path, parameters: Mapping[str, Any], policy: Mapping[str, Any]
    ) -> tuple[Deployment, str | None]:
        if _is_notebook(target):
            return self._prepare(notebooks.read(target), target, parameters, Policy(**policy))
        deployment = self.store.deployment(str(target))
        values = self._notebook(target).check({**deployment.parameters, **parameters})
        return replace(deployment, parameters=values, policy=replace(deployment.policy, **policy)), None

    def _notebook(self, target: str | Path) -> Notebook:
        if _is_notebook(target):
            return notebooks.read(target)
        try:
            deployment = self.store.deployment(str(target))
        except NotFound as error:
            raise NotFound(f"{error}; a notebook is named by its path, ending in .ipynb") from error
        return notebooks.parse(self.store.snapshot(deployment.snapshot), name=Path(deployment.notebook).name)

    def _prepare(
        self,
        notebook: Notebook,
        path: str | Path,
        parameters: Mapping[str, Any],
        policy: Policy,
        *,
        complete: bool = True,
    ) -> tuple[Deployment, str]:
        """The notebook as a deployment that has no version yet, checked, and its snapshot."""
        if policy.retries < 0 or policy.backoff < 0 or (policy.timeout is not None and policy.timeout <= 0):
            raise UsageError("retries and backoff cannot be less than 0, and a timeout must be more")
        if self.config.embedded:
            # Its worker is this machine: a kernel missing here is missing there. On many machines only the run knows.
            kernels.find(policy.kernel or notebook.kernel)
        deployment = Deployment(
            name=notebook.name,
            notebook=str(Path(path).absolute()),
            snapshot=notebook.digest,
            parameters=notebook.check(parameters, complete=complete),
            policy=policy,
        )
        return deployment, notebook.text


def _is_notebook(target: str | Path) -> bool:
    return isinstance(target, Path) or target.endswith(".ipynb") or "/" in target


def deploy(
    path: str | Path,
    *,
    name: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    cron: str | None = None,
    tz: str = "UTC",
    every: str | float | None = None,
    keep_succeeded: int = KEEP_SUCCEEDED,
    keep_failed: int = KEEP_FAILED,
    **policy: Any,
) -> Deployment | None:
    """Deploy a notebook, as ``flowkit deploy`` does; the same again changes nothing.

    In a worker's run of that very notebook it does nothing and returns None, so the last cell of a notebook may
    deploy it.

    Args:
        every: seconds, or a text such as ``"15m"``.
        policy: ``queue``, ``priority``, ``retries``, ``backoff`` and ``timeout`` (seconds), ``kernel``.
    """
    current = current_run()
    if current is not None:
        if Path(current.notebook) == Path(path).absolute() or Path(current.notebook).name == Path(path).name:
            return None
        raise UsageError(f"a run cannot deploy {path}: kernels have no access to the store; deploy it from a shell")
    with Client(Config.from_env()) as client:
        deployment, _ = client.deploy(
            path,
            name=name,
            parameters=parameters,
            schedule=schedule(cron=cron, tz=tz, every=every),
            policy=Policy(**policy),
            keep_succeeded=keep_succeeded,
            keep_failed=keep_failed,
        )
        return deployment


def submit(
    target: str | Path, *, parameters: Mapping[str, Any] | None = None, key: str | None = None, **policy: Any
) -> Run:
    """Submit a run of a notebook (a path) or a deployment (its name), as ``flowkit run`` does, and return it."""
    with Client(Config.from_env()) as client:
        return client.submit(target, parameters=parameters, key=key, policy=policy)


def schedule(*, cron: str | None, tz: str, every: str | float | None) -> Schedule | None:
    """The schedule these options mean, not yet validated; None if they ask for none."""
    if cron is None and every is None:
        return None
    return Schedule(cron=cron, every=_seconds(every) if every is not None else None, zone=tz)


def _seconds(every: str | float) -> float:
    return cron.every(every) if isinstance(every, str) else float(every)
