"""Bucket accumulation, as PASM and UCNN have it: activations added by weight, multiplied once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from amaranth.hdl import Cat

from ...errors import N2uqError
from .codebook import CodebookDesign
from .design import DESIGNS, Datapath, Design, Term
from .weighted import Weighted, selected_sum, shared_sums

__all__ = ["Buckets"]


class Buckets(Weighted, CodebookDesign):
    """Any levels of weights; activations, uniform, are added up in buckets by codes of weights.

    There are as many buckets as levels, but not one per code: one for each set of bits, of all
    codes in which these are set, so that a bit, or a few in an AND, selects it and no code is
    decoded.  The bucket of no bits is ``Σa``, which is shared, as are sums of pairs of activations.
    The coefficients are differences of levels: ``level_01 - level_00`` for bit 0, and so on.

    Latency, beside that of `Weighted`: 1 cycle for the codes, 1 for pairs, ``⌈log2(⌈lanes/2⌉)⌉``.
    """

    method = "buckets"

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        if self.act_width:
            raise N2uqError(f"{self.method}: width of activations must be 0, not {self.act_width}")
        coefficients, terms = self.weights.copy(), np.zeros(2**self.weight_bits, np.int64)
        codes = np.arange(len(coefficients))
        for bit in range(self.weight_bits):
            upper = codes >> bit & 1 == 1
            coefficients[upper] -= coefficients[codes[upper] ^ 1 << bit]
            terms += upper
        # A coefficient is made of 2^bits levels, half of them negated.
        half = 2**(self.weight_width - 1)
        spread = (2 * half - 1) << np.maximum(terms - 1, 0)
        least, greatest = -spread, spread
        least[0], greatest[0] = -half, half - 1
        self.fill(coefficients, [0] * len(codes), least=least, greatest=greatest)

    @classmethod
    def variants(cls, **point: Any) -> Iterator[Design]:
        """Levels of 8 bits."""
        for writable in (False, True):
            yield cls(writable=writable, **point)

    @classmethod
    def forms(cls, weights: np.ndarray, uniform: bool, **point: int) -> Iterator[dict[str, Any]]:
        if uniform:
            yield {}

    @property
    def name(self) -> str:
        return f"buckets {self.widths}" + " writable" * self.writable

    @property
    def addends(self) -> np.ndarray:
        codes = np.arange(2**self.weight_bits)
        return np.multiply.outer((codes & codes[:, None]) == codes[:, None], self.activations)

    def bounds(self, sums: Sequence[Term]) -> tuple[int, int]:
        half = 2**(self.weight_width - 1)
        lo, hi = (-half, half - 1) if self.writable else (self.weights.min(), self.weights.max())
        return min(int(lo), 0) * sums[0].hi, max(int(hi), 0) * sums[0].hi

    def shared(self, d: Datapath, a: Sequence[Term]) -> list[Any]:
        return list(shared_sums(d, a))

    def partial(self, d: Datapath, w: Sequence[Term], a: Sequence[Term], shared: Sequence[Any]
                ) -> list[Term]:
        pairs, total = shared
        sums = [total]
        for bits in range(1, 2**self.weight_bits):
            chosen = [b for b in range(self.weight_bits) if bits >> b & 1]
            sums.append(selected_sum(d, [Term(
                Cat(code.value[b] for b in chosen).all(), 0, 1, code.cycle) for code in w], pairs))
        return sums


DESIGNS.append(Buckets)
