"""Wait until something is there: a file, a row, an instant, a run of another deployment.

While it waits, a node holds one of its flow's threads, and its run a place at its worker.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from flowkit.config import Config
from flowkit.errors import Unavailable, UsageError
from flowkit.flow.current import given_up
from flowkit.flow.desk import Desk, at_hand
from flowkit.model import now
from flowkit.nodes import places, sql

__all__ = ["file", "instant", "row", "run"]

#: Characters of a question to the worker: a pipe keeps a line of that length whole.
LONGEST = 3500


def file(path: str, *, within: float = 3600.0, every: float = 5.0) -> list[str]:
    """Wait for a file, or for one that a pattern matches, and return what there is then, by name.

    Args:
        path: on this machine, or any URL that fsspec knows.
        within: seconds after which it is given up.
        every: seconds between two looks.

    Raises:
        Unavailable: it did not come in time.
    """
    found: list[str] = _until(lambda: places.exists(path) and places.find(path), f"no file {path}", within, every)
    return found


def row(
    url: str, statement: str, *, values: dict[str, Any] | None = None, within: float = 3600.0, every: float = 5.0
) -> dict[str, Any]:
    """Wait until a query gives a row, and return the first by column: ``select * from loads where day = :day``.

    Args:
        url: of SQLAlchemy, as in ``postgresql+psycopg://user@host/shop``.
        statement: with ``:name`` where a value stands.
        values: what the names stand for.
        within: seconds after which it is given up.
        every: seconds between two looks; nothing is kept open between them.

    Raises:
        Unavailable: no row came in time, or the database has an error. One that does not answer is asked again.
    """

    def look() -> dict[str, Any] | None:
        for part in sql.query_each(url, statement, values=values, rows=1, within=max(30.0, every)):
            return {str(name): value for name, value in part.iloc[0].to_dict().items()} if len(part) else None
        return None

    found: dict[str, Any] = _until(look, "no row", within, every)
    return found


def instant(at: datetime | str) -> datetime:
    """Wait until an instant, and return it; at once if it has passed.

    Args:
        at: aware, or ISO 8601 with an offset: ``2013-07-01T06:00+02:00``.

    Raises:
        UsageError: it has no offset, so that it is another instant on another machine.
    """
    due = _instant(at)
    # In pieces: a machine that was asleep, or whose clock was set, is right again within a minute.
    while (left := (due - now()).total_seconds()) > 0 and not given_up():
        time.sleep(min(left, 60.0))
    return due


def run(
    deployment: str,
    *,
    since: datetime | str | None = None,
    firing: datetime | str | None = None,
    values: dict[str, Any] | None = None,
    within: float = 3600.0,
    every: float = 5.0,
) -> dict[str, Any]:
    """Wait until a run of another deployment has succeeded, and return the newest: its id, scheduled_for and finished.

    In a worker's run only: the worker looks, since a kernel has no credentials of flowkit's store. Which run is meant
    is said by one of these three, or several; of the deployment's newest 1,000 runs.

    Args:
        since: submitted then or later; aware, or ISO 8601 with an offset.
        firing: of its schedule, as ``scheduled_for`` of the run that waits: ``fk.current_run().scheduled_for``.
        values: parameters that it was given, as in ``{"day": "2013-07-01"}``.
        within: seconds after which it is given up.
        every: seconds between two looks.

    Raises:
        UsageError: there is no such deployment, or nobody to ask.
        Unavailable: none succeeded in time; it says how the newest of those that are meant stands.
    """
    if since is None and firing is None and not values:
        raise UsageError(f"which run of {deployment!r} is meant? say by since=, firing= or values=")
    question: dict[str, Any] = {"awaited": deployment, "values": values or {}}
    for name, at in (("since", since), ("firing", firing)):
        question[name] = None if at is None else _instant(at).isoformat()
    try:
        length = len(json.dumps(question))
    except (TypeError, ValueError) as error:
        raise UsageError(f"values= must be what parameters can be: {error}") from error
    if length > LONGEST:
        raise UsageError(f"values= is longer than {LONGEST} characters; name fewer parameters")
    folder = Config.from_env().run_folder
    if folder is None or not at_hand(folder):
        raise UsageError(
            f"only a worker can look for runs of {deployment!r}; submit this notebook: flowkit run NOTEBOOK"
        )
    missing = f"no run of {deployment!r} that is meant has succeeded"
    desk = Desk(folder)

    def look() -> dict[str, Any] | None:
        answer = desk.ask(question)
        if "refused" in answer:
            raise UsageError(str(answer["refused"]))
        if "newest" in answer:
            raise Unavailable(f"{missing}; {answer['newest']}")
        found: dict[str, Any] | None = answer.get("run")
        return found

    try:
        awaited: dict[str, Any] = _until(look, missing, within, every)
    finally:
        desk.close()
    return awaited


def _instant(at: datetime | str) -> datetime:
    try:
        due = datetime.fromisoformat(at) if isinstance(at, str) else at
    except ValueError as error:
        raise UsageError(f"{at!r} is no instant: {error}; write it as in 2013-07-01T06:00+02:00") from error
    if due.tzinfo is None:
        raise UsageError(f"{at} has no offset, so it is another instant elsewhere; write {due.isoformat()}+00:00, say")
    return due


def _until(look: Callable[[], Any], missing: str, within: float, every: float) -> Any:
    deadline = time.monotonic() + within
    while True:
        why = missing
        try:
            if found := look():
                return found
        except Unavailable as error:
            why = str(error)
        left = deadline - time.monotonic()
        if left <= 0 or given_up():
            raise Unavailable(f"{why}, after {within:g} s of waiting; raise within= if it may take longer")
        time.sleep(min(every, left))
