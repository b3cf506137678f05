"""A program with no token runs one deployment by what it signs, as the documents say."""

from __future__ import annotations

import hmac
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from flowkit.cli import cli
from flowkit.errors import FlowkitError
from flowkit.server.api.hooks import TOLERANCE
from tests.notebooks_made import write
from tests.processes import eventually
from tests.server.conftest import Dashboard

HOWTO = Path(__file__).parent.parent.parent / "docs" / "howto.md"


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    home = tmp_path_factory.mktemp("home")
    dashboard = Dashboard(home)
    path = write(home / "flight_delays.ipynb", "day", parameters="day: str = ''\ntop: int = 3")
    told(dashboard, "deploy", path)
    yield dashboard
    dashboard.stop()


def told(dashboard: Dashboard, *arguments: object) -> str:
    env = {"FLOWKIT_HOME": str(dashboard.home), "FLOWKIT_DATABASE_URL": "", "FLOWKIT_REDIS_URL": "", "REDIS_HOST": ""}
    done = CliRunner().invoke(cli, [*map(str, arguments)], env=env, standalone_mode=False)
    return f"{done.exception}" if isinstance(done.exception, FlowkitError) else done.stdout.strip()


@pytest.fixture
def secret(dashboard: Dashboard) -> Iterator[str]:
    yield told(dashboard, "hook", "create", "flight_delays")
    told(dashboard, "hook", "remove", "flight_delays")


def call(dashboard: Dashboard, secret: str, body: bytes, *, at: float | None = None, to: str = "flight_delays") -> Any:
    second = int(time.time() if at is None else at)
    signature = hmac.new(secret.encode(), f"{second}.".encode() + body, "sha256").hexdigest()
    return send(dashboard, f"t={second},v1={signature}", body, to=to)


def send(dashboard: Dashboard, signature: str, body: bytes, *, to: str = "flight_delays") -> httpx2.Response:
    return httpx2.post(f"{dashboard.url}api/v1/hooks/{to}", headers={"Flowkit-Signature": signature}, content=body)


def test_the_lines_of_the_documents_run_a_deployment(dashboard: Dashboard, secret: str) -> None:
    [lines] = re.findall(r"```bash\n(.*?)```", HOWTO.read_text(), re.S)
    env = {"PATH": os.environ["PATH"], "secret": secret, "url": dashboard.url.rstrip("/")}
    done = subprocess.run(["bash", "-euc", lines], env=env, capture_output=True, text=True, timeout=60)
    assert '"state":"pending"' in done.stdout, done.stderr
    with dashboard.store() as store:
        [run] = store.runs(limit=1)
        assert run.parameters == {"day": "2013-07-01"}
        [act] = eventually(lambda: store.acts(limit=1))  # it is noted when the answer has gone out
        assert (act.who, act.status) == ("hook flight_delays", 202)


def test_the_same_message_again_gives_the_run_that_it_has_made(dashboard: Dashboard, secret: str) -> None:
    at = time.time()
    first, again = (call(dashboard, secret, b'{"top": 7}', at=at).json()["run"] for _ in range(2))
    other = call(dashboard, secret, b'{"top": 7}', at=at - 1).json()["run"]
    assert first == again != other


def test_what_is_not_signed_now_for_this_deployment_runs_nothing(dashboard: Dashboard, secret: str) -> None:
    at, body = int(time.time()), b"{}"
    good = hmac.new(secret.encode(), f"{at}.".encode() + body, "sha256").hexdigest()
    with dashboard.store() as store:
        before = len(store.runs(limit=100))
        of = f"t={at},v1={good}"
        for signature in (
            "",
            f"t={at}",
            f"t={at},v1=",
            f"t={at + 1},v1={good}",
            good,
            "t=x,v1=y",
            of.upper(),
            f"{of}0",
        ):
            assert send(dashboard, signature, body).status_code == 401, signature
        assert send(dashboard, of, b'{"top": 1}').status_code == 401
        assert call(dashboard, secret, body, at=at - TOLERANCE - 60).status_code == 401
        assert call(dashboard, secret, body, at=at + TOLERANCE + 60).status_code == 401
        assert call(dashboard, secret, body, to="nothing").status_code == 401
        for odd in (b'{"top": "7"}', b'{"tpo": 7}', b"[]", b"{", b'{"top": NaN}', b'{"top": ' + b"1" * 5_000 + b"}"):
            assert call(dashboard, secret, odd).status_code == 422, odd
        assert call(dashboard, secret, b"[" * 30 + b"]" * 30).status_code == 422
        assert call(dashboard, secret, b" " * 1_000_001).status_code == 413
        assert len(store.runs(limit=100)) == before


def test_a_rotated_secret_and_a_removed_hook_are_good_no_more(dashboard: Dashboard, secret: str) -> None:
    assert "hook rotate" in told(dashboard, "hook", "create", "flight_delays")
    newer = told(dashboard, "hook", "rotate", "flight_delays")
    assert newer.startswith("fkh_")
    assert call(dashboard, secret, b"{}").status_code == 401
    assert call(dashboard, newer, b"{}").status_code == 202
    assert "flight_delays" in told(dashboard, "hook", "list")
    files = dashboard.home.glob("flowkit.db*")
    assert not any(newer[4:].encode() in file.read_bytes() for file in files)
    told(dashboard, "hook", "remove", "flight_delays")
    assert call(dashboard, newer, b"{}").status_code == 401
    told(dashboard, "hook", "create", "flight_delays")
    told(dashboard, "delete", "flight_delays", "--cancel")
    assert "no hooks yet" in told(dashboard, "hook", "list")
    told(dashboard, "deploy", dashboard.home / "flight_delays.ipynb")
    assert "'nothing'" in told(dashboard, "hook", "create", "nothing")
