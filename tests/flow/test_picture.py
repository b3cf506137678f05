"""The picture of a flow: always well-formed, always something, whatever the flow."""

from __future__ import annotations

import itertools
import time
import xml.etree.ElementTree as ElementTree

import pytest

import flowkit as fk
from flowkit.flow.layout import layout

SVG = "{http://www.w3.org/2000/svg}"


def texts(flow: fk.Flow) -> list[str]:
    root = ElementTree.fromstring(flow._repr_mimebundle_()["image/svg+xml"])
    assert root.tag == f"{SVG}svg"
    assert not root.findall(f".//{SVG}script")
    return [
        (element.text or "") + "".join(child.tail or "" for child in element) for element in root.iter(f"{SVG}text")
    ]


def titles(flow: fk.Flow) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(flow.svg()).iter(f"{SVG}title")]


@pytest.fixture
def flow() -> fk.Flow:
    flow = fk.Flow("flight delays")

    @flow.node
    def flights(day: str) -> list[int]:
        return [1, 2]

    @flow.node
    def late(flights: list[int], min_delay: int = 15) -> dict[str, int]:
        if min_delay == 13:
            raise ValueError("bad day")
        return {}

    @flow.node(map="flight", inputs={"flight": "flights"})
    def each(flight: int, late): ...

    return flow


def test_nodes_ports_types_and_defaults_are_shown(flow):
    shown = texts(flow)

    assert {"flight delays", "flights", "day", "→ list[int]", "late", "min_delay = 15", "int"} <= set(shown)
    assert any(text.startswith("each flight ← ") for text in shown)
    assert "late(flights: list[int], min_delay: int) → dict[str, int]" in titles(flow)


def test_states_and_the_error_are_shown_after_a_run(flow):
    with pytest.raises(fk.NodeFailed):
        flow.run(day="monday", min_delay=13)

    shown = texts(flow)
    assert "ValueError: bad day" in shown
    assert "skipped" in shown
    assert any(text.endswith("✓") for text in shown)


def test_a_node_replaced_since_the_run_has_no_state(flow):
    flow.run(day="monday")
    before = sum(text.endswith("✓") for text in texts(flow))

    @flow.node
    def flights(day: str) -> list[int]:
        return [3]

    assert sum(text.endswith("✓") for text in texts(flow)) == before - 1


def test_names_are_escaped_and_long_ones_cut_with_the_whole_in_a_tooltip():
    flow = fk.Flow("<b>&amp;</b> \x00\udcff" + "x" * 300)
    long = "a_function_with_a_name_that_does_not_want_to_end"

    def late(day: str = "<script>"): ...

    flow.add(late, long)
    flow.node(late)

    shown = texts(flow)
    assert any(text.startswith("a_function_with") and text.endswith("…") for text in shown)
    assert "day = '<script>'" in shown
    assert any(title.startswith(f"{long}(") for title in titles(flow))


def test_a_flow_that_does_not_fit_together_is_drawn_with_the_reason_in_words():
    flow = fk.Flow("circle")

    @flow.node
    def a(c): ...

    @flow.node
    def b(a): ...

    @flow.node
    def c(b): ...

    shown = texts(flow)
    assert {"a", "b", "c"} <= set(shown)
    assert any("a -> b -> c -> a" in text for text in shown)


def test_an_empty_flow_says_how_to_begin():
    assert "no nodes yet: write @flow.node above a function" in texts(fk.Flow("new"))


def test_a_flow_too_large_to_draw_is_summarised_in_a_moment():
    flow = fk.Flow("large")
    for index in range(10_000):
        flow.add(lambda **inputs: 1 / (len(inputs) - 7), f"n{index}", **_reads(index))
    flow.check()

    began = time.perf_counter()
    shown = texts(flow)

    assert time.perf_counter() - began < 2
    assert "10,000 nodes · 9,900 edges · 100 layers" in shown


def _reads(index: int) -> dict[str, str]:
    return {"before": f"n{index - 100}"} if index >= 100 else {}


def test_nodes_of_a_layer_never_overlap_and_come_after_what_they_read():
    reads = {f"n{i}": [f"n{j}" for j in {i // 2, i // 3, i - 1} if 0 <= j < i] for i in range(60)}
    sizes = {name: 30.0 + 7 * (int(name[1:]) % 5) for name in reads}

    found = layout(reads, list(reads), sizes, gap=10)

    for layer in found.layers:
        for one, other in itertools.pairwise(layer):
            assert other.centre - one.centre >= (one.size + other.size) / 2 + 10 - 1e-6
    for name, givers in reads.items():
        assert all(found.spots[giver].layer < found.spots[name].layer for giver in givers)
