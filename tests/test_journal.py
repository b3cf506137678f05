"""A notebook saved once and what it has grown by since are the notebook, whatever became of it; and that is little."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from flowkit.artifacts import Artifacts, journal_path, notebook_path
from flowkit.journal import Journal, read_notebook, replayed


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text.splitlines(keepends=True)}


def shown(text: str) -> dict[str, Any]:
    return {"output_type": "display_data", "data": {"text/plain": text}, "metadata": {}}


def code(*outputs: dict[str, Any], status: str = "pending") -> dict[str, Any]:
    cell = {"id": "a", "cell_type": "code", "source": "1", "execution_count": None}
    return cell | {"metadata": {"papermill": {"status": status}}, "outputs": list(outputs)}


def text_of(cells: list[dict[str, Any]]) -> str:
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def changed(cell: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    outputs = [dict(output) for output in cell["outputs"]]
    word = chance.choice(["é\n", "two\nlines", "\r50 %", "\u2028", "\\n", "\ud800"])
    match chance.randrange(6):
        case 0:
            outputs.append(stream(word))
        case 1:
            outputs.append(shown(word))
        case 2 if outputs and outputs[-1]["output_type"] == "stream":
            outputs[-1] = stream("".join(outputs[-1]["text"]) + word)
        case 3:
            outputs = [shown(word)]  # cleared, and shown anew
        case 4 if outputs:
            outputs[chance.randrange(len(outputs))] = shown(word)
        case 5:
            return code(*outputs, status=chance.choice(["running", "completed"]))
    return cell | {"outputs": outputs}


def test_what_is_replayed_is_what_the_notebook_had_become() -> None:
    for seed in range(30):
        chance = random.Random(seed)
        cells = [code(), {"id": "b", "cell_type": "markdown", "source": "# x", "metadata": {}}, code(stream("so far"))]
        saved, journal, file = text_of(cells), Journal(), b""
        journal.begin(saved)
        for _ in range(40):
            index = chance.choice([0, 2])
            cells[index] = changed(cells[index], chance)
            growth = journal.grown({index: cells[index]}, room=10**6)
            file = growth.data if growth.begins else file + growth.data
            assert json.loads(replayed(saved, file))["cells"] == json.loads(text_of(cells))["cells"], seed


def test_a_journal_that_was_cut_off_or_is_of_another_notebook_harms_nothing(tmp_path: Path) -> None:
    saved, journal, artifacts = text_of([code()]), Journal(), Artifacts(str(tmp_path))
    journal.begin(saved)
    first = journal.grown({0: code(stream("a\n"))}, room=0).data
    second = journal.grown({0: code(stream("a\nb\n"))}, room=0).data

    for end in range(len(second)):
        found = json.loads(replayed(saved, first + second[:end]))["cells"][0]["outputs"]
        assert found == [stream("a\n")]
    later = text_of([code(stream("later"))])
    artifacts.write(notebook_path("r", 1), later.encode())
    artifacts.append(journal_path("r", 1), first + second, new=True)
    assert read_notebook(artifacts, "r", 1) == later.encode()
    artifacts.write(notebook_path("r", 1), saved.encode())
    assert json.loads(read_notebook(artifacts, "r", 1) or b"")["cells"][0]["outputs"] == [stream("a\nb\n")]


def test_what_takes_the_place_of_something_is_told_as_far_as_there_is_room() -> None:
    saved, journal = text_of([code()]), Journal()
    journal.begin(saved)
    first, second, small = code(shown("1" * 9000)), code(shown("2" * 9000)), code(shown("small"))
    file = journal.grown({0: first}, room=0).data

    grown = journal.grown({0: second}, room=8000)
    assert (grown.data, grown.passing, journal.late) == (b"", 0, {0})
    grown = journal.grown({0: small}, room=-1)
    assert 9000 < grown.passing < 9200
    assert not journal.late
    file += grown.data
    assert json.loads(replayed(saved, file))["cells"] == [small]
    assert journal.grown({0: code(shown("small"), shown("2" * 9000))}, room=8000).data == b""
    file += journal.grown({0: second}, room=10_000).data
    assert json.loads(replayed(saved, file))["cells"] == [second]
