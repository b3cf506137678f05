"""Another notebook as a node: a run of its own, whose results its parent gathers.

In a worker's run the node asks for the child in the log, and the attempt ends once nothing is left to do but wait: a
parent that waits holds no kernel and no place at a worker. The next attempt finds what has become of its children in
the run folder, and everything else as it finds it in a retry. In the author's notebook the child runs in a kernel of
its own on this machine, while the node waits.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit import notebooks
from flowkit.artifacts import Artifacts
from flowkit.config import Config
from flowkit.errors import ChildFailed, NotebookError, SecretError, UsageError
from flowkit.family import CHILDREN, DEPLOYMENT
from flowkit.flow import formats
from flowkit.flow.current import CALLED, current_run
from flowkit.flow.secrets import untold
from flowkit.model import CurrentRun, State, new_id
from flowkit.notebooks import Notebook
from flowkit.parameters import SCHEDULED_FOR
from flowkit.shelf import Shelf, handed_path

#: Children that run at a time in an author's notebook, each with a kernel of its own.
AT_ONCE = 2

_turns = threading.BoundedSemaphore(AT_ONCE)

#: How often each flow has run in this kernel: a notebook may run one twice, and each time has children of its own.
_times: dict[str, int] = {}
_counting = threading.Lock()


class Waits(BaseException):
    """A node waits for its child; its attempt goes on with others."""


class WaitsForChildren(BaseException):
    """Ends the notebook, in the cell that ran the flow. Not an error: the run goes on when its children have ended."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def notebook(path: str | None = None, *, deployment: str | None = None) -> Child:
    """Another notebook, to be made a node: ``flow.add(fk.notebook("clean.ipynb"), name="clean", day="day")``.

    A worker runs it as a run of its own, through the queue; mapped over a list, a run for each item, on all workers.
    The node's result is a dict of what the notebook handed over by ``fk.result(name, value)``. The node's ``retries``,
    ``delay`` and ``timeout`` are those of the child run.

    Args:
        path: relative to the folder of this notebook, and written there as a text: the notebook is kept with this one
            when it is deployed or submitted, and a later edit changes nothing.
        deployment: the name of a deployment instead, whose newest version then runs with its own queue and policy.
    """
    if (path is None) == (deployment is None):
        raise UsageError('name one thing to run: fk.notebook("clean.ipynb"), or fk.notebook(deployment="clean")')
    given = path if path is not None else deployment
    if not isinstance(given, str) or not given:
        raise UsageError(f"a child is named by a text, not {given!r}; write fk.notebook('clean.ipynb')")
    return Child(path if path is not None else f"{DEPLOYMENT}{deployment}")


def result(name: str, value: Any) -> None:
    """Hand a value over to the flow whose node this notebook is: ``fk.result("rows", len(clean))``.

    It is kept as results of nodes are, exactly or not at all. In a run that nobody waits for it is kept as well; in the
    author's notebook nothing happens.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise UsageError(f"a result cannot be named {name!r}; its name must be a Python identifier")
    if CALLED.get() is not None:
        raise UsageError(
            f"fk.result({name!r}, …) is called by a node, which a retry may not call again; call it in a cell"
        )
    run, told = current_run(), _told()
    if run is None or told is None:
        return
    if (why := untold(value)) is not None:
        raise SecretError(f"fk.result({name!r}, …) {why}, and others read it; hand over the secret's name")
    shelf = Shelf(Artifacts(told["artifacts"]), handed_path(run.id, run.attempt))

    def write(file: Any) -> Mapping[str, Any]:
        written = formats.write(value, file)
        return {"name": name, "format": written.name, "suffix": written.suffix} | formats.described(value, 0.0)

    shelf.keep(name, write)


@dataclass(frozen=True)
class Child:
    """What ``fk.notebook`` gives: called with the notebook's parameters, it gives what the notebook handed over."""

    target: str
    snapshot: str | None = None  #: digest of the notebook, as it will run; None: only a worker knows

    def __init__(self, target: str) -> None:
        object.__setattr__(self, "target", target)
        found = _notebook(target)
        object.__setattr__(self, "_found", found)
        object.__setattr__(self, "snapshot", found and found.digest)
        name = target.removeprefix(DEPLOYMENT) if found is None or target.startswith(DEPLOYMENT) else Path(target).stem
        object.__setattr__(self, "__name__", name)
        object.__setattr__(self, "__signature__", _signature(found, self._given()))

    def __reduce__(self) -> tuple[Any, ...]:
        # The snapshot for whoever asks what this is made of, and an executor's process.
        return _again, (self.target, self.snapshot)

    def __call__(self, /, **parameters: Any) -> dict[str, Any]:
        asking = ASKING.get()
        if asking is not None:
            found: dict[str, Any] = asking(self, self.checked(parameters))
            return found
        if _told() is not None and not _local():
            raise UsageError(f"{self} is called outside of a flow; make it a node: flow.add(fk.notebook(…))")
        return self._run_here(self.checked(parameters))

    def __str__(self) -> str:
        if self.target.startswith(DEPLOYMENT):
            return f"the deployment {self.target.removeprefix(DEPLOYMENT)!r}"
        return f"the notebook {self.target!r}"

    def checked(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The values that the child will have. Raises ParameterError."""
        found: Notebook | None = self.__dict__["_found"]
        values = {**self._given(), **parameters}
        return values if found is None else found.check(values)

    def _given(self) -> dict[str, Any]:
        """Values that its deployment gives."""
        return dict((_mine(self.target) or {}).get("parameters", {}))

    def _run_here(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        if self.target.startswith(DEPLOYMENT):
            raise UsageError(
                f"{self} is run by workers alone; submit this notebook (flowkit run NOTEBOOK.ipynb), or name the "
                "notebook's file to try it here"
            )
        import shutil
        import subprocess  # late: workers' kernels have no use for these
        import tempfile

        place = Path(self.target).absolute()
        folder = Path(tempfile.mkdtemp(prefix=f"flowkit-{place.stem}-"))
        run = CurrentRun(id=new_id(), key=new_id(), attempt=1, deployment=None, notebook=str(place))
        artifacts = str(folder / "artifacts")
        told = {"artifacts": artifacts, "local": True}
        (folder / CHILDREN).write_text(json.dumps(told), encoding="utf-8")
        order = {"run": run.to_json(), "notebook": str(place), "parameters": dict(parameters)}
        (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
        with _turns if not _local() else threading.Lock():  # a child's children must not wait for its own turn
            done = subprocess.run(
                [sys.executable, "-m", "flowkit.worker.alone", str(folder)],
                capture_output=True,
                text=True,
                cwd=place.parent,
                check=False,
            )
        if done.returncode != 0:
            error = (done.stderr.strip().splitlines() or ["it could not be started"])[-1]
            raise ChildFailed(f"{self} failed: {error}; as it ran: {folder / 'executed.ipynb'}")
        found = _handed(Artifacts(artifacts), run.id, 1)
        shutil.rmtree(folder, ignore_errors=True)
        return found


class Children:
    """The children of one run of a flow, in a worker's run."""

    def __init__(self, flow: str) -> None:
        run = current_run()
        assert run is not None
        self._run = run.id
        told = _told() or {}
        self._artifacts = told.get("artifacts")
        self._known: dict[str, dict[str, Any]] = told.get("known", {})
        with _counting:
            time = _times[flow] = _times.get(flow, -1) + 1
        self._flow = f"{flow}#{time}"

    def id(self, step: str) -> str:
        """Of the run that this node or item is: always the same, so that it is made once."""
        digest = hashlib.sha256("\n".join((self._run, self._flow, step)).encode("utf-8", "surrogatepass")).hexdigest()
        return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))

    def find(self, step: str, child: Child, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """What the child has handed over. Raises Waits if it has not ended, ChildFailed if it did not succeed."""
        id = self.id(step)
        known = self._known.get(id)
        if known is None:
            raise Waits(parameters)
        if json.dumps(known["parameters"], sort_keys=True) != json.dumps(parameters, sort_keys=True):
            raise UsageError(
                f"it was run with {_shown(known['parameters'])} and now has {_shown(parameters)}; what its parameters "
                "come from must be a node, whose result is kept, and not a cell, which runs again"
            )
        state = State(known["state"])
        if not state.final:
            raise Waits
        if state is not State.SUCCEEDED:
            how = "was cancelled" if state is State.CANCELLED else f"failed: {known['error']}"
            raise ChildFailed(f"{child}, run {id[:8]}, {how}")
        assert self._artifacts is not None
        return _handed(Artifacts(self._artifacts), id, known["attempt"])


#: Set while a node of a worker's run calls its child: takes it and its checked parameters.
ASKING: ContextVar[Any] = ContextVar("flowkit_asking", default=None)


def children_of(flow: str) -> Children | None:
    """None outside of a worker's run: there a child runs while its node waits."""
    return None if _told() is None or _local() else Children(flow)


def _notebook(target: str) -> Notebook | None:
    """The child as it will run; None: it is a deployment, and only a worker knows it."""
    told = _told()
    if told is None or _local():
        return None if target.startswith(DEPLOYMENT) else notebooks.read(target)
    mine = _mine(target)
    if mine is None:
        named = target.removeprefix(DEPLOYMENT)
        remedy = f"write fk.notebook({named!r}) in the notebook itself, not in a module"
        raise NotebookError(f"this run was submitted without {named!r}; {remedy}")
    if "error" in mine:
        raise NotebookError(mine["error"])
    return notebooks.parse(Path(mine["file"]).read_text(encoding="utf-8"), name=Path(target).name)


def _mine(target: str) -> dict[str, Any] | None:
    """What the worker has told of it."""
    found: dict[str, Any] | None = (_told() or {}).get("notebooks", {}).get(target)
    return found


def _again(target: str, snapshot: str | None) -> Child:
    return Child(target)


def _handed(artifacts: Artifacts, run: str, attempt: int) -> dict[str, Any]:
    shelf = Shelf(artifacts, handed_path(run, attempt))
    found = {}
    for _, facts in shelf.described():
        with shelf.open(facts) as file:
            found[facts["name"]] = formats.read(facts["format"], file)
    return found


def _told() -> dict[str, Any] | None:
    """What the worker has laid into the run folder; None: there is no worker."""
    folder = Config.from_env().run_folder
    if folder is None:
        return None
    if folder not in _read:
        try:
            _read[folder] = json.loads((folder / CHILDREN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
    return _read[folder]


_read: dict[Path, dict[str, Any]] = {}


def _local() -> bool:
    """Whether this kernel runs for an author's notebook, without a worker."""
    return bool((_told() or {}).get("local"))


def _signature(found: Notebook | None, given: Mapping[str, Any]) -> inspect.Signature:
    """The notebook's parameters; those that need no value have a default."""
    if found is None or found.language != "python":
        return inspect.Signature([inspect.Parameter("parameters", inspect.Parameter.VAR_KEYWORD)])
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            inspect.Parameter(one.name, kind)
            if one.default is None and one.name not in (*given, SCHEDULED_FOR)
            else inspect.Parameter(one.name, kind, default=None)
            for one in found.parameters or ()
        ]
    )


def _shown(parameters: Mapping[str, Any]) -> str:
    text = ", ".join(f"{name}={value!r}" for name, value in parameters.items()) or "no parameters"
    return text if len(text) <= 200 else f"{text[:199]}…"
