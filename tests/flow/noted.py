"""What nodes say they have done, told in a way that is no part of their identity: a list that they add to would be
another one after each call, and they with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


def note(name: str) -> None:
    logging.getLogger("tests.noted").warning(name)


@pytest.fixture
def ran() -> Iterator[list[str]]:
    """What was noted since the test began."""
    found: list[str] = []

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    log, handler = logging.getLogger("tests.noted"), Noting()
    log.addHandler(handler)
    log.propagate = False
    yield found
    log.removeHandler(handler)
