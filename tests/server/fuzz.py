"""``python -m tests.server.fuzz [CASES]``: schemathesis over the whole API, with an admin's token and with none.

CASES are tried of each route in both ways, besides those that its description names. No answer may be a 5xx.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from flowkit.artifacts import Artifacts
from flowkit.model import Role, now
from tests.server.conftest import Dashboard
from tests.server.mix import fill


def main(cases: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        dashboard = Dashboard(Path(folder))
        try:
            with dashboard.store() as store:
                fill(store, Artifacts(f"{folder}/artifacts"), runs=12)
                at = now()
                _, secret = store.create_token("fuzz", Role.ADMIN, expires=at + timedelta(days=1), now=at)
            described = Path(folder) / "openapi.json"
            described.write_bytes(dashboard.get("/api/v1/openapi.json", secret))
            given = ["-H", f"Authorization: Bearer {secret}"]
            return max(_run(described, dashboard.url, cases, given), _run(described, dashboard.url, cases, []))
        finally:
            dashboard.stop()


def _run(described: Path, url: str, cases: int, given: list[str]) -> int:
    program = Path(sys.executable).with_name("schemathesis")
    # A stream of events never ends, which is no error.
    options = ["--exclude-path", "/api/v1/events", "--request-timeout", "60", "--checks", "not_a_server_error"]
    phases = ["--phases", "examples,coverage,fuzzing", "-n", str(cases), "--seed", "1"]
    return subprocess.run([program, "run", described, "--url", url, *options, *phases, *given]).returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
