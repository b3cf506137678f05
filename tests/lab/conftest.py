"""A real JupyterLab, one for all tests of this folder, and a Chromium that opens notebooks in it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import nbformat.v4 as v4
import pytest
from playwright.sync_api import Browser, Page

from tests.server.conftest import browser  # noqa: F401  # the same Chromium

ROOT = Path(__file__).parents[2]

#: ms that a busy machine may take for what a free one does in one.
SOON = 30_000

SETTINGS = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension/plugin.jupyterlab-settings": {"autosave": False},
}


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "notebooks"
        self.folder.mkdir()
        self._settings = folder / "settings"
        self.theme("JupyterLab Light")
        for name, values in SETTINGS.items():
            self._set(name, values)
        token = secrets.token_hex(16)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("JUPYTER", "FLOWKIT_", "IPYTHON", "JPY_"))
        }
        folders = {f"JUPYTER_{name}": str(folder / name.lower()) for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")}
        extensions = folder / "data_dir" / "labextensions"
        extensions.mkdir(parents=True)
        (extensions / "flowkit").symlink_to(ROOT / "flowkit" / "jupyter" / "labextension")  # of these sources
        self._log = (folder / "lab.log").open("w")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port=0"),
                *("--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={token}", f"--notebook-dir={self.folder}"),
                *("--LabApp.expose_app_in_browser=True", "--LabApp.news_url=", "--LabApp.extension_manager=readonly"),
                "--ServerApp.shutdown_no_activity_timeout=600",
            ],
            env=kept
            | folders
            | {
                "JUPYTERLAB_SETTINGS_DIR": str(self._settings),
                "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
                "IPYTHONDIR": str(folder / "ipython"),
                "JUPYTER_PREFER_ENV_PATH": "1",
                "PYTHONPATH": str(ROOT),
            },
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._base, self._token = self._address(folder / "runtime_dir"), token

    def _address(self, runtime: Path) -> str:
        until = monotonic() + 120
        while monotonic() < until and self._process.poll() is None:
            for file in runtime.glob("jpserver-*.json"):
                try:
                    url = json.loads(file.read_text())["url"]
                    urllib.request.urlopen(f"{url}api", timeout=5).close()
                    return str(url)
                except (OSError, ValueError, KeyError):
                    break
            sleep(0.1)
        self.stop()
        raise AssertionError(f"JupyterLab did not start:\n{Path(self._log.name).read_text()[-3000:]}")

    def theme(self, name: str) -> None:
        self._set("@jupyterlab/apputils-extension/themes.jupyterlab-settings", {"theme": name})

    def _set(self, name: str, values: dict[str, Any]) -> None:
        file = self._settings / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))

    def write(self, name: str, *cells: str) -> Path:
        path = self.folder / name
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells], metadata=kernel)
        path.write_text(v4.writes(notebook))
        return path

    def url(self, notebook: str) -> str:
        return f"{self._base}doc/tree/{notebook}?token={self._token}&reset"

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._log.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.stop()


class Notebook:
    """A notebook open in JupyterLab."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(url)
        page.wait_for_function("() => window.jupyterapp && window.jupyterapp.shell.currentWidget?.context?.isReady")

    def connect(self) -> None:
        """Until the kernel answers: the toolbar says idle before it is connected, and drops what is run then."""
        self.page.evaluate(
            """async () => {
                const session = window.jupyterapp.shell.currentWidget.sessionContext;
                await session.ready;
                await session.session.kernel.info;
            }"""
        )

    def run(self, cell: int, *, wait: bool = True) -> None:
        self.page.evaluate(
            """cell => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                notebook.activeCellIndex = cell;
                window.jupyterapp.commands.execute("notebook:run-cell");
            }""",
            cell,
        )
        if wait:
            self.until(cell, "idle")

    def until(self, cell: int, state: str) -> None:
        """Until the cell's own model says so: the kernel's status is also that of its subshells."""
        self.page.wait_for_function(
            """([cell, state]) => {
                const model = window.jupyterapp.shell.currentWidget.content.widgets[cell].model;
                return model.executionState === state && (state !== "idle" || model.executionCount !== null);
            }""",
            arg=[cell, state],
        )

    def state(self, cell: int) -> str:
        return str(
            self.page.evaluate(
                "cell => window.jupyterapp.shell.currentWidget.content.widgets[cell].model.executionState", cell
            )
        )

    def save(self) -> None:
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")

    def restart(self) -> None:
        """With a new kernel, once it answers."""
        self.page.evaluate(
            """async () => {
                const session = window.jupyterapp.shell.currentWidget.sessionContext;
                await session.ready;
                if (!session.session?.kernel) await session.startKernel();
            }"""
        )
        self.connect()

    def stop(self) -> None:
        """Its kernel."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


Open = Callable[..., Notebook]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    page = context.new_page()
    yield page
    context.close()
