from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowkit.artifacts import Artifacts, notebook_path
from flowkit.errors import Unavailable


@pytest.fixture(params=["path", "file", "memory"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    urls = {"path": str(tmp_path), "file": f"file://{tmp_path}", "memory": f"memory://{tmp_path.name}"}
    return Artifacts(urls[request.param])


def test_what_was_written_is_read_and_found_and_removed(artifacts: Artifacts) -> None:
    place = artifacts.write("runs/r/1/notebook.ipynb", b"one")
    artifacts.write("runs/r/2/notebook.ipynb", b"two")

    assert place == artifacts.locate(notebook_path("r", 1))
    assert artifacts.read("runs/r/1/notebook.ipynb") == b"one"

    artifacts.remove("runs/r")

    assert artifacts.read("runs/r/1/notebook.ipynb") is None
    artifacts.remove("runs/r")


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = Artifacts(str(tmp_path))
    artifacts.write("x", b"whole")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match=r"cannot write the artifact .*x: No space left on device"):
        artifacts.write("x", b"half")

    assert artifacts.read("x") == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_an_unknown_kind_of_place_is_told_when_it_is_named() -> None:
    with pytest.raises(Unavailable, match="cannot use FLOWKIT_ARTIFACTS_URL carrier-pigeon://coop"):
        Artifacts("carrier-pigeon://coop/x").write("x", b"")
