"""Codebooks on one side or both: codes are decoded, and levels multiplied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Mux

from ...errors import N2uqError
from .codebook import CodebookDesign
from .design import DESIGNS, Datapath, Design, Term, absorbed, extended

__all__ = ["FORMS", "Decode"]

ANY = ("operator", "planes")  # forms of any levels
FORMS = (*ANY, "pairs")


class Decode(CodebookDesign):
    """Levels from tables, as k-means and LCQ have them, times each other.

    - "operator": ``Σ w·a``, as synthesis multiplies: levels and products end in registers, as DSP
      blocks have them.
    - "planes": ``Σ_c 2^c·Σ(a_c ? w : 0)`` over the bits a_c of activations, or of their levels:
      what adders of LUTs multiply, without a register that would keep tables and gates out of them.
    - "pairs", of levels -2^(b-1)..2^(b-1) - 1 beside uniform activations: N2UQ's form of that name,
      ``Σ_b 2^b·Σ(k_b ? a : 0)``, with ``-Σ(k_b ? 0 : a)`` for the top bit of the place k.

    Latency: 1 cycle for the codes, ``⌈log2(lanes)⌉`` for the sum; for operator 2 for level and
    product, for planes ``⌈log2(planes)⌉``; for pairs, instead, ``1 + max(b_w - 1, 1) +
    ⌈log2(⌈lanes/2⌉)⌉``.
    """

    method = "codebook"

    def __init__(self, *, form: str = FORMS[0], **parameters: Any) -> None:
        super().__init__(**parameters)
        if form not in FORMS:
            raise N2uqError(f"{self.method}: form must be one of {', '.join(FORMS)}, not {form}")
        self.form = form
        if form == "pairs" and (self.act_width or not _places(self.weights)):
            raise N2uqError(f"{self.method}: form pairs must have levels "
                            f"{_twos(self.weight_bits).tolist()} and uniform activations, "
                            f"not {self.weights.tolist()}")
        self.tables = {"weights": self.weights}
        if self.act_width:
            self.tables["activations"] = self.activations

    @classmethod
    def variants(cls, **point: Any) -> Iterator[Design]:
        """Weights of 4, 8 and 16 bits, activations uniform or of 8, where a code has fewer bits."""
        for weight_width, act_width in ((4, 0), (8, 0), (16, 0), (8, 8)):
            if point["weight_bits"] < weight_width:
                for writable in (False, True):
                    for form in ANY:
                        yield cls(weight_width=weight_width, act_width=act_width, form=form,
                                  writable=writable, **point)

    @classmethod
    def forms(cls, weights: np.ndarray, uniform: bool, **point: int) -> Iterator[dict[str, Any]]:
        for form in FORMS if uniform and _places(weights) else ANY:
            yield {"form": form}

    @property
    def name(self) -> str:
        return " ".join(["decode", self.widths, self.form, *["writable"] * self.writable])

    def shared(self, d: Datapath, a: Sequence[Term]) -> list[Term]:
        if self.form == "pairs":
            return [term for pair in d.pairs(a) for term in pair]
        return [self._level(d, "activations", code) for code in a] if self.act_width else list(a)

    def _level(self, d: Datapath, table: str, code: Term) -> Term:
        level = d.lookup(table, code.value, code.cycle)
        return d.register(level, "level") if self.form == "operator" else level

    def partial(self, d: Datapath, w: Sequence[Term], a: Sequence[Term], shared: Sequence[Term]
                ) -> list[Term]:
        if self.form == "pairs":
            return [d.sum(self._pair(d, w[2 * k:2 * k + 2], shared[3 * k:3 * k + 3])
                          for k in range(len(shared) // 3))]
        pairs = list(zip((self._level(d, "weights", code) for code in w), shared, strict=True))
        if self.form == "planes":
            return [d.sum(d.sum((Term(Mux(x.value[c], level.value, 0), min(level.lo, 0),
                                      max(level.hi, 0), level.cycle) for level, x in pairs),
                                f"plane{c}").times(2**c)
                          for c in range(shared[0].hi.bit_length()))]
        products = []
        for level, operand in pairs:
            x = d.until(operand, level.cycle)
            ends = np.multiply.outer((level.lo, level.hi), (x.lo, x.hi))
            products.append(d.register(Term(level.value * x.value, int(ends.min()),
                                            int(ends.max()), level.cycle), "product"))
        return [d.sum(products)]

    def _pair(self, d: Datapath, w: Sequence[Term], pair: Sequence[Term]) -> Term:
        """What two weights make of the activations of a pair."""
        def chosen(b: int, cycle: int) -> Term:
            return d.select(
                [d.until(Term(code.value[b] ^ (b == top), 0, 1, code.cycle), cycle) for code in w],
                [d.until(each, cycle) for each in pair], f"plane{b}")

        top, most = self.weight_bits - 1, pair[2].hi
        total = chosen(0, pair[2].cycle)
        if not top:
            return d.register(Term(-total.value, -most, 0, total.cycle), "plane0")
        for b in range(1, top + 1):
            term = chosen(b, total.cycle)
            upper = d.signal(Term(total.value >> b, 0, total.hi >> b, total.cycle), "upper")
            added = upper.value - term.value if b == top else absorbed(upper, term).value
            value = Cat(extended(total, b), added)
            total = d.register(
                Term(value.as_signed(), -(most << b), total.hi, total.cycle) if b == top else
                Term(value, 0, total.hi + (most << b), total.cycle), f"plane{b}")
        return total


def _twos(bits: int) -> np.ndarray:
    """The integers of two's complement."""
    return np.arange(2**bits) - 2**(bits - 1)


def _places(weights: np.ndarray) -> bool:
    """Whether levels are those of two's complement."""
    return bool((weights == _twos(len(weights).bit_length() - 1)).all())


DESIGNS.append(Decode)
