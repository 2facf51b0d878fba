"""How Yosys 0.70 maps memories to a family: its rules are few, and known exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from math import ceil
from typing import NamedTuple

from ..hw.mac import LUT
from ..hw.writable import WORD
from ..ir.folding import AUTO, BLOCK, LOGIC
from .fitted import numbers

__all__ = ["FAMILIES", "Family", "Memory", "ram", "rom", "table"]


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
    blocks: aspects (bits, words, blocks of 18 kbit, Yosys's cost) of block RAM.
    rom_bits: bits of a ROM in logic that cost as much as 1 of a block.
    """

    blocks: tuple[tuple[int, int, int, int], ...]
    rom_bits: int


def _aspects(size: int, blocks: int, cost: int, *widths: int) -> list[tuple[int, int, int, int]]:
    return [(width, size // width, blocks, cost) for width in widths]


FAMILIES = {
    "xcup": Family((*_aspects(18432, 1, 129, 1, 2, 4, 9, 12, 18, 36),
                    *_aspects(36864, 2, 257, 1, 2, 4, 9, 18, 36, 72)), 64),
    "ecp5": Family(tuple(_aspects(18432, 1, 128, 1, 2, 4, 9, 12, 18, 36)), 16),
}


class _Blocks(NamedTuple):
    """A memory in block RAM: Yosys's cost, blocks, and bits of multiplexers behind them."""

    cost: int
    blocks: int
    select: int


@cache
def _block(depth: int, width: int, family: str, *, written: bool) -> _Blocks:
    """The cheapest of a family's aspects.

    Where words are narrower than 9 bits, the ninth of each 9 bits holds more words, which 5
    multiplexers a bit bring in.  Three words of 12 bits are one of 36, unless they are `written`.
    """
    mappings = []
    for w, words, n, cost in FAMILIES[family].blocks:
        if written and w == 12:
            continue
        wide, rows = ceil(width / w), ceil(depth / words)
        plain = rows * (words // 9 * 8 if w < 9 else words)
        mappings.append(_Blocks(cost * wide * rows, n * wide * rows,
                                width * (rows - 1) + 5 * width * (depth > plain)))
    return min(mappings)


@lru_cache(2**16)
def ram(depth: int, width: int, family: str, *, block: bool, ports: int = 2, apart: bool = False,
        style: str = AUTO) -> Memory:
    """A memory that is written; `block` if it is read a cycle ahead, and so may be block RAM.

    `style` is one of `folding.MEMORIES`; of "auto", Yosys takes what it finds cheapest.

    With 1 of `ports`, it is read at the address that is written; `apart` if Yosys can see that it
    is never written where it is read.
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
    blocks = _block(depth, width, family, written=True)
    if block and style != LOGIC and (style == BLOCK or blocks.cost <= cost):
        # ECP5's blocks say nothing of a word read while it is written: logic beside them does.
        beside = width if family == "ecp5" and not apart else 0
        return Memory(blocks.blocks, select=blocks.select + beside, copy=2 * beside)
    return Memory(0, luts, select=width * (rows - 1), copy=width if block else 0)


@lru_cache(2**16)
def rom(depth: int, width: int, family: str, *, late: bool = False, style: str = AUTO) -> Memory:
    """A memory with constant contents, read a cycle ahead; random ones, if it is in logic.

    `width` is without bits that all words have alike.  With `late`, the address comes from logic,
    for whose delay Yosys takes few large LUTs rather than many that are shared.  `style` is one of
    `folding.MEMORIES`; of "auto", Yosys takes what it finds cheapest.
    """
    blocks = _block(depth, width, family, written=False)
    cheaper = depth * width / FAMILIES[family].rom_bits > blocks.cost
    if depth > 1 and (style == BLOCK or (style == AUTO and cheaper)):
        return Memory(blocks.blocks, select=blocks.select)
    # Equal columns are one: there are 2**depth of them, two constant.
    columns = width if depth > 20 else (1 - (1 - 2.0**-depth)**width) * (2**depth - 2)
    if depth < 5:  # the reset and the enable of a flip-flop do for many functions of two bits
        return Memory(table=columns * (depth > 2) * numbers(family).rom_small, copy=columns)
    # One LUT per bit while the address has no more bits than a LUT; measured beyond.
    few, many, fewer = numbers(family).rom
    luts = max(depth * (few if depth <= 64 else many) - fewer, 1)
    if late and family == "xcup":
        luts = numbers(family).rom_late * 2.0**((depth - 1).bit_length() - LUT) if depth > 64 else 1
    deep = luts > 3
    return Memory(table=columns * luts * (not deep), deep=columns * luts * deep, copy=columns)


@lru_cache(2**16)
def table(depth: int, width: int, family: str, *, written: bool, late: bool = False,
          style: str = AUTO) -> Memory:
    """A `rom`, or, if it is `written`, RAMs of both banks, of columns of a bus's word each."""
    if not written:
        return rom(depth, width, family, late=late, style=style)
    rows = 2**(depth - 1).bit_length() + depth
    parts = [ram(rows, min(width - low, WORD), family, block=True, style=style)
             for low in range(0, width, WORD)]
    return Memory._make(map(sum, zip(*parts, strict=True)))
