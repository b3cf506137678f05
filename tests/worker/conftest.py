"""How the kernels of these tests start: cold, as the whole suite's, unless a test asks for ``forked``."""

from __future__ import annotations

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
