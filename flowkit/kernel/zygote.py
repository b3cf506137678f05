"""The zygote: a Python with a kernel built and its libraries imported, of which each run gets a fork.

A script, ``python zygote.py JSON``, for the Python of a kernel: all it needs there is ipykernel. It has one thread and
no ZeroMQ context, as neither survives a fork. Over a Unix socket it is asked for a fork, given the descriptors of a
kernel, and answers with the number of the process that keeps this kernel, the *keeper* (as in ``init``).

A fork waits until it is told its environment, folder and log. Then it speaks Jupyter's messages over its socket, as a
kernel does over five.
"""

# mypy: disable-error-code="assignment, attr-defined, no-untyped-call, union-attr"
# What is reached into here was not made for it, and has few types.

from __future__ import annotations

import asyncio
import atexit
import builtins
import contextlib
import ctypes
import gc
import glob
import importlib
import importlib.util
import json
import os
import queue
import select
import signal
import socket
import struct
import sys
import threading
import time
import types
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
if __name__ == "__main__" and sys.path and Path(sys.path[0]) == _HERE:
    del sys.path[0]  # the folder of this script, in which a notebook has no business

from ipykernel import _version  # noqa: E402
from IPython.core.application import BaseIPythonApplication  # noqa: E402

sys.modules["debugpy"] = None  # nobody debugs a run, and it takes as long as all the rest
import ipykernel.debugger  # noqa: E402, F401

del sys.modules["debugpy"]

from ipykernel.iostream import IOPubThread, OutStream  # noqa: E402
from ipykernel.ipkernel import IPythonKernel  # noqa: E402
from ipykernel.kernelapp import IPKernelApp  # noqa: E402
from ipykernel.kernelbase import Kernel  # noqa: E402
from ipykernel.utils import _async_in_context  # noqa: E402
from jupyter_client.session import Session  # noqa: E402
from traitlets import Any as AnyTrait  # noqa: E402

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE, _MS_SLAVE = 2, 4, 8, 16384, 1 << 18, 1 << 19
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

#: Whose private interfaces are used here are these versions'.
_OLDEST = (7, 0)

#: What a warm process has imported besides what it is asked for: loaded by nearly every notebook.
_ALWAYS = ("flowkit", "flowkit.flow.flow", "flowkit.flow.runner", "flowkit.flow.draw", "flowkit.flow.checkpoint")

#: Frames of a message, as the socket carries them: channel, how many, then their sizes.
_HEAD = struct.Struct("!BI")

_SHELL, _CONTROL, _IOPUB = 0, 1, 2

#: The most that fits into one packet for sure; what is larger goes through memory that is handed over.
_PACKET = 100_000

_libc = ctypes.CDLL(None, use_errno=True)


# -- the zygote -------------------------------------------------------------------------------------------------------


def main(told: dict[str, Any]) -> None:
    """*told*: descriptors ``control`` and ``facts``, ``isolation``, ``user``, ``warm`` and kernel ``options``."""
    if _version.version_info[:2] < _OLDEST:
        raise SystemExit(f"ipykernel {_version.__version__} is too old; forked kernels need 7.0")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    init = _load_init()
    kernel, app = _build(told["options"])
    skipped = _imports(told["warm"])
    _rehearse(kernel)
    known = set(sys.modules)
    if not os.fork():  # before which some libraries end threads of theirs
        os._exit(0)
    os.wait()
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise SystemExit(f"{threads - 1} threads were started by an import of {', '.join(told['warm'])}")
    facts = {"skipped": skipped, "files": _loaded_files(app), "path": [p for p in sys.path if p]}
    facts["library"] = os.path.dirname(os.path.abspath(os.__file__))
    with os.fdopen(told["facts"], "w") as file:
        json.dump(facts, file)
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=told["control"])
    control.send(b"ready")
    _Zygote(control, told["isolation"], told["user"], init, partial(_become_kernel, kernel, app, known)).serve()


def _load_init() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("_flowkit_init", _HERE / "init.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Zygote:
    def __init__(
        self,
        control: socket.socket,
        isolation: str,
        user: bool,
        init: types.ModuleType,
        kernel: Callable[..., None],
    ) -> None:
        self._control, self._isolation, self._user, self._init, self._kernel = control, isolation, user, init, kernel
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._keepers: dict[int, int] = {}  # by the descriptor that tells of their end
        if user:
            _call(_libc.prctl, _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def serve(self) -> None:
        """Until the worker is gone, or has said that it needs no more and the last fork has ended."""
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        retired = False
        while not retired or self._keepers:
            for ready, _ in poller.poll():
                if ready in self._keepers:
                    poller.unregister(ready)
                    os.close(ready)
                    os.waitpid(self._keepers.pop(ready), 0)
                elif ready == self._control.fileno():
                    asked, descriptors, *_ = socket.recv_fds(self._control, 100, 3)
                    if not asked:
                        return  # and every keeper dies with its parent
                    if asked == b"retire":
                        retired = True
                        poller.unregister(self._control)
                        continue
                    keeper, tells = self._answer(descriptors, ahead=asked == b"ahead")
                    if keeper:
                        self._keepers[tells] = keeper
                        poller.register(tells, select.POLLIN)

    def _answer(self, descriptors: Sequence[int], *, ahead: bool) -> tuple[int, int]:
        talk, stray, report = descriptors
        self._become = partial(self._kernel, ahead=ahead)
        try:
            keeper = self._fork(talk, stray, report)
            tells = os.pidfd_open(keeper)
            socket.send_fds(self._control, [b"%d" % keeper], [tells])
            return keeper, tells
        except OSError as error:
            self._control.send(f"no fork: {error}".encode())
            return 0, 0
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork(self, talk: int, stray: int, report: int) -> int:
        if self._isolation != "namespace":
            keeper = os.fork()
            if not keeper:
                self._keep(talk, stray, report)
            return keeper
        if not self._user:
            _call(_libc.unshare, _CLONE_NEWPID)
            try:
                keeper = os.fork()
                if not keeper:
                    self._keep(talk, stray, report)
            finally:
                _call(_libc.setns, self._own, _CLONE_NEWPID)
            return keeper
        return self._fork_as_user(talk, stray, report)

    def _fork_as_user(self, talk: int, stray: int, report: int) -> int:
        """Through a process that enters a user namespace, which this one could never leave."""
        reader, writer = os.pipe()
        between = os.fork()
        if not between:
            user, group = os.geteuid(), os.getegid()
            with _nothing_outlives():
                _call(_libc.unshare, _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID)
                for name, text in (
                    ("setgroups", "deny"),
                    ("uid_map", f"{user} {user} 1"),
                    ("gid_map", f"{group} {group} 1"),
                ):
                    Path(f"/proc/self/{name}").write_text(text)
                gone, lives = os.pipe()
                keeper = os.fork()
                if not keeper:
                    os.close(lives)
                    os.read(gone, 1)  # until our parent is the zygote, with which we are to die
                    self._keep(talk, stray, report)
                os.write(writer, b"%d" % keeper)
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            told = pipe.read()
        os.waitpid(between, 0)
        if not told:
            raise OSError("no user namespace")
        return int(told)

    def _keep(self, talk: int, stray: int, report: int) -> None:
        """Be the keeper of one kernel, and nothing after that."""
        with _nothing_outlives():
            reaper = self._isolation == "reaper"
            if reaper:
                _call(_libc.prctl, _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            _call(_libc.prctl, _PR_SET_PDEATHSIG, signal.SIGHUP if reaper else signal.SIGKILL, 0, 0, 0)
            if self._isolation == "namespace":
                _mount_proc(new=not self._user)
            os.setsid()
            kernel = os.fork()
            if not kernel:
                if reaper:
                    _call(_libc.prctl, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                _close_all_but(talk, stray)
                os.setsid()
                self._become(talk, stray)
            else:
                _close_all_but(report)
                self._init.keep(kernel, report, reaper=reaper)


def _mount_proc(*, new: bool) -> None:
    """A /proc that shows the processes of this namespace, in a mount namespace of its own."""
    if new:
        _call(_libc.unshare, _CLONE_NEWNS)
    _call(_libc.mount, b"none", b"/", None, _MS_REC | _MS_SLAVE, None)
    _call(_libc.mount, b"none", b"/proc", None, _MS_REC | _MS_PRIVATE, None)
    _call(_libc.mount, b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NOEXEC | _MS_NODEV, None)


class _nothing_outlives:
    """A forked process ends here, whatever happens: never does it go on as its parent."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(70 if error else 0)


def _close_all_but(*kept: int) -> None:
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX") if first > 4096 else 4096)


def _call(function: Any, *arguments: Any) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")


# -- what is built before the fork ------------------------------------------------------------------------------------


class _Kernel(IPythonKernel):
    """Its streams are anything that sends messages."""

    shell_stream = AnyTrait(allow_none=True)
    control_stream = AnyTrait(allow_none=True)

    #: Messages come one at a time: there is no subshell, and no queue to give up after an error.
    _supports_kernel_subshells = False

    def _abort_queues(self, subshell_id: str | None = None) -> None:
        pass


def _build(options: Sequence[str]) -> tuple[_Kernel, IPKernelApp]:
    """As ``IPKernelApp.initialize`` does, but for sockets and threads, and what runs code of the user's profile."""
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    app = IPKernelApp.instance()
    BaseIPythonApplication.initialize(app, ["-f", os.devnull, *options])
    app.init_pdb()
    session = Session(parent=app, check_pid=False)
    session.auth = None  # who else could speak on a socket that has no name
    app.session = session
    app.configure_tornado_logger()
    publisher = _Publisher()
    publisher.session = session
    app.iopub_thread, app.iopub_socket = publisher, publisher
    sys.stdout.flush()
    app.patch_io()
    kernel = _Kernel.instance(
        parent=app,
        session=session,
        shell_stream=_Replies(publisher),
        iopub_thread=publisher,
        iopub_socket=publisher,
        log=app.log,
        profile_dir=app.profile_dir,
        user_ns=app.user_ns,
    )
    kernel._execute_sleep = 0.0
    kernel.shell_channel_thread = types.SimpleNamespace(parent_thread=threading.main_thread())
    app.kernel = kernel
    app.init_shell()
    if not _own_extensions(app):
        app.init_extensions()
    glob.glob(os.path.join(app.profile_dir.startup_dir, "*.py"))  # as init_code will
    return kernel, app


def _own_extensions(app: IPKernelApp) -> bool:
    """The user's profile loads some: code that may do anything, and so has to run in the fork."""
    return bool(app.extensions or app.extra_extensions)


def _imports(names: Sequence[str]) -> dict[str, str]:
    """Import them; which cannot be, and why. What is not installed is no matter."""
    failed = {}
    for name in (*_ALWAYS, *names):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except BaseException as error:  # a library may do anything
            failed[name] = f"{type(error).__name__}: {error}"
    return failed


def _rehearse(kernel: _Kernel) -> None:
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
            loop.run_until_complete(handle([_Frame(frame) for frame in request]))
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


def _loaded_files(app: IPKernelApp) -> list[str]:
    """All whose change makes this process out of date."""
    found = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            found.add(os.path.abspath(file))
    for place in app.config_file_paths:
        for name in (
            "ipython_config.py",
            "ipython_kernel_config.py",
            "ipython_config.json",
            "ipython_kernel_config.json",
        ):
            found.add(os.path.join(os.path.abspath(place), name))
    return sorted(found)


# -- what a kernel writes ---------------------------------------------------------------------------------------------


class _Publisher(IOPubThread):
    """Sends what a kernel says, from a thread of its own: no signal hits it in the middle of a message."""

    def __init__(self) -> None:  # not the base's, which opens sockets
        self.session = None
        self.background_socket = self.io_loop = self
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._timers: list[tuple[float, Callable[[], object]]] = []
        self.socket: socket.socket | None = None
        self._pid = 0
        self.silent = False

    def attach(self, talk: socket.socket, stray: socket.socket) -> None:
        self.socket, self._stray, self._pid = talk, stray, os.getpid()
        self.thread = threading.Thread(target=self._work, name="IOPub", daemon=True)  # made before a fork, it is dead
        self.thread.start()

    @property
    def closed(self) -> bool:
        return self.socket is None

    def schedule(self, task: Callable[[], object]) -> None:
        if os.getpid() == self._pid and threading.current_thread() is not self.thread:
            self._tasks.put(task)
        else:
            task()

    def call_later(self, seconds: float, task: Callable[[], object]) -> None:
        """In the thread."""
        self._timers.append((time.monotonic() + seconds, task))

    def send_multipart(self, frames: Sequence[Any], *arguments: Any, **options: Any) -> None:
        self.send_on(_IOPUB, frames)

    def send_on(self, channel: int, frames: Sequence[Any]) -> None:
        if self.silent:
            return
        # What a frame shows may be changed as soon as this returns.
        frozen = [frame if isinstance(frame, bytes) else bytes(frame) for frame in frames]
        if os.getpid() == self._pid:
            self.schedule(lambda: self._write(_packed(channel, frozen)))
        else:  # a process that the notebook has forked: two that write on one socket would mix their bytes
            self._write_packet(_packed(channel, frozen))

    def finish(self) -> None:
        """Send what is left."""
        self._tasks.put(None)
        self.thread.join()

    def _work(self) -> None:
        while True:
            now = time.monotonic()
            due = [task for at, task in self._timers if at <= now]
            self._timers = [timer for timer in self._timers if timer[0] > now]
            for task in due:
                task()
            following = min((at for at, _ in self._timers), default=None)
            try:
                given = self._tasks.get(timeout=None if following is None else max(0.0, following - time.monotonic()))
            except queue.Empty:
                continue
            if given is None:
                return
            given()

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more, and we shall not be long
            assert self.socket is not None
            self.socket.sendall(data)

    def _write_packet(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if len(data) <= _PACKET:
                self._stray.send(data)
                return
            memory = os.memfd_create("message")
            try:
                with open(memory, "wb", closefd=False) as file:
                    file.write(data)
                socket.send_fds(self._stray, [b"large"], [memory])
            finally:
                os.close(memory)


class _Replies:
    """The shell's channel. The order of what a kernel says is that of one socket."""

    def __init__(self, publisher: _Publisher) -> None:
        self._publisher = publisher

    def send_multipart(self, frames: Sequence[Any], *arguments: Any, **options: Any) -> None:
        self._publisher.send_on(_SHELL, frames)


class _Stream(OutStream):
    """``stdout`` or ``stderr``. What libraries and children write on the descriptor itself is read by a thread."""

    def flush(self) -> None:
        if self._buffers:  # else nothing has to be waited for
            super().flush()

    def _setup_stream_redirects(self, name: str) -> None:
        self._original_stdstream_fd = {"stdout": 1, "stderr": 2}[name]
        self._original_stdstream_copy = os.dup(self._original_stdstream_fd)
        self._fid, end = os.pipe()
        os.dup2(end, self._original_stdstream_fd)
        os.close(end)  # or its reader would never come to an end
        self.watch_fd_thread = threading.Thread(target=self._watch_pipe_fd, daemon=True)
        self.watch_fd_thread.start()

    def _watch_pipe_fd(self) -> None:
        assert self._fid is not None
        while written := os.read(self._fid, 65_536):
            self.write(written.decode(errors="replace"))
            os.write(self._original_stdstream_copy, written)

    def log_to(self, descriptor: int) -> None:
        os.dup2(descriptor, self._original_stdstream_copy, inheritable=False)

    def finish(self) -> None:
        """Take in what is on its way."""
        os.dup2(self._original_stdstream_copy, self._original_stdstream_fd)
        self.watch_fd_thread.join(0.2)  # a child that lives on holds the other end
        self._flush()


def _packed(channel: int, frames: Sequence[bytes]) -> bytes:
    sizes = struct.pack(f"!{len(frames)}Q", *map(len, frames))
    return b"".join((_HEAD.pack(channel, len(frames)), sizes, *frames))


class _Frame:
    """As ZeroMQ gives them to a kernel."""

    def __init__(self, data: bytes) -> None:
        self.bytes, self.buffer = data, memoryview(data)


def _messages(buffer: bytearray) -> list[tuple[int, list[bytes]]]:
    """The whole ones, taken from the front of *buffer*."""
    found, at = [], 0
    while len(buffer) - at >= _HEAD.size:
        channel, count = _HEAD.unpack_from(buffer, at)
        start = at + _HEAD.size + 8 * count
        if len(buffer) < start:
            break
        sizes = struct.unpack_from(f"!{count}Q", buffer, at + _HEAD.size)
        if len(buffer) < start + sum(sizes):
            break
        frames = []
        for size in sizes:
            frames.append(bytes(buffer[start : start + size]))
            start += size
        found.append((channel, frames))
        at = start
    del buffer[:at]
    return found


# -- the fork ---------------------------------------------------------------------------------------------------------


def _become_kernel(
    kernel: _Kernel, app: IPKernelApp, known: set[str], talk_fd: int, stray_fd: int, *, ahead: bool
) -> None:
    talk, stray = socket.socket(fileno=talk_fd), socket.socket(fileno=stray_fd)
    publisher = kernel.iopub_thread
    publisher.attach(talk, stray)
    session = kernel.session
    session.session = os.urandom(16).hex()
    sys.stdout, sys.stderr = streams = [_Stream(session, publisher, name) for name in ("stdout", "stderr")]
    _forget()
    if ahead:
        _rehearse(kernel)
    order, descriptors, *_ = socket.recv_fds(talk, 4, 1)
    if not order:
        os._exit(0)  # nobody needs us
    told = json.loads(_exactly(talk, int.from_bytes(order, "big")))
    for stream in streams:
        stream.log_to(descriptors[0])
    os.close(descriptors[0])
    os.chdir(told["cwd"])
    os.environ.clear()
    os.environ.update(told["env"])
    time.tzset()
    assert kernel.shell is not None
    kernel.shell.init_environment()
    app.init_path()
    app.init_gui_pylab()
    if _own_extensions(app):
        app.init_extensions()
    app.init_code()
    for stream in streams:
        stream.flush()
    _run(kernel, talk)
    _end(kernel, known, streams)


def _exactly(talk: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = talk.recv(size - len(found))
        if not piece:
            os._exit(0)
        found += piece
    return found


def _forget() -> None:
    """What two forks must not have in common. ``random`` sees to itself, and OpenSSL."""
    loaded = sys.modules
    if numpy := loaded.get("numpy.random"):
        numpy.seed()
    if torch := loaded.get("torch"):
        torch.seed()
    if tempfile := loaded.get("tempfile"):
        tempfile.tempdir, tempfile._name_sequence = None, None
    if uuid := loaded.get("uuid"):
        uuid._last_timestamp = None
    if multiprocessing := loaded.get("multiprocessing.process"):
        multiprocessing.current_process().authkey = os.urandom(32)


def _run(kernel: _Kernel, talk: socket.socket) -> None:
    """Until it is asked to shut down, or nobody is there to ask."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    handle = _async_in_context(partial(kernel.shell_main, None))
    buffer, under_way = bytearray(), set()

    def read() -> None:
        try:
            data = talk.recv(1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        buffer.extend(data)
        for channel, frames in _messages(buffer):
            if channel == _CONTROL:
                loop.stop()  # there is only one thing to be asked
                return
            task = loop.create_task(handle([_Frame(frame) for frame in frames]))
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


def _end(kernel: _Kernel, known: set[str], streams: Sequence[_Stream]) -> None:
    """As Python ends, but for what the zygote had made: to take that apart would take longer than most notebooks."""
    with contextlib.suppress(BaseException):
        threading._shutdown()
    atexit._run_exitfuncs()
    assert kernel.shell is not None
    kernel.shell.user_ns.clear()
    kernel.shell.user_ns_hidden.clear()
    for name in set(sys.modules) - known:
        if isinstance(module := sys.modules[name], types.ModuleType):
            with contextlib.suppress(BaseException):
                module.__dict__.clear()
    gc.collect()  # what is frozen is not looked at: files are closed, and so written
    for stream in streams:
        stream.finish()
    kernel.iopub_thread.finish()
    os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
