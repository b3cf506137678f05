"""What tests of flowkit, and of what is built on it, put in the place of its slow parts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

from flowkit.events import Event
from flowkit.family import CHILDREN
from flowkit.model import Cause, Ending, State, epoch
from flowkit.worker.kernel import Order, Stop

#: Seconds after which a fake kernel notices that it is to stop.
STEP = 0.2


class FakeKernel:
    """Executes orders as ``run_notebook`` does, without a kernel: ``Dispatcher(…, execute=FakeKernel())``.

    What it does stands in the run's parameters: it takes ``seconds`` (0), and its first ``failures`` (0) attempts fail.
    ``children`` (0) runs of the first notebook of its family, with the parameters ``child``, must have succeeded.
    """

    def __init__(
        self, *, sleep: Callable[[float], None] = time.sleep, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._sleep, self._monotonic = sleep, monotonic

    def __call__(
        self,
        order: Order,
        *,
        on_events: Callable[[Sequence[Event]], None],
        on_last: Callable[[Sequence[Event]], None] | None = None,
        on_save: Callable[[str], None],
        on_growth: object = None,
        stop: Stop,
    ) -> Ending:
        on_events([Event("cell", epoch(), "1", state=State.RUNNING)])
        until = self._monotonic() + float(order.parameters.get("seconds", 0.0))
        while (left := until - self._monotonic()) > 0 and stop.reason is None:
            self._sleep(min(left, STEP))
        if stop.reason is not None:
            ending = Ending(State.CANCELLED, None, stop.reason)
        elif order.current.attempt <= order.parameters.get("failures", 0):
            ending = Ending(State.FAILED, Cause.NOTEBOOK, f"attempt {order.current.attempt} fails")
        else:
            ending = _children(order, on_events)
        ended = ending.state if ending.state in (State.SUCCEEDED, State.PENDING) else State.FAILED
        (on_last or on_events)([Event("cell", epoch(), "1", state=ended, error=ending.error)])
        on_save(order.notebook)
        return ending


def _children(order: Order, on_events: Callable[[Sequence[Event]], None]) -> Ending:
    """As the node of a flow asks for them: those that are not known, and waits for those that have not ended."""
    ids = [f"{order.current.id}-{number}" for number in range(order.parameters.get("children", 0))]
    if not ids:
        return Ending(State.SUCCEEDED)
    told = json.loads((order.folder / CHILDREN).read_text(encoding="utf-8"))
    known, name = told["known"], next(iter(told["notebooks"]))
    ask = {"notebook": name, "parameters": order.parameters["child"]}
    for id in ids:
        data = {"child": id} if id in known else {"child": id, "ask": ask}
        if id not in known or not State(known[id]["state"]).final:
            on_events([Event("node", epoch(), id, "flow", State.PENDING, data=data)])
    states = {State(known[id]["state"]) if id in known else State.PENDING for id in ids}
    if not all(state.final for state in states):
        return Ending(State.PENDING)
    if states != {State.SUCCEEDED}:
        return Ending(State.FAILED, Cause.NOTEBOOK, "a child failed")
    return Ending(State.SUCCEEDED)
