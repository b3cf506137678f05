"""What may import what, as data; see the rooms in docs/discussion.md. A breach is told in a sentence."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "flowkit"

SHARED = (
    "failpoints",
    "model",
    "errors",
    "config",
    "events",
    "scene",
    "artifacts",
    "shelf",
    "notebooks",
    "family",
    "parameters",
    "rates",
    "installed",
    "commit",
    "changes",
    "journal",
    "redaction",
    "vault",
    "trace",
)

#: room -> what of flowkit it may import. The longest prefix of a module's name decides its room.
MAY_IMPORT = {
    **dict.fromkeys(SHARED, SHARED),
    "flow": (*SHARED, "flow"),
    # They run in the kernel, which has no store and no worker; of the flow they know only which node is being called.
    "nodes": (*SHARED, "flow.current", "nodes.addresses", "nodes.frames", "nodes.places"),
    # And what it asks its worker by, for a run that it waits for.
    "nodes.wait": (*SHARED, "flow.current", "flow.desk", "nodes.places", "nodes.sql"),
    "nodes.table": (*SHARED, "flow.schema", "nodes.expressions", "nodes.frames"),
    # Scripts, for a Python that may have no flowkit: they import each other by path, if at all.
    "kernel": (),
    "store": (*SHARED, "store"),
    "worker": (*SHARED, "store", "worker"),
    "worker.kernel": (
        *SHARED,
        *(f"worker.{part}" for part in ("kernels", "executed", "outputs", "process", "reporter", "usage", "zygote")),
    ),
    # Loaded by papermill, which the document's module imports: so it may not need that one.
    "worker.engine": (*SHARED, "worker.kernels", "worker.process", "worker.zygote"),
    "worker.forked": (*SHARED, "worker.process"),
    "worker.freshness": SHARED,
    "worker.served": (*SHARED, "worker.forked", "worker.process"),
    # Loaded by Jupyter's client, in whatever process starts kernels.
    "worker.provisioner": (*SHARED, "worker.served", "worker.zygote"),
    "worker.zygote": (
        *SHARED,
        *(f"worker.{part}" for part in ("forked", "freshness", "kernels", "process", "served", "usage")),
    ),
    "worker.executed": SHARED,
    "worker.outputs": (*SHARED, "worker.executed", "worker.process"),
    "worker.process": SHARED,
    "worker.reporter": SHARED,
    "worker.usage": SHARED,
    "worker.cron": SHARED,
    "worker.timing": (*SHARED, "worker.cron"),
    "worker.kernels": SHARED,
    "worker.results": (*SHARED, "store"),
    "worker.broker": SHARED,
    "worker.limits": (*SHARED, "store"),
    "worker.waits": (*SHARED, "store"),
    "worker.children": (*SHARED, "store"),
    "worker.alone": (*SHARED, "worker.kernel"),
    "worker.secrets": SHARED,
    "worker.traces": SHARED,
    "worker.alerts": (*SHARED, "store", "history", "worker.watch"),
    "worker.watch": (*SHARED, "store"),
    "worker.dispatch": (
        *SHARED,
        "store",
        "worker.children",
        "worker.cron",
        "worker.executed",
        "worker.kernel",
        "worker.limits",
        "worker.results",
        "worker.waits",
        "worker.secrets",
    ),
    "history": (*SHARED, "store"),
    "book": (*SHARED, "store"),
    "server": (*SHARED, "store", "history", "book", "server"),
    "terminal": SHARED,
    # Without the store: a laptop that asks a server has none.
    "remote": (*SHARED, "remote", "worker.cron"),
    "testing": (*SHARED, "worker.kernel"),
    "checks": (*SHARED, "store", "worker.broker"),
    "client": (
        *SHARED,
        "checks",
        "client",
        "history",
        "remote",
        "flow.current",
        "flow.recorded",
        "store",
        "worker.broker",
        "worker.cron",
        "worker.kernels",
        "worker.timing",
    ),
    "loaded": (*SHARED, "client", "flow.checkpoint", "flow.current", "flow.formats"),
    "doctor": (*SHARED, "checks", "client", "worker.kernels", "worker.process", "worker.zygote"),
    "cli": ("*",),
    # What Jupyter's processes load, composing as the command line does: its server asks the client and never a worker,
    # and tells which command to start; the author's kernel gets the command line as a magic.
    "jupyter": (*SHARED, "client", "flow.current"),
    "jupyter.magics": ("*",),
    "__main__": ("cli",),
    "__init__": ("*",),
}

#: heavy library -> the modules that alone may import it.
OWNERS = {
    "sqlalchemy": ("store", "nodes.sql"),
    "alembic": ("store",),
    "huey": ("worker.broker", "worker.worker"),
    "redis": ("worker.broker", "worker.limits"),
    "limits": ("worker.limits",),
    "papermill": ("worker.executed", "worker.engine"),
    "nbformat": ("worker.executed", "worker.outputs", "server", "jupyter.scheduler"),
    "nbclient": ("worker.outputs", "worker.engine"),
    "jupyter_client": (
        "worker.provisioner",
        "worker.process",
        "worker.kernels",
        "worker.forked",
        "worker.zygote",
        "kernel",
    ),
    "ipykernel": ("kernel",),
    "zmq": ("worker.process",),
    "psutil": ("worker.usage",),
    "cronsim": ("worker.cron",),
    "panel": ("server",),
    "param": ("server",),
    "bokeh": ("server",),
    "bokeh_fastapi": ("server",),
    "fastapi": ("server",),
    "pydantic": ("server",),
    "starlette": ("server",),
    "uvicorn": ("server.process",),
    "prometheus_client": ("server.metrics",),
    "tornado": ("server", "kernel"),
    "nbconvert": ("server", "jupyter.scheduler"),
    "jupyter_scheduler": ("jupyter.scheduler",),
    "pandas": ("server", "nodes"),
    "fsspec": ("artifacts", "nodes.places"),
    "narwhals": ("nodes.table", "nodes.expressions"),
    "pandera": ("nodes.table",),
    "openpyxl": ("nodes.files",),
    "apprise": ("nodes.notify", "worker.alerts"),
    "httpx2": ("nodes.http", "remote.web"),
    "httpcore2": ("nodes.http",),
    "anywidget": ("flow.widget",),
    "keyring": ("vault",),
    # The SDK in the worker; in the kernel the API, whose context an author's own spans are opened in.
    "opentelemetry": ("worker.traces", "flow.spans"),
    "traitlets": ("flow.widget", "kernel"),
    "IPython": ("flow.widget", "kernel"),
    "rich": ("terminal",),
    "click": ("cli", "jupyter.magics"),
}

#: module -> libraries it imports within a function, when a value is there that one of them has made. Nobody else may.
LATE = {
    "artifacts": ("fsspec",),
    "flow.formats": ("pyarrow", "polars", "numpy", "cloudpickle"),
    "flow.widget": ("anywidget", "traitlets", "IPython"),
    "vault": ("keyring",),
    "flow.spans": ("opentelemetry",),
}

#: rooms that every kernel loads: the standard library only.
BARE = (*SHARED, "flow", "__init__")


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Each imported module; ``from flowkit.worker import cron`` counts as flowkit.worker.cron."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if _is_module(whole) else node.module), node


def _is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def _room(module: str) -> str:
    fitting = [room for room in MAY_IMPORT if module == room or module.startswith(room + ".")]
    assert fitting, f"flowkit/{module} is in no room: put it where its process is, and say here what it may import"
    return max(fitting, key=len)


def _within(module: str, rooms: tuple[str, ...]) -> bool:
    return any(room == "*" or module == room or module.startswith(room + ".") for room in rooms)


MODULES = dict(modules())


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    may = MAY_IMPORT[_room(module)]

    for name, node in imports(MODULES[module]):
        if not name.startswith("flowkit.") or _typing_only(MODULES[module], node):
            continue
        other = name.removeprefix("flowkit.")
        assert _within(other, may), f"flowkit.{module} (line {node.lineno}) imports {name}; it may import {may}"


@pytest.mark.parametrize("module", MODULES)
def test_a_heavy_library_is_imported_by_its_owner_alone(module: str) -> None:
    for name, node in imports(MODULES[module]):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or _within(module, owners), f"flowkit.{module} imports {name}, which belongs to {owners}"
        top = name.split(".")[0]
        if _within(module, BARE) and not (
            top in LATE.get(module, ()) and id(node) not in map(id, MODULES[module].body)
        ):
            assert top == "flowkit" or top in sys.stdlib_module_names, (
                f"flowkit.{module} (line {node.lineno}) imports {name}; every kernel loads this module, "
                "so it may import the standard library only"
            )


@pytest.mark.parametrize("module", [module for module in MODULES if _room(module) not in ("cli", "__init__")])
def test_flowkit_modules_are_imported_at_the_top(module: str) -> None:
    tree = MODULES[module]
    top = set(map(id, tree.body)) | {id(s) for n in tree.body if isinstance(n, ast.If) for s in n.body}

    for name, node in imports(tree):
        if name.startswith("flowkit"):
            assert id(node) in top, f"flowkit.{module} (line {node.lineno}) imports {name} within a function"


@pytest.mark.parametrize("module", MODULES)
def test_only_config_reads_the_environment_and_only_model_the_wall_clock(module: str) -> None:
    for node in ast.walk(MODULES[module]):
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            continue
        name = f"{node.value.id}.{node.attr}"
        if module not in ("config", "kernel.fork", "kernel.paired"):  # which give each run its environment
            assert name not in ("os.environ", "os.getenv"), f"flowkit.{module} (line {node.lineno}) reads a setting"
        if module != "model":
            assert name not in ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today"), (
                f"flowkit.{module} (line {node.lineno}) reads the wall clock; take the time as an argument"
            )


def test_no_module_imports_itself_in_a_circle() -> None:
    needs = {
        module: {
            name.removeprefix("flowkit.")
            for name, node in imports(tree)
            if name.startswith("flowkit.") and not _typing_only(tree, node)
        }
        - {module}
        for module, tree in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import cycle: {' -> '.join((*path[path.index(module) :], module))}"
        if module in done or module not in needs:
            return
        for other in sorted(needs[module]):
            visit(other, (*path, module))
        done.add(module)

    for module in needs:
        visit(module, ())


def _typing_only(tree: ast.Module, statement: ast.stmt) -> bool:
    return any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and statement in node.body
        for node in ast.walk(tree)
    )
