# amaranth: UnusedElaboratable=no
"""ThresholdUnit in both styles against the golden model at every integer of its range."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike
from units import Bench, Case, bench_of, bit_exact, case, edge_of, stream_rules

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.threshold import ThresholdUnit, comparator_table, search_table
from n2uq_hw.ir import Edge, Threshold, golden, infer
from n2uq_hw.ir.folding import STYLES

LO, HI = -20, 23


def steps(name: str, thresholds: ArrayLike, signs: ArrayLike, base: ArrayLike) -> Threshold:
    t = np.array(thresholds, np.int64)
    return Threshold(name, thresholds=t, signs=np.broadcast_to(np.array(signs, np.int8), t.shape),
                     base=np.array(base, np.int64))


def nodes() -> list[Threshold]:
    """Step functions of 6 channels on LO..HI, or of one for all."""
    rng = np.random.default_rng(3)

    def at(channels: int, size: int, beyond: int = 0) -> np.ndarray:
        return np.sort(rng.integers(LO - beyond, HI + 2 + beyond, (channels, size)))

    mixed = rng.choice([-1, 1], (6, 9))
    return [
        steps("up", at(6, 3), 1, np.zeros(6)), steps("up_all", at(1, 3), 1, [0]),
        steps("down", at(6, 3), -1, np.full(6, 3)), steps("down_all", at(1, 7), -1, [7]),
        steps("vee", at(6, 6), [-1, -1, -1, 1, 1, 1], np.full(6, 3)),
        steps("vee_all", at(1, 6), [1, 1, 1, -1, -1, -1], [-2]),
        steps("mixed", at(6, 9), mixed, rng.integers(-5, 9, 6)),
        steps("unused", at(6, 9), mixed * rng.integers(0, 2, (6, 9)), rng.integers(-5, 9, 6)),
        steps("up_or_down", at(6, 3), np.repeat([[1], [-1]], 3, axis=0), [0, 0, 0, 3, 3, 3]),
        steps("bases", at(6, 2), 1, rng.integers(-9, 40, 6)),
        steps("one_base", at(6, 2), 1, [5]), steps("only_bases", np.zeros((1, 0)), 1, range(6)),
        steps("shared_steps", at(1, 4), [1, 1, -1, 1], rng.integers(-3, 4, 6)),
        steps("none", np.zeros((6, 0)), 1, np.full(6, 2)), steps("none_all", np.zeros((1, 0)), 1,
                                                                 [-3]),
        steps("none_bases", np.zeros((6, 0)), 1, np.arange(6)),
        steps("outside", at(6, 5, 60), rng.choice([-1, 0, 1], (6, 5)), np.zeros(6)),
        steps("far", [[-10**12, -5, 10**15]] * 6, [[1, -1, 1]] * 6, np.zeros(6)),
        steps("far_all", [[-10**12, -5, 10**15]], [[1, -1, 1]], [0]),
        steps("ends", [[LO, LO + 1, HI, HI + 1]] * 6, 1, np.zeros(6)),
        steps("equal", np.repeat(at(6, 2), 2, axis=1), [1, 1, 1, -1], np.zeros(6)),
        steps("unsorted", rng.permuted(at(6, 7), axis=1), rng.choice([-1, 1], (6, 7)),
              np.zeros(6)),
        steps("bits8", at(1, 40), rng.choice([-1, 1], (1, 40)), [100]),
        steps("bits4", at(6, 15), 1, np.zeros(6))]


def every_integer(edge: Edge) -> np.ndarray:
    """One image: its pixels are the range of each channel, from both ends of the whole."""
    values = np.arange(edge.lo.min(), edge.hi.max() + 1)[:, None]
    return np.clip(values, edge.lo, edge.hi).reshape(1, *edge.shape)


def threshold(node: Threshold, pe: int, style: str, lo: ArrayLike = LO, hi: ArrayLike = HI) -> Case:
    node = Threshold(f"{node.name}_{style}_pe{pe}", thresholds=node.thresholds, signs=node.signs,
                     base=node.base)
    edge = edge_of((1, int(np.max(hi) - np.min(lo)) + 1, 6), lo, hi)
    return case(node, edge, lambda out: ThresholdUnit(node, edge, out, pe=pe, style=style),
                every_integer(edge))


def cases() -> list[Case]:
    units = []
    for n, node in enumerate(nodes()):
        # A table that serves all channels serves lanes across pixels as well.
        pe = 11 if node.name == "up_all" else (1, 2, 3, 6)[n // 2 % 4]
        units.append(threshold(node, pe, STYLES[n % 2]))
        if node.name in ("mixed", "unused", "outside", "vee_all"):
            units.append(threshold(node, 2, STYLES[1 - n % 2]))
    for style in STYLES:  # unsigned, negative only, one value only; channels with other ranges
        units += [
            threshold(steps("unsigned", [[1, 7, 30]] * 6, 1, np.zeros(6)), 2, style, 0, 63),
            threshold(steps("negative", [[-7, -3]] * 6, -1, np.zeros(6)), 3, style, -9, -1),
            threshold(steps("one", [[5, 6]] * 6, 1, np.zeros(6)), 1, style, 5, 5),
            threshold(steps("channels", [[-5, 2, 9]] * 6, [-1, 1, 1], np.zeros(6)), 1, style,
                      [-9, -5, 0, 3, -1, -7], [-5, 20, 3, 9, 0, 30])]
    return units


bench = bench_of(cases)
test_bit_exact, test_stream_rules = bit_exact, stream_rules


def test_latency(bench: Bench) -> None:
    for name, (accepted, emitted) in bench.timing.items():
        unit = bench.cases[name].unit
        if unit.style == "search":
            latency = 2 * max(unit.node.signs.shape[1].bit_length(), 1) + 2
        else:
            alike = len(comparator_table(unit.node, unit.edge)[0]) == 1
            latency = 2 if alike or unit.groups == 1 else 4
        assert np.array_equal(accepted, np.arange(len(accepted))), name
        assert np.array_equal(emitted, accepted + latency), name


@pytest.mark.parametrize("node", nodes(), ids=lambda node: node.name)
def test_tables_are_the_step_function(node: Threshold) -> None:
    edge = edge_of((1, HI - LO + 1, 6), LO, HI)
    x = every_integer(edge)
    expected = golden.evaluate(node, (edge,), x)
    t, turn, base = comparator_table(node, edge)
    assert np.array_equal(base + ((x[..., None] >= t) ^ turn).sum(axis=-1), expected)
    t, values = search_table(node, edge)
    assert values.shape[1] == t.shape[1] + 1 and (np.diff(t, axis=1) >= 0).all()
    at = (x[..., None] >= t).sum(axis=-1)
    channels = np.arange(6) % len(t)
    assert np.array_equal(values[channels, at], expected)
    for table in comparator_table(node, edge)[0], t:  # no comparator is wider than the range needs
        assert not table.size or (table.min() >= LO and table.max() <= HI + 1)


@pytest.mark.parametrize("pe,style,message", [
    (12, "parallel", r"^conv1: PE must divide the 64 channels, not 12$"),
    (0, "search", r"^conv1: PE must divide the 64 channels, not 0$"),
    (64, "magic", r"^conv1: threshold style must be one of parallel, search, not magic$")])
def test_bad_folding(pe: int, style: str, message: str) -> None:
    node = Threshold("conv1", thresholds=np.zeros((64, 1), np.int64),
                     signs=np.ones((64, 1), np.int8))
    edge = edge_of((2, 3, 64), -1, 1)
    with pytest.raises(N2uqError, match=message):
        ThresholdUnit(node, edge, infer(node, edge), pe=pe, style=style)
    shared = Threshold("conv1", thresholds=np.zeros((1, 1), np.int64),
                       signs=np.ones((1, 1), np.int8))
    with pytest.raises(N2uqError, match=r"^conv1: PE must divide the 384 elements, not 5$"):
        ThresholdUnit(shared, edge, infer(shared, edge), pe=5)
