"""Dot products of which every product, or a part of one, is an entry of a table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from amaranth.hdl import Cat

from ...errors import N2uqError
from .design import Datapath, Design, Term

__all__ = ["Piece", "Tables", "pieces"]


class Piece(NamedTuple):
    """Some bits of a code, from bit `low` on."""

    low: int
    bits: int


def pieces(bits: int, size: int) -> list[Piece]:
    """A code in pieces of `size` bits, or what is left of it."""
    return [Piece(low, min(size, bits - low)) for low in range(0, bits, size)]


class Tables(Design):
    """Products as sums of entries of tables: one for a piece of a weight and one of an activation.

    Latency: 1 cycle for the codes, ``⌈log2(lanes)⌉ + ⌈log2(tables)⌉``, and 1 if signed; if chained
    the cycles of `Datapath.cases` instead of ``⌈log2(lanes)⌉``, and none for a sign.

    Members
    -------
    signed: whether the top bit of a code of weights is a sign; then the tables hold magnitudes,
        half as many, and `Datapath.signed_sum` adds them up.
    chained: whether `Datapath.cases` does so; tables are constant then.
    """

    signed: bool = False
    chained: bool = False

    def product(self, w: np.ndarray, a: np.ndarray) -> np.ndarray:
        """The product of codes of weights and activations."""
        return self.weights[w] * self.activations[a]

    def fill(self, w_pieces: Sequence[Piece], a_pieces: Sequence[Piece]) -> None:
        """Make the tables, each entry less the power of two that all of its table share.

        A product must be the sum of those of all pieces, each with no other bit of the codes set.
        """
        if self.chained and self.writable:
            raise N2uqError(f"{self.method}: chained tables must be constant, not writable")
        self.places = list(product(w_pieces, a_pieces))
        self.shifts = []
        for k, (w, a) in enumerate(self.places):
            values = self.product(np.arange(2**w.bits) << w.low,
                                  np.arange(2**a.bits)[:, None] << a.low).ravel()
            any_bit = int(np.bitwise_or.reduce(values))
            self.shifts.append(max((any_bit & -any_bit).bit_length() - 1, 0))
            self.tables[f"products{k}"] = values >> self.shifts[-1]

    def shared(self, d: Datapath, a: Sequence[Term]) -> list[Term]:
        """What takes the place of the codes of activations in the indices of the tables."""
        return list(a)

    def partial(self, d: Datapath, w: Sequence[Term], a: Sequence[Term], shared: Sequence[Term]
                ) -> list[Term]:
        sign, sums = None, []
        for name, (w_piece, a_piece), shift in zip(self.tables, self.places, self.shifts,
                                                   strict=True):
            indices = [Cat(code.value[low:low + bits] for code, (low, bits) in (
                (code, w_piece), (x, a_piece))) for code, x in zip(w, shared, strict=True)]
            signs = [Term(code.value[-1], 0, 1, code.cycle) for code in w] if self.signed else []
            if self.chained:
                table = self.tables[name].tolist()
                total = d.cases(table, [Term(index, 0, len(table) - 1, w[0].cycle)
                                        for index in indices], signs)
            else:
                entries = [d.lookup(name, index, w[0].cycle) for index in indices]
                if signs:
                    sign, total = d.signed_sum(signs, entries)
                else:
                    total = d.sum(entries)
            sums.append(total.times(2**shift))
        total = d.sum(sums)
        return [d.signed(d.until(sign, total.cycle), total) if sign else total]
