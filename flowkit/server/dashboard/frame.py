"""One browser's dashboard: a component that draws itself in the browser, told only what has changed.

Texts travel as JSON and become text nodes: no name, error or log line is ever read as markup.

A page is a file in the browser and a module here, of one name:

- ``deployments.js`` has a class: ``root`` is its element; ``open(query)``: it is looked at, by this address;
  ``ask()``: its questions, ``{name: {…}}``; ``draw(told)``: what is new in the answers, ``{name: {part: …}}``;
  ``tick()``: each half second. ``PAGES`` in ``frame.js`` names it. What it has of the frame: ``go(address)``,
  ``link(address, …)``, ``ask()``, ``act(name, given)``, ``may(role)``, ``confirm(text, button)``, ``now()``.
- ``deployments.py`` has ``QUESTIONS``, of which each makes a ``reading.Question`` of what the browser said under that
  name; and ``ACTS``, what can be done there, see ``acts``.
- ``deployments.css`` has its looks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import panel as pn
import param
from panel.custom import JSComponent

from flowkit.model import Role
from flowkit.server.dashboard import audit, deployments, now, queue, run, runs
from flowkit.server.dashboard.acts import Act
from flowkit.server.dashboard.reading import Asked, Question, Reader, Seen

_MODULES = (now, runs, run, deployments, queue, audit)

#: Of all pages, by the names that the browser calls them.
QUESTIONS: dict[str, Callable[[Mapping[str, Any]], Question]] = {
    name: make for page in _MODULES for name, make in page.QUESTIONS.items()
}

#: Who is told what not everybody is, who may look.
NEEDS = dict.fromkeys(audit.QUESTIONS, Role.ADMIN)

ACTS: dict[str, Act] = {name: act for page in _MODULES for name, act in page.ACTS.items()}

_FOLDER = Path(__file__).parent
_PAGES = ("now", "runs", "run", "deployments", "queue", "audit")

_DOCUMENT = """
{% extends base %}
{% block postamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<style>body { background: light-dark(#f7f7f5, #131517) }</style>
{% endblock %}
{% block contents %}{{ embed(roots.page) }}{% endblock %}
"""


def page(reader: Reader, role: Role, *, store: str) -> Any:
    """A new browser's page. *store*: which database it shows, in words."""
    viewer = Viewer(reader, role, store)
    pn.state.on_session_destroyed(lambda _: reader.remove(viewer))
    template = pn.Template(_DOCUMENT)
    template.add_panel("page", viewer.component)
    return template


def _texts(*names: str) -> str:
    return "".join((_FOLDER / name).read_text(encoding="utf-8") for name in names)


class Frame(JSComponent):
    """The part in the browser: ``frame.js`` asks, and draws the answers."""

    store = param.String()

    # One module in several files: what one of them declares, all have.
    _esm = _texts("frame.js", *(f"{name}.js" for name in _PAGES), "parts.js", "misfits.js")
    # Its text, not its path: it needs no route of its own then.
    _stylesheets = [_texts("frame.css", *(f"{name}.css" for name in _PAGES))]  # noqa: RUF012  # Panel's own attribute

    def __init__(self, ask: Callable[[Any], None], **params: Any) -> None:
        super().__init__(**params)
        self._ask = ask

    def _handle_msg(self, data: Any) -> None:
        self._ask(data)

    def tell(self, message: dict[str, Any]) -> None:
        """From any thread."""
        self._send_msg(json.dumps(message))


class Viewer:
    """What one browser asked for, and what it has been told."""

    def __init__(self, reader: Reader, role: Role, store: str) -> None:
        self.asked = Asked()
        self._role = role
        self.component = Frame(self._ask, store=store)
        self._reader = reader
        self._looking = False
        self._told: dict[str, tuple[int, dict[str, Any]]] = {}  #: by question: its turn, and the parts

    def _ask(self, data: Any) -> None:
        """The browser's questions: ``{name: {turn, …}}``."""
        questions = {
            name: (int(said["turn"]), QUESTIONS[name](said))
            for name, said in data.items()
            if self._role.covers(NEEDS.get(name, Role.VIEWER))
        }
        self.asked = Asked(questions)
        if self._looking:
            self._reader.wake()
        else:  # only now: a page that is fetched and never drawn costs nothing
            self._looking = True
            self._reader.add(self)

    def show(self, seen: Seen) -> None:
        told = {}
        for name in self._told.keys() - seen.asked.questions.keys():
            del self._told[name]
        for name, parts in seen.parts.items():
            turn = seen.asked.questions[name][0]
            # The browser drops answers to what it has turned away from, so what it turns to is told in full.
            known = before if (before := self._told.get(name, (-1, {})))[0] == turn else (turn, {})
            self._told[name] = known
            if news := _news(known[1], parts):
                told[name] = {"turn": turn, **news}
        self.component.tell({"now": seen.at.timestamp(), "problem": seen.problem, "told": told})


def _news(known: dict[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    news = {}
    if ("missing" in known) != ("missing" in parts):
        known.clear()
    for part, value in parts.items():
        if hasattr(value, "since"):
            fresh = value.since(known.get(part))
        else:
            fresh = None if part in known and known[part] == value else value
        if fresh is not None:
            news[part] = fresh
        known[part] = value
    return news
