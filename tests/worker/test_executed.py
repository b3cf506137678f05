"""The executed notebook as a document; no kernel is needed for it."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import nbformat
import pytest

from flowkit.errors import NotebookError, SetupError
from flowkit.model import Cause, Ending, State
from flowkit.worker.executed import Executed, mark_crashed
from tests.worker.execution import current, notebook, shown, standard_json

AT = datetime(2013, 7, 1, 6, tzinfo=ZoneInfo("America/New_York"))
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def executed(*cells: Any, language: str = "python", **parameters: Any) -> Executed:
    document = Executed(notebook(*cells), current(scheduled_for=AT))
    document.set_kernel("python3", display_name="Python 3", language=language)
    document.inject(parameters, scheduled_for=AT)
    return document


def sources(document: Executed) -> list[str]:
    return [cell.source for cell in document.nb.cells]


def variables(document: Executed) -> dict[str, Any]:
    """What the injected cell defines."""
    found: dict[str, Any] = {}
    exec(next(cell.source for cell in document.nb.cells if "injected-parameters" in cell.metadata.tags), found)
    del found["__builtins__"]
    return found


def test_parameters_follow_the_cell_tagged_so() -> None:
    document = executed("# Title", ("day = 1", "parameters"), "day", day=2)

    assert sources(document) == ["# Title", "day = 1", "# Parameters\nday = 2\n", "day"]


def test_parameters_come_first_where_no_cell_is_tagged() -> None:
    assert sources(executed("day", day=2)) == ["# Parameters\nday = 2\n", "day"]


def test_what_an_earlier_run_injected_is_replaced_or_removed() -> None:
    cells = ("day = 1", "parameters"), ("day = 8", "injected-parameters"), "day"

    assert sources(executed(*cells, day=2)) == ["day = 1", "# Parameters\nday = 2\n", "day"]
    assert sources(executed(*cells)) == ["day = 1", "day"]


@pytest.mark.parametrize("name", ["a b", "x = 1\nimport os\ny", "class", "", "1x"])
def test_a_parameter_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(SetupError, match="is not a name"):
        executed("1", **{name: 1})


@pytest.mark.parametrize(
    "value", [b"x", (1,), {1}, {1: 2}, [object()], type("Text", (str,), {})("x"), type("Int", (int,), {})(1)]
)
def test_a_value_papermill_would_write_into_code_unquoted_is_refused(value: Any) -> None:
    with pytest.raises(SetupError, match="parameter 'x'"):
        executed("1", x=value)


def test_a_value_python_cannot_read_back_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]

    with pytest.raises(SetupError, match="too deep or too large"):
        executed("1", x=deep)
    with pytest.raises(SetupError, match="too deep or too large"):
        executed("1", x=10**5000)


def test_a_language_papermill_cannot_write_is_refused() -> None:
    with pytest.raises(SetupError, match="speaks cobol, in which papermill cannot write"):
        executed("1", language="cobol", x=1)


@pytest.mark.parametrize(
    "cell", ["scheduled_for = None", "import os\n%matplotlib inline\nscheduled_for: object", "a = scheduled_for = 1"]
)
def test_scheduled_for_is_given_to_a_notebook_that_declares_it(cell: str) -> None:
    given = variables(executed((cell, "parameters"), "1"))

    assert given == {"scheduled_for": AT}
    assert given["scheduled_for"].tzinfo.key == "America/New_York"


@pytest.mark.parametrize(
    "cell", ["day = 1  # not scheduled_for = 1", "if 1:\n    scheduled_for = 1", "scheduled_for ="]
)
def test_scheduled_for_is_not_given_to_a_notebook_that_does_not_declare_it(cell: str) -> None:
    assert sources(executed((cell, "parameters"))) == [cell]


def test_scheduled_for_keeps_the_hour_that_happens_twice() -> None:
    second = datetime(2013, 11, 3, 1, 30, fold=1, tzinfo=ZoneInfo("America/New_York"))
    document = Executed(notebook(("scheduled_for = None", "parameters")), current())
    document.set_kernel("python3", display_name="Python 3", language="python")
    document.inject({}, scheduled_for=second)

    assert variables(document)["scheduled_for"].utcoffset() == timedelta(hours=-5)


def test_scheduled_for_set_by_hand_stays_as_given() -> None:
    assert variables(executed(("scheduled_for = None", "parameters"), scheduled_for="x")) == {"scheduled_for": "x"}


def test_another_language_gets_scheduled_for_as_text() -> None:
    document = executed(("scheduled_for <- NULL", "parameters"), language="R", top=3)

    assert '# Parameters\ntop = 3\nscheduled_for = "2013-07-01T06:00:00-04:00"\n' in sources(document)


def test_the_metadata_are_standard_json_whatever_the_parameters_are() -> None:
    document = executed(("x = 1", "parameters"), x=math.nan, y=[math.inf, {"z": -math.inf}], half="\ud800")

    found = standard_json(document.text())["metadata"]["papermill"]["parameters"]

    assert found == {"x": "NaN", "y": ["Infinity", {"z": "-Infinity"}], "half": "\ud800"}
    assert math.isnan(variables(document)["x"])


def test_the_text_is_laid_out_as_nbformat_lays_it_out() -> None:
    document = executed("# Title", ("x = 1", "parameters"), "a\nb", x="é\n")
    document.note(2, "one\ntwo\n")

    text = document.text()

    assert text == nbformat.writes(document.nb) + "\n"
    nbformat.validate(nbformat.reads(text, as_version=4))


def test_a_change_shows_in_the_next_text() -> None:
    document = executed("a", "b")
    document.text()

    document.note(1, "late")

    assert shown(standard_json(document.text())["cells"][1]) == "late"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nbformat": 4, "cells": [1]}', '{"nbformat": 4, "cells": [{}]}'])
def test_what_is_not_a_notebook_is_an_error_of_one_line(text: str) -> None:
    with pytest.raises(NotebookError, match=r"^/nb/late.ipynb is not a notebook: .*$"):
        Executed(text, current())


def test_a_notebook_whose_worker_died_says_so_afterwards() -> None:
    document = executed("a", "# Text", "b", "c")
    document.begin(BEGAN)
    document.cell_started(0, BEGAN)
    document.cell_ended(0, BEGAN, failed=False)
    document.cell_started(2, BEGAN)
    document.nb.cells[2].execution_count = 2
    document.note(2, "so far\n")

    marked = mark_crashed(document.text(), "its worker w1 died")

    found = json.loads(marked)
    top, _, _, anchor, cell, last = found["cells"]
    assert "In [2]" in "".join(top["source"])
    assert "its worker w1 died" in "".join(top["source"])
    assert anchor["metadata"]["tags"] == ["papermill-error-cell-tag"]
    assert cell["metadata"]["papermill"]["status"] == "failed"
    assert shown(cell) == "so far\nWorkerDied: its worker w1 died"
    assert last["metadata"]["papermill"]["status"] == "pending"
    assert found["metadata"]["papermill"]["exception"] is True
    assert found["metadata"]["flowkit"] | {"state": "failed", "cause": "crashed"} == found["metadata"]["flowkit"]
    assert mark_crashed(marked, "again") == marked
    nbformat.validate(nbformat.reads(marked, as_version=4))


def test_a_finished_notebook_is_not_marked_as_crashed() -> None:
    document = executed("a")
    document.begin(BEGAN)
    document.finish(Ending(State.SUCCEEDED), BEGAN, cell=None)

    assert mark_crashed(document.text(), "late") == document.text()


def test_a_worker_that_died_before_the_first_cell_leaves_a_notebook_that_says_so() -> None:
    found = json.loads(mark_crashed(executed("a").text(), "<b>gone</b>"))

    assert "&lt;b&gt;gone" in "".join(found["cells"][0]["source"])
    assert found["metadata"]["flowkit"]["error"] == "<b>gone</b>"


def test_markers_of_an_earlier_run_go() -> None:
    failed = executed("a")
    failed.begin(BEGAN)
    failed.finish(Ending(State.FAILED, Cause.NOTEBOOK, "no"), BEGAN, cell=failed.cells()[0])

    again = Executed(failed.text(), current())

    assert sources(again) == ["a"]
