"""One notebook in one kernel, without a store, for an author who tries a flow: ``-m flowkit.worker.alone FOLDER``.

FOLDER is the run folder, with ``order.json`` in it; the executed notebook goes there too. Exit code 0 if it succeeded,
else its error is the last line of stderr.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from flowkit import notebooks
from flowkit.model import CurrentRun, State
from flowkit.worker.kernel import Order, Stop, run_notebook


def main(folder: Path) -> int:
    asked = json.loads((folder / "order.json").read_text(encoding="utf-8"))
    place = Path(asked["notebook"])
    order = Order(
        notebook=notebooks.read(place).text,
        parameters=asked["parameters"],
        current=CurrentRun.from_json(asked["run"]),
        kernel=None,
        timeout=None,
        cwd=place.parent,
        folder=folder,
    )

    def save(text: str) -> None:
        (folder / "executed.ipynb").write_text(text, encoding="utf-8")

    ending = run_notebook(order, on_events=lambda _: None, on_save=save, stop=Stop())
    if ending.state is State.SUCCEEDED:
        return 0
    sys.stderr.write(f"{ending.error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
