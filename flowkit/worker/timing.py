"""A schedule as people ask for it, by a command's options or a function's arguments."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from flowkit.errors import UsageError
from flowkit.model import CatchUp, Overlap, Schedule
from flowkit.worker import cron as crons

Chosen = TypeVar("Chosen", CatchUp, Overlap)


def schedule(
    *,
    cron: str | None,
    tz: str,
    every: str | float | None,
    start: str | datetime | None = None,
    end: str | datetime | None = None,
    catch_up: str | None = None,
    overlap: str | None = None,
    **others: float | None,
) -> Schedule | None:
    """The schedule these options mean, not yet validated; None if they ask for none.

    Args:
        others: of ``Schedule``, in seconds or numbers; None for the default, as everywhere.
    """
    given = {name: value for name, value in others.items() if value is not None}
    if cron is None and every is None:
        if given or start or end or catch_up or overlap:
            raise UsageError("a schedule needs a cron expression or an interval; give one, or nothing about a schedule")
        return None
    caught_up = _choice(CatchUp, catch_up, "catch-up") or CatchUp.LATEST
    # Who wants all of them does not want all but the first to be skipped.
    overlapping = Overlap.QUEUE if caught_up is CatchUp.ALL else Overlap.SKIP
    return Schedule(
        cron=cron,
        every=seconds(every) if every is not None else None,
        zone=tz,
        start=_instant(start, tz),
        end=_instant(end, tz),
        catch_up=caught_up,
        overlap=_choice(Overlap, overlap, "overlap") or overlapping,
        **given,  # type: ignore[arg-type]
    )


def _choice(kind: type[Chosen], value: str | None, what: str) -> Chosen | None:
    try:
        return None if value is None else kind(value)
    except ValueError as error:
        raise UsageError(f"{what} cannot be {value!r}; it is one of {', '.join(kind)}") from error


def _instant(at: str | datetime | None, zone: str) -> datetime | None:
    return None if at is None else crons.instant(at if isinstance(at, str) else at.isoformat(), zone)


def seconds(every: str | float) -> float:
    return crons.every(every) if isinstance(every, str) else float(every)
