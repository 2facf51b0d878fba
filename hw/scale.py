"""Fixed point: a multiplier, an offset and a shift per channel."""

from __future__ import annotations

from ..ir import Edge, Scale
from .lines import LinesUnit

__all__ = ["ScaleUnit"]


class ScaleUnit(LinesUnit):
    """``o = clip((i·multiplier + offset) >> shift)`` (floor) on PE channels per beat.

    Latency 5 cycles, or 4 if the multipliers are constants; without a multiplier 3, or 1 if the
    offsets are constants too; a clip that the range exceeds takes 1 more.  II = 1.  Ties to the
    even take no cycle: the offset holds a half, and a tie clears the lowest bit.
    """

    def __init__(self, node: Scale, edge: Edge, out: Edge, *, pe: int) -> None:
        super().__init__(node, edge, out, pe=pe, turn=edge.hi, multiplier=node.multiplier[None],
                         offset=node.offset[None] + node.half, clip=node.clip,
                         even=node.half > 0, room=node.room)
