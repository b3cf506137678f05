"""CPU and memory of what runs: the process trees of all runs of a worker, looked at by one thread.

On Linux /proc is read here: only the files of these trees, where psutil would read those of every process of the
machine, for each run again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from flowkit.events import Point
from flowkit.model import epoch

#: Seconds between two looks at a run: at first, at most, and while its memory is limited.
FIRST, LAST, LIMITED = 1.0, 5.0, 0.5

#: Of a long run a point stands for that part of its time so far, so that its points grow with the logarithm of it.
SHARE = 1 / 240

#: Seconds between two reports of a run.
REPORT = 5.0

_PAGE = os.sysconf("SC_PAGESIZE") if hasattr(os, "sysconf") else 4096
_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_LINUX = Path("/proc/self/task").is_dir()


class Rest(NamedTuple):
    """The memory of a forked kernel that has done nothing yet, in bytes."""

    share: int  #: with what it has in common with others counted in part
    resident: int  #: all of it

    @classmethod
    def of(cls, keeper: int) -> Rest:
        [_, kernel] = tree(keeper)
        return cls(shared_out([kernel]), cost([kernel])[1])


class Sampler:
    """Its thread starts with the first run that is watched. Callbacks come from it, and must not take long."""

    def __init__(self) -> None:
        self._watches: list[_Watch] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(
        self,
        pid: int,
        *,
        tell: Callable[[Sequence[Point]], None],
        limit: int | None = None,
        exceeded: Callable[[int], None] = lambda _: None,
        rest: Rest | None = None,
    ) -> Iterator[None]:
        """
        Args:
            pid: of the process at the root of the tree.
            tell: gets the new points every few seconds, and at the end.
            limit: bytes; *exceeded* is told, once, how many are used beyond it.
            rest: of what was forked from a process that is none of the run's, and has much memory in common with it.
        """
        watch = _Watch(pid, tell, limit, exceeded, rest)
        with self._changed:
            self._watches.append(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="flowkit-usage", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._watches.remove(watch)
            watch.finish()

    def _work(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                due = [watch for watch in self._watches if watch.due <= now]
                if not due:
                    following = min((watch.due for watch in self._watches), default=None)
                    self._changed.wait(None if following is None else following - now)
            for watch in due:
                watch.look()


class _Watch:
    def __init__(
        self,
        pid: int,
        tell: Callable[[Sequence[Point]], None],
        limit: int | None,
        exceeded: Callable[[int], None],
        rest: Rest | None,
    ) -> None:
        self._rest, self._looked = rest, False
        self._pid, self._tell, self._limit, self._exceeded = pid, tell, limit, exceeded
        self._lock = threading.Lock()
        self._began = self._point_began = time.monotonic()
        self._told = self._began - REPORT  # who looks at a run that has just begun wants to see something
        self._cpu, self._cpu_before, self._peak = 0.0, 0.0, 0
        self._points: list[Point] = []
        self._over = self._ended = False
        self.due = self._began + (LIMITED if limit is not None else FIRST)

    def look(self) -> None:
        with self._lock:
            if self._ended:
                return
            self._looked = True
            self._sample()
            now = time.monotonic()
            every = max(FIRST, (now - self._began) * SHARE)
            if now - self._point_began >= every * 0.9:
                self._close_point(now)
            if self._points and now - self._told >= max(REPORT, every):
                self._report(now)
            self.due = now + (LIMITED if self._limit is not None else min(LAST, every))

    def finish(self) -> None:
        with self._lock:
            self._ended = True
            self._sample()
            now = time.monotonic()
            if self._points and now - self._point_began < FIRST / 5:  # in which nobody can have been busy, nor idle
                self._points[-1] = self._points[-1]._replace(memory=max(self._peak, self._points[-1].memory))
            elif self._peak:
                self._close_point(now)
            if self._points:
                self._report(now)

    def _sample(self) -> None:
        pids = tree(self._pid)
        cpu, memory = cost(pids)
        self._cpu = max(self._cpu, cpu)  # less, if a process has ended that nobody waited for
        # What processes share is counted once in what takes long to ask; it matters only where something is forbidden.
        over = self._limit is not None and memory > self._limit
        if self._rest is not None and self._ended and not self._looked and len(pids) == 2:
            # The run is waiting for this, which takes 4 ms if it is asked for: some tenth of the whole of it.
            memory = self._rest.share + max(0, peak(pids[1]) - self._rest.resident)
        elif self._rest is not None or over:
            memory = shared_out(pids)
        if over and self._limit is not None and memory > self._limit and not self._over:
            self._over = True
            self._exceeded(memory)
        self._peak = max(self._peak, memory)

    def _close_point(self, now: float) -> None:
        seconds = max(now - self._point_began, 0.001)
        cores = (self._cpu - self._cpu_before) / seconds
        self._points.append(Point(round(epoch(), 2), round(seconds, 2), round(cores, 3), self._peak))
        self._point_began, self._cpu_before, self._peak = now, self._cpu, 0

    def _report(self, now: float) -> None:
        points, self._points, self._told = self._points, [], now
        self._tell(points)


def tree(root: int) -> list[int]:
    """The process and all that descend from it; of those that live."""
    if not _LINUX:
        with suppress(psutil.Error):
            return [root, *(child.pid for child in psutil.Process(root).children(recursive=True))]
        return []
    found = [root]
    for pid in found:  # which grows meanwhile
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return found


def cost(pids: Sequence[int]) -> tuple[float, int]:
    """Seconds of CPU that they and their ended children have used, and bytes of memory they hold."""
    seconds, memory = 0.0, 0
    for pid in pids:
        if _LINUX:
            with suppress(OSError):
                # After the name, which may hold anything: utime, stime, cutime, cstime are the 12th to 15th.
                fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
                seconds += sum(map(int, fields[11:15])) / _TICK
                memory += int(fields[21]) * _PAGE
        else:
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                seconds += sum(process.cpu_times()[:4])
                memory += process.memory_info().rss
    return seconds, memory


def shared_out(pids: Sequence[int]) -> int:
    """Bytes of memory, where what several processes share is counted once."""
    total = 0
    for pid in pids:
        try:
            lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
            total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:"))
        except (OSError, StopIteration):
            total += cost([pid])[1]
    return total


def peak(pid: int) -> int:
    """The most bytes of memory that the process has held, with what it shares; 0 if it is gone."""
    with suppress(OSError):
        for line in _read(f"/proc/{pid}/status").splitlines():
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)  # a quarter of what open() takes
    try:
        return os.read(descriptor, 65_536)
    finally:
        os.close(descriptor)
