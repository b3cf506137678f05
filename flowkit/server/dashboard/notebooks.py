"""The routes that give what a run left: its executed notebook, to look at or as the file, its book, and the rest."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from flowkit import book
from flowkit.artifacts import Artifacts
from flowkit.errors import NotFound, Unavailable, UsageError
from flowkit.journal import read_notebook
from flowkit.model import Run
from flowkit.server import files
from flowkit.server.dashboard import document
from flowkit.store import Store

#: Rendered notebooks of runs that have ended, kept for whoever looks next.
KEPT = 16


class Notebooks:
    """The executed notebooks of the store's runs. Used from several threads."""

    def __init__(self, store: Store, artifacts: Artifacts) -> None:
        self._store = store
        self._artifacts = artifacts
        self._rendered: OrderedDict[tuple[str, int, datetime], str] = OrderedDict()
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """``/notebook/<run>/<attempt>``, and the same with ``.ipynb``; ``/book/<run>.ipynb``, to go on with.

        And what else it left: ``/file/<run>/<folder>/<name>``, ``/log/<run>/<attempt>.txt``.
        """
        return [
            Route("/file/{id}/{folder}/{name}", self._left),
            Route("/log/{id}/{attempt:int}.txt", self._log),
            Route("/book/{id}.ipynb", self._book),
            Route("/notebook/{id}/{attempt:int}.ipynb", self._file),
            Route("/notebook/{id}/{attempt:int}", self._document),
        ]

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
        found = read_notebook(self._artifacts, run.id, attempt) if 1 <= attempt <= run.attempt else None
        if found is None:
            raise NotFound(f"attempt {attempt} of run {run.id[:8]} {'left' if run.state.final else 'has saved'} none")
        return found

    async def _document(self, request: Request) -> Response:
        theme = request.query_params.get("theme", "")
        # The page around it may have been told to be light or dark, whatever the browser is.
        style = f'<html style="color-scheme: {theme}"' if theme in _THEMES else "<html"
        # Neither the store's answer, nor a file from far away, nor rendering may hold up the other browsers.
        return await run_in_threadpool(
            self._answer, request, lambda *which: HTMLResponse(self.shown(*which).replace("<html", style, 1))
        )

    async def _file(self, request: Request) -> Response:
        def made(id: str, attempt: int) -> Response:
            name = {"Content-Disposition": f'attachment; filename="{id[:8]}-{attempt}.ipynb"'}
            return Response(self.file(id, attempt), headers=name, media_type="application/x-ipynb+json")

        return await run_in_threadpool(self._answer, request, made)

    async def _book(self, request: Request) -> Response:
        def made(id: str, _: int) -> Response:
            run = self._store.run(id)
            name = {"Content-Disposition": f'attachment; filename="{book.name(run)}"'}
            return Response(book.made(self._store, run), headers=name, media_type="application/x-ipynb+json")

        return await run_in_threadpool(self._answer, request, made)

    async def _left(self, request: Request) -> Response:
        def made(id: str, _: int) -> Response:
            asked = request.path_params
            file = files.opened(self._artifacts, self._store.run(id), asked["folder"], asked["name"])
            named = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(asked['name'], safe='')}"}
            return StreamingResponse(files.pieces(file), headers=named, media_type="application/octet-stream")

        return await run_in_threadpool(self._answer, request, made)

    async def _log(self, request: Request) -> Response:
        def made(id: str, attempt: int) -> Response:
            run = self._store.run(id)
            if not 1 <= attempt <= run.attempt:
                raise NotFound(f"run {run.id[:8]} has no attempt {attempt}")
            named = {"Content-Disposition": f'attachment; filename="{id[:8]}-{attempt}.txt"'}
            text = files.printed(self._store, run, attempt)
            return Response(text, headers=named, media_type="text/plain; charset=utf-8")

        return await run_in_threadpool(self._answer, request, made)

    def _answer(self, request: Request, make: Callable[[str, int], Response]) -> Response:
        try:
            answer = make(_whole(request.path_params["id"]), request.path_params.get("attempt", 0))
        except (NotFound, Unavailable, UsageError, ValueError) as error:
            said = document.message(f"There is nothing to show: {error}.")
            answer = HTMLResponse(said, 404 if isinstance(error, NotFound | UsageError) else 502)
        answer.headers["Content-Security-Policy"] = document.POLICY
        answer.headers["Cache-Control"] = "private, no-cache"
        return answer


_THEMES = ("light", "dark")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _whole(id: str) -> str:
    """No part of a request ever becomes a path that is not this."""
    if not _ID.fullmatch(id):
        raise NotFound("a run is named by its whole id")
    return id
