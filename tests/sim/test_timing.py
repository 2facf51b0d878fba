# amaranth: UnusedElaboratable=no
"""The timing model against RTL: every beat of every source and sink, to the cycle."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import sanitized
from amaranth.lib import wiring
from graphs import (
    Drawn,
    Source,
    branch_fifos,
    generator,
    random_chain,
    random_dense,
    random_folding,
    random_residual,
    whole,
    with_depths,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from units import Bench, case, edge_of

from n2uq_hw import charts, nets
from n2uq_hw.builds.emit import load_build
from n2uq_hw.builds.verify import verify
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw import passes
from n2uq_hw.hw.accelerator import Accelerator
from n2uq_hw.hw.depths import fifo_depth
from n2uq_hw.hw.units import unit
from n2uq_hw.ir import (
    Add,
    ArgMax,
    Concat,
    DepthToSpace,
    DepthwiseMatVec,
    Edge,
    Fifo,
    Fork,
    Graph,
    Input,
    MatVec,
    MaxPool,
    Node,
    Pad,
    Permute,
    PiecewiseLinear,
    Saturate,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    Unrolled,
    Upsample,
    WidthConvert,
    infer,
)
from n2uq_hw.ir.folding import (
    ConvertFold,
    DepthwiseFold,
    Fold,
    Folding,
    MatVecFold,
    ThresholdFold,
    UnrolledFold,
    lanes_in,
    lanes_out,
    reach,
)
from n2uq_hw.lowering.lower import lower
from n2uq_hw.plan.choice import choose, unrolled
from n2uq_hw.sim.rtl.runner import Run, stall_pattern
from n2uq_hw.sim.timing import cycles
from n2uq_hw.sim.timing.cycles import ALWAYS, MODES, Circuit, Trace, circuit, timing
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.sim.timing.forecast import drawn, forecast, pattern, plot, stalled

# Shares of stalled cycles of sources and sinks.
STALLS = [(0, 0), (0.6, 0), (0, 0.6), (0.3, 0.4), (0.9, 0.1), (0.05, 0.9)]
RNG = np.random.default_rng(4)


def threshold(name: str, steps: int, channels: int) -> Threshold:
    return Threshold(name, thresholds=RNG.integers(-9, 10, (channels, steps)),
                     signs=np.ones((channels, steps), np.int8), base=np.zeros(1, np.int64))


def lines(name: str, channels: int, **fields) -> PiecewiseLinear:
    tables = {"turn": RNG.integers(-5, 5, channels), "shift": 4,
              "multiplier": RNG.integers(-9, 10, (2, channels)),
              "offset": RNG.integers(-99, 99, (2, channels))} | fields
    return PiecewiseLinear(name, **tables)


IMAGE, PIXEL, SMALL = edge_of((5, 6, 4), -9, 9), edge_of((1, 1, 12), -9, 9), edge_of(
    (1, 1, 1), 0, 9)
UNITS: list[tuple[Node, tuple[Edge, ...], Fold]] = [
    *((Pad(f"pad{k}", frame=frame), (IMAGE,), Fold(pe)) for k, (frame, pe) in enumerate([
        ((1, 1, 1, 1), 4), ((0, 2, 3, 0), 1), ((2, 0, 0, 1), 2), ((0, 0, 0, 0), 4)])),
    (Pad("pad_one", frame=(1, 0, 0, 2)), (SMALL,), Fold(1)),
    (Pad("pad_none", frame=(0,) * 4), (SMALL,), Fold(1)),
    *((SlidingWindow(f"window{k}", kernel=kernel, stride=stride), (IMAGE,), Fold(pe))
      for k, (kernel, stride, pe) in enumerate([
          ((3, 3), (1, 1), 4), ((3, 3), (1, 1), 1), ((3, 2), (2, 2), 2), ((1, 1), (2, 3), 4),
          ((2, 3), (3, 1), 2), ((5, 6), (1, 1), 4), ((1, 1), (1, 1), 4), ((2, 2), (3, 4), 1),
          ((1, 6), (4, 1), 2), ((5, 1), (1, 5), 4), ((3, 3), (1, 1), 12), ((3, 2), (2, 2), 8),
          ((2, 3), (3, 1), 12), ((1, 2), (1, 3), 8), ((2, 2), (1, 5), 8), ((5, 6), (1, 1), 24),
          ((4, 3), (1, 2), 12), ((3, 3), (1, 1), 36), ((3, 2), (2, 2), 24), ((5, 6), (1, 1), 120),
          ((2, 1), (1, 1), 8), ((1, 3), (2, 2), 12), ((2, 2), (3, 4), 16), ((3, 1), (1, 5), 12)])),
    *((SlidingWindow(f"narrow{k}", kernel=kernel, stride=(stride, 1)), (edge_of((7, 1, 2), 0, 3),),
       Fold(pe)) for k, (kernel, stride, pe) in enumerate([((3, 1), 1, 6), ((2, 1), 3, 4)])),
    *((SlidingWindow(f"spread{k}", kernel=kernel, stride=stride, dilation=dilation, groups=groups),
       (IMAGE,), Fold(pe)) for k, (kernel, stride, dilation, groups, pe) in enumerate([
           ((3, 3), (1, 1), (2, 2), 1, 4), ((2, 3), (2, 1), (3, 1), 1, 1),
           ((2, 2), (1, 2), (1, 3), 1, 2), ((3, 2), (1, 1), (2, 1), 1, 8),
           ((2, 3), (1, 1), (1, 2), 1, 12), ((2, 2), (1, 1), (4, 5), 1, 16),
           ((3, 3), (1, 1), (1, 1), 2, 2), ((3, 3), (1, 1), (1, 1), 4, 1),
           ((3, 2), (2, 2), (1, 1), 2, 1), ((2, 3), (1, 1), (2, 2), 2, 2),
           ((3, 3), (2, 1), (1, 1), 4, 36)])),
    (SlidingWindow("window_one"), (SMALL,), Fold(1)),
    *((MatVec(f"matvec{k}", weights=weights), (edge,), MatVecFold(pe, simd, form))
      for k, (weights, edge, pe, simd, form) in enumerate([
          (2 * RNG.integers(0, 4, (6, 12)) - 3, PIXEL, 2, 3, "planes"),
          (2 * RNG.integers(0, 4, (6, 4)) - 3, IMAGE, 6, 4, "planes"),
          (RNG.integers(-100, 100, (6, 4)), IMAGE, 1, 1, "product"),
          (RNG.integers(-2, 3, (6, 4)), IMAGE, 3, 4, "direct"),
          (RNG.integers(-2, 3, (6, 4)), IMAGE, 6, 1, "planes"),
          (RNG.integers(-2, 3, (1, 12)), PIXEL, 1, 12, "product"),
          (RNG.integers(-2, 3, (40, 12)), PIXEL, 1, 6, "direct")])),
    *((MatVec(f"grouped{k}", weights=weights, groups=groups), (edge,), MatVecFold(pe, simd, form))
      for k, (weights, groups, edge, pe, simd, form) in enumerate([
          (2 * RNG.integers(0, 4, (6, 4)) - 3, 3, PIXEL, 1, 2, "planes"),
          (2 * RNG.integers(0, 4, (6, 2)) - 3, 2, IMAGE, 3, 2, "direct"),
          (RNG.integers(-2, 3, (8, 1)), 4, IMAGE, 2, 1, "pairs")])),
    *((Unrolled(f"unrolled{k}", weights=RNG.integers(-2, 3, (6, len(edge.lo))), threshold=steps),
       (edge,), UnrolledFold(6, len(edge.lo), levels, lut))
      for k, (edge, steps, levels, lut) in enumerate([
          (PIXEL, None, 1, 6), (PIXEL, threshold("behind", 3, 6), 2, 4),
          (IMAGE, threshold("behind", 3, 1), 9, 6)])),
    *((DepthwiseMatVec(f"depthwise{k}", weights=RNG.integers(-4, 4, (positions, 12 // positions))),
       (edge_of((3, 2, 12), -9, 9),), DepthwiseFold(pe))
      for k, (positions, pe) in enumerate([(4, 1), (4, 3), (1, 4), (12, 1), (2, 2)])),
    *((kind(f"{kind.__name__.lower()}{k}", positions=positions),
       (edge_of((3, 2, 12), -9, 9),), Fold(pe))
      for kind in (MaxPool, SumPool)
      for k, (positions, pe) in enumerate([(4, 1), (4, 3), (1, 4), (12, 1), (4, 12), (12, 12)])),
    *((threshold(f"threshold{k}", steps, channels), (IMAGE,), ThresholdFold(pe, style))
      for k, (steps, channels, pe, style) in enumerate([
          (3, 4, 4, "parallel"), (3, 4, 2, "parallel"), (3, 1, 2, "parallel"),
          (3, 4, 1, "search"), (4, 1, 4, "search"), (0, 4, 2, "search"), (15, 4, 2, "search"),
          (0, 4, 2, "parallel")])),
    *((Scale(f"scale{k}", multiplier=m, offset=offset, shift=2, clip=clip), (IMAGE,), Fold(pe))
      for k, (m, offset, clip, pe) in enumerate([
          (np.array([3, 5, 7, 9]), np.array([1, 2, 3, 4]), (), 2),
          (np.array([3, 5, 7, 9]), np.array([1, 2, 3, 4]), (0, 5), 4),
          (np.array([4]), np.array([1]), (), 4), (np.array([4]), np.array([1, 2, 3, 4]), (), 1),
          (np.array([3]), np.array([1, 2, 3, 4]), (-1, 1), 2)])),
    (lines("lines0", 4), (IMAGE,), Fold(2)),
    (lines("lines1", 4), (IMAGE,), Fold(4)),
    (lines("lines2", 1, multiplier=np.array([[3], [16]])), (IMAGE,), Fold(1)),
    (lines("prelu", 4, multiplier=np.stack([RNG.integers(-9, 10, 4), np.full(4, 16)])),
     (IMAGE,), Fold(1)),
    (Saturate("saturate", lo=-3, hi=5), (IMAGE,), Fold(2)),
    (Add("add", ("a", "b")), (IMAGE, IMAGE), Fold(2)),
    (Add("add_wide", ("a", "b")), (IMAGE, IMAGE), Fold(4)),
    *((Upsample(f"upsample{k}", factor=factor), (IMAGE,), Fold(pe))
      for k, (factor, pe) in enumerate([
          ((2, 2), 4), ((2, 2), 1), ((3, 1), 2), ((1, 3), 2), ((1, 1), 4)])),
    *((DepthToSpace(f"blocks{k}", block=block, mode=mode), (edge_of((3, 2, channels), -9, 9),),
       Fold(pe)) for k, (block, mode, channels, pe) in enumerate([
           (2, "DCR", 8, 2), (2, "DCR", 8, 1), (2, "CRD", 8, 2), (3, "CRD", 18, 1),
           (1, "DCR", 4, 2), ((3, 1), "DCR", 6, 1), ((1, 3), "CRD", 6, 2)])),
    *((Permute(f"permute{k}", order=RNG.integers(0, 4, outputs)), (IMAGE,), Fold(pe))
      for k, (outputs, pe) in enumerate([(4, 1), (4, 2), (4, 4), (8, 4), (6, 2), (2, 1), (2, 2)])),
    *((Concat(f"concat{k}", ("a", "b", "c")[:len(reads)]), reads, Fold(pe))
      for k, (reads, pe) in enumerate([
          ((IMAGE, IMAGE), 2), ((IMAGE, IMAGE), 8), ((IMAGE, edge_of((5, 6, 2), 0, 3)), 1),
          ((IMAGE, edge_of((5, 6, 2), 0, 3), IMAGE), 2),
          ((IMAGE, edge_of((5, 6, 3), 0, 3), IMAGE), 11)])),
    (ArgMax("argmax"), (PIXEL,), Fold(3)),
    (ArgMax("argmax_wide"), (PIXEL,), Fold(12)),
    *((Fifo(f"fifo{depth}", depth=depth), (IMAGE,), Fold(1))
      for depth in (1, 2, 3, 7, 64, 65, 200)),
    *((Fork(f"fork{ways}", ways=ways), (IMAGE,), Fold(2)) for ways in (1, 2, 3)),
    *((WidthConvert(f"convert{takes}_{gives}", lanes=gives), (IMAGE,), ConvertFold(gives, takes))
      for takes, gives in [(1, 2), (2, 1), (1, 4), (4, 1), (2, 10), (12, 3), (8, 120)])]


def predicted(node: Node, reads: tuple[Edge, ...], fold: Fold, patterns: dict[str, np.ndarray],
              images: int = 3, dense: bool = False) -> Trace:
    """The run of the unit with sources `i0`, ... and sinks `o0`, ..."""
    edge, circuit = infer(node, *reads), Circuit()
    gives = lanes_out(node, fold, edge)
    inputs = [circuit.source(f"i{k}", it.size // lanes_in(node, k, fold, it), images)
              for k, it in enumerate(reads)]
    for k, stream in enumerate(circuit.add(node.name, timing(node, reads, edge, fold), inputs,
                                           edge.size // gives)):
        circuit.sink(f"o{k}", stream, edge.size // gives, images)
    return circuit.run(patterns, images=images, dense=dense)


def replayed(bench: Bench, run: Run, stalls: tuple[float, float], seed: int
             ) -> dict[str, dict[str, np.ndarray]]:
    """The stall patterns of `run`, by unit, for the sources `i0`, ... and the sinks `o0`, ..."""
    port, patterns = 0, {}
    for name, it in bench.cases.items():
        patterns[name] = {}
        for kind, share, streams in zip("io", stalls, (it.dut.sources, it.dut.sinks), strict=True):
            for k in range(len(streams)):
                patterns[name][f"{kind}{k}"] = stall_pattern(
                    seed, port, share, run.cycles + 1)
                port += 1
    return patterns


def measured(run: Run, name: str) -> dict[str, np.ndarray]:
    """The cycles of each beat of sources and sinks."""
    return {**{f"i{k}": cycles for k, cycles in enumerate(run.sources[name])},
            **{f"o{k}": record.cycles for k, record in enumerate(run.sinks[name])}}


def same(name: str, trace: Trace, cycles: dict[str, np.ndarray]) -> None:
    """Every beat as measured; the model ends with the last output, and RTL still takes inputs."""
    for end, measured in cycles.items():
        np.testing.assert_array_equal(
            trace.ends[end], np.where(measured < trace.cycles, measured, -1), f"{name}.{end}")
    assert trace.cycles == 1 + max(measured[-1] for end, measured in cycles.items() if "o" in end)


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench([case(node, reads, partial(unit_of, node, reads, fold))
                  for node, reads, fold in UNITS], tmp_path_factory)


def unit_of(node: Node, reads: tuple[Edge, ...], fold: Fold, edge: Edge) -> wiring.Component:
    return unit(node, reads, edge, fold)


def test_every_kind_of_unit_is_here() -> None:
    assert {type(node) for node, _, _ in UNITS} - {Unrolled} == {
        kind for kind in Node.KINDS.values() if kind.__name__ not in ("Input", "Flatten")}


@pytest.mark.parametrize("stalls", STALLS)
def test_units_are_predicted(units: Bench, stalls: tuple[float, float]) -> None:
    run = units.run(*stalls, seed=3)
    patterns = replayed(units, run, stalls, 3)
    for node, reads, fold in UNITS:
        same(node.name, predicted(node, reads, fold, patterns[node.name]),
             measured(run, node.name))


@pytest.mark.parametrize("node,reads,fold", UNITS, ids=[node.name for node, _, _ in UNITS])
def test_skipping_cycles_changes_nothing(node: Node, reads: tuple[Edge, ...], fold: Fold) -> None:
    """With all of 40 patterns, the steady ones among them."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        patterns = {end: rng.permutation(rng.integers(0, 20, int(rng.integers(1, 30))) < seed % 20)
                    for end in ("i0", "i1", "o0", "o1", "o2") if rng.random() < 0.7}
        patterns = {end: p for end, p in patterns.items() if not p.all()}
        sparse, dense = (predicted(node, reads, fold, patterns, dense=each)
                         for each in (False, True))
        for field in dataclasses.fields(Trace):
            skipped, expected = (getattr(each, field.name) for each in (sparse, dense))
            np.testing.assert_equal(skipped, expected, field.name)
        for spent in sparse.spent.values():
            assert spent.sum() == sparse.cycles


def test_patterns_must_let_a_beat_through() -> None:
    with pytest.raises(N2uqError, match="o0: a pattern must be a row of cycles, one of them 0"):
        predicted(Fifo("f", depth=2), (IMAGE,), Fold(1), {"o0": np.ones(3, bool)})


CHAINS = range(300, 326)
RESIDUALS = (311, 329, 305, 315, 386, 343, 417, 360, 369, 357, 377, 364, 406, 396, 345, 318, 353,
             331, 387, 312, 325, 341, 338, 371, 390, 402)
DENSE = (102, 30, 62, 77, 105, 119, 44, 24)
IMAGES = 4


def random_accelerator(kind: str, source: Source, name: str, factor: int
                       ) -> tuple[Accelerator, Graph]:
    """Any graph, folding and depths that do not deadlock."""
    graph = {"chain": random_chain, "residual": random_residual, "dense": random_dense}[kind](
        name, source)
    rng = generator(source)
    accelerator = with_depths(Accelerator(graph, random_folding(graph, source)), factor)
    adds = branch_fifos(accelerator.graph)
    accelerator.graph = accelerator.graph.with_nodes(
        replace(node, depth=int(rng.integers(1, 2 * node.depth)))
        if isinstance(node, Fifo) and node.name not in adds else node
        for node in accelerator.graph.nodes)
    return accelerator, graph


def predicted_whole(bench: Bench, name: str, patterns: dict[str, np.ndarray]) -> Trace:
    it = bench.cases[name]
    images = len(it.images)
    return circuit(it.unit.graph, it.unit.folding, images).run(
        {"i": patterns["i0"], "o": patterns["o0"]}, images=images)


def check_wholes(bench: Bench, stalls: tuple[float, float], seed: int) -> None:
    run = bench.run(*stalls, seed=seed, max_idle=10**6)
    patterns = replayed(bench, run, stalls, seed)
    for name in bench.cases:
        same(name, predicted_whole(bench, name, patterns[name]),
             {"i": run.sources[name][0], "o": run.sinks[name][0].cycles})


def accelerators(chains: Sequence[int], residuals: Sequence[int], dense: Sequence[int],
                 factory: pytest.TempPathFactory) -> Bench:
    cases = []
    for kind, seeds in (("chain", chains), ("residual", residuals), ("dense", dense)):
        for seed in seeds:
            accelerator, graph = random_accelerator(kind, seed, f"{kind}{seed}", 1 + seed % 3)
            cases.append(whole(accelerator, graph, IMAGES, seed))
    return Bench(cases, factory)


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The small ones."""
    return accelerators((304, 311, 321, 312, 305, 306), RESIDUALS[:6], DENSE[:2],
                        tmp_path_factory)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return accelerators(CHAINS, RESIDUALS, DENSE, tmp_path_factory)


SIDES = [(0, 0), (0.7, 0), (0, 0.7), (0.4, 0.3)]


@pytest.mark.parametrize("stalls", SIDES)
def test_random_accelerators_are_predicted(some: Bench, stalls: tuple[float, float]) -> None:
    check_wholes(some, stalls, 7)


@pytest.mark.slow
@pytest.mark.parametrize("stalls", SIDES)
def test_many_random_accelerators_are_predicted(many: Bench, stalls: tuple[float, float]) -> None:
    assert len(many.cases) >= 50
    check_wholes(many, stalls, 7)


@pytest.mark.slow
@settings(max_examples=5, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_drawn_accelerators_are_predicted(
        data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ten at a time, for one compile."""
    cases = []
    for k in range(10):
        kind, factor = data.draw(st.sampled_from(["chain", "residual", "dense"])), data.draw(
            st.integers(1, 3))
        cases.append(whole(*random_accelerator(kind, Drawn(data), f"drawn{k}", factor), IMAGES))
    bench = Bench(cases, tmp_path_factory)
    for stalls in SIDES:
        check_wholes(bench, stalls, 7)


def shipped_nets(names: Iterable[str], images: int, factory: pytest.TempPathFactory) -> Bench:
    """Nets on random images, as they are built."""
    graphs = [lower(nets.find_net(name)) for name in names]
    return Bench([whole(Accelerator(graph, size_fifos(graph, choose(graph)).folding), graph, images)
                  for graph in graphs], factory)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return shipped_nets(["digits_cnn_w2a2", "digits_mlp_w2a2"], 5, tmp_path_factory)


@pytest.fixture(scope="module")
def other_nets(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return shipped_nets([name for name in nets.shipped() if name.startswith("mnist")]
                   + ["digits_cnn_w3a3", "digits_cnn_w4a4"], 4, tmp_path_factory)


@pytest.mark.slow
@pytest.mark.parametrize("stalls", SIDES)
def test_shipped_nets_are_predicted(digits: Bench, stalls: tuple[float, float]) -> None:
    check_wholes(digits, stalls, 5)


def test_the_forecast_is_what_rtl_shows(digits: Bench) -> None:
    run = digits.run(max_idle=10**6)
    for name in digits.cases:
        graph = lower(nets.find_net(name))
        model, cycles = forecast(graph, choose(graph), images=5), run.sinks[name][0].cycles
        start, ends = int(run.sources[name][0][0]), cycles.reshape(5, -1)[:, -1]
        assert model.cycles_first_output == cycles[0] - start + 1
        assert model.cycles_last_output == ends[0] - start + 1
        assert model.cycles == ends[-1] + 1
        assert model.cycles_per_image == (ends[4] - ends[1]) / 3
        assert 0.5 < model.mac_utilization <= 1
        for row in model.layers:
            assert sum(row[mode] for mode in MODES) == model.cycles, row
            assert row["busy"] >= 5 * model.cycles_per_image * row["utilization"] - 0.01
            assert all(0 < high <= depth for depth, high in row["fifos"].values())


@pytest.fixture(scope="module")
def digits_in_logic(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    graph = lower(nets.find_net("digits_cnn_w2a2"))
    return Bench([whole(Accelerator(graph, unrolled(graph)), graph, 5)], tmp_path_factory)


@pytest.mark.slow
@pytest.mark.parametrize("stalls", SIDES)
def test_a_cnn_in_logic_is_predicted(digits_in_logic: Bench, stalls: tuple[float, float]) -> None:
    check_wholes(digits_in_logic, stalls, 5)
    (it,) = digits_in_logic.cases.values()
    if not any(stalls):  # a pixel per cycle, the frame's too
        ends = predicted_whole(digits_in_logic, it.name, {"i0": ALWAYS, "o0": ALWAYS}).ends["o"]
        assert np.diff(ends).tolist() == [10 * 10] * 4


# Convolutions, by kernel and stride; "max" and "sum" pools.
CNNS = [[(3, 1), (3, 1), (3, 1)], [(5, 1), (5, 1)], [(3, 2), (3, 1), (3, 2)], [(5, 1), (3, 1)],
        [(3, 1), ("max", 2, 2), (3, 1), ("sum", 2, 2), (3, 2)],
        [(3, 1), ("max", 3, 1), (5, 1), ("max", 3, 2), (1, 1)]]


def windows_per_cycle(layers: list[tuple], width: int) -> tuple[Graph, Folding]:
    """Convolutions of two channels and pools, each of which takes a whole window per cycle."""
    nodes: list[Node] = [Input("x", shape=(16, width, 2), hi=3)]
    for k, (*kind, kernel, stride) in enumerate(layers):
        x, window = nodes[-1].name, SlidingWindow(f"w{k}", (f"p{k}",), (kernel,) * 2, (stride,) * 2)
        if kind:
            nodes += [replace(window, inputs=(x,)), (MaxPool if kind == ["max"] else SumPool)(
                f"m{k}", (f"w{k}",), positions=kernel**2), Saturate(f"s{k}", (f"m{k}",), 0, 3)]
        else:
            steps = threshold(f"q{k}", 3, 2)
            nodes += [Pad(f"p{k}", (x,), frame=(kernel // 2,) * 4), window,
                      MatVec(f"c{k}", (f"w{k}",), weights=2 * RNG.integers(
                          0, 4, (2, 2 * kernel**2)) - 3), replace(steps, inputs=(f"c{k}",))]
    graph = Graph("cnn", tuple(nodes)).verify()
    return graph, unrolled(graph)


@pytest.mark.parametrize("width", [16, 70])
@pytest.mark.parametrize("layers", CNNS)
def test_a_window_per_cycle(layers: list[tuple], width: int) -> None:
    """An image takes a cycle for each of its pixels and the first frame's, and nothing waits."""
    graph, folding = windows_per_cycle(layers, width)
    frame = 2 * (layers[0][0] // 2)
    model = forecast(graph, folding, images=6)
    assert model.cycles_per_image == (16 + frame) * (width + frame) == reach(graph)[0]


def test_with_one_entry_less_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for layers, width in ((CNNS[0], 16), (CNNS[1], 16), (CNNS[0], 70)):
        graph, folding = windows_per_cycle(layers, width)
        with monkeypatch.context() as patch:
            patch.setattr(passes, "fifo_depth", lambda graph, node, lanes, **more: (
                fifo_depth(graph, node, lanes, **more) - (node.name == "p1")))
            assert forecast(graph, folding, images=6).cycles_per_image > reach(graph)[0]


def small() -> Graph:
    return lower(nets.find_net("digits_mlp_w2a2"))


def test_bottlenecks_are_named() -> None:
    graph = small()
    folding = choose(graph, 500)
    assert forecast(graph, {**folding, "fc2": MatVecFold(1, 1)}).bottleneck == "fc2"
    slow = forecast(graph, folding, source=pattern("every:100"))
    assert (slow.bottleneck, slow.cycles_per_image) == ("source", 6400 / folding["input"].pe)
    slow = forecast(graph, folding, sink=pattern("burst:1,299"))
    assert slow.bottleneck == "sink"
    assert slow.cycles_per_image == 3000 / folding["logits"].pe


def test_patterns_by_hand() -> None:
    assert pattern("always").tolist() == [0]
    assert pattern("every:3").tolist() == [0, 1, 1] and pattern("every:1").tolist() == [0]
    assert pattern("burst:2,3").tolist() == [0, 0, 1, 1, 1]
    for text in ("every:0", "every", "burst:1", "burst:0,2", "always:2", "now", "every:x", ""):
        with pytest.raises(N2uqError, match=f"^pattern must be .*, not {text}$"):
            pattern(text)


def test_patterns_from_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([0, 1, 1], bool))
    (tmp_path / "a.txt").write_text("011\n0 1\n")
    assert pattern(f"{tmp_path / 'a.npy'}").tolist() == [0, 1, 1]
    assert pattern(f"{tmp_path / 'a.txt'}").tolist() == [0, 1, 1, 0, 1]
    np.save(tmp_path / "two.npy", np.zeros((2, 2), int))
    for name, text in (("two.npy", None), ("2.txt", "0 2"), ("1.txt", "11"), ("x.txt", "0 x"),
                       ("empty.txt", ""), ("a.npy.txt", "\x93NUMPY")):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(N2uqError, match=f"{name}: must be a row of 0 and 1, some of them 0"):
            pattern(f"{tmp_path / name}")
    with pytest.raises(N2uqError, match=r"no\.txt: cannot be read: No such file"):
        pattern(f"{tmp_path / 'no.txt'}")


@pytest.mark.parametrize("seed", [1, 5])
def test_stalls_are_those_of_the_simulation(built: Path, images: np.ndarray, seed: int) -> None:
    build = load_build(built)
    verdict = verify(build, images, None, stalls=0.4, seed=seed)
    model = stalled(build.graph, build.folding, len(images), 0.4, seed)
    assert model.cycles_first_output == verdict.cycles_first_output
    assert model.cycles_per_image == verdict.cycles_per_image


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_plots(suffix: str, tmp_path: Path) -> None:
    graph, texts = small(), []
    for k in range(2):
        plot(forecast(graph, choose(graph)), path := tmp_path / f"{k}.{suffix}")
        texts.append(path.read_bytes())
    assert texts[0] == texts[1] and len(texts[0]) > 5000
    if suffix == "svg":
        assert all(name.encode() in texts[0] for name in ("fc1", "cycles per image", "starved"))
    with pytest.raises(N2uqError, match=r"must be an \.svg or \.png file"):
        plot(forecast(graph, choose(graph)), tmp_path / "plot.pdf")


@pytest.mark.parametrize("name", ["short", "a_network_with_a_name_of_quite_some_letters" * 3])
def test_nothing_of_a_plot_lies_on_its_titles(name: str) -> None:
    plotted = replace(forecast(graph := small(), choose(graph)), name=name, bottleneck=name)
    with charts.style(name):
        figure = drawn(plotted)
        figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    for panel in figure.axes:
        assert not panel.title.get_window_extent().overlaps(box)
        assert not panel.xaxis.label.get_window_extent().overlaps(box)


def test_spans_of_time_add_up(built: Path) -> None:
    build = load_build(built)
    whole = forecast(build.graph, build.folding)
    for spans in (1, 7, 10**5):  # one, some, more than there are cycles
        model = forecast(build.graph, build.folding, spans=spans)
        assert model.as_dict() == whole.as_dict()
        length = -(-whole.cycles // spans)
        for row in model.layers:
            over = model.over_time()[row["name"]]
            assert over.sum(axis=0).tolist() == [row[mode] for mode in MODES]
            lengths = over.sum(axis=1)
            full, rest = divmod(whole.cycles, length)
            assert lengths[:full].tolist() == [length] * full and lengths[full:].sum() == rest


def test_spans_are_where_they_say() -> None:
    """Sixteen pixels enter one after the other, so the rest of the time is behind them."""
    graph = Graph("g", (Input("input", shape=(4, 4, 1)), Scale("scale", ("input",))))
    model = forecast(graph, choose(graph), images=1, spans=2)
    busy = model.over_time()["input"][:, MODES.index("busy")]
    cycles = -(-model.cycles // 2)
    assert busy.tolist() == [cycles, 16 - cycles]


@pytest.mark.slow
def test_the_command_line(tmp_path: Path) -> None:
    def command(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "n2uq_hw", "cycles", "digits_mlp_w2a2",
                               *options], cwd=tmp_path, capture_output=True, text=True)

    printed = json.loads(command("--json", "--clock", "100", "--images", "6").stdout)
    expected = forecast(small(), choose(small()), images=6)
    assert expected.as_dict().items() <= {**printed, "layers": tuple(printed["layers"])}.items()
    assert printed["images_per_second"] == 1e8 / expected.cycles_per_image
    assert printed["latency_us"] == expected.cycles_last_output / 100
    table = command("--plot", "plot.svg").stdout
    assert "bottleneck: fc" in table and (tmp_path / "plot.svg").is_file()
    stalls = json.loads(command("--json", "--stalls", "0.3", "--seed", "7").stdout)
    assert stalls["cycles"] == stalled(small(), choose(small()), 4, 0.3, 7).cycles
    for options, fault in ((["--images", "0"], "--images must be in 1..1,000,000, not 0"),
                           (["--clock", "0"], "--clock must be in 0.001..100,000 MHz, not 0"),
                           (["--source", "x"], "pattern must be always, every:N, burst:ON,OFF"),
                           (["--source", "every:2", "--stalls", "0.1"],
                            "--stalls and --source or --sink exclude each other"),
                           (["--stalls", "1"], "stalls must be a probability in 0..0.95, not 1")):
        failed = command(*options)
        assert failed.returncode == 2 and fault in failed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stalls", SIDES)
def test_the_other_shipped_nets_are_predicted(other_nets: Bench, stalls: tuple[float, float]
                                              ) -> None:
    assert {"mnist_resnet8_w2a2"} < set(other_nets.cases)
    check_wholes(other_nets, stalls, 5)


@pytest.mark.slow
def test_no_write_beside_an_array(tmp_path: Path) -> None:
    """Nor other undefined behaviour, by g++'s sanitizers; and the results are the same."""
    runtime = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True,
                             text=True).stdout.strip()
    if not Path(runtime).is_absolute():
        pytest.skip("g++ has no libasan.so")
    source = Path(cycles.__file__).with_name("cycles.cpp")
    subprocess.run(["g++", "-O1", "-g", "-std=c++17", "-shared", "-fPIC",
                    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
                    "-D_GLIBCXX_ASSERTIONS", source, "-o", "cycles.so"], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, sanitized.__file__, tmp_path / "cycles.so"], capture_output=True,
        text=True, env=os.environ | {
            "LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == sanitized.figures()
