"""The same trivial notebook by flowkit and by what else runs notebooks, each in a venv of its own, whole and honest.

``python -m tests.bench.peers [MINUTES] [--only NAME] [--anew] [--write]``. Each row is taken in turns with flowkit's
idle worker, so that its ratio holds on a busy machine too; the load is told. Venvs and rows are kept outside of the
repository, in ``~/.cache/flowkit-bench``: broken off, it goes on where it was, and after an hour, or with ``--anew``,
it measures again. ``--write`` puts table and plot into the documents. How each is driven is in ``systems``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tests.bench import notebooks, plots, systems
from tests.bench.systems import FLOWKIT, PEERS, Peer, Place, Way
from tests.notebooks_made import write

REPEATS, FEWEST = 7, 3
ROOT = Path(__file__).parent.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flowkit-bench"

#: Seconds for which a row is good.
FRESH = 3600.0

#: Between these the table stands in the document.
BEGIN, END = "<!-- peers: python -m tests.bench.peers --write -->", "<!-- /peers -->"

DOCUMENT = ROOT / "docs" / "discussion.md"
PLOT = ROOT / "docs" / "images" / "peers.svg"


@dataclass(frozen=True)
class Row:
    system: str
    version: str
    kind: str  #: of the way: service, process or command
    how: str  #: what was done, for a reader
    ms: float | None  #: median, None: see why
    flowkit: float | None  #: ms, in turns with it
    load: str
    at: float  #: when, POSIX
    why: str = ""  #: there is no figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers")
    parser.add_argument("minutes", type=float, nargs="?", default=20.0)
    parser.add_argument("--only", action="append", choices=[peer.name for peer in PEERS], help="and keep other rows")
    parser.add_argument("--anew", action="store_true", help="measure again what was measured in the last hour")
    parser.add_argument("--write", action="store_true", help="put table and plot into the documents")
    asked = parser.parse_args()
    until = time.monotonic() + 60 * asked.minutes
    CACHE.mkdir(parents=True, exist_ok=True)
    rows = _kept()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        trivial = write(place / "flowkit.ipynb", *notebooks.NOTEBOOKS["trivial"])
        with notebooks.idle(place / "home") as (client, _):
            notebooks.by_flowkit(client, trivial)
            notebooks.await_parked(client, trivial)
            ours = partial(notebooks.by_flowkit, client, trivial)
            plan = [(peer, way) for peer in [FLOWKIT, *PEERS] for way in peer.ways or [None]]
            for left, (peer, way) in zip(range(len(plan), 0, -1), plan, strict=True):
                key = f"{peer.name}: {way.how if way else peer.why}"
                kept = rows.get(key)
                wanted = not asked.only or peer.name in asked.only or peer is FLOWKIT
                fresh = kept is not None and time.time() - kept.at < FRESH and not asked.anew
                if wanted and not fresh:
                    share = time.monotonic() + (until - time.monotonic()) / left
                    rows[key] = _measured(peer, way, place, ours, share)
                    (CACHE / "rows.json").write_text(json.dumps({key: asdict(row) for key, row in rows.items()}))
                if key in rows:
                    _print(rows[key])
            known = {f"{peer.name}: {way.how if way else peer.why}" for peer, way in plan}
    whole = [row for key, row in rows.items() if key in known]
    table = "\n".join(_table(whole))
    print(f"\n{table}")
    if asked.write:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        _, found, after = rest.partition(END)
        if not found:
            sys.exit(f"{DOCUMENT} has no lines {BEGIN} and {END} to put the table between")
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
        PLOT.write_text(_plot(whole))


def _measured(peer: Peer, way: Way | None, place: Path, ours: object, until: float) -> Row:
    row = partial(Row, system=peer.name, at=time.time(), how=way.how if way else "", kind=way.kind if way else "")
    if way is None:
        return row(version="", ms=None, flowkit=None, load=notebooks.load(), why=peer.why)
    version = "this"
    try:
        if peer.requires:
            python = _venv(peer)
            version = _version(peer, python)
        else:
            python = Path(sys.executable)
        folder = Path(tempfile.mkdtemp(dir=place, prefix=peer.name.replace(" ", "-") + "-"))
        before, theirs, mine = notebooks.load(), list[float](), list[float]()
        with way.start(Place(folder, python)) as once:
            once()
            while len(theirs) < FEWEST or (len(theirs) < REPEATS and time.monotonic() < until):
                for do, taken in ((once, theirs), (ours, mine)):
                    time.sleep(0.3)
                    began = time.perf_counter()
                    do()  # type: ignore[operator]
                    taken.append(1000 * (time.perf_counter() - began))
        load = f"{before} to {notebooks.load()}"
        return row(version=version, ms=statistics.median(theirs), flowkit=statistics.median(mine), load=load)
    except (systems.Failed, subprocess.SubprocessError, OSError, AssertionError) as error:
        why = " ".join(str(error).split())[:300] or type(error).__name__
        return row(version=version, ms=None, flowkit=None, load=notebooks.load(), why=why)


def _venv(peer: Peer) -> Path:
    """Its Python, with everything compiled; made the first time. Raises Failed."""
    folder = CACHE / peer.name.replace(" ", "-")
    python, stamp = folder / "bin" / "python", folder / "installed"
    if stamp.exists() and stamp.read_text() == " ".join(peer.requires):
        return python
    uv = [sys.executable, "-m", "uv"]
    for command in (
        [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [*uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *peer.requires],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise systems.Failed(f"could not be installed: {done.stderr.strip()}")
    stamp.write_text(" ".join(peer.requires))
    return python


def _version(peer: Peer, python: Path) -> str:
    code = f"from importlib.metadata import version; print(version({peer.distribution!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _kept() -> dict[str, Row]:
    with suppress(OSError, ValueError, TypeError):
        return {key: Row(**row) for key, row in json.loads((CACHE / "rows.json").read_text()).items()}
    return {}


def _print(row: Row) -> None:
    told = f"{row.ms:>9.0f} ms, flowkit {row.flowkit:.0f}: {row.ms / row.flowkit:.1f}x" if row.ms else f"  {row.why}"  # type: ignore[operator]
    print(f"{row.system:20}{row.version:10}{row.how:62.61}{told} (load {row.load})", flush=True)


def _table(rows: list[Row]) -> list[str]:
    lines = ["| | how | ms | flowkit, in turns | times | load |", "|---|---|---|---|---|---|"]
    for row in rows:
        name = f"{row.system} {row.version}".strip()
        if row.ms is None or row.flowkit is None:
            lines.append(f"| {name} | {row.how or 'not measured'} | {row.why} | | | |")
        else:
            times = row.ms / row.flowkit
            told = f"{times:.0f}" if times >= 10 else f"{times:.1f}"
            lines.append(f"| {name} | {row.how} | {row.ms:,.0f} | {row.flowkit:.0f} | {told} | {row.load} |")
    return lines


def _plot(rows: list[Row]) -> str:
    """Of each system, the bars of its ways; linear, since on a logarithmic axis a bar's length means nothing."""
    groups = []
    for kind, title in (
        ("service", "given to what is already running"),
        ("process", "called in a warm Python process"),
        ("command", "by a command, as cron would"),
    ):
        bars = [
            plots.Bar(row.system, row.ms, own=row.system == FLOWKIT.name)
            for row in rows
            if row.kind == kind and row.ms is not None
        ]
        groups.append((title, sorted(bars, key=lambda bar: bar.value)))
    loads = [float(part) for row in rows if row.ms for part in row.load.split(" to ")]
    note = (
        f"Medians, 2 cores, load {min(loads):.0f} to {max(loads):.0f}, each in turns with flowkit. Shorter is better."
    )
    return plots.bars("One trivial notebook, until its outcome is recorded, ms", groups, note)


if __name__ == "__main__":
    main()
