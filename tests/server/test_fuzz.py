"""Whatever a program sends, the API answers it: a few cases of every route. ``tests.server.fuzz`` tries many."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from starlette.testclient import TestClient

from flowkit.client import Client
from flowkit.config import Config
from flowkit.model import Role, now
from flowkit.server.app import Application
from flowkit.server.guard import Doors
from flowkit.server.sessions import Sessions
from tests.server.mix import fill

URL = "http://127.0.0.1:5006"

#: Of each route.
CASES = 4


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Application, Client]]:
    with Client(Config.from_env({"FLOWKIT_HOME": str(tmp_path_factory.mktemp("home"))})) as client:
        fill(client.store, client.artifacts, runs=12)
        sessions, doors = Sessions(client.store, link=False), Doors(frozenset({"127.0.0.1"}))
        application = Application(client.store, client.artifacts, client, sessions, doors)
        yield application, client
        application.close()


def test_every_route_answers_whatever_it_is_sent(application: tuple[Application, Client]) -> None:
    app, client = application
    at = now()
    _, secret = client.store.create_token("fuzz", Role.ADMIN, expires=at + timedelta(days=1), now=at)
    tried = 0
    with TestClient(app.guarded, base_url=URL, raise_server_exceptions=False) as web:
        for found in schemathesis.openapi.from_dict(app.api.openapi()).get_all_operations():
            operation = found.ok()
            if operation.path == "/api/v1/events":
                continue  # it never ends

            @settings(
                max_examples=CASES,
                database=None,
                deadline=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def answers(case: Case) -> None:
                nonlocal tried
                for authorization in (f"Bearer {secret}", "Bearer fk_nobody", ""):
                    sent = case.as_transport_kwargs(base_url=URL)
                    headers = {name: str(value).encode() for name, value in (sent.pop("headers") or {}).items()}
                    headers |= {"Authorization": authorization.encode()}
                    sent = {name: sent[name] for name in ("method", "url", "params", "json") if name in sent} | (
                        {"content": sent["data"]} if sent.get("data") else {}
                    )
                    answered = web.request(**sent, headers=headers)
                    tried += 1
                    assert answered.status_code < 500, (case.method, case.path, answered.text)
                    if not authorization.endswith(secret):
                        assert answered.status_code in (401, 403, 413, 415, 422), (case.method, case.path)

            answers()
    assert tried > 400
