"""Dot products as few sums, each times a coefficient once per vector."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from amaranth.hdl import Cat, Const
from amaranth.hdl import Value as HdlValue
from numpy.typing import ArrayLike

from ..stream import shape_for
from .design import Datapath, Design, Term, absorbed

__all__ = ["Weighted", "selected_sum", "shared_sums"]

INDEX = 5  # bits of sums that index a table: beside a bit of what it is added to, a LUT's inputs


class Entry(NamedTuple):
    """What is added: an entry of a table, times a power of two; a sign's is subtracted."""

    position: int
    sign: bool
    table: str
    index: HdlValue


class Weighted(Design):
    """``Σ_s c_s·2^lift_s·sum_s``: coefficients are multiplied by distributed arithmetic.

    Instead of a multiplier per coefficient there are tables: of ``Σ_s c_s·digit_s`` over the digits
    of a few sums, those that at one position add up to a product's bits.  Entries of one position
    after the other are added.  That takes as many adders as the bits of all sums are times INDEX,
    whatever the bits of a coefficient.  Where tables are written, it is they that are loaded.

    Latency of `finish`: the entries, less 1.
    """

    def fill(self, coefficients: ArrayLike, lifts: Sequence[int], *, least: ArrayLike,
             greatest: ArrayLike) -> None:
        """Make the tables.

        Parameters
        ----------
        coefficients: int64 [sums]; least, greatest: their ends, where tables are written.
        lifts: the power of two that is a factor of each.
        """
        self._lifts, self._ends = lifts, dict[str, tuple[int, int]]()
        self._groups = min((_in_groups(len(lifts), size) for size in range(1, INDEX + 1)),
                           key=lambda groups: len(list(self._entries(groups, self.sums))))
        values = np.stack([np.broadcast_to(np.asarray(each, np.int64), len(lifts))
                           for each in (coefficients, least, greatest)])
        for k, group in enumerate(self._groups):
            bits = INDEX // len(group)
            digits = np.arange(2**(bits * len(group)))[:, None] >> bits * np.arange(
                len(group)) & 2**bits - 1
            mine, low, high = values[:, group]
            self.tables[f"sums{k}"] = digits @ mine
            self._ends[f"sums{k}"] = ((2**bits - 1) * int(np.minimum(low, 0).sum()),
                                      (2**bits - 1) * int(np.maximum(high, 0).sum()))

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        return self._ends if self.writable else super().ranges

    @abstractmethod
    def bounds(self, sums: Sequence[Term]) -> tuple[int, int]:
        """The least and the greatest dot product of such sums."""

    def _entries(self, groups: Sequence[Sequence[int]], sums: Sequence[Term]) -> Iterator[Entry]:
        """What adds up to the dot product."""
        for k, group in enumerate(groups):
            bits, least = INDEX // len(group), min(self._lifts[s] for s in group)
            indices: dict[tuple[int, bool], dict[int, HdlValue]] = {}
            for place, s in enumerate(group):
                shape = shape_for(sums[s].lo, sums[s].hi)
                for bit in range(shape.width):
                    at = self._lifts[s] - least + bit
                    sign = shape.signed and bit == shape.width - 1
                    first = at if sign else at // bits * bits
                    indices.setdefault((least + first, sign), {})[
                        place * bits + at - first] = sums[s].value[bit]
            for (position, sign), index in indices.items():
                yield Entry(position, sign, f"sums{k}", Cat(
                    index.get(at, Const(0, 1)) for at in range(bits * len(group))))

    def finish(self, d: Datapath, sums: Sequence[Term]) -> Term:
        sums = [d.signal(term, "total") for term in sums]
        lo, hi = self.bounds(sums)
        half = 2**(shape_for(min(lo, -1), hi).width - 1)
        total = zero = Term(Const(0), 0, 0, sums[0].cycle)
        entries = sorted(self._entries(self._groups, sums), key=lambda entry: entry[:2])
        for k, (position, sign, table, index) in enumerate(entries):
            held = d.until(Term(index, 0, 2**len(index) - 1, zero.cycle), total.cycle)
            entry = d.lookup(table, held.value, total.cycle)
            moved = Term(entry.value << position, entry.lo << position, entry.hi << position,
                         total.cycle)
            if sign:
                added = Term(total.value - moved.value, total.lo - moved.hi, total.hi - moved.lo,
                             total.cycle)
            else:
                added = moved if total is zero else absorbed(total, moved)
            if added.lo < -half or added.hi >= half:  # what is beyond cancels out
                added = Term(added.value, -half, half - 1, added.cycle)
            total = d.register(added, "dot") if k or len(entries) == 1 else added
        return Term(total.value, lo, hi, total.cycle)


def _in_groups(count: int, size: int) -> list[range]:
    """0..count - 1 in groups of `size`, the last with what is left."""
    return [range(k, min(k + size, count)) for k in range(0, count, size)]


def shared_sums(d: Datapath, a: Sequence[Term]) -> tuple[list[tuple[Term, Term, Term]], Term]:
    """What `selected_sum` takes of activations, and their sum: both as many outputs may share."""
    pairs = d.pairs(a)
    return pairs, d.sum((both for _, _, both in pairs), "total")


def selected_sum(d: Datapath, selects: Sequence[Term],
                 pairs: Sequence[tuple[Term, Term, Term]]) -> Term:
    """``Σ (select ? a : 0)``, of selects as old as the activations that `pairs` are of."""
    return d.selected([d.register(select, "select") for select in selects], pairs)
