"""Tells OpenTelemetry of runs: a run, its attempts, their nodes, made from the events that a worker hears anyway.

A span's id is known before it has ended, see ``flowkit.trace``; so a node's is sent when the node has ended, though its
attempt's is not, and a run's by whichever worker sees its end. Sending is the SDK's own thread's: it never waits for
anybody, and what cannot be sent is dropped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision

from flowkit.events import Event
from flowkit.model import Ending, Run, State
from flowkit.trace import Span, of_run

log = logging.getLogger("flowkit.worker")

#: Seconds that a worker which ends waits for what is still to be sent.
LAST = 3.0


class Traces:
    """Of one worker. Where to, as whom and how much OpenTelemetry's own variables say."""

    def __init__(self) -> None:
        self._ids = _Ids()
        resource = Resource.create().merge(Resource({SERVICE_NAME: "flowkit"})).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter()))
        self._tracer = self._provider.get_tracer("flowkit")

    def attempt(self, run: Run) -> Trace | None:
        """The newest of this run. None: it cannot be traced, which it need not know."""
        try:
            return Trace(self, run)
        except Exception:
            log.exception("run %s is not traced", run.id[:8])
            return None

    def close(self) -> None:
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(LAST)

    def sampled(self, run: Run) -> Span:
        """The run's own span; whether it is to be seen is decided as for any other that begins here."""
        span = of_run(run.id, run.traceparent)
        decided = self._provider.sampler.should_sample(_within(Span.parse(run.traceparent)), int(span.trace, 16), "run")
        return span._replace(sampled=decided.decision is Decision.RECORD_AND_SAMPLE)

    def tell(
        self,
        span: Span,
        above: Span | None,
        name: str,
        began: float,
        ended: float,
        told: dict[str, Any],
        *,
        error: str | None = None,
        kind: otel.SpanKind = otel.SpanKind.INTERNAL,
    ) -> None:
        """*began*, *ended*: seconds since 1970."""
        self._ids.next = span
        made = self._tracer.start_span(
            name,
            context=_within(above),
            kind=kind,
            attributes={key: value for key, value in told.items() if value is not None},
            start_time=int(began * 1e9),
        )
        if error is not None:
            made.set_status(otel.Status(otel.StatusCode.ERROR, error))
        made.end(int(max(began, ended) * 1e9))


class Trace:
    """Of one attempt."""

    def __init__(self, traces: Traces, run: Run) -> None:
        self._traces, self._run = traces, run
        self._above = traces.sampled(run)
        self.span = self._above.below(run.attempt)
        self._told = {"flowkit.run": run.id, "flowkit.deployment": run.deployment, "flowkit.attempt": run.attempt}
        self._flows: dict[str, float] = {}  # when each began
        self._open: dict[tuple[str, str, int], float] = {}  # nodes -> since when
        self._cells: dict[str, float] = {}
        self._cells_told: list[tuple[str, float, float, str | None]] = []  # in place of nodes, if there are none

    def heard(self, events: Sequence[Event]) -> None:
        try:
            for event in events:
                self._hear(event, tell=True)
        except Exception:  # a run does not fail because of who looks on
            log.exception("run %s: is not traced as it should be", self._run.id[:8])

    def ended(self, ending: Ending, after: Run | None, *, at: datetime) -> None:
        """
        Args:
            after: the run as the store has it now; None: the attempt was taken from this worker.
        """
        failed = ending.state in (State.FAILED, State.CANCELLED)
        self._end(ending.error or str(ending.state) if failed else None, after, at)

    def lost(self, events: Sequence[Event], after: Run, *, at: datetime) -> None:
        """Its worker is gone, and has told of these events; of nodes that had ended by then it has told itself."""
        try:
            for event in events:
                self._hear(event, tell=False)
        except Exception:
            log.exception("run %s: is not traced as it should be", self._run.id[:8])
        self._end(f"attempt {self._run.attempt} was lost with its worker", after, at)

    def _end(self, error: str | None, after: Run | None, at: datetime) -> None:
        try:
            self._tell_end(error, after, at.timestamp())
        except Exception:
            log.exception("run %s: is not traced as it should be", self._run.id[:8])

    def _tell_end(self, error: str | None, after: Run | None, now: float) -> None:
        run = self._run
        for (flow, node, attempt), since in self._open.items():
            self._tell_node(flow, node, attempt, since, now, error or "cut off")
        for name, began, ended, failure in () if self._flows else self._cells_told:
            told = self._told | {"flowkit.cell": int(name)}
            self._traces.tell(
                self.span.below("cell", name), self.span, f"cell {name}", began, ended, told, error=failure
            )
        started = (run.started or run.created).timestamp()
        told = self._told | {"flowkit.worker": run.worker, "flowkit.queue": run.policy.queue}
        self._traces.tell(self.span, self._above, f"attempt {run.attempt}", started, now, told, error=error)
        if after is None or not after.state.final:
            return
        failed = None if after.state is State.SUCCEEDED else after.error or str(after.state)
        told = {
            "flowkit.run": run.id,
            "flowkit.state": str(after.state),
            "flowkit.cause": after.cause and str(after.cause),
            "flowkit.deployment": run.deployment,
            "flowkit.notebook": run.notebook,
            "flowkit.queue": run.policy.queue,
            "flowkit.attempts": run.attempt,
        }
        ended = after.finished.timestamp() if after.finished else now
        above, kind = Span.parse(run.traceparent), otel.SpanKind.CONSUMER
        self._traces.tell(
            self._above, above, run.label, run.created.timestamp(), max(ended, now), told, error=failed, kind=kind
        )

    def _hear(self, event: Event, *, tell: bool) -> None:
        if event.kind == "flow":
            self._flows[event.flow] = event.at
        elif event.kind == "node":
            key = event.flow, event.name, event.attempt
            if event.state is State.RUNNING:
                self._open[key] = event.at
            elif (since := self._open.pop(key, None)) is not None and tell:
                failed = event.state in (State.FAILED, State.CANCELLED)
                self._tell_node(*key, since, event.at, event.error or str(event.state) if failed else None, event.data)
        elif event.kind == "cell":
            if event.state is State.RUNNING:
                self._cells[event.name] = event.at
            elif (since := self._cells.pop(event.name, None)) is not None:
                self._cells_told.append((event.name, since, event.at, event.error))

    def _tell_node(
        self, flow: str, node: str, attempt: int, began: float, ended: float, error: str | None, note: Any = None
    ) -> None:
        found = note if isinstance(note, dict) else {}
        told = self._told | {
            "flowkit.flow": flow,
            "flowkit.node": node,
            "flowkit.node.attempt": attempt,
            "flowkit.node.reused": bool(found.get("reused")) or None,
            "flowkit.node.child": found.get("child"),
        }
        span = self.span.below(flow, self._flows.get(flow), node, attempt)
        self._traces.tell(span, self.span, node, began, ended, told, error=error)


class _Exporter(OTLPSpanExporter):
    """Says once a minute in one line that nobody takes them, where its own log has a line for each try."""

    def __init__(self) -> None:
        super().__init__()
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(lambda record: False)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        if result is not SpanExportResult.SUCCESS:
            log.warning("traces cannot be sent, runs go on without; is OTEL_EXPORTER_OTLP_ENDPOINT right and up?")
        return result


class _Ids(IdGenerator):
    """Those of the span that this thread is about to tell of."""

    def __init__(self) -> None:
        self._threads = threading.local()

    @property
    def next(self) -> Span:
        found: Span = self._threads.span
        return found

    @next.setter
    def next(self, span: Span) -> None:
        self._threads.span = span

    def generate_span_id(self) -> int:
        return int(self.next.id, 16)

    def generate_trace_id(self) -> int:
        return int(self.next.trace, 16)


def _within(above: Span | None) -> Context:
    """Of a span elsewhere, and never this program's own."""
    if above is None:
        return Context()
    flags = otel.TraceFlags(otel.TraceFlags.SAMPLED if above.sampled else otel.TraceFlags.DEFAULT)
    known = otel.SpanContext(int(above.trace, 16), int(above.id, 16), is_remote=True, trace_flags=flags)
    return otel.set_span_in_context(otel.NonRecordingSpan(known), Context())
