"""N2UQ: odd weights ``2k - (2^b - 1)``, activations 0..2^b - 1, and the ways to multiply them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Const, Mux
from amaranth.hdl import Value as HdlValue

from .design import DESIGNS, Datapath, Design, Term, absorbed, extended

__all__ = ["FORMS", "Uniform"]

FORMS = ("digits6", "digits4", "chained", "pairs", "planes", "popcount", "operator")


def count3(bits: Sequence[HdlValue], cycle: int) -> Term:
    """How many of up to three bits are set: two LUTs, of 6 inputs where each bit is an AND."""
    x, y, z = (*bits, Const(0, 1), Const(0, 1))[:3]
    return Term(Cat(x ^ y ^ z, (x & y) | (x & z) | (y & z)), 0, len(bits), cycle)


class Uniform(Design):
    """N2UQ's products, in one of several forms.

    - "digits6", "digits4": a weight is ``Σ_d 2^(d·s)·u_d`` with odd digits u_d of s bits, the most
      that a LUT of 6 or 4 inputs takes beside an activation; ``u_d·a`` is a case table, one LUT a
      bit, its lowest bit that of the activation.  Sums by digit, then over digits; no ``Σa``.
    - "chained": the same as "digits6", added up in chains of adders that hold what they can of the
      tables.
    - "pairs": ``Σa + Σ_b 2^(b+1)·Σ(k_b ? a : 0)``, with ``-Σ(k_b ? 0 : a)`` for the top bit: two
      activations, and their sum, which outputs may share and which is the first term of a chain
      of adders; an adder's LUTs choose, for one bit of two weights, 0, either or the sum.
    - "planes": ``Σ_b 2^b·Σ(k_b ? a : 0)``, less ``(2^b - 1)·Σa``, which is shared.
    - "popcount": a count of ``k_b & a_c`` per pair of bits, three lanes at a time in LUTs, less the
      same.
    - "operator": ``Σ w·a``, as synthesis multiplies.

    Latency: 1 cycle for the codes, ``⌈log2(lanes)⌉`` for the sum; then ``⌈log2(digits)⌉``; for
    planes ``⌈log2 b_w⌉ + 1``; for pairs, instead, ``1 + b_w + ⌈log2(⌈lanes/2⌉)⌉``; chained has
    the cycles of `Datapath.cases` instead of ``⌈log2(lanes)⌉``; for popcount
    ``1 + ⌈log2(⌈lanes/3⌉)⌉ + ⌈log2(b_w·b_a)⌉ + 1``.
    """

    method = trained = "N2UQ"
    uniform = True

    def __init__(self, *, form: str = FORMS[0], **point: Any) -> None:
        super().__init__(**point)
        self.form = form

    @classmethod
    def variants(cls, **point: Any) -> Iterator[Design]:
        """One for each form."""
        for form in FORMS:
            yield cls(form=form, **point)

    @property
    def name(self) -> str:
        return f"uniform {self.form}"

    @property
    def weights(self) -> np.ndarray:
        return 2 * np.arange(2**self.weight_bits) - (2**self.weight_bits - 1)

    @property
    def least(self) -> int:
        """The least weight."""
        return -(2**self.weight_bits - 1)

    def shared(self, d: Datapath, a: Sequence[Term]) -> list[Term]:
        return [d.sum(a, "total")] if self.form in ("planes", "popcount") else []

    def partial(self, d: Datapath, w: Sequence[Term], a: Sequence[Term], shared: Sequence[Term]
                ) -> list[Term]:
        if self.form in ("digits6", "digits4", "chained"):
            inputs = 4 if self.form == "digits4" else 6
            sums = self._digits(d, w, a, max(inputs - self.act_bits, 1))
        else:
            sums = getattr(self, f"_{self.form}")(d, w, a)
        dot = d.sum(sums, "dot")
        if not shared:
            return [dot]
        (total,) = (d.until(term, dot.cycle) for term in shared)
        limit = -self.least * self.lanes * (2**self.act_bits - 1)
        return [d.register(Term(2 * dot.value - (total.value << self.weight_bits) + total.value,
                                -limit, limit, dot.cycle), "dot")]

    def _digits(self, d: Datapath, w: Sequence[Term], a: Sequence[Term], size: int) -> list[Term]:
        sums = []
        for low in range(0, self.weight_bits, size):
            bits = min(size, self.weight_bits - low)
            odd = 2 * np.arange(2**bits) - (2**bits - 1)
            table = np.multiply.outer(self.activations, odd).ravel().tolist()
            indices = [Cat(code.value[low:low + bits], x.value)
                       for code, x in zip(w, a, strict=True)]
            if self.form == "chained":
                total = d.cases(table, [Term(index, 0, len(table) - 1, a[0].cycle)
                                        for index in indices], what=f"digit{low}")
            else:
                total = d.sum((d.case(table, index, a[0].cycle, "product") for index in indices),
                              f"digit{low}")
            sums.append(total.times(2**low))
        return sums

    def _pairs(self, d: Datapath, w: Sequence[Term], a: Sequence[Term]) -> list[Term]:
        sums = []
        for k, pair in enumerate(d.pairs(a)):
            total = pair[2]
            limit = total.hi * -self.least
            for b in reversed(range(self.weight_bits)):
                top = b == self.weight_bits - 1
                selects = [Term(code.value[b] ^ top, 0, 1, code.cycle)
                           for code in w[2 * k:2 * k + 2]]
                term = d.select([d.until(select, total.cycle) for select in selects],
                                [d.until(each, total.cycle) for each in pair], f"plane{b}")
                upper = d.signal(Term(total.value >> b + 1, total.lo >> b + 1, total.hi >> b + 1,
                                      total.cycle), "upper")
                added = upper.value - term.value if top else absorbed(upper, term).value
                total = d.register(Term(
                    Cat(extended(total, b + 1), added).as_signed(), -limit,
                    total.hi + (0 if top else term.hi << b + 1), total.cycle), f"plane{b}")
            sums.append(total)
        return [d.sum(sums)]

    def _planes(self, d: Datapath, w: Sequence[Term], a: Sequence[Term]) -> list[Term]:
        return [d.sum((Term(Mux(code.value[b], x.value, 0), 0, x.hi, x.cycle)
                       for code, x in zip(w, a, strict=True)), f"plane{b}").times(2**b)
                for b in range(self.weight_bits)]

    def _popcount(self, d: Datapath, w: Sequence[Term], a: Sequence[Term]) -> list[Term]:
        lanes, sums = list(zip(w, a, strict=True)), []
        for b in range(self.weight_bits):
            for c in range(self.act_bits):
                both = [code.value[b] & x.value[c] for code, x in lanes]
                counts = [d.register(count3(both[at:at + 3], a[at].cycle), "count")
                          for at in range(0, len(both), 3)]
                sums.append(d.sum(counts, f"pair{b}{c}").times(2**(b + c)))
        return sums

    def _operator(self, d: Datapath, w: Sequence[Term], a: Sequence[Term]) -> list[Term]:
        limit = -self.least * (2**self.act_bits - 1)
        return [d.sum(Term((Cat(Const(1, 1), code.value) - 2**self.weight_bits) * x.value,
                           -limit, limit, x.cycle) for code, x in zip(w, a, strict=True))]


DESIGNS.append(Uniform)
