"""The top of a bitstream: clock, serial link, accelerator, LEDs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Cat, ClockDomain, ClockSignal, Instance, Module, ResetSignal, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect

from ..ir import ArgMax, Edge
from .argmax import ArgMaxUnit
from .link import Link
from .stream import wraps
from .uart import UartReceiver, UartTransmitter

__all__ = ["Board", "Narrow", "Side", "Widen"]

RESET = 2**10 - 1  # cycles: block RAMs of an iCE40 hold their first values some µs after the start


@dataclass(frozen=True)
class Side:
    """One AXI4-Stream side of the accelerator: `lanes` elements of `edge` per beat."""

    edge: Edge
    lanes: int

    @property
    def bytes(self) -> int:
        """Of a beat."""
        return -(-self.lanes * self.edge.width // 8)

    @property
    def image(self) -> int:
        """Bytes of an image."""
        return self.bytes * (self.edge.size // self.lanes)


class Widen(wiring.Component):
    """`count` bytes, the first one low, become one beat: a byte per cycle."""

    def __init__(self, *, count: int) -> None:
        self.count = count
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8 * count))})

    def elaborate(self, platform):
        m = Module()
        moved, at = Signal(), Signal(range(self.count))
        m.d.comb += [self.i.ready.eq(~self.o.valid | self.o.ready),
                     moved.eq(self.i.valid & self.i.ready)]
        last = wraps(m, at, self.count, moved)
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(self.i.valid & last)
        with m.If(moved):
            m.d.sync += self.o.payload.eq(Cat(self.o.payload, self.i.payload)[8:])
        return m


class Narrow(wiring.Component):
    """One beat becomes `count` bytes, the low one first: no latency, a byte per cycle."""

    def __init__(self, *, count: int) -> None:
        self.count = count
        super().__init__({"i": In(stream.Signature(8 * count)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        at = Signal(range(self.count))
        last = wraps(m, at, self.count, self.o.valid & self.o.ready)
        m.d.comb += [self.o.valid.eq(self.i.valid), self.i.ready.eq(self.o.ready & last),
                     self.o.payload.eq(self.i.payload.word_select(at, 8))]
        return m


class Board(wiring.Component):
    """All between the pins of a board and the AXI4-Stream `accelerator`, a Verilog module.

    The first 1,023 cycles after configuration are its reset.

    Members
    -------
    clk, rx, tx: the board's oscillator; bytes from the host, and to it.
    leds: the class of the newest image, in binary; of outputs that are no class, how many images
        were answered.  High is on, or low with `leds_low`.
    high: always high, if the board needs such a pin.

    Parameters
    ----------
    source, output: the accelerator's sides.
    kind: "class" and "logits" of one pixel say what the output is; anything else is no class.
    divisor: cycles per bit of the serial line.
    identity: the 8 bytes that answer a greeting.
    """

    def __init__(self, accelerator: str, source: Side, output: Side, *, kind: str, divisor: int,
                 identity: bytes, leds: int, leds_low: bool = False, high: bool = False) -> None:
        self.accelerator, self.source, self.output = accelerator, source, output
        self.kind, self.leds_low = kind, leds_low
        self.receiver, self.transmitter = (UartReceiver(divisor=divisor),
                                           UartTransmitter(divisor=divisor))
        self.link = Link(size=source.image, answer=output.image, identity=identity)
        super().__init__({"clk": In(1), "rx": In(1), "tx": Out(1, init=1), "leds": Out(leds),
                          **({"high": Out(1, init=1)} if high else {})})

    def elaborate(self, platform):
        m = Module()
        start, sync = ClockDomain("start", reset_less=True), ClockDomain("sync")
        m.domains += start, sync
        waited = Signal(range(RESET + 1))
        m.d.comb += [start.clk.eq(self.clk), sync.clk.eq(self.clk), sync.rst.eq(waited != RESET)]
        m.d.start += waited.eq(waited + (waited != RESET))
        m.submodules.receiver, m.submodules.transmitter = self.receiver, self.transmitter
        m.submodules.link = link = self.link
        m.submodules.widen = widen = Widen(count=self.source.bytes)
        m.submodules.narrow = narrow = Narrow(count=self.output.bytes)
        m.d.comb += [self.receiver.rx.eq(self.rx), self.tx.eq(self.transmitter.tx)]
        connect(m, self.receiver.o, link.i)
        connect(m, link.images, widen.i)
        connect(m, narrow.o, link.results)
        connect(m, link.o, self.transmitter.i)
        m.submodules.accelerator = Instance(
            self.accelerator, i_aclk=ClockSignal(), i_aresetn=~ResetSignal(),
            i_s_axis_tdata=widen.o.payload, i_s_axis_tvalid=widen.o.valid,
            o_s_axis_tready=widen.o.ready, i_s_axis_tlast=0,
            o_m_axis_tdata=narrow.i.payload, o_m_axis_tvalid=narrow.i.valid,
            i_m_axis_tready=narrow.i.ready, o_m_axis_tlast=(last := Signal()))
        shown = self._shown(m, narrow.i, last)
        m.d.comb += self.leds.eq(~shown if self.leds_low else shown)
        return m

    def _shown(self, m: Module, output: Any, last: Signal) -> Signal:
        """What the LEDs show: of the output beats that move."""
        shown, moved = Signal(len(self.leds)), output.valid & output.ready
        if self.kind == "class":
            with m.If(moved):
                m.d.sync += shown.eq(output.payload)
        elif self.kind == "logits" and (edge := self.output.edge).size > 1:
            last_class = np.array([edge.size - 1])
            m.submodules.best = best = ArgMaxUnit(
                ArgMax("leds", ("logits",)), edge, Edge((1, 1, 1), 0 * last_class, last_class),
                pe=self.output.lanes)
            m.d.comb += [best.i.payload.as_value().eq(output.payload), best.i.valid.eq(moved),
                         best.o.ready.eq(1)]
            with m.If(best.o.valid):
                m.d.sync += shown.eq(best.o.payload[0])
        else:
            with m.If(moved & last):
                m.d.sync += shown.eq(shown + 1)
        return shown
