"""From a graph and its folding to gateware: one unit per node, and the accelerator of them all."""

from __future__ import annotations

from functools import partial, singledispatch
from typing import Any

from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..errors import N2uqError
from ..folding import Fold, Folding
from ..ir import (
    ArgMax,
    Edge,
    Fifo,
    Flatten,
    Graph,
    Input,
    MatVec,
    MaxPool,
    Node,
    Pad,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    WidthConvert,
)
from .eltwise import ArgMaxUnit, ScaleUnit
from .matvec import MatVecUnit
from .pool import MaxPoolUnit, SumPoolUnit
from .stream import (
    FifoUnit,
    Unit,
    WidthConverter,
    beats,
    convert_width,
    divides,
    element,
    instantiate,
)
from .threshold import ThresholdUnit
from .window import PadUnit, SlidingWindowUnit

__all__ = ["Accelerator", "hardware_graph", "lanes_in", "lanes_out", "unit"]

FIFO_DEPTH = 2  # cuts the ready path; deeper ones are for branches


@singledispatch
def unit(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
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
def _(node: Threshold, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return ThresholdUnit(node, reads[0], edge, pe=fold.pe, style=fold.style)


@unit.register
def _(node: Scale, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return ScaleUnit(node, reads[0], edge, pe=fold.pe)


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
def _(node: WidthConvert, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return WidthConverter(shape=element(edge), lanes_in=fold.simd, lanes_out=fold.pe)


def lanes_in(node: Node, fold: Fold) -> int:
    """Elements per beat that the unit of `node` takes."""
    return fold.simd if isinstance(node, MatVec | WidthConvert) else fold.pe


def lanes_out(node: Node, fold: Fold) -> int:
    """Elements per beat that the unit of `node` gives."""
    return 1 if isinstance(node, ArgMax) else fold.pe


def hardware_graph(graph: Graph, folding: Folding) -> tuple[Graph, Folding]:
    """Insert what only hardware needs: width converters, and a Fifo before each MatVec.

    Returns the graph with these nodes and the folding with theirs.  A Flatten has no unit: the
    stream passes through.
    """
    folds, nodes = dict(folding), []
    lanes: dict[str, int] = {}
    tip: dict[str, str] = {}  # the node that now carries what the key made
    for node in graph.nodes:
        if isinstance(node, Input):
            lanes[node.name] = folds[node.name].pe
            divides(f"{node.name}: lanes", folds[node.name].pe, "elements",
                    graph.edges[node.name].size)
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
            divides(f"{node.name}: lanes", wanted, "elements", graph.edges[name].size)
            for k, to in enumerate(convert_width(lanes[at], wanted)):
                converter = WidthConvert(f"{node.name}_width{k or ''}", (at,), lanes=to)
                folds[converter.name] = Fold(pe=to, simd=lanes[at])
                nodes.append(converter)
                at, lanes[converter.name] = converter.name, to
            if isinstance(node, MatVec):
                fifo = Fifo(f"{node.name}_fifo", (at,), depth=FIFO_DEPTH)
                folds[fifo.name] = Fold(pe=wanted, simd=wanted)
                nodes.append(fifo)
                at = fifo.name
            sources.append(at)
        nodes.append(type(node)(**{**node.__dict__, "inputs": tuple(sources)}))
        if not isinstance(node, Flatten):
            lanes[node.name] = lanes_out(node, folds[node.name])
    return graph.with_nodes(nodes), folds


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
        self.units: dict[str, Unit] = {
            node.name: unit(node, self.graph.reads(node), self.graph.edges[node.name],
                            self.folding[node.name])
            for node in self.graph.nodes if not isinstance(node, Input | Flatten)}
        first = self.graph.input.name
        self.i_layout = beats(element(self.graph.edges[first]), self.folding[first].pe)
        last = self._source(self.graph.output)
        self.o_layout: data.ArrayLayout = (
            self.units[last].o.payload.shape() if last in self.units else self.i_layout)
        super().__init__({"i": In(stream.Signature(self.i_layout)),
                          "o": Out(stream.Signature(self.o_layout))})

    def _source(self, name: str) -> str:
        """The node whose unit drives the edge `name`."""
        node = self.graph[name]
        return self._source(node.inputs[0]) if isinstance(node, Flatten) else name

    def module_name(self, node: str) -> str:
        """Verilog module of a node's unit."""
        return f"{self.graph.name}_{node}"

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        outputs: dict[str, Any] = {self.graph.input.name: flipped(self.i)}
        for node in self.graph.nodes:
            if node.name not in self.units:
                continue
            m.submodules[f"{node.name}_unit"], ports = instantiate(
                partial(self.units.__getitem__, node.name), node.name, self.module_name(node.name), platform)
            (read,) = node.inputs
            connect(m, outputs[self._source(read)], ports.i)
            outputs[node.name] = ports.o
        connect(m, outputs[self._source(self.graph.output)], flipped(self.o))
        return m

