"""Multiply-accumulate: products of unsigned weight codes and activations, summed in a tree."""

from __future__ import annotations

from itertools import accumulate, pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal
from amaranth.hdl import Value as HdlValue
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .stream import beats, shape_for

__all__ = ["MacArray", "adder_tree", "lanes", "mac_latency", "mac_name", "tree_latency"]

LEVELS_PER_STAGE = 1  # adder levels between registers: two would merge into wide compressors
WORD = 64  # bits of a signal that a simulator holds in one machine word


def tree_latency(terms: int) -> int:
    """Cycles of `adder_tree` over that many terms: ``⌈⌈log2(terms)⌉ / LEVELS_PER_STAGE⌉``."""
    return -(-(terms - 1).bit_length() // LEVELS_PER_STAGE)


def planes_latency(code_bits: int, form: str) -> int:
    """Cycles in which the sums of the bit planes add up: ``tree_latency(code_bits)`` or none."""
    return tree_latency(code_bits) if form == "planes" else 0


def mac_latency(simd: int, code_bits: int, form: str) -> int:
    """Cycles of a `MacArray` from its beat to its accumulator.

    ``tree_latency(SIMD) + planes_latency(code_bits, form) + 2``
    """
    return tree_latency(simd) + planes_latency(code_bits, form) + 2


def lanes(m: Module, vector: HdlValue, shape: Shape, name: str) -> list[HdlValue]:
    """The elements of `vector`, by way of signals of at most WORD bits: see `adder_tree`."""
    count = max(WORD // shape.width, 1)
    found: list[HdlValue] = []
    for k, at in enumerate(range(0, len(vector), count * shape.width)):
        part = Signal(len(vector[at:at + count * shape.width]), name=f"{name}_{k}")
        m.d.comb += part.eq(vector[at:at + count * shape.width])
        found += elements(part, [shape] * (len(part) // shape.width))
    return found


def elements(word: HdlValue, shapes: list[Shape]) -> list[HdlValue]:
    """The parts of `word` that are as wide as `shapes`, lowest first."""
    ends = list(accumulate((shape.width for shape in shapes), initial=0))
    parts = [word[at:end] for at, end in pairwise(ends)]
    return [part.as_signed() if shape.signed else part
            for part, shape in zip(parts, shapes, strict=True)]


def adder_tree(m: Module, enable: HdlValue, terms: list, name: str) -> HdlValue:
    """Sum of `terms` in a balanced tree, a register after every LEVELS_PER_STAGE levels.

    Latency `tree_latency(len(terms))`; every node is as wide as its range needs.  The nodes of a
    level lie side by side in registers of at most WORD bits, which are few and suit a simulator.
    """
    level = 0
    while len(terms) > 1:
        odd = terms[len(terms) & ~1:]
        terms = [a + b for a, b in zip(terms[0::2], terms[1::2], strict=False)] + odd
        level += 1
        if level % LEVELS_PER_STAGE == 0 or len(terms) == 1:
            count = max(WORD // max(term.shape().width for term in terms), 1)
            registered: list[HdlValue] = []
            for k, at in enumerate(range(0, len(terms), count)):
                part = terms[at:at + count]
                word = Signal(len(Cat(part)), name=f"{name}_{level}_{k}", reset_less=True)
                with m.If(enable):
                    m.d.sync += word.eq(Cat(part))
                registered += elements(word, [term.shape() for term in part])
            terms = registered
    return terms[0]


def mac_name(*, simd: int, code_bits: int, activation: Shape, acc: Shape, step: int, least: int,
             form: str) -> str:
    """Module name of a `MacArray`: of all of its parameters, so that only equal ones share it."""
    def kind(shape: Shape) -> str:
        return f"{'s' if shape.signed else 'u'}{shape.width}"

    level = f"{step}k{'m' if least < 0 else 'p'}{abs(least)}"
    return f"pe_{form}_w{code_bits}_{level}_a{kind(activation)}_simd{simd}_acc{kind(acc)}"


class MacArray(wiring.Component):
    """One PE: the dot product of SIMD weight codes and activations, accumulated over beats.

    A weight is ``step·k + least`` with an unsigned code k; for N2UQ ``2k - n``.  Forms:

    - "planes": Σ_b 2^b · Σ (k_b ? a : 0), plus the shared ``least·Σa``;
    - "product": Σ k·a, plus the shared ``least·Σa``;
    - "direct": Σ (step·k + least)·a with signed weights, no shared term.

    Latency `mac_latency(SIMD, code_bits, form)` from `a` to `acc`; `total` comes two cycles before
    that, `valid` and `first` one cycle.  One beat per cycle.

    Members
    -------
    enable: everything holds while low.
    a, codes: one beat of SIMD activations and weight codes.
    total: ``least·Σa`` of the beat.
    valid, first: there is a beat at the accumulator; it begins a new sum.
    acc: the sum; exact once all beats of a fold have passed.
    """

    def __init__(self, *, simd: int, code_bits: int, activation: Shape, acc: Shape, step: int,
                 least: int, form: str) -> None:
        self.simd, self.code_bits, self.activation = simd, code_bits, activation
        self.step, self.least, self.form = step, least, form
        span = 2**activation.width
        lowest = -span // 2 if activation.signed else 0
        ends = (0, least * simd * lowest, least * simd * (lowest + span - 1))
        super().__init__({
            "enable": In(1), "a": In(beats(activation, simd)),
            "codes": In(beats(Shape(code_bits), simd)),
            "total": In(shape_for(min(ends), max(ends))),
            "valid": In(1), "first": In(1), "acc": Out(acc),
        })

    def elaborate(self, platform):
        m = Module()
        pairs = list(zip(lanes(m, self.codes.as_value(), Shape(self.code_bits), "code"),
                         lanes(m, self.a.as_value(), self.activation, "lane"), strict=True))
        if self.form == "planes":
            zero = Const(0, self.activation)
            planes = [adder_tree(m, self.enable, [Mux(code[b], a, zero) for code, a in pairs],
                                 f"plane{b}") for b in range(self.code_bits)]
            dot = adder_tree(m, self.enable, [plane << b for b, plane in enumerate(planes)], "dot")
            term = dot * self.step + self.total
        elif self.form == "product":
            dot = adder_tree(m, self.enable, [code * a for code, a in pairs], "dot")
            term = dot * self.step + self.total
        else:
            term = adder_tree(m, self.enable, [(code * self.step + self.least) * a
                                               for code, a in pairs], "dot")
        held = Signal(HdlValue.cast(term).shape(), name="term", reset_less=True)
        with m.If(self.enable):
            m.d.sync += held.eq(term)
        with m.If(self.enable & self.valid):
            m.d.sync += self.acc.eq(Mux(self.first, 0, self.acc) + held)
        return m
