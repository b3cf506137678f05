"""A laptop that has a server's address and a token, and neither store nor broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flowkit.cli import cli
from flowkit.errors import FlowkitError
from tests.notebooks_made import write
from tests.processes import flowkit, worker
from tests.proxy import proxy
from tests.server.conftest import Dashboard

FLOW = """
import flowkit as fk
flow = fk.Flow("numbers")

@flow.node
def numbers(top: int) -> list:
    print("counting to", top, flush=True)
    return list(range(top))

@flow.node
def total(numbers: list) -> int:
    assert len(numbers) < 9, "too many"
    return sum(numbers)
"""


@dataclass
class Laptop:
    folder: Path
    settings: dict[str, str]
    url: str

    def process(self, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        return flowkit(*arguments, env=self.settings | more, cwd=self.folder)

    def do(self, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        """The same in this process, which takes a tenth of the time."""
        return here(*arguments, **self.settings | more)

    def tell(self, *arguments: object) -> str:
        done = self.do(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: object) -> Any:
        return json.loads(self.tell(*arguments, "--json"))


def here(*arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    done = CliRunner().invoke(cli, [*map(str, arguments)], env=settings, standalone_mode=False)
    if done.exception is None:
        return subprocess.CompletedProcess([], done.return_value or 0, done.stdout, done.stderr)
    if not isinstance(done.exception, FlowkitError):
        raise done.exception
    error = f"flowkit: {done.exception}\n"
    return subprocess.CompletedProcess([], done.exception.exit_code, done.stdout, done.stderr + error)


def answer(*arguments: object) -> Any:
    """As who has the store is told."""
    return json.loads(here(*arguments, "--json").stdout)


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Iterator[Laptop]:
    """Where the server is, this process's own commands reach the store."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("laptop")
    patch.setenv("FLOWKIT_HOME", str(home))
    for name in ("FLOWKIT_DATABASE_URL", "FLOWKIT_REDIS_URL", "REDIS_HOST"):
        patch.delenv(name, raising=False)
    secret = answer("token", "create", "laptop", "--role", "admin")["secret"]
    dashboard = Dashboard(home)
    settings = {"FLOWKIT_HOME": str(folder / "none"), "FLOWKIT_API_URL": dashboard.url, "FLOWKIT_API_TOKEN": secret}
    write(folder / "count.ipynb", FLOW, "flow.run(top=top)", parameters="top: int = 3\nday: str = ''")
    patch.chdir(folder)
    yield Laptop(folder, {**os.environ, **settings}, dashboard.url)
    dashboard.stop()
    assert not (folder / "none").exists(), "a laptop has no store of its own"


def test_it_deploys_runs_follows_and_looks_as_whoever_has_the_store(laptop: Laptop) -> None:
    with worker():
        assert laptop.json("deploy", "count.ipynb", "--cron", "0 6 * * *", "--tz", "Europe/Madrid", "-p", "top", "4")[
            "parameters"
        ] == {"top": 4}
        assert "nothing new" in laptop.tell(
            "deploy", "count.ipynb", "--cron", "0 6 * * *", "--tz", "Europe/Madrid", "-p", "top", "4"
        )
        run = laptop.json("run", "count", "-p", "top=5", "--wait")
        assert (run["state"], run["parameters"]) == ("succeeded", {"top": 5})
        assert laptop.json("show", run["id"][:8]) == answer("show", run["id"]) == run
        assert laptop.tell("show", run["id"]) == here("show", run["id"]).stdout
        assert laptop.tell("logs", run["id"]) == "counting to 5\n"
        failed = laptop.do("run", "count.ipynb", "-p", "top", "9", "--wait")
        assert failed.returncode == 1
        assert "too many" in failed.stderr
        again = laptop.json("runs", "--state", "failed")[0]
        assert [run["id"] for run in laptop.json("runs", "--error", again["error"][:20])] == [again["id"]]
        assert laptop.do("retry", again["id"], "--from", "total", "--wait").returncode == 1
        assert laptop.tell("logs", "-f", again["id"]) == ""  # what a node has kept is not computed again
        assert (
            laptop.json("diff", again["id"], run["id"])["changes"] == answer("diff", again["id"], run["id"])["changes"]
        )
        laptop.tell("diff", again["id"], run["id"])
        assert (
            f"load_run('{run['id']}')" in Path(laptop.tell("open", run["id"], "-o", "book.ipynb").strip()).read_text()
        )
        laptop.tell("backfill", "count", "--param", "day", "--from", "2026-01-01", "--to", "2026-01-02")
        assert len(laptop.json("show", "count:day")["runs"]) == 2
        for looking in ("runs", "workers", "deployments", "queues", "backfills", "limits"):
            assert laptop.json(looking) == answer(looking), looking
            laptop.tell(looking)
    for arguments in (
        ("schedule", "preview", "count"),
        ("schedule", "preview", "@daily"),
        ("schedule", "skips", "count"),
    ):
        assert laptop.json(*arguments) == answer(*arguments)
    assert laptop.tell("pause", "count") == "count is paused\n"
    laptop.tell("resume", "count")
    laptop.tell("queue", "limit", "default", "3")
    laptop.tell("limit", "set", "api", "30/minute")
    assert laptop.json("queues")[0]["max_concurrent"] == 3
    assert [one["id"] for one in laptop.json("limits")] == ["api"]
    laptop.tell("limit", "remove", "api")
    assert laptop.tell("hook", "create", "count").startswith("fkh_")
    assert laptop.json("hook", "rotate", "count")["deployment"] == "count"
    assert [one["deployment"] for one in laptop.json("hook", "list")] == ["count"]
    laptop.tell("hook", "remove", "count")
    waits = laptop.json("run", "count")
    assert "no worker is alive" in laptop.do("run", "count").stderr
    assert laptop.json("cancel", waits["id"])["state"] == "cancelled"
    assert laptop.json("cancel", "count:day")["counts"] == {"succeeded": 2}
    assert "under way" in laptop.do("delete", "count").stderr
    assert laptop.tell("delete", "count", "--cancel") == "count is deleted; its runs are still listed\n"
    assert "nobody" in laptop.json("token", "create", "nobody")["name"]
    assert laptop.json("token", "revoke", "nobody")["role"] == "viewer"
    assert laptop.json("audit", "-n", 1)[0]["who"] == "laptop"


def test_its_commands_load_no_database(laptop: Laptop) -> None:
    code = (
        "import sys; from flowkit.cli import cli; cli.main(['runs'], standalone_mode=False); "
        "print(sorted({'sqlalchemy', 'huey', 'redis', 'papermill', 'panel', 'flowkit.store'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=laptop.settings, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_an_answer_that_is_lost_is_asked_for_again_and_nothing_is_done_twice(laptop: Laptop) -> None:
    with proxy(int(laptop.url.rstrip("/").rpartition(":")[2])) as between:
        before = len(answer("runs"))
        between.losing = 2
        lost = laptop.do("run", "count.ipynb", "--json", FLOWKIT_API_URL=between.url)
        assert lost.returncode == 0, lost.stderr
        assert between.losing == 0
        assert [path for _, path in between.taken].count("POST /api/v1/notebook-runs") == 3
        assert len(answer("runs")) == before + 1
        between.losing = 1
        run = json.loads(lost.stdout)["id"]
        told = laptop.do("cancel", run, FLOWKIT_API_URL=between.url)
        assert (told.returncode, told.stderr.count("\n")) == (2, 1)
        assert "no server answers" in told.stderr
        assert answer("show", run)["state"] == "cancelled"


class _Other(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>welcome")

    def log_message(self, *_: object) -> None:
        pass


def test_what_is_wrong_is_said_in_one_line(laptop: Laptop) -> None:
    other = HTTPServer(("127.0.0.1", 0), _Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    viewer = answer("token", "create", "looker")["secret"]
    url = laptop.url.rstrip("/")
    elsewhere = f"http://127.0.0.1:{other.server_port}"
    for arguments, more, expected in (
        (
            ["runs"],
            {"FLOWKIT_API_TOKEN": "fk_x"},
            f"{url} does not let this token in (any more); check FLOWKIT_API_TOKEN",
        ),
        (
            ["runs"],
            {"FLOWKIT_API_TOKEN": ""},
            f"FLOWKIT_API_URL names {url}, which takes a token; set FLOWKIT_API_TOKEN",
        ),
        (
            ["runs"],
            {"FLOWKIT_API_URL": "http://127.0.0.1:1"},
            "no server answers at http://127.0.0.1:1: Connection ref",
        ),
        (["runs"], {"FLOWKIT_API_URL": elsewhere}, f"{elsewhere} answers, but not as flowkit does (200); check FLOWK"),
        (["runs"], {"FLOWKIT_API_URL": "flowkit.example"}, "FLOWKIT_API_URL is 'flowkit.example'; it must be as in ht"),
        (["show", "deadbeef"], {}, here("show", "deadbeef").stderr.removeprefix("flowkit: ")),
        (["run", "nothing"], {}, here("run", "nothing").stderr.removeprefix("flowkit: ")),
        (["run", "count.ipynb", "-p", "top", "x"], {}, "parameter 'top' takes int, not 'x'"),
        (["run", "count.ipynb"], {"FLOWKIT_API_TOKEN": viewer}, "looker is a viewer; this takes an admin"),
        (
            ["worker"],
            {},
            "flowkit worker takes the store itself, not a server; unset FLOWKIT_API_URL where the store is",
        ),
        (["doctor"], {}, "flowkit doctor takes the store itself"),
        (["up"], {}, "flowkit up takes the store itself"),
    ):
        done = laptop.do(*arguments, **more)
        assert done.stderr.startswith(f"flowkit: {expected}"), done.stderr
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    other.shutdown()
    other.server_close()
    warned = laptop.process("runs", FLOWKIT_API_URL="http://flowkit.invalid").stderr.splitlines()
    assert "the token goes to flowkit.invalid unencrypted" in warned[0]
    assert "no server answers at http://flowkit.invalid" in warned[1]


def test_functions_ask_the_server_too(laptop: Laptop) -> None:
    code = "import flowkit as fk; print(fk.submit('count.ipynb', parameters={'top': 1}, queue='far').policy.queue)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=laptop.settings, cwd=laptop.folder, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "far\n", done.stderr
