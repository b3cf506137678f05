"""The kernel that a worker's runs get: built before the fork, and speaking over one socket instead of ZeroMQ's five.

Part of the zygote's script. Its messages are Jupyter's, and its code is ipykernel's.
"""

# mypy: disable-error-code="assignment, attr-defined, no-untyped-call, union-attr"
# What is reached into here was not made for it, and has few types.

from __future__ import annotations

import asyncio
import builtins
import contextlib
import glob
import os
import socket
import sys
import threading
import types
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel
from ipykernel.utils import _async_in_context
from IPython.core.application import BaseIPythonApplication
from jupyter_client.session import Session
from tornado.ioloop import IOLoop
from traitlets import Any as AnyTrait

if TYPE_CHECKING:
    from flowkit.kernel import fork, wire
else:
    fork, wire = sys.modules["_flowkit_fork"], sys.modules["_flowkit_wire"]


class _Kernel(IPythonKernel):
    """Its streams are anything that sends messages."""

    shell_stream = AnyTrait(allow_none=True)
    control_stream = AnyTrait(allow_none=True)

    #: Messages come one at a time: there is no subshell, and no queue to give up after an error.
    _supports_kernel_subshells = False

    def _abort_queues(self, subshell_id: str | None = None) -> None:
        pass


def build(options: Sequence[str]) -> tuple[_Kernel, IPKernelApp]:
    """As ``IPKernelApp.initialize`` does, but for sockets and threads, and what runs code of the user's profile."""
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    app = IPKernelApp.instance()
    BaseIPythonApplication.initialize(app, ["-f", os.devnull, *options])
    app.init_pdb()
    session = Session(parent=app, check_pid=False)
    session.auth = None  # who else could speak on a socket that has no name
    app.session = session
    app.configure_tornado_logger()
    publisher = wire.Publisher()
    publisher.session = session
    app.iopub_thread, app.iopub_socket = publisher, publisher
    sys.stdout.flush()
    app.patch_io()
    kernel = _Kernel.instance(
        parent=app,
        session=session,
        shell_stream=wire.Replies(publisher),
        iopub_thread=publisher,
        iopub_socket=publisher,
        log=app.log,
        profile_dir=app.profile_dir,
        user_ns=app.user_ns,
    )
    kernel._execute_sleep = 0.0
    nowhere = types.SimpleNamespace(set_on_recv_callback=lambda receive: None)  # messages come by `_run`
    kernel.shell_channel_thread = types.SimpleNamespace(parent_thread=threading.main_thread(), manager=nowhere)
    app.kernel = kernel
    app.init_shell()
    if not own_extensions(app):
        app.init_extensions()
    for kind in ("*.py", "*.ipy"):
        glob.glob(os.path.join(app.profile_dir.startup_dir, kind))  # as init_code will
    return kernel, app


def own_extensions(app: IPKernelApp) -> bool:
    """The user's profile loads some: code that may do anything, and so has to run in the fork."""
    return bool(app.extensions or app.extra_extensions)


def rehearse(kernel: _Kernel) -> None:
    """Run a cell that nobody hears of, so that what is made at its first use is there; and leave no trace of it.

    The zygote does, and so does a fork that nobody waits for yet: it then has its own copy of the memory written to.
    """
    shell, publisher, session = kernel.shell, kernel.iopub_thread, kernel.session
    assert shell is not None
    kept, found = (sys.stdout, sys.stderr), dict(shell.user_ns)
    with open(os.devnull, "w") as nowhere:
        publisher.silent, sys.stdout, sys.stderr = True, nowhere, nowhere
        content = {"code": "_rehearsed = 1\n_rehearsed", "silent": False, "user_expressions": {}, "stop_on_error": True}
        request = session.serialize(session.msg("execute_request", content))
        loop = asyncio.new_event_loop()
        try:
            asyncio.set_event_loop(loop)
            handle = _async_in_context(partial(kernel.shell_main, None))
            loop.run_until_complete(handle([wire.Frame(frame) for frame in request]))
        finally:
            publisher.silent, sys.stdout, sys.stderr = False, *kept
            asyncio.set_event_loop(None)
            loop.close()
    shell.user_ns.clear()
    shell.user_ns.update(found)
    history = shell.history_manager
    history.output_hist.clear()
    history.input_hist_parsed[:], history.input_hist_raw[:] = [""], [""]
    history._i = history._ii = history._iii = history._i00 = ""
    shell.displayhook._, shell.displayhook.__, shell.displayhook.___ = "", "", ""
    for name in ("_", "__", "___"):
        vars(builtins).pop(name, None)
    shell.execution_count = 1


def become(kernel: _Kernel, app: IPKernelApp, known: set[str], talk_fd: int, stray_fd: int, *, ahead: bool) -> None:
    """In the fork.

    Args:
        known: the modules that were there before it.
        ahead: nobody waits for it yet.
    """
    talk, stray = socket.socket(fileno=talk_fd), socket.socket(fileno=stray_fd)
    publisher = kernel.iopub_thread
    publisher.attach(talk, stray)
    session = kernel.session
    session.session = os.urandom(16).hex()
    sys.stdout, sys.stderr = streams = [wire.Stream(session, publisher, name) for name in ("stdout", "stderr")]
    fork.forget()
    if ahead:
        rehearse(kernel)
    asyncio.set_event_loop(asyncio.new_event_loop())
    IOLoop.current()
    told, (log,) = fork.order(talk)
    for stream in streams:
        stream.log_to(log)
    os.close(log)
    fork.settle(told)
    assert kernel.shell is not None
    kernel.shell.init_environment()
    app.init_path()
    app.init_gui_pylab()
    if own_extensions(app):
        app.init_extensions()
    app.init_code()
    for stream in streams:
        stream.flush()
    _run(kernel, talk)
    fork.end(known, kernel.shell.user_ns, kernel.shell.user_ns_hidden)
    for stream in streams:
        stream.finish()
    publisher.finish()
    talk.shutdown(socket.SHUT_WR)  # the process needs longer to be gone than it took to say all
    os._exit(0)


def _run(kernel: _Kernel, talk: socket.socket) -> None:
    """Until it is asked to shut down, or nobody is there to ask."""
    loop = asyncio.get_event_loop()
    handle = _async_in_context(partial(kernel.shell_main, None))
    buffer, under_way = bytearray(), set()

    def read() -> None:
        try:
            data = talk.recv(1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        buffer.extend(data)
        for channel, frames in wire.messages(buffer):
            if channel == wire.CONTROL:
                loop.stop()  # there is only one thing to be asked
                return
            task = loop.create_task(handle([wire.Frame(frame) for frame in frames]))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        if not data:
            loop.stop()

    loop.add_reader(talk, read)
    if kernel.shell:
        kernel.shell.exit_now = False
    loop.call_soon(Kernel.start, kernel)
    stopped = False
    while not stopped:
        with contextlib.suppress(KeyboardInterrupt):  # of an interrupt that came too late for its cell
            loop.run_forever()
            stopped = True
    loop.remove_reader(talk)
