"""The channels of each pixel in another order."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import connect, flipped

from ..ir import Edge, Permute
from .stream import Unit, beats, divides, element, let
from .width_convert import WidthConverter

__all__ = ["PermuteUnit"]


class PermuteUnit(Unit):
    """``o[c] = i[order[c]]`` on PE channels per beat: a pixel is gathered, and given out again.

    With PE = C' it is wires and a register, and takes a pixel per cycle: latency 1 cycle.  Else a
    pixel takes ``max(C, C')/PE`` cycles; latency ``C/PE + 1`` cycles from its first beat, of C = PE
    1 cycle.

    Parameters
    ----------
    node, edge, out: the order, the edge that is read, the edge that is made.
    pe: channels per beat: a divisor of C and C'; or C', for which the input has C.
    """

    def __init__(self, node: Permute, edge: Edge, out: Edge, *, pe: int) -> None:
        self.node, self.edge, self.out, self.pe = node, edge, out, pe
        self.whole = pe == out.channels
        if not self.whole:
            divides(f"{node.name}: PE", pe, "output channels", out.channels)
            divides(f"{node.name}: PE", pe, "input channels", edge.channels)
        super().__init__(beats(element(edge), edge.channels if self.whole else pe),
                         beats(element(out), pe))

    def elaborate(self, platform):
        m = Module()
        i, o, order = self.i, flipped(self.o), self.node.order.tolist()
        if self.whole:
            enable = Signal()
            m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable)]
            with m.If(enable):
                m.d.sync += [self.o.valid.eq(i.valid),
                             let(self.o.payload, (i.payload[k] for k in order))]
            return m
        if self.pe < self.edge.channels:
            m.submodules.gather = gather = WidthConverter(
                shape=element(self.edge), lanes_in=self.pe, lanes_out=self.edge.channels)
            connect(m, flipped(i), gather.i)
            i = gather.o
        m.submodules.give = give = WidthConverter(
            shape=element(self.out), lanes_in=self.out.channels, lanes_out=self.pe)
        m.d.comb += [let(give.i.payload, (i.payload[k] for k in order)),
                     give.i.valid.eq(i.valid), i.ready.eq(give.i.ready)]
        connect(m, give.o, o)
        return m
