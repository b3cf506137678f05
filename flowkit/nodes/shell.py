"""Run a program with its arguments as a list: no shell reads them, so nothing in them is a command."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from typing import IO

from flowkit.config import environment_with
from flowkit.errors import Unavailable, UsageError
from flowkit.flow.current import given_up

__all__ = ["run"]

#: Bytes of its output that are kept, and of its errors that are told.
_KEPT, _TOLD = 10_000_000, 2000


def run(
    command: list[str],
    *,
    folder: str | None = None,
    variables: dict[str, str] | None = None,
    text: str = "",
    within: float = 3600.0,
    codes: list[int] | None = None,
) -> str:
    """Run a program to its end, and return what it printed: ``["psql", "--command", statement]``.

    What it started in its process group ends with it, and all of it with the node: when that is out of time or the flow
    is cancelled, and in a worker's run when the kernel ends, however that goes.

    Args:
        command: the program, and each argument by itself. What a shell would do with ``*``, ``|`` or ``$`` nobody does.
        folder: where it runs; where the notebook does, if none is given.
        variables: of its environment, beside those of the kernel.
        text: its standard input.
        within: seconds after which it is killed.
        codes: exit codes that are no failure; 0 alone if none are given.

    Raises:
        UsageError: there is no such program or folder.
        Unavailable: it ended with another code, the end of its standard error in the message, or was not done in time.
    """
    if not command or not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise UsageError(f"command is {command!r}; it must be a list of texts, as in ['ls', '-l', folder]")
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as errors:
        given.write(text.encode())
        given.seek(0)
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment_with(variables or {}),
                stdin=given,
                stdout=printed,
                stderr=errors,
                start_new_session=True,
            )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise UsageError(f"{command[0]} cannot be run: {error.strerror}: {error.filename}") from error
        deadline = time.monotonic() + within
        code = None
        try:
            while code is None and time.monotonic() < deadline and not given_up():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(min(0.2, max(0.0, deadline - time.monotonic())))
        finally:  # also when the node is interrupted, and whatever it has left in the background
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code is None:
            why = "because its node is given up" if given_up() else f"still running after {within:g} s"
            raise Unavailable(f"{command[0]} was killed, {why}{_said(errors)}")
        if code not in (codes or [0]):
            how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
            raise Unavailable(f"{command[0]} {how}{_said(errors)}")
        return _tail(printed, _KEPT)


def _said(errors: IO[bytes]) -> str:
    text = " ".join(_tail(errors, _TOLD).split())
    return f": {text}" if text else ""


def _tail(file: IO[bytes], most: int) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - most))
    return file.read().decode(errors="replace")
