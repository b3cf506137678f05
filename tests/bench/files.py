"""A CSV ten times the memory limit of the run that turns it into Parquet. ``python -m tests.bench.files``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from flowkit.model import State
from tests.worker.execution import Execution

LIMIT = 400  # megabytes, of all the run's processes
TIMES = 10

CELL = """
import re
from flowkit.nodes import files
files.csv_to_parquet("large.csv", "large.parquet")
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def main() -> None:
    print(f"load average {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="flowkit-bench-") as folder:
        large = Path(folder, "large.csv")
        rows = b"".join(b"%07d,2013-07-01,UA,%d.25,some text to fill the line\n" % (n, n % 300) for n in range(10_000))
        with large.open("wb") as file:
            file.write(b"id,day,carrier,delay,text\n")
            for _ in range(TIMES * LIMIT * 1_000_000 // len(rows)):
                file.write(rows)
        execution = Execution(Path(folder, "run"))
        execution.folder.mkdir()
        ended = execution.run(CELL, memory=LIMIT * 1_000_000, timeout=1800.0, cwd=Path(folder))
        assert ended.state is State.SUCCEEDED, ended.error
        peak = int(execution.logged().split()[-1]) / 1000
        size, made = large.stat().st_size / 1e6, Path(folder, "large.parquet").stat().st_size / 1e6
    print(
        f"CSV of {size:,.0f} MB to Parquet of {made:,.0f} MB in a run limited to {LIMIT} MB: "
        f"{execution.seconds:.0f} s, {size / execution.seconds:.0f} MB/s, its kernel held {peak:.0f} MB at most"
    )


if __name__ == "__main__":
    main()
