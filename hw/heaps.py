"""Constant matrices as logic: heaps of bits that carry chains add up.

A product with a constant vector is a sum of bits: every bit of every input, shifted and negated as
the signed digits of its weight say.  ``-b = ~b - 1`` makes all of them positive and leaves one
constant.  Chains then add up the bits of such a heap (Dadda's scheme, with carry chains in the
place of full adders).  Position i of a chain adds a bit ``x[i]`` and ``y[i]``, a function of a few
bits that the LUT in front of the carry holds at no cost: with LUT6, five bits of weights 1, 1, 1,
2, 2 are functions for three positions, so that three LUTs take nine bits, carry included, and
leave four.  A LUT4 in front of a carry of ECP5 holds one bit.

Odd weights are ``w = 2k + c`` with one c, 1 or -1, per input: the k have half the digits of the w,
and ``Σ c·a`` is added up once for all outputs.  So are sums and differences of two inputs that many
outputs have.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from ..errors import N2uqError
from ..ir import bits_for
from ..ir.folding import LUTS
from .chains import FALSE, TRUE, Chain, Columns, HeapGraph, Sum
from .compress import compress

__all__ = ["optimize", "signed_digits"]

TRIALS = 4     # per output and unit of effort
OUTPUTS = 256  # that have so many each; more share as many, for 2 % more LUTs
# LUTs that a bit of a heap costs in the mean: what a word that heaps share spares.
PRICES = {4: 1.3, 6: 0.62}


def signed_digits(value: int) -> list[tuple[int, int]]:
    """(shift, 1 or -1) of the fewest signed powers of two whose sum is `value`."""
    digits, shift = [], 0
    while value:
        if value & 1:
            digit = 2 - (value & 3)
            digits.append((shift, digit))
            value -= digit
        value >>= 1
        shift += 1
    return digits


_digits = np.vectorize(lambda value: len(signed_digits(int(value))), otypes=[np.int64])


def _common(weights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """c [K] of ±1 so that the heaps of ``(weights - c)/2`` are the least; or 0, if that is less."""
    c = np.zeros(weights.shape[1], np.int64)
    if (weights % 2 == 0).any():
        return c
    digits = [_digits((weights - sign) // 2).sum(axis=0) for sign in (1, -1)]
    sums = len(weights) * int(widths.max() + len(widths)).bit_length()
    if np.minimum(*digits) @ widths + widths.sum() + sums < _digits(weights).sum(axis=0) @ widths:
        c[:] = np.where(digits[0] <= digits[1], 1, -1)
    return c


class _Words:
    """What heaps are made of: the inputs, and sums and differences that several heaps have.

    Members
    -------
    literals, offsets: a word is worth ``offset + Σ 2^i·literals[i]``.
    widths, most: bits of a word and the largest of these sums, int64 [T].
    terms: which words a column adds (1) or subtracts (-1), [T, columns].
    """

    def __init__(self, graph: HeapGraph, terms: np.ndarray) -> None:
        self.graph, self.terms = graph, terms
        self._rows = terms  # with room for more words
        self.literals = [[2 * (first + k) for k in range(width)] for first, width in
                         zip(graph.firsts, graph.widths, strict=True)]
        self.offsets = [0] * len(self.literals)
        for i, literals in enumerate(self.literals):
            if graph.signed[i]:  # the top bit counts for -2^(w - 1): its complement, less that
                literals[-1] ^= 1
                self.offsets[i] = -2**(len(literals) - 1)
        self.widths = np.array(graph.widths)
        self.most = 2**self.widths - 1

    def gains(self, a: int) -> np.ndarray:
        """LUTs that a chain for the sum, or the difference, of words a and b spares, [2, T]."""
        lut, wide = self.graph.lut, self.widths >= self.widths[a]
        columns = np.flatnonzero(self.terms[a])
        terms = self.terms[:, columns]
        both, product = np.abs(terms).sum(axis=1), terms @ self.terms[a, columns]
        full = 2**self.widths - 1  # what a complement adds
        sums = np.stack([self.most + self.most[a], np.where(
            wide, self.most + full[a], self.most[a] + full)])
        spared = self.widths + self.widths[a] - np.frexp(sums)[1]
        gains = (both + np.array([[1], [-1]]) * product) / 2 * spared * PRICES[lut] - (
            np.minimum(self.widths, self.widths[a]) + (lut == 4))
        gains[:, a] = -1
        return gains

    def add(self, a: int, b: int, sign: int) -> None:
        """The word ``a ± b``, b no wider than a, where columns have both."""
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
        self.widths, self.most = np.append(self.widths, chain.width), np.append(self.most, most)
        shared = self.terms[a] * self.terms[b] == sign
        row = np.where(shared, self.terms[a], 0)
        self.terms[[a, b]] *= ~shared
        n = len(self.terms)
        if n == len(self._rows):
            self._rows = np.vstack([self.terms, np.zeros_like(self.terms)])
        self._rows[n] = row
        self.terms = self._rows[:n + 1]

    def share(self) -> None:
        """Add words that spare LUTs, always the one that spares the most."""
        if any(self.graph.signed):  # x would be a complement
            return
        bound = np.array([self.gains(a).max() for a in range(len(self.terms))])
        while bound.max() > 0:
            a = int(bound.argmax())
            gains = self.gains(a)
            if gains.max() < bound[a]:  # what it had in common has gone since
                bound[a] = gains.max()
                continue
            k, b = (int(i) for i in np.unravel_index(gains.argmax(), gains.shape))
            a, b = sorted((a, b), key=lambda word: -self.widths[word])
            self.add(a, b, 1 - 2 * k)
            new = self.gains(len(self.terms) - 1).max(axis=0)
            bound = np.append(np.maximum(bound, new[:-1]), new.max())


def optimize(weights: np.ndarray, lo: np.ndarray, hi: np.ndarray, *, lut: int = 6,
             wraps: bool = False, seed: int = 0, effort: int = 1,
             progress: Callable[[float], None] = lambda done: None) -> HeapGraph:
    """Chains that compute ``weights · x``.

    Parameters
    ----------
    weights: integers [N, K].
    lo, hi: integers [K], the ranges of x.
    lut: inputs of a LUT, one of `LUTS`.
    wraps: whether outputs must come with an offset of 0, in two's complement; else their bits are
        an unsigned number and the offset is left to the thresholds.
    seed, effort: of the search, `TRIALS` times `effort` chains of choices for each of `OUTPUTS`,
        fewer for each of more; the time it takes grows with it.
    progress: is told the share of the outputs that are done.

    Raises N2uqError for shapes that do not fit and empty ranges.
    """
    weights, lo, hi = (np.asarray(a).astype(np.int64) for a in (weights, lo, hi))
    if weights.ndim != 2 or not weights.size or not lo.shape == hi.shape == weights.shape[1:]:
        raise N2uqError(f"weights and ranges must be [N, K], [K] and [K], not "
                        f"{list(weights.shape)}, {list(lo.shape)} and {list(hi.shape)}")
    if (lo > hi).any():
        raise N2uqError(f"ranges must not be empty, as that of input {int((lo > hi).argmax())}")
    if lut not in LUTS or effort < 1:
        raise N2uqError(f"LUTs must have {' or '.join(map(str, LUTS))} inputs and effort be at "
                        f"least 1, not {lut} and {effort}")
    forms = [bits_for(*ends) for ends in zip(lo.tolist(), hi.tolist(), strict=True)]
    graph = HeapGraph([width for width, _ in forms], [signed for _, signed in forms], lut,
                      [0] * (1 + sum(width for width, _ in forms)))
    rng = random.Random(seed)
    trials = max(TRIALS * effort * OUTPUTS // max(len(weights), OUTPUTS), 1)

    def place(columns: Columns, literal: int, column: int, sign: int) -> int:
        columns.extend([] for _ in range(column + 1 - len(columns)))
        columns[column].append(literal if sign > 0 else literal ^ 1)
        return min(sign, 0) << column

    common = _common(weights, np.array(graph.widths))
    halved = bool(common.any())
    vectors = [*((row - common) >> halved for row in weights), *([common] * halved)]
    digits = [[signed_digits(weight) for weight in vector.tolist()] for vector in vectors]
    shifts = 1 + max((shift for vector in digits for weight in vector for shift, _ in weight),
                     default=0)
    terms = np.zeros((len(lo), len(vectors), shifts), np.float32)
    for n, vector in enumerate(digits):
        for i, weight in enumerate(vector):
            for shift, sign in weight:
                terms[i, n, shift] = sign
    words = _Words(graph, terms.reshape(len(lo), -1))
    words.share()

    def heap(n: int, shift: int) -> tuple[Columns, int]:
        """Columns and the constant beside them whose sum is ``2^shift·Σ vectors[n]·x``."""
        columns, offset = Columns(), 0
        digits = words.terms.reshape(len(words.terms), len(vectors), -1)[:, n]
        for word, digit in zip(*(at.tolist() for at in digits.nonzero()), strict=True):
            sign = int(digits[word, digit])
            offset += sign * words.offsets[word] << digit + shift
            for k, literal in enumerate(words.literals[word]):
                offset += place(columns, literal, k + digit + shift, sign)
        return columns, offset

    shared, shared_offset = list[int](), 0
    if halved:
        columns, shared_offset = heap(len(weights), 0)
        most = int(np.maximum(common * lo, common * hi).sum()) - shared_offset
        shared = compress(graph, columns, most.bit_length(), rng, trials)
    for n, row in enumerate(weights):
        columns, offset = heap(n, int(halved))
        for k, literal in enumerate(shared):
            place(columns, literal, k, 1)
        offset += shared_offset
        least, most = (int(end(row * lo, row * hi).sum()) for end in (np.minimum, np.maximum))
        top = (most - offset).bit_length()
        if wraps:
            top = bits_for(least, most)[0]
            for k in range(top):
                if offset >> k & 1:
                    place(columns, TRUE, k, 1)
            offset = 0
        graph.sums.append(Sum(tuple(compress(graph, columns, top, rng, trials)), offset,
                              least, most))
        progress((n + 1) / len(weights))
    return graph
