"""The kernel that Jupyter's own clients get: ipykernel as it is, over ZeroMQ, set up in the fork.

Part of the zygote's script. Neither a ZeroMQ context nor a thread survives a fork, so before it there is nothing but
what was imported. A fork that nobody waits for yet sets up its kernel all the same, and then waits to hear whose it is.
"""

# mypy: disable-error-code="assignment, attr-defined, no-untyped-call, union-attr"
# What is reached into here was not made for it, and has few types.

from __future__ import annotations

import atexit
import os
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ipykernel.kernelapp import IPKernelApp
from IPython.core.application import BaseIPythonApplication

if TYPE_CHECKING:
    from flowkit.kernel import fork
else:
    fork = sys.modules["_flowkit_fork"]

#: What setting up a kernel imports on its way, and can be there before the fork.
NEEDED = ("IPython.core.completer", "ipykernel.subshell_manager", "ipykernel.shellchannel", "storemagic")


def become(options: Sequence[str], known: set[str], talk_fd: int, stray_fd: int, *, ahead: bool) -> None:
    """In the fork; *known*: the modules that were there before it."""
    talk = socket.socket(fileno=talk_fd)
    os.close(stray_fd)
    fork.forget()
    told, _ = fork.order(talk)
    app = IPKernelApp.instance()
    _listen(app, told["file"], options)
    talk.send(b"listens")
    told, outputs = fork.order(talk)
    for stream, descriptor in zip((sys.stdout, sys.stderr), outputs, strict=True):
        os.dup2(descriptor, stream._original_stdstream_copy, inheritable=False)
        os.close(descriptor)
    talk.close()
    fork.settle(told)
    app.kernel.shell.init_environment()
    app.init_path()
    app.init_shell()
    app.init_gui_pylab()
    app.init_extensions()
    app.init_code()
    sys.stdout.flush()
    sys.stderr.flush()
    app.start()
    fork.end(known, app.kernel.shell.user_ns, app.kernel.shell.user_ns_hidden)
    os._exit(0)


def _listen(app: IPKernelApp, file: str, options: Sequence[str]) -> None:
    """As ``IPKernelApp.initialize`` begins; what may run the user's own code comes when the user is known."""
    BaseIPythonApplication.initialize(app, ["-f", file, *options])
    app.init_pdb()
    app.init_connection_file()
    app.init_sockets()
    app.init_heartbeat()
    app.write_connection_file()
    app.log_connection_info()
    app.init_io()
    app.init_signal()
    app.init_kernel()
    output, control = app.iopub_thread, app.control_thread
    # As every kernel that flowkit starts is told: see `_PREPARATION` in worker/process.py.
    output.schedule(lambda: setattr(output.socket, "sndhwm", 0))
    atexit.register(lambda: (control.stop(), control.join(1)))
