"""What is asked each second, or at each look, is found by an index: it costs as much however many runs there are.

Cost is what the database itself counts for the statements that the store really sends, not time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import sqlalchemy as sa

from flowkit.errors import NotFound
from flowkit.model import LIVE, Backfill, Ending, Plan, Policy, State, Tells, watches
from flowkit.store import Store
from flowkit.store.alerts import After
from flowkit.store.schema import alerts, notices
from tests.store.given import T0, TEXT, at, claimed, copy, deployment, run, submitted

#: So many runs are put in; whatever looks at all of them does more steps than that.
MANY = 3_000

QUESTIONS: dict[str, Callable[[Store], object]] = {
    "claim": lambda store: store.claim(["default"], "w", now=T0),
    "claim of several queues": lambda store: store.claim(["default", "other"], "w", now=T0),
    "ready": lambda store: store.ready(["default", "other"], now=T0, limit=4),
    "beats": lambda store: store.beats(),
    "due": lambda store: store.due(now=T0, limit=1),
    "fire": lambda store: store.fire(lambda one: Plan(runs=[], skips=[], next=None), now=T0),
    "submit": lambda store: store.submit(run(), TEXT),
    "prunable": lambda store: store.prunable(limit=4),
    "prunable after a run": lambda store: store.prunable(like=[run(), run(deployment="flights")], limit=4),
    "forget": lambda store: store.forget(["x"]),
    "counts": lambda store: store.counts(most=100),
    "depth": lambda store: store.depth(T0),
    "queues": lambda store: store.queues(),
    "runs": lambda store: store.runs(limit=4),
    "runs, the next page": lambda store: store.runs(limit=4, before=run()),
    "runs in two states": lambda store: store.runs(states=[State.FAILED, State.CANCELLED], before=run(), limit=4),
    "runs of a deployment": lambda store: store.runs(deployment="flights", before=run(), limit=4),
    "runs of a deployment that failed": lambda store: store.runs(deployment="flights", states=[State.FAILED], limit=4),
    "ended lately": lambda store: store.ended(since=at(2), limit=4),
    "the newest of a deployment": lambda store: store.lately(["flights"], limits={State.SUCCEEDED: 4, State.FAILED: 4}),
    "the last success of deployments": lambda store: store.last_successes(["flights", "full"]),
    "changes": lambda store: store.changes(after=store.here(), limit=4),
    "under way": lambda store: store.under_way(limit=4),
    "rates": lambda store: store.rates(since=at(2), now=at(9), limit=4),
    "what waits and runs, by deployment": lambda store: store.tally(under_way=True),
    "runs of a queue": lambda store: store.search(queue="other", before=run(), limit=4),
    "runs with a parameter": lambda store: store.search(parameters=[("n", "7")], limit=4, scanned=10),
    "runs of a deployment with an error": lambda store: store.search(
        deployment="flights", error="x", limit=4, scanned=10
    ),
    "run by the beginning of its id": lambda store: missing(store, "abcd"),
    "what began and ended": lambda store: store.moves(after=store.here()),
    "what ended since": lambda store: store.ended_since(at(99)),
    "what has not started": lambda store: store.unstarted(before=at(2)),
    "what goes on": lambda store: store.going(before=at(2)),
    "queues in use": lambda store: store.queues_in_use(),
    "skipped": lambda store: store.skipped(since=at(2)),
    "a later firing": lambda store: store.fired_after("flights", at(2)),
    "deploy": lambda store: store.deploy(deployment("full", policy=Policy(rate="1/second")), TEXT, now=T0),
}


#: Of what people were told, and are to be.
TOLD: dict[str, Callable[[Store], object]] = {
    "alerts of some": lambda store: store.alerts_for(["flights", "d7"]),
    "are there any": lambda store: store.has_alerts(),
    "told": lambda store: store.notices(limit=4),
    "told, the next page": lambda store: store.notices(limit=4, before=After(at(9), "x", "x", "late")),
    "told of a deployment": lambda store: store.notices(deployment="d7", limit=4),
    "what lasts": lambda store: store.lasting(),
    "the last": lambda store: store.last_notice("0", "d7", Tells.FAILURE, Tells.RECOVERY),
    "what is due": lambda store: store.take_notices(now=at(10**6), lease=LIVE),
    "where to": lambda store: store.due_addresses(now=at(10**6)),
    "forget": lambda store: store.forget_notices(before=at(-1)),
}


def missing(store: Store, id: str) -> None:
    with suppress(NotFound):
        store.run(id)


@pytest.fixture
def used(store: Store) -> Store:
    """A store with some of everything: a limit that is reached, a schedule, a backfill."""
    full = Policy(max_concurrent=1)
    store.deploy(deployment("full", policy=full), TEXT, now=T0)
    running = submitted(store, deployment="full", version=1, max_concurrent=1)
    assert store.claim(["default"], "w", now=T0).id == running.id  # type: ignore[union-attr]
    for queue in ("default", "other"):
        submitted(store, deployment="full", version=1, queue=queue, priority=9, max_concurrent=1)
        for number in range(9):
            submitted(store, queue=queue, created=at(number))
    for number in range(5):
        ended = claimed(store, deployment="flights", version=1, created=at(number))
        store.finish(ended.id, 1, Ending(State.SUCCEEDED if number else State.FAILED), now=at(number))
    day = Backfill(id="full:day", deployment="full", parameter="day", concurrency=1, created=T0, counts={})
    waiting = [run(deployment="full", version=1, series="full:day") for _ in range(3)]
    store.backfill(day, waiting, again=[], only_again=False, now=T0)
    return store


def test_questions_cost_as_much_whatever_the_number_of_runs_that_have_ended(used: Store) -> None:
    before = {what: cost(used, ask) for what, ask in QUESTIONS.items()}
    for old in used.runs(deployment="flights"):
        copy(used, old, MANY // 5, every="1 seconds")
    analyse(used)

    assert len(used.runs(states=[State.FAILED], limit=MANY)) >= MANY // 5
    after = {what: cost(used, ask) for what, ask in QUESTIONS.items()}
    assert {what: (before[what], now) for what, now in after.items() if now > before[what] + 0.9 * MANY} == {}


def test_what_people_were_told_costs_as_much_however_much_that_is(used: Store) -> None:
    for number, kind in enumerate(Tells):
        alert = used.add_alert(None if number < 3 else "full", "ops", watches("failure,late"), now=T0)
        used.notice_trouble(alert, kind, "full", run=f"r{number}", reason="x", now=at(number))
        for notice in used.take_notices(now=at(99), lease=LIVE) if number else ():
            used.notices_sent([notice], now=at(99))
    assert len(used.notices()) == len(Tells)
    before = {what: cost(used, ask) for what, ask in TOLD.items()}
    with used.writing() as connection:
        some = [
            {"id": f"{number}", "deployment": f"d{number}", "secret": "ops", "on": "failure,late", "created": T0}
            for number in range(MANY)
        ]
        connection.execute(sa.insert(alerts), some)
        each = [
            {"alert": f"{number % 9}", "deployment": f"d{number % 9}", "run": f"r{number}", "kind": "failure"}
            | {"reason": "x", "of": at(number), "tries": 1, "due": None, "sent": at(number), "error": None}
            for number in range(MANY)
        ]
        connection.execute(sa.insert(notices), each)
    analyse(used)

    after = {what: cost(used, ask) for what, ask in TOLD.items()}
    assert {what: (before[what], now) for what, now in after.items() if now > before[what] + 0.3 * MANY} == {}


def test_runs_of_a_full_deployment_cost_nothing_to_those_that_are_claimed_behind_them(used: Store) -> None:
    claims = {what: QUESTIONS[what] for what in ("claim", "claim of several queues", "ready")}
    before = {what: cost(used, ask) for what, ask in claims.items()}
    [ahead] = [run for run in used.runs(deployment="full") if run.policy.priority and run.policy.queue == "default"]
    copy(used, ahead, MANY, every="1 seconds")
    analyse(used)

    after = {what: cost(used, ask) for what, ask in claims.items()}
    assert {what: (before[what], now) for what, now in after.items() if now > before[what] + 0.9 * MANY} == {}


def test_what_reads_all_runs_costs_more_than_that(used: Store) -> None:
    def read(store: Store) -> None:
        with store.reading() as connection:
            connection.execute(sa.text("SELECT max(output) FROM runs"))

    before = cost(used, read)
    copy(used, used.runs(limit=1)[0], MANY, every="1 seconds")
    analyse(used)

    assert cost(used, read) > before + 0.9 * MANY


def cost(store: Store, ask: Callable[[Store], object]) -> int:
    """What the database goes through for all statements of a question: its own instructions, or rows.

    Everything is asked twice, since the first time SQLite plans.
    """
    with sent(store) as statements:
        ask(store)
    assert statements
    total = 0
    for statement, values in statements:
        if statement.startswith("INSERT"):  # looks for nothing, and cannot be repeated
            continue
        with store._engine.connect() as connection:
            connection.begin()
            total += (
                _instructions(connection, statement, values) if store._file else _rows(connection, statement, values)
            )
            connection.rollback()
    return total


def _instructions(connection: sa.Connection, statement: str, values: Any) -> int:
    count = 0

    def step() -> int:
        nonlocal count
        count += 10
        return 0

    dbapi: Any = connection.connection.dbapi_connection
    cursor = dbapi.execute(statement, values)
    cursor.fetchall()
    dbapi.set_progress_handler(step, 10)
    dbapi.execute(statement, values).fetchall()
    dbapi.set_progress_handler(None, 0)
    return count


def _rows(connection: sa.Connection, statement: str, values: Any) -> int:
    # So few are read whole faster than by an index, of which the plan for many would make use.
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
    found = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values).scalar_one()
    return _read(found[0]["Plan"])


def _read(plan: dict[str, Any]) -> int:
    """Rows that this node of a plan, and those below it, have looked at."""
    removed = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
    mine = (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return int(mine) + sum(_read(part) for part in plan.get("Plans", []))


def analyse(store: Store) -> None:
    with store._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE" if store.url.get_backend_name() == "sqlite" else "VACUUM ANALYZE")


@contextmanager
def sent(store: Store) -> Iterator[list[tuple[str, Any]]]:
    """The statements that reach the database meanwhile, with their values."""
    found: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, values: Any, ___: object, many: bool) -> None:
        if not statement.startswith("BEGIN"):
            found.append((statement, values[0] if many else values))

    sa.event.listen(store._engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        sa.event.remove(store._engine, "before_cursor_execute", note)
