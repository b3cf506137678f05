"""A server elsewhere, asked over HTTP for what ``client.Client`` does here. Loads neither store nor broker."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from flowkit import notebooks
from flowkit.changes import Change, Comparison
from flowkit.commit import commit_of
from flowkit.config import Config
from flowkit.errors import Conflict, NotFound, Unavailable, UsageError
from flowkit.events import Event, Usage, usage
from flowkit.model import (
    KEEP_FAILED,
    KEEP_SUCCEEDED,
    Act,
    Backfill,
    CatchUp,
    Cause,
    Deployment,
    Hook,
    Limit,
    Overlap,
    Policy,
    Queue,
    Reason,
    Role,
    Run,
    Schedule,
    Skip,
    State,
    Token,
    Wait,
    Worker,
    new_id,
    now,
)
from flowkit.worker import cron

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("flowkit")

#: Seconds between two looks of somebody who follows a run.
FOLLOW = 0.5

#: Seconds for which what may be asked twice is asked again; of somebody who follows a run.
PATIENCE, LONG = 3.0, 60.0

#: Things on a page, the most that the API gives.
PAGE = 500

Noun = TypeVar("Noun")


class Remote:
    """What commands do, done by the server at ``FLOWKIT_API_URL``. A context manager."""

    def __init__(self, config: Config) -> None:
        """Raises UsageError if the settings cannot be meant so. Nothing is asked yet."""
        self.config = config
        self._web = _Web(config)
        self.store = RemoteStore(self._web)

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._web.close()

    # -- deployments --------------------------------------------------------------------------------------------------

    def deploy(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        schedule: Schedule | None = None,
        policy: Policy | None = None,
        keep_succeeded: int = KEEP_SUCCEEDED,
        keep_failed: int = KEEP_FAILED,
    ) -> tuple[Deployment, bool]:
        body = {
            **_file(path),
            "name": name,
            "parameters": dict(parameters or {}),
            "schedule": None if schedule is None else _schedule_body(schedule),
            "policy": _policy_body(policy or Policy()),
            "keep_succeeded": keep_succeeded,
            "keep_failed": keep_failed,
        }
        # The same again changes nothing.
        told = self._web.ask("POST", "deployments", body, again=True)
        return _deployment(told), told["new"]

    def delete(self, name: str, *, cancel: bool = False) -> None:
        self._web.ask("DELETE", f"deployments/{_part(name)}", params={"cancel": cancel})

    def pause(self, name: str) -> Deployment:
        return _deployment(self._web.ask("POST", f"deployments/{_part(name)}/pause", again=True))

    def resume(self, name: str) -> Deployment:
        return _deployment(self._web.ask("POST", f"deployments/{_part(name)}/resume", again=True))

    def upcoming(self, target: str, *, tz: str | None, count: int) -> tuple[Schedule, list[datetime]]:
        if len(target.split()) > 1 or target.startswith("@"):
            schedule = cron.validate(Schedule(cron=target, zone=tz or "UTC"))
            path, params = "firings", {"cron": target, "zone": schedule.zone}
        else:
            found = self.store.deployment(target).schedule
            if found is None:
                raise UsageError(f"{target} has no schedule; deploy it with --cron or --every")
            if tz is not None:
                raise UsageError(f"the schedule of {target} has a zone, {found.zone}; leave --tz out")
            schedule, path, params = found, f"deployments/{_part(target)}/firings", {}
        if count > PAGE:
            raise UsageError(f"a server tells at most {PAGE} firings at once, not {count}; ask for fewer")
        told = self._web.ask("GET", path, params={**params, "limit": count})
        return schedule, [datetime.fromisoformat(one["utc"]) for one in told]

    # -- runs ---------------------------------------------------------------------------------------------------------

    def submit(
        self,
        target: str | Path,
        *,
        parameters: Mapping[str, Any] | None = None,
        key: str | None = None,
        policy: Mapping[str, Any] | None = None,
    ) -> Run:
        """As ``Client.submit``. With no key of the caller's it has one of its own, so that it can be asked again."""
        body = {"parameters": dict(parameters or {}), "policy": dict(policy or {})}
        if shared := sorted({"max_concurrent", "rate"} & body["policy"].keys()):
            raise UsageError(f"{shared[0]} limits all runs of a deployment; deploy it with that, or leave it out")
        headers = {"Idempotency-Key": key or new_id()}
        if notebooks.is_path(target):
            return _run(self._web.ask("POST", "notebook-runs", _file(target) | body, again=True, headers=headers))
        deployed = {"deployment": self.store.named(str(target)).name}
        return _run(self._web.ask("POST", "runs", deployed | body, again=True, headers=headers))

    def retry(self, run: str, *, forget: str | None = None) -> Run:
        return _run(self._web.ask("POST", f"runs/{_part(run)}/retry", {"node": forget}))

    def cancel(self, run: str) -> Run:
        return _run(self._web.ask("POST", f"runs/{_part(run)}/cancel"))

    def backfill(
        self, name: str, parameter: str, values: Sequence[str], *, concurrency: int, only_failed: bool = False
    ) -> Backfill:
        body = {
            "deployment": name,
            "parameter": parameter,
            "values": list(values),
            "concurrency": concurrency,
            "only_failed": only_failed,
        }
        # The same again makes only what is missing; but what has failed meanwhile is not tried over and over.
        return _backfill(self._web.ask("POST", "backfills", body, again=not only_failed))

    def follow_backfill(self, id: str, on_change: Callable[[Backfill], None]) -> Backfill:
        while True:
            seen = _backfill(self._web.ask("GET", f"backfills/{_part(id)}", patience=LONG))
            on_change(seen)
            if seen.ended == seen.total:
                return seen
            sleep(FOLLOW)

    def values(self, target: str | Path, pairs: Mapping[str, str]) -> dict[str, Any]:
        if not pairs:
            return {}
        if notebooks.is_path(target):
            return notebooks.read(target).from_text(pairs)
        deployment = self.store.named(str(target))
        snapshot = self.store.snapshot(deployment.snapshot)
        return notebooks.parse(snapshot, name=Path(deployment.notebook).name).from_text(pairs)

    def children(self, run: Run) -> list[Run]:
        """Nobody asks the server for them: each node of the run tells which run it is."""
        return []

    def recorded(self, run: Run) -> list[Event]:
        return self.store.events(run.id, attempt=run.attempt, output=False)[1]

    def busy(self) -> dict[str, list[tuple[Run, Usage | None]]]:
        found: dict[str, list[tuple[Run, Usage | None]]] = {}
        for run in self.store.runs(states=[State.RUNNING], limit=1_000):
            found.setdefault(run.worker or "", []).append((run, usage(self.recorded(run))))
        return found

    def follow(
        self, run: str, on_events: Callable[[Run, Sequence[Event]], None], *, output: bool | None = False
    ) -> Run:
        """As ``Client.follow``. A server that does not answer is waited for, a minute long."""
        seen = self.store.run(run, patience=LONG)
        attempt, after = seen.attempt, 0
        if seen.state is State.PENDING:  # what an attempt before this retry did is an old story
            after, _ = self.store.events(seen.id, attempt=attempt, output=output)
        while True:
            after, events, state = self.store.piece(seen.id, attempt, after, output)
            if state != seen.state:  # or that attempt is over: there is another
                seen = self.store.run(seen.id, patience=LONG)
            on_events(seen, events)
            if seen.attempt != attempt:
                attempt, after = seen.attempt, 0
            elif not events and state == seen.state and seen.state.final:
                return seen
            elif not events:
                sleep(FOLLOW)

    # -- where the work is --------------------------------------------------------------------------------------------

    def workers(self, queue: str | None = None) -> list[Worker]:
        found = [_made(Worker, one, queues=tuple(one["queues"])) for one in self._web.all("workers")]
        return [worker for worker in found if queue is None or queue in worker.queues]

    def queues(self) -> list[Queue]:
        return [_made(Queue, one, name=one["id"]) for one in self._web.all("queues")]

    def limit_queue(self, name: str, at_once: int | None) -> None:
        self._web.ask("PUT", f"queues/{_part(name)}", {"max_concurrent": at_once}, again=True)

    def set_limit(self, name: str, rate: str, *, failures: int | None, within: float, close_for: float) -> Limit:
        body = {"rate": rate, "failures": failures, "within": within, "close_for": close_for}
        told = self._web.ask("PUT", f"limits/{_part(name)}", body, again=True)
        return _made(Limit, told, name=told["id"])

    def diff(self, run: str, other: str | None = None) -> Comparison:
        told = self._web.ask("GET", f"runs/{_part(run)}/diff", params={"other": other})
        return Comparison(
            before=self.store.run(told["before"]["id"]),
            after=self.store.run(told["after"]["id"]),
            changes=tuple(_made(Change, one, lines=tuple(one["lines"])) for one in told["changes"]),
            same=tuple(told["same"]),
            unknown=tuple(told["unknown"]),
        )


class RemoteStore:
    """What the commands read of a store, and the little that they change there without a client."""

    def __init__(self, web: _Web) -> None:
        self._web = web

    def run(self, id: str, *, patience: float | None = None) -> Run:
        return _run(self._web.ask("GET", f"runs/{_part(id)}", patience=patience))

    def runs(self, *, limit: int, deployment: str | None = None, states: Sequence[State] = ()) -> list[Run]:
        return self._runs(limit, deployment=deployment, state=list(states))

    def page(
        self,
        *,
        offset: int,
        limit: int,
        deployment: str | None = None,
        notebook: str | None = None,
        states: Sequence[State] = (),
    ) -> tuple[list[Run], int]:
        found = self._runs(offset + limit, deployment=deployment, state=list(states), notebook=notebook)[offset:]
        return found, len(found)

    def _runs(self, limit: int, **params: Any) -> list[Run]:
        return [_run(one) for one in self._web.all("runs", limit=limit, **params)]

    def wait(self, run: Run, *, now: datetime) -> Wait | None:
        told = self._web.ask("GET", f"runs/{_part(run.id)}")
        return Wait(told["waits_for"], _at(told["waits_until"])) if told["waits_for"] else None

    def events(
        self, run: str, *, attempt: int | None = None, after: int = 0, output: bool | None = None
    ) -> tuple[int, list[Event]]:
        whole: list[Event] = []
        attempt = self.run(run).attempt if attempt is None else attempt
        while True:
            after, events, _ = self.piece(run, attempt, after, output)
            whole += events
            if not events:
                return after, whole

    def piece(self, run: str, attempt: int, after: int, output: bool | None) -> tuple[int, list[Event], State | None]:
        """Some of the events, not all. The state is the run's before they were read; None: there is a newer attempt."""
        params = {"attempt": attempt or None, "after": after, "output": output}
        told = self._web.ask("GET", f"runs/{_part(run)}/events", params=params, patience=LONG)
        if told["attempt"] != attempt:  # before the first it was asked of none
            return after, [], None
        state = None if told["state"] == "over" else State(told["state"])
        return told["position"], [Event.from_json(one) for one in told["events"]], state

    def deployment(self, name: str) -> Deployment:
        return _deployment(self._web.ask("GET", f"deployments/{_part(name)}"))

    def named(self, name: str) -> Deployment:
        """The deployment of that name, where it might have been meant as a path."""
        try:
            return self.deployment(name)
        except NotFound as error:
            if Path(name).exists():
                notebooks.read(name)  # says what is wrong with the file or folder of that name
            raise NotFound(f"{error}; a notebook is named by its path, ending in .ipynb") from error

    def deployments(self) -> list[Deployment]:
        return [_deployment(one) for one in self._web.all("deployments")]

    def snapshot(self, digest: str) -> str:
        return str(self._web.ask("GET", f"snapshots/{_part(digest)}")["notebook"])

    def backfills(self, id: str | None = None) -> list[Backfill]:
        if id is not None:
            return [_backfill(self._web.ask("GET", f"backfills/{_part(id)}"))]
        found = [_backfill(one) for one in self._web.all("backfills")]
        return sorted(found, key=lambda one: one.created, reverse=True)

    def backfill_runs(self, id: str) -> list[Run]:
        return [_run(one) for one in self._web.all(f"backfills/{_part(id)}/runs")]

    def cancel_backfill(self, id: str, *, now: datetime) -> int:
        return int(self._web.ask("POST", f"backfills/{_part(id)}/cancel")["cancelled"])

    def skips(self, deployment: str, *, limit: int) -> list[Skip]:
        found = self._web.all(f"deployments/{_part(deployment)}/skips", limit=limit)
        return [_made(Skip, one, reason=Reason(one["reason"])) for one in found]

    def limits(self) -> list[Limit]:
        return [_made(Limit, one, name=one["id"]) for one in self._web.all("limits")]

    def clock(self) -> datetime:
        return now()

    def remove_limit(self, name: str) -> None:
        self._web.ask("DELETE", f"limits/{_part(name)}")

    def make_hook(self, deployment: str, *, rotate: bool = False, now: datetime) -> tuple[Hook, str]:
        told = self._web.ask("PUT", f"hooks/{_part(deployment)}", params={"rotate": rotate})
        return _made(Hook, told), told["secret"]

    def hooks(self) -> list[Hook]:
        return [_made(Hook, one) for one in self._web.all("hooks")]

    def remove_hook(self, deployment: str) -> None:
        self._web.ask("DELETE", f"hooks/{_part(deployment)}")

    def create_token(self, name: str, role: Role, *, expires: datetime, now: datetime) -> tuple[Token, str]:
        days = (expires - now) / timedelta(days=1)
        told = self._web.ask("POST", "tokens", {"name": name, "role": role, "days": days})
        return _token(told), told["secret"]

    def tokens(self) -> list[Token]:
        return sorted((_token(one) for one in self._web.all("tokens")), key=lambda one: one.created, reverse=True)

    def revoke_token(self, name: str) -> Token:
        found = next((one for one in self.tokens() if name in (one.id, one.name)), None)
        self._web.ask("DELETE", f"tokens/{_part(found.id if found else name)}")
        assert found is not None  # or the server has said that there is none
        return found

    def acts(self, *, limit: int) -> list[Act]:
        return [_made(Act, one) for one in self._web.all("acts", limit=limit)]


class _Web:
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
        import httpx  # late: 0.1 s, and who has a store imports this module and asks nobody

        self._http = httpx.Client(
            base_url=f"{self._url}/api/v1/",
            headers={"Authorization": f"Bearer {config.api_token}"},
            timeout=httpx.Timeout(60.0, connect=5.0),
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
        import httpx

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
            except httpx.HTTPError as error:
                trouble = Unavailable(f"no server answers at {self._url}: {_reason(error)}; check FLOWKIT_API_URL")
                trouble.__cause__ = error
                sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
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

    def _answered(self, answer: httpx.Response) -> Any:
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

    def _told(self, answer: httpx.Response) -> dict[str, Any]:
        told = self._json(answer)
        return told if isinstance(told, dict) else {}

    def _json(self, answer: httpx.Response) -> Any:
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


def _reason(error: httpx.HTTPError) -> str:
    import httpx

    if isinstance(error, httpx.TimeoutException):
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


def _part(name: str) -> str:
    """Of a path; dots alone would be read as a way through it."""
    return quote(name, safe="") if name.strip(".") else "%20"


def _file(path: str | Path) -> dict[str, Any]:
    place = Path(path).absolute()
    return {"notebook": notebooks.read(path).text, "path": str(place), "commit": commit_of(place)}


def _schedule_body(schedule: Schedule) -> dict[str, Any]:
    # An end without a zone has one by now; what is left out is the store's to say.
    return {name: value for name, value in schedule.to_json().items() if name != "next"}


def _policy_body(policy: Policy) -> dict[str, Any]:
    return {name: getattr(policy, name) for name in Policy.__slots__}


#: Fields of the nouns that are times.
_TIMES = frozenset(
    ("created", "updated", "started", "finished", "scheduled_for", "available", "seen", "oldest", "closed", "expires")
) | frozenset(("at", "first", "last", "start", "end", "next"))


def _at(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _made(kind: type[Noun], told: Mapping[str, Any], **more: Any) -> Noun:
    """What a newer server says besides is left out."""
    names: tuple[str, ...] = kind.__slots__  # type: ignore[attr-defined]
    known = {name: _at(told[name]) if name in _TIMES else told[name] for name in names if name in told}
    return kind(**known | more)


def _run(told: Mapping[str, Any]) -> Run:
    return _made(
        Run,
        told,
        key=told.get("key") or told["id"],
        policy=_made(Policy, told.get("policy") or {"queue": told["queue"]}),
        state=State(told["state"]),
        cause=told["cause"] and Cause(told["cause"]),
        digest=told["sha256"],
    )


def _deployment(told: Mapping[str, Any]) -> Deployment:
    schedule = told["schedule"] and _schedule(told["schedule"])
    return _made(Deployment, told, name=told["id"], policy=_made(Policy, told), schedule=schedule)


def _schedule(told: Mapping[str, Any]) -> Schedule:
    return _made(Schedule, told, catch_up=CatchUp(told["catch_up"]), overlap=Overlap(told["overlap"]))


def _backfill(told: Mapping[str, Any]) -> Backfill:
    return _made(Backfill, told, counts={State(name): count for name, count in told["counts"].items()})


def _token(told: Mapping[str, Any]) -> Token:
    return _made(Token, told, role=Role(told["role"]))
