"""A small graph of whose builds the registers are tested, and its drivers."""

from __future__ import annotations

import numpy as np

from n2uq_hw.ir import Graph, Input, MatVec, Saturate, SlidingWindow

__all__ = ["IMAGES", "integers", "small"]

IMAGES = 5


def small() -> Graph:
    """Signed pixels of an odd width, windows, and results that saturate."""
    rng = np.random.default_rng(4)
    return Graph("counted", (
        Input("x", shape=(4, 5, 3), lo=-9, hi=9), SlidingWindow("windows", ("x",), kernel=(3, 3)),
        MatVec("layer", ("windows",), weights=rng.integers(-2, 3, (4, 27))),
        Saturate("held", ("layer",), lo=-30, hi=30))).verify()


def integers(bits: np.ndarray) -> list[int]:
    """Beats as Python's integers, which have any width."""
    return [int.from_bytes(row.tobytes(), "little")
            for row in np.packbits(bits, axis=1, bitorder="little")]
