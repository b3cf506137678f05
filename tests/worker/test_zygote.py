"""Kernels forked from a zygote: as fresh as any, equal in what they show, and never of code that is out of date."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import papermill
import psutil
import pytest

from flowkit.client import Client
from flowkit.config import Config, kernel_environment, warm_modules
from flowkit.errors import UsageError
from flowkit.events import usage
from flowkit.model import Cause, Ending, State
from flowkit.worker import kernel, kernels
from flowkit.worker import usage as watching
from flowkit.worker.zygote import Unfit, Zygotes
from tests.notebooks_made import write
from tests.processes import eventually, worker
from tests.worker.execution import Execution, Source

SUCCEEDED = Ending(State.SUCCEEDED)


def start_of(execution: Execution) -> tuple[str, str | None]:
    """How its kernel was started, and why not warm."""
    event = next(event for event in execution.events if event.kind == "kernel")
    return event.data["start"], event.data["reason"]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Execution]:
    """Runs cells that succeed."""
    count = 0

    def run(*cells: Source, **options: Any) -> Execution:
        nonlocal count
        count += 1
        folder = tmp_path / f"run{count}"
        folder.mkdir()
        execution = Execution(folder)
        options.setdefault("cwd", tmp_path)
        assert execution.run(*cells, **options) == SUCCEEDED, execution.events
        return execution

    return run


# -- nothing of one run is in another ---------------------------------------------------------------------------------

#: Everything that the next run must not find.
SPOILS = """
import builtins, decimal, json, locale, os, random, signal, sys, tempfile, threading, warnings
left = 1
json.spoiled = builtins.spoiled = True
os.environ["SPOILED"] = "1"
os.umask(0o777)
held = open("spoiled", "w")
random.seed(1)
import numpy; numpy.random.seed(1); numpy.set_printoptions(precision=1)
tempfile.tempdir = os.getcwd()
signal.signal(signal.SIGTERM, lambda *_: None)
locale.setlocale(locale.LC_ALL, "C")
sys.path.append("/spoiled"); sys.setrecursionlimit(5000)
warnings.simplefilter("error"); decimal.getcontext().prec = 3
os.mkdir("elsewhere"); os.chdir("elsewhere")
threading.Thread(target=threading.Event().wait, daemon=True).start()
get_ipython().register_magic_function(lambda line: None, magic_name="spoiled")
"""

#: All of it, and what only a kernel that was used, or built otherwise, would show.
STATE = """
import builtins, decimal, json, locale, os, signal, sys, tempfile, warnings
import numpy, pandas, threading
ip = get_ipython()
held = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
files = [os.readlink(link) for link in held if os.path.exists(link)]
signals = [n for n in signal.valid_signals() if isinstance(n, signal.Signals) and n != signal.SIGINT]
json.dumps({
    "names": sorted(dir()), "In": In, "Out": sorted(Out), "history": list(ip.history_manager.get_range()),
    "spoiled": [hasattr(json, "spoiled"), hasattr(builtins, "spoiled"), ip.find_line_magic("spoiled") is not None],
    "environment": {k: v for k, v in os.environ.items() if k != "FLOWKIT_RUN_FOLDER"},
    "cwd": os.getcwd(), "path": [place for place in sys.path if place], "umask": os.umask(0),
    "temp": tempfile.gettempdir(), "recursion": sys.getrecursionlimit(),
    "signals": {n.name: str(signal.getsignal(n)) for n in signals}, "locale": locale.setlocale(locale.LC_ALL),
    "precision": [numpy.get_printoptions()["precision"], decimal.getcontext().prec],
    "files": sorted(p for p in files if p.startswith("/") and "urandom" not in p and "kernel.log" not in p),
    "warnings": warnings.filters[0][0], "magics": sorted(ip.magics_manager.magics["line"]),
    "main": sys.modules["__main__"] is ip.user_module,
    "pid": os.getpid(), "stdin": os.readlink("/proc/self/fd/0"), "backend": os.environ["MPLBACKEND"],
    "count": ip.execution_count, "session": os.getsid(0) == os.getpid(),
    "processes": [n for n in os.listdir("/proc") if n.isdigit()],
}, sort_keys=True, default=str)
"""


def test_a_fork_finds_what_a_fresh_kernel_finds(
    run: Callable[..., Execution], zygotes: Zygotes, forked: Zygotes
) -> None:
    run(SPOILS)
    found = run(STATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "ZYGOTES", Zygotes(lambda: None))
        fresh = run(STATE)

    assert start_of(found)[0] in ("warm", "parked")
    assert start_of(fresh) == ("cold", "FLOWKIT_WARM is off")
    ours, theirs = (json.loads(eval(execution.shown(0))) for execution in (found, fresh))
    for state in (ours, theirs):
        state["environment"].pop("PYDEVD_USE_FRAME_EVAL", None)  # by the debugger that a fresh kernel loads
    assert ours == theirs


CHANCE = """
import os, random, secrets, ssl, tempfile, uuid, numpy, multiprocessing
print([random.random(), numpy.random.rand(), secrets.token_hex(8), ssl.RAND_bytes(8), uuid.uuid4(), uuid.uuid1(),
       next(tempfile._get_candidate_names()), bytes(multiprocessing.current_process().authkey),
       numpy.random.default_rng().random()])
"""


def test_no_two_forks_share_their_chance(run: Callable[..., Execution], forked: Zygotes) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(run, [CHANCE] * 6))

    assert {start_of(one)[0] for one in found} <= {"warm", "parked"}
    values = [value for one in found for value in one.shown(0).split(", ")]
    assert len(set(values)) == len(values)


def test_what_a_run_leaves_open_is_written_and_its_atexit_called(
    run: Callable[..., Execution], forked: Zygotes, tmp_path: Path
) -> None:
    run(
        "file = open('left', 'w'); file.write('written')\n"
        "import atexit; atexit.register(lambda: open('bye', 'w').write('x')); None"
    )

    assert (tmp_path / "left").read_text() == "written"
    assert (tmp_path / "bye").read_text() == "x"


# -- what is shown ----------------------------------------------------------------------------------------------------

CORPUS: dict[str, tuple[Source, ...]] = {
    "rich": (
        "from IPython.display import *\nimport pandas as pd\npd.DataFrame({'a': [1, 2]})",
        "display(HTML('<b>x</b>'), Markdown('*x*'), Latex('$x$'), JSON({'a': 1}))",
        "display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))",
        "display({'text/plain': 'a', 'x/own': {'b': [1]}}, raw=True, metadata={'x/own': {'c': 1}})",
        "class Own:\n    def _repr_html_(self): return '<i>own</i>'\n    def __repr__(self): return 'own'\nOwn()",
    ),
    "displays": (
        "from IPython.display import display, clear_output, update_display",
        "h = display('one', display_id='x'); display('other')",
        "h.update('two'); update_display('three', display_id='x')",
        "for i in range(3):\n    clear_output(wait=True); print(i); display(i)",
        "print('gone'); clear_output(); print('stays')",
    ),
    "streams": (
        "import sys, threading, logging, warnings\nprint('out'); print('err', file=sys.stderr); print('out again')",
        "def late():\n    print('from a thread')\nt = threading.Thread(target=late); t.start(); t.join()",
        "logging.warning('logged'); warnings.warn('warned', stacklevel=2)",
        "import subprocess, os, time\nprint(subprocess.getoutput('echo captured'))",
        "os.system('echo by the shell'); time.sleep(0.3)",
        "pid = os.fork()\nif not pid:\n    print('from a fork', flush=True); os._exit(0)\nos.wait(); time.sleep(0.3)",
        "pid = os.fork()\nif not pid:\n    print('x' * 300_000); os._exit(0)\nos.wait(); time.sleep(0.3)",
        "from multiprocessing import get_context\ndef double(x):\n    return 2 * x",
        "with get_context('fork').Pool(2) as pool: print(pool.map(double, [1, 2]))",
        "print('x' * 3_000_000)",
    ),
    "errors": (
        ("1/0", "raises-exception"),
        ("def deep(n):\n    return deep(n - 1) if n else {}['key']\ndeep(3)", "raises-exception"),
        ("input('name? ')", "raises-exception"),
        ("import getpass; getpass.getpass()", "raises-exception"),
        ("this is no Python", "raises-exception"),
        ("raise SystemExit(3)", "raises-exception"),
        ("class Broken:\n    def __repr__(self): raise ValueError('no')\nBroken()", "raises-exception"),
    ),
    "magics": (
        "%%capture caught\nprint('caught')",
        "caught.show()",
        "x = !echo shell\nx",
        "!echo plain; echo bad >&2",
        "%%bash\necho bash",
        "%%writefile written.txt\ntext",
        "%cat written.txt",
        "%who_ls",
        "%load_ext autoreload\n%autoreload 2",
        "print?",
        "In[1], Out and sorted(Out)[:1], _ih[2]",
        "get_ipython().history_manager.enabled",
    ),
    "async": (
        "import asyncio\nawait asyncio.sleep(0.01)\nprint('awaited')",
        "async def later(x):\n    await asyncio.sleep(0.01)\n    return x\nawait asyncio.gather(*map(later, range(3)))",
        "task = asyncio.create_task(later(7))",
        "await task",
        "import contextvars\nvar = contextvars.ContextVar('var'); var.set(5); None",
        "var.get()",
        ("await later(1/0)", "raises-exception"),
    ),
    "plots": (
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.title('t'); plt.show()",
        "fig, ax = plt.subplots(); ax.bar([1], [2])",
        "plt.get_backend()",
    ),
    "widgets": (
        "import ipywidgets as w\ns = w.IntSlider(value=3); s",
        "out = w.Output()\nwith out:\n    print('inside'); display(1)\nout",
        "s.value = 5; s.value",
    ),
}


def normalised(execution: Execution) -> Any:
    """Its cells' outputs, without what differs from one fresh kernel to the next."""
    known: dict[str, str] = {}
    text = json.dumps([[cell["outputs"], cell["execution_count"]] for cell in execution.cells])
    text = re.sub(r"0x[0-9a-f]{6,}", "ADDRESS", text)
    text = re.sub(r"/tmp/ipykernel_\d+/\d+\.py|ipykernel_\d+/\d+", "CELL", text)
    text = text.replace(str(execution.folder), "FOLDER")
    return json.loads(re.sub(r"\b[0-9a-f]{32}\b", lambda found: known.setdefault(found[0], f"id{len(known)}"), text))


@pytest.mark.parametrize("what", CORPUS)
def test_what_a_fork_shows_is_what_a_fresh_kernel_shows(what: str, tmp_path: Path, forked: Zygotes) -> None:
    found = []
    for start in ("forked", "fresh"):
        (tmp_path / start).mkdir()
        execution = Execution(tmp_path / start)
        with pytest.MonkeyPatch.context() as patch:
            if start == "fresh":
                patch.setattr(kernel, "ZYGOTES", Zygotes(lambda: None))
            assert execution.run(*CORPUS[what]) == SUCCEEDED, execution.events
        found.append(execution)

    ours, theirs = found
    assert start_of(ours)[0] in ("warm", "parked")
    for number, (mine, other) in enumerate(zip(normalised(ours), normalised(theirs), strict=True)):
        assert mine == other, CORPUS[what][number]
    assert sorted(ours.document["metadata"]) == sorted(theirs.document["metadata"])
    assert ours.document["metadata"]["language_info"] == theirs.document["metadata"]["language_info"]


# -- code that has changed --------------------------------------------------------------------------------------------


def wheel(folder: Path, version: str) -> Path:
    made = folder / f"fkprobe-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("fkprobe/__init__.py", f"VERSION = '{version}'\n")
        info = f"fkprobe-{version}.dist-info"
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: fkprobe\nVersion: {version}\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return made


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python of its own, whose kernel is ``own``; and ``local``, a folder of modules."""
    place, modules = tmp_path / "own", tmp_path / "local"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    site = next(place.glob("lib/*/site-packages"))
    (site / "rest.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
    spec = tmp_path / "jupyter" / "kernels" / "own"
    spec.mkdir(parents=True)
    argv = [str(place / "bin/python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "own", "language": "python"}))
    modules.mkdir()
    monkeypatch.setenv("JUPYTER_PATH", str(spec.parent.parent))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(modules), os.environ.get("PYTHONPATH", "")]))
    return place


def install(environment: Path, package: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(environment / "bin/python"),
        "install",
        "--quiet",
        "--no-index",
    ]
    subprocess.run([*command, "--no-deps", "--disable-pip-version-check", "--upgrade", str(package)], check=True)


def test_stale_code_never_runs(
    environment: Path, tmp_path: Path, run: Callable[..., Execution], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(environment, wheel(tmp_path, "1"))
    module = tmp_path / "local" / "fklocal.py"
    module.write_text("VALUE = 1\n")
    zygotes = Zygotes(lambda: ("fkprobe", "fklocal"))
    monkeypatch.setattr(kernel, "ZYGOTES", zygotes)
    spec = kernels.find("own")
    show = (
        "import sys; known = set(sys.modules) >= {'fkprobe', 'fklocal'}\n"
        "import fkprobe, fklocal\nprint(known, fkprobe.VERSION, fklocal.VALUE)"
    )

    def shown() -> tuple[str, str | None]:
        execution = run(show, kernel="own")
        return execution.shown(0).split(maxsplit=1)[1].strip(), start_of(execution)[1]

    def ready() -> None:
        zygotes.await_ready(spec, kernel_environment(Path()))
        execution = run(show, kernel="own")
        assert execution.shown(0).startswith("True"), "imported ahead"
        assert start_of(execution)[1] is None

    try:
        time.sleep(0.1)  # so that the zygote does not find these files as young as itself
        ready()
        (tmp_path / "local" / "data.csv").write_text("what people write there is no code")
        assert shown() == ("1 1", None)

        install(environment, wheel(tmp_path, "2"))
        said, reason = shown()
        assert said == "2 1"
        assert "has changed" in str(reason)
        ready()

        module.write_text("VALUE = 2\n")
        said, reason = shown()
        assert said == "2 2"
        assert "fklocal.py has changed" in str(reason)
        ready()

        (tmp_path / "local" / "fkprobe.py").write_text("VERSION = 'in its place'\n")
        assert shown()[0] == "in its place 2"
    finally:
        zygotes.close()


def test_modules_of_the_working_folder_are_the_runs_own(
    run: Callable[..., Execution], forked: Zygotes, tmp_path: Path
) -> None:
    for value in (1, 22):  # of another length: in one second Python itself would not tell them apart
        (tmp_path / "beside.py").write_text(f"VALUE = {value}\n")
        execution = run("import beside; print(beside.VALUE)")
        assert execution.shown(0) == f"{value}\n"
        assert start_of(execution)[1] is None


# -- when there is no fork to be had ----------------------------------------------------------------------------------


def test_what_cannot_be_forked_is_started_and_the_run_says_why(
    tmp_path: Path, run: Callable[..., Execution], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "jupyter" / "kernels"
    launcher = tmp_path / "launch.py"
    launcher.write_text("import runpy; runpy.run_module('ipykernel_launcher', run_name='__main__')")
    for name, spec in {
        "script": {"argv": [sys.executable, str(launcher), "ipykernel", "-f", "{connection_file}"]},
        "plain": {"argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]},
    }.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "kernel.json").write_text(json.dumps({"display_name": name, "language": "python", **spec}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder.parent))
    zygotes = Zygotes(lambda: ())
    monkeypatch.setattr(kernel, "ZYGOTES", zygotes)
    try:
        assert start_of(run("1", kernel="script")) == ("cold", "the kernel is not started by ipykernel_launcher")
        assert start_of(run("1", kernel="plain")) == ("cold", "its zygote is being started")
        zygotes.await_ready(kernels.find("plain"), kernel_environment(Path()))
        assert start_of(run("1", kernel="plain")) == ("parked", None)
    finally:
        zygotes.close()


def test_a_zygote_that_cannot_start_or_has_threads_is_told_of(
    run: Callable[..., Execution], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fkthreads.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    zygotes = Zygotes(lambda: ("fkthreads",))
    monkeypatch.setattr(kernel, "ZYGOTES", zygotes)
    try:
        with pytest.raises(Exception, match="1 threads were started by an import of fkthreads"):
            zygotes.await_ready(kernels.find(None), kernel_environment(Path()))
        assert start_of(run("1")) == ("cold", "its zygote ended: 1 threads were started by an import of fkthreads")
    finally:
        zygotes.close()


@pytest.mark.parametrize(
    ("module", "sums", "reason"),
    [
        ("pyarrow", "import pyarrow, pyarrow.compute as c; c.sum(pyarrow.array(range(10**6))).as_py()", None),
        ("numpy", "import numpy\na = numpy.ones((600, 600))\nfloat((a @ a).sum()) - 600**3 + 499999500000", None),
        ("polars", "import polars; polars.DataFrame({'a': range(10**6)})['a'].sum()", "by an import of polars"),
    ],
)
def test_libraries_with_threads_of_their_own_work_or_are_told_of(
    module: str, sums: str, reason: str | None, run: Callable[..., Execution], monkeypatch: pytest.MonkeyPatch
) -> None:
    zygotes = Zygotes(lambda: (module,))
    monkeypatch.setattr(kernel, "ZYGOTES", zygotes)
    try:
        with pytest.raises(Unfit, match=reason) if reason else nullcontext():
            zygotes.await_ready(kernels.find(None), kernel_environment(Path()))
        execution = run(sums)
        assert float(execution.shown(0)) == 499999500000
        assert (start_of(execution)[1] is None) == (reason is None)
    finally:
        zygotes.close()


def zygote_processes() -> list[psutil.Process]:
    """Not their forks."""
    return [child for child in psutil.Process().children() if any("zygote.py" in part for part in child.cmdline())]


def test_a_zygote_that_died_is_replaced(run: Callable[..., Execution], monkeypatch: pytest.MonkeyPatch) -> None:
    before = {process.pid for process in zygote_processes()}
    zygotes = Zygotes(lambda: ())
    monkeypatch.setattr(kernel, "ZYGOTES", zygotes)
    try:
        zygotes.await_ready(kernels.find(None), kernel_environment(Path()))
        zygote = next(process for process in zygote_processes() if process.pid not in before)
        zygote.send_signal(signal.SIGKILL)
        zygote.wait()
        how, reason = start_of(run("1"))
        assert how == "cold"
        assert str(reason).startswith("its zygote")
        zygotes.await_ready(kernels.find(None), kernel_environment(Path()))
        assert start_of(run("1"))[0] == "parked"
    finally:
        zygotes.close()


def test_the_setting_names_modules_or_turns_it_off() -> None:
    assert warm_modules({}) == ("numpy", "pandas")
    assert warm_modules({"FLOWKIT_WARM": "pandas, sklearn.linear_model"}) == ("pandas", "sklearn.linear_model")
    assert warm_modules({"FLOWKIT_WARM": ""}) == ()
    assert warm_modules({"FLOWKIT_WARM": "Off"}) is None
    with pytest.raises(UsageError, match="FLOWKIT_WARM names 'os; evil'; it must be modules"):
        warm_modules({"FLOWKIT_WARM": "os; evil"})


# -- cost -------------------------------------------------------------------------------------------------------------


def test_memory_is_limited_and_told_without_what_is_the_zygotes(tmp_path: Path, forked: Zygotes) -> None:
    execution = Execution(tmp_path)
    small = Execution(tmp_path)

    ending = execution.run("x = b'x' * 500_000_000; import time; time.sleep(60)", memory=400_000_000)
    assert small.run("import time; time.sleep(1.5)") == SUCCEEDED

    assert (ending.state, ending.cause) == (State.FAILED, Cause.MEMORY)
    assert execution.seconds < 40
    used = usage(small.events)
    assert used is not None
    assert 1_000_000 < used.peak_memory < 80_000_000


def test_a_short_run_tells_the_most_it_held(
    run: Callable[..., Execution], forked: Zygotes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "FIRST", 30.0)  # nobody looks before its end, however slow this machine is

    used = usage(run("x = b'x' * 300_000_000\ndel x").events)

    assert used is not None
    assert 300_000_000 < used.peak_memory < 400_000_000


def test_a_forks_daemon_is_gone_when_the_run_has_ended(
    run: Callable[..., Execution], forked: Zygotes, tmp_path: Path
) -> None:
    run("import subprocess\nsubprocess.Popen(['sh', '-c', 'while :; do date +%s%N > beat; done'])\n")

    beat = tmp_path / "beat"
    before = beat.read_text() if beat.exists() else ""
    time.sleep(0.1)
    assert (beat.read_text() if beat.exists() else "") == before


def test_a_short_notebook_takes_less_than_a_third_of_papermills_time(
    run: Callable[..., Execution], forked: Zygotes, tmp_path: Path
) -> None:
    """On a quiet machine it is a twentieth."""
    notebook = write(tmp_path / "notebook.ipynb", "1 + 1")
    ours, theirs = [], []
    for _ in range(5):
        ours.append(run("1 + 1").seconds)
        began = time.monotonic()
        papermill.execute_notebook(str(notebook), str(tmp_path / "out.ipynb"), progress_bar=False)
        theirs.append(time.monotonic() - began)

    assert statistics.median(ours) < statistics.median(theirs) / 3, (ours, theirs)


def test_fifty_runs_leak_nothing(run: Callable[..., Execution], forked: Zygotes) -> None:
    def held() -> tuple[int, int, int]:
        gc.collect()
        children = zygote_processes()
        descriptors = sum(process.num_fds() for process in children) + psutil.Process().num_fds()
        below = sum(len(process.children(recursive=True)) for process in children)
        return descriptors, below, sum(process.memory_info().rss for process in children)

    spec, env = kernels.find(None), kernel_environment(Path())
    for _ in range(3):
        run("1 + 1")
    forked.await_ready(spec, env)
    before = held()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(run, ["print(1)"] * 50))
    forked.await_ready(spec, env)
    after = held()

    assert {start_of(one)[1] for one in found} == {None}
    assert after[0] <= before[0] + 2
    assert after[1] == before[1]
    assert after[2] <= before[2] + 1_000_000


def test_a_worker_has_a_fork_ready_for_the_first_run_that_comes_late_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWKIT_HOME", str(tmp_path))
    notebook = write(tmp_path / "notebook.ipynb", "1 + 1")
    ran: list[str] = []
    with worker(FLOWKIT_WARM="") as process, Client(Config.from_env()) as client:

        def start() -> str:
            run = client.submit(notebook)
            eventually(lambda: client.store.run(run.id).state.final, seconds=90)
            ran.append(run.id)
            return next(event for event in client.store.events(run.id)[1] if event.kind == "kernel").data["start"]

        assert start() != "parked"
        eventually(lambda: start() == "parked")
        assert {"packages", "Python"} <= set(client.diff(ran[-1], ran[0]).same), "a fork tells them as any kernel does"
        below = psutil.Process(process.pid).children(recursive=True)
        assert below
    psutil.wait_procs(below, timeout=5)
    assert not [one for one in below if one.is_running()]
