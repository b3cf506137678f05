"""``%flow``: the command line inside a notebook, which knows the notebook that it stands in.

It runs the very commands of ``flowkit``, in this process, so both say and do the same. What may be left out is its own:
a command that wants a notebook, a deployment or a run takes this notebook, its deployment, its newest run.
"""

from __future__ import annotations

import json
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from flowkit import notebooks
from flowkit.cli import cli
from flowkit.client import Client
from flowkit.config import Config, session_notebook
from flowkit.errors import FlowkitError, UsageError
from flowkit.flow.current import current_run
from flowkit.model import now

#: Processes that go on until they are stopped: a cell that never ends would be no use.
FOR_A_SHELL = ("worker", "dashboard", "up")


class Failed(Exception):
    """Shown as its one line, without a traceback; cells that were to run after this one do not."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [str(self)]


class Magic:
    """Registered by ``%load_ext flowkit``, one for each IPython shell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._running: str | None = None  #: the id of the cell that runs
        self._ran: dict[str, str] = {}  #: a cell's id -> its source when it ran last
        shell.events.register("pre_run_cell", self._saw)
        shell.register_magic_function(self.flow, "line")

    def flow(self, line: str) -> None:
        """flowkit's commands: %flow deploy --cron "0 6 * * *", %flow run, %flow runs, %flow logs -f, %flow --help"""
        try:
            arguments = shlex.split(line)
        except ValueError as error:
            raise Failed(f"flowkit: {line}: {error}") from None
        try:
            code = self._run(arguments)
        except (FlowkitError, OSError) as error:
            raise Failed(f"flowkit: {error}") from None
        except click.ClickException as error:
            raise Failed(f"flowkit: {error.format_message().rstrip('.')}; see %flow --help") from None
        except (KeyboardInterrupt, SystemExit):  # the command has said what goes on
            return
        if code:
            raise Failed(f"%flow {line}: exit code {code}")

    def _run(self, arguments: list[str]) -> int:
        names, command = _command(arguments)
        if current_run() is not None:
            # What the author does with the notebook while writing it is no part of what it does.
            click.echo("%flow does nothing in a worker's run")
            return 0
        if names and names[0] in FOR_A_SHELL:
            raise UsageError(f"flowkit {names[0]} goes on until it is stopped; start it in a terminal")
        if command is not None and not {"-h", "--help"} & set(arguments):
            arguments = self._completed(arguments, names, command)
        return cli.main(arguments, prog_name="%flow", standalone_mode=False) or 0

    def _completed(self, arguments: list[str], names: list[str], command: click.Command) -> list[str]:
        """With what is left out, as far as this notebook says it."""
        rest = arguments[len(names) :]
        try:
            context = command.make_context(names[-1], list(rest))
        except click.MissingParameter as missing:
            wanted = missing.param.name if missing.param else None
            if wanted not in ("notebook", "target", "deployment", "run"):
                raise
        else:
            if names == ["runs"] and not (context.params["deployment"] or context.params["notebook"]):
                here = self._notebook()
                click.echo(f"of {here.name}; all of them: !flowkit runs")
                return [*arguments, "--notebook", str(here)]
            for name in ("notebook", "target"):
                if str(context.params.get(name, "")).endswith(".ipynb"):
                    self._say_what(Path(context.params[name]))
            return arguments
        here = self._notebook()
        if wanted == "notebook" or names == ["run"]:
            self._say_what(here)
            return [*names, str(here), *rest]
        with Client(Config.from_env()) as client:
            if wanted == "run":
                found, _ = client.store.page(offset=0, limit=1, notebook=str(here))
                if not found:
                    raise UsageError(f"{here.name} has no run yet; %flow run makes one")
                return [*names, found[0].id, *rest]
            known = [one.name for one in client.store.deployments() if one.notebook == str(here)]
        if len(known) == 1:
            return [*names, known[0], *rest]
        if known:
            raise UsageError(f"{here.name} is deployed as {', '.join(known)}; say which: %flow {' '.join(names)} NAME")
        raise UsageError(f"{here.name} is not deployed; %flow deploy does that")

    def _notebook(self) -> Path:
        """The notebook that this kernel belongs to."""
        named = self._shell.user_ns.get("__vsc_ipynb_file__")  # VS Code's, since it has no session
        place = Path(named) if named else session_notebook()
        if place is None:
            raise UsageError("nothing says which notebook this is; name it: %flow deploy NOTEBOOK.ipynb")
        if not place.is_file():
            raise UsageError(
                f"{place} is not there; renamed notebooks are known after a restart of the kernel, or name it"
            )
        return place.absolute()

    def _say_what(self, place: Path) -> None:
        """Which state of the notebook it is that counts: the one on disk."""
        notebooks.read(place)  # says what is wrong with it
        saved = datetime.fromtimestamp(place.stat().st_mtime).astimezone()
        day = "" if saved.date() == now().astimezone().date() else f" on {saved:%Y-%m-%d}"
        click.echo(f"{place.name} as saved at {saved:%H:%M}{day}")
        cells = json.loads(place.read_text(encoding="utf-8-sig"))["cells"]
        known = {cell.get("id"): "".join(cell["source"]) for cell in cells}
        changed = sum(id in known and known[id] != source for id, source in self._ran.items())
        if changed or (self._running in self._ran and self._running not in known and known.keys() & self._ran.keys()):
            click.echo("What ran here is not what is saved: save the notebook (Ctrl+S), and run this cell again.")

    def _saw(self, info: Any) -> None:
        """Before each cell."""
        self._running = info.cell_id
        if info.cell_id is not None:
            self._ran[info.cell_id] = info.raw_cell


def _command(arguments: list[str]) -> tuple[list[str], click.Command | None]:
    """The names of the command that is asked for, and the command, if there is one of these names."""
    names: list[str] = []
    command: click.Command | None = cli
    for argument in arguments:
        if not isinstance(command, click.Group):
            break
        command = command.commands.get(argument)
        names.append(argument)
    return names, None if isinstance(command, click.Group) else command
