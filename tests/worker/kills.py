"""``python -m tests.worker.kills COUNT``: workers killed at random instants; what was lost of what their cells printed.

What a run prints is an append-only log in the store, told five times a second; the notebook has a journal, to which is
added twice a second what it has grown by. What is looked at here is both, that journal for what cells display as well,
and whether the document claims to have ended.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from flowkit.journal import replayed
from tests.worker.execution import Execution

#: Prints numbers, each at once, and writes down when.
CELL = """
import time
from IPython.display import display
with open("printed", "a", buffering=1) as printed:
    for _ in range(60):
        count += 1
        print(count, flush=True)
        display({"text/plain": f"<{count}>"}, raw=True)
        printed.write(f"{count} {time.monotonic()}\\n")
        time.sleep(0.01)
"""


def kill_after(seconds: float, folder: Path) -> tuple[bool, float]:
    """Of a worker that was killed so long after its first cell began: does its document claim success, and how many
    seconds of output are not in the log, or not in the notebook with its journal?"""
    worker = os.fork()
    if not worker:
        try:
            _work(folder)
        finally:
            os._exit(1)
    until = time.monotonic() + 60
    while not (folder / "printed").exists():
        assert time.monotonic() < until, "no cell has begun"
        time.sleep(0.005)
    time.sleep(seconds)
    killed = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    saved, log = folder / "saved", folder / "log"
    claims = saved.exists() and json.loads(saved.read_text())["metadata"]["flowkit"]["state"] != "running"
    told = max((int(word) for word in (log.read_text() if log.exists() else "").split("\n")[:-1]), default=0)
    journal = (folder / "journal").read_bytes() if (folder / "journal").exists() else None
    document = replayed(saved.read_text(), journal) if saved.exists() else ""
    displayed = max((int(count) for count in re.findall(r"<(\d+)>", document)), default=0)
    printed = [line.split() for line in (folder / "printed").read_text().split("\n")[:-1]]
    missing = [float(at) for count, at in printed if int(count) > min(told, displayed)]
    return claims, max(0.0, killed - missing[0]) if missing else 0.0


def _work(folder: Path) -> None:
    def save(text: str) -> None:
        (folder / "saved.new").write_text(text)
        (folder / "saved.new").rename(folder / "saved")

    def grow(data: bytes, begins: bool) -> None:
        with (folder / "journal").open("wb" if begins else "ab") as journal:
            journal.write(data)

    execution = Execution(folder, on_save=save, on_growth=grow)
    with (folder / "log").open("a") as log:

        def tell(events: list) -> None:  # type: ignore[type-arg]
            log.write("".join(event.data for event in events if event.kind == "output"))
            log.flush()

        execution.on_events = tell  # type: ignore[assignment]
        execution.run("count = 0", *[CELL] * 3, "import time; time.sleep(60)")


def main(count: int, seed: int = 7) -> int:
    chance = random.Random(seed)
    claims, lost = 0, []
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder:
            claimed, seconds = kill_after(chance.uniform(0.0, 2.5), Path(folder))
        claims += claimed
        lost.append(seconds)
        if sys.stderr.isatty():
            print(f"\r{number + 1} of {count}", end="", file=sys.stderr)
    print(
        f"{count} workers killed at random instants (load {os.getloadavg()[0]:.1f}): {claims} documents claim success; "
        f"output lost: median {statistics.median(lost):.2f} s, most {max(lost):.2f} s (1)"
    )
    return int(claims > 0 or max(lost) > 1.0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
