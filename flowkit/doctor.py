"""Is everything here that flowkit needs, and set as it should be? Each check is one line, with what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from flowkit.checks import broker, store, workers
from flowkit.client import Client
from flowkit.config import Config, kernel_environment
from flowkit.errors import FlowkitError
from flowkit.model import Finding, Health, new_id, now
from flowkit.worker import kernels, process
from flowkit.worker.zygote import Unfit, Zygotes


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


CHECKS: dict[str, Callable[[Client], Iterator[Finding]]] = {
    "store": lambda client: store(client.store, now()),
    "broker": lambda client: broker(client.broker, embedded=client.config.embedded),
    "artifacts": _artifacts,
    "kernel": _kernels,
    "warm kernels": _warm,
    "isolation": _isolation,
    "workers": lambda client: workers(client.store, now()),
}
