"""What becomes of the firings that are due: whatever the outage and the policy, each is a run or counted in a skip."""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache

import pytest

from flowkit.errors import ScheduleError
from flowkit.model import CatchUp, Deployment, Overlap, Plan, Reason, Schedule
from flowkit.worker import cron
from flowkit.worker.cron import began, instant, moved, next_firing, validate
from tests.worker.test_cron import ANCHOR, EXPRESSIONS, ZONES, firings, utc

CASES = 10_000
SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=seconds) for seconds in (1, 60, 3600, 86_400))
#: Days around a change of the clocks whose firings are all known.
DAYS = 5


def due(schedule: Schedule) -> Deployment:
    return Deployment(name="flights", notebook="/flights.ipynb", snapshot="digest", version=1, schedule=schedule)


def plan(schedule: Schedule, now: datetime) -> Plan:
    return cron.plan(due(schedule), now)


@cache
def known(expression: str, zone: str, day: str) -> list[datetime]:
    start = utc(day + "T00:00Z") - 2 * DAY
    return firings(Schedule(cron=expression, zone=zone), start, start + DAYS * DAY)


def outages() -> Iterator[tuple[Schedule, list[datetime], datetime]]:
    """A schedule, its firings from ``next`` on, and when a worker comes back."""
    chance = random.Random(20130701)
    places = [(zone, day) for zone, days in ZONES.items() for day in days]
    expressions = [*EXPRESSIONS, "* * * * *", "0,30 * * * *", "*/7 2-3 * * *", "5-50/15 0-4 29,30,31 * *"]
    while True:
        if chance.random() < 0.3:
            every = chance.choice([1.0, 2.5, 60.0, 3600.0, 86_400.0])
            step = timedelta(seconds=every)
            schedule = Schedule(every=every, anchor=ANCHOR)
            all_of_it = [ANCHOR + number * step for number in range(1, 500)]
        else:
            (zone, day), expression = chance.choice(places), chance.choice(expressions)
            schedule, all_of_it = Schedule(cron=expression, zone=zone), known(expression, zone, day)
        if len(all_of_it) < 2:
            continue
        first = chance.randrange(len(all_of_it) - 1)
        last = min(len(all_of_it) - 2, first + int(chance.paretovariate(0.5)) - 1)
        gap = all_of_it[last + 1] - all_of_it[last]
        now = all_of_it[last] + gap * chance.choice([0.0, 0.001, 0.5, 0.999])
        yield (
            replace(
                schedule,
                next=all_of_it[first],
                catch_up=chance.choice(list(CatchUp)),
                catch_up_limit=chance.choice([1, 2, 7, 100]),
                grace=chance.choice([0.0, 600.0, 3600.0, 1e6]),
                overlap=chance.choice(list(Overlap)),
            ),
            all_of_it[first:],
            now,
        )


def test_every_firing_is_a_run_or_skipped_with_its_reason() -> None:
    seen = set()
    for (schedule, ahead, now), _ in zip(outages(), range(CASES), strict=False):
        count = bisect_right(ahead, now)
        fired = ahead[:count]
        told = plan(schedule, now)

        ran = [run.scheduled_for for run in told.runs]
        covered = list(ran)
        for skip in told.skips:
            part = [at for at in fired if skip.first <= at <= skip.last]
            assert (part[0], part[-1], len(part)) == (skip.first, skip.last, skip.count), schedule
            covered += part
            seen.add(skip.reason)
        assert sorted(covered) == fired, schedule  # type: ignore[type-var]
        assert ran == caught_up(schedule, fired, now), schedule
        assert told.next == ahead[count], schedule
    assert seen == {Reason.MISSED, Reason.LIMIT, Reason.REPLACED}


def caught_up(schedule: Schedule, fired: list[datetime], now: datetime) -> list[datetime]:
    """As the reference says it."""
    if schedule.catch_up is CatchUp.ALL:
        ran = fired[-schedule.catch_up_limit :]
        return ran[-1:] if schedule.overlap is Overlap.CANCEL_RUNNING else ran
    late = timedelta(seconds=max(60.0, schedule.grace if schedule.catch_up is CatchUp.LATEST else 0.0))
    return fired[-1:] if now - fired[-1] <= late else []


@pytest.mark.parametrize(
    ("schedule", "firings"),
    [
        (Schedule(every=1.0, anchor=ANCHOR), 365 * 86_400),
        (Schedule(cron="* * * * *", zone="America/New_York"), 365 * 1440),
        (Schedule(cron="0-59 0-23 * * *", zone="America/New_York"), 365 * 1440 - 60),
        (Schedule(cron="15 2 * * 0", zone="America/New_York"), 52),
    ],
)
@pytest.mark.parametrize("policy", CatchUp)
def test_a_year_of_missed_firings_is_counted_without_visiting_them(
    schedule: Schedule, firings: int, policy: CatchUp
) -> None:
    schedule = replace(schedule, next=next_firing(schedule, ANCHOR), catch_up=policy)
    started = time.perf_counter()

    told = plan(schedule, ANCHOR + 365 * DAY)

    assert time.perf_counter() - started < 1.0  # visiting them takes a minute
    assert len(told.runs) + sum(skip.count for skip in told.skips) == firings
    assert len(told.skips) <= 1


def test_a_firing_found_within_a_minute_is_not_missed() -> None:
    daily = Schedule(cron="0 6 * * *", next=utc("2026-01-01T06:00Z"), catch_up=CatchUp.SKIP)
    assert len(plan(daily, utc("2026-01-01T06:01Z")).runs) == 1
    assert plan(daily, utc("2026-01-01T06:01:01Z")).runs == ()


def test_the_newest_missed_firing_has_an_hour() -> None:
    daily = Schedule(cron="0 6 * * *", next=utc("2026-01-01T06:00Z"))
    assert len(plan(daily, utc("2026-01-01T07:00Z")).runs) == 1
    assert plan(daily, utc("2026-01-01T07:00:01Z")).runs == ()


def test_runs_of_one_outage_are_created_in_the_order_of_their_firings() -> None:
    hourly = Schedule(cron="0 * * * *", next=utc("2026-01-01T06:00Z"), catch_up=CatchUp.ALL)
    runs = plan(hourly, utc("2026-01-01T12:00Z")).runs
    assert len({run.created for run in runs}) == 7
    assert sorted(runs, key=lambda run: run.created) == list(runs)


# Start and end


def test_it_fires_from_its_start_to_its_end_both_included() -> None:
    start, end = utc("2026-01-02T06:00Z"), utc("2026-01-04T06:00Z")
    daily = Schedule(cron="0 6 * * *", start=start, end=end)
    assert next_firing(daily, utc("2025-01-01T00:00Z")) == start
    assert next_firing(daily, end - SECOND) == end
    assert next_firing(daily, end) is None


def test_an_interval_counts_from_its_start() -> None:
    start = utc("2026-01-02T06:00Z")
    hourly = Schedule(every=3600.0, start=start)
    assert began(hourly, start - DAY).next == start
    assert began(hourly, start + 90 * MINUTE).next == start + 2 * HOUR


def test_after_its_end_only_the_firings_up_to_it_are_due() -> None:
    schedule = Schedule(cron="0 * * * *", end=utc("2026-01-01T08:30Z"), next=utc("2026-01-01T06:00Z"))
    told = plan(replace(schedule, catch_up=CatchUp.ALL), utc("2026-01-09T00:00Z"))
    assert [run.scheduled_for for run in told.runs] == [utc(f"2026-01-01T0{hour}:00Z") for hour in (6, 7, 8)]
    assert (told.skips, told.next) == ((), None)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-07-01", "2026-06-30T22:00Z"),
        ("2026-07-01T06:00", "2026-07-01T04:00Z"),
        ("2026-07-01T06:00Z", "2026-07-01T06:00Z"),
        ("2026-07-01T06:00-04:00", "2026-07-01T10:00Z"),
    ],
)
def test_an_instant_without_an_offset_is_in_the_zone_of_the_schedule(text: str, at: str) -> None:
    assert instant(text, "Europe/Madrid") == utc(at)


@pytest.mark.parametrize("text", ["tomorrow", "", "2026-13-01", "0001-01-01"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(ScheduleError, match="is not a time; write one like 2013-07-01"):
        instant(text, "Asia/Tokyo")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": utc("2026-01-02T00:00Z"), "end": utc("2026-01-01T00:00Z")}, "ends at 2026-01-01 00:00:00, before"),
        ({"catch_up_limit": 0}, "catch-up limit of 0 is not between 1 and 1000"),
        ({"catch_up_limit": 1001}, "catch-up limit of 1001 is not"),
        ({"jitter": -1.0}, "jitter of -1 seconds is not"),
        ({"grace": float("nan")}, "grace of nan seconds is not"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        validate(replace(Schedule(cron="0 6 * * *"), **wrong))  # type: ignore[arg-type]


# Jitter


def test_jitter_is_the_same_for_every_firing_and_spreads_deployments() -> None:
    schedule = Schedule(cron="0 6 * * *", next=utc("2026-01-01T06:00Z"), jitter=300.0, catch_up=CatchUp.ALL)
    waits = {}
    for name in [f"flights {number}" for number in range(100)]:
        runs = cron.plan(replace(due(schedule), name=name), utc("2026-01-03T06:00Z")).runs
        seconds = {(run.available - run.scheduled_for).total_seconds() for run in runs}  # type: ignore[operator]
        assert len(seconds) == 1
        waits[name] = seconds.pop()
    assert 0 <= min(waits.values()) < 30
    assert 270 < max(waits.values()) < 300


# In words


@pytest.mark.parametrize(
    ("expression", "at", "words"),
    [
        ("30 2 * * *", "2026-03-29T01:00Z", "02:30 does not exist that day"),
        ("0,15 2 * * *", "2026-03-29T01:00Z", "02:00, 02:15 do not exist that day"),
        ("*/10 2 * * *", "2026-03-28T01:00Z", None),
        ("30 2 * * *", "2026-03-28T01:30Z", None),
        ("0 3 * * *", "2026-03-29T01:00Z", None),
        ("0 * * * *", "2026-03-29T01:00Z", None),
        ("30 2 * * *", "2026-10-25T00:30Z", "02:30 comes twice that day; it fires the first time only"),
        ("30 * * * *", "2026-10-25T00:30Z", "02:30 comes twice that day; this is the first"),
        ("30 * * * *", "2026-10-25T01:30Z", "02:30 comes twice that day; this is the second"),
        ("0 3 * * *", "2026-10-25T02:00Z", None),
    ],
)
def test_what_the_clocks_did_to_a_firing_is_said_in_words(expression: str, at: str, words: str | None) -> None:
    schedule = Schedule(cron=expression, zone="Europe/Madrid")
    assert moved(schedule, utc(at)) == words
