"""The route that gives a run's executed notebook: as a document to look at, or as the file itself."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from tornado.web import RequestHandler

from flowkit.artifacts import Artifacts, notebook_path
from flowkit.errors import NotFound, Unavailable
from flowkit.model import Run
from flowkit.server.dashboard import document
from flowkit.store import Store

#: Rendered notebooks of runs that have ended, kept for whoever looks next.
KEPT = 16

Route = tuple[str, type[RequestHandler], dict[str, Any]]


class Notebooks:
    """The executed notebooks of the store's runs. Used from several threads."""

    def __init__(self, store: Store, artifacts: Artifacts) -> None:
        self._store = store
        self._artifacts = artifacts
        self._rendered: OrderedDict[tuple[str, int, datetime], str] = OrderedDict()
        self._lock = threading.Lock()
        self.threads = ThreadPoolExecutor(2, thread_name_prefix="flowkit-notebook")

    def routes(self) -> list[Route]:
        """``/notebook/<run>/<attempt>``, and the same with ``.ipynb``, for a Tornado application."""
        # A whole id and a number: no part of a request ever becomes a path.
        place = r"/notebook/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/([0-9]{1,6})"
        given = {"notebooks": self}
        return [(place, _Shown, given), (place + r"\.ipynb", _File, given)]

    def close(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)

    def shown(self, id: str, attempt: int) -> str:
        run = self._store.run(id)
        if run.finished is None:
            return self._render(run, attempt)
        # With the time it ended: a run that is tried again is another one.
        key = (run.id, attempt, run.finished)
        with self._lock:
            if key in self._rendered:
                self._rendered.move_to_end(key)
                return self._rendered[key]
        rendered = self._render(run, attempt)
        with self._lock:
            self._rendered[key] = rendered
            while len(self._rendered) > KEPT:
                self._rendered.popitem(last=False)
        return rendered

    def file(self, id: str, attempt: int) -> bytes:
        return self._read(self._store.run(id), attempt)

    def _render(self, run: Run, attempt: int) -> str:
        name = f"{run.label} · {run.id[:8]} · attempt {attempt}"
        return document.document(self._read(run, attempt), name=name)

    def _read(self, run: Run, attempt: int) -> bytes:
        found = self._artifacts.read(notebook_path(run.id, attempt)) if 1 <= attempt <= run.attempt else None
        if found is None:
            raise NotFound(f"attempt {attempt} of run {run.id[:8]} {'left' if run.state.final else 'has saved'} none")
        return found


class _Answer(RequestHandler):
    def initialize(self, notebooks: Notebooks) -> None:
        self.notebooks = notebooks

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", document.POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Cache-Control", "private, no-cache")

    async def get(self, id: str, attempt: str) -> None:
        # Neither the store's answer, nor a file from far away, nor rendering may hold up the other browsers.
        loop = asyncio.get_running_loop()
        try:
            self.finish(await loop.run_in_executor(self.notebooks.threads, self._make, id, int(attempt)))
        except (NotFound, Unavailable, ValueError) as error:
            self.set_status(404 if isinstance(error, NotFound) else 502)
            self.set_header("Content-Type", "text/html; charset=utf-8")
            self.clear_header("Content-Disposition")
            self.finish(document.message(f"There is no notebook to show: {error}."))

    def _make(self, id: str, attempt: int) -> str | bytes:
        """In another thread."""
        raise NotImplementedError


class _Shown(_Answer):
    def _make(self, id: str, attempt: int) -> str:
        rendered = self.notebooks.shown(id, attempt)
        theme = self.get_query_argument("theme", "")
        # The page around it may have been told to be light or dark, whatever the browser is.
        return rendered.replace("<html", f'<html style="color-scheme: {theme}"', 1) if theme in _THEMES else rendered


_THEMES = ("light", "dark")


class _File(_Answer):
    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Content-Type", "application/x-ipynb+json")

    async def get(self, id: str, attempt: str) -> None:
        self.set_header("Content-Disposition", f'attachment; filename="{id[:8]}-{attempt}.ipynb"')
        await super().get(id, attempt)

    def _make(self, id: str, attempt: int) -> bytes:
        return self.notebooks.file(id, attempt)
