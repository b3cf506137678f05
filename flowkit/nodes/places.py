"""Where a node's files are: on this machine, or at any URL that fsspec knows. They appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from glob import glob as local_glob
from glob import has_magic
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from flowkit.errors import Unavailable, UsageError


def find(url: str) -> list[str]:
    """The files that *url* means, sorted: itself, or what its ``*``, ``?`` and ``[…]`` match.

    Raises:
        Unavailable: there is none.
    """
    local = _local(url)
    if local is not None:
        found = sorted(local_glob(str(local), recursive=True)) if has_magic(str(local)) else [str(local)]
        found = [path for path in found if os.path.isfile(path)]
    else:
        system, path = _remote(url)
        try:
            names = system.glob(path) if has_magic(path) else [path] if system.isfile(path) else []
        except OSError as error:
            raise Unavailable(f"cannot look for {url}: {error.strerror or error}") from error
        found = [system.unstrip_protocol(name) for name in sorted(names)]
    if not found:
        raise Unavailable(f"there is no file {url}; give the path of one, or a pattern such as data/*.csv")
    return found


def exists(url: str) -> bool:
    """Whether there is such a file now, or one that the pattern matches."""
    try:
        return bool(find(url))
    except Unavailable as error:
        if error.__cause__ is not None:
            raise
        return False


def read(url: str) -> IO[bytes]:
    """One file, from its beginning."""
    local = _local(url)
    try:
        if local is not None:
            return local.open("rb")
        system, path = _remote(url)
        file: IO[bytes] = system.open(path, "rb")
        return file
    except OSError as error:
        raise Unavailable(f"cannot read {url}: {error.strerror or error}") from error


@contextlib.contextmanager
def whole(url: str) -> Iterator[Path]:
    """A file of this machine to fill, which takes its place at *url* when the block ends well.

    Until then *url* is as it was. On this machine it is renamed, which readers see as one step; elsewhere it is put as
    one object, so the machine needs as much room in its temporary folder.
    """
    if has_magic(url):
        raise UsageError(f"{url} is a pattern, and a file is written at one place; give its path")
    local = _local(url)
    folder = None if local is None else local.parent
    name = (folder or Path(tempfile.gettempdir())) / f".flowkit.{uuid.uuid4().hex}{os.path.splitext(url)[1]}"
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        # Not by tempfile, whose files are their owner's alone, also under their last name.
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if local is not None else 0o600))
    except OSError as error:
        raise Unavailable(f"cannot write {url}: {error.strerror or error}") from error
    try:
        yield name
        try:
            if local is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.chmod(name, local.stat().st_mode & 0o777)
                os.replace(name, local)
            else:
                system, path = _remote(url)
                system.put_file(str(name), path)
        except OSError as error:
            raise Unavailable(f"cannot write {url}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _local(url: str) -> Path | None:
    if url.startswith("file://"):
        return Path(unquote(urlsplit(url).path))
    return None if "://" in url else Path(url).expanduser()


def _remote(url: str) -> tuple[Any, str]:
    if any(part.startswith(("http://", "https://")) for part in url.split("::")):
        # fsspec would connect to whatever address it names.
        raise UsageError(
            f"{url.split('?')[0]} is an address of the web; fetch it with http.download, and read that file"
        )
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # a package that its protocol needs, or no such protocol
        raise UsageError(f"{url} cannot be reached: {error}") from error
    if getattr(system, "use_listings_cache", True):
        system.invalidate_cache()  # others write here too
    return system, path
