"""Commands about queues and limits: how much may be done at once."""

from __future__ import annotations

from typing import Any

import click

from flowkit import terminal
from flowkit.cli.options import as_json, connect, print_json
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
