"""Where the nodes of a graph stand: layers by longest path, order by barycentre, places by least squares.

The first two steps are Sugiyama's; the third is isotonic regression (pool adjacent violators), which moves each node as
near to its neighbours as the order and the sizes in its layer allow.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_SWEEPS = 6


@dataclass(slots=True, eq=False)
class Spot:
    """A node in its layer, or a bend of an edge that passes through it."""

    layer: int
    name: str | None  #: None for a bend
    size: float  #: along the layer
    before: list[Spot] = field(default_factory=list)
    after: list[Spot] = field(default_factory=list)
    centre: float = 0.0  #: along the layer, from 0
    rank: float = 0.0


@dataclass(slots=True)
class Layout:
    layers: list[list[Spot]]
    spots: dict[str, Spot]
    bends: dict[tuple[str, str], list[Spot]]  #: (giver, reader) -> what the edge passes through, in order
    breadth: float  #: extent along the layers


def depths(reads: Mapping[str, Sequence[str]], order: Iterable[str]) -> dict[str, int]:
    """node -> its layer. An edge against *order* (there is one on each cycle) does not count."""
    found: dict[str, int] = {}
    for name in order:
        found[name] = max((found[giver] + 1 for giver in reads[name] if giver in found), default=0)
    return found


def layout(
    reads: Mapping[str, Sequence[str]], order: Sequence[str], sizes: Mapping[str, float], *, gap: float
) -> Layout:
    """Places for all nodes; *sizes* and *gap* along the layers."""
    depth = depths(reads, order)
    layers: list[list[Spot]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    spots = {name: Spot(depth[name], name, sizes[name]) for name in order}
    for spot in spots.values():
        layers[spot.layer].append(spot)
    bends = {}
    for reader in order:
        for giver in reads[reader]:
            if depth[giver] < depth[reader]:
                bends[giver, reader] = _thread(spots[giver], spots[reader], layers)
    _arrange(layers)
    _settle(layers, gap)
    tops = [spot.centre - spot.size / 2 for layer in layers for spot in layer]
    for layer in layers:
        for spot in layer:
            spot.centre -= min(tops)
    breadth = max((spot.centre + spot.size / 2 for layer in layers for spot in layer), default=0.0)
    return Layout(layers, spots, bends, breadth)


def _thread(giver: Spot, reader: Spot, layers: list[list[Spot]]) -> list[Spot]:
    """A bend in each layer between the two, and all of them linked."""
    chain = [giver]
    for layer in range(giver.layer + 1, reader.layer):
        bend = Spot(layer, None, 6.0)
        layers[layer].append(bend)
        chain.append(bend)
    chain.append(reader)
    for one, next_one in itertools.pairwise(chain):
        one.after.append(next_one)
        next_one.before.append(one)
    return chain[1:-1]


def _arrange(layers: list[list[Spot]]) -> None:
    for layer in layers:
        _rank(layer)
    for _ in range(_SWEEPS):
        for layer in layers[1:]:
            layer.sort(key=lambda spot: _mean([near.rank for near in spot.before], spot.rank))
            _rank(layer)
        for layer in reversed(layers[:-1]):
            layer.sort(key=lambda spot: _mean([near.rank for near in spot.after], spot.rank))
            _rank(layer)


def _rank(layer: list[Spot]) -> None:
    for index, spot in enumerate(layer):
        spot.rank = (index + 0.5) / len(layer)


def _settle(layers: list[list[Spot]], gap: float) -> None:
    for layer in layers:
        at = 0.0
        for spot in layer:
            spot.centre = at + spot.size / 2
            at += spot.size + gap
        for spot in layer:
            spot.centre -= at / 2
    for _ in range(_SWEEPS):
        for layer in layers[1:]:
            _spread(layer, [_mean([near.centre for near in spot.before], spot.centre) for spot in layer], gap)
        for layer in reversed(layers[:-1]):
            _spread(layer, [_mean([near.centre for near in spot.after], spot.centre) for spot in layer], gap)


def _spread(layer: list[Spot], wanted: list[float], gap: float) -> None:
    """Move each spot to where it is wanted, as nearly as the order, sizes and gaps allow."""
    offsets, at = [], 0.0
    for index, spot in enumerate(layer):
        at += spot.size / 2 + (gap + layer[index - 1].size / 2 if index else 0.0)
        offsets.append(at)
    blocks: list[list[float]] = []  # [sum of what is wanted, count]
    for want, offset in zip(wanted, offsets, strict=True):
        blocks.append([want - offset, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    places = [total / count for total, count in blocks for _ in range(int(count))]
    for spot, place, offset in zip(layer, places, offsets, strict=True):
        spot.centre = place + offset


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
