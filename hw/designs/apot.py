"""Additive powers of two (APoT), and powers of two (PoT)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...errors import N2uqError
from .design import DESIGNS, Datapath, Design, Term
from .tables import Piece, Tables, pieces

__all__ = ["FORMS", "TERMS", "Apot"]

# Exponents of each term, by the bits of a magnitude, as in Li et al. (ICLR 2020) with k = 2: a term
# has 2 bits, so one of three powers or 0, and the terms take turns at the powers; in an odd number
# of bits one term has a single bit.
TERMS = {1: ((0,),), 2: ((0, 1, 2),), 3: ((1,), (0, 2, 3)), 4: ((0, 2, 4), (1, 3, 5)),
         5: ((2,), (0, 3, 5), (1, 4, 6)), 6: ((0, 3, 6), (1, 4, 7), (2, 5, 8))}
FORMS = ("case", "shift", "chained")
LUT = 6  # inputs of a table in form "case"


def magnitudes(terms: Sequence[Sequence[int]]) -> tuple[np.ndarray, list[Piece]]:
    """The sum of a power of two, or 0, from each term, by code; the bits of each term in a code."""
    levels, places, low = np.zeros(1, np.int64), [], 0
    for exponents in terms:
        powers = np.array([0, *(2**exponent for exponent in exponents)])
        levels = np.add.outer(powers, levels).ravel()
        places.append(Piece(low, len(exponents).bit_length()))
        low += places[-1].bits
    return levels, places


class Apot(Tables):
    """Weights that are a sign and a sum of powers of two; uniform activations, or such sums too.

    The code of a weight has the sign in its top bit, below that the place of the power in each
    term, 0 or one of them, ascending.  Two codes are 0.  Codes of activations ascend.

    - "shift": for each term of a weight, activations shifted by it or 0, summed up by their signs.
    - "chained": the same, in chains of adders that hold what they can of shifts and signs.
    - "case": a table of the whole weight and as much of an activation as fills a LUT of 6 inputs;
      an activation is taken apart into its terms first, which outputs may share.

    Parameters
    ----------
    both: APoT activations.
    one: PoT: weights have a single term, whose powers are 2^0, 2^1, ...
    """

    method = "APoT"

    def __init__(self, *, form: str = FORMS[0], both: bool = False, one: bool = False,
                 **point: Any) -> None:
        super().__init__(**point)
        if form not in FORMS:
            raise N2uqError(f"{self.method}: form must be one of {', '.join(FORMS)}, not {form}")
        most = 6 if one else len(TERMS) + 1  # a power of PoT fits int64
        if not 2 <= self.weight_bits <= most:
            raise N2uqError(f"{self.method}: weight bits must be 2..{most}, not {self.weight_bits}")
        if both and self.act_bits > len(TERMS):
            raise N2uqError(f"{self.method}: bits of activations in terms must be "
                            f"1..{len(TERMS)}, not {self.act_bits}")
        self.form, self.both, self.one = form, both, one
        self.signed, self.chained = form != "case", form == "chained"
        self.trained = "" if one else "APoT" if both else "APoT × uniform"
        size = self.weight_bits - 1
        half, w_pieces = magnitudes((range(2**size - 1),) if one else TERMS[size])
        self._weights = np.concatenate([half, -half])
        by_code, terms = magnitudes(TERMS[self.act_bits]) if both else (super().activations, [])
        self._activations = np.sort(by_code)
        self.by_terms = both and form == "case" and self.weight_bits + self.act_bits > LUT
        self._indexed = by_code if self.by_terms else self._activations
        if form == "case":
            w_pieces = [Piece(0, self.weight_bits)]
        fits = self.act_bits if self.signed else max(LUT - self.weight_bits, 1)
        self.fill(w_pieces, terms if self.by_terms else pieces(
            self.act_bits, self.act_bits if both else fits))

    @classmethod
    def variants(cls, **point: Any) -> Iterator[Design]:
        """All forms, for uniform and APoT activations; PoT where it differs from APoT."""
        if 2 <= point["weight_bits"] <= 1 + len(TERMS):
            for form in FORMS:
                for both in (False, True):
                    if not both or point["act_bits"] <= len(TERMS):
                        yield cls(form=form, both=both, **point)
            if 4 <= point["weight_bits"] <= 6:
                yield cls(form="shift", one=True, **point)

    @property
    def name(self) -> str:
        return " ".join(["pot" if self.one else "apot", *["both"] * self.both, self.form,
                         *["writable"] * self.writable])

    @property
    def weights(self) -> np.ndarray:
        return self._weights

    @property
    def activations(self) -> np.ndarray:
        return self._activations

    def product(self, w: np.ndarray, a: np.ndarray) -> np.ndarray:
        return self.weights[w] * self._indexed[a]

    def shared(self, d: Datapath, a: Sequence[Term]) -> list[Term]:
        if not self.by_terms:
            return list(a)
        order = np.argsort(self._indexed).tolist()
        return [d.case(order, code.value, code.cycle, "terms") for code in a]


DESIGNS.append(Apot)
