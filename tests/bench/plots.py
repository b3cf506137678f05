"""Bars as SVG text: legible on a light page and on a dark one, with nothing to install and nothing to load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, LABEL, VALUE, ROW, PAD = 760, 210, 70, 24, 20

#: On a card of its own, as a page's theme and the system's need not agree.
STYLE = """
.card{fill:#fff;stroke:#d0d7de}.title{fill:#1f2328;font-weight:600}.name,.value{fill:#1f2328}.quiet{fill:#59636e}
.bar{fill:#afb8c1}.own .bar{fill:#1a7f37}.own text{font-weight:600}.axis{stroke:#d0d7de}
@media (prefers-color-scheme:dark){
.card{fill:#0d1117;stroke:#3d444d}.title,.name,.value{fill:#f0f6fc}.quiet{fill:#9198a1}
.bar{fill:#57606a}.own .bar{fill:#3fb950}.axis{stroke:#3d444d}}
"""


class Bar(NamedTuple):
    name: str
    value: float
    own: bool = False  #: it is flowkit's, and stands out


def bars(title: str, groups: Sequence[tuple[str, Sequence[Bar]]], note: str) -> str:
    """Horizontal, in groups of one linear scale from 0, each with its value beside it."""
    groups = [(name, of) for name, of in groups if of]
    most = max(bar.value for _, of in groups for bar in of)
    room = WIDTH - 2 * PAD - LABEL - VALUE
    parts, y = [], PAD + 16
    parts.append(f'<text class="title" x="{PAD}" y="{y}" font-size="15">{escape(title)}</text>')
    for name, of in groups:
        y += 32
        parts.append(f'<text class="quiet" x="{PAD}" y="{y}" font-size="12">{escape(name)}</text>')
        top = y + 8
        for bar in of:
            y += ROW
            length = max(1.5, room * bar.value / most)
            start, base = PAD + LABEL, y + 4
            parts.append(
                f'<g font-size="13" class="{"own" if bar.own else "other"}">'
                f'<text class="name" x="{start - 10}" y="{base}" text-anchor="end">{escape(bar.name)}</text>'
                f'<rect class="bar" x="{start}" y="{y - 8}" width="{length:.1f}" height="16" rx="2"/>'
                f'<text class="value" x="{start + length + 8:.1f}" y="{base}">{bar.value:,.0f}</text></g>'
            )
        parts.append(f'<path class="axis" d="M{PAD + LABEL - 0.5} {top}V{y + 12}" fill="none"/>')
        y += 4
    y += 34
    parts.append(f'<text class="quiet" x="{PAD}" y="{y}" font-size="12">{escape(note)}</text>')
    height = y + PAD
    said = "; ".join(f"{bar.name} {bar.value:,.0f}" for _, of in groups for bar in of)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" font-family="system-ui,-apple-system,\'Segoe UI\',Roboto,Helvetica,Arial,sans-serif">'
        f"<title>{escape(f'{title}: {said}')}</title><style>{STYLE}</style>"
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>{"".join(parts)}</svg>\n'
    )
