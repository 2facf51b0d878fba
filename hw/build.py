"""From a graph and its folding to gateware: one unit per node, and the accelerator of them all."""

from __future__ import annotations

from functools import partial, singledispatch
from typing import Any

from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..errors import N2uqError
from ..folding import Fold, Folding, check
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
    Pad,
    PiecewiseLinear,
    Saturate,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    WidthConvert,
)
from .depthwise import DepthwiseMatVecUnit
from .eltwise import AddUnit, ArgMaxUnit, PiecewiseLinearUnit, SaturateUnit, ScaleUnit
from .matvec import MatVecUnit
from .pool import MaxPoolUnit, SumPoolUnit
from .stream import (
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
from .window import PadUnit, SlidingWindowUnit

__all__ = ["TOP", "WRAPPER", "Accelerator", "fifo_depth", "hardware_graph", "lanes_in", "lanes_of",
           "lanes_out", "module_name", "unit"]

TOP, WRAPPER = "accelerator", "axis"  # what modules are called beside those of nodes
CUT = 2  # beats of a Fifo that only cuts the ready path


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
    return MatVecUnit(node, reads[0], edge, pe=fold.pe, simd=fold.simd, form=fold.form)


@unit.register
def _(node: DepthwiseMatVec, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return DepthwiseMatVecUnit(node, reads[0], edge, pe=fold.pe)


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


def lanes_in(node: Node, fold: Fold) -> int:
    """Elements per beat that the unit of `node` takes."""
    return fold.simd if isinstance(node, MatVec | WidthConvert) else fold.pe


def lanes_out(node: Node, fold: Fold) -> int:
    """Elements per beat that the unit of `node` gives."""
    return 1 if isinstance(node, ArgMax) else fold.pe


def fifo_depth(graph: Graph, node: Node, lanes: int) -> int:
    """Beats of `lanes` elements to queue before `node`, so that it never waits; 0 for no Fifo.

    A MatVec takes its vector in the first of its folds; in the others the next vector piles up,
    unless it comes from a window, which makes it in no time.  A line buffer is full until an
    image's last window is read; the pixels pile up that the next image's first window needs beyond
    the rows that a stride leaves to spare.
    """
    source, (read,) = graph[node.inputs[0]], graph.reads(node)
    if isinstance(node, MatVec):
        return CUT if isinstance(source, SlidingWindow | Input) else read.channels // lanes
    if isinstance(source, MatVec) and isinstance(node, Threshold):
        return CUT  # what follows would stall the MatVec through one long path
    pad = node if isinstance(node, Pad) else None
    window = next((n for n in graph.nodes if node.name in n.inputs), None) if pad else node
    if not isinstance(window, SlidingWindow) or isinstance(source, Input | Pad):
        return 0
    (kh, kw), (sh, _) = window.kernel, window.stride
    top, _, left, _ = pad.frame if pad else (0, 0, 0, 0)
    pixels = max(kh - sh - top, 0) * read.shape[1] + max(kw - left, 0)
    return max(pixels * read.channels // lanes, CUT)


def hardware_graph(graph: Graph, folding: Folding) -> tuple[Graph, Folding]:
    """Insert what only hardware needs: width converters, and a Fifo where `fifo_depth` asks.

    Returns the graph with these nodes and the folding with theirs.  A Flatten has no unit: the
    stream passes through.
    """
    check(graph, folding)
    folds = dict(folding)
    nodes: list[Node] = []
    lanes: dict[str, int] = {}
    tip: dict[str, str] = {}  # the node that now carries what the key made
    for node in graph.nodes:
        if isinstance(node, Input):
            lanes[node.name] = folds[node.name].pe
            nodes.append(node)
            continue
        sources = []
        for name in node.inputs:
            at = tip.get(name, name)
            if isinstance(node, Flatten):
                sources.append(at)
                lanes[node.name] = lanes[at]
                continue
            wanted = lanes_in(node, folds[node.name])
            for k, to in enumerate(convert_width(lanes[at], wanted)):
                converter = WidthConvert(f"{node.name}_width{k or ''}", (at,), lanes=to)
                folds[converter.name] = Fold(pe=to, simd=lanes[at])
                nodes.append(converter)
                at, lanes[converter.name] = converter.name, to
            if depth := fifo_depth(graph, node, wanted):
                fifo = Fifo(f"{node.name}_fifo", (at,), depth=depth)
                folds[fifo.name] = Fold(pe=wanted, simd=wanted)
                nodes.append(fifo)
                at = fifo.name
            sources.append(at)
        nodes.append(type(node)(**{**node.__dict__, "inputs": tuple(sources)}))
        if not isinstance(node, Flatten):
            lanes[node.name] = lanes_out(node, folds[node.name])
    return graph.with_nodes(nodes), folds


def lanes_of(graph: Graph, folding: Folding, name: str) -> int:
    """Elements per beat on the edge `name` of a hardware graph."""
    node = graph[name]
    if isinstance(node, Flatten):
        return lanes_of(graph, folding, node.inputs[0])
    return lanes_out(node, folding[name])


class Accelerator(wiring.Component):
    """The whole network: one input stream of pixels, one output stream.

    Members
    -------
    i: beats of the input image, [H, W, C] in row-major order.
    o: beats of the result.

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
                          "o": Out(stream.Signature(layout(self.graph.output)))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        graph = self.graph
        streams: dict[str, Any] = {graph.input.name: flipped(self.i)}
        for node in graph.nodes[1:]:
            (read,) = node.inputs
            if isinstance(node, Flatten):
                streams[node.name] = streams[read]
                continue
            make = partial(unit, node, graph.reads(node), graph.edges[node.name],
                           self.folding[node.name])
            m.submodules[f"{node.name}_unit"], ports = instantiate(
                make, node.name, module_name(graph, node.name), platform)
            connect(m, streams[read], ports.i)
            streams[node.name] = ports.o
        connect(m, streams[graph.output], flipped(self.o))
        return m


def module_name(graph: Graph, node: str = TOP) -> str:
    """Verilog module of a node's unit, or of the accelerator: never a keyword."""
    return f"{graph.name}_{node}"
