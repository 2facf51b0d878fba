"""Two lines per channel in fixed point: bias, PReLU and bias."""

from __future__ import annotations

import numpy as np

from ..ir import Edge, PiecewiseLinear, scale_ends
from .lines import LinesUnit, Table
from .stream import Unit, beats, divides, element, shape_for
from .writable import Table as Stored

__all__ = ["PiecewiseLinearUnit"]


class PiecewiseLinearUnit(LinesUnit):
    """``o = (i·multiplier[s] + offset[s]) >> shift`` (floor), ``s = [i >= turn]``, on PE channels.

    Latency 7 cycles; 5 for a PReLU, whose upper multipliers are ``2**shift``; less where
    parameters are constants, see `schedule`.  II = 1.  Of a node with `room` all parameters can be
    written, but for the multipliers of a line that has room for one alone.
    """

    def __init__(self, node: PiecewiseLinear, edge: Edge, out: Edge, *, pe: int) -> None:
        if not node.room:
            super().__init__(node, edge, out, pe=pe, turn=node.turn, multiplier=node.multiplier,
                             offset=node.offset)
            return
        self.groups = divides(f"{node.name}: PE", pe, "channels", edge.channels)
        self.shift, self.even, self.clip = node.shift, False, ()
        self.pixels = edge.shape[0] * edge.shape[1]
        lo, hi = int(edge.lo.min()), int(edge.hi.max())
        ends = scale_ends(node, edge) >> node.shift
        self.reach = int(ends.min()), int(ends.max())
        *factors, low, high = node.room
        # An upper line of slope 1 goes round the multiplier.
        fixed = factors[2] == factors[3] == 1 << node.shift
        self.around, self.powers = (node.shift if fixed else None), []
        rows = slice(1 if fixed else 2)
        factors = factors[:2] if fixed else [min(factors), max(factors)]
        products = np.outer([lo, hi], factors)
        self.product = shape_for(int(products.min()), int(products.max()))
        self.multiplier = _Written("multipliers", node.multiplier[rows], factors, self)
        self.offset = _Written("offsets", node.offset, [low, high], self)
        turns = node.turn.clip(lo, hi + 1)[None]  # beyond its range, x does not turn
        self.turn = _Written("turns", turns, [lo, hi + 1], self)
        self.tables_ = [Stored(table.name, table.bits)
                        for table in (self.multiplier, self.offset, self.turn)]
        Unit.__init__(self, beats(element(edge), pe), beats(element(out), pe),
                      **self.bus(self.tables_))


class _Written(Table):
    """Rows of a table that can be written, each value in the range of two `ends`."""

    def __init__(self, name: str, values: np.ndarray, ends: list[int], unit: LinesUnit) -> None:
        super().__init__(name, values, unit.groups, tuple(ends), unit)
        self.words = values.reshape(len(values), unit.groups, -1).swapaxes(0, 1)
        self.rows = len(values)
