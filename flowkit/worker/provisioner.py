"""flowkit's kernels for whatever starts kernels by Jupyter's own means: JupyterLab, nbclient, papermill.

A kernelspec asks for them in its metadata: ``{"kernel_provisioner": {"provisioner_name": "flowkit"}}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_client.provisioning import KernelProvisionerBase, LocalProvisioner

from flowkit.config import warm_modules
from flowkit.worker.served import Connection, Served
from flowkit.worker.zygote import Unfit, Zygotes

#: Of this process.
ZYGOTES = Zygotes(warm_modules, served=True)


def _renew() -> None:
    """Two processes must not speak to one zygote."""
    global ZYGOTES
    ZYGOTES = Zygotes(warm_modules, served=True)


os.register_at_fork(after_in_child=_renew)


class Provisioner(LocalProvisioner):
    """Takes a fork if there is one; else the kernel is started as Jupyter does it."""

    connection_info: Any = None
    _taken: tuple[Served, Callable[[], None]] | None = None
    _folder: Path | None = None  # of the sockets, for the kernels that are started there again

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        plain = not any(kwargs.get(name) for name in ("extra_arguments", "stdin", "stdout", "stderr"))
        if plain and getattr(self.parent, "transport_encryption", "disabled") in ("disabled", "auto", False, None):
            given = {name: value for name, value in kwargs.items() if name != "transport_encryption"}
            # Not LocalProvisioner's, which chooses ports and writes them down.
            prepared = await KernelProvisionerBase.pre_launch(self, cmd=list(self.kernel_spec.argv), **given)
            with contextlib.suppress(Unfit):
                self._taken = await asyncio.to_thread(
                    ZYGOTES.serve, self.kernel_spec, prepared["env"], connection=self._again()
                )
                return dict(prepared)
        prepared = await super().pre_launch(**kwargs)
        return dict(prepared)

    def _again(self) -> Connection | None:
        """Where the kernel that this one replaces has listened: its clients stay connected to that."""
        km = self.parent
        return self.connection_info if self.connection_info and km is not None and km.shell_port else None

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        if self._taken is None:
            return await super().launch_kernel(cmd, **kwargs)
        (fork, ended), self._taken = self._taken, None
        cwd = Path(kwargs.get("cwd") or Path.cwd())
        self.process = _Process(fork, ended)
        fork.begin(cwd=cwd.absolute(), env=kwargs["env"])
        if not self.connection_info or self.connection_info["ip"] != fork.connection["ip"]:
            self._remove_folder()
            self._folder, fork.folder = fork.folder, None
        self.connection_info = dict(fork.connection)
        self.pid = self.pgid = self.process.pid  # it leads a group of its own
        self.cwd = cwd
        return self.connection_info

    async def cleanup(self, restart: bool = False) -> None:
        await super().cleanup(restart=restart)
        if not restart:
            self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


class _Process:
    """A fork, as ``subprocess`` would show it."""

    stdin = stdout = stderr = None

    def __init__(self, fork: Served, ended: Callable[[], None]) -> None:
        self._fork, self._ended = fork, ended
        self.pid = fork.kernel()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            poller = select.poll()
            poller.register(self._fork.pidfd, select.POLLIN)
            if poller.poll(0):
                self._finish()
        return self.returncode

    def wait(self) -> int:
        while self.returncode is None:
            select.select([self._fork.pidfd], [], [])
            self._finish()
        return self.returncode

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _finish(self) -> None:
        self.returncode = self._fork.code()
        self._fork.close()
        self._ended()
