"""What differs between two runs, the change first that most likely broke the later one.

Pure: it is given two records of runs and compares them. Cells are told apart by their ids, which a notebook has since
format 4.5, and which a snapshot fills in; nbdime, which would guess at them, takes a second to import.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, auto
from functools import cached_property
from typing import Any, Literal

from flowkit.model import NodeRun, Run, State

Kind = Literal["cell", "parameter", "package", "python", "host", "commit", "result", "duration", "output"]

#: A duration differs notably if one is so many times the other, and they are so many seconds apart.
TIMES, APART = 2.0, 1.0


class Rank(IntEnum):
    """The order in which changes are told: causes before what came of them, and what the failure points at first."""

    FAILED_THERE = auto()  # the cell that failed, or that defines the node that failed
    NAMED = auto()  # a parameter or a package that the failure names, or passes through
    UPSTREAM_CODE = auto()  # a cell that defines what the failed node reads
    NAMED_COLUMN = auto()  # a result with a changed column that the failure names
    CODE = auto()  # another cell
    PARAMETER = auto()
    UPSTREAM_RESULT = auto()  # what the failed node reads has other columns, types, its first nulls, or no rows
    LIBRARY = auto()  # packages, a new minor version of Python
    RESULT = auto()  # the same of other nodes
    PLACE = auto()  # host, commit, a patch of Python
    NUMBERS = auto()  # results that differ in their numbers only
    DURATION = auto()
    LATER = auto()  # outputs, and cells that come after the failure
    PROSE = auto()  # cells that are not code


#: Lines of one cell's or output's difference that are told.
LINES = 200

#: Lines of a cell or an output that are compared: difflib takes long for many that all differ.
COMPARED = 2_000

#: Characters of a line or a value that are told.
WIDTH = 500


@dataclass(frozen=True, slots=True)
class Record:
    """What one run has left behind, as far as there is any."""

    run: Run
    notebook: str  #: its snapshot
    nodes: list[NodeRun] = field(default_factory=list)  #: of the newest attempt
    reads: Mapping[str, list[str]] = field(default_factory=dict)  #: node -> the nodes it reads
    host: str | None = None
    python: str | None = None
    packages: list[str] | None = None  #: ``NAME==VERSION``; None: not known
    outputs: str | None = None  #: the executed notebook; None: there is none, or it is too large


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs."""

    kind: Kind
    name: str  #: of the cell, the parameter, the package, the node
    before: str | None  #: None: it was not there
    after: str | None
    lines: tuple[str, ...] = ()  #: of a cell or an output as a unified difference, of a result in words
    suspect: str | None = None  #: why it is likelier than its kind alone would make it

    def to_json(self) -> dict[str, Any]:
        names = ("kind", "name", "before", "after", "suspect")
        return {name: getattr(self, name) for name in names} | {"lines": list(self.lines)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs and what differs between them."""

    before: Run
    after: Run
    changes: tuple[Change, ...]  #: the likeliest cause of a failure of *after* first
    same: tuple[str, ...]  #: what was compared and does not differ, in words
    unknown: tuple[str, ...]  #: what could not be compared

    def to_json(self) -> dict[str, Any]:
        def told(run: Run) -> dict[str, Any]:
            return {name: value for name, value in run.to_json().items() if name in _TOLD}

        return {
            "before": told(self.before),
            "after": told(self.after),
            "changes": [change.to_json() for change in self.changes],
            "same": list(self.same),
            "unknown": list(self.unknown),
        }


_TOLD = (
    "id",
    "deployment",
    "version",
    "notebook",
    "state",
    "cause",
    "error",
    "attempt",
    "snapshot",
    "commit",
    "finished",
)


def compare(before: Record, after: Record) -> Comparison:
    scene = _Scene(after)
    parts: dict[str, tuple[bool, list[tuple[Rank, Change]]]] = {
        "the notebook's source": (True, list(_cells(before, after, scene))),
        "parameters": (True, list(_parameters(before.run, after.run, scene))),
        "what the nodes returned": (_have_profiles(before, after), list(_results(before, after, scene))),
        "packages": (before.packages is not None and after.packages is not None, list(_packages(before, after, scene))),
        "Python": (bool(before.python and after.python), list(_python(before.python, after.python))),
        "host": (bool(before.host and after.host), _one(Rank.PLACE, "host", "host", before.host, after.host)),
        "git commit": (
            bool(before.run.commit or after.run.commit),
            _one(Rank.PLACE, "commit", "git", before.run.commit, after.run.commit),
        ),
        "durations": (bool(before.nodes and after.nodes), list(_durations(before, after))),
        "outputs": (before.outputs is not None and after.outputs is not None, list(_outputs(before, after))),
    }
    ranked = [one for known, found in parts.values() if known for one in found]
    ranked.sort(key=lambda one: one[0])  # which keeps the order within a rank
    return Comparison(
        before=before.run,
        after=after.run,
        changes=tuple(change for _, change in ranked),
        same=tuple(name for name, (known, found) in parts.items() if known and not found),
        unknown=tuple(name for name, (known, _) in parts.items() if not known),
    )


# -- where it failed ---------------------------------------------------------------------------------------------------


class _Scene:
    """Where the later run failed, and what that failure names."""

    def __init__(self, record: Record) -> None:
        self._record = record
        failed = [node for node in record.nodes if node.state is State.FAILED]
        broken = record.run.state is State.FAILED
        #: The node that failed, without an item's index.
        self.node = next((node.name.partition("[")[0] for node in failed if node.flow), None) if broken else None
        #: The cell that failed or was cut off, counted as workers do: code cells only, empty ones left out.
        cell = _failed_cell(record.outputs) if broken else None
        self.cell = cell
        texts = [record.run.error or "", *(node.error or "" for node in failed)] if broken else []
        self._words = set(re.findall(r"[\w.-]+", " ".join(texts)))
        self._traceback = _traceback(record.outputs) if broken else ""
        self.upstream = _upstream(self.node, record.reads)

    def names(self, name: str) -> bool:
        """The failure's message has this word in it."""
        return name in self._words or bool({f"{name}.", f".{name}"} & self._words)

    def passes(self, package: str) -> bool:
        """The failure's traceback goes through this package, or its message names it."""
        name = re.escape(package).replace(r"\-", "[-_.]")
        return re.search(rf"-packages/{name}[/.]", self._traceback, re.IGNORECASE) is not None or self.names(package)

    def defines(self, source: str, node: str) -> bool:
        return re.search(rf"^\s*(async\s+)?def\s+{re.escape(node)}\s*\(", source, re.MULTILINE) is not None

    @cached_property
    def imported(self) -> set[str]:
        """Top-level modules that the notebook imports."""
        found: set[str] = set()
        for cell in _code_cells(self._record.notebook):
            found |= set(re.findall(r"^\s*(?:import|from)\s+(\w+)", cell["source"], re.MULTILINE))
        return found


def _upstream(node: str | None, reads: Mapping[str, list[str]]) -> list[str]:
    """The nodes it reads, directly or not, the nearest first."""
    found: dict[str, None] = {}
    waiting = list(reads.get(node, ())) if node else []
    while waiting:
        one = waiting.pop(0)
        if one not in found:
            found[one] = None
            waiting += reads.get(one, ())
    return list(found)


def _failed_cell(executed: str | None) -> str | None:
    """Its id."""
    for id, cell in _identified(executed).items():
        outputs = cell.get("outputs") or ()
        tags = cell.get("metadata", {}).get("tags") or ()
        if any(output.get("output_type") == "error" for output in outputs) and "raises-exception" not in tags:
            return id
    return None


def _traceback(executed: str | None) -> str:
    errors = [
        line
        for cell in _cells_of(executed)
        for output in cell.get("outputs") or ()
        if output.get("output_type") == "error"
        for line in output.get("traceback") or ()
    ]
    return _ANSI.sub("", "\n".join(map(str, errors)))


_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


# -- the notebook ------------------------------------------------------------------------------------------------------


def notebook_changes(before: str, after: str) -> tuple[Change, ...]:
    """The cells in which two notebooks differ, in the order of the later one; those that are gone last."""
    return tuple(change for _, _, _, change in _different(_identified(before), _identified(after)))


def _cells(before: Record, after: Record, scene: _Scene) -> Iterator[tuple[Rank, Change]]:
    if before.run.snapshot == after.run.snapshot:
        return
    new = _identified(after.notebook)
    order = list(new)
    failed_at = order.index(scene.cell) if scene.cell in new else len(order)
    for id, was, now, change in _different(_identified(before.notebook), new):
        if (now or was or {})["cell_type"] != "code":
            yield Rank.PROSE, change
        elif scene.node and any(scene.defines(_source(one), scene.node) for one in (was, now)):
            yield Rank.FAILED_THERE, _suspected(change, f"it defines {scene.node}, which failed")
        elif scene.cell == id and scene.node is None:
            yield Rank.FAILED_THERE, _suspected(change, "it is the cell that failed")
        elif near := next(
            (one for one in scene.upstream if any(scene.defines(_source(of), one) for of in (was, now))), None
        ):
            yield Rank.UPSTREAM_CODE, _suspected(change, f"it defines {near}, which {scene.node} reads")
        elif now is not None and order.index(id) > failed_at:
            yield Rank.LATER, _suspected(change, "it comes after the failure")
        else:
            yield Rank.CODE, change


#: A cell, or that there is none.
Cell = Mapping[str, Any] | None


def _different(
    before: dict[str, Mapping[str, Any]], new: dict[str, Mapping[str, Any]]
) -> Iterator[tuple[str, Cell, Cell, Change]]:
    """The id of each cell that differs, how it was, how it is, and that as a change."""
    old = _paired(before, new)
    numbers = _numbers(new) | {id: number for id, number in _numbers(old).items() if id not in new}
    for id in [*new, *(id for id in old if id not in new)]:
        was, now = old.get(id), new.get(id)
        lines = _difference(_source(was), _source(now))
        if not lines:
            continue
        name = _cell_name(now or was or {}, numbers.get(id))
        change = Change("cell", name, _cut(_source(was)) if was else None, _cut(_source(now)) if now else None, lines)
        yield id, was, now, change


def _identified(notebook: str | None) -> dict[str, Mapping[str, Any]]:
    """Cells by their ids. Notebooks of before 4.5 have none: there, a cell is what its source is."""
    found: dict[str, Mapping[str, Any]] = {}
    for cell in _cells_of(notebook):
        id = cell.get("id")
        if not isinstance(id, str):
            id = f"{_BY_SOURCE}{_source(cell)}"
        while id in found:
            id += "'"
        found[id] = cell
    return found


_BY_SOURCE = "source: "  # no id may have a blank in it


def _paired(old: dict[str, Mapping[str, Any]], new: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """*old* with the keys of *new*: a cell without an id stands for the one that took its place."""
    names = list(old), list(new)
    renamed: dict[str, str] = {}
    for step, a, b, c, d in difflib.SequenceMatcher(None, *names, autojunk=False).get_opcodes():
        if step == "replace":
            pairs = zip(names[0][a:b], names[1][c:d], strict=False)
            renamed |= {was: now for was, now in pairs if was.startswith(_BY_SOURCE) and now.startswith(_BY_SOURCE)}
    return {renamed.get(id, id): cell for id, cell in old.items()}


def _cells_of(notebook: str | None) -> list[Mapping[str, Any]]:
    try:
        cells = json.loads(notebook)["cells"] if notebook else []
    except (ValueError, KeyError, TypeError):
        return []
    return [cell for cell in cells if isinstance(cell, dict)]


def _code_cells(notebook: str) -> list[dict[str, Any]]:
    return [
        {**cell, "source": _source(cell)}
        for cell in _cells_of(notebook)
        if cell.get("cell_type") == "code" and _source(cell).strip()
    ]


def _numbers(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """As runs count them: code cells that are not empty, from 1."""
    code = [id for id, cell in cells.items() if cell.get("cell_type") == "code" and _source(cell).strip()]
    return {id: number for number, id in enumerate(code, 1)}


def _source(cell: Mapping[str, Any] | None) -> str:
    source = cell.get("source", "") if cell else ""
    return source if isinstance(source, str) else "".join(source)


def _cell_name(cell: Mapping[str, Any], number: int | None) -> str:
    """``cell 3, late``: its number, and the first function or class that it defines."""
    if cell["cell_type"] != "code":
        return f"{cell['cell_type']} cell"
    defined = re.search(r"^\s*(?:async\s+)?(?:def|class)\s+(\w+)", _source(cell), re.MULTILINE)
    tags = cell.get("metadata", {}).get("tags") or ()
    what = "parameters" if "parameters" in tags else defined[1] if defined else ""
    return f"cell {number or '?'}" + (f", {what}" if what else "")


def _difference(before: str, after: str, context: int = 2) -> tuple[str, ...]:
    """As a unified difference without its head; empty if there is none but blanks at the ends of lines."""
    old, new = ([line.rstrip()[:WIDTH] for line in text.splitlines()[:COMPARED]] for text in (before, after))
    lines = list(difflib.unified_diff(old, new, n=context, lineterm=""))[3:]
    return _bounded(["…" if line.startswith("@@") else line for line in lines])


def _bounded(lines: list[str]) -> tuple[str, ...]:
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"… {len(lines) - LINES} more lines"]
    return tuple(lines)


# -- what it was given -------------------------------------------------------------------------------------------------


def _parameters(before: Run, after: Run, scene: _Scene) -> Iterator[tuple[Rank, Change]]:
    old, new = before.parameters, after.parameters
    for name in dict.fromkeys([*new, *old]):
        was, now = (repr(values[name]) if name in values else None for values in (old, new))
        if was == now:
            continue
        change = Change("parameter", name, was and _cut(was), now and _cut(now))
        if scene.names(name):
            yield Rank.NAMED, _suspected(change, "the error names it")
        else:
            yield Rank.PARAMETER, change


def _packages(before: Record, after: Record, scene: _Scene) -> Iterator[tuple[Rank, Change]]:
    old, new = _versions(before.packages), _versions(after.packages)
    found = []
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name), new.get(name)
        if was == now:
            continue
        change = Change("package", name, was, now)
        if scene.passes(name):
            found.append((Rank.NAMED, 0, _suspected(change, "the failure passes through it")))
        else:
            imported = name.replace("-", "_") in scene.imported
            leap = was is None or now is None or was.split(".")[0] != now.split(".")[0]
            found.append((Rank.LIBRARY, 2 * (not imported) + (not leap), change))
    yield from ((rank, change) for rank, _, change in sorted(found, key=lambda one: one[:2]))


def _versions(packages: list[str] | None) -> dict[str, str]:
    pairs = (one.partition("==") for one in packages or ())
    return {name: version for name, _, version in pairs}


def _python(before: str | None, after: str | None) -> list[tuple[Rank, Change]]:
    minor = [(version or "").split(".")[:2] for version in (before, after)]
    return _one(Rank.PLACE if minor[0] == minor[1] else Rank.LIBRARY, "python", "Python", before, after)


def _one(rank: Rank, kind: Kind, name: str, before: str | None, after: str | None) -> list[tuple[Rank, Change]]:
    return [] if before == after else [(rank, Change(kind, name, before, after))]


# -- what came of it ---------------------------------------------------------------------------------------------------


def _have_profiles(before: Record, after: Record) -> bool:
    return all(any(node.profile for node in record.nodes) for record in (before, after))


def _results(before: Record, after: Record, scene: _Scene) -> Iterator[tuple[Rank, Change]]:
    old = {(node.flow, node.name): node.profile for node in before.nodes if node.profile}
    near = {name: place for place, name in enumerate(scene.upstream)}
    found = []
    for node in after.nodes:
        was, now = old.get((node.flow, node.name)), node.profile
        if was is None or now is None or was == now:
            continue
        notable, words, columns = _profiles(was, now)
        change = Change("result", node.name, *_shapes(was, now), _bounded(words))
        if named := next((column for column in columns if scene.names(column)), None):
            found.append((Rank.NAMED_COLUMN, 0, _suspected(change, f"the error names its column {named}")))
        elif node.name in near and notable:
            found.append((Rank.UPSTREAM_RESULT, near[node.name], _suspected(change, f"{scene.node} reads it")))
        else:
            found.append((Rank.RESULT if notable else Rank.NUMBERS, 0, change))
    yield from ((rank, change) for rank, _, change in sorted(found, key=lambda one: one[:2]))


def _profiles(was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[bool, list[str], list[str]]:
    """Whether it is more than other numbers in the same columns; in words; the columns that this is about."""
    if was.get("kind") != now.get("kind"):
        return True, [f"{was.get('kind')} → {now.get('kind')}"], []
    marked: list[str] = []
    ranges: list[str] = []
    old = {column["name"]: column for column in was.get("columns", ())}
    new = {column["name"]: column for column in now.get("columns", ())}
    gone, come = [name for name in old if name not in new], [name for name in new if name not in old]
    if gone:
        marked.append(f"without {', '.join(gone)}")
    if come:
        marked.append(f"with {', '.join(come)}")
    columns = gone + come
    for name in (name for name in new if name in old):
        one, other = old[name], new[name]
        if one["dtype"] != other["dtype"]:
            marked.append(f"{name}: {one['dtype']} → {other['dtype']}")
            columns.append(name)
        if "nulls" in one and "nulls" in other and one["nulls"] != other["nulls"]:
            first = not one["nulls"]
            (marked if first else ranges).append(f"{name}: {one['nulls']:,} → {other['nulls']:,} nulls")
            columns += [name] * first
        if (one.get("min"), one.get("max")) != (other.get("min"), other.get("max")) and "min" in one and "min" in other:
            ranges.append(f"{name}: {one['min']} to {one['max']} → {other['min']} to {other['max']}")
    if was.get("dtype") != now.get("dtype"):
        marked.append(f"{was.get('dtype')} → {now.get('dtype')}")
    emptied = any(was.get(name) and not now.get(name, 1) for name in ("rows", "length"))
    return bool(marked) or emptied, [_cut(line) for line in marked + ranges], columns


def _shapes(was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, str]:
    """``pandas.DataFrame`` and ``polars.DataFrame``; ``1,204 × 7`` and ``0 × 7`` of two of a kind."""
    kinds = str(was.get("kind")), str(now.get("kind"))
    return kinds if kinds[0] != kinds[1] else (_shape(was) or kinds[0], _shape(now) or kinds[1])


def _shape(profile: Mapping[str, Any]) -> str:
    if "rows" in profile:
        return f"{profile['rows']:,} × {profile.get('width', '?')}"
    if "shape" in profile:
        return " × ".join(map(str, profile["shape"]))
    return f"length {profile['length']:,}" if "length" in profile else ""


def _durations(before: Record, after: Record) -> Iterator[tuple[Rank, Change]]:
    old = {(node.flow, node.name): _seconds(node) for node in before.nodes}
    found = []
    for node in after.nodes:
        was, now = old.get((node.flow, node.name)), _seconds(node)
        if was is None or now is None:
            continue
        low, high = sorted((was, now))
        if high - low >= APART and high >= TIMES * low:
            found.append((low - high, Change("duration", node.name, f"{was:.1f} s", f"{now:.1f} s")))
    yield from ((Rank.DURATION, change) for _, change in sorted(found, key=lambda one: one[0]))


def _seconds(node: NodeRun) -> float | None:
    """Of one that was computed to its end."""
    if node.started is None or node.finished is None or node.reused or node.state is not State.SUCCEEDED:
        return None
    return (node.finished - node.started).total_seconds()


def _outputs(before: Record, after: Record) -> Iterator[tuple[Rank, Change]]:
    new = _identified(after.outputs)
    old = _paired(_identified(before.outputs), new)
    numbers = _numbers({id: cell for id, cell in new.items() if id in _identified(after.notebook)})
    for id, cell in new.items():
        if id not in old or id not in numbers or (not old[id].get("outputs") and not cell.get("outputs")):
            continue
        lines = _difference(_printed(old[id]), _printed(cell), context=0)
        if lines:
            yield Rank.LATER, Change("output", _cell_name(cell, numbers[id]), None, None, lines)


def _printed(cell: Mapping[str, Any]) -> str:
    """What it shows, as text; pictures as their digest, for no more is told of them than that they differ."""
    found = []
    for output in cell.get("outputs") or ():
        data = output.get("data") or {}
        if output.get("output_type") == "error":
            found.append(f"{output.get('ename')}: {output.get('evalue')}")
        elif "text" in output or "text/plain" in data:
            text = output.get("text") or data["text/plain"]
            found.append(text if isinstance(text, str) else "".join(text))
    return _MOVING.sub("…", _ANSI.sub("", "\n".join(found)))


#: Addresses of objects, and durations with the blanks that align them, which are others each time.
_MOVING = re.compile(r"\b0x[0-9a-f]{6,16}\b|[ <]*\b\d+(\.\d+)? (ms|s|min)\b")


def _suspected(change: Change, why: str) -> Change:
    return Change(change.kind, change.name, change.before, change.after, change.lines, why)


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}…"
