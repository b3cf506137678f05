"""Alerts, received by a real mail server and a real web server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from flowkit.client import Client
from flowkit.config import Config
from flowkit.model import Cause, Ending, State, now, watches
from flowkit.worker.alerts import Alerter
from tests.notebooks_made import write
from tests.processes import answer, eventually, flowkit, worker
from tests.servers import free_port


class Mailbox:
    def __init__(self) -> None:
        self.received: list[str] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        parts = message_from_bytes(envelope.content).walk()
        texts = [part.get_payload(decode=True) for part in parts if part.get_content_maintype() == "text"]
        self.received.append(b"\n".join(texts).decode())
        return "250 OK"


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, str]]:
    box = Mailbox()
    port = free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield box, f"mailto://127.0.0.1:{port}/?from=flowkit@example.org&to=ops@example.org&mode=insecure&format=text"
    finally:
        controller.stop()


class Hook(HTTPServer):
    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.status == 200:
            self.server.received.append(said)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[tuple[Hook, str]]:
    server = Hook()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, f"json://user:passw0rd@127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(home: Path) -> Iterator[Client]:
    with Client(Config.from_env()) as client:
        yield client


def end(client: Client, error: str | None) -> None:
    run = client.submit("late")
    claimed = client.store.claim(["default"], "me", now=now())
    assert claimed is not None
    ending = Ending(State.SUCCEEDED) if error is None else Ending(State.FAILED, Cause.NOTEBOOK, error)
    assert client.store.finish(run.id, claimed.attempt, ending, now=now())


def test_a_failure_and_the_recovery_are_told_by_one_of_two_workers(
    client: Client, tmp_path: Path, mailbox: tuple[Mailbox, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    box, url = mailbox
    monkeypatch.setenv("FLOWKIT_SECRET_OPS", url)
    monkeypatch.setenv("FLOWKIT_PUBLIC_URL", "https://flows.example.org/")
    gate = tmp_path / "gate"
    cells = ["1", f"import pathlib\nif not pathlib.Path({str(gate)!r}).exists():\n    raise ValueError('no gate')"]
    answer("deploy", write(tmp_path / "late.ipynb", *cells))
    assert answer("alert", "add", "late", "secret:ops")["address"] == "secret:ops"
    with worker(), worker():
        run = client.submit("late")
        eventually(lambda: box.received, seconds=60)
        gate.touch()
        client.submit("late")
        eventually(lambda: len(box.received) == 2, seconds=60)
    failed, recovered = box.received
    assert "ValueError: no gate" in failed
    assert f"https://flows.example.org/?run={run.id}" in failed
    assert "cell 2:" in failed
    assert "raise ValueError('no gate')" in failed
    assert "succeeded" in recovered
    assert "recovery of late, sent" in flowkit("alert", "list").stdout


def test_a_burst_of_one_error_is_one_message_another_error_is_one_more_and_a_recovery_comes_once(
    client: Client, tmp_path: Path, hook: tuple[Hook, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = hook
    monkeypatch.setenv("FLOWKIT_SECRET_OPS", url)
    client.deploy(write(tmp_path / "late.ipynb", "1"))
    client.store.add_alert(None, "ops", watches("failure,recovery"), now=now())
    several = [Alerter(client.store, client.artifacts) for _ in range(2)]

    for error in ("no disk", "no disk", "no disk", "no net", None, None, "no disk"):
        end(client, error)
        if error != "no net":  # which is over before anybody looks
            for one in several:
                one.look(now())

    titles = [said["title"] for said in server.received]
    disk, net = "late failed: no disk", "late failed: no net"
    assert titles == [disk, net, "late has recovered", disk]


def test_a_message_that_is_not_taken_is_tried_again_later_and_says_no_password(
    client: Client, tmp_path: Path, hook: tuple[Hook, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = hook
    monkeypatch.setenv("FLOWKIT_SECRET_OPS", url)
    client.deploy(write(tmp_path / "late.ipynb", "1"))
    alert = client.store.add_alert("late", "ops", watches("failure,recovery"), now=now())
    alerter = Alerter(client.store, client.artifacts)
    server.status = 503
    end(client, "no disk")

    alerter.look(at := now())
    [notice] = client.store.notices(alert=alert.id)
    assert (notice.tries, notice.sent) == (1, None)
    assert notice.error == "the address in the secret 'ops' did not take the message"
    server.status = 200
    alerter.look(at)
    assert not server.received
    alerter.look(at.replace(year=at.year + 1))
    assert len(server.received) == 1
    [notice] = client.store.notices(alert=alert.id)
    assert notice.sent
    for file in Config.from_env().home.rglob("*"):
        assert not file.is_file() or b"passw0rd" not in file.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("late", "mailto://me:pw@example.org"), "given by a secret's name: secret:ops"),
        (("late",), "name a deployment or --all"),
        (("--all", "secret:ops", "--on", "rain"), "--on: it tells failure, recovery"),
        (("late", "secret:ops"), "no deployment 'late'"),
    ],
)
def test_a_wrong_alert_is_refused(home: Path, arguments: tuple[str, ...], message: str) -> None:
    done = flowkit("alert", "add", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_an_alert_is_tried_and_taken_away(
    client: Client, tmp_path: Path, hook: tuple[Hook, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = hook
    monkeypatch.setenv("FLOWKIT_SECRET_OPS", url)
    client.deploy(write(tmp_path / "late.ipynb", "1"))
    made = answer("alert", "add", "--all", "secret:ops")
    gone = answer("alert", "add", "late", "secret:gone")

    with worker():
        done = flowkit("notify", "test", "late")
    assert done.returncode == 1
    assert f"secret:ops ({made['id']}): arrived" in done.stdout
    assert f"secret:gone ({gone['id']}): there is no secret 'gone'" in done.stdout
    assert server.received[0]["title"] == "flowkit: a test"
    assert {one["state"]: one["tries"] for one in answer("alerts", "late")} == {"failed": 1}
    assert flowkit("notify", "test", url).stdout == "json://…: arrived\n"
    server.status = 503
    refused = flowkit("notify", "test", "secret:ops")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "the address in the secret 'ops' did not take the message" in refused.stderr
    for one in (made, gone):
        assert "is gone" in flowkit("alert", "remove", one["id"]).stdout
    assert answer("alert", "list") == []
