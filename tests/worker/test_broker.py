"""One suite on both brokers: what is rung is heard, and nothing but a run's id is ever believed."""

from __future__ import annotations

import json
import pickle
import sqlite3
from pathlib import Path

import pytest
import redis

from flowkit.config import Config
from flowkit.errors import Unavailable
from flowkit.worker.broker import UNHEARD, Broker, LookSerializer


@pytest.fixture(params=["sqlite", "redis"])
def config(request: pytest.FixtureRequest, home: Path) -> Config:
    env = {"FLOWKIT_HOME": str(home)}
    if request.param == "redis":
        env["FLOWKIT_REDIS_URL"] = request.getfixturevalue("redis_url")
        with redis.Redis.from_url(env["FLOWKIT_REDIS_URL"]) as client:
            client.flushdb()
    return Config.from_env(env)


def hear(broker: Broker, queues: list[str], times: int) -> list[str]:
    """The runs that *times* messages named, as a worker's Huey hears them."""
    looks: list[str] = []
    huey = broker.listen(queues, lambda: looks.append("looked"))
    heard = []
    for _ in range(times):
        message = huey.dequeue()
        assert message is not None
        heard.append(message.args[0])
        huey.execute(message)
    assert looks == ["looked"] * times
    return heard


def put_raw(config: Config, data: bytes) -> None:
    """As anybody could who can write to the broker."""
    if config.redis_url:
        with redis.Redis.from_url(config.redis_url) as client:
            client.zadd("huey.redis.flowkit.default", {b"12345678" + data: 0})
    else:
        with sqlite3.connect(config.home / "queue.db") as connection:
            connection.execute("insert into task (queue, data, priority) values ('flowkit.default', ?, 0)", (data,))


def test_a_worker_hears_its_queues_and_no_others(config: Config) -> None:
    broker = Broker(config)
    for queue in ("a", "b", "c"):
        assert broker.ring(queue, f"run-{queue}")

    assert sorted(hear(Broker(config), ["a", "c"], 2)) == ["run-a", "run-c"]
    assert hear(Broker(config), ["b"], 1) == ["run-b"]


def test_an_urgent_ring_is_heard_first(config: Config) -> None:
    broker = Broker(config)
    broker.ring("default", "later", priority=0)
    broker.ring("default", "urgent", priority=5)

    assert hear(broker, ["default"], 2) == ["urgent", "later"]


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(print),
        b"",
        b"\xff\xfe",
        b"[1]",
        b'{"v":1}',
        b'{"v":1,"run":["x"]}',
        json.dumps({"v": 1, "run": "x" * 5000}).encode(),
        b"[" * 1000,
    ],
)
def test_what_flowkit_has_not_sent_is_dropped_and_the_next_message_heard(config: Config, data: bytes) -> None:
    broker = Broker(config)
    huey = broker.listen(["default"], lambda: None)
    put_raw(config, data)

    with pytest.raises(UNHEARD):
        huey.dequeue()

    broker.ring("default", "good")
    assert hear(broker, ["default"], 1) == ["good"]


def test_a_pickle_that_would_run_code_runs_none(config: Config, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return open, (str(trap), "w")

    broker = Broker(config)
    huey = broker.listen(["default"], lambda: None)
    put_raw(config, pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="no flowkit has sent"):
        huey.dequeue()

    assert not trap.exists()


def test_a_message_is_small_json() -> None:
    from flowkit.worker.broker import _message

    data = LookSerializer().serialize(_message("4c0a9a3e-5b43-4a0e-8d53-2f3a4b7d1e11"))

    assert json.loads(data) == {"v": 1, "run": "4c0a9a3e-5b43-4a0e-8d53-2f3a4b7d1e11"}


def test_a_redis_that_is_not_there_is_named_without_its_password() -> None:
    broker = Broker(Config.from_env({"FLOWKIT_REDIS_URL": "redis://:secret@127.0.0.1:1/0"}))

    with pytest.raises(Unavailable, match=r"Redis at redis://:\*\*\*@127.0.0.1:1/0 does not answer: .*; check"):
        broker.check()
    assert broker.ring("default", "run") is False
