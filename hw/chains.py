"""Chains of carry logic, and graphs of them: what a constant matrix becomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["FALSE", "TRUE", "Chain", "Columns", "HeapGraph", "Sum", "evaluate"]

FALSE, TRUE = 0, 1  # literals: 2b is the bit of number b, 2b + 1 its complement; bit 0 is 0

Columns = list[list[int]]  # literals by the power of two that they count for


@dataclass(frozen=True)
class Chain:
    """``z = carry + Σ 2^i·(x[i] + y[i])``, of which the low `width` bits are kept.

    Members
    -------
    x, carry: literals.
    y: of each position the literals that its function takes, none of a complement, and the
        function: bit ``Σ 2^k·v[k]`` of a number, v the values of the literals.
    first: the number of z's lowest bit; the others follow.
    level: 1 above the highest level of what it adds; inputs have level 0.
    """

    x: tuple[int, ...]
    y: tuple[tuple[tuple[int, ...], int], ...]
    carry: int
    first: int
    width: int
    level: int

    @property
    def reads(self) -> Iterator[int]:
        """The literals that it takes."""
        yield from (self.carry, *self.x, *(b for literals, _ in self.y for b in literals))

    @property
    def complements(self) -> tuple[int, int]:
        """Complements that it takes if y is added, and if y's complement is subtracted."""
        turned = sum(len(literals) == 1 and table == 1 for literals, table in self.y)
        x = sum(literal & 1 for literal in self.x if literal > TRUE)
        carry = self.carry > TRUE
        plain = sum(bool(literals) for literals, _ in self.y) - turned
        return x + turned + (carry and self.carry & 1), x + plain + carry

    def luts(self, lut: int) -> int:
        """LUTs of so many inputs; on LUT4 each position is one, and the one below the chain."""
        if lut == 4:
            return len(self.x) + 1 + min(self.complements)
        return sum(bool(literals) for literals, _ in self.y)


@dataclass(frozen=True)
class Sum:
    """An output in `lo`..`hi`: ``offset + Σ 2^i·bits[i]`` (literals), modulo ``2^len(bits)``."""

    bits: tuple[int, ...]
    offset: int
    lo: int
    hi: int


@dataclass
class HeapGraph:
    """Chains, each after those whose bits it adds, and the outputs.

    Members
    -------
    widths: bits of each input, two's complement if `signed`; they are numbered from 1, input by
        input, lowest first.
    lut: inputs of a LUT, one of `LUTS`.
    levels: of every bit.
    """

    widths: list[int]
    signed: list[bool]
    lut: int
    levels: list[int]
    chains: list[Chain] = field(default_factory=list)
    sums: list[Sum] = field(default_factory=list)

    @property
    def firsts(self) -> list[int]:
        """The number of each input's lowest bit."""
        return [1 + sum(self.widths[:i]) for i in range(len(self.widths))]

    @property
    def depth(self) -> int:
        """The most chains behind each other."""
        return max(self.levels)

    @property
    def luts(self) -> int:
        """LUTs of all chains."""
        return sum(chain.luts(self.lut) for chain in self.chains)


def evaluate(graph: HeapGraph, x: np.ndarray) -> np.ndarray:
    """The outputs int64 [n, N] for inputs [n, K], from the graph's bits alone."""
    bits = np.zeros((len(graph.levels), len(x)), np.int64)
    for i, (first, width) in enumerate(zip(graph.firsts, graph.widths, strict=True)):
        bits[first:first + width] = x[:, i] >> np.arange(width)[:, None] & 1

    def number(literals: Sequence[int]) -> np.ndarray:
        total = np.zeros(len(x), np.int64)
        for i, literal in enumerate(literals):
            total += (bits[literal >> 1] ^ literal & 1) << i
        return total

    for chain in graph.chains:
        z = number([chain.carry]) + number(chain.x)
        for i, (literals, table) in enumerate(chain.y):
            z += (table >> number(literals) & 1) << i
        bits[chain.first:chain.first + chain.width] = z >> np.arange(chain.width)[:, None] & 1
    return np.stack([s.lo + (number(s.bits) + s.offset - s.lo) % (1 << len(s.bits))
                     for s in graph.sums], axis=1)
