"""What a run leaves on record beside its results: commit, packages, profiles."""

from __future__ import annotations

import os
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

import pytest

from flowkit import installed
from flowkit.client import Client
from flowkit.commit import commit_of
from flowkit.loaded import load_run
from flowkit.model import State
from tests.notebooks_made import write
from tests.processes import flowkit, worker
from tests.test_end_to_end import client, on_both, place

__all__ = ["client", "place"]  # the fixtures

NODES = """
import pandas as pd
import flowkit as fk
flow = fk.Flow("some")

@flow.node(checkpoint=False)
def table():
    return pd.DataFrame({"a": [1, None, 3], "b": list("xyz")})

@flow.node(map="part", inputs={"part": "table"})
def parts(part):
    return part

flow.run()
"""


@on_both
def test_a_run_tells_its_packages_once_for_all_and_what_its_nodes_returned(client: Client, tmp_path: Path) -> None:
    notebook = write(tmp_path / "some.ipynb", NODES)
    with worker(FLOWKIT_KEEP="0"):
        runs = [client.follow(client.submit(notebook).id, lambda *_: None) for _ in range(2)]

    assert [run.state for run in runs] == [State.SUCCEEDED] * 2
    told = [event for run in runs for event in client.recorded(run) if event.kind == "packages"]
    assert told[0].name == told[1].name
    assert f"pandas=={metadata.version('pandas')}" in client.store.packages(told[0].name)
    assert set(told[0].data) == {"python"}
    table, parts, *items = client.nodes(runs[0])
    assert table.profile is not None
    assert (table.profile["kind"], table.profile["rows"]) == ("pandas.DataFrame", 3)
    assert table.profile["columns"][0] == {"name": "a", "dtype": "float64", "nulls": 1, "min": 1.0, "max": 3.0}
    assert parts.profile == {"kind": "list of str", "length": 2}
    assert [item.profile for item in items] == [None, None]


MISFITS = """
import pandas as pd
import pandera.pandas as pa
import flowkit as fk
flow = fk.Flow("some")
shape = pa.DataFrameSchema({"a": pa.Column(int, pa.Check.ge(0))})

@flow.node(map="day")
def frames(day):
    return pd.DataFrame({"a": [day] * day, "b": [None] * day})

@flow.node(map="day", schema=shape)
def checked(day):
    return pd.DataFrame({"a": [7, 2 - day], "b": "told too"})

flow.run(day=[1, 2, 3])
"""


def test_the_items_of_a_node_have_one_profile_and_rows_that_do_not_fit_are_shown(
    client: Client, tmp_path: Path
) -> None:
    with worker():
        run = client.follow(client.submit(write(tmp_path / "some.ipynb", MISFITS)).id, lambda *_: None)

    nodes = {node.name: node for node in client.nodes(run)}
    told = {"kind": "list of pandas.DataFrame", "length": 3, "width": 2}
    for name, more in (("frames", {"rows": 6}), ("checked", {"rows": 4, "failed": 1})):
        profile = dict(nodes[name].profile or {})
        columns = profile.pop("columns")  # on a busy machine there is no time for all that they have
        assert profile == {**told, **more}
        assert [column["name"] for column in columns] == ["a", "b"]
    assert [name for name, node in nodes.items() if node.misfits] == ["checked[2]"]
    rows = {"columns": ["row", "a", "b"], "values": [[1, -1, "told too"]], "more": 0}
    assert nodes["checked[2]"].misfits == rows
    shown = flowkit("show", run.id).stdout.splitlines()
    assert shown[-3:] == [
        "rows of checked[2] that do not fit its schema",
        "row   a         b",
        "1    -1  told too",
    ]
    loaded = load_run(run.id)
    assert loaded.misfits == {"checked[2]": [{"row": 1, "a": -1, "b": "told too"}]}
    assert repr(loaded).endswith("misfits of checked[2]: [{'row': 1, 'a': -1, 'b': 'told too'}]")


def test_packages_are_those_that_python_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, version in (("first", "2.0"), ("second", "1.0")):
        (tmp_path / folder / f"Some_Thing-{version}.dist-info").mkdir(parents=True)
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    (tmp_path / "first" / "old-3-py3.11.egg-info").touch()

    assert {"some-thing==1.0", "old==3"} <= set(installed.packages())
    assert len({entry.partition("==")[0] for entry in installed.packages()}) == len(installed.packages())


def test_a_notebooks_commit_is_that_of_its_folder_and_dirty_by_the_files_beside_it(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@y", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    notebook = write(tmp_path / "[some].ipynb", "1")
    assert commit_of(notebook) is None

    git("init", "-q")
    assert commit_of(notebook) is None

    (tmp_path / "local.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-qm", "first")
    write(notebook, "2")
    assert commit_of(notebook) == git("rev-parse", "HEAD")

    (tmp_path / "local.py").write_text("x = 2\n")
    assert commit_of(notebook) == git("rev-parse", "HEAD") + "-dirty"

    with tempfile.TemporaryDirectory() as elsewhere:
        (Path(elsewhere) / "linked").symlink_to(tmp_path)
        assert commit_of(Path(elsewhere) / "linked" / notebook.name) == commit_of(notebook)


def test_git_is_not_asked_of_a_notebook_that_is_in_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "git").write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    assert commit_of(write(tmp_path / "alone.ipynb", "1")) is None
    assert not (tmp_path / "asked").exists()
    (tmp_path / ".git").mkdir()
    assert commit_of(tmp_path / "alone.ipynb") is None
    assert (tmp_path / "asked").exists()
