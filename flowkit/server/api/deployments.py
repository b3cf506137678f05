"""Deployments: what is deployed, in which versions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from flowkit.model import KEEP_FAILED, KEEP_SUCCEEDED, Policy
from flowkit.server.api import examples
from flowkit.server.api.parts import NOTHING, Body, Cursor, Limit, Parts, page_of, told
from flowkit.server.api.schedules import ScheduleBody
from flowkit.server.problems import Answer

Name = Annotated[str, Path(max_length=200, description="The deployment's.")]
#: Whole numbers that every database can hold.
Whole = Annotated[int, Field(ge=-(2**31), lt=2**31)]


class PolicyBody(Body):
    queue: Annotated[str, Field(max_length=100)] = "default"
    priority: Whole = 0
    retries: Whole = 0
    backoff: float = 2.0
    timeout: float | None = None
    cell_timeout: float | None = None
    memory: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    kernel: Annotated[str | None, Field(max_length=200)] = None


class DeploymentPolicyBody(PolicyBody):
    max_concurrent: Whole | None = None
    rate: Annotated[str | None, Field(max_length=50, examples=["30/minute"])] = None
    hosts: Annotated[str | None, Field(max_length=4096, examples=["crm.internal,10.1.0.0/16"])] = None


class DeploymentBody(Body):
    notebook: str = Field(description="The notebook's file, as text.", examples=['{"cells": [], "metadata": {}}'])
    path: str = Field(max_length=4096, description="Where it is on the machine it comes from.", examples=["a.ipynb"])
    commit: Annotated[str | None, Field(max_length=100, description="Of git, that its folder is at.")] = None
    name: str | None = Field(None, max_length=100)
    parameters: dict[str, Any] = Field(default_factory=dict)
    schedule: ScheduleBody | None = None
    policy: DeploymentPolicyBody = DeploymentPolicyBody()
    keep_succeeded: Whole = KEEP_SUCCEEDED
    keep_failed: Whole = KEEP_FAILED


def routes(parts: Parts) -> APIRouter:
    router = APIRouter(tags=["deployments"], default_response_class=Answer)
    store, actions = parts.store, parts.actions

    @router.get("/deployments", responses=told(examples.DEPLOYMENT.to_json(), paged=True))
    def list_deployments(limit: Limit = 100, cursor: Cursor = None) -> Response:
        return page_of([one.to_json() for one in store.deployments()], limit=limit, cursor=cursor)

    @router.post(
        "/deployments", status_code=201, responses=told(examples.DEPLOYMENT.to_json() | {"new": True}, status=201)
    )
    def deploy(body: DeploymentBody) -> Response:
        """Deploy a notebook. `new` is false if it was deployed exactly so already."""
        deployment, new = actions.deploy_text(
            body.notebook,
            body.path,
            name=body.name,
            parameters=body.parameters,
            schedule=None if body.schedule is None else body.schedule.made(),
            policy=Policy(**body.policy.model_dump()),
            keep_succeeded=body.keep_succeeded,
            keep_failed=body.keep_failed,
            commit=body.commit,
        )
        return Answer(deployment.to_json() | {"new": new}, 201)

    @router.get("/deployments/{name}", responses=told(examples.DEPLOYMENT.to_json()))
    def get_deployment(name: Name) -> Response:
        return Answer(store.deployment(name).to_json())

    @router.delete("/deployments/{name}", status_code=204, responses=NOTHING)
    def delete_deployment(
        name: Name, cancel: Annotated[bool, Query(description="Also cancel its runs that have not ended.")] = False
    ) -> Response:
        actions.delete(name, cancel=cancel)
        return Response(status_code=204)

    @router.get("/deployments/{name}/versions", responses=told(examples.DEPLOYMENT.to_json(), paged=True))
    def list_versions(name: Name, limit: Limit = 100, cursor: Cursor = None) -> Response:
        """All it ever had, the newest first."""
        found = [one.to_json() for one in store.versions(name)]
        return page_of(found, limit=limit, cursor=cursor, key="version", descending=True)

    @router.get("/snapshots/{digest}", responses=told({"notebook": '{"cells": [], "metadata": {}}'}))
    def get_snapshot(digest: Annotated[str, Path(max_length=100)]) -> Response:
        """The notebook, as text and without outputs, that a deployment's or a run's `snapshot` names."""
        return Answer({"notebook": store.snapshot(digest)})

    @router.get("/deployments/{name}/parameters", responses=told([examples.PARAMETER]))
    def list_parameters(name: Name) -> Response:
        """What a run of it takes, with the values it has if none are given; `default` is as Python writes it."""
        return Answer(actions.parameters(name))

    return router
