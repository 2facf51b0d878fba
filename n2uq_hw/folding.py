"""Folding: how many elements each unit takes and makes per cycle, and in which style.

PE is a unit's output channels per cycle, SIMD its inputs per cycle.  A folding is a small YAML file
that people edit: ``layer: {pe: 4, simd: 9, form: planes}``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import singledispatch
from math import isqrt, lcm
from pathlib import Path
from typing import Any

import yaml

from .errors import N2uqError
from .ir import (
    Add,
    ArgMax,
    Edge,
    Flatten,
    Graph,
    Input,
    MatVec,
    Node,
    Pad,
    SlidingWindow,
    Threshold,
    weight_bits,
)

__all__ = ["FORMS", "STYLES", "Fold", "Folding", "cheapest_form", "check", "choose", "divided",
           "fold_cycles", "load_folding", "save_folding", "slowest_window"]

STYLES = ("parallel", "search")            # of a Threshold, see hw/threshold.py
FORMS = ("planes", "product", "direct")    # of a MatVec's products, see hw/mac.py


@dataclass(frozen=True)
class Fold:
    """Folding of one unit: `pe` lanes out, `simd` lanes in (MatVec only), style and product form.

    `style` is how a Threshold compares, one of `STYLES`; `form` how a MatVec multiplies, one of
    `FORMS`.
    """

    pe: int = 1
    simd: int = 1
    style: str = "parallel"
    form: str = "planes"


Folding = dict[str, Fold]


@singledispatch
def divided(node: Node, reads: tuple[Edge, ...], edge: Edge) -> dict[str, tuple[str, int]]:
    """What the lanes of a unit divide, by field of its `Fold`: a name and how many there are."""
    return {"pe": ("channels", edge.channels)}


@divided.register
def _(node: Input, reads: tuple[Edge, ...], edge: Edge) -> dict[str, tuple[str, int]]:
    return {"pe": ("elements", edge.size)}


@divided.register(Pad)
@divided.register(SlidingWindow)
@divided.register(ArgMax)
def _(node: Node, reads: tuple[Edge, ...], edge: Edge) -> dict[str, tuple[str, int]]:
    return {"pe": ("channels", reads[0].channels)}


@divided.register
def _(node: Threshold, reads: tuple[Edge, ...], edge: Edge) -> dict[str, tuple[str, int]]:
    """One table for all channels serves any number of elements."""
    shared = len(node.signs) == len(node.base) == 1
    return {"pe": ("elements", edge.size) if shared else ("channels", edge.channels)}


@divided.register
def _(node: MatVec, reads: tuple[Edge, ...], edge: Edge) -> dict[str, tuple[str, int]]:
    outputs, inputs = node.weights.shape
    return {"pe": ("output channels", outputs), "simd": ("inputs", inputs)}


def check(graph: Graph, folding: Folding) -> None:
    """Raise N2uqError for a folding that no hardware can have: unit, rule and value."""
    for node in graph.nodes:
        if isinstance(node, Flatten):
            continue
        fold = folding[node.name]
        for key, names in (("style", STYLES), ("form", FORMS)):
            if getattr(fold, key) not in names:
                raise N2uqError(f"{node.name}: {key} must be one of {', '.join(names)}, "
                                f"not {getattr(fold, key)!r}")
        totals = divided(node, graph.reads(node), graph.edges[node.name])
        for key, (of, total) in totals.items():
            lanes = getattr(fold, key)
            if lanes < 1 or total % lanes:
                raise N2uqError(f"{node.name}: {key.upper()} must divide the {total} {of}, "
                                f"not {lanes}")


def fold_cycles(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> int:
    """Cycles per image in which the unit is busy, when its neighbours keep up."""
    if isinstance(node, MatVec):
        return edge.size * node.weights.shape[1] // (fold.pe * fold.simd)
    return max(e.size for e in (*reads, edge)) // fold.pe


def slowest_window(graph: Graph) -> int:
    """Cycles per image that no folding can save, which is mostly those of a sliding window.

    With all channels at once, a unit works on one pixel per cycle; without windows, the input
    gives 4 elements.
    """
    cycles = [1 if any(isinstance(node, SlidingWindow) for node in graph.nodes)
              else -(-graph.edges[graph.input.name].size // 4)]
    for node in graph.nodes:
        if not isinstance(node, Flatten):
            reads, edge = graph.reads(node), graph.edges[node.name]
            totals = divided(node, reads, edge)
            every = Fold(pe=totals["pe"][1], simd=totals.get("simd", ("", 1))[1])
            cycles.append(fold_cycles(node, reads, edge, every))
    return max(cycles)


def cheapest_form(weight_bits: int, act_bits: int) -> str:
    """The product form with the fewest LUTs, as `bench/units.py` measures on xcup and ecp5.

    Bit planes win or are near the best form at the points measured: 7 % above it at worst, for
    8-bit weights of 2-bit activations, where a product was the slowest path.  With 1-bit
    activations, where a product is a gate, planes lose up to 11 %.  They cost more flip-flops.
    """
    return "product" if act_bits == 1 and weight_bits > 2 else "planes"


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


def _in_time(node: Node, graph: Graph, target: int) -> list[Fold]:
    """Every folding of the unit that takes at most `target` cycles; N2uqError if there is none."""
    reads, edge = graph.reads(node), graph.edges[node.name]
    totals = divided(node, reads, edge)
    folds = [Fold(pe=pe, simd=simd) for pe in _divisors(totals["pe"][1])
             for simd in _divisors(totals.get("simd", ("", 1))[1])]
    fits = [fold for fold in folds if fold_cycles(node, reads, edge, fold) <= target]
    if not fits:
        every = " and ".join(f"{total} {of}" for of, total in totals.values())
        raise N2uqError(f"{node.name}: all {every} at once take "
                        f"{fold_cycles(node, reads, edge, folds[-1])} cycles per image; "
                        f"{target} cannot be reached")
    return fits


def _divisors(n: int) -> list[int]:
    low = [d for d in range(1, isqrt(n) + 1) if n % d == 0]
    return low + [n // d for d in reversed(low) if d * d < n]


def _lanes_of_reader(graph: Graph, node: Node, folding: Folding) -> int:
    """The lanes that the unit behind `node` takes: of several the first, but an Add last.

    An Add is where a branch without units ends; the others have more to gain.
    """
    readers = [other for other in graph.nodes if node.name in other.inputs]
    if not readers:
        return 1
    other = min(readers, key=lambda reader: isinstance(reader, Add))
    if isinstance(other, Flatten):
        return _lanes_of_reader(graph, other, folding)
    fold = folding[other.name]
    return fold.simd if isinstance(other, MatVec) else fold.pe


@singledispatch
def _choose(node: Node, graph: Graph, folding: Folding, target: int) -> Fold:
    """Element by element: as few lanes as the rate asks."""
    return _in_time(node, graph, target)[0]


@_choose.register
def _(node: MatVec, graph: Graph, folding: Folding, target: int) -> Fold:
    """The fewest multipliers; of these the narrowest converter behind the channels of a window."""
    (read,), source = graph.reads(node), graph[node.inputs[0]]
    channels = (graph.reads(source)[0] if isinstance(source, SlidingWindow) else read).channels
    fold = min(_in_time(node, graph, target),
               key=lambda f: (f.pe * f.simd, lcm(f.simd, channels), f.pe))
    return Fold(fold.pe, fold.simd,
                form=cheapest_form(weight_bits(node.weights), read.width))


@_choose.register
def _(node: Threshold, graph: Graph, folding: Folding, target: int) -> Fold:
    """Search where tables step through channel groups; else comparators with constants.

    `bench/units.py`, 3 to 15 steps: with 8 groups a search takes 42 to 77 % of the comparators'
    LUTs on xcup, 79 to 96 % on ecp5, and 12 to 39 % more flip-flops; with one group, whose
    thresholds are constants, 4 to 12 times their flip-flops.
    """
    pe = _in_time(node, graph, target)[0].pe
    groups = graph.edges[node.name].channels // pe if len(node.signs) > 1 else 1
    return Fold(pe=pe, style="search" if groups > 1 else "parallel")


@_choose.register(SlidingWindow)
@_choose.register(Pad)
def _(node: Node, graph: Graph, folding: Folding, target: int) -> Fold:
    """As many lanes as the rate asks, and of these what suits the reader best."""
    simd = _lanes_of_reader(graph, node, folding)
    return min(_in_time(node, graph, target), key=lambda f: (
        lcm(f.pe, simd) // simd, lcm(f.pe, simd) // f.pe, f.pe))


@_choose.register
def _(node: Input, graph: Graph, folding: Folding, target: int) -> Fold:
    """The lanes of the first unit, so that the input needs no converter."""
    return Fold(pe=_lanes_of_reader(graph, node, folding))


def save_folding(folding: Folding, graph: Graph, path: Path) -> None:
    """Write the folding as YAML, one line per unit with all that its kind has to choose."""
    more = {MatVec: ("simd", "form"), Threshold: ("style",)}
    rows = {node.name: {key: getattr(folding[node.name], key)
                        for key in ("pe", *more.get(type(node), ()))}
            for node in graph.nodes if node.name in folding}
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
    except FileNotFoundError:
        raise N2uqError(f"{path}: no such folding file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise N2uqError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
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
    check(graph, folding)
    return folding
