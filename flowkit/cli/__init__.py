"""The command line: reads options, calls the client, prints. A command imports the heavy parts that it needs."""

from __future__ import annotations

import errno
import logging
import os
import sys

import click

from flowkit.cli import access, alerts, deployments, hooks, limits, processes, runs, schedules
from flowkit.cli.options import INTERRUPTED
from flowkit.errors import FlowkitError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="flowkit", message="flowkit %(version)s")
def cli() -> None:
    """Run notebooks on schedule.

    Everything is kept in FLOWKIT_HOME (~/.flowkit) unless FLOWKIT_DATABASE_URL and FLOWKIT_REDIS_URL say otherwise.
    """


for command in (
    deployments.deploy,
    deployments.deployments,
    deployments.pause,
    deployments.resume,
    deployments.delete,
    runs.run,
    runs.retry,
    runs.open_,
    runs.diff,
    runs.cancel,
    runs.runs,
    runs.show,
    runs.logs,
    schedules.schedule,
    schedules.backfill,
    schedules.backfills,
    limits.queues,
    limits.queue,
    limits.limits,
    limits.limit,
    access.token,
    alerts.alert,
    alerts.alerts,
    alerts.notify,
    hooks.hook,
    access.audit,
    processes.worker,
    processes.dashboard,
    processes.up,
    processes.workers,
    processes.doctor,
):
    cli.add_command(command)


def main() -> None:
    """Exit codes: 0 succeeded, 1 notebook, 2 usage or setup, 3 crashed, 4 timeout, 5 memory, 130 interrupted."""
    if logging.lastResort is not None:  # a command warns in one line on stderr, as it fails; a worker logs
        logging.lastResort.setFormatter(logging.Formatter("flowkit: %(message)s"))
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
