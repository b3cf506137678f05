"""Commands about queues and limits: how much may be done at once."""

from __future__ import annotations

from typing import Any

import click

from flowkit import terminal
from flowkit.cli.options import Seconds, as_json, connect, print_json
from flowkit.model import now


class Width(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """A number of runs, or ``none``."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "none":
            return None
        found: int = click.IntRange(1, 100_000).convert(value, param, ctx)
        return found


@click.command()
@as_json
def queues(as_json: bool) -> None:
    """List the queues: how many runs wait and run, the limit, and since when the oldest waits."""
    with connect() as client:
        found = client.queues()
    if as_json:
        return print_json([queue.to_json() for queue in found])
    if not found:
        return click.echo("no queue has a run, a limit or a worker; start one: flowkit worker, or flowkit up")
    return terminal.console().print(terminal.queues_table(found, now()))


@click.group()
def queue() -> None:
    """Limit a queue."""


@queue.command("limit")
@click.argument("queue")
@click.argument("at_once", metavar="N|none", type=Width())
def limit_queue(queue: str, at_once: int | None) -> None:
    """Let no more than N runs of QUEUE be under way at once, over all workers. What runs already goes on."""
    with connect() as client:
        client.limit_queue(queue, at_once)
    many = "as many as there are workers for" if at_once is None else str(at_once)
    click.echo(f"queue {queue}: {many} at once, from now on")


@click.command()
@as_json
def limits(as_json: bool) -> None:
    """List the limits that nodes share, and which of them are closed after failures."""
    with connect() as client:
        found = client.store.limits()
        at = client.store.clock()
    if as_json:
        return print_json([limit.to_json() for limit in found])
    if not found:
        return click.echo("no limits yet; set one: flowkit limit set NAME 30/minute")
    return terminal.console().print(terminal.limits_table(found, at))


@click.group()
def limit() -> None:
    """Set and remove limits that nodes share."""


@limit.command("set")
@click.argument("name")
@click.argument("rate")
@click.option("--failures", type=click.IntRange(1, 10_000), help="Close it after so many failed calls.")
@click.option("--within", type=Seconds(), default=60.0, help="That many within this. [default: 1m]")
@click.option("--close-for", type=Seconds(), default=60.0, help="Then one call may try it. [default: 1m]")
@as_json
def set_limit(name: str, rate: str, failures: int | None, within: float, close_for: float, as_json: bool) -> None:
    """Let calls of the nodes with limit=NAME begin at RATE, such as 30/minute, over all runs and workers."""
    with connect() as client:
        found = client.set_limit(name, rate, failures=failures, within=within, close_for=close_for)
    if as_json:
        return print_json(found.to_json())
    closes = f", closed for {close_for:g} s after {failures} failures in {within:g} s" if failures else ""
    return click.echo(f"{found.name}: {found.rate}{closes}")


@limit.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget the limit NAME; a node that names it then fails, unless its notebook declares it."""
    with connect() as client:
        client.store.remove_limit(name)
    click.echo(f"{name} is removed")
