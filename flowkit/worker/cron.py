"""When a schedule fires. Firings are instants in UTC, worked out anew from the schedule each time: no state to lose.

Around a change of the clocks cron follows Debian's: a fixed time of day that the clocks skip fires once, right after
the gap; one that comes twice fires the first time only. A schedule with ``*`` in minute or hour follows elapsed time:
nothing fires in a gap, and an hour that comes twice fires twice.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from flowkit.errors import ScheduleError, did_you_mean
from flowkit.model import Schedule

_FIELDS = {
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31 or L, on a date that exists",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT",
}
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_INTERVAL = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in _UNITS), re.ASCII)

SECOND = timedelta(seconds=1)
MAX_LENGTH = 256  # of an expression: a long one takes seconds to work out
MAX_EVERY = 3_660 * 86_400  # seconds


def validate(schedule: Schedule) -> Schedule:
    """The schedule with its cron in five plain fields, if it can ever fire."""
    if (schedule.cron is None) == (schedule.every is None):
        raise ScheduleError("a schedule needs either a cron expression or an interval, and not both")
    zones = available_timezones() - {"localtime"}  # which is another one on each machine
    if schedule.zone not in zones:
        hint = did_you_mean(schedule.zone, zones) or "; give an IANA name, such as Europe/Berlin"
        raise ScheduleError(f"there is no time zone {schedule.zone!r}{hint}")
    if schedule.every is not None:
        if not 1 <= schedule.every <= MAX_EVERY:
            raise ScheduleError(f"an interval of {schedule.every:g} seconds is not between 1 second and 10 years")
        return schedule
    assert schedule.cron is not None
    return replace(schedule, cron=_plain(schedule.cron, schedule.zone))


def every(text: str) -> float:
    """Seconds of an interval such as ``30s``, ``15m``, ``2h``, ``1d``, ``1h30m``: each unit once, large first."""
    found = _INTERVAL.fullmatch(text.replace(" ", ""))
    if found is None or not any(found.groups()):
        raise ScheduleError(f"{text!r} is not an interval; write one like 30s, 15m, 2h, 1d or 1h30m")
    return float(sum(float(count) * unit for count, unit in zip(found.groups(0), _UNITS.values(), strict=True)))


def next_firing(schedule: Schedule, after: datetime) -> datetime:
    """The first firing after that instant, in UTC. Of an interval: the anchor plus k of them, k at least 1."""
    after = after.astimezone(UTC)
    if schedule.every is not None:
        assert schedule.anchor is not None
        step = timedelta(seconds=schedule.every)
        return schedule.anchor.astimezone(UTC) + max(1, (after - schedule.anchor) // step + 1) * step
    assert schedule.cron is not None
    zone = ZoneInfo(schedule.zone)
    minute, hour, *_ = schedule.cron.split()
    try:
        if "*" in (minute[0], hour[0]):
            return _next_elapsed(schedule.cron, zone, after)
        return _next_fixed(schedule.cron, zone, after)
    except StopIteration:
        raise ScheduleError(f"cron {schedule.cron!r} does not fire within 50 years") from None


def latest_due(schedule: Schedule, now: datetime) -> tuple[datetime, datetime]:
    """Of a schedule whose ``next`` has come: the newest firing up to *now*, and the first one after it.

    Firings between ``next`` and the newest are missed. Takes as long after a year's outage as after a minute's.
    """
    assert schedule.next is not None
    assert schedule.next <= now
    following = next_firing(schedule, now)
    if schedule.every is not None:
        newest = following - timedelta(seconds=schedule.every)
    else:
        newest = _newest(schedule, now)
    # Never behind the cursor, not even when the rules of the zone have changed since it was set.
    return max(newest, schedule.next.astimezone(UTC)), following


def describe(schedule: Schedule) -> str:
    """``0 6 * * * America/New_York`` or ``every 1h30m``."""
    if schedule.every is None:
        return f"{schedule.cron} {schedule.zone}"
    left, parts = timedelta(seconds=schedule.every), ""
    for unit, seconds in _UNITS.items():
        count, left = divmod(left, timedelta(seconds=seconds))
        if unit == "s" and left:
            parts += f"{count + left.total_seconds():.6f}".rstrip("0") + unit
        elif count:
            parts += f"{count}{unit}"
    return f"every {parts}"


def _plain(cron: str, zone: str) -> str:
    """The expression in five fields, one space between them; that zone's rules do not stop it from firing."""
    if len(cron) > MAX_LENGTH:
        raise ScheduleError(f"the cron expression has {len(cron)} characters, and {MAX_LENGTH} is the limit")
    fields = _ALIASES.get(cron.strip().lower(), cron).split()
    plain = " ".join(fields)
    if len(fields) == 6:
        raise ScheduleError(f"cron {plain!r} has six fields; seconds are not supported, so give the last five")
    if len(fields) != 5:
        aliases = f"or one of {', '.join(_ALIASES)}"
        raise ScheduleError(f"cron {plain!r} is not of the five fields {', '.join(_FIELDS)}, {aliases}")
    try:
        CronSim(plain, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        field = str(error).removeprefix("Bad ")
        written = fields[list(_FIELDS).index(field)]
        raise ScheduleError(f"cron {plain!r} has a bad {field} {written!r}; it takes {_FIELDS[field]}") from error
    next_firing(Schedule(cron=plain, zone=zone), datetime(2000, 1, 1, tzinfo=UTC))
    return plain


def _next_fixed(cron: str, zone: ZoneInfo, after: datetime) -> datetime:
    """Of a schedule at fixed times of day."""
    firings = CronSim(cron, after.astimezone(zone))
    while True:
        # In the second of two equal hours it begins with firings of the first. Compared in UTC: Python compares times
        # of one zone by their digits.
        firing: datetime = next(firings).astimezone(UTC)
        if firing > after:
            return firing


def _next_elapsed(cron: str, zone: ZoneInfo, after: datetime) -> datetime:
    """Of a schedule that follows elapsed time: looked for in one stretch of constant offset after the other.

    Not by giving cronsim the zone: where the clocks go back over midnight (St. John's until 2011) it never returns.
    """
    after = after.replace(microsecond=0)
    while True:
        offset = _offset(zone, after + SECOND)
        wall: datetime = next(CronSim(cron, (after + offset).replace(tzinfo=None)))
        firing = (wall - offset).replace(tzinfo=UTC)
        change = _change(zone, after + SECOND, firing)
        if change is None:
            return firing
        after = change - SECOND


def _offset(zone: ZoneInfo, at: datetime) -> timedelta:
    offset = at.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def _change(zone: ZoneInfo, start: datetime, end: datetime) -> datetime | None:
    """The first second with another offset than *start* has, up to *end*. Two changes within a day are not seen."""
    offset = _offset(zone, start)
    while start < end:
        later = min(start + timedelta(days=1), end)
        if _offset(zone, later) != offset:
            while later - start > SECOND:
                middle = start + (later - start) // 2 // SECOND * SECOND
                start, later = (middle, later) if _offset(zone, middle) == offset else (start, middle)
            return later
        start = later
    return None


def _newest(schedule: Schedule, now: datetime) -> datetime:
    """The newest firing of a cron schedule up to *now*.

    Back to an earlier matching time that was on the clocks, then forward again: in the second of two equal hours, or
    next to a gap, a later one has fired.
    """
    assert schedule.next is not None
    newest = schedule.next
    zone = ZoneInfo(schedule.zone)
    wall = now.astimezone(zone).replace(tzinfo=None, fold=0)
    for earlier in CronSim(schedule.cron, wall, reverse=True):
        newest = earlier.replace(tzinfo=zone).astimezone(UTC)
        if newest.astimezone(zone).replace(tzinfo=None, fold=0) == earlier:
            break
    while (later := next_firing(schedule, newest)) <= now:
        newest = later
    return newest
