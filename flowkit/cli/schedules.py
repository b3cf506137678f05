"""Commands about when deployments run: their schedules, and backfills over a span of dates."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from flowkit import terminal
from flowkit.cli.options import INTERRUPTED, Interval, as_json, connect, print_json, warn_without_worker
from flowkit.model import Backfill, State, iso
from flowkit.worker.cron import moved, span

if TYPE_CHECKING:
    from flowkit.client import Client
    from flowkit.remote import Remote


@click.group()
def schedule() -> None:
    """See when a schedule fires, and which of its firings did not run."""


@schedule.command()
@click.argument("target", metavar="CRON|DEPLOYMENT")
@click.option("--tz", help="IANA time zone of CRON, such as Europe/Madrid. [default: UTC]")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many.")
@as_json
def preview(target: str, tz: str | None, limit: int, as_json: bool) -> None:
    """Print the next firings, in the zone and in UTC, and what a change of the clocks does to them."""
    with connect() as client:
        found, firings = client.upcoming(target, tz=tz, count=limit)
    rows = [(at, at.astimezone(ZoneInfo(found.zone)), moved(found, at)) for at in firings]
    if as_json:
        return print_json([{"utc": iso(at), "local": wall.isoformat(), "note": note} for at, wall, note in rows])
    if not rows:
        return click.echo(f"it fires no more: the schedule ended at {terminal.local(found.end)} (local time)")
    return terminal.console().print(terminal.firings_table(rows, found.zone))


@schedule.command()
@click.argument("deployment")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many lines.")
@as_json
def skips(deployment: str, limit: int, as_json: bool) -> None:
    """List which firings of DEPLOYMENT did not run, and why, newest first."""
    with connect() as client:
        client.store.deployment(deployment)  # a typo is told, not answered with an empty list
        found = client.store.skips(deployment, limit=limit)
    if as_json:
        return print_json([skip.to_json() for skip in found])
    if not found:
        return click.echo(f"every firing of {deployment} ran")
    return terminal.console().print(terminal.skips_table(found))


@click.command()
@click.argument("deployment")
@click.option("--param", "parameter", required=True, metavar="NAME", help="The parameter that differs between runs.")
@click.option("--from", "first", required=True, metavar="DATE", help="Its first value.")
@click.option("--to", "last", required=True, metavar="DATE", help="Its last value.")
@click.option("--every", type=Interval(), default="1d", show_default=True, help="From one value to the next.")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=1, show_default=True, help="Runs at once.")
@click.option("--reverse", is_flag=True, help="Begin with the last value.")
@click.option("--only-failed", is_flag=True, help="Run the failed ones of these values again, and no others.")
@click.option("--wait/--no-wait", default=True, help="Follow it to its end. [default: wait]")
@as_json
def backfill(
    deployment: str,
    parameter: str,
    first: str,
    last: str,
    every: float,
    concurrency: int,
    reverse: bool,
    only_failed: bool,
    wait: bool,
    as_json: bool,
) -> int:
    """Run DEPLOYMENT once for each date of a span. The same again makes only what is missing or was cancelled."""
    values = span(first, last, every)
    with connect() as client:
        ordered = values[::-1] if reverse else values
        found = client.backfill(deployment, parameter, ordered, concurrency=concurrency, only_failed=only_failed)
        found = _filled(client, found, wait=wait)
    if as_json:
        print_json(found.to_json())
    elif wait:
        counts = ", ".join(f"{count} {state}" for state, count in found.counts.items())
        click.echo(f"backfill {found.id}: {counts}; flowkit show {found.id} lists them")
    else:
        click.echo(f"backfill {found.id} has {found.total} runs; follow it: flowkit show {found.id}")
    return 1 if wait and found.counts.get(State.SUCCEEDED) != found.total else 0


@click.command()
@as_json
def backfills(as_json: bool) -> None:
    """List the backfills, newest first."""
    with connect() as client:
        found = client.store.backfills()
    if as_json:
        return print_json([one.to_json() for one in found])
    if not found:
        return click.echo("no backfills yet; make one: flowkit backfill DEPLOYMENT --param day --from DATE --to DATE")
    return terminal.console().print(terminal.backfills_table(found))


def _filled(client: Client | Remote, backfill: Backfill, *, wait: bool) -> Backfill:
    try:
        warn_without_worker(client, client.store.deployment(backfill.deployment).policy.queue)
        if not wait:
            return backfill
        with terminal.Filling(terminal.console(stderr=True)) as filling:
            return client.follow_backfill(backfill.id, filling.show)
    except KeyboardInterrupt:
        click.echo(f"\nbackfill {backfill.id} goes on; stop it: flowkit cancel {backfill.id}", err=True)
        sys.exit(INTERRUPTED)
