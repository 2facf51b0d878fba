"""Layers in logic: every weight a constant, a vector per cycle, thresholds in line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby

import numpy as np
from amaranth.hdl import C, Cat, Module, Mux, Signal
from amaranth.hdl import Value as HdlValue

from ..errors import N2uqError
from ..ir import Edge, Threshold, Unrolled, threshold_values
from .heaps import TRUE, Chain, HeapGraph, Sum, optimize
from .stream import Unit, beats, element, let

__all__ = ["UnrolledUnit", "heap_graph", "unrolled_latency"]

WORD = 32  # bits of an adder that chains share, and of a register; timing sees one carry chain


def heap_graph(node: Unrolled, edge: Edge, lut: int) -> HeapGraph:
    """The chains of a layer that reads `edge`, for LUTs of so many inputs; found once."""
    weights = np.ascontiguousarray(node.weights, np.int64)
    return _heap_graph(weights.tobytes(), weights.shape, edge.lo.tobytes(), edge.hi.tobytes(), lut,
                       node.threshold is None)


@lru_cache(256)
def _heap_graph(weights: bytes, shape: tuple[int, int], lo: bytes, hi: bytes, lut: int, wraps: bool
                ) -> HeapGraph:
    ends = (np.frombuffer(end, np.int64) for end in (lo, hi))
    return optimize(np.frombuffer(weights, np.int64).reshape(shape), *ends, lut=lut, wraps=wraps)


def unrolled_latency(node: Unrolled, edge: Edge, levels: int, lut: int) -> int:
    """Cycles of an `UnrolledUnit`: ``⌈depth / levels⌉``, at least 1.

    The depth is that of its `heap_graph`, and 1 for comparators behind it.
    """
    depth = heap_graph(node, edge, lut).depth + (node.threshold is not None)
    return max(-(-depth // levels), 1)


class UnrolledUnit(Unit):
    """``o = threshold(weights · i)``: a vector of K elements in, N out, every cycle.

    Latency `unrolled_latency` cycles; II = 1.

    Parameters
    ----------
    node: weights [N, K], and the step functions behind the sums, if any.
    edge, out: the edge that is read, [H, W, K], and the one that is made, [H, W, N].
    levels: chains, or comparators, that follow each other between two registers.
    lut: inputs of the LUTs that the logic suits.
    """

    def __init__(self, node: Unrolled, edge: Edge, out: Edge, *, levels: int = 2,
                 lut: int = 6) -> None:
        if levels < 1:
            raise N2uqError(f"{node.name}: levels must be at least 1, not {levels}")
        self.graph, self.threshold, self.levels = (
            heap_graph(node, edge, lut), node.threshold, levels)
        self.stages = unrolled_latency(node, edge, levels, lut)
        super().__init__(beats(element(edge), edge.channels), beats(element(out), out.channels))

    def elaborate(self, platform):
        m = Module()
        graph = self.graph
        enable = Signal()
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable)]
        until = self._until()
        values: dict[int, HdlValue] = {
            first + k: self.i.p[i][k] for i, (first, width) in
            enumerate(zip(graph.firsts, graph.widths, strict=True)) for k in range(width)}

        def literal(b: int) -> HdlValue:
            return C(b, 1) if b <= TRUE else ~values[b >> 1] if b & 1 else values[b >> 1]

        chains = {level: list(alike) for level, alike in groupby(
            sorted(graph.chains, key=lambda chain: chain.level), key=lambda chain: chain.level)}
        results: dict[int, HdlValue] = {}
        valid = self.i.valid
        for stage in range(self.stages):
            for level in range(stage * self.levels + 1, (stage + 1) * self.levels + 1):
                for k, word in enumerate(_words(chains.get(level, []), graph.lut)):
                    values.update(_added(m, f"level{level}_{k}", word, literal, graph.lut))
            for n, s in enumerate(graph.sums):
                if self._ready(s) == stage:
                    results[n] = self._result(m, n, [literal(b) for b in s.bits], s)
            if stage < self.stages - 1:
                valid, = _registers(m, enable, [valid], f"valid{stage}")
                carried = [b for b in values if until[b] > stage]
                values = dict(zip(carried, _registers(
                    m, enable, [values[b] for b in carried], f"stage{stage}"), strict=True))
                for n, result in results.items():
                    delayed = Signal.like(result, name=f"result{n}_{stage}", reset_less=True)
                    with m.If(enable):
                        m.d.sync += delayed.eq(result)
                    results[n] = delayed
        with m.If(enable):
            m.d.sync += [self.o.valid.eq(valid),
                         let(self.o.p, (results[n] for n in range(len(results))))]
        return m

    @property
    def registers(self) -> int:
        """Flip-flops: of bits that later stages read, of results, of valid."""
        stages = [self._stage(level) for level in self.graph.levels]
        results = sum((self.stages - self._ready(s)) * self.o.p[n].shape().width
                      for n, s in enumerate(self.graph.sums))
        return results + self.stages + sum(
            end - begin for begin, end in zip(stages, self._until(), strict=True))

    def _stage(self, level: int) -> int:
        return max(level - 1, 0) // self.levels

    def _ready(self, s: Sum) -> int:
        """The stage in which a result is made."""
        level = max((self.graph.levels[b >> 1] for b in s.bits), default=0)
        return self._stage(level + (self.threshold is not None))

    def _until(self) -> list[int]:
        """The stage up to which each bit is read."""
        until = [0] * len(self.graph.levels)
        for stage, reads in [*((self._stage(c.level), c.reads) for c in self.graph.chains),
                             *((self._ready(s), s.bits) for s in self.graph.sums)]:
            for b in reads:
                until[b >> 1] = max(until[b >> 1], stage)
        return until

    def _result(self, m: Module, n: int, bits: list[HdlValue], s: Sum) -> HdlValue:
        """Output n: the sum, or what its thresholds make of it."""
        if self.threshold is None:
            total = Signal(len(bits), name=f"sum{n}")
            m.d.comb += total.eq(Cat(bits))
            return total.as_signed() if s.lo < 0 else total
        shape = self.o.p[n].shape()
        steps, reached = _steps(self.threshold, n, s)
        at_least = Signal(len(steps), name=f"at_least{n}")
        m.d.comb += at_least.eq(Cat(_at_least(bits, t - s.offset) for t in steps))

        def search(first: int, end: int) -> HdlValue:
            if first == end:
                return C(reached[first], shape)
            middle = (first + end) // 2
            return Mux(at_least[middle], search(middle + 1, end), search(first, middle))
        return search(0, len(steps))


def _steps(node: Threshold, n: int, s: Sum) -> tuple[list[int], list[int]]:
    """Channel n's steps within the range of its sum, sorted, and the values between them."""
    c = n % len(node.signs)
    steps = sorted({int(t) for t in node.thresholds[c, node.signs[c] != 0] if s.lo < t <= s.hi})
    alone = Threshold(node.name, thresholds=node.thresholds[c:c + 1], signs=node.signs[c:c + 1],
                      base=node.base[[n % len(node.base)]])
    return steps, threshold_values(alone, np.array([[s.lo], *([t] for t in steps)]))[:, 0].tolist()


def _registers(m: Module, enable: HdlValue, bits: Sequence[HdlValue], name: str) -> list[HdlValue]:
    """The bits a cycle later, in words."""
    registers: list[HdlValue] = []
    for k in range(0, len(bits), WORD):
        word = Signal(len(bits[k:k + WORD]), name=f"{name}_{k // WORD}",
                      reset_less=not name.startswith("valid"))
        with m.If(enable):
            m.d.sync += word.eq(Cat(bits[k:k + WORD]))
        registers += list(word)
    return registers


def _subtracts(chain: Chain, lut: int) -> bool:
    """Whether y's complement is subtracted.

    Yosys gives the first operand of a difference to the carry of Xilinx as it is, of a sum either
    one, and a function there would take a LUT of its own.
    """
    added, subtracted = chain.complements
    return lut == 6 or subtracted < added


def _words(chains: Sequence[Chain], lut: int) -> list[list[Chain]]:
    """Chains that share an adder: each takes a bit below it, and the last one above it."""
    words: list[list[Chain]] = []
    for _, alike in groupby(sorted(chains, key=lambda chain: _subtracts(chain, lut)),
                            key=lambda chain: _subtracts(chain, lut)):
        room = 0
        for chain in alike:
            if len(chain.x) + 2 > room:
                words.append([])
                room = WORD
            words[-1].append(chain)
            room -= len(chain.x) + 1
    return words


def _added(m: Module, name: str, chains: Sequence[Chain], literal: Callable[[int], HdlValue],
           lut: int) -> dict[int, HdlValue]:
    """The bits of `chains`, which one adder computes.

    Below each chain a position adds its carry to itself: the sum there is what the chain below
    carries out, and its carry is that of this chain.
    """
    a, b, at = list[HdlValue](), list[HdlValue](), list[int]()
    turn = _subtracts(chains[0], lut)
    for chain in chains:
        a.append(literal(chain.carry))
        b.append(literal(chain.carry ^ turn))
        at.append(len(a))
        a += [literal(x) for x in chain.x]
        b += [_function([literal(x) for x in literals], table, turn) for literals, table in chain.y]
    a.append(C(0, 1))
    b.append(C(turn, 1))
    z = Signal(len(a), name=name)
    m.d.comb += z.eq(Cat(a) - Cat(b) if turn else Cat(a) + Cat(b))
    return {chain.first + i: z[first + i] for chain, first in zip(chains, at, strict=True)
            for i in range(chain.width)}


def _at_least(bits: Sequence[HdlValue], t: int) -> HdlValue:
    """Whether the number of these bits is t or more; bits below t's lowest 1 do not matter."""
    low = (t & -t).bit_length() - 1
    result = bits[low]
    for k in range(low + 1, len(bits)):
        result = bits[k] & result if t >> k & 1 else bits[k] | result
    return result


def _function(bits: Sequence[HdlValue], table: int, turn: bool) -> HdlValue:
    """The function whose values are the bits of `table`, or its complement: a constant, shifted."""
    size = 1 << len(bits)
    table ^= turn * ((1 << size) - 1)
    if len(bits) == 1:
        return ~bits[0] if table == 1 else bits[0]
    return (C(table, size) >> Cat(bits))[0]
