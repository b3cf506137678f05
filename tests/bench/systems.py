"""How each system runs one notebook, from being asked until it says that it is done; see ``peers``.

Everything is as it comes, apart from telemetry and examples, which are off. What a system writes is looked at: a run
that leaves no notebook with the cell's output counts for nothing.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tests.notebooks_made import notebook, write
from tests.processes import with_parent
from tests.servers import free_port

#: Seconds a service has to start, and one run to end.
STARTING, RUNNING = 180.0, 90.0

QUIET = {"PLOOMBER_STATS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_LOGGING_LEVEL": "ERROR"}

#: What a busy machine needs: Prefect's own server has 20 s to start, else.
QUIET["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "120"

Once = Callable[[], None]


class Failed(Exception):
    pass


@dataclass(frozen=True)
class Place:
    """An empty folder, and the Python of the system's venv."""

    folder: Path
    python: Path

    @property
    def notebook(self) -> Path:
        return self.folder / "notebook.ipynb"

    @property
    def output(self) -> Path:
        return self.folder / "out.ipynb"

    def command(self, name: str) -> str:
        return str(self.python.parent / name)

    def environment(self, **further: str) -> dict[str, str]:
        # Uncompiled, importing takes seconds; and nothing of this process's packages is theirs.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FLOWKIT_", "JUPYTER_"))}
        kept["PATH"] = f"{self.python.parent}:{kept['PATH']}"
        return {**kept, **QUIET, **further}

    def start(self, *command: str, **environment: str) -> AbstractContextManager[subprocess.Popen[str]]:
        return _started(self, command, environment)


@dataclass(frozen=True)
class Way:
    kind: str  #: service, process or command
    how: str
    start: Callable[[Place], AbstractContextManager[Once]]


@dataclass(frozen=True)
class Peer:
    name: str
    requires: tuple[str, ...] = ()  #: what is installed into its venv; nothing: it has none
    distribution: str = ""  #: whose version is told
    ways: tuple[Way, ...] = ()
    why: str = field(default="")  #: it has no way


def _by_command(write_files: Callable[[Place], None], *command: str, output: bool = True, **env: str) -> Any:
    """A way that is one command. Its first word is looked for in the venv; `{out}` and the like are filled in."""

    @contextmanager
    def way(place: Place) -> Iterator[Once]:
        write_files(place)
        names = {"in": str(place.notebook), "out": str(place.output), "folder": str(place.folder)}
        words = [place.command(command[0]), *(word.format(**names) for word in command[1:])]
        environment = place.environment(**{key: text.format(**names) for key, text in env.items()})

        def once() -> None:
            if output:
                place.output.unlink(missing_ok=True)
            done = subprocess.run(
                words, cwd=place.folder, env=environment, capture_output=True, text=True, timeout=RUNNING
            )
            if done.returncode:
                raise Failed(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout)[-200:]}")
            if output:
                _look(place.output)

        yield once

    return way


def _in_process(write_files: Callable[[Place], None], setup: str, once: str, **env: str) -> Any:
    """A way that is a call in a process which has imported everything and called it once."""
    driver = (
        "import os, sys\n"
        "tells = os.fdopen(os.dup(1), 'w'); os.dup2(2, 1)\n"
        f"{setup}\n"
        "def once():\n" + "".join(f"    {line}\n" for line in once.splitlines()) + "if __name__ == '__main__':\n"
        "    for _ in sys.stdin:\n        once(); print('done', file=tells, flush=True)\n"
    )

    @contextmanager
    def way(place: Place) -> Iterator[Once]:
        write_files(place)
        (place.folder / "driver.py").write_text(driver)
        with (
            open(place.folder / "words", "w+") as words,
            subprocess.Popen(
                [place.python, "driver.py"],
                cwd=place.folder,
                env=place.environment(**{key: text.format(folder=place.folder) for key, text in env.items()}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                text=True,
                preexec_fn=with_parent,
            ) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None

            def once() -> None:
                place.output.unlink(missing_ok=True)
                try:
                    process.stdin.write("go\n")  # type: ignore[union-attr]
                    process.stdin.flush()  # type: ignore[union-attr]
                except BrokenPipeError:
                    raise Failed(f"its process ended: {_last(place.folder / 'words')}") from None
                if not select.select([process.stdout], [], [], STARTING)[0]:
                    raise Failed(f"no answer within {STARTING:.0f} s")
                if not process.stdout.readline():  # type: ignore[union-attr]
                    raise Failed(f"its process ended: {_last(place.folder / 'words')}")
                _look(place.output)

            try:
                yield once
            finally:
                process.kill()

    return way


@contextmanager
def _started(place: Place, command: tuple[str, ...], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A service, ended with all that it has started."""
    words = place.folder / f"words-{uuid.uuid4().hex[:4]}"
    with open(words, "w") as file:
        process = subprocess.Popen(
            [place.command(command[0]), *command[1:]],
            cwd=place.folder,
            env=place.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            text=True,
            preexec_fn=with_parent,
        )
    try:
        yield process
    except Failed as failed:
        raise Failed(f"{failed}; its last words: {_last(words)}") from None
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
        for one in family:
            if one.is_running():
                one.kill()
        process.wait()


def _ask(url: str, body: Any = None, **headers: str) -> Any:
    """What an API answers. Raises OSError."""
    given = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, given, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def _until(ask: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true answer; a service that does not listen yet gives none."""
    until, error = time.monotonic() + seconds, ""
    while time.monotonic() < until:
        try:
            if given := ask():
                return given
        except (OSError, KeyError, ValueError) as failed:
            error = f": {failed}"
        time.sleep(0.02)
    raise Failed(f"{what} within {seconds:.0f} s{error}")


def _look(output: Path) -> None:
    """Raises Failed if the cell's output is not in the notebook that was left."""
    if not output.exists():
        raise Failed("it left no notebook")
    cells = json.loads(output.read_text())["cells"]
    said = [item.get("data", {}).get("text/plain") for cell in cells for item in cell.get("outputs", ())]
    if not any("".join(text or "") == "2" for text in said):
        raise Failed("the notebook that it left has no output")


def _last(words: Path) -> str:
    lines = words.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "none"


# -- flowkit, by its command -------------------------------------------------------------------------------------------


@contextmanager
def _flowkit(place: Place) -> Iterator[Once]:
    """The first time, the kernel is not parked yet; then it is, unless the machine is busy."""
    from tests.bench import notebooks  # which imports papermill: nothing of what a peer needs

    write(place.notebook, "1 + 1")
    with notebooks.idle(place.folder / "home") as (client, _):
        notebooks.await_parked(client, place.notebook)
        yield partial(_ignored, notebooks.by_flowkit, client, place.notebook)


def _ignored(do: Callable[..., object], *arguments: object) -> None:
    do(*arguments)


@contextmanager
def _flowkits_command(place: Place) -> Iterator[Once]:
    from tests.bench import notebooks

    write(place.notebook, "1 + 1")
    home = place.folder / "home"
    environment = {**os.environ, "FLOWKIT_HOME": str(home)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with notebooks.idle(home) as (client, _):
        notebooks.await_parked(client, place.notebook)
        command = [sys.executable, "-m", "flowkit", "run", str(place.notebook), "--wait"]
        yield lambda: _ignored(
            partial(subprocess.run, command, env=environment, check=True, capture_output=True, timeout=RUNNING)
        )


# -- papermill, nbclient, ploomber -------------------------------------------------------------------------------------


def _plain(place: Place) -> None:
    write(place.notebook, "1 + 1")


PAPERMILL = (
    Way(
        "process",
        "`papermill.execute_notebook`",
        _in_process(
            _plain,
            "import papermill",
            "papermill.execute_notebook('notebook.ipynb', 'out.ipynb', progress_bar=False)",
        ),
    ),
    Way("command", "`papermill IN OUT`", _by_command(_plain, "papermill", "--no-progress-bar", "{in}", "{out}")),
)

NBCLIENT = (
    Way(
        "process",
        "`NotebookClient(…).execute()`",
        _in_process(
            _plain,
            "import nbformat; from nbclient import NotebookClient",
            "nb = nbformat.read('notebook.ipynb', 4)\nNotebookClient(nb).execute()\nnbformat.write(nb, 'out.ipynb')",
        ),
    ),
    Way("command", "`jupyter execute`", _by_command(_plain, "jupyter", "execute", "{in}", "--output=out.ipynb")),
)


def _ploomber(place: Place) -> None:
    write(place.notebook, "1 + 1", parameters="upstream = None\nproduct = None")
    (place.folder / "pipeline.yaml").write_text("tasks:\n  - {source: notebook.ipynb, name: n, product: out.ipynb}\n")


PLOOMBER = (
    Way(
        "process",
        "`dag.build(force=True)`",
        _in_process(
            _ploomber,
            "from ploomber.spec import DAGSpec\ndag = DAGSpec('pipeline.yaml').to_dag()",
            "dag.build(force=True)",
        ),
    ),
    Way("command", "`ploomber build --force`", _by_command(_ploomber, "ploomber", "build", "--force")),
)

# -- jupyter-scheduler -------------------------------------------------------------------------------------------------


@contextmanager
def _jupyter_scheduler(place: Place) -> Iterator[Once]:
    _plain(place)
    port, token = free_port(), uuid.uuid4().hex
    options = [
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={place.folder}",
        f"--SchedulerApp.db_url=sqlite:///{place.folder}/scheduler.sqlite",
    ]
    own = {name: str(place.folder / name) for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR")}
    with place.start("jupyter", "server", *options, **own):
        ask = partial(_ask, Authorization=f"token {token}")
        at = f"http://127.0.0.1:{port}/scheduler"
        (first, *_) = _until(lambda: ask(f"{at}/runtime_environments"), STARTING, "its server does not answer")
        job = {
            "name": "trivial",
            "input_uri": "notebook.ipynb",
            "runtime_environment_name": first["name"],
            "output_formats": ["ipynb"],
        }

        def once() -> None:
            made = ask(f"{at}/jobs", job)["job_id"]

            def ended() -> bool:
                state = ask(f"{at}/jobs/{made}")["status"]
                if state == "FAILED":  # STOPPED is a job that has not begun
                    raise Failed(f"its job is {state}")
                return bool(state == "COMPLETED")

            _until(ended, RUNNING, "its job has not ended")

        yield once


# -- Prefect -----------------------------------------------------------------------------------------------------------

PREFECT_FLOW = """
import sys
import papermill
from prefect import flow, task

@task
def notebook():
    papermill.execute_notebook("notebook.ipynb", "out.ipynb", progress_bar=False)

@flow
def trivial():
    notebook()

if __name__ == "__main__":
    trivial.serve(name="served") if "serve" in sys.argv else trivial()
"""


def _prefect_files(place: Place) -> None:
    _plain(place)
    (place.folder / "flow.py").write_text(PREFECT_FLOW)


@contextmanager
def _prefect(place: Place) -> Iterator[Once]:
    _prefect_files(place)
    port = free_port()
    at = f"http://127.0.0.1:{port}/api"
    own = {"PREFECT_HOME": str(place.folder / "prefect"), "PREFECT_API_URL": at}
    own["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    with place.start("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), **own):
        _until(lambda: _ask(f"{at}/health"), STARTING, "its server does not answer")
        with place.start("python", "flow.py", "serve", **own):
            named = f"{at}/deployments/name/trivial/served"
            deployment = _until(lambda: _ask(named)["id"], STARTING, "its flow is not served")

            def once() -> None:
                place.output.unlink(missing_ok=True)
                made = _ask(f"{at}/deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]

                def ended() -> bool:
                    state = _ask(f"{at}/flow_runs/{made}")["state"]
                    if state["type"] in ("FAILED", "CRASHED", "CANCELLED"):
                        raise Failed(f"its flow run is {state['type']}: {state['message']}")
                    return bool(state["type"] == "COMPLETED")

                _until(ended, RUNNING, "its flow run has not ended")
                _look(place.output)

            yield once


PREFECT = (
    Way("service", "`flow.serve()` with `papermill` in a task, by the server's API", _prefect),
    Way(
        "process",
        "the flow called again, with a server of its own",
        _in_process(
            _prefect_files,
            "from flow import trivial",
            "trivial()",
            PREFECT_HOME="{folder}/prefect",
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
        ),
    ),
    Way(
        "command",
        "`python flow.py`",
        _by_command(
            _prefect_files,
            "python",
            "flow.py",
            PREFECT_HOME="{folder}/prefect",
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
        ),
    ),
)

# -- Dagster -----------------------------------------------------------------------------------------------------------

DAGSTER_JOB = """
import os
import dagster
from dagstermill import define_dagstermill_op, ConfigurableLocalOutputNotebookIOManager

op = define_dagstermill_op(
    "trivial_op", os.path.join(os.path.dirname(os.path.abspath(__file__)), "notebook.ipynb"),
    output_notebook_name="executed", save_notebook_on_failure=True,
)

@dagster.job(resource_defs={"output_notebook_io_manager": ConfigurableLocalOutputNotebookIOManager()})
def trivial():
    op()

defs = dagster.Definitions(jobs=[trivial])
"""


def _dagster_files(place: Place) -> None:
    _plain(place)
    (place.folder / "definitions.py").write_text(DAGSTER_JOB)
    (place.folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")


@contextmanager
def _dagster(place: Place) -> Iterator[Once]:
    _dagster_files(place)
    port = free_port()
    at = f"http://127.0.0.1:{port}/graphql"
    launch = """mutation($p: ExecutionParams!) {
        launchRun(executionParams: $p) { __typename ... on LaunchRunSuccess { run { runId } }
        ... on PythonError { message } } }"""
    state = "query($r: ID!) { runOrError(runId: $r) { ... on Run { status } } }"
    located = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
    words = ["dev", "-f", "definitions.py", "-h", "127.0.0.1", "-p", str(port)]
    with place.start("dagster", *words, DAGSTER_HOME=str(place.folder)):

        def find() -> Any:
            return _ask(at, {"query": located})["data"]["repositoriesOrError"]["nodes"]

        (found, *_) = _until(find, STARTING, "its server does not answer")
        selector = {"repositoryName": found["name"], "repositoryLocationName": found["location"]["name"]}
        asked = {"p": {"selector": {**selector, "jobName": "trivial"}, "runConfigData": {}}}

        def once() -> None:
            answer = _ask(at, {"query": launch, "variables": asked})["data"]["launchRun"]
            if "run" not in answer:
                raise Failed(f"it does not launch: {answer}")
            run = {"r": answer["run"]["runId"]}

            def ended() -> bool:
                status = _ask(at, {"query": state, "variables": run})["data"]["runOrError"]["status"]
                if status in ("FAILURE", "CANCELED"):
                    raise Failed(f"its run is {status}")
                return bool(status == "SUCCESS")

            _until(ended, RUNNING, "its run has not ended")

        yield once


DAGSTERMILL = (
    Way("service", "`dagster dev`, launched by its API", _dagster),
    Way(
        "command",
        "`dagster job execute`",
        _by_command(
            _dagster_files,
            "dagster",
            "job",
            "execute",
            "-f",
            "definitions.py",
            "-j",
            "trivial",
            output=False,
            DAGSTER_HOME="{folder}",
        ),
    ),
)

# -- Airflow -----------------------------------------------------------------------------------------------------------

AIRFLOW_DAG = """
from airflow.sdk import DAG
from airflow.providers.papermill.operators.papermill import PapermillOperator

with DAG("trivial", schedule=None, is_paused_upon_creation=False):
    PapermillOperator(task_id="notebook", input_nb={input!r}, output_nb={output!r}, parameters={{}})
"""


def _airflow_files(place: Place) -> None:
    # The operator takes the kernel's name and language from the notebook.
    _plain(place)
    (place.folder / "dags").mkdir()
    text = AIRFLOW_DAG.format(input=str(place.notebook), output=str(place.output))
    (place.folder / "dags" / "trivial.py").write_text(text)


def _airflow_settings(folder: str, port: int) -> dict[str, str]:
    return {
        "AIRFLOW_HOME": folder,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
    }


@contextmanager
def _airflow(place: Place) -> Iterator[Once]:
    _airflow_files(place)
    port = free_port()
    at = f"http://127.0.0.1:{port}"
    with place.start("airflow", "standalone", **_airflow_settings(str(place.folder), port)):
        token = _until(lambda: _ask(f"{at}/auth/token")["access_token"], STARTING, "its server does not answer")
        ask = partial(_ask, Authorization=f"Bearer {token}")
        runs = f"{at}/api/v2/dags/trivial/dagRuns"
        _until(lambda: ask(f"{at}/api/v2/dags/trivial")["dag_id"], STARTING, "its DAG is not read")

        def once() -> None:
            place.output.unlink(missing_ok=True)
            made = ask(runs, {"logical_date": None})["dag_run_id"]

            def ended() -> bool:
                state = ask(f"{runs}/{made}")["state"]
                if state == "failed":
                    raise Failed("its DAG run failed")
                return bool(state == "success")

            _until(ended, RUNNING, "its DAG run has not ended")
            _look(place.output)

        yield once


@contextmanager
def _airflow_command(place: Place) -> Iterator[Once]:
    settings = _airflow_settings("{folder}", 8080)
    with _by_command(_airflow_files, "airflow", "dags", "test", "trivial", **settings)(place) as once:
        environment = place.environment(**{k: v.format(folder=place.folder) for k, v in settings.items()})
        for command in ("db", "migrate"), ("dags", "reserialize"):
            subprocess.run(
                [place.command("airflow"), *command],
                env=environment,
                capture_output=True,
                timeout=STARTING,
                check=True,
            )
        yield once


AIRFLOW = (
    Way("service", "`airflow standalone`, `PapermillOperator`, by its API", _airflow),
    Way("command", "`airflow dags test`", _airflow_command),
)

# -- Elyra -------------------------------------------------------------------------------------------------------------


def _elyra(place: Place) -> None:
    """It executes the notebook in place."""
    place.output.write_text(notebook("1 + 1"))
    node = {
        "id": str(uuid.uuid4()),
        "type": "execution_node",
        "op": "execute-notebook-node",
        "app_data": {
            "component_parameters": {
                "filename": "out.ipynb",
                "runtime_image": "any",
                "dependencies": [],
                "outputs": [],
                "env_vars": [],
                "include_subdirectories": False,
            },
            "label": "",
            "ui_data": {"label": "out.ipynb", "x_pos": 0, "y_pos": 0, "description": ""},
        },
        "inputs": [],
        "outputs": [],
    }
    app_data = {"version": 8, "runtime_type": "LOCAL", "ui_data": {"comments": []}, "properties": {"name": "trivial"}}
    primary = {"id": "primary", "nodes": [node], "app_data": app_data, "runtime_ref": ""}
    text = {
        "doc_type": "pipeline",
        "version": "3.0",
        "json_schema": "http://api.dataplatform.ibm.com/schemas/common-pipeline/pipeline-flow/pipeline-flow-v3-schema.json",
        "id": "trivial",
        "primary_pipeline": "primary",
        "pipelines": [primary],
        "schemas": [],
    }
    (place.folder / "trivial.pipeline").write_text(json.dumps(text))


@contextmanager
def _elyra_command(place: Place) -> Iterator[Once]:
    with _by_command(_elyra, "elyra-pipeline", "run", "trivial.pipeline", output=False)(place) as run:

        def once() -> None:
            place.output.write_text(notebook("1 + 1"))
            run()
            _look(place.output)

        yield once


FLOWKIT = Peer(
    "flowkit",
    ways=(
        Way("service", "`Client.submit` to an idle worker", _flowkit),
        Way("command", "`flowkit run --wait`, an idle worker", _flowkits_command),
    ),
)

PEERS = (
    Peer("papermill", ("papermill", "ipykernel"), "papermill", PAPERMILL),
    Peer("nbclient", ("nbclient", "ipykernel"), "nbclient", NBCLIENT),
    Peer("Ploomber", ("ploomber", "ipykernel"), "ploomber", PLOOMBER),
    Peer(
        "jupyter-scheduler",
        ("jupyter-scheduler", "jupyterlab", "ipykernel"),
        "jupyter-scheduler",
        (Way("service", "a job by the API of `jupyter server`", _jupyter_scheduler),),
    ),
    Peer("dagstermill", ("dagstermill", "dagster-webserver", "ipykernel"), "dagstermill", DAGSTERMILL),
    Peer("Prefect", ("prefect", "papermill", "ipykernel"), "prefect", PREFECT),
    Peer(
        "Airflow",
        ("apache-airflow>=3", "apache-airflow-providers-papermill", "ipykernel"),
        "apache-airflow",
        AIRFLOW,
    ),
    Peer(
        "Elyra",
        ("elyra", "ipykernel"),
        "elyra",
        (Way("command", "`elyra-pipeline run`, local", _elyra_command),),
    ),
    Peer("Notebooker", why="installs, but runs nothing without a MongoDB server, which no package brings"),
)
