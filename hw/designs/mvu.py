# amaranth: UnusedElaboratable=no
"""A whole MVU in any design: codes of weights in memory, sums over beats, `finish`, streams.

`CodedMatVec` takes the place of a MatVec in a graph, which then folds, becomes gateware and has a
golden model like any other.  Edges carry codes of activations: where a design decodes them, it does
so in its own lanes, once per lane for all PEs, and the quantizer before it passes the code on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal
from amaranth.hdl import Value as HdlValue
from amaranth.lib import data, wiring
from amaranth.lib.wiring import connect, flipped

from ...errors import N2uqError
from ...ir import Edge, MatVec, infer
from ...ir.folding import Fold, MatVecFold, lanes_out
from ...ir.golden import evaluate, exact_float
from ..accelerator import inputs
from ..mac import lanes
from ..matvec import FoldedUnit, partial_range
from ..stream import Unit, beats, element, shape_for
from ..units import unit
from ..width_convert import WidthConverter
from .design import Design, Term, datapath, load_ports
from .uniform import Uniform

__all__ = ["CodedMatVec", "CodedMatVecUnit", "FinishUnit", "Sums", "SumsUnit", "TurnsUnit",
           "finish_lanes", "sum_ranges"]


@dataclass(frozen=True, eq=False)
class CodedMatVec(MatVec):
    """A MatVec whose `weights` [N, K] are codes of `design`, as the elements that it reads are."""

    design: Design = field(default_factory=lambda: Uniform(weight_bits=1, act_bits=1, lanes=1))


def _ends(addends: np.ndarray, node: CodedMatVec, edge: Edge) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest that input k adds to sum s of output n, int64 [S, N, K] each.

    `addends` is [S, 2^weight_bits, 2^act_bits].
    """
    a, k = np.arange(addends.shape[2]), np.arange(edge.channels)
    within = (a >= edge.lo[:, None]) & (a <= edge.hi[:, None])
    beyond = np.abs(addends).max() + 1
    lo, hi = (sign * np.where(within, sign * addends[:, :, None, :], beyond).min(axis=3)
              for sign in (1, -1))
    return lo[:, node.weights, k], hi[:, node.weights, k]


@infer.register
def _(node: CodedMatVec, x: Edge) -> Edge:
    design, codes = node.design, node.weights
    for what, bits, lo, hi in (
            ("weights", design.weight_bits, codes.min(initial=0), codes.max(initial=0)),
            ("inputs", design.act_bits, x.lo.min(), x.hi.max())):
        if lo < 0 or hi >= 2**bits:
            raise N2uqError(f"{type(node).__name__} {node.name}: {what} must be codes of {bits} "
                            f"bits, not {lo}..{hi}")
    edge = infer.dispatch(MatVec)(node, x)  # its shape; what follows is the range
    if design.writable:
        times = codes.shape[1] // design.lanes
        return Edge(edge.shape, np.full(len(codes), design.dot.lo * times),
                    np.full(len(codes), design.dot.hi * times))
    (lo,), (hi,) = _ends(design.products[None], node, x)
    return Edge(edge.shape, lo.sum(axis=1), hi.sum(axis=1))


@evaluate.register
def _(node: CodedMatVec, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    products = node.design.products
    dtype = exact_float(int(np.abs(products).max()) * node.weights.shape[1])
    vectors = x.reshape(-1, x.shape[3])
    out = sum((vectors == a).astype(dtype) @ products[node.weights, a].T.astype(dtype)
              for a in range(products.shape[1]))
    return out.astype(np.int64).reshape(*x.shape[:3], -1)


def sum_ranges(node: CodedMatVec, edge: Edge) -> list[tuple[int, int]]:
    """The range of each accumulator over all its partial sums: of the codes, or of any tables."""
    design, addends = node.design, node.design.addends
    if addends is None:
        times = node.weights.shape[1] // design.lanes
        return [(min(term.lo, term.lo * times), max(term.hi, term.hi * times))
                for term in design.sums]
    return [partial_range(lo, hi, design.lanes)
            for lo, hi in zip(*_ends(addends, node, edge), strict=True)]


def finish_lanes(pe: int, beats: int) -> int:
    """How many of PE results `finish` takes at a time, the fewest that keep up with the beats."""
    return next(lanes for lanes in range(1, pe + 1)
                if pe % lanes == 0 and pe // lanes <= beats)


@dataclass(frozen=True)
class Sums:
    """The accumulators of outputs: shapes of each one's own, and of those that all have in common.

    A sum that is the same whatever the weight is common.  On a stream the own sums of all outputs
    lie side by side, the first output low, and above them the common ones.
    """

    ranges: tuple[tuple[int, int], ...]
    common: tuple[bool, ...]

    @classmethod
    def of(cls, node: CodedMatVec, edge: Edge) -> Sums:
        """Those of an MVU."""
        ranges, addends = tuple(sum_ranges(node, edge)), node.design.addends
        if addends is None or not node.design.finishes:
            return cls(ranges, (False,) * len(ranges))
        return cls(ranges, tuple((addends == addends[:, :1]).all(axis=(1, 2)).tolist()))

    def shapes(self, common: bool) -> list[Shape]:
        """Of the sums that are common, or not."""
        return [shape_for(*ends) for ends, which in zip(self.ranges, self.common, strict=True)
                if which == common]

    def bits(self, common: bool) -> int:
        """Bits of all `shapes`."""
        return sum(shape.width for shape in self.shapes(common))

    def layout(self, lanes: int) -> data.ArrayLayout:
        """Payload of a beat of so many outputs."""
        return beats(Shape(1), lanes * self.bits(False) + self.bits(True))

    def split(self, word: HdlValue, lanes: int) -> list[list[Term]]:
        """The sums of each output of a beat."""
        own, common = self.bits(False), word[lanes * self.bits(False):]
        return [self._terms(word[k * own:(k + 1) * own], common) for k in range(lanes)]

    def _terms(self, *words: HdlValue) -> list[Term]:
        left, terms = list(words), []
        for ends, common in zip(self.ranges, self.common, strict=True):
            shape, word = shape_for(*ends), left[common]
            part, left[common] = word[:shape.width], word[shape.width:]
            terms.append(Term(part.as_signed() if shape.signed else part, *ends))
        return terms


class SumsUnit(FoldedUnit):
    """`Design.partial` for PE outputs, accumulated over the K/SIMD beats of each fold.

    A beat out has the sums of PE outputs as `Sums` lays them out; or, where there is nothing to
    finish, the dot products.  A vector takes ``(N/PE)·(K/SIMD)`` cycles.  Latency from the last
    beat of a fold: that of `partial`, which begins in cycle 2, and 1 more.

    Parameters
    ----------
    node, edge, out: codes [N, K] and their design, the edge that is read, the edge that is made.
    pe, simd: divisors of N and K; `simd` is the lanes of the design.
    """

    def __init__(self, node: CodedMatVec, edge: Edge, out: Edge, *, pe: int, simd: int,
                 memory: str = "auto") -> None:
        if simd != node.design.lanes:
            raise N2uqError(f"{node.name}: SIMD must be the {node.design.lanes} lanes of its "
                            f"design, not {simd}")
        self.design, self.sums = node.design, Sums.of(node, edge)
        payload = self.sums.layout(pe) if self.design.finishes else beats(element(out), pe)
        super().__init__(node, edge, payload, pe=pe, simd=simd, memory=memory,
                         **load_ports(self.design))

    def elaborate(self, platform):
        m, design = Module(), self.design
        enable, issue, beat, last, vector, weights = self._fetch(
            m, platform, self.node.weights.astype(np.uint32), design.weight_bits)
        d = datapath(design, self, m, enable)

        def codes(word, bits, name):
            return [Term(code, 0, 2**bits - 1, 1) for code in lanes(m, word, Shape(bits), name)]

        # Cycles 3..: what depends on activations alone is shared by all PEs.
        a = codes(self._held(m, enable, vector), design.act_bits, "lane")
        shared = design.shared(d, a)
        bits = self.simd * design.weight_bits
        partial = [design.partial(d, codes(weights.word(k, bits), design.weight_bits,
                                           f"code{k}"), a, shared) for k in range(self.pe)]
        valid, first, final = self._control(m, enable, issue, beat == 0, last,
                                            partial[0][0].cycle + 1)
        held = []
        for k, common in [*((k, False) for k in range(self.pe)), (0, True)]:
            terms = [term for term, which in zip(partial[k], self.sums.common, strict=True)
                     if which == common]
            for s, (term, shape) in enumerate(zip(terms, self.sums.shapes(common), strict=True)):
                acc = Signal(shape, name=f"{'common' if common else f'acc{k}'}_{s}")
                with m.If(enable & valid):
                    m.d.sync += acc.eq(Mux(first, 0, acc) + term.value)
                held.append(acc)
        if design.finishes:
            m.d.comb += self.o.p.as_value().eq(Cat(held))
        else:
            m.d.comb += [self.o.payload[k].eq(acc) for k, acc in enumerate(held)]
        with m.If(enable):
            m.d.sync += self.o.valid.eq(valid & final)
        return m


class TurnsUnit(Unit):
    """Sums of PE outputs, `lanes` outputs at a time; latency 1 cycle, a beat out per cycle."""

    def __init__(self, sums: Sums, *, pe: int, lanes: int) -> None:
        self.own = WidthConverter(shape=Shape(sums.bits(False)), lanes_in=pe, lanes_out=lanes)
        super().__init__(sums.layout(pe), sums.layout(lanes))

    def elaborate(self, platform):
        m = Module()
        m.submodules.own = own = self.own
        word, bits = self.i.p.as_value(), len(own.i.p.as_value())
        common = Signal(len(word) - bits)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += common.eq(word[bits:])
        m.d.comb += [
            own.i.p.as_value().eq(word[:bits]), own.i.valid.eq(self.i.valid),
            self.i.ready.eq(own.i.ready), self.o.valid.eq(own.o.valid),
            self.o.p.as_value().eq(Cat(own.o.p.as_value(), common)),
            own.o.ready.eq(self.o.ready)]
        return m


class FinishUnit(Unit):
    """`Design.finish` for PE outputs per beat; II = 1, latency that of `finish`.

    Parameters
    ----------
    design, sums: what made the sums, and what they are.
    out: the edge that is made.
    pe: outputs per beat.
    """

    def __init__(self, design: Design, sums: Sums, out: Edge, *, pe: int) -> None:
        self.design, self.sums, self.pe = design, sums, pe
        super().__init__(sums.layout(pe), beats(element(out), pe), **load_ports(design))

    @property
    def latency(self) -> int:
        """Cycles of `finish`."""
        (terms,) = self.sums.split(Const(0, self.sums.layout(1).size), 1)
        return self.design.finish(self.design.scratch(), terms).cycle

    def elaborate(self, platform):
        m = Module()
        enable = Signal()
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable)]
        d = datapath(self.design, self, m, enable)
        for k, sums in enumerate(self.sums.split(self.i.p.as_value(), self.pe)):
            dot = self.design.finish(d, sums)
            m.d.comb += self.o.payload[k].eq(dot.value)
        valid = self.i.valid
        for cycle in range(dot.cycle):
            later = Signal(name=f"valid_{cycle + 1}")
            with m.If(enable):
                m.d.sync += later.eq(valid)
            valid = later
        m.d.comb += self.o.valid.eq(valid)
        return m


class CodedMatVecUnit(Unit):
    """A SumsUnit and, `finish_lanes` at a time, its FinishUnit, at which the PEs take turns.

    Latency from the last beat of a fold to the first results: that of the two, and 1 cycle where
    the PEs take turns.  A vector takes ``(N/PE)·(K/SIMD)`` cycles.  Parameters as of SumsUnit.
    """

    def __init__(self, node: CodedMatVec, edge: Edge, out: Edge, *, pe: int, simd: int,
                 memory: str = "auto") -> None:
        self.sums = SumsUnit(node, edge, out, pe=pe, simd=simd, memory=memory)
        self.pe, self.lanes = pe, finish_lanes(pe, self.sums.beats)
        self.finish = FinishUnit(node.design, self.sums.sums, out, pe=self.lanes)
        super().__init__(self.sums.i.payload.shape(), self.finish.o.payload.shape(),
                         **load_ports(node.design))

    def elaborate(self, platform):
        m = Module()
        m.submodules.sums, m.submodules.finish = sums, finish = self.sums, self.finish
        tip = sums.o
        if self.lanes < self.pe:
            m.submodules.turns = turns = TurnsUnit(sums.sums, pe=self.pe, lanes=self.lanes)
            connect(m, tip, turns.i)
            tip = turns.o
        connect(m, flipped(self.i), sums.i)
        connect(m, tip, finish.i)
        connect(m, finish.o, flipped(self.o))
        m.d.comb += [getattr(part, port).eq(getattr(self, port))
                     for part in (sums, finish) for port in load_ports(sums.design)]
        return m


@unit.register
def _(node: CodedMatVec, reads: tuple[Edge, ...], edge: Edge, fold: MatVecFold) -> Unit:
    make = CodedMatVecUnit if node.design.finishes else SumsUnit
    return make(node, reads[0], edge, pe=fold.pe, simd=fold.simd, memory=fold.memory)


@lanes_out.register
def _(node: CodedMatVec, fold: Fold, edge: Edge) -> int:
    if not node.design.finishes:
        return fold.pe
    return finish_lanes(fold.pe, node.weights.shape[1] // fold.simd)


@inputs.register
def _(node: CodedMatVec) -> dict[str, wiring.Member]:
    return load_ports(node.design)
