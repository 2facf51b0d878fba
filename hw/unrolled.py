"""Layers in logic: every weight a constant, a vector per cycle, thresholds in line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby

import numpy as np
from amaranth.hdl import Shape

from ..errors import N2uqError
from ..ir import Edge, Threshold, Unrolled, threshold_values
from .chains import TRUE, Chain, HeapGraph, Sum
from .heaps import optimize
from .stream import Unit, beats, element
from .verilog import Bit, Text, Written, joined, lookup, row

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


class UnrolledUnit(Written, Unit):
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

    def verilog(self, name: str) -> str:
        """See `Written`."""
        text = Text(self, name, ("o__valid", "o__payload"))
        text.wire("enable", "~o__valid | o__ready")
        text.assign("i__ready", "enable")
        until = self._until()
        stride = Shape.cast(self.i.p.shape().elem_shape).width
        bits = {first + k: ("i__payload", i * stride + k) for i, (first, width) in enumerate(
            zip(self.graph.firsts, self.graph.widths, strict=True)) for k in range(width)}

        def literal(b: int) -> str:
            if b <= TRUE:
                return f"1'h{b}"
            word, k = bits[b >> 1]
            return f"{'~' * (b & 1)}{word}[{k}]"

        chains = {level: list(alike) for level, alike in groupby(
            sorted(self.graph.chains, key=lambda chain: chain.level),
            key=lambda chain: chain.level)}
        results: dict[int, list[Bit]] = {}
        valid = "i__valid"
        for stage in range(self.stages):
            for level in range(stage * self.levels + 1, (stage + 1) * self.levels + 1):
                for k, word in enumerate(_words(chains.get(level, []), self.graph.lut)):
                    bits.update(_added(text, f"level{level}_{k}", word, literal, self.graph.lut))
            for n, s in enumerate(self.graph.sums):
                if self._ready(s) == stage:
                    results[n] = self._result(text, n, [literal(b) for b in s.bits], s)
            if stage < self.stages - 1:
                text.register(f"valid{stage}", valid, reset=True)
                valid = f"valid{stage}"
                carried = [b for b in bits if until[b] > stage]
                bits = dict(zip(carried, _registers(
                    text, f"stage{stage}", [bits[b] for b in carried]), strict=True))
                for n, result in results.items():
                    if result:
                        results[n] = text.register(f"result{n}_{stage}", joined(result),
                                                   len(result))
        text.clocked("o__valid", valid, reset=True)
        text.clocked("o__payload", row(
            self._fitted(results[n], s) for n, s in enumerate(self.graph.sums)), reset=True)
        return str(text)

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

    def _result(self, text: Text, n: int, bits: list[str], s: Sum) -> list[Bit]:
        """Output n: the sum, or what its thresholds make of it."""
        if self.threshold is None:
            return text.wire(f"sum{n}", row(bits), len(bits)) if bits else []
        width = self._width
        steps, reached = _steps(self.threshold, n, s)
        if steps:
            text.wire(f"at_least{n}", row(_at_least(bits, t - s.offset) for t in steps),
                      len(steps))

        def search(first: int, end: int) -> str:
            if first == end:
                return f"{width}'h{reached[first] % 2**width:x}"
            middle = (first + end) // 2
            return (f"(at_least{n}[{middle}] ? {search(middle + 1, end)} "
                    f": {search(first, middle)})")
        return text.wire(f"value{n}", search(0, len(steps)), width)

    @property
    def _width(self) -> int:
        """Bits of an output."""
        return Shape.cast(self.o.p.shape().elem_shape).width

    def _fitted(self, result: list[Bit], s: Sum) -> str:
        """A result in all bits of an output."""
        if more := max(self._width - len(result), 0):
            top = f"{result[-1][0]}[{result[-1][1]}]" if result and s.lo < 0 else "1'h0"
            return row([*([joined(result)] if result else []), f"{{{more}{{{top}}}}}"])
        return joined(result[:self._width])


def _steps(node: Threshold, n: int, s: Sum) -> tuple[list[int], list[int]]:
    """Channel n's steps within the range of its sum, sorted, and the values between them."""
    c = n % len(node.signs)
    steps = sorted({int(t) for t in node.thresholds[c, node.signs[c] != 0] if s.lo < t <= s.hi})
    alone = Threshold(node.name, thresholds=node.thresholds[c:c + 1], signs=node.signs[c:c + 1],
                      base=node.base[[n % len(node.base)]])
    return steps, threshold_values(alone, np.array([[s.lo], *([t] for t in steps)]))[:, 0].tolist()


def _registers(text: Text, name: str, bits: Sequence[Bit]) -> list[Bit]:
    """The bits a cycle later, in words."""
    words = (bits[k:k + WORD] for k in range(0, len(bits), WORD))
    return [bit for k, word in enumerate(words)
            for bit in text.register(f"{name}_{k}", joined(word), len(word))]


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


def _added(text: Text, name: str, chains: Sequence[Chain], literal: Callable[[int], str],
           lut: int) -> dict[int, Bit]:
    """The bits of `chains`, which one adder computes.

    Below each chain a position adds its carry to itself: the sum there is what the chain below
    carries out, and its carry is that of this chain.
    """
    a, b, at = list[str](), list[str](), list[int]()
    turn = _subtracts(chains[0], lut)
    for chain in chains:
        a.append(literal(chain.carry))
        b.append(literal(chain.carry ^ turn))
        at.append(len(a))
        a += [literal(x) for x in chain.x]
        b += [_function(text, f"{name}_y{len(b) + i}", literals, table, literal, turn)
              for i, (literals, table) in enumerate(chain.y)]
    a.append("1'h0")
    b.append(f"1'h{turn:d}")
    z = text.wire(name, f"{row(a)} {'-' if turn else '+'} {row(b)}", len(a))
    return {chain.first + i: z[first + i] for chain, first in zip(chains, at, strict=True)
            for i in range(chain.width)}


def _at_least(bits: Sequence[str], t: int) -> str:
    """Whether the number of these bits is t or more; bits below t's lowest 1 do not matter."""
    low = (t & -t).bit_length() - 1
    result = bits[low]
    for k in range(low + 1, len(bits)):
        result = f"({bits[k]} {'&' if t >> k & 1 else '|'} {result})"
    return result


def _function(text: Text, name: str, literals: Sequence[int], table: int,
              literal: Callable[[int], str], turn: bool) -> str:
    """The function whose values are the bits of `table`, or its complement: a constant, shifted."""
    size = 1 << len(literals)
    table ^= turn * ((1 << size) - 1)
    if not literals:
        return f"1'h{table}"
    if len(literals) == 1:
        return literal(literals[0] ^ (table == 1))
    return f"{text.wire(name, *lookup(table, [literal(b) for b in literals]))[0][0]}[0]"
