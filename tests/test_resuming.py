"""A retry resumes where it failed: whatever died, what was finished is not computed again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from flowkit.artifacts import Artifacts
from flowkit.client import Client
from flowkit.model import Ending, State, now
from flowkit.shelf import CACHE, KEEP, Shelf, kept_path
from flowkit.worker.results import Results
from tests.notebooks_made import outputs, write
from tests.processes import eventually, flowkit, worker
from tests.servers import MotoServer
from tests.test_end_to_end import client, on_both, place

__all__ = ["client", "place"]  # the fixtures

HELPERS = """
import os, time
import pandas as pd
import flowkit as fk
flow = fk.Flow("five")

def count(name):
    with open(os.path.join(folder, "ran"), "a") as file:
        file.write(name + "\\n")

def there(name):
    return os.path.exists(os.path.join(folder, name))
"""

NODES = """
@flow.node
def one(rows: int) -> pd.DataFrame:
    count("one")
    return pd.DataFrame({"row": range(rows)})

@flow.node(map="part", inputs={"part": "one_parts"})
def two(part: int) -> int:
    count(f"two {part}")
    return part * 10

@flow.node
def one_parts(one):
    return list(one.row)

@flow.node
def three(two):
    count("three")
    while not there("go"):
        time.sleep(0.05)
    return sum(two)

@flow.node
def four(three, one):
    count("four")
    return {"three": three, "rows": len(one)}

@flow.node
def five(four):
    count("five")
    if not there("mended"):
        raise ValueError("no file")
    print("five has", four)
    return four
"""


@pytest.fixture
def five(tmp_path: Path) -> Path:
    parameters = f"rows: int = 2\nfolder = {str(tmp_path)!r}"
    return write(tmp_path / "five.ipynb", HELPERS, NODES, "flow.run(rows=rows)", parameters=parameters)


def ran(folder: Path) -> Counter[str]:
    file = folder / "ran"
    return Counter(file.read_text().splitlines() if file.exists() else ())


@on_both
def test_nodes_run_once_over_a_killed_worker_and_a_failure(client: Client, five: Path, tmp_path: Path) -> None:
    run = client.submit(five)
    with worker() as first:
        eventually(lambda: ran(tmp_path)["three"])
        first.send_signal(signal.SIGKILL)
    (tmp_path / "go").touch()
    with worker():
        failed = client.follow(run.id, lambda *_: None)
        shown = flowkit("show", run.id).stdout
        (tmp_path / "mended").touch()
        ended = json.loads(flowkit("retry", run.id, "--wait", "--json").stdout)

    assert (failed.state, failed.attempt, failed.crashes) == (State.FAILED, 2, 1)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 3)
    assert ran(tmp_path) == {"one": 1, "two 0": 1, "two 1": 1, "three": 2, "four": 1, "five": 2}
    reused = {node["name"]: node["reused"] for node in ended["nodes"]}
    assert reused == {
        **dict.fromkeys(["one", "one_parts", "two[0]", "two[1]"], "attempt 1"),
        **dict.fromkeys(["three", "four"], "attempt 2"),
        **dict.fromkeys(["two", "five"]),
    }
    assert "reused from" in shown
    assert "attempt 1" in next(line for line in shown.splitlines() if line.startswith("one "))
    assert outputs(ended["output"]).count("five has {'three': 10, 'rows': 2}") == 1


def test_a_drained_worker_leaves_what_it_finished_to_the_next(client: Client, five: Path, tmp_path: Path) -> None:
    (tmp_path / "mended").touch()
    run = client.submit(five)
    with worker(FLOWKIT_GRACE="0.5") as first:
        eventually(lambda: ran(tmp_path)["three"])
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 0
    (tmp_path / "go").touch()
    with worker():
        assert client.follow(run.id, lambda *_: None).state is State.SUCCEEDED

    assert ran(tmp_path) == {"one": 1, "two 0": 1, "two 1": 1, "three": 2, "four": 1, "five": 1}


def test_a_killed_kernels_results_are_found_by_the_next_attempt(client: Client, five: Path, tmp_path: Path) -> None:
    (tmp_path / "mended").touch()
    run = client.submit(five, policy={"retries": 1, "backoff": 0.1})
    with worker():
        eventually(lambda: ran(tmp_path)["three"])
        [kernel] = [int(pid.name) for pid in Path("/proc").glob("[0-9]*") if _runs(pid, run.id)][-1:]
        os.kill(kernel, signal.SIGKILL)
        (tmp_path / "go").touch()
        ended = client.follow(run.id, lambda *_: None)

    assert (ended.state, ended.attempt) == (State.SUCCEEDED, 2)
    assert ran(tmp_path) == {"one": 1, "two 0": 1, "two 1": 1, "three": 2, "four": 1, "five": 1}


def _runs(process: Path, run: str) -> bool:
    try:
        return run.encode() in (process / "environ").read_bytes() and b"ipykernel" in (process / "cmdline").read_bytes()
    except OSError:
        return False


def test_a_failed_run_is_opened_where_it_stands_and_retried_from_a_node(
    client: Client, five: Path, tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    with worker():
        run = client.follow(client.submit(five, parameters={"rows": 3}).id, lambda *_: None)
        done = flowkit("open", run.id)
        kernel = _Notebook(Path(done.stdout.strip()))
        (tmp_path / "mended").touch()
        wrong = flowkit("retry", run.id, "--from", "fuor")
        retried = flowkit("retry", run.id, "--from", "four", "--wait")

    before = {"one": 1, "two 0": 1, "two 1": 1, "two 2": 1, "three": 1, "four": 1}
    assert done.stdout.strip() == str(tmp_path / f"{run.id[:8]}.ipynb")
    assert kernel.seconds < 30  # 3 on a machine that has nothing else to do
    assert kernel.told == [
        "['one', 'two', 'one_parts', 'three', 'four']",
        "{'four': {'three': 30, 'rows': 3}}",
        "3",
    ]
    assert "NodeFailed: node 'five' failed: ValueError: no file" in kernel.error
    assert kernel.ran == before | {"five": 2}  # once in the run, and once here
    assert wrong.returncode == 2
    assert wrong.stderr.endswith("is called 'fuor'; did you mean 'four'?\n")
    assert retried.returncode == 0, retried.stderr
    assert ran(tmp_path) == before | {"four": 2, "five": 3}


class _Notebook:
    """A notebook run in Jupyter up to its error, as its author does it with "Run all"."""

    def __init__(self, path: Path) -> None:
        nb = nbformat.read(path, as_version=4)
        nbformat.validate(nb)
        nb.cells.insert(1, nbformat.v4.new_code_cell("print(list(results))\nprint(inputs)\nprint(run.params['rows'])"))
        began = time.monotonic()
        at: list[float] = []  # when each cell had run
        client = NotebookClient(
            nb, timeout=60, allow_errors=True, on_cell_executed=lambda **_: at.append(time.monotonic() - began)
        )
        client.execute(cwd=str(path.parent))
        self.seconds = at[0]
        self.told = nb.cells[1].outputs[0].text.splitlines()
        errors = [output for cell in nb.cells for output in cell.get("outputs", ()) if output.output_type == "error"]
        self.error = f"{errors[0].ename}: {errors[0].evalue}" if errors else ""
        self.ran = ran(path.parent)


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    """An S3 server, and the environment in which a bucket of it is found."""
    with MotoServer() as server:
        yield server.environment


def test_results_are_kept_in_s3(
    home: Path, five: Path, tmp_path: Path, bucket: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bucket.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FLOWKIT_ARTIFACTS_URL", "s3://flowkit/here")
    monkeypatch.setenv("FLOWKIT_KERNEL_ENV", "AWS_*")
    (tmp_path / "go").touch()
    with worker():
        failed = json.loads(flowkit("run", five, "--wait", "--json").stdout)
        (tmp_path / "mended").touch()
        ended = json.loads(flowkit("retry", failed["id"], "--wait", "--json").stdout)

    assert (failed["state"], ended["state"]) == ("failed", "succeeded")
    assert ran(tmp_path) == {"one": 1, "two 0": 1, "two 1": 1, "three": 1, "four": 1, "five": 2}
    shelf = Shelf(Artifacts("s3://flowkit/here"), kept_path(ended["id"]))
    kept = {facts["node"]: facts["kind"] for _, facts in shelf.described() if "node" in facts}
    assert kept["one"] == "pandas.DataFrame"
    assert kept["five"] == "dict"
    assert shelf.forget(["five"]) == 1
    assert not any(stem.startswith("five.") for stem in shelf.stems())


def test_kept_results_go_with_the_limit_of_their_deployment_oldest_first(client: Client, five: Path) -> None:
    client.deploy(five, name="five")
    runs = [client.submit("five") for _ in range(4)]
    for _ in runs[:3]:
        claimed = client.store.claim(["default"], "me", now=now())
        assert claimed is not None
        client.store.finish(claimed.id, claimed.attempt, Ending(State.SUCCEEDED), now=now())
    for run in runs:
        client.artifacts.write(f"{kept_path(run.id)}/one.k.data", b"x" * 100)
    results = Results(client.artifacts, limit=200)
    results.ended(client.store.run(runs[2].id))

    assert [run.id for run in results.trim(client.store)] == [runs[1].id, runs[0].id]
    assert [Shelf(client.artifacts, kept_path(run.id)).size() for run in runs] == [0, 0, 100, 100]


def test_what_is_past_its_time_leaves_the_cache(tmp_path: Path) -> None:
    artifacts = Artifacts(str(tmp_path))
    cache = Shelf(artifacts, CACHE)
    at = now()
    for name, lifetime in (("old.k", 10), ("new.k", 1000)):
        facts = {"suffix": ".data", "created": at.timestamp() - 60, "lifetime": lifetime}
        cache.keep(name, lambda file, facts=facts: file.write(b"1") and facts)

    assert Results(artifacts, limit=0).expire(at) == 1
    assert cache.stems() == {"new.k"}
    assert len(list((tmp_path / CACHE).iterdir())) == 2


def test_nothing_is_kept_where_the_setting_says_so(tmp_path: Path) -> None:
    Results(Artifacts("somewhere"), limit=0).order(tmp_path)
    assert not list(tmp_path.iterdir())

    Results(Artifacts("somewhere"), limit=1).order(tmp_path)
    assert json.loads((tmp_path / KEEP).read_text()) == {"url": str(Path("somewhere").absolute()), "limit": 1}
