"""Element by element: fixed-point scaling; and the index of the largest element."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory

from ..ir import ArgMax, Edge, Scale
from .stream import Unit, beats, divides, element, shape_for, wraps

__all__ = ["ArgMaxUnit", "ScaleUnit"]


class ScaleUnit(Unit):
    """``o = (i·multiplier + offset) >> shift`` (floor) on PE channels per beat.

    Latency 3 cycles, II = 1.
    """

    def __init__(self, node: Scale, edge: Edge, out: Edge, *, pe: int) -> None:
        self.groups = divides(f"{node.name}: PE", pe, "channels", edge.channels)
        self.node, self.edge, self.pe = node, edge, pe
        super().__init__(beats(element(edge), pe), beats(element(out), pe))

    def elaborate(self, platform):
        m = Module()
        node, channels = self.node, self.edge.channels
        enable, group = Signal(), Signal(range(self.groups))
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable)]
        wraps(m, group, self.groups, enable & self.i.valid)
        # Cycle 1: the group's multipliers and offsets are read.
        ports = []
        for name, values in (("multipliers", node.multiplier), ("offsets", node.offset)):
            shape = shape_for(int(values.min()), int(values.max()))
            rows = np.broadcast_to(values, channels).reshape(self.groups, self.pe)
            m.submodules[name] = table = memory.Memory(
                shape=beats(shape, self.pe), depth=self.groups,
                init=[[int(v) for v in row] for row in rows])
            port = table.read_port()
            m.d.comb += [port.addr.eq(group), port.en.eq(enable)]
            ports.append(port.data)
        multipliers, offsets = ports
        x, offset = Signal.like(self.i.payload), Signal.like(offsets)
        valid = [Signal(name=f"valid_{k}") for k in (1, 2)]
        with m.If(enable):
            m.d.sync += [x.eq(self.i.payload), offset.eq(offsets), valid[0].eq(self.i.valid),
                         valid[1].eq(valid[0]), self.o.valid.eq(valid[1])]
            for lane in range(self.pe):
                # Cycle 2: multiply. Cycle 3: add and shift.
                product = Signal((x[lane] * multipliers[lane]).shape(), name=f"product_{lane}")
                m.d.sync += [product.eq(x[lane] * multipliers[lane]),
                             self.o.payload[lane].eq((product + offset[lane]) >> node.shift)]
        return m


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

