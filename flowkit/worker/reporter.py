"""Tells of a run while it runs: its events and the document so far, by two callbacks, from a thread of its own.

Of its own, so that a slow store or disk never keeps the kernel's output waiting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from flowkit.events import Event
from flowkit.journal import Journal
from flowkit.model import epoch
from flowkit.redaction import Redaction

#: Seconds between two looks at the kernel's log and between two batches of output.
PERIOD = 0.2

#: Seconds that what is urgent waits for more of its kind. What a short run has to tell, it tells once.
GAP = 0.05

#: Seconds until the first save: a run that is over by then saves once.
FIRST_SAVE = 0.3

#: Seconds between two saves at least, and between two additions to the document's journal. What took long makes the
#: pause longer: saving takes at most a tenth of the time, and what is added half of it, as it is all there is to do for
#: it. So does a large document where there is no journal.
SAVE_PERIOD, GROW_PERIOD = 1.0, 0.5
_SAVE_SHARE = 0.1
_BYTES_PER_SECOND = 2_000_000

#: Bytes, at once and for each second of the run, that may be written of what the document does not have in the end:
#: earlier saves, and outputs that others take the place of.
_PASSING, _PASSING_EACH_SECOND = 1_000_000, 2_000


class Reporter:
    """Its callbacks are never called at the same time, and not after the ``with`` block has ended.

    An exception of theirs ends the reporting: it is kept in ``error``, and ``alarm`` is called.
    """

    def __init__(
        self,
        *,
        on_events: Callable[[Sequence[Event]], None],
        on_last: Callable[[Sequence[Event]], None],
        on_save: Callable[[str], None],
        on_growth: Callable[[bytes, bool], None] | None,
        render: Callable[[], str],
        grown: Callable[[Iterable[int]], Mapping[int, Mapping[str, Any]]],
        log: Path,
        redaction: Redaction,
    ) -> None:
        """
        Args:
            on_last: as ``on_events``, once, when the run is over.
            on_growth: gets what to add to the document's journal, and whether that begins anew; None: there is none.
            render: gives the document; called from the reporter's thread.
            grown: gives the cells that have changed, and those it is given; from there, too.
            log: to which the kernel appends its events.
            redaction: nothing that is told holds what it hides.
        """
        self.error: BaseException | None = None
        self.alarm: Callable[[], None] = lambda: None
        self._on_events, self._on_last, self._on_save, self._render = on_events, on_last, on_save, render
        self._on_growth, self._grown = on_growth, grown
        self._journal = Journal()
        self._size = self._passing = 0  # bytes of the document as far as it was written, and of what may not stay
        self._log = Follower(log)
        self._redaction = redaction
        self._held: dict[str, str] = {}  # stream -> its end, which may be the beginning of what is to be hidden
        self._ready = threading.Condition()
        self._events: list[Event] = []
        self._text: list[str] = []  # of the last event, if that is output
        self._urgent = False
        self._changed = False
        self._closing = False
        self._began = self._saved = time.monotonic()
        self._next_save = self._began + FIRST_SAVE
        self._thread = threading.Thread(target=self._work, name="flowkit-reporter", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join()

    def event(self, *events: Event) -> None:
        """Tell of a change of state, nearly at once."""
        with self._ready:
            self._release()
            self._events += events
            self._urgent = self._changed = True
            self._ready.notify()

    def output(self, name: str, text: str) -> None:
        """Tell of output, with the next batch. What follows without a break is one event."""
        with self._ready:
            if not self._text or self._events[-1].name != name:
                self._join_text()
                self._events.append(Event("output", epoch(), name))
            self._text.append(text)
            self._changed = True

    def note(self, event: Event) -> None:
        """Tell of something that is in no hurry, with the next batch. From any thread."""
        with self._ready:
            self._join_text()
            self._events.append(event)

    def changed(self) -> None:
        """The document is no longer what was saved."""
        self._changed = True

    def finish(self) -> None:
        """The kernel is gone and the document final: tell all that is left, and save a last time."""
        self.__exit__(None, None, None)
        if self.error is not None:
            raise self.error
        with self._ready:
            self._release()
        self._tell(self._on_last)
        self._on_save(self._render())

    def _work(self) -> None:
        try:
            while True:
                with self._ready:
                    self._ready.wait_for(lambda: self._urgent or self._closing, PERIOD)
                    if self._ready.wait_for(lambda: self._closing, GAP):
                        return
                self._tell(self._on_events)
                if self._changed and time.monotonic() >= self._next_save:
                    self._save()
        except BaseException as error:
            self.error = error
            self.alarm()

    def _tell(self, on_events: Callable[[Sequence[Event]], None]) -> None:
        with self._ready:
            self._join_text()
            events, self._events, self._urgent = self._events, [], False
        events += self._log.read()
        if events:
            on_events([self._redaction.event(event) for event in events])

    def _save(self) -> None:
        began = time.monotonic()
        self._changed = False  # before the document is read: what changes meanwhile is saved next time
        room = int(_PASSING + _PASSING_EACH_SECOND * (began - self._began)) - self._passing
        if self._on_growth is None:
            pause = max(SAVE_PERIOD, self._save_whole() / _BYTES_PER_SECOND)
        elif not self._size or (began - self._saved >= SAVE_PERIOD and self._size < room / 2):
            self._saved = began
            pause, self._passing = GROW_PERIOD, self._passing + self._save_whole()
        else:
            self._save_growth(self._on_growth, room)
            self._next_save = time.monotonic() + max(GROW_PERIOD, time.monotonic() - began)
            return
        ended = time.monotonic()
        self._next_save = ended + max(pause, (ended - began) / _SAVE_SHARE)

    def _save_whole(self) -> int:
        text = self._render()
        self._on_save(text)
        if self._on_growth is not None:
            self._journal.begin(text)
        self._size = len(text)
        return self._size

    def _save_growth(self, on_growth: Callable[[bytes, bool], None], room: int) -> None:
        growth = self._journal.grown(self._grown(self._journal.late), room=room)
        if growth.data:
            on_growth(growth.data, growth.begins)
        self._size += growth.size
        self._passing += growth.passing
        self._changed |= bool(self._journal.late)

    def _release(self) -> None:
        """No more comes of what was begun."""
        self._join_text()
        self._events += [Event("output", epoch(), name, data=text) for name, text in self._held.items()]
        self._held = {}

    def _join_text(self) -> None:
        if not self._text:
            return
        last = self._events.pop()
        text = "".join(self._text)
        self._text = []
        if self._redaction:
            text = self._redaction.text(self._held.pop(last.name, "") + text)
            if held := self._redaction.unfinished(text):
                self._held[last.name], text = text[-held:], text[:-held]
        if text:
            self._events.append(Event(last.kind, last.at, last.name, data=text))


class Follower:
    """Reads a log of events while another process appends to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0  #: bytes of whole lines

    def read(self) -> list[Event]:
        """The events of the lines that are new and whole. A line that is no event is passed over."""
        try:
            with self._path.open("rb") as log:
                log.seek(self._read)
                new = log.read()
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        return list(_events(whole))


def _events(lines: bytes) -> Iterator[Event]:
    for line in lines.splitlines():
        try:
            event = Event.from_json(line.decode())
        except (ValueError, TypeError, AttributeError):  # cut in two by a crash, or not ours
            continue
        if event.kind in ("flow", "node", "packages"):
            yield event
