"""flowkit: write a flow in a Jupyter notebook, see it as a graph, deploy the notebook, run it on schedule.

Names are loaded when first used: an author's kernel never pays for what only a worker or a server needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit.client import deploy, submit, view
    from flowkit.errors import FlowkitError, GraphError, NodeFailed
    from flowkit.flow.child import notebook, result
    from flowkit.flow.current import current_run
    from flowkit.flow.flow import Flow
    from flowkit.flow.formats import format
    from flowkit.flow.limits import limit
    from flowkit.flow.node import value
    from flowkit.flow.outcome import Outcome
    from flowkit.flow.ports import convert
    from flowkit.flow.secrets import Secret, secret
    from flowkit.loaded import load_run

    __version__: str

_HOMES = {
    "Flow": "flowkit.flow.flow",
    "FlowkitError": "flowkit.errors",
    "GraphError": "flowkit.errors",
    "NodeFailed": "flowkit.errors",
    "Outcome": "flowkit.flow.outcome",
    "Secret": "flowkit.flow.secrets",
    "convert": "flowkit.flow.ports",
    "current_run": "flowkit.flow.current",
    "deploy": "flowkit.client",
    "format": "flowkit.flow.formats",
    "limit": "flowkit.flow.limits",
    "load_run": "flowkit.loaded",
    "notebook": "flowkit.flow.child",
    "result": "flowkit.flow.child",
    "secret": "flowkit.flow.secrets",
    "submit": "flowkit.client",
    "value": "flowkit.flow.node",
    "view": "flowkit.client",
}

__all__ = [
    "Flow",
    "FlowkitError",
    "GraphError",
    "NodeFailed",
    "Outcome",
    "Secret",
    "__version__",
    "convert",
    "current_run",
    "deploy",
    "format",
    "limit",
    "load_run",
    "notebook",
    "result",
    "secret",
    "submit",
    "value",
    "view",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("flowkit")
    elif name in _HOMES:
        found = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'flowkit' has no attribute {name!r}")
    globals()[name] = found
    return found


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext flowkit``: the magic ``%flow``."""
    from flowkit.jupyter.magics import Magic

    Magic(shell)


def __dir__() -> list[str]:
    return __all__
