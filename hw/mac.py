"""Multiply-accumulate: products of weight codes' digits and activations, summed in trees."""

from __future__ import annotations

from functools import partial
from itertools import accumulate, pairwise, zip_longest

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal
from amaranth.hdl import Value as HdlValue
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..ir.folding import PRODUCTS
from .compressor_mac import compressor_latency, compressor_offset
from .library import instantiate
from .stream import beats, shape_for

__all__ = ["LUT", "DigitProduct", "MacArray", "adder_tree", "digit_bits", "digits_latency", "lanes",
           "mac_latency", "mac_name", "pair_shape", "pair_sums", "pairs_offset", "products_offset",
           "tree_latency"]

LEVELS_PER_STAGE = 1  # adder levels between registers: two would merge into wide compressors
LUT = 6    # inputs of a table that holds a product
WORD = 64  # bits of a signal that a simulator holds in one machine word


def tree_latency(terms: int) -> int:
    """Cycles of `adder_tree` over that many terms: ``⌈⌈log2(terms)⌉ / LEVELS_PER_STAGE⌉``."""
    return -(-(terms - 1).bit_length() // LEVELS_PER_STAGE)


def digit_bits(code_bits: int, activation_bits: int, form: str) -> int:
    """Bits of a weight code that are multiplied at a time: see `MacArray`."""
    products = PRODUCTS[form]
    if products.bitwise:
        return 1
    beside = LUT - activation_bits
    return min(beside, code_bits) if products.tables and beside > 0 else code_bits


def digits_latency(code_bits: int, activation_bits: int, form: str) -> int:
    """Cycles in which the sums of a code's digits add up: ``tree_latency(digits)``."""
    return tree_latency(-(-code_bits // digit_bits(code_bits, activation_bits, form)))


def mac_latency(simd: int, code_bits: int, activation_bits: int, form: str) -> int:
    """Cycles of a PE of this `form` from its beat to its accumulator, see `MacArray`.

    ``tree_latency(SIMD) + digits_latency(code_bits, activation_bits, form) + 2``, of pairs
    ``tree_latency(⌈SIMD/2⌉)`` in the place of the first; of a heap `compressor_latency`.
    """
    if PRODUCTS[form].heap:
        return compressor_latency(simd, code_bits, activation_bits)
    terms = -(-simd // PRODUCTS[form].lanes)
    return tree_latency(terms) + digits_latency(code_bits, activation_bits, form) + 2


def lanes(m: Module, vector: HdlValue, shape: Shape, name: str) -> list[HdlValue]:
    """The elements of `vector`, by way of signals of at most WORD bits: see `adder_tree`."""
    count = max(WORD // shape.width, 1)
    values: list[HdlValue] = []
    for k, at in enumerate(range(0, len(vector), count * shape.width)):
        part = Signal(len(vector[at:at + count * shape.width]), name=f"{name}_{k}")
        m.d.comb += part.eq(vector[at:at + count * shape.width])
        values += elements(part, [shape] * (len(part) // shape.width))
    return values


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


def pair_shape(activation: Shape) -> Shape:
    """Of what `pair_sums` makes of activations: a bit more."""
    return Shape(activation.width + 1, activation.signed)


def pair_sums(m: Module, enable: HdlValue, a: list[HdlValue], *, centered: bool) -> HdlValue:
    """What a `MacArray` of form "pairs" takes of the activations, a cycle later, side by side.

    Of two lanes a and b ``a + b``, and ``a + ~b`` if centered, else a and b themselves, in elements
    of `pair_shape`.  A last lane without another is beside a 0.
    """
    shape, sums = a[0].shape(), list[HdlValue]()
    for one, other in zip_longest(a[0::2], a[1::2], fillvalue=Const(0, shape)):
        alone = [Cat(x, x[-1] if shape.signed else Const(0, 1)) for x in (one, other)]
        sums += [one + other, *([one + ~other] if centered else alone)]
    count, words = max(WORD // (shape.width + 1), 1), list[HdlValue]()
    for k, at in enumerate(range(0, len(sums), count)):
        part = Cat(sums[at:at + count])
        words.append(Signal(len(part), name=f"pairs_{k}", reset_less=True))
        with m.If(enable):
            m.d.sync += words[-1].eq(part)
    return Cat(words)


def pairs_offset(weights: np.ndarray, activation: Shape, simd: int) -> np.ndarray:
    """What centered pairs add to each output, int64 [N]; `weights` are odd, [N, K].

    Where a bit of a weight is 0, ``~a`` is in the place of ``-a``: -1 more if a is signed, else
    ``2^A - 1``; and 1 more still of the first of two lanes, whose sum is complemented.
    """
    w = weights.astype(np.int64)
    most = 2**int(np.abs(w).max()).bit_length() - 1
    more = (not activation.signed) * 2**activation.width - np.arange(w.shape[1]) % simd % 2
    return ((most - w) // 2 * more).sum(axis=1)


def products_offset(weights: np.ndarray, activation: Shape, simd: int, form: str) -> np.ndarray:
    """What the products of a `form` that thresholds follow add to each output, int64 [N]."""
    if PRODUCTS[form].heap:
        bits = int(np.abs(weights.astype(np.int64)).max()).bit_length()
        return compressor_offset(weights, bits, activation)
    return pairs_offset(weights, activation, simd)


def _kind(shape: Shape) -> str:
    return f"{'s' if shape.signed else 'u'}{shape.width}"


def _levels(step: int, least: int) -> str:
    return f"{step}k{'m' if least < 0 else 'p'}{abs(least)}"


class DigitProduct(wiring.Component):
    """``(step·code + least)·a`` as a table of a LUT for each bit; latency 0, combinational.

    A column of the table is one constant, shifted: Yosys makes far more LUTs of a case statement.

    Members
    -------
    code, a: together at most `LUT` bits.
    p: their product, which is in `lo`..`hi`.
    """

    def __init__(self, *, code_bits: int, activation: Shape, step: int, least: int) -> None:
        a = np.arange(2**activation.width)
        if activation.signed:
            a -= 2**activation.width * (a >> activation.width - 1)
        levels = step * np.arange(2**code_bits) + least
        self.table = np.multiply.outer(a, levels).ravel()  # by a above the code
        self.lo, self.hi = int(self.table.min()), int(self.table.max())
        super().__init__({"code": In(code_bits), "a": In(activation),
                          "p": Out(shape_for(self.lo, self.hi))})

    def elaborate(self, platform):
        m = Module()
        index = Cat(self.code, self.a)
        for bit in range(len(self.p)):
            column = sum(int(product >> bit & 1) << k for k, product in enumerate(self.table))
            m.d.comb += self.p[bit].eq(Const(column, len(self.table)).bit_select(index, 1))
        return m


def mac_name(*, simd: int, code_bits: int, activation: Shape, acc: Shape, step: int, least: int,
             form: str, start: int | None = None) -> str:
    """Module name of a `MacArray`: of all of its parameters, so that only equal ones share it."""
    begin = "" if start is None else f"_from{'m' if start < 0 else ''}{abs(start)}"
    return (f"pe_{form}_w{code_bits}_{_levels(step, least)}_a{_kind(activation)}_simd{simd}"
            f"_acc{_kind(acc)}{begin}")


class MacArray(wiring.Component):
    """One PE: the dot product of SIMD weight codes and activations, accumulated over beats.

    A weight is ``step·k + least`` with an unsigned code k; for N2UQ ``2k - n``.  Digits k_d of s
    bits are multiplied, each by itself, and their sums over lanes add up as ``Σ_d 2^(s·d)·…``:

    - "planes": s = 1, ``k_d ? a : 0``, plus the shared ``least·Σa``;
    - "pairs": the same of two lanes a and b: two bits of weights choose 0, a, b or ``a + b``, which
      all PEs share.  Of odd weights a bit is a sign, and two choose ``±a ± b``: ``a + b``,
      ``a + ~b`` or the complement of either, if `start` says that no ``Σa`` is added, but a
      constant, `pairs_offset`, remains;
    - "product": one digit, ``k·a``, plus the shared ``least·Σa``;
    - "direct": ``(step·k_d + least_d)·a`` with no shared term.  s is what a LUT of 6 inputs takes
      beside a, and the product a table of one LUT a bit (`DigitProduct`); the digits of odd weights
      are odd, ``2k_d - (2^s - 1)``, so that the lowest bit is a's.  Where a alone has 6 bits or
      more there is one digit and a multiplier.

    Latency `mac_latency(SIMD, code_bits, bits of an activation, form)` from `a` and `codes` to
    `acc`; `total` comes two cycles before that, `valid` and `first` one cycle.  One beat per cycle.

    Parameters
    ----------
    start: what a sum begins with, of centered pairs.
    acc: holds the whole sum; what is partial may wrap around.

    Members
    -------
    enable: everything holds while low.
    a, codes: one beat of SIMD activations, or of their `pair_sums`, and of weight codes.
    total: ``least·Σa`` of the beat.
    valid, first: there is a beat at the accumulator; it begins a new sum.
    acc: the sum; exact once all beats of a fold have passed.
    """

    def __init__(self, *, simd: int, code_bits: int, activation: Shape, acc: Shape, step: int,
                 least: int, form: str, start: int | None = None) -> None:
        self.simd, self.code_bits, self.activation = simd, code_bits, activation
        self.step, self.least, self.form, self.start = step, least, form, start
        self.products = PRODUCTS[form]
        self.shared = self.products.offset and start is None  # least·Σa, by all PEs
        span = 2**activation.width
        lowest = -span // 2 if activation.signed else 0
        ends = (0, least * simd * lowest, least * simd * (lowest + span - 1))
        super().__init__({
            "enable": In(1), "a": In(beats(activation, simd) if self.products.lanes == 1 else beats(
                pair_shape(activation), -(-simd // 2) * (3 if start is None else 2))),
            "codes": In(beats(Shape(code_bits), simd)),
            "total": In(shape_for(min(ends), max(ends))),
            "valid": In(1), "first": In(1), "acc": Out(acc),
        })

    def elaborate(self, platform):
        m = Module()
        codes = lanes(m, self.codes.as_value(), Shape(self.code_bits), "code")
        activations = lanes(m, self.a.as_value(), self.a.shape().elem_shape, "lane")
        size = digit_bits(self.code_bits, self.activation.width, self.form)
        sums = []
        for low in range(0, self.code_bits, size):
            digits = [code[low:low + size] for code in codes]
            products = self._chosen(digits, activations) if self.products.lanes > 1 else [
                self._product(m, platform, digit, a, low, lane)
                for lane, (digit, a) in enumerate(zip(digits, activations, strict=True))]
            sums.append(adder_tree(m, self.enable, products, f"digit{low}") << low)
        term = adder_tree(m, self.enable, sums, "dot")
        if self.shared:
            term = term * self.step + self.total
        held = Signal(HdlValue.cast(term).shape(), name="term", reset_less=True)
        with m.If(self.enable):
            m.d.sync += held.eq(term)
        with m.If(self.enable & self.valid):
            m.d.sync += self.acc.eq(Mux(self.first, self.start or 0, self.acc) + held)
        return m

    def _chosen(self, bits: list[HdlValue], activations: list[HdlValue]) -> list[HdlValue]:
        """What a bit of either weight chooses of each pair; there is no weight beside the last."""
        products = []
        for k, (one, other) in enumerate(zip_longest(bits[0::2], bits[1::2])):
            if self.start is None:
                both, a, b = activations[3 * k:3 * k + 3]
                products.append(Mux(one, a, 0) if other is None else
                                Mux(one, Mux(other, both, a), Mux(other, b, 0)))
            else:
                both, apart = activations[2 * k:2 * k + 2]
                alike = both if other is None else Mux(one ^ other, apart, both)
                products.append(Mux(one, alike, ~(apart if other is None else alike)))
        return products

    def _product(self, m, platform, code, a, low, lane):
        if self.products.bitwise:
            return Mux(code, a, Const(0, self.activation))
        if self.products.offset:
            return code * a
        # Odd weights have odd digits; of others, the lowest digit bears the offset.
        odd = self.step == 2 and self.least == 1 - 2**self.code_bits
        least = 1 - 2**len(code) if odd else self.least if low == 0 else 0
        if len(code) + self.activation.width > LUT:
            return (code * self.step + least) * a
        make = partial(DigitProduct, code_bits=len(code), activation=self.activation,
                       step=self.step, least=least)
        name, levels = f"product{low}_{lane}", _levels(self.step, least)
        product = instantiate(
            m, make, name, f"product_w{len(code)}_{levels}_a{_kind(self.activation)}", platform,
            clocked=False)
        m.d.comb += [product.code.eq(code), product.a.eq(a)]
        return product.p
