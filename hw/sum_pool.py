"""The sum over the positions of a window."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Value as HdlValue

from .pool import PoolUnit

__all__ = ["SumPoolUnit"]


class SumPoolUnit(PoolUnit):
    """Sum over the positions, exact; timing as `PoolUnit`."""

    operation = np.add

    def combine(self, so_far: HdlValue, x: HdlValue) -> HdlValue:
        """The sum of the two."""
        return so_far + x
