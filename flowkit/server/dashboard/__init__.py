"""The dashboard: one Panel server on this machine that shows the store to any number of browsers."""

from __future__ import annotations

import errno
import logging
import signal
import socket
from collections.abc import Callable
from typing import Any

import panel as pn
from tornado.ioloop import IOLoop
from tornado.web import RequestHandler

from flowkit.artifacts import Artifacts
from flowkit.errors import Unavailable
from flowkit.server.dashboard.notebooks import Notebooks
from flowkit.server.dashboard.page import page
from flowkit.server.dashboard.reading import Reader
from flowkit.store import Store

__all__ = ["serve"]

#: Whoever reaches the server sees every run, and there is no login: this machine only.
ADDRESS = "127.0.0.1"


def serve(
    store: Store,
    artifacts: Artifacts,
    *,
    port: int,
    show_address: Callable[[str], None] = lambda address: print(f"dashboard: {address}", flush=True),  # noqa: T201
) -> None:
    """Serve until SIGINT or SIGTERM. To be called in the main thread.

    Args:
        port: 0 takes a free one.
        show_address: called once, when the page can be opened, with its address.
    """
    port = _free(port)
    loop = IOLoop.current()
    reader = Reader(store)
    notebooks = Notebooks(store, artifacts)
    try:
        server = _server(lambda: page(reader, store=_in_words(store.shown)), notebooks, port=port, loop=loop)
        # After Panel has set its own.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.asyncio_loop.add_signal_handler(number, loop.stop)  # type: ignore[attr-defined]
        server.start()
        loop.add_callback(show_address, f"http://{ADDRESS}:{port}/")
        loop.start()
        server.stop()
    finally:
        reader.close()
        notebooks.close()


def _free(port: int) -> int:
    """The port, or a free one for 0: the server must know it before it starts, for its own list of origins."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise _taken(port, error) from error
        return int(probe.getsockname()[1])


def _in_words(url: str) -> str:
    kind, _, place = url.partition("://")
    return f"SQLite, {place.removeprefix('/')}" if kind == "sqlite" else f"PostgreSQL, {place}"


def _server(make_page: Callable[[], Any], notebooks: Notebooks, *, port: int, loop: IOLoop) -> Any:
    try:
        server = pn.io.server.get_server(
            {"/": make_page},
            port=port,
            address=ADDRESS,
            websocket_origin=[f"{ADDRESS}:{port}", f"localhost:{port}"],
            loop=loop,
            title="flowkit",
            extra_patterns=notebooks.routes(),
        )
    except OSError as error:
        raise _taken(port, error) from error
    # It warns of every tab that is closed while it is being told something.
    logging.getLogger("bokeh.server.views.ws").setLevel(logging.ERROR)
    # A web site may call itself by this machine's address (DNS rebinding); its pages still send its own name.
    server._tornado.add_handlers(r"(?!(127\.0\.0\.1|localhost)$).*", [(".*", _Refused)])
    return server


class _Refused(RequestHandler):
    def prepare(self) -> None:
        self.set_status(403)
        self.finish("This dashboard answers to 127.0.0.1 and localhost only.\n")


def _taken(port: int, error: OSError) -> Unavailable:
    if error.errno == errno.EADDRINUSE:
        return Unavailable(f"port {port} on {ADDRESS} is taken; choose another: --port 0 takes a free one")
    return Unavailable(f"cannot listen on port {port} of {ADDRESS}: {error.strerror}")
