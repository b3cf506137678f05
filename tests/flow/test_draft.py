"""What the visual editor is told and sends: a palette, and a document that becomes a flow and its code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

import flowkit as fk
from flowkit.errors import UsageError
from flowkit.flow import palette as palettes
from flowkit.flow.draft import Draft
from flowkit.flow.palette import Palette
from tests.flow.test_code import flows, told
from tests.flow.written import run

NOTEBOOK = '''
import enum
from typing import Literal
import pandas as pd
import flowkit as fk

class Carrier(enum.Enum):
    UA = 1
    AA = 2

flow = fk.Flow("delays")

@flow.node
def flights(day: str) -> pd.DataFrame:
    """All flights of a day.

    More."""
    return pd.DataFrame({"delay": [1, 20]})

@flow.node
def late(flights: pd.DataFrame, min_delay: int = 15) -> pd.DataFrame:
    return flights[flights.delay >= min_delay]

def count(rows: pd.DataFrame) -> int:
    return len(rows)

def report(number: int, carrier: Carrier = Carrier.UA, unit: Literal["min", "h"] = "min", rate: float | None = None):
    return f"{number} {unit} {carrier.name} {rate}"

def unannotated(x):
    return x

def _hidden(x: int): ...
def many(*x: int): ...
'''

LIBRARY = '''
"""A family of nodes."""
__all__ = ["tail"]

def tail(rows: list, count: int = 5) -> list:
    """The last rows."""
    return rows[-count:]

def private(): ...
'''


@pytest.fixture
def notebook() -> dict[str, Any]:
    return run(NOTEBOOK)


@pytest.fixture
def palette(notebook) -> Palette:
    return Palette(notebook["flow"], notebook)


def node(name: str, function: str, inputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "function": function, "inputs": inputs or {}, **more}


def draft(*nodes: dict[str, Any]) -> Draft:
    return Draft.read(json.loads(json.dumps({"flow": "delays", "nodes": nodes})))


FLIGHTS = node("flights", "node:flights")


def texts(found: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(one["node"], one["port"], one["text"]) for one in found]


def test_the_notebooks_own_functions_are_offered_with_a_form_for_each_input(palette):
    catalog = {entry["key"]: entry for entry in palette.catalog()}

    assert [key for key, entry in catalog.items() if not entry["module"]] == ["flights", "late", "count", "report"]
    assert catalog["flights"]["doc"] == "All flights of a day."
    assert catalog["flights"]["outputs"] == [{"name": "flights", "type": "DataFrame", "listed": "list[DataFrame]"}]
    assert catalog["late"]["ports"] == [
        {"name": "flights", "type": "DataFrame", "required": True, "default": None, "form": None},
        {"name": "min_delay", "type": "int", "required": False, "default": "15", "form": {"kind": "integer"}},
    ]
    assert [port["form"] for port in catalog["report"]["ports"]] == [
        {"kind": "integer"},
        {"kind": "choice", "choices": ["UA", "AA"]},
        {"kind": "choice", "choices": ["min", "h"]},
        {"kind": "number", "optional": True},
    ]
    assert json.loads(json.dumps(palette.catalog())) == palette.catalog()


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        (bool, {"kind": "boolean"}),
        (str | Path | None, {"kind": "text", "optional": True}),
        (int | str, {"kind": "json"}),
        (list[int] | None, {"kind": "json", "optional": True}),
        (dict, {"kind": "json"}),
        (Any, {"kind": "json"}),
        (Path | None, None),
    ],
)
def test_a_type_is_asked_for_by_a_form_or_can_only_be_connected(kind, asked):
    assert palettes.form(kind) == asked


def test_the_library_is_what_packages_offer_and_a_broken_one_does_not_hide_the_others(notebook, tmp_path, monkeypatch):
    (tmp_path / "nodes_of_a_package.py").write_text(LIBRARY)
    (tmp_path / "nodes_that_fail.py").write_text("import nothing_of_that_name")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("nodes_of_a_package", "nodes_that_fail"):
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (folder / "entry_points.txt").write_text(f"[flowkit.nodes]\nx = {name}\n")

    palette = Palette(notebook["flow"], notebook)
    catalog = {entry["name"]: entry for entry in palette.catalog()}

    assert catalog["tail"]["key"] == "nodes_of_a_package:tail"
    assert catalog["tail"]["module"] == "nodes_of_a_package"
    assert "private" not in catalog
    assert catalog["nodes_that_fail"]["problem"] == (
        "the node library 'nodes_that_fail' cannot be loaded: ModuleNotFoundError: No module named "
        "'nothing_of_that_name'"
    )
    made = draft(node("last", "nodes_of_a_package:tail", {"rows": {"value": [1, 2, 3]}, "count": {"value": 2}}))
    assert "from nodes_of_a_package import tail\n" in made.code(palette)
    assert 'flow.add(tail, "last", rows=[1, 2, 3], count=2)' in made.code(palette)
    assert made.flow(palette).run()["last"] == [2, 3]
    assert "flow.add(tail, rows=[1])" in draft(node("tail", "nodes_of_a_package:tail", {"rows": {"value": [1]}})).code(
        palette
    ), "it keeps its default of count"


def test_which_types_fit_is_told_for_all_pairs_with_the_reason(palette):
    fits = palette.fits()

    assert fits["DataFrame"]["int"] == "DataFrame does not fit int"
    assert "DataFrame" not in fits["DataFrame"]
    assert fits["int"]["each int"] == "int is not a list"
    assert "each int" not in fits["list[int]"]
    assert fits["list[DataFrame]"]["each int"] == "of list[DataFrame], DataFrame does not fit int"
    assert "" not in fits


def test_three_nodes_put_together_become_code_in_the_notebooks_own_style(notebook, palette):
    made = draft(
        FLIGHTS,
        node("late", "late", {"min_delay": {"value": 5}}, options={"retries": 2}),
        node("number", "count", {"rows": {"from": "late"}}, position=[3, 4]),
        node("text", "report", {"number": {"from": "number"}, "carrier": {"value": "AA"}, "rate": {"value": 0.5}}),
    )

    assert [one["open"] for one in made.problems(palette)] == [True]
    assert texts(made.problems(palette)) == [
        (
            "flights",
            "day",
            "node 'flights' needs 'day', which is neither a node nor a parameter; give it: flow.run(day=…)",
        )
    ]
    written = made.code(palette)
    assert '@flow.node(inputs={"min_delay": 5}, retries=2)\ndef late(' in written
    assert 'flow.add(count, "number", rows="late")' in written
    assert 'flow.add(report, "text", number="number", carrier=Carrier.AA, rate=0.5)' in written
    assert run(written, {**notebook})["flow"].run(day="x")["text"] == "1 min AA 0.5"


def test_a_misfit_an_unknown_name_and_a_cycle_are_told_where_they_are(palette):
    made = draft(
        FLIGHTS,
        node("text", "report", {"number": {"from": "flights"}, "unit": {"value": 3}}),
        node("count", "count", {"rows": {"value": 5}, "row": {"value": 1}}),
        node("other", "os:system"),
        node("third", "node:gone"),
        node("flights", "late"),
        node("class", "count"),
        node("two words", "count"),
    )

    assert texts(made.problems(palette)) == [
        (
            "count",
            None,
            "node 'count' has no parameter 'row'; it takes rows; did you mean 'rows'?",
        ),
        (
            "other",
            None,
            "node 'other' is to be made of 'system', but it is not in the palette; choose another function",
        ),
        (
            "third",
            None,
            "node 'third' is to be made of 'gone', but the flow has no such node; choose another function",
        ),
        ("flights", None, "two nodes are called 'flights'; give one of them another name"),
        ("class", None, "'class' cannot be a node's name, because it is a word of Python; give it another"),
        (
            "two words",
            None,
            "'two words' cannot be a node's name, which must be a Python identifier; give one with name=",
        ),
        (
            "text",
            "number",
            "node 'text' takes 'number' as int, but node 'flights' returns DataFrame; change one of the annotations, "
            "or tell fk.convert() how to make one of the other",
        ),
    ]
    with pytest.raises(fk.GraphError, match="no parameter 'row'"):
        made.code(palette)
    circle = draft(node("a", "count", {"rows": {"from": "b"}}), node("b", "count", {"rows": {"from": "a"}}))
    assert "wait for each other: a -> b -> a" in " ".join(one["text"] for one in circle.problems(palette))


def test_a_value_of_the_wrong_type_is_told_at_its_port(palette):
    made = draft(FLIGHTS, node("late", "late", {"min_delay": {"value": "x"}}))
    assert texts(made.problems(palette)) == [
        ("late", "min_delay", "node 'late' takes 'min_delay' as int, but was given 'x', a str")
    ]
    wrong = draft(node("text", "report", {"carrier": {"value": "UAA"}}))
    assert "as Carrier, which has no 'UAA'; did you mean 'UA'?" in wrong.problems(palette)[0]["text"]


def test_an_input_that_was_taken_off_has_its_default_or_must_be_connected(palette):
    made = draft(FLIGHTS, node("late", "node:late", {"flights": None, "min_delay": None}, by_name=True))
    assert texts(made.problems(palette)) == [
        ("late", "flights", "node 'late' needs 'flights', which was taken off; connect it, or give it a value")
    ]
    assert "min_delay" in draft(FLIGHTS, node("late", "late")).flow(palette).graph.parameters, (
        "of which nothing is said"
    )
    default = draft(FLIGHTS, node("late", "late", {"min_delay": None}))
    assert default.flow(palette).graph.node("late").constants == {"min_delay": 15}


def test_a_node_that_gets_another_name_keeps_what_feeds_it(notebook):
    flow = notebook["flow"]
    run("@flow.node\ndef min_delay() -> int:\n    return 3\n", notebook)
    palette = Palette(flow, notebook)
    document = json.loads(json.dumps(Draft.of(flow).document))
    document["nodes"][1]["name"] = "later"

    made = Draft.read(document).flow(palette)

    assert made.graph.reads == {"flights": [], "later": ["flights", "min_delay"], "min_delay": []}
    assert 'flow.add(late, "later", min_delay="min_delay")' in made.to_python()


def test_a_constant_that_is_no_json_is_kept_and_lost_clearly(notebook):
    flow = notebook["flow"]
    flow.add(notebook["count"], "number", rows=Path("x"))
    document = json.loads(json.dumps(Draft.of(flow).document))
    palette = Palette(flow, notebook)

    kept = document["nodes"][-1]["inputs"]["rows"]
    assert kept == {"kept": "number", "text": repr(Path("x"))}
    assert Draft.read(document).flow(palette).graph.node("number").constants == {"rows": Path("x")}
    kept["kept"] = "late"
    assert "keep 'rows' of node 'late', which has none any more" in Draft.read(document).problems(palette)[0]["text"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (None, "the draft must be an object"),
        ({"flow": "", "nodes": []}, "flow must be the name of the flow"),
        ({"flow": "f", "nodes": {}}, "nodes must be a list"),
        ({"flow": "f", "nodes": [{"name": "a"}]}, "nodes[0].function must be a text"),
        (
            {"flow": "f", "nodes": [node("a", "b", {"x": {"from": 3}})]},
            'nodes[0].inputs.x must be null, {"from": name}, {"value": JSON} or {"kept": node}',
        ),
        ({"flow": "f", "nodes": [node("a", "b", options={"retires": 3})]}, "nodes[0].options.retires must be one of"),
        ({"flow": "f", "nodes": [node("a", "b", options={"retries": "3"})]}, "nodes[0].options.retries must be a num"),
        (
            {"flow": "f", "nodes": [node("a", "b", options={"map": "x"})]},
            "nodes[0].options.map must be a list of names",
        ),
    ],
)
def test_what_is_no_draft_is_refused_with_the_place(document, said):
    with pytest.raises(UsageError) as caught:
        Draft.read(document)

    assert str(caught.value).startswith("the editor sent a draft that cannot be read: ")
    assert said in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(flow=flows())
def test_a_flow_that_nobody_edited_stays_the_same(flow):
    document = json.loads(json.dumps(Draft.of(flow).document))

    made = Draft.read(document).flow(Palette(flow, {}))

    assert told(made) == told(flow)
