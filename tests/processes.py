"""flowkit as its user runs it: the command line in processes of their own."""

from __future__ import annotations

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
def worker(*arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A worker; stopped in order at the end, unless the test has ended it before."""
    command = [*FLOWKIT, "worker", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    try:
        yield process
    except BaseException:
        process.kill()
        assert process.stderr is not None
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
