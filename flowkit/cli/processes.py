"""Commands that are processes, or look at them: worker, dashboard, both; who is alive, and how everything is."""

from __future__ import annotations

import ctypes
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowkit import terminal
from flowkit.cli.options import as_json, connect, connect_here, only_here, print_json
from flowkit.config import Config, traced
from flowkit.events import Usage
from flowkit.model import Health, Run, now

if TYPE_CHECKING:
    from flowkit.worker.traces import Traces


@click.command()
@click.option("--queue", "queues", multiple=True, default=["default"], show_default=True, help="Queues to work on.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=2, show_default=True, help="Runs at once.")
def worker(queues: tuple[str, ...], concurrency: int) -> None:
    """Run a worker until Ctrl-C. Every worker also starts what schedules say; run as many as you like."""
    from flowkit.worker import kernel
    from flowkit.worker import worker as process
    from flowkit.worker.alerts import Alerter
    from flowkit.worker.dispatch import Dispatcher
    from flowkit.worker.limits import Limiter

    _log_to_stderr()
    traces = _traces()
    with connect_here() as client:
        config = client.config
        dispatcher = Dispatcher(
            client.store,
            client.artifacts,
            worker=process.identity(queues, concurrency, at=now()),
            ring=client.ring,
            lease=config.lease,
            folder=config.home / "work",
            keep=config.keep,
            limiter=Limiter(client.store, client.broker.pool),
            traces=traces,
        )
        log = logging.getLogger("flowkit.worker")
        log.info("worker on %s, %d at once; store %s", ", ".join(queues), concurrency, client.store.shown)
        kernel.prepare()
        alerter = Alerter(client.store, client.artifacts)
        process.serve(dispatcher, client.broker, concurrency=concurrency, grace=config.grace, alerter=alerter)
        if traces is not None:
            traces.close()
        log.info("worker stopped")


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=5006, show_default=True, help="0 takes a free one.")
@click.option("--address", default="127.0.0.1", show_default=True, help="To listen on; another needs a token.")
@click.option("--host", "hosts", multiple=True, help="A name by which browsers call it, besides the address.")
@click.option("--socket", type=click.Path(path_type=Path), help="A Unix socket to serve a proxy on, not a port.")
def dashboard(port: int, address: str, hosts: tuple[str, ...], socket: Path | None) -> None:
    """Serve the dashboard and the API until Ctrl-C."""
    from flowkit.server.process import serve
    from flowkit.worker.alerts import Alerter

    if socket is not None:
        _end_with_parent()  # nobody else could find it
    with connect_here() as client:
        # Somebody has to tell it when no worker is alive.
        alerter = Alerter(client.store, client.artifacts, stands_in=True)
        threading.Thread(target=alerter.serve, args=(threading.Event(),), name="alerts", daemon=True).start()
        serve(client.store, client.artifacts, client, port=port, address=address, hosts=hosts, place=socket)


@click.command()
@click.option("--queue", "queues", multiple=True, default=["default"], show_default=True, help="Queues to work on.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=2, show_default=True, help="Runs at once.")
@click.option("--port", type=click.IntRange(0, 65535), default=5006, show_default=True, help="0 takes a free one.")
def up(queues: tuple[str, ...], concurrency: int, port: int) -> None:
    """Run a worker with its scheduler, and the dashboard, until Ctrl-C."""
    connect_here().__exit__()  # says once, not twice, that the store cannot be reached
    chosen = [part for queue in queues for part in ("--queue", queue)]
    worker = ["worker", *chosen, "--concurrency", str(concurrency)]
    sys.exit(_supervise(["dashboard", "--port", str(port)], worker))


@click.command()
@as_json
def workers(as_json: bool) -> None:
    """List the workers that are alive."""
    with connect() as client:
        found = client.workers()
        busy = client.busy() if found else {}
    if as_json:
        return print_json([worker.to_json() | {"runs": _loads(busy.get(worker.id, ()))} for worker in found])
    if not found:
        return click.echo("no worker is alive; start one: flowkit worker, or flowkit up")
    return terminal.console().print(terminal.workers_table(found, busy, now()))


@click.command()
@as_json
def doctor(as_json: bool) -> int:
    """Check store, broker, artifacts, kernels and workers, and say what to do. Exit code 2 if there is a problem."""
    from flowkit.doctor import examine

    only_here()
    findings = list(examine(Config.from_env()))
    if as_json:
        print_json([finding.to_json() for finding in findings])
    else:
        terminal.console().print(terminal.findings_table(findings))
    return 2 if any(finding.health is Health.PROBLEM for finding in findings) else 0


def _loads(runs: Iterable[tuple[Run, Usage | None]]) -> list[dict[str, Any]]:
    return [{"id": run.id, "cpu": used and used.last.cpu, "memory": used and used.last.memory} for run, used in runs]


def _traces() -> Traces | None:
    if not traced():
        return None
    try:
        from flowkit.worker.traces import Traces
    except ImportError:
        logging.getLogger("flowkit.worker").warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but no run is traced: pip install 'flowkit[otel]', or unset it"
        )
        return None
    return Traces()


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("flowkit").setLevel(logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_Once())


def _supervise(dashboard: list[str], worker: list[str]) -> int:
    """Run both until one ends or Ctrl-C, then end the other. Returns the exit code of the first to end.

    The worker starts when the dashboard is there: with its port taken, nothing should have begun.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):  # a service manager's stop, and a closed terminal, mean Ctrl-C
        signal.signal(number, signal.default_int_handler)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.append(_start(dashboard, stdout=subprocess.PIPE))
        assert processes[0].stdout is not None
        address = processes[0].stdout.readline()
        click.echo(address, nl=False)
        if address:
            processes.append(_start(worker))
        return _first_ended(processes)
    except KeyboardInterrupt:
        return 0
    finally:
        _end(processes)


def _start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches this process alone, which then ends both once, in order.
    whole = [sys.executable, "-m", "flowkit", *command]
    return subprocess.Popen(whole, start_new_session=True, preexec_fn=_end_with_parent, **options)


def _end_with_parent() -> None:
    """So that nothing runs on unseen after a kill -9 of ours."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.wait()
    except KeyboardInterrupt:  # again: the worker hands back what it runs at once
        _end(processes)


def _first_ended(processes: list[subprocess.Popen[bytes]]) -> int:
    while True:
        for process in processes:
            try:
                return process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue


class _Once(logging.Filter):
    """A warning that is repeated is shown once a minute: a server that is down is tried every second."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        text = record.getMessage()
        known = record.created - self._shown.get(text, 0.0) < 60.0
        if not known:
            self._shown = {text: record.created}
        return not known
