"""Three ways to run a graph: in the calling thread, in threads of its own, on somebody's executor.

The threads are our own because a pool that is handed every node costs 21 to 56 us a node; threads that run on through
the successors of what they just ran cost a quarter of that. They are daemons: Python cannot stop a thread, so one that
is interrupted or out of time is left behind, and must not keep the process alive.
"""

from __future__ import annotations

import contextvars
import heapq
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from flowkit.errors import FlowkitError, explain
from flowkit.flow.child import ASKING, Children, Waits
from flowkit.flow.current import CALLED, Call
from flowkit.flow.progress import Progress, Step
from flowkit.flow.spans import enter, leave

if TYPE_CHECKING:
    # Not at run time: it brings logging, and whoever has an executor has it already.
    from concurrent.futures import Executor, Future

    from flowkit.flow.checkpoint import Found
    from flowkit.flow.lines import Lines


def run_here(progress: Progress) -> None:
    """In the calling thread, one after another."""
    ready = deque(progress.begin())
    timers = Timers()
    while not progress.done() and not progress.cancelled.is_set():
        ready.extend(timers.due())
        if not ready:
            progress.flush()
            pause = timers.wait()
            assert pause is not None, "a node waits for nothing"
            progress.cancelled.wait(pause)
            continue
        found, pause, step = advance(progress, ready.popleft(), here=True)
        ready.extendleft(reversed(found))
        if pause is not None:
            timers.add(pause, step)
    progress.flush()


def run_in_threads(progress: Progress, limit: int, name: str) -> None:
    """In up to *limit* threads, started as there is work for them."""
    if progress.done():
        return
    Crew(progress, limit, name).run()


def run_on(progress: Progress, executor: Executor) -> None:
    """On somebody's executor, with no more submitted than it has workers, so that what is said to run does run."""
    limit = getattr(executor, "_max_workers", None) or 1_000_000
    in_process = _shares_this_process(executor)
    arrived: queue.SimpleQueue[tuple[Step, Future[Any]] | None] = queue.SimpleQueue()
    progress.wake = lambda: arrived.put(None)
    ready = deque(progress.begin())
    timers = Timers()
    flying: dict[Step, Future[Any]] = {}
    try:
        while not progress.done() and not progress.cancelled.is_set():
            ready.extend(timers.due())
            while ready and len(flying) < limit:
                step = ready.popleft()
                held = None if step.wired.node.limit is None else _held(progress, step)
                if held is not None:
                    ready.extendleft(reversed(held[0]))
                    if held[1] is not None:
                        timers.add(held[1], step)
                    continue
                arguments = progress.start(step)
                if arguments is None:
                    break
                if step.wired.node.map and step.index is None:
                    ready.extendleft(reversed(progress.spread(step, arguments)))
                    continue
                if progress.keeping is not None and (found := _kept(progress, step, arguments)) is not None:
                    ready.extendleft(reversed(progress.succeed(step, found.value)))
                    continue
                if step.wired.node.child is not None and progress.children is not None:
                    ready.extendleft(reversed(_run_elsewhere(progress, progress.children, step, arguments)))
                    continue
                flying[step] = future = _submit(progress, executor, step, arguments, in_process)
                future.add_done_callback(lambda future, step=step: arrived.put((step, future)))  # type: ignore[misc]
            if progress.done():
                break
            progress.flush()
            try:
                arrival = arrived.get(timeout=timers.wait())
            except queue.Empty:
                continue
            if arrival is None:
                continue
            step, future = arrival
            del flying[step]
            landed, pause = _land(progress, step, future)
            ready.extendleft(reversed(landed))
            if pause is not None:
                timers.add(pause, step)
    finally:
        for future in flying.values():
            future.cancel()
    progress.flush()


def advance(progress: Progress, step: Step, *, here: bool = False) -> tuple[list[Step], float | None, Step]:
    """Run one step: what became ready, and if it is to be tried again, after how many seconds.

    Args:
        here: this is the caller's own thread, whose Ctrl-C is not the node's failure.
    """
    node = step.wired.node
    if node.limit is not None:
        held = _held(progress, step)
        if held is not None:
            return *held, step
    arguments = progress.start(step)
    if arguments is None:
        return [], None, step
    if node.map and step.index is None:
        return progress.spread(step, arguments), None, step
    keeping = progress.keeping
    if keeping is not None and (found := _kept(progress, step, arguments)) is not None:
        return progress.succeed(step, found.value), None, step
    if node.child is not None and progress.children is not None:
        return _run_elsewhere(progress, progress.children, step, arguments), None, step
    heard = (progress.lines, step) if progress.lines else None
    outer = CALLED.set(Call(step.name, heard, progress.cancelled.is_set))
    entered = None if progress.spans is None else enter(progress.spans.of(step))
    try:
        if node.timeout is None:
            value = step.wired.call(**arguments)
        else:
            value = within(node.timeout, step.wired.call, arguments)
    except BaseException as error:
        if here and isinstance(error, KeyboardInterrupt):
            raise
        return *_failed(progress, step, error), step
    finally:
        leave(entered)
        CALLED.reset(outer)
    if keeping is not None:
        keeping.keep(step, value)
    return _succeeded(progress, step, value), None, step


def _run_elsewhere(progress: Progress, children: Children, step: Step, arguments: Mapping[str, Any]) -> list[Step]:
    """A step that is a run of its own: it has ended, or is waited for. Its retries are the child's."""
    asking = ASKING.set(partial(children.find, step.name))
    try:
        value = step.wired.call(**arguments)
    except Waits as waits:
        return progress.postpone(step, *waits.args)
    except Exception as error:
        progress.note_child(step)
        return _failed(progress, step, error, last=True)[0]
    finally:
        ASKING.reset(asking)
    progress.note_child(step)
    if progress.keeping is not None:
        progress.keeping.keep(step, value)
    return progress.succeed(step, value)


def within(limit: float, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call it in a thread of its own, which is left behind when *limit* seconds are over."""
    answer: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def call() -> None:
        try:
            answer.put((function(**arguments), None))
        except BaseException as error:
            answer.put((None, error))

    threading.Thread(target=contextvars.copy_context().run, args=(call,), daemon=True).start()
    try:
        value, error = answer.get(timeout=limit)
    except queue.Empty:
        if (abandoned := CALLED.get()) is not None:
            abandoned.late = True
        raise TimeoutError(f"still running after {limit:g} s") from None
    if error is not None:
        raise error
    return value


class Timers:
    """Steps to be tried again, by when."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Step]] = []
        self._count = 0

    def add(self, pause: float, step: Step) -> None:
        self._count += 1
        heapq.heappush(self._heap, (time.monotonic() + pause, self._count, step))

    def wait(self) -> float | None:
        """Seconds until the next is due; None if there is none."""
        return max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None

    def due(self) -> list[Step]:
        found = []
        while self._heap and self._heap[0][0] <= time.monotonic():
            found.append(heapq.heappop(self._heap)[2])
        return found


class Crew:
    """Threads that run on through the successors of what they ran, and hand the rest to each other."""

    def __init__(self, progress: Progress, limit: int, name: str) -> None:
        self._progress = progress
        self._limit = limit
        self._name = name
        self._lock = threading.Lock()
        self._waiting: deque[Step] = deque()  # ready, while all threads are busy
        self._handed: queue.SimpleQueue[Step | None] = queue.SimpleQueue()  # one for each thread that was idle
        self._idle = 0
        self._threads = 0
        #: What the waiting caller must see to: a step to be tried again later, an error of our own, or None: the end.
        self._desk: queue.SimpleQueue[tuple[float, Step] | BaseException | None] = queue.SimpleQueue()

    def run(self) -> None:
        timers = Timers()
        self._progress.wake = lambda: self._desk.put(None)
        try:
            self._push(self._progress.begin())
            while True:
                try:
                    found = self._desk.get(timeout=timers.wait())
                except queue.Empty:
                    self._push(timers.due())
                    continue
                if found is None:
                    return
                if isinstance(found, BaseException):
                    raise found
                timers.add(*found)
        finally:
            for _ in range(self._threads):
                self._handed.put(None)

    def _push(self, steps: Iterable[Step]) -> None:
        fresh = []
        with self._lock:
            for step in steps:
                if self._idle:
                    self._idle -= 1
                    self._handed.put(step)
                elif self._threads < self._limit:
                    self._threads += 1
                    fresh.append(step)
                else:
                    self._waiting.append(step)
        for step in fresh:
            # Each thread in a copy of the caller's context: a notebook finds there which cell a print belongs to.
            work = contextvars.copy_context().run
            threading.Thread(target=work, args=(self._work, step), daemon=True, name=self._name).start()

    def _work(self, step: Step | None) -> None:
        try:
            while step is not None:
                found, pause, step = advance(self._progress, step)
                if pause is not None:
                    self._desk.put((pause, step))
                if len(found) > 1:
                    self._push(found[1:])
                step = found[0] if found else self._next()
        except BaseException as error:  # never the author's: the log cannot be written, or a mistake of ours
            self._desk.put(error)

    def _next(self) -> Step | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
        self._progress.flush()
        if self._progress.done():
            self._desk.put(None)
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._idle += 1
        return self._handed.get()


def threads_by_default() -> int:
    """Enough for nodes that wait for others, few enough for those that compute."""
    return min(32, (os.cpu_count() or 1) + 4)


def _held(progress: Progress, step: Step) -> tuple[list[Step], float | None] | None:
    """Of a step that does not start now because of its limit: what became ready, and after how long to try it again."""
    try:
        pause = progress.hold(step)
    except FlowkitError as error:  # fail fast: no retry would find it better
        return progress.fail(step, error), None
    return None if pause is None else ([], pause)


def _kept(progress: Progress, step: Step, arguments: Mapping[str, Any]) -> Found | None:
    keeping = progress.keeping
    found = None if keeping is None else step.found or keeping.find(step, arguments)
    if found is not None and step.wired.node.child is not None:
        progress.note_child(step)
    return found


def _succeeded(progress: Progress, step: Step, value: Any) -> list[Step]:
    if step.wired.node.limit is not None:
        progress.tell(step, None)
    return progress.succeed(step, value)


def _failed(
    progress: Progress, step: Step, error: BaseException, *, last: bool = False
) -> tuple[list[Step], float | None]:
    # The author's traceback begins with the author's own frame, not with those that led there.
    trace = error.__traceback__
    while trace and trace.tb_frame.f_globals.get("__name__", "").startswith("flowkit.flow."):
        trace = trace.tb_next
    error.__traceback__ = trace or error.__traceback__
    progress.tell(step, explain(error))
    pause = None if last else progress.retry(step, error)
    return ([], pause) if pause is not None else (progress.fail(step, error), None)


def _shares_this_process(executor: Executor) -> bool:
    from concurrent.futures import ThreadPoolExecutor

    return isinstance(executor, ThreadPoolExecutor)


def _submit(
    progress: Progress, executor: Executor, step: Step, arguments: Mapping[str, Any], in_process: bool
) -> Future[Any]:
    node = step.wired.node
    call = step.wired.call
    span = None if progress.spans is None else progress.spans.of(step)
    try:
        if in_process:
            context = contextvars.copy_context()
            heard = (progress.lines, step) if progress.lines else None
            return executor.submit(context.run, _call, step.name, call, arguments, node.timeout, span, heard)
        return executor.submit(_call_far_away, step.name, call, arguments, node.timeout, span)
    except Exception as error:  # a pool that broke: every node on it fails with the reason
        from concurrent.futures import Future

        future: Future[Any] = Future()
        future.set_exception(error)
        return future


def _call(
    name: str,
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    timeout: float | None,
    span: str | None,
    heard: tuple[Lines, Step] | None = None,
) -> Any:
    outer = CALLED.set(Call(name, heard))
    entered = None if span is None else enter(span)
    try:
        return function(**arguments) if timeout is None else within(timeout, function, arguments)
    finally:
        leave(entered)
        CALLED.reset(outer)


def _call_far_away(
    name: str, function: Callable[..., Any], arguments: Mapping[str, Any], timeout: float | None, span: str | None
) -> Any:
    try:
        return _call(name, function, arguments, timeout, span)
    except Exception as error:
        import pickle

        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            # An exception that cannot travel would break the whole pool.
            raise RuntimeError(explain(error)) from None
        raise


def _land(progress: Progress, step: Step, future: Future[Any]) -> tuple[list[Step], float | None]:
    try:
        value = future.result()
    except (Exception, SystemExit) as error:
        return _failed(progress, step, error)
    if progress.keeping is not None:
        progress.keeping.keep(step, value)
    return _succeeded(progress, step, value), None
