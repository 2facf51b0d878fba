"""A unit beside golden's function: the circuit whose assertions are proven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from amaranth.hdl import (
    Array,
    Assert,
    Assume,
    Cat,
    ClockSignal,
    Const,
    Elaboratable,
    Instance,
    Module,
    Mux,
    ResetSignal,
    Shape,
    Signal,
)
from amaranth.hdl import Value as HdlValue
from amaranth.lib import data, wiring
from amaranth.utils import exact_log2

from ...ir import Edge
from .function import Element

__all__ = ["COUNT", "Miter", "Stream"]

COUNT = 8    # bits of a count of images: more than steps of a proof


@dataclass(frozen=True)
class Stream:
    """A stream of the unit, outside of it: of `beats` for an image."""

    name: str
    layout: data.ArrayLayout
    valid: Signal
    ready: Signal
    payload: Signal
    beats: int

    def lanes(self) -> list[HdlValue]:
        """The elements of the beat, as codes."""
        width = Shape.cast(self.layout.elem_shape).width
        return [self.payload[k * width:(k + 1) * width] for k in range(self.layout.length)]


def _streams(unit: wiring.Component, flow: wiring.Flow) -> dict[str, data.ArrayLayout]:
    return {name: getattr(unit, name).payload.shape()
            for name, member in unit.signature.members.items()
            if member.flow == flow and member.is_signature}


def _choose(m: Module, table: np.ndarray, bits: Sequence[HdlValue], width: int,
            known: dict[bytes, HdlValue]) -> HdlValue:
    """``table[bits]``, the first bit the highest of the index: a tree of choices whose equal parts
    are one."""
    key = table.tobytes()
    if key not in known:
        if (table == table[0]).all():
            known[key] = Const(int(table[0]) % 2**width, width)
        else:
            low, high = (_choose(m, half, bits[1:], width, known)
                         for half in np.split(table, 2))
            if (table[:len(table) // 2] == table[len(table) // 2:]).all():
                known[key] = low
            else:
                node = Signal(width, name=f"choice_{len(known)}")
                m.d.comb += node.eq(Mux(bits[0], high, low))
                known[key] = node
    return known[key]


class Miter(Elaboratable):
    """A unit whose inputs are free, within the stream contract and the edges' ranges.

    It asserts the stream contract of every output and, with golden's `function`, for every beat
    offered: that all it depends on has been offered; that it is golden's; and that the unit moves
    within `patience` cycles if all its outputs are taken, and an input is offered or outputs of
    whole images are due.

    Parameters
    ----------
    unit: the gateware; `instance` is the name of its module if that is not Amaranth's.
    edges: those that it reads.
    images: that it may hold, a power of two: more are not offered.
    patience: cycles.
    """

    def __init__(self, unit: wiring.Component, edges: tuple[Edge, ...],
                 function: Sequence[Element] | None, *, images: int = 2, patience: int = 16,
                 instance: str = "") -> None:
        self.unit, self.edges, self.function = unit, edges, function
        self.images, self.patience, self.instance = images, patience, instance
        sizes = [*(e.size for e in edges)]
        self.ins = [self._stream(name, layout, size) for (name, layout), size in zip(
            _streams(unit, wiring.In).items(), sizes, strict=True)]
        size = len(function) if function is not None else 0
        self.outs = [self._stream(name, layout, size)
                     for name, layout in _streams(unit, wiring.Out).items()]

    @staticmethod
    def _stream(name: str, layout: data.ArrayLayout, size: int) -> Stream:
        return Stream(name, layout, Signal(name=f"{name}__valid"), Signal(name=f"{name}__ready"),
                      Signal(layout.size, name=f"{name}__payload"), size // layout.length)

    @property
    def ports(self) -> list[Signal]:
        """The signals of all streams."""
        return [signal for s in (*self.ins, *self.outs)
                for signal in (s.valid, s.ready, s.payload)]

    def elaborate(self, platform):
        m = Module()
        self._unit(m)
        for s in self.ins:
            m.d.comb += Assume(~self._broken(m, s))
        for s, edge in zip(self.ins, self.edges, strict=True):
            self._in_range(m, s, edge)
        for s in self.outs:
            m.d.comb += Assert(~self._broken(m, s))
        if self.function is not None:
            self._check(m, self.function)
        return m

    def _unit(self, m: Module) -> None:
        if self.instance:
            pins = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
            for s in self.ins:
                pins |= {f"i_{s.name}__valid": s.valid, f"i_{s.name}__payload": s.payload,
                         f"o_{s.name}__ready": s.ready}
            for s in self.outs:
                pins |= {f"o_{s.name}__valid": s.valid, f"o_{s.name}__payload": s.payload,
                         f"i_{s.name}__ready": s.ready}
            m.submodules.unit = Instance(self.instance, **pins)
            return
        m.submodules.unit = self.unit
        for s in self.ins:
            port = getattr(self.unit, s.name)
            m.d.comb += [port.valid.eq(s.valid), HdlValue.cast(port.payload).eq(s.payload),
                         s.ready.eq(port.ready)]
        for s in self.outs:
            port = getattr(self.unit, s.name)
            m.d.comb += [s.valid.eq(port.valid), s.payload.eq(HdlValue.cast(port.payload)),
                         port.ready.eq(s.ready)]

    def _broken(self, m: Module, s: Stream) -> Signal:
        broken = Signal(name=f"{s.name}__broken")
        m.submodules[f"{s.name}_contract"] = Instance(
            "n2uq_contract", p_WIDTH=s.layout.size, i_clk=ClockSignal(), i_rst=ResetSignal(),
            i_valid=s.valid, i_ready=s.ready, i_payload=s.payload, o_broken=broken)
        return broken

    def _in_range(self, m: Module, s: Stream, edge: Edge) -> None:
        """Every lane holds what its channel can; a lane has the channels of its beats."""
        shape = Shape.cast(s.layout.elem_shape)
        for k, lane in enumerate(s.lanes()):
            channels = np.arange(k, edge.size, s.layout.length) % edge.channels
            lo, hi = int(edge.lo[channels].min()), int(edge.hi[channels].max())
            value = lane.as_signed() if shape.signed else lane
            m.d.comb += Assume(~s.valid | (value >= lo) & (value <= hi))

    def _check(self, m: Module, function: Sequence[Element]) -> None:
        taken = [self._count(m, s) for s in self.ins]
        given = [self._count(m, s) for s in self.outs]
        starts = np.cumsum([0, *(s.beats * s.layout.length for s in self.ins)])
        for s, (image, beat) in zip(self.outs, given, strict=True):
            codes, arrived = [], []
            for i, (x, (x_image, x_beat)) in enumerate(zip(self.ins, taken, strict=True)):
                codes += self._known(m, f"{s.name}_{x.name}", x, x_image, x_beat, image)
                need = [max([int(r - starts[i]) // x.layout.length + 1
                             for e in function[b * s.layout.length:(b + 1) * s.layout.length]
                             for r in e.reads if starts[i] <= r < starts[i + 1]], default=0)
                        for b in range(s.beats)]
                arrived.append((x_image != image) | (x_beat + x.valid >= Array(
                    Const(n, 16) for n in need)[beat]))
            width = Shape.cast(s.layout.elem_shape).width
            values = []
            for n, e in enumerate(function):
                value = Signal(width, name=f"{s.name}_golden_{n}")
                bits = [bit for r in e.reads for bit in reversed(codes[r])]
                m.d.comb += value.eq(_choose(m, e.table.ravel(), bits, width, {}))
                values.append(value)
            lanes = s.layout.length
            golden = Array(Cat(values[b * lanes:(b + 1) * lanes]) for b in range(s.beats))[beat]
            m.d.comb += [Assert(~s.valid | Cat(arrived).all()),
                         Assert(~s.valid | (s.payload == golden))]
            for _, (x_image, _) in zip(self.ins, taken, strict=True):
                ahead = (x_image - image)[:COUNT]
                m.d.comb += [Assume(ahead < self.images), Assert(ahead < 2**(COUNT - 1))]
        self._moves(m, taken, given)

    def _count(self, m: Module, s: Stream) -> tuple[Signal, Signal]:
        """Images, and beats of the next one, that have moved."""
        image, beat = (Signal(COUNT, name=f"{s.name}_image"),
                       Signal(range(s.beats + 1), name=f"{s.name}_beat"))
        with m.If(s.valid & s.ready):
            last = beat == s.beats - 1
            m.d.sync += [beat.eq(Mux(last, 0, beat + 1)), image.eq(image + last)]
        return image, beat

    def _known(self, m: Module, name: str, x: Stream, x_image: Signal, x_beat: Signal,
               image: Signal) -> list[list[HdlValue]]:
        """The bits of each element of the input's image that is due; the one offered counts."""
        elements = []
        slots, due = range(self.images), image[:exact_log2(self.images)]
        for b in range(x.beats):
            kept = [Signal(x.layout.size, name=f"{name}_kept_{k}_{b}") for k in slots]
            for k in slots:
                with m.If(x.valid & x.ready & (x_beat == b) & (x_image[:len(due)] == k)):
                    m.d.sync += kept[k].eq(x.payload)
            known = Signal(x.layout.size, name=f"{name}_known_{b}")
            m.d.comb += known.eq(Mux(x.valid & (x_beat == b) & (x_image == image), x.payload,
                                     Array(kept)[due]))
            width = Shape.cast(x.layout.elem_shape).width
            elements += [[known[k * width + j] for j in range(width)]
                         for k in range(x.layout.length)]
        return elements

    def _moves(self, m: Module, taken: list[tuple[Signal, Signal]],
               given: list[tuple[Signal, Signal]]) -> None:
        moves = Cat(s.valid & s.ready for s in (*self.ins, *self.outs)).any()
        offered = Cat(s.valid for s in self.ins).all()
        first = taken[0][0]
        whole = Cat((beat == 0) & (image == first) for image, beat in taken).all()
        due = whole & Cat(image != first for image, _ in given).any()
        idle = Signal(range(self.patience + 2))
        m.d.sync += idle.eq(Mux(Cat(s.ready for s in self.outs).all() & (offered | due) & ~moves,
                                idle + 1, 0))
        m.d.comb += Assert(idle <= self.patience)
