"""Fills a store with what an operator would see: all states, several queues, failures, a run under way.

``python -m tests.server.mix FOLDER [RUNS]`` fills one and serves it, to look at by hand.
"""

from __future__ import annotations

import base64
import io
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat.v4 as v4

from flowkit.artifacts import Artifacts, notebook_path
from flowkit.events import Event
from flowkit.model import Cause, Deployment, Ending, Policy, Run, Schedule, State, Worker, now
from flowkit.store import Store

NODES = ["flights", "weather", "planes", "joined", "late", "by_carrier", "plot", "report"]
READS = {
    "flights": [], "weather": [], "planes": [], "joined": ["flights", "weather", "planes"], "late": ["joined"],
    "by_carrier": ["late"], "plot": ["by_carrier"], "report": ["by_carrier"],
}  # fmt: skip
SNAPSHOT = json.dumps(v4.new_notebook(cells=[v4.new_code_cell("1")]))


def deploy(store: Store, name: str, *, queue: str = "default", cron: str | None = None, **policy: Any) -> Deployment:
    deployment = Deployment(
        name=name,
        notebook=f"/srv/notebooks/{name}.ipynb",
        snapshot=f"snapshot of {name}",
        policy=Policy(queue=queue, **policy),
        schedule=Schedule(cron=cron, zone="UTC", next=now() + timedelta(hours=6)) if cron else None,
    )
    return store.deploy(deployment, SNAPSHOT, now=now())[0]


def submit(store: Store, deployment: Deployment, *, at: datetime | None = None, **parameters: Any) -> Run:
    return store.submit(Run.of(deployment, now=at or now(), parameters=parameters))[0]


def begin(store: Store, run: Run, *, at: datetime | None = None, worker: str = "lab-3:4711") -> Run:
    """As a worker would that finds only this run to do."""
    claimed = store.claim([run.policy.queue], worker, now=at or now())
    assert claimed is not None
    assert claimed.id == run.id, "another run waits on that queue: begin it first"
    return claimed


def end(
    store: Store, run: Run, *, at: datetime | None = None, cause: Cause | None = None, error: str | None = None
) -> Run:
    ending = Ending(State.FAILED if cause else State.SUCCEEDED, cause, error)
    ended = store.finish(run.id, run.attempt, ending, now=at or now())
    assert ended is not None
    return ended


def steps(
    at: float, *, until: str | None = None, fails: str | None = None, error: str = "", flow: str = "flight delays"
) -> list[Event]:
    """A flow's events. *until*: this node still runs."""
    events = [Event("flow", at, flow=flow, data={"nodes": READS})]
    ended: dict[str, float] = {}
    broken: set[str] = set()
    for place, name in enumerate(NODES):
        begins = max([at + 0.05, *(ended.get(read, at) for read in READS[name])])
        if broken & set(READS[name]):
            broken.add(name)
            events.append(Event("node", begins, name, flow, State.SKIPPED, error=f"{fails} failed"))
            continue
        events.append(Event("node", begins, name, flow, State.RUNNING))
        if name == until:
            break
        ended[name] = begins + 0.4 + 1.9 * ((place * 7) % 5)
        if name == fails:
            broken.add(name)
            events.append(Event("node", ended[name], name, flow, State.FAILED, error=error))
        else:
            events.append(Event("node", ended[name], name, flow, State.SUCCEEDED))
    return events


def used(at: float, seconds: float) -> list[Event]:
    """The kernel, and what it used each half second."""
    where = {"python": "3.12.4", "host": "lab-3", "isolation": "namespace"}
    points = [
        [at + half / 2, 0.5, 0.4 + 1.2 * ((half * 5) % 7) / 7, 180e6 + 14e6 * half - 90e6 * (half > 22)]
        for half in range(1, int(2 * seconds))
    ]
    return [Event("kernel", at, "python3", data=where), Event("usage", at + seconds, data=points)]


def said(text: str, *, stream: str = "stdout", at: float = 0.0) -> Event:
    return Event("output", at, stream, data=text)


def save(artifacts: Artifacts, run: Run, cells: Sequence[Any], attempt: int | None = None) -> bytes:
    """Leave an executed notebook behind, as a worker does."""
    notebook = v4.new_notebook(cells=list(cells), metadata={"language_info": {"name": "python"}})
    data = json.dumps(notebook).encode()
    artifacts.write(notebook_path(run.id, attempt or run.attempt), data)
    return data


def code(source: str, *outputs: Any, count: int | None = None, tags: Sequence[str] = ()) -> Any:
    return v4.new_code_cell(source, outputs=list(outputs), execution_count=count, metadata={"tags": list(tags)})


def shows(data: Mapping[str, Any]) -> Any:
    return v4.new_output("display_data", data=dict(data))


def prints(text: str, stream: str = "stdout") -> Any:
    return v4.new_output("stream", name=stream, text=text)


def raises(name: str, value: str, traceback: Sequence[str]) -> Any:
    return v4.new_output("error", ename=name, evalue=value, traceback=list(traceback))


TRACEBACK = [
    "\x1b[0;31m---------------------------------------------------------------------------\x1b[0m",
    "\x1b[0;31mKeyError\x1b[0m                                  Traceback (most recent call last)",
    "Cell \x1b[0;32mIn[6], line 1\x1b[0m\n\x1b[0;32m----> 1\x1b[0m flow\x1b[38;5;241m.\x1b[39mrun(day=day)",
    "File \x1b[0;32mflights.py:14\x1b[0m, in \x1b[0;36mby_carrier\x1b[0;34m(late)\x1b[0m\n"
    '\x1b[0;32m---> 14\x1b[0m     \x1b[0;32mreturn\x1b[0m late.groupby("carier").dep_delay.mean()',
    "\x1b[0;31mKeyError\x1b[0m: 'carier'",
]


def report(*, failed: bool = False) -> list[Any]:
    table = (
        '<style scoped>.dataframe tbody tr th { vertical-align: top }</style><table border="1" class="dataframe">'
        "<thead><tr><th></th><th>carrier</th><th>flights</th><th>late</th><th>mean delay</th></tr></thead><tbody>"
        + "".join(
            f"<tr><th>{i}</th><td>{c}</td><td>{n}</td><td>{late}</td><td>{mean}</td></tr>"
            for i, (c, n, late, mean) in enumerate(
                [("EV", 162, 74, 41.2), ("B6", 151, 58, 33.7), ("UA", 170, 49, 27.9), ("DL", 141, 31, 22.4)]
            )
        )
        + "</tbody></table>"
    )
    cells = [
        v4.new_markdown_cell(
            "# Late flights of a day\n\nDepartures from New York, joined with the weather of the hour."
        ),
        code('day = "2013-07-01"\nmin_delay = 15', count=1, tags=["parameters"]),
        code('# Parameters\nday = "2013-07-14"\nmin_delay = 30', count=2, tags=["injected-parameters"]),
        code('import flowkit as fk\n\nflow = fk.Flow("flight delays")  # its nodes are below', count=3),
        code(
            "@flow.node(retries=2)\ndef by_carrier(late: pd.DataFrame) -> pd.DataFrame:\n"
            '    """Mean delay of each carrier."""\n    return late.groupby("carrier").dep_delay.mean()',
            count=4,
        ),
    ]
    if failed:
        trace = raises("KeyError", "'carier'", TRACEBACK)
        return [*cells, code("flow.run(day=day)", prints("reading flights of 2013-07-14\n"), trace, count=6)]
    return [
        *cells,
        code('flow.run(day=day)["report"]', prints("reading 842 flights\n"), shows({"text/html": table}), count=5),
        code('flow.last["plot"]', shows({"image/png": _plot(), "text/plain": "<Figure>"}), count=6),
    ]


def _plot() -> str:
    from matplotlib.figure import Figure

    axes = (figure := Figure(figsize=(6.4, 2.8))).subplots()
    axes.bar(["EV", "B6", "UA", "DL", "AA", "MQ"], [41.2, 33.7, 27.9, 22.4, 20.1, 18.8], color="#4878a8")
    axes.set_ylabel("mean delay, min")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture := io.BytesIO(), dpi=110, bbox_inches="tight")
    return base64.b64encode(picture.getvalue()).decode()


def fill(store: Store, artifacts: Artifacts, *, runs: int = 60) -> dict[str, Run]:
    """A mix of *runs* runs and some more; those worth a look by name."""
    chance = random.Random(7)
    at = now().replace(microsecond=0)
    store.enrol(
        Worker(
            id="lab-3:4711", host="lab-3", pid=4711, queues=("default", "reports"), concurrency=4, started=at, seen=at
        )
    )
    delays = deploy(store, "flight_delays", cron="0 6 * * *", retries=2)
    hourly = deploy(store, "weather hourly", cron="5 * * * *")
    invoices = deploy(store, "invoices", queue="reports", cron="30 7 * * 1-5")
    long = deploy(store, "quarterly revenue by region, product line and sales channel with forecasts", queue="reports")
    heavy = deploy(store, "train_demand_model", queue="gpu", timeout=3600.0)

    before = at - timedelta(minutes=13 * (runs + 12))
    for number in range(runs):
        began = before + timedelta(minutes=13 * number)
        deployment = chance.choice([delays, hourly, hourly, invoices, long])
        run = submit(store, deployment, at=began, day=f"2013-07-{number % 28 + 1:02}", min_delay=15)
        run = begin(store, run, at=began + timedelta(seconds=1))
        took = timedelta(seconds=chance.lognormvariate(2.3, 1.0))
        if chance.random() < 0.07:
            error = chance.choice(
                ["ValueError: no flights on 2013-02-30", "ConnectionError: weather.example: timed out"]
            )
            while run.state is State.RUNNING:
                ended = end(store, run, at=began + took, cause=Cause.NOTEBOOK, error=error)
                took += timedelta(seconds=20)
                run = begin(store, ended, at=began + took) if ended.state is State.PENDING else ended
        elif chance.random() < 0.03:
            store.cancel(run.id, now=began + took)
            store.finish(run.id, run.attempt, Ending(State.CANCELLED), now=began + took)
        else:
            end(store, run, at=began + took)

    named: dict[str, Run] = {}
    began = at - timedelta(hours=2)
    firing = replace(
        Run.of(delays, now=began, parameters={"day": "2013-07-12", "min_delay": 30}), scheduled_for=began, zone="UTC"
    )
    run = begin(store, store.submit(firing)[0], at=began)
    store.record(run.id, run.attempt, [*steps(began.timestamp()), said("reading 842 flights\n")])
    save(artifacts, run, report())
    named["succeeded"] = end(store, run, at=began + timedelta(seconds=21))

    began = at - timedelta(minutes=64)
    run = begin(store, submit(store, invoices, at=began, month="2013-06"), at=began)
    named["timeout"] = end(
        store,
        run,
        at=began + timedelta(minutes=10),
        cause=Cause.TIMEOUT,
        error="it ran longer than 600 s, and was stopped",
    )
    began = at - timedelta(minutes=31)
    run = submit(store, delays, at=began, day="2013-07-14", min_delay=30, carriers=["UA", "B6", "EV"], note=None)
    for attempt in range(3):
        began += timedelta(seconds=20 * attempt)
        run = begin(store, run, at=began)
        events = steps(began.timestamp(), fails="by_carrier", error="KeyError: 'carier'")
        log = [said("reading flights of 2013-07-14\n842 flights, 167 late\n"), said("carier?\n", stream="stderr")]
        store.record(run.id, run.attempt, [*used(began.timestamp(), 15.0), *events, *log])
        save(artifacts, run, report(failed=True))
        run = end(
            store, run, at=began + timedelta(seconds=15), cause=Cause.NOTEBOOK, error="by_carrier: KeyError: 'carier'"
        )
    named["failed"] = run

    began = at - timedelta(minutes=9)
    named["cancelled"] = store.cancel(submit(store, long, at=began).id, now=began + timedelta(minutes=1))
    began = at - timedelta(seconds=40)
    run = begin(store, submit(store, delays, at=began, day="2013-07-15", min_delay=30), at=began)
    store.record(run.id, run.attempt, [*steps(began.timestamp(), until="joined"), said("reading 851 flights\n")])
    save(artifacts, run, report()[:5])
    named["running"] = run
    began = at - timedelta(seconds=12)
    named["also running"] = begin(store, submit(store, invoices, at=began, month="2013-07"), at=began)
    for number in range(3):
        named["pending"] = submit(store, hourly, at=at - timedelta(seconds=3 - number), hour=number)
    for _ in range(2):
        submit(store, heavy, at=at - timedelta(seconds=5), epochs=40)
    return named


if __name__ == "__main__":
    from flowkit.client import Client
    from flowkit.config import Config
    from flowkit.server.process import serve

    folder = Path(sys.argv[1])
    with Client(Config.from_env({"FLOWKIT_HOME": str(folder)})) as client:
        if len(sys.argv) > 2:
            fill(client.store, client.artifacts, runs=int(sys.argv[2]))
        serve(client.store, client.artifacts, client, port=0)
