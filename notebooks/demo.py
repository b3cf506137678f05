"""What `make demo` runs: deploy the example, let a worker run it for some days of 2013, show the runs, serve.

Everything stays in the folder .demo, unless FLOWKIT_HOME, FLOWKIT_DATABASE_URL or FLOWKIT_REDIS_URL say otherwise.
"""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from time import sleep

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flowkit import terminal
from flowkit.client import Client
from flowkit.config import Config
from flowkit.errors import FlowkitError
from flowkit.model import Policy, Run, Schedule, State

HERE = Path(__file__).parent
NOTEBOOK = HERE / "flight_delays.ipynb"
DAYS = ("2013-02-08", "2013-03-08", "2013-07-01", "2013-09-02", "2013-12-23")


def main() -> int:
    os.environ.setdefault("FLOWKIT_HOME", str(HERE.parent / ".demo"))
    try:
        with Client(Config.from_env()) as client, working():
            succeeded = run_days(client)
            if "--exit" not in sys.argv:
                serve()
            return 0 if succeeded else 1
    except FlowkitError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def run_days(client: Client) -> bool:
    deployment, _ = client.deploy(
        NOTEBOOK,
        name="flight delays",
        parameters={"min_delay": 30},
        schedule=Schedule(cron="0 6 * * *", zone="America/New_York"),
        policy=Policy(retries=2),
    )
    print(f"deployed {deployment.name!r}, version {deployment.version}: every day at 6:00 in New York")
    submitted = [client.submit(deployment.name, parameters={"day": day}) for day in DAYS]
    ended = follow(client, submitted)
    terminal.console().print(terminal.results_table(ended))
    return all(run.state is State.SUCCEEDED for run in ended)


def follow(client: Client, runs: list[Run]) -> list[Run]:
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("nodes"), TimeElapsedColumn()
    )
    with bar:
        whole = bar.add_task(f"{len(runs)} days of flights", total=None)
        while True:
            runs = [client.store.run(run.id) for run in runs]
            # A run says which nodes it has when its flow begins; until then only its cells are known.
            nodes = [[node for node in client.nodes(run) if node.flow] for run in runs]
            total = len(runs) * max(map(len, nodes))
            done = sum(node.state.final for run in nodes for node in run)
            bar.update(whole, completed=done, total=total or None)
            if all(run.state.final for run in runs):
                return runs
            sleep(0.2)


@contextmanager
def working():
    """A real worker, beside this process."""
    log = Path(os.environ["FLOWKIT_HOME"], "worker.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        worker = subprocess.Popen([sys.executable, "-m", "flowkit", "worker"], stderr=file, start_new_session=True)
    try:
        yield
    finally:
        worker.terminate()
        worker.wait()


def serve() -> None:
    """The dashboard, until Ctrl-C."""
    print("press Ctrl-C to stop")
    dashboard = subprocess.Popen([sys.executable, "-m", "flowkit", "dashboard"], start_new_session=True)
    try:
        dashboard.wait()
    except KeyboardInterrupt:
        pass
    finally:
        dashboard.terminate()
        dashboard.wait()


if __name__ == "__main__":
    sys.exit(main())
