"""Folding: how many elements each unit takes and makes per cycle, and in which style.

PE is a unit's output channels per cycle, of a sliding window also a whole row of its kernel or a
whole window, which a pool takes too; SIMD is a unit's inputs per cycle.  Each kind of node has the
type of Fold that `FOLDS` names.  A folding is a small YAML file that people edit:
``layer: {pe: 4, simd: 9, form: planes}``.  It also says how deep the FIFOs are where branches meet:
``fifos: {sum_i1_fifo: 117}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache, singledispatch
from itertools import product
from math import gcd, isqrt
from typing import Any

from ..errors import N2uqError
from ..names import fresh
from .graph import Graph
from .nodes import (
    Add,
    ArgMax,
    Concat,
    DepthToSpace,
    DepthwiseMatVec,
    Edge,
    Flatten,
    Input,
    MatVec,
    MaxPool,
    Node,
    Pad,
    Permute,
    PiecewiseLinear,
    Saturate,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    Unrolled,
    Upsample,
    WidthConvert,
    code_bits,
)

__all__ = ["AUTO", "BLOCK", "FOLDS", "FORMS", "HEAP", "LOGIC", "LUTS", "MEMORIES", "PAIRED",
           "PARALLEL", "PRODUCTS", "SEARCH", "STYLES", "UNROLLED", "ConvertFold", "DepthwiseFold",
           "FifoFold", "Fold", "Folding", "MatVecFold", "Products", "ThresholdFold",
           "UnrolledFold", "check", "choices", "divided", "fifo_depths", "fifo_names", "fifos_key",
           "fold_cycles", "fold_types", "folds_of", "lanes_in", "lanes_out", "out_of_reach",
           "product_bits", "reach", "slowest_window", "style_of", "unfolded", "wholes"]


@dataclass(frozen=True)
class Products:
    """How a MatVec multiplies a weight's code by activations: see `hw/mac.py`.

    Members
    -------
    bitwise: each bit of the code by itself; else all of it at a time.
    tables: as much of it as a LUT takes beside the activation.
    lanes: whose sums all PEs share, for weights to choose among.
    offset: whether ``least·Σa``, which all PEs share, is added, for the code has no sign.
    heap: all product bits at once, in a compressor tree, which thresholds must follow: see
        `hw/compressor_mac.py`.
    """

    bitwise: bool = False
    tables: bool = False
    lanes: int = 1
    offset: bool = True
    heap: bool = False

    @property
    def absorbed(self) -> bool:
        """Whether thresholds behind can have a constant that the products add."""
        return self.lanes > 1 or self.heap


PRODUCTS = {  # by form
    "planes": Products(bitwise=True), "product": Products(),
    "direct": Products(tables=True, offset=False), "pairs": Products(bitwise=True, lanes=2),
    "heap": Products(bitwise=True, offset=False, heap=True)}
FORMS = tuple(form for form, products in PRODUCTS.items() if not products.heap)  # of any MatVec
HEAP, = (form for form, products in PRODUCTS.items() if products.heap)
PAIRED, = (form for form, products in PRODUCTS.items() if products.lanes > 1)
UNROLLED = "unrolled"  # a MatVec in logic, see hw/unrolled.py
UNROLLED_MOST = 2**18  # bits of its products: more take minutes to build
STYLES = PARALLEL, SEARCH = "parallel", "search"       # of a Threshold, see hw/threshold.py
MEMORIES = AUTO, BLOCK, LOGIC = "auto", "block", "logic"  # of weights' ROMs, see hw/memory.py
LUTS = (4, 6)          # inputs of a LUT: ECP5 and iCE40, Xilinx


def _one_of(names: tuple[Any, ...], default: Any = None) -> Any:
    """A field that is one of `names`, by default the first."""
    return field(default=default or names[0], metadata={"names": names})


@dataclass(frozen=True)
class Fold:
    """Folding of a unit that has no choice beside its `pe` lanes out."""

    pe: int = 1

    @property
    def simd(self) -> int:
        """Inputs per lane and cycle."""
        return 1


@dataclass(frozen=True)
class MatVecFold(Fold):
    """Of a MatVec: `simd` inputs per cycle, the `form` of its products (`hw/mac.py`).

    `memory` is what holds the weights: block RAM, logic, or what synthesis finds best.
    """

    simd: int = 1
    form: str = _one_of(tuple(PRODUCTS))
    memory: str = _one_of(MEMORIES)

    @property
    def products(self) -> Products:
        """What the form says."""
        return PRODUCTS[self.form]


@dataclass(frozen=True)
class UnrolledFold(Fold):
    """Of a MatVec in logic, which takes a vector per cycle and has its Threshold in it.

    `pe` and `simd` are all outputs and inputs; a register follows so many `levels`, and the logic
    suits LUTs of `lut` inputs, see `hw/unrolled.py`.
    """

    simd: int = 1
    form: str = field(default=UNROLLED, init=False)
    levels: int = 2
    lut: int = _one_of(LUTS, 6)


@dataclass(frozen=True)
class DepthwiseFold(Fold):
    """Of a DepthwiseMatVec: `memory` as of a MatVec."""

    memory: str = _one_of(MEMORIES)


@dataclass(frozen=True)
class ThresholdFold(Fold):
    """Of a Threshold: the `style` in which it compares (`hw/threshold.py`)."""

    style: str = _one_of(STYLES)


@dataclass(frozen=True)
class ConvertFold(Fold):
    """Of a WidthConvert, which only hardware graphs have: `simd` lanes in."""

    simd: int = 1


@dataclass(frozen=True)
class FifoFold(Fold):
    """Of the Fifo on an input of a join (`fifo_names`): its `depth` in beats."""

    depth: int = 2


Folding = dict[str, Fold]
# By kind of node, and by the kinds that it derives from; the first unless a file says otherwise.
FOLDS: dict[type[Node], tuple[type[Fold], ...]] = {
    Node: (Fold,), MatVec: (MatVecFold, UnrolledFold), Unrolled: (UnrolledFold,),
    DepthwiseMatVec: (DepthwiseFold,), Threshold: (ThresholdFold,), WidthConvert: (ConvertFold,)}


def fold_types(node: Node) -> tuple[type[Fold], ...]:
    """The types that a Fold of `node` can have."""
    return next(FOLDS[kind] for kind in type(node).__mro__ if kind in FOLDS)


def unfolded(node: Node, **lanes: int) -> Fold:
    """A Fold of the type that `node` has: so many `lanes`, else 1, and the default styles."""
    return fold_types(node)[0](**lanes)


def fifo_names(graph: Graph) -> list[str]:
    """The FIFOs of a lowered graph whose depths are to choose: one on each input of a join."""
    nodes = {node.name for node in graph.nodes}
    return [fresh(f"{node.name}_i{k}_fifo", nodes) for node in graph.nodes if len(node.inputs) > 1
            for k in range(len(node.inputs))]


def fifo_depths(graph: Graph, folding: Mapping[str, Fold]) -> dict[str, int]:
    """The depths that `folding` gives to these, in beats; without those that it does not name."""
    return {name: fold.depth for name in fifo_names(graph)
            if isinstance(fold := folding.get(name), FifoFold)}


def fifos_key(graph: Graph) -> str:
    """What the FIFOs' depths stand under in a file: "fifos", where no unit is called so."""
    return fresh("fifos", {node.name for node in graph.nodes})


@singledispatch
def divided(node: Node, reads: tuple[Edge, ...], edge: Edge) -> dict[str, tuple[str, int]]:
    """What the lanes of a unit divide, by field of its `Fold`: a name and how many there are."""
    raise N2uqError(f"no lanes for {type(node).__name__}")


@divided.register(DepthwiseMatVec)
@divided.register(Upsample)
@divided.register(DepthToSpace)
@divided.register(Scale)
@divided.register(PiecewiseLinear)
@divided.register(Add)
@divided.register(Saturate)
@divided.register(MaxPool)
@divided.register(SumPool)
def _(node: Node, reads: tuple[Edge, ...], edge: Edge) -> dict[str, tuple[str, int]]:
    return {"pe": ("channels", edge.channels)}


@divided.register
def _(node: Concat, reads: tuple[Edge, ...], edge: Edge) -> dict[str, tuple[str, int]]:
    return {"pe": ("channels common to all inputs", gcd(*(read.channels for read in reads)))}


@divided.register
def _(node: Permute, reads: tuple[Edge, ...], edge: Edge) -> dict[str, tuple[str, int]]:
    return {"pe": ("channels common to input and output", gcd(reads[0].channels, edge.channels))}


@divided.register
def _(node: Input, reads: tuple[Edge, ...], edge: Edge) -> dict[str, tuple[str, int]]:
    return {"pe": ("elements", edge.size)}


@divided.register
def _(node: SlidingWindow, reads: tuple[Edge, ...], edge: Edge) -> dict[str, tuple[str, int]]:
    of = "channels of a group" if node.groups > 1 else "channels"
    return {"pe": (of, reads[0].channels // node.groups)}


@divided.register(Pad)
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
    of = " of a group" if node.groups > 1 else ""
    return {"pe": (f"output channels{of}", outputs // node.groups), "simd": (f"inputs{of}", inputs)}


def choices(node: Node, reads: tuple[Edge, ...], edge: Edge) -> dict[str, tuple[int, ...]]:
    """Every number of lanes that a unit can have, ascending, by field of its `Fold`.

    What `divided` says, and `wholes`.
    """
    can = {key: _divisors(total) for key, (_, total) in divided(node, reads, edge).items()}
    can["pe"] += tuple(wholes(node, reads, edge))
    return can


def wholes(node: Node, reads: tuple[Edge, ...], edge: Edge) -> dict[int, str]:
    """What lanes beyond those of `divided` are, ascending: of windows, pools, Concats, Permutes."""
    sizes = {}
    if isinstance(node, SlidingWindow) and node.groups == 1:
        sizes = {node.kernel[1] * reads[0].channels: "a row of the kernel"}
    if isinstance(node, SlidingWindow | MaxPool | SumPool):
        sizes[max(edge.channels, reads[0].channels)] = "a whole window"
    if isinstance(node, Concat | Permute):
        sizes = {edge.channels: "a whole pixel"}
    most = divided(node, reads, edge)["pe"][1] if isinstance(node, Permute) else min(
        edge.channels, reads[0].channels) if reads else 0
    return {lanes: what for lanes, what in sizes.items() if lanes > most}


@singledispatch
def lanes_in(node: Node, port: int, fold: Fold, read: Edge) -> int:
    """Elements per beat that the unit of `node` takes of the edge `read`, on its input `port`."""
    return fold.pe


@lanes_in.register(SlidingWindow)
@lanes_in.register(Concat)
def _(node: Node, port: int, fold: Fold, read: Edge) -> int:
    return min(fold.pe, read.channels)


@lanes_in.register
def _(node: Permute, port: int, fold: Fold, read: Edge) -> int:
    return read.channels if fold.pe == len(node.order) else fold.pe


@lanes_in.register(MatVec)
@lanes_in.register(WidthConvert)
def _(node: Node, port: int, fold: Fold, read: Edge) -> int:
    return fold.simd


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
        if isinstance(node, Flatten):
            continue
        if node.name not in folding:
            raise N2uqError(f"{graph.name}: folding must have all units, not lack {node.name}")
        fold, types = folding[node.name], fold_types(node)
        if not isinstance(fold, types):
            raise N2uqError(f"{node.name}: folding must be {_either(types)}, not {fold}")
        for f in fields(fold):
            if (names := f.metadata.get("names")) and getattr(fold, f.name) not in names:
                raise N2uqError(f"{node.name}: {f.name} must be one of "
                                f"{', '.join(map(str, names))}, not {getattr(fold, f.name)!r}")
        sides = node, graph.reads(node), graph.edges[node.name]
        if isinstance(node, MatVec) and isinstance(fold, UnrolledFold):
            _check_unrolled(node, fold, sides[1][0], sides[2])
            continue
        can = choices(*sides)
        for key, (of, total) in divided(*sides).items():
            lanes = getattr(fold, key)
            if lanes not in can[key]:
                more = "".join(f" or be {most}, {what}," for most, what in (
                    wholes(*sides) if key == "pe" else {}).items())
                raise N2uqError(f"{node.name}: {key.upper()} must divide the {total} {of}"
                                f"{more or ','} not {lanes}")


def _either(types: tuple[type[Fold], ...]) -> str:
    return " or ".join(kind.__name__ for kind in types)


def product_bits(node: MatVec, edge: Edge) -> int:
    """Bits of all products of a MatVec that reads `edge`: weights, times their bits, times its."""
    return node.weights.size * code_bits(node) * edge.width


def _check_unrolled(node: MatVec, fold: UnrolledFold, read: Edge, edge: Edge) -> None:
    name, bits = node.name, product_bits(node, read)
    if node.room:
        raise N2uqError(f"{name}: must be folded where weights can be written, not unrolled")
    if bits > UNROLLED_MOST:
        raise N2uqError(f"{name}: must have {UNROLLED_MOST:,} bits of products at most, unrolled, "
                        f"not {bits:,}; fold it")
    for key, of, total in (("pe", "output channels", edge.channels),
                           ("simd", "inputs", read.channels)):
        if getattr(fold, key) != total:
            raise N2uqError(f"{name}: {key.upper()} must be all {total} {of}, unrolled, "
                            f"not {getattr(fold, key)}")
    if fold.levels < 1:
        raise N2uqError(f"{name}: levels must be at least 1, not {fold.levels}")


def fold_cycles(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> int:
    """Cycles per image in which the unit is busy, when its neighbours keep up."""
    if isinstance(node, MatVec):
        return edge.size * node.weights.shape[1] // (fold.pe * fold.simd)
    return max([edge.size // fold.pe,
                *(read.size // lanes_in(node, port, fold, read)
                  for port, read in enumerate(reads))])


def reach(graph: Graph) -> tuple[int, str]:
    """The fewest cycles per image that any folding reaches, and the unit that takes them."""
    slowest = 1, graph.input.name
    for node in graph.nodes:
        if not isinstance(node, Flatten):
            reads, edge = graph.reads(node), graph.edges[node.name]
            cycles = fold_cycles(node, reads, edge, folds_of(node, reads, edge)[-1])
            slowest = max(slowest, (cycles, node.name), key=lambda unit: unit[0])
    return slowest


def slowest_window(graph: Graph) -> int:
    """Cycles per image if the slowest sliding window gives a pixel per cycle.

    More, if no folding has so few; without windows, the input gives 4 elements per cycle.
    """
    windows = [node.groups * graph.edges[node.name].size // graph.reads(node)[0].channels
               for node in graph.nodes if isinstance(node, SlidingWindow)]
    return max(reach(graph)[0],
               *(windows or [-(-graph.edges[graph.input.name].size // 4)]))


def folds_of(node: Node, reads: tuple[Edge, ...], edge: Edge) -> list[Fold]:
    """A Fold for each of the lanes that a unit can have, the most last."""
    can = choices(node, reads, edge)
    return [unfolded(node, **dict(zip(can, lanes, strict=True)))
            for lanes in product(*can.values())]


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


def style_of(fold: Fold) -> str:
    """The styles that are chosen, in words: "planes, block"."""
    values = [getattr(fold, f.name) for f in fields(fold)]
    return ", ".join(v for v in values if isinstance(v, str) and v != AUTO)
