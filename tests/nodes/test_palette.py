"""The node library in the editor's palette, and in the code that the editor writes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import flowkit as fk
from flowkit.flow.draft import Draft
from flowkit.flow.node import DEFAULTS
from flowkit.flow.palette import Palette
from tests.flow.written import run

Offered = Callable[[], dict[str, str]]


def test_every_function_of_a_family_is_offered_with_its_ports_types_and_first_line(offered: Offered) -> None:
    families = offered()
    catalog = [entry for entry in Palette(fk.Flow("empty"), {}).catalog() if entry["module"] in families.values()]

    assert [entry["problem"] for entry in catalog if entry["problem"]] == []
    for module in families.values():
        names = importlib.import_module(module).__all__
        assert [entry["name"] for entry in catalog if entry["module"] == module] == names == sorted(names)
    for entry in catalog:
        assert 10 < len(entry["doc"]) <= 120, entry["key"]
        for port in entry["ports"]:
            # What has no type is said to be any: a body, a schema. All else is asked for, or connected, by its type.
            assert port["type"] or port["name"] in ("body", "rules", "value"), f"{entry['key']} {port['name']}"
            assert port["name"] not in ("name", "inputs", *DEFAULTS), f"flow.add({entry['name']}) takes it as an option"


def test_a_flow_of_library_nodes_is_checked_as_a_draft_and_written_with_their_imports(offered: Offered) -> None:
    offered()
    flow = fk.Flow("orders")
    palette = Palette(flow, {"flow": flow})

    def node(name: str, function: str, inputs: dict[str, object], **options: object) -> dict[str, object]:
        key = f"flowkit.nodes.{function}"
        return {"name": name, "function": key, "inputs": inputs, "options": options, "position": [0, 0]}

    url = {"value": "http://127.0.0.1/"}
    document = [
        node("orders", "http:paginate", {"url": url, "rows": {"value": "data"}}),
        node("open_orders", "table:where", {"frame": {"from": "orders"}, "condition": {"value": "total > 5"}}),
        node("items", "table:rows", {"frame": {"from": "open_orders"}}),
        node("deliver", "http:post", {"url": url, "body": {"from": "items"}}, map=["body"], retries=2),
    ]
    draft = Draft.read({"flow": "orders", "nodes": document})

    assert draft.problems(palette) == []
    wrong = [document[0], {**document[3], "inputs": {"url": {"from": "orders"}, "body": {"value": 1}}, "options": {}}]
    (problem,) = Draft.read({"flow": "orders", "nodes": wrong}).problems(palette)
    assert "node 'deliver' takes 'url' as str, but node 'orders' returns DataFrame" in problem["text"]

    text = draft.code(palette)
    assert "from flowkit.nodes.http import post\n" in text
    assert 'flow.add(where, "open_orders", frame="orders", condition=fk.value("total > 5"))\n' in text
    namespace: dict[str, object] = {"__name__": "__main__"}
    run(text, namespace)
    again = namespace["flow"]
    assert isinstance(again, fk.Flow)
    assert again.to_python() == text


def test_the_nodes_of_a_package_that_is_installed_are_in_the_palette(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tests/package`, which docs/howto.md shows, as pip installs it; into a folder of its own."""
    source = Path(__file__).parents[1] / "package"
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, capture_output=True)
    monkeypatch.syspath_prepend(tmp_path)

    flow = fk.Flow("weather")
    palette = Palette(flow, {"flow": flow})
    entries = {entry["name"]: entry for entry in palette.catalog() if entry["module"] == "weather_nodes"}

    assert list(entries) == ["celsius", "feels_like"]
    assert entries["celsius"]["doc"] == "Read a column of degrees Fahrenheit as degrees Celsius."
    by = entries["feels_like"]["ports"][1]
    assert by["form"] == {"kind": "choice", "choices": ["wind", "humidity"]}
    nodes = [
        {"name": "celsius", "function": "weather_nodes:celsius", "inputs": {"weather": {"from": "measured"}}},
        {"name": "felt", "function": "weather_nodes:feels_like", "inputs": {"weather": {"from": "celsius"}}},
    ]
    draft = Draft.read({"flow": "weather", "nodes": nodes})
    assert "from weather_nodes import celsius\nfrom weather_nodes import feels_like\n" in draft.code(palette)
    measured = pd.DataFrame({"temp": [50.0], "wind": [5.0]})
    assert draft.flow(palette).run(measured=measured)["felt"].feels.tolist() == [9.0]
