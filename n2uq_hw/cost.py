# amaranth: UnusedElaboratable=no
"""What a unit will cost on an FPGA, estimated from what it is made of; no tool runs.

`parts` counts a unit's adders, comparators, multiplexers, registers and memories from its node,
edges and folding, as the gateware in `hw/` has them.  A few weights per kind of unit and family,
fitted by least squares to synthesized samples (`samples.py`), make LUTs and flip-flops of the
counts.  Memories map as Yosys 0.70 maps them: its rules are few, and known exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache, singledispatch
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import N2uqError
from .folding import Fold
from .hw.mac import LUT, digit_bits
from .hw.unrolled import UnrolledUnit
from .hw.window import line_buffer, stages
from .ir import (
    Add,
    ArgMax,
    DepthwiseMatVec,
    Edge,
    Fifo,
    Flatten,
    Fork,
    Input,
    MatVec,
    MaxPool,
    Node,
    Pad,
    PiecewiseLinear,
    Saturate,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    Unrolled,
    WidthConvert,
    bits_for,
    weight_bits,
)

__all__ = ["FAMILIES", "WEIGHTS", "Cost", "Memory", "Parts", "Weights", "estimate", "parts", "ram",
           "rom"]

WEIGHTS = Path(__file__).with_name("weights.json")
COMPARED = {"xcup": 6, "ecp5": 11}  # LUTs of the comparators behind a sum, unrolled
Counts = dict[str, float]
Weights = dict[str, dict[str, dict[str, Counts]]]  # by family, key of `Parts`, "lut" or "ff", name


class Cost(NamedTuple):
    """Estimated cells, as `synth.Resources` counts them, without DSP blocks."""

    lut: float = 0
    ff: float = 0
    bram: float = 0
    lutram: float = 0

    def plus(self, other: Cost) -> Cost:
        """The sum."""
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))


class Memory(NamedTuple):
    """How a memory maps: blocks, LUTs as memory, and what `parts` counts of logic around it.

    Members
    -------
    table, deep: LUTs of a ROM in logic, of up to 40 words and of more; select: bits of
    multiplexers between blocks; copy: bits that registers hold beside the blocks.
    """

    bram: int = 0
    lutram: int = 0
    table: float = 0
    deep: float = 0
    select: float = 0
    copy: float = 0

    def times(self, copies: int) -> Memory:
        """So many of them, as one."""
        return Memory._make(copies * value for value in self)


@dataclass(frozen=True)
class Family:
    """How Yosys 0.70 maps memories to a family.

    Members
    -------
    rom_luts: per word of a bit of a ROM in logic that has many.
    blocks: aspects (bits, words, blocks of 18 kbit, Yosys's cost) of block RAM.
    rom_bits: bits of a ROM in logic that cost as much as 1 of a block.
    """

    rom_luts: float
    blocks: tuple[tuple[int, int, int, int], ...]
    rom_bits: int


def _aspects(size: int, blocks: int, cost: int, *widths: int) -> list[tuple[int, int, int, int]]:
    return [(width, size // width, blocks, cost) for width in widths]


FAMILIES = {
    "xcup": Family(0.067, (*_aspects(18432, 1, 129, 1, 2, 4, 9, 18, 36),
                       *_aspects(36864, 2, 257, 1, 2, 4, 9, 18, 36, 72)), 64),
    "ecp5": Family(0.15, tuple(_aspects(18432, 1, 128, 1, 2, 4, 9, 18, 36)), 16),
}


class _Blocks(NamedTuple):
    """A memory in block RAM: Yosys's cost, blocks, and bits of multiplexers behind them."""

    cost: int
    blocks: int
    select: int


@cache
def _block(depth: int, width: int, family: str) -> _Blocks:
    """The cheapest of a family's aspects.

    Where words are narrower than 9 bits, the ninth of each 9 bits holds more words, which 5
    multiplexers a bit bring in.
    """
    found = []
    for w, words, n, cost in FAMILIES[family].blocks:
        wide, rows = ceil(width / w), ceil(depth / words)
        plain = rows * (words // 9 * 8 if w < 9 else words)
        found.append(_Blocks(cost * wide * rows, n * wide * rows,
                             width * (rows - 1) + 5 * width * (depth > plain)))
    return min(found)


@lru_cache(2**16)
def ram(depth: int, width: int, family: str, *, block: bool, ports: int = 2) -> Memory:
    """A memory that is written; `block` if it is read a cycle ahead, and so may be block RAM.

    With 1 of `ports`, it is read at the address that is written.
    """
    if depth * width <= 4 or depth == 1:
        return Memory(select=width * (depth - 1), copy=width * depth)
    if family == "xcup":
        rows, bits = ceil(depth / 64), (7 if ports == 2 else 8) * (2 if depth <= 32 else 1)
        cost, luts = 16 * width / bits * rows, 8 * ceil(width / bits) * rows
        if ports == 1 and rows > 1:  # RAM128X1S and its like
            luts = width * rows
    else:
        rows, wide = ceil(depth / 16), ceil(width / 4)
        cost, luts = 4 * wide * rows + 0.4 * width * (rows - 1), 6 * wide * rows
    blocks = _block(depth, width, family)
    if block and blocks.cost <= cost:
        # ECP5's blocks say nothing of a word read while it is written: logic beside them does.
        beside = width if family == "ecp5" else 0
        return Memory(blocks.blocks, select=blocks.select + beside, copy=2 * beside)
    return Memory(0, luts, select=width * (rows - 1), copy=width if block else 0)


@lru_cache(2**16)
def rom(depth: int, width: int, family: str) -> Memory:
    """A memory with constant contents, read a cycle ahead; random ones, if it is in logic."""
    blocks = _block(depth, width, family)
    if depth * width / FAMILIES[family].rom_bits > blocks.cost:
        return Memory(blocks.blocks, select=blocks.select)
    # Equal columns are one: there are 2**depth of them, two constant.
    columns = width if depth > 20 else (1 - (1 - 2.0**-depth)**width) * 2**depth
    if depth < 3:
        return Memory(copy=columns)
    # One LUT per bit while the address has no more bits than a LUT; measured beyond.
    luts = max(depth * FAMILIES[family].rom_luts - 0.4, 1)
    deep = depth > 40
    return Memory(table=columns * luts * (not deep), deep=columns * luts * deep, copy=columns)


@dataclass(frozen=True)
class Parts:
    """What a unit is made of.

    Members
    -------
    key: whose weights apply: the kind of the node, and its style where it has one.
    lut, ff: counts by name, of bits mostly, which weights turn into LUTs and flip-flops.
    memories: how the unit's memories map.
    """

    key: str
    lut: Counts
    ff: Counts
    memories: tuple[Memory, ...] = field(default=())

    @property
    def counts(self) -> dict[str, Counts]:
        """`lut` and `ff` with the logic of the memories."""
        logic = {name: sum(getattr(memory, name) for memory in self.memories)
                 for name in ("table", "deep", "select", "copy")}
        copy = logic.pop("copy")
        return {"lut": {"unit": 1, **self.lut, **logic}, "ff": {"unit": 1, **self.ff, "copy": copy}}


@singledispatch
def parts(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    """What the unit of `node` is made of, in `family`; raises N2uqError for an unknown kind."""
    raise N2uqError(f"no estimate for {type(node).__name__}")


@cache
def _weights() -> Weights:
    found: Weights = json.loads(WEIGHTS.read_text())
    return found


def weighed(counts: Counts, weights: Mapping[str, float]) -> float:
    """The weighted sum of `counts`."""
    return sum(count * weights[name] for name, count in counts.items())


def estimate(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Cost:
    """What the unit of `node` costs, reading edges `reads`, making `edge`, folded as `fold` says.

    Without DSP blocks.  Raises N2uqError for a kind or a family that nothing is known of.
    """
    if family not in FAMILIES:
        raise N2uqError(f"family: estimates are for {', '.join(FAMILIES)}, "
                        f"not {family or 'nothing'}")
    if isinstance(node, Unrolled):
        unit = UnrolledUnit(node, reads[0], edge, levels=fold.levels, lut=fold.lut)
        compared = COMPARED[family] * edge.channels * (node.threshold is not None)
        return Cost(unit.graph.luts + compared, unit.registers)
    made = parts(node, reads, edge, fold, family)
    if made.key == "Input":
        return Cost()
    weights = _weights()[family][made.key]
    found = {of: weighed(counts, weights[of]) for of, counts in made.counts.items()}
    return Cost(found["lut"], found["ff"], sum(memory.bram for memory in made.memories),
                sum(memory.lutram for memory in made.memories))


# --- What the kinds of units are made of ---------------------------------------------------------

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
    # hw/stream.py: what is deeper than 64 beats is read a cycle ahead.
    width, count, block = _bits(edge) * fold.pe, _count(node.depth), node.depth > 64
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
    *rows, (last, read) = stages(node, reads[0], fold.pe)
    groups, (kh, kw) = read.channels // fold.pe, last.kernel
    depth = line_buffer(last, read, groups).depth
    counts = sum(_count(n) for n in (
        kw * groups, kh, *edge.shape[:2],
        *((reads[0].shape[1], max(node.kernel[1], node.stride[1])) if rows else ())))
    address, shift = _count(depth), _bits(read) * fold.pe * len(rows)
    return Parts("SlidingWindow", {"count": counts, "address": address},
                 {"count": counts, "address": address, "shift": shift},
                 (ram(depth, _bits(read) * fold.pe, family, block=True),))


@parts.register
def _(node: Add, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    return Parts("Add", {"sum": fold.pe * max(map(_bits, reads))}, {"out": fold.pe * _bits(edge)})


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
    counts = _count(groups) + _count(positions)
    return Parts(key, {"combine": pe * width, "count": counts}, {"out": pe * out, "count": counts},
                 (ram(groups, pe * width, family, block=False, ports=1),))


@parts.register
def _(node: MaxPool, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    return _pool("MaxPool", _bits(reads[0]), _bits(edge), node.positions,
                 edge.channels // fold.pe, fold.pe, family)


@parts.register
def _(node: SumPool, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    return _pool("SumPool", _bits(edge), _bits(edge), node.positions,
                 edge.channels // fold.pe, fold.pe, family)


@lru_cache(64)
def _weight_bits(node: MatVec | DepthwiseMatVec) -> int:
    return weight_bits(node.weights)


@parts.register
def _(node: DepthwiseMatVec, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str
      ) -> Parts:
    bits, width, pe = _weight_bits(node), _bits(reads[0]), fold.pe
    positions, groups, product = len(node.weights), edge.channels // pe, bits + width + 1
    pool = _pool("DepthwiseMatVec", _bits(edge), _bits(edge), positions, groups, pe, family)
    length = positions * groups
    return Parts("DepthwiseMatVec",
                 {**pool.lut, "multiply": pe * bits * width, "address": _count(length)},
                 {**pool.ff, "in": pe * (width + product), "address": _count(length)},
                 (*pool.memories, rom(length, pe * bits, family)))


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
def _(node: MatVec, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    bits, a, acc = _weight_bits(node), _bits(reads[0]), _bits(edge)
    (outputs, inputs), pe, simd = node.weights.shape, fold.pe, fold.simd
    folds, beats = outputs // pe, inputs // simd
    rows, xcup = folds * beats, family == "xcup"
    # Of weights that never change, half the bits are zero; of two in turn, a quarter.
    live = 1 - 2.0**-min(rows, 20)
    shared, direct = _tree(simd, a, family), fold.form == "direct"
    key = f"MatVec {fold.form}"
    if fold.form == "planes":
        # A sum of two terms with a weight bit each takes a gate before each carry too.
        first = 2 * a if xcup else 2 * a + _adder(a, family)
        tree = _tree(simd, a, family)
        planes = _tree(bits, tree.width + bits // 2, family)
        lut = {"first": pe * bits * live * (tree.pairs * first + simd % 2 * a),
               "adders": pe * (bits * tree.adders * live
                               + planes.adders + planes.pairs * _adder(tree.width, family))}
        ff = {"tree": pe * (bits * tree.registers * live + planes.registers)}
        width, levels, srl = planes.width, tree.levels + planes.levels, 0
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
            lut["tables"] += pe * live * lanes * term * (1 if xcup else _table_lut4(inputs, a))
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
        lut["shared"] = (shared.pairs * _adder(a, family) + shared.adders
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
                 (rom(rows, pe * simd * bits, family), *vector, Memory(0, srl * xcup)))


def _table_lut4(inputs: int, activation: int) -> int:
    """LUT4 of a bit of a product: of `inputs` bits in all, so many of them an activation's."""
    return 1 if inputs <= 4 else 2 if inputs == 5 or activation < 3 else 4


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
    """Of a Threshold: comparators per channel, bits of a threshold, whether all channels are
    alike, whether some comparators turn round."""

    size: int
    width: int
    alike: bool
    mixed: bool


@lru_cache(256)
def _steps(node: Threshold, edge: Edge) -> _Steps:
    """As `comparator_table` of hw/threshold.py has them."""
    t = np.clip(node.thresholds, edge.lo.min(), edge.hi.max() + 1)
    base = node.base - (node.signs < 0).sum(axis=1)
    alike = all((values == values[0]).all() for values in (t, node.signs, base))
    size = int(((node.signs != 0).sum(axis=1) + base - base.min()).max())
    width, _ = bits_for(min(int(t.min(initial=0)), 0), max(int(t.max(initial=0)), 0))
    turned = node.signs[node.signs != 0] < 0
    return _Steps(size, width, alike, bool(turned.any() and not turned.all()))


@parts.register
def _(node: Threshold, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Parts:
    steps, pe, x, out = _steps(node, reads[0]), fold.pe, _bits(reads[0]), _bits(edge)
    groups = 1 if steps.alike else edge.channels // pe
    count, compared = _count(groups), max(x - 2, 1) if family == "xcup" else x + 1
    if fold.style == "parallel":
        compare = pe * steps.size * compared
        table = [rom(groups, pe * steps.size * (steps.width + steps.mixed), family)
                 ] if groups > 1 else []
        return Parts("Threshold parallel" if groups > 1 else "Threshold constant",
                     {"compare": compare, "steps": pe * (steps.size - out), "count": count},
                     {"x": pe * x * (groups > 1), "held": pe * (steps.size + out),
                      "count": count}, tuple(table))
    depth = max(node.signs.shape[1].bit_length(), 1)
    tables = [rom(groups * 2**level, steps.width, family) for level in range(depth)]
    tables.append(rom(groups * 2**depth, out, family))
    return Parts("Threshold search", {"compare": pe * depth * compared, "count": count},
                 {"x": pe * (depth * x + depth * (depth - 1) // 2),
                  "count": count * (1 + depth) + depth},
                 tuple(memory.times(pe) for memory in tables))


class _Lines(NamedTuple):
    """Widths of a `LinesUnit` of hw/eltwise.py, in bits.

    Members
    -------
    factor: of the multipliers; offset, turn: 0 where all channels are alike.
    bends: whether there are two lines.
    product, line: of the product, of the result before it is clipped.
    rows: lines with a multiplier of their own; around: whether the upper one goes round it.
    alike, powers: whether the multipliers of all channels are one, are one power of two.
    digits: of a multiplier, signed and not zero, in the mean: a constant one is so many terms.
    """

    factor: int
    offset: int
    turn: int
    bends: bool
    product: int
    line: int
    clip: bool
    rows: int
    around: bool
    alike: bool
    powers: bool
    digits: float


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
    values = ((ends * m + c) >> node.shift)[:, reached]
    lo, hi = int(values.min()), int(values.max())
    upper = np.unique(m[1, reached[1]]) if reached[1].any() else np.zeros(0, np.int64)
    two = bool((m[0] != m[1]).any())
    around = two and len(upper) == 1 and _power(int(upper[0]))
    used = slice(1 if around else 2)
    product = (ends * m)[:, used][:, reached[used]]
    factors = m[used]
    clip = getattr(node, "clip", ())
    bends = two or bool((c[0] != c[1]).any())
    alike = _alike(factors)
    return _Lines(_width(factors), 0 if _alike(c) else _width(c),
                  (0 if _alike(turn[None]) else _width(turn)) if bends else 0, bends,
                  _width(product), bits_for(lo, hi)[0],
                  bool(clip and (lo < clip[0] or clip[1] < hi)),
                  1 + bool((factors != factors[:1]).any()), around, alike,
                  alike and all(_power(int(v)) for v in np.unique(factors)),
                  float(np.mean([_digits(int(v)) for v in factors.reshape(-1)])))


def _alike(values: np.ndarray) -> bool:
    """Whether all channels of `values` [lines, C] have the same."""
    return bool((values == values[:, :1]).all())


def _power(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def _digits(value: int) -> int:
    """The fewest powers of two, added or subtracted, that `value` is the sum of."""
    return (abs(value) ^ 3 * abs(value)).bit_count()


def _width(values: np.ndarray) -> int:
    return bits_for(int(values.min()), int(values.max()))[0] if values.any() else 0


@parts.register(Scale)
@parts.register(PiecewiseLinear)
def _(node: Scale | PiecewiseLinear, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str
      ) -> Parts:
    it, pe, x, out = _lines(node, reads[0]), fold.pe, _bits(reads[0]), _bits(edge)
    groups = edge.channels // pe
    bends, multiplies, changes = it.bends, not it.powers, groups > 1
    fixed = not changes or it.alike
    # The cycles of `LinesUnit.schedule`, and how long x waits: to be multiplied or to go around.
    above = 1 + 2 * (changes and it.turn > 0) if bends else 0
    operands = max(0 if fixed else 2, (above + 1) * (it.rows > 1), 1)
    offsets = max(2 * (changes and it.offset > 0), (above + 1) * bends)
    last = max((operands + 2) * multiplies, above, offsets) + 1
    delay = last - 1 if it.around or not multiplies else operands
    tables = [rom(groups, pe * rows * width, family) for width, rows, there in (
        (it.factor, it.rows, multiplies and not it.alike), (it.offset, 1 + bends, True),
        (it.turn, 1, bends)) if there and width and changes]
    multiply = pe * (min(x, it.factor) - 1) * max(x, it.factor) * multiplies * (not fixed)
    constant = pe * x * (it.digits - 1) * multiplies * fixed
    return Parts(
        type(node).__name__,
        {"multiply": multiply, "fixed": constant, "sum": pe * it.product,
         "bend": pe * (x + it.product + it.offset) * bends, "clip": pe * (it.line + out) * it.clip,
         "count": _count(groups)},
        {"x": pe * x * delay, "factor": pe * it.factor * (not fixed),
         "product": pe * it.product * 2 * multiplies,
         "offset": pe * (it.offset + it.turn * bends) * changes,
         "out": pe * (it.line + out * it.clip), "count": _count(groups)}, tuple(tables))
