"""What may go wrong with the store in chance's own order, as often as you like: races, and outages of the schedule."""

from __future__ import annotations

import random
import time
from collections import Counter
from datetime import timedelta

from flowkit.errors import Conflict
from flowkit.model import CatchUp, Ending, Overlap, Schedule, State
from flowkit.store import Store
from flowkit.worker import cron
from tests.store import given
from tests.store.given import T0, TEXT, at


def cancel_against_finish(store: Store, count: int) -> Counter[State]:
    """How the runs ended. Each ended once, as whoever was first has been told."""
    ended: Counter[State] = Counter()
    for number in range(count):
        run = given.claimed(store)

        hesitates = number % 5 * 0.0002  # or finish, which asks twice, would never be first

        def act(actor: int, run: str = run.id, hesitates: float = hesitates) -> bool:
            if actor == 0:
                after = store.finish(run, 1, Ending(State.SUCCEEDED), now=given.T0)
                assert after is not None
                return after.state is State.SUCCEEDED
            time.sleep(hesitates)
            try:
                return store.cancel(run, now=given.T0).cancelling
            except Conflict:
                return False

        first, second = given.together(2, act)

        assert first != second, f"race {number}: finish {first}, cancel {second}"
        state = store.run(run.id).state
        assert state is (State.SUCCEEDED if first else State.CANCELLED), f"race {number}: {state}"
        ended[state] += 1
    return ended


def outages(store: Store, seed: int) -> int:
    """Ten schedules of random policies over ten random outages; how many firings were neither a run nor a skip, or
    both, is asserted to be 0. Returns how many outages of schedules that were. The store is empty before."""
    chance = random.Random(seed)
    anchor = at(-7)
    for number in range(10):
        every = chance.choice([1.0, 60.0, 3600.0, 86_400.0])
        schedule = Schedule(
            every=every,
            anchor=anchor,
            next=anchor + timedelta(seconds=every),
            catch_up=chance.choice(list(CatchUp)),
            catch_up_limit=chance.choice([1, 3, 100]),
            overlap=chance.choice(list(Overlap)),
        )
        store.deploy(given.deployment(f"flights {number}", schedule=schedule), TEXT, now=T0)
    now = T0
    for _ in range(10):
        now += timedelta(seconds=chance.choice([1, 61, 3600, 10_000, 400_000]))
        while any(store.fire(lambda deployment, now=now: cron.plan(deployment, now), now=now, limit=3)):  # type: ignore[misc]
            pass
        while chance.random() < 0.8 and (run := store.claim(["default"], "w1", now=now)):
            if chance.random() < 0.7:
                store.finish(run.id, run.attempt, Ending(State.SUCCEEDED), now=T0)
    for deployment in store.deployments():
        its = deployment.schedule
        assert its is not None
        assert its.every is not None
        expected = (now - anchor) // timedelta(seconds=its.every)
        runs = store.runs(deployment=deployment.name, limit=10_000)
        skips = store.skips(deployment.name, limit=10_000)
        assert len({run.scheduled_for for run in runs}) == len(runs)
        assert len(runs) + sum(skip.count for skip in skips) == expected, (seed, deployment)
    return 10 * 10
