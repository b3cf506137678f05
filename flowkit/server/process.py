"""The server's process: one port, or one socket file, for the dashboard and the API."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from flowkit.artifacts import Artifacts
from flowkit.errors import Unavailable, UsageError
from flowkit.model import Role, now
from flowkit.server.actions import Actions
from flowkit.server.app import Application
from flowkit.server.guard import Doors
from flowkit.server.sessions import Identity, Sessions
from flowkit.store import Store

LOOPBACK = "127.0.0.1"

#: By a socket file come those whom its owner has let in: its folder is private, and jupyter-server-proxy has asked.
OWNER = Identity("jupyter", Role.ADMIN)


def serve(
    store: Store,
    artifacts: Artifacts,
    actions: Actions,
    *,
    port: int = 0,
    address: str = LOOPBACK,
    hosts: Sequence[str] = (),
    place: Path | None = None,
    show_address: Callable[[str], None] = lambda address: print(f"dashboard: {address}", flush=True),  # noqa: T201
) -> None:
    """Serve until SIGINT or SIGTERM. To be called in the main thread.

    Args:
        port: 0 takes a free one.
        address: to listen on. Any but this machine's own takes a token in the store, or it refuses.
        hosts: names by which browsers call it, besides the address.
        place: of a Unix socket, to be listened on in place of a port. Whoever reaches the file sees every run and is
            asked for nothing: it is for a proxy that knows who may look, and that connects as ``http://localhost``.
        show_address: called once, when the page can be opened, with its address. On a port it is a link that lets in
            who opens it.
    """
    listening = _on_port(address, port, hosts) if place is None else _on_socket(place)
    with contextlib.closing(listening.socket):
        # Elsewhere than here a link would be one server's of several, and go through other people's logs.
        sessions = Sessions(store, link=place is None and _here(address))
        if sessions.link is None and place is None:
            _refuse_without_tokens(store, address)
        shown = listening.address + (f"?token={sessions.link}" if sessions.link else "")
        application = Application(store, artifacts, actions, sessions, listening.doors)
        try:
            asyncio.run(_Server(application.guarded, lambda: show_address(shown)).serve([listening.socket]))
        finally:
            application.close()
            if place is not None:
                place.unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """uvicorn, with exit code 0 after a signal, that says when it listens."""

    def __init__(self, app: ASGIApp, ready: Callable[[], None]) -> None:
        # Nobody is waited for long: streams of events never end by themselves.
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,
                ws_max_size=1_000_000,
                limit_concurrency=1_000,
            )
        )
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.force_exit = self.should_exit  # the second time
        self.should_exit = True


@dataclass(frozen=True)
class _Listening:
    address: str
    socket: socket.socket
    doors: Doors


def _on_port(address: str, port: int, hosts: Sequence[str]) -> _Listening:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
        listening.listen(512)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            hint = "choose another: --port 0 takes a free one"
            raise Unavailable(f"port {port} on {address} is taken; {hint}") from error
        raise Unavailable(f"cannot listen on {address}: {error.strerror or error}") from error
    name = f"[{address}]" if ":" in address else address
    called = {name, *hosts} | ({"localhost", LOOPBACK, "[::1]"} if _here(address) else set())
    shown = f"http://{name}:{listening.getsockname()[1]}/"
    return _Listening(shown, listening, Doors(frozenset(host.lower() for host in called)))


def _on_socket(place: Path) -> _Listening:
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)  # from the first moment on it is its owner's alone
    try:
        place.unlink(missing_ok=True)
        listening.bind(str(place))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise Unavailable(f"cannot listen on {place}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return _Listening(str(place), listening, Doors(frozenset(), proxy=OWNER))


def _here(address: str) -> bool:
    """Nobody but this machine reaches it."""
    try:
        return address == "localhost" or ip_address(address).is_loopback
    except ValueError:
        return False


def _refuse_without_tokens(store: Store, address: str) -> None:
    if not any(token.expires > now() for token in store.tokens()):
        raise UsageError(
            f"others reach this machine on {address}, and nobody has a token to log in with; "
            "make one: flowkit token create NAME"
        )
