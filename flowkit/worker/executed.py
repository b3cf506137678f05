"""The executed notebook as a document. The only module that imports papermill and nbformat.

papermill places the parameters, and its metadata and markers are written here as it writes them, so that every tool
that reads its notebooks reads ours. Its engine is not used: its document says "completed" for a dead kernel.
"""

from __future__ import annotations

import ast
import html
import json
import keyword
import math
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import papermill
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_output, reads, upgrade
from nbformat.v4.rwbase import split_lines
from papermill.exceptions import PapermillException
from papermill.execute import (
    ERROR_ANCHOR_MSG,
    ERROR_MARKER_TAG,
    ERROR_MESSAGE_TEMPLATE,
    ERROR_STYLE,
    remove_error_markers,
)
from papermill.parameterize import parameterize_notebook
from papermill.translators import PythonTranslator, Translator, papermill_translators

from flowkit.errors import NotebookError, SetupError
from flowkit.family import SUSPENDED
from flowkit.model import Cause, CurrentRun, Ending, State
from flowkit.redaction import Redaction

#: What the error output of a cell that was cut off is named by; the author's own errors bear their own names.
CUT_OFF = {Cause.CRASHED: "KernelDied", Cause.TIMEOUT: "Timeout", Cause.MEMORY: "OutOfMemory", None: "Cancelled"}


@dataclass(frozen=True, slots=True)
class Cell:
    """A code cell that is to run. ``number`` counts from 1 and is what Jupyter shows as ``In [number]``."""

    number: int
    index: int  #: in the document
    source: str
    may_raise: bool  #: tagged ``raises-exception``


class Executed:
    """The notebook of one attempt, from before its first cell to after its last.

    Whoever changes it holds ``lock``, for ``text`` is called by another thread.
    """

    def __init__(self, text: str, current: CurrentRun, redaction: Redaction | None = None) -> None:
        """
        Args:
            text: a notebook as JSON, nbformat 4.
            redaction: ``text()`` holds nothing of what it hides.
        """
        self._redaction = Redaction() if redaction is None else redaction
        try:
            nb = reads(text)
            nb = upgrade(nb) or nb
            for cell in nb.cells:
                cell.metadata.setdefault("tags", [])
                cell.metadata["papermill"] = _unstarted()
                if cell.cell_type == "code":
                    cell.outputs, cell.execution_count = [], None
            nb = remove_error_markers(nb)
        except Exception as error:  # whatever a damaged document makes of nbformat
            raise NotebookError(f"{current.notebook} is not a notebook: {type(error).__name__}: {error}") from error
        self.lock = threading.RLock()
        self.nb = nb
        self._texts: list[str | None] = [None] * len(nb.cells)
        self._grown: set[int] = set()  # cells that changed since ``grown`` or ``text`` were called
        nb.metadata["papermill"] = {
            "default_parameters": {},
            "parameters": {},
            "environment_variables": {},
            "version": papermill.__version__,
            "input_path": current.notebook,
            "output_path": None,
            "start_time": None,
            "end_time": None,
            "duration": None,
            "exception": None,
        }
        nb.metadata["flowkit"] = {
            "run": current.id,
            "attempt": current.attempt,
            "deployment": current.deployment,
            "scheduled_for": current.scheduled_for and current.scheduled_for.isoformat(),
            "state": State.RUNNING.value,
            "cause": None,
            "error": None,
        }

    @property
    def kernel(self) -> str | None:
        """The kernel the notebook names."""
        spec = self.nb.metadata.get("kernelspec")
        name = spec.get("name") if isinstance(spec, dict) else None
        return name if isinstance(name, str) and name else None

    def set_kernel(self, name: str, *, display_name: str, language: str) -> None:
        with self.lock:
            self.nb.metadata["kernelspec"] = {"name": name, "display_name": display_name, "language": language}

    def set_language(self, info: Any) -> None:
        """*info*: what the kernel says of its language."""
        with self.lock:
            if isinstance(info, dict):
                self.nb.metadata["language_info"] = info

    def inject(self, parameters: Mapping[str, Any], *, scheduled_for: datetime | None) -> None:
        """Put a cell with the parameters after the one tagged ``parameters``, replacing one injected before.

        Args:
            scheduled_for: aware, with a zone's name; the cell sets it if the ``parameters`` cell declares it.
        """
        spec = self.nb.metadata.kernelspec
        declared = next((cell for cell in self.nb.cells if "parameters" in cell.metadata.tags), None)
        if scheduled_for is not None and (
            declared is None or not _declares_scheduled_for(declared.source, spec.language)
        ):
            scheduled_for = None
        if "scheduled_for" in parameters:
            scheduled_for = None  # given by hand
        if parameters or scheduled_for is not None:
            source = _assignments(parameters, scheduled_for, kernel=spec.name, language=spec.language)
            placed = parameterize_notebook(self.nb, {}, kernel_name=spec.name, language=spec.language)
            self.nb.cells = placed.cells
            cell = next(cell for cell in self.nb.cells if "injected-parameters" in cell.metadata.tags)
            cell.source = source
            cell.metadata["papermill"] = _unstarted()
        elif declared is not None:  # what an earlier run injected is not this run's
            self.nb.cells = [cell for cell in self.nb.cells if "injected-parameters" not in cell.metadata.tags]
        self.nb.metadata.papermill["parameters"] = _standard(dict(parameters))
        self.touch_all()

    def cells(self) -> list[Cell]:
        """Those that are to run: code, not empty, not tagged ``skip-execution``."""
        found = [
            (index, cell)
            for index, cell in enumerate(self.nb.cells)
            if cell.cell_type == "code" and cell.source.strip() and "skip-execution" not in cell.metadata.tags
        ]
        return [
            Cell(number, index, cell.source, "raises-exception" in cell.metadata.tags)
            for number, (index, cell) in enumerate(found, 1)
        ]

    def begin(self, at: datetime) -> None:
        with self.lock:
            self.nb.metadata.papermill["start_time"] = at.isoformat()

    def cell_started(self, index: int, at: datetime) -> None:
        with self.lock:
            self._pass_by(index, at)
            record = self.nb.cells[index].metadata.papermill
            record.update(start_time=at.isoformat(), status="running", exception=False)
            self.touch(index)

    def cell_ended(self, index: int, at: datetime, *, failed: bool) -> None:
        with self.lock:
            record = self.nb.cells[index].metadata.papermill
            _end(record, at)
            record.update(status="failed" if failed else "completed", exception=failed)
            self.touch(index)

    def finish(self, ending: Ending, at: datetime, *, cell: Cell | None) -> None:
        """Say how the attempt ended.

        Args:
            cell: in which it failed, or was cut off.
        """
        with self.lock:
            record = self.nb.metadata.papermill
            _end(record, at)
            if ending.state is State.SUCCEEDED:
                self._pass_by(len(self.nb.cells), at)
            elif ending.state is not State.PENDING:
                record["exception"] = True
            _conclude(self.nb.metadata, ending)
            if ending.state is State.PENDING and cell is not None:  # it goes on: that is no error
                outputs = self.nb.cells[cell.index].outputs
                outputs[:] = [_without_error(output) for output in outputs]
            elif ending.state is not State.SUCCEEDED:
                if cell is not None and ending.cause is not Cause.NOTEBOOK:
                    self.nb.cells[cell.index].outputs.append(_cut_off(CUT_OFF[ending.cause], ending.error))
                _mark(self.nb.cells, ending.error, (cell.index, cell.number) if cell else None)
            self.touch_all()

    def touch(self, index: int) -> None:
        """The cell has changed. Only such cells are written anew by ``text``."""
        self._texts[index] = None
        self._grown.add(index)

    def touch_all(self) -> None:
        self._texts = [None] * len(self.nb.cells)
        self._grown.update(range(len(self.nb.cells)))

    def grown(self, further: Iterable[int]) -> dict[int, dict[str, Any]]:
        """The cells that have changed since this or ``text`` was called, and *further* ones, as ``text`` has them."""
        with self.lock:
            grown, self._grown = sorted(self._grown.union(further)), set()
            texts = {index: self._text_of(index) for index in grown}
        return {index: json.loads(text) for index, text in texts.items()}

    def note(self, index: int, text: str) -> None:
        """A remark of ours among the outputs of a cell."""
        self.nb.cells[index].outputs.append(new_output("stream", name="stderr", text=text))
        self.touch(index)

    def text(self) -> str:
        """The document as JSON, laid out as nbformat does; standard JSON always: no NaN, no half character."""
        with self.lock:
            self._grown = set()
            texts = [self._text_of(index) for index in range(len(self._texts))]
            cells = "[\n" + ",\n".join(texts) + "\n ]" if texts else "[]"
            around = {key: value for key, value in self.nb.items() if key != "cells"}
            frame = _dump(around | {"metadata": self._redacted_metadata()})
        return f'{{\n "cells": {cells},{frame[1:]}\n'

    def _text_of(self, index: int) -> str:
        text = self._texts[index]
        if text is None:
            text = self._texts[index] = _cell_text(self._redacted(self.nb.cells[index]))
        return text

    def _redacted(self, cell: NotebookNode) -> NotebookNode:
        """Only where the notebook had a word in it: nothing else may change, whatever a secret's value is."""
        if not self._redaction:
            return cell
        copy = NotebookNode(cell) | {"source": self._redaction.text(cell.source)}
        if "outputs" in cell:
            copy["outputs"] = [self._redacted_output(output) for output in cell.outputs]
        return NotebookNode(copy)

    def _redacted_output(self, output: NotebookNode) -> NotebookNode:
        words = {
            key: self._redaction.plain(output[key]) for key in output if key not in ("output_type", "name", "data")
        }
        if "data" in output:
            words["data"] = {kind: self._redaction.plain(value) for kind, value in output.data.items()}
        return NotebookNode({**output, **words})

    def _redacted_metadata(self) -> dict[str, Any]:
        metadata = dict(self.nb.metadata)
        if self._redaction:
            plain = self._redaction.plain
            metadata["papermill"] = metadata["papermill"] | {"parameters": plain(metadata["papermill"]["parameters"])}
            if "widgets" in metadata:
                states = metadata["widgets"]["application/vnd.jupyter.widget-state+json"]
                shown = {
                    model: {key: plain(value) if key == "state" else value for key, value in told.items()}
                    for model, told in states["state"].items()
                }
                metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": states | {"state": shown}}
        return metadata

    def _pass_by(self, end: int, at: datetime) -> None:
        """What does not run before cell *end*, as text, counts as completed; papermill's readers expect it."""
        for index, cell in enumerate(self.nb.cells[:end]):
            record = cell.metadata.papermill
            if record["status"] == "pending":
                moment = at.isoformat()
                record.update(start_time=moment, end_time=moment, duration=0.0, status="completed", exception=False)
                self.touch(index)


def mark_crashed(text: str, error: str) -> str:
    """The last saved document of an attempt whose worker died, saying so. A finished document is returned as it is."""
    try:
        nb = reads(text)
        state = nb.metadata.flowkit.state
    except Exception as problem:
        raise NotebookError(f"not an executed notebook of flowkit: {type(problem).__name__}: {problem}") from problem
    if state != State.RUNNING:
        return text
    nb.metadata.papermill["exception"] = True
    _conclude(nb.metadata, Ending(State.FAILED, Cause.CRASHED, error))
    place = None
    for index, cell in enumerate(nb.cells):
        if cell.metadata.papermill["status"] == "running":
            cell.metadata.papermill.update(status="failed", exception=True)
            cell.outputs.append(_cut_off("WorkerDied", error))
            place = index, cell.execution_count or " "
    _mark(nb.cells, error, place)
    cells = ",\n".join(map(_cell_text, nb.cells))
    frame = _dump({key: value for key, value in nb.items() if key != "cells"})
    return f'{{\n "cells": [\n{cells}\n ],{frame[1:]}\n'


def _unstarted() -> dict[str, Any]:
    return {"exception": None, "start_time": None, "end_time": None, "duration": None, "status": "pending"}


def _end(record: dict[str, Any], at: datetime) -> None:
    record["end_time"] = at.isoformat()
    if record["start_time"]:
        record["duration"] = (at - datetime.fromisoformat(record["start_time"])).total_seconds()


def _conclude(metadata: NotebookNode, ending: Ending) -> None:
    metadata.flowkit.update(state=ending.state.value, cause=ending.cause and ending.cause.value, error=ending.error)


def _without_error(output: NotebookNode) -> NotebookNode:
    if output.output_type != "error" or output.ename != SUSPENDED:
        return output
    return new_output("stream", name="stderr", text=f"{output.evalue}\n")


def _cut_off(name: str, error: str | None) -> NotebookNode:
    """An error output, as Jupyter shows it in red and papermill finds it."""
    return new_output("error", ename=name, evalue=error or "", traceback=[f"{name}: {error}"])


def _mark(cells: list[NotebookNode], error: str | None, place: tuple[int, int | str] | None) -> None:
    """papermill's two markers: one at the top, one before the cell it stopped in (index, number)."""
    if place is not None:
        cells.insert(place[0], _marker(ERROR_ANCHOR_MSG))
        top = ERROR_MESSAGE_TEMPLATE % place[1]
    else:
        top = f"<span {ERROR_STYLE}>This notebook was not run to its end.</span>"
    cells.insert(0, _marker(f"{top}\n\n<pre>{html.escape(error or '')}</pre>"))


def _marker(source: str) -> NotebookNode:
    return new_markdown_cell(source, metadata={"tags": [ERROR_MARKER_TAG], "papermill": _unstarted()})


def _assignments(parameters: Mapping[str, Any], scheduled_for: datetime | None, *, kernel: str, language: str) -> str:
    for name, value in parameters.items():
        if not name.isidentifier() or keyword.iskeyword(name):
            raise SetupError(f"parameter {name!r} is not a name; a parameter is a name such as min_delay")
        _check_value(name, value)
    try:
        translator = papermill_translators.find_translator(kernel, language)
    except PapermillException:
        raise SetupError(f"kernel {kernel!r} speaks {language}, in which papermill cannot write parameters") from None
    if issubclass(translator, PythonTranslator):
        return _python_assignments(parameters, scheduled_for)
    if scheduled_for is not None:
        parameters = {**parameters, "scheduled_for": scheduled_for.isoformat()}
    try:
        return str(translator.codify(parameters, "Parameters"))
    except Exception as error:  # each language has its own limits
        raise SetupError(f"the parameters cannot be written in {language}: {error}") from error


def _python_assignments(parameters: Mapping[str, Any], scheduled_for: datetime | None) -> str:
    # Translator's, not PythonTranslator's: that one hands the code to black where black happens to be installed.
    codify = cast(Any, Translator.codify).__func__
    try:
        source = str(codify(PythonTranslator, parameters, "Parameters"))
        if scheduled_for is not None:
            # One expression, so that the notebook finds no name it did not ask for.
            source += (
                f'scheduled_for = __import__("datetime").datetime.fromisoformat("{scheduled_for.isoformat()}")'
                f'.astimezone(__import__("zoneinfo").ZoneInfo("{scheduled_for.tzinfo}"))\n'
            )
        compile(source, "parameters", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise SetupError(f"the parameters cannot be written as Python, too deep or too large: {error}") from error
    return source


def _check_value(name: str, value: Any) -> None:
    """Only exact types: papermill writes anything else unquoted, into code."""
    if type(value) is list:
        for item in value:
            _check_value(name, item)
    elif type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise SetupError(f"parameter {name!r} has the key {key!r}; keys must be text")
            _check_value(name, item)
    elif value is not None and type(value) not in (bool, int, float, str):
        raise SetupError(f"parameter {name!r} holds a {type(value).__name__}; it must be what JSON can say")


def _declares_scheduled_for(source: str, language: str) -> bool:
    if language.lower() != "python":
        return re.search(r"(?m)^\s*(val |var |let )?\s*scheduled_for\s*(=|<-|:)", source) is not None
    return "scheduled_for" in _declared_names(source)


def _declared_names(source: str) -> Iterator[str]:
    lines = (("pass" if line.lstrip().startswith(("%", "!")) else line) for line in source.splitlines())
    try:
        body = ast.parse("\n".join(lines)).body
    except (SyntaxError, ValueError, RecursionError):
        return
    for statement in body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def _cell_text(cell: NotebookNode) -> str:
    """A cell where it stands in the document, two levels deep."""
    copy = NotebookNode(cells=[_copied(cell)])
    return "  " + _dump(split_lines(copy).cells[0]).replace("\n", "\n  ")


def _copied(value: Any) -> Any:
    """The containers copied, the texts shared."""
    if isinstance(value, dict):
        return NotebookNode({key: _copied(item) for key, item in value.items()})
    return [_copied(item) for item in value] if isinstance(value, (list, tuple)) else value


def _dump(value: Any) -> str:
    layout: dict[str, Any] = {"indent": 1, "sort_keys": True, "separators": (",", ": "), "allow_nan": False}
    try:
        text = json.dumps(value, ensure_ascii=False, **layout)
    except ValueError:
        value = _standard(value)
        text = json.dumps(value, ensure_ascii=False, **layout)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character; escaped, it may stand in a file
        text = json.dumps(value, ensure_ascii=True, **layout)
    return text


def _standard(value: Any) -> Any:
    """NaN and the infinities as text, which is what standard JSON leaves for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _standard(item) for key, item in value.items()}
    return [_standard(item) for item in value] if isinstance(value, list) else value
