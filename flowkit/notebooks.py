"""A notebook file, reduced to what decides how it runs, under a digest.

A deployment keeps ``Notebook.text``. Running and saving a notebook in Jupyter changes outputs, counters, timings and
the state of widgets; none of it is in the text, so the digest changes only when the author changes something.
"""

from __future__ import annotations

import hashlib
import json
import keyword
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.errors import NotebookError, ParameterError, did_you_mean
from flowkit.parameters import SCHEDULED_FOR, Parameter, declared, shown

MAX_BYTES = 10_000_000  # of source: what is left without outputs
MAX_CELLS = 2_000

# What tools write when a notebook runs or is looked at. The kernelspec is written anew, see _metadata.
_VOLATILE = frozenset({"widgets", "papermill", "signature", "ExecuteTime", "kernelspec"})
_VOLATILE_IN_CELL = frozenset(
    {"execution", "papermill", "ExecuteTime", "executionInfo", "outputId", "collapsed", "scrolled", "trusted"}
)


@dataclass(frozen=True, slots=True)
class Notebook:
    name: str  #: what errors call it: the file's name
    path: Path | None  #: absolute; None if it was read from text
    text: str  #: JSON of the snapshot; ``parse(text)`` gives the same notebook again
    digest: str  #: SHA-256 of the text, hexadecimal
    kernel: str | None  #: None: it names none, the default is used
    language: str  #: lower case; ``python`` if nothing says otherwise
    parameters: tuple[Parameter, ...] | None  #: None: no cell is tagged ``parameters``. Empty if it is not Python

    def check(self, values: Mapping[str, Any], *, complete: bool = True) -> dict[str, Any]:
        """The values a run will be given, if the notebook takes them; what is not among them keeps its default.

        Args:
            complete: a parameter without a default must be among them, except ``scheduled_for``, which flowkit fills.
        """
        checked = {name: self._parameter(name, value).check(value) for name, value in values.items()}
        for parameter in self.parameters or ():
            if complete and parameter.default is None and parameter.name not in (*checked, SCHEDULED_FOR):
                raise ParameterError(
                    f"{self.name} needs a value for {parameter.name!r}: its parameters cell gives none"
                )
        return checked

    def from_text(self, pairs: Mapping[str, str]) -> dict[str, Any]:
        """The command line's texts as values of the declared types, each checked; need not be all there are."""
        return {name: self._parameter(name, text).from_text(text) for name, text in pairs.items()}

    def _parameter(self, name: str, value: Any) -> Parameter:
        if self.parameters is None:
            raise ParameterError(
                f"{self.name} has no cell tagged 'parameters', but a value is given for {name!r}; "
                "tag the cell that assigns the defaults"
            )
        if self.language != "python":
            return Parameter(_usable(name))
        known = {parameter.name: parameter for parameter in self.parameters}
        if name not in known:
            hint = did_you_mean(str(name), known)
            takes = f"t takes {', '.join(known)}" if known else "ts parameters cell assigns none"
            raise ParameterError(
                f"{self.name} has no parameter {shown(name)}" + (f"{hint} I{takes}" if hint else f"; i{takes}")
            )
        return known[name]


def read(path: str | os.PathLike[str]) -> Notebook:
    """The notebook in a file of this machine. A URL, ``-`` or JSON is never anything but the name of a file."""
    given = shown(os.fspath(path), 300)
    place = Path(os.path.abspath(path))
    try:
        if place.is_dir():
            raise NotebookError(f"{given} is a folder; name a notebook in it{_found_in(place)}")
        if not place.is_file():
            raise NotebookError(f"no notebook at {given}{_nearest(place, given)}")
        content = place.read_bytes()
    except OSError as error:
        raise NotebookError(f"cannot read {given}: {error.strerror or error}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotebookError(f"{given} is not UTF-8 text (byte {error.start}); is it a notebook?") from error
    return _notebook(text, place.name, place)


def is_path(target: str | Path) -> bool:
    """Whether a notebook's file is meant; else it is the name of a deployment."""
    return isinstance(target, Path) or target.endswith(".ipynb") or "/" in target


def parse(text: str, name: str = "notebook") -> Notebook:
    """The notebook in a text, such as a stored snapshot."""
    return _notebook(text, name, None)


def sources(text: str) -> list[str]:
    """The source of each code cell of a notebook given as JSON."""
    cells = [_cell(cell, number, "notebook") for number, cell in enumerate(_loaded(text, "notebook")["cells"], 1)]
    return [cell["source"] for cell in cells if cell["cell_type"] == "code"]


def _notebook(text: str, name: str, path: Path | None) -> Notebook:
    content = _snapshot(_loaded(text, name), name)
    metadata = content["metadata"]
    language: str = metadata["language_info"]["name"]
    cell = next((cell for cell in content["cells"] if _is_parameters(cell)), None)
    parameters = None if cell is None else declared(cell["source"], name) if language == "python" else ()
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise NotebookError(f"{name} has half of a surrogate pair in it, which is no text; remove it") from None
    if len(encoded) > MAX_BYTES:
        raise NotebookError(
            f"{name} has {len(encoded) / 1e6:.1f} MB of source without its outputs, and {MAX_BYTES / 1e6:.0f} MB is "
            "the limit; move data and pictures into files"
        )
    return Notebook(
        name=name,
        path=path,
        text=text,
        digest=hashlib.sha256(encoded).hexdigest(),
        kernel=metadata.get("kernelspec", {}).get("name"),
        language=language,
        parameters=parameters,
    )


def _loaded(text: str, name: str) -> dict[str, Any]:
    """The JSON of a notebook that can be run."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise NotebookError(f"{name} is not valid JSON: {error.msg} in {where}") from error
    except (ValueError, RecursionError) as error:
        raise NotebookError(f"{name} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or type(content.get("nbformat")) is not int:
        raise NotebookError(f"{name} is JSON, but not a notebook: it has no 'nbformat'")
    version = content["nbformat"]
    if version != 4:
        remedy = f"jupyter nbconvert --to notebook --nbformat 4 --inplace {name}"
        raise NotebookError(f"{name} has notebook format {version}, and flowkit runs format 4; convert it: {remedy}")
    cells = content.get("cells")
    if not isinstance(cells, list):
        raise NotebookError(f"{name} is not a notebook: it has no list of cells")
    if len(cells) > MAX_CELLS:
        raise NotebookError(f"{name} has {len(cells):,} cells, and {MAX_CELLS:,} is the limit; split it")
    return content


def _snapshot(content: dict[str, Any], name: str) -> dict[str, Any]:
    """What decides how the notebook runs and how it reads, and nothing that running it changes."""
    minor = content.get("nbformat_minor")
    minor = minor if type(minor) is int else 4
    cells = [_cell(cell, number, name) for number, cell in enumerate(content["cells"], 1)]
    if minor >= 5:
        _fill_ids(cells)
    else:
        for cell in cells:
            del cell["id"]
    return {"nbformat": 4, "nbformat_minor": minor, "metadata": _metadata(content), "cells": cells}


def _metadata(content: dict[str, Any]) -> dict[str, Any]:
    """Jupyter fills in the kernel's display name and its language's version when it runs; only their names count."""
    metadata = _mapping(content.get("metadata"))
    spec = _mapping(metadata.get("kernelspec"))
    kernel = spec.get("name")
    stated = spec.get("language") or _mapping(metadata.get("language_info")).get("name")
    language = stated.lower() if isinstance(stated, str) else "python"
    kept = {key: value for key, value in metadata.items() if key not in _VOLATILE}
    if isinstance(kernel, str) and kernel:
        kept["kernelspec"] = {"name": kernel, "display_name": kernel, "language": language}
    return kept | {"language_info": {"name": language}}


def _cell(cell: Any, number: int, name: str) -> dict[str, Any]:
    kind = cell.get("cell_type") if isinstance(cell, dict) else None
    if kind not in ("code", "markdown", "raw"):
        raise NotebookError(f"{name} is not a notebook: its cell {number} has no cell_type code, markdown or raw")
    source = cell.get("source", "")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise NotebookError(f"{name} is not a notebook: the source of its cell {number} is not text")
    metadata = _mapping(cell.get("metadata"))
    kept: dict[str, Any] = {
        "id": cell.get("id"),
        "cell_type": kind,
        "source": source,
        "metadata": {key: value for key, value in metadata.items() if key not in _VOLATILE_IN_CELL},
    }
    if kind == "code":
        kept |= {"execution_count": None, "outputs": []}
    elif cell.get("attachments"):
        kept["attachments"] = cell["attachments"]
    return kept


def _fill_ids(cells: list[dict[str, Any]]) -> None:
    """Give each cell that has no valid id of its own one that is the same at every reading."""
    taken: set[str] = set()
    lacking = []
    for number, cell in enumerate(cells, 1):
        if (
            isinstance(cell["id"], str)
            and re.fullmatch(r"[\w-]{1,64}", cell["id"], re.ASCII)
            and cell["id"] not in taken
        ):
            taken.add(cell["id"])
        else:
            lacking.append((number, cell))
    for number, cell in lacking:
        identity = f"cell-{number}"
        while identity in taken:
            identity += "-"
        cell["id"] = identity
        taken.add(identity)


def _is_parameters(cell: dict[str, Any]) -> bool:
    tags = cell["metadata"].get("tags")
    return cell["cell_type"] == "code" and isinstance(tags, list) and "parameters" in tags


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _usable(name: str) -> str:
    """The name, if it can stand in front of an equals sign; anything else would run as code."""
    if not (isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name) and name[:2] != "__"):
        raise ParameterError(f"{shown(name)} cannot be the name of a parameter; take letters, digits and underscores")
    return name


def _found_in(folder: Path) -> str:
    names = sorted(place.name for place in folder.glob("*.ipynb"))
    return f": {', '.join(names[:5])}{', …' if names[5:] else ''}" if names else ""


def _nearest(place: Path, given: str) -> str:
    if "://" in given:
        return "; it must be a file on this machine, not a URL"
    return did_you_mean(place.name, (near.name for near in place.parent.glob("*.ipynb")))
