"""What all units share: beats of equal elements, modules converted once, FIFO, width converter.

A stream carries the elements of a tensor [H, W, C] in row-major order, `lanes` per beat, lane 0 in
the low bits (`amaranth.lib.stream`: a beat moves when valid and ready are both high).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd
from typing import Any

import numpy as np
from amaranth.back import rtlil
from amaranth.hdl import (
    Cat,
    ClockSignal,
    Elaboratable,
    Format,
    Instance,
    Module,
    Mux,
    ResetSignal,
    Shape,
    Signal,
)
from amaranth.hdl import Value as HdlValue
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..errors import N2uqError
from ..ir import Edge, bits_for

__all__ = ["LUT_DEPTH", "FifoUnit", "ForkUnit", "Library", "Unit", "WidthConverter", "beats",
           "convert_width", "divides", "element", "instantiate", "shape_for", "wraps"]

LUT_DEPTH = 64  # beats that a FifoUnit keeps in LUTs: one LUT6 is a memory of so many bits


def shape_for(lo: int, hi: int) -> Shape:
    """The narrowest hardware shape for integers in `lo`..`hi`."""
    width, signed = bits_for(lo, hi)
    return Shape(width, signed)


def element(edge: Edge) -> Shape:
    """The hardware shape of one element of an edge."""
    return Shape(edge.width, edge.signed)


class Beat(data.ArrayLayout):
    """An array that waveforms and Verilog show whole.

    A name for each lane would be most of the Verilog of a wide unit, and of the time to write it.
    """

    def format(self, value: Any, format_spec: str) -> Format:
        """As one number."""
        return Format(f"{{:{format_spec}}}", HdlValue.cast(value))


def beats(shape: Shape, lanes: int) -> data.ArrayLayout:
    """Payload layout of `lanes` elements per beat."""
    return Beat(shape, lanes)


def divides(what: str, lanes: int, of: str, total: int) -> int:
    """`total // lanes`, or N2uqError: "PE must divide the 64 output channels, not 12"."""
    if lanes < 1 or total % lanes:
        raise N2uqError(f"{what} must divide the {total} {of}, not {lanes}")
    return total // lanes


def wraps(m: Module, counter: Signal, length: int, advance: HdlValue) -> HdlValue:
    """Count 0..length-1 when `advance`; returns "at the last count"."""
    last = counter == length - 1
    with m.If(advance):
        m.d.sync += counter.eq(Mux(last, 0, counter + 1))
    return last


class Unit(wiring.Component):
    """One stream in, one stream out.

    Members
    -------
    i, o: streams of `beats(shape, lanes)`.
    """

    def __init__(self, i: data.ArrayLayout, o: data.ArrayLayout,
                 **more: wiring.Member) -> None:
        super().__init__({"i": In(stream.Signature(i)), "o": Out(stream.Signature(o)), **more})


class Library:
    """Modules that are converted once and instantiated by name; passed as Amaranth's platform.

    `instantiate` hands components to it, and `rtlil()` returns the text of all of them.

    Members
    -------
    memories: each ROM that wants a file, by module name: uint8 bits [depth, width], and Verilog
        attributes; complete after `rtlil()`, see `hw/memory.py`.
    """

    def __init__(self) -> None:
        self.memories: dict[str, tuple[np.ndarray, Mapping[str, str | int]]] = {}
        self._converting = ""
        self._texts: dict[str, str] = {}
        self._components: dict[str, wiring.Component] = {}

    def signature(self, name: str, make: Callable[[], wiring.Component]) -> wiring.Signature:
        """Ask for module `name`, made by `make` at the first call; equal names, equal modules."""
        if name not in self._components:
            self._components[name] = make()
        return self._components[name].signature

    def memory(self, name: str, bits: np.ndarray, attributes: Mapping[str, str | int]) -> str:
        """Keep ROM `name` of the module that is being converted; returns the ROM's module name."""
        module = f"{self._converting}.{name}"  # as Amaranth names submodules: no node has a dot
        if module in self.memories:
            raise NameError(f"{module}: a memory of this name is there already")
        self.memories[module] = bits, attributes
        return module

    def rtlil(self) -> dict[str, str]:
        """RTLIL text by module name, instances' modules included."""
        while waiting := self._components.keys() - self._texts.keys():
            self._converting = name = min(waiting)
            self._texts[name] = rtlil.convert(self._components[name], name=name, platform=self,
                                              emit_src=False)
        return dict(sorted(self._texts.items()))


def instantiate(make: Callable[[], wiring.Component], name: str, module: str, platform: Any,
                *, clocked: bool = True) -> tuple[Elaboratable, Any]:
    """The submodule that `make` makes, and its interface: an instance if `platform` is a Library.

    A module without registers, not `clocked`, has no clock.  Without a Library (in Amaranth's own
    simulator) the component serves as it is.
    """
    if not isinstance(platform, Library):
        component = make()
        return component, component
    signature = platform.signature(module, make)
    ports = signature.create(path=(name,))
    connections: dict[str, Any] = ({"i_clk": ClockSignal(), "i_rst": ResetSignal()} if clocked
                                   else {})
    for path, member, value in signature.flatten(ports):
        flow = "i" if member.flow == wiring.In else "o"
        connections[f"{flow}_{'__'.join(map(str, path))}"] = HdlValue.cast(value)
    return Instance(module, **connections), ports


class FifoUnit(Unit):
    """A queue of `depth` beats that cuts the ready path.

    Latency 1 cycle; II = 1 from depth 2 on, 2 at depth 1, for an entry is free one cycle after it
    was read.  More than LUT_DEPTH beats sit in block RAM, which is read a cycle ahead: latency 2
    cycles.

    Parameters
    ----------
    layout: payload layout.
    depth: beats, at least 1.
    """

    def __init__(self, *, layout: data.ArrayLayout, depth: int) -> None:
        self.depth = depth
        super().__init__(layout, layout)

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = memory.Memory(
            shape=self.i.payload.shape().size, depth=self.depth, init=[])
        block = self.depth > LUT_DEPTH
        write, read = store.write_port(), store.read_port(domain="sync" if block else "comb")
        level, first = Signal(range(self.depth + 1)), Signal(range(self.depth))
        push, pop = self.i.valid & self.i.ready, self.o.valid & self.o.ready
        wraps(m, write.addr, self.depth, push)
        last = wraps(m, first, self.depth, pop)
        m.d.sync += level.eq(level + push - pop)
        m.d.comb += [
            self.i.ready.eq(level != self.depth),
            write.data.eq(self.i.payload), write.en.eq(push), self.o.payload.eq(read.data),
        ]
        if block:
            # In the next cycle the data are those of the beat that is first then, if it is stored.
            m.d.comb += read.addr.eq(Mux(pop, Mux(last, 0, first + 1), first))
            m.d.sync += self.o.valid.eq(level != pop)
        else:
            m.d.comb += [read.addr.eq(first), self.o.valid.eq(level != 0)]
        return m


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
        done, takes = Signal(self.ways), Signal(self.ways)
        m.d.comb += self.i.ready.eq((done | takes).all())
        for k in range(self.ways):
            o = getattr(self, f"o{k}")
            m.d.comb += [o.payload.eq(self.i.payload), o.valid.eq(self.i.valid & ~done[k]),
                         takes[k].eq(o.ready)]
        with m.If(self.i.valid):
            m.d.sync += done.eq(Mux(self.i.ready, 0, done | takes))
        return m


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
                m.d.sync += rest.eq(rest >> narrow)
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
