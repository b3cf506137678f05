"""Files a run leaves behind, on this machine's disk or on any fsspec URL.

A path is ``runs/<run>/<attempt>/…``: the attempt is the fence, so a worker that lost its lease writes where nobody
looks any more.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from flowkit.errors import Unavailable


class Artifacts:
    """A folder of files. Every write is whole or not at all; every read is of one whole write."""

    def __init__(self, url: str) -> None:
        """*url*: a local path, ``file://…``, or whatever fsspec knows (``s3://bucket/prefix``)."""
        self.url = url.rstrip("/")
        scheme = urlsplit(url).scheme
        self._local: Path | None = None
        self._remote: Any = None
        if scheme == "file":
            self._local = Path(url2pathname(urlsplit(url).path))
        elif "://" not in url:
            self._local = Path(url).expanduser().absolute()
        else:
            self._remote, self._root = _remote(self.url)

    def locate(self, path: str) -> str:
        """Where people and tools find it: an absolute path on this machine, or a URL."""
        return str(self._local / path) if self._local else f"{self.url}/{path}"

    def write(self, path: str, data: bytes) -> str:
        """Write the file and return where it is. It is on the disk, under its name, when this returns."""
        place = self.locate(path)
        try:
            if self._local:
                _write_atomically(Path(place), data)
            else:
                self._remote.pipe_file(f"{self._root}/{path}", data)
        except OSError as error:
            raise Unavailable(f"cannot write the artifact {place}: {error.strerror or error}") from error
        return place

    def read(self, path: str) -> bytes | None:
        """The file's content, or None if there is none."""
        try:
            if self._local:
                return (self._local / path).read_bytes()
            data: bytes = self._remote.cat_file(f"{self._root}/{path}")
            return data
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"cannot read the artifact {self.locate(path)}: {error.strerror or error}") from error

    def remove(self, folder: str) -> None:
        """Remove a folder and all in it; nothing happens if it is not there."""
        try:
            if self._local:
                shutil.rmtree(self._local / folder)
            else:
                self._remote.rm(f"{self._root}/{folder}", recursive=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Unavailable(f"cannot remove the artifacts in {self.locate(folder)}: {error}") from error


def run_path(run: str, attempt: int, name: str) -> str:
    return f"runs/{run}/{attempt}/{name}"


def notebook_path(run: str, attempt: int) -> str:
    """Where an attempt's executed notebook lies."""
    return run_path(run, attempt, "notebook.ipynb")


def _remote(url: str) -> tuple[Any, str]:
    import fsspec  # heavy, and only for a URL that is not a local path

    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise Unavailable(f"cannot use FLOWKIT_ARTIFACTS_URL {url}: {error}") from error
    return filesystem, root.rstrip("/")


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise
