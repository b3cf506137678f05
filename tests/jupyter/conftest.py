"""One JupyterLab for all tests here, brought up with all of flowkit by Binder's start script; and a browser."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import psutil
import pytest

from flowkit.client import Client
from flowkit.config import Config
from tests.processes import eventually
from tests.server.conftest import browser

__all__ = ["browser"]

START = Path(__file__).parent.parent.parent / "binder" / "start"

TOKEN = "only-for-tests"
CONFIG = {
    "ServerApp": {"port_retries": 0, "open_browser": False, "allow_root": True},
    "IdentityProvider": {"token": TOKEN},
    "LabApp": {"news_url": None, "extension_manager": "readonly", "expose_app_in_browser": True},
}


class Lab:
    """``jupyter lab`` in a folder of its own, with what ``binder/`` adds: the scheduler's settings, and a worker."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "notebooks"
        self.home = folder / "flowkit"
        places = {f"JUPYTER_{kind}_DIR": folder / kind.lower() for kind in ("CONFIG", "DATA", "RUNTIME")}
        places |= {f"JUPYTERLAB_{kind}_DIR": folder / kind.lower() for kind in ("SETTINGS", "WORKSPACES")}
        for place in (self.root, *places.values()):
            place.mkdir()
        (folder / "config" / "jupyter_server_config.json").write_text(json.dumps(CONFIG))
        settings = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWKIT_", "REDIS_"))}
        self.environment = settings | {name: str(place) for name, place in places.items()}
        self.environment |= {"FLOWKIT_HOME": str(self.home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        command = [sys.executable, "-m", "jupyter", "lab", f"--port={self.port}", f"--ServerApp.root_dir={self.root}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(START), *command], cwd=self.root, env=self.environment, stdout=log, stderr=log
            )
        self.client = Client(Config.from_env({"FLOWKIT_HOME": str(self.home)}))

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.ask("api")[0] == 200
        except URLError:
            return False

    def ask(self, path: str, body: object = None, *, method: str | None = None, **query: Any) -> tuple[int, Any]:
        """The status and what the server answers, as JSON if it is that."""
        request = Request(
            f"{self.url}/{path}?{urlencode(query, doseq=True)}",
            method=method or ("GET" if body is None else "POST"),
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {TOKEN}"},
        )
        try:
            with urlopen(request, timeout=60) as answer:
                status, text = answer.status, answer.read().decode()
        except HTTPError as error:
            status, text = error.code, error.read().decode()
        return status, json.loads(text) if text.startswith(("{", "[")) else text

    def stop(self) -> None:
        """End it, and see that nothing which it had started is left."""
        self.client.__exit__()
        started = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.terminate()
        try:
            self.process.wait(60)
            _, left = psutil.wait_procs(started, timeout=30)
            assert not left, f"{left} were left after Jupyter's end"
        finally:
            for process in [self.process, *started]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        eventually(lab.ready, seconds=120)
        yield lab
    finally:
        lab.stop()
