"""Padding and sliding windows over a pixel stream."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Array, Const, Module, Mux, Signal
from amaranth.lib import memory

from ..ir import Edge, Pad, SlidingWindow
from .stream import Unit, beats, divides, element, wraps

__all__ = ["PadUnit", "SlidingWindowUnit"]


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
        row, column = Signal(range(rows)), Signal(range(columns))
        group = Signal(range(self.groups))
        moved = self.o.valid & self.o.ready
        pixel_done = wraps(m, group, self.groups, moved)
        row_done = wraps(m, column, columns, moved & pixel_done)
        wraps(m, row, rows, moved & pixel_done & row_done)
        inside = ((row >= top) & (row < top + height)
                  & (column >= left) & (column < left + width))
        # The frame waits for its image: a result must not come before what it is a result of.
        begin = (row == 0) & (column == 0) & (group == 0)
        m.d.comb += [self.o.valid.eq(self.i.valid | ~(inside | begin)),
                     self.i.ready.eq(self.o.ready & inside)]
        values = np.broadcast_to(self.node.values, channels).reshape(self.groups, self.lanes)
        for lane in range(self.lanes):
            table = [int(v) for v in values[:, lane]]
            shape = self.o.payload[lane].shape()
            frame = Const(table[0], shape) if len(set(table)) == 1 else Array(
                Const(v, shape) for v in table)[group]
            m.d.comb += self.o.payload[lane].eq(Mux(inside, self.i.payload[lane], frame))
        return m


class SlidingWindowUnit(Unit):
    """Every window of the image in the order (ky, kx, c), LANES channels per beat.

    A circular line buffer is written as pixels come and read window by window; a window's pixels
    are released as soon as no later window needs them.  With G = C/LANES words per pixel it holds
    ``D = ((kh + sh - 2)·W + kw)·G + 1`` words: the fewest that hold a window, the rows that a
    vertical stride skips, which come in while the windows before are read, and one that comes in
    while the window's last word is read.

    Latency from a window's last word to its beat: 2 cycles.  An image takes
    ``max(H·W·G, H'·W'·kh·kw·G + wait)`` cycles when neither side stalls.  The next image's first
    window fills up in ``wait = max(0, J + (kh - 1)·(W - kw)·G + 1 - D)``, where J are the words
    from an image's last window's first to the image's end: ``(kh - 1)·(W - kw)·G`` at stride 1.

    Parameters
    ----------
    node, edge: kernel and stride, and the image edge.
    lanes: channels per beat, a divisor of C.
    """

    def __init__(self, node: SlidingWindow, edge: Edge, *, lanes: int) -> None:
        self.groups = divides(f"{node.name}: lanes", lanes, "channels", edge.channels)
        self.node, self.edge, self.lanes = node, edge, lanes
        (kh, kw), (sh, _), width = node.kernel, node.stride, edge.shape[1]
        self.depth = ((kh + sh - 2) * width + kw) * self.groups + 1
        super().__init__(*[beats(element(edge), lanes)] * 2)

    def elaborate(self, platform):
        m = Module()
        (kh, kw), (sh, sw) = self.node.kernel, self.node.stride
        (height, width, _), groups, depth = self.edge.shape, self.groups, self.depth
        rows, columns = (height - kh) // sh + 1, (width - kw) // sw + 1
        m.submodules.lines = lines = memory.Memory(
            shape=len(self.i.p.as_value()), depth=depth, init=[])
        write, read = lines.write_port(), lines.read_port()

        # Where the window is, and which of its words is read: all counters end together.
        word, ky = Signal(range(kw * groups)), Signal(range(kh))
        column, row = Signal(range(columns)), Signal(range(rows))
        issue, enable = Signal(), Signal()
        run_end = wraps(m, word, kw * groups, issue)
        window_end = wraps(m, ky, kh, issue & run_end) & run_end
        row_end = wraps(m, column, columns, issue & window_end) & window_end
        image_end = wraps(m, row, rows, issue & row_end) & row_end

        # Words from a window's first pixel to the next window's: what the window's end releases.
        to_column, to_row = sw * groups, (sh * width - (columns - 1) * sw) * groups
        to_image = (height * width - ((rows - 1) * sh * width + (columns - 1) * sw)) * groups
        jumps = (to_column, to_row, to_image)

        def at_end(of_column: int, of_row: int, of_image: int):
            return Mux(image_end, of_image, Mux(row_end, of_row, of_column))

        # Words from the one to read to the next one; a window's end goes back to its first one too.
        back = ((kh - 1) * width + kw) * groups - 1
        steps = (1, (width - kw) * groups + 1, *(jump - back for jump in jumps))

        def step(of_word: int, of_run: int, *of_window: int):
            return Mux(window_end, at_end(*of_window), Mux(run_end, of_run, of_word))

        # Words written from the window's first on. A jump past the last word written makes it
        # negative: words that no window reads are let in and forgotten.
        fill = Signal(range(-max(jumps), depth + 1))
        # Words written after the one to read: negative while that one is still to come.
        ahead = Signal(range(-max(jumps) - back - 1, depth), init=-1)
        m.d.sync += [
            fill.eq(fill + write.en - Mux(issue & window_end, at_end(*jumps), 0)),
            ahead.eq(ahead + write.en - Mux(issue, step(*steps), 0)),
        ]
        m.d.comb += [
            enable.eq(~self.o.valid | self.o.ready),
            issue.eq(enable & (ahead >= 0)),
            self.i.ready.eq(fill != depth),
            write.en.eq(self.i.valid & self.i.ready), write.data.eq(self.i.p.as_value()),
            read.en.eq(enable), self.o.p.as_value().eq(read.data),
        ]
        wraps(m, write.addr, depth, write.en)
        # The read address goes round the circular buffer: both sums at once, then the one in range.
        near = read.addr + step(*(size % depth for size in steps))
        far = read.addr + step(*(size % depth - depth for size in steps))
        with m.If(issue):
            m.d.sync += read.addr.eq(Mux(far >= 0, far, near))
        with m.If(enable):
            m.d.sync += self.o.valid.eq(issue)
        return m

