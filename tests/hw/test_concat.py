# amaranth: UnusedElaboratable=no
"""ConcatUnit against the golden model, and its timing."""

from __future__ import annotations

import numpy as np
import pytest
from units import Bench, Case, bit_exact, case, edge_of, stream_rules

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.concat import ConcatUnit
from n2uq_hw.ir import Concat, infer

RANGES = [(0, 3), (-8, 7), (0, 200), (-1, 0), (5, 5)]


def concat(channels: tuple[int, ...], pe: int) -> Case:
    """Inputs of so many channels each, of different ranges."""
    node = Concat(f"concat_{'_'.join(map(str, channels))}_by{pe}")
    edges = [edge_of((2, 3, c), *RANGES[k % len(RANGES)]) for k, c in enumerate(channels)]
    return case(node, edges, lambda out: ConcatUnit(node, edges, out, pe=pe))


CASES = [concat(*each) for each in [
    ((1, 1), 1), ((1, 1), 2), ((4, 4), 1), ((4, 4), 4), ((4, 4), 8), ((2, 6), 2), ((6, 2), 1),
    ((6, 2), 8), ((3, 5), 1), ((3, 5), 8), ((4, 2, 6), 2), ((4, 2, 6), 1), ((4, 2, 6), 12),
    ((1, 1, 1, 1, 1), 1), ((1, 2, 3, 4, 5, 6), 1), ((1, 2, 3, 4, 5, 6), 21), ((9, 3, 3), 3)]]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(CASES, tmp_path_factory)


test_bit_exact, test_stream_rules = bit_exact, stream_rules


def test_timing(bench: Bench) -> None:
    """A beat leaves one cycle after it came, and one leaves in each cycle."""
    for c in bench.cases.values():
        accepted, emitted = bench.timing[c.name]
        inputs = [images.shape[3] for images in (c.images, *c.more)]
        pe, total = c.unit.o.payload.shape().length, sum(inputs)
        first = np.arange(total // pe) < max(inputs[0] // pe, 1)  # beats of the first input
        assert np.array_equal(emitted, 1 + np.arange(len(emitted))), c.name
        takes = np.flatnonzero(np.tile(first, len(emitted) // len(first)))
        assert np.array_equal(accepted, takes), c.name


@pytest.mark.parametrize("pe", [0, 3, 4, 6])
def test_bad_folding(pe: int) -> None:
    edges = [edge_of((2, 2, 4), 0, 3), edge_of((2, 2, 6), 0, 3)]
    node = Concat("cat")
    with pytest.raises(N2uqError, match="^cat: PE must divide the 2 channels common to all inputs, "
                                        f"not {pe}$"):
        ConcatUnit(node, edges, infer(node, *edges), pe=pe)
