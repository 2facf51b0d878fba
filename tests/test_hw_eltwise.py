# amaranth: UnusedElaboratable=no
"""ScaleUnit and ArgMaxUnit against the golden model, and their timing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike
from units import SCENARIOS, Bench, Case, case, edge_of

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.eltwise import ArgMaxUnit, ScaleUnit
from n2uq_hw.ir import ArgMax, Scale, infer


def scale(name: str, multiplier: ArrayLike, offset: ArrayLike, shift: int, pe: int,
          lo: ArrayLike = -20, hi: ArrayLike = 23) -> Case:
    """Every integer of the range of each of 6 channels."""
    node = Scale(f"scale_{name}", multiplier=np.array(multiplier, np.int64), shift=shift,
                 offset=np.array(offset, np.int64))
    edge = edge_of((1, int(np.max(hi) - np.min(lo)) + 1, 6), lo, hi)
    values = np.arange(np.min(lo), np.max(hi) + 1)[:, None]
    return case(node, edge, lambda out: ScaleUnit(node, edge, out, pe=pe),
                np.clip(values, edge.lo, edge.hi).reshape(1, *edge.shape))


def argmax(name: str, channels: int, pe: int, lo: ArrayLike, hi: ArrayLike) -> Case:
    """Images with ties and, for each element, one where it is the largest."""
    node, edge = ArgMax(f"argmax_{name}"), edge_of((1, 1, channels), lo, hi)
    rng = np.random.default_rng(channels * 31 + pe)
    images = rng.integers(edge.lo, edge.hi + 1, (channels + 20, 1, 1, channels))
    images[:channels, 0, 0] = np.where(np.eye(channels, dtype=bool), edge.hi, edge.lo)
    images[-2], images[-1] = edge.lo, edge.hi
    return case(node, edge, lambda out: ArgMaxUnit(node, edge, out, pe=pe), images)


def scales() -> list[Case]:
    rng = np.random.default_rng(0)
    anyhow = rng.integers(-300, 300, (2, 6))
    return [
        scale("same", [1], [0], 0, 1), scale("half", [1], [1], 1, 2),
        scale("down", [-7], [4], 3, 6),
        scale("channels", anyhow[0], anyhow[1], 5, 3), scale("offsets", [3], anyhow[1], 2, 1),
        scale("multipliers", anyhow[0], [-1], 4, 6), scale("nothing", [0], [0], 4, 2),
        scale("constant", [0] * 6, anyhow[1], 2, 3), scale("gone", anyhow[0], anyhow[1], 40, 2),
        scale("wide", [2**30 - 1], [-2**38], 12, 2), scale("unsigned", [5], [3], 1, 1, 0, 63),
        scale("negative", [-5], [3], 1, 6, -9, -1), scale("one", anyhow[0], [0], 0, 2, 7, 7),
        scale("ranges", anyhow[0], anyhow[1], 3, 2, [-9, -5, 0, 3, -1, -7], [-5, 2, 3, 9, 0, 9])]


def argmaxes() -> list[Case]:
    return [
        argmax("ten_by_1", 10, 1, -5, 5), argmax("ten_by_2", 10, 2, -5, 5),
        argmax("ten_by_10", 10, 10, -5, 5), argmax("single", 1, 1, 0, 3),
        argmax("two", 2, 1, 0, 1), argmax("negative", 6, 3, -9, -2),
        argmax("unsigned", 12, 4, 0, 2), argmax("wide", 7, 7, -10**9, 10**9),
        argmax("many", 100, 5, -3, 3), argmax("equal", 6, 2, 4, 4),
        argmax("ranges", 6, 2, [-9, -5, 0, 3, -1, -7], [-5, 2, 3, 9, 0, 9])]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(scales() + argmaxes(), tmp_path_factory)


@pytest.mark.parametrize("source,sink,resets", SCENARIOS)
def test_bit_exact(bench: Bench, source: float, sink: float, resets: tuple[int, ...]) -> None:
    bench.run(source, sink, resets)


def test_stream_rules(bench: Bench) -> None:
    bench.check_rules()


def test_timing(bench: Bench) -> None:
    for name, (given, made) in bench.timing.items():
        unit = bench.cases[name].unit
        assert np.array_equal(given, np.arange(len(given))), name
        expected = (given + 3 if isinstance(unit, ScaleUnit)
                    else given[unit.beats - 1::unit.beats] + 1)
        assert np.array_equal(made, expected), name


@pytest.mark.parametrize("pe", [0, 4, 20])
def test_bad_folding(pe: int) -> None:
    edge = edge_of((1, 1, 10), 0, 3)
    for node, unit, what in ((Scale("s1"), ScaleUnit, "channels"),
                             (ArgMax("s1"), ArgMaxUnit, "elements")):
        with pytest.raises(N2uqError, match=f"^s1: PE must divide the 10 {what}, not {pe}$"):
            unit(node, edge, infer(node, edge), pe=pe)
