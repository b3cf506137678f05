"""Commands about runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowkit import terminal, trace
from flowkit.cli.options import (
    INTERRUPTED,
    TakesParameters,
    as_json,
    connect,
    given,
    parameter_options,
    policy_options,
    print_json,
    read_parameters,
    warn_without_worker,
)
from flowkit.errors import UsageError
from flowkit.events import fold, kernel, usage, with_children
from flowkit.model import EXIT_CODES, Run, State, now

if TYPE_CHECKING:
    from flowkit.client import Client
    from flowkit.remote import Remote


@click.command(cls=TakesParameters)
@click.argument("target", metavar="NOTEBOOK|DEPLOYMENT")
@parameter_options
@policy_options
@click.option("--key", help="Submit only once: the same key again gives the same run.")
@click.option("--wait", is_flag=True, help="Follow it to its end; the exit code tells how it ended.")
@as_json
def run(
    target: str,
    pairs: tuple[tuple[str, str], ...],
    parameters_file: Path | None,
    key: str | None,
    wait: bool,
    as_json: bool,
    **policy: Any,
) -> int:
    """Submit a run of NOTEBOOK or DEPLOYMENT now."""
    with connect() as client:
        parameters = read_parameters(client, target, pairs, parameters_file)
        submitted = client.submit(
            target, parameters=parameters, key=key, policy=given(policy), traceparent=trace.caller()
        )
        return _submitted(client, submitted, wait=wait, as_json=as_json)


@click.command()
@click.argument("run")
@click.option("--from", "forget", metavar="NODE", help="Compute this node again, and what depends on it.")
@click.option("--wait", is_flag=True, help="Follow it to its end; the exit code tells how it ended.")
@as_json
def retry(run: str, forget: str | None, wait: bool, as_json: bool) -> int:
    """Try RUN again: a failed or cancelled run, with its parameters and its snapshot of the notebook.

    Nodes that have finished keep their results.
    """
    with connect() as client:
        return _submitted(client, client.retry(run, forget=forget), wait=wait, as_json=as_json)


@click.command("open")
@click.argument("run")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write it. [default: beside its own]")
def open_(run: str, output: Path | None) -> None:
    """Write RUN as a notebook to go on with: its cells, its parameters, and a first cell that loads its results."""
    from flowkit.book import write

    with connect() as client:
        click.echo(write(client.store, client.store.run(run), output))


@click.command()
@click.argument("run")
@click.argument("other", required=False)
@as_json
def diff(run: str, other: str | None, as_json: bool) -> None:
    """Show how RUN differs from OTHER, what most likely broke it first.

    OTHER is the last run of its deployment that succeeded before it, if it is not named.
    """
    with connect() as client:
        found = client.diff(run, other)
    if as_json:
        return print_json(found.to_json())
    return terminal.console().print(terminal.comparison(found))


@click.command()
@click.argument("run")
@as_json
def cancel(run: str, as_json: bool) -> None:
    """Cancel RUN, waiting or under way. A backfill's id (DEPLOYMENT:PARAMETER) cancels all of it."""
    with connect() as client:
        if ":" in run:
            [found] = client.store.backfills(run)
            count = client.store.cancel_backfill(run, now=now())
            [found] = client.store.backfills(run)
            if as_json:
                return print_json(found.to_json())
            ending = found.counts.get(State.RUNNING, 0)
            later = f"; {ending} of them run until their kernels have ended, within seconds" if ending else ""
            return click.echo(f"{count} runs of {run} are cancelled{later}")
        cancelled = client.cancel(run)
        if as_json:
            return _print_run(client, cancelled)
        how = "being cancelled; its kernel ends within seconds" if cancelled.cancelling else "cancelled"
        return click.echo(f"run {cancelled.id} is {how}")


@click.command(cls=TakesParameters)
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@click.option("--deployment", help="Only those of one deployment.")
@click.option("--notebook", type=click.Path(path_type=Path), help="Only those of one notebook, by its path.")
@click.option("--state", type=click.Choice([s.value for s in State if s is not State.SKIPPED]), help="Only these.")
@click.option(
    "-p", "--parameter", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help="Only those that were given it."
)
@click.option("--error", help="Only those that have this in their error, in small letters or capitals.")
@as_json
def runs(
    limit: int,
    deployment: str | None,
    notebook: Path | None,
    state: str | None,
    pairs: tuple[tuple[str, str], ...],
    error: str | None,
    as_json: bool,
) -> None:
    """List the runs, newest first."""
    if notebook is not None and (pairs or error):
        raise UsageError("--notebook goes with neither --parameter nor --error; name its --deployment")
    with connect() as client:
        if deployment is not None:
            client.store.deployment(deployment)  # a typo is told, not answered with an empty list
        states = [State(state)] if state else []
        if notebook is not None:
            place = str(notebook.absolute())
            found, _ = client.store.page(offset=0, limit=limit, deployment=deployment, notebook=place, states=states)
        elif pairs or error:
            found = client.search(limit=limit, deployment=deployment, states=states, parameters=pairs, error=error)
        else:
            found = client.store.runs(limit=limit, deployment=deployment, states=states)
        if as_json:
            return print_json([_whole(client, one) for one in found])
    if not found:
        return click.echo(
            "no runs yet; submit one: flowkit run NOTEBOOK.ipynb"
            if not (deployment or notebook or state or pairs or error)
            else "none"
        )
    return terminal.console().print(terminal.runs_table(found))


@click.command()
@click.argument("run")
@as_json
def show(run: str, as_json: bool) -> None:
    """Show RUN and its nodes. RUN is its id or the beginning of it; a backfill's id shows it with its runs."""
    with connect() as client:
        if ":" in run:
            [filled] = client.store.backfills(run)
            made = client.store.backfill_runs(run)
            if as_json:
                return print_json(filled.to_json(made))
            return terminal.console().print(terminal.backfill_table(filled, made))
        found = client.store.run(run)
        if as_json:
            return _print_run(client, found)
        events, wait = client.recorded(found), client.store.wait(found, now=now())
        nodes = with_children(fold(events, ended=found.state.final), client.children(found))
    console = terminal.console()
    console.print(terminal.run_details(found, events, wait))
    if nodes:
        console.print()
        console.print(terminal.nodes_table(nodes))
    for node in [node for node in nodes if node.misfits][:5]:
        console.print()
        console.print(terminal.misfits(node))
    return None


@click.command()
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@as_json
def logs(run: str, follow: bool, as_json: bool) -> None:
    """Print what RUN wrote to stdout and stderr, also while it runs."""
    with connect() as client:
        found = client.store.run(run)

        def write(_: Run, events: Iterable[Any]) -> None:
            for event in events:
                if as_json:
                    click.echo(event.to_json())
                else:
                    click.echo(event.data, nl=False, err=event.name == "stderr")

        if follow:
            found = client.follow(found.id, write, output=True)
        else:
            write(found, client.store.events(found.id, output=True)[1])
    if found.error and not as_json:
        click.echo(f"{found.state} ({found.cause}): {found.error}", err=True)


def _submitted(client: Client | Remote, run: Run, *, wait: bool, as_json: bool) -> int:
    if not run.state.final:
        warn_without_worker(client, run.policy.queue)
    if not wait:
        if as_json:
            _print_run(client, run)
        else:
            click.echo(f"run {run.id} of {run.label} is {run.state}; follow it: flowkit logs -f {run.id[:8]}")
        return 0
    ended = _follow(client, run)
    if as_json:
        _print_run(client, ended)
    if ended.error:
        click.echo(f"flowkit: run {ended.id[:8]} {ended.state} ({ended.cause}): {ended.error}", err=True)
        if ended.output and not as_json:
            click.echo(ended.output)
    elif not as_json:
        click.echo(f"run {ended.id[:8]} {ended.state}; {ended.output or 'it left no notebook'}")
    return _exit_code(ended)


def _follow(client: Client | Remote, run: Run) -> Run:
    try:
        with terminal.Following(terminal.console(stderr=True)) as following:
            return client.follow(run.id, following.show)
    except KeyboardInterrupt:
        click.echo(f"\nrun {run.id[:8]} goes on; stop it: flowkit cancel {run.id[:8]}", err=True)
        sys.exit(INTERRUPTED)


def _exit_code(run: Run) -> int:
    if run.state is State.SUCCEEDED:
        return 0
    if run.state is State.CANCELLED:
        return INTERRUPTED  # whatever an attempt before has failed of
    return EXIT_CODES[run.cause] if run.cause else INTERRUPTED


def _print_run(client: Client | Remote, run: Run) -> None:
    print_json(_whole(client, run))


def _whole(client: Client | Remote, run: Run) -> dict[str, Any]:
    """The run with what its events tell: the same keys wherever a run is printed."""
    events = client.recorded(run)
    used = usage(events)
    more = {"kernel": kernel(events), "usage": used and used.to_json()}
    return run.to_json(with_children(fold(events, ended=run.state.final), client.children(run))) | more
