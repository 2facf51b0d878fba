"""A stream with other lanes per beat."""

from __future__ import annotations

from math import gcd

from amaranth.hdl import Cat, Module, Shape, Signal

from .stream import Unit, beats, divides, wraps

__all__ = ["WidthConverter", "convert_width"]


class WidthConverter(Unit):
    """Regroup a stream to another number of lanes, of which one divides the other.

    Latency ``lanes_out/lanes_in`` cycles from the first part up, 1 cycle down; the narrower side
    moves one beat per cycle, the wider side one whenever its parts are complete.

    Parameters
    ----------
    shape: element shape.
    lanes_in, lanes_out: elements per beat.
    """

    def __init__(self, *, shape: Shape, lanes_in: int, lanes_out: int) -> None:
        self.ratio = divides("the narrower lanes", min(lanes_in, lanes_out),
                             "lanes of the wider side", max(lanes_in, lanes_out))
        self.up = lanes_out > lanes_in
        super().__init__(beats(shape, lanes_in), beats(shape, lanes_out))

    def elaborate(self, platform):
        m = Module()
        count = Signal(range(self.ratio))
        narrow = min(len(self.i.p.as_value()), len(self.o.p.as_value()))
        free = ~self.o.valid | self.o.ready
        if self.up:
            # Cycles 1..ratio-1: parts pile up. Cycle ratio: all go to the output register.
            parts = Signal(narrow * (self.ratio - 1))
            whole = self.i.p.as_value()
            last = wraps(m, count, self.ratio, self.i.valid & self.i.ready)
            m.d.comb += self.i.ready.eq(~last | free)
            with m.If(self.o.ready):
                m.d.sync += self.o.valid.eq(0)
            with m.If(self.i.valid & self.i.ready):
                m.d.sync += parts.eq(Cat(parts, whole)[narrow:])
                with m.If(last):
                    m.d.sync += [self.o.p.as_value().eq(Cat(parts, whole)), self.o.valid.eq(1)]
        else:
            rest = Signal(narrow * self.ratio)
            m.d.comb += self.o.p.as_value().eq(rest)
            last = wraps(m, count, self.ratio, self.o.valid & self.o.ready)
            m.d.comb += self.i.ready.eq(~self.o.valid | (self.o.ready & last))
            with m.If(self.o.ready):
                m.d.sync += rest.eq(rest[narrow:])
            with m.If(self.i.ready):
                m.d.sync += [rest.eq(self.i.p.as_value()), self.o.valid.eq(self.i.valid)]
        return m


def convert_width(lanes_in: int, lanes_out: int) -> list[int]:
    """Lanes after each WidthConverter on the way: none, one, or two by way of the common multiple.

    Up comes before down, so that the stream never narrows below either side.
    """
    if lanes_in == lanes_out:
        return []
    common = lanes_in * lanes_out // gcd(lanes_in, lanes_out)
    return [lanes_out] if common in (lanes_in, lanes_out) else [common, lanes_out]
