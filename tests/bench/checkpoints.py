"""What keeping results costs, and what it saves: a large frame, a node that does nothing, a run that is resumed.

``python -m tests.bench.checkpoints``
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

import flowkit as fk
from flowkit.artifacts import Artifacts
from flowkit.config import RUN_FOLDER
from flowkit.flow import checkpoint, formats
from flowkit.flow.current import FILE
from flowkit.model import CurrentRun
from flowkit.shelf import KEEP, Shelf
from tests.bench import nodes

ROUNDS = 5
NODES = 1_000


def main() -> None:
    print(f"\nload average {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as folder:
        report_frame(Path(folder))
        report_nodes(Path(folder))
        report_resuming(Path(folder))


@contextmanager
def attempt(folder: Path, number: int) -> Iterator[None]:
    """As in the kernel of a worker's run."""
    work = folder / f"work{number}"
    work.mkdir(exist_ok=True)
    current = CurrentRun(id=folder.name, key="k", attempt=number, deployment=None, notebook="n.ipynb")
    (work / FILE).write_text(current.to_json())
    (work / KEEP).write_text(json.dumps({"url": str(folder / "artifacts"), "limit": None}))
    os.environ[RUN_FOLDER] = str(work)
    checkpoint._times.clear()
    try:
        yield
    finally:
        del os.environ[RUN_FOLDER]


def seconds(call: Callable[[], object]) -> float:
    gc.collect()
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def report_frame(folder: Path) -> None:
    rows = 1_800_000
    chance = np.random.default_rng(0)
    frame = pd.DataFrame({f"x{n}": chance.random(rows) for n in range(4)})
    frame["id"] = np.arange(rows)
    frame["name"] = chance.choice(["alpha", "beta", "gamma", "delta"], rows)
    size = frame.memory_usage(deep=True).sum() / 1e6

    alone, kept = [], []
    for round in range(ROUNDS):
        alone.append(seconds(lambda: frame.to_parquet(folder / "alone.parquet")))
        target = folder / f"frame{round}"
        target.mkdir()
        kept.append(seconds(lambda target=target: _keep(target, frame)))
    print(f"\na frame of {size:.0f} MB, {ROUNDS} rounds, median ms")
    one, other = statistics.median(alone) * 1e3, statistics.median(kept) * 1e3
    print(f"  pandas.to_parquet                            {one:8.0f}")
    print(f"  kept, with digest, profile and preview       {other:8.0f}   {other / one:6.2f} x")


def _keep(folder: Path, frame: pd.DataFrame) -> None:
    def write(file):  # type: ignore[no-untyped-def]
        written = formats.write(frame, file)
        assert written.suffix == ".parquet"
        return {"format": written.name, "suffix": written.suffix} | formats.described(frame, 1.0)

    Shelf(Artifacts(str(folder)), "kept").keep("frame.k", write)


def report_nodes(folder: Path) -> None:
    graph = nodes.layered(NODES)
    module = nodes.functions(graph)
    flow = fk.Flow("bench")
    for name in graph:
        flow.node(getattr(module, name))
    flow.check()
    plain, kept, found = [], [], []
    for round in range(ROUNDS):
        plain.append(seconds(lambda: flow.run(threads=1)))
        target = folder / f"nodes{round}"
        target.mkdir()
        with attempt(target, 1):
            kept.append(seconds(lambda: flow.run(threads=1)))
        with attempt(target, 2):
            found.append(seconds(lambda: flow.run(threads=1)))
    print(f"\n{NODES:,} nodes that do nothing, {ROUNDS} rounds, median us a node")
    for name, times in (("not kept", plain), ("kept", kept), ("found again", found)):
        print(f"  {name:<44} {statistics.median(times) / NODES * 1e6:8.1f}")


def report_resuming(folder: Path) -> None:
    """Four nodes that take a second and give 20 MB each, and a fifth that fails in the first attempt."""
    mended = folder / "mended"

    def flow() -> fk.Flow:
        flow = fk.Flow("resumed")
        for place in range(4):
            flow.add(lambda place=place: _slow(place), f"n{place}")

        def last(n0, n1, n2, n3):  # type: ignore[no-untyped-def]
            if not mended.exists():
                raise ValueError
            return len(n0) + len(n1) + len(n2) + len(n3)

        flow.add(last)
        return flow

    with attempt(folder, 1):
        try:
            first = seconds(lambda: _failing(flow()))
        finally:
            mended.touch()
    with attempt(folder, 2):
        again = seconds(lambda: flow().run(threads=1))
    rerun = seconds(lambda: flow().run(threads=1))
    print("\nfour nodes of 1 s and 20 MB, and a fifth that failed, s")
    print(f"  the first attempt                            {first:8.2f}")
    print(f"  run again from the beginning                 {rerun:8.2f}")
    print(f"  resumed                                      {again:8.2f}   {rerun / again:6.1f} x as fast")


def _failing(flow: fk.Flow) -> None:
    try:
        flow.run(threads=1)
    except fk.NodeFailed:
        return
    raise AssertionError("it did not fail")


def _slow(place: int) -> pd.DataFrame:
    time.sleep(1)
    return pd.DataFrame({"a": np.arange(2_500_000) + place})


if __name__ == "__main__":
    main()
