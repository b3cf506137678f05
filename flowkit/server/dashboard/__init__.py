"""The dashboard: one Panel server on this machine that shows the store to any number of browsers."""

from __future__ import annotations

import errno
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import panel as pn
from tornado.ioloop import IOLoop
from tornado.web import RequestHandler

from flowkit.artifacts import Artifacts
from flowkit.errors import Unavailable
from flowkit.scene import BUNDLE
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
    port: int = 0,
    place: Path | None = None,
    show_address: Callable[[str], None] = lambda address: print(f"dashboard: {address}", flush=True),  # noqa: T201
) -> None:
    """Serve until SIGINT or SIGTERM. To be called in the main thread.

    Args:
        port: 0 takes a free one.
        place: of a Unix socket, to be listened on in place of a port. Whoever reaches the file sees every run: it is
            for a proxy that knows who may look, and that connects as ``http://localhost``.
        show_address: called once, when the page can be opened, with its address.
    """
    listening = _on_port(_free(port)) if place is None else _on_socket(place)
    loop = IOLoop.current()
    reader = Reader(store)
    notebooks = Notebooks(store, artifacts)
    try:
        server = _server(lambda: page(reader, store=_in_words(store.shown)), notebooks, listening, loop=loop)
        # After Panel has set its own.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.asyncio_loop.add_signal_handler(number, loop.stop)  # type: ignore[attr-defined]
        server.start()
        loop.add_callback(show_address, listening.address)
        loop.start()
        server.stop()
    finally:
        reader.close()
        notebooks.close()
        if place is not None:
            place.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Listening:
    """Where the server listens, as its options, and which pages may talk to it."""

    address: str
    options: dict[str, Any]
    origins: list[str]
    hosts: str  #: a pattern


def _on_port(port: int) -> _Listening:
    return _Listening(
        address=f"http://{ADDRESS}:{port}/",
        options={"port": port, "address": ADDRESS},
        origins=[f"{ADDRESS}:{port}", f"localhost:{port}"],
        hosts=r"127\.0\.0\.1|localhost",
    )


def _on_socket(place: Path) -> _Listening:
    # No browser opens a socket file, so whose name it is called by says nothing; the proxy has checked that.
    return _Listening(
        address=str(place), options={"port": 0, "unix_socket": str(place)}, origins=["localhost"], hosts=".*"
    )


def _free(port: int) -> int:
    """The port, or a free one for 0: the server must know it before it starts, for its own list of origins."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise _taken(_on_port(port), error) from error
        return int(probe.getsockname()[1])


def _in_words(url: str) -> str:
    kind, _, place = url.partition("://")
    return f"SQLite, {place.removeprefix('/')}" if kind == "sqlite" else f"PostgreSQL, {place}"


def _server(make_page: Callable[[], Any], notebooks: Notebooks, listening: _Listening, *, loop: IOLoop) -> Any:
    try:
        server = pn.io.server.get_server(
            {"/": make_page},
            websocket_origin=listening.origins,
            loop=loop,
            title="flowkit",
            extra_patterns=[*notebooks.routes(), ("/graph.js", _Bundle)],
            **listening.options,
        )
    except OSError as error:
        raise _taken(listening, error) from error
    # It warns of every tab that is closed while it is being told something.
    logging.getLogger("bokeh.server.views.ws").setLevel(logging.ERROR)
    # A web site may call itself by this machine's address (DNS rebinding); its pages still send its own name.
    server._tornado.add_handlers(rf"(?!({listening.hosts})$).*", [(".*", _Refused)])
    return server


class _Bundle(RequestHandler):
    """The graph's front-end, from this machine as all else; Tornado's ETag spares the browser a second copy."""

    def get(self) -> None:
        if not BUNDLE.exists():
            self.set_status(404)
            return
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.set_header("Cache-Control", "no-cache")
        self.finish(BUNDLE.read_bytes())


class _Refused(RequestHandler):
    def prepare(self) -> None:
        self.set_status(403)
        self.finish("This dashboard answers to 127.0.0.1 and localhost only.\n")


def _taken(listening: _Listening, error: OSError) -> Unavailable:
    if error.errno == errno.EADDRINUSE and "address" in listening.options:
        port = listening.options["port"]
        return Unavailable(f"port {port} on {ADDRESS} is taken; choose another: --port 0 takes a free one")
    return Unavailable(f"cannot listen on {listening.address}: {error.strerror or error}")
