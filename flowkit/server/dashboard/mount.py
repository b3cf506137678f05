"""The dashboard as routes of an ASGI server: the page, its websocket, and the files that both load.

Panel brings this for FastAPI, in the package bokeh_fastapi. Of that the websocket is done anew here: as it is in 0.1.8,
it never notices that a browser has gone (its session, and our viewer, would stay for ever), mixes the frames of two
messages that are sent at once, and answers what is not Bokeh's client with a traceback.
"""

from __future__ import annotations

import html
import logging
import secrets
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import tornado.locks
from bokeh.util.token import check_token_signature, get_token_payload
from bokeh_fastapi.handler import DocHandler, WSHandler
from fastapi import FastAPI
from panel.io.document import extra_socket_handlers
from panel.io.fastapi import add_applications, dispatch_fastapi
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from flowkit.model import Role, epoch
from flowkit.server.sessions import Identity

log = logging.getLogger("flowkit.server")

#: What the page may do. Bokeh makes functions of texts (its templates and callbacks), and Panel loads a component's
#: module from a blob; its styles are inline. Of inline scripts only those run that the page has brought.
POLICY = (
    "default-src 'none'; script-src 'self' blob: 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob:; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'self'"
)


#: Milliseconds after which a page that has gone, and has not come back, is forgotten.
UNUSED = 15_000


#: Of whom the page is being made for; Bokeh makes it while it answers the request, in its context.
_ROLE: ContextVar[Role] = ContextVar("role", default=Role.VIEWER)


def mount(make_page: Callable[[Role], Any]) -> FastAPI:
    """An application to be mounted at the root, after all else; its lifespan has to be entered."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    bokeh = add_applications(
        {"/": lambda: make_page(_ROLE.get())},
        app=app,
        title="flowkit",
        check_unused_sessions_milliseconds=UNUSED // 3,
        unused_session_lifetime_milliseconds=UNUSED,
    )
    [context] = bokeh._applications.values()
    page = DocHandler(bokeh, application_context=context)

    async def get(request: Request) -> Response:
        _ROLE.set(request.state.identity.role)
        made = await page.get(request, None)  # never a session that the URL names
        nonce = secrets.token_urlsafe(16)
        body = made.body.replace(b"<script", f'<script nonce="{nonce}"'.encode())
        body = body.replace(b"</head>", _who(request) + b"</head>", 1)
        return HTMLResponse(body, headers={"Content-Security-Policy": POLICY.format(nonce=nonce)})

    async def connect(websocket: WebSocket) -> None:
        await Socket(bokeh, application_context=context).ws_connect(websocket)

    # Of what was added, the files alone: the page and its websocket are ours, and no component of ours has more files.
    files = [route for route in app.router.routes if isinstance(route, Mount)]
    app.router.routes = [Route("/", get), WebSocketRoute("/ws", connect), *files]
    return app


def _who(request: Request) -> bytes:
    """For the page to show no button that would be refused; it is not believed when something is to be done."""
    identity: Identity = request.state.identity
    tags = {"flowkit-who": identity.name, "flowkit-role": identity.role.value}
    made = "".join(f'<meta name="{name}" content="{html.escape(said)}">' for name, said in tags.items())
    return made.encode("utf-8", "replace")


class Socket(WSHandler):
    """One browser's websocket."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.write_lock = tornado.locks.Lock()  # of a message's frames; by this name for Bokeh and Panel

    async def ws_connect(self, websocket: WebSocket) -> None:
        token = self._token(websocket.scope.get("subprotocols", []))
        if token is None:
            await websocket.close()
            return
        self._socket = websocket
        await websocket.accept("bokeh")
        try:
            await self._async_open(websocket, token)
            while (heard := await websocket.receive())["type"] == "websocket.receive":
                await self._hear(heard.get("text") or heard.get("bytes") or "")
        except WebSocketDisconnect:
            pass
        finally:
            if self.connection is not None:
                self.application.client_lost(self.connection)

    def _token(self, offered: list[str]) -> str | None:
        """What the page was given to open this with, if it is ours and not too old."""
        if len(offered) != 2 or offered[0] != "bokeh":
            return None
        token = offered[1]
        keys = {"signed": self.application.sign_sessions, "secret_key": self.application.secret_key}
        try:
            fresh = epoch() < get_token_payload(token)["session_expiry"]
            return token if fresh and check_token_signature(token, **keys) else None
        except Exception:  # whatever a forged one makes of its decoder
            return None

    async def _hear(self, fragment: str | bytes) -> None:
        message = await self._receive(fragment)
        if message is None:
            return
        work = await self._handle(message)
        if work:
            await self.send_message(work)

    async def send_message(self, message: Any) -> int:
        """All of its frames, with none of another between them."""
        if self._socket.application_state.name != "CONNECTED":
            return 0
        try:
            sent: int = await message.send(self)
            return sent
        except (WebSocketDisconnect, RuntimeError):  # it has gone, which whoever listens to it finds out
            return 0

    async def write_message(self, what: str | bytes, binary: bool = False, locked: bool = True) -> None:
        """One frame, as Bokeh's messages send themselves; they hold the lock."""
        if locked:
            with await self.write_lock.acquire():
                await self.write_message(what, binary, locked=False)
        elif isinstance(what, bytes):
            await self._socket.send_bytes(what)
        else:
            await self._socket.send_text(what)


extra_socket_handlers[Socket] = dispatch_fastapi
