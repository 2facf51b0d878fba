"""The accelerator: every unit of a hardware graph, connected stream by stream."""

from __future__ import annotations

from functools import partial, singledispatch
from typing import Any

from amaranth.hdl import Module, Mux
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..errors import N2uqError
from ..ir import Flatten, Fork, Graph, Node, Saturate
from ..ir.folding import Folding
from .library import instantiate
from .passes import hardware_graph, lanes_of, saturates
from .saturate import COUNT_BITS
from .stream import beats, element
from .units import unit

__all__ = ["TOP", "WRAPPER", "Accelerator", "inputs", "module_name", "outputs"]

TOP, WRAPPER = "accelerator", "axis"  # what modules are called beside those of nodes


@singledispatch
def inputs(node: Node) -> dict[str, wiring.Member]:
    """Ports of a unit beside its streams that the accelerator has too, as ``<node>_<port>``."""
    return {}


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
