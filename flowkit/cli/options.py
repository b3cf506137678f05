"""What several commands share: their options, the client, what they read and print."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flowkit.config import Config
from flowkit.errors import UsageError
from flowkit.model import CatchUp, Overlap
from flowkit.worker.cron import every as interval

if TYPE_CHECKING:
    from flowkit.client import Client
    from flowkit.remote import Remote

Command = TypeVar("Command", bound=Callable[..., Any])

#: Exit code after Ctrl-C, and of a run that was cancelled.
INTERRUPTED = 130

#: ``2GB`` and ``2GiB``, each as it is meant; a bare number could be taken for megabytes.
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])(I?)B?")

#: A duration without a unit is in seconds.
PLAIN = re.compile(r"\d+(\.\d+)?")


class Seconds(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return float(value) if PLAIN.fullmatch(str(value)) else interval(value)


class Bytes(click.ParamType):  # type: ignore[type-arg]
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = SIZE.fullmatch(str(value).strip().upper())
        if not found:
            raise UsageError(f"{value!r} is no size; it is a number with its unit, such as 512MB, 2GB or 1.5GiB")
        step = 1024 if found[3] else 1000
        return int(float(found[1]) * step ** " KMGT".index(found[2]))


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
    return options(
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
    return options(
        click.option("--queue", help="The queue whose workers run it. [default: default]"),
        click.option("--priority", type=int, help="Higher first, within a queue. [default: 0]"),
        click.option("--retries", type=int, help="Attempts after the first. [default: 0]"),
        click.option("--backoff", type=Seconds(), help="Wait before the first retry; doubles. [default: 2s]"),
        click.option("--timeout", type=Seconds(), help="Limit for the whole run, such as 90s or 2h."),
        click.option("--cell-timeout", type=Seconds(), help="Limit for each cell."),
        click.option("--memory", type=Bytes(), help="Limit for the kernel and all it starts together, such as 2GB."),
        click.option("--kernel", help="The kernel to run it in, if not the notebook's own."),
    )(command)


def schedule_options(command: Command) -> Command:
    return options(
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


def options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def connect() -> Client | Remote:
    """What the settings say: a server elsewhere, or the store."""
    config = Config.from_env()
    if config.api_url:
        from flowkit.remote import Remote  # loads neither store nor broker

        return Remote(config)
    return _connect(config)


def connect_here() -> Client:
    """For what no server does for anybody elsewhere."""
    only_here()
    return _connect(Config.from_env())


def only_here() -> None:
    if Config.from_env().api_url:
        command = click.get_current_context().info_name
        raise UsageError(
            f"flowkit {command} takes the store itself, not a server; unset FLOWKIT_API_URL where the store is"
        )


def _connect(config: Config) -> Client:
    from flowkit.client import Client  # loads the store and the broker, which --help has no use for

    return Client(config)


def read_parameters(
    client: Client | Remote, target: str | Path, pairs: tuple[tuple[str, str], ...], file: Path | None
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


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Those options the caller has given: the others keep the default, or a deployment's own."""
    return {name: value for name, value in options.items() if value is not None}


def warn_without_worker(client: Client | Remote, queue: str) -> None:
    if not client.workers(queue):
        start = "flowkit worker" if queue == "default" else f"flowkit worker --queue {queue}"
        click.echo(f"no worker is alive on queue {queue!r}; start one: {start}", err=True)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
