"""Two lines per channel in fixed point: bias, PReLU and bias."""

from __future__ import annotations

from ..ir import Edge, PiecewiseLinear
from .lines import LinesUnit

__all__ = ["PiecewiseLinearUnit"]


class PiecewiseLinearUnit(LinesUnit):
    """``o = (i·multiplier[s] + offset[s]) >> shift`` (floor), ``s = [i >= turn]``, on PE channels.

    Latency 7 cycles; 5 for a PReLU, whose upper multipliers are ``2**shift``; less where
    parameters are constants, see `schedule`.  II = 1.
    """

    def __init__(self, node: PiecewiseLinear, edge: Edge, out: Edge, *, pe: int) -> None:
        super().__init__(node, edge, out, pe=pe, turn=node.turn, multiplier=node.multiplier,
                         offset=node.offset)
