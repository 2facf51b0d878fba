"""The index of the largest element."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal

from ..ir import ArgMax, Edge
from .stream import Unit, beats, divides, element, wraps

__all__ = ["ArgMaxUnit"]


class ArgMaxUnit(Unit):
    """Index of the largest of C elements that come PE per beat; the lowest one on a tie.

    Latency 1 cycle from the last beat, II = 1: one index per C/PE beats.
    """

    def __init__(self, node: ArgMax, edge: Edge, out: Edge, *, pe: int) -> None:
        self.beats = divides(f"{node.name}: PE", pe, "elements", edge.channels)
        self.pe = pe
        super().__init__(beats(element(edge), pe), beats(element(out), 1))

    def elaborate(self, platform):
        m = Module()
        enable, moved, beat = Signal(), Signal(), Signal(range(self.beats))
        best = Signal(self.i.payload[0].shape())
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable),
                     moved.eq(enable & self.i.valid)]
        last = wraps(m, beat, self.beats, moved)
        value, index = best, self.o.payload[0]
        for lane in range(self.pe):
            x = self.i.payload[lane]
            better = (x > value) | ((beat == 0) if lane == 0 else 0)
            value = Mux(better, x, value)
            index = Mux(better, beat * self.pe + lane, index)
        with m.If(moved):
            m.d.sync += [best.eq(value), self.o.payload[0].eq(index)]
        with m.If(enable):
            m.d.sync += self.o.valid.eq(self.i.valid & last)
        return m
