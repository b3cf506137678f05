"""What each node of a running flow writes to stdout and stderr, for whoever looks at one of them.

All nodes share the process's two streams; the call that the context of whoever writes is in says which node it is. A
stream's own ``write`` is heard, and not another ``sys.stdout`` in its place: logging's handlers hold the stream itself.
"""

from __future__ import annotations

import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowkit.flow.current import CALLED

if TYPE_CHECKING:
    from flowkit.flow.progress import Step

#: Lines that are kept of a node, the last ones; of its items together.
MOST = 200
_LONG = 1_000  # characters of a line
_OPEN = 100  # lines of a node that may wait for their end at once

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@dataclass(slots=True)
class Line:
    text: str
    stream: str  #: ``stdout`` or ``stderr``
    index: int | None  #: of the item that wrote it
    attempt: int


class Lines:
    """The last lines of every node, written by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nodes: dict[str, deque[Line]] = {}
        #: node -> (item, stream) -> the line that has not ended yet, which may have left the others
        self._open: dict[str, dict[tuple[int | None, str], Line]] = {}

    def hear(self, step: Step, stream: str, text: str) -> None:
        if not text:  # print(…, end="") writes it
            return
        name, key = step.wired.node.name, (step.index, stream)
        *whole, rest = text.split("\n")
        with self._lock:
            kept = self._nodes.get(name)
            if kept is None:
                kept = self._nodes[name] = deque(maxlen=MOST)
                self._open[name] = {}
            begun = self._open[name]
            line = begun.pop(key, None)
            for part in whole[:1] + whole[1:][-MOST:]:  # the first ends a line that may be there
                _continue(line, kept, step, stream, part)
                line = None
            if rest:
                begun[key] = _continue(line, kept, step, stream, rest)
                if len(begun) > _OPEN:
                    del begun[next(iter(begun))]

    def of(self, node: str) -> list[dict[str, Any]]:
        """As JSON, the oldest first."""
        with self._lock:
            found = [(line, line.text) for line in self._nodes.get(node, ())]
        return [_told(line, text) for line, text in found]

    def take(self, earlier: Lines, nodes: Iterable[str]) -> None:
        """What an earlier run has of these nodes."""
        self._nodes |= {name: earlier._nodes[name] for name in nodes if name in earlier._nodes}
        self._open |= {name: earlier._open[name] for name in nodes if name in earlier._open}


_lock = threading.Lock()
_listening = 0  # flows that run
_ends: list[Callable[[], None]] = []


@contextmanager
def heard() -> Iterator[None]:
    """While this lasts, what is written for a node is kept, and goes where it went before."""
    global _listening
    with _lock:
        if not _listening:
            both = {id(stream): (stream, name) for name in ("stderr", "stdout") if (stream := getattr(sys, name))}
            _ends[:] = [_listen(stream, name) for stream, name in both.values()]
        _listening += 1
    try:
        yield
    finally:
        with _lock:
            _listening -= 1
            for end in [] if _listening else _ends:
                end()


def _listen(stream: Any, name: str) -> Callable[[], None]:
    write = stream.write

    def heard(text: str) -> Any:
        done = write(text)
        call = CALLED.get()
        if call is not None and call.heard is not None:
            lines, step = call.heard
            lines.hear(step, name, text)
        return done

    def end() -> None:
        if vars(stream).get("write") is heard:  # else somebody has put another one over it, which calls this one
            del stream.write

    try:
        stream.write = heard
    except AttributeError:  # one that does not let itself be listened to
        return lambda: None
    return end


def _continue(line: Line | None, kept: deque[Line], step: Step, stream: str, text: str) -> Line:
    """The line with this text at its end. One that a progress bar has drawn over itself is as it was drawn last."""
    if line is None:
        line = Line("", stream, step.index, step.attempt)
        kept.append(line)
    text = line.text + text
    text = text[text.rstrip("\r").rfind("\r") + 1 :]
    line.text = text if len(text) <= _LONG else text[: _LONG - 1] + "…"
    return line


def _told(line: Line, text: str) -> dict[str, Any]:
    shown = _ESCAPES.sub("", text.rstrip("\r")).encode("utf-8", "replace").decode()
    told: dict[str, Any] = {"text": shown}
    if line.stream == "stderr":
        told["error"] = True
    if line.index is not None:
        told["item"] = line.index
    if line.attempt > 1:
        told["attempt"] = line.attempt
    return told
