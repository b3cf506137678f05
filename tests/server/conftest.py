"""A headless Chromium, and dashboards in processes of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from flowkit.store import Store

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("FLOWKIT_TEST_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.fail("no Chromium found; install one (apt install chromium) or name it in FLOWKIT_TEST_CHROMIUM", False)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        yield browser
        browser.close()


class Dashboard:
    """``flowkit dashboard``, as a person starts it."""

    def __init__(
        self, home: Path, *, port: int = 0, more: Sequence[str] = (), settings: Mapping[str, str] | None = None
    ) -> None:
        others = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWKIT_", "REDIS_"))}
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flowkit", "dashboard", "--port", str(port), *more],
            env=others | {"FLOWKIT_HOME": str(home)} | dict(settings or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.link = self.line.removeprefix("dashboard: ").strip()
        self.url = self.link.partition("?")[0]

    def cookie(self) -> tuple[str, str]:
        """What the link becomes in a browser."""
        answer = httpx2.get(self.link)
        assert answer.status_code == 303, answer.text
        [(name, value)] = answer.cookies.items()
        return name, value

    def get(self, path: str, secret: str) -> bytes:
        """As a program asks that has this token."""
        headers = {"Authorization": f"Bearer {secret}"}
        return httpx2.get(self.url.rstrip("/") + path, headers=headers, timeout=60).raise_for_status().content

    def enter(self, context: BrowserContext) -> None:
        name, value = self.cookie()
        context.add_cookies([{"name": name, "value": value, "url": self.url}])

    def store(self) -> Store:
        """What it shows, to be filled while it runs."""
        return Store.open(f"sqlite:///{self.home / 'flowkit.db'}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Its exit code, and what else it printed."""
        self.process.send_signal(how)
        try:
            out, err = self.process.communicate(timeout=40)  # a busy machine takes its time over the end of a Python
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, out, err
