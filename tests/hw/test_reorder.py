# amaranth: UnusedElaboratable=no
"""UpsampleUnit, DepthToSpaceUnit and PermuteUnit against the golden model, and their timing."""

from __future__ import annotations

import numpy as np
import pytest
from units import Bench, Case, bit_exact, case, edge_of, stream_rules

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.depth_to_space import DepthToSpaceUnit
from n2uq_hw.hw.permute import PermuteUnit
from n2uq_hw.hw.upsample import UpsampleUnit
from n2uq_hw.ir import DepthToSpace, Permute, Upsample, infer

Shape = tuple[int, int, int]


def upsample(factor: tuple[int, int], shape: Shape, pe: int, lo: int = 0, hi: int = 3) -> Case:
    node = Upsample("up{}x{}_of_{}x{}x{}_by{}".format(*factor, *shape, pe), factor=factor)
    edge = edge_of(shape, lo, hi)
    return case(node, edge, lambda out: UpsampleUnit(node, edge, pe=pe), 4)


def blocks(block: int | tuple[int, int], mode: str, shape: Shape, pe: int, lo: int = 0,
           hi: int = 3) -> Case:
    sides = block if isinstance(block, int) else "x".join(map(str, block))
    node = DepthToSpace("{}{}_of_{}x{}x{}_by{}".format(mode, sides, *shape, pe), block=block,
                        mode=mode)
    edge = edge_of(shape, lo, hi)
    return case(node, edge, lambda out: DepthToSpaceUnit(node, edge, out, pe=pe), 4)


def permute(order: list[int], channels: int, pe: int) -> Case:
    """Each channel with a range of its own."""
    node = Permute(f"order_{'_'.join(map(str, order))}_by{pe}", order=np.array(order))
    edge = edge_of((2, 3, channels), -3 * np.arange(channels), 5)
    return case(node, edge, lambda out: PermuteUnit(node, edge, out, pe=pe))


CASES = [
    upsample((1, 1), (3, 4, 2), 1), upsample((2, 2), (3, 4, 2), 1), upsample((2, 2), (3, 4, 2), 2),
    upsample((3, 2), (2, 5, 6), 2, -4, 3), upsample((1, 3), (3, 4, 4), 2),
    upsample((2, 1), (3, 4, 4), 1, -128, 127), upsample((4, 4), (1, 1, 3), 3),
    upsample((1, 2), (1, 7, 4), 1), upsample((1, 1), (1, 1, 1), 1), upsample((2, 3), (4, 1, 2), 2),
    upsample((3, 1), (5, 6, 2), 2), upsample((1, 1), (3, 4, 4), 4),
    blocks(2, "DCR", (3, 4, 8), 1), blocks(2, "DCR", (3, 4, 8), 2, -4, 3),
    blocks(2, "CRD", (3, 4, 8), 1), blocks(2, "CRD", (3, 4, 8), 2, 0, 255),
    blocks(3, "DCR", (2, 3, 9), 1), blocks(3, "CRD", (2, 3, 27), 3), blocks(3, "CRD", (2, 3, 9), 1),
    blocks(1, "DCR", (3, 4, 2), 1), blocks(1, "CRD", (3, 4, 2), 2), blocks(4, "DCR", (1, 1, 16), 1),
    blocks(2, "CRD", (1, 5, 24), 3, -9, 9), blocks(2, "DCR", (5, 1, 4), 1),
    blocks((3, 1), "DCR", (2, 3, 6), 2), blocks((1, 3), "CRD", (3, 2, 6), 1),
    blocks((2, 3), "CRD", (1, 1, 12), 2), blocks((3, 2), "DCR", (3, 2, 6), 1),
    permute([1, 0], 2, 1), permute([1, 0], 2, 2), permute([0, 2, 4, 1, 3, 5], 6, 1),
    permute([5, 3, 1, 0, 2, 4], 6, 2), permute([5, 4, 3, 2, 1, 0], 6, 6), permute([0], 1, 1),
    permute([3, 0], 4, 2), permute([2, 3], 4, 1), permute([0, 0, 1, 1], 2, 1),
    permute([0, 1, 0, 2, 1, 1], 3, 3), permute([4, 1, 2], 5, 3), permute([4, 1, 2], 5, 1),
    permute([1, 0, 2, 2], 4, 4)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(CASES, tmp_path_factory)


test_bit_exact, test_stream_rules = bit_exact, stream_rules


def test_timing(bench: Bench) -> None:
    for c in bench.cases.values():
        _, emitted = bench.timing[c.name]
        per_image, pe = len(emitted) // len(c.images), c.unit.o.payload.shape().length
        cycles = set(np.diff(emitted[per_image - 1::per_image]).tolist())
        if isinstance(c.unit, PermuteUnit):
            (height, width, outputs), inputs = c.expected.shape[1:], c.images.shape[3]
            pixel = 1 if pe == outputs else max(inputs, outputs) // pe
            first = 1 if pe == outputs else inputs // pe + (pe < inputs)
            assert cycles == {height * width * pixel}, c.name
            assert emitted[0] == first, c.name
        else:
            assert cycles == {per_image}, c.name
            if isinstance(c.unit, UpsampleUnit) or not c.unit.order:
                assert emitted[0] == 2, c.name


def test_bad_folding() -> None:
    edge = edge_of((2, 2, 8), 0, 3)
    order, block = Permute("x", order=np.arange(6)), DepthToSpace("x", block=2)
    with pytest.raises(N2uqError, match=r"^x: PE must divide the 8 input channels, not 3$"):
        PermuteUnit(order, edge, infer(order, edge), pe=3)
    with pytest.raises(N2uqError, match=r"^x: PE must divide the 6 output channels, not 4$"):
        PermuteUnit(order, edge, infer(order, edge), pe=4)
    with pytest.raises(N2uqError, match=r"^x: PE must divide the 2 channels, not 4$"):
        DepthToSpaceUnit(block, edge, infer(block, edge), pe=4)
    with pytest.raises(N2uqError, match=r"^x: PE must divide the 8 channels, not 3$"):
        UpsampleUnit(Upsample("x"), edge, pe=3)
