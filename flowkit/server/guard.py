"""In front of every route, the dashboard's and its libraries' own included: who is it, and may they?

What no rule names needs a viewer to look at, and an operator to change: a route that somebody adds is never open.
"""

from __future__ import annotations

import asyncio
import html
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from time import monotonic
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowkit.errors import Unavailable
from flowkit.model import Act, Role, now
from flowkit.server.problems import problem
from flowkit.server.sessions import LIFETIME, Identity, Sessions, Throttle
from flowkit.store import Store

log = logging.getLogger("flowkit.server")

API = "/api/"

#: The beginning of a path -> the least role for it; None: anybody, it has a check of its own or tells nothing. The
#: longest that fits decides.
RULES: dict[str, Role | None] = {
    "/healthz": None,
    "/readyz": None,
    "/login": None,
    "/logout": None,
    "/api/v1/hooks": Role.ADMIN,
    "/api/v1/tokens": Role.ADMIN,
    "/api/v1/acts": Role.ADMIN,
}

#: As RULES, for what changes something; and whole paths, not beginnings.
CHANGES: dict[str, Role] = {
    "/api/v1/deployments": Role.ADMIN,  # a notebook is code
    "/api/v1/notebook-runs": Role.ADMIN,
}

HOOKS = "/api/v1/hooks/"

#: Bytes of a request's body; of one that brings a notebook; of a login.
BODY, NOTEBOOK, FORM = 1_000_000, 20_000_000, 8_000
#: Seconds that the body of a refused request is waited for.
DRAIN = 2.0
#: Brackets within brackets.
DEPTH = 20

SAFE = ("GET", "HEAD", "OPTIONS")

#: What goes on for hours, besides websockets; and seconds after which it is seen that a token is good no more.
EVENTS, LOOK = "/api/v1/events", 2.0

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def needed(path: str, method: str) -> Role | None:
    """The least role for that, None for everybody."""
    if method == "DELETE":
        return Role.ADMIN
    if method == "POST" and path.startswith(HOOKS):
        return None  # by its signature
    if method not in SAFE and path in CHANGES:
        return CHANGES[path]
    fitting = [begin for begin in RULES if path == begin or path.startswith(begin.rstrip("/") + "/")]
    if fitting:
        return RULES[max(fitting, key=len)]
    return Role.VIEWER if method in SAFE else Role.OPERATOR


@dataclass(frozen=True, slots=True)
class Doors:
    """By which names the server may be called, and whether somebody else has asked who comes."""

    hosts: frozenset[str]  #: names without a port
    proxy: Identity | None = None  #: listening on a socket file: who comes is let in by its owner, see ``process``


class Guard:
    def __init__(self, app: ASGIApp, store: Store, sessions: Sessions, doors: Doors) -> None:
        self._app = app
        self._store = store
        self._sessions = sessions
        self._doors = doors
        self._throttle = Throttle()
        self._known: dict[str | None, tuple[float, bool]] = {}  # token -> when the store was asked, and what it said

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        method = scope.get("method", "GET")
        path = scope["path"]
        if (refusal := self._strange(scope, headers, method)) is not None:
            await _drain(scope, receive, headers)
            await _answer(scope, receive, send, refusal)
            return
        try:
            if path in ("/login", "/logout") and method == "POST":
                refusal = await self._login(scope, headers, receive) if path == "/login" else self._logout(headers)
            elif scope["type"] == "http" and method == "GET" and path == "/" and "token=" in _query(scope):
                refusal = await self._link(scope, headers)
            else:
                refusal = await self._enter(scope, headers, method)
        except Unavailable as error:
            refusal = problem(503, str(error), headers={"Retry-After": "5"})
        if refusal is not None:
            if path != "/login":  # which has read it
                await _drain(scope, receive, headers)
            await _answer(scope, receive, send, refusal)
        elif (identity := scope.get("state", {}).get("identity")) and (
            scope["type"] == "websocket" or (path == EVENTS and method == "GET")
        ):
            await self._while_it_lasts(identity, scope, receive, send)
        elif method in SAFE:
            await self._app(scope, receive, _with_headers(send))
        else:
            await self._change(scope, headers, receive, send)

    # -- who ----------------------------------------------------------------------------------------------------------

    def _strange(self, scope: Scope, headers: Headers, method: str) -> Response | None:
        """A page of somebody else's that a browser on this network has open must not get through to us."""
        host = headers.get("host", "")
        # A web site may call itself by this machine's address (DNS rebinding); its pages still send its own name.
        if self._doors.proxy is None and _name(host) not in self._doors.hosts:
            return problem(403, f"this server is not called {_name(host)!r}; flowkit dashboard --host names what it is")
        origin = headers.get("origin")
        if method in SAFE and scope["type"] == "http":
            return None
        if origin is None and scope["type"] == "websocket" and "authorization" not in headers:
            return problem(403, "a browser says where its page is from, and a program shows a token")
        if origin is not None:
            # No browser opens a socket file: the proxy that does has checked the page, and says so by this name.
            expected = "localhost" if self._doors.proxy else host
            if urlsplit(origin).netloc.lower() != expected.lower():
                return problem(403, f"a page of {origin} may not do that here")
        return None

    async def _enter(self, scope: Scope, headers: Headers, method: str) -> Response | None:
        """Note who comes; or why not."""
        path = scope["path"]
        role = needed(path, method)
        if role is None:
            return None
        programs = path.startswith(API) or path == "/metrics"
        identity = await self._bearer(headers) if programs else await self._cookie(headers)
        if identity is None:
            if programs:
                way = {"WWW-Authenticate": 'Bearer realm="flowkit"'}
                return problem(401, "show a token: Authorization: Bearer fk_…; flowkit token create", headers=way)
            return _login_page(_query(scope))
        if not identity.role.covers(role):
            if method not in SAFE:
                await self._record(scope, identity, 403)
            return problem(403, f"{identity.name} is a {identity.role}; this takes an {role}"[:300])
        if not programs and method not in SAFE and not _of_our_page(headers):
            return problem(403, "a page of this server does that, and no other; a program shows a token to the API")
        scope.setdefault("state", {})["identity"] = identity
        return None

    async def _while_it_lasts(self, identity: Identity, scope: Scope, receive: Receive, send: Send) -> None:
        """What goes on for hours ends with the token or the login that it was begun with."""
        going = asyncio.ensure_future(self._app(scope, receive, _with_headers(send)))
        try:
            while not (await asyncio.wait({going}, timeout=LOOK))[0]:
                if not await self._lasts(identity):
                    break
        finally:
            over = going.done()
            going.cancel()
            with suppress(asyncio.CancelledError):
                await going
        if not over:
            with suppress(RuntimeError, OSError):  # it was closing by itself, or had not been accepted
                await send(_CLOSED if scope["type"] == "websocket" else {"type": "http.response.body", "body": b""})

    async def _lasts(self, identity: Identity) -> bool:
        """Of one token's fifty browsers one asks the store, for all of them."""
        at = monotonic()
        known, said = self._known.get(identity.token, (0.0, True))
        if identity.expires is not None and now() >= identity.expires:
            return False
        if at - known < LOOK / 2:
            return said
        self._known[identity.token] = at, said  # nobody else asks meanwhile
        try:
            said = await run_in_threadpool(self._sessions.lasts, identity, now())
        except Unavailable:
            return True  # a store that is away turns nobody out
        self._known = {token: seen for token, seen in self._known.items() if at - seen[0] < 60.0}
        self._known[identity.token] = at, said
        return said

    async def _bearer(self, headers: Headers) -> Identity | None:
        """Never a cookie: no page that a browser has open can do anything by the API."""
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secret:
            return None
        return await run_in_threadpool(self._sessions.known, secret.strip(), now())

    async def _cookie(self, headers: Headers) -> Identity | None:
        if self._doors.proxy is not None:
            return self._doors.proxy
        value = _cookies(headers).get(self._sessions.cookie)
        return None if value is None else await run_in_threadpool(self._sessions.resumed, value, now())

    # -- coming and going ---------------------------------------------------------------------------------------------

    async def _link(self, scope: Scope, headers: Headers) -> Response:
        pairs = parse_qsl(_query(scope))
        secret = next((value for name, value in pairs if name == "token"), "")
        rest = urlencode([(name, value) for name, value in pairs if name != "token"])
        return await self._let_in(scope, headers, secret, rest=rest)

    async def _login(self, scope: Scope, headers: Headers, receive: Receive) -> Response:
        body = await _body(receive, headers, FORM)
        if body is None:
            return problem(413, f"a login has at most {FORM} bytes")
        form = dict(parse_qsl(body.decode("utf-8", "replace")))
        return await self._let_in(scope, headers, form.get("token", "").strip(), rest=_query(scope))

    async def _let_in(self, scope: Scope, headers: Headers, secret: str, *, rest: str) -> Response:
        """*rest*: the query of the page that was asked for."""
        address = _address(scope)
        at = now()
        if wait := self._throttle.wait(address):
            return problem(
                429, f"too many logins have failed; try again in {wait} s", headers={"Retry-After": str(wait)}
            )
        identity = await run_in_threadpool(self._sessions.known, secret, at)
        if identity is None:
            self._throttle.failed(address)
            await self._note(Act(at=at, who="?", role=None, what="login", status=401, address=address))
            return _login_page(rest, wrong=True)
        await self._note(Act(at=at, who=identity.name, role=identity.role, what="login", status=303, address=address))
        answer = RedirectResponse(f"/?{rest}" if rest else "/", 303)
        answer.set_cookie(
            self._sessions.cookie,
            self._sessions.cookie_for(identity, at),
            max_age=int(LIFETIME.total_seconds()),
            httponly=True,
            samesite="lax",
            secure=_encrypted(scope, headers),
        )
        return answer

    def _logout(self, headers: Headers) -> Response:
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(self._sessions.cookie, httponly=True, samesite="lax")
        return answer

    # -- changes ------------------------------------------------------------------------------------------------------

    async def _change(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Within limits, and on record."""
        limit = NOTEBOOK if scope["path"] in CHANGES else BODY
        if headers.get("content-encoding", "identity") != "identity":
            await _answer(scope, receive, send, problem(415, "send the body as it is, not compressed"))
            return
        body = await _body(receive, headers, limit)
        if body is None:
            await _answer(scope, receive, send, problem(413, f"a body has at most {limit} bytes"))
            return
        if _too_deep(body):
            await _answer(scope, receive, send, problem(422, f"JSON nests at most {DEPTH} deep"))
            return
        status = 500
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, again, _with_headers(watched))
        finally:
            identity = scope.get("state", {}).get("identity")
            if identity is not None:
                await self._record(scope, identity, status)

    async def _record(self, scope: Scope, identity: Identity, status: int) -> None:
        about = scope.get("state", {}).get("about")  # of what was done, where the path does not say it
        what = f"{scope['method']} {scope['path']}{f' {about}' if about else ''}"[:500]
        who, role, address = identity.name, identity.role, _address(scope)
        await self._note(Act(at=now(), who=who, role=role, what=what, status=status, address=address))

    async def _note(self, act: Act) -> None:
        try:
            await run_in_threadpool(self._store.note, act)
        except Unavailable as error:
            log.warning("it is not on record that %s did %s: %s", act.who, act.what, error)


def _of_our_page(headers: Headers) -> bool:
    """Of a change with a cookie. Another site's page cannot set a header of that name without asking first, which
    nothing here allows; and a proxy may have put its own origin in the place of the page's."""
    site = headers.get("sec-fetch-site", "same-origin")
    return "origin" in headers and "x-flowkit-page" in headers and site == "same-origin"


#: The code says "not let in", as a refusal before does.
_CLOSED: Message = {"type": "websocket.close", "code": 4401, "reason": "the token is good no more"}


async def _answer(scope: Scope, receive: Receive, send: Send, answer: Response) -> None:
    """A refusal. A websocket is refused before it is opened, and the status is lost on some servers."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4000 + answer.status_code})
        return
    await answer(scope, receive, _with_headers(send))


async def _drain(scope: Scope, receive: Receive, headers: Headers) -> None:
    """Read what belongs to a request that is refused, if it is little and comes soon: uvicorn closes on whoever still
    sends, and a proxy that was sending then says 500 in the place of the refusal."""
    if scope["type"] == "http" and scope["method"] not in SAFE:
        with suppress(TimeoutError):
            await asyncio.wait_for(_body(receive, headers, BODY), DRAIN)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending


async def _body(receive: Receive, headers: Headers, limit: int) -> bytes | None:
    """None if it is longer than that, which is then not read to its end."""
    length = headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > limit:
        return None
    pieces = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            return None
        if not message.get("more_body", False):
            return b"".join(pieces)


_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def _too_deep(body: bytes) -> bool:
    """Before a parser that goes as deep as the body says has it."""
    depth = 0
    for bracket in _BRACKET.finditer(_TEXT.sub(b"", body)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > DEPTH:
            return True
    return False


def _query(scope: Scope) -> str:
    return str(scope.get("query_string", b"").decode("latin-1"))


def _name(host: str) -> str:
    """Without the port: ``[::1]:80`` is ``[::1]``."""
    return re.sub(r":\d*$", "", host).lower()


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "local"


def _encrypted(scope: Scope, headers: Headers) -> bool:
    return scope.get("scheme") == "https" or headers.get("x-forwarded-proto", "").startswith("https")


def _cookies(headers: Headers) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


def _login_page(query: str, *, wrong: bool = False) -> Response:
    said = (
        "That token lets nobody in (any more)." if wrong else "Open the link that the server printed when it started."
    )
    page = _LOGIN.replace("SAID", said).replace("MOOD", "bad" if wrong else "")
    page = page.replace("QUERY", html.escape(f"?{query}" if query else ""))
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    # Without a referrer a browser would not say either where the form it sends is from.
    headers = {"Content-Security-Policy": policy, "Referrer-Policy": "same-origin"}
    return HTMLResponse(page, 401, headers=headers)


_LOGIN = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>flowkit</title><style>
:root { font: 15px/1.5 system-ui, sans-serif; background: light-dark(#f7f7f5, #131517);
  color: light-dark(#1c1e21, #e4e6e8) }
body { display: grid; place-items: center; min-height: 90vh; margin: 0 1rem }
form { display: grid; gap: .8rem; width: min(26rem, 100%); padding: 1.8rem 2rem 2rem; border-radius: 10px;
  background: light-dark(#fff, #1b1e21); border: 1px solid light-dark(#dfdfda, #2e3236) }
h1 { font-size: 1.25rem; margin: 0 } p { margin: 0; color: light-dark(#5c6066, #9aa0a6) }
p.bad { color: light-dark(#b3261e, #f2857d) } code { font-size: .92em }
label { display: grid; gap: .3rem; font-weight: 600 }
input, button { font: inherit; padding: .5rem .7rem; border-radius: 6px; border: 1px solid light-dark(#c9cac4, #43484d);
  background: light-dark(#fff, #131517); color: inherit }
button { background: light-dark(#2458a6, #3d78cf); border-color: transparent; color: #fff; font-weight: 600;
  cursor: pointer }
input:focus-visible, button:focus-visible { outline: 2px solid light-dark(#2458a6, #8ab4f8); outline-offset: 2px }
</style></head><body><form method="post" action="/loginQUERY">
<h1>flowkit</h1><p class="MOOD" role="status">SAID</p>
<label>Or paste a token<input name="token" type="password" autocomplete="current-password" required autofocus></label>
<button>Log in</button>
<p>A token is made by <code>flowkit token create NAME</code> on a machine that has the store.</p>
</form></body></html>
"""
