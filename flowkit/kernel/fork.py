"""What every fork does, whatever its kernel speaks: it hears whose it is, forgets what it shares, and ends.

Part of the zygote's script.
"""

# mypy: disable-error-code="assignment, attr-defined, no-untyped-call, union-attr"
# What is reached into here was not made for it, and has few types.

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import socket
import sys
import threading
import time
import types
from typing import Any


def order(talk: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """What is told on the socket, and the descriptors that come with it. If nobody is there any more, the fork ends."""
    size, descriptors, *_ = socket.recv_fds(talk, 4, 2)
    if not size:
        os._exit(0)
    told: dict[str, Any] = json.loads(_exactly(talk, int.from_bytes(size, "big")))
    return told, descriptors


def _exactly(talk: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = talk.recv(size - len(found))
        if not piece:
            os._exit(0)
        found += piece
    return found


def settle(told: dict[str, Any]) -> None:
    """Be where the order says, with the environment it says."""
    os.chdir(told["cwd"])
    os.environ.clear()
    os.environ.update(told["env"])
    time.tzset()


def forget() -> None:
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


def end(known: set[str], *namespaces: dict[str, Any]) -> None:
    """As Python ends, but for what the zygote had made: to take that apart would take longer than most notebooks.

    Args:
        known: the modules that were there before the fork.
        namespaces: of the notebook.
    """
    with contextlib.suppress(BaseException):
        threading._shutdown()
    atexit._run_exitfuncs()
    for namespace in namespaces:
        namespace.clear()
    for name in set(sys.modules) - known:
        if isinstance(module := sys.modules[name], types.ModuleType):
            with contextlib.suppress(BaseException):
                module.__dict__.clear()
    gc.collect()  # what is frozen is not looked at: files are closed, and so written
