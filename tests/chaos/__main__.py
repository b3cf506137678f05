"""``python -m tests.chaos MINUTES [WORD]``: the fault table, filled in within about so many minutes.

Time is divided over the rows by their shares; a row that has done all that is asked leaves its time to those after it.
*WORD*: only rows whose promise or fault contains it.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from datetime import UTC, datetime

from tests.chaos.faults import TABLE, Figures, commit, inject, machine, verdict

HEAD = "| promise | fault | on | asked | done | lost | doubled | unexpected | p99 (limit), s | verdict |"


def main(minutes: float, word: str = "") -> int:
    rows = [(fault, place) for fault in TABLE for place in fault.places if word in f"{fault.promise} {fault.fault}"]
    until = time.monotonic() + minutes * 60
    logging.disable()  # of what goes wrong everybody would tell
    begun = datetime.now(UTC)
    left = sum(fault.share / len(fault.places) for fault, _ in rows)
    bad = 0
    print(f"{begun:%Y-%m-%d}, {commit()}, {machine()}, {minutes:g} minutes\n\n{HEAD}\n|{'---|' * 10}", flush=True)
    for fault, place in rows:
        share = fault.share / len(fault.places)
        seconds = max(5.0, (until - time.monotonic()) * share / left)
        left -= share
        began = time.monotonic()
        try:
            figures = inject(fault, place, seconds)
            judged = verdict(fault, figures)
        except Exception as error:  # the other rows are to be filled in
            traceback.print_exc()
            figures, judged = Figures(notes=[f"{type(error).__name__}: {error}"[:200]]), "ERROR"
        bad += judged in ("BROKEN", "LATE", "ERROR")
        p99 = "" if figures.p99 is None else f"{figures.p99:.1f}" + (f" ({fault.within:g})" if fault.within else "")
        counts = f"{figures.done} | {figures.lost} | {figures.doubled} | {figures.unexpected}"
        print(
            f"| {fault.promise} | {fault.fault} | {place} | {fault.asked} | {counts} | {p99} | {judged} |", flush=True
        )
        told = "; ".join(figures.notes)
        print(f"{fault.promise}, {place}: {time.monotonic() - began:.0f} s. {told}", file=sys.stderr, flush=True)
    print(f"\n{(datetime.now(UTC) - begun).total_seconds() / 60:.0f} minutes, {machine()} at the end")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), *sys.argv[2:3]))
