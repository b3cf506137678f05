"""The doorbell: a message names a run and means only "look". On Redis, or on a SQLite file where there is none.

Huey loses what a killed consumer held, so nothing depends on a message: the store is the queue. A lost one costs the
second until the next sweep, a doubled one costs a look at the store. Whoever can write to Redis can make workers look,
which is all that a message can ask for.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import re
import select
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import redis
import redis.sentinel
from huey.api import Huey
from huey.constants import EmptyData
from huey.exceptions import HueyException
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import BaseStorage, PriorityRedisStorage, SqliteStorage

from flowkit.config import Config, Sentinels, without_password
from flowkit.errors import Unavailable, UsageError

log = logging.getLogger("flowkit.broker")

#: Seconds. redis-py's own defaults wait 87 s in a partition.
CONNECT_TIMEOUT = 2.0
#: Seconds a worker waits for a ring before it looks whether it should stop.
LISTEN = 1.0
#: Seconds between two looks into the SQLite file of an idle worker: what a ring may be late.
POLL = 0.1

#: Seconds between two lines about messages that are dropped.
TOLD = 60.0

#: Of those that Redis tells about itself, the ones that are shown.
FIGURES = (
    *("used_memory", "maxmemory", "total_system_memory", "connected_clients", "blocked_clients", "maxclients"),
    *("evicted_keys", "expired_keys", "keyspace_hits", "keyspace_misses", "total_commands_processed"),
    *("instantaneous_ops_per_sec", "uptime_in_seconds", "rejected_connections"),
)

#: What hearing a queue may raise when the broker is down.
UNHEARD = (redis.RedisError, sqlite3.Error, OSError, HueyException)


class Broker:
    """Rings queues, and makes the Huey that a worker listens with. Thread-safe."""

    def __init__(self, config: Config, secret: bytes) -> None:
        """
        Args:
            secret: what the processes of one store sign their messages with.

        Raises:
            UsageError: an option of the Redis URL is none.
        """
        self.dropped = 0  #: messages heard that nobody of our store has sent
        self._config = config
        self._lanes: dict[str, BaseStorage] = {}
        self._serializer = LookSerializer(secret)
        self._lock = threading.Lock()
        self._pool = None if config.redis_url is None else _pool(config)
        self._told = 0.0
        self._bell = None if self._pool else _Bell.hung(config.home / "bell")

    @property
    def pool(self) -> redis.ConnectionPool | None:
        """Of connections to Redis; None: it is SQLite."""
        return self._pool

    @property
    def address(self) -> str:
        """What people may be shown."""
        url = self._config.redis_url
        return without_password(url) if url else str(self._config.home / "queue.db")

    def check(self) -> None:
        """Raises Unavailable, naming the address, if the broker does not answer."""
        if self._config.redis_url is None:
            return
        try:
            self._lane("default").conn.ping()
        except redis.RedisError as error:
            raise Unavailable(
                f"Redis at {self.address} does not answer: {_reason(error)}; check FLOWKIT_REDIS_URL"
            ) from error

    def facts(self) -> dict[str, str] | None:
        """Of a Redis its ``version``, and its ``policy`` when its memory is full. None: it is SQLite."""
        if self._config.redis_url is None:
            return None
        try:
            found = self._lane("default").conn.info()
        except redis.RedisError as error:
            raise Unavailable(f"Redis at {self.address} does not tell about itself: {_reason(error)}") from error
        return {"version": found["redis_version"], "policy": found.get("maxmemory_policy", "noeviction")}

    def figures(self) -> dict[str, float] | None:
        """Of a Redis: what it holds, may hold, has thrown away and was asked for, and ``latency``, the seconds that it
        took to answer. None: it is SQLite."""
        if self._config.redis_url is None:
            return None
        try:
            connection = self._lane("default").conn
            began = monotonic()
            connection.ping()
            latency = monotonic() - began
            found = connection.info()
        except redis.RedisError as error:
            raise Unavailable(f"Redis at {self.address} does not tell about itself: {_reason(error)}") from error
        return {name: float(found.get(name, 0)) for name in FIGURES} | {"latency": latency}

    def ring(self, queue: str, run: str, *, priority: int = 0) -> bool:
        """Wake a worker of *queue*. Best effort and after the commit, never before: False if nobody was reached."""
        try:
            self._lane(queue).enqueue(self._serializer.serialize(_message(run)), priority)
        except (redis.RedisError, sqlite3.Error, OSError) as error:
            what = f"Redis at {self.address}" if self._pool else self.address
            log.warning("%s does not answer: %s; workers find the run within seconds by looking", what, _reason(error))
            return False
        if self._bell is not None:
            self._bell.ring()
        return True

    def await_ring(self, seconds: float) -> None:
        """Of a broker that cannot be listened to, being a file. Some rings are missed, and some heard for nothing."""
        if self._bell is None:
            sleep(seconds)
        else:
            self._bell.wait(seconds)

    def listen(self, queues: Sequence[str], look: Callable[[], None]) -> Huey:
        """The Huey of a worker: *look* is called for each message of any of *queues*, wherever it points."""
        lanes = [self._lane(queue) for queue in queues]
        if self._config.redis_url is None:
            storage: type[BaseStorage] = _FileLanes
        else:
            storage = _RedisLanes
        huey = Huey(
            "flowkit", results=False, serializer=self._serializer, storage_class=storage, lanes=lanes
        )  # results off: a reader of results would unpickle them

        @huey.task(name="look")  # type: ignore[untyped-decorator]
        def _look(run: str) -> None:
            look()

        return huey

    def drop(self, forged: Dropped) -> None:
        """Count a message that is none of ours, and say so now and then."""
        with self._lock:
            self.dropped += 1
            tell = self.dropped == 1 or monotonic() - self._told >= TOLD
            self._told = monotonic() if tell else self._told
        if tell:
            log.warning("dropped %s from %s; %d so far", forged, self.address, self.dropped)

    def _lane(self, queue: str) -> BaseStorage:
        with self._lock:
            if queue not in self._lanes:
                self._lanes[queue] = self._open(f"flowkit.{queue}")
            return self._lanes[queue]

    def _open(self, name: str) -> BaseStorage:
        if self._config.redis_url is None:
            self._config.home.mkdir(parents=True, exist_ok=True)
            # Not synced: after a power cut the store still has every run, and the sweep finds it.
            return SqliteStorage(name, filename=str(self._config.home / "queue.db"), fsync=False)
        return PriorityRedisStorage(name, connection_pool=self._pool, read_timeout=LISTEN, clean_name=False)


class _Bell:
    """A named pipe beside the SQLite file: who has written there rings, and nobody has to look all the time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def hung(cls, place: Path) -> _Bell | None:
        """None where there are no such pipes; then the file is looked at ten times a second."""
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.is_fifo():
                os.mkfifo(place, 0o600)
            return cls(os.open(place, os.O_RDWR | os.O_NONBLOCK))  # there may be no listener yet
        except (OSError, AttributeError):
            return None

    def ring(self) -> None:
        with suppress(OSError):  # it is full: nobody has listened for long
            os.write(self._descriptor, b"!")

    def wait(self, seconds: float) -> None:
        """All who wait are woken, as long as none of them has read on."""
        if select.select([self._descriptor], [], [], seconds)[0]:
            with suppress(OSError):
                os.read(self._descriptor, 4096)


def _pool(config: Config) -> redis.ConnectionPool:
    """Nobody waits for a dead Redis, and nothing is tried twice: the sweep finds what was not heard."""
    assert config.redis_url is not None
    patience: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": LISTEN + CONNECT_TIMEOUT,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        "health_check_interval": 30,
    }
    try:
        if config.sentinels is None:
            pool = redis.ConnectionPool.from_url(config.redis_url, **patience)
        else:
            pool = _pool_by_sentinel(config.sentinels, patience)
        pool.connection_class(**pool.connection_kwargs)  # connects to nothing, and knows its options
    except (ValueError, TypeError) as error:
        shown = without_password(config.redis_url)
        raise UsageError(f"FLOWKIT_REDIS_URL is {shown!r}, with an option that Redis does not know: {error}") from error
    return pool


def _pool_by_sentinel(sentinels: Sentinels, patience: dict[str, Any]) -> redis.ConnectionPool:
    """Each new connection asks the sentinels who the master is; one that broke is never used again."""
    options = redis.connection.parse_url(sentinels.master)  # type: ignore[no-untyped-call]
    del options["host"]
    if options.pop("connection_class", None) is not None:
        options["ssl"] = True
    told = {name: value for name, value in options.items() if name.startswith("ssl")} | sentinels.login | patience
    manager = redis.sentinel.Sentinel(sentinels.hosts, sentinel_kwargs=told)  # type: ignore[no-untyped-call]
    pool = redis.sentinel.SentinelConnectionPool
    return pool(sentinels.service, manager, **patience, **options)  # type: ignore[no-untyped-call]


class Dropped(ValueError):
    """What was heard is none of ours."""


class LookSerializer(Serializer):
    """``{"v":2,"look":"RUN","mac":"…"}``, and nothing else. Huey's own is pickle: who writes to Redis runs code.

    It names no task and no arguments but the run, so there is nothing that a message could choose. A message sent
    again, by whomever, makes a worker look again.
    """

    VERSION = 2  #: those of version 1 were not signed, and are dropped: the sweep finds their runs
    SIZE = 256  #: bytes; a message is 130
    RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

    def __init__(self, secret: bytes) -> None:
        super().__init__()
        self._secret = secret

    def _serialize(self, message: Message) -> bytes:
        return self._signed(message.args[0])

    def _deserialize(self, data: bytes) -> Message:
        """Raises Dropped unless it is, byte for byte, what we would have sent."""
        run: Any = None
        if len(data) <= self.SIZE:
            try:
                run = json.loads(data)["look"]
            except (ValueError, TypeError, KeyError, RecursionError):
                run = None
        if not isinstance(run, str) or not self.RUN.fullmatch(run) or not hmac.compare_digest(self._signed(run), data):
            raise Dropped(f"a message of {len(data)} bytes that no flowkit of this store has sent")
        return _message(run)

    def _signed(self, run: str) -> bytes:
        body = f'{{"v":{self.VERSION},"look":{json.dumps(run)}'
        mac = hmac.new(self._secret, body.encode(), sha256).hexdigest()
        return f'{body},"mac":"{mac}"}}'.encode()


def _message(run: str) -> Message:
    return Message(id=run, name=f"{__name__}.look", retries=0, retry_delay=0, args=(run,), kwargs={})


class _Lanes(BaseStorage):
    """Several queues heard as one. Only what a consumer that keeps no results or schedule asks of a storage."""

    def __init__(self, name: str, *, lanes: list[BaseStorage]) -> None:
        super().__init__(name)
        self._lanes = lanes

    def has_data_for_key(self, key: str) -> bool:
        return False

    def peek_data(self, key: str) -> Any:
        return EmptyData

    def pop_data(self, key: str) -> Any:
        return EmptyData

    def delete_data(self, key: str) -> bool:
        return False


class _FileLanes(_Lanes):
    blocking = False

    def dequeue(self) -> bytes | None:
        for lane in self._lanes:
            data: bytes | None = lane.dequeue()
            if data is not None:
                return bytes(data)
        return None


class _RedisLanes(_Lanes):
    blocking = True

    def dequeue(self) -> bytes | None:
        found = self._lanes[0].conn.bzpopmin([lane.queue_key for lane in self._lanes], timeout=LISTEN)
        return found[1][8:] if found else None  # 8: the time stamp that keeps equal messages apart


def _reason(error: BaseException) -> str:
    """The innermost cause, on one line: redis-py wraps it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (getattr(error, "strerror", None) or str(error)).strip().rstrip(".")
