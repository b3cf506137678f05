"""On any graph: the result of calling the functions one by one, each exactly once, after all it reads."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowkit as fk
from flowkit.model import State

#: For each node the nodes before it that it reads.
graphs = st.integers(1, 25).flatmap(
    lambda count: st.tuples(
        *(st.lists(st.integers(0, max(place - 1, 0)), max_size=4, unique=True) for place in range(count))
    )
).map(lambda graph: [reads if place else [] for place, reads in enumerate(graph)])  # fmt: skip


def built(graph: list[list[int]], failing: set[int], ran: list[tuple[int, int]]) -> fk.Flow:
    flow = fk.Flow("random")
    clock = itertools.count()

    def function(place: int) -> Callable[..., int]:
        def call(**inputs: int) -> int:
            ran.append((next(clock), place))
            if place in failing:
                raise ValueError(place)
            return place + sum(inputs.values())

        return call

    # Defined in reverse, so that the order of definition is of no help.
    for place in reversed(range(len(graph))):
        flow.add(function(place), f"n{place}", **{f"x{other}": f"n{other}" for other in graph[place]})
    return flow


@settings(max_examples=60, deadline=None)
@given(graph=graphs, threads=st.sampled_from([1, 2, 5]))
def test_a_run_equals_calling_the_functions_in_order(graph, threads):
    ran: list[tuple[int, int]] = []
    expected: list[int] = []
    for place, reads in enumerate(graph):
        expected.append(place + sum(expected[other] for other in reads))

    outcome = built(graph, set(), ran).run(threads=threads)

    assert [outcome[f"n{place}"] for place in range(len(graph))] == expected
    when = {place: tick for tick, place in ran}
    assert len(ran) == len(when) == len(graph)
    assert all(when[other] < when[place] for place, reads in enumerate(graph) for other in reads)


@settings(max_examples=60, deadline=None)
@given(graph=graphs, failing=st.sets(st.integers(0, 24), min_size=1, max_size=4), threads=st.sampled_from([1, 2, 5]))
def test_exactly_the_descendants_of_what_failed_are_skipped(graph, failing, threads):
    ran: list[tuple[int, int]] = []
    states: dict[str, State] = {}
    for place, reads in enumerate(graph):
        spoilt = any(states[f"n{other}"] is not State.SUCCEEDED for other in reads)
        states[f"n{place}"] = State.SKIPPED if spoilt else State.FAILED if place in failing else State.SUCCEEDED

    flow = built(graph, failing, ran)
    if State.FAILED in states.values():
        with pytest.raises(fk.NodeFailed):
            flow.run(threads=threads)
    else:
        flow.run(threads=threads)

    assert flow.outcome.states == states
    assert {run.name: run.state for run in flow.outcome.nodes} == states
    assert sorted(place for _, place in ran) == [
        place for place in range(len(graph)) if states[f"n{place}"] is not State.SKIPPED
    ]
