"""Notebooks in real kernels, which die, hang and flood as kernels do."""

from __future__ import annotations

import base64
import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import nbformat
import papermill.execute
import psutil
import pytest
from papermill.exceptions import PapermillExecutionError

from flowkit.events import LOG, Event
from flowkit.journal import replayed
from flowkit.model import Cause, CurrentRun, Ending, State
from flowkit.worker.executed import mark_crashed
from flowkit.worker.kernel import Stop
from tests.processes import eventually
from tests.worker.execution import Execution, notebook, shown, standard_json

SLEEP = "import time\nprint('begun', flush=True)\ntime.sleep(60)"
BUSY = "sum(range(10**11))  # in C, holding the GIL: no signal is heard"
DEAF = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)"


@pytest.fixture(params=["cold", "forked"], autouse=True)
def start(request: pytest.FixtureRequest) -> None:
    """Nothing here depends on how a kernel was started."""
    if request.param == "forked":
        request.getfixturevalue("forked")


@pytest.fixture
def execution(tmp_path: Path) -> Execution:
    return Execution(tmp_path)


def kernels_of(process: psutil.Process | None = None) -> list[psutil.Process]:
    return [child for child in (process or psutil.Process()).children(recursive=True) if "ipykernel" in _command(child)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


# -- a run, and what is told of it ------------------------------------------------------------------------------------


def test_a_notebook_is_executed_and_told_of_while_it_runs(
    execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWKIT_DATABASE_URL", "postgresql://secret")
    write_log = f"""
import os
log = open(os.environ["FLOWKIT_RUN_FOLDER"] + "/{LOG}", "a")
print('{{"kind": "flow", "at": 1, "flow": "f", "data": {{"nodes": {{"n": []}}}}}}', file=log)
print('no event\\n{{"kind": "node", "at": 2, "flow": "f", "name": "n", "state": "running"}}', file=log)
print('{{"kind": "cell", "at": 2, "name": "99", "state": "running"}}', file=log)
log.write('{{"kind": "node", "at": 3, "flow": "f", "name": "n", "state": "succ'); log.flush()
"""
    environment = "print(os.getcwd(), 'FLOWKIT_DATABASE_URL' in os.environ, get_ipython().history_manager.enabled)"
    later = """
import sys, time
print('err', file=sys.stderr)
time.sleep(2.2)
log.write('eeded"}\\n{"kind": "node", "at": 4'); log.flush()
6 * 7
"""

    ending = execution.run("# Title", write_log, environment, ("1/0", "skip-execution"), "  ", later)

    assert ending == Ending(State.SUCCEEDED)
    told = [(event.name, str(event.state)) for event in execution.events if event.kind == "cell"]
    assert told[:3] == [("1", "pending"), ("2", "pending"), ("3", "pending")]
    assert told[3:] == [(number, state) for number in "123" for state in ("running", "succeeded")]
    assert [(e.kind, e.name, e.at) for e in execution.events if e.kind in ("flow", "node")] == [
        ("flow", "", 1),
        ("node", "n", 2),
        ("node", "n", 3),
    ], "each once, when its line is whole; cells are told of by the worker alone"
    assert execution.shown(1) == execution.logged() == f"{execution.folder} False False\n"
    assert execution.logged("stderr") == "err\n"
    assert execution.shown(4) == "err\n42"
    assert [cell["execution_count"] for cell in execution.cells] == [1, 2, None, None, 3]
    assert CurrentRun.from_json((execution.folder / "run.json").read_text()).id == "r1"

    first, last = standard_json(execution.saved[0]), execution.document
    assert {cell["metadata"]["papermill"]["status"] for cell in first["cells"]} & {"pending", "running"}
    assert {cell["metadata"]["papermill"]["status"] for cell in last["cells"]} == {"completed"}
    during = [standard_json(text)["metadata"]["flowkit"]["state"] for text in execution.saved]
    assert len(during) >= 2
    assert set(during[:-1]) == {"running"}
    assert during[-1] == "succeeded"
    assert "err" in shown(standard_json(execution.saved[-2])["cells"][-1]), "a long cell's output shows while it runs"
    assert last["metadata"]["kernelspec"]["name"] == "python3", "the notebook named none"
    assert last["metadata"]["language_info"]["name"] == "python"
    assert last["metadata"]["papermill"]["duration"] > 2.2
    assert last["metadata"]["papermill"]["exception"] is None
    nbformat.validate(nbformat.reads(execution.saved[-1], as_version=4))


def test_a_failed_cell_ends_the_run_and_keeps_its_traceback(execution: Execution) -> None:
    cells = ("raise KeyError('meant')", "raises-exception"), "print('so far')\nraise ValueError('bad\\nday')", "3"

    ending = execution.run(*cells)

    assert ending == Ending(State.FAILED, Cause.NOTEBOOK, "ValueError: bad day")
    assert execution.statuses == ["completed", "failed", "pending"]
    assert "KeyError: 'meant'" in execution.shown(0)
    assert execution.shown(1).startswith("so far\n")
    assert "----> 2 raise ValueError" in execution.shown(1)
    assert [e.error for e in execution.events if e.state is State.FAILED] == ["ValueError: bad day"]
    markers = [cell["source"][0] for cell in execution.document["cells"] if cell["cell_type"] == "markdown"]
    assert "An Exception was encountered at '<a href=\"#papermill-error-cell\">In [2]</a>'" in markers[0]
    assert "Execution using papermill encountered an exception here" in markers[1]
    assert execution.document["metadata"]["papermill"]["exception"] is True
    found = execution.document["metadata"]["flowkit"]
    assert (found["state"], found["cause"], found["error"]) == ("failed", "notebook", "ValueError: bad day")


def test_papermill_itself_sees_the_failure_in_the_document(execution: Execution, tmp_path: Path) -> None:
    execution.run("import os\nos.kill(os.getpid(), 9)")

    with pytest.raises(PapermillExecutionError, match="kernel died in cell 1"):
        papermill.execute.raise_for_execution_errors(nbformat.reads(execution.saved[-1], as_version=4), None)


@pytest.mark.parametrize(
    ("leave", "error"),
    [
        ("import sys; sys.exit(0)", "cell 1 called sys.exit(0), so the notebook did not run to its end"),
        ("exit()", "cell 1 called exit(), so the cells after it did not run"),
    ],
)
def test_a_notebook_left_before_its_last_cell_has_not_succeeded(execution: Execution, leave: str, error: str) -> None:
    ending = execution.run(leave, "2")

    assert (ending.state, ending.cause) == (State.FAILED, Cause.NOTEBOOK)
    assert ending.error is not None
    assert ending.error.startswith(error)
    assert execution.statuses == ["failed", "pending"]


def test_a_last_cell_may_say_exit(execution: Execution) -> None:
    assert execution.run("1", "exit()") == Ending(State.SUCCEEDED)


# -- parameters -------------------------------------------------------------------------------------------------------


def test_parameters_arrive_as_given(execution: Execution) -> None:
    parameters: dict[str, Any] = {
        "quotes": 'it\'s "so" \'\'\'and\'\'\' """so""" \\ \\n',
        "lines": "a\nb\r\nc\td",
        "unicode": "é日本😀 \u2028\u2029\x00\x1b",
        "escapes": "{x} %s \\N{DASH} \\u1234",
        "big": "x" * 1_000_000,
        "floats": [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1e22],
        "ints": [2**80, -(2**64), 0],
        "others": [True, False, None],
        "nested": {"a": [1, {"b": [None, [], {}]}], "": "", "k'\"\n": [[["deep"]]]},
    }
    dump = f"import pickle, base64\nbase64.b64encode(pickle.dumps({{n: globals()[n] for n in {list(parameters)}}}))"

    ending = execution.run(("big = ''", "parameters"), dump, parameters=parameters)

    assert ending == Ending(State.SUCCEEDED)
    arrived = pickle.loads(base64.b64decode(eval(execution.shown(2))))
    assert repr(arrived) == repr(parameters), "by repr, for NaN is not equal to itself"


def test_scheduled_for_arrives_aware_in_the_zone_of_the_schedule(execution: Execution) -> None:
    at = datetime(2013, 11, 3, 1, 30, fold=1, tzinfo=ZoneInfo("America/New_York"))

    execution.run(("scheduled_for = None", "parameters"), "print(scheduled_for, scheduled_for.tzinfo)", at=at)

    assert execution.shown(2) == "2013-11-03 01:30:00-05:00 America/New_York\n"


# -- output -----------------------------------------------------------------------------------------------------------


def test_ten_thousand_flushed_prints_are_a_healthy_run_that_loses_nothing(execution: Execution) -> None:
    execution.on_events = lambda events: (execution.events.extend(events), time.sleep(0.5))[0]  # a slow store
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        ending = execution.run("for i in range(10_000): print(i, flush=True)")
    finally:
        burner.kill()
        burner.wait()

    expected = "".join(f"{i}\n" for i in range(10_000))
    assert ending == Ending(State.SUCCEEDED)
    assert execution.logged() == expected
    assert execution.shown(0) == expected
    assert len(execution.cells[0]["outputs"]) == 1


def test_output_beyond_the_limit_is_not_kept(execution: Execution) -> None:
    ending = execution.run("for i in range(500): print('x' * 99_999)\nraise ValueError('seen')", "2")

    assert ending.error == "ValueError: seen"
    assert 10_000_000 < len(execution.saved[-1]) < 10_100_000
    assert "[flowkit: output beyond 10 MB in a cell or 50 MB in a run is not kept]" in execution.shown(0)
    assert "ValueError: seen" in execution.shown(0)
    assert len(execution.logged()) == 10_000_000
    assert execution.logged("stderr").count("not kept") == 1


def test_displays_progress_bars_and_threads_show_as_in_jupyter(execution: Execution) -> None:
    shows = "from IPython.display import clear_output, display\nbar = display('one', display_id='bar')"
    progress = "for i in range(300_000): print(f'{i:40}', end='\\r')\nprint('done')"
    thread = """
import threading, time
go = threading.Event()
def speak(): go.wait(); print("from a thread")
speaker = threading.Thread(target=speak); speaker.start()
"""

    changes = "bar.update('two')\nprint('gone'); clear_output(); print('kept')"

    ending = execution.run(shows, changes, progress, thread, "go.set()", "speaker.join(); time.sleep(0.4)")

    assert ending == Ending(State.SUCCEEDED)
    assert execution.shown(0) == "'two'"
    assert execution.shown(1) == "kept\n"
    assert execution.shown(2) == "done\n", "12 MB overwritten by itself, not cut off"
    assert execution.logged().count("from a thread") == 1
    assert "from a thread" in "".join(map(shown, execution.cells[3:]))


def test_a_growing_document_is_not_written_over_and_over(execution: Execution) -> None:
    cell = "print(('x' * 99 + '\\n') * 10_000)\nimport time; time.sleep(0.3)"

    execution.run(*[cell] * 20)

    assert len(execution.saved) >= 3
    assert sum(map(len, execution.saved)) < 2.5 * len(execution.saved[-1])


SHOWS = """
import base64, os, time
from IPython.display import clear_output, display
shown = display({"text/plain": "waits"}, raw=True, display_id=True)
for step in range(3):
    clear_output(wait=True)
    display({"text/plain": f"step {step}"}, raw=True)
    shown.update({"text/plain": f"step {step}"}, raw=True)
    time.sleep(0.05)
display({"image/png": base64.b64encode(os.urandom(150_000)).decode()}, raw=True)
print("so far")
"""


def test_with_a_journal_twice_of_what_it_holds_is_written_at_most_and_all_of_it_can_be_read_meanwhile(
    execution: Execution,
) -> None:
    journal, added, read = bytearray(), [], threading.Event()

    def grow(data: bytes, begins: bool) -> None:
        if begins:
            journal.clear()
        journal.extend(data)
        added.append(len(data))
        cells = json.loads(replayed(execution.saved[-1], bytes(journal)))["cells"]
        if "so far" in "".join(map(shown, cells[-1:])):
            read.set()
            (execution.folder / "read").touch()

    execution.on_growth = grow
    waits = "import pathlib\nwhile not pathlib.Path('read').exists(): time.sleep(0.05)"

    assert execution.run(*[SHOWS] * 15, f"print('so far'); {waits}").state is State.SUCCEEDED

    assert read.is_set()
    kept = json.loads(replayed(execution.saved[-2], bytes(journal)))["cells"]
    assert [cell["outputs"] for cell in kept] == [cell["outputs"] for cell in execution.document["cells"]]
    assert sum(added) + sum(map(len, execution.saved)) < 2 * len(execution.saved[-1]) + 1_000_000


def test_half_a_character_does_not_spoil_the_document(execution: Execution) -> None:
    ending = execution.run(
        ("half = ''", "parameters"), "raise ValueError(ascii(half))", parameters={"half": "\ud800", "nan": float("nan")}
    )

    assert ending.error == "ValueError: '\\ud800'"
    assert execution.document["metadata"]["papermill"]["parameters"] == {"half": "\ud800", "nan": "NaN"}


# -- death, time and stopping -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "how"), [("os.kill(os.getpid(), 9)", "killed by signal 9"), ("os._exit(0)", "exit code 0")]
)
def test_a_kernel_that_dies_is_never_a_success(execution: Execution, end: str, how: str) -> None:
    ending = execution.run("1", f"import os, time\nprint('so far', flush=True); time.sleep(0.3)\n{end}", "3")

    error = f"kernel died in cell 2 ({how})"
    assert ending == Ending(State.FAILED, Cause.CRASHED, error)
    assert execution.statuses == ["completed", "failed", "pending"]
    assert execution.shown(1) == f"so far\nKernelDied: {error}"
    assert execution.logged() == "so far\n"
    assert execution.nodes() == {"cell 1": "succeeded", "cell 2": "failed", "cell 3": "pending"}


def test_a_run_past_its_limit_ends_within_five_seconds_whatever_it_does(tmp_path: Path) -> None:
    runs = []
    for name in ("sleep", "busy", "deaf"):
        (tmp_path / name).mkdir()
        runs.append(Execution(tmp_path / name))

    with ThreadPoolExecutor(3) as pool:
        endings = list(pool.map(lambda run, cell: run.run("1", cell, timeout=6.0), runs, (SLEEP, BUSY, DEAF)))

    error = "ran longer than its limit of 6 s, stopped in cell 2"
    assert endings == [Ending(State.FAILED, Cause.TIMEOUT, error)] * 3
    assert max(run.seconds for run in runs) < 11
    assert runs[0].seconds < 8, "what can be interrupted is"
    for run in runs:
        assert run.statuses == ["completed", "failed"]
        assert f"Timeout: {error}" in run.shown(1)
    assert "KeyboardInterrupt" in runs[0].shown(1)
    assert kernels_of() == []


def test_a_stopped_run_is_cancelled(execution: Execution) -> None:
    def stop_when_begun(events: Sequence[Event]) -> None:
        execution.events.extend(events)
        if "begun" in execution.logged():
            execution.stop.set("cancelled by ann")
            execution.stop.set("too late")

    execution.on_events = stop_when_begun

    ending = execution.run(SLEEP, "2")

    assert ending == Ending(State.CANCELLED, None, "cancelled by ann")
    assert execution.seconds < 5
    assert execution.statuses == ["failed", "pending"]
    assert "Cancelled: cancelled by ann" in execution.shown(0)
    assert execution.document["metadata"]["flowkit"]["state"] == "cancelled"


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15])
def test_a_run_can_be_stopped_while_its_kernel_starts(execution: Execution, delay: float) -> None:
    timer = threading.Timer(delay, execution.stop.set, ["early"])
    timer.start()

    ending = execution.run("import time; time.sleep(60)")

    timer.join()
    assert ending == Ending(State.CANCELLED, None, "early")
    assert execution.seconds < 3
    assert kernels_of() == []


def test_what_a_notebook_started_ends_with_it(execution: Execution, tmp_path: Path) -> None:
    child = [sys.executable, "-c", "import time; time.sleep(600)", str(tmp_path)]
    start = f"import os, subprocess\nsubprocess.Popen({child!r})\nprint('started')"

    execution.run(start, "os.kill(os.getpid(), 9)  # else the kernel itself would end its child")

    assert execution.logged() == "started\n"
    assert [process for process in psutil.process_iter() if str(tmp_path) in _command(process)] == []


@pytest.mark.parametrize("which", ["on_events", "on_save"])
def test_a_callback_that_raises_stops_the_kernel(execution: Execution, which: str) -> None:
    def fail(_: object) -> None:
        raise LookupError("the lease is lost")

    setattr(execution, which, fail)

    with pytest.raises(LookupError, match="the lease is lost"):
        execution.run(SLEEP)

    assert execution.seconds < 5
    assert kernels_of() == []


WORKER = """
import sys, time
from pathlib import Path
from tests.worker.execution import Execution
def save(text):
    Path(sys.argv[1], "saved.new").write_text(text); Path(sys.argv[1], "saved.new").rename(Path(sys.argv[1], "saved"))
Execution(Path(sys.argv[1]), on_save=save).run("print('so far', flush=True)", sys.argv[2])
"""


def test_a_kernel_dies_with_its_worker_and_the_last_document_claims_nothing(tmp_path: Path) -> None:
    # Elsewhere only ipykernel itself looks after its parent, which it cannot while a C call keeps it busy.
    cell = BUSY if sys.platform == "linux" else SLEEP
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), cell])
    saved = tmp_path / "saved"
    until = time.monotonic() + 30
    while not (saved.exists() and '"status": "completed"' in saved.read_text() and "running" in saved.read_text()):
        assert time.monotonic() < until
        time.sleep(0.1)
    kernels = kernels_of(psutil.Process(worker.pid))
    assert kernels

    worker.send_signal(signal.SIGKILL)
    worker.wait()

    _, alive = psutil.wait_procs(kernels, timeout=2)
    assert [kernel for kernel in alive if kernel.status() != psutil.STATUS_ZOMBIE] == []
    left = standard_json(saved.read_text())
    assert left["metadata"]["flowkit"]["state"] == "running"
    assert [cell["metadata"]["papermill"]["status"] for cell in left["cells"]] == ["completed", "running"]
    marked = json.loads(mark_crashed(saved.read_text(), "the worker died"))
    assert shown(marked["cells"][-1]) == "WorkerDied: the worker died"
    # Which number the cell has, a kernel busy in C may never have come to say.
    assert "An Exception was encountered at" in "".join(marked["cells"][0]["source"])


def test_a_worker_killed_at_any_instant_loses_little_and_claims_nothing(tmp_path: Path) -> None:
    """A hundred instants in `make soak`, or KILLS=1000, within a second; here other work may be in the way."""
    found = []
    for number, seconds in enumerate((0.1, 1.2)):
        folder = tmp_path / str(number)
        folder.mkdir()
        script = f"from tests.worker.kills import *; print(*kill_after({seconds}, Path({str(folder)!r})))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=True)
        found.append(done.stdout.split())

    assert [claims for claims, _ in found] == ["False"] * 2
    assert max(float(lost) for _, lost in found) < 5


# -- set-up -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

    def install(name: str, *argv: str, language: str = "python") -> None:
        folder = tmp_path / "jupyter" / "kernels" / name
        folder.mkdir(parents=True)
        spec = {"argv": argv, "display_name": name, "language": language, "env": {"OWN": "${HOME}/own"}}
        (folder / "kernel.json").write_text(json.dumps(spec))

    return install


def test_an_unknown_kernel_is_named_beside_those_there_are(execution: Execution) -> None:
    ending = execution.run("1", kernel="pyton3")

    error = "no kernel named 'pyton3'; installed are python3; did you mean 'python3'?"
    assert ending == Ending(State.FAILED, Cause.SETUP, error)
    assert execution.statuses == ["pending"]
    assert error.replace("'", "&#x27;") in "".join(execution.document["cells"][0]["source"])
    assert execution.run(text=notebook("1", kernel="conda-env-gone-py")).cause is Cause.SETUP


def test_a_kernel_that_does_not_start_says_why(execution: Execution, install: Any) -> None:
    install("broken", sys.executable, "-c", "import no_such_library")
    install("gone", "/no/such/program")

    broken, gone = execution.run("1", kernel="broken"), execution.run("1", kernel="gone")

    assert broken.cause is gone.cause is Cause.SETUP
    assert broken.error == (
        "kernel 'broken' did not start (exit code 1): ModuleNotFoundError: No module named 'no_such_library'"
    )
    assert gone.error is not None
    assert gone.error.endswith("/no/such/program: No such file or directory")
    assert "\n" not in gone.error


def test_a_kernel_that_never_answers_is_given_up(
    execution: Execution, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("mute", sys.executable, "-c", "import time; time.sleep(60)")
    monkeypatch.setattr("flowkit.worker.kernel.STARTING", 1.0)

    assert execution.run("1", kernel="mute") == Ending(
        State.FAILED, Cause.SETUP, "kernel 'mute' did not answer within 1 s"
    )


def test_a_kernel_of_another_language_gets_its_parameters_in_it(execution: Execution, install: Any) -> None:
    """It is Python that believes to be R: the way there (TCP, no IPython options) and the translation are R's."""
    install("r", sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", language="R")
    define = "TRUE = 'R says true'\nimport os"

    ending = execution.run(define, "print(yes, os.environ['OWN'])", parameters={"_yes": True}, kernel="r")

    assert ending.error == "NameError: name 'TRUE' is not defined", "it was put before the first cell"
    assert execution.cells[0]["source"] == ["# Parameters\n", "yes = TRUE\n"]
    assert execution.document["metadata"]["kernelspec"] == {"name": "r", "display_name": "r", "language": "R"}


def test_other_failures_before_the_first_cell_are_set_up_too(execution: Execution, tmp_path: Path) -> None:
    nowhere = execution.run("1", cwd=tmp_path / "nowhere")
    unfit = execution.run("1", parameters={"a b": 1})
    damaged = execution.run(text="{}")

    assert {nowhere.cause, unfit.cause, damaged.cause} == {Cause.SETUP}
    assert f"the working folder {tmp_path / 'nowhere'} does not exist" in str(nowhere.error)
    assert "parameter 'a b' is not a name" in str(unfit.error)
    assert "/nb/late.ipynb is not a notebook" in str(damaged.error)


# -- many runs in one process -----------------------------------------------------------------------------------------


def test_twenty_runs_leave_nothing_behind(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path_factory.mktemp("t")
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def one(number: int) -> Ending:
        folder = tmp_path / str(number)
        folder.mkdir()
        stop = Stop()
        if number % 5 == 4:
            threading.Timer(0.3, stop.set, ["stopped"]).start()
        cell = ["1", "1/0", "import os; os.kill(os.getpid(), 9)", "exit()", SLEEP][number % 5]
        return Execution(folder, stop=stop).run(cell, f"print({number})")

    def left() -> tuple[int, int, int, int, int]:
        gc.collect()
        me = psutil.Process()
        files = len(list(scratch.iterdir()))
        return me.num_fds(), me.num_threads(), threading.active_count(), len(me.children(recursive=True)), files

    one(99)
    folder = os.getcwd()
    # A moment's: the fork that waits for the next run may not be there yet.
    before = [max(counts) for counts in zip(*(time.sleep(0.1) or left() for _ in range(10)), strict=True)]

    with ThreadPoolExecutor(4) as pool:
        endings = list(pool.map(one, range(20)))

    causes = [Cause.NOTEBOOK, Cause.CRASHED, Cause.NOTEBOOK, None]
    assert [ending.cause for ending in endings] == [None, *causes] * 4
    assert [ending.state for ending in endings[4::5]] == [State.CANCELLED] * 4
    assert eventually(lambda: all(now <= then for now, then in zip(left(), before, strict=True))), (left(), before)
    assert os.getcwd() == folder
