"""What a person's shell or notebook does with flowkit: deploy, submit, follow. Composes store, broker and artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from flowkit import trace
from flowkit.client.alerts import Alerts
from flowkit.client.deployments import Deployments
from flowkit.client.limits import Limits
from flowkit.client.runs import Runs
from flowkit.config import Config
from flowkit.errors import UsageError
from flowkit.flow.current import current_run
from flowkit.flow.recorded import Recorded
from flowkit.model import KEEP_FAILED, KEEP_SUCCEEDED, Deployment, Policy, Run
from flowkit.remote import Remote
from flowkit.worker.timing import schedule as schedule  # for who knows the client alone
from flowkit.worker.timing import seconds


class Client(Deployments, Runs, Limits, Alerts):
    """The connections of this process, made from its settings, and what is done over them. A context manager."""


def connected() -> Client | Remote:
    """By this process's settings: what has a server elsewhere do it if they name one."""
    config = Config.from_env()
    return Remote(config) if config.api_url else Client(config)


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
            ``memory`` (bytes), ``kernel``, ``max_concurrent``, ``rate`` (such as ``"30/minute"``),
            ``hosts`` (of those in the worker's FLOWKIT_HTTP_ALLOW, as in ``"crm.internal,10.1.0.0/16"``).
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
        return client.submit(target, parameters=parameters, key=key, policy=policy, traceparent=trace.caller())


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
