"""How the kernels of these tests start: cold, as the whole suite's, unless a test asks for ``forked``."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowkit.config import kernel_environment
from flowkit.worker import kernel, kernels
from flowkit.worker.zygote import Zygotes


@pytest.fixture(scope="session")
def zygotes() -> Iterator[Zygotes]:
    """One for all tests that ask: starting it takes a second."""
    made = Zygotes(lambda: ("numpy", "pandas"))
    yield made
    made.close()


@pytest.fixture
def forked(zygotes: Zygotes, monkeypatch: pytest.MonkeyPatch) -> Zygotes:
    """Kernels are forked, from the first on."""
    zygotes.await_ready(kernels.find(None), kernel_environment(Path()))
    monkeypatch.setattr(kernel, "ZYGOTES", zygotes)
    return zygotes


@pytest.fixture(scope="module")
def entry_points(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What pyproject.toml says that other programs find is found, of this tree, whichever one is installed."""
    told = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text())
    groups = told["project"]["entry-points"]
    folder = tmp_path_factory.mktemp("installed")
    info = folder / "flowkit_of_this_tree-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flowkit-of-this-tree\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in names.items())
            for group, names in groups.items()
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        places = [str(folder), str(Path(__file__).parent.parent.parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(place for place in places if place))
        yield
