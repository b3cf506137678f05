"""One kernel process and the sockets to it; nothing of notebooks.

Jupyter's client is known here and in ``kernels`` alone. The kernel is not started by Jupyter's own manager, which spins
an event loop for every call, waits for fixed times, and cannot put a prefix before the kernel's command.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import zmq
from jupyter_client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.session import Session

from flowkit import installed
from flowkit.errors import SetupError
from flowkit.model import epoch

Channel = Literal["shell", "iopub"]

#: What keeps a kernel and all that it starts together, so that nothing of it outlives its run or its worker:
#: a PID namespace, which the operating system ends as one; a reaper, to whom Linux hands what was orphaned; or, where
#: there is neither, a process group, which a process can leave.
Isolation = Literal["namespace", "reaper", "group"]

#: Seconds a kernel that was asked to shut down has for its own clean-up, before SIGTERM and again before SIGKILL.
SHUTDOWN = 2.5

#: What an ipykernel is told before the first cell, out of the notebook's sight. Its end of the output channel drops
#: what a queue of 1,000 cannot take: under load, 20,000 flushed prints lost up to 1,568 messages in 3 runs of 6, and
#: none since. And at exit it closes that channel while its control thread may still wait for an answer on it, which
#: cost 2.5 s in one run of ten: what is registered last is called first.
_PREPARATION = """
import atexit
output, control = kernel.iopub_thread, kernel.control_thread
output.schedule(lambda: setattr(output.socket, "sndhwm", 0))
atexit.register(lambda: (control.stop(), control.join(1)))
"""

#: Seconds a reaper may take to end what a kernel has started.
_REAPING = 5.0

#: Seconds for which somebody's death by lack of memory may be our kernel's: a large process takes its time to die.
_DYING = 10.0

_INSTALLED = Path(installed.__file__).read_text(encoding="utf-8")

#: A run's code is no business of the user's shell history. The second only says so, as nbclient does.
NO_HISTORY = ("--HistoryManager.enabled=False", "--HistoryManager.hist_file=:memory:")

_INIT = Path(__file__).parent.parent / "kernel" / "init.py"

#: The longest path a Unix socket may have on macOS is 103 bytes; the longest name in the folder is "/k-5".
_LONGEST_FOLDER = 90


@dataclass(frozen=True, slots=True)
class Message:
    """A Jupyter message. ``size`` is the bytes of its content, from which its cost in a document is judged."""

    channel: Channel
    type: str
    parent: str  #: id of the request it belongs to; empty if none
    size: int
    body: dict[str, Any]  #: the whole message as nbclient wants it


class Died(Exception):
    """A signal ended the kernel before it was one. The message says which."""


def isolation() -> Isolation:
    """The best there is on this machine for this user."""
    return _tried()[0]


def shortcoming() -> str | None:
    """Why there is no PID namespace for kernels; None if there is."""
    return _tried()[1]


@functools.cache
def _tried() -> tuple[Isolation, str | None]:
    """Found out by trying it, once."""
    me = os.getpid()
    if sys.platform != "linux":
        return "group", f"{sys.platform} has none"
    if not Path(f"/proc/{me}/task/{me}/children").exists():
        return "group", "this Linux does not tell a process's children in /proc"
    try:
        tried = subprocess.run([*_namespace(), "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "reaper", f"{type(error).__name__}: {error}"
    if tried.returncode:
        return "reaper", " ".join(tried.stderr.decode(errors="replace").split()) or f"exit code {tried.returncode}"
    return "namespace", None


class KernelProcess:
    """A fresh kernel, alone with what it starts. Used by one thread; ``close`` leaves nothing of it behind."""

    def __init__(self, spec: KernelSpec, *, cwd: Path, env: Mapping[str, str], log: Path) -> None:
        """
        Args:
            log: gets what the process itself writes, as when it cannot start or crashes. Its cells' output does not
                go there.
        """
        if not cwd.is_dir():
            raise SetupError(f"the working folder {cwd} does not exist; deploy from a folder this worker can see")
        self._interrupt_by_message = spec.interrupt_mode == "message"
        self._ipykernel = any("ipykernel" in part for part in spec.argv)
        self._log = log
        self._isolation = isolation()
        self._reaped = self._closed = False
        self._pidfd: int | None = None
        self._code = 0
        self._counted, self._counts = time.monotonic(), (_oom_kills(),) * 2
        self._waking = threading.Lock()
        self._exit = contextlib.ExitStack()
        try:
            self._open(spec, cwd, env)
        except BaseException:
            self._exit.close()
            raise

    def _open(self, spec: KernelSpec, cwd: Path, env: Mapping[str, str]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="fk-", dir=short_folder()))  # 0700
        self._exit.callback(shutil.rmtree, folder, ignore_errors=True)
        context = zmq.Context()
        self._exit.callback(context.destroy, linger=0)
        # ZeroMQ drops what a full queue cannot take, be it the "idle" that ends a cell. It reads in a thread of its
        # own, so a kernel never finds the queue full, however slow we are. What is kept is bounded elsewhere.
        context.rcvhwm = 0
        context.reconnect_ivl = 15  # we connect before the kernel listens; the default costs 100 ms
        self._client = BlockingKernelClient(
            context=context, connection_file=str(folder / "connection.json"), **_address(spec, folder)
        )
        self._client.write_connection_file()
        self._session = self._client.session
        self._sockets: dict[Channel, zmq.Socket[bytes]] = {
            "shell": self._client.shell_channel.socket,
            "iopub": self._client.iopub_channel.socket,
        }
        self._control = self._client.control_channel
        self._poller = zmq.Poller()
        self._spawn(_command(spec, folder), cwd, environment(spec, env, self._isolation))
        self._wake_reader, self._wake_writer = os.pipe()
        self._exit.callback(self._close_pipe)
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        for source in (*self._sockets.values(), self._wake_reader, self._pidfd):
            if source is not None:
                self._poller.register(source, zmq.POLLIN)

    def _spawn(self, command: list[str], cwd: Path, env: dict[str, str]) -> None:
        self._report, told = os.pipe()
        self._exit.callback(os.close, self._report)
        if self._isolation != "group":
            arguments = [self._isolation, str(told)]
            command = [sys.executable, "-I", "-S", str(_INIT), *arguments, *command]
        if self._isolation == "namespace":
            command = [*_namespace(), *command]
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    cwd=cwd,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=() if self._isolation == "group" else (told,),
                )
        except OSError as error:
            raise SetupError(f"cannot start {command[0]}: {error.strerror or error}") from error
        finally:
            os.close(told)
        self._exit.callback(self._close_pidfd)
        self._exit.callback(self.kill)
        if self._isolation != "group" and not os.read(self._report, 1):
            self.kill()
            if self.was_killed:
                raise Died(self.death())
            raise SetupError(f"no kernel could be started in a {self._isolation}: {self.last_words()}")
        # Tells of the death at once, and without reaping it: until then the id cannot be anybody else's.
        self._pidfd = self._open_pidfd() if hasattr(os, "pidfd_open") else None

    def _open_pidfd(self) -> int:
        """Of ``init``, if there is one, else of the kernel."""
        pid = self._process.pid
        if self._isolation == "namespace":
            # ``unshare`` waits for it. It cannot tell its number itself: in there that is 1.
            with contextlib.suppress(ValueError, ProcessLookupError):  # it has ended already, and so has unshare
                return os.pidfd_open(int(Path(f"/proc/{pid}/task/{pid}/children").read_text()))
        return os.pidfd_open(pid)

    def wake(self) -> None:
        """Make ``receive`` return. May be called from any thread, at any time."""
        with self._waking, contextlib.suppress(BlockingIOError):
            if not self._closed:
                os.write(self._wake_writer, b"!")

    def receive(self, timeout: float | None, *, unwanted: Callable[[str, str, int], bool]) -> Iterator[Message]:
        """What has arrived. Waits up to *timeout* seconds for it, or until ``wake`` or the process's death.

        Few at a time: the caller looks at its deadlines between.

        Args:
            unwanted: told type, parent and size, says what need not be read. A flood is thrown away faster than a
                kernel can make it, and so does not pile up.
        """
        self._count_kills()
        if self._pidfd is None:
            timeout = 0.1 if timeout is None else min(timeout, 0.1)
        self._poller.poll(None if timeout is None else max(0, int(timeout * 1000) + 1))
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_reader, 4096)
        for channel, socket in self._sockets.items():
            for _ in range(500):
                try:
                    frames = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                if message := read(self._session, channel, frames, unwanted):
                    yield message

    def _count_kills(self) -> None:
        if time.monotonic() - self._counted >= _DYING:
            self._counted, self._counts = time.monotonic(), (self._counts[1], _oom_kills())

    def ask_info(self) -> str:
        """Ask the kernel who it is: its reply, and an "idle" on iopub, show that it listens. Returns the id."""
        return str(self._client.kernel_info())

    def prepare(self, log: Path | None) -> None:
        """To be called once, when it listens. Nothing of this shows in the notebook.

        Args:
            log: of the run, where it is to tell what it has installed.
        """
        if self._ipykernel:
            code = f"exec({_PREPARATION!r}, {{'kernel': get_ipython().kernel}})\n{telling(log) if log else ''}"
            self._client.execute(code, silent=True, allow_stdin=False, stop_on_error=False)

    def execute(self, source: str, *, stop_on_error: bool) -> str:
        """Returns the id of the request, the ``parent`` of all that comes of it."""
        return str(self._client.execute(source, allow_stdin=False, stop_on_error=stop_on_error))

    @property
    def client(self) -> Any:
        """For nbclient, whose output widgets answer their kernel."""
        return self._client

    @property
    def isolation(self) -> Isolation:
        return self._isolation

    @property
    def start(self) -> str:
        """``cold``; a fork is ``parked`` if it was there before it was needed, else ``warm``."""
        return "cold"

    @property
    def pid(self) -> int:
        """Of the root of all its processes, as this machine counts them."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        if self._pidfd is None:
            return self._process.poll() is None
        return not self._reaped and not _readable(self._pidfd)

    def interrupt(self) -> None:
        """Once. A busy kernel may miss it: repeat until it shows effect."""
        if self._interrupt_by_message:
            self._control.send(self._session.msg("interrupt_request"))
        else:
            self._signal(signal.SIGINT)

    def request_shutdown(self) -> None:
        self._control.send(self._session.msg("shutdown_request", {"restart": False}))

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the kernel and to whatever it started, dead or alive; returns when that is gone."""
        if self._reaped:
            return
        told = self._last_report()
        if not told.endswith(b"\n"):
            if self._isolation == "reaper":
                self._signal(signal.SIGHUP)
                self.exits_within(_REAPING)
            self._signal(signal.SIGKILL)
            code = self._await_end()
            told = told or os.read(self._report, 20)
            told = told if told.strip() else b"%d" % self._untold(code)
        self._reaped = True
        self._code = int(told)

    def _last_report(self) -> bytes:
        """Of ``init``, if it has told of the end already: with a newline if nothing is left."""
        return b""

    def _untold(self, code: int) -> int:
        """How ``init`` ended, if it could not tell how the kernel did.

        ``unshare`` up to 2.38 wants to die by the signal that its child died of, cannot do that for SIGKILL, and ends
        with 1, as if there could be no namespace.
        """
        killed = self._isolation == "namespace" and code == 1 and "sigprocmask" in self.last_words()
        return -signal.SIGKILL if killed else code

    def _await_end(self) -> int:
        """The exit code of what was started, and what is to be told if the kernel's own is not known."""
        self._process.wait()
        if self._pidfd is not None and self._pidfd in self._poller:
            self._poller.unregister(self._pidfd)  # tells nothing new, and would end every wait
        return self._process.returncode

    @property
    def was_killed(self) -> bool:
        """By a signal, and so by nothing it said or did wrong. Only after ``kill``."""
        return self._code < 0

    @property
    def ran_out_of_memory(self) -> bool:
        """The system has killed it, or another process at the same time. Only after ``kill``."""
        return self._code == -signal.SIGKILL and _oom_kills() > self._counts[0]

    def death(self) -> str:
        """How it ended, for people: ``killed by signal 9``, ``exit code 1``. Only after ``kill``."""
        if self.ran_out_of_memory:
            return "out of memory, killed by signal 9"
        return f"killed by signal {-self._code}" if self._code < 0 else f"exit code {self._code}"

    def last_words(self, limit: int = 2000) -> str:
        """The end of what the process itself wrote."""
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - limit))
            return log.read().decode(errors="replace").strip()
        return ""

    def exits_within(self, seconds: float) -> bool:
        """Wait for the process to end by itself. What it still sends is kept for ``receive``."""
        until = time.monotonic() + seconds
        while self.alive and (left := until - time.monotonic()) > 0:
            if self._pidfd is None:
                time.sleep(0.02)
            else:
                _readable(self._pidfd, left)
        return not self.alive

    def falls_silent(self, seconds: float) -> bool:
        """Wait until it has said all that it will; it may take a moment longer to end."""
        return self.exits_within(seconds)

    def close(self) -> None:
        self._exit.close()

    def _close_pidfd(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)

    def _close_pipe(self) -> None:
        with self._waking:
            self._closed = True
            os.close(self._wake_writer)
            os.close(self._wake_reader)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a zombie's group
            if self._isolation == "group" or self._pidfd is None:
                os.killpg(self.pid, number)
            else:
                signal.pidfd_send_signal(self._pidfd, number)


def telling(log: Path) -> str:
    """Code by which a kernel tells in the log of its run what it has installed."""
    listing = f"{_INSTALLED}\ntell({str(log.absolute())!r}, {epoch()!r})"
    return f"exec({listing!r}, {{}})"


def read(
    session: Session, channel: Channel, frames: list[bytes], unwanted: Callable[[str, str, int], bool]
) -> Message | None:
    """None for what is unwanted, or no message of our kernel: a subscription's welcome, a wrong signature."""
    try:
        _, parts = session.feed_identities(frames)
        kind, parent = json.loads(parts[1])["msg_type"], json.loads(parts[2]).get("msg_id") or ""
        size = sum(map(len, parts[4:]))
        if channel == "iopub" and unwanted(kind, parent, size):
            return None
        if kind == "stream":  # by far the most; Jupyter's own way takes ten times longer
            if session.sign(parts[1:5]) != parts[0]:
                return None
            header, request, metadata, content = map(json.loads, parts[1:5])
            body = {"header": header, "msg_id": header["msg_id"], "msg_type": kind, "parent_header": request}
            body |= {"metadata": metadata, "content": content, "buffers": []}
        else:
            body = session.deserialize(parts)
    except (ValueError, TypeError, IndexError, KeyError):
        return None
    return Message(channel, kind, parent, size, body)


def short_folder() -> str | None:
    return None if len(tempfile.gettempdir()) <= _LONGEST_FOLDER - len("/fk-12345678") else "/tmp"


def _address(spec: KernelSpec, folder: Path) -> dict[str, str]:
    """Python's kernels speak over Unix sockets in a folder only we may enter: no port to collide or be overheard on."""
    if spec.language.lower() == "python" and sys.platform != "win32":
        return {"transport": "ipc", "ip": str(folder / "k")}
    return {"transport": "tcp"}


def interpreter(argv: Sequence[str]) -> list[str]:
    """A kernel's command, and its Python this one where none is meant in particular."""
    python = ("python", f"python{sys.version_info[0]}", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    if argv and argv[0] in python:
        return [sys.executable, *argv[1:]]  # as Jupyter does: PATH may lead elsewhere
    return list(argv)


def _command(spec: KernelSpec, folder: Path) -> list[str]:
    places = {
        "{connection_file}": str(folder / "connection.json"),
        "{resource_dir}": spec.resource_dir,
        "{prefix}": sys.prefix,
    }
    command = interpreter(spec.argv)
    for place, value in places.items():
        command = [part.replace(place, value) for part in command]
    if any("ipykernel" in part for part in command):
        command += NO_HISTORY
    return command


def environment(spec: KernelSpec, env: Mapping[str, str], kept_by: Isolation) -> dict[str, str]:
    own = {name: string.Template(value).safe_substitute(env) for name, value in spec.env.items()}
    # ipykernel ends when that parent does, unless it is number 1. `init` needs no such help, which fails in a C call.
    parent = os.getpid() if kept_by == "group" else 1
    return {**env, **own, "JPY_PARENT_PID": str(parent)}


def _namespace() -> list[str]:
    """What comes before a command to run it in a PID namespace that ends with the thread that starts it.

    Root stays the machine's root: mapped alone into a user namespace, it could not read the files of others.
    """
    setpriv, unshare = (shutil.which(name) or name for name in ("setpriv", "unshare"))
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    alone = ["--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "slave"]
    return [setpriv, "--pdeathsig", "KILL", unshare, *user, *alone, "--"]


def _oom_kills() -> int:
    """How many processes this machine has killed for lack of memory, its own or their cgroup's, since it started."""
    with contextlib.suppress(OSError), open("/proc/vmstat") as counters:
        return sum(int(line.split()[1]) for line in counters if line.startswith("oom_kill "))
    return 0


def _readable(fd: int, seconds: float = 0.0) -> bool:
    poller = zmq.Poller()
    poller.register(fd, zmq.POLLIN)
    return bool(poller.poll(int(seconds * 1000)))
