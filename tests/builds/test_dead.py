"""Dead channels, dead layers, thresholds without steps: every command, every bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from marks import few

from n2uq_hw.builds.emit import emit, load_build
from n2uq_hw.builds.verify import verify
from n2uq_hw.hw.accelerator import Accelerator
from n2uq_hw.ir import DepthwiseMatVec, Graph, Input, MatVec, SlidingWindow, Threshold, golden
from n2uq_hw.ir.folding import STYLES, Folding, ThresholdFold
from n2uq_hw.plan.choice import choose, load_folding, save_folding, unrolled
from n2uq_hw.plan.problem import Problem, prices
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.sim.timing.forecast import forecast

RNG = np.random.default_rng(5)
WINDOW = SlidingWindow("window", ("x",), kernel=(2, 2))
ODD = RNG.choice(np.int8([-3, -1, 1, 3]), (4, 8))


def threshold(name: str, read: str, steps: list[list[int]], signs: list[list[int]],
              base: list[int]) -> Threshold:
    return Threshold(name, (read,), np.array(steps, np.int64), np.array(signs, np.int8),
                     np.array(base, np.int64))


def graph(name: str, weights: np.ndarray, quantizer: Threshold, *, lo: int = 0, hi: int = 3,
          depthwise: bool = False) -> Graph:
    """Windows of a 3 × 4 image of 2 channels, an MVU with `quantizer`, and one more behind it."""
    kind = DepthwiseMatVec if depthwise else MatVec
    channels = weights.shape[1] if depthwise else len(weights)
    return Graph(name, (
        Input("x", shape=(3, 4, 2), lo=lo, hi=hi), WINDOW,
        kind("conv", ("window",), weights), replace(quantizer, inputs=("conv",)),
        MatVec("head", (quantizer.name,), RNG.choice(np.int8([-1, 1]), (3, channels))))).verify()


NONE = [[]] * 4
GRAPHS = [
    graph("constant", ODD, threshold("q", "", NONE, NONE, [3, 3, 3, 3])),
    graph("levels", ODD, threshold("q", "", NONE, NONE, [0, 3, 1, 2])),
    graph("far_levels", ODD, threshold("q", "", NONE, NONE, [-9, 250, 0, 0])),
    graph("one_lives", ODD, threshold("q", "", [[-2, 1, 5]] * 4,
                                      [[0, 0, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0]], [2, 0, 0, 3])),
    graph("beyond", ODD, threshold("q", "", [[-900, 900, 901]] * 4, [[1, 1, 1]] * 4, [0, 1, 0, 2])),
    graph("no_weights", np.zeros((4, 8), np.int8),
          threshold("q", "", [[0, 1, 2]] * 4, [[1, 1, 1]] * 4, [0, 0, 1, 2])),
    graph("no_input", ODD, threshold("q", "", [[-5, 0, 5]], [[1, 1, 1]], [0]), lo=2, hi=2),
    graph("depthwise", ODD[:, :2], threshold("q", "", NONE[:2], NONE[:2], [0, 3]), depthwise=True),
    graph("one_channel", ODD[:1], threshold("q", "", [[]], [[]], [2])),
]


def styled(style: str) -> Callable[[Graph], Folding]:
    return lambda graph: {
        name: replace(fold, style=style) if isinstance(fold, ThresholdFold) else fold
        for name, fold in choose(graph, 30).items()}


def paired(graph: Graph) -> Folding:
    return {name: replace(fold, form="pairs") if name == "conv" and fold.simd % 2 == 0 else fold
            for name, fold in choose(graph, 30).items()}


FOLDINGS: dict[str, Callable[[Graph], Folding]] = {
    **{style: styled(style) for style in STYLES}, "pairs": paired, "unrolled": unrolled}


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_it_is_planned_priced_and_timed(graph: Graph, tmp_path: Path) -> None:
    for family in ("xcup", "ecp5"):
        problem = Problem(graph, family)
        for cycles in (30, 100):
            folding = problem.within(cycles)
            assert forecast(graph, folding).cycles_per_image <= cycles
            assert all(cost.lut >= 0 for cost in prices(graph, folding, family).values())
    save_folding(folding, graph, tmp_path / "f.yaml")
    assert load_folding(tmp_path / "f.yaml", graph) == folding
    for make in FOLDINGS.values():
        Accelerator(graph, make(graph))


SIMULATED = [*((graph, folding) for graph in (GRAPHS[1], GRAPHS[3], GRAPHS[5])
               for folding in FOLDINGS), (GRAPHS[7], "parallel"), (GRAPHS[8], "search")]


QUICK = ("levels-parallel", "one_lives-search", "no_weights-pairs")


@pytest.mark.parametrize("graph,folding", few(
    SIMULATED, lambda each: f"{each[0].name}-{each[1]}" in QUICK),
                         ids=[f"{graph.name}-{folding}" for graph, folding in SIMULATED])
def test_it_is_bit_exact(graph: Graph, folding: str, tmp_path: Path) -> None:
    node = graph.input
    images = np.random.default_rng(1).integers(node.lo, node.hi + 1, (30, 2, 3, 4))
    emit(graph, size_fifos(graph, FOLDINGS[folding](graph)), tmp_path / "b", images[:4], None)
    build = load_build(tmp_path / "b")
    assert np.array_equal(build.vectors["expected"],
                          golden.run(graph, images[:4].transpose(0, 2, 3, 1)))
    for stalls in (0.0, 0.4):
        verdict = verify(build, images, None, stalls=stalls, seed=3)
        assert not verdict.mismatches, verdict.first_mismatch
        if not stalls:
            assert verdict.cycles_per_image == forecast(graph, build.folding,
                                                        images=30).cycles_per_image
