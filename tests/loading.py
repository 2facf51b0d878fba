"""A wrapper for gateware whose tables are written while it runs."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from n2uq_hw.hw.designs.design import Tabled
from n2uq_hw.hw.stream import Unit


class Loading(Unit):
    """A component whose tables are written, entry by entry, before it takes a beat.

    `tables`: what has tables, by the prefix of their load ports.
    """

    def __init__(self, inner: wiring.Component, tables: Mapping[str, Tabled]) -> None:
        self.inner, self.written = inner, tables
        super().__init__(inner.i.payload.shape(), inner.o.payload.shape())

    def elaborate(self, platform):
        m, ready = Module(), Signal()
        m.submodules.inner = inner = self.inner
        steps = [(prefix, place, at, int(value)) for prefix, of in self.written.items()
                 for place, values in enumerate(of.tables.values())
                 for at, value in enumerate(values)]
        step = Signal(range(len(steps) + 1))
        connect(m, inner.o, flipped(self.o))
        m.d.comb += [ready.eq(step == len(steps)), inner.i.payload.eq(self.i.payload),
                     inner.i.valid.eq(self.i.valid & ready),
                     self.i.ready.eq(inner.i.ready & ready)]
        with m.If(~ready):
            m.d.sync += step.eq(step + 1)
        with m.Switch(step):
            for number, (prefix, *entry) in enumerate(steps):
                with m.Case(number):
                    m.d.comb += getattr(inner, f"{prefix}load_en").eq(1)
                    m.d.comb += [getattr(inner, f"{prefix}load_{port}").eq(value) for port, value
                                 in zip(("table", "addr", "data"), entry, strict=True)
                                 if hasattr(inner, f"{prefix}load_{port}")]
        return m
