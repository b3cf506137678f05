"""HTTP servers for the tests, on a port of this machine: what they answer is a function of what they are asked."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Asked:
    """A request. ``socket`` is for an answer that is none: half of one, or silence."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes
    handler: BaseHTTPRequestHandler
    number: int  #: from 1, of all requests to this server


@dataclass
class Web:
    """A server. ``asked`` has all requests in the order in which they came."""

    port: int
    asked: list[Asked] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)  #: what hangs shall wait for

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


#: Status, headers, and what is sent as JSON, or bytes as they are; None: the function has answered itself.
Answer = tuple[int, dict[str, str], Any] | None


@contextmanager
def web(
    answer: Callable[[Asked], Answer], *, port: int = 0, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> Iterator[Web]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                asked = Asked(
                    self.command,
                    parts.path,
                    dict(parse_qsl(parts.query)),
                    self.headers,  # type: ignore[arg-type]
                    body,
                    self,
                    len(made.asked) + 1,
                )
                made.asked.append(asked)
            given = answer(asked)
            if given is None:
                self.close_connection = True
                return
            status, headers, content = given
            data = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _do

        def log_message(self, *_: Any) -> None:
            """Not on the tests' terminal."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that has gone, which tests do on purpose."""

    with Server((host, port), Handler) as server:
        made = Web(server.server_address[1])
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.closing.set()
            server.shutdown()
