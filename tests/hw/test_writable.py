"""Tables that are written and switched while images run: every bit, in the same cycle."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from writables import Swapped, other

import n2uq_hw as n2
from n2uq_hw import ir
from n2uq_hw.builds import emit
from n2uq_hw.builds.verify import verify
from n2uq_hw.hw import accelerator, control
from n2uq_hw.hw import writable as hw_writable
from n2uq_hw.ir import writable
from n2uq_hw.ir.folding import DepthwiseFold, Fold, Folding, MatVecFold, ThresholdFold
from n2uq_hw.lowering.lower import lower
from n2uq_hw.plan.choice import choose
from n2uq_hw.train.fit import RECIPES, train

pytestmark = pytest.mark.slow  # compile simulators


def _reasons(folder: Path) -> list[str]:
    return re.findall("^.*(?:Error|FAIL).*$", (folder / "said").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name,cycles,alone", [("digits_mlp_w2a2", 256, 230),
                                               ("digits_cnn_w2a2", 2304, 100)])
def test_a_shipped_network_gets_other_trainings_under_traffic(
        tmp_path: Path, name: str, cycles: int, alone: int) -> None:
    """One that was trained anew, and a random one; a bit that is wrong in one word is noticed."""
    trained = n2.lower(name)
    retrained = lower(train(name, replace(RECIPES[name], seed=5, epochs=3), quiet=True))
    graph = writable(trained, "all")
    images = np.random.default_rng(3).integers(0, 17, (40, 1, 8, 8))
    swapped = Swapped(graph, choose(graph, cycles), images, tmp_path,
                      [trained, retrained, other(trained, 2)])
    results = [each.graph.forward(images) for each in swapped.tables]
    assert all((a != b).any(axis=1).all() for a, b in pairwise(results))
    failed = swapped.failures(tmp_path, "alone", "swapped", "back_and_forth", "refused",
                              "soft_reset", "no_word", "miswritten", alone=alone)
    assert failed == ["miswritten"], _reasons(tmp_path)


def _every_kind() -> tuple[ir.Graph, Folding]:
    """Windows, depthwise and grouped products, both styles of thresholds, both kinds of bent lines,
    ties, signed weights."""
    rng = np.random.default_rng(11)
    size = {"thresholds": (6, 3), "signs": (6, 3), "base": (6,)}

    def steps(name: str, reads: str, far: int) -> ir.Threshold:
        return ir.Threshold(name, (reads,), np.sort(rng.integers(-far, far, size["thresholds"])),
                            np.ones(size["signs"], np.int8), np.zeros(size["base"], np.int64))

    graph = ir.Graph("kinds", (
        ir.Input("x", shape=(5, 4, 3), lo=-8, hi=7),
        ir.SlidingWindow("w1", ("x",), kernel=(2, 2)),
        ir.MatVec("conv", ("w1",), rng.integers(-3, 3, (6, 12))),
        steps("q1", "conv", 30), ir.SlidingWindow("w2", ("q1",), kernel=(2, 2)),
        ir.DepthwiseMatVec("depth", ("w2",), 2 * rng.integers(0, 8, (4, 6)) - 7),
        steps("q2", "depth", 12), ir.MatVec("grouped", ("q2",), rng.integers(-7, 8, (4, 3)), 2),
        ir.PiecewiseLinear("prelu", ("grouped",), np.array([-9, 0, 12, 30]), shift=4,
                           multiplier=np.array([[3, -5, 9, 15], [16] * 4]),
                           offset=rng.integers(-90, 90, (2, 4))),
        ir.PiecewiseLinear("lines", ("prelu",), np.array([-20, 7, 0, 4]), shift=3,
                           multiplier=np.array([[3, -5, 9, 15], [5, 2, -1, -7]]),
                           offset=rng.integers(-40, 40, (2, 4))),
        ir.Scale("y", ("lines",), np.array([9, 5, 7, 3]), np.array([40, -9, 3, 0]), shift=3,
                 ties="even"))).verify()
    folds = {"x": Fold(3), "w1": Fold(3), "conv": MatVecFold(2, simd=6, form="pairs"),
             "q1": ThresholdFold(3, style="parallel"), "w2": Fold(2), "depth": DepthwiseFold(2),
             "q2": ThresholdFold(2, style="search"), "grouped": MatVecFold(1, simd=3),
             "prelu": Fold(2), "lines": Fold(1), "y": Fold(2)}
    return graph, folds


@pytest.mark.parametrize("most", [None, 1])
def test_every_kind_of_parameters(tmp_path: Path, most: int | None,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where units can tell only so few images apart that some must wait, of tables in files.
    """
    if most:
        monkeypatch.setattr(hw_writable, "FILE_WORDS", 1)
        for module in (hw_writable, control, emit, accelerator):
            monkeypatch.setattr(module, "INDEX_BITS", most)
    trained, folds = _every_kind()
    images = np.random.default_rng(5).integers(-8, 8, (30, 3, 5, 4))
    swapped = Swapped(writable(trained, "all"), folds, images, tmp_path,
                      [trained, other(trained, 1), other(trained, 2)])
    tests = "alone", "swapped", "back_and_forth", "refused", "soft_reset"
    hexes = [path for path in swapped.build.verilog if path.suffix == ".hex"]
    assert len(hexes) == len(swapped.tables[0].columns) * bool(most)
    assert swapped.failures(tmp_path, *tests) == [], _reasons(tmp_path)
    verdict = verify(swapped.build, images, None, stalls=0.2)
    assert verdict.mismatches == 0


@pytest.mark.parametrize("what", ["weights", "thresholds"])
def test_a_part_of_the_parameters(tmp_path: Path, what: str) -> None:
    """What is not written stays as it is."""
    trained, folds = _every_kind()
    kinds = ir.WRITABLE[what]

    def part(seed: int) -> ir.Graph:
        pairs = zip(trained.nodes, other(trained, seed).nodes, strict=True)
        return trained.with_nodes(new if isinstance(new, kinds) else old for old, new in pairs)

    images = np.random.default_rng(5).integers(-8, 8, (30, 3, 5, 4))
    swapped = Swapped(writable(trained, what), folds, images, tmp_path,
                      [trained, part(1), part(2)])
    assert swapped.failures(tmp_path, "alone", "swapped") == [], _reasons(tmp_path)
