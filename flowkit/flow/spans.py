"""Makes spans of an author's own code children of the node's that opens them, where OpenTelemetry is installed.

The node's own span is its worker's to tell, from the log; here it is only named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowkit.flow.current import current_run
from flowkit.trace import Span

if TYPE_CHECKING:
    from flowkit.flow.progress import Step


class Spans:
    """Of one run of a flow."""

    def __init__(self, attempt: Span, flow: str, began: float) -> None:
        """*began*: seconds since 1970, as the flow's event has it."""
        self._attempt, self._flow, self._began = attempt, flow, began

    def of(self, step: Step) -> str:
        return str(self._attempt.below(self._flow, self._began, step.name, step.attempt))


def spans_of(flow: str, began: float) -> Spans | None:
    """None: this is no worker's run, or its worker traces nothing."""
    run = current_run()
    attempt = Span.parse(run.span) if run is not None else None
    return None if attempt is None else Spans(attempt, flow, began)


def enter(traceparent: str) -> Any:
    """Whatever opens a span in this context from now on opens it below that one. What is given is for ``leave``."""
    try:
        from opentelemetry import context, trace
    except ImportError:
        return None
    span = Span.parse(traceparent)
    assert span is not None
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if span.sampled else trace.TraceFlags.DEFAULT)
    above = trace.SpanContext(int(span.trace, 16), int(span.id, 16), is_remote=True, trace_flags=flags)
    return context.attach(trace.set_span_in_context(trace.NonRecordingSpan(above)))


def leave(entered: Any) -> None:
    if entered is not None:
        from opentelemetry import context

        context.detach(entered)
