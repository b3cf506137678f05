"""When schedules fire, against a walk over every minute of the years 2000 to 2037, in every zone.

``python -m tests.zones`` walks all of it; ``python -m tests.zones Europe/Madrid`` one zone. The walk knows nothing of
cronsim: it looks at the clocks each minute, and applies Debian's rule to what they show.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import numpy.typing as npt

from flowkit.model import Schedule
from flowkit.worker.cron import next_firing

FIRST, LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Days around a change of the clocks in which every firing of a frequent schedule is looked at.
AROUND = 1.5

Numbers = frozenset[int] | None  # None: any


@dataclass(frozen=True)
class Expression:
    minutes: Numbers = None
    hours: Numbers = None
    days: Numbers = None
    months: Numbers = None
    weekdays: Numbers = None  # 0 is Sunday

    def __str__(self) -> str:
        fields = (self.minutes, self.hours, self.days, self.months, self.weekdays)
        return " ".join("*" if some is None else ",".join(map(str, sorted(some))) for some in fields)

    @property
    def elapsed(self) -> bool:
        """Whether it follows elapsed time, not the time of day."""
        return self.minutes is None or self.hours is None

    def on(self, day: date) -> bool:
        if self.months is not None and day.month not in self.months:
            return False
        in_days = self.days is None or day.day in self.days
        in_weekdays = self.weekdays is None or day.isoweekday() % 7 in self.weekdays
        either = self.days is not None and self.weekdays is not None
        return in_days or in_weekdays if either else in_days and in_weekdays


def walk(expression: Expression, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """The firings from *start* to before *end*, by looking at the clocks each minute."""
    walls = shown(zone, start, end)
    marked, first = marks(expression, walls)
    if expression.elapsed:
        due = marked[walls - first]
    else:
        # Every time of day newly reached fires once; those that were jumped over, with the one after them.
        passed = np.concatenate([[0], np.cumsum(marked)])
        reached = np.maximum.accumulate(walls)
        before = np.concatenate([[walls[0] - 1], reached[:-1]])
        due = passed[reached - first + 1] > passed[before - first + 1]
    begin = _minute(start)
    return [EPOCH + (begin + int(number)) * MINUTE for number in np.flatnonzero(due)]


def shown(zone: str, start: datetime, end: datetime) -> npt.NDArray[np.int64]:
    """What the clocks show in each minute, as minutes of a calendar whose clocks never change."""
    begin, stop = _minute(start), _minute(end)
    walls = np.arange(begin, stop, dtype=np.int64)
    steps = offsets(zone, begin, stop)
    for (at, by), (until, _) in zip(steps, [*steps[1:], (stop, 0)], strict=True):
        walls[at - begin : until - begin] += by
    return walls


def marks(expression: Expression, walls: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.bool_], int]:
    """Which minutes of the calendar match, over whole days around *walls*; and which minute the first of them is."""
    first, last = int(walls.min()) // 1440 - 1, int(walls.max()) // 1440 + 1
    times = np.zeros(1440, dtype=bool)
    for hour in range(24) if expression.hours is None else expression.hours:
        for minute in range(60) if expression.minutes is None else expression.minutes:
            times[60 * hour + minute] = True
    days = np.array([expression.on((EPOCH + day * DAY).date()) for day in range(first, last + 1)])
    return (days[:, None] & times[None, :]).reshape(-1), first * 1440


@cache
def offsets(zone: str, begin: int, stop: int) -> tuple[tuple[int, int], ...]:
    """The minute from which each offset holds, in minutes; seen by asking each hour, then each minute."""
    info = ZoneInfo(zone)

    def offset(minute: int) -> int:
        found = (EPOCH + minute * MINUTE).astimezone(info).utcoffset()
        assert found is not None
        assert found % MINUTE == timedelta(0), zone
        return found // MINUTE

    steps = [(begin, offset(begin))]
    for hour in range(begin, stop, 60):
        if offset(hour + 60) != steps[-1][1]:
            for minute in range(hour + 1, hour + 61):
                if (now := offset(minute)) != steps[-1][1]:
                    steps.append((minute, now))
    return tuple((minute, by) for minute, by in steps if minute < stop)


def changes(zone: str, start: datetime, end: datetime) -> list[datetime]:
    return [EPOCH + minute * MINUTE for minute, _ in offsets(zone, _minute(start), _minute(end))[1:]]


def found(expression: Expression, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """What flowkit says."""
    schedule, firings = Schedule(cron=str(expression), zone=zone), []
    at = next_firing(schedule, start - timedelta(microseconds=1))
    while at is not None and at < end:
        firings.append(at)
        at = next_firing(schedule, at)
    return firings


def drawn(chance: random.Random, *, rare: bool) -> Expression:
    """Any expression, or one that fires a few times a day at most and so can be followed for decades."""

    def some(low: int, high: int, most: int, *, any: float = 0.0) -> Numbers:
        if chance.random() < any:
            return None
        return frozenset(chance.sample(range(low, high + 1), chance.randint(1, most)))

    hours = frozenset(chance.sample([0, 1, 2, 3, 4, 12, 22, 23], chance.randint(1, 1 if rare else 4)))
    return Expression(
        minutes=some(0, 59, 1 if rare else 4, any=0.0 if rare else 0.15),
        hours=hours if rare or chance.random() < 0.7 else None,
        days=some(1, 28, 12, any=0.7),
        months=some(1, 12, 6, any=0.8),
        weekdays=some(0, 6, 4, any=0.7),
    )


def windows(zone: str, start: datetime = FIRST, end: datetime = LAST) -> Iterator[tuple[datetime, datetime]]:
    """The days around each change of its clocks."""
    for change in changes(zone, start, end):
        yield change - AROUND * DAY, change + AROUND * DAY


def alike() -> dict[tuple[tuple[int, int], ...], list[str]]:
    """The zones by what their clocks did in these years: those that did the same are one."""
    groups: dict[tuple[tuple[int, int], ...], list[str]] = {}
    for zone in sorted(available_timezones() - {"localtime"}):
        groups.setdefault(offsets(zone, _minute(FIRST), _minute(LAST)), []).append(zone)
    return groups


def compare(zone: str, seed: int) -> tuple[int, int, int]:
    """Walk a zone: a rare schedule over all the years, several around each change. Minutes, firings, differences."""
    chance = random.Random(f"{seed} {zone}")
    tries = [(drawn(chance, rare=True), FIRST, LAST)]
    tries += [(drawn(chance, rare=False), *window) for window in windows(zone) for _ in range(2)]
    minutes = firings = wrong = 0
    for expression, start, end in tries:
        expected, got = walk(expression, zone, start, end), found(expression, zone, start, end)
        minutes += _minute(end) - _minute(start)
        firings += len(expected)
        if expected != got:
            wrong += 1
            differ = sorted(set(expected) ^ set(got))[:3]
            print(f"{zone}: {expression} differs at {', '.join(at.isoformat() for at in differ)}", flush=True)
    return minutes, firings, wrong


def main(zones: list[str], seed: int = 1) -> int:
    began = time.monotonic()
    groups = [[zone] for zone in zones] or list(alike().values())
    totals = np.zeros(3, dtype=np.int64)
    for number, group in enumerate(groups, 1):
        totals += compare(group[number % len(group)], seed)
        print(f"{number} of {len(groups)} {group[0]}", end="\r", file=sys.stderr, flush=True)
    minutes, firings, wrong = map(int, totals)
    count = sum(map(len, groups))
    print(
        f"{count} zones ({len(groups)} that differ), 2000 to 2037: {minutes:,} minutes walked, {firings:,} firings, "
        f"{wrong} differences, seed {seed}, {time.monotonic() - began:.0f} s"
    )
    return 1 if wrong else 0


def _minute(at: datetime) -> int:
    return (at - EPOCH) // MINUTE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
