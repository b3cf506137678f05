"""The nodes that wait, tell people and run programs: in time, and not beyond their node."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

import flowkit as fk
from flowkit.client import Client
from flowkit.config import Config
from flowkit.errors import AddressRefused, Unavailable, UsageError
from flowkit.model import Run, State, now
from flowkit.nodes import notify, shell, sql, wait
from flowkit.worker import waits
from tests.notebooks_made import write
from tests.processes import eventually, worker
from tests.web import web


def test_a_file_is_waited_for_and_given_up_in_time(tmp_path):
    path = tmp_path / "2013-07-01.csv"
    timer = threading.Timer(0.3, path.touch)
    timer.start()

    assert wait.file(str(tmp_path / "*.csv"), every=0.05, within=60) == [str(path)]
    timer.join()
    with pytest.raises(Unavailable, match=r"no file .*never, after 0\.1 s of waiting; raise within="):
        wait.file(str(tmp_path / "never"), every=0.05, within=0.1)


def test_a_row_is_waited_for_also_while_its_table_is_not_there(tmp_path):
    url = f"sqlite:///{tmp_path / 'loads.db'}"
    row = pd.DataFrame({"day": ["2013-07-01"], "rows": [5]})
    timer = threading.Timer(0.3, lambda: sql.write(url, row, "loads", how="new"))
    timer.start()

    found = wait.row(url, "select * from loads where day = :day", values={"day": "2013-07-01"}, every=0.05, within=60)
    timer.join()
    assert found == {"day": "2013-07-01", "rows": 5}
    with pytest.raises(Unavailable, match="no row, after 0 s of waiting"):
        wait.row(url, "select * from loads where rows > 5", within=0)
    with pytest.raises(Unavailable, match="no such table: nowhere, after 0 s of waiting"):
        wait.row(url, "select * from nowhere", within=0)


def test_an_instant_is_waited_for_and_has_to_be_one():
    due = now() + timedelta(seconds=0.3)
    assert wait.instant(due.isoformat()) == due
    assert now() >= due
    with pytest.raises(UsageError, match="has no offset, so it is another instant elsewhere"):
        wait.instant("2013-07-01T06:00")
    with pytest.raises(UsageError, match="is no instant"):
        wait.instant("tomorrow")


REPORT = """
from flowkit.nodes import wait
import flowkit as fk
flow = fk.Flow("report")

@flow.node
def load(name: str, day: str, within: float) -> dict:
    return wait.run(name, values={"day": day}, within=within, every=0.1)
"""


def test_a_run_waits_for_a_run_of_another_deployment(home: Path, tmp_path: Path) -> None:
    load = write(tmp_path / "load.ipynb", "assert day != 'bad', 'no such day'", parameters="day: str")
    parameters = "name: str = 'load'\nday: str\nwithin: float = 60.0"
    report = write(
        tmp_path / "report.ipynb", REPORT, "flow.run(name=name, day=day, within=within)", parameters=parameters
    )

    with Client(Config.from_env()) as client, worker("--concurrency", "2"):

        def ended(run: Run) -> Run:
            return eventually(lambda: (seen := client.store.run(run.id)).state.final and seen, seconds=90)

        client.deploy(load, parameters={"day": "1"})
        for day in ("1", "bad"):
            ended(client.submit("load", parameters={"day": day}))
        waiting = client.submit(report, parameters={"day": "2"})
        eventually(lambda: [node for node in client.nodes(client.store.run(waiting.id)) if node.name == "load"])
        assert not client.store.run(waiting.id).state.final
        loaded = client.submit("load", parameters={"day": "2"})
        assert ended(waiting).state is State.SUCCEEDED, ended(waiting).error
        assert ended(loaded).finished < ended(waiting).finished  # type: ignore[operator]

        failed = ended(client.submit(report, parameters={"day": "bad", "within": 0.2})).error or ""
        unknown = ended(client.submit(report, parameters={"day": "1", "name": "lode"})).error or ""

        fired = client.store.run(loaded.id)
        asked = {"awaited": "load", "since": None, "firing": None, "values": {}}
        assert waits.answer(client.store, asked)["run"]["id"] == loaded.id
        assert waits.answer(client.store, asked | {"since": now().isoformat()}) == {}
        assert waits.answer(client.store, asked | {"since": fired.created.isoformat()})["run"]["id"] == loaded.id
        assert waits.answer(client.store, asked | {"firing": now().isoformat()}) == {}
    assert "no run of 'load' that is meant has succeeded; the newest, run " in failed
    assert "failed: AssertionError: no such day, after 0.2 s of waiting" in failed
    assert "UsageError: no deployment 'lode'" in unknown


def test_which_run_is_waited_for_has_to_be_said_and_a_worker_has_to_be_there() -> None:
    with pytest.raises(UsageError, match="which run of 'load' is meant"):
        wait.run("load")
    with pytest.raises(UsageError, match="only a worker can look for runs of 'load'"):
        wait.run("load", since=now())
    with pytest.raises(UsageError, match="longer than 3500 characters"):
        wait.run("load", values={"day": "x" * 4000})


def test_a_message_arrives_and_who_could_not_be_told_is_named_without_a_password(monkeypatch):
    monkeypatch.delenv("FLOWKIT_HTTP_ALLOW", raising=False)
    with web(lambda asked: (200 if asked.path == "/ok" else 500, {}, {})) as server:
        assert notify.send([f"json://127.0.0.1:{server.port}/ok"], "26 orders", title="Night", kind="success") == 1
        told = json.loads(server.asked[0].body)
        assert (told["title"], told["message"], told["type"]) == ("Night", "26 orders", "success")

        both = [f"json://anna:s3cret@127.0.0.1:{server.port}/no", f"json://127.0.0.1:{server.port}/ok"]
        with pytest.raises(Unavailable, match="1 of 2 could not be told: json://anna:") as caught:
            notify.send(both, "x")
        assert "s3cret" not in str(caught.value)
        assert len(server.asked) == 3, "the other one has it"

        with pytest.raises(UsageError, match="number 2 of to= is nosuch://, of which Apprise makes nothing"):
            notify.send([both[1], "nosuch://s3cret"], "x")
        monkeypatch.setenv("FLOWKIT_HTTP_ALLOW", "")
        with pytest.raises(AddressRefused, match="add it to the worker's FLOWKIT_HTTP_ALLOW"):
            notify.send([both[1]], "x")
        assert len(server.asked) == 3


def test_a_program_gets_its_arguments_as_they_are_and_gives_what_it_printed(tmp_path):
    assert shell.run(["printf", "%s|", "$HOME", "*; ls", "a b"]) == "$HOME|*; ls|a b|"
    assert shell.run(["cat"], text="ä") == "ä"
    assert shell.run(["sh", "-c", "echo $DAY; pwd"], variables={"DAY": "1"}, folder=str(tmp_path)) == f"1\n{tmp_path}\n"
    assert shell.run(["sh", "-c", "echo no; exit 3"], codes=[0, 3]) == "no\n"
    with pytest.raises(Unavailable, match="sh ended with 3: what was wrong"):
        shell.run(["sh", "-c", "echo what was wrong >&2; exit 3"])
    with pytest.raises(UsageError, match="nosuch-program cannot be run: No such file or directory"):
        shell.run(["nosuch-program"])
    with pytest.raises(UsageError, match="it must be a list of texts"):
        shell.run("rm -rf x")  # type: ignore[arg-type]


def beating(file: Path) -> list[str]:
    """A program, and one that it leaves in the background, which append to *file* for a minute."""
    loop = f"for i in $(seq 600); do echo x >> {file}; sleep 0.1; done"
    return ["sh", "-c", f"({loop}) & {loop}"]


def still(file: Path) -> bool:
    size = file.stat().st_size
    time.sleep(0.5)
    return file.stat().st_size == size


@pytest.mark.parametrize("how", ["within", "timeout", "cancel"])
def test_a_program_and_what_it_started_end_with_their_time_their_node_or_their_flow(how, tmp_path):
    file = tmp_path / "beats"
    flow = fk.Flow("programs")
    within = 0.6 if how == "within" else 60.0
    flow.add(shell.run, command=beating(file), within=within, timeout=0.6 if how == "timeout" else None)

    class Graph:
        """Of the graph in a notebook, what stands between its button Cancel and a run."""

        def follow(self, graph: object, outcome: object, cancel: Callable[[], None]) -> Callable[[], None]:
            def press() -> None:
                eventually(lambda: file.exists() and file.stat().st_size > 4)
                cancel()

            threading.Thread(target=press).start()
            return lambda: None

    if how == "cancel":
        flow._view = Graph()  # type: ignore[assignment]
    with pytest.raises(fk.FlowkitError):
        flow.run()

    assert file.stat().st_size > 0
    eventually(lambda: still(file))
