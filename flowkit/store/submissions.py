"""Submissions: new runs, pending; asked for by a program, a person or a run whose node they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from flowkit.errors import Conflict, UsageError
from flowkit.family import Family
from flowkit.model import Policy, Run, State
from flowkit.store.database import Database
from flowkit.store.moves import mine
from flowkit.store.runs import to_run
from flowkit.store.schema import runs
from flowkit.store.snapshots import keep_family, keep_snapshot


class Submissions(Database):
    def submit(self, run: Run, snapshot: str | None = None, family: Family | None = None) -> tuple[Run, bool]:
        """Store a new run, pending, with as many attempts as its policy allows. True if it is new.

        A run whose key (or whose firing: deployment and ``scheduled_for``) is known already is not stored again; the
        answer is the known one and False.

        Args:
            snapshot: the notebook's text. None: the store has it already, as a deployment's.
            family: the run's, if the store does not have it already.

        Raises:
            Conflict: the key was given to a run of something else.
        """
        try:
            with self.writing() as connection:
                if snapshot is not None:
                    keep_snapshot(self, connection, run.snapshot, snapshot)
                if family is not None:
                    keep_family(self, connection, family)
                new = insert_run(self, connection, run)
                stored = _submitted(connection, run)
                if stored.key == run.key and (other := _difference(stored, run)):
                    raise Conflict(f"key {run.key!r} belongs to run {stored.id[:8]}, of {other}; take another key")
                return stored, new
        except sa.exc.IntegrityError as error:
            if "foreign key" not in str(error.orig).lower():
                raise
            hint = "submit the run with its text"
            raise UsageError(f"the store does not have the notebook {run.snapshot!r}; {hint}") from error

    def ask(
        self,
        run: str,
        attempt: int,
        children: Sequence[Run],
        *,
        texts: Mapping[str, str],
        families: Sequence[Family] = (),
    ) -> list[Run] | None:
        """Have these runs made, children of this one, unless they are there already; which are new.

        None: the run is no longer ours, or somebody has cancelled it, and nothing was made.

        Args:
            texts: of their notebooks, by digest.
            families: of those that have one, without texts.
        """
        with self.writing() as connection:
            ours = mine(sa.select(runs.c.id), run, attempt).where(~runs.c.cancelling).with_for_update()
            if connection.execute(ours).first() is None:
                return None
            for digest in sorted(texts):
                keep_snapshot(self, connection, digest, texts[digest])
            for family in families:
                keep_family(self, connection, family)
            new = insert_runs(self, connection, [(child, None) for child in children])
            return [child for child in children if child.id in new]


def insert_run(database: Database, connection: sa.Connection, run: Run) -> bool:
    """A new pending row; False if its key or its firing is there already."""
    return bool(insert_runs(database, connection, [(run, None)]))


def insert_runs(database: Database, connection: sa.Connection, new: Sequence[tuple[Run, int | None]]) -> set[str]:
    """Pending rows, each with its place in the line of its series; the ids of those that were not there already."""
    rows = [_row(run) | {"place": place} for run, place in new]
    if not rows:
        return set()
    statement = database.insert(runs).on_conflict_do_nothing().returning(runs.c.id)
    return set(connection.execute(statement, rows).scalars())


def _row(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in _SUBMITTED} | {
        "policy": asdict(run.policy),
        "parameters": dict(run.parameters),
        "queue": run.policy.queue,
        "lane": lane_of(run.deployment, run.policy),
        "priority": run.policy.priority,
        "state": State.PENDING,
        "attempt": 0,
        "last_attempt": 1 + run.policy.retries,
        "crashes": 0,
        "beat": 0,
        "cancelling": False,
    }


def lane_of(deployment: str | None, policy: Policy) -> str:
    """In which lane of its queue a run waits: those of a limited deployment in one of their own.

    So a claim passes over all of them at once when the limit is reached. It holds back nobody and lets nobody pass;
    that the limits do.
    """
    limited = policy.max_concurrent is not None or policy.rate is not None
    return deployment if limited and deployment is not None else ""


#: What a run brings along; the rest is its life, which begins here.
_SUBMITTED = (
    "id",
    "key",
    "deployment",
    "version",
    "notebook",
    "snapshot",
    "commit",
    "created",
    "scheduled_for",
    "zone",
    "available",
    "series",
    "name",
    "family",
    "parent",
    "traceparent",
)


def _submitted(connection: sa.Connection, run: Run) -> Run:
    """The row of the run's key, or of its firing: the one just inserted, or the one that stood in its way."""
    row = connection.execute(sa.select(runs).where(runs.c.key == run.key)).first()
    if row is None and run.deployment is not None and run.scheduled_for is not None:
        firing = runs.c.deployment == run.deployment, runs.c.scheduled_for == run.scheduled_for
        row = connection.execute(sa.select(runs).where(*firing)).first()
    if row is None:
        raise Conflict(f"there is another run with the id {run.id!r}; give each run an id of its own")
    return to_run(row)


def _difference(stored: Run, wanted: Run) -> str | None:
    """What makes these two requests not the same one: a key repeated is for the same work, whatever its queue now."""
    told = {"deployment": "another deployment", "snapshot": "another notebook", "parameters": "other parameters"}
    for name, difference in told.items():
        before, after = (json.dumps(getattr(run, name), sort_keys=True, default=dict) for run in (stored, wanted))
        if before != after:  # as text: NaN equals itself there, and 1 is not True
            return difference
    return None
