from __future__ import annotations

from pathlib import Path

import pytest

from flowkit.config import KERNEL_VARIABLES, Config, Sentinels, kernel_environment, without_password
from flowkit.errors import UsageError


def test_without_settings_everything_is_in_one_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")

    config = Config.from_env({})

    assert config.home == Path("/home/ada/.flowkit")
    assert config.database_url == "sqlite:////home/ada/.flowkit/flowkit.db"
    assert config.artifacts_url == "/home/ada/.flowkit/artifacts"
    assert config.redis_url is None


def test_a_relative_home_is_the_same_folder_from_wherever_it_is_used_later(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert Config.from_env({"FLOWKIT_HOME": "here"}).home == tmp_path / "here"


@pytest.mark.parametrize("given", ["postgres://u@h/d", "postgresql://u@h/d", "postgresql+psycopg://u@h/d"])
def test_any_spelling_of_a_postgresql_url_uses_the_driver_flowkit_has(given: str) -> None:
    assert Config.from_env({"FLOWKIT_DATABASE_URL": given}).database_url == "postgresql+psycopg://u@h/d"


def test_the_redis_url_is_put_together_from_its_parts() -> None:
    env = {"REDIS_HOST": "cache", "REDIS_PORT": "6380", "REDIS_PASSWORD": "p@ss/word", "REDIS_DB": "2"}

    assert Config.from_env(env).redis_url == "redis://:p%40ss%2Fword@cache:6380/2"
    assert Config.from_env({"REDIS_HOST": "cache"}).redis_url == "redis://cache:6379/0"
    assert Config.from_env(env | {"FLOWKIT_REDIS_URL": "rediss://other"}).redis_url == "rediss://other"
    assert Config.from_env({"REDIS_PORT": "6380"}).redis_url is None


def test_a_redis_url_of_another_scheme_is_refused_without_showing_its_password() -> None:
    with pytest.raises(UsageError) as caught:
        Config.from_env({"FLOWKIT_REDIS_URL": "http://:secret@cache"})

    assert str(caught.value) == (
        "FLOWKIT_REDIS_URL is 'http://:***@cache'; it must begin with redis://, rediss://, unix://, "
        "redis+sentinel:// or rediss+sentinel://"
    )


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_a_setting_in_seconds_must_be_a_number_above_zero(text: str) -> None:
    with pytest.raises(UsageError, match=f"FLOWKIT_LEASE is '{text}'; it must be a number of seconds above 0"):
        Config.from_env({"FLOWKIT_LEASE": text})


USUAL = {"PATH": "/bin", "LC_ALL": "C", "PYTHONPATH": "/lib", "https_proxy": "p", "OMP_NUM_THREADS": "2"}


def test_a_kernel_is_given_what_programs_need_and_nothing_that_may_be_a_secret(tmp_path: Path) -> None:
    secret = {
        **{"FLOWKIT_DATABASE_URL": "x", "FLOWKIT_HOME": "h", "REDIS_PASSWORD": "z", "DATABASE_URL": "d"},
        **{"AWS_ACCESS_KEY_ID": "a", "JUPYTER_TOKEN": "t", "CONDA_PASSWORD": "p", "PYTHONSTARTUP": "s", "path": "/"},
    }

    assert kernel_environment(tmp_path, USUAL | secret) == USUAL | {
        "FLOWKIT_RUN_FOLDER": str(tmp_path),
        "FLOWKIT_HTTP_ALLOW": "",
    }


def test_a_kernel_is_given_what_the_setting_names_but_never_the_way_to_the_store(tmp_path: Path) -> None:
    named = {"DATABASE_URL": "d", "AWS_REGION": "r", "AWS_SECRET_ACCESS_KEY": "a", "JUPYTER_TOKEN": "t"}
    others = {"PGPASSWORD": "p", "FLOWKIT_DATABASE_URL": "x", "FLOWKIT_HOME": "h", "REDIS_PASSWORD": "z"}
    own = {"FLOWKIT_RUN_FOLDER": str(tmp_path), "FLOWKIT_HTTP_ALLOW": ""}

    setting = {"FLOWKIT_KERNEL_ENV": "DATABASE_URL, AWS_*,JUPYTER_TOKEN,"}
    assert kernel_environment(tmp_path, USUAL | named | others | setting) == USUAL | named | own
    everything = {"FLOWKIT_KERNEL_ENV": "*"}
    assert kernel_environment(tmp_path, named | others | everything) == named | {"PGPASSWORD": "p"} | own


def test_the_reference_lists_what_a_kernel_is_given() -> None:
    text = (Path(__file__).parent.parent / "docs" / "reference.md").read_text()
    for name in KERNEL_VARIABLES:
        assert f"`{name.upper()}`" in text


def test_a_password_is_never_shown() -> None:
    assert without_password("postgresql+psycopg://ada:s3@db:5432/x") == "postgresql+psycopg://ada:***@db:5432/x"
    assert without_password("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://cache:port", "'redis://cache:port'; it must be redis://HOST:PORT/DB, with a port from 0 to 65535"),
        ("redis://:s3cret@cache:99999", "'redis://:***@cache:99999'; it must be redis://HOST:PORT/DB, with a port"),
        ("rediss://cache/main", "'rediss://cache/main'; it must be rediss://HOST:PORT/DB, with a number as DB"),
        ("unix://", "'unix://'; it must be unix:///PATH, of Redis's socket"),
        ("redis", "'redis'; it must begin with redis://"),
        ("redis+sentinel://a:1,b:2", "it must be redis+sentinel://HOST:PORT,HOST:PORT/NAME, with the master's name"),
        ("redis+sentinel://:s3cret@a:x/main", "'redis+sentinel://:***@a:x/main'; it must be redis+sentinel://HOST"),
        ("redis+sentinel://a:70000/main?sentinel_password=s3cret", "/main?sentinel_password=***'; it must be"),
        ("redis+sentinel://a/main/db", "it must be redis+sentinel://"),
        ("redis+sentinel://a,,b/main", "it must be redis+sentinel://"),
    ],
)
def test_a_redis_url_that_cannot_be_one_is_refused_in_one_line(url: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config.from_env({"FLOWKIT_REDIS_URL": url})

    assert told in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sentinel_url_names_the_sentinels_the_master_and_how_to_log_in() -> None:
    url = "rediss+sentinel://ada:p%40ss@a:1,b,[::1]:3/main/2?ssl_ca_certs=/ca.pem&sentinel_password=w%2Frd"
    config = Config.from_env({"FLOWKIT_REDIS_URL": url})

    assert config.sentinels == Sentinels(
        hosts=(("a", 1), ("b", 26379), ("::1", 3)),
        service="main",
        master="rediss://ada:p%40ss@sentinel/2?ssl_ca_certs=%2Fca.pem",
        login={"password": "w/rd"},
    )
    assert "p%40ss" not in repr(config.sentinels)
    assert without_password(url) == (
        "rediss+sentinel://ada:***@a:1,b,[::1]:3/main/2?ssl_ca_certs=/ca.pem&sentinel_password=***"
    )
    assert Config.from_env({"FLOWKIT_REDIS_URL": "redis://cache"}).sentinels is None
