"""Everything together, as its user has it: commands, workers, kernels, on both pairs of store and broker."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from flowkit.client import Client
from flowkit.config import Config
from flowkit.model import Schedule, State, now
from flowkit.worker.dispatch import Dispatcher
from flowkit.worker.worker import identity
from tests.notebooks_made import outputs, write
from tests.processes import FLOWKIT, answer, eventually, flowkit, worker
from tests.servers import Databases

FLOW = """
import time
import flowkit as fk
flow = fk.Flow("numbers")

@flow.node
def numbers(top: int) -> list:
    print("counting to", top, flush=True)
    return list(range(top))

@flow.node
def total(numbers: list) -> int:
    return sum(numbers)

@flow.node
def late(total: int, pause: float) -> int:
    time.sleep(pause)
    return total
"""


#: Only what differs between store and broker is tried on both.
on_both = pytest.mark.parametrize("place", ["embedded", "servers"], indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place where flowkit is at home: SQLite for all, or PostgreSQL and Redis."""
    monkeypatch.setenv("FLOWKIT_LEASE", "6")
    if getattr(request, "param", "embedded") == "embedded":
        yield home
        return
    monkeypatch.setenv("FLOWKIT_REDIS_URL", request.getfixturevalue("redis_url"))
    databases: Databases = request.getfixturevalue("postgres_databases")
    with databases.fresh() as url:
        monkeypatch.setenv("FLOWKIT_DATABASE_URL", url)
        yield home


@pytest.fixture
def client(place: Path) -> Iterator[Client]:
    with Client(Config.from_env()) as client:
        yield client


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    cells = (FLOW, "flow.run(top=top, pause=pause)")
    return write(tmp_path / "numbers.ipynb", *cells, parameters="top: int = 3\npause: float = 0.0")


@on_both
def test_a_notebook_is_deployed_run_and_remembered(place: Path, client: Client, numbers: Path) -> None:
    deployed = answer("deploy", numbers, "-p", "top", 5)
    again = flowkit("deploy", numbers, "-p", "top", 5)
    with worker():
        done = flowkit("run", "numbers", "--wait", "--json")

    assert deployed["version"] == 1
    assert again.stdout.startswith("nothing new: numbers version 1")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert (run["state"], run["cause"], run["attempt"], run["parameters"]) == ("succeeded", None, 1, {"top": 5})
    assert [(node["name"], node["state"]) for node in run["nodes"]] == [
        ("numbers", "succeeded"),
        ("total", "succeeded"),
        ("late", "succeeded"),
    ]
    assert answer("show", run["id"][:8]) == run
    assert answer("runs") == [run]
    assert "top = 5" in Path(run["output"]).read_text()
    assert "counting to 5\n" in flowkit("logs", run["id"]).stdout
    assert not any((place / "work").glob("*"))


@on_both
def test_a_firing_starts_one_run_though_two_workers_tick(client: Client, tmp_path: Path) -> None:
    cell = "print(repr(scheduled_for))"
    notebook = write(tmp_path / "hourly.ipynb", cell, parameters="scheduled_for = None")
    schedule = Schedule(cron="* * * * *", zone="Asia/Kolkata")
    client.deploy(notebook, schedule=schedule)
    client.store.pause("hourly", now=now())
    due = datetime.fromisoformat("2026-01-01T06:00:00+00:00")
    client.store.resume("hourly", next=due, now=now())

    with worker(), worker():
        runs = eventually(lambda: [run for run in client.store.runs() if run.state is State.SUCCEEDED])
        listed = client.store.runs()

    firings = [run.scheduled_for for run in listed]
    assert len(set(firings)) == len(firings)
    assert runs[-1].output is not None
    assert "tzinfo=zoneinfo.ZoneInfo(key='Asia/Kolkata')" in outputs(runs[-1].output)


@on_both
def test_a_run_is_retried_with_backoff_and_ends_as_its_last_attempt_did(client: Client, tmp_path: Path) -> None:
    seen = tmp_path / "attempts"
    cell = f"""
import flowkit as fk
with open({str(seen)!r}, "a") as file:
    print(fk.current_run().attempt, fk.current_run().key, file=file)
if fk.current_run().attempt < 3:
    raise ValueError("not yet")
"""
    notebook = write(tmp_path / "flaky.ipynb", cell)
    with worker():
        done = flowkit("run", notebook, "--retries", 2, "--backoff", "0.2s", "--wait", "--json")

    run = json.loads(done.stdout)
    assert (done.returncode, run["state"], run["attempt"], run["error"]) == (0, "succeeded", 3, None)
    lines = [line.split() for line in seen.read_text().splitlines()]
    assert [attempt for attempt, _ in lines] == ["1", "2", "3"]
    assert {key for _, key in lines} == {run["id"]}


def test_a_failed_run_tells_why_and_a_person_may_retry_it(client: Client, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    notebook = write(
        tmp_path / "broken.ipynb", f"import os\nprint('before')\nassert os.path.exists({str(mended)!r}), 'no file'"
    )
    with worker():
        failed = flowkit("run", notebook, "--wait", "--json")
        run = json.loads(failed.stdout)
        mended.touch()
        retried = flowkit("retry", run["id"], "--wait", "--json")

    assert failed.returncode == 1
    assert (run["state"], run["cause"], run["error"]) == ("failed", "notebook", "AssertionError: no file")
    assert failed.stderr.splitlines()[-1] == f"flowkit: run {run['id'][:8]} failed (notebook): AssertionError: no file"
    executed = json.loads(Path(run["output"]).read_text())
    assert executed["metadata"]["papermill"]["exception"] is True
    assert "AssertionError: no file" in outputs(run["output"])
    again = json.loads(retried.stdout)
    assert (again["id"], again["state"], again["attempt"], again["cause"]) == (run["id"], "succeeded", 2, None)


@pytest.mark.parametrize(
    ("cell", "options", "cause", "code"),
    [
        # The second: output still in ZeroMQ's buffers dies with the process that printed it.
        (
            "import os, signal, time; print('so far', flush=True); time.sleep(1); os.kill(os.getpid(), signal.SIGKILL)",
            (),
            "crashed",
            3,
        ),
        ("import time; print('so far', flush=True); time.sleep(60)", ("--timeout", "1s"), "timeout", 4),
    ],
)
def test_a_run_cut_off_keeps_its_output_and_says_so(
    client: Client, tmp_path: Path, cell: str, options: tuple[str, ...], cause: str, code: int
) -> None:
    notebook = write(tmp_path / "cut.ipynb", cell, "print('never')")
    with worker():
        done = flowkit("run", notebook, *options, "--wait", "--json")

    run = json.loads(done.stdout)
    assert (done.returncode, run["state"], run["cause"]) == (code, "failed", cause)
    assert [(node["name"], node["state"]) for node in run["nodes"]] == [("cell 1", "failed"), ("cell 2", "skipped")]
    assert "so far" in outputs(run["output"])
    executed = json.loads(Path(run["output"]).read_text())
    assert executed["metadata"]["papermill"]["exception"] is True
    never = next(cell for cell in executed["cells"] if "".join(cell["source"]) == "print('never')")
    assert never["metadata"]["papermill"]["status"] == "pending"


@on_both
def test_a_killed_workers_run_is_finished_by_another_and_its_notebook_does_not_lie(
    client: Client, numbers: Path
) -> None:
    run = client.submit(numbers, parameters={"pause": 4.0})
    with worker() as first:
        eventually(lambda: "counting" in _log(client, run.id))
        eventually(lambda: client.store.run(run.id).output and Path(client.store.run(run.id).output).exists())
        first.send_signal(signal.SIGKILL)
    with worker():
        ended = client.follow(run.id, lambda *_: None)

    assert (ended.state, ended.attempt, ended.crashes) == (State.SUCCEEDED, 2, 1)
    assert ended.output is not None
    left = Path(ended.output.replace("/2/", "/1/"))
    executed = json.loads(left.read_text())
    assert executed["metadata"]["papermill"]["exception"] is True
    assert executed["metadata"]["flowkit"]["cause"] == "crashed"


@on_both
def test_a_run_under_way_is_cancelled_within_seconds_and_stays_so(client: Client, tmp_path: Path) -> None:
    run = client.submit(write(tmp_path / "slow.ipynb", "import time\nprint('on', flush=True)\ntime.sleep(60)"))
    with worker():
        eventually(lambda: "on" in _log(client, run.id))
        assert _processes_of(run.id)
        told = flowkit("cancel", run.id).stdout
        asked = answer("show", run.id)
        eventually(lambda: client.store.run(run.id).state is State.CANCELLED, seconds=10)
        left = _processes_of(run.id)
        again = flowkit("cancel", run.id)

    assert told == f"run {run.id} is being cancelled; its kernel ends within seconds\n"
    assert asked["cancelling"] or asked["state"] == "cancelled"
    assert left == []
    assert "KeyboardInterrupt" in Path(client.store.run(run.id).output or "").read_text()
    assert client.store.run(run.id).state is State.CANCELLED
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "is cancelled" in again.stderr


@on_both
def test_a_stopping_worker_hands_its_run_back_unharmed(client: Client, numbers: Path) -> None:
    run = client.submit(numbers, parameters={"pause": 20.0})
    with worker(FLOWKIT_GRACE="0.5") as first:
        eventually(lambda: "counting" in _log(client, run.id))
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 0

    back = client.store.run(run.id)
    assert (back.state, back.attempt, back.crashes) == (State.PENDING, 1, 0)


def test_a_second_ctrl_c_hands_back_at_once(client: Client, numbers: Path) -> None:
    run = client.submit(numbers, parameters={"pause": 60.0})
    with worker(FLOWKIT_GRACE="60") as first:
        eventually(lambda: "counting" in _log(client, run.id))
        first.send_signal(signal.SIGINT)
        time.sleep(1.0)
        first.send_signal(signal.SIGINT)
        assert first.wait(20) == 0

    back = client.store.run(run.id)
    assert (back.state, back.attempt, back.crashes) == (State.PENDING, 1, 0)


def test_a_stopping_worker_lets_a_short_run_end(client: Client, numbers: Path) -> None:
    run = client.submit(numbers, parameters={"pause": 2.0})
    with worker() as first:
        eventually(lambda: "counting" in _log(client, run.id))
        first.send_signal(signal.SIGINT)
        assert first.wait(20) == 0

    assert client.store.run(run.id).state is State.SUCCEEDED


@on_both
def test_an_idle_worker_begins_a_run_within_half_a_second(client: Client, tmp_path: Path) -> None:
    notebook = write(tmp_path / "quick.ipynb", "1")
    with worker():
        client.follow(client.submit(notebook).id, lambda *_: None)
        waits = []
        for _ in range(3):
            run = client.follow(client.submit(notebook).id, lambda *_: None)
            assert run.started is not None
            waits.append((run.started - run.created).total_seconds())

    assert min(waits) < 0.5, waits


@on_both
def test_a_worker_takes_runs_of_its_queues_only_the_most_urgent_first(client: Client, tmp_path: Path) -> None:
    notebook = write(tmp_path / "quick.ipynb", "1")
    other = client.submit(notebook, policy={"queue": "other"})
    later, urgent = (client.submit(notebook, policy={"queue": "here", "priority": priority}) for priority in (0, 9))
    with worker("--queue", "here", "--concurrency", 1):
        ended = [client.follow(run.id, lambda *_: None) for run in (later, urgent)]

    assert ended[1].started < ended[0].started
    assert client.store.run(other.id).state is State.PENDING


def test_a_deployed_run_keeps_the_notebook_it_was_submitted_with(client: Client, tmp_path: Path) -> None:
    notebook = write(tmp_path / "edited.ipynb", "print('first')")
    client.deploy(notebook)
    run = client.submit("edited")
    write(notebook, "print('second')")
    newer, _ = client.deploy(notebook)
    before = notebook.read_text()
    with worker():
        ended = client.follow(run.id, lambda *_: None)
        second = client.follow(client.submit("edited").id, lambda *_: None)

    assert (newer.version, ended.version, second.version) == (2, 1, 2)
    assert outputs(ended.output) == "first\n"
    assert outputs(second.output) == "second\n"
    assert notebook.read_text() == before


def test_old_runs_go_with_their_artifacts(client: Client, tmp_path: Path) -> None:
    notebook = write(tmp_path / "many.ipynb", "1")
    client.deploy(notebook, keep_succeeded=1)
    with worker():
        runs = [client.follow(client.submit("many").id, lambda *_: None) for _ in range(3)]
    dispatcher = Dispatcher(
        client.store, client.artifacts, worker=identity(["none"], 1, at=now()), ring=client.ring, lease=15,
        folder=tmp_path / "work",
    )  # fmt: skip
    dispatcher.prune()

    assert [run.id for run in client.store.runs()] == [runs[2].id]
    assert [Path(run.output).exists() for run in runs] == [False, False, True]


def test_a_paused_deployment_fires_nothing_and_makes_nothing_up(client: Client, tmp_path: Path) -> None:
    notebook = write(tmp_path / "beat.ipynb", "1")
    answer("deploy", notebook, "--every", "1s")
    answer("pause", "beat")
    with worker():
        eventually(lambda: client.workers())
        resumed = answer("resume", "beat")
        eventually(lambda: client.store.runs())

    assert min(run.scheduled_for for run in client.store.runs()) >= datetime.fromisoformat(resumed["schedule"]["next"])


def test_many_parameters_arrive_as_given(client: Client, tmp_path: Path) -> None:
    values = {
        "text": 'it\'s "quoted"\n\ttwo lines \\n {braces} é 漢字 🎈 \u2028 \x00',
        "big": "x" * 1_000_000,
        "number": float("nan"),
        "nested": {"a": [1, None, True, {"b": -2.5}], "ключ": "значение"},
        "none": None,
    }
    cell = "import json; json.dump([text, big, number, nested, none], open('got.json', 'w'))"
    notebook = write(tmp_path / "values.ipynb", cell, parameters="\n".join(f"{name} = None" for name in values))
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    with worker():
        done = flowkit("run", notebook, "-f", file, "--wait")

    assert done.returncode == 0, done.stderr
    assert repr(json.loads((tmp_path / "got.json").read_text())) == repr(list(values.values()))


def test_parameters_are_given_in_two_words_or_with_an_equals_sign(client: Client, tmp_path: Path) -> None:
    notebook = write(tmp_path / "given.ipynb", "1", parameters="text = ''\ncount = 1")

    two_words = answer("deploy", notebook, "-p", "text", "a=b", "-p", "count", "-2", "--name", "one")
    equals = answer("deploy", notebook, "-p", "text=a=b", "--parameter", "count=-2", "--name", "two")

    assert two_words["parameters"] == equals["parameters"] == {"text": "a=b", "count": -2}


def test_a_value_without_a_default_may_come_with_the_run_but_a_schedule_needs_it(
    client: Client, tmp_path: Path
) -> None:
    notebook = write(tmp_path / "needs.ipynb", "print(day)", parameters="day: str")
    scheduled = flowkit("deploy", notebook, "--cron", "0 6 * * *")
    by_hand = flowkit("deploy", notebook)
    without = flowkit("run", "needs")
    given = flowkit("run", "needs", "-p", "day", "2013-07-01")

    needs = "flowkit: needs.ipynb needs a value for 'day': its parameters cell gives none\n"
    assert (scheduled.stderr, without.stderr) == (needs, needs)
    assert (by_hand.returncode, given.returncode) == (0, 0)


def test_waiting_is_left_by_ctrl_c_while_the_run_goes_on(client: Client, numbers: Path) -> None:
    command = [*FLOWKIT, "run", str(numbers), "-p", "pause", "2", "--wait"]
    with worker():
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as waiting:
            run = eventually(lambda: [run for run in client.store.runs() if run.state is State.RUNNING])[0]
            waiting.send_signal(signal.SIGINT)
            _, told = waiting.communicate(timeout=10)
        assert waiting.returncode == 130
        assert f"run {run.id[:8]} goes on; stop it: flowkit cancel {run.id[:8]}" in told
        assert client.follow(run.id, lambda *_: None).state is State.SUCCEEDED


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_up_serves_both_and_leaves_nothing_behind(client: Client, how: signal.Signals) -> None:
    command = [*FLOWKIT, "up", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as up:
        assert up.stdout is not None
        line = up.stdout.readline()
        eventually(lambda: client.workers())
        children = _children(up.pid)
        up.send_signal(how)
        assert up.wait(20) == (-how if how is signal.SIGKILL else 0)

    assert line.startswith("dashboard: http://127.0.0.1:")
    assert len(children) == 2
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), seconds=10)


def test_up_begins_nothing_if_the_port_is_taken(client: Client, numbers: Path) -> None:
    run = client.submit(numbers)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = flowkit("up", "--port", taken.getsockname()[1])

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is taken" in done.stderr
    assert client.store.run(run.id).state is State.PENDING


def test_a_retry_that_is_followed_begins_with_the_new_attempt(client: Client, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    notebook = write(tmp_path / "broken.ipynb", f"import os\nassert os.path.exists({str(mended)!r}), 'no file'")
    with worker():
        run = client.follow(client.submit(notebook).id, lambda *_: None)
        mended.touch()
        retried = flowkit("retry", run.id, "--wait")

    assert retried.returncode == 0
    assert "no file" not in retried.stderr


def test_output_that_cannot_be_written_is_told_in_one_line(place: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*FLOWKIT, "runs"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (2, "flowkit: cannot write the output: No space left on device\n")


def test_a_deploying_cell_does_nothing_in_the_run_of_its_own_notebook(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "self.ipynb"
    write(path, f"import flowkit as fk\nprint(fk.deploy({str(path)!r}, cron='0 6 * * *'))")
    with worker():
        ended = client.follow(client.submit(path).id, lambda *_: None)

    assert ended.state is State.SUCCEEDED
    assert outputs(ended.output) == "None\n"
    assert client.store.deployments() == []


def test_a_kernel_does_not_know_the_stores_address(client: Client, tmp_path: Path, monkeypatch) -> None:
    cell = """
import os, pathlib
print(sorted(name for name in os.environ if name.startswith('FLOWKIT_')), list(os.environ.values()))
print([file.read_text() for file in pathlib.Path(os.environ['FLOWKIT_RUN_FOLDER']).iterdir() if file.is_file()])
"""
    path = write(tmp_path / "env.ipynb", cell)
    monkeypatch.setenv("FLOWKIT_ARTIFACTS_URL", str(tmp_path / "elsewhere"))
    with worker():
        ended = client.follow(client.submit(path).id, lambda *_: None)

    assert ended.output.startswith(str(tmp_path / "elsewhere"))
    assert "DATABASE" not in outputs(ended.output)
    assert "REDIS" not in outputs(ended.output)
    assert client.store.secret("messages").hex() not in outputs(ended.output)


def _log(client: Client, run: str) -> str:
    return "".join(event.data for event in client.store.events(run)[1] if event.kind == "output")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _processes_of(run: str) -> list[int]:
    """The kernel of a run and what it started: they have the run's folder in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{run}.".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found
