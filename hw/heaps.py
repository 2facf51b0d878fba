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
from .chains import HeapGraph, Sum
from .compress import compress
from .words import Heap, Words, signed_digits

__all__ = ["optimize"]

TRIALS = 4     # per output and unit of effort
OUTPUTS = 256  # that have so many each; more share as many, for 2 % more LUTs


def optimize(weights: np.ndarray, lo: np.ndarray, hi: np.ndarray, *, lut: int = 6,
             wraps: bool = False, seed: int = 0, effort: int = 1,
             progress: Callable[[float], None] = lambda done: None) -> HeapGraph:
    """Chains that compute ``weights · x``.

    Parameters
    ----------
    weights: integers [N, K], below 2^61.
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
    _check(weights, lo, hi, lut, effort)
    forms = [bits_for(*ends) for ends in zip(lo.tolist(), hi.tolist(), strict=True)]
    graph = HeapGraph([width for width, _ in forms], [signed for _, signed in forms], lut,
                      [0] * (1 + sum(width for width, _ in forms)))
    rng = random.Random(seed)
    trials = max(TRIALS * effort * OUTPUTS // max(len(weights), OUTPUTS), 1)

    common = _common(weights, np.array(graph.widths))
    halved = int(common.any())
    vectors = np.vstack([weights - common >> halved, *([common] * halved)])
    words = Words(graph, signed_digits(vectors.T))
    words.share()
    terms = words.terms()
    shared = Heap()
    if halved:
        shared = words.heap(terms[-1], 0)
        largest = int(np.maximum(common * lo, common * hi).sum()) - shared.offset
        bits = compress(graph, shared.columns, largest.bit_length(), rng, trials)
        shared.columns = [[bit] for bit in bits]
    for n, row in enumerate(weights):
        heap = words.heap(terms[n], halved)
        heap.add(shared)
        least, most = (int(end(row * lo, row * hi).sum()) for end in (np.minimum, np.maximum))
        top = (most - heap.offset).bit_length()
        if wraps:
            top = bits_for(least, most)[0]
            heap.settle(top)
        bits = compress(graph, heap.columns, top, rng, trials)
        graph.sums.append(Sum(tuple(bits), heap.offset, least, most))
        progress((n + 1) / len(weights))
    return graph


def _check(weights: np.ndarray, lo: np.ndarray, hi: np.ndarray, lut: int, effort: int) -> None:
    if weights.ndim != 2 or not weights.size or not lo.shape == hi.shape == weights.shape[1:]:
        raise N2uqError(f"weights and ranges must be [N, K], [K] and [K], not "
                        f"{list(weights.shape)}, {list(lo.shape)} and {list(hi.shape)}")
    if (lo > hi).any():
        raise N2uqError(f"ranges must not be empty, as that of input {int((lo > hi).argmax())}")
    if lut not in LUTS or effort < 1:
        raise N2uqError(f"LUTs must have {' or '.join(map(str, LUTS))} inputs and effort be at "
                        f"least 1, not {lut} and {effort}")


def _common(weights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """c [K] of ±1 so that the heaps of ``(weights - c)/2`` are the least; or 0, if that is less."""
    c = np.zeros(weights.shape[1], np.int64)
    if (weights % 2 == 0).any():
        return c
    digits = [np.abs(signed_digits((weights - sign) // 2)).sum(axis=(0, 2)) for sign in (1, -1)]
    sums = len(weights) * int(widths.max() + len(widths)).bit_length()
    whole = np.abs(signed_digits(weights)).sum(axis=(0, 2)) @ widths
    if np.minimum(*digits) @ widths + widths.sum() + sums < whole:
        c[:] = np.where(digits[0] <= digits[1], 1, -1)
    return c
