"""The index of the largest element."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data

from ..ir import ArgMax, Edge
from .stream import Unit, beats, divides, element, tree, wraps

__all__ = ["ArgMaxUnit"]


class ArgMaxUnit(Unit):
    """Index of the largest of C elements that come PE per beat; the lowest one on a tie.

    Latency 1 cycle from the last beat, II = 1: one index per C/PE beats.  A beat's largest is found
    by PE - 1 comparators in a tree of ``⌈log2(PE)⌉`` levels, and compared with the best before it.
    """

    def __init__(self, node: ArgMax, edge: Edge, out: Edge, *, pe: int) -> None:
        self.beats = divides(f"{node.name}: PE", pe, "elements", edge.channels)
        self.pe = pe
        super().__init__(beats(element(edge), pe), beats(element(out), 1))

    def elaborate(self, platform):
        m = Module()
        enable = Signal()
        moved = Signal()
        beat = Signal(range(self.beats))
        best = Signal(self.i.payload[0].shape())
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable),
                     moved.eq(enable & self.i.valid)]
        last = wraps(m, beat, self.beats, moved)
        entry = data.StructLayout({"value": best.shape(), "lane": range(self.pe)})

        def larger(a: Any, b: Any) -> Any:
            return entry(Mux(b.value > a.value, b.as_value(), a.as_value()))

        lane_bits = entry["lane"].width
        first = tree(m, "largest", [entry(Cat(self.i.payload[lane], Const(lane, lane_bits)))
                                    for lane in range(self.pe)], larger)
        better = Signal()
        m.d.comb += better.eq((first.value > best) | (beat == 0))
        with m.If(moved & better):
            m.d.sync += [best.eq(first.value), self.o.payload[0].eq(beat * self.pe + first.lane)]
        with m.If(enable):
            m.d.sync += self.o.valid.eq(self.i.valid & last)
        return m
