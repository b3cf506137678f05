"""What a node costs beside its own work: one layered graph of functions that do nothing, run by us and by our peers.

``python -m tests.bench.nodes``. All run the same functions in this process, one after another in each round, so that a
busy machine slows all of them alike; the figure is the median round.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import flowkit as fk

WIDTH = 100  # nodes in a layer
FAN_IN = 2  # nodes of the layer before that each one reads
THREADS = 4
ROUNDS = 7

Graph = dict[str, list[str]]


def main() -> None:
    print(f"load average {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    for count in (1_000, 10_000):
        report(count, measure(count))
    print(f"load average {os.getloadavg()[0]:.2f}")


def layered(count: int) -> Graph:
    """node -> the nodes it reads, in an order in which they can be called."""
    return {
        f"n{place}": [f"n{(place // WIDTH - 1) * WIDTH + (place + 7 * step) % WIDTH}" for step in range(FAN_IN)]
        if place >= WIDTH
        else []
        for place in range(count)
    }


def functions(graph: Graph) -> types.ModuleType:
    """A module of functions named and wired as in *graph*; annotated, since Hamilton asks for it."""
    module = types.ModuleType("bench_nodes")
    source = "\n".join(
        f"def {name}({', '.join(f'{other}: int' for other in reads)}) -> int:\n    return 1"
        for name, reads in graph.items()
    )
    exec(source, module.__dict__)
    sys.modules[module.__name__] = module  # where Hamilton looks whose functions they are
    return module


def measure(count: int) -> dict[str, float]:
    """What was measured -> us a node."""
    graph = layered(count)
    module = functions(graph)
    contestants: dict[str, Callable[[], object]] = {"bare calls": bare(graph, module)}
    contestants |= flowkit_ways(graph, module)
    contestants |= hamilton_ways(graph, module)
    contestants |= dask_ways(graph, module)
    rounds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, run in contestants.items():
            gc.collect()
            began = time.perf_counter()
            run()
            rounds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) / count * 1e6 for name, times in rounds.items()}


def report(count: int, found: dict[str, float]) -> None:
    print(f"\n{count:,} nodes, {ROUNDS} rounds, median us a node")
    for name, cost in found.items():
        print(f"  {name:<44} {cost:8.1f}   {cost / found['bare calls']:6.1f} x bare")


def bare(graph: Graph, module: types.ModuleType) -> Callable[[], object]:
    calls = [(name, getattr(module, name), reads) for name, reads in graph.items()]

    def run() -> object:
        results: dict[str, int] = {}
        for name, function, reads in calls:
            results[name] = function(*[results[other] for other in reads])
        return results

    return run


def flowkit_ways(graph: Graph, module: types.ModuleType) -> dict[str, Callable[[], object]]:
    def build() -> fk.Flow:
        flow = fk.Flow("bench")
        for name in graph:
            flow.node(getattr(module, name))
        flow.check()
        return flow

    flow = build()
    pool = ThreadPoolExecutor(THREADS)
    return {
        "flowkit, one thread": lambda: flow.run(threads=1),
        f"flowkit, {THREADS} threads of its own": lambda: flow.run(threads=THREADS),
        f"flowkit, ThreadPoolExecutor({THREADS})": lambda: flow.run(executor=pool),
        "flowkit, to build and check": build,
    }


def hamilton_ways(graph: Graph, module: types.ModuleType) -> dict[str, Callable[[], object]]:
    from hamilton import base, driver

    os.environ["HAMILTON_TELEMETRY_ENABLED"] = "false"
    last = list(graph)[-WIDTH:]

    def build() -> driver.Driver:
        return driver.Builder().with_modules(module).with_adapters(base.DictResult()).build()

    built = build()
    return {
        "apache-hamilton, execute": lambda: built.execute(last),
        "apache-hamilton, to build": build,
    }


def dask_ways(graph: Graph, module: types.ModuleType) -> dict[str, Callable[[], object]]:
    import dask
    from dask.threaded import get

    made = {name: (getattr(module, name), *reads) for name, reads in graph.items()}
    last = list(graph)[-WIDTH:]
    pool = ThreadPoolExecutor(THREADS)

    def run() -> object:
        with dask.config.set(pool=pool):
            return get(made, last)

    return {f"dask, threaded get, {THREADS} threads": run}


if __name__ == "__main__":
    main()
