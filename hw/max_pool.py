"""The maximum over the positions of a window."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Mux
from amaranth.hdl import Value as HdlValue

from .pool import PoolUnit

__all__ = ["MaxPoolUnit"]


class MaxPoolUnit(PoolUnit):
    """Maximum over the positions; timing as `PoolUnit`."""

    operation = np.maximum

    def combine(self, so_far: HdlValue, x: HdlValue) -> HdlValue:
        """The larger of the two."""
        return Mux(so_far > x, so_far, x)
