"""A circular buffer of words that are read over and over, in the order of nested loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory

from .stream import wraps

__all__ = ["LineBuffer", "Loop", "read_lines"]


@dataclass(frozen=True)
class Loop:
    """A loop of reads: its counter's `name`, how many `turns`, and words from one to the next."""

    name: str
    turns: int
    stride: int


@dataclass(frozen=True)
class LineBuffer:
    """What is read of a stream of words, window by window.

    Members
    -------
    depth: words that it holds.
    rows, columns: windows down and across.
    loops: of a window's words, the innermost first, which goes from word to word.
    jumps: from a window's first word to the next window's, within a row of windows, from row to row
        and from image to image: what the window's end releases.
    """

    depth: int
    rows: int
    columns: int
    loops: tuple[Loop, ...]
    jumps: tuple[int, int, int]

    @property
    def back(self) -> int:
        """Words from a window's first to the last that is read."""
        return sum((loop.turns - 1) * loop.stride for loop in self.loops)

    @property
    def steps(self) -> tuple[int, ...]:
        """Words from the last of each loop but the last one to the first of its next turn."""
        passed = [sum((loop.turns - 1) * loop.stride for loop in self.loops[:k])
                  for k in range(len(self.loops))]
        return tuple(loop.stride - before for loop, before in zip(self.loops, passed, strict=True))


def read_lines(m: Module, plan: LineBuffer, i: Any, o: Any) -> None:
    """Let the beats of the stream `i` come out of `o` as `plan` says, 2 cycles later at least.

    A window's words are released when all of them are read.
    """
    depth = plan.depth
    m.submodules.lines = lines = memory.Memory(shape=len(i.p.as_value()), depth=depth, init=[])
    write = lines.write_port()
    read = lines.read_port()

    # Where the window is, and which of its words is read: all counters end together.
    counters = [Signal(range(loop.turns), name=loop.name) for loop in plan.loops]
    column = Signal(range(plan.columns))
    row = Signal(range(plan.rows))
    issue = Signal()
    enable = Signal()
    ends: list[Any] = []
    for loop, counter in zip(plan.loops, counters, strict=True):
        end = wraps(m, counter, loop.turns, issue & ends[-1] if ends else issue)
        ends.append(end & ends[-1] if ends else end)
    window_end = ends[-1]
    row_end = wraps(m, column, plan.columns, issue & window_end) & window_end
    image_end = wraps(m, row, plan.rows, issue & row_end) & row_end

    def at_end(of_column: int, of_row: int, of_image: int) -> Any:
        return Mux(image_end, of_image, Mux(row_end, of_row, of_column))

    # Words from the one to read to the next one; a window's end goes back to its first one too.
    steps = (*plan.steps, *(jump - plan.back for jump in plan.jumps))

    def step(*sizes: int) -> Any:
        *of_loops, of_column, of_row, of_image = sizes
        ways = [*of_loops[1:], at_end(of_column, of_row, of_image)]
        change: Any = of_loops[0]
        for end, way in zip(ends, ways, strict=True):
            change = Mux(end, way, change)
        return change

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
        enable.eq(~o.valid | o.ready),
        issue.eq(enable & (ahead >= 0)),
        i.ready.eq(fill != depth),
        write.en.eq(i.valid & i.ready), write.data.eq(i.p.as_value()),
        read.en.eq(enable), o.p.as_value().eq(read.data),
    ]
    wraps(m, write.addr, depth, write.en)
    # The read address goes round the circular buffer: both sums at once, then the one in range.
    near = read.addr + step(*(size % depth for size in steps))
    far = read.addr + step(*(size % depth - depth for size in steps))
    with m.If(issue):
        m.d.sync += read.addr.eq(Mux(far >= 0, far, near))
    with m.If(enable):
        m.d.sync += o.valid.eq(issue)
