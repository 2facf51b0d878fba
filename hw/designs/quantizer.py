# amaranth: UnusedElaboratable=no
"""Activation quantizers: comparators, and a codebook behind them where levels are not equidistant.

What comparators count is the code of a level.  N2UQ passes it on: it is the level.  A nonuniform
design may do the same and decode where the code is consumed, once per lane of an MVU: then its
quantizer is N2UQ's own.  Or it decodes here, in a table of 2^b entries of p bits, and all that
follows, line buffers and FIFOs too, carries p bits.  A codebook is counted here or there, never
twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from ...errors import N2uqError
from ...folding import Fold
from ...golden import evaluate
from ...ir import Edge, Threshold, infer
from ..build import inputs, unit
from ..stream import Unit, beats, element
from ..threshold import ThresholdUnit
from .design import datapath, load_ports

__all__ = ["CodebookUnit", "CodedThreshold", "CodedThresholdUnit"]


@dataclass(frozen=True, eq=False)
class CodedThreshold(Threshold):
    """A Threshold whose result is decoded: ``values[base + Σᵢ signs[i]·[x >= thresholds[i]]]``.

    `values` is int64 [2^b]; constant, or written while the hardware runs, `bits` unsigned bits
    each.
    """

    values: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    writable: bool = False
    bits: int = 8

    @property
    def tables(self) -> dict[str, np.ndarray]:
        """The codebook."""
        return {"values": self.values}

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """The least and greatest entry that it may get."""
        return {"values": (0, 2**self.bits - 1) if self.writable else
                (int(self.values.min()), int(self.values.max()))}


def _codes(node: CodedThreshold, x: Edge) -> Edge:
    """The edge between comparators and codebook."""
    return infer.dispatch(Threshold)(node, x)


@infer.register
def _(node: CodedThreshold, x: Edge) -> Edge:
    codes, most = _codes(node, x), len(node.values) - 1
    if codes.lo.min() < 0 or codes.hi.max() > most:
        raise N2uqError(f"CodedThreshold {node.name}: codes must lie in 0..{most}, not "
                        f"{codes.lo.min()}..{codes.hi.max()}")
    least, greatest = node.ranges["values"]
    if node.values.min() < least or node.values.max() > greatest:
        raise N2uqError(f"CodedThreshold {node.name}: values must lie in {least}..{greatest}, not "
                        f"{node.values.min()}..{node.values.max()}")
    if node.writable:
        return Edge(codes.shape, np.full_like(codes.lo, least), np.full_like(codes.hi, greatest))
    reached = [node.values[lo:hi + 1] for lo, hi in zip(codes.lo, codes.hi, strict=True)]
    return Edge(codes.shape, np.array([values.min() for values in reached]),
                np.array([values.max() for values in reached]))


@evaluate.register
def _(node: CodedThreshold, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    return node.values[evaluate.dispatch(Threshold)(node, edges, x)]


class CodebookUnit(Unit):
    """A table lookup for each of PE elements per beat; latency 1 cycle, II = 1.

    Parameters
    ----------
    node, edge, out: the codebook, the edge of codes and that of values.
    pe: elements per beat.
    """

    def __init__(self, node: CodedThreshold, edge: Edge, out: Edge, *, pe: int) -> None:
        self.node, self.pe = node, pe
        super().__init__(beats(element(edge), pe), beats(element(out), pe), **load_ports(node))

    def elaborate(self, platform):
        m, enable = Module(), Signal()
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable)]
        d = datapath(self.node, self, m, enable)
        for k in range(self.pe):
            value = d.register(d.lookup("values", self.i.payload[k], 0), "value")
            m.d.comb += self.o.payload[k].eq(value.value)
        with m.If(enable):
            m.d.sync += self.o.valid.eq(self.i.valid)
        return m


class CodedThresholdUnit(Unit):
    """A ThresholdUnit and its CodebookUnit: latency 1 cycle more than the first, II = 1.

    Parameters as of ThresholdUnit.
    """

    def __init__(self, node: CodedThreshold, edge: Edge, out: Edge, *, pe: int, style: str
                 ) -> None:
        codes = _codes(node, edge)
        self.node = node
        self.steps = ThresholdUnit(node, edge, codes, pe=pe, style=style)
        self.book = CodebookUnit(node, codes, out, pe=pe)
        super().__init__(self.steps.i.payload.shape(), self.book.o.payload.shape(),
                         **load_ports(node))

    def elaborate(self, platform):
        m = Module()
        m.submodules.steps, m.submodules.book = self.steps, self.book
        connect(m, flipped(self.i), self.steps.i)
        connect(m, self.steps.o, self.book.i)
        connect(m, self.book.o, flipped(self.o))
        m.d.comb += [getattr(self.book, port).eq(getattr(self, port))
                     for port in load_ports(self.node)]
        return m


@unit.register
def _(node: CodedThreshold, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> Unit:
    return CodedThresholdUnit(node, reads[0], edge, pe=fold.pe, style=fold.style)


@inputs.register
def _(node: CodedThreshold) -> dict[str, wiring.Member]:
    return load_ports(node)
