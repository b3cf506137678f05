"""What a receiver of OpenTelemetry is told of runs, from whoever submitted them to the author's own spans in a node."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from flowkit.config import kernel_environment
from flowkit.trace import Span, of_run
from flowkit.worker import traces
from tests.notebooks_made import outputs, write
from tests.processes import eventually, worker
from tests.server.conftest import Dashboard
from tests.test_remote import here

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

FLOW = """
import os
from pathlib import Path
import flowkit as fk
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("author")
flow = fk.Flow("numbers")

@flow.node(retries=1, delay=0.0, timeout=30)
def numbers(folder: str) -> list:
    with tracer.start_as_current_span("counting"):
        seen = Path(folder, "tried")
        seen.write_text(seen.read_text() + "x" if seen.exists() else "x")
        assert len(seen.read_text()) > 1, "not yet"
        return [1, 2]

@flow.node(map="numbers")
def squares(numbers: int) -> int:
    return numbers * numbers

@flow.node
def total(squares: list, folder: str) -> int:
    again = Path(folder, "again")
    if not again.exists():
        again.write_text(os.environ["TRACEPARENT"])
        raise ValueError("the first attempt fails")
    return sum(squares)

flow.run(folder=folder)
"""


class Receiver:
    """Of OTLP over HTTP."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "FLOWKIT_WARM": "off",
        }
        self.spans: dict[str, Any] = {}  #: by id, as hexadecimal digits; the newest
        self.services: set[str] = set()

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services |= {
                one.value.string_value for one in resource.resource.attributes if one.key == "service.name"
            }
            for scope in resource.scope_spans:
                self.spans |= {span.span_id.hex(): span for span in scope.spans}

    def of(self, trace: str) -> list[Any]:
        """In the order of their beginnings, the outer before the inner."""
        found = [span for span in list(self.spans.values()) if span.trace_id.hex() == trace]
        return sorted(found, key=lambda span: (span.start_time_unix_nano, -span.end_time_unix_nano))

    def tree(self, trace: str) -> list[str]:
        """Each span's path of names from the first that is known here, sorted."""
        return sorted(self._path(span) for span in self.of(trace))

    def _path(self, span: Any) -> str:
        above = self.spans.get(span.parent_span_id.hex())
        return f"{self._path(above)} > {span.name}" if above is not None else span.name


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Receiver(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Path]:
    """With a worker, that tells the receiver."""
    folder = tmp_path_factory.mktemp("traces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWKIT_HOME", str(folder / "home"))
        with worker(**receiver.settings):
            yield folder


def test_a_run_is_a_trace_from_who_submits_it_to_the_spans_of_its_nodes(home: Path, receiver: Receiver) -> None:
    path = write(home / "numbers.ipynb", FLOW, parameters="folder: str = ''")
    here("deploy", path, "-p", f"folder={home}", "--retries", "1", "--backoff", "0.1")
    dashboard = Dashboard(home / "home")
    secret = dashboard.link.partition("token=")[2]
    headers = {"Authorization": f"Bearer {secret}", "traceparent": CALLER}
    ask = {"json": {"deployment": "numbers"}, "headers": headers, "timeout": 60}
    answered = httpx2.post(f"{dashboard.url}api/v1/runs", **ask).json()  # type: ignore[arg-type]
    dashboard.stop()
    id, trace = answered["id"], answered["trace"]
    assert trace == CALLER[3:35]
    eventually(lambda: of_run(id, CALLER).id in receiver.spans, seconds=90)
    once, again = "numbers > attempt 1", "numbers > attempt 2"
    assert receiver.tree(trace) == sorted(
        [
            *["numbers", once, again],
            *[f"{once} > numbers", f"{once} > numbers > counting"] * 2,  # it is tried twice
            *[f"{each} > squares{item}" for each in (once, again) for item in ("", "[0]", "[1]")],
            # Which reads a tracer, whose state nobody knows: so its result is not used again.
            *[f"{once} > total", f"{again} > numbers", f"{again} > numbers > counting", f"{again} > total"],
        ]
    )
    spans = receiver.of(trace)
    assert spans[0].parent_span_id.hex() == CALLER[36:52]
    assert [(span.name, span.status.message) for span in spans if span.status.code == 2] == [
        ("attempt 1", "NodeFailed: node 'total' failed: ValueError: the first attempt fails"),
        ("numbers", "AssertionError: not yet"),
        ("counting", "AssertionError: not yet"),
        ("total", "ValueError: the first attempt fails"),
    ]
    assert (home / "again").read_text() == f"00-{trace}-{spans[1].span_id.hex()}-01"
    assert all(outer.start_time_unix_nano <= span.start_time_unix_nano for span in spans for outer in spans[:1])
    assert "flowkit" in receiver.services


def test_a_command_hands_on_the_trace_that_started_it_and_without_one_a_run_begins_its_own(
    home: Path, receiver: Receiver
) -> None:
    path = write(home / "cells.ipynb", "1 + 1", "1 / 0")
    other = CALLER.replace("0af", "1af")
    given = json.loads(here("run", path, "--json", TRACEPARENT=other).stdout)["id"]
    alone = json.loads(here("run", path, "--json").stdout)["id"]
    eventually(lambda: {of_run(given, other).id, of_run(alone).id} <= receiver.spans.keys(), seconds=90)
    for trace in (other[3:35], of_run(alone).trace):
        attempt = "cells.ipynb > attempt 1"
        assert receiver.tree(trace) == ["cells.ipynb", attempt, f"{attempt} > cell 1", f"{attempt} > cell 2"]
        assert [span.status.code for span in receiver.of(trace)] == [2, 2, 0, 2]


def test_who_does_not_want_to_see_a_trace_is_not_sent_it(home: Path, receiver: Receiver) -> None:
    unseen = CALLER.replace("0af", "2af")[:-2] + "00"
    path = write(home / "quiet.ipynb", "import os; print(os.environ['TRACEPARENT'])")
    done = json.loads(here("run", path, "--wait", "--json", TRACEPARENT=unseen).stdout)
    assert done["state"] == "succeeded"
    assert outputs(done["output"]).strip().endswith("-00")
    assert receiver.of(unseen[3:35]) == []


def test_a_receiver_that_hangs_delays_nobody(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(traces, "LAST", 0.2)
        made = traces.Traces()
        began = time.monotonic()
        for number in range(5000):  # more than are kept
            made.tell(of_run(f"r{number}"), None, "run", 0.0, 1.0, {})
        made.close()
        assert time.monotonic() - began < 9  # of the 10 s that it waits for one answer


def test_an_older_or_strange_traceparent_is_passed_over() -> None:
    zeros = f"00-{'0' * 32}-{CALLER[36:52]}-01"
    for text in (None, "", "mine", CALLER.upper(), CALLER[:-3], "ff" + CALLER[2:], zeros, CALLER + "-more"):
        assert Span.parse(text) is None
    assert Span.parse(" cc" + CALLER[2:] + "-more ") == Span.parse(CALLER)


def test_a_kernel_is_told_where_traces_go_and_not_by_which_credentials() -> None:
    env = {
        "TRACEPARENT": CALLER,
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        "OTEL_SERVICE_NAME": "flows",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=fk",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "api-key=fk",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/key.pem",
    }
    given = kernel_environment(Path("/runs"), env)
    assert {name for name in given if not name.startswith("FLOWKIT_")} == {
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_SERVICE_NAME",
    }
    assert kernel_environment(Path("/runs"), env, traceparent="its own")["TRACEPARENT"] == "its own"
