"""The kernel's end of the two pipes by which it asks its worker: for a limit, for a secret."""

from __future__ import annotations

import json
import os
import select
import threading
import time
from pathlib import Path
from typing import Any

from flowkit.config import ANSWERS, ASKS
from flowkit.errors import Unavailable

#: Seconds without an answer after which a question is asked again.
PATIENCE = 30.0

#: Seconds between two looks at least.
SHORTEST = 0.01

#: One question of this process at a time: whoever reads the pipe takes what it finds there, also another's answer.
_asking = threading.Lock()


def at_hand(folder: Path) -> bool:
    """Whether a worker answers in this run folder."""
    return (folder / ASKS).exists()


class Desk:
    """Asks by one pipe and hears by another."""

    def __init__(self, folder: Path) -> None:
        try:
            self._asks = os.open(folder / ASKS, os.O_WRONLY | os.O_NONBLOCK)
            self._answers = os.open(folder / ANSWERS, os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            raise Unavailable(f"cannot ask the worker in {folder}: {error.strerror}") from error
        self._count = 0
        self._heard = b""

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        with _asking:
            while True:
                self._count += 1
                # The process is part of it: a fork of this one may ask, too.
                mine = f"{os.getpid()}.{id(self)}.{self._count}"
                self.say(question | {"id": mine})
                until = time.monotonic() + PATIENCE
                while time.monotonic() < until:
                    for answer in self._read(until - time.monotonic()):
                        if answer.get("id") == mine:
                            return answer

    def say(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        while True:
            try:
                os.write(self._asks, line)
                return
            except BlockingIOError:
                time.sleep(SHORTEST)
            except OSError as error:
                raise Unavailable(f"cannot ask the worker: {error.strerror}") from error

    def _read(self, timeout: float) -> list[dict[str, Any]]:
        poller = select.poll()
        poller.register(self._answers, select.POLLIN)
        if not poller.poll(max(0.0, timeout) * 1000):
            return []
        try:
            self._heard += os.read(self._answers, 65_536)
        except BlockingIOError:
            return []
        *lines, self._heard = self._heard.split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        with _asking:
            ends = self._asks, self._answers
            self._asks = self._answers = -1  # a thread that is left behind must not write to what gets their numbers
            for end in ends:
                os.close(end)
