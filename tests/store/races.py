"""Cancel and finish of a run at the same moment, as often as you like."""

from __future__ import annotations

import time
from collections import Counter

from flowkit.errors import Conflict
from flowkit.model import Ending, State
from flowkit.store import Store
from tests.store import given


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
