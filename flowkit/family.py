"""The notebooks that a notebook runs as children, as they are when it is deployed or submitted.

They are found in its source, by the text of ``fk.notebook("clean.ipynb")``, since a deployed run must not depend on
what is done to a file later; so that has to be a text, and no computed path.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkit import notebooks
from flowkit.errors import NotebookError
from flowkit.notebooks import Notebook

#: In the run folder, written by the worker before the kernel starts: what its nodes may ask for, and what has come of
#: what they asked for before.
CHILDREN = "children.json"

#: How a deployment is named where paths of notebooks are.
DEPLOYMENT = "deployment:"

#: The event of a cell, or of a kernel's reply, that ends because nothing is left to do but wait for children.
SUSPENDED = "WaitsForChildren"

MAX_NOTEBOOKS = 200  # of one family, each as often as it is named


@dataclass(frozen=True, slots=True)
class Family:
    """What a notebook's children are, and theirs: by content, so that the same family is kept once.

    ``{"clean.ipynb": {"snapshot": digest, "family": {…}}, "deployment:load": {}}``, paths as they are written.
    """

    tree: Mapping[str, Any]
    texts: Mapping[str, str] = field(default_factory=dict)  #: digest -> notebook; empty if the store has them

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.tree, sort_keys=True).encode()).hexdigest()

    @property
    def snapshots(self) -> set[str]:
        """Of all notebooks in it."""
        return set(_snapshots(self.tree))

    def below(self, name: str) -> Family | None:
        """That of one of its notebooks; None if it has no children."""
        tree = self.tree[name].get("family")
        return Family(tree, self.texts) if tree else None


def _snapshots(tree: Mapping[str, Any]) -> Iterator[str]:
    for member in tree.values():
        if "snapshot" in member:
            yield member["snapshot"]
            yield from _snapshots(member.get("family") or {})


def gather(notebook: Notebook, place: Path) -> Family | None:
    """The family of a notebook that lies there; None if it has no children.

    Raises:
        NotebookError: a child is not there, is named by a computed path, or is its own descendant.
    """
    texts: dict[str, str] = {}
    tree = _gather(notebook, place, (place,), texts, [0])
    return Family(tree, texts) if tree else None


def _gather(
    notebook: Notebook, place: Path, above: tuple[Path, ...], texts: dict[str, str], count: list[int]
) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name in asked(notebook):
        if name.startswith(DEPLOYMENT):
            tree[name] = {}
            continue
        count[0] += 1
        if count[0] > MAX_NOTEBOOKS:
            raise NotebookError(f"{above[0].name} has more than {MAX_NOTEBOOKS} child notebooks; deploy some by a name")
        child = (place.parent / name).resolve()
        if child in above:
            around = " -> ".join(one.name for one in (*above[above.index(child) :], child))
            raise NotebookError(f"these notebooks run each other: {around}; one of them must not run the next")
        try:
            found = notebooks.read(place.parent / name)
        except NotebookError as error:
            raise NotebookError(f"{notebook.name} runs {name!r} as a child: {error}") from error
        texts[found.digest] = found.text
        theirs = _gather(found, child, (*above, child), texts, count)
        tree[name] = {"snapshot": found.digest} | ({"family": theirs} if theirs else {})
    return tree


def asked(notebook: Notebook) -> list[str]:
    """The children that its source names, each once: paths, and deployments as ``deployment:NAME``."""
    if notebook.language != "python" or "notebook" not in notebook.text:
        return []
    cells = [cell for cell in json.loads(notebook.text)["cells"] if cell["cell_type"] == "code"]
    trees = [(number, tree) for number, cell in enumerate(cells, 1) if (tree := _parsed(cell["source"])) is not None]
    modules, functions = _names(tree for _, tree in trees)
    found: dict[str, None] = {}
    for number, tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _is_call(node.func, modules, functions):
                found[_named(node, f"{notebook.name}, cell {number}")] = None
    return list(found)


def _parsed(source: str) -> ast.Module | None:
    """None: it is no Python, such as a cell of another language."""
    lines = source.splitlines()
    plain = (
        line[: len(line) - len(line.lstrip())] + "pass" if line.lstrip().startswith(("%", "!")) else line
        for line in lines
    )
    try:
        return ast.parse("\n".join(plain))
    except (SyntaxError, ValueError, RecursionError):
        return None


def _names(trees: Iterator[ast.Module]) -> tuple[set[str], set[str]]:
    """What the notebook calls flowkit, and what it calls ``flowkit.notebook``."""
    modules, functions = {"flowkit"}, set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {alias.asname for alias in node.names if alias.name == "flowkit" and alias.asname}
            elif isinstance(node, ast.ImportFrom) and node.module == "flowkit":
                functions |= {alias.asname or alias.name for alias in node.names if alias.name == "notebook"}
    return modules, functions


def _is_call(called: ast.expr, modules: set[str], functions: set[str]) -> bool:
    if isinstance(called, ast.Name):
        return called.id in functions
    return (
        isinstance(called, ast.Attribute)
        and called.attr == "notebook"
        and isinstance(called.value, ast.Name)
        and called.value.id in modules
    )


def _named(call: ast.Call, where: str) -> str:
    given = {word.arg: word.value for word in call.keywords}
    value = call.args[0] if call.args else given.get("path", given.get("deployment"))
    if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
        shown = ast.unparse(call)
        raise NotebookError(
            f"{where}: {shown} names a child by something computed; write its path there as a text, "
            "so that it can be kept with the notebook"
        )
    is_deployment = not call.args and "path" not in given
    return f"{DEPLOYMENT}{value.value}" if is_deployment else value.value
