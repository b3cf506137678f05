"""Workers of two versions on one store, while the newer has added a column to it.

``PREVIOUS`` names the commit of the last release, whose own code is then the older worker. There is none yet, so the
older worker is this code that is spoken to from a future: rows have a column that it does not know, policies a field,
runs events of an unknown kind; and what it rings with is a message of another version. That shows that an older
*reader* survives, not that an older *writer* does: only a release can.
"""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from flowkit.model import State
from tests.chaos import worker
from tests.chaos.crew import ROOT, Crew

#: The commit of the last release; empty: there has been none.
PREVIOUS = (Path(__file__).parent / "previous").read_text().strip()

#: What a newer flowkit adds: columns that may be null, and nothing that an older one would have to know.
EXPANDED = [
    "ALTER TABLE runs ADD COLUMN weather TEXT",
    "ALTER TABLE deployments ADD COLUMN weather TEXT",
    "ALTER TABLE workers ADD COLUMN weather TEXT",
    "ALTER TABLE events ADD COLUMN weather TEXT",
]


def expand(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        for statement in EXPANDED:
            connection.exec_driver_sql(statement)
    engine.dispose()


def newer(journal: str) -> None:
    """A worker that writes what no older one knows."""
    from flowkit.store import Store
    from flowkit.store.schema import runs
    from flowkit.worker.broker import LookSerializer

    LookSerializer.VERSION += 1
    record = Store.record

    def told(self: Store, run: str, attempt: int, what: Any, **more: Any) -> bool:
        return record(self, run, attempt, [_Later(event) for event in what], **more)

    def later(connection: sa.Connection, *_: Any) -> None:
        connection.exec_driver_sql("UPDATE runs SET weather = 'fog' WHERE weather IS NULL AND state = 'running'")

    Store.record = told  # type: ignore[method-assign,assignment]
    claim = Store._claim

    def claimed(self: Store, connection: sa.Connection, *args: Any) -> Any:
        run = claim(self, connection, *args)
        if run is not None:
            later(connection)
            policy = {**json.loads(json.dumps(asdict(run.policy))), "altitude": 9000}
            connection.execute(sa.update(runs).where(runs.c.id == run.id).values(policy=policy))
        return run

    Store._claim = claimed  # type: ignore[method-assign]
    worker.main("fake", journal)


class _Later:
    """An event with more in it."""

    def __init__(self, event: Any) -> None:
        self._event = event

    def __getattr__(self, name: str) -> Any:
        return getattr(self._event, name)

    def to_json(self) -> str:
        return json.dumps({**json.loads(self._event.to_json()), "weather": "fog"})


def mixed(folder: Path, *, servers: bool, runs: int, seconds: float) -> tuple[int, int, int, str]:
    """Runs by two old and two new workers, one of which is killed: how many, lost, doubled, and which were the old."""
    with Crew(folder, servers=servers, lease=3.0) as crew:
        expand(crew.client.store.url.render_as_string(hide_password=False))
        old, told = ROOT, "the old worker: this code, behind the store's schema"
        if PREVIOUS:
            old, told = folder / "previous", f"the old worker: {PREVIOUS}"
            archive = subprocess.run(["git", "archive", PREVIOUS], cwd=ROOT, capture_output=True, check=True).stdout
            with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                files.extractall(old, filter="data")
        crew.hire(2, at=old)
        new = [crew.hire_newer() for _ in range(2)]
        crew.ready(4)
        wanted = max(10, min(runs, int(seconds * 8)))
        made = [crew.submit(seconds=crew.chance.choice([0.0, 0.0, 0.2]), failures=n % 2) for n in range(wanted // 2)]
        new[0].send_signal(signal.SIGKILL)
        made += [crew.submit(failures=int(n % 3 == 0)) for n in range(wanted - len(made))]
        # They may all be done before the other version has heard of one: it does not read the rings of this one.
        due = time.monotonic() + 60.0
        while not all(both := _by_version(crew, new)) and time.monotonic() < due:
            made.append(crew.submit(seconds=0.2))
            time.sleep(0.05)
        crew.settle(max(90.0, seconds))
        ended = [crew.client.store.run(run.id) for run in made]
        succeeded = sum(run.state is State.SUCCEEDED for run in ended)
        if not all(both):
            told += "; but one version has done nothing"
        for run in ended[:50]:
            assert crew.client.nodes(run)
        return len(made), len(made) - succeeded, crew.doubled(), told


def _by_version(crew: Crew, new: list[subprocess.Popen[bytes]]) -> tuple[set[int], set[int]]:
    """The processes that have begun a run: of the newer version, and of the older."""
    by = {begun.pid for begun in crew.begun()}
    return by & {one.pid for one in new}, by - {one.pid for one in new}


if __name__ == "__main__":
    newer(sys.argv[1])
