"""An executed notebook as one HTML document without scripts, links to other machines' files, or surprises in size.

Its outputs are the work of whoever wrote the notebook, or of the data it read: untrusted. What keeps them from doing
harm is the policy it is served with (``POLICY``: no script runs, nothing is loaded, its origin is its own). The rest
here is about looks and size.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nbformat.v4
from nbconvert.filters.ansi import ansi2html, strip_ansi
from nbconvert.filters.highlight import Highlight2HTML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

#: What may happen in a frame with such a document: links open a new tab, and nothing else. The frame's attribute.
SANDBOX = "allow-popups allow-popups-to-escape-sandbox"
#: The same for the document itself, however it is opened.
POLICY = (
    f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
    f"frame-ancestors 'self'; sandbox {SANDBOX}"
)

# What more is left out: pages of this size are still laid out in well under a second.
TEXT = 100_000  # characters of one printed output: its beginning and its end
MARKUP = 1_000_000  # characters of one HTML output
IMAGE = 4_000_000  # characters of one picture, in base64
ALL = 8_000_000  # of all that together
SOURCE = 200_000  # characters of source in colour: it is what takes longest
CELLS = 2_000

#: The id of the first cell that failed; a link with ``#failed`` shows it.
FAILED = "failed"

# The richest first. A picture before HTML that wants to run a script, see ``_best``.
_KINDS = ("text/html", "image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp", "text/markdown",
          "text/latex", "application/json", "text/plain")  # fmt: skip
_PICTURES = _KINDS[1:6]
_STYLE = Path(__file__).with_name("document.css")


def document(notebook: bytes, *, name: str) -> str:
    """The whole page. *name*: what it is called, in its title.

    Raises: ValueError if it is no notebook.
    """
    try:
        content = nbformat.v4.reads(notebook.decode())
        cells = content["cells"]
        language = str(content["metadata"].get("language_info", {}).get("name") or "python")
        rendering = _Rendering(language)
        body = "".join(rendering.cell(cell) for cell in cells[:CELLS])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"it cannot be read as a notebook: {type(error).__name__}: {error}") from error
    if len(cells) > CELLS:
        body += _note(f"{len(cells) - CELLS} more cells are left out here; download the notebook to see them")
    return page(name, body)


def page(title: str, body: str) -> str:
    """A document in the same dress, made of safe *body*."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{html.escape(title)}</title><style>{_style()}</style></head><body><main>{body}</main></body></html>"
    )


def message(text: str) -> str:
    """A document that says why there is none."""
    return page(text, f'<p class="empty">{html.escape(text)}</p>')


@dataclass
class _Rendering:
    """One rendering: what is left of its room, and whether it has seen the failure."""

    language: str
    room: int = ALL
    colours: int = SOURCE
    failed: bool = False

    def cell(self, cell: Mapping[str, Any]) -> str:
        source = str(cell.get("source", ""))
        if cell["cell_type"] == "markdown":
            return f'<section class="cell prose">{self._markdown(source, cell.get("attachments"))}</section>'
        if cell["cell_type"] != "code":
            return f'<section class="cell"><pre class="source">{_text(source)}</pre></section>' if source else ""
        if not source.strip() and not cell.get("outputs"):
            return ""
        outputs = "".join(self._outputs(cell.get("outputs", [])))
        broken = any(output.get("output_type") == "error" for output in cell.get("outputs", []))
        anchor = f' id="{FAILED}"' if broken and not self.failed else ""
        self.failed = self.failed or broken
        return (
            f'<section class="cell code{" broken" * broken}"{anchor}>'
            f'<div class="count">{html.escape(str(cell.get("execution_count") or ""))}</div>'
            f'<div class="body">{_tags(cell)}'
            f'<div class="source">{self._source(source)}</div>{outputs}</div></section>'
        )

    def _source(self, source: str) -> str:
        self.colours -= len(source)
        if self.colours < 0:
            return f"<pre>{_text(_shortened(source))}</pre>"
        return str(_highlight(source, language="ipython3" if self.language == "python" else self.language))

    def _outputs(self, outputs: list[Mapping[str, Any]]) -> Iterator[str]:
        for output in _merged(outputs):
            kind = output.get("output_type")
            if kind == "stream":
                stream = "stderr" if output.get("name") == "stderr" else "stdout"
                yield self._pre(str(output.get("text", "")), f"output {stream}")
            elif kind == "error":
                lines = output.get("traceback") or [f"{output.get('ename')}: {output.get('evalue')}"]
                yield self._pre("\n".join(map(str, lines)), "output error", free=True)
            elif kind in ("execute_result", "display_data"):
                yield f'<div class="output">{self._rich(output.get("data", {}))}</div>'

    def _rich(self, data: Mapping[str, Any]) -> str:
        kind, value = _best(data)
        if kind is None:
            return _note(f"this output has only forms that cannot be shown here: {', '.join(map(str, data)) or 'none'}")
        if kind in _PICTURES:
            return self._fits(kind, value, IMAGE) or _picture(kind, value)
        if kind in ("text/html", "text/markdown"):
            too_big = self._fits(kind, value, MARKUP)
            if too_big:
                return too_big
            if kind == "text/markdown":
                return f'<div class="prose">{self._markdown(value, None)}</div>'
            note = _note("this output wants to run a script, which nothing here may; open the notebook in Jupyter")
            return f'<div class="html">{_tamed(value)}</div>' + note * _has_script(value)
        return self._pre(value, "result")

    def _pre(self, text: str, kind: str, *, free: bool = False) -> str:
        """*free*: shown even if there is no room left, for a failure is what people come for."""
        if not free and self.room <= 0:
            return _note(f"{len(text):,} characters of output are left out here; download the notebook to see them")
        text = _shortened(_overwritten(text))
        self.room -= len(text)
        return f'<pre class="{kind}">{ansi2html(text)}</pre>'

    def _fits(self, kind: str, value: str, most: int) -> str | None:
        """None, and the room is taken; or what to show instead."""
        if len(value) <= min(most, self.room):
            self.room -= len(value)
            return None
        return _note(f"{kind} of {len(value) / 1e6:.1f} MB is left out here; download the notebook to see it")

    def _markdown(self, source: str, attachments: Mapping[str, Any] | None) -> str:
        renderer = IPythonRenderer(escape=False, attachments=dict(attachments or {}), exclude_anchor_links=True)
        return _tamed(str(MarkdownWithMath(renderer=renderer).render(source)))


def _best(data: Mapping[str, Any]) -> tuple[str | None, str]:
    found = {kind: _as_text(kind, data[kind]) for kind in _KINDS if kind in data}
    if "text/html" in found and _has_script(found["text/html"]):
        for kind in _PICTURES:
            if kind in found:
                return kind, found[kind]
    return next(iter(found.items()), (None, ""))


def _as_text(kind: str, value: Any) -> str:
    if kind == "application/json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    return value if isinstance(value, str) else "".join(map(str, value))


def _has_script(markup: str) -> bool:
    return "<script" in markup.lower()


def _picture(kind: str, value: str) -> str:
    # An SVG too: as a picture it runs nothing and loads nothing.
    if kind == "image/svg+xml":
        value = base64.b64encode(value.encode()).decode()
    return f'<img alt="" src="data:{kind};base64,{html.escape("".join(value.split()))}">'


def _tamed(markup: str) -> str:
    """Links to elsewhere open a tab of their own; here they would replace the notebook."""
    return _LINK.sub(r'<a target="_blank" rel="noopener noreferrer"', markup)


_LINK = re.compile(r"""<a(?=\s[^>]*href\s*=\s*["']?\s*https?:)""", re.IGNORECASE)


def _tags(cell: Mapping[str, Any]) -> str:
    """A parameters cell and the one that papermill put below it are worth telling apart."""
    known = {"parameters": "default parameters", "injected-parameters": "parameters of this run"}
    tags = cell.get("metadata", {}).get("tags", [])
    return "".join(f'<div class="tag">{label}</div>' for tag, label in known.items() if tag in tags)


_highlight = Highlight2HTML()


def _merged(outputs: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """What was printed in many pieces, as one."""
    pending: dict[str, Any] | None = None
    for output in outputs:
        if pending and output.get("output_type") == "stream" and output.get("name") == pending.get("name"):
            pending["parts"].append(str(output.get("text", "")))
            continue
        if pending:
            yield pending | {"text": "".join(pending["parts"])}
            pending = None
        if output.get("output_type") == "stream":
            pending = dict(output) | {"parts": [str(output.get("text", ""))]}
        else:
            yield output
    if pending:
        yield pending | {"text": "".join(pending["parts"])}


def _overwritten(text: str) -> str:
    r"""As a terminal shows it: what stands before a ``\r`` was written over, as progress bars do."""
    if "\r" not in text:
        return text
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n"))


def _shortened(text: str) -> str:
    if len(text) <= TEXT:
        return text
    text = strip_ansi(text)  # a cut may leave a colour without its end
    begin, end = text[: TEXT // 2], text[-TEXT // 2 :]
    return (
        f"{begin}\n\n… {len(text) - TEXT:,} characters are left out here; download the notebook to see them …\n\n{end}"
    )


def _text(text: str) -> str:
    return html.escape(text)


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


@cache
def _style() -> str:
    return _STYLE.read_text(encoding="utf-8")
