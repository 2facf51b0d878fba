"""Depthwise products: each channel of a window with weights of its own, PE channels per cycle."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import connect, flipped

from ..ir import DepthwiseMatVec, Edge, SumPool
from ..ir.folding import AUTO
from .matvec import weight_codes_of
from .memory import bits_of, rom
from .stream import Unit, beats, divides, element, let, wraps
from .sum_pool import SumPoolUnit

__all__ = ["DepthwiseMatVecUnit"]


class ProductUnit(Unit):
    """``o = weights · i`` element by element, for weights in the order in which elements come.

    Latency 2 cycles, II = 1.

    Parameters
    ----------
    weights: [beats, PE]; they begin anew after the last beat.
    edge, out: the edge that is read, the edge that is made.
    memory: style of the weights' ROM, see `folding.MEMORIES`.
    """

    def __init__(self, weights: np.ndarray, edge: Edge, out: Edge, memory: str) -> None:
        self.weights, self.memory = weights, memory
        super().__init__(*(beats(element(it), weights.shape[1]) for it in (edge, out)))

    def elaborate(self, platform):
        m = Module()
        codes, bits, step, least = weight_codes_of(self.weights)
        length, pe = codes.shape
        enable = Signal()
        x = Signal.like(self.i.payload)
        valid = Signal()
        weights = rom(m, "weights", bits_of(codes, bits), platform, self.memory)
        wraps(m, weights.addr, length, enable & self.i.valid)
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable),
                     weights.en.eq(enable)]
        with m.If(enable):
            # Cycle 1: the beat meets its weights. Cycle 2: multiply.
            m.d.sync += [x.eq(self.i.payload), valid.eq(self.i.valid), self.o.valid.eq(valid)]
            m.d.sync += let(self.o.payload, (
                (weights.word(lane, bits) * step + least) * x[lane]
                for lane in range(pe)))
        return m


class DepthwiseMatVecUnit(Unit):
    """``o[c] = Σ_p weights[p, c]·i[p, c]`` for windows [P·C]: products, then a sum pool of them.

    Beats come position by position, each with C/PE channel groups.  A window takes ``P·C/PE``
    cycles, II = 1; latency 3 cycles from a channel group's last position.

    Parameters
    ----------
    node, edge, out: weights [P, C], the window edge that is read, the edge that is made.
    pe: channels per beat, a divisor of C.
    memory: style of the weights' ROM, see `folding.MEMORIES`.
    """

    def __init__(self, node: DepthwiseMatVec, edge: Edge, out: Edge, *, pe: int,
                 memory: str = AUTO) -> None:
        self.groups = divides(f"{node.name}: PE", pe, "channels", out.channels)
        weights = node.weights.astype(np.int64).reshape(-1)
        ends = np.stack([weights * edge.lo, weights * edge.hi])
        self.node, self.edge, self.out, self.pe, self.memory = node, edge, out, pe, memory
        self.products = Edge(edge.shape, ends.min(axis=0), ends.max(axis=0))
        super().__init__(beats(element(edge), pe), beats(element(out), pe))

    def elaborate(self, platform):
        m = Module()
        weights, positions = self.node.weights.reshape(-1, self.pe), len(self.node.weights)
        m.submodules.product = product = ProductUnit(weights, self.edge, self.products,
                                                     self.memory)
        m.submodules.sum = pool = SumPoolUnit(SumPool(self.node.name, positions=positions),
                                              self.products, self.out, pe=self.pe)
        connect(m, flipped(self.i), product.i)
        connect(m, product.o, pool.i)
        connect(m, pool.o, flipped(self.o))
        return m
