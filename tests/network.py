"""Networks that fail, between processes of flowkit and their servers: packets that are lost, and peers that hang.

Two kinds, which are not the same. A ``Wire`` loses packets: behind it are network namespaces, and a router that
forwards nothing any more; nobody acknowledges anything. A ``Proxy`` is a peer that takes what it is sent and goes
silent, answers late, or hangs up: TCP is content. A wire needs root; ``Wire.shortcoming`` says what is in its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal, Self

import sqlalchemy as sa

from tests.processes import with_parent

Mode = Literal["pass", "late", "blackhole", "half-open", "reset", "slow"]

#: Seconds that an answer is late in the mode ``late``.
LATENCY = 0.5
#: Bytes a second in the mode ``slow``.
TRICKLE = 20_000


class Proxy:
    """Stands before one server, on a port of its own. ``mode`` may be set at any time, from any thread.

    pass        as if it were not there
    late        what the server says is ``LATENCY`` seconds late
    blackhole   takes connections, passes nothing in either direction until it passes again
    half-open   the server hears everything, its answers are lost: a commit succeeds, and nobody is told
    reset       hangs up, at once and on whoever comes
    slow        passes ``TRICKLE`` bytes a second
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._mode: Mode = "pass"
        self._open: set[_Line] = set()
        self._loop = asyncio.new_event_loop()
        self._listening: socket.socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True, name="proxy")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        self._loop.call_soon_threadsafe(self._changed)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, sock=self._listening))
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            for line in list(self._open):
                line.abort()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    def _changed(self) -> None:
        for line in list(self._open):
            line.changed.set()
            if self._mode == "reset" or (self._mode != "half-open" and line.lossy):
                line.abort()  # what is missing in the middle of it nobody could read on after

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = _Line([writer])
        self._open.add(line)
        try:
            if self._mode == "reset":
                return
            await self._passes(line)
            back, forth = await asyncio.open_connection("127.0.0.1", self._server)
            line.ends.append(forth)
            first = [self._pump(line, reader, forth, answers=False), self._pump(line, back, writer, answers=True)]
            await _first_of(*first)
        except (OSError, asyncio.CancelledError):  # of the server; or the proxy is at its end
            pass
        finally:
            self._open.discard(line)
            line.abort()

    async def _pump(
        self, line: _Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while data := await reader.read(65_536):
            if self._mode == "late" and answers:
                await asyncio.sleep(LATENCY)
            if self._mode == "slow":
                await asyncio.sleep(len(data) / TRICKLE)
            await self._passes(line)
            if self._mode == "half-open" and answers:
                line.lossy = True
                continue
            writer.write(data)
            await writer.drain()

    async def _passes(self, line: _Line) -> None:
        while self._mode == "blackhole":
            line.changed.clear()
            await line.changed.wait()


class _Line:
    """A connection, of both sides."""

    def __init__(self, ends: list[asyncio.StreamWriter]) -> None:
        self.ends = ends
        self.lossy = False
        self.changed = asyncio.Event()

    def abort(self) -> None:
        for end in self.ends:
            raw = end.get_extra_info("socket")
            if raw is not None:
                with contextlib.suppress(OSError):  # it is closed already
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            end.transport.abort()


async def _first_of(*these: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(one) for one in these]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Wire:
    """A machine behind a router, both made of network namespaces: ``Popen([*wire.inside, …])`` runs there.

    All of it goes with the two processes that hold it, and these go with us.
    """

    #: 10.213.N.0/24 is between this machine (.1) and the router, 10.213.N+1.0/24 between that and the one behind.
    _taken = 0

    def __init__(self) -> None:
        Wire._taken += 2
        # Several test runs on one machine: by our process number, as far as that goes.
        self._net = f"10.{200 + os.getpid() % 50}"
        self._number = (os.getpid() // 50 * 16 + Wire._taken) % 250 // 2 * 2
        self._name = f"fk{os.getpid() % 100_000}n{self._number}"
        self._stack = contextlib.ExitStack()

    @property
    def address(self) -> str:
        """Of this machine, as seen from behind the wire. Servers have to listen there."""
        return f"{self._net}.{self._number}.1"

    @property
    def network(self) -> str:
        """Where those behind the wire come from."""
        return f"{self._net}.{self._number + 1}.0/24"

    @property
    def inside(self) -> list[str]:
        return ["nsenter", "--target", str(self._behind), "--net", "--"]

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def cut(self) -> None:
        """Every packet is lost from now on, in both directions, and nobody is told."""
        self._forward(False)

    def heal(self) -> None:
        self._forward(True)

    @staticmethod
    @functools.cache
    def shortcoming() -> str | None:
        """Why there can be no wire here; None if there can."""
        try:
            with Wire() as wire:
                told = subprocess.run(
                    [*wire.inside, "ip", "route", "get", wire.address], capture_output=True, text=True, timeout=10
                )
                return told.stderr.strip() or None
        except (OSError, subprocess.SubprocessError) as error:
            told_by = getattr(error, "stderr", None) or str(error)
            return " ".join(str(told_by).split())

    def _build(self) -> None:
        if sys.platform != "linux":
            raise OSError(f"{sys.platform} has no network namespaces")
        self._router, self._behind = self._namespace(), self._namespace()
        near, far, lan = f"{self._name}a", f"{self._name}b", f"{self._name}c"
        here, there = f"{self._net}.{self._number}", f"{self._net}.{self._number + 1}"
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", str(self._router))
        self._stack.callback(subprocess.run, ["ip", "link", "del", near], capture_output=True)
        _ip("addr", "add", f"{here}.1/24", "dev", near)
        _ip("link", "set", near, "up")
        _ip("addr", "add", f"{here}.2/24", "dev", far, at=self._router)
        _ip("link", "set", far, "up", at=self._router)
        _ip("link", "add", lan, "type", "veth", "peer", "name", "lan", "netns", str(self._behind), at=self._router)
        _ip("addr", "add", f"{there}.1/24", "dev", lan, at=self._router)
        _ip("link", "set", lan, "up", at=self._router)
        _ip("addr", "add", f"{there}.2/24", "dev", "lan", at=self._behind)
        _ip("link", "set", "lan", "up", at=self._behind)
        _ip("link", "set", "lo", "up", at=self._behind)
        _ip("route", "add", "default", "via", f"{there}.1", at=self._behind)
        _ip("route", "add", self.network, "via", f"{here}.2")
        self.heal()

    def _namespace(self) -> int:
        """The process that holds a new one."""
        ours = os.readlink("/proc/self/ns/net")
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], preexec_fn=with_parent)
        self._stack.callback(holder.wait)
        self._stack.callback(holder.kill)
        until = time.monotonic() + 5
        while os.readlink(f"/proc/{holder.pid}/ns/net") == ours:
            if holder.poll() is not None or time.monotonic() > until:
                raise OSError("unshare --net makes no network namespace; that needs root")
            time.sleep(0.005)
        return holder.pid

    def _forward(self, forward: bool) -> None:
        setting = f"echo {int(forward)} > /proc/sys/net/ipv4/ip_forward"
        command = ["nsenter", "--target", str(self._router), "--net", "--", "sh", "-c", setting]
        subprocess.run(command, check=True, capture_output=True, timeout=10)


def _ip(*arguments: str, at: int | None = None) -> None:
    inside = [] if at is None else ["nsenter", "--target", str(at), "--net", "--"]
    subprocess.run([*inside, "ip", *arguments], check=True, capture_output=True, text=True, timeout=10)


class Link:
    """How a process of flowkit reaches its servers, and how that fails: by wire where there can be one, or by proxies.

    ``environment`` and ``inside`` are for the processes behind it.
    """

    def __init__(self, name: str, mode: Mode | Literal["lost packets"], *, redis_only: bool = False) -> None:
        self.name = name
        self._mode = mode
        self._redis_only = redis_only
        self._stack = contextlib.ExitStack()
        self._wire: Wire | None = None
        self._proxies: list[Proxy] = []
        self.how = mode
        if mode == "lost packets":
            missing = Wire.shortcoming()
            if missing is None:
                self._wire = self._stack.enter_context(Wire())
            else:
                self._mode, self.how = "blackhole", f"blackhole (no packets can be lost here: {missing})"  # type: ignore[assignment]

    @property
    def address(self) -> str | None:
        """Where servers have to listen besides."""
        return None if self._wire is None else self._wire.address

    @property
    def network(self) -> str | None:
        return None if self._wire is None else self._wire.network

    @property
    def inside(self) -> list[str]:
        return [] if self._wire is None else self._wire.inside

    def close(self) -> None:
        self._stack.close()

    def environment(self, database_url: str, redis_url: str) -> dict[str, str]:
        return {
            "FLOWKIT_DATABASE_URL": database_url if self._redis_only else self._through(database_url),
            "FLOWKIT_REDIS_URL": self._through(redis_url),
        }

    def cut(self) -> None:
        if self._wire is not None:
            self._wire.cut()
        for proxy in self._proxies:
            proxy.mode = self._mode  # type: ignore[assignment]

    def heal(self) -> None:
        if self._wire is not None:
            self._wire.heal()
        for proxy in self._proxies:
            proxy.mode = "pass"

    def _through(self, url: str) -> str:
        parsed = sa.make_url(url)
        if self._wire is not None:
            return parsed.set(host=self._wire.address).render_as_string(hide_password=False)
        assert parsed.port is not None
        proxy = self._stack.enter_context(Proxy(parsed.port))
        self._proxies.append(proxy)
        return parsed.set(port=proxy.port).render_as_string(hide_password=False)


@contextlib.contextmanager
def links(*wanted: Callable[[], Link]) -> Iterator[list[Link]]:
    with contextlib.ExitStack() as stack:
        made = []
        for one in wanted:
            link = one()
            stack.callback(link.close)
            made.append(link)
        yield made
