"""flowkit's kernels as an engine of papermill: ``papermill --engine flowkit in.ipynb out.ipynb``.

What papermill does around a kernel, and nbclient's loop over its messages, are theirs: so outputs, metadata and errors
are. The kernel is ours, and so is when the document is saved: not at each change, but about once a second.

papermill loads this module whenever it is itself imported, and nobody else may be first.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty
from tempfile import TemporaryDirectory
from typing import Any

from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from papermill.log import logger

from flowkit.config import warm_modules, whole_environment
from flowkit.errors import SetupError
from flowkit.worker import kernels
from flowkit.worker.process import SHUTDOWN, Died, KernelProcess
from flowkit.worker.zygote import Zygotes

#: Of nbclient's options, those that are about its own way to start a kernel.
_ABOUT_ITS_KERNEL = {"km", "kernel_manager_class", "extra_arguments", "config"}

#: Seconds between two looks, while a kernel says nothing, for whatever else there is to do.
_LOOK = 0.2

#: Seconds between two saves at least; and saving takes at most that part of the time.
_SAVE_PERIOD, _SAVE_SHARE = 1.0, 0.1


class Engine(NBClientEngine):
    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        log_output: bool = False,
        stdout_file: Any = None,
        stderr_file: Any = None,
        start_timeout: float = 60,
        execution_timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """As papermill's own engine; to that one goes whoever asks for another kernel manager, or arguments to it."""
        given = {"log_output": log_output, "stdout_file": stdout_file, "stderr_file": stderr_file}
        with _Saver(nb_man) as saver:
            try:
                spec = kernels.find(kernel_name)
            except SetupError:
                spec = None  # papermill has its own words for it
            if spec is None or _ABOUT_ITS_KERNEL & set(options):
                given |= {"start_timeout": start_timeout, "execution_timeout": execution_timeout}
                return super().execute_managed_notebook(nb_man, kernel_name, **given, **options)
            limit = execution_timeout or options.get("timeout")
            for name in ("input_path", "timeout", "startup_timeout"):
                options.pop(name, None)
            given |= {"timeout": limit, "startup_timeout": start_timeout, "kernel_name": kernel_name, "log": logger}
            client = PapermillNotebookClient(nb_man, **given, **options)
            client.km = _Manager(spec, saver.look)
            return client.execute()


class _Warm:
    """The zygote of this process. It is not worth its while before there is a second notebook."""

    def __init__(self) -> None:
        self.zygotes: Zygotes | None = None
        self._notebooks = 0
        os.register_at_fork(after_in_child=self._forget)

    def start(self, spec: Any, place: Any) -> KernelProcess:
        self._notebooks += 1
        if self._notebooks > 1 and self.zygotes is None:
            self.zygotes = Zygotes(warm_modules)
        forked = self.zygotes.take(spec, **place)[0] if self.zygotes is not None else None
        return forked or KernelProcess(spec, **place)

    def _forget(self) -> None:
        """Two processes must not speak to one zygote."""
        self.zygotes, self._notebooks = None, 0


WARM = _Warm()


class _Manager:
    """As much of a kernel manager as nbclient asks for, over one kernel."""

    ipykernel = False  #: needs no arguments against a history
    kernel_id = None

    def __init__(self, spec: Any, look: Callable[[], None]) -> None:
        """*look*: called often while something is waited for."""
        self._spec, self._look = spec, look
        self._folder: TemporaryDirectory[str] | None = None
        self._kernel: KernelProcess | None = None
        self._client: _Client | None = None

    @property
    def has_kernel(self) -> bool:
        return self._kernel is not None

    def start_kernel(
        self,
        *,
        extra_arguments: object = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        **others: object,
    ) -> None:
        self._folder = TemporaryDirectory(prefix="fk-")
        log = Path(self._folder.name) / "kernel.log"
        given = whole_environment() if env is None else env
        try:
            self._kernel = WARM.start(self._spec, {"cwd": Path(cwd or Path.cwd()), "env": given, "log": log})
        except Died as death:
            self._folder.cleanup()
            raise RuntimeError(f"Kernel died before replying to kernel_info ({death})") from None

    def client(self) -> _Client:
        assert self._kernel is not None
        self._client = _Client(self._kernel, self._look)
        return self._client

    def is_alive(self) -> bool:
        return self._kernel is not None and self._kernel.alive

    def interrupt_kernel(self) -> None:
        if self._kernel is not None:
            self._kernel.interrupt()

    async def shutdown_kernel(self, now: bool = False) -> None:
        kernel = self._kernel
        if kernel is None or now or not kernel.alive:
            return
        if self._client is not None and self._client.busy:
            kernel.interrupt()
            await self._client.hear_out(1.0)
        kernel.request_shutdown()
        if not kernel.exits_within(SHUTDOWN):
            kernel.terminate()
            kernel.exits_within(SHUTDOWN)

    def cleanup_resources(self) -> None:
        """Nothing is left of it."""
        if self._client is not None:
            self._client.stop_channels()
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None
        if self._folder is not None:
            self._folder.cleanup()


class _Client:
    """As much of a kernel client as nbclient asks for."""

    def __init__(self, kernel: KernelProcess, look: Callable[[], None]) -> None:
        self._kernel, self._look = kernel, look
        self.session = kernel.client.session
        self.shell_channel = _Channel(self._step, kernel.client.shell_channel.send, tells=True)
        self.iopub_channel = _Channel(self._step, kernel.client.shell_channel.send, tells=False)
        self.allow_stdin = False
        self._asked: str | None = None
        self._answered: set[str] = set()

    @property
    def busy(self) -> bool:
        """It has not answered what it was asked last."""
        return self._asked is not None and self._asked not in self._answered

    def is_alive(self) -> bool:
        return self._kernel.alive

    def start_channels(self) -> None:
        pass

    def stop_channels(self) -> None:
        self.shell_channel.open = self.iopub_channel.open = False

    def wait_for_ready(self, timeout: float | None = None) -> None:
        """Until it has answered and was heard on its output channel, which may open later."""
        until = None if timeout is None else time.monotonic() + timeout
        asked = [self._kernel.ask_info()]
        while not (self._answered and self._heard(asked)):
            if until is not None and time.monotonic() > until:
                raise RuntimeError(f"Kernel didn't respond in {timeout:g} seconds")
            try:
                self._step(0.05 if self._answered else _LOOK)
            except DeadKernelError:
                words = self._kernel.last_words()
                raise RuntimeError("Kernel died before replying to kernel_info" + (words and f": {words}")) from None
            if len(self._answered) == len(asked) and not self._heard(asked):
                asked.append(self._kernel.ask_info())
        self.shell_channel.waiting.clear()
        self.iopub_channel.waiting.clear()
        self._kernel.prepare(None)

    def _heard(self, asked: list[str]) -> bool:
        return any(message["parent_header"].get("msg_id") in asked for message in self.iopub_channel.waiting)

    def execute(self, code: str, *, store_history: bool = True, stop_on_error: bool = True) -> str:
        self._asked = self._kernel.execute(code, stop_on_error=stop_on_error)
        return self._asked

    async def hear_out(self, seconds: float) -> None:
        """So that who still waits for output, after a timeout, gets what the interrupted cell says."""
        until = time.monotonic() + seconds
        while self.busy and self._kernel.alive and time.monotonic() < until:
            self._step(0.05)
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    def kernel_info(self) -> str:
        return self._kernel.ask_info()

    def _step(self, timeout: float) -> None:
        """Take in what the kernel says, and wait for it. Raises DeadKernelError if there will be nothing."""
        arrived = False
        for message in self._kernel.receive(timeout, unwanted=lambda *_: False):
            arrived = True
            if message.channel == "shell":
                self._answered.add(message.parent)
                self.shell_channel.waiting.append(message.body)
            else:
                self.iopub_channel.waiting.append(message.body)
        self._look()
        if not arrived and not self._kernel.alive:
            raise DeadKernelError("Kernel died")


class _Channel:
    def __init__(self, step: Callable[[float], None], send: Callable[[Any], object], *, tells: bool) -> None:
        """*tells*: of the kernel's death."""
        self.waiting: deque[dict[str, Any]] = deque()
        self.send = send
        self.open = True
        self._tells = tells
        self._step = step

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """Two wait at a time, one on each channel. Whichever it is that waits, the other is given its turn."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self.waiting:
            if not self.open:
                raise asyncio.CancelledError  # after a timeout nbclient leaves one waiting
            left = _LOOK if until is None else min(_LOOK, until - time.monotonic())
            if left <= 0:
                raise Empty
            try:
                self._step(left)
            except DeadKernelError:
                if self._tells:
                    raise
                raise asyncio.CancelledError from None  # once is enough
            await asyncio.sleep(0)
        return self.waiting.popleft()


class _Saver:
    """Saves the document of papermill's manager less often than that asks for it, but not much later.

    It asks at the start and at the end of each cell, and each time writes everything.
    """

    def __init__(self, nb_man: Any) -> None:
        self._nb_man = nb_man
        self._save = nb_man.save
        self._due = 0.0
        self._wanted = False

    def __enter__(self) -> _Saver:
        self._nb_man.save = self.save
        return self

    def __exit__(self, *_: object) -> None:
        del self._nb_man.save  # the class's own is below

    def save(self, nb: Any = None, **_: Any) -> None:
        if nb is not None:
            self._nb_man.nb = nb
        self._wanted = True
        self.look()

    def look(self) -> None:
        began = time.monotonic()
        if self._wanted and began >= self._due:
            self._wanted = False
            self._save()
            ended = time.monotonic()
            self._due = ended + max(_SAVE_PERIOD, (ended - began) / _SAVE_SHARE)
