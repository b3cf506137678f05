"""The zygote: a Python with a kernel built and its libraries imported, of which each run gets a fork.

A script, ``python zygote.py JSON``, for the Python of a kernel: all it needs there is ipykernel. It has one thread and
no ZeroMQ context, as neither survives a fork. Over a Unix socket it is asked for a fork, given the descriptors of a
kernel, and answers with the number of the process that keeps this kernel, the *keeper* (as in ``init``).

A fork waits until it is told its environment, folder and log. Then it speaks Jupyter's messages over its socket, as a
kernel does over five.
"""

# mypy: disable-error-code="assignment, attr-defined, no-untyped-call, union-attr"
# What is reached into here was not made for it, and has few types.

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import types
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

_HERE = Path(__file__).parent
if __name__ == "__main__" and sys.path and Path(sys.path[0]) == _HERE:
    del sys.path[0]  # the folder of this script, in which a notebook has no business

from ipykernel import _version  # noqa: E402

sys.modules["debugpy"] = None  # nobody debugs a run, and it takes as long as all the rest
import ipykernel.debugger  # noqa: E402, F401

del sys.modules["debugpy"]

from ipykernel.kernelapp import IPKernelApp  # noqa: E402


def _part(name: str) -> types.ModuleType:
    """Another file of this script, under a name that no notebook imports."""
    spec = importlib.util.spec_from_file_location(f"_flowkit_{name}", _HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[f"_flowkit_{name}"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from flowkit.kernel import init, paired, served
else:
    init, _, _, paired, served = map(_part, ("init", "fork", "wire", "paired", "served"))

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE, _MS_SLAVE = 2, 4, 8, 16384, 1 << 18, 1 << 19
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

#: Whose private interfaces are used here are these versions'.
_OLDEST = (7, 0)

#: What a warm process has imported besides what it is asked for: loaded by nearly every notebook.
_ALWAYS = ("flowkit", "flowkit.flow.flow", "flowkit.flow.runner", "flowkit.flow.draw", "flowkit.flow.checkpoint")

_libc = ctypes.CDLL(None, use_errno=True)


# -- the zygote -------------------------------------------------------------------------------------------------------


def main(told: dict[str, Any]) -> None:
    """*told*: descriptors ``control`` and ``facts``, ``isolation``, ``user``, ``warm`` and kernel ``options``.

    And whether its kernels are to be ``served`` over ZeroMQ.
    """
    if _version.version_info[:2] < _OLDEST:
        raise SystemExit(f"ipykernel {_version.__version__} is too old; forked kernels need 7.0")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    if told["served"]:
        skipped = _imports((*served.NEEDED, *told["warm"]))
        known, app = set(sys.modules), IPKernelApp()
        become = partial(served.become, told["options"], known)
    else:
        kernel, app = paired.build(told["options"])
        skipped = _imports(told["warm"])
        paired.rehearse(kernel)
        known = set(sys.modules)
        become = partial(paired.become, kernel, app, known)
    if not os.fork():  # before which some libraries end threads of theirs
        os._exit(0)
    os.wait()
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise SystemExit(f"{threads - 1} threads were started by an import of {', '.join(told['warm'])}")
    facts = {"skipped": skipped, "files": _loaded_files(app), "path": [p for p in sys.path if p]}
    facts["library"] = os.path.dirname(os.path.abspath(os.__file__))
    with os.fdopen(told["facts"], "w") as file:
        json.dump(facts, file)
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=told["control"])
    control.send(b"ready")
    _Zygote(control, told["isolation"], told["user"], become).serve()


class _Zygote:
    def __init__(
        self,
        control: socket.socket,
        isolation: str,
        user: bool,
        kernel: Callable[..., None],
    ) -> None:
        self._control, self._isolation, self._user, self._kernel = control, isolation, user, kernel
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._keepers: dict[int, int] = {}  # by the descriptor that tells of their end
        if user:
            _call(_libc.prctl, _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def serve(self) -> None:
        """Until the worker is gone, or has said that it needs no more and the last fork has ended."""
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        retired = False
        while not retired or self._keepers:
            for ready, _ in poller.poll():
                if ready in self._keepers:
                    poller.unregister(ready)
                    os.close(ready)
                    os.waitpid(self._keepers.pop(ready), 0)
                elif ready == self._control.fileno():
                    asked, descriptors, *_ = socket.recv_fds(self._control, 100, 3)
                    if not asked:
                        return  # and every keeper dies with its parent
                    if asked == b"retire":
                        retired = True
                        poller.unregister(self._control)
                        continue
                    keeper, tells = self._answer(descriptors, ahead=asked == b"ahead")
                    if keeper:
                        self._keepers[tells] = keeper
                        poller.register(tells, select.POLLIN)

    def _answer(self, descriptors: Sequence[int], *, ahead: bool) -> tuple[int, int]:
        talk, stray, report = descriptors
        self._become = partial(self._kernel, ahead=ahead)
        try:
            keeper = self._fork(talk, stray, report)
            tells = os.pidfd_open(keeper)
            socket.send_fds(self._control, [b"%d" % keeper], [tells])
            return keeper, tells
        except OSError as error:
            self._control.send(f"no fork: {error}".encode())
            return 0, 0
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork(self, talk: int, stray: int, report: int) -> int:
        if self._isolation != "namespace":
            keeper = os.fork()
            if not keeper:
                self._keep(talk, stray, report)
            return keeper
        if not self._user:
            _call(_libc.unshare, _CLONE_NEWPID)
            try:
                keeper = os.fork()
                if not keeper:
                    self._keep(talk, stray, report)
            finally:
                _call(_libc.setns, self._own, _CLONE_NEWPID)
            return keeper
        return self._fork_as_user(talk, stray, report)

    def _fork_as_user(self, talk: int, stray: int, report: int) -> int:
        """Through a process that enters a user namespace, which this one could never leave."""
        reader, writer = os.pipe()
        between = os.fork()
        if not between:
            user, group = os.geteuid(), os.getegid()
            with _nothing_outlives():
                _call(_libc.unshare, _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID)
                for name, text in (
                    ("setgroups", "deny"),
                    ("uid_map", f"{user} {user} 1"),
                    ("gid_map", f"{group} {group} 1"),
                ):
                    Path(f"/proc/self/{name}").write_text(text)
                gone, lives = os.pipe()
                keeper = os.fork()
                if not keeper:
                    os.close(lives)
                    os.read(gone, 1)  # until our parent is the zygote, with which we are to die
                    self._keep(talk, stray, report)
                os.write(writer, b"%d" % keeper)
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            told = pipe.read()
        os.waitpid(between, 0)
        if not told:
            raise OSError("no user namespace")
        return int(told)

    def _keep(self, talk: int, stray: int, report: int) -> None:
        """Be the keeper of one kernel, and nothing after that."""
        with _nothing_outlives():
            reaper = self._isolation == "reaper"
            if reaper:
                _call(_libc.prctl, _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            _call(_libc.prctl, _PR_SET_PDEATHSIG, signal.SIGHUP if reaper else signal.SIGKILL, 0, 0, 0)
            if self._isolation == "namespace":
                _mount_proc(new=not self._user)
            os.setsid()
            kernel = os.fork()
            if not kernel:
                if reaper:
                    _call(_libc.prctl, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                _close_all_but(talk, stray)
                os.setsid()
                self._become(talk, stray)
            else:
                _close_all_but(report)
                init.keep(kernel, report, reaper=reaper)


def _mount_proc(*, new: bool) -> None:
    """A /proc that shows the processes of this namespace, in a mount namespace of its own."""
    if new:
        _call(_libc.unshare, _CLONE_NEWNS)
    _call(_libc.mount, b"none", b"/", None, _MS_REC | _MS_SLAVE, None)
    _call(_libc.mount, b"none", b"/proc", None, _MS_REC | _MS_PRIVATE, None)
    _call(_libc.mount, b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NOEXEC | _MS_NODEV, None)


class _nothing_outlives:
    """A forked process ends here, whatever happens: never does it go on as its parent."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(70 if error else 0)


def _close_all_but(*kept: int) -> None:
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX") if first > 4096 else 4096)


def _call(function: Any, *arguments: Any) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")


def _imports(names: Sequence[str]) -> dict[str, str]:
    """Import them; which cannot be, and why. What is not installed is no matter."""
    failed = {}
    for name in (*_ALWAYS, *names):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except BaseException as error:  # a library may do anything
            failed[name] = f"{type(error).__name__}: {error}"
    return failed


def _loaded_files(app: IPKernelApp) -> list[str]:
    """All whose change makes this process out of date."""
    found = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            found.add(os.path.abspath(file))
    for place in app.config_file_paths:
        for name in (
            "ipython_config.py",
            "ipython_kernel_config.py",
            "ipython_config.json",
            "ipython_kernel_config.json",
        ):
            found.add(os.path.join(os.path.abspath(place), name))
    return sorted(found)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
