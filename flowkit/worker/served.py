"""A forked kernel that serves Jupyter's own clients, over ZeroMQ's Unix sockets."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flowkit.worker.forked import Fork
from flowkit.worker.process import Isolation, short_folder

#: As Jupyter has it: transport, ip, the five ports, key and signature_scheme.
Connection = Mapping[str, Any]

#: Ports are part of a socket's name here, and so never taken by another kernel.
_PORTS = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "hb_port": 4, "control_port": 5}


class Served(Fork):
    """Listens when it is there. Raises OSError if it does not come to that."""

    def __init__(
        self,
        kept_by: Isolation,
        fork: Callable[[list[int]], tuple[int, int]],
        connection: Connection | None,
        *,
        limit: float,
    ) -> None:
        """
        Args:
            connection: where it is to listen; None: on sockets of its own.
            limit: seconds until it has to.
        """
        super().__init__(kept_by, fork)
        #: of its sockets; whoever sets this to None sees to its end, as when another kernel is to listen there
        self.folder: Path | None = Path(tempfile.mkdtemp(prefix="fk-", dir=short_folder()))  # 0700
        own = {"transport": "ipc", "ip": str(self.folder / "k"), **_PORTS, "signature_scheme": "hmac-sha256"}
        self.connection = connection or {**own, "key": secrets.token_hex(16).encode()}
        try:
            file = self.folder / "connection.json"
            file.touch(mode=0o600)
            file.write_text(json.dumps({**self.connection, "key": self.connection["key"].decode()}))
            self.tell({"file": str(file)})
            poller = select.poll()
            poller.register(self.talk, select.POLLIN)
            if not poller.poll(int(1000 * limit)) or self.talk.recv(100) != b"listens":
                raise OSError("its kernel does not listen")
        except BaseException:
            self.close()
            raise

    def begin(self, *, cwd: Path, env: Mapping[str, str]) -> None:
        """Be a kernel there, with this process's own output for what it writes past Jupyter."""
        self.tell({"cwd": str(cwd), "env": dict(env)}, [1, 2])

    def kernel(self) -> int:
        """The process of the kernel itself, as this machine counts."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0]) if children else self.pid

    def code(self) -> int:
        """How its kernel ended, negative: by that signal. To be asked when ``pidfd`` says that it has."""
        os.set_blocking(self.report, False)
        with contextlib.suppress(BlockingIOError, ValueError):
            return int(os.read(self.report, 20))
        return -9  # its keeper was killed, and could tell nothing

    def _close(self) -> None:
        super()._close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
