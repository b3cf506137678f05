"""Who may what: every route, the dashboard's included, with no token and with each role's."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from flowkit.client import Client
from flowkit.config import Config
from flowkit.model import Role, now
from flowkit.server.api import PREFIX
from flowkit.server.app import Application
from flowkit.server.guard import Doors, Guard
from flowkit.server.sessions import ALL_FAILURES, FAILURES, Sessions, Throttle
from tests.processes import answer, flowkit
from tests.server.conftest import Dashboard
from tests.server.mix import SNAPSHOT

#: The least role for each route; None: everybody. One that is not here fails the test.
WHO = {
    "GET /": "viewer",
    "WEBSOCKET /ws": "viewer",
    "GET /graph.js": "viewer",
    "GET /book/{id}.ipynb": "viewer",
    "GET /notebook/{id}/{attempt:int}": "viewer",
    "GET /file/{id}/{folder}/{name}": "viewer",
    "GET /log/{id}/{attempt:int}.txt": "viewer",
    "GET /notebook/{id}/{attempt:int}.ipynb": "viewer",
    "POST /act/{name}": "operator",
    "* /static": "viewer",
    "* /static/extensions/panel": "viewer",
    "GET /healthz": None,
    "GET /readyz": None,
    "GET /metrics": "viewer",
    "GET /api/v1/events": "viewer",
    "WEBSOCKET /api/v1/events": "viewer",
    "GET /api/v1/openapi.json": "viewer",
    "GET /api/v1/me": "viewer",
    "GET /api/v1/deployments": "viewer",
    "POST /api/v1/deployments": "admin",
    "GET /api/v1/deployments/{name}": "viewer",
    "DELETE /api/v1/deployments/{name}": "admin",
    "GET /api/v1/deployments/{name}/versions": "viewer",
    "GET /api/v1/deployments/{name}/parameters": "viewer",
    "POST /api/v1/deployments/{name}/pause": "operator",
    "POST /api/v1/deployments/{name}/resume": "operator",
    "GET /api/v1/deployments/{name}/firings": "viewer",
    "GET /api/v1/deployments/{name}/skips": "viewer",
    "GET /api/v1/firings": "viewer",
    "GET /api/v1/runs": "viewer",
    "POST /api/v1/runs": "operator",
    "POST /api/v1/notebook-runs": "admin",
    "GET /api/v1/runs/{id}": "viewer",
    "POST /api/v1/runs/{id}/cancel": "operator",
    "POST /api/v1/runs/{id}/retry": "operator",
    "GET /api/v1/runs/{id}/nodes": "viewer",
    "GET /api/v1/runs/{id}/events": "viewer",
    "GET /api/v1/runs/{id}/log": "viewer",
    "GET /api/v1/runs/{id}/book": "viewer",
    "GET /api/v1/runs/{id}/artifacts": "viewer",
    "GET /api/v1/runs/{id}/artifacts/{folder}/{name}": "viewer",
    "GET /api/v1/backfills": "viewer",
    "POST /api/v1/backfills": "operator",
    "GET /api/v1/backfills/{id}": "viewer",
    "GET /api/v1/backfills/{id}/runs": "viewer",
    "POST /api/v1/backfills/{id}/cancel": "operator",
    "GET /api/v1/alerts": "viewer",
    "POST /api/v1/deployments/{name}/test-alerts": "operator",
    "GET /api/v1/queues": "viewer",
    "PUT /api/v1/queues/{name}": "operator",
    "GET /api/v1/workers": "viewer",
    "GET /api/v1/limits": "viewer",
    "PUT /api/v1/limits/{name}": "operator",
    "DELETE /api/v1/limits/{name}": "admin",
    "GET /api/v1/snapshots/{digest}": "viewer",
    "GET /api/v1/runs/{id}/diff": "viewer",
    "POST /api/v1/hooks/{name}": None,
    "GET /api/v1/hooks": "admin",
    "PUT /api/v1/hooks/{name}": "admin",
    "DELETE /api/v1/hooks/{name}": "admin",
    "GET /api/v1/tokens": "admin",
    "POST /api/v1/tokens": "admin",
    "DELETE /api/v1/tokens/{id}": "admin",
    "GET /api/v1/acts": "admin",
}
URL = "http://127.0.0.1:5006"
#: What a page of ours sends when it acts.
OURS = {"Origin": URL, "X-Flowkit-Page": "1"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with Client(Config.from_env({"FLOWKIT_HOME": str(tmp_path_factory.mktemp("home"))})) as client:
        yield client


@pytest.fixture(scope="module")
def application(client: Client) -> Iterator[Application]:
    sessions = Sessions(client.store, link=True)
    doors = Doors(frozenset({"127.0.0.1"}))
    application = Application(client.store, client.artifacts, client, sessions, doors)
    yield application
    application.close()


@pytest.fixture(scope="module")
def site(application: Application) -> Iterator[TestClient]:
    with TestClient(application.guarded, base_url=URL, follow_redirects=False) as web:
        yield web


@pytest.fixture
def web(site: TestClient) -> TestClient:
    """Nobody has logged in yet."""
    site.cookies.clear()
    return site


numbers = count()


def token(client: Client, role: str, *, name: str | None = None, days: float = 1) -> str:
    at = now()
    name = name or f"{role} {next(numbers)}"
    return client.store.create_token(name, Role(role), expires=at + timedelta(days=days), now=at)[1]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def login(web: TestClient, secret: str) -> None:
    assert web.get("/", params={"token": secret}).status_code == 303


def routes(found: list[BaseRoute]) -> Iterator[str]:
    for route in found:
        path = getattr(route, "path", "")
        included = getattr(route, "original_router", None)  # newer FastAPIs keep what was included as one route
        if included is not None:
            for rule in routes(included.routes):
                method, path = rule.split()
                yield f"{method} {PREFIX}{path}"
        elif isinstance(route, Mount) and not path:
            yield from routes(list(route.routes))
        elif isinstance(route, Mount):
            yield f"* {path}"
        else:
            methods = getattr(route, "methods", None) or {"WEBSOCKET"}
            yield from (f"{method} {path}" for method in methods if method != "HEAD")


def test_every_route_is_for_those_whom_the_table_names(
    client: Client, web: TestClient, application: Application
) -> None:
    listed = set(_routes_of(application))
    assert listed == set(WHO), "a route without a rule, or a rule without a route"
    order = ["viewer", "operator", "admin"]
    secrets = {role: token(client, role) for role in order}
    for rule, least in WHO.items():
        method, path = rule.split()
        if method == "WEBSOCKET" or path.endswith("/events"):
            continue  # one is tested below, the other never ends
        if least is None:
            signed = "/hooks/" in path  # it has a check of its own
            assert web.request(method, path).status_code == (401 if signed else 200), rule
            continue
        path = path.replace("{attempt:int}", "1").replace("{folder}", "1")
        path = path.replace("{", "").replace("}", "") + ("/x" if method == "*" else "")
        method = "GET" if method == "*" else method
        assert web.request(method, path).status_code == 401, rule
        programs = path.startswith("/api/") or path == "/metrics"
        for role in order:
            web.cookies.clear()
            if not programs:
                login(web, secrets[role])
            got = web.request(method, path, headers=bearer(secrets[role]) if programs else OURS).status_code
            allowed = order.index(role) >= order.index(least)
            assert (got not in (401, 403)) is allowed, (rule, role, got)
            assert got < 500, (rule, role)
        web.cookies.clear()


def _routes_of(application: Application) -> Iterator[str]:
    yield from routes(list(application.api.routes))


def test_the_api_takes_no_cookie_and_a_page_no_token_of_a_program(client: Client, web: TestClient) -> None:
    secret = token(client, "admin")
    login(web, secret)
    assert web.get("/graph.js").status_code in (200, 404)
    assert web.get("/api/v1/runs").status_code == 401
    web.cookies.clear()
    assert web.get("/graph.js", headers=bearer(secret)).status_code == 401


def test_a_login_leaves_a_cookie_that_no_script_and_no_other_site_has(client: Client, web: TestClient) -> None:
    answered = web.get("/", params={"token": token(client, "viewer"), "run": "1a2b"})
    assert (answered.status_code, answered.headers["location"]) == (303, "/?run=1a2b")
    cookie = answered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "max-age=43200" in cookie
    assert "secure" not in cookie
    behind = web.get("/", params={"token": token(client, "operator")}, headers={"X-Forwarded-Proto": "https"})
    assert "secure" in behind.headers["set-cookie"].lower()


def test_a_page_acts_with_its_login_from_this_server_alone_and_it_is_on_record(client: Client, web: TestClient) -> None:
    login(web, token(client, "operator", name="presses"))
    for other in (
        {"Origin": "null"},
        {"Origin": "http://elsewhere.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert web.post("/act/cancel", json={"runs": ["x"]}, headers=OURS | other).status_code == 403
    for missing in OURS:
        headers = {name: value for name, value in OURS.items() if name != missing}
        assert web.post("/act/cancel", json={"runs": ["x"]}, headers=headers).status_code == 403
    assert web.get("/act/cancel").status_code == 405
    for body in (b"", b"[]", b"{", b'{"runs": 1}', b'{"runs": []}', json.dumps({"runs": ["x"] * 1_001}).encode()):
        assert web.post("/act/cancel", content=body, headers=OURS).status_code == 422, body
    assert web.post("/act/nothing", json={}, headers=OURS).status_code == 404
    gone = web.post("/act/cancel", json={"runs": ["deadbeef"]}, headers=OURS)
    assert (gone.status_code, gone.json()["detail"]) == (404, "no run 'deadbeef'; `flowkit runs` lists them")
    run = client.submit_text(SNAPSHOT, "a.ipynb", parameters={}, key=None, policy={"queue": "nobody"})
    assert web.post("/act/cancel", json={"runs": [run.id, "deadbeef"]}, headers=OURS).json() == {
        "said": f"run {run.id[:8]} cancelled; 1 could not be: no run 'deadbeef'; `flowkit runs` lists them"
    }
    newest = client.store.acts(limit=1)[0]
    assert (newest.who, newest.what, newest.status) == ("presses", f"POST /act/cancel {run.id[:8]}", 200)


def test_revoking_a_token_ends_its_logins(client: Client, web: TestClient) -> None:
    secret = token(client, "viewer", name="leaver")
    login(web, secret)
    assert web.get("/notebook/x/1").status_code == 404
    client.store.revoke_token("leaver")
    assert web.get("/notebook/x/1").status_code == 401
    assert web.get("/api/v1/runs", headers=bearer(secret)).status_code == 401


def test_a_token_that_has_expired_lets_nobody_in(client: Client, web: TestClient) -> None:
    assert web.get("/api/v1/runs", headers=bearer(token(client, "viewer", days=-1))).status_code == 401


def test_a_cookie_cannot_be_made_up_or_changed(client: Client, web: TestClient, application: Application) -> None:
    login(web, token(client, "viewer"))
    [(name, value)] = web.cookies.items()
    for forged in (value[:-1] + ("0" if value[-1] != "0" else "1"), value.replace(".", ""), "x." + value, "", "."):
        web.cookies.clear()
        assert web.get("/notebook/x/1", headers={"Cookie": f"{name}={forged}"}).status_code == 401, forged


def test_only_a_digest_of_a_token_is_kept(client: Client) -> None:
    secret = token(client, "admin")
    files = list(client.config.home.glob("flowkit.db*"))
    assert any(b"admin" in file.read_bytes() for file in files)
    assert not any(secret[3:].encode() in file.read_bytes() for file in files)


def test_failed_logins_are_throttled(client: Client) -> None:
    sessions, doors = Sessions(client.store, link=True), Doors(frozenset({"127.0.0.1"}))
    web = TestClient(Guard(PlainTextResponse("in"), client.store, sessions, doors), base_url=URL)
    for _ in range(FAILURES):
        assert web.post("/login", data={"token": "guess"}).status_code == 401
    answered = web.post("/login", data={"token": "guess"})
    assert answered.status_code == 429
    assert 0 < int(answered.headers["retry-after"]) <= 60


def test_the_throttle_is_of_one_address_and_ends() -> None:
    at = [0.0]
    throttle = Throttle(clock=lambda: at[0])
    for _ in range(FAILURES):
        throttle.failed("a")
    assert throttle.wait("a") > 0
    assert throttle.wait("b") == 0
    at[0] = 61.0
    assert throttle.wait("a") == 0
    for number in range(ALL_FAILURES):
        throttle.failed(str(number))
    assert throttle.wait("a") > 0


@pytest.mark.parametrize("path", ["/", "/login", "/api/v1/runs", "/static/js/bokeh.min.js"])
def test_another_name_is_refused(client: Client, web: TestClient, path: str) -> None:
    given = {"Host": "evil.example:5006"} | bearer(token(client, "admin"))
    assert web.get(path, headers=given).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_another_sites_page_changes_nothing(client: Client, web: TestClient, origin: str) -> None:
    given = {"Origin": origin} | bearer(token(client, "admin"))
    assert web.post("/api/v1/runs", json={"deployment": "x"}, headers=given).status_code == 403
    assert web.post("/login", data={"token": "x"}, headers=given).status_code == 403


def test_the_websocket_takes_a_login_and_a_page_of_its_own(client: Client, web: TestClient) -> None:
    def opened(**headers: str) -> bool:
        try:
            with web.websocket_connect(URL.replace("http", "ws") + "/ws", headers=headers, subprotocols=["bokeh", "x"]):
                return True
        except WebSocketDisconnect as refused:
            return refused.code == 1000  # let through, and closed by Bokeh for its token

    assert not opened(Origin=URL)
    login(web, token(client, "viewer"))
    assert opened(Origin=URL)
    assert not opened(Origin="http://evil.example")
    assert not opened()


def test_who_did_what_is_on_record(client: Client, web: TestClient) -> None:
    secret = token(client, "operator", name="anna")
    web.post("/api/v1/runs", json={"deployment": "nothing"}, headers=bearer(secret))
    web.post("/api/v1/deployments", json={}, headers=bearer(secret))
    web.get("/api/v1/runs", headers=bearer(secret))
    login(web, secret)
    done = [(act.who, act.what, act.status) for act in client.store.acts(limit=3)]
    assert done == [
        ("anna", "login", 303),
        ("anna", "POST /api/v1/deployments", 403),
        ("anna", "POST /api/v1/runs", 404),
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"deployment": "' + b"x" * 1_000_000 + b'"}', 413),
        (b'{"deployment": "x", "parameters": {"p": ' + b"[" * 100_000, 422),
        (b'{"deployment": "x", "parameters": {"p": ' + b"[" * 19 + b"]" * 19 + b"}}", 422),
        (b'{"deployment": "x", "parameters": {"p": "' + b"[" * 1000 + b'"}}', 404),
        (b"\xff\xfe", 422),
        (b'{"deployment": ' + b"1" * 5_000 + b"}", 400),
    ],
)
def test_limits_refuse(client: Client, web: TestClient, body: bytes, status: int) -> None:
    given = bearer(token(client, "operator")) | {"Content-Type": "application/json"}
    assert web.post("/api/v1/runs", content=body, headers=given).status_code == status


def test_a_body_that_is_compressed_or_says_not_how_long_it_is(client: Client, web: TestClient) -> None:
    given = bearer(token(client, "operator")) | {"Content-Type": "application/json"}
    assert web.post("/api/v1/runs", content=b"x", headers=given | {"Content-Encoding": "gzip"}).status_code == 415
    endless = (b"x" * 100_000 for _ in range(20))
    assert web.post("/api/v1/runs", content=endless, headers=given).status_code == 413


def test_whoever_sends_a_body_slowly_still_reads_why_it_is_refused(home: Path) -> None:
    dashboard = Dashboard(home)
    try:
        url = urlsplit(dashboard.url)
        with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
            head = f"POST /act/cancel HTTP/1.1\r\nHost: {url.netloc}\r\nOrigin: http://elsewhere.example\r\n"
            connection.sendall(f"{head}Connection: close\r\nContent-Length: 4\r\n\r\n".encode())
            for byte in b"{} \n":
                time.sleep(0.1)
                connection.sendall(bytes([byte]))
            answer = connection.recv(1000)
    finally:
        dashboard.stop()

    assert answer.startswith(b"HTTP/1.1 403 ")


def test_every_answer_keeps_browsers_from_guessing_and_framing(client: Client, web: TestClient) -> None:
    login(web, token(client, "viewer"))
    page = web.get("/").headers
    policy = page["content-security-policy"]
    assert "unsafe-eval" not in policy
    assert "script-src 'self' blob: 'nonce-" in policy
    for path in ("/", "/static/js/bokeh.min.js", "/api/v1/runs", "/login"):
        headers = web.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer", path
        assert "default-src 'none'" in headers["content-security-policy"], path


def test_elsewhere_it_starts_only_if_somebody_has_a_token(home: Path) -> None:
    done = flowkit("dashboard", "--port", "0", "--address", "0.0.0.0")
    assert done.returncode == 2
    assert done.stderr == (
        "flowkit: others reach this machine on 0.0.0.0, and nobody has a token to log in with; "
        "make one: flowkit token create NAME\n"
    )


def test_elsewhere_it_prints_no_link_and_answers_to_its_names(home: Path) -> None:
    secret = answer("token", "create", "anna")["secret"]
    dashboard = Dashboard(home, more=["--address", "0.0.0.0", "--host", "flowkit.example"])
    try:
        assert "token=" not in dashboard.line
        port = dashboard.url.rstrip("/").rpartition(":")[2]
        url = f"http://127.0.0.1:{port}/api/v1/me"
        named = {"Host": f"flowkit.example:{port}"} | bearer(secret)
        assert httpx2.get(url, headers=named).json() == {"name": "anna", "role": "viewer"}
        assert httpx2.get(url, headers=bearer(secret)).status_code == 403
    finally:
        dashboard.stop()


def test_tokens_are_made_listed_and_revoked_by_command(home: Path) -> None:
    made = answer("token", "create", "ci", "--role", "operator", "--expires", "1h")
    assert made["secret"].startswith("fk_")
    assert [(one["name"], one["role"]) for one in answer("token", "list")] == [("ci", "operator")]
    assert "already" in flowkit("token", "create", "ci").stderr
    assert made["secret"] not in flowkit("token", "list").stdout
    assert answer("token", "revoke", made["id"])["name"] == "ci"
    assert flowkit("token", "revoke", "ci").stderr == "flowkit: no token 'ci'; `flowkit token list` lists them\n"
