"""When a result may be used again: what a key must see, and what it must not mind."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from flowkit.flow import identity
from flowkit.flow.identity import Unidentified
from tests.edits import EDITS, EDITS_WITHOUT_LATE, Edit, sources


def notebook(cells: list[str]) -> dict[str, Any]:
    """The names of a notebook whose cells have run."""
    names: dict[str, Any] = {"__name__": "__main__", "note": lambda: None}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"<cell {number}>", "exec"), names)
    return names


def key(edit: Edit, folder: Path, *, after: bool) -> str:
    """Of the node's call with one argument, as a kernel that starts now would make it."""
    module, cells = sources(edit, after=after)
    (folder / "local_module.py").write_text(module)
    sys.modules.pop("local_module", None)
    importlib.invalidate_caches()
    node = notebook(cells)["node"]
    return identity.of_parts(identity.of_code(node), identity.of_value(1))


@pytest.mark.parametrize("edit", [*EDITS, *EDITS_WITHOUT_LATE], ids=lambda edit: edit.name)
def test_an_edit_makes_the_node_run_again_if_it_can_change_the_result(
    edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # written twice within a second, its bytecode looks current

    before, same, after = (key(edit, tmp_path, after=which) for which in (False, False, True))
    sys.modules.pop("local_module", None)

    assert before == same
    assert (before != after) is edit.again


def test_code_is_the_same_in_another_process(tmp_path: Path) -> None:
    import subprocess

    module, cells = sources(EDITS[0], after=False)
    (tmp_path / "local_module.py").write_text(module)
    source = "\n".join(["note = lambda: None", *cells, "from flowkit.flow import identity"])
    told = "print(identity.of_code(node), identity.of_value({'a', 'b', 'c', 1, 2.5, None}))"
    (tmp_path / "notebook.py").write_text(f"{source}\n{told}\n")

    def ask(seed: int) -> str:
        command = [sys.executable, str(tmp_path / "notebook.py")]
        environment = {"PYTHONPATH": f"{Path(__file__).parents[2]}", "PYTHONHASHSEED": str(seed)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert ask(1) == ask(2)


def test_functions_that_call_each_other_are_told_apart_by_their_code() -> None:
    def names(step: int) -> dict[str, Any]:
        return notebook(
            [f"def even(n):\n return n == 0 or odd(n - {step})\ndef odd(n):\n return n != 0 and even(n - 1)"]
        )

    assert identity.of_code(names(1)["even"]) == identity.of_code(names(1)["even"])
    assert identity.of_code(names(1)["even"]) != identity.of_code(names(2)["even"])


@pytest.mark.parametrize(
    "cell",
    [
        "def node(): return eval('x')",
        "def node(): return globals()['x']",
        "import threading\nlock = threading.Lock()\ndef node():\n with lock: return 1",
        "values = (i for i in [1])\ndef node(): return next(values)",
    ],
)
def test_what_cannot_be_known_is_not_given_a_key(cell: str) -> None:
    with pytest.raises(Unidentified):
        identity.of_code(notebook([cell])["node"])


def test_a_value_too_large_to_walk_through_is_not_given_a_key() -> None:
    with pytest.raises(Unidentified, match="more objects than can be compared"):
        identity.of_value([[number] for number in range(identity.MOST)])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(JSON, JSON)
def test_equal_digests_are_equal_values(one: Any, other: Any) -> None:
    same = identity.of_value(one) == identity.of_value(other)

    assert same == (_exactly(one) == _exactly(other))


def _exactly(value: Any) -> str:
    """With types, as text."""
    return repr(value)


def test_tables_are_told_apart_by_their_content() -> None:
    def frame(**changed: Any) -> pd.DataFrame:
        return pd.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"], "c": pd.Categorical(["u", "v", "u"])} | changed)

    first = identity.of_value(frame())

    assert identity.of_value(frame()) == first
    assert identity.of_value(frame().iloc[:]) == first
    changed = [
        frame(a=[1, 2, 4]),
        frame(a=[1.0, 2.0, 3.0]),
        frame(b=["x", "y", "z"]),
        frame(c=pd.Categorical(list("uvv"))),
    ]
    changed += [frame().rename(columns={"a": "d"}), frame().iloc[::-1], frame().set_index("a")]
    for other in changed:
        assert identity.of_value(other) != first
    assert identity.of_value(np.arange(4)) != identity.of_value(np.arange(4).reshape(2, 2))
    assert identity.of_value(np.arange(4)) != identity.of_value(np.arange(4).astype("int32"))


def test_a_frame_that_many_nodes_name_is_read_once_and_a_change_of_it_later_is_seen() -> None:
    names = notebook(["def node(): return frame.sum()\ndef other(): return frame.mean()"])
    names["frame"] = pd.DataFrame({"a": [1, 2]})
    tables: identity.Tables = {}
    alone = identity.of_code(names["node"])

    assert identity.of_code(names["node"], tables) == alone
    assert list(tables) == [id(names["frame"])]
    assert identity.of_code(names["other"], tables) == identity.of_code(names["other"])
    names["frame"].loc[0, "a"] = 3
    assert identity.of_code(names["node"]) != alone


def test_a_lock_says_why_it_has_no_digest() -> None:
    with pytest.raises(Unidentified, match=r"it depends on a lock, which cannot be compared"):
        identity.of_value({"guard": threading.Lock()})
