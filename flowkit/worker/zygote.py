"""The zygotes of a worker: for each Python and environment one process with a kernel built, of which runs get forks.

No run ever waits for one. Until it is up, and whenever something speaks against it, a run has an ordinary start, and
``Start`` says why.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec

from flowkit.config import RUN_FOLDER
from flowkit.model import epoch
from flowkit.worker import process
from flowkit.worker.forked import Fork, ForkedKernel
from flowkit.worker.freshness import Loaded
from flowkit.worker.process import NO_HISTORY, Died, Isolation, environment, interpreter
from flowkit.worker.served import Connection, Served
from flowkit.worker.usage import Rest

log = logging.getLogger("flowkit.worker")

_SCRIPT = Path(__file__).parent.parent / "kernel" / "zygote.py"

#: Variables that only say which kernel it is, and so make no difference to a zygote.
_OF_ONE_KERNEL = {RUN_FOLDER, "JPY_SESSION_NAME", "PYTEST_CURRENT_TEST"}

#: Seconds a zygote may take to import everything, a trial kernel to answer, and a zygote to fork.
STARTING, TRIAL, FORKING = 120.0, 20.0, 5.0

#: Seconds until one that could not start is tried again, doubled each time, up to an hour.
AGAIN = 30.0

#: At most that many at once; the one that was not needed longest goes.
MOST = 4

#: Seconds in which nothing has been asked of it until one is ended, with the memory it holds.
IDLE = 3600.0


class Unfit(Exception):
    """No fork can be had of it. The message says why, for a run's record."""


@dataclass(frozen=True, slots=True)
class Told:
    """What all forks of one zygote would answer."""

    language: dict[str, Any]  #: as a kernel tells of itself
    packages: dict[str, Any]  #: of the event of that name
    rest: Rest


@dataclass(frozen=True, slots=True)
class Start:
    """How a kernel was started."""

    how: str  #: cold, warm or parked
    reason: str | None  #: why it was cold
    told: Told | None = None  #: of a fork, what a kernel would have to be asked


class Zygotes:
    """Thread-safe."""

    def __init__(self, names: Callable[[], Sequence[str] | None], *, served: bool = False) -> None:
        """
        Args:
            names: tells, when it is first needed, which modules are to be imported ahead; None: no zygotes.
            served: over ZeroMQ, for whoever speaks that: ``serve`` is for these, ``take`` for the others.
        """
        self._names, self._served = names, served
        self._lines: dict[str, _Line] = {}
        self._lock = threading.Lock()

    def take(
        self, spec: KernelSpec, *, cwd: Path, env: Mapping[str, str], log: Path
    ) -> tuple[ForkedKernel | None, Start]:
        """A fork for a run, if there can be one; else why not."""
        if not cwd.is_dir():
            return None, Start("cold", f"{cwd} is no folder")
        try:
            line = self._line(spec, env)
            fork, told = line.take()
        except Unfit as why:
            return None, Start("cold", str(why))
        try:
            kernel = ForkedKernel(fork, spec, cwd=cwd, env=env, log=log, ended=line.ended)
        except Died as death:
            return None, Start("cold", f"its fork died: {death}")
        return kernel, Start(kernel.start, None, told)

    def serve(
        self, spec: KernelSpec, env: Mapping[str, str], *, connection: Connection | None = None
    ) -> tuple[Served, Callable[[], None]]:
        """A fork that listens, and what is to be called at its end. Raises Unfit.

        Args:
            connection: where it is to listen; None: on sockets of its own.
        """
        line = self._line(spec, env)
        fork, _ = line.take(connection)
        assert isinstance(fork, Served)
        return fork, line.ended

    def prepare(self, spec: KernelSpec, env: Mapping[str, str]) -> None:
        """Have a zygote started for what will be asked for."""
        with contextlib.suppress(Unfit):
            self._line(spec, env).wake()

    def await_ready(self, spec: KernelSpec, env: Mapping[str, str], *, parked: bool = True) -> None:
        """Until ``take`` gives a fork. Raises Unfit if it will not."""
        self._line(spec, env).await_ready(parked=parked)

    def close(self) -> None:
        with self._lock:
            lines, self._lines = list(self._lines.values()), {}
        for line in lines:
            line.close()

    def _line(self, spec: KernelSpec, env: Mapping[str, str]) -> _Line:
        names = self._names()
        if names is None:
            raise Unfit("FLOWKIT_WARM is off")
        if process.isolation() == "group":
            raise Unfit("this system cannot keep a fork together")
        command, options = _ipykernel(spec, () if self._served else NO_HISTORY)
        given = environment(spec, env, process.isolation())
        same = {name: value for name, value in given.items() if name not in _OF_ONE_KERNEL}
        key = json.dumps([process.isolation(), command, options, sorted(same.items())])
        with self._lock:
            line = self._lines.pop(key, None) or _Line(command, options, same, names, served=self._served)
            self._lines[key] = line  # the last used is last
            surplus = [self._lines.pop(next(iter(self._lines))) for _ in range(len(self._lines) - MOST)]
        for one in surplus:
            one.close()
        return line


def _ipykernel(spec: KernelSpec, further: Sequence[str]) -> tuple[list[str], list[str]]:
    """The Python and its options, and the options of the kernel with *further* ones, of what would start it."""
    if spec.language.lower() != "python":
        raise Unfit(f"the kernel speaks {spec.language}")
    argv = interpreter(spec.argv)
    for module in ("ipykernel_launcher", "ipykernel"):
        if argv[1:] and "-m" in argv and argv[argv.index("-m") + 1 : argv.index("-m") + 2] == [module]:
            at = argv.index("-m")
            rest = argv[at + 2 :]
            if rest[:2] == ["-f", "{connection_file}"] and not any("{" in part for part in rest[2:]):
                return argv[:at], [*rest[2:], *further]
    raise Unfit("the kernel is not started by ipykernel_launcher")


class _Line:
    """The zygote of one environment, and the next after it is out of date. A thread keeps it up."""

    def __init__(
        self, command: list[str], options: list[str], env: dict[str, str], names: Sequence[str], *, served: bool
    ) -> None:
        self._start_zygote = partial(_Zygote, command, options, env, list(names), served=served)
        self._command = command
        self._zygote: _Zygote | None = None
        self._reason = "its zygote is being started"
        self._parked: Fork | None = None
        self._active = 0
        self._failures = 0
        self._not_before = 0.0
        self._used = time.monotonic()
        self._closed = False
        self._changed = threading.Condition()
        self._retired: list[_Zygote] = []
        self._keeping: threading.Thread | None = None
        self.wake()

    def wake(self) -> None:
        """There may be something to do for the thread."""
        with self._changed:
            self._used = time.monotonic()
            if self._keeping is None and not self._closed:
                self._keeping = threading.Thread(target=self._keep, name="flowkit-zygote", daemon=True)
                self._keeping.start()
            self._changed.notify_all()

    def take(self, connection: Connection | None = None) -> tuple[Fork, Told]:
        """A fork that is to listen at a certain *connection* is never the parked one."""
        self.wake_if_gone()
        with self._changed:
            zygote, fork = self._zygote, self._parked if connection is None else None
            if fork is not None:
                self._parked = None
            if zygote is None:
                self._changed.notify_all()
                raise Unfit(self._reason)
            self._active += 1
        try:
            zygote.check()
            if changed := zygote.loaded.changed():
                raise Unfit(f"{changed} has changed; a new zygote is being started")
            if fork is not None and fork.waits():
                fork.parked = True
                return fork, zygote.told
            if fork is not None:
                fork.close()
            return zygote.fork(connection=connection), zygote.told
        except Unfit as why:
            if fork is not None and not fork.parked:
                with contextlib.suppress(OSError):
                    fork.close()
            self._replace(zygote, str(why))
            self.ended()
            raise

    def wake_if_gone(self) -> None:
        with self._changed:
            gone = self._zygote is None
        if gone:
            self.wake()

    def ended(self) -> None:
        """A kernel's end: when no other runs, there is time to park one."""
        with self._changed:
            self._active -= 1
            self._used = time.monotonic()
            if not self._active:
                self._changed.notify_all()

    def await_ready(self, *, parked: bool) -> None:
        self.wake()
        until = time.monotonic() + STARTING
        with self._changed:
            while self._zygote is None or (parked and self._parked is None):
                if self._failures and self._zygote is None:
                    raise Unfit(self._reason)
                if not self._changed.wait(until - time.monotonic()):
                    raise Unfit(self._reason)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            keeping = self._keeping
        if keeping is not None:
            keeping.join(STARTING)

    def _replace(self, zygote: _Zygote, reason: str) -> None:
        with self._changed:
            if self._zygote is not zygote:
                return
            self._zygote, self._reason = None, reason
            self._retired.append(zygote)
            stale, self._parked = self._parked, None
            self._changed.notify_all()
        if stale is not None:
            stale.close()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        while True:
            with self._changed:
                due = self._next()
                while due is not None and due > 0:
                    self._changed.wait(due)
                    due = self._next()
                retired, self._retired = self._retired, []
                stop = self._closed or time.monotonic() - self._used > IDLE
                zygote = self._zygote
                parks = zygote is not None and not stop
                if stop:
                    self._zygote, fork, self._parked, self._keeping = None, self._parked, None, None
                    self._reason = "its zygote is being started"
                    if zygote is not None:
                        retired.append(zygote)
            for one in retired:
                one.retire()
            if stop:
                if fork is not None:
                    fork.close()
                return
            if parks:
                assert zygote is not None
                self._park(zygote)
            else:
                self._start()

    def _next(self) -> float | None:
        """Seconds until there is something to do; None or 0: now."""
        if self._closed or self._retired:
            return 0.0
        idle = self._used + IDLE - time.monotonic() + 0.1
        if self._zygote is None:
            return max(0.0, self._not_before - time.monotonic())
        if self._parked is None and not self._active:
            return 0.0
        return max(0.0, idle)

    def _start(self) -> None:
        try:
            zygote = self._start_zygote()
            if changed := zygote.loaded.changed():  # while it read that, or just before: once more
                zygote.retire()
                log.info("%s changed while a zygote was started", changed)
                zygote = self._start_zygote()
        except Unfit as why:
            with self._changed:
                self._failures += 1
                pause = min(3600.0, AGAIN * 2 ** (self._failures - 1))
                self._reason, self._not_before = str(why), time.monotonic() + pause
                self._changed.notify_all()
            log.info("no warm kernels of %s: %s", self._command[0], why)
            return
        with self._changed:
            self._zygote, self._failures, self._not_before = zygote, 0, time.monotonic() + 1.0
            self._changed.notify_all()

    def _park(self, zygote: _Zygote) -> None:
        try:
            fork = zygote.fork(ahead=True)
        except Unfit as why:
            self._replace(zygote, str(why))
            return
        with self._changed:
            if self._zygote is zygote and self._parked is None and not self._closed:
                self._parked = fork
                self._changed.notify_all()
                return
        fork.close()


class _Zygote:
    """One process, and the socket to it. Raises Unfit if it cannot be started, or its trial kernel does not answer."""

    def __init__(
        self, command: list[str], options: list[str], env: dict[str, str], names: Sequence[str], *, served: bool
    ) -> None:
        self._isolation: Isolation = process.isolation()
        self._served = served
        self._asking = threading.Lock()
        self._control, its = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        self._pid = 0
        with its, tempfile.TemporaryFile() as facts:
            told = {"control": its.fileno(), "facts": facts.fileno(), "isolation": self._isolation, "warm": names}
            told |= {"user": os.geteuid() != 0, "options": options, "served": served}
            began = epoch()
            try:
                self._process = subprocess.Popen(
                    [*command, str(_SCRIPT), json.dumps(told)],
                    cwd="/",
                    env={**env, "JE_ARROW_MALLOC_CONF": "background_thread:false"},
                    stdin=subprocess.DEVNULL,
                    stdout=self._words,
                    stderr=self._words,
                    pass_fds=(its.fileno(), facts.fileno()),
                    start_new_session=True,
                )
            except OSError as error:
                raise Unfit(f"cannot start {command[0]}: {error.strerror}") from error
            its.close()
            try:
                if self._hear(STARTING, 100)[0] != b"ready":
                    raise Unfit(f"its zygote ended: {self._last_words()}")
                facts.seek(0)
                found = json.load(facts)
                self.loaded = Loaded(found["files"], found["path"], began=began, library=found["library"])
                self.skipped: dict[str, str] = found["skipped"]
                self.told = self._try(env)
            except BaseException:
                self._end()
                raise

    def fork(self, *, ahead: bool = False, connection: Connection | None = None) -> Fork:
        """*ahead*: it is not needed yet, and may make itself at home."""
        ask = partial(self._fork, b"ahead" if ahead else b"now")
        try:
            if self._served:
                return Served(self._isolation, ask, connection, limit=TRIAL)
            return Fork(self._isolation, ask)
        except OSError as error:
            raise Unfit(f"its zygote gave no fork: {error}") from error

    def check(self) -> None:
        """Raises Unfit if it has died, and with it, or in a moment, what it has parked."""
        if self._process.poll() is not None:
            raise Unfit(f"its zygote has died: {self._last_words()}")

    def retire(self) -> None:
        """It ends after the last of its kernels, and at the latest with us."""
        with contextlib.suppress(OSError), self._asking:
            self._control.send(b"retire")
        threading.Thread(target=self._end, args=(None,), name="flowkit-zygote-end", daemon=True).start()

    def _fork(self, when: bytes, descriptors: list[int]) -> tuple[int, int]:
        with self._asking:
            socket.send_fds(self._control, [when], descriptors)
            said, tells = self._hear(FORKING, 1000)
        if not said.isdigit() or not tells:
            self.check()
            raise Unfit(said.decode() or "its zygote has closed its ears")
        return int(said), tells[0]

    def _hear(self, seconds: float, size: int) -> tuple[bytes, list[int]]:
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        if not poller.poll(int(seconds * 1000)):
            raise Unfit(f"its zygote did not answer within {seconds:g} s")
        with contextlib.suppress(ConnectionError):
            said, descriptors, *_ = socket.recv_fds(self._control, size, 1)
            return said, descriptors
        return b"", []

    def _try(self, env: Mapping[str, str]) -> Told:
        """Have a kernel say something. A run would fail by what is wrong with it."""
        if self._served:
            self.fork().close()  # which has said that it listens
            return Told({}, {}, Rest(0, 0))
        with tempfile.TemporaryDirectory() as folder:
            log, events = Path(folder) / "log", Path(folder) / "events"
            kernel = ForkedKernel(self.fork(), KernelSpec(), cwd=Path(folder), env=env, log=log)
            with contextlib.closing(kernel):
                kernel.ask_info()
                kernel.prepare(events)
                request = kernel.execute("print(6 * 7)", stop_on_error=True)
                until, heard, about = time.monotonic() + TRIAL, dict[str, Any](), dict[str, Any]()
                while not {"stream", "execute_reply"} <= set(heard) and time.monotonic() < until and kernel.alive:
                    for message in kernel.receive(1.0, unwanted=lambda *_: False):
                        if message.type == "kernel_info_reply":
                            about = message.body["content"]["language_info"]
                        if message.parent == request:
                            heard[message.type] = message.body["content"]
                rest = Rest.of(kernel.pid)
                kernel.kill()
                if heard.get("stream", {}).get("text") != "42\n" or heard["execute_reply"]["status"] != "ok":
                    raise Unfit(f"its first kernel said nothing sensible ({kernel.death()}): {kernel.last_words()}")
                return Told(about, json.loads(events.read_text())["data"], rest)

    def _last_words(self) -> str:
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "without a word"

    def _end(self, patience: float | None = 0.0) -> None:
        """*patience*: seconds it has to end by itself; None: for ever."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._control.close()
        self._words.close()
