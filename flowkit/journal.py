"""By what an executed notebook has grown since it was saved: appended to a file beside it, and replayed from there.

So to save a growing notebook costs what has grown. The file is of gzip members, one for each time something was
appended; what a crash has cut off at its end is passed over. The first names the notebook it is to be added to: with
another one there, which was saved later, it means nothing.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from flowkit.artifacts import Artifacts, journal_path, notebook_path

#: Bytes of an output that is told whatever there is room for.
_SMALL = 1_000

#: gzip's format, at zlib's level that is quickest.
_WINDOW, _LEVEL = 31, 1


class Journal:
    """Of one notebook while it is executed. ``begin`` with what was saved, then ``grown`` gives what to append."""

    def __init__(self) -> None:
        self._heads: dict[int, str] = {}  # cell -> all of it but its outputs
        self._outputs: dict[int, list[_Known]] = {}
        self._restless: set[int] = set()  # cells that have lost large outputs
        self._begun = ""
        self.late: set[int] = set()  #: cells of which there is more to be said than there was room for

    def begin(self, text: str) -> None:
        """*text*: the notebook as it was saved."""
        self._begun = sha256(text.encode()).hexdigest()
        self._heads, self._outputs, self.late = {}, {}, set()
        for index, cell in enumerate(json.loads(text)["cells"]):
            self._changes(index, cell, room=0)

    def grown(self, cells: Mapping[int, Mapping[str, Any]], *, room: int) -> Growth:
        """What these cells have become, as far as that is new.

        Args:
            cells: by where they stand.
            room: bytes that may yet be written in vain. Large outputs are put off that take the place of others, or
                stand in a cell where some have.
        """
        lines, passing = [], 0
        for index, cell in cells.items():
            change, lost = self._changes(index, cell, room=room - passing)
            passing += lost
            if change:
                lines.append(f'{{"cell": {index}, {", ".join(change)}}}\n')
        if not lines:
            return Growth(b"", False, 0, passing)
        size, begins, self._begun = sum(map(len, lines)), self._begun, ""
        if begins:
            lines.insert(0, json.dumps({"notebook": begins}) + "\n")
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW)
        return Growth(packer.compress("".join(lines).encode()) + packer.flush(), bool(begins), size, passing)

    def _changes(self, index: int, cell: Mapping[str, Any], *, room: int) -> tuple[list[str], int]:
        """What is new of the cell, as JSON, and how many bytes were told before of what is gone."""
        change, new_outputs, more, lost = list[str](), list[str](), list[str](), 0
        self.late.discard(index)
        head = {key: value for key, value in cell.items() if key != "outputs"}
        if (told := json.dumps(head)) != self._heads.get(index):
            self._heads[index] = told
            change.append(f'"head": {told}')
        outputs, known = cell.get("outputs", ()), self._outputs.setdefault(index, [])
        for number, output in enumerate(outputs):
            told = json.dumps(output)
            new = _Known(output, told)
            before = known[number] if number < len(known) else None
            if before == new:
                continue
            if before is not None and before.continued(output):
                more.append(f'"{number}": {json.dumps(_text(output)[before.length :])}')
                known[number] = new
                continue
            if before is not None and before.size > _SMALL:
                self._restless.add(index)
            if index in self._restless and new.size > max(_SMALL, room - lost):
                self.late.add(index)
                break
            new_outputs.append(f'"{number}": {told}')
            lost += 0 if before is None else before.size
            known[number : number + 1] = [new]
        if len(outputs) < len(known):
            change.append(f'"count": {len(outputs)}')
            gone = [output.size for output in known[len(outputs) :]]
            lost += sum(gone)
            if max(gone) > _SMALL:
                self._restless.add(index)
            del known[len(outputs) :]
        for name, pieces in (("outputs", new_outputs), ("more", more)):
            if pieces:
                change.append(f'"{name}": {{{", ".join(pieces)}}}')
        return change, lost


class Growth(NamedTuple):
    data: bytes  #: to be appended; empty if nothing has changed
    begins: bool  #: in place of what is in the journal
    size: int  #: of what it says, in bytes
    passing: int  #: that were told before of what is gone now


class _Known:
    """What is remembered of an output that was told."""

    def __init__(self, output: Mapping[str, Any], told: str) -> None:
        self.size, self._digest = len(told), hash(told)
        self._stream = output.get("name") if output["output_type"] == "stream" else None
        text = _text(output) if self._stream else ""
        self.length, self._text = len(text), hash(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known) and (self.size, self._digest) == (other.size, other._digest)

    __hash__ = None  # type: ignore[assignment]

    def continued(self, output: Mapping[str, Any]) -> bool:
        """Whether *output* is this stream, and begins with what was in it."""
        same = self._stream is not None and output["output_type"] == "stream" and output["name"] == self._stream
        return same and hash(_text(output)[: self.length]) == self._text


def _text(output: Mapping[str, Any]) -> str:
    text = output["text"]
    return text if isinstance(text, str) else "".join(text)


def replayed(text: str, journal: bytes | None) -> str:
    """The notebook *text* with what its journal says; as it is if that is of another one."""
    changes = _read(journal or b"")
    if next(changes, {}).get("notebook") != sha256(text.encode()).hexdigest():
        return text
    notebook = json.loads(text)
    cells = notebook["cells"]
    for change in changes:
        if "cell" not in change:
            continue
        outputs = cells[change["cell"]].get("outputs")
        if "head" in change:
            cells[change["cell"]] = change["head"] | ({} if outputs is None else {"outputs": outputs})
        if outputs is None:
            continue
        for number, more in change.get("more", {}).items():
            output = outputs[int(number)]
            output["text"] = (_text(output) + more).splitlines(keepends=True)
        for number, output in change.get("outputs", {}).items():
            outputs[int(number) : int(number) + 1] = [output]
        del outputs[change.get("count", len(outputs)) :]
    return json.dumps(notebook, indent=1, sort_keys=True) + "\n"


def read_notebook(artifacts: Artifacts, run: str, attempt: int) -> bytes | None:
    """The attempt's executed notebook as it is, or has come to be so far; None if none was saved."""
    saved = artifacts.read(notebook_path(run, attempt))
    journal = artifacts.read(journal_path(run, attempt)) if saved is not None and artifacts.appends else None
    return saved if saved is None or not journal else replayed(saved.decode(), journal).encode()


def _read(journal: bytes) -> Iterator[dict[str, Any]]:
    while journal:
        member = zlib.decompressobj(_WINDOW)
        try:
            lines = member.decompress(journal)
        except zlib.error:
            return
        if not member.eof:
            return
        for line in lines.decode().splitlines():
            yield json.loads(line)
        journal = member.unused_data
