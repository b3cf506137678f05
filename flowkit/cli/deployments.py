"""Commands about deployments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flowkit import terminal
from flowkit.cli.options import (
    Interval,
    TakesParameters,
    as_json,
    connect,
    given,
    parameter_options,
    policy_options,
    print_json,
    read_parameters,
    schedule_options,
)
from flowkit.errors import UsageError
from flowkit.model import KEEP_FAILED, KEEP_SUCCEEDED, Policy
from flowkit.worker.cron import describe
from flowkit.worker.timing import schedule as asked


@click.command(cls=TakesParameters)
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the deployment. [default: the notebook's]")
@click.option("--cron", help='When to run it, five fields: "0 6 * * *".')
@click.option("--tz", help="IANA time zone of --cron, such as Europe/Madrid. [default: UTC]")
@click.option("--every", type=Interval(), help="Run it at an interval, such as 15m.")
@schedule_options
@parameter_options
@policy_options
@click.option("--max-concurrent", type=int, help="So many of its runs at once, over all workers.")
@click.option("--rate", help="So many of its runs start, as in 30/minute.")
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="HOST",
    callback=lambda _, __, hosts: ",".join(hosts) or None,
    help="Of those in the worker's FLOWKIT_HTTP_ALLOW, let its HTTP nodes reach only this; again for more. "
    "[default: all of them]",
)
@click.option("--keep-succeeded", type=int, default=KEEP_SUCCEEDED, show_default=True, help="Runs to keep.")
@click.option("--keep-failed", type=int, default=KEEP_FAILED, show_default=True, help="Runs to keep.")
@as_json
def deploy(
    notebook: Path,
    name: str | None,
    cron: str | None,
    tz: str | None,
    every: float | None,
    pairs: tuple[tuple[str, str], ...],
    parameters_file: Path | None,
    keep_succeeded: int,
    keep_failed: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Deploy NOTEBOOK as it is now: its content is kept, and runs on schedule or by hand."""
    if tz is not None and cron is None and not (options["start"] or options["end"]):
        raise UsageError("--tz is the zone of a --cron; give both, or neither")
    policy = {name: options.pop(name) for name in Policy.__slots__}
    with connect() as client:
        deployment, new = client.deploy(
            notebook,
            name=name,
            parameters=read_parameters(client, notebook, pairs, parameters_file),
            schedule=asked(cron=cron, tz=tz or "UTC", every=every, **options),
            policy=Policy(**given(policy)),
            keep_succeeded=keep_succeeded,
            keep_failed=keep_failed,
        )
    if as_json:
        return print_json(deployment.to_json())
    when = f", {describe(deployment.schedule)}" if deployment.schedule else ""
    what = "deployed" if new else "nothing new:"
    click.echo(f"{what} {deployment.name} version {deployment.version}{when}")
    if deployment.schedule and deployment.schedule.next:
        click.echo(f"next: {terminal.local(deployment.schedule.next)} (local time)")
    elif deployment.schedule and not deployment.paused:
        click.echo(f"it does not fire: the schedule ended at {terminal.local(deployment.schedule.end)} (local time)")
    return None


@click.command()
@as_json
def deployments(as_json: bool) -> None:
    """List the deployments."""
    with connect() as client:
        found = client.store.deployments()
    if as_json:
        return print_json([deployment.to_json() for deployment in found])
    if not found:
        return click.echo("no deployments yet; make one: flowkit deploy NOTEBOOK.ipynb")
    when = {deployment.name: describe(deployment.schedule) for deployment in found if deployment.schedule}
    return terminal.console().print(terminal.deployments_table(found, when))


@click.command()
@click.argument("deployment")
@as_json
def pause(deployment: str, as_json: bool) -> None:
    """Stop DEPLOYMENT's schedule. Runs that are under way go on."""
    with connect() as client:
        paused = client.pause(deployment)
    return print_json(paused.to_json()) if as_json else click.echo(f"{paused.name} is paused")


@click.command()
@click.argument("deployment")
@as_json
def resume(deployment: str, as_json: bool) -> None:
    """Start DEPLOYMENT's schedule again, from now on: what it missed is not made up."""
    with connect() as client:
        resumed = client.resume(deployment)
    return print_json(resumed.to_json()) if as_json else click.echo(f"{resumed.name} runs on schedule again")


@click.command()
@click.argument("deployment")
@click.option("--cancel", is_flag=True, help="Also cancel its runs that wait or are under way.")
@as_json
def delete(deployment: str, cancel: bool, as_json: bool) -> None:
    """Delete DEPLOYMENT and its schedule. Its runs stay, by the retention of a notebook run by hand."""
    with connect() as client:
        gone = client.store.deployment(deployment)
        client.delete(deployment, cancel=cancel)
    return print_json(gone.to_json()) if as_json else click.echo(f"{gone.name} is deleted; its runs are still listed")
