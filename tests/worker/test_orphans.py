"""Nothing that a notebook starts outlives its run or its worker, whatever it does: nine kernels that resist.

What is alive is read from /proc: whatever carries the run folder in its environment or arguments, or is in it, and
whatever is in the kernel's PID namespace. Each test runs in the isolation this machine offers and in the one it would
fall back to, with a kernel that is started and with one that is forked.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from flowkit.config import kernel_environment
from flowkit.model import Cause, Ending, State
from flowkit.worker import kernel, kernels, process
from flowkit.worker.kernel import Stop
from flowkit.worker.process import Isolation
from flowkit.worker.zygote import Zygotes
from tests.worker.execution import Execution

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a process group is all there is, which a daemon leaves"
)

#: Puts everything right, then says so by a file; what comes after is the behaviour.
READY = """
import os, signal, subprocess, sys, time
folder = os.environ["FLOWKIT_RUN_FOLDER"]
def ready():
    here = os.readlink("/proc/self/ns/pid")
    open(folder + "/namespace", "w").write(f"{here} {time.clock_gettime(time.CLOCK_BOOTTIME)}")
    open(folder + "/ready", "w").close()
"""

DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        # Without an environment, so that nothing but its argument tells whose it is.
        os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", folder], {})
    os._exit(0)
os.wait()
time.sleep(0.5)
"""

BEHAVIOURS = {
    "sleep": "ready(); time.sleep(600)",
    "busy": "ready()\nwhile True: pass",
    "in-c": "ready(); sum(range(10**11))  # holds the GIL: no signal is heard",
    "deaf": """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
        ready()
        while True:
            try: time.sleep(600)
            except BaseException: pass
        """,
    "stopped": "ready(); os.kill(os.getpid(), signal.SIGSTOP)",
    "child": """
        subprocess.Popen(["sh", "-c", "trap '' INT TERM HUP; while true; do sleep 600; done"])
        ready()
        time.sleep(600)
        """,
    "daemon": DAEMON + "ready()\ntime.sleep(600)",
    "fork-bomb": """
        parent = os.getpid()
        for _ in range(5): os.fork()
        if os.getpid() != parent:
            os.setsid()
            beats = open(folder + "/beats", "ab", buffering=0)
            until = time.monotonic() + 40  # should all else fail
            while time.monotonic() < until:  # 31 processes, each replaced by a child of its own before it is found
                beats.write(b".")
                if os.fork(): os._exit(0)
                time.sleep(0.02)
            os._exit(0)
        time.sleep(0.2)
        ready()
        time.sleep(600)
        """,
    "starting": "never reached",
}

#: Starts as slowly as a kernel on a network drive, and for ever.
SLOW = READY + "ready()\ntime.sleep(600)"

#: How a kernel is kept, and whether it is started or forked.
AVAILABLE: list[tuple[Isolation, str]] = [
    (kept, start)
    for kept in (sorted({process.isolation(), "reaper"}) if sys.platform == "linux" else [])
    for start in ("cold", "forked")
]


@contextmanager
def slow_kernel(base: Path) -> Iterator[None]:
    """There is a kernel that never comes up."""
    folder = base / "kernels" / "slow"
    folder.mkdir(parents=True)
    spec = {"argv": [sys.executable, "-c", SLOW], "display_name": "slow", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(base))
        yield


@pytest.fixture(scope="module", autouse=True)
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with slow_kernel(tmp_path_factory.mktemp("jupyter")):
        yield


@pytest.fixture(scope="module", params=AVAILABLE, ids="-".join)
def isolation(request: pytest.FixtureRequest) -> Iterator[tuple[Isolation, str]]:
    """In force in this process."""
    with pytest.MonkeyPatch.context() as patch:
        zygotes = have(*request.param, patch.setattr)
        yield request.param
        zygotes.close()


def have(isolation: Isolation, start: str, setattr: Callable[[object, str, object], None] = setattr) -> Zygotes:
    """Have kernels kept and started like that."""
    setattr(process, "isolation", lambda: isolation)
    zygotes = Zygotes(lambda: () if start == "forked" else None)
    setattr(kernel, "ZYGOTES", zygotes)
    if start == "forked":
        zygotes.await_ready(kernels.find(None), kernel_environment(Path()))
    return zygotes


@dataclass(frozen=True)
class Ended:
    execution: Execution
    ending: Ending
    seconds: float  #: it took
    left: list[str]


def resist(folder: Path, behaviour: str, *, timeout: float | None = None, stop: Stop | None = None) -> Ended:
    """Without *timeout* or *stop* this does not return."""
    execution = Execution(folder, stop=stop or Stop())
    kernel = "slow" if behaviour == "starting" else None
    ending = execution.run(READY + dedent(BEHAVIOURS[behaviour]), kernel=kernel, timeout=timeout)
    limit = time.monotonic() + 0.5
    while (left := left_of(folder)) and time.monotonic() < limit:
        time.sleep(0.05)  # the keeper has said that it alone is left, and goes too
    return Ended(execution, ending, execution.seconds, left)


def left_of(folder: Path) -> list[str]:
    """The command of every process that belongs to the run of that folder."""
    told = folder / "namespace"
    namespace, at = told.read_text().split() if told.exists() else ("", "0")
    if namespace == os.readlink("/proc/self/ns/pid"):
        namespace = ""
    mark, found = str(folder).encode(), []
    inside: list[tuple[float, str]] = []  # of the namespace: when it began, in seconds since the machine did
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                whole = (entry / "environ").read_bytes() + command + b"\0"
                places = os.readlink(entry / "cwd"), os.readlink(entry / "ns" / "pid")
                shown = command.replace(b"\0", b" ").decode(errors="replace")[:100]
                if mark + b"\0" in whole or str(folder) == places[0]:
                    found.append(shown)
                elif namespace == places[1]:
                    began = (entry / "stat").read_text().rpartition(")")[2].split()[19]
                    inside.append((int(began) / os.sysconf("SC_CLK_TCK"), shown))
            except OSError:  # it has ended
                pass
    # A namespace is as old as its first process; a younger one has but got the number of the run's, which is gone.
    if inside and min(inside)[0] <= float(at):
        found += [shown for _, shown in inside]
    beats = folder / "beats"
    if beats.exists():
        before = beats.stat().st_size
        time.sleep(0.3)
        if beats.stat().st_size > before:
            found.append("the fork bomb, too quick to be read from /proc")
    return found


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.05)


def all_nine(base: Path, one: Callable[[Path, str], Ended], *, at_once: int) -> dict[str, Ended]:
    folders = {behaviour: base / behaviour for behaviour in BEHAVIOURS}
    for folder in folders.values():
        folder.mkdir()
    with ThreadPoolExecutor(at_once) as pool:
        return dict(zip(folders, pool.map(one, folders.values(), folders), strict=True))


# -- cancel and timeout -----------------------------------------------------------------------------------------------


def cancel(folder: Path, behaviour: str) -> Ended:
    """``seconds`` are those from the request."""
    stop, began = Stop(), time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(resist, folder, behaviour, stop=stop)
        try:
            until((folder / "ready").exists)
            assert left_of(folder), "the test must be able to see them"
        finally:
            asked = time.monotonic()
            stop.set("cancelled by ann")
        ended = running.result()
    return replace(ended, seconds=ended.seconds - (asked - began))


@pytest.fixture(scope="module")
def cancelled(isolation: tuple[Isolation, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    return all_nine(tmp_path_factory.mktemp("cancelled"), cancel, at_once=3)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_cancelled_run_has_ended_within_6_s_and_nothing_is_left(cancelled: dict[str, Ended], behaviour: str) -> None:
    ended = cancelled[behaviour]

    assert ended.ending == Ending(State.CANCELLED, None, "cancelled by ann")
    assert ended.seconds <= 6.0
    assert ended.left == []
    if behaviour in ("sleep", "busy"):
        assert "KeyboardInterrupt" in ended.execution.shown(0), "who listens is asked first"


LIMIT = 6.0


@pytest.fixture(scope="module")
def timed_out(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    return all_nine(tmp_path_factory.mktemp("timed-out"), partial(resist, timeout=LIMIT), at_once=5)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_run_beyond_its_limit_has_ended_within_5_s_and_nothing_is_left(
    timed_out: dict[str, Ended], behaviour: str
) -> None:
    ended = timed_out[behaviour]

    where = "before its kernel was up" if behaviour == "starting" else "in cell 1"
    error = f"ran longer than its limit of 6 s, stopped {where}"
    assert ended.ending == Ending(State.FAILED, Cause.TIMEOUT, error)
    assert (ended.execution.folder / "ready").exists()
    assert ended.seconds <= LIMIT + 5.0
    assert ended.left == []


NODE = """
import flowkit as fk
flow = fk.Flow("flights")
@flow.node(timeout=0.5)
def slow():
    time.sleep(600)
flow.run()
"""


@pytest.mark.parametrize(
    ("limit", "error"),
    [
        ({"timeout": 6.0}, "ran longer than its limit of 6 s, stopped in cell 2"),
        ({"cell_timeout": 1.0}, "a cell ran longer than its limit of 1 s, stopped in cell 2"),
    ],
    ids=["run", "cell"],
)
def test_a_limit_that_is_reached_names_itself(tmp_path: Path, limit: dict[str, float], error: str) -> None:
    execution = Execution(tmp_path)

    ending = execution.run("import time; time.sleep(0.7)", "time.sleep(0.7); time.sleep(600)", **limit)

    assert ending == Ending(State.FAILED, Cause.TIMEOUT, error)
    assert execution.statuses == ["completed", "failed"]


def test_a_node_beyond_its_limit_is_named_and_does_not_hold_its_run(tmp_path: Path) -> None:
    execution = Execution(tmp_path)

    ending = execution.run("import time", "begun = time.time()" + NODE, cwd=tmp_path)

    assert (ending.state, ending.cause) == (State.FAILED, Cause.NOTEBOOK)
    assert ending.error is not None
    assert "node 'slow' failed: TimeoutError" in ending.error
    assert execution.nodes() == {"slow": "failed"}
    failed = next(event.at for event in execution.events if event.name == "slow" and event.state is State.FAILED)
    assert time.time() - failed < 5.0 + 3.0  # of a busy machine
    assert left_of(tmp_path) == []


# -- a worker killed --------------------------------------------------------------------------------------------------

WORKER = """
import sys
from pathlib import Path
from tests.worker.test_orphans import all_nine, have, resist
have(*sys.argv[2:])
all_nine(Path(sys.argv[1]), resist, at_once=9)
"""


@pytest.fixture(scope="module")
def killed(isolation: tuple[Isolation, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return left_by_a_killed_worker(tmp_path_factory.mktemp("killed"), isolation)


def left_by_a_killed_worker(base: Path, isolation: tuple[Isolation, str]) -> dict[str, list[str]]:
    """What is left of each 5 s after their common worker was killed."""
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(base), *isolation])
    folders = {behaviour: base / behaviour for behaviour in BEHAVIOURS}
    try:
        until(lambda: all((folder / "ready").exists() for folder in folders.values()))
        assert all(map(left_of, folders.values())), "the test must be able to see them"
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    limit = time.monotonic() + 5.0
    while any(map(left_of, folders.values())) and time.monotonic() < limit:
        time.sleep(0.1)
    return {behaviour: left_of(folder) for behaviour, folder in folders.items()}


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_worker_killed_leaves_nothing_of_its_kernel_after_5_s(killed: dict[str, list[str]], behaviour: str) -> None:
    assert killed[behaviour] == []


# -- what isolation must not change -----------------------------------------------------------------------------------


def test_a_daemon_ends_with_the_run_that_succeeded(isolation: tuple[Isolation, str], tmp_path: Path) -> None:
    execution = Execution(tmp_path)

    ending = execution.run(READY + DAEMON + "ready()")

    assert ending == Ending(State.SUCCEEDED)
    assert left_of(tmp_path) == []


@pytest.mark.parametrize(
    ("cell", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by signal 11"),
        ("os.abort()", "killed by signal 6"),
        ("os._exit(137)", "exit code 137"),
    ],
)
def test_how_a_kernel_died_is_told_truthfully(
    isolation: tuple[Isolation, str], tmp_path: Path, cell: str, how: str
) -> None:
    ending = Execution(tmp_path).run(f"import os, signal; {cell}")

    assert ending == Ending(State.FAILED, Cause.CRASHED, f"kernel died in cell 1 ({how})")


@pytest.mark.parametrize("victim", [0, 1, 2], ids=["the outermost", "what keeps it", "itself"])
def test_a_kernel_killed_while_it_starts_has_crashed(
    isolation: tuple[Isolation, str], tmp_path: Path, victim: int
) -> None:
    """Unlike one that ends by itself, which cannot start here."""
    before = psutil.Process().children()  # the servers of this session
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(Execution(tmp_path).run, "1", kernel="slow")
        until((tmp_path / "ready").exists)
        [keeper] = [one for one in psutil.Process().children() if one not in before]
        processes = [keeper, *keeper.children(recursive=True)]
        processes[min(victim, len(processes) - 1)].kill()
        ending = running.result()

    assert ending == Ending(State.FAILED, Cause.CRASHED, "kernel died while it started (killed by signal 9)")
    assert left_of(tmp_path) == []


@pytest.mark.parametrize("others", [0, 1])
def test_a_kernel_killed_for_lack_of_memory_says_so(
    isolation: tuple[Isolation, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """The system's counter is moved by hand: to exhaust a machine's memory for a test would end other processes too."""
    monkeypatch.setattr(process, "_oom_kills", lambda: 7 + others * (tmp_path / "killed").exists())

    ending = Execution(tmp_path).run("import os\nopen('killed', 'w').close()\nos.kill(os.getpid(), 9)")

    oom = "out of memory: the system killed the kernel in cell 1; hold less at once there"
    other = Ending(State.FAILED, Cause.CRASHED, "kernel died in cell 1 (killed by signal 9)")
    assert ending == (Ending(State.FAILED, Cause.MEMORY, oom) if others else other)


def test_a_notebook_finds_itself_and_its_files_as_outside(isolation: tuple[Isolation, str], tmp_path: Path) -> None:
    execution = Execution(tmp_path)
    cell = """
import os, psutil, subprocess
open("made", "w").close()
me = psutil.Process()
child = subprocess.Popen(["sleep", "9"])
print(me.pid == os.getpid() == os.getpgrp() == os.getsid(0), [c.pid for c in me.children()] == [child.pid],
      (os.getuid(), os.getgid()), subprocess.run("kill -PIPE $$", shell=True).returncode)
child.kill(); child.wait()
"""

    ending = execution.run(cell)

    assert ending == Ending(State.SUCCEEDED)
    assert execution.logged() == f"True True {(os.getuid(), os.getgid())} -13\n"
    assert ((tmp_path / "made").stat().st_uid, (tmp_path / "made").stat().st_gid) == (os.getuid(), os.getgid())
