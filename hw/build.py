"""From a graph and its folding to gateware: one unit per node, and the accelerator of them all."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial, singledispatch
from typing import Any

import numpy as np
from amaranth.hdl import Module, Mux
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..errors import N2uqError
from ..folding import UNROLLED, Fold, Folding, check, lanes_in, lanes_out
from ..ir import (
    Add,
    ArgMax,
    DepthwiseMatVec,
    Edge,
    Fifo,
    Flatten,
    Fork,
    Graph,
    Input,
    MatVec,
    MaxPool,
    Node,
    OffsetMatVec,
    Pad,
    PiecewiseLinear,
    Saturate,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    Unrolled,
    WidthConvert,
)
from .branches import CUT, least_depths
from .depthwise import DepthwiseMatVecUnit
from .eltwise import (
    COUNT_BITS,
    AddUnit,
    ArgMaxUnit,
    PiecewiseLinearUnit,
    SaturateUnit,
    ScaleUnit,
)
from .mac import pairs_offset
from .matvec import MatVecUnit
from .pool import MaxPoolUnit, SumPoolUnit
from .stream import (
    LUT_DEPTH,
    FifoUnit,
    ForkUnit,
    Unit,
    WidthConverter,
    beats,
    convert_width,
    element,
    instantiate,
)
from .threshold import ThresholdUnit
from .unrolled import UnrolledUnit
from .window import PadUnit, SlidingWindowUnit, stages

__all__ = ["TOP", "WRAPPER", "Accelerator", "fifo_depth", "gives_whole", "hardware_graph",
           "in_logic", "inputs", "lanes_of", "module_name", "outputs", "saturates", "unit",
           "unroll", "window_of"]

TOP, WRAPPER = "accelerator", "axis"  # what modules are called beside those of nodes


@singledispatch
def unit(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> wiring.Component:
    """The gateware of `node`, reading edges `reads` and making `edge`, folded as `fold` says."""
    raise N2uqError(f"no gateware for {type(node).__name__}")


@unit.register
def _(node: Pad, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return PadUnit(node, reads[0], edge, lanes=fold.pe)


@unit.register
def _(node: SlidingWindow, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return SlidingWindowUnit(node, reads[0], lanes=fold.pe)


@unit.register
def _(node: MatVec, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return MatVecUnit(node, reads[0], edge, pe=fold.pe, simd=fold.simd, form=fold.form,
                      memory=fold.memory)


@unit.register
def _(node: Unrolled, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return UnrolledUnit(node, reads[0], edge, levels=fold.levels, lut=fold.lut)


@unit.register
def _(node: DepthwiseMatVec, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return DepthwiseMatVecUnit(node, reads[0], edge, pe=fold.pe, memory=fold.memory)


@unit.register
def _(node: Threshold, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return ThresholdUnit(node, reads[0], edge, pe=fold.pe, style=fold.style)


@unit.register
def _(node: Scale, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return ScaleUnit(node, reads[0], edge, pe=fold.pe)


@unit.register
def _(node: PiecewiseLinear, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return PiecewiseLinearUnit(node, reads[0], edge, pe=fold.pe)


@unit.register
def _(node: Add, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> wiring.Component:
    return AddUnit(node, reads[0], reads[1], edge, pe=fold.pe)


@unit.register
def _(node: Saturate, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return SaturateUnit(node, reads[0], edge, pe=fold.pe)


@unit.register
def _(node: MaxPool, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return MaxPoolUnit(node, reads[0], edge, pe=fold.pe)


@unit.register
def _(node: SumPool, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return SumPoolUnit(node, reads[0], edge, pe=fold.pe)


@unit.register
def _(node: ArgMax, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return ArgMaxUnit(node, reads[0], edge, pe=fold.pe)


@unit.register
def _(node: Fifo, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return FifoUnit(layout=beats(element(edge), fold.pe), depth=node.depth)


@unit.register
def _(node: Fork, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> wiring.Component:
    return ForkUnit(layout=beats(element(edge), fold.pe), ways=node.ways)


@unit.register
def _(node: WidthConvert, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return WidthConverter(shape=element(edge), lanes_in=fold.simd, lanes_out=fold.pe)


@singledispatch
def inputs(node: Node) -> dict[str, wiring.Member]:
    """Ports of a unit beside its streams that the accelerator has too, as ``<node>_<port>``."""
    return {}


def window_of(graph: Graph, node: Node) -> SlidingWindow | None:
    """The SlidingWindow that `node` is, or that reads it, if it is a Pad."""
    if isinstance(node, Pad):
        node = next((n for n in graph.nodes if node.name in n.inputs), node)
    return node if isinstance(node, SlidingWindow) else None


def gives_whole(graph: Graph, window: SlidingWindow, fold: Fold) -> bool:
    """Whether a beat of it is a whole window."""
    return stages(window, graph.reads(window)[0], fold.pe)[1] is None


def fifo_depth(graph: Graph, node: Node, lanes: int, *, whole: bool = False) -> int:
    """Beats of `lanes` elements to queue before `node`, so that it never waits; 0 for no Fifo.

    A MatVec takes its vector in the first of its folds; in the others the next vector piles up,
    unless it comes from a window, which makes it in no time.  A line buffer is full until an
    image's last window is read; the pixels pile up that the next image's first window needs beyond
    the rows that a stride leaves to spare.  If windows come `whole`, nothing is ever full: pixels
    pile up while a Pad gives its frame's first rows, and while the Fifo gives the first of them.
    """
    source, (read,) = graph[node.inputs[0]], graph.reads(node)
    if isinstance(node, Unrolled):  # the path of ready through many registers is long
        return CUT if isinstance(source, Unrolled) else 0
    if isinstance(node, MatVec):
        vector = 0 if isinstance(source, SlidingWindow | Input) else read.channels // lanes
        return max(vector, CUT)
    if isinstance(source, MatVec) and isinstance(node, Threshold):
        return CUT  # what follows would stall the MatVec through one long path
    window = window_of(graph, node)
    if window is None or isinstance(source, Input | Pad):
        return 0
    (kh, kw), (sh, _) = window.kernel, window.stride
    top, _, left, _ = node.frame if isinstance(node, Pad) else (0, 0, 0, 0)
    rows, pixels = (top, left + 2) if whole else (max(kh - sh - top, 0), max(kw - left, 0))
    depth = (rows * read.shape[1] + pixels) * read.channels // lanes
    return max(depth + (whole and depth > LUT_DEPTH), CUT)


def steps_behind(graph: Graph, node: Node) -> Threshold | None:
    """The Threshold that reads `node`, if nothing else does."""
    readers = [other for other in graph.nodes if node.name in other.inputs]
    return readers[0] if len(readers) == 1 and isinstance(readers[0], Threshold) else None


def in_logic(graph: Graph, matvec: MatVec) -> Unrolled:
    """`matvec` unrolled, with the Threshold behind it, and its name (`steps_behind`)."""
    if steps := steps_behind(graph, matvec):
        return Unrolled(steps.name, matvec.inputs, matvec.weights, steps)
    return Unrolled(matvec.name, matvec.inputs, matvec.weights)


def unroll(graph: Graph, folding: Folding) -> tuple[Graph, Folding]:
    """An Unrolled in the place of each MatVec of that form, and of the Threshold in it."""
    made = {node.name: in_logic(graph, node) for node in graph.nodes
            if isinstance(node, MatVec) and not isinstance(node, Unrolled)
            and folding[node.name].form == UNROLLED}
    if not made:
        return graph, folding
    folds, places = dict(folding), {node.name: node for node in made.values()}
    for name, node in made.items():
        folds[node.name] = folds.pop(name)
    return graph.with_nodes(places.get(node.name, node) for node in graph.nodes
                            if node.name in places or node.name not in made), folds


def absorbs(graph: Graph, node: MatVec) -> bool:
    """Whether a constant per output of `node` can go into the thresholds behind it.

    That is, of odd weights, if the Threshold's channels have steps of their own.
    """
    behind = steps_behind(graph, node)
    if behind is None or not (node.weights % 2).all():
        return False
    steps = behind.thresholds
    return len(steps) == len(node.weights) and bool((steps != steps[0]).any())


def absorb(graph: Graph, folding: Folding) -> Graph:
    """An OffsetMatVec in the place of each MatVec of form "pairs" where `absorbs` allows it.

    Thresholds behind have what centered pairs add (`pairs_offset`), and a constant by which sums
    are from 0 on.
    """
    offsets, nodes = dict[str, np.ndarray](), list[Node]()
    for node in graph.nodes:
        made: Node = node
        if isinstance(node, Threshold) and node.inputs[0] in offsets:
            made = replace(node, thresholds=node.thresholds + offsets[node.inputs[0]][:, None])
        elif (type(node) is MatVec and folding[node.name].form == "pairs"
              and absorbs(graph, node)):
            (read,), sums = graph.reads(node), graph.edges[node.name]
            offset = pairs_offset(node.weights, element(read), folding[node.name].simd)
            offsets[node.name] = offset - (sums.lo + offset).min()
            made = OffsetMatVec(**node.__dict__, offset=offsets[node.name])
        nodes.append(made)
    return graph.with_nodes(nodes) if offsets else graph


def hardware_graph(graph: Graph, folding: Folding) -> tuple[Graph, Folding]:
    """Insert what only hardware needs, and return the graph and the folding with it.

    A Fork where several nodes read an edge, its outputs in the order of its readers; width
    converters where lanes differ; a Fifo where `fifo_depth` asks, and on each input of an Add, as
    deep as `folding` says, else as it must be (`branches.py`).  A Flatten has no unit: the stream
    passes through.  See `unroll` for what is unrolled.

    Raises N2uqError for a Fifo with which the graph could deadlock.
    """
    check(graph, folding)
    graph, folding = unroll(graph, folding)
    graph = absorb(graph, folding)
    folds, nodes, lanes = dict(folding), list[Node](), dict[str, int]()
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    tip: dict[str, str] = {}  # the node whose edge is read for the key's

    def insert(node: Node, width: int) -> str:
        (source,) = node.inputs
        nodes.append(node)
        folds[node.name], lanes[node.name] = Fold(pe=width, simd=lanes[source]), width
        return node.name

    for node in graph.nodes:
        sources = []
        for k, name in enumerate(node.inputs):
            at, prefix = tip[name], f"{node.name}_i{k}" if node.READS > 1 else node.name
            if not isinstance(node, Flatten):
                wanted = lanes_in(node, folds[node.name], graph.edges[name])
                for step, width in enumerate(convert_width(lanes[at], wanted)):
                    at = insert(WidthConvert(f"{prefix}_width{step or ''}", (at,), lanes=width),
                                width)
                window = window_of(graph, node)
                whole = window is not None and gives_whole(graph, window, folds[window.name])
                depth = CUT if node.READS > 1 else fifo_depth(graph, node, wanted, whole=whole)
                if depth:
                    at = insert(Fifo(f"{prefix}_fifo", (at,), depth=depth), wanted)
            sources.append(at)
        nodes.append(type(node)(**{**node.__dict__, "inputs": tuple(sources)}))
        name = tip[node.name] = node.name
        lanes[name] = (lanes[sources[0]] if isinstance(node, Flatten)
                       else lanes_out(node, folds[name], graph.edges[name]))
        if (ways := readers[name]) > 1:
            tip[name] = insert(Fork(f"{name}_fork", (name,), ways=ways), lanes[name])
    made = graph.with_nodes(nodes)
    depths = {}
    for name, least in least_depths(made, lanes).items():
        depths[name] = folding[name].depth if name in folding else max(least, CUT)
        if depths[name] < max(least, 1):
            raise N2uqError(f"{name}: depth must be at least {max(least, 1)} beats, lest the graph "
                            f"deadlocks, not {depths[name]}")
    return made.with_nodes(replace(node, depth=depths[node.name]) if isinstance(node, Fifo)
                           and node.name in depths else node for node in made.nodes), folds


def lanes_of(graph: Graph, folding: Folding, name: str) -> int:
    """Elements per beat on the edge `name` of a hardware graph."""
    node = graph[name]
    if isinstance(node, Flatten):
        return lanes_of(graph, folding, node.inputs[0])
    return lanes_out(node, folding[name], graph.edges[name])


def saturates(graph: Graph) -> bool:
    """Whether the accelerator has elements to count that Saturate nodes change."""
    return any(isinstance(node, Saturate) for node in graph.nodes)


def outputs(node: Node) -> list[str]:
    """Names of the output streams of a unit: ``o``; ``o0``, ``o1``, ... of a Fork."""
    return [f"o{k}" for k in range(node.ways)] if isinstance(node, Fork) else ["o"]


class Accelerator(wiring.Component):
    """The whole network: one input stream of pixels, one output stream.

    Members
    -------
    i: beats of the input image, [H, W, C] in row-major order.
    o: beats of the result.
    <node>_<port>: where a unit's tables are written, see `inputs`.
    saturated: if there are Saturate nodes, the elements that they all changed, since reset, up to
        the cycle before; stays at ``2**32 - 1``.

    Latency and throughput are those of its units; an image may enter while others are inside.

    Parameters
    ----------
    graph: lowered graph, without hardware-only nodes.
    folding: a Fold for each of its nodes.
    """

    def __init__(self, graph: Graph, folding: Folding) -> None:
        self.graph, self.folding = hardware_graph(graph, folding)
        for node in self.graph.nodes:
            if node.name in (TOP, WRAPPER):
                raise N2uqError(f"{graph.name}: no node may be called {TOP} or {WRAPPER}")

        def layout(name: str) -> data.ArrayLayout:
            return beats(element(self.graph.edges[name]),
                         lanes_of(self.graph, self.folding, name))
        super().__init__({"i": In(stream.Signature(layout(self.graph.input.name))),
                          "o": Out(stream.Signature(layout(self.graph.output))),
                          **({"saturated": Out(COUNT_BITS)} if saturates(graph) else {}),
                          **{f"{node.name}_{port}": member for node in graph.nodes
                             for port, member in inputs(node).items()}})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        graph = self.graph
        # The streams that carry an edge, one for each of its readers, in their order.
        streams: dict[str, list[Any]] = {graph.input.name: [flipped(self.i)]}
        counts = []
        for node in graph.nodes[1:]:
            given = [streams[name].pop(0) for name in node.inputs]
            if isinstance(node, Flatten):
                streams[node.name] = given
                continue
            make = partial(unit, node, graph.reads(node), graph.edges[node.name],
                           self.folding[node.name])
            m.submodules[f"{node.name}_unit"], ports = instantiate(
                make, node.name, module_name(graph, node.name), platform)
            for k, source in enumerate(given):
                connect(m, source, getattr(ports, f"i{k}" if len(given) > 1 else "i"))
            streams[node.name] = [getattr(ports, name) for name in outputs(node)]
            for port in inputs(node):
                m.d.comb += getattr(ports, port).eq(getattr(self, f"{node.name}_{port}"))
            if isinstance(node, Saturate):
                counts.append(ports.saturated)
        (result,) = streams[graph.output]
        connect(m, result, flipped(self.o))
        if counts:
            most = 2**COUNT_BITS - 1
            total = sum(counts)
            m.d.sync += self.saturated.eq(Mux(total > most, most, total))
        return m


def module_name(graph: Graph, node: str = TOP) -> str:
    """Verilog module of a node's unit, or of the accelerator: never a keyword."""
    return f"{graph.name}_{node}"
