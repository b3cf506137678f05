"""Looks whether something is late, takes too long, is stuck or was skipped; says so once, and when it is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from statistics import median
from time import monotonic

from flowkit.errors import NotFound
from flowkit.model import LEAST_WATCH, LIVE, Alert, Deployment, Notice, Reason, Run, Skip, State, Tells, iso
from flowkit.store import Store
from flowkit.store.changes import Position
from flowkit.store.troubles import Move

#: The first look, and one after a long sleep, goes back so far.
LATELY = timedelta(hours=24)
#: A look that comes so long after the one before is like the first.
SLEPT = timedelta(hours=1)
#: What nobody looked at for so long may have moved meanwhile.
GAP = timedelta(minutes=1)
#: What was skipped is looked for so far back each time: the clocks of those who skip may differ from ours.
CLOCKS = timedelta(minutes=5)

#: Successes of which the usual duration is the median; with fewer than so many nobody knows it.
USUAL, FEWEST = 20, 3
#: Seconds for which it is known.
KNOWN = 30.0
#: Seconds more than usual before a run takes too long: three times a moment is nothing.
MARGIN = 60.0

#: Of so many runs that wait in a queue the number is told.
COUNTED = 100

_WHY = {
    Reason.OVERLAP: ("an earlier run of the schedule had not ended", "--overlap queue lets them wait"),
    Reason.MISSED: ("nobody was there when it was time", "keep a worker running; --catch-up says what is made up"),
    Reason.LIMIT: ("more were missed than are made up", "--catch-up-limit says how many are; keep a worker running"),
    Reason.REPLACED: ("a later firing was due as well", "--overlap queue lets each run"),
}


class Watcher:
    """One process's looks; ``look`` is called by one thread. Others may look as well: what is told is told once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._place: Position | None = None  # up to where it is known what has begun and ended
        self._looked: datetime | None = None
        self._idle: dict[str, datetime] = {}  # queue -> since when runs are ready there, and none was claimed
        self._claimed: dict[str, datetime] = {}  # queue -> when a claim was last seen
        self._usual: dict[str, tuple[float, float | None]] = {}

    def look(self, at: datetime) -> None:
        moves = self._moved(at)
        lasting = self._store.lasting()
        begin = at - timedelta(seconds=LEAST_WATCH)
        late = {run.deployment or "": run for run in self._store.unstarted(before=begin)}
        overdue = {one.name: one for one in self._store.due(now=begin)}
        going = self._store.going(before=begin)
        skips = self._store.skipped(since=at - (LATELY if self._looked is None else CLOCKS))
        idle = self._queues(moves, at)
        names = {move.deployment for move in moves} | {run.deployment for run in going} | late.keys() | overdue.keys()
        names |= {skip.deployment for skip in skips} | {one.subject for one in lasting if not one.about_queue}
        alerts = self._store.alerts_for(filter(None, names))
        told = {(one.alert, one.kind, one.subject) for one in lasting}
        self._failures(alerts, moves, at)
        still = self._late(alerts, late, overdue, told, at)
        self._started_late(alerts, moves, at)
        self._long(alerts, going, told, at)
        self._stuck(alerts, idle, late, told, at)
        self._skipped(alerts, skips, told, at)
        for notice in lasting:
            self._end(notice, still, at)
        self._looked = at

    # -- what happened ------------------------------------------------------------------------------------------------

    def _moved(self, at: datetime) -> list[Move]:
        if self._place is None or self._looked is None or at - self._looked > SLEPT:
            self._place, self._looked = self._store.here(), None
            return self._store.ended_since(at - LATELY)
        moves, self._place = self._store.moves(after=self._place)
        return moves

    def _failures(self, alerts: list[Alert], moves: list[Move], at: datetime) -> None:
        ended = {move.deployment for move in moves if move.state is not State.RUNNING and move.deployment}
        for name in sorted(ended):
            for alert in _of(alerts, name):
                if alert.watch(Tells.FAILURE) or alert.watch(Tells.RECOVERY):
                    self._store.notice_failures(alert, name, now=at)

    # -- late ---------------------------------------------------------------------------------------------------------

    def _late(
        self,
        alerts: list[Alert],
        waiting: Mapping[str, Run],
        overdue: Mapping[str, Deployment],
        told: set[tuple[str, Tells, str]],
        at: datetime,
    ) -> set[tuple[str, str]]:
        """Which deployments are late for which alerts."""
        found = set()
        for name in sorted(waiting.keys() | overdue.keys()):
            run, deployment = waiting.get(name), overdue.get(name)
            dues = [_due(run)] if run else []
            firing = deployment.schedule.next if deployment and deployment.schedule else None
            due = min([*dues, *([firing] if firing else [])])
            for alert in _of(alerts, name):
                after = _seconds(alert, Tells.LATE)
                if after is None or due + timedelta(seconds=after) > at:
                    continue
                found.add((alert.id, name))
                if (alert.id, Tells.LATE, name) not in told:
                    key, reason = self._why_late(name, run, due, at)
                    self._store.notice_trouble(alert, Tells.LATE, name, run=key, reason=reason, now=at)
        return found

    def _why_late(self, name: str, run: Run | None, due: datetime, at: datetime) -> tuple[str, str]:
        waited = _span((at - due).total_seconds())
        if run is None or _due(run) > due:
            what = f"due at {_instant(due)}, and {waited} later no worker has taken note"
            return f"{name}@{iso(due)}", f"{what}\nstart a worker, which fires what is due: flowkit worker"
        what = f"due at {_instant(due)}, and not started {waited} later"
        return run.id, f"{what}: {self._why_waiting(run.policy.queue, at, in_line=run.series is not None)}"

    def _why_waiting(self, queue: str, at: datetime, *, in_line: bool = False) -> str:
        """With the remedy in a second line. *in_line*: it may be that its turn has not come."""
        serving = [one for one in self._store.workers(since=at - LIVE) if queue in one.queues]
        start = "flowkit worker" if queue == "default" else f"flowkit worker --queue {queue}"
        if not serving:
            return f"no worker is alive on queue {queue!r}\nstart one: {start}"
        if in_line:
            return "earlier runs of its schedule have not ended\nsee which: flowkit runs"
        places = sum(one.concurrency for one in serving)
        free = "the place" if places == 1 else f"the {places} places"
        return f"{free} of its workers, or its limits, are taken\nstart another worker: {start}"

    def _started_late(self, alerts: list[Alert], moves: list[Move], at: datetime) -> None:
        """Runs that nobody has seen waiting: of firings that are made up, when a worker comes back."""
        for name, theirs in _by_deployment(moves).items():
            for alert in _of(alerts, name):
                after = _seconds(alert, Tells.LATE)
                begun = [one for one in theirs if one.state is State.RUNNING and one.attempt == 1 and one.started]
                late = [one for one in begun if after is not None and _lateness(one) > after]
                if late and late[0].scheduled_for:
                    spread = self._spread(name)
                    late = [one for one in late if _lateness(one) > (after or 0.0) + spread]
                if not late:
                    continue
                last = self._store.last_notice(alert.id, name, Tells.LATE, Tells.STARTED)
                first = late[0]
                assert first.started is not None
                if last is not None and last.of >= first.started - CLOCKS:
                    continue  # it was told while it waited
                more = f", and {len(late) - 1} more of it" if len(late) > 1 else ""
                reason = f"started {_span(_lateness(first))} late, due at {_instant(_due(first))}{more}"
                remedy = "nobody fired it or had room when it was due; see who works: flowkit workers"
                reason = f"{reason}\n{remedy}"
                self._store.notice_trouble(alert, Tells.LATE, name, run=first.run, reason=reason, now=at, lasts=False)

    def _spread(self, name: str) -> float:
        """Seconds by which its runs may begin later than they are due."""
        try:
            schedule = self._store.deployment(name).schedule
        except NotFound:
            return 0.0
        return schedule.jitter if schedule else 0.0

    # -- too long -----------------------------------------------------------------------------------------------------

    def _long(self, alerts: list[Alert], going: list[Run], told: set[tuple[str, Tells, str]], at: datetime) -> None:
        for run in sorted(going, key=lambda run: run.started or at):  # the longest first
            name = run.deployment or ""
            for alert in _of(alerts, name):
                watch = alert.watch(Tells.LONG)
                if watch is None or run.started is None or (alert.id, Tells.LONG, name) in told:
                    continue
                spent = (at - run.started).total_seconds()
                usual = None if watch.times is None else self.usual(name)
                if watch.times is not None:
                    if usual is None or spent <= max(watch.times * usual, usual + MARGIN):
                        continue
                    than = f"usually it takes {_span(usual)}"
                else:
                    if spent <= (watch.seconds or 0):
                        continue
                    than = f"more than {watch.after}"
                others = sum(1 for one in going if one.deployment == name) - 1
                more = f"; {others} more of it run" if others else ""
                reason = f"has run for {_span(spent)}, {than}{more}"
                remedy = f"see where it is, or cancel it: flowkit cancel {run.id[:8]}"
                reason = f"{reason}\n{remedy}"
                self._store.notice_trouble(alert, Tells.LONG, name, run=run.id, reason=reason, now=at)
                told.add((alert.id, Tells.LONG, name))

    def usual(self, name: str) -> float | None:
        """Seconds that its runs take which succeed; None: there are too few."""
        until, known = self._usual.get(name, (0.0, None))
        if monotonic() < until:
            return known
        newest = self._store.lately([name], limits={State.SUCCEEDED: USUAL})[name]
        took = [run.took for run in newest if run.took is not None]
        found = median(took) if len(took) >= FEWEST else None
        if len(self._usual) > 1_000:
            self._usual.clear()
        self._usual[name] = monotonic() + KNOWN, found
        return found

    # -- stuck --------------------------------------------------------------------------------------------------------

    def _queues(self, moves: list[Move], at: datetime) -> Mapping[str, datetime]:
        """Since when runs are ready in a queue and none was claimed, as this process has seen it."""
        for move in moves:
            if move.state is State.RUNNING:
                self._claimed[move.queue] = at
        if self._looked is None or at - self._looked > GAP:
            self._idle = {}
        idle = {}
        for name in self._store.queues_in_use():
            if self._store.ready([name], now=at, limit=1):
                since = self._idle.get(name, at)
                idle[name] = max(since, self._claimed.get(name, since))
        self._idle = idle
        return idle

    def _stuck(
        self,
        alerts: list[Alert],
        idle: Mapping[str, datetime],
        waiting: Mapping[str, Run],
        told: set[tuple[str, Tells, str]],
        at: datetime,
    ) -> None:
        for queue, since in sorted(idle.items()):
            in_it = {name for name, run in waiting.items() if run.policy.queue == queue}
            for alert in alerts:
                after = _seconds(alert, Tells.STUCK)
                concerned = alert.deployment is None or alert.deployment in in_it
                if after is None or not concerned or (alert.id, Tells.STUCK, queue) in told:
                    continue
                if since + timedelta(seconds=after) > at:
                    continue
                many = self._store.ready([queue], now=at, limit=COUNTED)
                what = "1 run is ready" if many == 1 else f"{many}{'+' if many == COUNTED else ''} runs are ready"
                reason = f"{what}, and nobody claimed any for {_span((at - since).total_seconds())}"
                reason = f"{reason}: {self._why_waiting(queue, at)}"
                key = f"{queue}@{iso(since)}"
                self._store.notice_trouble(alert, Tells.STUCK, queue, run=key, reason=reason, now=at)

    # -- skipped ------------------------------------------------------------------------------------------------------

    def _skipped(
        self, alerts: list[Alert], skips: Iterable[Skip], told: set[tuple[str, Tells, str]], at: datetime
    ) -> None:
        """The first of a row; it lasts until a firing becomes a run again."""
        for skip in skips:
            name = skip.deployment
            for alert in _of(alerts, name):
                known = not alert.watch(Tells.SKIPPED) or (alert.id, Tells.SKIPPED, name) in told
                if known or skip.at < alert.created:
                    continue
                last = self._store.last_notice(alert.id, name, Tells.SKIPPED, Tells.FIRED)
                if last is not None and (skip.at <= last.of or _fired(last) >= skip.first):
                    continue
                why, remedy = _WHY[skip.reason]
                of = _instant(skip.first)
                what = f"its firing of {of}" if skip.count == 1 else f"{skip.count:,} firings from {of} on"
                reason = f"{what} did not run: {why}\n{remedy}; all: flowkit schedule skips {name}"
                key = f"{name}@{iso(skip.first)}"
                self._store.notice_trouble(alert, Tells.SKIPPED, name, run=key, reason=reason, now=at)
                told.add((alert.id, Tells.SKIPPED, name))

    # -- over ---------------------------------------------------------------------------------------------------------

    def _end(self, notice: Notice, late: set[tuple[str, str]], at: datetime) -> None:
        over, reason = False, None
        if notice.kind is Tells.SKIPPED:
            over = self._store.fired_after(
                notice.subject, _fired(notice)
            )  # which is not told: what was skipped stays so
        elif notice.kind is Tells.STUCK:
            claimed = self._claimed.get(notice.subject)
            over = notice.subject not in self._idle or (claimed is not None and claimed > notice.of)
            reason = "runs are claimed again" if claimed and claimed > notice.of else "nothing is ready there any more"
        elif notice.kind is Tells.LATE:
            over = (notice.alert, notice.subject) not in late
            reason = self._how_started(notice) if over else None
        elif notice.kind is Tells.LONG:
            over = not self._store.under_way_of([notice.run])
            reason = self._how_ended(notice) if over else None
        if over:
            self._store.notice_end(notice, reason, now=at)

    def _how_started(self, notice: Notice) -> str:
        run = self._run(notice)
        if run is None:
            return "it fires again"
        if run.started is None:
            return f"it waits no longer: {run.state}"
        return f"started {_span((run.started - _due(run)).total_seconds())} late"

    def _how_ended(self, notice: Notice) -> str:
        run = self._run(notice)
        if run is None or run.started is None:
            return "it runs no longer"
        took = _span(((run.finished or run.started) - run.started).total_seconds())
        return f"{run.state} after {took}" if run.finished else f"it runs no longer: {run.state}"

    def _run(self, notice: Notice) -> Run | None:
        try:
            return self._store.run(notice.of_run) if notice.of_run else None
        except NotFound:
            return None


def _of(alerts: Iterable[Alert], name: str) -> list[Alert]:
    return [alert for alert in alerts if alert.deployment in (None, name)]


def _seconds(alert: Alert, kind: Tells) -> float | None:
    watch = alert.watch(kind)
    return None if watch is None else watch.seconds


def _due(run: Run | Move) -> datetime:
    """When it ought to have begun: its firing, spread by the jitter, or when it was submitted."""
    return max(filter(None, (run.scheduled_for or run.created, run.available)))


def _lateness(move: Move) -> float:
    return (move.started - (move.scheduled_for or move.created)).total_seconds() if move.started else 0.0


def _fired(notice: Notice) -> datetime:
    """The firing that it is about."""
    return datetime.fromisoformat(notice.run.rpartition("@")[2])


def _by_deployment(moves: Iterable[Move]) -> dict[str, list[Move]]:
    found: dict[str, list[Move]] = {}
    for move in moves:
        if move.deployment:
            found.setdefault(move.deployment, []).append(move)
    return found


def _instant(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")


def _span(seconds: float) -> str:
    """For people: ``2 h 5 min``."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
