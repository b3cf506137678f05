"""A network that fails between a worker, a person and the servers: nothing runs twice, nobody waits for long."""

from __future__ import annotations

import pytest

from tests.chaos.partitions import Outcome, Partition
from tests.network import Link, links

LEASE = 6.0
#: Seconds of the partition: more than two thirds of the lease, less than it. Longer ones are for ``make soak``.
CUT = 5.0

#: How the network fails; name -> what is lost.
NETWORKS = {
    "packets": lambda: Link("packets", "lost packets"),
    "answers": lambda: Link("answers", "half-open"),
    "redis": lambda: Link("redis", "blackhole", redis_only=True),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """All at once: what they cost is mostly waiting."""
    folder = tmp_path_factory.mktemp("partition")
    with links(*NETWORKS.values()) as made, Partition(folder, made, lease=LEASE) as it:
        return it.happens(CUT)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_partition_loses_nothing_and_no_two_kernels_of_a_run_live_at_once(
    outcomes: dict[str, Outcome], network: str
) -> None:
    outcome = outcomes[network]

    assert (outcome.lost, outcome.overlaps, outcome.repeated) == ([], [], [])
    assert outcome.recovery is not None
    assert outcome.recovery < 20.0


@pytest.mark.parametrize("network", ["packets", "answers"])
def test_who_cannot_reach_the_database_is_told_so_within_6_s_by_one_line(
    outcomes: dict[str, Outcome], network: str
) -> None:
    seconds, code, told = outcomes[network].commands["runs"]

    assert (code, len(told.splitlines())) == (2, 1), told
    assert told.startswith("flowkit: cannot use the database postgresql+psycopg://")
    assert told.endswith("; check FLOWKIT_DATABASE_URL\n")
    assert seconds < 6.0


def test_who_cannot_reach_redis_is_told_so_within_6_s_and_the_run_is_accepted(outcomes: dict[str, Outcome]) -> None:
    seconds, code, told = outcomes["redis"].commands["run"]

    assert (code, len(told.splitlines())) == (0, 1), told
    assert "workers find the run within seconds by looking" in told
    assert seconds < 6.0
