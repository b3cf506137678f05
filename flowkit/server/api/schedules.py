"""When deployments fire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from flowkit.model import CatchUp, Overlap, Schedule, iso
from flowkit.server.api import examples
from flowkit.server.api.parts import Body, Cursor, Limit, Parts, page_of, told
from flowkit.server.problems import Answer

Name = Annotated[str, Path(max_length=200, description="The deployment's.")]


class ScheduleBody(Body):
    """Either `cron` or `every`."""

    cron: str | None = Field(None, max_length=256, examples=["0 6 * * *"])
    every: float | None = Field(None, description="Seconds.")
    zone: str = Field("UTC", max_length=100, description="IANA name, in which cron is read.")
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    catch_up: CatchUp = CatchUp.LATEST
    catch_up_limit: int = Field(100, ge=1, lt=2**31)
    grace: float = 3600.0
    overlap: Overlap | None = None
    jitter: float = 0.0

    def made(self) -> Schedule:
        fields = self.model_dump()
        # Who wants all missed firings does not want all but the first to be skipped.
        queued = Overlap.QUEUE if self.catch_up is CatchUp.ALL else Overlap.SKIP
        return Schedule(**fields | {"overlap": self.overlap or queued})


def routes(parts: Parts) -> APIRouter:
    router = APIRouter(tags=["schedules"], default_response_class=Answer)
    store, actions = parts.store, parts.actions

    @router.post("/deployments/{name}/pause", responses=told(examples.DEPLOYMENT.to_json()))
    def pause(name: Name) -> Response:
        """Fire nothing until it is resumed. Runs that wait or run go on."""
        return Answer(actions.pause(name).to_json())

    @router.post("/deployments/{name}/resume", responses=told(examples.DEPLOYMENT.to_json()))
    def resume(name: Name) -> Response:
        """Fire again, from now on: what was missed is not made up."""
        return Answer(actions.resume(name).to_json())

    @router.get("/deployments/{name}/firings", responses=told([examples.FIRING]))
    def list_firings(name: Name, limit: Annotated[int, Query(ge=1, le=500)] = 10) -> Response:
        """The next ones, as if it were not paused."""
        store.deployment(name)  # its name may look like a cron expression
        return Answer(_firings(*actions.upcoming(name, tz=None, count=limit)))

    @router.get("/deployments/{name}/skips", responses=told(examples.SKIP, paged=True))
    def list_skips(name: Name, limit: Limit = 100, cursor: Cursor = None) -> Response:
        """Which of its firings did not become runs, and why; the newest first."""
        store.deployment(name)
        found = [one.to_json() for one in store.skips(name, limit=5_000)]
        return page_of(found, limit=limit, cursor=cursor, key="first", descending=True)

    @router.get("/firings", responses=told([examples.FIRING]))
    def preview(
        cron: Annotated[str, Query(max_length=256, examples=["0 6 * * *"])],
        zone: Annotated[str, Query(max_length=100)] = "UTC",
        limit: Annotated[int, Query(ge=1, le=500)] = 10,
    ) -> Response:
        """When a cron expression would fire."""
        return Answer(_firings(*actions.firings(Schedule(cron=cron, zone=zone), count=limit)))

    return router


def _firings(schedule: Schedule, firings: list[datetime]) -> list[dict[str, Any]]:
    zone = ZoneInfo(schedule.zone)
    return [{"utc": iso(at), "local": at.astimezone(zone).isoformat()} for at in firings]
