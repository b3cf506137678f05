"""A kernel's messages over one socket, and what it writes, put into them.

Part of the zygote's script.
"""

# mypy: disable-error-code="assignment, attr-defined, no-untyped-call, union-attr"
# What is reached into here was not made for it, and has few types.

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ipykernel.iostream import IOPubThread, OutStream

#: Frames of a message, as the socket carries them: channel, how many, then their sizes.
_HEAD = struct.Struct("!BI")

SHELL, CONTROL, IOPUB = 0, 1, 2

#: The most that fits into one packet for sure; what is larger goes through memory that is handed over.
_PACKET = 100_000


class Publisher(IOPubThread):
    """Sends what a kernel says, from a thread of its own: no signal hits it in the middle of a message."""

    def __init__(self) -> None:  # not the base's, which opens sockets
        self.session = None
        self.background_socket = self.io_loop = self
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._timers: list[tuple[float, Callable[[], object]]] = []
        self.socket: socket.socket | None = None
        self._pid = 0
        self.silent = False

    def attach(self, talk: socket.socket, stray: socket.socket) -> None:
        self.socket, self._stray, self._pid = talk, stray, os.getpid()
        self.thread = threading.Thread(target=self._work, name="IOPub", daemon=True)  # made before a fork, it is dead
        self.thread.start()

    @property
    def closed(self) -> bool:
        return self.socket is None

    def schedule(self, task: Callable[[], object]) -> None:
        if os.getpid() == self._pid and threading.current_thread() is not self.thread:
            self._tasks.put(task)
        else:
            task()

    def call_later(self, seconds: float, task: Callable[[], object]) -> None:
        """In the thread."""
        self._timers.append((time.monotonic() + seconds, task))

    def send_multipart(self, frames: Sequence[Any], *arguments: Any, **options: Any) -> None:
        self.send_on(IOPUB, frames)

    def send_on(self, channel: int, frames: Sequence[Any]) -> None:
        if self.silent:
            return
        # What a frame shows may be changed as soon as this returns.
        frozen = [frame if isinstance(frame, bytes) else bytes(frame) for frame in frames]
        if os.getpid() == self._pid:
            self.schedule(lambda: self._write(_packed(channel, frozen)))
        else:  # a process that the notebook has forked: two that write on one socket would mix their bytes
            self._write_packet(_packed(channel, frozen))

    def finish(self) -> None:
        """Send what is left."""
        self._tasks.put(None)
        self.thread.join()

    def _work(self) -> None:
        while True:
            now = time.monotonic()
            due = [task for at, task in self._timers if at <= now]
            self._timers = [timer for timer in self._timers if timer[0] > now]
            for task in due:
                task()
            following = min((at for at, _ in self._timers), default=None)
            try:
                given = self._tasks.get(timeout=None if following is None else max(0.0, following - time.monotonic()))
            except queue.Empty:
                continue
            if given is None:
                return
            given()

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more, and we shall not be long
            assert self.socket is not None
            self.socket.sendall(data)

    def _write_packet(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if len(data) <= _PACKET:
                self._stray.send(data)
                return
            memory = os.memfd_create("message")
            try:
                with open(memory, "wb", closefd=False) as file:
                    file.write(data)
                socket.send_fds(self._stray, [b"large"], [memory])
            finally:
                os.close(memory)


class Replies:
    """The shell's channel. The order of what a kernel says is that of one socket."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def send_multipart(self, frames: Sequence[Any], *arguments: Any, **options: Any) -> None:
        self._publisher.send_on(SHELL, frames)

    def on_recv(self, *arguments: Any, **options: Any) -> None:
        """What a kernel receives it is given."""


class Stream(OutStream):
    """``stdout`` or ``stderr``. What libraries and children write on the descriptor itself is read by a thread."""

    def flush(self) -> None:
        if self._buffers:  # else nothing has to be waited for
            super().flush()

    def _setup_stream_redirects(self, name: str) -> None:
        self._original_stdstream_fd = {"stdout": 1, "stderr": 2}[name]
        self._original_stdstream_copy = os.dup(self._original_stdstream_fd)
        self._fid, end = os.pipe()
        os.dup2(end, self._original_stdstream_fd)
        os.close(end)  # or its reader would never come to an end
        self.watch_fd_thread = threading.Thread(target=self._watch_pipe_fd, daemon=True)
        self.watch_fd_thread.start()

    def _watch_pipe_fd(self) -> None:
        assert self._fid is not None
        while written := os.read(self._fid, 65_536):
            self.write(written.decode(errors="replace"))
            os.write(self._original_stdstream_copy, written)

    def log_to(self, descriptor: int) -> None:
        os.dup2(descriptor, self._original_stdstream_copy, inheritable=False)

    def finish(self) -> None:
        """Take in what is on its way."""
        os.dup2(self._original_stdstream_copy, self._original_stdstream_fd)
        self.watch_fd_thread.join(0.2)  # a child that lives on holds the other end
        self._flush()


def _packed(channel: int, frames: Sequence[bytes]) -> bytes:
    sizes = struct.pack(f"!{len(frames)}Q", *map(len, frames))
    return b"".join((_HEAD.pack(channel, len(frames)), sizes, *frames))


class Frame:
    """As ZeroMQ gives them to a kernel."""

    def __init__(self, data: bytes) -> None:
        self.bytes, self.buffer = data, memoryview(data)


def messages(buffer: bytearray) -> list[tuple[int, list[bytes]]]:
    """The whole ones, taken from the front of *buffer*."""
    found, at = [], 0
    while len(buffer) - at >= _HEAD.size:
        channel, count = _HEAD.unpack_from(buffer, at)
        start = at + _HEAD.size + 8 * count
        if len(buffer) < start:
            break
        sizes = struct.unpack_from(f"!{count}Q", buffer, at + _HEAD.size)
        if len(buffer) < start + sum(sizes):
            break
        frames = []
        for size in sizes:
            frames.append(bytes(buffer[start : start + size]))
            start += size
        found.append((channel, frames))
        at = start
    del buffer[:at]
    return found
