"""Depthwise products: each channel of a window with weights of its own, PE channels per cycle."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import connect, flipped

from ..ir import DepthwiseMatVec, Edge, SumPool, levels
from ..ir.folding import AUTO
from .matvec import weight_codes_of
from .memory import bits_of, rom
from .stream import Unit, beats, divides, element, let, wraps
from .sum_pool import SumPoolUnit
from .writable import Table, Writable

__all__ = ["DepthwiseMatVecUnit"]


def _tables(weights: np.ndarray, memory: str, room: tuple[int, ...]) -> list[Table]:
    """The table of the codes of `weights` [beats, PE], if they can be written."""
    return [Table("weights", bits_of(*weight_codes_of(weights, room)[:2]), memory)] if room else []


class ProductUnit(Writable, Unit):
    """``o = weights · i`` element by element, for weights in the order in which elements come.

    Latency 3 cycles, II = 1.

    Parameters
    ----------
    weights: [beats, PE]; they begin anew after the last beat.
    edge, out: the edge that is read, the edge that is made.
    memory: style of the weights' ROM, see `folding.MEMORIES`.
    room: of the node.
    """

    def __init__(self, weights: np.ndarray, edge: Edge, out: Edge, memory: str,
                 room: tuple[int, ...] = ()) -> None:
        self.weights, self.memory, self.room = weights, memory, room
        self.pixels = edge.shape[0] * edge.shape[1]
        self.tables_ = _tables(weights, memory, room)
        super().__init__(*(beats(element(it), weights.shape[1]) for it in (edge, out)),
                         **self.bus(self.tables_))

    def elaborate(self, platform):
        m = Module()
        codes, bits, step, least = weight_codes_of(self.weights, self.room)
        length, pe = codes.shape
        enable = Signal()
        x, held = (Signal.like(self.i.payload, name=name) for name in ("x", "held"))
        valid = Signal(2)
        if self.tables_:
            weights, word = self.table(m, "weights"), Signal(range(length))
            taken = enable & self.i.valid
            done = taken & wraps(m, word, length, taken)
            m.d.comb += weights.addr.eq(Cat(word, self.bank(m, self.pixels, done)))
        else:
            weights = rom(m, "weights", bits_of(codes, bits), platform, self.memory)
            wraps(m, weights.addr, length, enable & self.i.valid)
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable),
                     weights.en.eq(enable)]
        row = weights.registered(m, "weights")
        with m.If(enable):
            # Cycles 1 and 2: the beat meets its weights. Cycle 3: multiply.
            m.d.sync += [x.eq(self.i.payload), held.eq(x), valid.eq(Cat(self.i.valid, valid)),
                         self.o.valid.eq(valid[1])]
            m.d.sync += let(self.o.payload, (
                (row.word(lane, bits) * step + least) * held[lane]
                for lane in range(pe)))
        return m


class DepthwiseMatVecUnit(Writable, Unit):
    """``o[c] = Σ_p weights[p, c]·i[p, c]`` for windows [P·C]: products, then a sum pool of them.

    Beats come position by position, each with C/PE channel groups.  A window takes ``P·C/PE``
    cycles, II = 1; latency 4 cycles from a channel group's last position.

    Parameters
    ----------
    node, edge, out: weights [P, C], the window edge that is read, the edge that is made.
    pe: channels per beat, a divisor of C.
    memory: style of the weights' ROM, see `folding.MEMORIES`.
    """

    def __init__(self, node: DepthwiseMatVec, edge: Edge, out: Edge, *, pe: int,
                 memory: str = AUTO) -> None:
        self.groups = divides(f"{node.name}: PE", pe, "channels", out.channels)
        ends = np.stack([weights.reshape(-1) * end for weights in levels(node)
                         for end in (edge.lo, edge.hi)])
        self.node, self.edge, self.out, self.pe, self.memory = node, edge, out, pe, memory
        self.products = Edge(edge.shape, ends.min(axis=0), ends.max(axis=0))
        self.tables_ = _tables(node.weights.reshape(-1, pe), memory, node.room)
        super().__init__(beats(element(edge), pe), beats(element(out), pe),
                         **self.bus(self.tables_))

    def elaborate(self, platform):
        m = Module()
        weights, positions = self.node.weights.reshape(-1, self.pe), len(self.node.weights)
        m.submodules.product = product = ProductUnit(weights, self.edge, self.products,
                                                     self.memory, self.node.room)
        if self.tables_:
            connect(m, flipped(self.tables), product.tables)
        m.submodules.sum = pool = SumPoolUnit(SumPool(self.node.name, positions=positions),
                                              self.products, self.out, pe=self.pe)
        connect(m, flipped(self.i), product.i)
        connect(m, product.o, pool.i)
        connect(m, pool.o, flipped(self.o))
        return m
