"""A queue of beats."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, memory

from .stream import Unit

__all__ = ["LUT_DEPTH", "FifoUnit", "in_block"]

LUT_DEPTH = 64  # beats that a FifoUnit keeps in LUTs: one LUT6 is a memory of so many bits


def in_block(depth: int) -> bool:
    """Whether a queue of `depth` beats sits in block RAM, and so answers a cycle later."""
    return depth > LUT_DEPTH


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
        block = in_block(self.depth)
        write = store.write_port()
        read = store.read_port(domain="sync" if block else "comb")
        # A beat is there, and room for one, say registers: paths begin there, not at counters.
        some, room = Signal(), Signal(init=1)
        first = Signal(range(self.depth))
        push, pop = self.i.valid & self.i.ready, self.o.valid & self.o.ready
        end = _next(m, write.addr, self.depth, push)
        second = _next(m, first, self.depth, pop)
        left = some & ~(pop & (second == write.addr))
        m.d.sync += [some.eq(push | left), room.eq(pop | (room & ~(push & (end == first))))]
        m.d.comb += [
            self.i.ready.eq(room),
            write.data.eq(self.i.payload), write.en.eq(push), self.o.payload.eq(read.data),
        ]
        if block:
            # In the next cycle the data are those of the beat that is first then, if it is stored.
            m.d.comb += read.addr.eq(Mux(pop, second, first))
            m.d.sync += self.o.valid.eq(left)
        else:
            m.d.comb += [read.addr.eq(first), self.o.valid.eq(some)]
        return m


def _next(m: Module, place: Signal, depth: int, advance: Value) -> Value:
    """The place behind `place`, of `depth` that lie in a ring; it goes there if `advance`."""
    behind = Mux(place == depth - 1, 0, place + 1)
    with m.If(advance):
        m.d.sync += place.eq(behind)
    return behind
