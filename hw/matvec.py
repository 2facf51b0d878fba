"""The MVU: matrix-vector products, folded over PE output channels and SIMD inputs per cycle."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value as HdlValue
from amaranth.lib import data, memory, wiring

from ..errors import N2uqError
from ..ir import Edge, MatVec, OffsetMatVec, levels
from ..ir.folding import AUTO, FORMS, PRODUCTS
from .compressor_mac import CompressorMac
from .library import instantiate
from .mac import (
    MacArray,
    adder_tree,
    digits_latency,
    lanes,
    mac_latency,
    mac_name,
    pair_shape,
    pair_sums,
    products_offset,
)
from .memory import bits_of, rom
from .stream import Unit, beats, divides, element, let, shape_for, wraps
from .writable import Table, Writable

__all__ = ["FoldedUnit", "MatVecUnit", "accumulator_range", "partial_range", "weight_codes_of"]


def weight_codes_of(weights: np.ndarray, room: tuple[int, ...] = ()
                    ) -> tuple[np.ndarray, int, int, int]:
    """Unsigned codes k with ``weights = step·k + least``: (k, bits, step, least).

    Odd levels get the N2UQ encoding, step 2, on the symmetric range that holds them; other
    integers step 1; what `room` says, if anything.  `k` is uint32 like `weights`.
    """
    weights = weights.astype(np.int64)
    if room:
        bits, step, least = room
    elif (weights % 2).all():
        bits = int(np.abs(weights).max()).bit_length()
        least, step = -(2**bits - 1), 2
    else:
        least, step = int(weights.min()), 1
        bits = max(int(weights.max() - least).bit_length(), 1)
    return ((weights - least) // step).astype(np.uint32), bits, step, least


def accumulator_range(weights: np.ndarray, edge: Edge, simd: int, groups: int = 1
                      ) -> tuple[int, int]:
    """The exact range of an accumulator over all its partial sums, beat by beat.

    `weights` are [N, K/G], or [..., N, K/G] between which they lie.
    """
    w = weights.astype(np.int64).reshape(-1, *weights.shape[-2:])
    lo, hi = (end.reshape(groups, -1).repeat(w.shape[1] // groups, axis=0)
              for end in (edge.lo, edge.hi))
    ends = np.concatenate([w * lo, w * hi])
    return partial_range(ends.min(axis=0), ends.max(axis=0), simd)


def partial_range(lo: np.ndarray, hi: np.ndarray, simd: int) -> tuple[int, int]:
    """The range of sums by beat of addends that lie in `lo`..`hi`, [N, K] each."""
    low, high = (end.reshape(len(end), -1, simd).sum(axis=2).cumsum(axis=1) for end in (lo, hi))
    return int(low.min()), int(high.max())


class FoldedUnit(Writable, Unit):
    """An MVU but for its products: the beats of a vector meet the codes of N × K weights.

    A vector takes ``(N/PE)·(K/SIMD)`` cycles; it is read once, in the first of the N/PE folds,
    and replayed from a buffer in the others.  With G groups a vector is G of them, of K/G elements
    and N/G results each.

    Parameters
    ----------
    node, edge: weights [N, K/G], the edge that is read.
    out: payload of a beat of PE results.
    pe, simd: divisors of N/G and K/G.
    memory: style of the weights' ROM, see `folding.MEMORIES`.
    """

    def __init__(self, node: MatVec, edge: Edge, out: data.ArrayLayout, *, pe: int, simd: int,
                 memory: str = AUTO, **more: wiring.Member) -> None:
        outputs, inputs = node.weights.shape
        of = " of a group" if node.groups > 1 else ""
        self.folds = divides(f"{node.name}: PE", pe, f"output channels{of}", outputs // node.groups)
        self.beats = divides(f"{node.name}: SIMD", simd, f"inputs{of}", inputs)
        self.words = node.groups * self.folds * self.beats  # of weights
        self.pixels = edge.shape[0] * edge.shape[1]
        self.node, self.edge, self.pe, self.simd, self.memory = node, edge, pe, simd, memory
        self.tables_ = [Table("weights", self._rows(*weight_codes_of(node.weights, node.room)[:2]),
                              memory)] if node.room else []
        super().__init__(beats(element(edge), simd), out, **self.bus(self.tables_), **more)

    def _rows(self, codes: np.ndarray, bits: int) -> np.ndarray:
        """The bits of the codes [N, K/G], a row for each beat of each fold."""
        by_fold = codes.reshape(-1, self.pe, self.beats, self.simd).transpose(0, 2, 1, 3)
        return bits_of(by_fold.reshape(self.words, -1), bits)

    def _fetch(self, m, platform, codes, bits):
        """Issue beats, from the stream or the buffer.

        Returns the enable of all registers; whether a beat is issued, its number and whether it
        is the last; the beat, a cycle later, and the port of its PE·SIMD codes, two cycles later.
        """
        enable = Signal()
        issue = Signal()
        last = Signal()
        replay = Signal()
        beat = Signal(range(self.beats))
        fold = Signal(range(self.folds))
        m.d.comb += [
            enable.eq(~self.o.valid | self.o.ready),
            replay.eq(fold != 0),
            issue.eq(enable & (replay | self.i.valid)),
            self.i.ready.eq(enable & ~replay),
        ]
        m.d.comb += last.eq(wraps(m, beat, self.beats, issue))
        wraps(m, fold, self.folds, issue & last)
        weights = self.table(m, "weights") if self.tables_ else rom(
            m, "weights", self._rows(codes, bits), platform, self.memory)
        if self.tables_:
            word = Signal(range(self.words))
            done = issue & wraps(m, word, self.words, issue)
            m.d.comb += weights.addr.eq(Cat(word, self.bank(m, self.pixels, done)))
        else:
            wraps(m, weights.addr, self.words, issue)
        m.d.comb += weights.en.eq(enable)
        return (enable, issue, beat, last, self._vector(m, enable, beat, replay),
                weights.registered(m, "weights"))

    def _vector(self, m, enable, beat, replay):
        direct = Signal(len(self.i.p.as_value()), reset_less=True)
        replayed = Signal()
        with m.If(enable):
            m.d.sync += [direct.eq(self.i.p.as_value()), replayed.eq(replay)]
        if self.folds == 1:
            return direct
        taken = self.i.valid & self.i.ready
        if self.beats == 1:  # a memory of one word is a register
            vector, read = (Signal.like(direct, name=name) for name in ("vector", "replay_data"))
            with m.If(taken):
                m.d.sync += vector.eq(self.i.p.as_value())
            with m.If(enable):
                m.d.sync += read.eq(vector)
            return Mux(replayed, read, direct)
        m.submodules.vector = vector = memory.Memory(shape=len(direct), depth=self.beats, init=[])
        write = vector.write_port()
        read = vector.read_port()
        m.d.comb += [
            write.addr.eq(beat), write.data.eq(self.i.p.as_value()),
            write.en.eq(taken),
            read.addr.eq(beat), read.en.eq(enable),
        ]
        return Mux(replayed, read.data, direct)

    def _held(self, m, enable, vector):
        """The beat, with its weights."""
        held = Signal(len(vector), name="held", reset_less=True)
        with m.If(enable):
            m.d.sync += held.eq(vector)
        return held

    def _control(self, m, enable, issue, first, last, latency):
        """valid, first and last of the beat whose dot product is at the accumulators."""
        stage = [issue, first, last]
        for cycle in range(latency):
            registers = [Signal(name=f"{name}_{cycle + 1}") for name in ("valid", "first", "last")]
            with m.If(enable):
                m.d.sync += [r.eq(s) for r, s in zip(registers, stage, strict=True)]
            stage = registers
        return stage


class MatVecUnit(FoldedUnit):
    """``o = weights · i`` for each vector of K elements, SIMD per beat in, PE per beat out.

    Latency from the last beat of a fold to its output:
    ``mac_latency(SIMD, bits of a code, bits of an activation, form) + 2`` cycles.  II = 1 beat per
    cycle inside and between folds.

    Parameters
    ----------
    node, edge, out: weights [N, K/G], the edge that is read, the edge that is made.  An
        OffsetMatVec is for centered pairs or a heap, its offset theirs and a constant.
    pe, simd: divisors of N/G and K/G.
    form: how products are summed, see `MacArray`.
    memory: style of the weights' ROM, see `folding.MEMORIES`.
    """

    def __init__(self, node: MatVec, edge: Edge, out: Edge, *, pe: int, simd: int,
                 form: str = FORMS[0], memory: str = AUTO) -> None:
        super().__init__(node, edge, beats(element(out), pe), pe=pe, simd=simd, memory=memory)
        if form not in PRODUCTS:
            raise N2uqError(f"{node.name}: product form must be one of {', '.join(PRODUCTS)}, "
                            f"not {form}")
        self.form, self.products, self.start = form, PRODUCTS[form], None
        self.acc = shape_for(*accumulator_range(np.stack(levels(node)), edge, simd,
                                                  node.groups))
        if isinstance(node, OffsetMatVec):
            starts = node.offset - products_offset(node.weights, element(edge), simd, form)
            if not self.products.absorbed or (starts != starts[0]).any():
                raise N2uqError(f"{node.name}: an offset must be that of pairs or a heap")
            self.start, self.acc = int(starts[0]), element(out)
        elif self.products.heap:
            raise N2uqError(f"{node.name}: form {form} must have its offset in thresholds")

    def elaborate(self, platform):
        m = Module()
        codes, bits, step, least = weight_codes_of(self.node.weights, self.node.room)
        pairs = self.products.lanes > 1
        enable, issue, beat, last, vector, weights = self._fetch(m, platform, codes, bits)

        # Cycles 3..: dot products; sums of the activations are shared by all PEs.
        options: dict[str, Any] = {
            "simd": self.simd, "code_bits": bits, "activation": element(self.edge),
            "acc": self.acc, "start": self.start}
        kind: dict[str, Any] = {"step": step, "least": least, "form": self.form}
        make = partial(CompressorMac, **options) if self.products.heap else partial(
            MacArray, **options, **kind)
        if pairs:
            terms = lanes(m, vector, element(self.edge), "lane")
            a = pair_sums(m, enable, terms, centered=self.start is not None)
            terms = lanes(m, a, pair_shape(element(self.edge)), "pair")[::3]  # the sums
        else:
            a = self._held(m, enable, vector)
            terms = lanes(m, a, element(self.edge), "lane")
        operand = Signal(len(a), name="a")
        m.d.comb += operand.eq(a)
        pes = [instantiate(m, make, f"pe{k}", mac_name(**options, **kind), platform, enable=enable,
                           a=operand, codes=weights.word(k, self.simd * bits))
               for k in range(self.pe)]
        m.d.comb += let(self.o.payload, (pe.acc for pe in pes))
        latency = mac_latency(self.simd, bits, self.edge.width, self.form)
        valid, first, final = self._control(m, enable, issue, beat == 0, last, latency + 1)
        total = adder_tree(m, enable, terms, "total") if (
            self.products.offset and self.start is None) else Const(0)
        # least is -(2^bits - 1) for odd weights: no multiplier, which would be a far DSP block.
        total = total - (total << bits) if step == 2 else total * least
        # Of a heap there is none, and nothing to wait for.
        for cycle in range(0 if self.products.heap else digits_latency(
                bits, self.edge.width, self.form)):
            delayed = Signal(HdlValue.cast(total).shape(), name=f"total_delayed_{cycle + 1}",
                             reset_less=True)
            with m.If(enable):
                m.d.sync += delayed.eq(total)
            total = delayed
        for pe in pes:
            m.d.comb += [pe.valid.eq(valid), pe.first.eq(first)]
            if not self.products.heap:
                m.d.comb += pe.total.eq(total)
        with m.If(enable):
            m.d.sync += self.o.valid.eq(valid & final)
        return m
