"""JupyterLab's own "Notebook Jobs" drive flowkit: a scheduler class for jupyter-scheduler.

What it calls a job is a run here, a job definition is a deployment. Nothing is kept on this side: the lists are the
store's, so what was deployed or run from a shell is there too. The answers are made in threads, since a store that does
not answer must not hold up everybody's notebooks.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import nbformat
from jupyter_scheduler import models
from jupyter_scheduler.environments import EnvironmentManager
from jupyter_scheduler.exceptions import IdempotencyTokenError, InputUriError, SchedulerError
from jupyter_scheduler.scheduler import BaseScheduler
from nbconvert.exporters import HTMLExporter

from flowkit.client import Client, schedule
from flowkit.config import Config
from flowkit.errors import Conflict, FlowkitError, NotFound
from flowkit.journal import read_notebook
from flowkit.model import Deployment, Run, Schedule, State

#: The only environment there is: which one a run gets is the worker's affair, which kernel the notebook's.
ENVIRONMENT = "flowkit"

#: Every run leaves a notebook, which can be read as a page too.
FORMATS = {"ipynb": "Notebook", "html": "HTML"}

STATUS = {
    State.PENDING: models.Status.QUEUED,
    State.RUNNING: models.Status.IN_PROGRESS,
    State.SUCCEEDED: models.Status.COMPLETED,
    State.FAILED: models.Status.FAILED,
    State.CANCELLED: models.Status.STOPPED,
}
#: Their columns that can be sorted by, and the store's.
COLUMNS = {
    "name": "name",
    "input_filename": "notebook",
    "status": "state",
    "create_time": "created",
    "start_time": "started",
    "end_time": "finished",
}

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")

log = logging.getLogger("flowkit.jupyter")


class Environments(EnvironmentManager):
    def list_environments(self) -> list[Any]:
        return [
            models.RuntimeEnvironment(
                name=ENVIRONMENT,
                label="flowkit worker",
                description="A fresh kernel of the notebook's own kind, on a worker",
                file_extensions=["ipynb"],
                output_formats=list(FORMATS),
                metadata={},
            )
        ]

    def manage_environments_command(self) -> str:
        return ""

    def output_formats_mapping(self) -> dict[str, str]:
        return FORMATS


def answered(make: Callable[Concatenate[Scheduler, Parameters], Answer]) -> Callable[..., Awaitable[Answer]]:
    """In a thread, with flowkit's errors as those that jupyter-scheduler shows to the person."""

    def told(self: Scheduler, *args: Parameters.args, **options: Parameters.kwargs) -> Answer:
        try:
            return make(self, *args, **options)
        except FlowkitError as error:
            raise SchedulerError(str(error)) from error

    @functools.wraps(make)
    def method(self: Scheduler, *args: Parameters.args, **options: Parameters.kwargs) -> Awaitable[Answer]:
        return asyncio.to_thread(told, self, *args, **options)

    return method


class Scheduler(BaseScheduler):
    """For ``SchedulerApp.scheduler_class``, together with ``Environments`` as its ``environment_manager_class``."""

    #: jupyter-scheduler's own clock: flowkit's workers fire schedules, also while no JupyterLab is there.
    task_runner = None

    def __init__(self, *args: Any, db_url: str | None = None, **options: Any) -> None:
        """*db_url*: of jupyter-scheduler's own tables, which are not used."""
        super().__init__(*args, **options)

    @functools.cached_property
    def client(self) -> Client:
        return Client(Config.from_env())

    # -- jobs ---------------------------------------------------------------------------------------------------------

    @answered
    def create_job(self, model: Any) -> str:
        path = self._notebook(model.input_uri)
        values = self.client.values(path, model.parameters or {})
        try:
            run = self.client.submit(path, parameters=values, key=model.idempotency_token, name=model.name)
        except Conflict as error:  # the same token again for the same job gives the same one
            raise IdempotencyTokenError(model.idempotency_token) from error
        return run.id

    @answered
    def create_job_from_definition(self, job_definition_id: str, model: Any) -> str:
        name = _name(job_definition_id)
        values = self.client.values(name, model.parameters or {})
        return self.client.submit(name, parameters=values).id

    @answered
    def update_job(self, job_id: str, model: Any) -> None:
        raise SchedulerError("a job that was created is not changed any more; stop it, and create another")

    @answered
    def list_jobs(self, query: Any) -> Any:
        offset = int(query.next_token or 0)
        for field in query.sort_by:
            if field.name not in COLUMNS:
                raise SchedulerError(f"jobs cannot be sorted by {field.name!r}; by {', '.join(COLUMNS)}")
        states = [state for state, status in STATUS.items() if status == query.status]
        if (query.status and not states) or query.tags:  # flowkit has no such state, and no tags
            return models.ListJobsResponse(jobs=[], total_count=0)
        runs, total = self.client.store.page(
            offset=offset,
            limit=query.max_items,
            order=[(COLUMNS[field.name], field.direction is models.SortDirection.desc) for field in query.sort_by],
            deployment=_name(query.job_definition_id) if query.job_definition_id else None,
            states=states,
            named=query.name,
            started=datetime.fromtimestamp(query.start_time / 1000, UTC) if query.start_time else None,
        )
        jobs = [self._job(run) for run in runs]
        after = offset + len(jobs)
        return models.ListJobsResponse(jobs=jobs, total_count=total, next_token=str(after) if after < total else None)

    @answered
    def count_jobs(self, query: Any) -> int:
        return sum(count for state, count in self.client.store.counts().items() if STATUS[state] == query.status)

    @answered
    def get_job(self, job_id: str, job_files: bool | None = True) -> Any:
        return self._job(self.client.store.run(job_id), files=bool(job_files))

    @answered
    def stop_job(self, job_id: str) -> None:
        self.client.cancel(job_id)

    @answered
    def delete_job(self, job_id: str) -> None:
        self.client.forget(job_id)

    @answered
    def get_staging_paths(self, model: Any) -> dict[str, str]:
        """Writes the job's files to where people find them; nothing is left to be copied from a staging area.

        Theirs copies in a process whose errors nobody sees, after the answer.
        """
        run = self.client.store.run(model.job_id)
        folder, names = Path(self.get_local_output_path(model)), self.get_job_filenames(model)
        executed = read_notebook(self.client.artifacts, run.id, run.attempt) if run.attempt else None
        if executed is None:
            raise SchedulerError(f"job {run.name or run.id[:8]} has left no notebook yet; it is {run.state}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names["ipynb"]).write_bytes(executed)
        page, _ = HTMLExporter().from_notebook_node(nbformat.reads(executed.decode(), as_version=4))
        (folder / names["html"]).write_text(page, encoding="utf-8")
        (folder / names["input"]).write_text(self.client.store.snapshot(run.snapshot), encoding="utf-8")
        return {}

    def _job(self, run: Run, *, files: bool = True) -> Any:
        job = models.DescribeJob(
            job_id=run.id,
            name=run.label,
            input_filename=Path(run.notebook).name,
            runtime_environment_name=ENVIRONMENT,
            runtime_environment_parameters={},
            output_formats=list(FORMATS),
            parameters={name: str(value) for name, value in run.parameters.items()} or None,
            job_definition_id=_id(run.deployment) if run.deployment else None,
            url=f"/jobs/{run.id}",
            status=models.Status.STOPPING if run.cancelling and not run.state.final else STATUS[run.state],
            status_message=run.error,
            create_time=_milliseconds(run.created),
            start_time=_milliseconds(run.started),
            end_time=_milliseconds(run.finished),
            update_time=_milliseconds(run.finished or run.started or run.created),
        )
        if files:
            self.add_job_files(job)
        return job

    # -- job definitions ----------------------------------------------------------------------------------------------

    @answered
    def create_job_definition(self, model: Any) -> str:
        path = self._notebook(model.input_uri)
        try:
            self.client.store.deployment(model.name)
        except NotFound:
            pass
        else:
            # It would silently become another version of somebody's deployment.
            raise SchedulerError(f"there is a deployment {model.name!r} already; edit it, or choose another job name")
        deployment, _ = self.client.deploy(
            path,
            name=model.name,
            parameters=self.client.values(path, model.parameters or {}),
            schedule=schedule(cron=model.schedule, tz=model.timezone or "UTC", every=None) if model.schedule else None,
        )
        return _id(deployment.name)

    @answered
    def update_job_definition(self, job_definition_id: str, model: Any) -> None:
        name = _name(job_definition_id)
        if model.name is not None and model.name != name:
            raise SchedulerError(f"{name!r} cannot be given another name; create another job definition")
        path = self._notebook(model.input_uri) if model.input_uri else None
        wanted = _scheduled(self.client.store.deployment(name).schedule, model.schedule, model.timezone)
        values = None if model.parameters is None else self.client.values(path or name, model.parameters)
        if path or wanted or values is not None:
            self.client.change(name, path=path, parameters=values, schedule=wanted)
        if model.active is True:
            self.client.resume(name)
        elif model.active is False:
            self.client.pause(name)

    @answered
    def delete_job_definition(self, job_definition_id: str) -> None:
        """Its runs that have not ended are cancelled, as people expect of this button."""
        self.client.delete(_name(job_definition_id), cancel=True)

    @answered
    def get_job_definition(self, job_definition_id: str) -> Any:
        return _definition(self.client.store.deployment(_name(job_definition_id)))

    @answered
    def list_job_definitions(self, query: Any) -> Any:
        found = [_definition(one) for one in self.client.store.deployments()]
        found = [
            one
            for one in found
            if one.name.startswith(query.name or "") and one.create_time >= (query.create_time or 0) and not query.tags
        ]
        for field in reversed(query.sort_by):
            if field.name not in models.DescribeJobDefinition.__fields__:
                raise SchedulerError(f"job definitions have no {field.name!r} to be sorted by")
            found.sort(
                key=lambda one, name=field.name: (getattr(one, name) is not None, getattr(one, name)),  # type: ignore[misc]
                reverse=field.direction is models.SortDirection.desc,
            )
        offset = int(query.next_token or 0)
        shown = found[offset : offset + query.max_items]
        after = offset + len(shown)
        return models.ListJobDefinitionsResponse(
            job_definitions=shown, total_count=len(found), next_token=str(after) if after < len(found) else None
        )

    def _notebook(self, uri: str) -> Path:
        """The file that JupyterLab calls so."""
        if not self.file_exists(uri):
            raise InputUriError(uri)
        return Path(self.root_dir).expanduser() / uri.lstrip("/")


def _definition(deployment: Deployment) -> Any:
    plan = deployment.schedule
    return models.DescribeJobDefinition(
        job_definition_id=_id(deployment.name),
        name=deployment.name,
        input_filename=Path(deployment.notebook).name,
        runtime_environment_name=ENVIRONMENT,
        runtime_environment_parameters={},
        output_formats=list(FORMATS),
        parameters={name: str(value) for name, value in deployment.parameters.items()} or None,
        schedule=plan.cron if plan else None,  # their panel knows no intervals
        timezone=plan.zone if plan else None,
        active=not deployment.paused,
        create_time=_milliseconds(deployment.created),
        update_time=_milliseconds(deployment.updated),
    )


def _scheduled(now: Schedule | None, cron: str | None, zone: str | None) -> Schedule | None:
    """What the schedule becomes; None if it stays as it is. What their panel does not know of stays in any case."""
    if cron is None and (zone is None or now is None or now.cron is None):
        return None
    before = now or Schedule()
    after = replace(before, cron=cron or before.cron, zone=zone or before.zone, every=None, anchor=None, next=None)
    return None if (after.cron, after.zone) == (before.cron, before.zone) else after


def _id(name: str) -> str:
    """In the letters that jupyter-scheduler's addresses take, and with the hyphen that they want."""
    return f"deployment-{name.encode().hex()}"


def _name(id: str) -> str:
    try:
        return bytes.fromhex(id.removeprefix("deployment-")).decode()
    except ValueError as error:
        raise NotFound(f"no job definition {id!r}") from error


def _milliseconds(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1000)
