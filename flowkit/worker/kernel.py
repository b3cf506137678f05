"""One notebook in one fresh kernel, from snapshot to ending: two callbacks that tell of it, one handle to stop it."""

from __future__ import annotations

import contextlib
import platform
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from flowkit.config import kernel_environment, warm_modules
from flowkit.errors import NotebookError, SetupError
from flowkit.events import LOG, Event, Point
from flowkit.family import SUSPENDED
from flowkit.model import Cause, CurrentRun, Ending, State, epoch, now, size
from flowkit.redaction import Redaction
from flowkit.worker import kernels
from flowkit.worker.executed import Cell, Executed
from flowkit.worker.outputs import Outputs
from flowkit.worker.process import SHUTDOWN, Died, KernelProcess, Message, shortcoming
from flowkit.worker.reporter import Reporter
from flowkit.worker.usage import Sampler
from flowkit.worker.zygote import Start, Told, Zygotes

#: Seconds a kernel may take until it answers.
STARTING = 60.0

#: A cell that is to end is interrupted this often, a second apart; then its kernel is killed.
INTERRUPTS = 3

#: Seconds without any output after which a cell that was answered counts as ended, though its "idle" never came.
QUIET = 10.0

#: Of all runs of this process.
_SAMPLER = Sampler()
ZYGOTES = Zygotes(warm_modules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be executed, and where."""

    notebook: str  #: the snapshot: nbformat 4 as JSON
    parameters: Mapping[str, Any]  #: already checked: what JSON can say, and NaN and the infinities
    current: CurrentRun
    kernel: str | None  #: None: what the notebook names, or the default
    timeout: float | None  #: seconds for everything, from the call to the last cell's end
    cwd: Path  #: of the kernel
    cell_timeout: float | None = None  #: seconds for each cell
    memory: int | None = None  #: bytes that its processes may hold together
    folder: Path  #: the run folder: ``run.json`` is written there, the kernel's events are read from there
    traceparent: str | None = None  #: for what the notebook starts or asks
    redaction: Redaction = field(default_factory=Redaction)  #: what nothing that is told or saved may hold


def prepare() -> None:
    """Have what starts the kernels of most notebooks made before the first of them."""
    with contextlib.suppress(SetupError):
        ZYGOTES.prepare(kernels.find(None), kernel_environment(Path()))


class Stop:
    """Asks a run to end as cancelled. From any thread, at any time; the first reason counts."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.at_once = False  #: the kernel is killed, and not asked before
        self._lock = threading.Lock()
        self._wake: Callable[[], None] | None = None

    def set(self, reason: str, *, at_once: bool = False) -> None:
        """*reason*: one line, the run's error."""
        with self._lock:
            if self.reason is None:
                self.reason = reason
            self.at_once |= at_once
            if self._wake is not None:
                self._wake()

    def attach(self, wake: Callable[[], None] | None) -> None:
        """Who is to be woken; None when it no longer can be."""
        with self._lock:
            self._wake = wake


def run_notebook(
    order: Order,
    *,
    on_events: Callable[[Sequence[Event]], None],
    on_last: Callable[[Sequence[Event]], None] | None = None,
    on_save: Callable[[str], None],
    on_growth: Callable[[bytes, bool], None] | None = None,
    stop: Stop,
) -> Ending:
    """Execute the notebook and say how that ended. Nothing of its kernel is left when this returns or raises.

    The callbacks come from a thread of their own, one at a time, the last ones from the caller's. If one raises, the
    kernel is killed, nothing more is told, and the exception raised here.

    Args:
        on_events: gets the cells' events, their output, and what the kernel appended to its log; within 0.05 s for a
            change of a cell's state, about every 0.2 s for the rest.
        on_last: gets what is left of them when the kernel has said all; None: ``on_events`` does.
        on_save: gets the whole document as JSON, about every second while it changes and less often if it is large.
            It says ``running`` until the last time.
        on_growth: gets what is to be added to the journal of what was saved, twice a second, and whether that is to
            begin anew. None: there is none, and large documents are saved in full now and then.
    """
    try:
        executed = Executed(order.notebook, order.current, order.redaction)
    except NotebookError as error:
        return Ending(State.FAILED, Cause.SETUP, str(error))
    return _Execution(order, executed, stop, on_events, on_last or on_events, on_save, on_growth).run()


class _Ended(Exception):
    """The run is over before its last cell."""

    def __init__(self, ending: Ending) -> None:
        self.ending = ending


class _Execution:
    def __init__(
        self,
        order: Order,
        executed: Executed,
        stop: Stop,
        on_events: Callable[[Sequence[Event]], None],
        on_last: Callable[[Sequence[Event]], None],
        on_save: Callable[[str], None],
        on_growth: Callable[[bytes, bool], None] | None,
    ) -> None:
        self._order, self._executed, self._stop = order, executed, stop
        self._deadline = None if order.timeout is None else time.monotonic() + order.timeout
        self._reporter = Reporter(
            on_events=on_events,
            on_last=on_last,
            on_save=on_save,
            on_growth=on_growth,
            render=self._render,
            grown=self._grown,
            log=order.folder / LOG,
            redaction=order.redaction,
        )
        self._kernel: KernelProcess
        self._outputs: Outputs | None = None
        self._cell: Cell | None = None  # that runs, or ran last
        self._cell_deadline: float | None = None
        self._held: int | None = None  # bytes, once they are more than it may hold
        self._replies: dict[str, dict[str, Any]] = {}
        self._idle: set[str] = set()
        self._heard = 0.0  # monotonic; the last message

    def run(self) -> Ending:
        executed, reporter = self._executed, self._reporter
        executed.begin(now())
        with reporter, ExitStack() as living:  # a process takes its time to end: meanwhile the document is saved
            try:
                ending = self._execute(living)
            except SetupError as error:
                ending = Ending(State.FAILED, Cause.SETUP, str(error))
            except Died as death:
                ending = Ending(State.FAILED, Cause.CRASHED, f"kernel died while it started ({death})")
            except _Ended as ended:
                ending = ended.ending
            if ending.error is not None:
                ending = replace(ending, error=self._order.redaction.text(ending.error))
            executed.finish(ending, now(), cell=self._cell)
            reporter.finish()
        return ending

    def _execute(self, living: ExitStack) -> Ending:
        order, executed = self._order, self._executed
        name = order.kernel or executed.kernel or kernels.DEFAULT
        spec = kernels.find(name)
        executed.set_kernel(name, display_name=spec.display_name, language=spec.language)
        executed.inject(order.parameters, scheduled_for=order.current.scheduled_for)
        (order.folder / "run.json").write_text(order.current.to_json())
        environment = kernel_environment(order.folder.absolute(), traceparent=order.traceparent)
        place: _Place = {"cwd": order.cwd, "env": environment, "log": order.folder / "kernel.log"}
        forked, start = ZYGOTES.take(spec, **place)
        self._kernel = forked or KernelProcess(spec, **place)
        living.callback(self._kernel.close)
        self._outputs = Outputs(executed, self._kernel.client, self._reporter.output)
        self._stop.attach(self._kernel.wake)
        self._reporter.alarm = self._kernel.wake
        self._reporter.event(Event("kernel", epoch(), name, data=_circumstances(self._kernel, start)))
        leaves = False
        try:
            with _SAMPLER.watching(
                self._kernel.pid,
                tell=self._used,
                limit=order.memory,
                exceeded=self._exceeded,
                rest=None if start.told is None else start.told.rest,
            ):
                try:
                    self._run_cells(name, start.told)
                    ending = Ending(State.SUCCEEDED)
                except _Ended as ended:
                    if ended.ending.state is not State.PENDING:
                        raise
                    ending = ended.ending
            self._kernel.request_shutdown()
            if not self._kernel.falls_silent(SHUTDOWN):
                self._kernel.terminate()
                self._kernel.exits_within(SHUTDOWN)
            elif forked is not None:
                leaves = True
                living.callback(self._kernel.exits_within, SHUTDOWN)
            return ending
        finally:
            self._stop.attach(None)
            self._reporter.alarm = lambda: None
            if not leaves:
                self._kernel.kill()
            self._drain(0.0 if leaves else 0.02)
            self._outputs.finish()

    def _run_cells(self, name: str, told: Told | None) -> None:
        """*told*: what need not be asked of the kernel, nor waited for."""
        cells = self._executed.cells()
        self._reporter.event(*(Event("cell", epoch(), str(cell.number), state=State.PENDING) for cell in cells))
        if told is None:
            self._await_start(name)
        else:
            self._executed.set_language(told.language)
            self._reporter.event(Event("packages", epoch(), data=told.packages))
        for cell in cells:
            self._run_cell(cell, last=cell is cells[-1])

    def _await_start(self, name: str) -> None:
        """Until the kernel has answered, and was heard on its output channel too, which may open later."""
        limit = time.monotonic() + STARTING
        asked = [self._kernel.ask_info()]
        while not (self._replies and self._idle.intersection(asked)):
            try:
                self._step(0.05 if self._replies else 1.0)
            except _Halt as halt:
                raise _Ended(halt.ending("before its kernel was up")) from None
            if not self._kernel.alive:
                self._kernel.kill()
                if self._kernel.was_killed:  # by somebody, or for lack of memory: it may start well the next time
                    raise Died(self._kernel.death())
                words = (self._kernel.last_words().splitlines() or [""])[-1]
                raise SetupError(f"kernel {name!r} did not start ({self._kernel.death()}){words and ': ' + words}")
            if time.monotonic() > limit:
                raise SetupError(f"kernel {name!r} did not answer within {STARTING:g} s")
            if len(self._replies) == len(asked) and not self._idle.intersection(asked):
                asked.append(self._kernel.ask_info())
        self._executed.set_language(next(iter(self._replies.values())).get("language_info"))
        self._kernel.prepare(self._order.folder / LOG)

    def _run_cell(self, cell: Cell, *, last: bool) -> None:
        self._cell = cell
        self._executed.cell_started(cell.index, now())
        self._reporter.event(Event("cell", epoch(), str(cell.number), state=State.RUNNING))
        request = self._kernel.execute(cell.source, stop_on_error=not cell.may_raise)
        assert self._outputs is not None
        self._outputs.expect(request, cell.index)
        limit = self._order.cell_timeout
        self._cell_deadline = None if limit is None else time.monotonic() + limit
        cut_off = self._await_cell(cell, request)
        self._cell_deadline = None
        failure = cut_off or self._failure(cell, self._replies.pop(request), last=last)
        waits = failure is not None and failure.state is State.PENDING
        self._executed.cell_ended(cell.index, now(), failed=failure is not None and not waits)
        state = State.SUCCEEDED if failure is None else State.PENDING if waits else State.FAILED
        error = failure.error if failure else None
        self._reporter.event(Event("cell", epoch(), str(cell.number), state=state, error=error))
        if failure is not None:
            raise _Ended(failure)

    def _await_cell(self, cell: Cell, request: str) -> Ending | None:
        """Until the cell has ended; None if it did so by itself."""
        try:
            while not self._settled(request):
                self._step(1.0)
                if not self._kernel.alive:
                    self._kernel.kill()
                    self._drain()
                    if self._settled(request):
                        break
                    if self._kernel.ran_out_of_memory:
                        killed = f"the system killed the kernel in cell {cell.number}; hold less at once there"
                        return Ending(State.FAILED, Cause.MEMORY, f"out of memory: {killed}")
                    died = f"kernel died in cell {cell.number} ({self._kernel.death()})"
                    return Ending(State.FAILED, Cause.CRASHED, died)
        except _Halt as halt:
            if halt.cause is not Cause.MEMORY:  # which has no time to lose
                self._interrupt(request)
            return halt.ending(f"in cell {cell.number}")
        return None

    def _interrupt(self, request: str) -> None:
        """Have the cell raise KeyboardInterrupt; a kernel that does not listen is killed when this has returned."""
        for _ in range(INTERRUPTS):
            if self._stop.at_once:
                return
            self._kernel.interrupt()
            until = time.monotonic() + 1.0
            while (left := until - time.monotonic()) > 0 and not self._stop.at_once:
                self._receive(left)
                if self._settled(request):
                    self._kernel.request_shutdown()
                    self._kernel.exits_within(1.0)
                    return
                if not self._kernel.alive:
                    return

    def _step(self, timeout: float) -> None:
        """Take in what the kernel says; wait for it if there is nothing. Raises if the run is to end now."""
        if self._reporter.error is not None:
            raise self._reporter.error
        if self._stop.reason is not None:
            raise _Halt(State.CANCELLED, None, self._stop.reason)
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise _Halt(State.FAILED, Cause.TIMEOUT, f"ran longer than its limit of {self._order.timeout:g} s")
            timeout = min(timeout, left)
        if self._cell_deadline is not None:
            left = self._cell_deadline - time.monotonic()
            if left <= 0:
                limit = f"{self._order.cell_timeout:g} s"
                raise _Halt(State.FAILED, Cause.TIMEOUT, f"a cell ran longer than its limit of {limit}")
            timeout = min(timeout, left)
        if self._held is not None:
            assert self._order.memory is not None
            used = f"used {size(self._held)}, its limit is {size(self._order.memory)}"
            raise _Halt(State.FAILED, Cause.MEMORY, f"out of memory: {used}; raise --memory, or hold less at once")
        self._receive(timeout)

    def _used(self, points: Sequence[Point]) -> None:
        self._reporter.note(Event("usage", points[-1].at, data=points))

    def _exceeded(self, held: int) -> None:
        self._held = held
        self._kernel.wake()

    def _receive(self, timeout: float) -> bool:
        assert self._outputs is not None
        arrived = False
        for message in self._kernel.receive(timeout, unwanted=self._outputs.unwanted):
            arrived = True
            self._heard = time.monotonic()
            self._take(message)
        return arrived

    def _take(self, message: Message) -> None:
        content = message.body["content"]
        if message.channel == "shell":
            if message.type.endswith("_reply"):
                self._replies[message.parent] = content
            return
        assert self._outputs is not None
        self._outputs.take(message)
        self._reporter.changed()
        if message.type == "status" and content["execution_state"] == "idle":
            self._idle.add(message.parent)

    def _settled(self, request: str) -> bool:
        """Both answered and through with its output. A lost "idle" must not hang a run."""
        return request in self._replies and (request in self._idle or time.monotonic() - self._heard > QUIET)

    def _drain(self, timeout: float = 0.02) -> None:
        """Take in what a kernel had sent that will send no more."""
        while self._receive(timeout):
            pass

    def _failure(self, cell: Cell, reply: Mapping[str, Any], *, last: bool) -> Ending | None:
        if reply["status"] == "ok":
            leaves = any(payload.get("source") == "ask_exit" for payload in reply.get("payload", ()))
            if not leaves or last:
                return None
            error = f"cell {cell.number} called exit(), so the cells after it did not run; remove the call"
        elif reply.get("ename") == SUSPENDED:
            return Ending(State.PENDING)
        elif cell.may_raise:
            return None
        elif reply.get("ename") == "SystemExit":
            code = reply.get("evalue", "")
            error = (
                f"cell {cell.number} called sys.exit({code}), so the notebook did not run to its end; remove the call"
            )
        else:
            error = one_line(f"{reply.get('ename', reply['status'])}: {reply.get('evalue', '')}")
        return Ending(State.FAILED, Cause.NOTEBOOK, error)

    def _grown(self, further: Iterable[int]) -> Mapping[int, Mapping[str, Any]]:
        with self._executed.lock:
            if self._outputs is not None:
                self._outputs.settle()
            return self._executed.grown(further)

    def _render(self) -> str:
        if self._outputs is not None:
            with self._executed.lock:
                self._outputs.settle()
                return self._executed.text()
        return self._executed.text()


class _Place(TypedDict):
    cwd: Path
    env: Mapping[str, str]
    log: Path


def _circumstances(kernel: KernelProcess, start: Start) -> dict[str, str | None]:
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),  # the worker's
        "isolation": kernel.isolation,
        "shortcoming": shortcoming(),
        "start": start.how,
        "reason": start.reason,
    }


class _Halt(Exception):
    """The run was told to end, or its time is up."""

    def __init__(self, state: State, cause: Cause | None, reason: str) -> None:
        self.state, self.cause, self.reason = state, cause, reason

    def ending(self, where: str) -> Ending:
        if self.state is State.CANCELLED:
            return Ending(self.state, None, self.reason)
        joined = " " if self.cause is Cause.MEMORY else ", stopped "
        return Ending(self.state, self.cause, self.reason + joined + where)


def one_line(text: str, limit: int = 500) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
