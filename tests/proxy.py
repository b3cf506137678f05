"""A load balancer: each request goes to the next of several servers, and its answer may be lost on the way."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from typing import Any


class Proxy:
    def __init__(self, ports: Sequence[int]) -> None:
        self._next = cycle(ports)
        self.port = 0
        self.taken: list[tuple[int, str]] = []  #: which port was asked what: method and path
        self.losing = 0  #: of so many answers to POST the client is told nothing, from now on

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, path = head.decode("latin-1").split(" ", 2)[:2]
            if b"upgrade: websocket" not in head.lower():  # one request a connection, so that each goes elsewhere
                head = re.sub(rb"\r\nconnection:[^\r]*", b"", head, flags=re.IGNORECASE)
                head = head[:-2] + b"Connection: close\r\n\r\n"
            port = next(self._next)
            self.taken.append((port, f"{method} {path.partition('?')[0]}"))
            their_reader, their_writer = await asyncio.open_connection("127.0.0.1", port)
            their_writer.write(head)
            onward = asyncio.create_task(_pass(reader, their_writer))
            if method == "POST" and self.losing:
                self.losing -= 1
                await their_reader.read(1)  # it has been done
            else:
                back = asyncio.create_task(_pass(their_reader, writer))
                await asyncio.wait({onward, back}, return_when=asyncio.FIRST_COMPLETED)
                back.cancel()
            onward.cancel()
            their_writer.close()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()


@contextmanager
def proxy(*ports: int) -> Iterator[Proxy]:
    made = Proxy(ports)
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def serve() -> None:
        server: Any = await asyncio.start_server(made.handle, "127.0.0.1", 0)
        made.port = server.sockets[0].getsockname()[1]
        ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    task = loop.create_task(serve())

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        loop.close()
