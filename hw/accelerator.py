"""The accelerator: every unit of a hardware graph, connected stream by stream."""

from __future__ import annotations

import re
from functools import partial, singledispatch
from typing import Any

from amaranth.hdl import Cat, Module, Mux
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..errors import N2uqError
from ..ir import Flatten, Fork, Graph, Node, Saturate
from ..ir.folding import Folding
from ..names import fresh, identifier, identifiers
from .library import instantiate
from .passes import hardware_graph, lanes_of, saturates
from .registers import Region
from .saturate import COUNT_BITS
from .stream import beats, element
from .units import unit
from .writable import INDEX_BITS, WORD, columns_of, row_bits

__all__ = ["TOP", "WRAPPER", "Accelerator", "control_name", "inputs", "module_name", "module_names",
           "outputs", "prefix", "signal_names"]

TOP, WRAPPER = "accelerator", "axis"  # what modules are called beside those of nodes

WIDEST = 2**16 - 4  # bits that a unit gives per cycle, of which Amaranth has a limit

_OURS = re.compile(r"(pe|product|n2uq)_|(con|prn|aux|nul|com\d|lpt\d)_$", re.IGNORECASE)
# Those of SystemVerilog with a _ in it: a module's name always has one.
_KEYWORDS = ("accept_on", "always_comb", "always_ff", "always_latch", "first_match",
             "pulsestyle_ondetect", "pulsestyle_onevent", "reject_on", "s_always", "s_eventually",
             "s_nexttime", "s_until", "s_until_with", "sync_accept_on", "sync_reject_on",
             "until_with", "wait_order")


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
    tables: if anything can be written, see `writable.py`: `write` puts `data` where `address` says,
        a column's number above a row; `bank` and `first` go to all units.
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
        self.signals = signal_names(self.graph)
        for node in self.graph.nodes:
            bits = lanes_of(self.graph, self.folding, node.name) * self.graph.edges[node.name].width
            if bits * len(outputs(node)) > WIDEST:
                raise N2uqError(f"{node.name}: must give {WIDEST:,} bits per cycle at most, not "
                                f"{bits * len(outputs(node)):,}")

        def layout(name: str) -> data.ArrayLayout:
            return beats(element(self.graph.edges[name]),
                         lanes_of(self.graph, self.folding, name))
        self.columns = list(columns_of({node.name: self._make(node)() for node in self.graph.nodes
                                        if getattr(node, "room", ())}))
        self.region = Region(len(self.columns), row_bits(self.columns)) if self.columns else None
        bus = {"tables": In(wiring.Signature({
            "write": Out(1), "address": Out((self.region.words - 1).bit_length()),
            "data": Out(WORD), "bank": Out(1), "first": Out(INDEX_BITS)}))} if self.region else {}
        super().__init__({"i": In(stream.Signature(layout(self.graph.input.name))),
                          "o": Out(stream.Signature(layout(self.graph.output))),
                          **bus,
                          **({"saturated": Out(COUNT_BITS)} if saturates(graph) else {}),
                          **{f"{self.signals[node.name]}_{port}": member for node in graph.nodes
                             for port, member in inputs(node).items()}})

    def _make(self, node: Node) -> partial[Any]:
        """What makes the unit of `node`."""
        return partial(unit, node, self.graph.reads(node), self.graph.edges[node.name],
                       self.folding[node.name])

    def _write(self, m: Module, node: Node, ports: Any) -> None:
        """Connect the bus of tables to the unit of `node`."""
        assert self.region is not None
        bus, ours = self.tables, [column.number for column in self.columns
                                  if column.node == node.name]
        number = bus.address[self.region.row_bits:]
        m.d.comb += [
            ports.tables.en.eq(Cat(bus.write & (number == k) for k in ours)),
            ports.tables.row.eq(bus.address), ports.tables.data.eq(bus.data),
            ports.tables.bank.eq(bus.bank), ports.tables.first.eq(bus.first)]

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        graph, names = self.graph, self.signals
        # The streams that carry an edge, one for each of its readers, in their order.
        streams: dict[str, list[Any]] = {graph.input.name: [flipped(self.i)]}
        counts = []
        for node in graph.nodes[1:]:
            sources = [streams[name].pop(0) for name in node.inputs]
            if isinstance(node, Flatten):
                streams[node.name] = sources
                continue
            make = self._make(node)
            ports = instantiate(m, make, names[node.name], f"{prefix(graph)}_{names[node.name]}",
                                platform, submodule=f"{names[node.name]}_unit")
            for k, source in enumerate(sources):
                connect(m, source, getattr(ports, f"i{k}" if len(sources) > 1 else "i"))
            streams[node.name] = [getattr(ports, name) for name in outputs(node)]
            for port in inputs(node):
                m.d.comb += getattr(ports, port).eq(getattr(self, f"{names[node.name]}_{port}"))
            if getattr(node, "room", ()):
                self._write(m, node, ports)
            if isinstance(node, Saturate):
                counts.append(ports.saturated)
        (result,) = streams[graph.output]
        connect(m, result, flipped(self.o))
        if counts:
            most = 2**COUNT_BITS - 1
            total = sum(counts)
            m.d.sync += self.saturated.eq(Mux(total > most, most, total))
        return m


def prefix(graph: Graph) -> str:
    """What Verilog modules and files of `graph` begin with: its name, apart from names of ours.

    These are those of shared modules (hw/mac.py) and of the harness, and devices of Windows.
    """
    name = identifier(graph.name)
    return f"net_{name}" if _OURS.match(f"{name}_") else name


def module_name(graph: Graph, module: str = TOP) -> str:
    """The Verilog module of the accelerator, or of its WRAPPER: never a keyword."""
    return f"{prefix(graph)}_{module}"


def signal_names(graph: Graph) -> dict[str, str]:
    """What nodes of a hardware graph are called in Verilog: signals, ports and instances."""
    begin = prefix(graph) + "_"
    keywords = (word.removeprefix(begin) for word in _KEYWORDS if word.startswith(begin))
    return identifiers((node.name for node in graph.nodes), (TOP, WRAPPER, *keywords))


def module_names(graph: Graph) -> dict[str, str]:
    """The Verilog modules of the nodes of a hardware graph."""
    return {node: f"{prefix(graph)}_{name}" for node, name in signal_names(graph).items()}


def control_name(graph: Graph) -> str:
    """The Verilog module of the registers beside the accelerator of a hardware graph."""
    taken = {name.lower() for name in (*module_names(graph).values(), module_name(graph),
                                       module_name(graph, WRAPPER))}
    word = f"{prefix(graph)}_control"
    return word + fresh(word.lower(), taken)[len(word):]
