"""Keeps values of secrets out of what is stored: in every form in which a text, a page or a document holds them."""

from __future__ import annotations

import base64
import html
import json
import pickle
import threading
from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote, quote_plus

from flowkit.events import Event

#: What stands in the place of a value.
HIDDEN = "***"

#: Characters of a value. What is shorter stands everywhere by chance, and hiding it would tell what it is.
SHORTEST = 4

#: Characters of a line of a value that has several, and of base64 in the middle of other base64, that are hidden.
_LINE = 8

#: Of events of these kinds nothing is a notebook's word, and they may be large.
_OURS = frozenset({"packages", "usage"})


class Redaction:
    """The values that are to be hidden, which may become more. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: set[str] = set()
        self._forms: tuple[str, ...] = ()  # the longest first: one may stand within another
        self._by_first: dict[str, list[str]] = {}
        self._longest = 0

    def __bool__(self) -> bool:
        return bool(self._forms)

    def add(self, value: str) -> None:
        """From now on *value* is hidden."""
        with self._lock:
            if value in self._values:
                return
            self._values.add(value)
            forms, first = list(self._forms), dict(self._by_first)  # others read the old ones meanwhile
            for form in set(_forms(value)):
                insort(forms, form, key=lambda one: -len(one))
                first[form[0]] = [*first.get(form[0], ()), form]
            self._forms, self._by_first, self._longest = tuple(forms), first, len(forms[0])

    def text(self, text: str) -> str:
        for form in self._forms:
            if form in text:
                text = text.replace(form, HIDDEN)
        return text

    def unfinished(self, text: str) -> int:
        """How many characters at the end of *text* may be the beginning of what is to be hidden."""
        for place in range(max(0, len(text) - self._longest + 1), len(text)):
            end = text[place:]
            if any(len(form) > len(end) and form.startswith(end) for form in self._by_first.get(end[0], ())):
                return len(end)
        return 0

    def plain(self, value: Any) -> Any:
        """*value*, which is what JSON can hold, with every text in it redacted; itself if nothing is to be hidden."""
        return _mapped(value, self.text) if self._forms else value

    def event(self, event: Event) -> Event:
        if not self._forms or event.kind in _OURS:
            return event
        error = None if event.error is None else self.text(event.error)
        name, flow = self.text(event.name), self.text(event.flow)
        return replace(event, name=name, flow=flow, error=error, data=self.plain(event.data))

    def found_in(self, value: Any) -> bool:
        """Whether an object holds one of the values. Raises whatever its pickling raises."""
        if not self._forms:
            return False
        try:
            pickle.Pickler(_Sieve(self._values), protocol=5).dump(value)
        except _Found:
            return True
        return False


class _Found(Exception):
    pass


class _Sieve:
    """A file of which nothing is kept. Raises _Found when a value was written to it, in one piece or in two."""

    def __init__(self, values: set[str]) -> None:
        self._wanted = [value.encode(coding) for value in values for coding in ("utf-8", "utf-16-le", "utf-32-le")]
        self._keep = max(map(len, self._wanted)) - 1
        self._end = b""

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        new = bytes(view)
        seam = self._end + new
        if any(value in seam for value in self._wanted):
            raise _Found
        self._end = seam[-self._keep :]
        return len(new)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_mapped(key, change): _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(item, change) for item in value]
    return value


def _forms(value: str) -> Iterator[str]:
    """How a value may stand in a text: plain, in JSON, in ``repr``, in HTML, in a URL, in base64."""
    yield from _written(value)
    lines = [line.strip() for line in value.splitlines()]
    for line in lines if len(lines) > 1 else ():
        if len(line) >= _LINE:  # a key in PEM is shown line by line, and each has its own base64
            yield from _written(line)
    yield from _in_base64(value.encode("utf-8", "surrogatepass"))


def _written(value: str) -> Iterator[str]:
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield html.escape(value)
    yield html.escape(value, quote=False)
    data = value.encode("utf-8", "surrogatepass")
    for quoted in (quote(data, safe=""), quote(data), quote_plus(data)):
        yield quoted
        yield quoted.lower() if "%" in quoted else quoted


def _in_base64(data: bytes) -> Iterator[str]:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(data).decode()
        for before in range(3):  # within other text, as "user:password": what its neighbours change is left out
            whole = encode(bytes(before) + data).decode()
            begin = (0, 2, 3)[before]
            over = (before + len(data)) % 3
            end = len(whole) - (0, 3, 2)[over]
            if end - begin >= _LINE:
                yield whole[begin:end]
