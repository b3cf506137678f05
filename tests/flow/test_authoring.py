"""What an author writes, how it becomes edges, and the sentence they read when it does not fit together."""

from __future__ import annotations

import functools

import pytest

import flowkit as fk
from flowkit.errors import ParameterError


@pytest.fixture
def flow() -> fk.Flow:
    return fk.Flow("flight delays")


def message(flow: fk.Flow, **parameters: object) -> str:
    with pytest.raises(fk.FlowkitError) as caught:
        flow.check(**parameters)
    return str(caught.value)


def double(number, times=2):
    return number * times


def divide(one, other, /, *, rest=0):
    return one / other + rest


def test_a_node_is_still_the_function_it_was(flow):
    def late(flights, min_delay=15): ...

    assert flow.node(late) is late
    assert flow.node(retries=1)(late) is late


def test_a_parameter_that_bears_a_nodes_name_is_an_edge_and_any_other_is_a_parameter_of_the_flow(flow):
    @flow.node
    def flights(day):
        return [day, day]

    @flow.node
    def count(flights, at_least=1):
        return max(len(flights), at_least)

    assert flow.run(day="2013-07-01")["count"] == 2
    assert flow.run(day="2013-07-01", at_least=5)["count"] == 5


def test_running_a_cell_again_replaces_the_node_and_its_outputs(flow):
    @flow.node(outputs=("a", "b"))
    def pair():
        return 1, 2

    @flow.node(outputs=("a", "c"))
    def pair():
        return 3, 4

    @flow.node
    def total(a, c):
        return a + c

    assert flow.run()["total"] == 7
    assert "b" not in flow.outcome
    assert repr(flow) == "Flow('flight delays'): 2 nodes"


def test_inputs_binds_a_parameter_to_a_node_a_parameter_or_a_constant(flow):
    @flow.node
    def flights():
        return 10

    @flow.node(inputs={"rows": "flights", "limit": "top", "text": fk.value("flights"), "step": 3})
    def report(rows, limit, text, step):
        return rows, limit, text, step

    assert flow.run(top=5)["report"] == (10, 5, "flights", 3)


def test_a_library_function_is_added_any_number_of_times(flow):
    @flow.node
    def start():
        return 1

    first = flow.add(double, "two", number="start")
    flow.add(double, "six", number=first, times=3)
    flow.add(functools.partial(double, times=5), "five", number="start")
    flow.add(divide, "half", one="start", other="two")

    outcome = flow.run()

    assert [outcome[name] for name in ("two", "six", "five", "half")] == [2, 6, 5, 0.5]


def test_an_added_function_keeps_its_own_defaults_even_if_a_node_bears_their_name(flow):
    flow.add(lambda: 100, "times")
    flow.add(double, "twice", number=4)

    assert flow.run()["twice"] == 8


def test_a_functions_extra_keywords_are_fed_when_they_are_bound(flow):
    def gather(first, **rest):
        return first, rest

    flow.add(lambda: 1, "one")
    flow.add(gather, "all", first="one", second="one", third=3)

    assert flow.run()["all"] == (1, {"second": 1, "third": 3})


def test_outputs_name_the_parts_of_a_tuple_or_a_dict(flow):
    @flow.node(outputs=("a", "b"))
    def as_tuple():
        return 1, 2

    @flow.node(outputs=("c", "d"))
    def as_dict():
        return {"d": 4, "c": 3}

    @flow.node
    def total(a, b, c, d):
        return a, b, c, d

    outcome = flow.run()

    assert outcome["total"] == (1, 2, 3, 4)
    assert outcome["as_tuple"] == (1, 2)
    assert outcome["d"] == 4


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ((1, 2, 3), "ValueError: 'pair' returned 3 values; its outputs are a, b"),
        (7, "TypeError: 'pair' returned int, not a tuple or a dict; its outputs are a, b"),
        ({"a": 1}, "ValueError: 'pair' returned the keys 'a'; its outputs are a, b"),
    ],
)
def test_what_does_not_match_the_outputs_is_the_nodes_failure(flow, returned, said):
    @flow.node(outputs=("a", "b"))
    def pair():
        return returned

    with pytest.raises(fk.NodeFailed, match="node 'pair' failed: ") as caught:
        flow.run()

    assert said in str(caught.value)


def test_a_generator_is_gathered_so_that_two_nodes_can_read_it(flow):
    @flow.node
    def days():
        yield from "abc"

    @flow.node
    def one(days):
        return list(days)

    @flow.node
    def other(days):
        return list(days)

    outcome = flow.run()

    assert outcome["one"] == outcome["other"] == ["a", "b", "c"]


def test_an_unknown_name_comes_with_the_nearest_one(flow):
    @flow.node
    def orders(): ...

    @flow.node
    def report(order): ...

    assert message(flow) == (
        "node 'report' needs 'order', which is neither a node nor a parameter; did you mean 'orders'?"
    )


def test_a_missing_parameter_comes_with_how_to_give_it(flow):
    @flow.node
    def flights(day): ...

    assert message(flow) == (
        "node 'flights' needs 'day', which is neither a node nor a parameter; give it: flow.run(day=…)"
    )


def test_a_string_that_was_meant_as_text_comes_with_how_to_write_it(flow):
    flow.add(double, "twice", number="flights.csv")

    assert message(flow).endswith("neither a node nor a parameter; the text itself would be fk.value('flights.csv')")


def test_a_bound_name_that_is_unknown_is_not_replaced_by_the_functions_default(flow):
    @flow.node
    def orders(): ...

    @flow.node(inputs={"rows": "ordesr"})
    def report(rows=None): ...

    assert "needs 'ordesr'" in message(flow)
    assert "did you mean 'orders'?" in message(flow)


def test_an_unknown_parameter_is_told_with_those_there_are(flow):
    @flow.node
    def report(day, top=3): ...

    with pytest.raises(ParameterError) as caught:
        flow.run(day=1, tpo=5)

    assert str(caught.value) == "no node takes 'tpo'; this flow takes day, top; did you mean 'top'?"
    assert "is a node of this flow, not a parameter" in message(flow, report=1)


def test_a_cycle_is_drawn(flow):
    @flow.node
    def a(c): ...

    @flow.node
    def b(a): ...

    @flow.node
    def c(b): ...

    @flow.node
    def after(c): ...

    assert "a -> b -> c -> a" in message(flow)


def test_a_node_with_a_parameter_of_its_own_name_reads_itself(flow):
    @flow.node
    def day(day): ...

    assert message(flow).startswith("node 'day' reads itself, day -> day; rename the node or its parameter")


def test_an_output_that_two_nodes_have_is_told_with_both(flow):
    @flow.node(outputs=("a", "b"))
    def one(): ...

    @flow.node(outputs=("b", "c"))
    def two(): ...

    assert "'b' is an output of node 'one' and again of node 'two'" in message(flow)


def test_an_output_called_like_a_node_is_an_error(flow):
    @flow.node
    def b(): ...

    @flow.node(outputs=("a", "b"))
    def one(): ...

    assert "'b' is a node and an output of node 'one'" in message(flow)


def test_two_defaults_for_one_parameter_need_a_value_or_agreement(flow):
    @flow.node
    def one(top=3): ...

    @flow.node
    def two(top=5): ...

    assert "parameter 'top' is 3 by default in node 'one', but 5 in node 'two'" in message(flow)
    flow.check(top=4)

    @flow.node
    def two(top=3): ...

    flow.check()


def test_a_parameter_called_like_a_keyword_of_run_is_an_error(flow):
    @flow.node
    def one(executor): ...

    assert "a parameter 'executor', which is a keyword of run()" in message(flow)


def test_a_plainly_wrong_value_is_an_error_and_a_doubtful_one_is_not(flow):
    @flow.node
    def one(top: int, share: float = 0.5, note: str = None): ...  # noqa: RUF013 (as people write it)

    assert message(flow, top="5") == "node 'one' takes 'top' as int, but was given '5', a str"
    flow.check(top=True, share=1, note=None)


def test_the_check_comes_before_the_first_node_starts(flow):
    ran = []

    @flow.node
    def first():
        ran.append(1)

    @flow.node
    def second(first, missing): ...

    with pytest.raises(fk.GraphError):
        flow.run()

    assert ran == []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda flow: flow.node(lambda: 1), "'<lambda>' cannot be a node's name"),
        (lambda flow: flow.add(functools.partial(double)), "a partial has no name of its own; give the node one with"),
        (lambda flow: flow.add(double, "two nodes"), "'two nodes' cannot be a node's name"),
        (lambda flow: flow.add(lambda *rows: 1, "x"), "node 'x' takes *rows, and inputs are given by name"),
        (lambda flow: flow.add(double, numbr=3), "node 'double' has no parameter 'numbr'; it takes number, times"),
        (lambda flow: flow.node(map="numbr")(double), "did you mean 'number'?"),
        (lambda flow: flow.node(retries=-1)(double), "node 'double' has retries=-1; it must be a whole number"),
        (lambda flow: flow.node(timeout=0)(double), "node 'double' has timeout=0; it must be a number of seconds"),
        (lambda flow: flow.node(outputs=("a b",))(double), "has an output 'a b'; its name must be a Python identifier"),
        (lambda flow: flow.add(flow.node(double), "x", number=double), "give its name: number='double'"),
        (lambda flow: flow.add(3), "a node is a function, not 3"),
        (lambda flow: flow.remove("doubel"), "no node is called 'doubel'"),
        (lambda flow: fk.Flow(""), "a flow's name is some text"),
    ],
)
def test_what_cannot_be_a_node_is_refused_where_it_is_written(flow, make, said):
    with pytest.raises(fk.GraphError) as caught:
        make(flow)

    assert said in str(caught.value)


def test_an_async_function_is_refused_with_the_way_out(flow):
    with pytest.raises(fk.GraphError, match=r"node 'fetch' is async; .* may call asyncio.run\(\) itself"):

        @flow.node
        async def fetch(): ...
