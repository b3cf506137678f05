"""Between a worker and its kernel: number 1 of the kernel's PID namespace, or the reaper of all that it starts.

A script, ``python -I -S init.py ISOLATION REPORT COMMAND…``, which has to be up in some 10 ms. A kernel could not take
its place: number 1 of a namespace hears no signal for which it has no handler, not even a SIGKILL of its own, and has
to wait for the children of others.

It writes to the descriptor REPORT: a newline before it starts the kernel, and when that has ended its exit code
(negative: its signal), with a newline after it if nothing of the kernel is left but this process. SIGINT and SIGTERM go
on to the kernel's process group; SIGHUP ends everything.
"""

from __future__ import annotations

import os
import signal
import sys
import time

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main(isolation: str, report: int, command: list[str]) -> None:
    os.set_inheritable(report, False)
    reaper = isolation == "reaper"
    if reaper:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)
    os.write(report, b"\n")  # fails if the worker died before its death could be noticed, and so ends this
    kernel = os.fork()
    if kernel == 0:
        if reaper:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _become(command)
    keep(kernel, report, reaper=reaper)


def keep(kernel: int, report: int, *, reaper: bool) -> None:
    """Until the kernel, our child, has ended; when this process has too, nothing of it is left."""
    signal.signal(signal.SIGHUP, lambda *_: _kill(kernel, signal.SIGKILL))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: _kill(-kernel, number))
    ended, status = 0, 0
    while ended != kernel:
        ended, status = os.wait()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if reaper:
        _kill_the_rest()
    os.write(report, b"%d" % os.waitstatus_to_exitcode(status) + b"\n" * _nothing_left())


def _nothing_left() -> bool:
    """What the kernel has started is our child by now, or descends from one."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _become(command: list[str]) -> None:
    try:
        os.setsid()
        # What a shell's `nohup` or Python itself ignores would be ignored by the kernel too.
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.stderr.flush()
    finally:
        os._exit(127)


def _kill_the_rest() -> None:
    """Whatever the kernel started is our child, or becomes it when its own parent dies."""
    me = os.getpid()
    while True:
        with open(f"/proc/{me}/task/{me}/children") as children:
            for child in children.read().split():
                _kill(int(child), signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def _kill(process: int, number: int) -> None:
    try:  # noqa: SIM105 (contextlib takes longer to import than all the rest)
        os.kill(process, number)
    except OSError:
        pass


def _prctl(option: int, value: int) -> None:
    import ctypes  # as slow, and not needed in a namespace

    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
