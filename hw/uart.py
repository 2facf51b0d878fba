"""Bytes over two wires: 8 data bits, no parity, one stop bit, the low bit first."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from ..errors import check_range

__all__ = ["UartReceiver", "UartTransmitter"]

LEAST, MOST = 4, 2**16  # cycles per bit


def _checked(divisor: int) -> int:
    """The cycles per bit of either side; raises N2uqError for too few or too many."""
    check_range("divisor", divisor, LEAST, MOST, "cycles per bit")
    return divisor


class UartReceiver(wiring.Component):
    """Bytes that come in on a wire of any phase.

    A byte is there ``9.5·divisor + 4`` cycles at most after its start bit began.  It goes where no
    stop bit follows.  Sampled in the middle of its bits, it stands 4 % of difference in speed.

    Members
    -------
    rx: the wire, high while idle; two registers bring it into the clock's domain.
    o: bytes, each for one cycle: nothing holds them up.

    Parameters
    ----------
    divisor: cycles per bit, at least 4.
    """

    def __init__(self, *, divisor: int) -> None:
        self.divisor = _checked(divisor)
        super().__init__({"rx": In(1), "o": Out(stream.Signature(8, always_ready=True))})

    def elaborate(self, platform):
        m = Module()
        line = Signal(init=1)
        m.submodules.wire = FFSynchronizer(self.rx, line, init=1)
        wait = Signal(range(self.divisor))
        bits = Signal(range(10))  # that are still to be sampled
        busy = Signal()
        m.d.sync += self.o.valid.eq(0)
        with m.If(~busy):
            m.d.sync += [busy.eq(~line), bits.eq(9), wait.eq(self.divisor // 2 - 1)]
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.Else():
            m.d.sync += [wait.eq(self.divisor - 1), bits.eq(bits - 1)]
            with m.If(bits == 9):
                m.d.sync += busy.eq(~line)  # else that was no start bit
            with m.Elif(bits != 0):
                m.d.sync += self.o.payload.eq(Cat(self.o.payload[1:], line))
            with m.Else():
                m.d.sync += [busy.eq(0), self.o.valid.eq(line)]
        return m


class UartTransmitter(wiring.Component):
    """Bytes that go out on a wire: one per ``10·divisor + 1`` cycles.

    Members
    -------
    i: bytes.
    tx: the wire, high while idle.

    Parameters
    ----------
    divisor: cycles per bit, at least 4.
    """

    def __init__(self, *, divisor: int) -> None:
        self.divisor = _checked(divisor)
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        wait = Signal(range(self.divisor))
        bits = Signal(range(11))  # that are still to be sent
        waiting = Signal(9)       # those behind the one that `tx` shows
        m.d.comb += self.i.ready.eq(bits == 0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [Cat(self.tx, waiting).eq(Cat(Const(0, 1), self.i.payload, Const(1, 1))),
                         bits.eq(10), wait.eq(self.divisor - 1)]
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.Elif(bits != 0):
            m.d.sync += [Cat(self.tx, waiting).eq(Cat(waiting, Const(1, 1))), bits.eq(bits - 1),
                         wait.eq(self.divisor - 1)]
        return m
