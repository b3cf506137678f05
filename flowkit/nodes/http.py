"""Fetch and send by HTTP, with patience: servers fail, throttle and hang.

What may pass is tried again with growing pauses: no connection, no answer in time, the statuses 408, 425, 429, 500,
502, 503 and 504. If the server says when (``Retry-After``), that is when. In a worker's run only public addresses are
connected to, and what ``FLOWKIT_HTTP_ALLOW`` names; each redirect is judged as well.
"""

from __future__ import annotations

import json
import random
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import httpcore2
import httpx2
import pandas as pd

from flowkit.errors import Unavailable, UsageError
from flowkit.flow.current import CALLED
from flowkit.model import now
from flowkit.nodes import addresses, places

__all__ = ["download", "get", "paginate", "post"]

_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
_REDIRECTS = 5

#: Bytes, unpacked, of one answer that is held in memory.
LARGEST = 100_000_000

#: Seconds. A server may ask for more time between two attempts; then the node fails at once and says so.
PATIENCE = 60.0


def get(
    url: str,
    *,
    params: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    within: float = 30.0,
    attempts: int = 5,
) -> Any:
    """Fetch what a URL answers: JSON as Python, other text as a string, nothing as None.

    Args:
        params: of the query, after those that the URL has.
        headers: sent along; another host that it redirects to does not get them.
        within: seconds for each attempt, from the connection to the last byte.
        attempts: how often it is tried, with 0.5, 1, 2, 4 … seconds between, or when the server says.

    Raises:
        Unavailable: no answer, or one with an error status, at the last attempt.
        AddressRefused: it leads to an address that this worker does not connect to.
    """
    with _Session(within, attempts, headers) as session:
        return _content(*session.fetch("GET", url, params=params))


def post(
    url: str,
    body: Any,
    *,
    key: str | None = None,
    headers: dict[str, str] | None = None,
    within: float = 30.0,
    attempts: int = 5,
) -> Any:
    """Send JSON to a URL, and return what it answers, as get does. Every attempt carries the same Idempotency-Key.

    A receiver that honours the key takes the body once, however often a request, the node or the run is tried again.
    Map the node over a list to send each item by itself.

    Args:
        body: what JSON can say; a text or bytes are sent as they are.
        key: the Idempotency-Key. If none is given it is made of the run, the node, the item and the body, so it is the
            same in every attempt of a run, and another one in the next run. Outside of a run it is new for each call.
        headers: sent along; another host that it redirects to does not get them.
        within: seconds for each attempt, from the connection to the last byte.
        attempts: how often it is tried, with 0.5, 1, 2, 4 … seconds between, or when the server says; also after 409,
            by which a receiver says that it still works on the first one.

    Raises:
        Unavailable: no answer, or one with an error status, at the last attempt.
        AddressRefused: it leads to an address that this worker does not connect to.
    """
    data, kind = _encoded(body)
    key = key or _key(url, data)
    given = {"Content-Type": kind, **(headers or {}), "Idempotency-Key": key}
    with _Session(within, attempts, given, again=_AGAIN | {409}) as session:
        return _content(*session.fetch("POST", url, content=data))


def paginate(
    url: str,
    *,
    rows: str = "",
    next: str = "",
    cursor: str = "",
    params: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    within: float = 30.0,
    attempts: int = 5,
    pages: int = 1000,
) -> pd.DataFrame:
    """Fetch a table page by page: a row for each item of each page's list, a column for each field.

    A field within a field is a column as well, called ``outer.inner``.

    Args:
        rows: where in a page the list is, as in ``data.items``; empty if the page itself is the list.
        next: where in a page the next one is named, as in ``paging.next``: its URL, or what *cursor* is to be; nothing
            or null is the end. Empty: the page's Link header names it.
        cursor: the query's parameter that gets what *next* holds.
        params: of the query of the first page.
        headers: sent along with every page.
        within: seconds for each attempt at a page.
        attempts: how often each page is tried, as in get.
        pages: more than these are taken for a mistake.

    Raises:
        Unavailable: as get; also if a page does not have the list, or names itself as the next.
    """
    if cursor and not next:
        raise UsageError(f"paginate is given cursor={cursor!r}, but not where its value is; give next='paging.cursor'")
    found: list[Any] = []
    seen: set[Any] = set()
    at: str = url
    query = params
    with _Session(within, attempts, headers) as session:
        for _ in range(pages):
            answer, data = session.fetch("GET", at, params=query)
            page = _content(answer, data)
            items = _at(page, rows)
            if not isinstance(items, list):
                where = f"no list at {rows!r}" if rows else "no list"
                raise Unavailable(f"{_shown(at)} has {where}, but {type(items).__name__}; say where by rows=")
            found += items
            mark = _at(page, next) if next else answer.links.get("next", {}).get("url")
            if mark is None or mark == "" or mark is False:
                return pd.json_normalize(found) if all(isinstance(one, dict) for one in found) else pd.DataFrame(found)
            if mark in seen:
                raise Unavailable(f"{_shown(at)} names a page as the next that was there before; it would never end")
            seen.add(mark)
            if cursor:
                query = {**(params or {}), cursor: mark}
            else:
                at, query = str(httpx2.URL(str(answer.url)).join(str(mark))), None
    raise Unavailable(f"{_shown(url)} has more than {pages} pages; if that is right, raise pages=")


def download(
    url: str,
    path: str,
    *,
    params: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    within: float = 30.0,
    attempts: int = 5,
) -> str:
    """Fetch a file of any size to *path* in constant memory, and return *path*. It is there whole or not at all.

    Args:
        path: on this machine, or any URL that fsspec knows.
        params: of the query, after those that the URL has.
        headers: sent along; another host that it redirects to does not get them.
        within: seconds without a byte, after which an attempt is given up.
        attempts: how often it is tried, each time from the beginning of the file.

    Raises:
        Unavailable: as get; also if the file has fewer bytes than its server has said.
    """

    def save(answer: httpx2.Response) -> None:
        with place.open("wb") as file:
            for chunk in answer.iter_bytes():
                session.refresh()
                file.write(chunk)

    with places.whole(path) as place, _Session(within, attempts, headers) as session:
        session.fetch("GET", url, params=params, read=save)
    return path


class _Session:
    """Requests with one set of headers and one patience."""

    def __init__(
        self, within: float, attempts: int, headers: Mapping[str, str] | None, again: frozenset[int] = _AGAIN
    ) -> None:
        for name, value in (("within", within), ("attempts", attempts)):
            if not value > 0:
                raise UsageError(f"{name} is {value!r}; it must be above 0")
        self._timeout, self._attempts, self._again = within, attempts, again
        self._headers = dict(headers or {})
        self._network = _Network(addresses.allowed())

    def __enter__(self) -> _Session:
        # A proxy would connect to what it resolves itself, so none is used where addresses are judged.
        self._client = httpx2.Client(verify=_trust(), trust_env=not self._network.allowed, timeout=self._timeout)
        self._client.headers["User-Agent"] = "flowkit"
        # httpx2 hands no network backend on, which httpcore2 documents as the place to choose whom to connect to.
        pool = httpcore2.ConnectionPool(ssl_context=_trust(), network_backend=self._network)
        self._client._transport._pool = pool  # type: ignore[attr-defined]
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def refresh(self) -> None:
        """Something has come: the time for this attempt begins anew."""
        self._network.until = time.monotonic() + self._timeout

    def fetch(
        self,
        method: str,
        url: str,
        *,
        params: dict[str, Any] | None = None,
        content: bytes | None = None,
        read: Callable[[httpx2.Response], Any] | None = None,
    ) -> tuple[httpx2.Response, Any]:
        """The answer to one request, tried as often as it takes, and what *read* made of its body: the bytes."""
        try:
            request = self._client.build_request(method, url, params=params, content=content, headers=self._headers)
        except (httpx2.InvalidURL, ValueError) as error:
            raise UsageError(f"{url!r} is no URL: {error}; write it as https://host/path") from error
        what = f"{method} {_shown(url)}"
        for attempt in range(self._attempts):
            asked: float | None = None
            try:
                self.refresh()
                with self._answered(request, what) as answer:
                    if answer.status_code not in self._again:
                        if answer.is_error:
                            raise Unavailable(f"{what} was answered with {_status(answer)}{_said(answer)}")
                        return answer, (read or _held)(answer)
                    asked, problem = _asked(answer), f"was answered with {_status(answer)}"
            except httpx2.UnsupportedProtocol as error:
                raise UsageError(f"{what} leads to something else than http:// or https://: {error}") from error
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                problem = f"failed: {_explained(error, self._timeout)}"
            if asked is not None and asked > PATIENCE:
                raise Unavailable(
                    f"{what} {problem}, and is to be tried again in {asked:.0f} s, which is more than the "
                    f"{PATIENCE:.0f} s that a node waits; retry the run later"
                )
            if attempt + 1 < self._attempts:
                # Never sooner than asked; apart from others that were turned away at the same time.
                time.sleep((0.5 * 2**attempt if asked is None else asked) + random.uniform(0, 0.25 * 2**attempt))
        times = "once" if self._attempts == 1 else f"{self._attempts} times"
        raise Unavailable(f"{what} {problem}; it was tried {times}")

    @contextmanager
    def _answered(self, request: httpx2.Request, what: str) -> Iterator[httpx2.Response]:
        """The answer, behind its redirects; its body is still to come."""
        for _ in range(_REDIRECTS + 1):
            answer = self._client.send(request, stream=True, follow_redirects=False)
            try:
                following = answer.next_request
                if following is None:
                    yield answer
                    return
            finally:
                answer.close()
            if following.method != request.method:
                raise Unavailable(
                    f"{what} was answered with a redirect ({answer.status_code}) that drops what was sent; send it to "
                    f"{_shown(str(following.url))}"
                )
            if _origin(following.url) != _origin(request.url):
                for name in (*self._headers, "Authorization", "Cookie"):
                    if name.lower() not in ("content-type", "idempotency-key"):
                        following.headers.pop(name, None)
            request = following
        raise Unavailable(f"{what} was redirected more than {_REDIRECTS} times; it leads nowhere")


class _Network(httpcore2.SyncBackend):
    """Connects only where it may, and gives up when the attempt's time is over, however slowly bytes come."""

    def __init__(self, allowed: Mapping[str, addresses.Allowed]) -> None:
        self.allowed = allowed
        self.until = float("inf")  #: by the monotonic clock

    def left(self, timeout: float | None) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("the time for this attempt is over")
        return left if timeout is None else min(left, timeout)

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: Any = None, socket_options: Any = None
    ) -> httpcore2.NetworkStream:
        try:
            found = addresses.resolve(host, port, self.allowed)
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} has no address: {error.strerror or error}") from error
        for place, address in enumerate(found, 1):
            try:
                return _Stream(super().connect_tcp(address, port, self.left(timeout), None, socket_options), self)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if place == len(found):
                    raise
        raise httpcore2.ConnectError(f"{host} has no address")


class _Stream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream, network: _Network) -> None:
        self._stream, self._network = stream, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._network.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        found = self._stream.start_tls(ssl_context, server_hostname, self._network.left(timeout))
        return _Stream(found, self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


@cache
def _trust() -> ssl.SSLContext:
    """Made once: reading the certificates takes longer than most requests."""
    return httpx2.create_ssl_context()


def _held(answer: httpx2.Response) -> bytes:
    found = bytearray()
    for chunk in answer.iter_bytes():
        found += chunk
        if len(found) > LARGEST:
            raise Unavailable(
                f"{_shown(str(answer.url))} is larger than {LARGEST // 1_000_000} MB; use http.download, which writes "
                f"it into a file"
            )
    return bytes(found)


def _content(answer: httpx2.Response, data: bytes) -> Any:
    if not data:
        return None
    if "json" in answer.headers.get("Content-Type", ""):
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Unavailable(f"{_shown(str(answer.url))} says it is JSON, and is not: {error}") from error
    return data.decode(answer.charset_encoding or "utf-8", "replace")


def _said(answer: httpx2.Response) -> str:
    """The beginning of an error's body, for people."""
    try:
        start = next(answer.iter_bytes(1000), b"")
    except httpx2.HTTPError:
        return ""
    text = " ".join(start.decode("utf-8", "replace").split())
    return f": {text[:200]}" if text else ""


def _encoded(body: Any) -> tuple[bytes, str]:
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, default=_plain).encode(), "application/json"
    except (TypeError, ValueError) as error:
        raise UsageError(f"post sends JSON, and the body is none: {error}") from error


def _plain(value: Any) -> Any:
    """What rows of data frames hold: numbers of NumPy, times."""
    if hasattr(value, "isoformat"):
        return None if value is pd.NaT else value.isoformat()
    if value is pd.NA:
        return None
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a {type(value).__name__} has no JSON; make it text or a number")


def _key(url: str, data: bytes) -> str:
    call = CALLED.get()
    return (call and call.key(f"POST {url}\n{data.hex()}")) or uuid.uuid4().hex


def _at(page: Any, path: str) -> Any:
    for part in path.split(".") if path else ():
        if not isinstance(page, dict):
            return None
        page = page.get(part)
    return page


def _asked(answer: httpx2.Response) -> float | None:
    """Seconds until the server wants to be asked again; None if it does not say."""
    text = answer.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - now()).total_seconds())
    except (TypeError, ValueError):  # none, no date, or one without a zone
        return None


def _status(answer: httpx2.Response) -> str:
    return f"{answer.status_code} {answer.reason_phrase}".strip()


def _explained(error: Exception, timeout: float) -> str:
    if isinstance(error, httpx2.TimeoutException):
        return f"no answer within {timeout:g} s"
    return str(error) or type(error).__name__


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _shown(url: str) -> str:
    """Without what may be secret in it: a login, a query."""
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL:
        return url.split("?")[0]
    return str(parts.copy_with(username=None, password=None, query=None, fragment=None))
