"""Deployments: made, changed, paused and deleted; and when they fire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from flowkit import notebooks
from flowkit.client.targets import NAME, NAMING, Targets, alone
from flowkit.commit import commit_of
from flowkit.errors import UsageError
from flowkit.family import Family, gather
from flowkit.model import KEEP_FAILED, KEEP_SUCCEEDED, Deployment, Policy, Schedule, now
from flowkit.notebooks import Notebook
from flowkit.worker import cron


class Deployments(Targets):
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
        family, kept = alone(notebook), (keep_succeeded, keep_failed)
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
