"""Which span of a trace is whose, in the words of W3C Trace Context.

A span's id is made of what it is: of its parent's and its own name. So the worker that tells of a run, the one that
tells of its last attempt and the kernel within come to the same ids, and nobody hands them around.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import NamedTuple

from flowkit.config import caller_traceparent

_TRACEPARENT = r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"


class Span(NamedTuple):
    trace: str  #: 32 hexadecimal digits
    id: str  #: 16
    sampled: bool = True  #: whoever began the trace wants to see it

    @classmethod
    def parse(cls, traceparent: str | None) -> Span | None:
        """None: it is none. W3C has it that one which is malformed is passed over."""
        found = re.fullmatch(_TRACEPARENT, traceparent.strip()) if traceparent else None
        if found is None or (found[4] and found[0].startswith("00")):
            return None
        return cls(found[1], found[2], bool(int(found[3], 16) & 1))

    def __str__(self) -> str:
        return f"00-{self.trace}-{self.id}-{'01' if self.sampled else '00'}"

    def below(self, *name: object) -> Span:
        return self._replace(id=_digits(16, self.trace, self.id, *name))


def of_run(id: str, caller: str | None = None) -> Span:
    """
    Args:
        caller: the ``traceparent`` that it was submitted with; None: the run begins a trace of its own.
    """
    above = Span.parse(caller)
    found = Span(_digits(32, "trace", id), _digits(16, "run", id))
    return found if above is None else found._replace(trace=above.trace, sampled=above.sampled)


def caller() -> str | None:
    """What this program is doing, as its own OpenTelemetry knows or whoever started it has said."""
    if otel := sys.modules.get("opentelemetry.trace"):
        context = otel.get_current_span().get_span_context()
        if context.is_valid:
            return str(Span(f"{context.trace_id:032x}", f"{context.span_id:016x}", bool(context.trace_flags.sampled)))
    return checked(caller_traceparent())


def checked(traceparent: str | None) -> str | None:
    """It, if it is one."""
    found = Span.parse(traceparent)
    return None if found is None else str(found)


def header(traceparent: str | None) -> Mapping[str, str]:
    return {} if traceparent is None else {"traceparent": traceparent}


def _digits(count: int, *name: object) -> str:
    from hashlib import sha256  # late: most kernels need it not

    return sha256("\0".join(map(str, name)).encode()).hexdigest()[:count]
