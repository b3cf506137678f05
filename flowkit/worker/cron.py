"""When a schedule fires. Firings are instants in UTC, worked out anew from the schedule each time: no state to lose.

Around a change of the clocks cron follows Debian's: a fixed time of day that the clocks skip fires once, right after
the gap; one that comes twice fires the first time only. A schedule with ``*`` in minute or hour follows elapsed time:
nothing fires in a gap, and an hour that comes twice fires twice.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from flowkit.errors import ScheduleError, did_you_mean
from flowkit.model import CatchUp, Deployment, Overlap, Plan, Reason, Run, Schedule, Skip

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
MOMENT = timedelta(microseconds=1)
MAX_SPAN = 10_000  # values of a backfill
MAX_CATCH_UP = 1_000  # firings made up for at once, in one transaction

#: A firing that is found so much later is no missed one: a tick comes every second, a worker that starts anew in less.
ON_TIME = timedelta(minutes=1)


def validate(schedule: Schedule) -> Schedule:
    """The schedule with its cron in five plain fields, if it can ever fire."""
    if (schedule.cron is None) == (schedule.every is None):
        raise ScheduleError("a schedule needs either a cron expression or an interval, and not both")
    _check(schedule.zone)
    if schedule.start is not None and schedule.end is not None and schedule.start > schedule.end:
        raise ScheduleError(f"the schedule ends at {schedule.end:%F %T}, before it starts at {schedule.start:%F %T}")
    if not 1 <= schedule.catch_up_limit <= MAX_CATCH_UP:
        raise ScheduleError(f"a catch-up limit of {schedule.catch_up_limit} is not between 1 and {MAX_CATCH_UP}")
    for name in ("grace", "jitter"):
        if not 0 <= getattr(schedule, name) <= MAX_EVERY:
            raise ScheduleError(f"{name} of {getattr(schedule, name):g} seconds is not between 0 and 10 years")
    if schedule.every is not None:
        if not 1 <= schedule.every <= MAX_EVERY:
            raise ScheduleError(f"an interval of {schedule.every:g} seconds is not between 1 second and 10 years")
        return schedule
    assert schedule.cron is not None
    return replace(schedule, cron=_plain(schedule.cron, schedule.zone))


def began(schedule: Schedule, at: datetime) -> Schedule:
    """The schedule, deployed at that instant, with its anchor and its first firing.

    An interval counts from then, or from its start, where its first firing is.
    """
    if schedule.every is not None:
        first = timedelta(seconds=schedule.every)
        schedule = replace(schedule, anchor=schedule.start - first if schedule.start else at)
    return replace(schedule, next=next_firing(schedule, at))


def instant(text: str, zone: str) -> datetime:
    """A date, or a date and time, in ISO 8601. Without an offset it is what the clocks of that zone show."""
    _check(zone)
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ScheduleError(f"{text!r} is not a time; write one like 2013-07-01 or 2013-07-01T06:00") from error


def span(first: str, last: str, step: float) -> list[str]:
    """The dates from *first* to *last*, both included; with times of day if one has or the step is no whole day."""
    try:
        at, until = datetime.fromisoformat(first), datetime.fromisoformat(last)
        if at > until:
            raise ScheduleError(f"{first} is after {last}; give the earlier one first")
        count = (until - at) // timedelta(seconds=step) + 1
        if count > MAX_SPAN:
            raise ScheduleError(f"from {first} to {last} are {count} values, and {MAX_SPAN} is the limit")
    except (ValueError, TypeError) as error:
        raise ScheduleError(f"{first!r} to {last!r} is no span; give two dates, such as 2013-07-01") from error
    found = [at + timedelta(seconds=step) * number for number in range(count)]
    if len(first) == len(last) == len("2013-07-01") and step % _UNITS["d"] == 0:
        return [f"{one:%Y-%m-%d}" for one in found]
    return [one.isoformat() for one in found]


def _check(zone: str) -> None:
    zones = available_timezones() - {"localtime"}  # which is another one on each machine
    if zone not in zones:
        hint = did_you_mean(zone, zones) or "; give an IANA name, such as Europe/Berlin"
        raise ScheduleError(f"there is no time zone {zone!r}{hint}")


def every(text: str) -> float:
    """Seconds of an interval such as ``30s``, ``15m``, ``2h``, ``1d``, ``1h30m``: each unit once, large first."""
    found = _INTERVAL.fullmatch(text.replace(" ", ""))
    if found is None or not any(found.groups()):
        raise ScheduleError(f"{text!r} is not an interval; write one like 30s, 15m, 2h, 1d or 1h30m")
    return float(sum(float(count) * unit for count, unit in zip(found.groups(0), _UNITS.values(), strict=True)))


def next_firing(schedule: Schedule, after: datetime) -> datetime | None:
    """The first firing after that instant, in UTC; None if the schedule ends before.

    Of an interval: the anchor plus k of them, k at least 1.
    """
    after = after.astimezone(UTC)
    if schedule.start is not None:
        after = max(after, schedule.start.astimezone(UTC) - MOMENT)
    if schedule.end is not None and after >= schedule.end:
        return None
    firing = _next(schedule, after)
    return None if schedule.end is not None and firing > schedule.end else firing


def _next(schedule: Schedule, after: datetime) -> datetime:
    """Whatever its start and end."""
    if schedule.every is not None:
        assert schedule.anchor is not None
        step = timedelta(seconds=schedule.every)
        return schedule.anchor.astimezone(UTC) + max(1, (after - schedule.anchor) // step + 1) * step
    assert schedule.cron is not None
    zone = _zone(schedule.zone)
    try:
        if _follows_elapsed_time(schedule.cron):
            return _next_elapsed(schedule.cron, zone, after)
        return _next_fixed(schedule.cron, zone, after)
    except StopIteration:
        raise ScheduleError(f"cron {schedule.cron!r} does not fire within 50 years") from None


def latest_due(schedule: Schedule, now: datetime) -> tuple[datetime, datetime | None]:
    """Of a schedule whose ``next`` has come: the newest firing up to *now*, and the first one after it.

    Firings between ``next`` and the newest are missed.
    """
    assert schedule.next is not None
    assert schedule.next <= now
    until = now if schedule.end is None else min(now, schedule.end)
    # Never behind the cursor, not even when the rules of the zone have changed since it was set.
    return max(_newest(schedule, until), schedule.next.astimezone(UTC)), next_firing(schedule, now)


def plan(deployment: Deployment, now: datetime) -> Plan:
    """What becomes of every firing of its schedule from ``next`` up to *now*: a run of its own, or one of the skipped.

    Takes as long after a year's outage as after a minute's, however many firings that is.
    """
    schedule = deployment.schedule
    assert schedule is not None
    assert schedule.next is not None
    first = schedule.next.astimezone(UTC)
    newest, following = latest_due(schedule, now)
    kept = _kept(schedule, newest, now)
    skips = []

    def skip(first: datetime, last: datetime, count: int, reason: Reason) -> None:
        skips.append(Skip(deployment=deployment.name, first=first, last=last, count=count, reason=reason, at=now))

    if not kept or kept[0] > first:
        last = max(first, _newest(schedule, kept[0] - MOMENT)) if kept else newest
        reason = Reason.LIMIT if schedule.catch_up is CatchUp.ALL else Reason.MISSED
        skip(first, last, _count(schedule, first, last), reason)
    if schedule.overlap is Overlap.CANCEL_RUNNING and len(kept) > 1:
        skip(kept[0], kept[-2], len(kept) - 1, Reason.REPLACED)
        del kept[:-1]
    # Created in the order of their firings, for those are claimed in the order in which they were created.
    runs = [
        replace(Run.of(deployment, now=now + number * MOMENT, scheduled_for=at), available=_jittered(deployment, at))
        for number, at in enumerate(kept)
    ]
    return Plan(runs=tuple(runs), skips=tuple(skips), next=following)


def _kept(schedule: Schedule, newest: datetime, now: datetime) -> list[datetime]:
    """Those of the firings due that the schedule catches up on, in order."""
    assert schedule.next is not None
    if schedule.catch_up is CatchUp.ALL:
        first = schedule.next.astimezone(UTC)
        kept = [newest]
        while kept[-1] > first and len(kept) < schedule.catch_up_limit:
            kept.append(max(first, _newest(schedule, kept[-1] - MOMENT)))
        return kept[::-1]
    grace = timedelta(seconds=schedule.grace) if schedule.catch_up is CatchUp.LATEST else ON_TIME
    return [newest] if now - newest <= max(grace, ON_TIME) else []


def _jittered(deployment: Deployment, firing: datetime) -> datetime | None:
    """When the firing's run becomes available, as long after each firing; None without jitter."""
    assert deployment.schedule is not None
    if not deployment.schedule.jitter:
        return None
    part = int.from_bytes(sha256(deployment.name.encode()).digest()[:4], "big") / 2**32
    return firing + timedelta(milliseconds=int(1000 * deployment.schedule.jitter * part))


def moved(schedule: Schedule, firing: datetime) -> str | None:
    """In words, what a change of the clocks has done to that firing; None if nothing."""
    if schedule.cron is None:
        return None
    zone = _zone(schedule.zone)
    wall = firing.astimezone(zone)
    elapsed = _follows_elapsed_time(schedule.cron)
    gone, back = _wall(firing, _offset(zone, firing - SECOND)), wall.replace(tzinfo=None)
    if not elapsed and gone < back and (skipped := _times(schedule.cron, gone, back)):
        times = ", ".join(f"{time:%H:%M}" for time in skipped[:3]) + ", …" * (len(skipped) > 3)
        return f"{times} {'do' if len(skipped) > 1 else 'does'} not exist that day"
    if wall.replace(fold=0).utcoffset() != wall.replace(fold=1).utcoffset():
        which = "this is the second" if wall.fold else "this is the first"
        return f"{wall:%H:%M} comes twice that day; {which if elapsed else 'it fires the first time only'}"
    return None


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


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ScheduleError(f"there is no time zone {name!r} on this machine; update its tzdata") from error


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
    _next(Schedule(cron=plain, zone=zone), datetime(2000, 1, 1, tzinfo=UTC))
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
    """The newest firing up to *now*, whatever the schedule's start.

    Back to an earlier matching time that was on the clocks, then forward again: in the second of two equal hours, or
    next to a gap, a later one has fired.
    """
    assert schedule.next is not None
    if schedule.every is not None:
        assert schedule.anchor is not None
        step = timedelta(seconds=schedule.every)
        return schedule.anchor.astimezone(UTC) + (now - schedule.anchor) // step * step
    newest = schedule.next
    zone = _zone(schedule.zone)
    wall = now.astimezone(zone).replace(tzinfo=None, fold=0)
    for earlier in CronSim(schedule.cron, wall, reverse=True):
        newest = earlier.replace(tzinfo=zone).astimezone(UTC)
        if newest.astimezone(zone).replace(tzinfo=None, fold=0) == earlier:
            break
    while (later := _next(schedule, newest)) <= now:
        newest = later
    return newest


def _count(schedule: Schedule, first: datetime, last: datetime) -> int:
    """How many firings there are from *first* to *last*, which are two of them: by the calendar, visiting none.

    Those of a year of minutes would take a minute to visit.
    """
    if schedule.every is not None:
        return (last - first) // timedelta(seconds=schedule.every) + 1
    assert schedule.cron is not None
    zone = _zone(schedule.zone)
    changes = []
    change = _change(zone, first, last)
    while change is not None:
        changes.append(change)
        change = _change(zone, change, last)
    if _follows_elapsed_time(schedule.cron):
        stretches = pairwise([first + SECOND, *changes, last + SECOND])
        offsets = [(start, end, _offset(zone, start)) for start, end in stretches]
        return 1 + sum(_matching(schedule.cron, _wall(start, by), _wall(end, by)) for start, end, by in offsets)
    after, until = (_wall(at, _offset(zone, at)) + SECOND for at in (first, last))
    count = 1 + _matching(schedule.cron, after, until)
    for change in changes:
        gone, back = _wall(change, _offset(zone, change - SECOND)), _wall(change, _offset(zone, change))
        if gone < back:  # all times in the gap, and the one at its end, fire as one
            count -= max(0, _matching(schedule.cron, gone, back + SECOND) - 1)
    return count


def _matching(cron: str, start: datetime, end: datetime) -> int:
    """How many times of the calendar match, of clocks that never change, from *start* to before *end*."""
    known = CronSim(cron, start)
    minutes = sorted(60 * hour + minute for hour in known.hours for minute in known.minutes)

    def on(day: date) -> bool:
        return day.month in known.months and known.match_day(day)

    def before(at: datetime) -> int:
        passed = 60 * at.hour + at.minute + at.second / 60
        return bisect_left(minutes, passed) if on(at.date()) else 0

    days = (start.date() + timedelta(days=day) for day in range((end.date() - start.date()).days))
    return sum(len(minutes) for day in days if on(day)) + before(end) - before(start)


def _times(cron: str, start: datetime, end: datetime) -> list[datetime]:
    """Those that ``_matching`` counts."""
    return list(takewhile(lambda time: time < end, CronSim(cron, start - SECOND)))


def _wall(at: datetime, offset: timedelta) -> datetime:
    """What clocks with that offset show."""
    return (at.astimezone(UTC) + offset).replace(tzinfo=None)


def _follows_elapsed_time(cron: str) -> bool:
    minute, hour, *_ = cron.split()
    return "*" in (minute[0], hour[0])
