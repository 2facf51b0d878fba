"""Folding: how many elements each unit takes and makes per cycle, and in which style.

PE is a unit's output channels per cycle, of a sliding window also a whole row of its kernel or a
whole window, which a pool takes too; SIMD is a unit's inputs per cycle.  A folding is a small YAML
file that people edit: ``layer: {pe: 4, simd: 9, form: planes}``.  It also says how deep the FIFOs
are where branches meet: ``fifos: {sum_i1_fifo: 117}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, singledispatch
from math import isqrt

from ..errors import N2uqError
from .graph import Graph
from .nodes import (
    ArgMax,
    DepthwiseMatVec,
    Edge,
    Flatten,
    Input,
    MatVec,
    MaxPool,
    Node,
    Pad,
    SlidingWindow,
    SumPool,
    Threshold,
    WidthConvert,
)

__all__ = ["FORMS", "LUTS", "MEMORIES", "STYLES", "UNROLLED", "Fold", "Folding", "check", "choices",
           "divided", "fifo_names", "fold_cycles", "folds_of", "keys_of", "lanes_in", "lanes_out",
           "out_of_reach", "reach", "slowest_window", "style_of", "wholes"]

STYLES = ("parallel", "search")            # of a Threshold, see hw/threshold.py
FORMS = ("planes", "product", "direct", "pairs")  # of a MatVec's products, see hw/mac.py
MEMORIES = ("auto", "block", "logic")      # of weights' ROMs, see hw/memory.py
LUTS = (4, 6)                              # inputs of a LUT: ECP5 and iCE40, Xilinx
UNROLLED = "unrolled"                      # a MatVec in logic, see hw/unrolled.py


@dataclass(frozen=True)
class Fold:
    """Folding of one unit: `pe` lanes out, `simd` lanes in (MatVec only), style and product form.

    `style` is how a Threshold compares, one of `STYLES`; `form` how a MatVec multiplies, one of
    `FORMS`; `memory` what holds weights, one of `MEMORIES`: block RAM, logic, or what synthesis
    finds best; `depth` are the beats of a Fifo on an Add, see `fifo_names`.  A MatVec of form
    UNROLLED takes a vector per cycle and has its Threshold in it; a register follows so many
    `levels`, and its logic suits LUTs of `lut` inputs, see hw/unrolled.py.
    """

    pe: int = 1
    simd: int = 1
    style: str = "parallel"
    form: str = "planes"
    memory: str = "auto"
    depth: int = 0
    levels: int = 2
    lut: int = 6


Folding = dict[str, Fold]
FIFOS = "fifos"                          # key of the FIFOs' depths in a file
KEYS = ("pe", "simd", "style", "form", "memory", "levels", "lut")  # of a unit
_OWN: dict[type[Node], tuple[str, ...]] = {  # beside PE
    MatVec: ("simd", "form", "memory"), DepthwiseMatVec: ("memory",), Threshold: ("style",)}


def fifo_names(graph: Graph) -> list[str]:
    """The FIFOs of a lowered graph whose depths are to choose: one on each input of an Add."""
    return [f"{node.name}_i{k}_fifo" for node in graph.nodes if node.READS > 1
            for k in range(node.READS)]


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


def choices(node: Node, reads: tuple[Edge, ...], edge: Edge) -> dict[str, tuple[int, ...]]:
    """Every number of lanes that a unit can have, ascending, by field of its `Fold`.

    What `divided` says, and `wholes`.
    """
    can = {key: _divisors(total) for key, (_, total) in divided(node, reads, edge).items()}
    can["pe"] += tuple(wholes(node, reads, edge))
    return can


def wholes(node: Node, reads: tuple[Edge, ...], edge: Edge) -> dict[int, str]:
    """What lanes beyond those of `divided` are, ascending: of a SlidingWindow, of a pool."""
    found = {}
    if isinstance(node, SlidingWindow):
        found = {node.kernel[1] * reads[0].channels: "a row of the kernel"}
    if isinstance(node, SlidingWindow | MaxPool | SumPool):
        found[max(edge.channels, reads[0].channels)] = "a whole window"
    least = min(edge.channels, reads[0].channels) if reads else 0
    return {lanes: what for lanes, what in found.items() if lanes > least}


def lanes_in(node: Node, fold: Fold, read: Edge) -> int:
    """Elements per beat that the unit of `node` takes of the edge `read`."""
    if isinstance(node, SlidingWindow):
        return min(fold.pe, read.channels)
    return fold.simd if isinstance(node, MatVec | WidthConvert) else fold.pe


@singledispatch
def lanes_out(node: Node, fold: Fold, edge: Edge) -> int:
    """Elements per beat that the unit of `node` gives of its `edge`."""
    return fold.pe


@lanes_out.register
def _(node: ArgMax, fold: Fold, edge: Edge) -> int:
    return 1


@lanes_out.register(MaxPool)
@lanes_out.register(SumPool)
def _(node: Node, fold: Fold, edge: Edge) -> int:
    return min(fold.pe, edge.channels)


def check(graph: Graph, folding: Folding) -> None:
    """Raise N2uqError for a folding that no hardware can have: unit, rule and value."""
    for node in graph.nodes:
        if node.name == FIFOS:
            raise N2uqError(f"{graph.name}: no node may be called {FIFOS}")
        if isinstance(node, Flatten):
            continue
        fold = folding[node.name]
        forms = (*FORMS, UNROLLED) if isinstance(node, MatVec) else FORMS
        for key, names in (("style", STYLES), ("form", forms), ("memory", MEMORIES)):
            if getattr(fold, key) not in names:
                raise N2uqError(f"{node.name}: {key} must be one of {', '.join(names)}, "
                                f"not {getattr(fold, key)!r}")
        sides = node, graph.reads(node), graph.edges[node.name]
        if fold.form == UNROLLED:
            _check_unrolled(node.name, fold, divided(*sides))
        can = choices(*sides)
        for key, (of, total) in divided(*sides).items():
            lanes = getattr(fold, key)
            if lanes not in can[key]:
                more = "".join(f" or be {most}, {what}," for most, what in (
                    wholes(*sides) if key == "pe" else {}).items())
                raise N2uqError(f"{node.name}: {key.upper()} must divide the {total} {of}"
                                f"{more or ','} not {lanes}")


def _check_unrolled(name: str, fold: Fold, sides: dict[str, tuple[str, int]]) -> None:
    for key, (of, total) in sides.items():
        if getattr(fold, key) != total:
            raise N2uqError(f"{name}: {key.upper()} must be all {total} {of}, unrolled, "
                            f"not {getattr(fold, key)}")
    if fold.levels < 1:
        raise N2uqError(f"{name}: levels must be at least 1, not {fold.levels}")
    if fold.lut not in LUTS:
        raise N2uqError(f"{name}: lut must be {' or '.join(map(str, LUTS))}, not {fold.lut}")


def fold_cycles(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> int:
    """Cycles per image in which the unit is busy, when its neighbours keep up."""
    if isinstance(node, MatVec):
        return edge.size * node.weights.shape[1] // (fold.pe * fold.simd)
    return max([edge.size // fold.pe,
                *(read.size // lanes_in(node, fold, read) for read in reads)])


def reach(graph: Graph) -> tuple[int, str]:
    """The fewest cycles per image that any folding reaches, and the unit that takes them."""
    slowest = 1, graph.input.name
    for node in graph.nodes:
        if not isinstance(node, Flatten):
            reads, edge = graph.reads(node), graph.edges[node.name]
            cycles = fold_cycles(node, reads, edge, folds_of(node, reads, edge)[-1])
            slowest = max(slowest, (cycles, node.name), key=lambda found: found[0])
    return slowest


def slowest_window(graph: Graph) -> int:
    """Cycles per image if the slowest sliding window gives a pixel per cycle.

    More, if no folding has so few; without windows, the input gives 4 elements per cycle.
    """
    windows = [graph.edges[node.name].size // graph.reads(node)[0].channels
               for node in graph.nodes if isinstance(node, SlidingWindow)]
    return max(reach(graph)[0],
               *(windows or [-(-graph.edges[graph.input.name].size // 4)]))


def folds_of(node: Node, reads: tuple[Edge, ...], edge: Edge) -> list[Fold]:
    """A Fold for each of the lanes that a unit can have, the most last."""
    can = choices(node, reads, edge)
    return [Fold(pe=pe, simd=simd) for pe in can["pe"] for simd in can.get("simd", (1,))]


def out_of_reach(node: Node, graph: Graph, target: int) -> N2uqError:
    """What to raise where `node` takes more cycles than `target` at its fastest."""
    reads, edge = graph.reads(node), graph.edges[node.name]
    best = fold_cycles(node, reads, edge, folds_of(node, reads, edge)[-1])
    return N2uqError(f"{node.name}: takes {best:,} cycles per image at its fastest; {target:,} "
                     "cannot be reached")


@lru_cache(2**12)
def _divisors(n: int) -> tuple[int, ...]:
    low = [d for d in range(1, isqrt(n) + 1) if n % d == 0]
    return *low, *(n // d for d in reversed(low) if d * d < n)


def keys_of(node: Node, fold: Fold) -> tuple[str, ...]:
    """What the kind of the node has to choose, by field of its Fold."""
    if fold.form == UNROLLED:
        return ("pe", "simd", "form", "levels", "lut")
    return ("pe", *_OWN.get(type(node), ()))


def style_of(node: Node, fold: Fold) -> str:
    """The styles that are chosen, in words: "planes, block"."""
    found = [getattr(fold, key) for key in keys_of(node, fold)
             if key in ("style", "form", "memory")]
    return ", ".join(word for word in found if word != MEMORIES[0])
