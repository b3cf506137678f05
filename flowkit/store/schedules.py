"""From a schedule's cursor to a run, exactly once, however many processes try."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from flowkit.model import Deployment, Run
from flowkit.store.database import Database
from flowkit.store.deployments import select_deployments, to_deployment
from flowkit.store.runs import insert_run
from flowkit.store.schema import deployments


class Schedules(Database):
    def due(self, *, now: datetime, limit: int = 200) -> list[Deployment]:
        """Deployments that should have fired by now, the longest overdue first. A paused one has no next firing."""
        query = select_deployments().where(deployments.c.next <= now)
        with self.reading() as connection:
            rows = connection.execute(query.order_by(deployments.c.next, deployments.c.name).limit(limit))
            return [to_deployment(row) for row in rows]

    def fire(self, deployment: Deployment, run: Run, *, next: datetime | None) -> bool:
        """Store the run of the firing ``deployment.schedule.next`` and move on to *next*: both, or neither.

        False: there is no new run. Somebody else has fired it, or it was paused or rescheduled since it was read.
        """
        if deployment.schedule is None or deployment.schedule.next is None:
            return False
        unfired = deployments.c.name == deployment.name, deployments.c.next == deployment.schedule.next
        with self.writing() as connection:
            # First the cursor: its row's lock makes the others wait, and then find it gone.
            if connection.execute(sa.update(deployments).where(*unfired).values(next=next)).rowcount == 0:
                return False
            return insert_run(self, connection, run)
