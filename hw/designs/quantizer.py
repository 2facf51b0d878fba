"""Codebooks as units: what follows comparators where levels are not equidistant.

What a quantizer's comparators count is the place of a level.  N2UQ passes it on: it is the level.
A nonuniform design may do the same and decode where the code is consumed, once per lane of an MVU:
then its quantizer is N2UQ's own.  Or it decodes before, in a table of 2^b entries of p bits, and
all that follows, line buffers and FIFOs too, carries p bits.  A codebook is counted here or there,
never twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from amaranth.hdl import Module
from amaranth.lib import wiring

from ...errors import N2uqError
from ...ir import Edge, Threshold, infer
from ...ir.folding import Fold
from ...ir.golden import evaluate
from ..accelerator import inputs
from ..stream import Unit, beats, element
from ..units import unit
from .design import datapath, load_ports

__all__ = ["Codebook", "CodebookUnit"]


@dataclass(frozen=True, eq=False)
class Codebook(Threshold):
    """A step function that is a table: ``values[x]``, x in 0..2^b - 1, for all channels.

    `values` is int64 [2^b]; constant, or written while the hardware runs, `bits` unsigned bits
    each.
    """

    values: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    writable: bool = False
    bits: int = 8

    @property
    def tables(self) -> dict[str, np.ndarray]:
        """The table by its name."""
        return {"values": self.values}

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """The least and greatest entry that it may get."""
        return {"values": (0, 2**self.bits - 1) if self.writable else
                (int(self.values.min()), int(self.values.max()))}


@infer.register
def _(node: Codebook, x: Edge) -> Edge:
    (least, greatest), values = node.ranges["values"], node.values
    for what, lo, hi, low, high in (
            ("codes", 0, len(values) - 1, x.lo.min(), x.hi.max()),
            ("values", least, greatest, values.min(), values.max())):
        if low < lo or high > hi:
            raise N2uqError(f"Codebook {node.name}: {what} must lie in {lo}..{hi}, "
                            f"not {low}..{high}")
    if node.writable:
        return Edge(x.shape, np.full_like(x.lo, least), np.full_like(x.hi, greatest))
    reached = [values[lo:hi + 1] for lo, hi in zip(x.lo, x.hi, strict=True)]
    return Edge(x.shape, np.array([entries.min() for entries in reached]),
                np.array([entries.max() for entries in reached]))


@evaluate.register
def _(node: Codebook, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    return node.values[x]


class CodebookUnit(Unit):
    """A lookup for each of PE elements per beat; latency 1 cycle, II = 1.

    Parameters
    ----------
    node, edge, out: the codebook, the edge of codes and that of values.
    pe: elements per beat.
    """

    def __init__(self, node: Codebook, edge: Edge, out: Edge, *, pe: int) -> None:
        self.node, self.pe = node, pe
        super().__init__(beats(element(edge), pe), beats(element(out), pe), **load_ports(node))

    def elaborate(self, platform):
        m = Module()
        enable = ~self.o.valid | self.o.ready
        m.d.comb += self.i.ready.eq(enable)
        d = datapath(self.node, self, m, enable)
        for k in range(self.pe):
            value = d.register(d.lookup("values", self.i.payload[k], 0), "value")
            m.d.comb += self.o.payload[k].eq(value.value)
        with m.If(enable):
            m.d.sync += self.o.valid.eq(self.i.valid)
        return m


@unit.register
def _(node: Codebook, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return CodebookUnit(node, reads[0], edge, pe=fold.pe)


@inputs.register
def _(node: Codebook) -> dict[str, wiring.Member]:
    return load_ports(node)
