"""flowkit as its user runs it: the command line in processes of their own."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

FLOWKIT = [sys.executable, "-m", "flowkit"]

Answer = TypeVar("Answer")

#: To be had before a fork: the child of a process with threads may not load anything.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def with_parent() -> None:
    """As a ``preexec_fn``: the process is killed when the thread that started it is gone, however that went. Linux."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def flowkit(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    command = [*FLOWKIT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def answer(*arguments: object) -> Any:
    """What the command prints as JSON; it must succeed."""
    done = flowkit(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def worker(*arguments: object, mute: bool = False, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A worker; stopped in order at the end, unless the test has ended it before.

    Args:
        mute: what it says goes nowhere. The pipe it goes to else is full after some 400 runs, and the worker waits.
    """
    command = [*FLOWKIT, "worker", *map(str, arguments)]
    says = subprocess.DEVNULL if mute else subprocess.PIPE
    process = subprocess.Popen(
        command, stderr=says, text=True, env={**os.environ, **environment}, preexec_fn=with_parent
    )
    try:
        yield process
    except BaseException:
        process.kill()
        if process.stderr is not None:
            sys.stderr.write(process.stderr.read())  # why a test that uses it has failed
        raise
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def eventually(ask: Callable[[], Answer], *, seconds: float = 30.0) -> Answer:
    """The first true answer; a failure if there is none in time."""
    until = time.monotonic() + seconds
    while True:
        given = ask()
        if given:
            return given
        assert time.monotonic() < until, f"still {given!r} after {seconds} s"
        time.sleep(0.05)
