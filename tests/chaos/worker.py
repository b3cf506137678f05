"""A worker as ``flowkit worker`` is one, but with fake kernels, so that a minute has room for a thousand runs."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from typing import Any

from flowkit.client import Client
from flowkit.config import Config
from flowkit.model import Ending, now
from flowkit.testing import FakeKernel
from flowkit.worker.dispatch import Dispatcher
from flowkit.worker.kernel import Order
from flowkit.worker.worker import identity, serve

CONCURRENCY = 4


def main(queue: str, journal: str) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    kernel = FakeKernel()
    # Appended by one write: whole lines, though several processes write.
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def execute(order: Order, **callbacks: Any) -> Ending:
        line = f"{order.current.id} {order.current.attempt} {os.getpid()} {time.monotonic()}\n"
        os.write(file, line.encode())
        if order.parameters.get("poison"):
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
        return kernel(order, **callbacks)

    config = Config.from_env()
    with Client(config) as client:
        dispatcher = Dispatcher(
            client.store,
            client.artifacts,
            worker=identity([queue], CONCURRENCY, at=now()),
            ring=client.ring,
            lease=config.lease,
            folder=config.home / "work",
            execute=execute,
        )
        serve(dispatcher, client.broker, concurrency=CONCURRENCY, grace=config.grace)


if __name__ == "__main__":
    main(*sys.argv[1:])
