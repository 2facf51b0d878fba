"""Words that the heaps of a constant matrix are made of: inputs, and what several heaps share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .chains import FALSE, TRUE, Chain, Columns, HeapGraph

__all__ = ["Heap", "Words", "signed_digits"]

# LUTs that a bit of a heap costs in the mean: what a word that heaps share spares.
PRICES = {4: 1.3, 6: 0.62}


def signed_digits(values: np.ndarray) -> np.ndarray:
    """The fewest signed powers of two whose sum is each of `values`, below 2^61: the digits 1, 0
    and -1 of ``Σ 2^k·digits[..., k]``, int8 [..., n] (the non-adjacent form, unique)."""
    values = np.asarray(values, np.int64)
    half = np.abs(values)
    total = half + (half << 1)  # where 3v has a bit that v has not, the digit is 1
    at = np.arange(max(int(total.max(initial=0)).bit_length() - 1, 1)) + 1
    plus, minus = ((side[..., None] >> at & 1).astype(np.int8)
                   for side in (total & ~half, half & ~total))
    return np.sign(values)[..., None].astype(np.int8) * (plus - minus)


@dataclass
class Heap:
    """Bits to add up, by the power of two that they count for, and the constant beside them."""

    columns: Columns = field(default_factory=list)
    offset: int = 0

    def put(self, literal: int, column: int, sign: int = 1) -> None:
        """Add a bit, or subtract it: ``-b = ~b - 1``."""
        self.columns.extend([] for _ in range(column + 1 - len(self.columns)))
        self.columns[column].append(literal if sign > 0 else literal ^ 1)
        self.offset += min(sign, 0) << column

    def add(self, other: Heap) -> None:
        """Add what another one adds up."""
        for column, literals in enumerate(other.columns):
            for literal in literals:
                self.put(literal, column)
        self.offset += other.offset

    def settle(self, width: int) -> None:
        """Make bits of the constant, modulo ``2^width``."""
        for column in range(width):
            if self.offset >> column & 1:
                self.put(TRUE, column)
        self.offset = 0


class Words:
    """The words of a graph's heaps, and which of them each heap adds or subtracts.

    Parameters
    ----------
    graph: gets the chains that make new words.
    terms: of each input the digits that it has in each heap, -1, 0 or 1, [K, heaps, shifts].

    Members
    -------
    literals, offsets: a word is worth ``offset + Σ 2^i·literals[i]``.
    widths, most: bits of a word and the largest of these sums, int64 [T].
    """

    def __init__(self, graph: HeapGraph, terms: np.ndarray) -> None:
        self.graph, self._shape = graph, terms.shape[1:]
        self.literals = [[2 * (first + k) for k in range(width)] for first, width in
                         zip(graph.firsts, graph.widths, strict=True)]
        self.offsets = [0] * len(self.literals)
        for i, literals in enumerate(self.literals):
            if graph.signed[i]:  # the top bit counts for -2^(w - 1): its complement, less that
                literals[-1] ^= 1
                self.offsets[i] = -2**(len(literals) - 1)
        self.widths = np.array(graph.widths)
        self.most = 2**self.widths - 1
        self._terms = np.ascontiguousarray(terms.reshape(len(terms), -1).T)  # [columns, T or more]

    def gains(self, a: int) -> np.ndarray:
        """LUTs that a chain for the sum, or the difference, of words a and b spares, [2, T]."""
        lut, wide = self.graph.lut, self.widths >= self.widths[a]
        columns = self._terms[:, a].nonzero()[0]
        terms = self._terms[columns, :len(self.widths)].astype(np.float32)
        product, both = terms[:, a] @ terms, np.ones(len(terms), np.float32) @ np.abs(terms)
        full = 2**self.widths - 1  # what a complement adds
        sums = np.stack([self.most + self.most[a], np.where(
            wide, self.most + full[a], self.most[a] + full)])
        spared = self.widths + self.widths[a] - np.frexp(sums)[1]
        gains = np.stack([both + product, both - product]) / 2 * spared * PRICES[lut] - (
            np.minimum(self.widths, self.widths[a]) + (lut == 4))
        gains[:, a] = -1
        return gains

    def add(self, a: int, b: int, sign: int) -> None:
        """The word ``a ± b``, b no wider than a, where heaps have both."""
        graph, wide = self.graph, self.literals[a]
        narrow = [literal ^ (sign < 0) for literal in self.literals[b]]
        most = int(self.most[a] + (self.most[b] if sign > 0 else 2**len(narrow) - 1))
        chain = Chain(
            tuple(wide), (*(((literal & ~1,), 1 + (~literal & 1)) for literal in narrow),
                          *(((), 0),) * (len(wide) - len(narrow))), FALSE, len(graph.levels),
            most.bit_length(), 1 + max(graph.levels[literal >> 1] for literal in (*wide, *narrow)))
        graph.levels += [chain.level] * chain.width
        graph.chains.append(chain)
        self.literals.append([2 * (chain.first + i) for i in range(chain.width)])
        self.offsets.append(self.offsets[a] + sign * self.offsets[b]
                            - (sign < 0) * (2**len(narrow) - 1))
        n = len(self.widths)
        self.widths, self.most = np.append(self.widths, chain.width), np.append(self.most, most)
        if n == self._terms.shape[1]:  # room for as many again
            self._terms = np.pad(self._terms, ((0, 0), (0, n)))
        both = self._terms[:, a] * self._terms[:, b] == sign
        self._terms[:, n] = self._terms[:, a] * both
        self._terms[:, [a, b]] *= ~both[:, None]

    def share(self) -> None:
        """Add words that spare LUTs, always the one that spares the most."""
        if any(self.graph.signed):  # x would be a complement
            return
        bound = np.array([self.gains(a).max() for a in range(len(self.widths))])
        while bound.max() > 0:
            a = int(bound.argmax())
            gains = self.gains(a)
            if gains.max() < bound[a]:  # what it had in common has gone since
                bound[a] = gains.max()
                continue
            k, b = (int(i) for i in np.unravel_index(gains.argmax(), gains.shape))
            a, b = sorted((a, b), key=lambda word: -self.widths[word])
            self.add(a, b, 1 - 2 * k)
            new = self.gains(len(self.widths) - 1).max(axis=0)
            bound = np.append(np.maximum(bound, new[:-1]), new.max())

    def terms(self) -> np.ndarray:
        """The digits that each heap has of each word, int8 [heaps, T, shifts]."""
        terms = self._terms[:, :len(self.widths)].reshape(*self._shape, -1)
        return terms.transpose(0, 2, 1)

    def heap(self, digits: np.ndarray, shift: int) -> Heap:
        """The heap of such `digits` [T, shifts], times ``2^shift``."""
        heap, at = Heap(), digits.nonzero()
        for word, digit, sign in zip(*(a.tolist() for a in (*at, digits[at])), strict=True):
            heap.offset += sign * self.offsets[word] << digit + shift
            for k, literal in enumerate(self.literals[word]):
                heap.put(literal, k + digit + shift, sign)
        return heap
