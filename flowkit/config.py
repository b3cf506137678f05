"""Every setting, read once from the environment; nobody else reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from flowkit.errors import UsageError

#: What a kernel is not given: the kernel is the author's code, and has no business with these.
CREDENTIALS = (
    "FLOWKIT_DATABASE_URL",
    "FLOWKIT_REDIS_URL",
    "FLOWKIT_ARTIFACTS_URL",
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_PASSWORD",
    "REDIS_DB",
)

#: Set by the worker for its kernels: the folder with ``run.json`` and the event log.
RUN_FOLDER = "FLOWKIT_RUN_FOLDER"


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of this process. ``from_env`` gives the name, the meaning and the default of each."""

    home: Path
    database_url: str
    redis_url: str | None
    artifacts_url: str
    lease: float
    grace: float
    run_folder: Path | None

    @property
    def embedded(self) -> bool:
        """The store is a file: client, worker and dashboard share this machine."""
        return self.database_url.startswith("sqlite")

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Config:
        """
        FLOWKIT_HOME           folder of the embedded default; ~/.flowkit
        FLOWKIT_DATABASE_URL   SQLAlchemy URL of the store; SQLite in FLOWKIT_HOME
        FLOWKIT_REDIS_URL      redis://, rediss:// or unix://; put together from REDIS_HOST, REDIS_PORT,
                               REDIS_PASSWORD and REDIS_DB if only those are set; else SQLite in FLOWKIT_HOME
        FLOWKIT_ARTIFACTS_URL  where executed notebooks go, any fsspec URL; a folder in FLOWKIT_HOME
        FLOWKIT_LEASE          seconds a worker may be silent before its runs are handed back; 15
        FLOWKIT_GRACE          seconds a stopping worker waits for its runs before it hands them back; 10
        """
        env = os.environ if env is None else env
        home = Path(env.get("FLOWKIT_HOME") or Path.home() / ".flowkit").expanduser().absolute()
        folder = env.get(RUN_FOLDER)
        return cls(
            home=home,
            database_url=_database_url(env, home),
            redis_url=_redis_url(env),
            artifacts_url=env.get("FLOWKIT_ARTIFACTS_URL") or str(home / "artifacts"),
            lease=_seconds(env, "FLOWKIT_LEASE", 15.0),
            grace=_seconds(env, "FLOWKIT_GRACE", 10.0),
            run_folder=Path(folder) if folder else None,
        )


def kernel_environment(run_folder: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without its credentials, plus where the kernel finds its run."""
    env = os.environ if env is None else env
    return {name: value for name, value in env.items() if name not in CREDENTIALS} | {RUN_FOLDER: str(run_folder)}


def without_password(url: str) -> str:
    """The URL as it may be shown; also one that is none, which an error is about to say."""
    return re.sub(r"(//[^:/@]*):.*@", r"\1:***@", url)


def _database_url(env: Mapping[str, str], home: Path) -> str:
    url = env.get("FLOWKIT_DATABASE_URL") or f"sqlite:///{home / 'flowkit.db'}"
    # What other tools write for PostgreSQL; SQLAlchemy would look for psycopg2.
    for prefix in ("postgres://", "postgresql://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    return url


def _redis_url(env: Mapping[str, str]) -> str | None:
    url = env.get("FLOWKIT_REDIS_URL")
    if url:
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise UsageError(
                f"FLOWKIT_REDIS_URL is {without_password(url)!r}; it must begin with redis://, rediss:// or unix://"
            )
        return url
    host = env.get("REDIS_HOST")
    if not host:
        return None
    password = env.get("REDIS_PASSWORD")
    secret = f":{quote(password, safe='')}@" if password else ""
    return f"redis://{secret}{host}:{env.get('REDIS_PORT') or 6379}/{env.get('REDIS_DB') or 0}"


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"{name} is {text!r}; it must be a number of seconds above 0")
    return value
