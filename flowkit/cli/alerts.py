"""Commands about alerts: who is told what goes wrong with deployments, what they were told, and whether it arrives."""

from __future__ import annotations

from time import monotonic, sleep

import click

from flowkit import terminal, vault
from flowkit.cli.options import as_json, connect_here, print_json
from flowkit.errors import FlowkitError, UsageError
from flowkit.model import ASKED, Notice, now, watches

#: Seconds that `notify test` waits for whoever sends: each worker and server looks every two.
PATIENCE = 30.0


@click.group()
def alert() -> None:
    """Tell people what goes wrong with deployments, and when it is over."""


@alert.command()
@click.argument("deployment", required=False)
@click.argument("address", metavar="secret:NAME", required=False)
@click.option("--all", "everything", is_flag=True, help="Of all deployments, also those to come.")
@click.option(
    "--on",
    default="failure,recovery",
    show_default=True,
    help=f"What to tell, of {','.join(ASKED)}; three say from when on: late:10m, long:2h or long:3x, stuck:5m.",
)
@as_json
def add(deployment: str | None, address: str | None, everything: bool, on: str, as_json: bool) -> None:
    """Tell of DEPLOYMENT at the Apprise URL that is the value of the secret NAME."""
    if everything and address is None:
        deployment, address = None, deployment
    if address is None or (deployment is None) != everything:
        raise UsageError("name a deployment or --all, and an address: flowkit alert add late secret:ops")
    name = _secret(address)
    if name is None:
        raise UsageError("an address holds a password, so it is given by a secret's name: secret:ops")
    try:
        chosen = watches(on)
    except ValueError as error:
        raise UsageError(f"--on: {error}") from None
    with connect_here() as client:
        made = client.store.add_alert(deployment, name, chosen, now=now())
    return print_json(made.to_json()) if as_json else click.echo(f"alert {made.id}: {made}")


@alert.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the alerts, and how their last message went."""
    with connect_here() as client:
        found = [(one, client.store.notices(alert=one.id, limit=1)) for one in client.store.alerts()]
    if as_json:
        return print_json([one.to_json() | {"last": told[0].to_json() if told else None} for one, told in found])
    lines = [f"{one.id}  {one}{'; last: ' + str(told[0]) if told else ''}" for one, told in found]
    return click.echo("\n".join(lines) or "no alerts yet; add one: flowkit alert add DEPLOYMENT secret:NAME")


@alert.command()
@click.argument("alert")
def remove(alert: str) -> None:
    """Tell nobody by ALERT any more."""
    with connect_here() as client:
        client.store.remove_alert(alert)
    click.echo(f"alert {alert} is gone")


@click.command()
@click.argument("deployment", required=False)
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="The newest.")
@as_json
def alerts(deployment: str | None, limit: int, as_json: bool) -> None:
    """List what people were told, of DEPLOYMENT or all: delivered, being tried or failed, and why."""
    with connect_here() as client:
        found = client.store.notices(deployment=deployment, limit=limit)
    if as_json:
        return print_json([one.to_json() for one in found])
    if not found:
        return click.echo("nobody was told anything; flowkit alert list says who would be")
    return terminal.console().print(terminal.notices_table(found))


@click.group()
def notify() -> None:
    """See whether what people are told arrives."""


@notify.command()
@click.argument("target", metavar="DEPLOYMENT|URL")
def test(target: str) -> int:
    """Send a message by the alerts of DEPLOYMENT, or from here to an Apprise URL or to secret:NAME.

    Says of each whether it arrived. Exit code 1 if one did not.
    """
    if "://" in target or _secret(target) is not None:
        return _send(target)
    with connect_here() as client:
        asked = client.test_alerts(target)
        until, left = monotonic() + PATIENCE, {(one.alert, one.run) for one in asked}
        told: list[Notice] = []
        while left and monotonic() < until:
            sleep(0.2)
            newest = client.store.notices(limit=len(asked) + 100)
            told += [one for one in newest if (one.alert, one.run) in left and one.due is None]
            left -= {(one.alert, one.run) for one in told}
    for one in told:
        click.echo(f"secret:{one.secret} ({one.alert}): {'arrived' if one.sent else one.error}")
    for one in asked:
        if (one.alert, one.run) in left:
            click.echo(f"secret:{one.secret} ({one.alert}): nobody has sent it yet; start a worker: flowkit worker")
    return 0 if len([one for one in told if one.sent]) == len(asked) else 1


def _send(target: str) -> int:
    from flowkit.worker.alerts import send

    name = _secret(target)
    called = f"in the secret {name!r}" if name else f"{target.partition('://')[0]}://…"
    try:
        address = vault.reveal(name) if name else target
        send(address, "flowkit: a test", "messages to this address arrive", called=called)
    except FlowkitError as error:
        click.echo(str(error), err=True)
        return 1
    click.echo(f"{f'secret:{name}' if name else called}: arrived")
    return 0


def _secret(target: str) -> str | None:
    """The name of a secret that is given as ``secret:NAME``."""
    scheme, colon, name = target.partition(":")
    return vault.check_name(name) if scheme == "secret" and colon else None
