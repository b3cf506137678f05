"""The command line: reads options, calls the client, prints. A command imports the heavy parts that it needs."""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo

import click

from flowkit import terminal
from flowkit.config import Config
from flowkit.errors import FlowkitError, UsageError
from flowkit.model import (
    EXIT_CODES,
    KEEP_FAILED,
    KEEP_SUCCEEDED,
    Backfill,
    CatchUp,
    NodeRun,
    Overlap,
    Policy,
    Run,
    State,
    iso,
    now,
)
from flowkit.worker.cron import describe, moved, span
from flowkit.worker.cron import every as interval

if TYPE_CHECKING:
    from flowkit.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])

INTERRUPTED = 130

#: A duration without a unit is in seconds.
PLAIN = re.compile(r"\d+(\.\d+)?")


def main() -> None:
    """Exit codes: 0 succeeded, 1 notebook, 2 usage or setup, 3 crashed, 4 timeout, 130 interrupted or cancelled."""
    try:
        sys.exit(cli.main(prog_name="flowkit", standalone_mode=False) or 0)
    except FlowkitError as error:
        _fail(str(error), error.exit_code)
    except click.UsageError as error:
        about = error.ctx.command_path if error.ctx else "flowkit"
        _fail(f"{error.format_message().rstrip('.')}; see {about} --help", 2)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `flowkit runs | head`
        _discard_output()
    except OSError as error:
        _discard_output()
        _fail(f"cannot write the output: {error.strerror}" if error.errno == errno.ENOSPC else str(error), 2)


def _discard_output() -> None:
    """What is still to be written would fail again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> None:
    click.echo(f"flowkit: {message}", err=True)
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="flowkit", message="flowkit %(version)s")
def cli() -> None:
    """Run notebooks on schedule.

    Everything is kept in FLOWKIT_HOME (~/.flowkit) unless FLOWKIT_DATABASE_URL and FLOWKIT_REDIS_URL say otherwise.
    """


class Seconds(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return float(value) if PLAIN.fullmatch(str(value)) else interval(value)


class Interval(Seconds):
    """With its unit: ``15`` could be taken for minutes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return interval(value)


class TakesParameters(click.Command):
    """``-p NAME VALUE``, as papermill has it, and ``-p NAME=VALUE`` too: no name contains an equals sign."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        for argument in args:
            follows = bool(spread) and spread[-1] in ("-p", "--parameter")
            spread += argument.split("=", 1) if follows and "=" in argument else [argument]
        return super().parse_args(ctx, spread)


def parameter_options(command: Command) -> Command:
    return _options(
        click.option(
            "-p",
            "--parameter",
            "pairs",
            nargs=2,
            multiple=True,
            metavar="NAME VALUE",
            help="A parameter; NAME=VALUE does as well.",
        ),
        click.option(
            "-f",
            "--parameters-file",
            type=click.Path(path_type=Path),
            help="Parameters from a JSON file; those given by -p come on top.",
        ),
    )(command)


def policy_options(command: Command) -> Command:
    return _options(
        click.option("--queue", help="The queue whose workers run it. [default: default]"),
        click.option("--priority", type=int, help="Higher first, within a queue. [default: 0]"),
        click.option("--retries", type=int, help="Attempts after the first. [default: 0]"),
        click.option("--backoff", type=Seconds(), help="Wait before the first retry; doubles. [default: 2s]"),
        click.option("--timeout", type=Seconds(), help="Limit for the whole run, such as 90s or 2h."),
        click.option("--kernel", help="The kernel to run it in, if not the notebook's own."),
    )(command)


def schedule_options(command: Command) -> Command:
    return _options(
        click.option("--start", metavar="TIME", help="Fire from then on: 2013-07-01T06:00, in the zone of --tz."),
        click.option("--end", metavar="TIME", help="Fire up to then."),
        click.option(
            "--catch-up",
            type=click.Choice([policy.value for policy in CatchUp]),
            help="Which of the missed firings run, once a worker is there again. [default: latest]",
        ),
        click.option("--catch-up-limit", type=int, help="Of all, the newest so many. [default: 100]"),
        click.option("--grace", type=Seconds(), help="Of the latest, unless it is older than this. [default: 1h]"),
        click.option(
            "--overlap",
            type=click.Choice([policy.value for policy in Overlap]),
            help="What a firing does while an earlier run of the schedule has not ended. "
            "[default: skip; with --catch-up all: queue]",
        ),
        click.option("--jitter", type=Seconds(), help="Runs wait up to so long, each deployment always the same."),
    )(command)


def as_json(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


# -- deployments ------------------------------------------------------------------------------------------------------


@cli.command(cls=TakesParameters)
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the deployment. [default: the notebook's]")
@click.option("--cron", help='When to run it, five fields: "0 6 * * *".')
@click.option("--tz", help="IANA time zone of --cron, such as Europe/Madrid. [default: UTC]")
@click.option("--every", type=Interval(), help="Run it at an interval, such as 15m.")
@schedule_options
@parameter_options
@policy_options
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
    from flowkit import client as clients

    if tz is not None and cron is None and not (options["start"] or options["end"]):
        raise UsageError("--tz is the zone of a --cron; give both, or neither")
    policy = {name: options.pop(name) for name in Policy.__slots__}
    with _connect() as client:
        deployment, new = client.deploy(
            notebook,
            name=name,
            parameters=_parameters(client, notebook, pairs, parameters_file),
            schedule=clients.schedule(cron=cron, tz=tz or "UTC", every=every, **options),
            policy=Policy(**_given(policy)),
            keep_succeeded=keep_succeeded,
            keep_failed=keep_failed,
        )
    if as_json:
        return _print_json(deployment.to_json())
    when = f", {describe(deployment.schedule)}" if deployment.schedule else ""
    what = "deployed" if new else "nothing new:"
    click.echo(f"{what} {deployment.name} version {deployment.version}{when}")
    if deployment.schedule and deployment.schedule.next:
        click.echo(f"next: {terminal.local(deployment.schedule.next)} (local time)")
    elif deployment.schedule and not deployment.paused:
        click.echo(f"it does not fire: the schedule ended at {terminal.local(deployment.schedule.end)} (local time)")
    return None


@cli.command()
@as_json
def deployments(as_json: bool) -> None:
    """List the deployments."""
    with _connect() as client:
        found = client.store.deployments()
    if as_json:
        return _print_json([deployment.to_json() for deployment in found])
    if not found:
        return click.echo("no deployments yet; make one: flowkit deploy NOTEBOOK.ipynb")
    when = {deployment.name: describe(deployment.schedule) for deployment in found if deployment.schedule}
    return terminal.console().print(terminal.deployments_table(found, when))


@cli.command()
@click.argument("deployment")
@as_json
def pause(deployment: str, as_json: bool) -> None:
    """Stop DEPLOYMENT's schedule. Runs that are under way go on."""
    with _connect() as client:
        paused = client.store.pause(deployment, now=now())
    return _print_json(paused.to_json()) if as_json else click.echo(f"{paused.name} is paused")


@cli.command()
@click.argument("deployment")
@as_json
def resume(deployment: str, as_json: bool) -> None:
    """Start DEPLOYMENT's schedule again, from now on: what it missed is not made up."""
    with _connect() as client:
        resumed = client.resume(deployment)
    return _print_json(resumed.to_json()) if as_json else click.echo(f"{resumed.name} runs on schedule again")


@cli.group()
def schedule() -> None:
    """See when a schedule fires, and which of its firings did not run."""


@schedule.command()
@click.argument("target", metavar="CRON|DEPLOYMENT")
@click.option("--tz", help="IANA time zone of CRON, such as Europe/Madrid. [default: UTC]")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many.")
@as_json
def preview(target: str, tz: str | None, limit: int, as_json: bool) -> None:
    """Print the next firings, in the zone and in UTC, and what a change of the clocks does to them."""
    with _connect() as client:
        found, firings = client.upcoming(target, tz=tz, count=limit)
    rows = [(at, at.astimezone(ZoneInfo(found.zone)), moved(found, at)) for at in firings]
    if as_json:
        return _print_json([{"utc": iso(at), "local": wall.isoformat(), "note": note} for at, wall, note in rows])
    if not rows:
        return click.echo(f"it fires no more: the schedule ended at {terminal.local(found.end)} (local time)")
    return terminal.console().print(terminal.firings_table(rows, found.zone))


@schedule.command()
@click.argument("deployment")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many lines.")
@as_json
def skips(deployment: str, limit: int, as_json: bool) -> None:
    """List which firings of DEPLOYMENT did not run, and why, newest first."""
    with _connect() as client:
        client.store.deployment(deployment)  # a typo is told, not answered with an empty list
        found = client.store.skips(deployment, limit=limit)
    if as_json:
        return _print_json([skip.to_json() for skip in found])
    if not found:
        return click.echo(f"every firing of {deployment} ran")
    return terminal.console().print(terminal.skips_table(found))


# -- runs -------------------------------------------------------------------------------------------------------------


@cli.command(cls=TakesParameters)
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
    with _connect() as client:
        parameters = _parameters(client, target, pairs, parameters_file)
        submitted = client.submit(target, parameters=parameters, key=key, policy=_given(policy))
        return _submitted(client, submitted, wait=wait, as_json=as_json)


@cli.command()
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
    with _connect() as client:
        ordered = values[::-1] if reverse else values
        found = client.backfill(deployment, parameter, ordered, concurrency=concurrency, only_failed=only_failed)
        found = _filled(client, found, wait=wait)
    if as_json:
        _print_json(found.to_json())
    elif wait:
        counts = ", ".join(f"{count} {state}" for state, count in found.counts.items())
        click.echo(f"backfill {found.id}: {counts}; flowkit show {found.id} lists them")
    else:
        click.echo(f"backfill {found.id} has {found.total} runs; follow it: flowkit show {found.id}")
    return 1 if wait and found.counts.get(State.SUCCEEDED) != found.total else 0


@cli.command()
@as_json
def backfills(as_json: bool) -> None:
    """List the backfills, newest first."""
    with _connect() as client:
        found = client.store.backfills()
    if as_json:
        return _print_json([one.to_json() for one in found])
    if not found:
        return click.echo("no backfills yet; make one: flowkit backfill DEPLOYMENT --param day --from DATE --to DATE")
    return terminal.console().print(terminal.backfills_table(found))


@cli.command()
@click.argument("run")
@click.option("--wait", is_flag=True, help="Follow it to its end; the exit code tells how it ended.")
@as_json
def retry(run: str, wait: bool, as_json: bool) -> int:
    """Try RUN again: a failed or cancelled run, with its parameters and its snapshot of the notebook."""
    with _connect() as client:
        return _submitted(client, client.retry(run), wait=wait, as_json=as_json)


@cli.command()
@click.argument("run")
@as_json
def cancel(run: str, as_json: bool) -> None:
    """Cancel RUN, waiting or under way. A backfill's id (DEPLOYMENT:PARAMETER) cancels all of it."""
    with _connect() as client:
        if ":" in run:
            [found] = client.store.backfills(run)
            count = client.store.cancel_backfill(run, now=now())
            [found] = client.store.backfills(run)
            return _print_json(found.to_json()) if as_json else click.echo(f"{count} runs of {run} are cancelled")
        cancelled = client.cancel(run)
        return _print_run(client, cancelled) if as_json else click.echo(f"run {cancelled.id} is cancelled")


@cli.command()
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@click.option("--deployment", help="Only those of one deployment.")
@click.option("--state", type=click.Choice([s.value for s in State if s is not State.SKIPPED]), help="Only these.")
@as_json
def runs(limit: int, deployment: str | None, state: str | None, as_json: bool) -> None:
    """List the runs, newest first."""
    with _connect() as client:
        if deployment is not None:
            client.store.deployment(deployment)  # a typo is told, not answered with an empty list
        found = client.store.runs(limit=limit, deployment=deployment, states=[State(state)] if state else ())
        if as_json:
            return _print_json([one.to_json(client.nodes(one)) for one in found])
    if not found:
        return click.echo(
            "no runs yet; submit one: flowkit run NOTEBOOK.ipynb" if not (deployment or state) else "none"
        )
    return terminal.console().print(terminal.runs_table(found))


@cli.command()
@click.argument("run")
@as_json
def show(run: str, as_json: bool) -> None:
    """Show RUN and its nodes. RUN is its id or the beginning of it; a backfill's id shows it with its runs."""
    with _connect() as client:
        if ":" in run:
            [filled] = client.store.backfills(run)
            made = client.store.backfill_runs(run)
            if as_json:
                return _print_json(filled.to_json(made))
            return terminal.console().print(terminal.backfill_table(filled, made))
        found = client.store.run(run)
        if as_json:
            return _print_run(client, found)
        nodes = client.nodes(found)
    console = terminal.console()
    console.print(terminal.run_details(found))
    if nodes:
        console.print()
        console.print(terminal.nodes_table(nodes))
    return None


@cli.command()
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@as_json
def logs(run: str, follow: bool, as_json: bool) -> None:
    """Print what RUN wrote to stdout and stderr, also while it runs."""
    with _connect() as client:
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


# -- processes --------------------------------------------------------------------------------------------------------


@cli.command()
@click.option("--queue", "queues", multiple=True, default=["default"], show_default=True, help="Queues to work on.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=2, show_default=True, help="Runs at once.")
def worker(queues: tuple[str, ...], concurrency: int) -> None:
    """Run a worker until Ctrl-C. Every worker also starts what schedules say; run as many as you like."""
    from flowkit.worker import worker as process
    from flowkit.worker.dispatch import Dispatcher

    _log_to_stderr()
    with _connect() as client:
        config = client.config
        dispatcher = Dispatcher(
            client.store,
            client.artifacts,
            worker=process.identity(queues, concurrency, at=now()),
            ring=client.ring,
            lease=config.lease,
            folder=config.home / "work",
        )
        log = logging.getLogger("flowkit.worker")
        log.info("worker on %s, %d at once; store %s", ", ".join(queues), concurrency, client.store.shown)
        process.serve(dispatcher, client.broker, concurrency=concurrency, grace=config.grace)
        log.info("worker stopped")


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=5006, show_default=True, help="0 takes a free one.")
def dashboard(port: int) -> None:
    """Serve the dashboard on this machine until Ctrl-C."""
    from flowkit.server.dashboard import serve

    with _connect() as client:
        serve(client.store, client.artifacts, port=port)


@cli.command()
@click.option("--queue", "queues", multiple=True, default=["default"], show_default=True, help="Queues to work on.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=2, show_default=True, help="Runs at once.")
@click.option("--port", type=click.IntRange(0, 65535), default=5006, show_default=True, help="0 takes a free one.")
def up(queues: tuple[str, ...], concurrency: int, port: int) -> None:
    """Run a worker with its scheduler, and the dashboard, until Ctrl-C."""
    _connect().__exit__()  # says once, not twice, that the store cannot be reached
    chosen = [part for queue in queues for part in ("--queue", queue)]
    worker = ["worker", *chosen, "--concurrency", str(concurrency)]
    sys.exit(_supervise(["dashboard", "--port", str(port)], worker))


@cli.command()
@as_json
def workers(as_json: bool) -> None:
    """List the workers that are alive."""
    with _connect() as client:
        found = client.workers()
    if as_json:
        return _print_json([worker.to_json() for worker in found])
    if not found:
        return click.echo("no worker is alive; start one: flowkit worker, or flowkit up")
    return terminal.console().print(terminal.workers_table(found, now()))


@cli.command()
@as_json
def doctor(as_json: bool) -> int:
    """Check store, broker, artifacts, kernels and workers, and say what to do. Exit code 2 if there is a problem."""
    from flowkit.doctor import Health, examine

    findings = list(examine(Config.from_env()))
    if as_json:
        _print_json([finding.to_json() for finding in findings])
    else:
        terminal.console().print(terminal.findings_table(findings))
    return 2 if any(finding.health is Health.PROBLEM for finding in findings) else 0


# -- what the commands share ------------------------------------------------------------------------------------------


def _connect() -> Client:
    from flowkit.client import Client  # loads the store and the broker, which --help has no use for

    return Client(Config.from_env())


def _parameters(
    client: Client, target: str | Path, pairs: tuple[tuple[str, str], ...], file: Path | None
) -> dict[str, Any]:
    return _from_file(file) | client.values(target, dict(pairs))


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{file} holds a {type(found).__name__}; parameters are an object of names and values")
    return found


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Those options the caller has given: the others keep the default, or a deployment's own."""
    return {name: value for name, value in options.items() if value is not None}


def _submitted(client: Client, run: Run, *, wait: bool, as_json: bool) -> int:
    if not run.state.final:
        _warn_without_worker(client, run.policy.queue)
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


def _warn_without_worker(client: Client, queue: str) -> None:
    if not client.workers(queue):
        start = "flowkit worker" if queue == "default" else f"flowkit worker --queue {queue}"
        click.echo(f"no worker is alive on queue {queue!r}; start one: {start}", err=True)


def _filled(client: Client, backfill: Backfill, *, wait: bool) -> Backfill:
    try:
        _warn_without_worker(client, client.store.deployment(backfill.deployment).policy.queue)
        if not wait:
            return backfill
        with terminal.Filling(terminal.console(stderr=True)) as filling:
            return client.follow_backfill(backfill.id, filling.show)
    except KeyboardInterrupt:
        click.echo(f"\nbackfill {backfill.id} goes on; stop it: flowkit cancel {backfill.id}", err=True)
        sys.exit(INTERRUPTED)


def _follow(client: Client, run: Run) -> Run:
    try:
        with terminal.Following(terminal.console(stderr=True)) as following:
            return client.follow(run.id, following.show)
    except KeyboardInterrupt:
        click.echo(f"\nrun {run.id[:8]} goes on; stop it: flowkit cancel {run.id[:8]}", err=True)
        sys.exit(INTERRUPTED)


def _exit_code(run: Run) -> int:
    if run.state is State.SUCCEEDED:
        return 0
    return EXIT_CODES[run.cause] if run.cause else INTERRUPTED


def _print_run(client: Client, run: Run) -> None:
    nodes: list[NodeRun] = client.nodes(run)
    _print_json(run.to_json(nodes))


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("flowkit").setLevel(logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_Once())


def _supervise(dashboard: list[str], worker: list[str]) -> int:
    """Run both until one ends or Ctrl-C, then end the other. Returns the exit code of the first to end.

    The worker starts when the dashboard is there: with its port taken, nothing should have begun.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):  # a service manager's stop, and a closed terminal, mean Ctrl-C
        signal.signal(number, signal.default_int_handler)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.append(_start(dashboard, stdout=subprocess.PIPE))
        assert processes[0].stdout is not None
        address = processes[0].stdout.readline()
        click.echo(address, nl=False)
        if address:
            processes.append(_start(worker))
        return _first_ended(processes)
    except KeyboardInterrupt:
        return 0
    finally:
        _end(processes)


def _start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches this process alone, which then ends both once, in order.
    whole = [sys.executable, "-m", "flowkit", *command]
    return subprocess.Popen(whole, start_new_session=True, preexec_fn=_end_with_parent, **options)


def _end_with_parent() -> None:
    """So that nothing runs on unseen after a kill -9 of ours."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.wait()
    except KeyboardInterrupt:  # again: the worker hands back what it runs at once
        _end(processes)


def _first_ended(processes: list[subprocess.Popen[bytes]]) -> int:
    while True:
        for process in processes:
            try:
                return process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue


class _Once(logging.Filter):
    """A warning that is repeated is shown once a minute: a server that is down is tried every second."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        text = record.getMessage()
        known = record.created - self._shown.get(text, 0.0) < 60.0
        if not known:
            self._shown = {text: record.created}
        return not known
