"""One suite on both brokers: what is rung is heard, and nothing but a run's id is ever believed."""

from __future__ import annotations

import hmac
import json
import pickle
import sqlite3
from pathlib import Path

import pytest
import redis

from flowkit.client import Client
from flowkit.config import Config
from flowkit.doctor import examine
from flowkit.errors import Unavailable, UsageError
from flowkit.model import new_id
from flowkit.worker.broker import Broker, Dropped, LookSerializer, _message
from tests.processes import eventually, worker

SECRET = bytes(range(32))
RUN = "4c0a9a3e-5b43-4a0e-8d53-2f3a4b7d1e11"


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
    broker = Broker(config, SECRET)
    runs = {queue: new_id() for queue in ("a", "b", "c")}
    for queue, run in runs.items():
        assert broker.ring(queue, run)

    assert sorted(hear(Broker(config, SECRET), ["a", "c"], 2)) == sorted([runs["a"], runs["c"]])
    assert hear(Broker(config, SECRET), ["b"], 1) == [runs["b"]]


def test_an_urgent_ring_is_heard_first(config: Config) -> None:
    broker = Broker(config, SECRET)
    later, urgent = new_id(), new_id()
    broker.ring("default", later, priority=0)
    broker.ring("default", urgent, priority=5)

    assert hear(broker, ["default"], 2) == [urgent, later]


def signed(run: object, *, version: int = 2, secret: bytes = SECRET, **more: object) -> bytes:
    """As the message is described; spelt out, so that no change of it goes unseen."""
    body = json.dumps({"v": version, "look": run, **more}, separators=(",", ":"))
    mac = hmac.new(secret, body[:-1].encode(), "sha256").hexdigest()
    return body[:-1].encode() + f',"mac":"{mac}"}}'.encode()


def test_a_message_is_small_signed_json() -> None:
    data = LookSerializer(SECRET).serialize(_message(RUN))

    assert data == signed(RUN)
    assert json.loads(data).keys() == {"v", "look", "mac"}
    assert len(data) < LookSerializer.SIZE
    assert LookSerializer(SECRET).deserialize(data).args == (RUN,)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(print),
        b"",
        b"\xff\xfe",
        b"[1]",
        b"[" * 200,
        b'{"v":1,"run":"%s"}' % RUN.encode(),  # of the version before
        signed(RUN, version=1),
        signed(RUN, version=3),
        signed(RUN, secret=bytes(32)),
        signed(RUN, task="os.system"),
        signed(RUN).replace(b'"look"', b'"kill"'),
        signed(RUN).replace(b"4c0a", b"4c0b"),
        signed(RUN)[:-70] + b"}",
        signed(RUN) + b" ",
        signed("not-a-run"),
        signed(RUN.upper()),
        signed([RUN]),
        signed(RUN, padding="x" * 300),
    ],
)
def test_what_flowkit_has_not_sent_is_dropped_and_the_next_message_heard(config: Config, data: bytes) -> None:
    broker = Broker(config, SECRET)
    huey = broker.listen(["default"], lambda: None)
    put_raw(config, data)

    with pytest.raises(Dropped):
        huey.dequeue()

    broker.ring("default", RUN)
    assert hear(broker, ["default"], 1) == [RUN]


def test_a_worker_drops_counts_and_tells_of_what_it_was_not_sent_and_runs_no_pickle(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if config.redis_url:
        monkeypatch.setenv("FLOWKIT_REDIS_URL", config.redis_url)
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return open, (str(trap), "w")

    with Client(config) as client, worker():
        eventually(client.workers)
        client.broker.ring("default", new_id())  # makes the file, if it is one
        for data in (pickle.dumps(Trap()), b"garbage", signed(RUN)):  # the last with a secret that is not the store's
            put_raw(config, data)
        eventually(lambda: [one.dropped for one in client.workers()] == [3])
        (finding,) = [one for one in examine(config) if one.subject == "messages"]
        [alive] = client.workers()

    assert not trap.exists()
    assert finding.found == "workers dropped 3 messages that no flowkit of this store has sent"
    assert finding.remedy
    assert alive.to_json()["dropped"] == 3


def test_dropped_messages_are_told_once_a_minute(caplog: pytest.LogCaptureFixture, home: Path) -> None:
    broker = Broker(Config.from_env(), SECRET)
    for _ in range(100):
        broker.drop(Dropped("a message"))

    assert broker.dropped == 100
    assert [record.getMessage() for record in caplog.records] == [
        f"dropped a message from {home / 'queue.db'}; 1 so far"
    ]


def test_every_process_of_a_store_signs_with_the_same_secret(config: Config) -> None:
    with Client(config) as one, Client(config) as other:
        run = new_id()
        one.broker.ring("default", run)

        assert hear(other.broker, ["default"], 1) == [run]


def test_a_redis_that_is_not_there_is_named_without_its_password() -> None:
    broker = Broker(Config.from_env({"FLOWKIT_REDIS_URL": "redis://:secret@127.0.0.1:1/0"}), SECRET)

    with pytest.raises(Unavailable, match=r"Redis at redis://:\*\*\*@127.0.0.1:1/0 does not answer: .*; check"):
        broker.check()
    assert broker.ring("default", RUN) is False


def test_an_option_that_redis_does_not_know_is_told_in_one_line() -> None:
    for url in ("redis://h/0?colour=blue", "redis+sentinel://h/main?colour=blue", "redis://h/0?socket_timeout=soon"):
        with pytest.raises(UsageError, match="with an option that Redis does not know: ") as told:
            Broker(Config.from_env({"FLOWKIT_REDIS_URL": url}), SECRET)
        assert "\n" not in str(told.value)
