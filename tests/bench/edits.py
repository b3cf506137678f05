"""Which edits a cache notices: flowkit's keys, joblib.Memory and Hamilton's cache, on the table of ``tests.edits``.

``python -m tests.bench.edits`` prints it as the table in docs/discussion.md. Each notebook is a file that is run before
and after the edit by a fresh Python, with the same place for its results; a node that runs says so in a file.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.edits import EDITS, EDITS_WITHOUT_LATE, Edit, sources

FIRST = """
import pathlib
def note():
    with open(pathlib.Path(__file__).with_name("ran"), "a") as file:
        file.write("ran\\n")
"""

ENDS = {
    "flowkit": """
if __name__ == "__main__":
    import flowkit
    flow = flowkit.Flow("edits")
    flow.add(lambda: 1, "x")
    flow.node(cache="1d")(node)
    flow.run()
""",
    "joblib": """
if __name__ == "__main__":
    import joblib
    joblib.Memory(pathlib.Path(__file__).parent / "cache", verbose=0).cache(node)(1)
""",
    # Its nodes are a module's functions, so the notebook is one.
    "Hamilton": """
if __name__ == "__main__":
    import logging, os, sys
    os.environ["HAMILTON_TELEMETRY_ENABLED"] = "false"
    logging.disable()
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    import notebook
    from hamilton import driver
    from hamilton.ad_hoc_utils import create_temporary_module
    only = create_temporary_module(notebook.node, module_name="only")
    built = driver.Builder().with_modules(only).with_cache(path=str(pathlib.Path(__file__).parent / "cache")).build()
    built.execute(["node"], inputs={"x": 1, "extra": notebook.EXTRA})
""",
}


def main() -> None:
    rows = [(edit, [noticed(edit, cache) for cache in ENDS]) for edit in (*EDITS, *EDITS_WITHOUT_LATE)]
    print(f"| edit | must run again | {' | '.join(ENDS)} |")
    print(f"|---|---|{'---|' * len(ENDS)}")
    for edit, found in rows:
        told = ["–" if one is None else ("again" if one else "reused") for one in found]
        marked = [text if one in (None, edit.again) else f"**{text}**" for text, one in zip(told, found, strict=True)]
        print(f"| {edit.name} | {'yes' if edit.again else 'no'} | {' | '.join(marked)} |")
    for place, cache in enumerate(ENDS):
        stale = sum(edit.again and found[place] is False for edit, found in rows)
        idle = sum(not edit.again and found[place] is True for edit, found in rows)
        print(f"{cache}: {stale} of {sum(edit.again for edit, _ in rows)} edits missed, {idle} times run for nothing")


def noticed(edit: Edit, cache: str) -> bool | None:
    """Whether the node ran again after the edit; None if the cache cannot run this notebook at all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = []
        for after in (False, True):
            module, cells = sources(edit, after=after)
            if cache == "Hamilton" or (cache == "joblib" and edit.name != "the node's decorator"):
                # They read the source of the function they are given: of a decorated one, that is the decorator's.
                cells = [cell.replace("@logged\ndef node", "def node") for cell in cells]
            if cache == "Hamilton":
                default = "2" if after and edit.name == "a default of the node" else "1"
                cells = [*cells, f"EXTRA = {default}\n"]
            (folder / "local_module.py").write_text(module)
            (folder / "notebook.py").write_text("\n".join([FIRST, *cells, ENDS[cache]]))
            done = subprocess.run(
                [sys.executable, "-B", str(folder / "notebook.py")],
                env={"PYTHONPATH": str(Path(__file__).parents[2]), "FLOWKIT_HOME": str(folder / "home"), "PATH": ""},
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise RuntimeError(f"{cache}, {edit.name}: {done.stderr[-1500:]}")
            counts.append((folder / "ran").read_text().count("ran"))
        if cache == "Hamilton" and edit.name == "the node's decorator":
            return None
        return counts[1] > counts[0]


if __name__ == "__main__":
    main()
