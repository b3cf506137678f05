"""What a kernel says, put where it belongs in the document. The only module that imports nbclient.

nbclient knows what displays, their updates, cleared outputs and widgets mean for a document. Its loop around that is
not used: it fails healthy runs by a timeout of its own, and joins streams only when a cell has ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionComplete

from flowkit.worker.executed import Executed
from flowkit.worker.process import Message

#: Characters of output kept for a cell and for a run, in the document and once more in the log.
CELL_LIMIT = 10_000_000
RUN_LIMIT = 50_000_000

_NOT_KEPT = (
    f"[flowkit: output beyond {CELL_LIMIT // 10**6} MB in a cell or {RUN_LIMIT // 10**6} MB in a run is not kept]\n"
)

_OUTPUT = {"stream", "display_data", "execute_result", "error", "update_display_data", "clear_output"}
_ABOUT_A_CELL = {"status", "execute_input", "comm_open", "comm_msg", "comm_close"}

#: Characters of a stream that may wait to be joined to what is in the document.
_SETTLE = 1_000_000


class Outputs:
    """The outputs of the cells of one document. ``settle`` may be called from any thread, the rest from one."""

    def __init__(self, executed: Executed, client: Any, on_stream: Callable[[str, str], None]) -> None:
        """
        Args:
            client: of jupyter_client, through which output widgets answer their kernel.
            on_stream: is told what goes to ``stdout`` or ``stderr``, as far as the limits allow.
        """
        self._executed = executed
        self._on_stream = on_stream
        self._jupyter = NotebookClient(executed.nb)
        self._jupyter.kc = client
        self._jupyter.clear_before_next_output = False
        self._cells: dict[str, int] = {}
        self._current: int | None = None
        self._kept, self._logged = _Budget(), _Budget()
        self._open: Any = None  # the stream output that the tail continues
        self._open_index = 0
        self._tail: list[str] = []
        self._tail_size = 0

    def expect(self, request: str, index: int) -> None:
        """What comes of *request* belongs to the cell at *index*; so does, from now on, what comes of no request."""
        self._cells[request] = self._current = index
        with self._executed.lock:
            self._executed.nb.cells[index].metadata["execution"] = {}

    def unwanted(self, kind: str, request: str, size: int) -> bool:
        """No room is left for it, and the document and the log say so already."""
        index = self._cells.get(request, self._current)
        if index is None or not self._kept.refuses(index, size):
            return False
        return kind in ("display_data", "execute_result") or (kind == "stream" and self._logged.refuses(index, size))

    def take(self, message: Message) -> None:
        """Late output of an earlier cell, as a thread's, goes to that cell."""
        index = self._cells.get(message.parent)
        if index is None and message.type in _OUTPUT:
            index = self._current
        if index is None or message.type not in _OUTPUT | _ABOUT_A_CELL:
            return
        with self._executed.lock:
            if message.type == "stream":
                self._stream(message, index)
            else:
                self._other(message, index)

    def settle(self) -> None:
        """Put into the document what waits. To be called before it is read."""
        with self._executed.lock:
            if self._tail:
                before = len(self._open.text) + self._tail_size
                self._open.text = overwritten(self._open.text + "".join(self._tail))
                self._kept.give_back(self._open_index, before - len(self._open.text))
                self._tail, self._tail_size = [], 0
                self._executed.touch(self._open_index)

    def finish(self) -> None:
        """The kernel is gone."""
        with self._executed.lock:
            self.settle()
            self._jupyter.set_widgets_metadata()

    def _stream(self, message: Message, index: int) -> None:
        name, text = message.body["content"]["name"], message.body["content"]["text"]
        self._log(index, name, text)
        if len(text) > self._kept.room(index):
            self.settle()  # a progress bar overwrites itself, and so makes room
        kept = self._kept.take(index, len(text))
        if kept:
            self._append(message, index, name, text[:kept])
        if kept < len(text):
            self._refuse(index)

    def _append(self, message: Message, index: int, name: str, text: str) -> None:
        outputs = self._executed.nb.cells[index].outputs
        last = outputs[-1] if outputs else None
        captured = self._jupyter.output_hook_stack.get(message.parent) or self._jupyter.clear_before_next_output
        if captured or last is None or last.output_type != "stream" or last.name != name:
            message.body["content"]["text"] = overwritten(text)
            self._process(message, index)
            return
        if last is not self._open:
            self.settle()
            self._open, self._open_index = last, index
        self._tail.append(text)
        self._tail_size += len(text)
        self._executed.touch(index)
        if self._tail_size > _SETTLE:
            self.settle()

    def _other(self, message: Message, index: int) -> None:
        if message.type == "clear_output":
            self.settle()
            self._open = None
            self._kept.clear(index)
        elif message.type in ("display_data", "execute_result"):
            if self._kept.room(index) < message.size:
                self._refuse(index)
                return
            self._kept.take(index, message.size)
        elif message.size > CELL_LIMIT:  # of an update or a widget nothing adds up: it replaces
            self._refuse(index)
            return
        self._process(message, index)

    def _process(self, message: Message, index: int) -> None:
        try:
            self._jupyter.process_message(message.body, self._executed.nb.cells[index], index)
        except CellExecutionComplete:
            pass
        except Exception as error:  # a kernel may send anything
            self._executed.note(index, f"[flowkit: an output could not be kept: {type(error).__name__}: {error}]\n")
        if display := (message.body["content"].get("transient") or {}).get("display_id"):
            for shown in self._jupyter._display_id_map.get(display, ()):  # it is updated wherever it was shown
                self._executed.touch(shown)
        self._executed.touch(index)

    def _refuse(self, index: int) -> None:
        if self._kept.first_refusal(index):
            self._executed.note(index, _NOT_KEPT)

    def _log(self, index: int, name: str, text: str) -> None:
        taken = self._logged.take(index, len(text))
        if taken:
            self._on_stream(name, text[:taken])
        if taken < len(text) and self._logged.first_refusal(index):
            self._on_stream("stderr", _NOT_KEPT)


class _Budget:
    """How much of the limits is used up, by cell."""

    def __init__(self) -> None:
        self._cells: dict[int, int] = defaultdict(int)
        self._run = 0
        self._refused: set[int] = set()

    def room(self, cell: int) -> int:
        return max(0, min(CELL_LIMIT - self._cells[cell], RUN_LIMIT - self._run))

    def take(self, cell: int, size: int) -> int:
        """As much of *size* as there is room for."""
        taken = min(size, self.room(cell))
        self._cells[cell] += taken
        self._run += taken
        return taken

    def give_back(self, cell: int, size: int) -> None:
        size = min(size, self._cells[cell])
        self._cells[cell] -= size
        self._run -= size

    def clear(self, cell: int) -> None:
        self.give_back(cell, self._cells[cell])
        self._refused.discard(cell)

    def refuses(self, cell: int, size: int) -> bool:
        return cell in self._refused and self.room(cell) < size

    def first_refusal(self, cell: int) -> bool:
        """True once, until ``clear``."""
        first = cell not in self._refused
        self._refused.add(cell)
        return first


def overwritten(text: str) -> str:
    """The text as a terminal shows it after its carriage returns: of a progress bar, the last state."""
    if "\r" not in text:
        return text
    lines = []
    for line in text.split("\n"):
        body = line.rstrip("\r")
        lines.append(body.rpartition("\r")[2] + line[len(body) : len(body) + 1])
    return "\n".join(lines)
