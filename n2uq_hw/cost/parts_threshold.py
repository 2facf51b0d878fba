"""What a Threshold is made of: see `parts`."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .. import ir
from ..hw.mac import LUT
from ..hw.threshold import comparator_table
from ..ir.folding import PARALLEL, ThresholdFold
from .counts import LUT4, Parts, _bank, _bits, _count
from .fitted import numbers
from .memories import Memory, rom, table

__all__ = ["threshold_parts"]


class _Steps(NamedTuple):
    """Of a Threshold.

    Members
    -------
    size: comparators per channel.
    width, searched: bits of a threshold, of one in a search.
    alike, mixed: whether all channels are alike, whether some comparators turn round.
    fixed, first: LUTs of a channel's comparators with constants, of the first of a search, in the
        mean.
    kept: comparators of a channel with constants that differ, in the mean.
    counts, same: whether a search ends with the number of a step; whether all channels have the
        same values there.
    """

    size: int
    width: int
    searched: int
    alike: bool
    mixed: bool
    fixed: float
    first: float
    kept: float
    counts: bool
    same: bool


@lru_cache(256)
def _steps(node: ir.Threshold, edge: ir.Edge, family: str) -> _Steps:
    """As `comparator_table` of hw/threshold.py has them; of those that are written, all bits."""
    never, bits = edge.hi.max() + 1, _bits(edge)
    if node.room:
        size = comparator_table(node, edge)[0].shape[1]
        width = ir.bits_for(min(int(edge.lo.min()), 0), int(never))[0]
        return _Steps(size, width, width, False, True, 0.0, 0.0, size, False, False)
    t = np.clip(node.thresholds, edge.lo.min(), never)
    base = node.base - (node.signs < 0).sum(axis=1)
    alike = all((values == values[0]).all() for values in (t, node.signs, base))
    used = node.signs != 0
    size = int((used.sum(axis=1) + base - base.min()).max())
    turned = node.signs[used] < 0
    ends = min(int(t.min(initial=0)), 0), max(int(t.max(initial=0)), 0)
    # A search has 2**depth - 1 thresholds: what there are too few of is never reached.
    depth = max(node.signs.shape[1].bit_length(), 1)
    full = t.shape[1] == 2**depth - 1 and used.all()
    steps = np.sort(np.where(used, t, never), axis=1)
    luts = _compared(steps, bits, family)
    differ = (edge.lo.min() < steps) & (steps < never)  # equal ones are one
    differ[:, 1:] &= steps[:, 1:] != steps[:, :-1]
    kept, fixed = differ.sum(axis=1), (luts * differ).sum(axis=1)
    if family == "xcup" and LUT < bits <= 2 * LUT:  # and so are their low bits below a LUT's
        fixed = fixed + np.minimum((differ & (luts > 1)).sum(axis=1), 2**(bits - LUT) - 2)
    first = luts[:, 2**(depth - 1) - 1] if steps.size else luts.sum(axis=1)
    return _Steps(size, ir.bits_for(*ends)[0],
                  ir.bits_for(ends[0], ends[1] if full else int(never))[0], alike,
                  bool(turned.any() and not turned.all()),
                  float(fixed.mean()), float(first.mean()), float(kept.mean()),
                  bool(full and (node.signs == 1).all() and (base == 0).all()),
                  bool((node.signs == node.signs[:1]).all() and (base == base[0]).all()))


def _compared(t: np.ndarray, bits: int, family: str) -> np.ndarray:
    """LUTs of ``x >= t`` with constants `t`, x of `bits` bits: low zeros of `t` compare nothing."""
    matter = bits - np.log2(np.maximum(t & -t, 1)).astype(int)
    matter *= t != 0  # the sign alone says it
    if family == "xcup":  # 6 bits to a LUT, from 13 bits on to two LUTs before a carry
        return np.where(matter > 12, 2 * -(-matter // 6), np.where(matter > 6, 2, matter > 1))
    return np.where(matter > LUT4, matter - 1 + matter % 2, matter > 1)  # 2 bits to a carry cell


def _compares(x: int, t: int, varying: float, words: int, family: str, *, late: bool = False
              ) -> float:
    """LUTs of ``x >= t``, `x` and `t` bits, t from a table of `words` words in which `varying` bits
    are not alike.

    3 bits take two LUTs before a carry, or 2 bits a carry cell.  Without a carry, columns of the
    table that are equal or complements are one input; fewer LUTs do where the time is not `late`.
    """
    bits = max(x, t)
    varying = min(varying, 2**(min(words, bits) - 1) - 1)
    one, each = numbers(family).compared_late if late else numbers(family).compared
    if family == "ecp5":
        return 2 * (bits // 2) + 1 if bits > LUT4 or varying > 1 else one
    if bits > LUT:
        return 2 * (bits // 3) + bits % 3
    more = x + varying - LUT  # inputs than a LUT has
    return 1 if more <= 0 else one + each * more


def _tables(node: ir.Threshold, edge: ir.Edge, pe: int) -> np.ndarray:
    """Thresholds of the comparators by channel group, lane, step."""
    t, _, _ = comparator_table(node, edge)
    return np.broadcast_to(t, (edge.channels, t.shape[1])).reshape(
        edge.channels // pe, pe, t.shape[1])


@lru_cache(2**12)
def _varying(node: ir.Threshold, edge: ir.Edge, width: int, pe: int) -> int:
    """The bits of all lanes' thresholds, `width` each, that differ between channel groups."""
    t = _tables(node, edge, pe)
    differ = np.bitwise_or.reduce(t ^ t[0], axis=0) & 2**width - 1
    return int(np.bitwise_count(differ).sum())


@lru_cache(2**8)
def _pairs(node: ir.Threshold, edge: ir.Edge, bits: int, pe: int) -> int:
    """LUTs of all lanes' comparators on xcup if there are two channel groups: where a lane's
    thresholds have 3 bits alike in both, the LUTs before the carry are the same."""
    t, luts = _tables(node, edge, pe), 0
    for low in range(0, bits, 3):
        there = np.zeros((pe, 64), bool)
        digit = t >> low & 7
        there[np.arange(pe)[:, None], 8 * digit[0] + digit[1]] = True
        luts += min(2, bits - low) * int(there.sum())
    return luts


def _ones(bits: int, family: str) -> float:
    """LUTs that count the ones among `bits` bits: those of its full and half adders."""
    width = bits.bit_length()
    fulls, halves = bits - width, width - bits.bit_count()
    if family == "xcup":
        return numbers(family).ones * fulls if bits > LUT + 1 else bits // 2 + (bits > 2)
    return numbers(family).ones * fulls + halves


def threshold_parts(node: ir.Threshold, reads: tuple[ir.Edge, ...], edge: ir.Edge,
                    fold: ThresholdFold, family: str) -> Parts:
    """What the unit of `node` is made of."""
    steps, pe, x, out = _steps(node, reads[0], family), fold.pe, _bits(reads[0]), _bits(edge)
    groups, written = 1 if steps.alike else edge.channels // pe, bool(node.room)
    word, bank, changes = _count(groups), _bank(node, reads[0]), groups > 1 or written
    count = word + bank
    if fold.style == PARALLEL:
        size = pe * steps.size
        if changes:
            key, varying = "Threshold parallel", size * steps.width if written else _varying(
                node, reads[0], steps.width, pe)
            compare = size * (_compares(x, steps.width, varying / max(size, 1), groups, family)
                              + steps.mixed)
            if groups == 2 and family == "xcup" and x > LUT and not written:
                compare = _pairs(node, reads[0], max(x, steps.width), pe)
            tables = [table(groups, varying + size * steps.mixed, family, written=written)]
        else:
            key, compare, tables = "Threshold constant", pe * steps.fixed, []
        kept = steps.size if changes else steps.kept
        return Parts(key, {"compare": compare, "steps": pe * _ones(steps.size, family),
                           "count": count},
                     {"x": pe * x * changes, "held": pe * (kept + out),
                      "count": count}, tuple(tables))
    thresholds, width = node.signs.shape[1], steps.searched
    depth = max(thresholds.bit_length(), 1)
    tables, compare = [], 0.0
    for level in range(depth):
        words, last = groups * 2**level, 2**(depth - level - 1)
        held = table(words, width, family, written=written, late=level > 0)
        # The entries beyond the last threshold are all the same.
        used = (thresholds + last) // (2 * last) / 2**level
        tables.append(held._replace(table=held.table * used, deep=held.deep * used))
        compare += (_compares(x, width, width, words + written, family, late=depth > 1)
                    if words > 1 or written else steps.first)
    values = table(groups * 2**depth, out, family, written=written, late=True)
    if not values.bram and steps.same:
        values = Memory(copy=out) if steps.counts else rom(2**depth, out, family, late=True)
    tables.append(values)
    return Parts("Threshold search", {"compare": pe * compare, "count": count},
                 {"x": pe * (depth * x + depth * (depth - 1) // 2),
                  "count": count + (word + written) * depth + depth},
                 tuple(memory.times(pe) for memory in tables))
