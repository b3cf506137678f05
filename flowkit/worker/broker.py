"""The doorbell: a message names a run and means only "look". On Redis, or on a SQLite file where there is none.

Huey loses what a killed consumer held, so nothing depends on a message: the store is the queue. A lost one costs the
second until the next sweep, a doubled one costs a look at the store.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any

import redis
from huey.api import Huey
from huey.constants import EmptyData
from huey.exceptions import HueyException
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import BaseStorage, PriorityRedisStorage, SqliteStorage

from flowkit.config import Config, without_password
from flowkit.errors import Unavailable

log = logging.getLogger("flowkit.broker")

#: Seconds. redis-py's own defaults wait 87 s in a partition.
CONNECT_TIMEOUT = 2.0
#: Seconds a worker waits for a ring before it looks whether it should stop.
LISTEN = 1.0
#: Seconds between two looks into the SQLite file of an idle worker: what a ring may be late.
POLL = 0.1

#: What hearing a queue may raise: the broker is down, or its message is not one of ours.
UNHEARD = (redis.RedisError, sqlite3.Error, OSError, ValueError, HueyException)


class Broker:
    """Rings queues, and makes the Huey that a worker listens with. Thread-safe."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lanes: dict[str, BaseStorage] = {}
        self._serializer = LookSerializer()
        self._lock = threading.Lock()

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

    def ring(self, queue: str, run: str, *, priority: int = 0) -> bool:
        """Wake a worker of *queue*. Best effort and after the commit, never before: False if nobody was reached."""
        try:
            self._lane(queue).enqueue(self._serializer.serialize(_message(run)), priority)
        except (redis.RedisError, sqlite3.Error, OSError) as error:
            log.warning("%s does not answer (%s); workers find the run by looking", self.address, _reason(error))
            return False
        return True

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
        pool = redis.ConnectionPool.from_url(
            self._config.redis_url,
            socket_connect_timeout=CONNECT_TIMEOUT,
            socket_timeout=LISTEN + CONNECT_TIMEOUT,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
            health_check_interval=30,
        )
        return PriorityRedisStorage(name, connection_pool=pool, read_timeout=LISTEN, clean_name=False)


class LookSerializer(Serializer):
    """``{"v":1,"run":"…"}``, and nothing else. Huey's own is pickle: whoever writes to Redis runs code in a worker."""

    SIZE = 1024  #: bytes; a message is some 60

    def _serialize(self, message: Message) -> bytes:
        return json.dumps({"v": 1, "run": message.args[0]}, separators=(",", ":")).encode()

    def _deserialize(self, data: bytes) -> Message:
        run: Any = None
        if len(data) <= self.SIZE:
            try:
                run = json.loads(data)["run"]
            except (ValueError, TypeError, KeyError, RecursionError):
                run = None
        if not isinstance(run, str):
            raise ValueError(f"a message of {len(data)} bytes that no flowkit has sent; dropped")
        return _message(run)


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
