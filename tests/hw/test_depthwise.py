# amaranth: UnusedElaboratable=no
"""DepthwiseMatVecUnit against the golden model at every accumulator's extremes; its timing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike
from units import (
    Bench,
    Case,
    bench_of,
    bit_exact,
    case,
    edge_of,
    images_on,
    stream_rules,
)

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.depthwise import DepthwiseMatVecUnit
from n2uq_hw.hw.stream import shape_for
from n2uq_hw.hw.sum_pool import SumPoolUnit
from n2uq_hw.ir import DepthwiseMatVec, SumPool, infer


def depthwise(name: str, weights: np.ndarray, pe: int, lo: ArrayLike = 0, hi: ArrayLike = 3
              ) -> Case:
    """Windows that drive all accumulators to both ends after each position, and random ones."""
    positions, channels = weights.shape
    node = DepthwiseMatVec(f"{name}_p{positions}_c{channels}_pe{pe}", weights=weights)
    edge = edge_of((1, 2, weights.size), lo, hi)
    w, position = weights.reshape(-1), np.arange(weights.size) // channels
    up, down = np.where(w > 0, edge.hi, edge.lo), np.where(w > 0, edge.lo, edge.hi)
    rows = [np.where(position <= end, *ends) for end in range(positions)
            for ends in ((up, down), (down, up))]
    images = np.concatenate([np.reshape(rows, (-1, *edge.shape)), images_on(edge, 4, pe)])
    return case(node, edge, lambda out: DepthwiseMatVecUnit(node, edge, out, pe=pe), images)


def cases() -> list[Case]:
    rng = np.random.default_rng(0)
    ranges = [(0, 3), (0, 1), (-4, 3), (-1, 0), (0, 255), (-128, 127), (-3, 9), (2, 5)]
    shapes = [(9, 6, 1), (9, 6, 2), (9, 6, 6), (1, 4, 2), (25, 3, 1), (4, 1, 1), (1, 1, 1),
              (6, 8, 4)]
    units = []
    for bits, ((positions, channels, pe), (lo, hi)) in enumerate(
            zip(shapes, ranges, strict=True), 1):
        weights = 2 * rng.integers(0, 2**bits, (positions, channels)) - (2**bits - 1)
        units.append(depthwise(f"odd{bits}", weights, pe, lo, hi))
    for kind, weights in {
            "zero": np.zeros((4, 4)), "even": 2 * rng.integers(-2, 3, (4, 4)),
            "ternary": rng.integers(-1, 2, (4, 4)), "ones": np.ones((4, 4)),
            "positive": rng.integers(1, 5, (4, 4)), "negative": rng.integers(-4, 0, (4, 4)),
            "far": rng.integers(100, 104, (4, 4)), "int8": rng.integers(-128, 128, (4, 4))}.items():
        units.append(depthwise(kind, weights.astype(np.int8), 2))
    lo, hi = rng.integers(-9, 3, 24), rng.integers(3, 9, 24)
    units += [depthwise("ranges", rng.integers(-9, 10, (4, 6)), pe, lo, hi) for pe in (1, 3)]
    # Only the whole sum is positive: what is partial needs a sign.
    units.append(depthwise("cancel", np.array([[-3], [3]]), 1, [0, 9], [3, 12]))
    return units


bench = bench_of(cases)
test_bit_exact, test_stream_rules = bit_exact, stream_rules


def test_timing(bench: Bench) -> None:
    for name, (accepted, emitted) in bench.timing.items():
        unit = bench.cases[name].unit
        last = accepted.reshape(-1, len(unit.node.weights), unit.groups)[:, -1].reshape(-1)
        assert np.array_equal(accepted, np.arange(len(accepted))), name
        assert np.array_equal(emitted, last + 4), name


def test_accumulators_reach_their_range() -> None:
    """The pool's partial sums have the exact range: the images reach both ends of it."""
    for c in cases():
        weights, unit = c.unit.node.weights.astype(np.int64), c.unit
        sums = (c.images.reshape(-1, *weights.shape) * weights).cumsum(axis=1)
        pool = SumPoolUnit(SumPool("sum", positions=len(weights)), unit.products, unit.out, pe=1)
        assert pool.partial.elem_shape == shape_for(int(sums.min()), int(sums.max())), c.name


@pytest.mark.parametrize("pe", [0, 5, 72])
def test_bad_folding(pe: int) -> None:
    node = DepthwiseMatVec("conv1", weights=np.ones((9, 8), np.int8))
    edge = edge_of((1, 1, 72), 0, 3)
    with pytest.raises(N2uqError, match=f"^conv1: PE must divide the 8 channels, not {pe}$"):
        DepthwiseMatVecUnit(node, edge, infer(node, edge), pe=pe)
