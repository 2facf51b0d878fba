"""A net of groups, a shuffle, dilation, upsampling, blocks and joins: planned, built, simulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from n2uq_hw import ir
from n2uq_hw.builds.emit import emit, load_build
from n2uq_hw.builds.verify import verify
from n2uq_hw.ir import golden
from n2uq_hw.plan.choice import choose, load_folding, save_folding, unrolled
from n2uq_hw.plan.problem import Problem, prices
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.sim.timing.forecast import forecast

RNG = np.random.default_rng(0)


def weights(outputs: int, inputs: int) -> np.ndarray:
    return 2 * RNG.integers(0, 4, (outputs, inputs)) - 3


def quantizer(name: str, x: str, channels: int) -> ir.Threshold:
    at = np.sort(RNG.integers(-20, 20, (channels, 3)), axis=1)
    return ir.Threshold(name, (x,), thresholds=at, signs=np.ones_like(at, np.int8))


NET = ir.Graph("any", (
    ir.Input("x", shape=(6, 8, 4), lo=0, hi=3), ir.Pad("pad1", ("x",), frame=(1, 1, 1, 1)),
    ir.SlidingWindow("window1", ("pad1",), kernel=(3, 3), groups=2),
    ir.MatVec("conv1", ("window1",), weights=weights(8, 18), groups=2), quantizer("q1", "conv1", 8),
    ir.Permute("shuffle", ("q1",), order=np.arange(8).reshape(2, 4).T.reshape(-1)),
    ir.SlidingWindow("window2", ("shuffle",), kernel=(2, 2), stride=(2, 2)),
    ir.MaxPool("pool", ("window2",), positions=4), ir.Pad("pad3", ("pool",), frame=(2, 2, 2, 2)),
    ir.SlidingWindow("window3", ("pad3",), kernel=(3, 3), dilation=(2, 2)),
    ir.MatVec("conv3", ("window3",), weights=weights(8, 72)), quantizer("q3", "conv3", 8),
    ir.Upsample("up", ("q3",), factor=(2, 2)), ir.Concat("side", ("up", "q1", "x")),
    ir.MatVec("conv4", ("side",), weights=weights(8, 20)), quantizer("q4", "conv4", 8),
    ir.DepthToSpace("blocks", ("q4",), block=2, mode="CRD"),
    ir.MatVec("conv5", ("blocks",), weights=weights(3, 2)))).verify()
IMAGES = RNG.integers(0, 4, (6, 4, 6, 8))


def test_it_is_planned_and_priced(tmp_path: Path) -> None:
    for family in ("xcup", "ecp5"):
        problem = Problem(NET, family)
        for cycles in (600, 1500):
            folding = problem.within(cycles)
            assert forecast(NET, size_fifos(NET, folding).folding).cycles_per_image <= cycles
            assert all(cost.lut >= 0 for cost in prices(NET, folding, family).values())
    save_folding(folding, NET, tmp_path / "f.yaml")
    assert load_folding(tmp_path / "f.yaml", NET) == folding


def test_it_is_in_a_file_as_it_is(tmp_path: Path) -> None:
    NET.save(tmp_path / "net")
    graph = ir.load_graph(tmp_path / "net")
    assert graph.digest == NET.digest
    assert (graph.forward(IMAGES) == NET.forward(IMAGES)).all()


@pytest.mark.slow
@pytest.mark.parametrize("make", [choose, unrolled])
def test_it_is_bit_exact(make, tmp_path: Path) -> None:
    emit(NET, size_fifos(NET, make(NET)), tmp_path / "b", IMAGES[:3], None)
    build = load_build(tmp_path / "b")
    assert np.array_equal(build.vectors["expected"],
                          golden.run(NET, IMAGES[:3].transpose(0, 2, 3, 1)))
    for stalls in (0.0, 0.4):
        verdict = verify(build, IMAGES, None, stalls=stalls, seed=3)
        assert not verdict.mismatches, verdict.first_mismatch
        if not stalls:
            assert verdict.cycles_per_image == forecast(NET, build.folding,
                                                        images=6).cycles_per_image
