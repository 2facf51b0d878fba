"""Sliding windows over a pixel stream: line buffer and kernel."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.hdl import Value as HdlValue
from amaranth.lib import memory
from amaranth.lib.wiring import connect, flipped

from ..ir import Edge, SlidingWindow, infer
from .stream import Unit, beats, divides, element, wraps

__all__ = ["KernelUnit", "LineBuffer", "SlidingWindowUnit", "line_buffer", "stages"]


@dataclass(frozen=True)
class LineBuffer:
    """What a SlidingWindowUnit counts, in words, of which a pixel has `groups`.

    Members
    -------
    depth: words that it holds; see SlidingWindowUnit.
    rows, columns: windows down and across.
    run: words of a window's row.
    jumps: from a window's first word to the next window's, within a row of windows, from row to row
        and from image to image: what the window's end releases.
    to_run: from the last word of a window's row to the first of its next one.
    back: from a window's first word to its last.
    """

    depth: int
    rows: int
    columns: int
    run: int
    jumps: tuple[int, int, int]
    to_run: int
    back: int


def line_buffer(node: SlidingWindow, edge: Edge, groups: int) -> LineBuffer:
    """The line buffer of `node` that reads `edge` in `groups` words per pixel."""
    (kh, kw), (sh, sw), (height, width, _) = node.kernel, node.stride, edge.shape
    rows, columns = (height - kh) // sh + 1, (width - kw) // sw + 1
    to_last = (columns - 1) * sw
    return LineBuffer(
        ((kh + sh - 2) * width + kw) * groups + 1, rows, columns, kw * groups,
        (sw * groups, (sh * width - to_last) * groups,
         (height * width - ((rows - 1) * sh * width + to_last)) * groups),
        (width - kw) * groups + 1, ((kh - 1) * width + kw) * groups - 1)


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
    if kw == 1 or lanes != kw * edge.channels:
        return None, (node, edge)
    rows = SlidingWindow(f"{node.name}_rows", kernel=(1, kw), stride=(1, sw))
    return (rows, edge), (SlidingWindow(node.name, kernel=(kh, 1), stride=(sh, 1)),
                          infer(rows, edge))


class KernelUnit(Unit):
    """The windows of an image, each in one beat, from a shift register of kw columns of kh pixels.

    A memory holds the kh - 1 rows above the one that comes, a column of them in each of W words.
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
            self.edge.shape, self.node.kernel, self.node.stride)
        enable = Signal()
        moved = Signal()
        pixel, window = (port.p.as_value() for port in (self.i, self.o))
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
            for ky in range(kh):
                of_row = window.word_select(ky, kw * len(pixel))
                m.d.sync += of_row.eq(Cat(of_row[len(pixel):],
                                          pixels.word_select(ky, len(pixel))))
        with m.If(enable):
            m.d.sync += self.o.valid.eq(self.i.valid & whole)
        return m


def _counts_down(m: Module, name: str, first: int, every: int, advance: HdlValue, end: HdlValue
                 ) -> HdlValue:
    """Whether it is the `first` step since the last `end`, or one of `every` after that."""
    before = Signal(range(max(first, every)), name=name, init=first - 1)
    with m.If(advance):
        m.d.sync += before.eq(Mux(end, first - 1, Mux(before == 0, every - 1, before - 1)))
    return before == 0


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
    lanes: elements per beat: a divisor of C; or kw·C or kh·kw·C, for which the input has C.
    """

    def __init__(self, node: SlidingWindow, edge: Edge, *, lanes: int) -> None:
        self.node = node
        self.kernel, self.lines = stages(node, edge, lanes)
        if self.lines:
            last, read = self.lines
            groups = divides(f"{node.name}: lanes", lanes, "channels", read.channels)
            self.plan = line_buffer(last, read, groups)
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
        kh, plan, depth = self.node.kernel[0], self.plan, self.plan.depth
        m.submodules.lines = lines = memory.Memory(
            shape=len(i.p.as_value()), depth=depth, init=[])
        write = lines.write_port()
        read = lines.read_port()

        # Where the window is, and which of its words is read: all counters end together.
        word = Signal(range(plan.run))
        ky = Signal(range(kh))
        column = Signal(range(plan.columns))
        row = Signal(range(plan.rows))
        issue = Signal()
        enable = Signal()
        run_end = wraps(m, word, plan.run, issue)
        window_end = wraps(m, ky, kh, issue & run_end) & run_end
        row_end = wraps(m, column, plan.columns, issue & window_end) & window_end
        image_end = wraps(m, row, plan.rows, issue & row_end) & row_end

        def at_end(of_column: int, of_row: int, of_image: int):
            return Mux(image_end, of_image, Mux(row_end, of_row, of_column))

        # Words from the one to read to the next one; a window's end goes back to its first one too.
        steps = (1, plan.to_run, *(jump - plan.back for jump in plan.jumps))

        def step(of_word: int, of_run: int, *of_window: int):
            return Mux(window_end, at_end(*of_window), Mux(run_end, of_run, of_word))

        # Words written from the window's first on. A jump past the last word written makes it
        # negative: words that no window reads are let in and forgotten.
        fill = Signal(range(-max(plan.jumps), depth + 1))
        # Words written after the one to read: negative while that one is still to come.
        ahead = Signal(range(-max(plan.jumps) - plan.back - 1, depth), init=-1)
        m.d.sync += [
            fill.eq(fill + write.en - Mux(issue & window_end, at_end(*plan.jumps), 0)),
            ahead.eq(ahead + write.en - Mux(issue, step(*steps), 0)),
        ]
        m.d.comb += [
            enable.eq(~self.o.valid | self.o.ready),
            issue.eq(enable & (ahead >= 0)),
            i.ready.eq(fill != depth),
            write.en.eq(i.valid & i.ready), write.data.eq(i.p.as_value()),
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
