"""When schedules fire, also where the clocks change."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.errors import ScheduleError
from flowkit.model import Schedule
from flowkit.worker import cron
from flowkit.worker.cron import describe, latest_due, next_firing, validate
from tests import zones

unhurried = settings(deadline=None)  # a busy machine is no failure
MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def firings(schedule: Schedule, start: datetime, end: datetime) -> list[datetime]:
    found = []
    at = next_firing(schedule, start)
    while at < end:
        found.append(at)
        at = next_firing(schedule, at)
    return found


def on_the_clock(expression: str, zone: str, day: str, *, days: int = 1) -> list[str]:
    """The firings of a local day, as the clocks show them."""
    start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    end = start + timedelta(days=days)
    found = firings(Schedule(cron=expression, zone=zone), start.astimezone(UTC) - MINUTE, end.astimezone(UTC))
    return [at.astimezone(ZoneInfo(zone)).strftime("%H:%M %Z") for at in found]


def refusal(**schedule: object) -> str:
    with pytest.raises(ScheduleError) as caught:
        validate(Schedule(**schedule))  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


# What is a schedule


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("0 6 * * *", "0 6 * * *"),
        ("  0   6 * *\t* ", "0 6 * * *"),
        ("@daily", "0 0 * * *"),
        ("@Hourly", "0 * * * *"),
        ("0 9 * * mon-fri", "0 9 * * mon-fri"),
        ("*/5 1,2 L jan 1#2", "*/5 1,2 L jan 1#2"),
        ("0 0 29 2 *", "0 0 29 2 *"),
    ],
)
def test_a_cron_expression_is_kept_in_five_plain_fields(given, plain):
    schedule = Schedule(cron=given, zone="Europe/Berlin")
    assert validate(schedule) == replace(schedule, cron=plain)
    assert validate(validate(schedule)) == validate(schedule)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("61 * * * *", "cron '61 * * * *' has a bad minute '61'; it takes 0-59"),
        ("0 24 * * *", "cron '0 24 * * *' has a bad hour '24'; it takes 0-23"),
        ("0 0 32 * *", "has a bad day-of-month '32'; it takes 1-31 or L, on a date that exists"),
        ("0 0 30 2 *", "has a bad day-of-month '30'; it takes 1-31 or L, on a date that exists"),
        ("0 0 * 13 *", "has a bad month '13'; it takes 1-12 or JAN-DEC"),
        ("0 0 * * MOON", "has a bad day-of-week 'MOON'; it takes 0-7 or SUN-SAT"),
        ("*/0 * * * *", "has a bad minute '*/0'"),
        ("5-1 * * * *", "has a bad minute '5-1'"),
        ("0 0 6 * * *", "has six fields; seconds are not supported, so give the last five"),
        ("0 6 * *", "cron '0 6 * *' is not of the five fields minute, hour, day-of-month, month, day-of-week"),
        ("", "cron '' is not of the five fields"),
        ("@reboot", "or one of @hourly, @daily"),
        ("daily", "cron 'daily' is not of the five fields"),
        ("1," * 200 + "1 * * * *", "the cron expression has 409 characters, and 256 is the limit"),
    ],
)
def test_a_bad_cron_expression_is_refused_by_its_field(expression, message):
    assert message in refusal(cron=expression)


@unhurried
@given(st.text("0123456789*/-,#LWJANMON @? ", max_size=30) | st.text(max_size=20))
def test_any_text_is_a_cron_expression_that_fires_or_is_refused_in_one_line(text):
    try:
        fires = next_firing(validate(Schedule(cron=text)), datetime(2026, 1, 1, tzinfo=UTC))
        assert fires > datetime(2026, 1, 1, tzinfo=UTC)
    except ScheduleError as error:
        message = str(error)
        assert "\n" not in message


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        ("Europe/Berln", "there is no time zone 'Europe/Berln'; did you mean 'Europe/Berlin'?"),
        ("New_York", "there is no time zone 'New_York'; did you mean 'America/New_York'?"),
        ("europe/berlin", "there is no time zone 'europe/berlin'; did you mean 'Europe/Berlin'?"),
        ("+02:00", "there is no time zone '+02:00'; give an IANA name, such as Europe/Berlin"),
        ("localtime", "there is no time zone 'localtime'"),
        ("", "there is no time zone ''"),
        ("../../etc/passwd", "there is no time zone '../../etc/passwd'"),
    ],
)
def test_an_unknown_zone_is_refused_with_the_nearest(zone, message):
    assert message in refusal(cron="0 6 * * *", zone=zone)
    assert message in refusal(every=60.0, zone=zone)


def test_a_schedule_is_either_cron_or_interval():
    message = "a schedule needs either a cron expression or an interval, and not both"
    assert refusal() == message
    assert refusal(cron="0 6 * * *", every=60.0) == message


@pytest.mark.parametrize("seconds", [0.5, 0.0, -60.0, float("nan"), float("inf"), 1e12])
def test_an_interval_is_at_least_a_second_and_at_most_ten_years(seconds):
    assert refusal(every=seconds) == f"an interval of {seconds:g} seconds is not between 1 second and 10 years"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("1h 30m", 5400), ("1.5h", 5400)],
)
def test_an_interval_is_written_with_units(text, seconds):
    assert cron.every(text) == seconds
    assert isinstance(cron.every(text), float)


@pytest.mark.parametrize("text", ["", "15", "m", "15 minutes", "30m1h", "-5m", "1h1h", "1e3s", "٣m", "nan", "15M"])
def test_a_text_that_is_no_interval_is_refused(text):
    with pytest.raises(ScheduleError, match="is not an interval; write one like 30s, 15m, 2h, 1d or 1h30m"):
        cron.every(text)


def test_a_schedule_is_described_as_it_is_written():
    assert describe(Schedule(cron="0 6 * * *", zone="America/New_York")) == "0 6 * * * America/New_York"
    for text in ("every 15m", "every 1d", "every 1h30m", "every 1.5s", "every 1m0.25s"):
        assert describe(Schedule(every=cron.every(text.removeprefix("every ")))) == text


@unhurried
@given(st.integers(1_000, 10**9))
def test_a_described_interval_reads_as_itself(milliseconds):
    text = describe(Schedule(every=milliseconds / 1000)).removeprefix("every ")
    assert cron.every(text) == pytest.approx(milliseconds / 1000, abs=1e-6)


# Cron and the clocks


def test_a_daily_time_stays_the_same_on_the_clocks_when_they_change():
    new_york = Schedule(cron="0 6 * * *", zone="America/New_York")
    assert firings(new_york, utc("2026-03-07T00:00Z"), utc("2026-03-10T00:00Z")) == [
        utc("2026-03-07T11:00Z"),
        utc("2026-03-08T10:00Z"),
        utc("2026-03-09T10:00Z"),
    ]


@pytest.mark.parametrize(
    ("expression", "zone", "day", "times"),
    [
        # clocks go forward: 02:30 is not on them, and fires once right after the gap
        ("30 2 * * *", "America/New_York", "2026-03-08", ["03:00 EDT"]),
        ("0,30 2 * * *", "America/New_York", "2026-03-08", ["03:00 EDT"]),
        ("0 2,3 * * *", "America/New_York", "2026-03-08", ["03:00 EDT"]),
        ("30 1-3 * * *", "America/New_York", "2026-03-08", ["01:30 EST", "03:00 EDT", "03:30 EDT"]),
        ("0 0 * * *", "America/Santiago", "2026-09-06", ["01:00 -03"]),
        ("0 0 * * *", "Africa/Cairo", "2026-04-24", ["01:00 EEST"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-04", ["02:30 +11"]),
        # clocks go back: 01:30 comes twice, and fires the first time
        ("30 1 * * *", "America/New_York", "2026-11-01", ["01:30 EDT"]),
        ("0 1,2 * * *", "America/New_York", "2026-11-01", ["01:00 EDT", "02:00 EST"]),
        ("30 23 * * *", "America/Santiago", "2026-04-04", ["23:30 -03"]),
        # hourly follows elapsed time: nothing in the gap, both of two equal hours
        ("0 * * * *", "America/New_York", "2026-03-08", [f"{hour:02}:00" for hour in range(24) if hour != 2]),
        ("30 * * * *", "America/New_York", "2026-11-01", [f"{h:02}:30" for h in (0, 1, *range(1, 24))]),
        ("*/30 1 * * *", "America/New_York", "2026-11-01", ["01:00 EDT", "01:30 EDT", "01:00 EST", "01:30 EST"]),
        ("*/30 2 * * *", "America/New_York", "2026-03-08", []),
    ],
)
def test_when_the_clocks_change(expression, zone, day, times):
    found = on_the_clock(expression, zone, day)
    assert [at[: len(wanted)] for at, wanted in zip(found, times, strict=True)] == times


def test_clocks_that_go_back_over_midnight_do_not_hang_it():
    """St. John's until 2011: a minute after midnight it was 23:01 again. cronsim by itself never returns here."""
    found = on_the_clock("5 * * * 0", "America/St_Johns", "1998-10-25")
    assert found[:2] == ["00:05 NST", "01:05 NST"]
    assert len(found) == 24


def test_a_day_that_a_zone_left_out_fires_at_its_end():
    """Samoa had no 30 December 2011."""
    samoa = Schedule(cron="0 12 * * *", zone="Pacific/Apia")
    found = firings(samoa, utc("2011-12-29T12:00-10:00") - MINUTE, utc("2011-12-31T13:00+14:00"))
    assert [at.astimezone(ZoneInfo("Pacific/Apia")).isoformat() for at in found] == [
        "2011-12-29T12:00:00-10:00",
        "2011-12-31T00:00:00+14:00",
        "2011-12-31T12:00:00+14:00",
    ]


def test_in_the_second_of_two_equal_hours_the_next_firing_lies_ahead():
    new_york = Schedule(cron="30 1 * * *", zone="America/New_York")
    within = utc("2026-11-01T01:15-05:00")
    assert next_firing(new_york, within) == utc("2026-11-02T01:30-05:00")
    at = replace(new_york, next=utc("2026-10-31T01:30-04:00"))
    assert latest_due(at, within) == (utc("2026-11-01T01:30-04:00"), utc("2026-11-02T01:30-05:00"))


ZONES = {  # with days around which their clocks change
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "America/Santiago": ("2026-04-05", "2026-09-06"),
    "America/Nuuk": ("2026-03-28", "2026-10-25"),
    "Africa/Cairo": ("2026-04-24", "2026-10-30"),
    "Africa/Casablanca": ("2026-02-15", "2026-03-22"),
    "America/St_Johns": ("1998-04-05", "1998-10-25"),
    "Asia/Beirut": ("2026-03-29", "2026-10-25"),
    "Asia/Kathmandu": ("1986-01-01", "1986-01-01"),
    "Antarctica/Troll": ("2026-03-29", "2026-10-25"),
    "Atlantic/Azores": ("2026-03-29", "2026-10-25"),
    "Australia/Lord_Howe": ("2026-04-05", "2026-10-04"),
    "Europe/London": ("2026-03-29", "2026-10-25"),
    "Pacific/Apia": ("2011-12-30", "2011-12-30"),
    "UTC": ("2026-03-08", "2026-03-08"),
}
zones_and_days = st.sampled_from([(zone, day) for zone, days in ZONES.items() for day in days])
some_minutes = st.frozensets(st.sampled_from([0, 1, 5, 15, 29, 30, 45, 59]), min_size=1, max_size=3)
some_hours = st.frozensets(st.sampled_from([0, 1, 2, 3, 12, 23]), min_size=1, max_size=4)
expressions = st.builds(zones.Expression, minutes=some_minutes | st.none(), hours=some_hours | st.none())


@unhurried
@given(zones_and_days, expressions)
def test_every_firing_is_one_that_the_clocks_show(zone_and_day, expression):
    """Against Debian's rule, looked at minute by minute."""
    zone, day = zone_and_day
    start = utc(day + "T00:00Z") - timedelta(hours=20)
    end = start + timedelta(hours=54)
    assert zones.found(expression, zone, start, end) == zones.walk(expression, zone, start, end)


#: Of all zones and of the years 2000 to 2037; ``python -m tests.zones`` walks all of it.
any_zone = st.sampled_from(sorted(available_timezones() - {"localtime"}))


@unhurried
@given(any_zone, st.integers(2000, 2037), st.randoms(use_true_random=False))
def test_in_any_zone_and_year_every_firing_is_one_that_the_clocks_show(zone, year, chance):
    new_year = datetime(year, 1, 1, tzinfo=UTC)
    changes = zones.windows(zone, new_year, new_year + 365 * zones.DAY)
    start, end = chance.choice([*changes, (new_year, new_year + 5 * zones.DAY)])
    expression = zones.drawn(chance, rare=False)
    assert zones.found(expression, zone, start, end) == zones.walk(expression, zone, start, end)


EXPRESSIONS = (
    "30 2 * * *",
    "30 1 * * *",
    "0 * * * *",
    "*/20 0-3 * * *",
    "0 0 * * *",
    "15 0,1,2,3 * * 0,3",
    "7 */5 L * *",
)


@unhurried
@given(zones_and_days, st.sampled_from(EXPRESSIONS), st.integers(0, 4 * 86_400), st.sampled_from([0, 1, 999_999]))
def test_worked_out_anew_it_is_what_iteration_gives(zone_and_day, expression, seconds, microseconds):
    zone, day = zone_and_day
    start = utc(day + "T00:00Z") - timedelta(days=2)
    now = start + timedelta(seconds=seconds, microseconds=microseconds)
    schedule = Schedule(cron=expression, zone=zone)
    first = before = next_firing(schedule, start)
    after = next_firing(schedule, first)
    while after <= now:
        before, after = after, next_firing(schedule, after)
    if first <= now:
        assert latest_due(replace(schedule, next=first), now) == (before, after)
        assert next_firing(schedule, now) == after
    else:
        assert next_firing(schedule, now) == first


# Intervals


ANCHOR = utc("2026-01-01T00:00:00.25Z")
QUARTER = Schedule(every=900.0, anchor=ANCHOR)


def test_an_interval_counts_from_its_anchor():
    quarter = timedelta(minutes=15)
    assert next_firing(QUARTER, ANCHOR) == ANCHOR + quarter
    assert next_firing(QUARTER, ANCHOR + quarter - timedelta(microseconds=1)) == ANCHOR + quarter
    assert next_firing(QUARTER, ANCHOR + quarter) == ANCHOR + 2 * quarter
    assert next_firing(QUARTER, ANCHOR - timedelta(days=3)) == ANCHOR + quarter


@unhurried
@given(st.integers(1_000, 10**8), st.integers(0, 10**12))
def test_an_interval_worked_out_anew_is_what_iteration_gives(milliseconds, later):
    schedule = Schedule(every=milliseconds / 1000, anchor=ANCHOR)
    now = ANCHOR + timedelta(milliseconds=milliseconds + later)
    newest, following = latest_due(replace(schedule, next=next_firing(schedule, ANCHOR)), now)
    assert newest <= now < following
    assert next_firing(schedule, newest) == following
    assert (newest - ANCHOR) % timedelta(milliseconds=milliseconds) == timedelta(0)


# Outages


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(every=1.0, anchor=ANCHOR),
        Schedule(cron="* * * * *", zone="America/New_York"),
        Schedule(cron="* * * 1 *", zone="America/New_York"),
        Schedule(cron="0-58 0-22 * * *", zone="America/New_York"),
    ],
)
def test_a_year_of_missed_firings_costs_no_more_than_one(schedule):
    due = replace(schedule, next=next_firing(schedule, ANCHOR))
    now = ANCHOR + timedelta(days=365)
    started = time.perf_counter()
    newest, following = latest_due(due, now)
    assert time.perf_counter() - started < 0.2  # seconds; iterating takes over 10
    assert newest <= now < following
    assert next_firing(schedule, newest) == following


def test_what_is_due_exactly_now_is_the_newest():
    daily = Schedule(cron="0 6 * * *", zone="UTC", next=utc("2026-01-01T06:00Z"))
    assert latest_due(daily, utc("2026-01-01T06:00Z")) == (utc("2026-01-01T06:00Z"), utc("2026-01-02T06:00Z"))
    assert latest_due(daily, utc("2026-01-03T05:59:59Z")) == (utc("2026-01-02T06:00Z"), utc("2026-01-03T06:00Z"))


def test_it_never_falls_behind_its_cursor():
    """As when a zone's rules change between setting the cursor and reading it."""
    off = Schedule(cron="0 6 * * *", zone="UTC", next=utc("2026-01-01T07:00Z"))
    assert latest_due(off, utc("2026-01-01T08:00Z")) == (utc("2026-01-01T07:00Z"), utc("2026-01-02T06:00Z"))
