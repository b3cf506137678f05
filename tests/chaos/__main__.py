"""``python -m tests.chaos MINUTES``: a storm over each pair for so long; prints what was done and what held."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.storm import Storm
from tests.store.races import cancel_against_finish

#: Between a cancel and a finish, each with one winner or the program ends here.
RACES = 10_000

PAIRS = {
    "SQLite + SQLite": {"servers": False},
    "PostgreSQL + Redis": {"servers": True},
    "PostgreSQL + Redis by Sentinel": {"servers": True, "sentinel": True},
}

#: However few minutes.
FAILOVERS = 5


def main(minutes: float) -> int:
    columns: dict[str, dict[str, int]] = {}
    seed = int(time.monotonic())
    for name, options in PAIRS.items():
        print(f"{name}: {minutes:g} minutes, seed {seed}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="flowkit-storm-") as folder:
            with Storm(Path(folder), seed=seed, **options) as storm:
                storm.rage(minutes * 60, failovers=FAILOVERS if options.get("sentinel") else 0)
                storm.settle()
                verdict = storm.verdict()
                races = cancel_against_finish(storm.client.store, RACES)
            raced = {f"of {RACES} finished and cancelled at once, {state}": races[state] for state in sorted(races)}
            columns[name] = {**dict(sorted(storm.faults.items())), **raced, **verdict}
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    print(f"| in {minutes:g} minutes | {' | '.join(columns)} |")
    print(f"|---|{'---|' * len(columns)}")
    for row in sorted(rows, key=lambda row: row in verdict):
        print(f"| {row} | {' | '.join(str(column.get(row, '')) for column in columns.values())} |")
    bad = sum(column[row] for column in columns.values() for row in ("lost", "doubled", "unexpected"))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
