"""However many browsers look, the store is asked as often as for one; and each is told what it asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowkit.artifacts import Artifacts
from flowkit.client import Client
from flowkit.config import Config
from flowkit.errors import Unavailable
from flowkit.model import Cause, State, now
from flowkit.server.dashboard.now import Now
from flowkit.server.dashboard.reading import Asked, Look, Question, Reader, Seen
from flowkit.server.dashboard.run import TAIL, Followed, Following
from flowkit.server.dashboard.runs import PAGE, Table
from flowkit.store import Store
from flowkit.store.search import Found
from tests.server.mix import begin, deploy, end, said, steps, submit


class Looking:
    """A browser without a screen."""

    def __init__(self, **questions: Question) -> None:
        self.turn = 0
        self.asks(**questions)
        self.seen: list[Seen] = []
        self._told = threading.Condition()

    def show(self, seen: Seen) -> None:
        with self._told:
            self.seen.append(seen)
            self._told.notify_all()

    def asks(self, **questions: Question) -> None:
        self.turn += 1
        self.asked = Asked({name: (self.turn, question) for name, question in questions.items()})

    def table(self) -> tuple[list[str], bool]:
        """Ids of what it has asked for last, and whether there are more."""
        turn = self.turn
        seen = self.wait(lambda seen: seen.asked.questions["runs"][0] == turn and seen.found)
        told = seen.parts["runs"]["table"].since(None)
        return told["order"], told["more"]

    def followed(self, until: Callable[[Followed], Any]) -> Followed:
        found: Followed = self.wait(lambda seen: seen.found and until(seen.found["run"])).found["run"]
        return found

    def wait(self, until: Callable[[Seen], Any]) -> Seen:
        with self._told:
            assert self._told.wait_for(lambda: self.seen and until(self.seen[-1]), timeout=5), self.seen[-1:]
            return self.seen[-1]


class Counted(Store):
    """A store that counts how often it is asked."""

    questions = 0
    broken = False

    def counts(self, *, most: int | None = None) -> dict[State, int]:
        if self.broken:
            raise Unavailable("cannot use the database x: gone")
        return super().counts(most=most)

    def search(self, **given: Any) -> Found:
        self.questions += 1
        return super().search(**given)


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    with Counted.open(f"sqlite:///{tmp_path / 'flowkit.db'}") as store:
        yield store


@pytest.fixture
def reader(counted: Counted, tmp_path: Path) -> Iterator[Reader]:
    with Client(Config.from_env({"FLOWKIT_HOME": str(tmp_path)})) as client:
        reader = Reader(counted, Artifacts(str(tmp_path)), client)
        yield reader
        reader.close()


def test_fifty_browsers_on_one_page_cost_as_many_questions_as_one(counted: Counted, reader: Reader) -> None:
    viewers = [Looking(runs=Table()) for _ in range(50)]
    for viewer in viewers:
        reader.add(viewer)
    time.sleep(2.4)
    assert all(len(viewer.seen) >= 3 for viewer in viewers)
    assert counted.questions <= 6


def test_nobody_looking_costs_nothing(counted: Counted, reader: Reader) -> None:
    viewer = Looking(runs=Table())
    reader.add(viewer)
    viewer.wait(lambda seen: seen.found)
    reader.remove(viewer)
    time.sleep(0.2)
    before = counted.questions
    time.sleep(1.3)
    assert counted.questions == before


def test_only_what_somebodys_page_shows_is_read(counted: Counted, reader: Reader) -> None:
    viewer = Looking(now=Now())
    reader.add(viewer)
    viewer.wait(lambda _: len(viewer.seen) >= 3)
    assert counted.questions == 0


def test_a_viewer_that_turns_elsewhere_is_answered_at_once(counted: Counted, reader: Reader) -> None:
    deployment = deploy(counted, "a")
    failed = end(counted, begin(counted, submit(counted, deployment)), cause=Cause.NOTEBOOK, error="E: x")
    waiting = submit(counted, deployment)
    viewer = Looking(runs=Table())
    reader.add(viewer)
    assert viewer.table() == ([waiting.id, failed.id], False)
    viewer.asks(runs=Table(states=(State.FAILED,)))
    began = time.monotonic()
    reader.wake()
    assert viewer.table() == ([failed.id], False)
    assert time.monotonic() - began < 0.5


def test_pages_go_on_where_the_one_before_ended_and_survive_a_pruned_run(counted: Counted, reader: Reader) -> None:
    deployment = deploy(counted, "a")
    ids = [submit(counted, deployment).id for _ in range(PAGE + 3)][::-1]
    viewer = Looking(runs=Table())
    reader.add(viewer)
    assert viewer.table() == (ids[:PAGE], True)
    viewer.asks(runs=Table(before=ids[PAGE - 1]))
    reader.wake()
    assert viewer.table() == (ids[PAGE:], False)
    viewer.asks(runs=Table(before="00000000-0000-0000-0000-000000000000"))
    reader.wake()
    assert viewer.table() == (ids[:PAGE], True)


def test_a_followed_run_grows_by_what_it_records_and_begins_anew_with_an_attempt(
    counted: Counted, reader: Reader
) -> None:
    deployment = deploy(counted, "a", retries=1, backoff=0.0)
    run = begin(counted, submit(counted, deployment))
    viewer = Looking(run=Following(run.id[:8]))
    reader.add(viewer)
    viewer.followed(lambda followed: followed.run)
    counted.record(run.id, 1, [*steps(1000.0, until="joined"), said("one\n"), said("two\n")])
    followed = viewer.followed(lambda followed: followed.log)
    assert [(piece.place, piece.text) for piece in followed.log] == [(1, "one\n"), (2, "two\n")]
    assert {node.name: node.state for node in followed.nodes}["joined"] is State.RUNNING
    counted.record(run.id, 1, [said("x" * TAIL), said("end\n")])
    followed = viewer.followed(lambda followed: followed.outputs == 4)
    assert [(piece.place, piece.text) for piece in followed.log] == [(4, "end\n")]

    end(counted, run, cause=Cause.NOTEBOOK, error="E: x")
    again = begin(counted, counted.run(run.id), at=now())
    counted.record(again.id, 2, [said("again\n")])
    followed = viewer.followed(lambda followed: followed.run.attempt == 2 and followed.log)
    assert [(piece.place, piece.text) for piece in followed.log] == [(1, "again\n")]
    assert followed.nodes == []


def test_a_run_that_is_not_there_is_told_and_the_rest_goes_on(counted: Counted, reader: Reader) -> None:
    viewer = Looking(run=Following("feedbeef"), runs=Table())
    reader.add(viewer)
    seen = viewer.wait(lambda seen: seen.found)
    assert "feedbeef" in seen.parts["run"]["missing"]
    assert seen.found["runs"].runs == []


def test_a_store_that_does_not_answer_is_told_and_asked_again(counted: Counted, reader: Reader) -> None:
    counted.broken = True
    viewer = Looking(now=Now())
    reader.add(viewer)
    assert viewer.wait(lambda seen: seen.problem).problem == "cannot use the database x: gone"
    counted.broken = False
    assert viewer.wait(lambda seen: seen.found).problem is None


def test_a_question_that_breaks_is_told_to_who_asked_it_and_the_others_are_answered(
    counted: Counted, reader: Reader
) -> None:
    @dataclass(frozen=True)
    class Broken:
        def read(self, look: Look, before: Any) -> Any:
            raise ZeroDivisionError("by a page")

        def tell(self, found: Any) -> dict[str, Any]:
            return {}

    asks, other = Looking(broken=Broken(), runs=Table()), Looking(runs=Table())
    reader.add(asks)
    reader.add(other)
    assert asks.wait(lambda seen: seen.problem).problem == "ZeroDivisionError: by a page"
    assert other.wait(lambda seen: seen.found).problem is None


def test_a_browser_that_cannot_be_told_is_left_and_the_others_are_not(counted: Counted, reader: Reader) -> None:
    class Torn(Looking):
        def show(self, seen: Seen) -> None:
            raise RuntimeError("its session is gone")

    reader.add(Torn(runs=Table()))
    viewer = Looking(runs=Table())
    reader.add(viewer)
    viewer.wait(lambda _: len(viewer.seen) >= 3)
