"""A flow as a static SVG: what each node takes and gives and, after a run, what became of it.

No scripts, no style sheet, no fonts of its own, and every text on a ground that comes with it: a code host shows the
picture as an image, on a page that may be light or dark.
"""

from __future__ import annotations

import itertools
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowkit.flow import ports
from flowkit.flow.graph import Graph, Wired
from flowkit.flow.layout import Layout, Spot, depths, layout
from flowkit.flow.node import REQUIRED, Node, Port
from flowkit.flow.outcome import Outcome, seconds
from flowkit.flow.rerun import replaced
from flowkit.model import NodeRun, State

_MOST_NODES, _MOST_EDGES = 120, 500  # beyond, a picture of each node is a picture of none
_WIDE = 1100  # px that a notebook shows without shrinking the picture much

_CARD, _HEAD, _ROW, _PAD, _ROWS = 176, 28, 18, 5, 7  # px; and the most input rows of a card
_GAP, _BETWEEN, _MARGIN = 18, 48, 12  # px between cards of a layer, between layers, around everything

_SANS = "system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
_INK, _FAINT, _LINE, _PAPER, _OUTSIDE = "#1f2328", "#656d76", "#8b949e", "#ffffff", "#7d8590"

#: State -> ground of the head, ink on it, word for it.
_COLOURS: dict[State | None, tuple[str, str, str]] = {
    None: ("#e7ebf0", _INK, ""),
    State.PENDING: ("#e7ebf0", _INK, ""),
    State.RUNNING: ("#0969da", "#ffffff", "running"),
    State.SUCCEEDED: ("#1a7f37", "#ffffff", "✓"),
    State.FAILED: ("#cf222e", "#ffffff", "✕"),
    State.SKIPPED: ("#d0d7de", "#424a53", "skipped"),
    State.CANCELLED: ("#9a6700", "#ffffff", "stopped"),
}


def picture(name: str, graph: Graph, outcome: Outcome | None) -> str:
    """The SVG of a graph, with the states of its last run for those nodes that have not been replaced since."""
    if not graph.nodes:
        return _notice(name, "no nodes yet: write @flow.node above a function")
    return drawn(name, graph, _last_states(graph, outcome))


def drawn(name: str, graph: Graph, states: Mapping[str, NodeRun]) -> str:
    """The SVG of a graph whose nodes stand as told; those of which nothing is told have no state."""
    if not graph.nodes:
        return _notice(name, "nothing is recorded of it")
    edges = sum(len(wired.reads) for wired in graph.nodes)
    if len(graph.nodes) > _MOST_NODES or edges > _MOST_EDGES:
        return _summary(name, graph, {key: run.state for key, run in states.items()}, edges)
    cards = {wired.node.name: _card(wired, graph, states.get(wired.node.name)) for wired in graph.nodes}
    return _detailed(name, graph, cards)


@dataclass(frozen=True, slots=True)
class _Row:
    label: str
    kind: str = ""
    dot: str = ""  #: "in", "parameter", "out", or none
    port: Port | None = None  #: of an input
    wrong: bool = False  #: an error's text


@dataclass(frozen=True, slots=True)
class _Card:
    node: Node
    rows: list[_Row]
    run: NodeRun | None

    @property
    def height(self) -> float:
        return _HEAD + (len(self.rows) * _ROW + 2 * _PAD if self.rows else 0)

    def place(self, dot: str, name: str) -> float:
        """How far down a port is; in the head if it has no row of its own, below the rows shown if it was cut."""
        for index, row in enumerate(self.rows):
            if row.dot == dot and name == (row.port.name if row.port else row.label):
                return _HEAD + _PAD + (index + 0.5) * _ROW
        if dot == "in":
            return _HEAD + _PAD + (_ROWS - 0.5) * _ROW
        return _HEAD / 2


def _last_states(graph: Graph, outcome: Outcome | None) -> dict[str, NodeRun]:
    if outcome is None:
        return {}
    runs = {run.name: run for run in outcome.nodes}
    gone = replaced(graph, outcome)
    return {name: runs[name] for name in (wired.node.name for wired in graph.nodes) if name not in gone}


def _card(wired: Wired, graph: Graph, run: NodeRun | None) -> _Card:
    node = wired.node
    rows = [_input_row(node, port, graph) for port in node.ports]
    rows += [_Row(f"{key} = {_short(constant)}") for key, constant in node.constants.items()]
    if len(rows) > _ROWS:
        rows = [*rows[: _ROWS - 1], _Row(f"… {len(rows) - _ROWS + 1} more")]
    own, *outputs = node.produced().items()
    if outputs:
        rows += [_Row(label, _kind(kind), "out") for label, kind in outputs]
    elif own[1] not in (Any, list):
        rows.append(_Row("", _kind(own[1]), "out"))
    if run and run.error and run.state is State.FAILED:
        rows.append(_Row(run.error, wrong=True))
    return _Card(node, rows, run)


def _input_row(node: Node, port: Port, graph: Graph) -> _Row:
    wanted = node.accepted(port)
    kind = "" if wanted is Any else _kind(wanted)
    label = port.name if port.source == port.name else f"{port.name} ← {port.source}"
    if port.name in node.map:
        label = f"each {label}"
    if port.source in graph.names():
        return _Row(label, kind, "in", port)
    return _Row(label if port.default is REQUIRED else f"{label} = {_short(port.default)}", kind, "parameter", port)


def _detailed(name: str, graph: Graph, cards: dict[str, _Card]) -> str:
    reads = graph.reads
    sorted_ones = {wired.node.name for wired in graph.order}
    order = [*(wired.node.name for wired in graph.order), *(key for key in reads if key not in sorted_ones)]
    sheet = _Sheet(layout(reads, order, {key: card.height for key, card in cards.items()}, gap=_GAP), cards)
    if sheet.width > _WIDE:
        down = _Sheet(layout(reads, order, dict.fromkeys(order, float(_CARD)), gap=_GAP), cards, downwards=True)
        sheet = down if down.width < sheet.width else sheet
    width = max(sheet.width, 460.0 if graph.problems else 240.0)
    top = _MARGIN + 28.0
    notice, height = _problems(graph.problems, top, width)
    top += height
    inside = "".join(_edges(sheet, graph)) + "".join(_draw_card(card, sheet) for card in cards.values())
    body = f"{_title(name, width)}{notice}<g transform='translate({_MARGIN} {top:.0f})'>{inside}</g>"
    return _svg(width + 2 * _MARGIN, sheet.height + top + _MARGIN + 4, body, f"flow {name}")


class _Sheet:
    """Layers and places turned into px: layers are columns from left to right, or rows downwards."""

    def __init__(self, found: Layout, cards: dict[str, _Card], *, downwards: bool = False) -> None:
        self.found = found
        self.cards = cards
        self.downwards = downwards
        thick = [
            max((cards[spot.name].height for spot in layer if spot.name), default=0.0) if downwards else float(_CARD)
            for layer in found.layers
        ]
        self.starts = [sum(thick[:layer]) + layer * _BETWEEN for layer in range(len(thick))]
        self.ends = [start + size for start, size in zip(self.starts, thick, strict=True)]
        self.width = found.breadth if downwards else self.ends[-1]
        self.height = self.ends[-1] if downwards else found.breadth

    def corner(self, name: str) -> tuple[float, float]:
        """Top left of a card."""
        spot, card = self.found.spots[name], self.cards[name]
        if self.downwards:
            return spot.centre - _CARD / 2, self.starts[spot.layer]
        return self.starts[spot.layer], spot.centre - card.height / 2

    def leaves(self, giver: str, source: str) -> tuple[float, float]:
        x, y = self.corner(giver)
        card = self.cards[giver]
        row = card.place("out", source) if source != giver else card.place("out", "")
        if self.downwards:
            return x + _CARD / 2, y + card.height
        return x + _CARD, y + row

    def enters(self, reader: str, port: Port) -> tuple[float, float]:
        x, y = self.corner(reader)
        card = self.cards[reader]
        if self.downwards:
            edges = [one for one in card.node.ports if any(row.port is one and row.dot == "in" for row in card.rows)]
            place = edges.index(port) if port in edges else len(edges) - 1
            return x + _CARD * (place + 1) / (len(edges) + 1), y
        return x, y + card.place("in", port.name)

    def passes(self, bend: Spot) -> list[tuple[float, float]]:
        ends = (self.starts[bend.layer], self.ends[bend.layer])
        return [(bend.centre, end) if self.downwards else (end, bend.centre) for end in ends]


def _edges(sheet: _Sheet, graph: Graph) -> Iterable[str]:
    for wired in graph.nodes:
        reader = wired.node.name
        for port in wired.node.ports:
            if port.source not in graph.names():
                continue
            giver = graph.node(port.source).name
            bends = sheet.found.bends.get((giver, reader))
            points = [sheet.leaves(giver, port.source)]
            for bend in bends or ():
                points += sheet.passes(bend)
            points.append(sheet.enters(reader, port))
            if bends is None:  # it closes a cycle
                yield (
                    f"<path d='{_detour(points[0], points[1], sheet)}' fill='none' stroke-width='1.5' "
                    f"stroke='#cf222e' stroke-dasharray='4 3'/>"
                )
            else:
                path = _curve(points, sheet.downwards)
                yield f"<path d='{path}' fill='none' stroke-width='1.5' stroke='{_LINE}'/>"


def _curve(points: Sequence[tuple[float, float]], downwards: bool) -> str:
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for place, ((x, y), (to_x, to_y)) in enumerate(itertools.pairwise(points)):
        if place % 2:  # straight through a layer, between two bends
            path += f"L{to_x:.1f} {to_y:.1f}"
        elif downwards:
            reach = max(abs(to_y - y) / 2, 24.0)
            path += f"C{x:.1f} {y + reach:.1f} {to_x:.1f} {to_y - reach:.1f} {to_x:.1f} {to_y:.1f}"
        else:
            reach = max(abs(to_x - x) / 2, 24.0)
            path += f"C{x + reach:.1f} {y:.1f} {to_x - reach:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
    return path


def _detour(start: tuple[float, float], end: tuple[float, float], sheet: _Sheet) -> str:
    """Back around all the cards."""
    (x, y), (to_x, to_y) = start, end
    if sheet.downwards:
        side = sheet.width + 8
        return f"M{x:.1f} {y:.1f}V{y + 9:.1f}H{side:.1f}V{to_y - 9:.1f}H{to_x:.1f}V{to_y:.1f}"
    below = sheet.height + 10
    return f"M{x:.1f} {y:.1f}H{x + 9:.1f}V{below:.1f}H{to_x - 9:.1f}V{to_y:.1f}H{to_x:.1f}"


def _draw_card(card: _Card, sheet: _Sheet) -> str:
    node, run = card.node, card.run
    x, y = sheet.corner(node.name)
    ground, ink, word = _COLOURS[run.state if run else None]
    border = "#cf222e" if run and run.state is State.FAILED else _LINE
    said = _said(run, word)
    parts = [f"<g transform='translate({x:.1f} {y:.1f})'><title>{_text(_tooltip(card))}</title>"]
    if node.map:  # a pile: it stands for many
        parts.append(
            f"<rect x='4' y='4' width='{_CARD}' height='{card.height:.0f}' rx='6' fill='{_PAPER}' stroke='{border}'/>"
        )
    parts.append(
        f"<rect width='{_CARD}' height='{card.height:.0f}' rx='6' fill='{_PAPER}'/>"
        f"<path d='{_head(bool(card.rows))}' fill='{ground}'/>"
        f"<rect width='{_CARD}' height='{card.height:.0f}' rx='6' fill='none' stroke='{border}'"
        f"{_dashed(run)}/>"
        f"<text x='10' y='18.5' font-size='13' font-weight='600' fill='{ink}'>"
        f"{_cut(node.name, _CARD - 30 - 6.8 * _width(said), 7.4)}</text>"
        f"<text x='{_CARD - 9}' y='18.5' font-size='11' text-anchor='end' fill='{ink}'>{_text(said)}</text>"
    )
    parts += [_draw_row(row, _HEAD + _PAD + place * _ROW) for place, row in enumerate(card.rows)]
    parts += [] if sheet.downwards else _dots(card)
    return "".join(parts) + "</g>"


def _head(open_below: bool) -> str:
    below = f"V{_HEAD}H0V6" if open_below else f"V{_HEAD - 6}a6 6 0 0 1 -6 6H6a6 6 0 0 1 -6 -6V6"
    return f"M0 6a6 6 0 0 1 6 -6H{_CARD - 6}a6 6 0 0 1 6 6{below}Z"


def _dashed(run: NodeRun | None) -> str:
    return " stroke-dasharray='4 3'" if run and run.state is State.SKIPPED else ""


def _draw_row(row: _Row, top: float) -> str:
    base = top + 13
    if row.wrong:
        return f"<text x='10' y='{base}' font-size='11' fill='#a40e26'>{_cut(row.label, _CARD - 20, 5.7)}</text>"
    if row.dot == "out":
        shown = _cut(f"{row.label}: {row.kind}" if row.label else f"→ {row.kind}", _CARD - 20, 6.0)
        return f"<text x='{_CARD - 10}' y='{base}' font-size='11' text-anchor='end' fill='{_FAINT}'>{shown}</text>"
    room = _CARD - 24 - min(6.0 * _width(row.kind), 80)
    ink = _INK if row.dot == "in" else _FAINT
    style = "" if row.dot == "in" else " font-style='italic'"
    label = f"<text x='10' y='{base}' font-size='11' fill='{ink}'{style}>{_cut(row.label, room, 5.9)}</text>"
    kind = _cut(row.kind, max(_CARD - 24 - 5.9 * _width(row.label), 80), 6.0)
    return f"{label}<text x='{_CARD - 10}' y='{base}' font-size='11' text-anchor='end' fill='{_FAINT}'>{kind}</text>"


def _dots(card: _Card) -> Iterable[str]:
    for row in card.rows:
        y = card.place(row.dot, row.label if row.dot == "out" else row.port.name if row.port else "")
        if row.dot == "in":
            yield f"<circle cx='0' cy='{y:.0f}' r='3.5' fill='{_LINE}' stroke='{_PAPER}'/>"
        elif row.dot == "parameter":
            yield f"<circle cx='0' cy='{y:.0f}' r='3' fill='{_PAPER}' stroke='{_LINE}'/>"
        elif row.dot == "out":
            yield f"<circle cx='{_CARD}' cy='{y:.0f}' r='3.5' fill='{_LINE}' stroke='{_PAPER}'/>"


def _said(run: NodeRun | None, word: str) -> str:
    if run and run.state in (State.SUCCEEDED, State.FAILED) and run.started and run.finished:
        return f"{seconds((run.finished - run.started).total_seconds())} {word}"
    return word


def _tooltip(card: _Card) -> str:
    node, run = card.node, card.run
    taken = ", ".join(f"{port.name}: {ports.describe(node.accepted(port))}" for port in node.ports)
    given = ", ".join(
        ports.describe(kind) if key == node.name else f"{key}: {ports.describe(kind)}"
        for key, kind in node.produced().items()
    )
    lines = [f"{node.name}({taken}) → {given}"]
    if node.retries:
        lines.append(f"{node.retries} retries, the first after {node.delay:g} s")
    if run:
        lines.append(f"{run.state.value}: {run.error}" if run.error else run.state.value)
    return "\n".join(lines)


def _title(name: str, width: float) -> str:
    return (
        f"<text x='{_MARGIN}' y='{_MARGIN + 12}' font-size='13' font-weight='600' fill='{_OUTSIDE}'>"
        f"<title>{_text(name)}</title>{_cut(name, width, 8.6)}</text>"
    )


def _problems(problems: Sequence[str], top: float, width: float) -> tuple[str, float]:
    """What is wrong, in words on red, and how high that is."""
    if not problems:
        return "", 0.0
    shown = [*problems[:3], *([f"… and {len(problems) - 3} more"] if len(problems) > 3 else [])]
    lines = [line for one in shown for line in textwrap.wrap(one, int((width - 24) / 6.1))]
    height = len(lines) * 16 + 14
    texts = "".join(
        f"<text x='{_MARGIN + 12}' y='{top + 19 + place * 16:.0f}' font-size='12' fill='#a40e26'>{_text(line)}</text>"
        for place, line in enumerate(lines)
    )
    box = (
        f"<rect x='{_MARGIN}' y='{top:.0f}' width='{width:.0f}' height='{height}' rx='6' fill='#fff1f0' "
        f"stroke='#cf222e'/>"
    )
    return box + texts, height + 14.0


def _notice(name: str, text: str) -> str:
    width = 400
    return _svg(
        width + 2 * _MARGIN,
        90,
        f"{_title(name, width)}<rect x='{_MARGIN}' y='40' width='{width}' height='38' rx='6' fill='{_PAPER}' "
        f"stroke='{_LINE}' stroke-dasharray='4 3'/><text x='{_MARGIN + 12}' y='63' font-size='12' fill='{_FAINT}'>"
        f"{_text(text)}</text>",
        f"flow {name}: {text}",
    )


def _summary(name: str, graph: Graph, states: dict[str, State], edges: int) -> str:
    """A column for each layer, as high as it has nodes, in the colours of their states."""
    placed = [wired.node.name for wired in graph.order]
    depth = depths(graph.reads, [*placed, *(set(graph.reads) - set(placed))])
    layers = max(depth.values()) + 1
    columns = min(layers, 80)
    counts = [Counter[State | None]() for _ in range(columns)]
    for key, layer in depth.items():
        counts[layer * columns // layers][states.get(key)] += 1
    highest = max(sum(count.values()) for count in counts)
    width, tall, top = 640.0, 120.0, _MARGIN + 28.0
    notice, height = _problems(graph.problems, top, width)
    top += height
    total = Counter(states.values())
    told = "".join(f" · {total[state]:,} {state.value}" for state in State if total[state])
    failed = [key for key, state in states.items() if state is State.FAILED]
    told += f" ({', '.join(failed[:3])}{', …' if len(failed) > 3 else ''})" if failed else ""
    step = (width - 24) / columns
    bars = []
    for place, count in enumerate(counts):
        at = top + 44 + tall
        for state in (None, *State):
            if not count[state]:
                continue
            size = tall * count[state] / highest
            at -= size
            ground = _LINE if state in (None, State.PENDING) else _COLOURS[state][0]
            bars.append(
                f"<rect x='{_MARGIN + 12 + place * step:.1f}' y='{at:.1f}' width='{max(step - 2, 1):.1f}' "
                f"height='{size:.1f}' fill='{ground}'/>"
            )
    body = (
        f"{_title(name, width)}{notice}<rect x='{_MARGIN}' y='{top}' width='{width}' height='{tall + 80}' rx='6' "
        f"fill='{_PAPER}' stroke='{_LINE}'/><text x='{_MARGIN + 12}' y='{top + 24}' font-size='13' fill='{_INK}'>"
        f"{_cut(f'{len(graph.nodes):,} nodes · {edges:,} edges · {layers:,} layers{told}', width - 24, 6.8)}</text>"
        f"{''.join(bars)}<text x='{_MARGIN + 12}' y='{top + tall + 65}' font-size='11' fill='{_FAINT}'>"
        f"nodes in each layer, from the first to the last; up to {_MOST_NODES} nodes are drawn one by one</text>"
    )
    return _svg(width + 2 * _MARGIN, top + tall + 80 + _MARGIN, body, f"flow {name}: {len(graph.nodes)} nodes")


def _svg(width: float, height: float, body: str, label: str) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:.0f}' height='{height:.0f}' "
        f"viewBox='0 0 {width:.0f} {height:.0f}' style='max-width:100%;height:auto' role='img' data-flowkit='' "
        f"aria-label='{_text(label)}' font-family=\"{_SANS}\">{body}</svg>"
    )


def _kind(kind: Any) -> str:
    return ports.describe(kind)


def _short(constant: Any) -> str:
    text = repr(constant) if isinstance(constant, str | int | float | bool | None) else type(constant).__name__
    return text if len(text) <= 24 else text[:22] + "…"


def _cut(text: str, room: float, each: float) -> str:
    """As much of it as has room, at *each* px a letter, fit to stand in XML."""
    text = " ".join(text.split())
    if _width(text) * each <= room:
        return _text(text)
    kept = ""
    for letter in text:
        if (_width(kept + letter) + 1) * each > room:
            break
        kept += letter
    return _text(kept + "…")


def _width(text: str) -> int:
    """In letters; those of East Asia count twice."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _text(text: str) -> str:
    printable = "".join(letter if letter >= " " or letter in "\t\n" else "�" for letter in text)
    from html import escape  # late, with its table of entities

    return escape(printable.encode("utf-8", "replace").decode())
