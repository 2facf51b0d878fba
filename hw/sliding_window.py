"""Sliding windows over a pixel stream: line buffer and kernel."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.hdl import Value as HdlValue
from amaranth.lib import memory
from amaranth.lib.wiring import connect, flipped

from ..ir import Edge, SlidingWindow, infer
from .line_buffer import LineBuffer, Loop, read_lines
from .stream import Unit, beats, divides, element, wraps

__all__ = ["KernelUnit", "SlidingWindowUnit", "line_buffer", "stages"]


def line_buffer(node: SlidingWindow, edge: Edge, groups: int) -> LineBuffer:
    """The line buffer of `node` that reads `edge` in `groups` words per pixel."""
    (kh, kw), (eh, ew), (dh, dw) = node.kernel, node.extent, node.dilation
    (sh, sw), (height, width, _) = node.stride, edge.shape
    rows, columns = (height - eh) // sh + 1, (width - ew) // sw + 1
    to_last, of_group = (columns - 1) * sw, groups // node.groups
    words = (Loop("word", kw * groups, 1),) if dw == 1 and node.groups == 1 else (
        Loop("word", of_group, 1), Loop("kx", kw, dw * groups))
    parts = (Loop("group_index", node.groups, of_group),) if node.groups > 1 else ()
    return LineBuffer(
        ((eh + sh - 2) * width + ew) * groups + 1, rows, columns,
        (*words, Loop("ky", kh, dh * width * groups), *parts),
        (sw * groups, (sh * width - to_last) * groups,
         (height * width - ((rows - 1) * sh * width + to_last)) * groups))


Windows = tuple[SlidingWindow, Edge]  # and what they are windows of


def stages(node: SlidingWindow, edge: Edge, lanes: int) -> tuple[Windows | None, Windows | None]:
    """The windows that the two parts of a SlidingWindowUnit make: a KernelUnit, a line buffer.

    A line buffer alone those of `node`; where a beat is a whole window, a KernelUnit alone; where
    it is a whole row of the kernel, a KernelUnit the 1 × kw windows of the image, and a line buffer
    the kh × 1 windows of those: always the same elements in the same order.
    """
    (kh, kw), (sh, sw) = node.kernel, node.stride
    if kh * kw > 1 and lanes == kh * kw * edge.channels:
        return (node, edge), None
    if kw == 1 or node.groups > 1 or lanes != kw * edge.channels:
        return None, (node, edge)
    dh, dw = node.dilation
    rows = SlidingWindow(f"{node.name}_rows", kernel=(1, kw), stride=(1, sw), dilation=(1, dw))
    return (rows, edge), (SlidingWindow(node.name, kernel=(kh, 1), stride=(sh, 1),
                                        dilation=(dh, 1)), infer(rows, edge))


class KernelUnit(Unit):
    """The windows of an image, each in one beat, from a shift register of kw columns of kh pixels.

    A memory holds the kh - 1 rows above the one that comes, a column of them in each of W words.
    With dilation there are as many columns and rows as a window extends over.
    Latency from a window's last pixel to its beat: 1 cycle.  It takes a pixel of C channels per
    cycle, ``H·W`` cycles for an image, and gives a window per cycle at most; the next image follows
    without a gap.

    Parameters
    ----------
    node, edge: kernel and stride, and the image edge.
    """

    def __init__(self, node: SlidingWindow, edge: Edge) -> None:
        self.node, self.edge = node, edge
        channels, (kh, kw) = edge.channels, node.kernel
        super().__init__(*(beats(element(edge), n) for n in (channels, kh * kw * channels)))

    def elaborate(self, platform):
        m = Module()
        (height, width, _), (kh, kw), (sh, sw) = (
            self.edge.shape, self.node.extent, self.node.stride)
        dh = self.node.dilation[0]
        enable = Signal()
        moved = Signal()
        pixel, window = self.i.p.as_value(), self._window(m)
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable),
                     moved.eq(enable & self.i.valid)]
        column = Signal(range(width))
        row = Signal(range(height))
        row_end = wraps(m, column, width, moved)
        image_end = wraps(m, row, height, moved & row_end) & row_end
        whole = (_counts_down(m, "across", kw, sw, moved, row_end)
                 & _counts_down(m, "down", kh, sh, moved & row_end, image_end))
        pixels = pixel
        if kh > 1:
            m.submodules.lines = lines = memory.Memory(
                shape=(kh - 1) * len(pixel), depth=width, init=[])
            write = lines.write_port()
            read = lines.read_port(transparent_for=[write] if width == 1 else [])
            pixels = Cat(read.data, pixel)  # the column that comes, from the top down
            m.d.comb += [write.addr.eq(column), write.en.eq(moved),
                         write.data.eq(pixels[len(pixel):]),
                         read.addr.eq(Mux(row_end, 0, column + 1)), read.en.eq(moved)]
        with m.If(moved):
            for ky in range(self.node.kernel[0]):
                of_row = window.word_select(ky, kw * len(pixel))
                m.d.sync += of_row.eq(Cat(of_row[len(pixel):],
                                          pixels.word_select(ky * dh, len(pixel))))
        with m.If(enable):
            m.d.sync += self.o.valid.eq(self.i.valid & whole)
        return m

    def _window(self, m: Module) -> HdlValue:
        """The shift register, row by row: the output, or what the output is chosen from."""
        node, out, bits = self.node, self.o.p.as_value(), self.o.p[0].shape().width
        if node.dilation[1] == node.groups == 1:
            return out
        kh, dw, channels = node.kernel[0], node.dilation[1], self.edge.channels
        columns = node.extent[1]
        window = Signal(kh * columns * channels * bits)
        at = np.arange(kh * columns * channels).reshape(kh, columns, node.groups, -1)[:, ::dw]
        m.d.comb += out.eq(Cat(window.word_select(int(k), bits)
                               for k in at.transpose(2, 0, 1, 3).reshape(-1)))
        return window


def _counts_down(m: Module, name: str, first: int, every: int, advance: HdlValue, end: HdlValue
                 ) -> HdlValue:
    """Whether it is the `first` step since the last `end`, or one of `every` after that."""
    before = Signal(range(max(first, every)), name=name, init=first - 1)
    with m.If(advance):
        m.d.sync += before.eq(Mux(end, first - 1, Mux(before == 0, every - 1, before - 1)))
    return before == 0


class SlidingWindowUnit(Unit):
    """Every window of the image in the order (ky, kx, c), LANES channels per beat.

    With groups the order is (group, ky, kx, c).  With dilation kh and kw below, but for how many
    words a window has, are the rows and columns that it extends over.

    A circular line buffer is written as pixels come and read window by window; a window's pixels
    are released as soon as no later window needs them.  With G = C/LANES words per pixel it holds
    ``D = ((kh + sh - 2)·W + kw)·G + 1`` words: the fewest that hold a window, the rows that a
    vertical stride skips, which come in while the windows before are read, and one that comes in
    while the window's last word is read.

    Latency from a window's last word to its beat: 2 cycles.  An image takes
    ``max(H·W·G, H'·W'·kh·kw·G + wait)`` cycles when neither side stalls.  The next image's first
    window fills up in ``wait = max(0, J + (kh - 1)·(W - kw)·G + 1 - D)``, where J are the words
    from an image's last window's first to the image's end: ``(kh - 1)·(W - kw)·G`` at stride 1.

    With LANES = kw·C a beat is a whole row of the kernel: a KernelUnit comes first, and the line
    buffer holds its beats, ``D = (kh + sh - 2)·W' + 2`` of them.  The latency is 3 cycles.  Where
    kw ≤ kh an image takes ``max(H·W, H'·W'·kh + wait)`` cycles with ``wait = max(0, P + 2 - kh)``:
    P are the pixels from the one that completes beat D - J of the next image, counted from 0, the
    first that there is no room for, to the one that completes beat (kh - 1)·W', the last that its
    first window needs.  At stride 1 the wait is ``(kh - 1)·(W - 1)``.

    With LANES = kh·kw·C a beat is a whole window, and a KernelUnit all there is: latency 1 cycle,
    ``H·W`` cycles for an image, without a wait.

    Parameters
    ----------
    node, edge: kernel and stride, and the image edge.
    lanes: elements per beat: a divisor of C, of groups of a group's; or kw·C, not of groups, or
        kh·kw·C, for which the input has C.
    """

    def __init__(self, node: SlidingWindow, edge: Edge, *, lanes: int) -> None:
        self.node = node
        self.kernel, self.lines = stages(node, edge, lanes)
        if self.lines:
            last, read = self.lines
            of = "channels of a group" if node.groups > 1 else "channels"
            divides(f"{node.name}: lanes", lanes, of, read.channels // last.groups)
            self.plan = line_buffer(last, read, read.channels // lanes)
        super().__init__(*(beats(element(edge), n) for n in (min(lanes, edge.channels), lanes)))

    def elaborate(self, platform):
        m = Module()
        i = self.i
        if self.kernel:
            m.submodules.kernel = kernel = KernelUnit(*self.kernel)
            connect(m, flipped(i), kernel.i)
            i = kernel.o
        if not self.lines:
            connect(m, i, flipped(self.o))
            return m
        read_lines(m, self.plan, i, self.o)
        return m
