"""Kernels for whatever starts them by Jupyter's own means: parked and listening, and each one alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient

from flowkit.config import whole_environment
from flowkit.worker import kernels, provisioner
from flowkit.worker.zygote import Zygotes
from tests.notebooks_made import notebook
from tests.processes import eventually


@pytest.fixture(scope="module")
def specs(entry_points: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of kernelspecs, with one that asks for our kernels."""
    folder = tmp_path_factory.mktemp("jupyter")
    place = folder / "kernels" / "warm"
    place.mkdir(parents=True)
    spec = {
        "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "warm",
        "language": "python",
        "metadata": {"kernel_provisioner": {"provisioner_name": "flowkit"}},
    }
    (place / "kernel.json").write_text(json.dumps(spec))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        yield folder


@pytest.fixture(scope="module")
def ready(specs: Path) -> Iterator[tuple[Zygotes, KernelSpec]]:
    zygotes = Zygotes(lambda: ("numpy",), served=True)
    spec = kernels.find("warm")
    zygotes.await_ready(spec, whole_environment())
    yield zygotes, spec
    zygotes.close()


@pytest.fixture(autouse=True)
def served(ready: tuple[Zygotes, KernelSpec], monkeypatch: pytest.MonkeyPatch) -> Zygotes:
    zygotes, spec = ready
    monkeypatch.setattr(provisioner, "ZYGOTES", zygotes)
    zygotes.await_ready(spec, whole_environment())
    return zygotes


class Kernel:
    """A kernel and a client of it, as a front-end has them."""

    def __init__(self, **options: Any) -> None:
        self.manager = KernelManager(kernel_name="warm")
        self.manager.start_kernel(**options)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def says(self, code: str) -> str:
        found: list[str] = []
        self.client.execute_interactive(
            code, timeout=60, output_hook=lambda message: found.append(message["content"].get("text", ""))
        )
        return "".join(found).strip()

    @property
    def forked(self) -> bool:
        return isinstance(self.manager.provisioner.process, provisioner._Process)

    def end(self, **how: Any) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(**how)


def test_nbclient_runs_a_notebook_in_one_that_was_parked(tmp_path: Path) -> None:
    nb = nbformat.reads(notebook("import os\nos.getcwd()", "open('/proc/self/cmdline').read()", kernel="warm"), 4)

    NotebookClient(nb, kernel_name="warm", resources={"metadata": {"path": str(tmp_path)}}).execute()

    cwd, command = (cell.outputs[0].data["text/plain"] for cell in nb.cells)
    assert cwd == repr(str(tmp_path))
    assert "zygote.py" in command


def test_two_share_nothing_and_nothing_is_left_of_them(tmp_path: Path) -> None:
    before = len(psutil.Process().children(recursive=True))
    one, other = (Kernel(cwd=str(tmp_path), env={**os.environ, "JPY_SESSION_NAME": own}) for own in ("1", "2"))
    try:
        assert one.forked
        assert other.forked
        show = (
            "import os, numpy, random\n"
            "print(os.environ['JPY_SESSION_NAME'], numpy.random.rand(), random.random(), 'left' in dir())"
        )
        first, second = one.says("left = 1\n" + show).split(), other.says(show).split()
        assert [first[0], first[3], second[0], second[3]] == ["1", "True", "2", "False"]
        assert not {first[1], first[2]} & {second[1], second[2]}
        folders = [Path(kernel.manager.ip).parent for kernel in (one, other)]
        assert folders[0] != folders[1]
    finally:
        one.end()
        other.end(now=True)
    assert not any(folder.exists() for folder in folders)
    eventually(lambda: len(psutil.Process().children(recursive=True)) <= before + 2)  # one is parked again


def test_it_is_interrupted_restarted_and_seen_to_die() -> None:
    kernel = Kernel()
    try:
        asked = kernel.client.execute(
            "import time\ntry:\n    print(1, flush=True); time.sleep(60)\nexcept KeyboardInterrupt:\n    print('cut')"
        )
        while kernel.client.get_iopub_msg(timeout=30)["header"]["msg_type"] != "stream":
            pass
        kernel.manager.interrupt_kernel()
        reply = kernel.client.get_shell_msg(timeout=30)
        assert reply["parent_header"]["msg_id"] == asked
        assert reply["content"]["status"] == "ok"

        kernel.says("left = 1")
        pid = kernel.manager.provisioner.pid
        kernel.manager.restart_kernel()
        kernel.client.wait_for_ready(timeout=60)  # the same client, where it was
        assert kernel.says("print('left' in dir())") == "False"
        assert kernel.forked
        assert kernel.manager.provisioner.pid != pid

        kernel.client.execute("import os; os._exit(3)")
        eventually(lambda: not kernel.manager.is_alive())
        assert kernel.manager.provisioner.process.poll() == 3
    finally:
        kernel.end(now=True)


def test_without_a_zygote_it_is_started_as_jupyter_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provisioner, "ZYGOTES", Zygotes(lambda: None, served=True))
    kernel = Kernel()
    try:
        assert not kernel.forked
        assert kernel.says("print(1)") == "1"
    finally:
        kernel.end()


def test_many_that_start_at_once_do_not_collide(served: Zygotes, ready: tuple[Zygotes, KernelSpec]) -> None:
    """Ports of TCP do."""
    began = time.monotonic()

    def start(number: int) -> str:
        kernel = Kernel()
        try:
            assert kernel.forked
            return kernel.says(f"print({number})")
        finally:
            kernel.end(now=True)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(start, range(20))) == [str(number) for number in range(20)]
    assert time.monotonic() - began < 120
