"""Workers of two versions on one store do not mind each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkit.model import Ending, State
from flowkit.store import Store
from tests.chaos.versions import expand, mixed
from tests.store import given


def test_runs_are_done_once_by_workers_of_two_versions(tmp_path: Path) -> None:
    done, lost, doubled, told = mixed(tmp_path, servers=False, runs=30, seconds=20.0)

    assert done >= 30
    assert (lost, doubled) == (0, 0)
    assert "nothing" not in told


def test_who_knows_an_older_schema_reads_and_writes_on_when_a_column_was_added(store: Store, database_url: str) -> None:
    before = given.submitted(store)

    expand(database_url)

    after = given.submitted(store, created=given.at(1))
    assert store.runs() == [after, before]
    claimed = store.claim(["default"], "w1", now=given.at(2))
    assert claimed is not None
    assert store.finish(claimed.id, 1, Ending(State.SUCCEEDED), now=given.at(3)) is not None
    assert store.deploy(given.deployment(), given.TEXT, now=given.T0)[1]
    with Store.open(database_url) as again:
        assert again.deployments() == store.deployments()


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of its own: it is changed."""
    return f"sqlite:///{tmp_path}/flowkit.db"
