"""Has the code that a process has loaded changed on disk since?

Looked at before each run, so it must cost little. Of installed code the folders are looked at each time, 0.3 ms for
IPython and pandas: pip never writes into a file, it makes another. Local files are each looked at each time; those of
installed code, where somebody might edit one in place, at most once a second, as they take 2 ms.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence

#: Seconds between two looks at every installed file.
EVERY = 1.0

#: Seconds by which a file system's clock may be coarse or behind.
_COARSE = 0.05

_INSTALLED = ("site-packages", "dist-packages")

Stamp = tuple[int, int, int, int] | None


class Loaded:
    """The files and folders that code was loaded from, as they were."""

    def __init__(self, files: Iterable[str], path: Sequence[str], *, began: float, library: str) -> None:
        """
        Args:
            path: where modules are looked for.
            began: wall clock, before the first of the files was read.
            library: the folder of Python's own modules.
        """
        installed = {file for file in files if _installed(file, library)}
        local = set(files) - installed
        folders = {os.path.dirname(file) for file in installed} | {p for p in path if _installed(p + "/", library)}
        self._often = {place: _stamp(place) for place in local | folders}
        self._seldom = {place: _stamp(place) for place in installed}
        self._tops = {
            os.path.relpath(f, p).split(os.sep)[0].partition(".")[0] for p in path for f in files if f.startswith(p)
        }
        # People write data into local folders: only what would be imported in place of what is loaded matters.
        self._searched = {p: (_stamp(p), self._shadows(p)) for p in path if not _installed(p + "/", library)}
        self._looked = time.monotonic()
        late = int((began - _COARSE) * 1e9)
        stamps = (*self._often.items(), *self._seldom.items())
        self._changed_early = next((place for place, stamp in stamps if stamp is not None and stamp[3] >= late), None)

    def changed(self) -> str | None:
        """What has, if anything."""
        if self._changed_early is not None:  # who knows what was read: the old or the new
            return self._changed_early
        for place, stamp in self._often.items():
            if _stamp(place) != stamp:
                return place
        for place, (stamp, shadows) in self._searched.items():
            now = _stamp(place)
            if now != stamp:
                if self._shadows(place) != shadows:
                    return place
                self._searched[place] = now, shadows
        if time.monotonic() - self._looked >= EVERY:
            for place, stamp in self._seldom.items():
                if _stamp(place) != stamp:
                    return place
            self._looked = time.monotonic()
        return None

    def _shadows(self, folder: str) -> frozenset[str]:
        try:
            return frozenset(name for name in os.listdir(folder) if name.partition(".")[0] in self._tops)
        except OSError:
            return frozenset()


def _installed(place: str, library: str) -> bool:
    return any(f"{os.sep}{name}{os.sep}" in place for name in _INSTALLED) or place.startswith(library + os.sep)


def _stamp(place: str) -> Stamp:
    try:
        found = os.stat(place)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
