"""How runs look in a terminal: tables, one run in full, and a run followed node by node."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Self

from rich.console import Console, ConsoleOptions, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from flowkit.changes import Change, Comparison
from flowkit.events import Event, Usage, fold, kernel, usage
from flowkit.model import (
    Act,
    Backfill,
    Deployment,
    Finding,
    Hook,
    Limit,
    NodeRun,
    Notice,
    Queue,
    Reason,
    Run,
    Skip,
    State,
    Token,
    Wait,
    Worker,
    size,
)

MARKS = {
    State.PENDING: ("·", "dim"),
    State.RUNNING: ("▸", "cyan"),
    State.SUCCEEDED: ("✓", "green"),
    State.FAILED: ("✗", "red"),
    State.CANCELLED: ("■", "yellow"),
    State.SKIPPED: ("↷", "dim"),
}

#: Columns of a cell, at most; a longer one is cut.
WIDEST = 40

#: Characters of a parameter's value, at most.
LONGEST = 60

#: Wide enough that nothing is cut off where a program or a file reads it.
PIPED = 1000

#: Columns of a notebook's output.
CELL = 100


def console(*, stderr: bool = False) -> Console:
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if made.is_jupyter:
        # As coloured text, which the notebook's theme knows how to show; rich's HTML has the colours of a white page.
        # Not to stderr, which has the looks of an error there.
        return Console(
            file=sys.stdout,
            force_jupyter=False,
            force_terminal=False,
            color_system="standard",
            highlight=False,
            width=CELL,
        )
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=PIPED)


def state(of: State) -> Text:
    mark, style = MARKS[of]
    return Text(f"{mark} {of}", style=style)


def standing(run: Run) -> Text:
    """Its state; of one that is to be cancelled, that too."""
    return state(run.state) + Text(", cancelling", style="yellow") if run.cancelling else state(run.state)


def runs_table(runs: Iterable[Run]) -> Table:
    """In the order given."""
    table = Table("run", "deployment", "state", ">attempt", "created", ">duration", below="error")
    for run in runs:
        table.add(
            run.id[:8],
            run.label,
            standing(run),
            str(run.attempt),
            local(run.created),
            duration(run.started, run.finished),
            below=run.error,
        )
    return table


def results_table(runs: Iterable[Run]) -> Table:
    """Runs of one deployment, told apart by their parameters, with where their executed notebooks are."""
    table = Table("run", "parameters", "state", ">duration", below="output")
    for run in runs:
        table.add(run.id[:8], parameters(run), standing(run), duration(run.started, run.finished), below=run.output)
    return table


def deployments_table(deployments: Iterable[Deployment], when: dict[str, str]) -> Table:
    """*when*: each deployment's schedule in words."""
    table = Table("deployment", ">version", "schedule", "next", "queue", below="notebook")
    for deployment in deployments:
        upcoming = deployment.schedule.next if deployment.schedule else None
        given = "".join(f" {name}={value!r}" for name, value in deployment.parameters.items())
        table.add(
            deployment.name,
            str(deployment.version),
            when.get(deployment.name, "by hand"),
            Text("paused", style="yellow") if deployment.paused else local(upcoming),
            deployment.policy.queue,
            below=deployment.notebook + (f" with{given}" if given else ""),
        )
    return table


def nodes_table(nodes: Iterable[NodeRun]) -> Table:
    nodes = list(nodes)
    reused = any(node.reused for node in nodes)
    runs = any(node.child for node in nodes)
    more = (["run"] if runs else []) + (["reused from"] if reused else [])
    table = Table("node", "state", "started", ">duration", *more, below="error")
    for node in nodes:
        table.add(
            node.name,
            state(node.state),
            local(node.started),
            duration(node.started, node.finished),
            *([Text((node.child or "")[:8], style="cyan")] if runs else []),
            *([Text(node.reused or "", style="dim")] if reused else []),
            below=node.error or for_limit(node),
        )
    return table


def misfits(node: NodeRun) -> Group:
    """The rows of a node's result that do not fit its schema."""
    found = node.misfits or {"columns": [], "values": [], "more": 0}
    table = Table(*(f">{name}" if place else str(name) for place, name in enumerate(found["columns"])))
    for row in found["values"]:
        table.add(*("" if value is None else str(value) for value in row))
    more = f", and {found['more']:,} more" if found["more"] else ""
    return Group(Text(f"rows of {node.name} that do not fit its schema{more}", style="bold"), table)


def for_limit(node: NodeRun) -> str | None:
    return f"waits for {node.limit} until {clock(node.until)}" if node.limit and node.until else None


def firings_table(firings: Iterable[tuple[datetime, datetime, str | None]], zone: str) -> Table:
    """Each in UTC, in its zone, and with a note."""
    table = Table(zone, "UTC", below="note")
    for utc, wall, note in firings:
        table.add(f"{wall:%a %Y-%m-%d %H:%M:%S %Z}", f"{utc:%Y-%m-%d %H:%M:%S}", below=note)
    return table


def skips_table(skips: Iterable[Skip]) -> Table:
    table = Table(">firings", "from", "to", "decided", "reason", below="why")
    for skip in skips:
        last = "" if skip.count == 1 else local(skip.last)
        table.add(str(skip.count), local(skip.first), last, local(skip.at), skip.reason, below=WHY[skip.reason])
    return table


WHY = {
    Reason.MISSED: "no worker was there when it was time",
    Reason.LIMIT: "no worker was there when it was time, and later ones reached the catch-up limit",
    Reason.OVERLAP: "an earlier run of the schedule had not ended",
    Reason.REPLACED: "a later firing was due as well, and would have cancelled it",
}


def workers_table(
    workers: Iterable[Worker], busy: Mapping[str, Sequence[tuple[Run, Usage | None]]], at: datetime
) -> Table:
    """*busy*: the runs of each worker, with what they use."""
    found = list(workers)
    forged = [">dropped"] if any(worker.dropped for worker in found) else []  # a column that is worth a look, or none
    columns = "worker", "queues", ">runs", ">cores", ">memory", "started", ">seen", *forged
    table = Table(*columns, below="under way")
    for worker in found:
        ago = f"{(at - worker.seen).total_seconds():.0f} s ago"
        runs = busy.get(worker.id, ())
        used = [one.last for _, one in runs if one is not None]
        cores = f"{sum(point.cpu for point in used):.2f}" if used else ""
        memory = size(sum(point.memory for point in used)) if used else ""
        shown = [worker.id, ", ".join(worker.queues), f"{len(runs)} of {worker.concurrency}", cores, memory]
        shown += [local(worker.started), ago, *([str(worker.dropped)] if forged else [])]
        table.add(*shown, below=", ".join(f"{run.id[:8]} {run.label}{_using(one)}" for run, one in runs))
    return table


def queues_table(queues: Iterable[Queue], at: datetime) -> Table:
    table = Table("queue", ">waiting", ">running", ">limit", "oldest waits")
    for queue in queues:
        limit = "none" if queue.max_concurrent is None else str(queue.max_concurrent)
        since = f"{local(queue.oldest)}, {span(at - queue.oldest)} ago" if queue.oldest else ""
        table.add(queue.name, str(queue.waiting), str(queue.running), limit, since)
    return table


def tokens_table(tokens: Iterable[Token], at: datetime) -> Table:
    table = Table("token", "name", "role", "made", "expires")
    for token in tokens:
        until = local(token.expires) if token.expires > at else f"{local(token.expires)}, over"
        table.add(token.id, token.name, token.role, local(token.created), until)
    return table


def hooks_table(hooks: Iterable[Hook]) -> Table:
    table = Table("deployment", "secret made")
    for hook in hooks:
        table.add(hook.deployment, local(hook.created))
    return table


def acts_table(acts: Iterable[Act]) -> Table:
    table = Table("when", "who", "role", "what", ">status", "from")
    for act in acts:
        table.add(local(act.at), act.who, act.role or "", act.what, str(act.status), act.address)
    return table


def notices_table(notices: Iterable[Notice]) -> Table:
    styles = {"delivered": "green", "failed": "red", "trying": "yellow", "waiting": ""}
    table = Table("when", "about", "what", "to", "state", below="why")
    for notice in notices:
        about = f"queue {notice.subject}" if notice.about_queue else notice.subject
        state = Text(notice.state + (f" ({notice.tries})" if notice.tries > 1 else ""), style=styles[notice.state])
        # Of what has not arrived the reason why is what matters; it stands below with what was to be told.
        below = "; ".join(filter(None, (notice.said, notice.error and f"not delivered: {notice.error}")))
        table.add(local(notice.of), about, notice.kind.value, f"secret:{notice.secret}", state, below=below or None)
    return table


def _using(used: Usage | None) -> str:
    return f" ({used.last.cpu:.2f} cores, {size(used.last.memory)})" if used else ""


def limits_table(limits: Iterable[Limit], at: datetime) -> Table:
    table = Table("limit", "rate", "closes", "state", below="last failure")
    for limit in limits:
        closes = "never"
        if limit.failures:
            closes = f"{limit.close_for:g} s after {limit.failures} failures in {limit.within:g} s"
        state = Text("open", style="green")
        if limit.closed and limit.closed > at:
            state = Text(f"closed until {clock(limit.closed)}", style="red")
        elif limit.closed:
            state = Text("half-open: one call may try", style="yellow")
        rate = f"{limit.rate} (declared)" if limit.declared else limit.rate
        table.add(limit.name, rate, closes, state, below=limit.error)
    return table


def findings_table(findings: Iterable[Finding]) -> Table:
    looks = {"good": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}
    table = Table("", "subject", "found", below="remedy", widest=100)
    for finding in findings:
        mark, style = looks[finding.health]
        table.add(Text(mark, style=style), finding.subject, finding.found, below=finding.remedy)
    return table


def backfills_table(backfills: Iterable[Backfill]) -> Table:
    table = Table("backfill", ">runs", ">at once", "created", "states")
    for one in backfills:
        table.add(one.id, str(one.total), str(one.concurrency), local(one.created), _counts(one))
    return table


def backfill_table(backfill: Backfill, runs: Iterable[Run]) -> Table:
    table = Table(backfill.parameter, "run", "state", ">attempt", ">duration", below="error")
    for run in runs:
        value = str(run.parameters.get(backfill.parameter))
        spent = duration(run.started, run.finished)
        table.add(value, run.id[:8], standing(run), str(run.attempt), spent, below=run.error)
    return table


def _counts(backfill: Backfill) -> Text:
    parts = [Text(f"{count} {of}", style=MARKS[of][1]) for of, count in backfill.counts.items()]
    return Text(", ").join(parts)


class Table:
    """Aligned columns, and one long text a row: on a terminal on a line of its own, where it can be read and copied;
    in a pipe as the last column, so that a line is a row."""

    def __init__(self, *headers: str, below: str | None = None, widest: int = WIDEST) -> None:
        """*headers*: with ``>`` in front, the column is aligned to the right."""
        self._widest = widest
        self._right = [header.startswith(">") for header in headers]
        self._headers = [Text(header.lstrip(">"), style="bold") for header in headers]
        self._below = below
        self._rows: list[tuple[list[Text], str]] = []

    def add(self, *cells: str | Text, below: str | None = None) -> None:
        self._rows.append(([Text(cell) if isinstance(cell, str) else cell for cell in cells], below or ""))

    def __rich_console__(self, to: Console, _: ConsoleOptions) -> Iterator[Text]:
        rows = [(self._headers, self._below or ""), *self._rows]
        for cells, _below in rows:
            for cell in cells:
                cell.truncate(self._widest, overflow="ellipsis")
        widths = [max(cells[column].cell_len for cells, _ in rows) for column in range(len(self._headers))]
        for number, (cells, below) in enumerate(rows):
            line = Text("  ").join(
                self._aligned(cell, width, right) for cell, width, right in zip(cells, widths, self._right, strict=True)
            )
            if to.width == PIPED:
                line = Text("  ").join([line, Text(below)]) if self._below else line
            line.rstrip()
            yield line
            if to.width != PIPED and number and below:
                yield Text(f"  {below}", style="dim", overflow="fold")

    @staticmethod
    def _aligned(cell: Text, width: int, right: bool) -> Text:
        padded = cell.copy()
        missing = width - cell.cell_len
        if right:
            padded.pad_left(missing)
        else:
            padded.pad_right(missing)
        return padded


def run_details(run: Run, events: Sequence[Event] = (), wait: Wait | None = None) -> Group:
    """One run's facts, a line each; those it does not have are left out. *events*: of its newest attempt."""
    used, where = usage(events), kernel(events)
    facts = {
        "run": run.id,
        "deployment": f"{run.deployment} (version {run.version})" if run.deployment else None,
        "notebook": run.notebook,
        "child of": run.parent and f"run {run.parent[:8]}",
        "state": standing(run),
        "cause": run.cause,
        "error": run.error and Text(run.error, style="red"),
        "attempt": f"{run.attempt} of at most {run.last_attempt}",
        "queue": f"{run.policy.queue}, priority {run.policy.priority}",
        "parameters": parameters(run),
        "scheduled for": run.scheduled_for and local(run.scheduled_for),
        "created": local(run.created),
        "next attempt": run.state is State.PENDING and run.available and f"not before {local(run.available)}",
        "waits": wait and Text(waiting(wait), style="yellow"),
        "started": run.started and local(run.started),
        "finished": run.finished and local(run.finished),
        "duration": run.started and duration(run.started, run.finished),
        "worker": run.worker,
        "kernel": where and "{name}, on {host}, Python {python}, ".format(**where) + ISOLATION[where["isolation"]],
        "memory": used and f"{size(used.last.memory)}, at most {size(used.peak_memory)}{_limit(run.policy.memory)}",
        "cores": used and f"{used.last.cpu:.2f}, on average {used.mean_cpu:.2f}",
        "output": run.output,
    }
    width = max(map(len, facts)) + 2
    return Group(
        *(
            Text.assemble((name.ljust(width), "dim"), value if isinstance(value, Text) else str(value), overflow="fold")
            for name, value in facts.items()
            if value
        )
    )


def comparison(found: Comparison) -> Group:
    """Two runs side by side, then a change each, the likeliest cause first; its lines are cut, ``--json`` has all."""
    parts: list[Text] = [_side(found.after), _side(found.before, since=True)]
    if found.after.error and found.after.state is State.FAILED:
        parts.append(Text.assemble(("error    ", "dim"), (found.after.error, "red"), overflow="fold"))
    width = len(str(len(found.changes)))
    for number, change in enumerate(found.changes, 1):
        parts += [Text(), *_change(change, f"{number:>{width}}  ")]
    parts.append(Text())
    if not found.changes:
        parts.append(Text("Nothing that is known differs.", style="green"))
    if found.same:
        parts.append(Text.assemble(("the same     ", "dim"), ", ".join(found.same), overflow="fold"))
    if found.unknown:
        parts.append(Text.assemble(("not known    ", "dim"), ", ".join(found.unknown), overflow="fold"))
    return Group(*parts)


def _side(run: Run, *, since: bool = False) -> Text:
    version = f" version {run.version}" if run.version else ""
    about = f"  {run.label}{version}, {local(run.finished or run.started)}"
    return Text.assemble(
        ("since    " if since else "run      ", "dim"), (run.id[:8], "bold"), "  ", standing(run), about
    )


def _change(change: Change, lead: str) -> Iterator[Text]:
    label = LABELS[change.kind]
    name = (
        change.name.removeprefix("cell ") if change.kind == "cell" and change.name.startswith("cell") else change.name
    )
    head = Text.assemble((lead, "dim"), (f"{label} " if label else "", "cyan"), (name, "bold"), overflow="fold")
    short = change.kind not in ("cell", "output") and not (change.kind == "result" and change.before == change.after)
    if short:
        head.append("   ")
        head.append_text(_from_to(change))
    elif change.kind == "cell" and change.before is None:
        head.append("  new", style="green")
    elif change.kind == "cell" and change.after is None:
        head.append("  gone", style="red")
    if change.suspect:
        head.append(f"   ← {change.suspect}", style="yellow")
    yield head
    indent = " " * len(lead)
    most = SHOWN_LINES[change.kind]
    for line in change.lines[:most]:
        style = {"+": "green", "-": "red", "…": "dim"}.get(line[:1], "") if change.kind in ("cell", "output") else ""
        yield Text(f"{indent}{line}", style=style, overflow="fold")
    if len(change.lines) > most:
        yield Text(f"{indent}… {len(change.lines) - most} more lines; --json has them", style="dim")


def _from_to(change: Change) -> Text:
    def shown(value: str) -> str:
        if change.kind == "commit":
            commit, dash, dirty = value.partition("-")
            return f"{commit[:10]}{dash}{dirty}"
        return value if len(value) <= LONGEST else f"{value[:LONGEST]}…"

    if change.before is None:
        without = "its default" if change.kind == "parameter" else "not there"
        return Text.assemble((without, "dim"), " → ", (shown(change.after or ""), "green"))
    if change.after is None:
        without = "its default" if change.kind == "parameter" else "gone"
        return Text.assemble((shown(change.before), "red"), " → ", (without, "dim"))
    return Text.assemble((shown(change.before), "red"), " → ", (shown(change.after), "green"))


#: What a change is called in front of its name; empty where the name says it.
LABELS = {
    "cell": "cell",
    "parameter": "parameter",
    "package": "package",
    "python": "",
    "host": "",
    "commit": "",
    "result": "result of",
    "duration": "time of",
    "output": "output of",
}

#: Lines of each change that are shown.
SHOWN_LINES = dict.fromkeys(LABELS, 6) | {"cell": 30}


def waiting(wait: Wait) -> str:
    return f"{wait.reason}, until {local(wait.until)}" if wait.until else wait.reason


ISOLATION = {
    "namespace": "in a PID namespace",
    "reaper": "kept together by a reaper",
    "group": "kept together by its process group",
}


def _limit(memory: int | None) -> str:
    return f" of {size(memory)}" if memory else ""


def parameters(run: Run) -> str:
    """On one line; a long value is cut, ``--json`` has it whole."""
    shown = ((name, repr(value)) for name, value in run.parameters.items())
    return " ".join(f"{name}={text if len(text) <= LONGEST else text[:LONGEST] + '…'}" for name, text in shown)


class Bar:
    """How far something is, while it lasts, on a terminal; elsewhere nothing. A context manager."""

    def __init__(self, to: Console, before: str = "") -> None:
        """*before*: what is said until it is known how much there is to do."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=to,
            transient=True,
            disable=not to.is_terminal,
        )
        self._bar = self._progress.add_task(before, total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def move(self, completed: int, total: int | None, description: str) -> None:
        self._progress.update(self._bar, completed=completed, total=total, description=description)


class Filling(Bar):
    """Shows how far a backfill is."""

    def show(self, backfill: Backfill) -> None:
        unhappy = {of: count for of, count in backfill.counts.items() if of in (State.FAILED, State.CANCELLED)}
        description = ", ".join([backfill.id, *(f"{count} {of}" for of, count in unhappy.items())])
        self.move(backfill.ended, backfill.total, description)


class Following(Bar):
    """Shows a run's nodes as they end, with the bar below."""

    def __init__(self, to: Console) -> None:
        super().__init__(to, "waiting for a worker")
        self._console = to
        self._events: list[Event] = []
        self._attempt = 0
        self._said: set[tuple[str, State]] = set()

    def show(self, run: Run, events: Sequence[Event]) -> None:
        if run.attempt != self._attempt:
            self._begin(run)
        self._events.extend(events)
        if not events and not run.state.final:
            return
        nodes = fold(self._events, ended=run.state.final)
        for node in nodes:
            if node.state.final and (node.name, node.state) not in self._said:
                self._said.add((node.name, node.state))
                self._say(node)
        done = sum(node.state.final for node in nodes)
        running = [node.name for node in nodes if node.state is State.RUNNING]
        self.move(done, len(nodes) or None, ", ".join(running[:3]) or run.label)

    def _begin(self, run: Run) -> None:
        if self._attempt:
            self._console.print(Text(f"attempt {run.attempt}", style="yellow"))
        self._attempt = run.attempt
        self._events.clear()
        self._said.clear()

    def _say(self, node: NodeRun) -> None:
        mark, style = MARKS[node.state]
        line = Text.assemble((f"{mark} ", style), node.name, (f"  {duration(node.started, node.finished)}", "dim"))
        if node.error:
            line.append(f"  {node.error}", style="red" if node.state is State.FAILED else "dim")
        elif node.reused:
            line.append(f"  reused from {node.reused}", style="dim")
        self._console.print(line)


def local(at: datetime | None) -> str:
    """In the reader's own zone, to the second."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else ""


def clock(at: datetime) -> str:
    """The time of day alone, for what is near."""
    return at.astimezone().strftime("%H:%M:%S")


def duration(started: datetime | None, finished: datetime | None) -> str:
    return "" if started is None or finished is None else span(finished - started)


def span(between: timedelta) -> str:
    seconds = between.total_seconds()
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
