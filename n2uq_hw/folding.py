"""Folding: how many elements each unit takes and makes per cycle, and in which style.

PE is a unit's output channels per cycle, SIMD its inputs per cycle.  A folding is a small YAML file
that people edit: ``layer: {pe: 4, simd: 9, style: parallel}``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import singledispatch
from math import lcm
from pathlib import Path
from typing import Any

import yaml

from .errors import N2uqError
from .ir import Edge, Flatten, Graph, Input, MatVec, Node, Pad, SlidingWindow, Threshold

__all__ = ["Fold", "Folding", "choose", "fold_cycles", "load_folding", "save_folding",
           "slowest_window"]


@dataclass(frozen=True)
class Fold:
    """Folding of one unit: `pe` lanes out, `simd` lanes in (MatVec only), style and product form.

    `style` is how a Threshold compares ("parallel", "search"), `form` how a MatVec multiplies
    ("planes", "product", "direct", or "" for the cheaper one of its widths).
    """

    pe: int = 1
    simd: int = 1
    style: str = "parallel"
    form: str = ""


Folding = dict[str, Fold]


def fold_cycles(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> int:
    """Cycles per image in which the unit is busy, when its neighbours keep up."""
    if isinstance(node, MatVec):
        return edge.size * node.weights.shape[1] // (fold.pe * fold.simd)
    return max(e.size for e in (*reads, edge)) // fold.pe


def slowest_window(graph: Graph) -> int:
    """Cycles per image that no folding of the MatVecs can save, at all channels per beat.

    A sliding window makes one pixel per cycle; without windows, the input gives 4 elements.
    """
    windows = [edge.size // graph.reads(node)[0].channels for node in graph.nodes
               if isinstance(node, SlidingWindow) for edge in [graph.edges[node.name]]]
    return max(windows, default=-(-graph.edges[graph.input.name].size // 4))


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def choose(graph: Graph, cycles: int | None = None) -> Folding:
    """The fewest multipliers per layer that take at most `cycles` per image.

    Parameters
    ----------
    graph: lowered graph.
    cycles: target cycles per image, at least 1; default `slowest_window`.

    Raises N2uqError where a layer cannot reach the target at all.
    """
    target = slowest_window(graph) if cycles is None else cycles
    if target < 1:
        raise N2uqError(f"{graph.name}: cycles per image must be at least 1, not {target}")
    folding: Folding = {}
    for node in reversed(graph.nodes):
        if not isinstance(node, Flatten):
            folding[node.name] = _choose(node, graph, folding, target)
    return {node.name: folding[node.name] for node in graph.nodes if node.name in folding}


def _reader(graph: Graph, node: Node) -> Node | None:
    for other in graph.nodes:
        if node.name in other.inputs:
            return _reader(graph, other) if isinstance(other, Flatten) else other
    return None


@singledispatch
def _choose(node: Node, graph: Graph, folding: Folding, target: int) -> Fold:
    """Element by element: as few lanes as the beats that its reads bring in time allow."""
    return _elementwise(node, graph, graph.edges[node.name].channels, target)


def _elementwise(node: Node, graph: Graph, lanes: int, target: int) -> Fold:
    beats = max(e.size for e in (*graph.reads(node), graph.edges[node.name]))
    fits = [d for d in _divisors(lanes) if beats // d <= target]
    return Fold(pe=fits[0] if fits else _cannot(node, lanes, beats // lanes, target))


def _cannot(node: Node, lanes: int, best: int, target: int) -> int:
    raise N2uqError(f"{node.name}: {lanes} lanes, the most it can have, take {best} cycles per "
                    f"image; {target} cannot be reached")


@_choose.register
def _(node: MatVec, graph: Graph, folding: Folding, target: int) -> Fold:
    outputs, inputs = node.weights.shape
    edge = graph.edges[node.name]
    source = graph[node.inputs[0]]
    channels = graph.reads(source)[0].channels if isinstance(source, SlidingWindow) else inputs
    options = [(pe * simd, lcm(simd, channels), pe, simd)
               for pe in _divisors(outputs) for simd in _divisors(inputs)
               if edge.size * inputs <= target * pe * simd]
    if not options:
        _cannot(node, outputs * inputs, edge.shape[0] * edge.shape[1], target)
    *_, pe, simd = min(options)
    return Fold(pe=pe, simd=simd)


@_choose.register(SlidingWindow)
@_choose.register(Pad)
def _(node: Node, graph: Graph, folding: Folding, target: int) -> Fold:
    """As many lanes as the rate asks, and of these what suits the reader best."""
    reader = _reader(graph, node)
    assert reader is not None
    (read,), edge = graph.reads(node), graph.edges[node.name]
    fits = [d for d in _divisors(read.channels) if max(edge.size, read.size) // d <= target]
    if not fits:
        _cannot(node, read.channels, edge.size // read.channels, target)
    simd = folding[reader.name].simd if isinstance(reader, MatVec) else folding[reader.name].pe
    lanes = min(fits, key=lambda d: (lcm(d, simd) // simd, lcm(d, simd) // d, d))
    return Fold(pe=lanes, simd=lanes)


@_choose.register
def _(node: Threshold, graph: Graph, folding: Folding, target: int) -> Fold:
    """One table for all channels serves any number of elements."""
    edge = graph.edges[node.name]
    return _elementwise(node, graph, edge.channels if len(node.signs) > 1 else edge.size, target)


@_choose.register
def _(node: Input, graph: Graph, folding: Folding, target: int) -> Fold:
    """The lanes of the first unit, so that the input needs no converter."""
    reader = _reader(graph, node)
    if reader is None:
        return Fold()
    fold = folding[reader.name]
    lanes = fold.simd if isinstance(reader, MatVec) else fold.pe
    return Fold(pe=lanes, simd=lanes)


def save_folding(folding: Folding, path: Path) -> None:
    """Write the folding as YAML, one line per unit, leaving out what is default."""
    default = asdict(Fold())
    rows = {name: {k: v for k, v in asdict(fold).items() if v != default[k] or k == "pe"}
            for name, fold in folding.items()}
    text = "".join(f"{name}: {yaml.safe_dump(row, default_flow_style=True, sort_keys=False)}"
                   for name, row in rows.items())
    try:
        path.write_text(text)
    except OSError as error:
        raise N2uqError(f"{path}: cannot be written: {error.strerror}") from None


def load_folding(path: Path, graph: Graph) -> Folding:
    """Read a YAML folding for `graph`; units that it does not name keep the chosen folding."""
    try:
        rows: Any = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise N2uqError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise N2uqError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(rows, dict):
        raise N2uqError(f"{path}: must map layer names to foldings, not {type(rows).__name__}")
    folding = choose(graph)
    for name, row in rows.items():
        if name not in folding:
            raise N2uqError(f"{path}: {name} must be a unit of {graph.name}: "
                            f"{', '.join(folding)}")
        if not isinstance(row, dict):
            raise N2uqError(f"{path}: {name} must map pe, simd, style or form, not {row!r}")
        for key, value in row.items():
            if key not in asdict(Fold()):
                raise N2uqError(f"{path}: {name}: key must be pe, simd, style or form, not {key}")
            if type(value) is not type(getattr(Fold(), key)):
                raise N2uqError(f"{path}: {name}.{key} must be "
                                f"{type(getattr(Fold(), key)).__name__}, not {value!r}")
        folding[name] = Fold(**{**asdict(folding[name]), **row})
    return folding

