"""A kernel that was forked from a zygote: the same messages as of any kernel, over one socket pair."""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.session import Session

from flowkit.worker.process import Channel, Died, Isolation, KernelProcess, Message, environment, read, telling

_HEAD = struct.Struct("!BI")
_SHELL, _CONTROL, _IOPUB = 0, 1, 2
_CHANNELS: dict[int, Channel] = {_SHELL: "shell", _IOPUB: "iopub"}

_CHUNK = 1 << 18

#: The bytes of one packet from a process that the notebook has forked.
_PACKET = 1 << 17

#: Seconds that a kernel may let its socket be full. It reads whenever no cell runs.
_SENDING = 10.0


class Fork:
    """A kernel that waits to be told whose it is. Whoever has it closes it, or makes a ForkedKernel of it."""

    def __init__(self, kept_by: Isolation, fork: Callable[[list[int]], tuple[int, int]]) -> None:
        """
        Args:
            fork: given the kernel's descriptors, returns its keeper: the number, and a descriptor of that process.
        """
        self.isolation = kept_by
        self.parked = False  #: it was there before it was needed
        self.session = Session(key=b"none")
        self.session.auth = None  # nobody else can speak on a socket that has no name
        self.talk, kernels = socket.socketpair()
        self.stray, its_strays = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self.report, told = os.pipe()
        try:
            with kernels, its_strays:
                self.pid, self.pidfd = fork([kernels.fileno(), its_strays.fileno(), told])
        except BaseException:
            self._close()
            raise
        finally:
            os.close(told)

    def waits(self) -> bool:
        """It lives, and has not said anything but that."""
        return not _readable(self.pidfd) and not _readable(self.talk.fileno())

    def tell(self, order: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Raises OSError if it is dead."""
        data = json.dumps(order).encode()
        socket.send_fds(self.talk, [len(data).to_bytes(4, "big")], descriptors)
        self.talk.sendall(data)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGHUP if self.isolation == "reaper" else signal.SIGKILL)
        os.close(self.pidfd)
        self._close()

    def _close(self) -> None:
        self.talk.close()
        self.stray.close()
        os.close(self.report)


class ForkedKernel(KernelProcess):
    def __init__(
        self,
        fork: Fork,
        spec: KernelSpec,
        *,
        cwd: Path,
        env: Mapping[str, str],
        log: Path,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """*ended* is called when nothing of it is left."""
        self._fork = fork
        self._ended = ended
        super().__init__(spec, cwd=cwd, env=env, log=log)

    def _open(self, spec: KernelSpec, cwd: Path, env: Mapping[str, str]) -> None:
        fork = self._fork
        self._exit.callback(self._ended)
        self._isolation = fork.isolation
        self._session = fork.session
        self._pidfd, self._report = fork.pidfd, fork.report
        self._exit.callback(fork._close)
        self._exit.callback(os.close, fork.pidfd)
        self._exit.callback(self.kill)
        self._buffer = bytearray()
        self._speaks = 2  # sockets that are not closed
        self._silent = False  # that of the kernel itself is
        self._shim = SimpleNamespace(session=self._session, shell_channel=SimpleNamespace(send=self._send))
        self._wake_reader, self._wake_writer = os.pipe()
        self._exit.callback(self._close_pipe)
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        fork.talk.setblocking(False)
        fork.stray.setblocking(False)
        self._sources = select.poll()
        for source in (fork.talk.fileno(), fork.stray.fileno(), self._wake_reader, fork.report):
            self._sources.register(source, select.POLLIN)
        order = json.dumps({"cwd": str(cwd), "env": environment(spec, env, fork.isolation)}).encode()
        with self._log.open("ab") as log:
            try:
                socket.send_fds(fork.talk, [len(order).to_bytes(4, "big")], [log.fileno()])
                self._send_all(order)
            except OSError:
                self.kill()
                raise Died(self.death()) from None

    # -- messages -----------------------------------------------------------------------------------------------------

    def receive(self, timeout: float | None, *, unwanted: Callable[[str, str, int], bool]) -> Iterator[Message]:
        self._count_kills()
        if not self._whole() and self._speaks:
            self._sources.poll(None if timeout is None else math.ceil(1000 * max(0.0, timeout)))
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_reader, 4096)
        self._take_in()
        for code, frames in self._messages():
            if message := read(self._session, _CHANNELS[code], frames, unwanted):
                yield message

    def _take_in(self) -> int:
        """What is on the sockets, up to a limit; how many bytes that was."""
        taken = 0
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while taken < 16 * _CHUNK:
                data = self._fork.talk.recv(_CHUNK)
                if not data:
                    self._forget(self._fork.talk)
                    break
                self._buffer += data
                taken += len(data)
        return taken

    def _forget(self, closed: socket.socket) -> None:
        with contextlib.suppress(KeyError):
            self._sources.unregister(closed.fileno())
            self._speaks -= 1
            self._silent |= closed is self._fork.talk

    def _whole(self) -> bool:
        return len(self._buffer) >= _HEAD.size and _size(self._buffer, 0) is not None

    def _messages(self) -> Iterator[tuple[int, list[bytes]]]:
        """The whole ones, first those of processes that the notebook has forked."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            for _ in range(500):
                data, descriptors, *_ = socket.recv_fds(self._fork.stray, _PACKET, 1)
                for descriptor in descriptors:
                    with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as memory:
                        data = memory[:]
                    os.close(descriptor)
                if not data:
                    self._forget(self._fork.stray)
                    break
                yield from _unpacked(data)
        at = 0
        found = []
        while (end := _size(self._buffer, at)) is not None:
            found.append(_frames(self._buffer, at))
            at = end
        del self._buffer[:at]
        yield from found

    def ask_info(self) -> str:
        return self._request("kernel_info_request", {})

    def prepare(self, log: Path | None) -> None:
        if log is not None:
            self._execute(telling(log), silent=True, stop_on_error=False)

    def execute(self, source: str, *, stop_on_error: bool) -> str:
        return self._execute(source, silent=False, stop_on_error=stop_on_error)

    def _execute(self, source: str, *, silent: bool, stop_on_error: bool) -> str:
        content = {"code": source, "silent": silent, "store_history": not silent, "user_expressions": {}}
        return self._request("execute_request", content | {"allow_stdin": False, "stop_on_error": stop_on_error})

    @property
    def client(self) -> Any:
        return self._shim

    def request_shutdown(self) -> None:
        self._send(self._session.msg("shutdown_request", {"restart": False}), _CONTROL)

    def _request(self, kind: str, content: dict[str, Any]) -> str:
        message = self._session.msg(kind, content)
        self._send(message)
        return str(message["msg_id"])

    def _send(self, message: dict[str, Any], channel: int = _SHELL) -> None:
        frames = self._session.serialize(message)
        frames += [bytes(buffer) for buffer in message.get("buffers") or ()]
        sizes = struct.pack(f"!{len(frames)}Q", *map(len, frames))
        with contextlib.suppress(OSError):  # it is dead, which is noticed elsewhere
            self._send_all(b"".join((_HEAD.pack(channel, len(frames)), sizes, *frames)))

    def _send_all(self, data: bytes) -> None:
        """While it does not read because we do not, we do."""
        until, view = time.monotonic() + _SENDING, memoryview(data)
        while view:
            try:
                view = view[self._fork.talk.send(view) :]
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError("the kernel does not read") from None
                select.select([self._fork.talk], [self._fork.talk], [], 1.0)
                self._take_in()

    # -- the process --------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        return self._fork.pid

    @property
    def start(self) -> str:
        return "parked" if self._fork.parked else "warm"

    @property
    def alive(self) -> bool:
        return not self._reaped and not _readable(self._fork.report)

    def exits_within(self, seconds: float) -> bool:
        return self._waits_until(lambda: not self.alive, seconds)

    def falls_silent(self, seconds: float) -> bool:
        return self._waits_until(lambda: self._silent or not self.alive, seconds)

    def _waits_until(self, ended: Callable[[], bool], seconds: float) -> bool:
        until = time.monotonic() + seconds
        poller = select.poll()
        poller.register(self._fork.report, select.POLLIN)
        poller.register(self._fork.talk, select.POLLIN)
        while not ended() and (left := until - time.monotonic()) > 0:
            poller.poll(int(left * 1000) + 1)
            if not self._take_in() and not ended():  # the socket is closed, the process not yet gone
                with contextlib.suppress(KeyError):
                    poller.unregister(self._fork.talk)
        return ended()

    def _last_report(self) -> bytes:
        """If nothing is left but its keeper, that is not waited for: it is ours, and about to end."""
        if not _readable(self._fork.report):
            return b""
        with contextlib.suppress(KeyError):
            self._sources.unregister(self._fork.report)  # tells nothing new, and would end every wait
        return os.read(self._fork.report, 20)

    def _await_end(self) -> int:
        """Its keeper was its namespace's first process: when that has ended, so has all that was in there."""
        _readable(self._fork.pidfd, None)
        with contextlib.suppress(KeyError):
            self._sources.unregister(self._fork.report)
        return -signal.SIGKILL  # if the keeper itself was killed, and so could tell nothing


def _size(buffer: bytearray | bytes, at: int) -> int | None:
    """Where the message that begins at *at* ends; None if it is not whole."""
    if len(buffer) - at < _HEAD.size:
        return None
    _, count = _HEAD.unpack_from(buffer, at)
    start = at + _HEAD.size + 8 * count
    if len(buffer) < start:
        return None
    end = start + sum(struct.unpack_from(f"!{count}Q", buffer, at + _HEAD.size))
    return end if len(buffer) >= end else None


def _frames(buffer: bytearray | bytes, at: int) -> tuple[int, list[bytes]]:
    channel, count = _HEAD.unpack_from(buffer, at)
    start = at + _HEAD.size + 8 * count
    frames = []
    for size in struct.unpack_from(f"!{count}Q", buffer, at + _HEAD.size):
        frames.append(bytes(buffer[start : start + size]))
        start += size
    return channel, frames


def _unpacked(data: bytes) -> Iterator[tuple[int, list[bytes]]]:
    if _size(data, 0) == len(data):
        yield _frames(data, 0)


def _readable(descriptor: int, seconds: float | None = 0.0) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(None if seconds is None else int(seconds * 1000)))
