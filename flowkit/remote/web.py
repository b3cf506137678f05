"""The web between here and a server: requests with a token, and what becomes of those that fail."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from ipaddress import ip_address
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from flowkit.config import Config
from flowkit.errors import Conflict, NotFound, Unavailable, UsageError

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger("flowkit")

#: Seconds for which what may be asked twice is asked again; of somebody who follows a run.
PATIENCE, LONG = 3.0, 60.0

#: Things on a page, the most that the API gives.
PAGE = 500


class Web:
    """Requests with a token, and what becomes of those that fail."""

    def __init__(self, config: Config) -> None:
        assert config.api_url is not None
        self._url = config.api_url.rstrip("/")
        parts = urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"FLOWKIT_API_URL is {config.api_url!r}; it must be as in https://flowkit.example.com")
        if not config.api_token:
            raise UsageError(
                f"FLOWKIT_API_URL names {self._url}, which takes a token; set FLOWKIT_API_TOKEN to one that "
                "'flowkit token create' has made there"
            )
        if parts.scheme == "http" and not _here(parts.hostname):
            log.warning("the token goes to %s unencrypted; let FLOWKIT_API_URL begin with https://", parts.hostname)
        import httpx2  # late: 0.1 s, and who has a store imports this module and asks nobody

        self._http = httpx2.Client(
            base_url=f"{self._url}/api/v1/",
            headers={"Authorization": f"Bearer {config.api_token}"},
            timeout=httpx2.Timeout(60.0, connect=5.0),
            trust_env=not _here(parts.hostname),  # no proxy knows who this machine is
        )

    def close(self) -> None:
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool = False,
        patience: float | None = None,
    ) -> Any:
        """The answer's JSON, None if it is empty.

        Args:
            again: it does no harm to ask twice, as it never does to look: an answer that was lost is asked for anew.
        """
        import httpx2

        content = None if body is None else _encoded(body)
        given = {} if content is None else {"Content-Type": "application/json"}
        asked = {name: _texts(value) for name, value in (params or {}).items() if value is not None}
        until = monotonic() + (PATIENCE if patience is None else patience)
        pause = 0.2
        while True:
            try:
                answer = self._http.request(
                    method, path, params=asked, content=content, headers={**given, **(headers or {})}
                )
            except httpx2.HTTPError as error:
                trouble = Unavailable(f"no server answers at {self._url}: {_reason(error)}; check FLOWKIT_API_URL")
                trouble.__cause__ = error
                sent = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            else:
                if answer.status_code not in (429, 502, 503, 504):
                    return self._answered(answer)
                trouble = Unavailable(self._told(answer).get("detail") or f"{self._url} is not ready to answer")
                sent = answer.status_code in (502, 504)  # by the others it was refused
            if (sent and not again and method != "GET") or monotonic() + pause > until:
                raise trouble
            sleep(pause)
            pause = min(2 * pause, 5.0)

    def all(self, path: str, *, limit: int | None = None, **params: Any) -> list[dict[str, Any]]:
        """So many of a list, page by page."""
        found: list[dict[str, Any]] = []
        cursor = None
        while limit is None or len(found) < limit:
            some = PAGE if limit is None else min(PAGE, limit - len(found))
            page = self.ask("GET", path, params={**params, "limit": some, "cursor": cursor})
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                break
        return found

    def _answered(self, answer: httpx2.Response) -> Any:
        status = answer.status_code
        if status == 401:
            raise UsageError(f"{self._url} does not let this token in (any more); check FLOWKIT_API_TOKEN")
        if status == 204:
            return None
        if answer.is_success:
            told = self._json(answer)
            if told is not None:
                return told
        detail = self._told(answer).get("detail")
        if not detail:
            raise UsageError(f"{self._url} answers, but not as flowkit does ({status}); check FLOWKIT_API_URL")
        if detail == "Not Found" or status == 405:
            raise UsageError(f"{self._url} cannot do that; is the flowkit there older than this one?")
        kind = {404: NotFound, 409: Conflict}.get(status, UsageError if status < 500 else Unavailable)
        raise kind(detail)

    def _told(self, answer: httpx2.Response) -> dict[str, Any]:
        told = self._json(answer)
        return told if isinstance(told, dict) else {}

    def _json(self, answer: httpx2.Response) -> Any:
        if "json" not in answer.headers.get("content-type", ""):
            return None
        try:
            return json.loads(answer.content)
        except ValueError:
            return None


def _here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(error: httpx2.HTTPError) -> str:
    import httpx2

    if isinstance(error, httpx2.TimeoutException):
        return "it takes too long"
    return str(error).partition("] ")[2] or str(error) or type(error).__name__


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"a parameter cannot be sent to a server: {error}; take what JSON has") from error


def _texts(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return [str(one) for one in value] if isinstance(value, list) else value


def part(name: str) -> str:
    """Of a path; dots alone would be read as a way through it."""
    return quote(name, safe="") if name.strip(".") else "%20"
