"""Pools: what MaxPool and SumPool share, channel group by channel group or whole windows."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Module, Mux, Signal
from amaranth.hdl import Value as HdlValue
from amaranth.lib import memory

from ..ir import Edge, MaxPool, SumPool
from .stream import Unit, beats, divides, element, let, shape_for, tree, wraps

__all__ = ["PoolUnit"]


class PoolUnit(Unit):
    """Folds the P positions of a window into one pixel; PE channels per beat.

    Beats come position by position, each with C/PE channel groups, so C/PE partial results wait in
    a memory.  A window takes ``P·C/PE`` cycles, II = 1; latency 1 cycle from the last position.
    With PE = P·C a beat is a whole window, and gives a pixel of C channels.

    Parameters
    ----------
    node, edge, out: positions, the window edge that is read, the edge that is made.
    pe: channels per beat: a divisor of C; or P·C, for which the output has C.
    """

    operation: np.ufunc

    def __init__(self, node: MaxPool | SumPool, edge: Edge, out: Edge, *, pe: int) -> None:
        # Positions in a beat, and beats of them; channels per beat of one, and groups of them.
        self.at_once = node.positions if pe == edge.channels else 1
        self.positions, self.pe = node.positions // self.at_once, pe // self.at_once
        self.groups = divides(f"{node.name}: PE", self.pe, "channels", out.channels)
        # A partial result can leave the range of the whole: its exact range is over all positions.
        lo, hi = (self.operation.accumulate(end.reshape(node.positions, -1))
                  for end in (edge.lo, edge.hi))
        self.partial = beats(shape_for(int(lo.min()), int(hi.max())), self.pe)
        super().__init__(beats(element(edge), pe), beats(element(out), self.pe))

    def combine(self, so_far: HdlValue, x: HdlValue) -> HdlValue:
        """The pool's operation on two values."""
        raise TypeError(f"{type(self).__name__} combines nothing")

    def elaborate(self, platform):
        m = Module()
        enable = Signal()
        moved = Signal()
        result = Signal(self.partial)
        group_index = Signal(range(self.groups))
        position = Signal(range(self.positions))
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable),
                     moved.eq(enable & self.i.valid)]
        round_done = wraps(m, group_index, self.groups, moved)
        last = wraps(m, position, self.positions, moved & round_done)
        if self.groups == 1 < self.positions:  # a memory of one word is a register
            so_far = Signal(self.partial, name="partial", reset_less=True)
            with m.If(moved):
                m.d.sync += so_far.eq(result)
        else:
            m.submodules.partial = partial = memory.Memory(
                shape=self.partial, depth=self.groups, init=[])
            write = partial.write_port()
            read = partial.read_port(domain="comb")
            m.d.comb += [read.addr.eq(group_index), write.addr.eq(group_index), write.en.eq(moved),
                         write.data.eq(result)]
            so_far = read.data
        results = []
        for lane in range(self.pe):
            x = tree(m, f"lane{lane}", [self.i.payload[position * self.pe + lane]
                                        for position in range(self.at_once)], self.combine)
            results.append(Mux(position == 0, x, self.combine(so_far[lane], x)))
        m.d.comb += let(result, results)
        with m.If(enable):
            m.d.sync += self.o.valid.eq(self.i.valid & last)
            m.d.sync += let(self.o.payload, (result[lane] for lane in range(self.pe)))
        return m
