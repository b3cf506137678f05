"""The dashboard on JupyterLab's launcher: jupyter-server-proxy starts it when it is first asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

#: Seconds for the dashboard to answer. It takes three; a busy machine, ten times that.
READY = 90.0


def dashboard() -> dict[str, Any]:
    """What jupyter-server-proxy is to run and to show, as its entry point.

    The dashboard has no login of its own. On a port every user of the machine could pass by Jupyter's token, and it
    would have to let in whatever page a browser has open. A socket file in a private folder is reached by Jupyter
    alone, which has checked token and origin, and says so by the origin it passes on.
    """
    return {
        "command": [sys.executable, "-m", "flowkit", "dashboard", "--socket", "{unix_socket}"],
        "unix_socket": True,
        "request_headers_override": {"Origin": "http://localhost"},
        "timeout": READY,
        "new_browser_tab": False,
        "launcher_entry": {
            "title": "flowkit",
            "category": "Notebook",  # in others JupyterLab shows no icon of a URL
            "icon_path": str(Path(__file__).with_name("flowkit.svg")),
        },
    }
