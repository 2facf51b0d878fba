# amaranth: UnusedElaboratable=no
"""What each kind of unit is made of: adders, comparators, multiplexers, registers and memories.

Counted from its node, edges and folding, as the gateware in `hw/` has them.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np

from .. import ir
from ..errors import N2uqError
from ..hw.depth_to_space import block_lines, block_order
from ..hw.fifo import in_block
from ..hw.line_buffer import LineBuffer
from ..hw.mac import LUT
from ..hw.sliding_window import line_buffer, stages
from ..hw.upsample import upsample_lines
from ..ir.folding import DepthwiseFold, Fold
from .counts import LUT4, Counts, Parts, _bank, _bits, _count, _weight_bits, _weight_tables, _wraps
from .memories import ram
from .parts_lines import lines_parts
from .parts_matvec import matvec_parts
from .parts_threshold import threshold_parts

__all__ = ["Counts", "Parts", "parts"]


@singledispatch
def parts(node: ir.Node, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str
         ) -> Parts:
    """What the unit of `node` is made of, in `family`; raises N2uqError for an unknown kind."""
    raise N2uqError(f"no estimate for {type(node).__name__}")


parts.register(ir.MatVec, matvec_parts)
parts.register(ir.Threshold, threshold_parts)
parts.register(ir.Scale, lines_parts)
parts.register(ir.PiecewiseLinear, lines_parts)


@parts.register(ir.Input)
@parts.register(ir.Flatten)
def _(node: ir.Node, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str) -> Parts:
    """The stream itself."""
    return Parts("Input", {}, {})


@parts.register
def _(node: ir.WidthConvert, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str
     ) -> Parts:
    narrow, wide = (_bits(edge) * of(fold.pe, fold.simd) for of in (min, max))
    count = _count(wide // narrow)
    if fold.pe > fold.simd:
        return Parts("WidthConvert up", {"count": count, "wraps": _wraps(wide // narrow)},
                     {"parts": 2 * wide - narrow, "count": count})
    return Parts("WidthConvert down", {"count": count, "shift": wide},
                 {"parts": wide, "count": count})


@parts.register
def _(node: ir.Fifo, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str) -> Parts:
    width, count, block = _bits(edge) * fold.pe, _count(node.depth), in_block(node.depth)
    return Parts("Fifo", {"count": count, "ahead": count * block, "wraps": _wraps(node.depth)},
                 {"count": 3 * count, "ahead": block},
                 (ram(node.depth, width, family, block=block),))


@parts.register
def _(node: ir.Fork, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str) -> Parts:
    return Parts("Fork", {"ways": node.ways}, {"ways": node.ways})


@parts.register
def _(node: ir.Pad, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str) -> Parts:
    counts = [_count(n) for n in (edge.channels // fold.pe, *edge.shape[:2])]
    return Parts("Pad", {"data": _bits(edge) * fold.pe, "count": sum(counts),
                         "place": sum(counts[1:])}, {"count": sum(counts)})


@parts.register
def _(node: ir.SlidingWindow, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str
     ) -> Parts:
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
def _(node: ir.Upsample, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str
     ) -> Parts:
    plan = upsample_lines(node, reads[0], edge.channels // fold.pe)
    key = "Upsample" if node.factor[0] > 1 else "Upsample across"
    return _lines_read(key, plan, fold.pe * _bits(edge), family)


@parts.register
def _(node: ir.DepthToSpace, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str
     ) -> Parts:
    plan = block_lines(node, reads[0], edge.channels // fold.pe)
    if not block_order(node, reads[0]):
        return _lines_read("DepthToSpace", plan, fold.pe * _bits(edge), family)
    return _lines_read("DepthToSpace CRD", plan, fold.pe * _bits(edge), family,
                       pixel=reads[0].channels * _bits(reads[0]))


@parts.register
def _(node: ir.Permute, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str
     ) -> Parts:
    pe, read, written = fold.pe, reads[0].channels * _bits(reads[0]), edge.channels * _bits(edge)
    if pe == edge.channels:
        return Parts("Permute whole", {}, {"out": written})
    beats = reads[0].channels // pe, edge.channels // pe
    count = sum(map(_count, beats))
    # The gathered pixel is in registers where channels of it are chosen.
    chosen = len(np.unique(node.order)) * _bits(reads[0])
    gathered = (read - pe * _bits(reads[0]) + chosen) * (beats[0] > 1)
    return Parts("Permute", {"count": count, "shift": written},
                 {"count": count, "parts": gathered + written})


@parts.register
def _(node: ir.Add, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str) -> Parts:
    return Parts("Add", {"sum": fold.pe * max(map(_bits, reads))}, {"out": fold.pe * _bits(edge)})


@parts.register
def _(node: ir.Concat, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str) -> Parts:
    ways, bits = len(reads), fold.pe * _bits(edge)
    if fold.pe == edge.channels:
        return Parts("Concat whole", {"ways": ways}, {"out": bits})
    count = _count(ways) + _count(max(read.channels for read in reads) // fold.pe)
    choices = -(-(ways - 1) // 3) if family == "xcup" else ways - 1  # a LUT6 chooses one of four
    return Parts("Concat", {"choose": choices * bits, "ways": ways, "count": count},
                 {"out": bits, "count": count})


@parts.register
def _(node: ir.Saturate, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str
     ) -> Parts:
    cut = _bits(reads[0]) - _bits(edge)
    return Parts("Saturate", {"cut": fold.pe * cut, "out": fold.pe * _bits(edge),
                              "changed": fold.pe},
                 {"out": fold.pe * _bits(edge) + _count(fold.pe + 1)})


@parts.register
def _(node: ir.ArgMax, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str) -> Parts:
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
def _(node: ir.MaxPool, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str
     ) -> Parts:
    return _pool("MaxPool", _bits(reads[0]), _bits(edge), node.positions,
                 edge.channels // fold.pe, fold.pe, family)


@parts.register
def _(node: ir.SumPool, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold, family: str
     ) -> Parts:
    whole = fold.pe > edge.channels  # then sums are no wider than they must be
    return _pool("SumPool", _bits(reads[0] if whole else edge), _bits(edge), node.positions,
                 edge.channels // fold.pe, fold.pe, family)


@parts.register
def _(node: ir.DepthwiseMatVec, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: DepthwiseFold,
      family: str) -> Parts:
    bits, width, pe = _weight_bits(node), _bits(reads[0]), fold.pe
    positions, groups, product = len(node.weights), edge.channels // pe, bits + width + 1
    pool = _pool("DepthwiseMatVec", _bits(edge), _bits(edge), positions, groups, pe, family)
    length = positions * groups
    count = _count(length) + _bank(node, reads[0])
    return Parts("DepthwiseMatVec",
                 {**pool.lut, "multiply": pe * bits * width, "address": count},
                 {**pool.ff, "in": pe * (width + product), "address": count},
                 pool.memories, _weight_tables(node, length, pe * bits, family), fold.memory)
