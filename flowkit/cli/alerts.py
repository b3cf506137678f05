"""Commands about alerts: who is told that a deployment fails, or has recovered."""

from __future__ import annotations

import click

from flowkit import vault
from flowkit.cli.options import as_json, connect_here, print_json
from flowkit.errors import UsageError
from flowkit.model import Tells, now


@click.group()
def alert() -> None:
    """Tell people when deployments fail and recover."""


@alert.command()
@click.argument("deployment", required=False)
@click.argument("address", metavar="secret:NAME", required=False)
@click.option("--all", "everything", is_flag=True, help="Of all deployments, also those to come.")
@click.option("--on", default="failure,recovery", show_default=True, help="What to tell.")
@as_json
def add(deployment: str | None, address: str | None, everything: bool, on: str, as_json: bool) -> None:
    """Tell of DEPLOYMENT at the Apprise URL that is the value of the secret NAME."""
    if everything and address is None:
        deployment, address = None, deployment
    if address is None or (deployment is None) != everything:
        raise UsageError("name a deployment or --all, and an address: flowkit alert add late secret:ops")
    scheme, _, name = address.partition(":")
    if scheme != "secret":
        raise UsageError("an address holds a password, so it is given by a secret's name: secret:ops")
    vault.check_name(name)
    try:
        kinds = tuple(Tells(one.strip()) for one in on.split(","))
    except ValueError:
        raise UsageError(f"--on takes {', '.join(Tells)}, with commas between, not {on!r}") from None
    with connect_here() as client:
        made = client.store.add_alert(deployment, name, kinds, now=now())
    return print_json(made.to_json()) if as_json else click.echo(f"alert {made.id}: {made}")


@alert.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the alerts, and how their last message went."""
    with connect_here() as client:
        found = [(one, client.store.notices(one.id)) for one in client.store.alerts()]
    if as_json:
        return print_json([one.to_json() | {"notices": [it.to_json() for it in told]} for one, told in found])
    lines = [f"{one.id}  {one}{'; last: ' + str(told[0]) if told else ''}" for one, told in found]
    return click.echo("\n".join(lines) or "no alerts yet; add one: flowkit alert add DEPLOYMENT secret:NAME")


@alert.command()
@click.argument("alert")
def remove(alert: str) -> None:
    """Tell nobody by ALERT any more."""
    with connect_here() as client:
        client.store.remove_alert(alert)
    click.echo(f"alert {alert} is gone")


@alert.command()
@click.argument("alert")
def test(alert: str) -> None:
    """Send a message by ALERT now, from here: with this process's secrets, not the workers'."""
    from flowkit.worker.alerts import send

    with connect_here() as client:
        found = next((one for one in client.store.alerts() if one.id == alert), None)
    if found is None:
        raise UsageError(f"no alert {alert!r}; `flowkit alert list` lists them")
    send(found.secret, "flowkit: a test", f"alert {found.id}: {found}")
    click.echo("sent")
