"""Commands about who may use the server from outside: tokens, and what was done with them."""

from __future__ import annotations

from datetime import timedelta

import click

from flowkit import terminal
from flowkit.cli.options import Seconds, as_json, connect, print_json
from flowkit.errors import UsageError
from flowkit.model import Role, now


@click.group()
def token() -> None:
    """Say who may use the dashboard and the API from elsewhere."""


@token.command()
@click.argument("name")
@click.option("--role", type=click.Choice([r.value for r in Role]), default="viewer", show_default=True, help="May do.")
@click.option("--expires", type=Seconds(), default="90d", show_default=True, help="How long it is good for.")
@as_json
def create(name: str, role: str, expires: float, as_json: bool) -> None:
    """Make a token for NAME and print it, this once.

    A viewer looks, an operator runs what is deployed, an admin deploys notebooks, deletes, and says who may.
    """
    if not 0 < expires <= 3_660 * 86_400:
        raise UsageError("a token is good for more than nothing and at most ten years; --expires 90d")
    at = now()
    with connect() as client:
        made, secret = client.store.create_token(name, Role(role), expires=at + timedelta(seconds=expires), now=at)
    if as_json:
        return print_json(made.to_json() | {"secret": secret})
    click.echo(secret)
    return click.echo(f"{made.name} is {made.role} until {terminal.local(made.expires)} (local time)", err=True)


@token.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the tokens, the newest first."""
    with connect() as client:
        found = client.store.tokens()
    if as_json:
        return print_json([one.to_json() for one in found])
    if not found:
        return click.echo("no tokens yet; make one: flowkit token create NAME")
    return terminal.console().print(terminal.tokens_table(found, now()))


@token.command()
@click.argument("token")
@as_json
def revoke(token: str, as_json: bool) -> None:
    """Let nobody in with TOKEN any more: its id, or its name."""
    with connect() as client:
        gone = client.store.revoke_token(token)
    return print_json(gone.to_json()) if as_json else click.echo(f"{gone.name} ({gone.role}) is revoked")


@click.command()
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@as_json
def audit(limit: int, as_json: bool) -> None:
    """List who did what over HTTP, the newest first."""
    with connect() as client:
        found = client.store.acts(limit=limit)
    if as_json:
        return print_json([act.to_json() for act in found])
    if not found:
        return click.echo("nobody has changed anything over HTTP")
    return terminal.console().print(terminal.acts_table(found))
