"""Is everything here that flowkit needs, and set as it should be? Each check is one line, with what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from flowkit.client import Client
from flowkit.config import Config, kernel_environment
from flowkit.errors import FlowkitError
from flowkit.model import new_id, now
from flowkit.worker import kernels, process
from flowkit.worker.zygote import Unfit, Zygotes

#: Seconds by which this machine's clock and the database's may differ: schedules fire by either.
SKEW = 2.0


class Health(StrEnum):
    GOOD = "good"
    WARNING = "warning"  # it works, but not as well or as safely as it could
    PROBLEM = "problem"  # runs will fail, be late or not start


@dataclass(frozen=True, slots=True)
class Finding:
    subject: str
    health: Health
    found: str
    remedy: str | None = None  #: what to do; None if it is good

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(config: Config) -> Iterator[Finding]:
    """Every finding, in the order in which one depends on another."""
    try:
        client = Client(config)
    except FlowkitError as error:
        yield Finding("store", Health.PROBLEM, str(error), "start it, or correct the setting; nothing works without it")
        return
    with client:
        for subject, check in CHECKS.items():
            try:
                yield from check(client)
            except FlowkitError as error:
                yield Finding(subject, Health.PROBLEM, str(error), "correct what the line says")


def _store(client: Client) -> Iterator[Finding]:
    yield Finding("store", Health.GOOD, client.store.shown)
    skew = abs((client.store.clock() - now()).total_seconds())
    if skew > SKEW:
        yield Finding(
            "clock",
            Health.WARNING,
            f"this machine's clock and the database's differ by {skew:.0f} s",
            "set both by NTP: schedules fire by the clock of whichever worker looks first",
        )


def _broker(client: Client) -> Iterator[Finding]:
    client.broker.check()
    facts = client.broker.facts()
    if facts is None:
        yield Finding("broker", Health.GOOD, f"SQLite, {client.broker.address}")
        if not client.config.embedded:
            yield Finding(
                "broker",
                Health.WARNING,
                "the store is a server, but runs are announced in a file of this machine alone",
                "set FLOWKIT_REDIS_URL: workers elsewhere find a run only when they next look, a second later",
            )
        return
    yield Finding("broker", Health.GOOD, f"Redis {facts['version']}, {client.broker.address}")
    if int(facts["version"].split(".")[0]) < 5:
        yield Finding("broker", Health.PROBLEM, "Redis before 5.0 has no priorities", "install a newer Redis")
    if facts["policy"] != "noeviction":
        yield Finding(
            "broker",
            Health.PROBLEM,
            f"Redis may throw messages away when its memory is full: maxmemory-policy is {facts['policy']}",
            "redis-cli config set maxmemory-policy noeviction, and the same in redis.conf",
        )


def _artifacts(client: Client) -> Iterator[Finding]:
    probe = f"doctor/{new_id()}"
    client.artifacts.write(f"{probe}/probe", b"flowkit")
    same = client.artifacts.read(f"{probe}/probe") == b"flowkit"
    client.artifacts.remove(probe)
    if same:
        yield Finding("artifacts", Health.GOOD, client.artifacts.url)
    else:
        yield Finding(
            "artifacts",
            Health.PROBLEM,
            f"what is written to {client.artifacts.url} is not what is read from it",
            "name another place in FLOWKIT_ARTIFACTS_URL",
        )
    if not client.config.embedded and "://" not in client.artifacts.url:
        yield Finding(
            "artifacts",
            Health.WARNING,
            "executed notebooks stay on the machine that ran them",
            "name a place that all machines reach in FLOWKIT_ARTIFACTS_URL, such as s3://bucket/flowkit",
        )


def _kernels(client: Client) -> Iterator[Finding]:
    spec = kernels.find(None)
    yield Finding("kernel", Health.GOOD, f"{kernels.DEFAULT}: {spec.display_name}")


def _warm(client: Client) -> Iterator[Finding]:
    names = client.config.warm
    if names is None:
        yield Finding("warm kernels", Health.GOOD, "FLOWKIT_WARM is off: each run waits for its kernel's start")
        return
    zygotes = Zygotes(lambda: names)
    try:
        zygotes.await_ready(kernels.find(None), kernel_environment(client.config.home), parked=False)
    except Unfit as why:
        remedy = "correct that or FLOWKIT_WARM; until then each run waits for its kernel's start"
        yield Finding("warm kernels", Health.WARNING, str(why), remedy)
    else:
        having = f", with {', '.join(names)} imported if installed" if names else ""
        yield Finding("warm kernels", Health.GOOD, f"{kernels.DEFAULT}: forked from one process{having}")
    finally:
        zygotes.close()


def _isolation(_: Client) -> Iterator[Finding]:
    why = process.shortcoming()
    if why is None:
        yield Finding("isolation", Health.GOOD, "each kernel is alone in a PID namespace")
        return
    kept = {"reaper": "a reaper ends what a kernel leaves behind", "group": "a daemon of a notebook may live on"}
    yield Finding(
        "isolation",
        Health.WARNING,
        f"no PID namespaces ({why}); {kept[process.isolation()]}",
        "on Linux, install util-linux (setpriv, unshare) and let this user make user namespaces",
    )


def _workers(client: Client) -> Iterator[Finding]:
    workers = client.workers()
    heard = {queue for worker in workers for queue in worker.queues}
    if workers:
        yield Finding("workers", Health.GOOD, f"{len(workers)} alive, on {', '.join(sorted(heard))}")
    if dropped := sum(worker.dropped for worker in workers):
        yield Finding(
            "messages",
            Health.WARNING,
            f"workers dropped {dropped} messages that no flowkit of this store has sent",
            "see who else writes there: protect Redis by a password, and give each store a database of its own",
        )
    waiting = client.store.depth(now())
    deployed = {one.policy.queue for one in client.store.deployments() if not one.paused and one.schedule}
    for queue in sorted((set(waiting) | deployed) - heard):
        runs = waiting.get(queue, 0)
        yield Finding(
            "workers",
            Health.PROBLEM,
            f"no worker is alive on queue {queue!r}" + (f", where {runs} runs wait" if runs else ""),
            f"flowkit worker --queue {queue}",
        )


CHECKS: dict[str, Callable[[Client], Iterator[Finding]]] = {
    "store": _store,
    "broker": _broker,
    "artifacts": _artifacts,
    "kernel": _kernels,
    "warm kernels": _warm,
    "isolation": _isolation,
    "workers": _workers,
}
