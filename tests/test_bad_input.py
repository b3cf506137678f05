"""What is wrong is told in one line, with exit code 2 and no traceback, and nothing is stored or lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowkit.cli import main
from flowkit.client import Client
from flowkit.config import Config
from tests.notebooks_made import write

Refused = Callable[..., str]


@pytest.fixture
def refused(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Runs a command that must be refused; gives its one line."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["flowkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        printed = capsys.readouterr()
        assert (exit.value.code, printed.out) == (2, "")
        assert printed.err.startswith("flowkit: ")
        assert printed.err.count("\n") == 1
        return printed.err.strip().removeprefix("flowkit: ")

    return run


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "good.ipynb", "1", parameters='day: str = "2013-07-01"\nmin_delay: int = 15')


def nothing_is_stored() -> bool:
    with Client(Config.from_env()) as client:
        return not client.store.runs() and not client.store.deployments()


def test_no_such_notebook(refused: Refused, good: Path) -> None:
    missing = good.with_name("goood.ipynb")

    assert refused("run", missing) == f"no notebook at '{missing}'; did you mean 'good.ipynb'?"
    assert refused("deploy", missing) == f"no notebook at '{missing}'; did you mean 'good.ipynb'?"


def test_neither_a_notebook_nor_a_deployment(refused: Refused, good: Path) -> None:
    with Client(Config.from_env()) as client:
        client.deploy(good, name="flights")

    told = "no deployment 'flihgts'; did you mean 'flights'?; a notebook is named by its path, ending in .ipynb"
    assert refused("run", "flihgts") == told
    assert refused("run", "flihgts", "-p", "day", "x") == told


def test_something_that_is_there_but_is_no_notebook(refused: Refused, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text("print()")
    (tmp_path / "folder").mkdir()

    assert refused("run", "script.py").startswith("script.py is not valid JSON")
    assert refused("run", "folder").startswith("'folder' is a folder; name a notebook in it")


@pytest.mark.parametrize("command", ["run", "deploy"])
def test_a_notebook_that_is_not_json(refused: Refused, tmp_path: Path, command: str) -> None:
    broken = tmp_path / "broken.ipynb"
    broken.write_text('{"cells": [')

    assert refused(command, broken).startswith("broken.ipynb is not valid JSON: ")
    assert nothing_is_stored()


def test_parameters_for_a_notebook_without_a_parameters_cell(refused: Refused, tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.ipynb", "1")

    assert refused("run", plain, "-p", "day", "x") == (
        "plain.ipynb has no cell tagged 'parameters', but a value is given for 'day'; "
        "tag the cell that assigns the defaults"
    )


@pytest.mark.parametrize("command", ["run", "deploy"])
def test_unknown_and_mistyped_parameters(refused: Refused, good: Path, command: str) -> None:
    assert refused(command, good, "-p", "dya", "x") == (
        "good.ipynb has no parameter 'dya'; did you mean 'day'? It takes day, min_delay"
    )
    assert refused(command, good, "-p", "min_delay", "soon") == "parameter 'min_delay' takes int, not 'soon'"
    assert nothing_is_stored()


def test_a_parameters_file_that_is_none(refused: Refused, good: Path, tmp_path: Path) -> None:
    file = tmp_path / "values.json"

    assert refused("run", good, "-f", file) == f"cannot read {file}: No such file or directory"
    file.write_text("{")
    assert refused("run", good, "-f", file).startswith(f"{file} is not JSON: ")
    file.write_text("[1]")
    assert refused("run", good, "-f", file) == f"{file} holds a list; parameters are an object of names and values"


@pytest.mark.parametrize("command", ["run", "deploy"])
def test_an_unknown_kernel(refused: Refused, good: Path, command: str) -> None:
    told = refused(command, good, "--kernel", "pyhton3")

    assert told.startswith("no kernel named 'pyhton3'; installed are ")
    assert told.endswith("; did you mean 'python3'?")
    assert nothing_is_stored()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--cron", "0 25 * * *"), "0 25 * * *"),
        (("--cron", "0 0 6 * * *"), "0 0 6 * * *"),
        (("--cron", ""), "cron"),
        (("--cron", "0 6 * * *", "--tz", "Europe/Madird"), "did you mean 'Europe/Madrid'?"),
        (("--tz", "Europe/Madrid"), "--tz is the zone of a --cron; give both, or neither"),
        (("--every", "soon"), "'soon'"),
        (("--every", "0s"), "0"),
        (("--every", "15m", "--cron", "0 6 * * *"), "both"),
        (("--timeout", "-1s"), "-1s"),
        (("--retries", "-1"), "retries cannot be -1; it is a number from 0 to 1000"),
        (("--retries", "99999999999999"), "retries cannot be 1e+14"),
        (("--priority", "99999999999999"), "priority cannot be 1e+14"),
        (("--backoff", "99999999999d"), "backoff cannot be "),
        (("--timeout", "99999999999d"), "timeout cannot be "),
        (("--timeout", "0"), "timeout cannot be 0"),
        (("--queue", ""), "a queue cannot be named ''"),
        (("--every", "15"), "'15' is not an interval; write one like 30s, 15m"),
        (("--retries", "many"), "'many' is not a valid integer; see flowkit deploy --help"),
        (("--name", "a/b"), "a deployment cannot be named 'a/b'"),
        (("--keep-failed", "-1"), "how many runs to keep cannot be less than 0"),
    ],
)
def test_options_that_cannot_be_meant(refused: Refused, good: Path, options: tuple[str, ...], told: str) -> None:
    assert told in refused("deploy", good, *options)
    assert nothing_is_stored()


def test_an_unknown_kernel_for_a_deployment(refused: Refused, good: Path) -> None:
    with Client(Config.from_env()) as client:
        client.deploy(good, name="flights")

    assert refused("run", "flights", "--kernel", "nope").startswith("no kernel named 'nope'; installed are ")


@pytest.mark.parametrize("command", ["show", "logs", "cancel", "retry"])
def test_an_unknown_run(refused: Refused, command: str) -> None:
    assert refused(command, "12345678") == "no run '12345678'; `flowkit runs` lists them"


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_an_unknown_deployment(refused: Refused, command: str) -> None:
    assert refused(command, "x") == "no deployment 'x'; `flowkit deployments` lists them"


def test_what_is_no_command_or_option(refused: Refused) -> None:
    assert "No such command 'rnu'" in refused("rnu")
    assert "No such option" in refused("runs", "--jsno")


def test_a_home_that_cannot_be_written(refused: Refused, good: Path, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("FLOWKIT_HOME", str(file / "home"))

    told = refused("run", good)

    assert str(file / "home") in told
    assert "FLOWKIT_HOME" in told


def test_a_store_that_is_no_database(refused: Refused, good: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FLOWKIT_DATABASE_URL", f"sqlite:///{good}")

    assert str(good) in refused("runs")
    assert good.read_text().startswith("{")


@pytest.mark.parametrize("command", ["run", "deploy", "worker", "up", "dashboard", "runs"])
def test_a_database_that_does_not_answer(refused: Refused, good: Path, monkeypatch, command: str) -> None:
    monkeypatch.setenv("FLOWKIT_DATABASE_URL", "postgresql://ada:secret@127.0.0.1:1/flowkit")

    told = refused(command, *([good] if command in ("run", "deploy") else []))

    assert "127.0.0.1:1" in told
    assert "FLOWKIT_DATABASE_URL" in told
    assert "secret" not in told


@pytest.mark.parametrize("url", ["http://:secret@cache", "redis://:secret@cache:port", "redis://:secret@cache?a=b"])
def test_a_redis_url_that_is_none(refused: Refused, good: Path, monkeypatch, url: str) -> None:
    monkeypatch.setenv("FLOWKIT_REDIS_URL", url)

    told = refused("run", good)

    assert told.startswith(f"FLOWKIT_REDIS_URL is {url.replace('secret', '***')!r}")
    monkeypatch.delenv("FLOWKIT_REDIS_URL")
    assert nothing_is_stored()


def test_a_value_that_is_no_text(refused: Refused, good: Path) -> None:
    broken = os.fsdecode(b"\xff")

    assert "surrogate" in refused("run", good, "-p", "day", broken)
