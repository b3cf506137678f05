"""What a worker's run keeps of its nodes' results, as its kernel does it: one process, several attempts."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import flowkit as fk
from flowkit.artifacts import Artifacts
from flowkit.errors import NotFound
from flowkit.events import LOG, Event, fold
from flowkit.flow import checkpoint
from flowkit.flow.current import FILE
from flowkit.loaded import Loaded
from flowkit.model import CurrentRun, Deployment, Run, State, now
from flowkit.shelf import KEEP, Shelf, kept_path


class Ran:
    """Says what has run. In a file: what a node's code refers to is part of its key, and a list would grow."""

    def __init__(self) -> None:
        handle, self._path = tempfile.mkstemp(prefix="flowkit-ran.")
        os.close(handle)

    def append(self, name: object) -> None:
        with open(self._path, "a") as file:
            print(name, file=file)

    def clear(self) -> None:
        os.truncate(self._path, 0)

    def __iter__(self) -> Iterator[str]:
        return iter(Path(self._path).read_text().splitlines())

    def __eq__(self, other: object) -> bool:
        return list(self) == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


@pytest.fixture
def ran() -> Iterator[Ran]:
    made = Ran()
    yield made
    os.unlink(made._path)


class Attempts:
    """Attempts of one run, each in a kernel of its own as far as it can tell."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.url = str(folder / "artifacts")
        self.limit: int | None = 10**9
        self._monkeypatch = monkeypatch

    @property
    def shelf(self) -> Shelf:
        return Shelf(Artifacts(self.url), kept_path("r1"))

    def begin(self, attempt: int, run: str = "r1") -> Path:
        work = self.folder / f"{run}.{attempt}"
        work.mkdir()
        current = CurrentRun(id=run, key=run, attempt=attempt, deployment=None, notebook="n.ipynb")
        (work / FILE).write_text(current.to_json())
        (work / KEEP).write_text(json.dumps({"url": self.url, "limit": self.limit}))
        self._monkeypatch.setenv("FLOWKIT_RUN_FOLDER", str(work))
        checkpoint._times.clear()  # which a new kernel has not
        return work / LOG


@pytest.fixture
def attempts(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Attempts:
    return Attempts(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """Nothing is said that a test did not expect."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("default", category=DeprecationWarning)
        yield


def authored(ran: Ran, *, broken: bool = True, **options: Any) -> fk.Flow:
    """flights -> late, planes -> report; report fails if *broken*. *options* are those of flights."""
    flow = fk.Flow("delays")

    @flow.node(**options)
    def flights(day):
        ran.append("flights")
        return pd.DataFrame({"delay": [day, 20]})

    @flow.node
    def late(flights, least=15):
        ran.append("late")
        return flights[flights.delay >= least]

    @flow.node(map="plane")
    def planes(plane):
        ran.append(f"planes {plane}")
        if plane == 3 and broken:
            raise OSError("no such plane")
        return plane * 2

    @flow.node
    def report(late, planes):
        ran.append("report")
        return len(late) + sum(planes)

    return flow


def test_an_attempt_computes_only_what_those_before_did_not_finish(attempts: Attempts, ran: Ran) -> None:
    attempts.begin(1)
    with pytest.raises(fk.NodeFailed, match=r"planes\[2\] failed: OSError"):
        authored(ran).run(day=30, plane=[1, 2, 3])
    assert sorted(ran) == ["flights", "late", "planes 1", "planes 2", "planes 3"]
    ran.clear()

    log = attempts.begin(2)
    outcome = authored(ran, broken=False).run(day=30, plane=[1, 2, 3])

    # `broken` is in the closure of `planes`: its code is another now, and all of it runs again.
    assert sorted(ran) == ["planes 1", "planes 2", "planes 3", "report"]
    assert outcome["report"] == 14
    nodes = {node.name: node for node in fold([Event.from_json(line) for line in log.read_text().splitlines()])}
    assert nodes["late"].reused == "attempt 1"
    assert nodes["report"].reused is None
    assert nodes["report"].kept in attempts.shelf.stems()
    assert "reused from attempt 1" in repr(outcome)


def test_finished_items_of_a_mapped_node_are_not_computed_again(attempts: Attempts, tmp_path: Path, ran: Ran) -> None:
    mended = tmp_path / "mended"

    def flow() -> fk.Flow:
        flow = fk.Flow("planes")

        @flow.node(map="plane")
        def planes(plane):
            ran.append(plane)
            if plane == 2 and not mended.exists():
                raise OSError
            return plane * 2

        return flow

    attempts.begin(1)
    with pytest.raises(fk.NodeFailed):
        flow().run(plane=[1, 2, 3])
    mended.touch()
    ran.clear()
    attempts.begin(2)

    assert flow().run(plane=[1, 2, 3])["planes"] == [2, 4, 6]
    assert ran == ["2"]


@pytest.mark.parametrize("threads", [1, 4, None])
def test_results_are_found_however_the_flow_is_run(attempts: Attempts, threads: int | None, ran: Ran) -> None:

    def run() -> fk.Outcome:
        flow = authored(ran, broken=False)
        if threads is not None:
            return flow.run(day=30, plane=[1], threads=threads)
        with ThreadPoolExecutor(2) as pool:
            return flow.run(day=30, plane=[1], executor=pool)

    attempts.begin(1)
    first = run()
    ran.clear()
    attempts.begin(2)
    again = run()

    assert ran == []
    pd.testing.assert_frame_equal(again["late"], first["late"])
    assert again["report"] == first["report"] == 4


def test_a_changed_parameter_runs_what_reads_it_and_nothing_else(attempts: Attempts, ran: Ran) -> None:
    attempts.begin(1)
    authored(ran, broken=False).run(day=30, plane=[1])
    ran.clear()
    attempts.begin(2)

    assert authored(ran, broken=False).run(day=30, least=25, plane=[1])["report"] == 3
    assert ran == ["late", "report"]


def test_a_flow_that_a_notebook_runs_twice_runs_twice(attempts: Attempts, ran: Ran) -> None:

    def count() -> list[int]:
        flow = fk.Flow("counts")

        @flow.node
        def number():
            ran.append("number")
            return len(list(ran))

        return [flow.run()["number"], flow.run()["number"]]

    attempts.begin(1)
    first = count()
    attempts.begin(2)
    again = count()

    assert first == again == [1, 2]


def test_a_node_that_opted_out_is_computed_by_every_attempt(attempts: Attempts, ran: Ran) -> None:
    for attempt, day in ((1, 30), (2, 30)):
        attempts.begin(attempt)
        authored(ran, broken=False, checkpoint=False).run(day=day, plane=[])

    assert ran == ["flights", "late", "report", "flights"]  # it gave the same, so what reads it is taken as it was
    assert not any(stem.startswith("flights.") for stem in attempts.shelf.stems())


def test_what_reads_a_result_that_was_not_kept_is_computed_again_if_that_came_out_another(
    attempts: Attempts, tmp_path: Path, ran: Ran
) -> None:
    source = tmp_path / "source"

    def flow() -> fk.Flow:
        flow = fk.Flow("fresh")
        flow.add(lambda: source.read_text(), "fresh", checkpoint=False)
        flow.add(lambda fresh: ran.append(fresh) or fresh, "read")
        return flow

    for attempt, content in ((1, "a"), (2, "b"), (3, "b")):
        source.write_text(content)
        attempts.begin(attempt)
        assert flow().run()["read"] == content

    assert ran == ["a", "b"]


def test_a_result_that_cannot_be_kept_says_so_once_and_is_computed_again(attempts: Attempts, ran: Ran) -> None:

    def flow() -> fk.Flow:
        flow = fk.Flow("locks")

        @flow.node
        def lock():
            ran.append("lock")
            return threading.Lock()

        @flow.node
        def after(lock):
            ran.append("after")
            return 1

        return flow

    for attempt in (1, 2):
        attempts.begin(attempt)
        with pytest.warns(RuntimeWarning) as said:
            flow().run(threads=1)
        assert ["locks: node 'lock': its result cannot be kept" in str(one.message) for one in said] == [True]

    assert ran == ["lock", "after", "lock"]


@pytest.mark.parametrize("damage", ["cut", "changed", "replaced", "gone", "poisoned"])
def test_a_damaged_result_is_found_out_said_and_computed_again(attempts: Attempts, damage: str, ran: Ran) -> None:

    def flow() -> fk.Flow:
        flow = fk.Flow("damaged")
        flow.add(lambda: ran.append("made") or (1, 2), "made")
        return flow

    attempts.begin(1)
    flow().run()
    [file] = Path(attempts.url, attempts.shelf.folder).glob("made.*.pickle")
    content = file.read_bytes()
    if damage == "poisoned":  # whole, but it does not load: the author's class is another now
        facts = attempts.shelf.facts(file.name.rsplit(".", 2)[0])
        assert facts is not None
        attempts.shelf.keep(file.name.rsplit(".", 2)[0], lambda f: f.write(b"no pickle") and facts)
    elif damage == "replaced":  # by another result that loads
        file.write_bytes(pickle.dumps((3, 4)))
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "cut" else content[:-1] + b"?")

    attempts.begin(2)
    with pytest.warns(RuntimeWarning, match="node 'made': its kept result cannot be read, so it is computed again"):
        assert flow().run()["made"] == (1, 2)
    attempts.begin(3)

    assert flow().run()["made"] == (1, 2)
    assert ran == ["made", "made"]


def test_a_file_that_was_not_published_is_no_result(attempts: Attempts, ran: Ran) -> None:
    attempts.begin(1)
    with attempts.shelf.artifacts.scratch(attempts.shelf.folder) as made:
        made.file.write(b"half")
    attempts.begin(2)
    authored(ran, broken=False).run(day=1, plane=[])

    assert ran == ["flights", "late", "report"]
    assert not list(Path(attempts.url, attempts.shelf.folder).glob(".scratch*"))


def test_a_result_is_kept_before_the_next_node_can_change_it(attempts: Attempts) -> None:
    def flow(fails: bool) -> fk.Flow:
        flow = fk.Flow("changed")

        @flow.node
        def rows():
            return [1, 2]

        @flow.node
        def spoiled(rows, fails):
            rows.append(3)
            if fails:
                raise ValueError
            return rows

        return flow

    attempts.begin(1)
    with pytest.raises(fk.NodeFailed):
        flow(True).run(fails=True)
    attempts.begin(2)

    assert flow(False).run(fails=False)["spoiled"] == [1, 2, 3]


def test_two_writers_of_one_key_leave_one_whole_result(attempts: Attempts) -> None:
    shelf = attempts.shelf
    values = [b"a" * 100_000, b"b" * 200_000]

    def keep(value: bytes) -> None:
        for _ in range(20):
            shelf.keep("n.k", lambda file: file.write(value) and {"suffix": ".x", "format": "x"})

    writers = [threading.Thread(target=keep, args=(value,)) for value in values]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        facts = shelf.facts("n.k")
        if facts is not None:
            with shelf.open(facts) as file:
                assert file.read() in values

    for writer in writers:
        writer.join()
    assert shelf.facts("n.k") is not None


def test_more_than_the_limit_is_not_kept_and_that_is_said(attempts: Attempts, ran: Ran) -> None:
    attempts.limit = 1
    attempts.begin(1)
    with pytest.warns(RuntimeWarning, match="which is the limit"):
        authored(ran, broken=False).run(day=30, plane=[], threads=1)

    assert {stem.partition(".")[0] for stem in attempts.shelf.stems()} == {"-flow", "flights"}


def test_a_disk_that_cannot_be_written_fails_no_node(attempts: Attempts) -> None:
    Path(attempts.url).write_text("a file where the folder should be")
    attempts.begin(1)

    with pytest.warns(RuntimeWarning, match=r"cannot (be kept|write)"):
        assert authored(Ran(), broken=False).run(day=30, plane=[1])["report"] == 4


def test_the_description_tells_of_the_result_without_reading_it(attempts: Attempts) -> None:
    attempts.begin(1)
    outcome = authored(Ran(), broken=False).run(day=30, plane=[])
    facts = attempts.shelf.facts(outcome.notes["flights"]["kept"])

    assert facts is not None
    assert (facts["node"], facts["flow"], facts["format"], facts["kind"]) == (
        "flights",
        "delays",
        "pandas",
        "pandas.DataFrame",
    )
    assert facts["profile"]["rows"] == 2
    assert facts["profile"]["columns"][0] | {"dtype": ""} == {
        "name": "delay",
        "dtype": "",
        "nulls": 0,
        "min": 20,
        "max": 30,
    }
    assert facts["preview"].splitlines()[0].split() == ["delay"]
    assert facts["size"] == os.path.getsize(Path(attempts.url, attempts.shelf.folder, facts["file"]))


def test_forgetting_a_node_forgets_its_items_too_and_no_other(attempts: Attempts) -> None:
    attempts.begin(1)
    authored(Ran(), broken=False).run(day=30, plane=[1, 2])

    assert attempts.shelf.forget(["planes", "report"]) == 3
    assert {stem.partition(".")[0] for stem in attempts.shelf.stems()} == {"-flow", "flights", "late"}


def test_an_opened_run_has_what_finished_and_its_flow_goes_on_from_there(
    attempts: Attempts, monkeypatch: pytest.MonkeyPatch, ran: Ran
) -> None:
    log = attempts.begin(1)
    with pytest.raises(fk.NodeFailed):
        authored(ran).run(day=30, plane=[1, 2, 3])
    monkeypatch.delenv("FLOWKIT_RUN_FOLDER")
    events = [Event.from_json(line) for line in log.read_text().splitlines()]
    deployment = Deployment(name="d", notebook="n.ipynb", snapshot="s")
    run = replace(Run.of(deployment, now=now()), id="r1", attempt=1, state=State.FAILED)

    opened = Loaded(run, [events], Artifacts(attempts.url))

    assert opened.failed == "planes"
    assert list(opened.results()) == ["flights", "late"]
    assert opened["planes[1]"] == 4
    with pytest.raises(NotFound, match="has kept no result of 'planes'"):  # two of three items are not it
        opened["planes"]
    assert list(opened.inputs("report")) == ["late"]
    assert opened.inputs("planes") == {"plane": [1, 2, 3]}
    with pytest.raises(NotFound, match=r"'laet'; did you mean 'late'\?"):
        opened["laet"]
    ran.clear()
    opened.resume()
    try:
        with pytest.raises(fk.NodeFailed):
            authored(ran).run(day=30, plane=[1, 2, 3])
    finally:
        monkeypatch.setattr(checkpoint, "_resumed", None)
    assert ran == ["planes 3"]


# -- the cache -------------------------------------------------------------------------------------------------------


def cached(ran: Ran, path: Path, lifetime: object = "1d") -> fk.Flow:
    flow = fk.Flow("cached")

    @flow.node
    def rows(path):
        ran.append("rows")
        return Path(path).read_text().split()

    @flow.node(cache=lifetime)
    def counted(rows):
        ran.append("counted")
        return len(rows)

    return flow


def test_a_cached_result_is_reused_here_and_in_a_worker_as_long_as_it_is_given_the_same(
    attempts: Attempts, tmp_path: Path, home: Path, ran: Ran
) -> None:
    words = tmp_path / "words"
    words.write_text("a b")
    attempts.url = str(home / "artifacts")

    first = cached(ran, words).run(path=str(words))
    again = cached(ran, words).run(path=str(words))
    attempts.begin(1)
    elsewhere = cached(ran, words).run(path=str(words))

    assert first["counted"] == again["counted"] == elsewhere["counted"] == 2
    assert ran == ["rows", "counted", "rows", "rows"]
    assert {node.name: node.reused for node in again.nodes} == {"rows": None, "counted": "the cache"}
    assert any(stem.startswith("counted.") for stem in attempts.shelf.stems())  # the run has all its results
    words.write_text("a b c")  # the same path, and another content
    attempts.begin(1, "r2")
    assert cached(ran, words).run(path=str(words))["counted"] == 3


def test_a_cached_result_is_not_reused_after_its_time(
    attempts: Attempts, tmp_path: Path, monkeypatch, ran: Ran
) -> None:
    words = tmp_path / "words"
    words.write_text("a b")
    at = [1_000_000.0]
    monkeypatch.setattr(checkpoint, "epoch", lambda: at[0])

    cached(ran, words, "1h").run(path=str(words))
    at[0] += 3599
    cached(ran, words, "1h").run(path=str(words))
    at[0] += 2
    cached(ran, words, "1h").run(path=str(words))

    assert list(ran).count("counted") == 2


def test_a_node_that_is_named_in_a_rerun_is_computed_though_it_is_cached(home: Path, tmp_path: Path, ran: Ran) -> None:
    words = tmp_path / "words"
    words.write_text("a b")
    flow = cached(ran, words)
    flow.run(path=str(words))
    ran.clear()

    flow.rerun("counted")

    assert ran == ["counted"]


@pytest.mark.parametrize("lifetime", ["soon", "", 0, -1, True, "1y", float("inf")])
def test_a_lifetime_that_is_none_is_refused(lifetime: object) -> None:
    with pytest.raises(fk.GraphError, match="say for how long"):
        cached(Ran(), Path(), lifetime)
