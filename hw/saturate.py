"""A stream held in a range, with a counter of what it changes."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Out

from ..ir import Edge, Saturate
from .lines import _clamp
from .stream import Unit, beats, divides, element, let

__all__ = ["SaturateUnit"]

COUNT_BITS = 32  # of the counter of a SaturateUnit


class SaturateUnit(Unit):
    """``o = i`` held in `lo`..`hi` on PE channels per beat; counts the elements that it changes.

    Latency 1 cycle, II = 1.

    Members
    -------
    saturated: changed elements, since reset, of the beats that left; stays at ``2**32 - 1``.
    """

    def __init__(self, node: Saturate, edge: Edge, out: Edge, *, pe: int) -> None:
        divides(f"{node.name}: PE", pe, "channels", edge.channels)
        self.node, self.edge, self.pe = node, edge, pe
        super().__init__(beats(element(edge), pe), beats(element(out), pe),
                         saturated=Out(COUNT_BITS))

    def elaborate(self, platform):
        m = Module()
        enable = Signal()
        count = Signal(range(self.pe + 1))
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable)]
        reach = int(self.edge.lo.min()), int(self.edge.hi.max())
        held = [_clamp(self.i.payload[lane], (self.node.lo, self.node.hi), reach)
                for lane in range(self.pe)]
        with m.If(enable):
            m.d.sync += [self.o.valid.eq(self.i.valid),
                         let(self.o.payload, (x for x, _ in held)),
                         count.eq(sum(outside for _, outside in held))]
        with m.If(self.o.valid & self.o.ready):
            total = Signal(COUNT_BITS + 1)
            m.d.comb += total.eq(self.saturated + count)
            m.d.sync += self.saturated.eq(Mux(total[-1], 2**COUNT_BITS - 1, total))
        return m
