# amaranth: UnusedElaboratable=no
"""MaxPoolUnit and SumPoolUnit against the golden model, and their timing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike
from units import Bench, Case, bench_of, bit_exact, case, edge_of, stream_rules

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.max_pool import MaxPoolUnit
from n2uq_hw.hw.sum_pool import SumPoolUnit
from n2uq_hw.ir import MaxPool, SumPool, infer

KINDS = {"max": (MaxPool, MaxPoolUnit), "sum": (SumPool, SumPoolUnit)}


def pool(kind: str, positions: int, channels: int, pe: int, lo: ArrayLike, hi: ArrayLike,
         name: str = "") -> Case:
    make, unit = KINDS[kind]
    node = make(f"{kind}{name}_p{positions}_c{channels}_pe{pe}", positions=positions)
    edge = edge_of((2, 3, positions * channels), lo, hi)
    return case(node, edge, lambda out: unit(node, edge, out, pe=pe), 4)


def cases() -> list[Case]:
    rng = np.random.default_rng(0)
    units = []
    for kind in KINDS:
        for n, (positions, channels, pe) in enumerate([
                (4, 6, 1), (4, 6, 2), (4, 6, 6), (9, 5, 1), (9, 5, 5), (2, 4, 2), (1, 4, 2),
                (1, 1, 1), (49, 3, 1), (25, 8, 4), (6, 4, 4), (4, 6, 24), (9, 1, 9), (2, 3, 6),
                (5, 2, 10)]):
            lo, hi = [(0, 3), (-4, 3), (-8, -1), (0, 255), (-128, 127), (5, 6)][n % 6]
            units.append(pool(kind, positions, channels, pe, lo, hi))
        # Positions of other ranges: what is partial leaves the range of the whole.
        units += [pool(kind, 3, 2, 1, [-9, -9, 0, 0, 2, 2], [-1, 9, 9, 9, 9, 9], "_late"),
                  pool(kind, 3, 2, 2, [50, 50, -50, -50, 2, 2], [60, 60, -40, -40, 9, 9], "_up"),
                  pool(kind, 2, 2, 1, [-9, -9, 9, 9], [-1, -1, 19, 19], "_cancel")]
        ends = np.sort(rng.integers(-99, 99, (2, 24)), axis=0)
        units += [pool(kind, 4, 6, 3, *ends, "_any"), pool(kind, 24, 1, 1, *ends, "_any"),
                  pool(kind, 4, 6, 24, *ends, "_any"), pool(kind, 24, 1, 24, *ends, "_any")]
    return units


bench = bench_of(cases)
test_bit_exact, test_stream_rules = bit_exact, stream_rules


def test_timing(bench: Bench) -> None:
    for name, (accepted, emitted) in bench.timing.items():
        unit = bench.cases[name].unit
        last = accepted.reshape(-1, unit.positions, unit.groups)[:, -1].reshape(-1)
        assert np.array_equal(accepted, np.arange(len(accepted))), name
        assert np.array_equal(emitted, last + 1), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pe", [0, 5, 18])
def test_bad_folding(kind: str, pe: int) -> None:
    make, unit = KINDS[kind]
    node, edge = make("pool1", positions=9), edge_of((1, 1, 36), 0, 3)
    with pytest.raises(N2uqError, match=f"^pool1: PE must divide the 4 channels, not {pe}$"):
        unit(node, edge, infer(node, edge), pe=pe)
