"""The one reader of the store: asks twice a second what all open browsers together look at, and hands it out.

So fifty browsers on the same page cost the database as much as one, and none of them waits for another's question.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any, Protocol, TypeVar

from flowkit.artifacts import Artifacts
from flowkit.errors import FlowkitError, Unavailable
from flowkit.model import now
from flowkit.server.actions import Actions
from flowkit.server.pulse import Pulse
from flowkit.store import Store

log = logging.getLogger("flowkit.server")

#: Seconds between two looks at the store: what happens shall be on the screen within one.
EVERY = 0.5
#: A store that takes long to answer rests as long again, up to so many seconds. Pages take more silence for an outage.
SELDOM = 2.0
#: Seconds that many requests of browsers are gathered before they are answered together.
GATHER = 0.02

T = TypeVar("T")


class Question(Hashable, Protocol):
    """What a page shows, or a part of it. Equal ones are read once, for all browsers that ask.

    A frozen dataclass. Both methods are called in the reader's thread.
    """

    def read(self, look: Look, before: Any) -> Any:
        """The answer, in the store's own dataclasses. *before*: of the look before this; None in the first.

        The same object again says that nothing has changed. A ``FlowkitError`` is told in place of the answer.
        """
        ...

    def tell(self, found: Any) -> dict[str, Any]:
        """The answer as named parts, each JSON (not null) or ``Piecemeal``; a browser is sent those new to it."""
        ...


class Piecemeal(Protocol):
    """A part of which a browser that has the last one is sent what is new in it."""

    def since(self, before: Any) -> Any:
        """JSON; None: nothing. *before*: what it has, None at first."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What a browser looks at: named questions, each with a number that grows when it turns to another."""

    questions: Mapping[str, tuple[int, Question]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at the store has found for one browser."""

    at: datetime
    asked: Asked
    found: Mapping[str, Any] = field(default_factory=dict)  #: by the questions' names; or the error that says why not
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  #: the same as it is told
    problem: str | None = None  #: why the store does not answer; nothing was found then


class Viewer(Protocol):
    """A browser. ``asked`` is read, and ``show`` is called, in the reader's thread."""

    asked: Asked

    def show(self, seen: Seen) -> None: ...


@dataclass(slots=True)
class _Known:
    """The answer to a question, and how it is told."""

    found: Any
    parts: Mapping[str, Any]


class Look:
    """One look at the store: what questions read from."""

    def __init__(
        self,
        store: Store,
        artifacts: Artifacts,
        actions: Actions,
        pulse: Pulse | None,
        at: datetime,
        before: Mapping[Question, _Known],
        kept: dict[Hashable, tuple[float, Any]],
    ) -> None:
        self.store = store
        self.artifacts = artifacts
        self.actions = actions
        self.pulse = pulse  #: None: nobody feels it
        self.at = at
        self.known: dict[Question, _Known] = {}  #: of this look
        self._before = before
        self._kept = kept

    def found(self, question: Question) -> Any:
        """The answer to another question, which is read once in a look. Raises what that raised."""
        known = self.known.get(question)
        if known is None:
            known = self.known[question] = self._read(question)
        if isinstance(known.found, FlowkitError):
            raise known.found
        return known.found

    def seldom(self, key: Hashable, seconds: float, read: Callable[[], T]) -> T:
        """The answer of *read*, for so many seconds the same: of what costs too much to be read at each look."""
        until, value = self._kept.get(key, (0.0, None))
        if monotonic() >= until:
            if len(self._kept) > 1_000:
                self._kept.clear()
            value = read()
            self._kept[key] = monotonic() + seconds, value
        return value  # type: ignore[no-any-return]

    def sparingly(self, key: Hashable, read: Callable[[], T]) -> T:
        """The answer of *read*, for nine times as long as it took the same: it costs a tenth of the time at most."""
        until, value = self._kept.get(key, (0.0, None))
        began = monotonic()
        if began >= until:
            value = self.seldom(key, 0.0, read)
            self._kept[key] = monotonic() + 9 * (monotonic() - began), value
        return value  # type: ignore[no-any-return]

    def _read(self, question: Question) -> _Known:
        before = self._before.get(question)
        last = None if before is None or isinstance(before.found, FlowkitError) else before.found
        try:
            found = question.read(self, last)
        except Unavailable:
            raise
        except FlowkitError as error:
            return _Known(error, {"missing": str(error)})
        if before is not None and found is before.found:
            return before
        return _Known(found, question.tell(found))


class Reader:
    """Looks at the store in a thread of its own while there is a viewer."""

    def __init__(
        self,
        store: Store,
        artifacts: Artifacts,
        actions: Actions,
        pulse: Pulse | None = None,
        *,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._actions = actions
        self._pulse = pulse
        self._clock = clock
        self._viewers: list[Viewer] = []
        self._known: dict[Question, _Known] = {}
        self._kept: dict[Hashable, tuple[float, Any]] = {}
        self._woken = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="flowkit-reader", daemon=True)
        self._thread.start()

    def add(self, viewer: Viewer) -> None:
        self._viewers.append(viewer)
        self.wake()

    def remove(self, viewer: Viewer) -> None:
        if viewer in self._viewers:
            self._viewers.remove(viewer)

    def wake(self) -> None:
        """A viewer looks at something else now: do not wait for the next second."""
        self._woken.set()

    def close(self) -> None:
        self._closed.set()
        self._woken.set()
        self._thread.join(timeout=5)

    def _loop(self) -> None:
        took = 0.0
        while not self._closed.is_set():
            if self._woken.wait(min(max(EVERY, took), SELDOM) if self._viewers else None):
                self._closed.wait(GATHER)
            self._woken.clear()
            viewers = list(self._viewers)
            if viewers and not self._closed.is_set():
                began = monotonic()
                self._look(viewers)
                took = monotonic() - began

    def _look(self, viewers: Sequence[Viewer]) -> None:
        look = Look(self._store, self._artifacts, self._actions, self._pulse, self._clock(), self._known, self._kept)
        # Read once: a viewer may turn elsewhere meanwhile, and is answered what it asked when this look began.
        asked = [(viewer, viewer.asked) for viewer in viewers]
        broken: dict[Question, str] = {}
        try:
            for question in dict.fromkeys(one for _, what in asked for _, one in what.questions.values()):
                _read(look, question, broken)
        except Unavailable as error:  # the next time may be better; the page must not stand still
            for viewer, what in asked:
                self._tell(viewer, Seen(look.at, what, problem=str(error)))
            return
        self._known = look.known
        for viewer, what in asked:
            wanted = {name: question for name, (_, question) in what.questions.items()}
            problem = next((broken[question] for question in wanted.values() if question in broken), None)
            known = {name: look.known[question] for name, question in wanted.items() if question in look.known}
            found = {name: one.found for name, one in known.items()}
            parts = {name: one.parts for name, one in known.items()}
            self._tell(viewer, Seen(look.at, what, found, parts, problem))

    def _tell(self, viewer: Viewer, seen: Seen) -> None:
        try:
            viewer.show(seen)
        except Exception:  # one browser's trouble is not the others'; its page notices the silence and loads again
            log.exception("a browser could not be told the news")
            self.remove(viewer)


def _read(look: Look, question: Question, broken: dict[Question, str]) -> None:
    try:
        look.found(question)
    except Unavailable:
        raise
    except FlowkitError:
        pass  # that is an answer
    except Exception as error:  # one page's fault is not the others'
        log.exception("the dashboard could not read %s", question)
        broken[question] = f"{type(error).__name__}: {error}"
