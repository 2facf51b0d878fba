"""A frame of constant pixels around each image."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value

from ..ir import Edge, Pad
from .stream import Unit, beats, divides, element, wraps

__all__ = ["PadUnit"]


class PadUnit(Unit):
    """A frame of constant pixels around the image; LANES channels per beat.

    Latency 0 (combinational); one beat per cycle, the frame's beats included, so an image of H × W
    takes ``(H + top + bottom)·(W + left + right)·C/LANES`` cycles.  The frame begins when the
    image's first beat is offered.
    """

    def __init__(self, node: Pad, edge: Edge, out: Edge, *, lanes: int) -> None:
        self.groups = divides(f"{node.name}: lanes", lanes, "channels", edge.channels)
        self.node, self.edge, self.out, self.lanes = node, edge, out, lanes
        super().__init__(beats(element(edge), lanes), beats(element(out), lanes))

    def elaborate(self, platform):
        m = Module()
        (height, width, channels), (top, _, left, _) = self.edge.shape, self.node.frame
        rows, columns = self.out.shape[:2]
        row = Signal(range(rows))
        column = Signal(range(columns))
        group_index = Signal(range(self.groups))
        moved = self.o.valid & self.o.ready
        pixel_done = wraps(m, group_index, self.groups, moved)
        row_done = wraps(m, column, columns, moved & pixel_done)
        wraps(m, row, rows, moved & pixel_done & row_done)
        inside = _inside(row, top, height, rows) & _inside(column, left, width, columns)
        # The frame waits for its image: a result must not come before what it is a result of.
        begin = (row == 0) & (column == 0) & (group_index == 0)
        m.d.comb += [self.o.valid.eq(self.i.valid | ~(inside | begin)),
                     self.i.ready.eq(self.o.ready & inside)]
        values = np.broadcast_to(self.node.values, channels).reshape(self.groups, self.lanes)
        for lane in range(self.lanes):
            table = [int(v) for v in values[:, lane]]
            shape = self.o.payload[lane].shape()
            frame = Const(table[0], shape) if len(set(table)) == 1 else Array(
                Const(v, shape) for v in table)[group_index]
            m.d.comb += self.o.payload[lane].eq(Mux(inside, self.i.payload[lane], frame))
        return m


def _inside(at: Value, before: int, size: int, whole: int) -> Value:
    """Whether `at`, of `whole`, is one of the `size` that follow `before`; asks what is open."""
    asked = [at >= before] * (before > 0) + [at < before + size] * (before + size < whole)
    return Cat(asked).all() if asked else Const(1)
