"""docs/guarantees.md names a test for each promise, and each of these is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_promise_names_tests_that_exist() -> None:
    lines = (ROOT / "docs" / "guarantees.md").read_text().splitlines()
    promises = [line for line in lines if line.startswith("| **")]

    assert len(promises) >= 10
    for promise in promises:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", promise)
        assert named, f"no test is named for: {promise}"
        for file, test in named:
            tree = ast.parse((ROOT / file).read_text())
            assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
                f"{file} has no {test}"
            )
