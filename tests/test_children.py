"""Notebooks as nodes, with real workers: a tree of runs ends, whatever dies; cancel and failure go down and up."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest

from flowkit.client import Client
from flowkit.errors import NotebookError
from flowkit.model import Run, State
from tests.notebooks_made import outputs, write
from tests.processes import answer, eventually, flowkit, worker
from tests.test_end_to_end import client, on_both, place

__all__ = ["client", "place"]  # the fixtures

#: Kernels are forked: there are many, and each only a moment.
WARM = {"FLOWKIT_WARM": "json"}

LEAF = """
import os
import flowkit as fk
with open(os.path.join(folder, f"ran {item}"), "a") as file:
    file.write(fk.current_run().id + chr(10))
if item in wrong and not os.path.exists(os.path.join(folder, "right")):
    raise ValueError(f"{item} is wrong")
while os.path.exists(os.path.join(folder, "wait")):
    pass
fk.result("square", item * item)
fk.result("name", f"item {item}")
"""

FAN = """
import flowkit as fk
flow = fk.Flow("fan")

@flow.node
def items(count: int, folder: str) -> list:
    with open(f"{folder}/counted", "a") as file:
        file.write("x")
    return list(range(count))

leaf = fk.notebook("leaf.ipynb")
flow.add(leaf, item="items", map="item", folder="folder", wrong="wrong", outputs=("square", "name"))

@flow.node
def total(square: list, name: list) -> int:
    assert name == [f"item {item}" for item in range(len(name))]
    return sum(square)
"""


@pytest.fixture
def fan(tmp_path: Path) -> Path:
    folder = f"folder = {str(tmp_path)!r}"
    write(tmp_path / "leaf.ipynb", LEAF, parameters=f"item: int = 0\n{folder}\nwrong: list = []")
    cells = FAN, "fk.result('total', flow.run(count=count, folder=folder, wrong=wrong)['total'])"
    return write(tmp_path / "fan.ipynb", *cells, parameters=f"count: int = 3\n{folder}\nwrong: list = []")


def ran(folder: Path) -> Counter[str]:
    return Counter({place.name: len(place.read_text().split()) for place in folder.glob("ran *")})


def ended(client: Client, run: Run, *, seconds: float = 120) -> Run:
    id = run if isinstance(run, str) else run.id
    return eventually(
        lambda: (found := client.store.run(id)).state.final and found, seconds=seconds
    ) or client.store.run(id)


@on_both
def test_a_tree_deeper_than_there_are_slots_ends(client: Client, fan: Path, tmp_path: Path) -> None:
    child = "fan.ipynb"
    for name in ("third.ipynb", "second.ipynb", "first.ipynb"):
        cell = f"""
import flowkit as fk
flow = fk.Flow("deep")
flow.add(fk.notebook({child!r}), "below")
@flow.node
def total(below: dict) -> int:
    return below["total"] + 1
fk.result("total", flow.run()["total"])
"""
        write(tmp_path / name, cell)
        child = name
    with worker("--concurrency", 1, **WARM):
        run = ended(client, client.submit(tmp_path / "first.ipynb"))

    assert (run.state, run.error) == (State.SUCCEEDED, None)
    below = [client.store.run(id) for id in client.store.whole([run.id])[run.id]]
    assert Counter(one.notebook.rpartition("/")[2] for one in below) == {
        "second.ipynb": 1,
        "third.ipynb": 1,
        "fan.ipynb": 1,
        "leaf.ipynb": 3,
    }
    assert {one.state for one in below} == {State.SUCCEEDED}
    [node, total] = client.nodes(run)
    assert node.child == client.store.children(run.id)[0].id
    assert total.state is State.SUCCEEDED
    assert run.output is not None
    assert "waits for its child notebooks" in outputs(run.output.replace("/2/", "/1/"))


def test_all_children_are_there_and_none_twice_when_a_worker_is_killed(
    client: Client, fan: Path, tmp_path: Path
) -> None:
    with worker(**WARM) as one, worker(**WARM):
        submitted = client.submit(fan, parameters={"count": 40})
        eventually(lambda: len(ran(tmp_path)) >= 8, seconds=120)
        one.send_signal(signal.SIGKILL)
        run = ended(client, submitted)

    assert (run.state, run.error) == (State.SUCCEEDED, None)
    children = client.store.children(run.id)
    assert Counter(child.parameters["item"] for child in children) == dict.fromkeys(range(40), 1)
    lost = sum(child.crashes for child in children)
    assert sum(ran(tmp_path).values()) <= 40 + lost, "a child has run again that was not lost"
    assert lost <= 2, "a worker has lost more than it had under way"
    assert (tmp_path / "counted").read_text() == "x", "a kept node was computed again"


def test_the_failure_of_a_child_goes_up_and_a_retry_runs_that_child_alone(
    client: Client, fan: Path, tmp_path: Path
) -> None:
    with worker(**WARM):
        run = ended(client, client.submit(fan, parameters={"wrong": [1]}))
        [failed] = [child for child in client.store.children(run.id) if child.state is State.FAILED]
        (tmp_path / "right").touch()
        told = answer("show", run.id[:8])
        again = ended(client, client.retry(run.id))

    assert run.state is State.FAILED
    assert run.error is not None
    assert f"leaf[1] failed: ChildFailed: the notebook 'leaf.ipynb', run {failed.id[:8]}, failed" in run.error
    assert "ValueError: 1 is wrong" in run.error
    assert {node["name"]: node["child"] for node in told["nodes"]}["leaf[1]"] == failed.id
    assert (again.state, again.error) == (State.SUCCEEDED, None)
    assert ran(tmp_path) == {"ran 0": 1, "ran 1": 2, "ran 2": 1}


def test_a_cancel_goes_down_to_the_kernels(client: Client, fan: Path, tmp_path: Path) -> None:
    (tmp_path / "wait").touch()
    with worker(**WARM):
        run = client.submit(fan)
        eventually(lambda: len(ran(tmp_path)) == 2, seconds=60)
        assert flowkit("cancel", run.id[:8]).returncode == 0
        eventually(lambda: all(child.state.final for child in client.store.children(run.id)))

    assert client.store.run(run.id).state is State.CANCELLED
    assert [child.state for child in client.store.children(run.id)] == [State.CANCELLED] * 3
    assert len(ran(tmp_path)) == 2, "a child has begun after its parent was cancelled"


def test_an_edit_of_a_child_does_not_change_a_deployed_parent(client: Client, fan: Path, tmp_path: Path) -> None:
    first, _ = client.deploy(fan)
    write(
        tmp_path / "leaf.ipynb", "raise SystemExit('edited')", parameters="item: int = 0\nfolder = ''\nwrong: list = []"
    )
    with worker(**WARM):
        run = ended(client, client.submit("fan"))

    assert (run.state, run.error) == (State.SUCCEEDED, None)
    second, new = client.deploy(fan)
    assert (first.version, second.version, new) == (1, 2, True)


def test_a_deployment_is_a_child_with_its_own_queue_and_not_of_itself(
    client: Client, fan: Path, tmp_path: Path
) -> None:
    client.deploy(fan, parameters={"count": 2})
    cell = """
import flowkit as fk
flow = fk.Flow("by name")
flow.add(fk.notebook(deployment="fan"), "fan", count="count")
fk.result("fan", flow.run(count=4)["fan"])
"""
    run = client.submit(write(tmp_path / "above.ipynb", cell))
    write(tmp_path / "fan.ipynb", cell)
    client.deploy(tmp_path / "fan.ipynb", name="circle")
    itself = write(tmp_path / "itself.ipynb", cell.replace('"fan"', '"itself"'))
    client.deploy(itself)
    with worker(**WARM):
        done, circle = ended(client, run), ended(client, client.submit("itself"))

    [child] = client.store.children(done.id)
    assert (done.state, child.deployment, child.parameters) == (State.SUCCEEDED, "fan", {"count": 4})
    assert circle.error == (
        "NotebookError: the deployment 'itself' runs itself as a child; one of them must not run the next"
    )


def test_a_notebook_without_its_children_is_refused(client: Client, tmp_path: Path) -> None:
    cell = "import flowkit as fk\nflow = fk.Flow('x')\nflow.add(fk.notebook({}), 'child')"
    circle = write(tmp_path / "circle.ipynb", cell.format("'./circle.ipynb'"))
    absent = write(tmp_path / "absent.ipynb", cell.format("'circel.ipynb'"))
    computed = write(tmp_path / "computed.ipynb", cell.format("f'{day}.ipynb'"))
    refused = {
        circle: "these notebooks run each other: circle.ipynb -> circle.ipynb; one of them must not run the next",
        absent: "absent.ipynb runs 'circel.ipynb' as a child: no notebook at ",
        computed: "computed.ipynb, cell 1: fk.notebook(f'{day}.ipynb') names a child by something computed; write its",
    }

    for notebook, error in refused.items():
        for act in (client.deploy, client.submit):
            with pytest.raises(NotebookError) as caught:
                act(notebook)
            assert str(caught.value).startswith(error)
