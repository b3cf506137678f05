"""Files a run leaves behind, on this machine's disk or on any fsspec URL.

A path is ``runs/<run>/<attempt>/…``: the attempt is the fence, so a worker that lost its lease writes where nobody
looks any more.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from flowkit import failpoints
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
            self._local = Path(unquote(urlsplit(url).path))
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

    @property
    def appends(self) -> bool:
        """Whether ``append`` can be called: an object store only writes whole files."""
        return self._local is not None

    def append(self, path: str, data: bytes, *, new: bool = False) -> None:
        """Add to the file's end, without waiting for the disk; what a crash cuts off is for the reader to find out.

        Args:
            new: in place of what was there.
        """
        assert self._local is not None
        place = self._local / path
        try:
            with place.open("wb" if new else "ab") as file:  # buffered: all of it, or an error, if the disk fills up
                file.write(data)
        except OSError as error:
            raise Unavailable(f"cannot write the artifact {place}: {error.strerror or error}") from error

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

    @contextlib.contextmanager
    def scratch(self, folder: str) -> Iterator[Scratch]:
        """A file to fill and then publish under a name in *folder*; gone afterwards if it was not.

        Unlike ``write`` it does not wait for the disk: for what carries a digest, and can be made again.
        """
        import tempfile  # late, as all here that an author's `import flowkit` should not pay for

        place = self._local / folder if self._local else None
        try:
            if place is not None:
                place.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=place, prefix=".scratch.")
        except OSError as error:
            raise Unavailable(f"cannot write into {self.locate(folder)}: {error.strerror or error}") from error
        made = Scratch(os.fdopen(handle, "w+b"), Path(name), self, folder)
        try:
            yield made
        except OSError as error:
            raise Unavailable(f"cannot write into {self.locate(folder)}: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):  # what could not be written to the disk cannot be closed either
                made.file.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)

    def open(self, path: str) -> IO[bytes] | None:
        """The file to read and seek in, or None if there is none."""
        try:
            if self._local:
                return (self._local / path).open("rb")
            file: IO[bytes] = self._remote.open(f"{self._root}/{path}", "rb")
            return file
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"cannot read the artifact {self.locate(path)}: {error.strerror or error}") from error

    def holds(self, path: str) -> bool:
        """Whether it lies within, and no link in it leads elsewhere."""
        if self._local is None:
            return True  # an object store knows no links
        root = self._local.resolve()
        return (root / path).resolve() == root / path

    def sizes(self, folder: str) -> dict[str, int]:
        """The files that lie in the folder itself, and how many bytes each has; empty if there is no folder."""
        try:
            if self._local:
                with os.scandir(self._local / folder) as found:
                    return {one.name: one.stat().st_size for one in found if one.is_file()}
            self._remote.invalidate_cache()  # fsspec remembers listings, and others write here
            listed = self._remote.ls(f"{self._root}/{folder}", detail=True)
            return {one["name"].rpartition("/")[2]: one["size"] or 0 for one in listed if one["type"] == "file"}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise Unavailable(f"cannot list the artifacts in {self.locate(folder)}: {error}") from error

    def remove_files(self, folder: str, names: Iterable[str]) -> None:
        """Remove these files of the folder; those that are not there are passed over."""
        for name in names:
            try:
                if self._local:
                    (self._local / folder / name).unlink()
                else:
                    self._remote.rm_file(f"{self._root}/{folder}/{name}")
            except FileNotFoundError:
                pass
            except OSError as error:
                raise Unavailable(f"cannot remove {self.locate(folder)}/{name}: {error}") from error

    def _publish(self, scratch: Path, path: str) -> None:
        if self._local:
            os.replace(scratch, self._local / path)
        else:
            self._remote.put_file(str(scratch), f"{self._root}/{path}")

    def digest(self, path: str) -> str | None:
        """SHA-256 of the file as it lies there; None if there is none."""
        data = self.read(path)
        return None if data is None else sha256(data).hexdigest()

    def remove(self, folder: str) -> None:
        """Remove a folder and all in it; nothing happens if it is not there."""
        try:
            if self._local:
                import shutil

                shutil.rmtree(self._local / folder)
            else:
                self._remote.rm(f"{self._root}/{folder}", recursive=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Unavailable(f"cannot remove the artifacts in {self.locate(folder)}: {error}") from error


@dataclass(frozen=True, slots=True)
class Scratch:
    """A file that nobody sees yet."""

    file: IO[bytes]
    _path: Path
    _artifacts: Artifacts
    _folder: str

    def publish(self, name: str) -> None:
        """Whole under its name from now on, in place of what was there."""
        self.file.flush()
        self._artifacts._publish(self._path, f"{self._folder}/{name}")


def run_path(run: str, attempt: int, name: str) -> str:
    return f"runs/{run}/{attempt}/{name}"


def notebook_path(run: str, attempt: int) -> str:
    """Where an attempt's executed notebook lies."""
    return run_path(run, attempt, "notebook.ipynb")


def journal_path(run: str, attempt: int) -> str:
    """Where it is told by what that has grown since it was saved; see ``journal``."""
    return run_path(run, attempt, "notebook.journal")


def _remote(url: str) -> tuple[Any, str]:
    import fsspec  # heavy, and only for a URL that is not a local path

    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise Unavailable(f"cannot use FLOWKIT_ARTIFACTS_URL {url}: {error}") from error
    return filesystem, root.rstrip("/")


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    import tempfile

    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            failpoints.passing("artifact.write")
            file.write(data)
            file.flush()
            failpoints.passing("artifact.fsync")
            os.fsync(file.fileno())
        failpoints.passing("artifact.rename")
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise
