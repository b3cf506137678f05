"""What the processes of a store know and nobody else."""

from __future__ import annotations

from flowkit.store import Store
from tests.store.given import together


def test_a_secret_is_made_once_by_whoever_comes_first_and_is_another_one_in_each_store(
    store: Store, database_url: str
) -> None:
    def ask(_: int) -> bytes:
        with Store.open(database_url) as another:
            return another.secret("messages")

    found = together(8, ask)

    assert set(found) == {store.secret("messages")}
    assert len(found[0]) == 32
    assert store.secret("others") not in found
