"""The library as its users have it: offered by entry points, of whatever is written in pyproject.toml now."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """Offers flowkit's families to the palettes of this test, and tells them: name -> module."""

    def offer() -> dict[str, str]:
        families: dict[str, str] = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]["flowkit.nodes"]
        folder = tmp_path / "offered" / "flowkit_as_written-1.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: flowkit-as-written\nVersion: 1\n")
        lines = "".join(f"{name} = {module}\n" for name, module in families.items())
        (folder / "entry_points.txt").write_text(f"[flowkit.nodes]\n{lines}")
        monkeypatch.syspath_prepend(folder.parent)
        return families

    return offer
