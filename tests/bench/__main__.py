"""``python -m tests.bench [--minutes M] [--anew] [NAME …]``: every measurement, beside its peers and its floor.

Each is a process that is ended when its share of the time is over. What one has printed is kept in ``.bench`` until the
next commit, so that a bench that was broken off goes on where it was; ``--anew`` forgets that.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
KEPT = ROOT / ".bench"

#: In this order; those that take the longest are last.
BENCHES = (
    "nodes",
    "graph",
    "notebooks",
    "checkpoints",
    "throughput",
    "schedules",
    "history",
    "pages",
    "files",
    "peers",
)

#: Of which the first argument is the minutes they may take.
TOLD = ("notebooks", "peers")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--minutes", type=float, default=60.0, help="for all of them together")
    parser.add_argument("--anew", action="store_true", help="measure what was measured of this commit, too")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(BENCHES):
        parser.error(f"no bench is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    names = [name for name in BENCHES if name in (asked.names or BENCHES)]
    until = time.monotonic() + 60 * asked.minutes
    place = KEPT / _commit()
    place.mkdir(parents=True, exist_ok=True)
    failed = []
    for left, name in zip(range(len(names), 0, -1), names, strict=True):
        kept = place / f"{name}.txt"
        print(f"\n== {name}", flush=True)
        if kept.exists() and not asked.anew and not place.name.endswith("-dirty"):
            print(kept.read_text(), end="", flush=True)
            continue
        # Three shares at most: one that hangs leaves the others their time.
        limit = max(60.0, min(3, left) * (until - time.monotonic()) / left)
        if not _measure(name, limit, kept):
            failed.append(name)
    if failed:
        print(f"\nnot measured, or not to the end: {', '.join(failed)}")
    return int(bool(failed))


def _measure(name: str, limit: float, kept: Path) -> bool:
    """Print what it prints, and keep that if it comes to its end within *limit* seconds."""
    arguments = [f"{0.8 * limit / 60:.1f}"] if name in TOLD else []
    # Uncompiled, importing papermill alone takes seconds.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    bench = subprocess.Popen(
        [sys.executable, "-u", "-m", f"tests.bench.{name}", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
        start_new_session=True,
    )
    assert bench.stdout is not None
    signal.signal(signal.SIGALRM, lambda *_: _end(bench.pid))
    signal.alarm(max(1, int(limit)))
    said = []
    try:
        for line in bench.stdout:
            print(line, end="", flush=True)
            said.append(line)
        done = bench.wait() == 0
    finally:
        signal.alarm(0)
        _end(bench.pid)
    if done:
        kept.write_text("".join(said))
    else:
        print(f"({name} ended with {bench.returncode}; it had {limit / 60:.1f} minutes)", flush=True)
    return done


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _commit() -> str:
    told = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return told.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
