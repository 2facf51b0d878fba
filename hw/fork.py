"""One stream for several readers."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["ForkUnit"]


class ForkUnit(wiring.Component):
    """One stream for several readers: each takes a beat when it is ready, once.

    A beat leaves the input when all have taken it, in that cycle or before.  Latency 0, II = 1.

    Parameters
    ----------
    layout: payload layout.
    ways: outputs, at least 1.

    Members
    -------
    i: the stream; o0, o1, ...: its copies.
    """

    def __init__(self, *, layout: data.ArrayLayout, ways: int) -> None:
        self.ways = ways
        super().__init__({"i": In(stream.Signature(layout)), **{
            f"o{k}": Out(stream.Signature(layout)) for k in range(ways)}})

    def elaborate(self, platform):
        m = Module()
        done = Signal(self.ways)
        takes = Signal(self.ways)
        m.d.comb += self.i.ready.eq((done | takes).all())
        for k in range(self.ways):
            o = getattr(self, f"o{k}")
            m.d.comb += [o.payload.eq(self.i.payload), o.valid.eq(self.i.valid & ~done[k]),
                         takes[k].eq(o.ready)]
        with m.If(self.i.valid):
            m.d.sync += done.eq(Mux(self.i.ready, 0, done | takes))
        return m
