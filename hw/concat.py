"""The channels of several streams, pixel by pixel, as one stream."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..ir import Concat, Edge
from .stream import beats, divides, element, let, wraps

__all__ = ["ConcatUnit"]


class ConcatUnit(wiring.Component):
    """The channels of one input after those of the other, PE per beat.

    Inputs take turns: C_k/PE beats of input k make its part of a pixel.  With PE = C all of them
    give their part of a pixel at once.  A beat moves when the inputs that it is made of offer one
    and the output register is free.  Latency 1 cycle, II = 1.

    Parameters
    ----------
    node, reads, out: the edges that are read, the edge that is made.
    pe: channels per beat: a divisor of every C_k; or C, the sum of them.

    Members
    -------
    i0, i1, ...: streams of PE elements, or of C_k; o: the stream of PE elements.
    """

    def __init__(self, node: Concat, reads: Sequence[Edge], out: Edge, *, pe: int) -> None:
        self.at_once = pe == out.channels
        if not self.at_once:
            divides(f"{node.name}: PE", pe, "channels common to all inputs",
                    gcd(*(read.channels for read in reads)))
        self.turns = [read.channels // pe for read in reads]
        super().__init__({
            **{f"i{k}": In(stream.Signature(beats(element(read), min(pe, read.channels))))
               for k, read in enumerate(reads)},
            "o": Out(stream.Signature(beats(element(out), pe)))})

    def elaborate(self, platform):
        m = Module()
        enable = Signal()
        valid = Signal()
        inputs = [getattr(self, f"i{k}") for k in range(len(self.turns))]
        m.d.comb += enable.eq(~self.o.valid | self.o.ready)
        with m.If(enable):
            m.d.sync += self.o.valid.eq(valid)
        if self.at_once:
            m.d.comb += valid.eq(Cat(i.valid for i in inputs).all())
            for i in inputs:
                others = Cat(other.valid for other in inputs if other is not i)
                m.d.comb += i.ready.eq(enable & others.all())
            with m.If(enable):
                m.d.sync += let(self.o.payload, (
                    i.payload[lane] for i in inputs for lane in range(i.payload.shape().length)))
            return m
        turn = Signal(range(len(inputs)))
        beat = Signal(range(max(self.turns)))
        last = Signal()
        with m.If(enable & valid):
            m.d.sync += beat.eq(Mux(last, 0, beat + 1))
        wraps(m, turn, len(inputs), enable & valid & last)
        with m.Switch(turn):
            for k, (i, beats_of) in enumerate(zip(inputs, self.turns, strict=True)):
                with m.Case(k):
                    m.d.comb += [valid.eq(i.valid), i.ready.eq(enable),
                                 last.eq(beat == beats_of - 1)]
                    with m.If(enable):
                        m.d.sync += let(self.o.payload, i.payload)
        return m
