"""A storm over each pair of store and broker: the promises hold for what was accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.storm import Storm

#: Seconds in which things go wrong.
RAGE = 10.0


@pytest.mark.parametrize("servers", [False, True], ids=["SQLite and SQLite", "PostgreSQL and Redis"])
def test_what_was_accepted_ends_once_whatever_dies(tmp_path: Path, servers: bool) -> None:
    with Storm(tmp_path, servers=servers, seed=1) as storm:
        storm.rage(RAGE)
        storm.settle()
        verdict = storm.verdict()

    assert (verdict["lost"], verdict["doubled"], verdict["unexpected"]) == (0, 0, 0), (verdict, storm.faults)
    assert verdict["accepted"] >= 20, verdict  # on a slow machine; a free one accepts hundreds
    assert sum(storm.faults.values()) >= 5, storm.faults
