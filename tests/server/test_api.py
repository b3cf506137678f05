"""The API over a real store: what programs rely on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
import pytest
from starlette.testclient import TestClient

from flowkit.book import write
from flowkit.client import Client
from flowkit.config import Config
from flowkit.model import Cause, Deployment, Policy, Role, Run, State, now
from flowkit.notebooks import parse
from flowkit.server.app import Application
from flowkit.server.guard import Doors
from flowkit.server.sessions import Sessions
from tests.notebooks_made import notebook
from tests.server.mix import begin, deploy, end, fill, said, save, steps, submit

URL = "http://127.0.0.1:5006"


class Web:
    """An admin's program."""

    def __init__(self, web: TestClient, client: Client) -> None:
        at = now()
        _, secret = client.store.create_token("program", Role.ADMIN, expires=at + timedelta(days=1), now=at)
        self.web, self.client = web, client
        self.headers = {"Authorization": f"Bearer {secret}"}

    def ask(self, method: str, path: str, status: int | None = None, **options: Any) -> Any:
        headers = self.headers | options.pop("headers", {})
        answered = self.web.request(method, f"/api/v1{path}", headers=headers, **options)
        if status is None:
            assert answered.status_code < 300, answered.text
        else:
            assert answered.status_code == status, answered.text
            assert answered.headers["content-type"] == "application/problem+json"
        return answered.json() if "json" in answered.headers.get("content-type", "") else answered.content

    def all(self, path: str, **params: Any) -> list[Any]:
        found: list[Any] = []
        cursor = None
        while True:
            page = self.ask("GET", path, params={**params, **({"cursor": cursor} if cursor else {})})
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                return found


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    home = tmp_path_factory.mktemp("home")
    with Client(Config.from_env({"FLOWKIT_HOME": str(home)})) as client:
        sessions, doors = Sessions(client.store, link=False), Doors(frozenset({"127.0.0.1"}))
        application = Application(client.store, client.artifacts, client, sessions, doors)
        fill(client.store, client.artifacts, runs=12)
        with TestClient(application.guarded, base_url=URL) as web:
            yield Web(web, client)
        application.close()


def test_runs_come_newest_first_page_by_page_while_others_come(api: Web) -> None:
    before = [run.id for run in api.client.store.runs(limit=500)]
    page = api.ask("GET", "/runs", params={"limit": 4})
    submit(api.client.store, deploy(api.client.store, "meanwhile"))
    rest = api.ask("GET", "/runs", params={"limit": 500, "cursor": page["next"]})
    assert [run["id"] for run in page["items"] + rest["items"]] == before
    assert rest["next"] is None


def test_runs_are_filtered(api: Web) -> None:
    failed = api.all("/runs", state=["failed", "cancelled"], deployment="flight_delays", limit=2)
    expected = api.client.store.runs(deployment="flight_delays", states=[State.FAILED, State.CANCELLED])
    assert [run["id"] for run in failed] == [run.id for run in expected]
    assert {run["queue"] for run in api.all("/runs", queue="gpu")} == {"gpu"}
    newest = api.client.store.runs(limit=3)
    found = api.all("/runs", since=newest[2].created.isoformat(), until=newest[0].created.isoformat())
    assert [run["id"] for run in found] == [newest[1].id, newest[2].id]


def test_runs_are_searched_by_their_parameters_and_their_error(api: Web) -> None:
    every = api.client.store.runs(limit=500)
    failed = next(run for run in every if run.error)
    name, value = next((name, value) for run in every for name, value in run.parameters.items() if value)
    expected = [run.id for run in every if run.parameters.get(name) == value]

    pair = f"{name}={value if isinstance(value, str) else json.dumps(value)}"
    assert [run["id"] for run in api.all("/runs", parameter=[pair], limit=1)] == expected
    part = str(failed.error)[:40].upper()
    assert [run["id"] for run in api.all("/runs", error=part, limit=2)] == [
        run.id for run in every if part in str(run.error).upper()
    ]
    assert "NAME=VALUE" in api.ask("GET", "/runs", 422, params={"parameter": "day"})["detail"]
    assert "deployment" in api.ask("GET", "/runs", 422, params={"error": "x", "notebook": "/n.ipynb"})["detail"]


@pytest.mark.parametrize("path", ["/runs", "/deployments", "/acts", "/deployments/invoices/versions"])
def test_a_cursor_of_something_else_is_refused(api: Web, path: str) -> None:
    submit(api.client.store, deploy(api.client.store, "one more"))
    for cursor in ("x", "W10=", "WzEsMl0=", "ü", "[" * 400):
        assert "cursor" in api.ask("GET", path, 422, params={"cursor": cursor})["detail"]
    assert "limit" in api.ask("GET", path, 422, params={"limit": 501})["detail"]


def test_a_notebook_is_deployed_run_once_for_a_key_cancelled_and_tried_again(api: Web) -> None:
    body = {"notebook": notebook("print(day)", parameters="day = 1"), "path": "/home/anna/daily.ipynb"}
    deployed = api.ask("POST", "/deployments", json=body | {"schedule": {"cron": "0 6 * * *", "zone": "Europe/Madrid"}})
    assert (deployed["id"], deployed["version"], deployed["new"]) == ("daily", 1, True)
    assert api.ask("GET", "/deployments/daily/parameters")[0]["name"] == "day"
    assert len(api.ask("GET", "/deployments/daily/firings", params={"limit": 3})) == 3
    assert api.ask("POST", "/deployments/daily/pause")["paused"]
    assert not api.ask("POST", "/deployments/daily/resume")["paused"]

    wanted = {"json": {"deployment": "daily", "parameters": {"day": 2}}, "headers": {"Idempotency-Key": "today"}}
    run = api.ask("POST", "/runs", **wanted)
    assert api.ask("POST", "/runs", **wanted)["id"] == run["id"]
    other = wanted | {"json": {"deployment": "daily", "parameters": {"day": 3}}}
    assert "take another key" in api.ask("POST", "/runs", 409, **other)["detail"]
    unknown = {"deployment": "daily", "parameters": {"dai": 3}}
    assert "did you mean 'day'" in api.ask("POST", "/runs", 422, json=unknown)["detail"]

    assert api.ask("POST", f"/runs/{run['id']}/cancel")["state"] == "cancelled"
    assert api.ask("POST", f"/runs/{run['id']}/cancel", 409)["title"] == "Conflict"
    assert api.ask("POST", f"/runs/{run['id'][:8]}/retry")["state"] == "pending"
    api.ask("DELETE", "/deployments/daily", params={"cancel": True})
    assert api.ask("GET", "/deployments/daily", 404)["status"] == 404


def test_a_backfill_is_made_looked_at_and_cancelled(api: Web) -> None:
    api.ask("POST", "/deployments", json={"notebook": notebook("1", parameters="day = 1"), "path": "filled.ipynb"})
    made = api.ask("POST", "/backfills", json={"deployment": "filled", "parameter": "day", "values": ["1", "2", "3"]})
    assert len(api.all(f"/backfills/{made['id']}/runs", limit=2)) == 3
    assert api.ask("POST", f"/backfills/{made['id']}/cancel")["counts"] == {"cancelled": 3}


def finished(api: Web) -> Run:
    store = api.client.store
    run = begin(store, submit(store, deploy(store, "told", queue="told")))
    at = now().timestamp()
    store.record(run.id, run.attempt, [*steps(at), said("one\n", at=at)])
    store.record(run.id, run.attempt, [said("two \ud800\n", at=at)])
    save(api.client.artifacts, run, [])
    return end(store, run)


def test_a_runs_events_log_and_nodes_are_read_from_any_position(api: Web) -> None:
    run = finished(api)
    first = api.ask("GET", f"/runs/{run.id}/events", params={"output": True})
    assert [event["data"] for event in first["events"]] == ["one\n", "two \ud800\n"]
    again = api.ask("GET", f"/runs/{run.id}/events", params={"after": first["position"]})
    assert (again["events"], again["state"]) == ([], "succeeded")
    assert api.ask("GET", f"/runs/{run.id}/log") == b"one\ntwo ?\n"
    assert len(api.ask("GET", f"/runs/{run.id}/nodes")) == 8
    assert "no attempt 2" in api.ask("GET", f"/runs/{run.id}/nodes", 404, params={"attempt": 2})["detail"]


def submitted(api: Web, place: Path, text: str, at: datetime, **given: Any) -> Run:
    store = api.client.store
    snapshot = parse(text)
    deployment = Deployment(name=place.stem, notebook=str(place), snapshot=snapshot.digest, policy=Policy(queue="book"))
    deployed, _ = store.deploy(deployment, snapshot.text, now=at)
    return store.submit(Run.of(deployed, now=at, parameters=given, scheduled_for=at))[0]


def test_a_run_is_downloaded_as_the_notebook_that_flowkit_open_writes(api: Web, tmp_path: Path) -> None:
    at, store = datetime(2026, 3, 1, 5, tzinfo=UTC), api.client.store
    text = notebook("day", parameters="day = 1\nrate = 0.5\nscheduled_for = None")
    run = begin(store, submitted(api, tmp_path / "books.ipynb", text, at, day=2, rate=float("inf")))
    error = "node 'joined' failed:\n\rimport half \ud800"
    store.record(run.id, 1, steps(at.timestamp(), fails="joined", error=error))
    run = end(store, run, cause=Cause.NOTEBOOK, error=error)

    book = api.ask("GET", f"/runs/{run.id[:8]}/book")
    nbformat.validate(book)
    first, parameters, injected, cell = ("".join(cell["source"]) for cell in book["cells"])
    assert f"fk.load_run('{run.id}')" in first
    assert "inputs = run.inputs('joined')" in first
    assert [line[0] for line in first.splitlines()[:5]] == ["#", "#", "#", "#", "i"]
    values: dict[str, Any] = {}
    exec(f"{parameters}\n{injected}", values)
    assert (values["day"], values["rate"], values["scheduled_for"]) == (2, float("inf"), at)
    assert cell == "day"
    written = write(store, run, None)
    assert (written, json.loads(written.read_text())) == (tmp_path / f"{run.id[:8]}.ipynb", book)
    again = write(store, submitted(api, tmp_path / "again.ipynb", written.read_text(), at, day=3), None)
    assert len(nbformat.read(again, as_version=4).cells) == 4

    run = submitted(api, tmp_path / "r.ipynb", notebook("1").replace("python", "r"), at)
    assert "only a Python notebook" in api.ask("GET", f"/runs/{run.id}/book", 422)["detail"]


def test_an_artifact_is_downloaded_and_nothing_else_is(api: Web, tmp_path: Path) -> None:
    run = finished(api)
    [found] = api.all(f"/runs/{run.id}/artifacts")
    data = api.ask("GET", f"/runs/{run.id}/artifacts/{found['path']}")
    assert (found["path"], found["bytes"]) == ("1/notebook.ipynb", len(data))
    folder = Path(api.client.artifacts.locate(f"runs/{run.id}"))
    (tmp_path / "secret").write_text("secret")
    (folder / "1" / "link").symlink_to(tmp_path / "secret")
    (folder / "2").symlink_to(tmp_path)
    (folder / "kept").symlink_to(tmp_path)
    for path in (
        *("1/link", "2/secret", "kept/secret", "1/..%2f..%2f..%2f..%2fflowkit.db", "1/.", "1/%2e%2e", "..%2f1/x"),
        *("1/notebook.ipynb%00", "1/%2fetc%2fpasswd", "../../../flowkit.db", "1/notebook.ipynb/x"),
    ):
        answered = api.web.get(f"/api/v1/runs/{run.id}/artifacts/{path}", headers=api.headers)
        assert answered.status_code in (404, 422), path


def test_what_json_has_not_is_answered_all_the_same(api: Web) -> None:
    store = api.client.store
    run = submit(store, deploy(store, "odd"), x=float("nan"), y=[float("inf")], z="half \ud800")
    assert api.ask("GET", f"/runs/{run.id}")["parameters"] == {"x": "nan", "y": ["inf"], "z": "half \ud800"}


def test_a_cron_expression_is_previewed_or_refused(api: Web) -> None:
    [first, _] = api.ask("GET", "/firings", params={"cron": "30 2 * * *", "zone": "Europe/Madrid", "limit": 2})
    assert first["local"].startswith(first["local"][:10] + "T02:30")
    for cron, zone in (("invoices", "UTC"), ("99 * * * *", "UTC"), ("0 6 * * *", "Mars"), ("0 6 * * *", "../../etc")):
        api.ask("GET", "/firings", 422, params={"cron": cron, "zone": zone})


def test_a_store_that_does_not_answer_is_503(api: Web, tmp_path: Path) -> None:
    place = api.client.config.home / "flowkit.db"
    place.rename(tmp_path / "away.db")
    try:
        answered = api.web.get("/api/v1/runs", headers=api.headers)
    finally:
        (tmp_path / "away.db").rename(place)
    assert answered.status_code == 503
    assert answered.headers["retry-after"]
