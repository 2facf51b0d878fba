# amaranth: UnusedElaboratable=no
"""What each kind of unit is made of: adders, comparators, multiplexers, registers and memories.

Counted from its node, edges and folding, as the gateware in `hw/` has them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, lru_cache, singledispatch
from itertools import combinations
from typing import NamedTuple

import numpy as np

from ..errors import N2uqError
from ..hw.depth_to_space import block_lines, block_order
from ..hw.fifo import in_block
from ..hw.line_buffer import LineBuffer
from ..hw.mac import LUT, digit_bits
from ..hw.sliding_window import line_buffer, stages
from ..hw.threshold import comparator_table
from ..hw.upsample import upsample_lines
from ..ir import (
    Add,
    ArgMax,
    Concat,
    DepthToSpace,
    DepthwiseMatVec,
    Edge,
    Fifo,
    Flatten,
    Fork,
    Input,
    MatVec,
    MaxPool,
    Node,
    OffsetMatVec,
    Pad,
    Permute,
    PiecewiseLinear,
    Saturate,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    Upsample,
    WidthConvert,
    bits_for,
    weight_bits,
)
from ..ir.folding import AUTO, MEMORIES, PARALLEL, DepthwiseFold, Fold, MatVecFold, ThresholdFold
from .fitted import numbers
from .memories import Memory, ram, rom

__all__ = ["Counts", "Parts", "parts"]

LUT4 = 4  # inputs of a LUT of ECP5
Counts = dict[str, float]


@dataclass(frozen=True)
class Parts:
    """What a unit is made of.

    Members
    -------
    key: whose weights apply: the kind of the node, and its style where it has one; "Lines" for
        Scale and PiecewiseLinear.
    lut, ff: counts by name, of bits mostly, which weights turn into LUTs and flip-flops.
    memories: how the unit's memories map, that of its weights apart.
    weights: how that one maps, by its style.
    memory: the style that it has.
    """

    key: str
    lut: Counts
    ff: Counts
    memories: tuple[Memory, ...] = ()
    weights: dict[str, Memory] = field(default_factory=dict)
    memory: str = AUTO

    @property
    def counts(self) -> dict[str, Counts]:
        """`lut` and `ff` with the logic of the memories."""
        memories = [*self.memories, self.weights.get(self.memory, Memory())]
        logic = {name: sum(getattr(memory, name) for memory in memories)
                 for name in ("table", "deep", "select", "copy")}
        copy = logic.pop("copy")
        return {"lut": {"unit": 1, **self.lut, **logic}, "ff": {"unit": 1, **self.ff, "copy": copy}}


@singledispatch
def parts(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    """What the unit of `node` is made of, in `family`; raises N2uqError for an unknown kind."""
    raise N2uqError(f"no estimate for {type(node).__name__}")


def _roms(depth: int, width: int, family: str) -> dict[str, Memory]:
    """A memory of weights in each style."""
    return {style: rom(depth, width, family, style=style) for style in MEMORIES}


@lru_cache(2**12)
def _bits(edge: Edge) -> int:
    return edge.width


def _count(length: int) -> int:
    """Bits of a counter 0..length-1."""
    return (length - 1).bit_length()


@parts.register(Input)
@parts.register(Flatten)
def _(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    """The stream itself."""
    return Parts("Input", {}, {})


@parts.register
def _(node: WidthConvert, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    narrow, wide = (_bits(edge) * of(fold.pe, fold.simd) for of in (min, max))
    count = _count(wide // narrow)
    if fold.pe > fold.simd:
        return Parts("WidthConvert up", {"count": count, "wraps": _wraps(wide // narrow)},
                     {"parts": 2 * wide - narrow, "count": count})
    return Parts("WidthConvert down", {"count": count, "shift": wide},
                 {"parts": wide, "count": count})


@parts.register
def _(node: Fifo, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    width, count, block = _bits(edge) * fold.pe, _count(node.depth), in_block(node.depth)
    return Parts("Fifo", {"count": count, "ahead": count * block, "wraps": _wraps(node.depth)},
                 {"count": 3 * count, "ahead": block},
                 (ram(node.depth, width, family, block=block),))


def _wraps(length: int) -> int:
    """Bits of a counter that does not wrap by itself."""
    return _count(length) if length & (length - 1) else 0


@parts.register
def _(node: Fork, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    return Parts("Fork", {"ways": node.ways}, {"ways": node.ways})


@parts.register
def _(node: Pad, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    counts = [_count(n) for n in (edge.channels // fold.pe, *edge.shape[:2])]
    return Parts("Pad", {"data": _bits(edge) * fold.pe, "count": sum(counts),
                         "place": sum(counts[1:])}, {"count": sum(counts)})


@parts.register
def _(node: SlidingWindow, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    kernel, lines = stages(node, reads[0], fold.pe)
    bits, counts, address, shift, memories = _bits(reads[0]), 0, 0, 0, []
    if kernel:
        windows, read = kernel
        ends = zip(read.shape[:2], windows.extent, windows.stride, strict=True)
        counts += sum(_count(n) + _count(before) for n, *of in ends if (before := max(of)) > 1)
        shift = bits * windows.kernel[0] * windows.extent[1] * read.channels
        memories.append(ram(read.shape[1], bits * (windows.extent[0] - 1) * read.channels, family,
                            block=True, apart=True))
    if lines:
        windows, read = lines
        plan = line_buffer(windows, read, read.channels // fold.pe)
        counts += sum(_count(n) for n in (*(loop.turns for loop in plan.loops), *edge.shape[:2]))
        address = _count(plan.depth)
        memories.append(ram(plan.depth, bits * fold.pe, family, block=True))
    if not lines:
        return Parts("SlidingWindow whole", {"count": counts}, {"count": counts, "shift": shift},
                     tuple(memories))
    return Parts("SlidingWindow", {"count": counts, "address": address},
                 {"count": counts, "address": address, "shift": shift}, tuple(memories))


def _lines_read(key: str, plan: LineBuffer, width: int, family: str, **more: float) -> Parts:
    """A line buffer of words of `width` bits alone, and what a unit has beside it."""
    count = sum(_count(n) for n in (*(loop.turns for loop in plan.loops), plan.rows, plan.columns))
    address = _count(plan.depth)
    return Parts(key, {"count": count, "address": address, **more},
                 {"count": count, "address": address, **more},
                 (ram(plan.depth, width, family, block=True),))


@parts.register
def _(node: Upsample, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    plan = upsample_lines(node, reads[0], edge.channels // fold.pe)
    key = "Upsample" if node.factor[0] > 1 else "Upsample across"
    return _lines_read(key, plan, fold.pe * _bits(edge), family)


@parts.register
def _(node: DepthToSpace, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    plan = block_lines(node, reads[0], edge.channels // fold.pe)
    if not block_order(node, reads[0]):
        return _lines_read("DepthToSpace", plan, fold.pe * _bits(edge), family)
    return _lines_read("DepthToSpace CRD", plan, fold.pe * _bits(edge), family,
                       pixel=reads[0].channels * _bits(reads[0]))


@parts.register
def _(node: Permute, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    pe, read, made = fold.pe, reads[0].channels * _bits(reads[0]), edge.channels * _bits(edge)
    if pe == edge.channels:
        return Parts("Permute whole", {}, {"out": made})
    beats = reads[0].channels // pe, edge.channels // pe
    count = sum(map(_count, beats))
    # The gathered pixel is in registers where channels of it are chosen.
    chosen = len(np.unique(node.order)) * _bits(reads[0])
    gathered = (read - pe * _bits(reads[0]) + chosen) * (beats[0] > 1)
    return Parts("Permute", {"count": count, "shift": made},
                 {"count": count, "parts": gathered + made})


@parts.register
def _(node: Add, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    return Parts("Add", {"sum": fold.pe * max(map(_bits, reads))}, {"out": fold.pe * _bits(edge)})


@parts.register
def _(node: Concat, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    ways, bits = len(reads), fold.pe * _bits(edge)
    if fold.pe == edge.channels:
        return Parts("Concat whole", {"ways": ways}, {"out": bits})
    count = _count(ways) + _count(max(read.channels for read in reads) // fold.pe)
    choices = -(-(ways - 1) // 3) if family == "xcup" else ways - 1  # a LUT6 chooses one of four
    return Parts("Concat", {"choose": choices * bits, "ways": ways, "count": count},
                 {"out": bits, "count": count})


@parts.register
def _(node: Saturate, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    cut = _bits(reads[0]) - _bits(edge)
    return Parts("Saturate", {"cut": fold.pe * cut, "out": fold.pe * _bits(edge),
                              "changed": fold.pe},
                 {"out": fold.pe * _bits(edge) + _count(fold.pe + 1)})


@parts.register
def _(node: ArgMax, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    width, beats = _bits(reads[0]), reads[0].channels // fold.pe
    return Parts("ArgMax", {"compare": fold.pe * width, "index": fold.pe * _bits(edge),
                            "count": _count(beats)},
                 {"best": width * (beats > 1), "index": _bits(edge), "count": _count(beats)})


def _pool(key: str, width: int, out: int, positions: int, groups: int, pe: int, family: str
          ) -> Parts:
    if not groups:  # a whole window per beat
        pe //= positions
        narrow = 2 * width <= (LUT if family == "xcup" else LUT4)  # a LUT for each bit of two
        # A LUT6 takes the maximum of two into that with a third.
        pairs = positions - 1 - (narrow and family == "xcup" and key == "MaxPool")
        bits = pairs * pe * width
        return Parts(f"{key} whole", {"narrow": bits * narrow, "wide": bits * (not narrow)},
                     {"out": pe * out})
    counts = _count(groups) + _count(positions)
    return Parts(key, {"combine": pe * width, "count": counts}, {"out": pe * out, "count": counts},
                 (ram(groups, pe * width, family, block=False, ports=1),))


@parts.register
def _(node: MaxPool, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    return _pool("MaxPool", _bits(reads[0]), _bits(edge), node.positions,
                 edge.channels // fold.pe, fold.pe, family)


@parts.register
def _(node: SumPool, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    whole = fold.pe > edge.channels  # then sums are no wider than they must be
    return _pool("SumPool", _bits(reads[0] if whole else edge), _bits(edge), node.positions,
                 edge.channels // fold.pe, fold.pe, family)


@lru_cache(64)
def _weight_bits(node: MatVec | DepthwiseMatVec) -> int:
    return weight_bits(node.weights)


@parts.register
def _(node: DepthwiseMatVec, reads: tuple[Edge, ...], edge: Edge, fold: DepthwiseFold, family: str
      ) -> Parts:
    bits, width, pe = _weight_bits(node), _bits(reads[0]), fold.pe
    positions, groups, product = len(node.weights), edge.channels // pe, bits + width + 1
    pool = _pool("DepthwiseMatVec", _bits(edge), _bits(edge), positions, groups, pe, family)
    length = positions * groups
    return Parts("DepthwiseMatVec",
                 {**pool.lut, "multiply": pe * bits * width, "address": _count(length)},
                 {**pool.ff, "in": pe * (width + product), "address": _count(length)},
                 pool.memories, _roms(length, pe * bits, family), fold.memory)


class Tree(NamedTuple):
    """An adder tree with a register behind every level: see `hw/mac.py`.

    Members
    -------
    pairs: adders of the first level.
    adders: LUTs of the adders of the other levels.
    registers: bits of all registers.
    width: of the sum.
    levels: how many there are.
    waits: the longest way of a term that has no other to be added to, in levels.
    """

    pairs: int
    adders: int
    registers: int
    width: int
    levels: int
    waits: int


def _adder(width: int, family: str) -> int:
    """LUTs of a sum of two terms of `width` bits: a carry cell of ECP5 takes two, at both ends."""
    return width + 2 * (family == "ecp5")


@cache
def _tree(terms: int, width: int, family: str) -> Tree:
    first, adders, registers, levels, waited, waits = terms // 2, 0, 0, 0, 0, 0
    odd = width  # bits of the term that comes last
    while terms > 1:
        pairs, alone = divmod(terms, 2)
        adders += (_adder(width, family) * pairs) * (levels > 0)
        waited = (waited + 1) * alone
        waits = max(waits, waited)
        registers += (pairs - 1 + alone) * (width + 1) + (odd if alone else width + 1)
        odd = odd if alone else width + 1
        width, terms, levels = width + 1, pairs + alone, levels + 1
    return Tree(first, adders, registers, width, levels, waits)


@parts.register
def _(node: MatVec, reads: tuple[Edge, ...], edge: Edge, fold: MatVecFold, family: str) -> Parts:
    bits, a, acc = _weight_bits(node), _bits(reads[0]), _bits(edge)
    (outputs, inputs), pe, simd = node.weights.shape, fold.pe, fold.simd
    folds, beats = outputs // node.groups // pe, inputs // simd
    rows, xcup = node.groups * folds * beats, family == "xcup"
    # Of weights that never change, half the bits are zero; of two in turn, a quarter.
    live = 1 - 2.0**-min(rows, 20)
    products, centered = fold.products, isinstance(node, OffsetMatVec)
    pairs = products.lanes > 1
    terms, given = (-(-simd // 2), a + 1) if pairs else (simd, a)
    shared, direct = _tree(terms, given, family), not products.offset or centered
    key = "MatVec centered" if centered else f"MatVec {fold.form}"
    if products.bitwise:
        # A sum of two terms with a weight bit each takes a gate before each carry too.
        first = 2 * given if xcup else 2 * given + _adder(given, family)
        tree = _tree(terms, given, family)
        planes = _tree(bits, tree.width + bits // 2, family)
        lut = {"first": pe * bits * live * (tree.pairs * first + terms % 2 * given),
               "adders": pe * (bits * tree.adders * live
                               + planes.adders + planes.pairs * _adder(tree.width, family))}
        ff = {"tree": pe * (bits * tree.registers * live + planes.registers)}
        width, levels, srl = planes.width, tree.levels + planes.levels, 0
        if pairs:
            if terms == 1 and xcup:  # planes' adders take the gates of one of two
                lut["first"] *= 1 - planes.pairs / bits
            lut["pairs"] = terms * _adder(given, family) * (1 + centered)
            ff["pairs"] = terms * (2 * given if centered else given + 2 * a)
    elif direct and a < LUT:
        key, more = "MatVec tables", _waits(simd)
        size = digit_bits(bits, a, fold.form)
        lut = dict.fromkeys(("tables", "adders"), 0.0)
        ff, srl, sums = {"tree": 0.0}, 0, []
        for low in range(0, bits, size):
            inputs, term = min(size, bits - low) + a, _digit_product(node, reads[0], low, size)
            # A table beside an adder's other operand takes a LUT with it.
            lanes = simd - (simd // 2) * (inputs < (LUT if xcup else 4))
            tree = _tree(simd, term, family)
            lut["tables"] += pe * live * lanes * _table(node, a, low, inputs - a, term, family)
            lut["adders"] += pe * live * (tree.pairs * _adder(term, family) + tree.adders)
            ff["tree"] += pe * live * (tree.registers - more * term * xcup)
            srl += pe * term * (more > 0)
            sums.append(tree.width)
        planes = _tree(len(sums), max(sums), family)
        lut["adders"] += pe * (planes.pairs * _adder(max(sums), family) + planes.adders)
        ff["tree"] += pe * planes.registers
        width, levels = planes.width + bits - size, tree.levels + planes.levels
    else:
        term, more = a + bits + direct, _waits(simd)
        tree, planes = _tree(simd, term, family), _tree(1, 0, family)
        # A multiplier adds up a row for each bit of its narrower operand; signs take more.
        one, other = sorted((a, bits + direct))
        lut = {"gates": pe * simd * a * (bits + direct) * live,
               "rows": pe * simd * (one - 1) * other * live,
               "signs": pe * simd * a * (direct and reads[0].signed),
               "adders": pe * (tree.pairs * _adder(term, family) + tree.adders)}
        ff = {"tree": pe * (tree.registers - more * term * xcup)}
        width, levels, srl = tree.width, tree.levels, pe * term * (more > 0)
    lut["acc"] = pe * acc * (1 if xcup else 2)
    ff["acc"] = pe * acc
    if not direct:
        lut["term"] = pe * _adder(width, family)
        lut["shared"] = (shared.pairs * _adder(given, family) + shared.adders
                         + _adder(shared.width + bits, family))
        delays = planes.levels
        total = (shared.width + bits) * delays
        long = xcup and delays > 2
        ff["shared"] = shared.registers + total * (not long)
        srl += (shared.width + bits) * long
        width += 1
    vector = [ram(beats, simd * a, family, block=True, ports=1)] if folds > 1 else []
    count = _count(beats) + _count(folds) + _count(rows)
    return Parts(key,
                 {**lut, "replay": simd * a * (folds > 1), "count": count},
                 {**ff, "term": pe * width, "vector": simd * a, "control": count + 3 * levels},
                 (*vector, Memory(0, srl * xcup)), _roms(rows, pe * simd * bits, family),
                 fold.memory)


def _table(node: MatVec, a: int, low: int, size: int, term: int, family: str) -> int:
    """LUTs of the product, `term` bits, of an activation of `a` bits and the weights' digit of
    `size` bits from `low` on.

    A bit of it depends on those that are as low; twice a code, and 1, have their bits one higher.
    """
    odd = not _least(node)
    if size == 1 and low and not odd:
        return term
    luts = (0, 0, 1, 1, 1, 1, 1) if family == "xcup" else (0, 0, 1, 1, 1, 2, 4 if 2 < a < 5 else 2)
    return sum(luts[min(bit + 1, a) + min(bit + (not odd), size)] for bit in range(term))


@lru_cache(64)
def _least(node: MatVec) -> int:
    """The least weight, 0 if all are odd: then its digits are, too."""
    return 0 if (node.weights % 2).all() else int(node.weights.min())


def _digit_product(node: MatVec, read: Edge, low: int, size: int) -> int:
    """Bits of the product of an activation and the weights' digit of `size` bits from `low` on."""
    top, least = 2**min(size, _weight_bits(node) - low) - 1, _least(node)
    levels = (least * (low == 0), top + least * (low == 0)) if least else (-top, top)
    end = 2**(_bits(read) - read.signed)
    products = [level * x for level in levels for x in (-end * read.signed, end - 1)]
    return bits_for(min(products), max(products))[0]


def _waits(terms: int) -> int:
    """Levels that a term waits in a shift register of LUTs, which Yosys makes from 3 on."""
    waits = _tree(terms, 1, "xcup").waits
    return waits if waits > 2 else 0


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
def _steps(node: Threshold, edge: Edge, family: str) -> _Steps:
    """As `comparator_table` of hw/threshold.py has them."""
    never, bits = edge.hi.max() + 1, _bits(edge)
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
    return _Steps(size, bits_for(*ends)[0], bits_for(ends[0], ends[1] if full else int(never))[0],
                  alike, bool(turned.any() and not turned.all()),
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


def _tables(node: Threshold, edge: Edge, pe: int) -> np.ndarray:
    """Thresholds of the comparators by channel group, lane, step."""
    t, _, _ = comparator_table(node, edge)
    return np.broadcast_to(t, (edge.channels, t.shape[1])).reshape(
        edge.channels // pe, pe, t.shape[1])


@lru_cache(2**12)
def _varying(node: Threshold, edge: Edge, width: int, pe: int) -> int:
    """The bits of all lanes' thresholds, `width` each, that differ between channel groups."""
    t = _tables(node, edge, pe)
    differ = np.bitwise_or.reduce(t ^ t[0], axis=0) & 2**width - 1
    return int(np.bitwise_count(differ).sum())


@lru_cache(2**8)
def _pairs(node: Threshold, edge: Edge, bits: int, pe: int) -> int:
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


@parts.register
def _(node: Threshold, reads: tuple[Edge, ...], edge: Edge, fold: ThresholdFold, family: str
      ) -> Parts:
    steps, pe, x, out = _steps(node, reads[0], family), fold.pe, _bits(reads[0]), _bits(edge)
    groups = 1 if steps.alike else edge.channels // pe
    count = _count(groups)
    if fold.style == PARALLEL:
        size = pe * steps.size
        if groups > 1:
            key, varying = "Threshold parallel", _varying(node, reads[0], steps.width, pe)
            compare = size * (_compares(x, steps.width, varying / max(size, 1), groups, family)
                              + steps.mixed)
            if groups == 2 and family == "xcup" and x > LUT:
                compare = _pairs(node, reads[0], max(x, steps.width), pe)
            tables = [rom(groups, varying + size * steps.mixed, family)]
        else:
            key, compare, tables = "Threshold constant", pe * steps.fixed, []
        kept = steps.size if groups > 1 else steps.kept
        return Parts(key, {"compare": compare, "steps": pe * _ones(steps.size, family),
                           "count": count},
                     {"x": pe * x * (groups > 1), "held": pe * (kept + out),
                      "count": count}, tuple(tables))
    thresholds, width = node.signs.shape[1], steps.searched
    depth = max(thresholds.bit_length(), 1)
    tables, compare = [], 0.0
    for level in range(depth):
        words, last = groups * 2**level, 2**(depth - level - 1)
        table = rom(words, width, family, late=level > 0)
        # The entries beyond the last threshold are all the same.
        used = (thresholds + last) // (2 * last) / 2**level
        tables.append(table._replace(table=table.table * used, deep=table.deep * used))
        compare += (_compares(x, width, width, words, family, late=depth > 1) if words > 1
                    else steps.first)
    values = rom(groups * 2**depth, out, family, late=True)
    if not values.bram and steps.same:
        values = Memory(copy=out) if steps.counts else rom(2**depth, out, family, late=True)
    tables.append(values)
    return Parts("Threshold search", {"compare": pe * compare, "count": count},
                 {"x": pe * (depth * x + depth * (depth - 1) // 2),
                  "count": count * (1 + depth) + depth},
                 tuple(memory.times(pe) for memory in tables))


class _Lines(NamedTuple):
    """Widths of a `LinesUnit` of hw/lines.py, in bits.

    Members
    -------
    factor: of the multipliers; offset, turn: 0 where all channels are alike.
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
def _lines(node: Scale | PiecewiseLinear, edge: Edge) -> _Lines:
    bent = isinstance(node, PiecewiseLinear)
    turn = node.turn if isinstance(node, PiecewiseLinear) else edge.hi
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
    clip = getattr(node, "clip", ())
    two_offsets = bool((c[0] != c[1]).any())
    bends = two or two_offsets
    alike, line = _alike(factors), bits_for(lo, hi)[0]
    offsets = int(np.bitwise_or.reduce(c, axis=None))
    zeros = (offsets & -offsets).bit_length() - 1 if offsets else line + node.shift
    return _Lines(_width(factors), 0 if _alike(c) else _width(c),
                  (0 if _alike(turn[None]) else _width(turn)) if bends else 0, bends, two_offsets,
                  _width(product), line, zeros, max(line + node.shift - zeros, 0),
                  1 + bool((factors != factors[:1]).any()), around, alike,
                  alike and all(_power(int(v)) for v in np.unique(factors)),
                  float(even.mean()), _width(product) - float(own.mean()),
                  tuple(either[:1 if alike else 16].tolist()),
                  tuple((turn[:1] if _alike(turn[None]) else turn).tolist()),
                  ((clip[0],) * (lo < clip[0]) + (clip[1] + 1,) * (clip[1] < hi)) if clip else ())


def _alike(values: np.ndarray) -> bool:
    """Whether all channels of `values` [lines, C] have the same."""
    return bool((values == values[:, :1]).all())


def _power(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def _width(values: np.ndarray) -> int:
    return bits_for(int(values.min()), int(values.max()))[0] if values.any() else 0


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
        made = 1000 + 2 * signals.setdefault(tuple(bits), len(signals))
        return made, made + 1

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


@parts.register(Scale)
@parts.register(PiecewiseLinear)
def _(node: Scale | PiecewiseLinear, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str
      ) -> Parts:
    it, pe, x, out = _lines(node, reads[0]), fold.pe, _bits(reads[0]), _bits(edge)
    groups, xcup = edge.channels // pe, family == "xcup"
    bends, multiplies, changes = it.bends, not it.powers, groups > 1
    fixed = not changes or it.alike
    clips = len(it.ends) > 0
    # The cycles of `LinesUnit.schedule`.
    above = 1 + 2 * (changes and it.turn > 0) if bends else 0
    operands = max(2 * (not fixed), (above + 1) * (it.rows > 1), 1)
    offsets = max(2 * (changes and it.offset > 0), (above + 1) * it.two_offsets)
    last = max((operands + 2) * multiplies, above * it.around, offsets) + 1
    # Tables: bits of a word, words for a channel, the cycle in which a beat has its word.
    tables = [(width, rows, ready) for width, rows, ready, there in (
        (it.factor, it.rows, operands, multiplies and not fixed),
        (max(it.offset - it.zeros, 0), 1 + it.two_offsets, last - 1, it.offset > 0),
        (it.turn, 1, above - 1, bends)) if there and width and changes]
    wide, narrow = max(x, it.factor), min(x, it.factor)
    pieces, lut = _pieces(wide), dict.fromkeys(("multiply", "fixed", "sum"), 0.0)
    if multiplies and fixed:
        lut["fixed"] = pe * it.rows * sum(
            _multiplied(value, bits, family) for value in it.factors for bits in _pieces(x)
            ) / len(it.factors)
    elif multiplies:
        lut["multiply"] = pe * sum((min(piece, narrow) - 1) * max(piece, narrow)
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
    memories = tuple(rom(groups, pe * rows * width, family) for width, rows, _ in tables)
    # What is read waits in registers too, equal columns in one.
    read = sum(min(pe * width, memory.copy if rows == 1 and not memory.bram else np.inf)
               for (width, rows, _), memory in zip(tables, memories, strict=True))
    return Parts(
        "Lines", {**lut, "count": _count(groups) * (waits > 0)},
        {"bits": pe * bits + read, "control": last + clips + _count(groups) * waits}, memories)
