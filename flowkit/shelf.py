"""Where the results of nodes are kept: each a file, and a description beside it that anybody may read.

Nobody unpickles here. The description says what the result is, how it can be read, and its digest: a file that was
cut short or changed is found out when it is read, and its node computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from io import BufferedIOBase
from typing import IO, Any, cast

from flowkit.artifacts import Artifacts
from flowkit.errors import FlowkitError

#: How much of a node's name is in the names of its files, which may be 255 bytes long.
_NAMED = 40

_SUFFIX = ".json"

#: In the run folder, written by the worker before the kernel starts: where results go, and how many bytes of them.
KEEP = "keep.json"

#: Under the root of the artifacts: results that any run may use.
CACHE = "cache"


class Damaged(FlowkitError):
    """A kept result is not what was kept."""


def kept_path(run: str) -> str:
    """The folder of a run's results, of all its attempts."""
    return f"runs/{run}/kept"


def handed_path(run: str, attempt: int) -> str:
    """The folder of what an attempt has handed over to its parent."""
    return f"runs/{run}/handed/{attempt}"


def stem(node: str, key: str) -> str:
    """What the files of a result are called, without their ends.

    Args:
        node: its name, or an item's: ``report[3]``.
    """
    return f"{_label(node)}.{key[:32]}"


def _label(node: str) -> str:
    return node.partition("[")[0][:_NAMED]


class Shelf:
    """A folder of results."""

    def __init__(self, artifacts: Artifacts, folder: str) -> None:
        self.artifacts = artifacts
        self.folder = folder

    def stems(self) -> set[str]:
        """Of all results that are here."""
        return {name.removesuffix(_SUFFIX) for name in self.artifacts.sizes(self.folder) if name.endswith(_SUFFIX)}

    def size(self) -> int:
        """Bytes."""
        return sum(self.artifacts.sizes(self.folder).values())

    def facts(self, stem: str) -> dict[str, Any] | None:
        """The description of a result; None if there is none, or it cannot be read."""
        data = self.artifacts.read(f"{self.folder}/{stem}{_SUFFIX}")
        if data is None:
            return None
        try:
            facts = json.loads(data)
        except ValueError:
            return None
        return facts if isinstance(facts, dict) else None

    def keep(self, stem: str, write: Callable[[IO[bytes]], Mapping[str, Any]]) -> dict[str, Any]:
        """Have the result written, and return its description. Two writers of one stem: one whole result stays.

        Args:
            write: fills a file, and describes what it wrote; ``suffix`` is the end of the file's name.
        """
        with self.artifacts.scratch(self.folder) as made:
            described = write(made.file)
            made.file.flush()
            digest = digest_of(made.file)
            size = made.file.tell()
            name = f"{stem}.{digest[:16]}{described['suffix']}"  # each writer's own, so that none writes into another's
            made.publish(name)
        facts = {**described, "file": name, "size": size, "digest": digest}
        self._write(f"{stem}{_SUFFIX}", json.dumps(facts).encode())
        return facts

    def beside(self, name: str, data: bytes) -> None:
        """A further file, such as a picture."""
        self._write(name, data)

    def open(self, facts: Mapping[str, Any]) -> IO[bytes]:
        """The file of a result, which has been compared with its digest. Raises Damaged."""
        file = self.artifacts.open(f"{self.folder}/{facts['file']}")
        if file is None:
            raise Damaged(f"{facts['file']} is gone")
        if digest_of(file) != facts["digest"]:
            file.close()
            raise Damaged(f"{facts['file']} is not what was kept: it was cut short or changed")
        file.seek(0)
        return file

    def forget(self, nodes: Iterable[str]) -> int:
        """Remove all results of these nodes and of their items; how many there were."""
        labels = {_label(node) for node in nodes}
        return self._remove(lambda name: name.partition(".")[0] in labels)

    def drop(self, stem: str) -> None:
        """Remove one result."""
        self._remove(lambda name: name.startswith(f"{stem}."))

    def _remove(self, doomed: Callable[[str], bool]) -> int:
        names = [name for name in self.artifacts.sizes(self.folder) if doomed(name)]
        described = [name for name in names if name.endswith(_SUFFIX)]
        self.artifacts.remove_files(self.folder, sorted(names, key=lambda name: not name.endswith(_SUFFIX)))
        return len(described)

    def described(self, nodes: Iterable[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every result here, or those of some nodes, with its description."""
        labels = None if nodes is None else {_label(node) for node in nodes}
        for one in sorted(self.stems()):
            if labels is not None and one.partition(".")[0] not in labels:
                continue
            with suppress(FlowkitError):
                if (facts := self.facts(one)) is not None:
                    yield one, facts

    def _write(self, name: str, data: bytes) -> None:
        with self.artifacts.scratch(self.folder) as made:
            made.file.write(data)
            made.publish(name)


def digest_of(file: IO[bytes]) -> str:
    file.seek(0)
    return hashlib.file_digest(cast(BufferedIOBase, file), "sha256").hexdigest()
