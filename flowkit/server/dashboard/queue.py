"""The page Queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flowkit.server.dashboard.acts import Act
from flowkit.server.dashboard.reading import Question

QUESTIONS: dict[str, Callable[[Mapping[str, Any]], Question]] = {}
ACTS: dict[str, Act] = {}
