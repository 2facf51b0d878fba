# amaranth: UnusedElaboratable=no
"""What a MatVec is made of: see `parts`."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

from amaranth.hdl import Shape

from .. import ir
from ..hw.compressor_mac import CompressorMac
from ..hw.mac import LUT, digit_bits
from ..ir.folding import MatVecFold
from .counts import Parts, _bank, _bits, _count, _weight_bits, _weight_tables
from .memories import Memory, ram

__all__ = ["matvec_parts"]

CELL_LUTS = {"xcup": 1, "ecp5": 3.2}  # of a cell of a compressor tree: ECP5 has no such LUT


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


class Lane(NamedTuple):
    """What the PEs of a unit are made of, up to the sum that the accumulator adds.

    Members
    -------
    key: the weights that fit.
    lut, ff: counts by part.
    width, levels: of the sum; `planes` of its levels add digits or bit planes.
    srl: LUTs that are shift registers.
    """

    key: str
    lut: dict[str, float]
    ff: dict[str, float]
    width: int
    levels: int
    planes: int
    srl: int


def matvec_parts(node: ir.MatVec, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: MatVecFold,
                 family: str) -> Parts:
    """What the unit of `node` is made of."""
    bits, a, acc = _weight_bits(node), _bits(reads[0]), _bits(edge)
    (outputs, inputs), pe, simd = node.weights.shape, fold.pe, fold.simd
    folds, beats = outputs // node.groups // pe, inputs // simd
    rows, xcup = node.groups * folds * beats, family == "xcup"
    products, centered = fold.products, isinstance(node, ir.OffsetMatVec)
    if products.heap:
        return _heap(node, reads[0], edge, fold, family)
    direct = not products.offset or centered
    lane = (_planes if products.bitwise else _tables if direct and a < LUT else _multipliers)(
        node, reads[0], fold, 2**20 if node.room else rows, family)
    lut, ff, width, srl = lane.lut, lane.ff, lane.width, lane.srl
    lut["acc"] = pe * acc * (1 if xcup else 2)
    ff["acc"] = pe * acc
    if not direct:
        terms, operand = (-(-simd // 2), a + 1) if products.lanes > 1 else (simd, a)
        shared = _tree(terms, operand, family)
        lut["term"] = pe * _adder(width, family)
        lut["shared"] = (shared.pairs * _adder(operand, family) + shared.adders
                         + _adder(shared.width + bits, family))
        long = xcup and lane.planes > 2
        ff["shared"] = shared.registers + (shared.width + bits) * lane.planes * (not long)
        srl += (shared.width + bits) * long
        width += 1
    vector = [ram(beats, simd * a, family, block=True, ports=1)] if folds > 1 else []
    count = _count(beats) + _count(folds) + _count(rows) + _bank(node, reads[0])
    return Parts(lane.key,
                 {**lut, "replay": simd * a * (folds > 1), "count": count},
                 {**ff, "term": pe * width, "vector": simd * a,
                  "control": count + 3 * lane.levels},
                 (*vector, Memory(0, srl * xcup)),
                 _weight_tables(node, rows, pe * simd * bits, family), fold.memory)


def _heap(node: ir.MatVec, read: ir.Edge, edge: ir.Edge, fold: MatVecFold, family: str) -> Parts:
    """PEs as they are planned, and around them what is around pairs, weighed as there."""
    (outputs, inputs), pe, simd, a = node.weights.shape, fold.pe, fold.simd, _bits(read)
    folds, beats = outputs // node.groups // pe, inputs // simd
    rows, bits = node.groups * folds * beats, _weight_bits(node)
    luts, registers = _planned(simd, bits, a, _bits(edge))
    count = _count(beats) + _count(folds) + _count(rows)
    vector = (ram(beats, simd * a, family, block=True, ports=1),) if folds > 1 else ()
    return Parts("MatVec centered", {"replay": simd * a * (folds > 1), "count": count},
                 {"vector": simd * a, "control": count}, vector,
                 _weight_tables(node, rows, pe * simd * bits, family), fold.memory,
                 (pe * luts * CELL_LUTS[family], pe * registers))


@cache
def _planned(simd: int, bits: int, a: int, acc: int) -> tuple[int, int]:
    return CompressorMac(simd=simd, code_bits=bits, activation=Shape(a), acc=Shape(acc)).cells


def _live(rows: int) -> float:
    """The share of weight bits that are not 0 for good: one of two of weights that never change,
    three of four of two in turn."""
    return 1 - 2.0**-min(rows, 20)


def _key(node: ir.MatVec, fold: MatVecFold) -> str:
    return "MatVec centered" if isinstance(node, ir.OffsetMatVec) else f"MatVec {fold.form}"


def _planes(node: ir.MatVec, read: ir.Edge, fold: MatVecFold, rows: int, family: str) -> Lane:
    """A tree for each bit of the weights, and one that adds their sums."""
    bits, a, pe, simd, live = _weight_bits(node), _bits(read), fold.pe, fold.simd, _live(rows)
    pairs, centered, xcup = fold.products.lanes > 1, isinstance(node, ir.OffsetMatVec), (
        family == "xcup")
    terms, operand = (-(-simd // 2), a + 1) if pairs else (simd, a)
    # A sum of two terms with a weight bit each takes a gate before each carry too.
    first = 2 * operand if xcup else 2 * operand + _adder(operand, family)
    tree = _tree(terms, operand, family)
    planes = _tree(bits, tree.width + bits // 2, family)
    lut = {"first": pe * bits * live * (tree.pairs * first + terms % 2 * operand),
           "adders": pe * (bits * tree.adders * live
                           + planes.adders + planes.pairs * _adder(tree.width, family))}
    ff = {"tree": pe * (bits * tree.registers * live + planes.registers)}
    if pairs:
        if terms == 1 and xcup:  # planes' adders take the gates of one of two
            lut["first"] *= 1 - planes.pairs / bits
        lut["pairs"] = terms * _adder(operand, family) * (1 + centered)
        ff["pairs"] = terms * (2 * operand if centered else operand + 2 * a)
    return Lane(_key(node, fold), lut, ff, planes.width, tree.levels + planes.levels,
                planes.levels, 0)


def _tables(node: ir.MatVec, read: ir.Edge, fold: MatVecFold, rows: int, family: str) -> Lane:
    """A tree of tables of products for each digit of the weights, and one that adds their sums."""
    bits, a, pe, simd, live = _weight_bits(node), _bits(read), fold.pe, fold.simd, _live(rows)
    more, xcup = _waits(simd), family == "xcup"
    size = digit_bits(bits, a, fold.form)
    lut = dict.fromkeys(("tables", "adders"), 0.0)
    ff, srl, sums = {"tree": 0.0}, 0, []
    for low in range(0, bits, size):
        inputs, term = min(size, bits - low) + a, _digit_product(node, read, low, size)
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
    return Lane("MatVec tables", lut, ff, planes.width + bits - size, tree.levels + planes.levels,
                planes.levels, srl)


def _multipliers(node: ir.MatVec, read: ir.Edge, fold: MatVecFold, rows: int, family: str) -> Lane:
    """A tree of multipliers; each adds up a row for each bit of its narrower operand."""
    bits, a, pe, simd, live = _weight_bits(node), _bits(read), fold.pe, fold.simd, _live(rows)
    direct, more = not fold.products.offset or isinstance(node, ir.OffsetMatVec), _waits(simd)
    term, one, other = a + bits + direct, *sorted((a, bits + direct))
    tree = _tree(simd, term, family)
    lut = {"gates": pe * simd * a * (bits + direct) * live,
           "rows": pe * simd * (one - 1) * other * live,
           "signs": pe * simd * a * (direct and read.signed),
           "adders": pe * (tree.pairs * _adder(term, family) + tree.adders)}
    ff = {"tree": float(pe * (tree.registers - more * term * (family == "xcup")))}
    return Lane(_key(node, fold), lut, ff, tree.width, tree.levels, 0, pe * term * (more > 0))


def _table(node: ir.MatVec, a: int, low: int, size: int, term: int, family: str) -> int:
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
def _least(node: ir.MatVec) -> int:
    """The least weight, 0 if all are odd: then its digits are, too."""
    if node.room:
        _, step, least = node.room
        return least if step == 1 else 0
    return 0 if (node.weights % 2).all() else int(node.weights.min())


def _digit_product(node: ir.MatVec, read: ir.Edge, low: int, size: int) -> int:
    """Bits of the product of an activation and the weights' digit of `size` bits from `low` on."""
    top, least = 2**min(size, _weight_bits(node) - low) - 1, _least(node)
    levels = (least * (low == 0), top + least * (low == 0)) if least else (-top, top)
    end = 2**(_bits(read) - read.signed)
    products = [level * x for level in levels for x in (-end * read.signed, end - 1)]
    return ir.bits_for(min(products), max(products))[0]


def _waits(terms: int) -> int:
    """Levels that a term waits in a shift register of LUTs, which Yosys makes from 3 on."""
    waits = _tree(terms, 1, "xcup").waits
    return waits if waits > 2 else 0
