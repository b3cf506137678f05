"""What ``import flowkit`` costs a kernel, and what it offers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import flowkit as fk


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_authoring_and_running_a_flow_imports_no_third_party_module():
    """Third-party is what lies in site-packages, less what the interpreter itself loaded from there at its start."""
    loaded = json.loads(
        python(
            """
import sys, json
before = set(sys.modules)
import flowkit as fk
flow = fk.Flow("f")
@flow.node
def one(start: int) -> int: return start
flow.run(start=1); flow._repr_mimebundle_(); flow.outcome._repr_html_(); fk.current_run(); fk.NodeFailed
files = {name: getattr(sys.modules[name], "__file__", None) or "" for name in set(sys.modules) - before}
print(json.dumps(files))
"""
        )
    )

    assert "flowkit.flow.runner" in loaded
    assert {name: file for name, file in loaded.items() if "site-packages" in file} == {}
    assert {name for name in loaded if name.split(".")[0] in ("asyncio", "sqlite3", "email", "unittest")} == set()


def test_importing_flowkit_costs_little_more_than_python_itself(tmp_path):
    """The aim is 60 ms. Processor time, because the machine may be busy, and compiled, as it is when installed."""
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    compiled["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    _processor_time("import flowkit; flowkit.Flow", compiled)

    bare, ours = [], []
    for _ in range(7):
        bare.append(_processor_time("pass", compiled))
        ours.append(_processor_time("import flowkit; flowkit.Flow", compiled))

    assert min(ours) - min(bare) < 0.09


def _processor_time(code: str, environment: dict[str, str]) -> float:
    process = os.posix_spawn(sys.executable, [sys.executable, "-c", code], environment)
    _, status, used = os.wait4(process, 0)
    assert status == 0
    return used.ru_utime + used.ru_stime


def test_every_public_name_can_be_had():
    for name in fk.__all__:
        assert getattr(fk, name) is not None
    assert set(fk.__all__) <= set(dir(fk))
    assert fk.__version__.count(".") == 2
