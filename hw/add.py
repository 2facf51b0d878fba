"""The sum of two streams."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..ir import Add, Edge
from .stream import beats, divides, element, let

__all__ = ["AddUnit"]


class AddUnit(wiring.Component):
    """``o = i0 + i1`` on PE channels per beat.

    A beat moves when both inputs offer one and the output register is free.  Latency 1 cycle,
    II = 1.

    Members
    -------
    i0, i1, o: streams of PE elements.
    """

    def __init__(self, node: Add, reads_a: Edge, reads_b: Edge, out: Edge, *, pe: int) -> None:
        divides(f"{node.name}: PE", pe, "channels", out.channels)
        self.pe = pe
        super().__init__({
            "i0": In(stream.Signature(beats(element(reads_a), pe))),
            "i1": In(stream.Signature(beats(element(reads_b), pe))),
            "o": Out(stream.Signature(beats(element(out), pe)))})

    def elaborate(self, platform):
        m = Module()
        enable = Signal()
        both = Signal()
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready),
                     both.eq(self.i0.valid & self.i1.valid),
                     self.i0.ready.eq(enable & self.i1.valid),
                     self.i1.ready.eq(enable & self.i0.valid)]
        with m.If(enable):
            m.d.sync += [self.o.valid.eq(both), let(self.o.payload, (
                self.i0.payload[lane] + self.i1.payload[lane] for lane in range(self.pe)))]
        return m
