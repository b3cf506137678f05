"""Commands about hooks: programs that run a deployment by what they sign."""

from __future__ import annotations

import click

from flowkit import terminal
from flowkit.cli.options import as_json, connect, print_json
from flowkit.model import now


@click.group()
def hook() -> None:
    """Let a program run a deployment by a signed message, with no token."""


@hook.command()
@click.argument("deployment")
@as_json
def create(deployment: str, as_json: bool) -> None:
    """Let DEPLOYMENT be run by signed messages, and print the secret to sign with, this once."""
    _make(deployment, rotate=False, as_json=as_json)


@hook.command()
@click.argument("deployment")
@as_json
def rotate(deployment: str, as_json: bool) -> None:
    """Give DEPLOYMENT's hook another secret, and print it; the one before is good no more."""
    _make(deployment, rotate=True, as_json=as_json)


@hook.command()
@click.argument("deployment")
def remove(deployment: str) -> None:
    """Let nobody run DEPLOYMENT by signed messages any more."""
    with connect() as client:
        client.store.remove_hook(deployment)
    click.echo(f"{deployment} has no hook any more")


@hook.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the deployments that have a hook."""
    with connect() as client:
        found = client.store.hooks()
    if as_json:
        return print_json([one.to_json() for one in found])
    if not found:
        return click.echo("no hooks yet; make one: flowkit hook create DEPLOYMENT")
    return terminal.console().print(terminal.hooks_table(found))


def _make(deployment: str, *, rotate: bool, as_json: bool) -> None:
    with connect() as client:
        made, secret = client.store.make_hook(deployment, rotate=rotate, now=now())
    if as_json:
        return print_json(made.to_json() | {"secret": secret})
    click.echo(secret)
    return click.echo(f"sign with it what is sent to /api/v1/hooks/{made.deployment} of the server", err=True)
