"""Channels of a pixel as a block of pixels."""

from __future__ import annotations

import math

import numpy as np
from amaranth.hdl import Module
from amaranth.lib.wiring import connect, flipped

from ..ir import DepthToSpace, Edge, Permute, infer
from .line_buffer import LineBuffer, Loop, read_lines
from .permute import PermuteUnit
from .stream import Unit, beats, divides, element

__all__ = ["DepthToSpaceUnit", "block_lines", "block_order"]


def block_order(node: DepthToSpace, edge: Edge) -> Permute | None:
    """What brings the channels of a pixel into the order of mode DCR; None if they are in it."""
    order = np.arange(edge.channels)
    if node.mode == "CRD":
        order = order.reshape(-1, math.prod(node.sides)).T.reshape(-1)
    return None if (np.diff(order) == 1).all() else Permute(f"{node.name}_order", order=order)


def block_lines(node: DepthToSpace, edge: Edge, words: int) -> LineBuffer:
    """The line buffer of `node` that reads `edge` in so many words per pixel of the result.

    A row, and what of the next one comes while all but the first of its lines are read.
    """
    (height, width, _), (down, across) = edge.shape, node.sides
    line = width * across * words
    return LineBuffer((2 * down - 1) * line + 1, height, 1, (
        Loop("word", across * words, 1), Loop("pixel", width, down * across * words),
        Loop("line", down, across * words)), (down * line,) * 3)


class DepthToSpaceUnit(Unit):
    """The a·b·C channels of each pixel as a × b pixels of C channels, PE channels per beat.

    A row waits in a line buffer until all a lines were read of it.  An image takes
    ``H·W·a·b·C/PE`` cycles; latency 2 cycles from a word to its beat.  Channels of mode CRD pass
    a PermuteUnit first.

    Parameters
    ----------
    node, edge: block and mode, and the image edge.
    out: the edge that is made.
    pe: channels per beat, a divisor of C.
    """

    def __init__(self, node: DepthToSpace, edge: Edge, out: Edge, *, pe: int) -> None:
        words = divides(f"{node.name}: PE", pe, "channels", out.channels)
        self.edge, self.pe = edge, pe
        self.order, self.plan = block_order(node, edge), block_lines(node, edge, words)
        super().__init__(beats(element(edge), pe), beats(element(out), pe))

    def elaborate(self, platform):
        m = Module()
        i = self.i
        if self.order:
            m.submodules.order = order = PermuteUnit(
                self.order, self.edge, infer(self.order, self.edge), pe=self.pe)
            connect(m, flipped(i), order.i)
            i = order.o
        read_lines(m, self.plan, i, self.o)
        return m
