"""Every pixel several times, across and down."""

from __future__ import annotations

from amaranth.hdl import Module

from ..ir import Edge, Upsample
from .line_buffer import LineBuffer, Loop, read_lines
from .stream import Unit, beats, divides, element

__all__ = ["UpsampleUnit", "upsample_lines"]


def upsample_lines(node: Upsample, edge: Edge, words: int) -> LineBuffer:
    """The line buffer of `node` that reads `edge` in so many words per pixel.

    A row, and what of the next one comes while it is read; of a factor of 1 down, two pixels.
    """
    (height, width, _), (down, across) = edge.shape, node.factor
    pixel = (Loop("word", words, 1), Loop("copy", across, 0))
    if down == 1:
        return LineBuffer(2 * words, height, width, pixel, (words,) * 3)
    row = width * words
    return LineBuffer(row + row * (down - 1) // down + 1, height, 1,
                      (*pixel, Loop("pixel", width, words), Loop("line", down, 0)), (row,) * 3)


class UpsampleUnit(Unit):
    """Each pixel w times across and each row h times down, PE channels per beat.

    A row waits in a line buffer until it was read h times.  An image takes ``h·H·w·W·C/PE`` cycles;
    latency 2 cycles from a pixel's first word to its beat.

    Parameters
    ----------
    node, edge: factors, and the image edge.
    pe: channels per beat, a divisor of C.
    """

    def __init__(self, node: Upsample, edge: Edge, *, pe: int) -> None:
        words = divides(f"{node.name}: PE", pe, "channels", edge.channels)
        self.plan = upsample_lines(node, edge, words)
        super().__init__(beats(element(edge), pe), beats(element(edge), pe))

    def elaborate(self, platform):
        m = Module()
        read_lines(m, self.plan, self.i, self.o)
        return m
