"""What Scale and PiecewiseLinear are made of: see `parts`."""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

from .. import ir
from ..hw.mac import LUT
from ..ir.folding import Fold
from .counts import Parts, _bank, _bits, _count
from .fitted import numbers
from .memories import table
from .parts_threshold import _compared, _compares

__all__ = ["lines_parts"]


class _Lines(NamedTuple):
    """Widths of a `LinesUnit` of hw/lines.py, in bits.

    Members
    -------
    factor: of the multipliers; offset, turn: 0 where all channels are alike.
    differ: bits of the multipliers that are not the same in all channels.
    live: share of their bits that are not 0 in all.
    bends: whether there are two lines; two_offsets: whether their offsets differ.
    product, line: of the product, of the result before it is clipped.
    zeros: lowest bits that no offset has; sum: of its addition, without these.
    rows: lines with a multiplier of their own; around: whether the upper one goes round it.
    alike, powers: whether the multipliers of all channels are one, are one power of two.
    even, spare: lowest bits of a channel's product that are 0, highest that it leaves of
        `product`, in the mean.
    factors: of up to 16 channels, one if they are alike; ones where one of the lines has one.
    turns: of the channels, one if they are alike.
    ends: what a clip compares with, beyond which the result can be.
    """

    factor: int
    differ: int
    live: float
    offset: int
    turn: int
    bends: bool
    two_offsets: bool
    product: int
    line: int
    zeros: int
    sum: int
    rows: int
    around: bool
    alike: bool
    powers: bool
    even: float
    spare: float
    factors: tuple[int, ...]
    turns: tuple[int, ...]
    ends: tuple[int, ...]


@lru_cache(256)
def _lines(node: ir.Scale | ir.PiecewiseLinear, edge: ir.Edge) -> _Lines:
    if node.room:
        return _room(node, edge)
    bent = isinstance(node, ir.PiecewiseLinear)
    turn = node.turn if isinstance(node, ir.PiecewiseLinear) else edge.hi
    turn = np.broadcast_to(turn, edge.channels).clip(edge.lo.min(), edge.hi.max() + 1)
    ends = np.stack([[edge.lo, np.maximum(edge.lo, turn)], [np.minimum(edge.hi, turn - 1),
                                                            edge.hi]])
    reached = ends[0] <= ends[1]
    if not bent:
        reached = np.stack([np.ones_like(reached[0]), np.zeros_like(reached[0])])
        ends = np.stack([[edge.lo, edge.lo], [edge.hi, edge.hi]])
    rows = [s if line.any() else 1 - s for s, line in enumerate(reached)]
    m, c = (np.broadcast_to(values, reached.shape)[rows].astype(np.int64)
            for values in (node.multiplier, node.offset))
    c = c + getattr(node, "half", 0)
    values = ((ends * m + c) >> node.shift)[:, reached]
    lo, hi = int(values.min()), int(values.max())
    upper = np.unique(m[1, reached[1]]) if reached[1].any() else np.zeros(0, np.int64)
    two = bool((m[0] != m[1]).any())
    around = two and len(upper) == 1 and _power(int(upper[0]))
    used = slice(1 if around else 2)
    product = (ends * m)[:, used][:, reached[used]]
    factors = m[used]
    either = np.bitwise_or.reduce(factors)
    even = np.log2(np.maximum(np.abs(either & -either), 1))
    own = (np.log2(np.maximum(np.abs(ends * m)[:, used].max(axis=(0, 1)), 1)) // 1 + 1
           + (edge.lo.min() < 0)) * (either != 0)
    two_offsets = bool((c[0] != c[1]).any())
    bends = two or two_offsets
    alike, line = _alike(factors), ir.bits_for(lo, hi)[0]
    offsets = int(np.bitwise_or.reduce(c, axis=None))
    zeros = (offsets & -offsets).bit_length() - 1 if offsets else line + node.shift
    width = _width(factors)
    columns = factors.reshape(-1, 1) >> np.arange(max(width, 1)) & 1
    differ, live = (columns != columns[0]).any(axis=0), columns.any(axis=0)
    return _Lines(width, int(differ.sum()), float(live.mean()), 0 if _alike(c) else _width(c),
                  (0 if _alike(turn[None]) else _width(turn)) if bends else 0, bends, two_offsets,
                  _width(product), line, zeros, max(line + node.shift - zeros, 0),
                  1 + bool((factors != factors[:1]).any()), around, alike,
                  alike and all(_power(int(v)) for v in np.unique(factors)),
                  float(even.mean()), _width(product) - float(own.mean()),
                  tuple(either[:1 if alike else 16].tolist()),
                  tuple((turn[:1] if _alike(turn[None]) else turn).tolist()),
                  _beyond(node, values))


def _room(node: ir.Scale | ir.PiecewiseLinear, edge: ir.Edge) -> _Lines:
    """The same of lines that are written."""
    *factors, low, high = node.room
    bends, half = isinstance(node, ir.PiecewiseLinear), getattr(node, "half", 0)
    around = bends and factors[2] == factors[3]
    x, used = np.array([edge.lo.min(), edge.hi.max()]), np.array(factors[:2 if around else None])
    line = ir.scale_ends(node, edge) + half >> node.shift
    return _Lines(
        factor=_width(used), differ=_width(used), live=1.0,
        offset=_width(np.array([low, high]) + half),
        turn=_width(x + np.array([0, 1])) * bends, bends=bends, two_offsets=bends,
        product=_width(np.outer(x, used)), line=_width(line), zeros=0,
        sum=_width(line) + node.shift, rows=1 + (bends and not around), around=around, alike=False,
        powers=False, even=0.0, spare=0.0, factors=(), turns=(), ends=_beyond(node, line))


def _beyond(node: ir.Scale | ir.PiecewiseLinear, line: np.ndarray) -> tuple[int, ...]:
    """What a clip compares `line` with: the ends of it that this can pass."""
    clip = getattr(node, "clip", ())
    return ((clip[0],) * bool(line.min() < clip[0])
            + (clip[1] + 1,) * bool(clip[1] < line.max())) if clip else ()


def _alike(values: np.ndarray) -> bool:
    """Whether all channels of `values` [lines, C] have the same."""
    return bool((values == values[:, :1]).all())


def _power(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def _width(values: np.ndarray) -> int:
    return ir.bits_for(int(values.min()), int(values.max()))[0] if values.any() else 0


PIECE = 17  # bits of a piece of a multiplier's wider operand: see hw/lines.py


def _pieces(bits: int) -> list[int]:
    """Bits of the pieces into which a signed operand is cut."""
    cuts = range(0, max(bits - 1, 1), PIECE)
    return [PIECE if low != cuts[-1] else bits - low for low in cuts]


def _not(bit: int) -> int:
    return 1 - bit if bit in (0, 1) else -bit


def _adders(rows: list[list[int]]) -> tuple[int, int, int]:
    """Full adders, half adders and bits of the last addition that add up `rows` three by three.

    A row has its lowest bit first: 0, 1, or the number of a signal, 2..999, with -k for the
    complement of k.  What is added up twice is added up once.
    """
    signals: dict[tuple[int, ...], int] = {}

    def add(three: tuple[int, ...]) -> tuple[int, int]:
        bits = sorted(bit for bit in three if bit)
        for a, b in combinations(bits, 2):
            if a in (b, _not(b)):
                rest = sum(bits) - a - b
                return (rest, a) if a == b else (_not(rest), rest)
        if len(bits) < 2:
            return sum(bits), 0
        if len(bits) == 2 and 1 in bits:
            return _not(sum(bits) - 1), sum(bits) - 1
        signal = 1000 + 2 * signals.setdefault(tuple(bits), len(signals))
        return signal, signal + 1

    while len(rows) > 2:
        added = []
        for three in zip(*[iter(rows)] * 3, strict=False):
            sums, carries = zip(*map(add, zip(*three, strict=True)), strict=True)
            added += [list(sums), [0, *carries[:-1]]]
        rows = added + rows[len(rows) // 3 * 3:]
    full = sum(len(bits) == 3 and 1 not in bits for bits in signals)
    both = [bool(a and b) for a, b in zip(rows[0], rows[-1], strict=True)]
    return full, len(signals) - full, len(both) - [*both, True].index(True)


@cache
def _multiplied(value: int, bits: int, family: str) -> float:
    """LUTs of the product of a constant and a signed x of `bits` bits.

    Yosys adds up a row for each bit of the narrower operand, those of zeros too; the one of the
    sign is subtracted.
    """
    if value == 0 or _power(value):
        return 0.0
    if _power(-value):  # inverters, in other LUTs, before the carry
        return 0.0 if family == "xcup" else 2.0 * (bits + 1)
    value //= value & -value
    width = (value if value > 0 else ~value).bit_length() + 1
    end, top = bits + width - 1, min(bits, width) - 1
    x = [min(k, bits - 1) + 2 for k in range(end)]
    ones = [value >> min(k, width) & 1 for k in range(end)]
    if bits >= width:
        rows = [[0] * low + [bit * ones[low] for bit in x[:end - low]] for low in range(width)]
        rows[-1], more = [-bit for bit in rows[-1]], ones[top]
    else:
        rows = [[0] * low + [one * x[low] for one in ones[:end - low]] for low in range(bits)]
        rows[-1][top:] = [x[top] - bit for bit in rows[-1][top:]]
        more = x[top]
    rows.append([0] * top + [more] + [0] * (end - top - 1))
    full, half, last = _adders(rows)
    # What depends on no more bits than a LUT takes is a LUT.
    of = numbers(family).product_narrow if bits <= LUT else numbers(family).product
    return of[0] * full + of[1] * half + of[2] * last


def lines_parts(node: ir.Scale | ir.PiecewiseLinear, reads: tuple[ir.Edge, ...], edge: ir.Edge,
                fold: Fold, family: str) -> Parts:
    """What the unit of `node` is made of."""
    it, pe, x, out = _lines(node, reads[0]), fold.pe, _bits(reads[0]), _bits(edge)
    groups, xcup, written = edge.channels // pe, family == "xcup", bool(node.room)
    bends, multiplies, changes = it.bends, not it.powers, groups > 1 or written
    fixed = not changes or it.alike
    clips = len(it.ends) > 0
    # The cycles of `LinesUnit.schedule`.
    above = 1 + 2 * (changes and it.turn > 0) if bends else 0
    operands = max(2 * (not fixed), (above + 1) * (it.rows > 1), 1)
    offsets = max(2 * (changes and it.offset > 0), (above + 1) * it.two_offsets)
    last = max((operands + 2) * multiplies, above * it.around, offsets) + 1
    # Tables: bits of a word, words for a channel, the cycle in which a beat has its word.
    tables = [(width, rows, ready) for width, rows, ready, there in (
        (it.differ, it.rows, operands, multiplies and not fixed),
        (max(it.offset - it.zeros, 0), 1 + it.two_offsets, last - 1, it.offset > 0),
        (it.turn, 1, above - 1, bends)) if there and width and changes]
    wide, narrow = max(x, it.factor), min(x, it.factor)
    pieces, lut = _pieces(wide), dict.fromkeys(("multiply", "fixed", "sum"), 0.0)
    if multiplies and fixed:
        lut["fixed"] = pe * it.rows * sum(
            _multiplied(value, bits, family) for value in it.factors for bits in _pieces(x)
            ) / len(it.factors)
    elif multiplies:
        lut["multiply"] = pe * it.live * sum((min(piece, narrow) - 1) * max(piece, narrow)
                                             for piece in pieces)
    # A constant is added by inverters before the carry, which go into other LUTs, and a choice
    # between terms by the LUTs before the carry: not on ECP5.
    varies, chosen = it.two_offsets or (changes and it.offset > 0), it.product * it.around
    added = max(it.sum * varies, chosen) if xcup else it.sum + chosen
    lut["sum"] = pe * (added + sum(pieces[1:]) * multiplies)
    if bends:
        compare = (_compares(x, it.turn, it.turn, groups, family) if changes and it.turn else
                   float(_compared(np.array(it.turns), x, family).mean()))
        lut["sum"] += pe * (compare + it.factor * (it.rows > 1 and not fixed)
                            + it.offset * (it.two_offsets and changes))
    if getattr(node, "half", 0):  # whether the bits below the shift are all zero
        lut["sum"] += pe * (1 + (node.shift - 1) // (LUT - 1))
    if clips:
        lut["sum"] += pe * (out + int(_compared(np.array(it.ends), it.line, family).sum()))
    # How long x waits, to be multiplied or to go around, and the choice of a line.
    delay = last - 1 if it.around or not multiplies else operands
    chosen = max((operands - 1) * (it.rows > 1), (last - 2) * it.two_offsets,
                 (last - 1) * it.around) - above + 1
    # The lowest bits are zero, or never carry to a bit that is in the result.
    constant = fixed and it.rows == 1
    dead = max(min(it.zeros, node.shift), it.even * constant) + it.spare * constant
    products = sum(piece + narrow for piece in pieces) - dead + it.product - dead
    bits = x * delay + it.line + out * clips + chosen * bends + products * multiplies
    waits = max((ready - 1 for *_, ready in tables), default=0)
    memories = tuple(table(groups, pe * rows * width, family, written=written)
                     for width, rows, _ in tables)
    word, bank = _count(groups) + written, _bank(node, reads[0])
    # What is read waits in registers too, equal columns in one.
    read = sum(min(pe * width, memory.copy if rows == 1 and not memory.bram else np.inf)
               for (width, rows, _), memory in zip(tables, memories, strict=True))
    return Parts(
        "Lines", {**lut, "count": _count(groups) * (waits > 0) + bank},
        {"bits": pe * bits + read, "control": last + clips + word * waits + bank}, memories)
