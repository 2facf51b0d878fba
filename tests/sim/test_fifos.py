# amaranth: UnusedElaboratable=no
"""FIFO sizing: no cycle lost, no entry to spare, no deadlock; by the timing model and by RTL."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from adverse import adverse_params, cut
from graphs import n2uq_block, random_folding, random_residual, whole
from marks import few
from units import Bench

from n2uq_hw import nets
from n2uq_hw.builds.emit import emit
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.accelerator import Accelerator
from n2uq_hw.hw.fifo import LUT_DEPTH
from n2uq_hw.hw.passes import hardware_graph
from n2uq_hw.ir import Graph
from n2uq_hw.ir.folding import FifoFold, Folding, fifo_names
from n2uq_hw.lowering.formats import Formats
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import InputSpec, Net, architectures
from n2uq_hw.plan.choice import choose, load_folding, save_folding
from n2uq_hw.sim.timing import cycles
from n2uq_hw.sim.timing.cycles import UNBOUNDED, Circuit, Trace, circuit
from n2uq_hw.sim.timing.fifos import Sizing, size_fifos
from n2uq_hw.sim.timing.forecast import cycles_per_image, forecast


def circuit_of(graph: Graph, folding: Folding, images: int) -> Circuit:
    return circuit(*hardware_graph(graph, folding), images)


def ends(graph: Graph, folding: Folding, images: int) -> np.ndarray:
    """The cycle of each output beat, [images, beats]."""
    return circuit_of(graph, folding, images).run(images=images).ends["o"].reshape(images, -1)


def rate(times: np.ndarray) -> float:
    return cycles_per_image(times[:, -1], 0)


def with_fifos(folding: Folding, depths: dict[str, int]) -> Folding:
    return folding | {name: FifoFold(depth=depth) for name, depth in depths.items()}


def unbounded(graph: Graph, folding: Folding) -> Folding:
    return with_fifos(folding, dict.fromkeys(fifo_names(graph), UNBOUNDED))


def same_run(trace: Trace, expected: Trace) -> None:
    for field in dataclasses.fields(Trace):
        np.testing.assert_equal(getattr(trace, field.name), getattr(expected, field.name),
                                field.name)


SEEDS = (303, 305, 309, 311, 318, 331, 341, 343, 345, 353)


@pytest.mark.parametrize("seed", few(SEEDS, (303, 311, 345).__contains__))
def test_a_trial_is_a_run_from_the_start(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was tried and kept before, and wherever a trial begins and ends."""
    monkeypatch.setattr(cycles, "STEP", 1 + seed % 40)
    monkeypatch.setattr(cycles, "MARKS", 10**6)
    graph, images = random_residual("g", seed), 6
    folding, rng = random_folding(graph, seed), np.random.default_rng(seed)
    hardware, _ = hardware_graph(graph, folding)
    least = {node.name: node.depth for node in hardware.nodes if node.name in fifo_names(graph)}
    trials = circuit_of(graph, folding, images).trials(dict.fromkeys(least, True), images)
    depths = dict.fromkeys(least, UNBOUNDED)
    verdicts = set()
    for _ in range(40):
        kept = trials.kept
        high = kept.high
        tried = {name: max(1, least[name], int(rng.choice((
            UNBOUNDED, high[name], high[name] - 1, high[name] // 2, depths[name] - 1, LUT_DEPTH))))
            for name in rng.permutation(list(least))[:1 + rng.integers(2)].tolist()}
        expected = ends(graph, with_fifos(folding, depths | tried), images).reshape(-1)
        due = np.maximum(kept.ends["o"], expected - rng.integers(0, 2))
        fits = trials.attempt(tried, due)
        assert fits == bool((expected <= due).all()), tried
        verdicts.add(fits)
        if fits:
            np.testing.assert_array_equal(trials.times, expected)
            if rng.random() < 0.5:
                trials.keep()
                depths |= tried
        run = circuit_of(graph, with_fifos(folding, depths), images).run(images=images)
        same_run(trials.kept, run)
    assert verdicts == {True, False}


def piece() -> Graph:
    """The second stage of a ResNet-18 at 32 × 32 pixels, on a quarter of its image."""
    layers = cut(architectures.resnet(18, 2, True, 10), "layer2.")
    spec = InputSpec((64, 8, 8), 255, 4 / 255, (2.0,) * 64, (1.0,) * 64)
    return lower(Net("piece", spec, layers, adverse_params(layers)), Formats(10, stem_bits=8))


def cases() -> dict[str, Callable[[], tuple[Graph, Folding]]]:
    """Graphs, and foldings that suit them and that do not."""
    def shipped() -> tuple[Graph, Folding]:
        graph = lower(nets.find_net("mnist_resnet8_w2a2"))
        return graph, choose(graph)

    def stage() -> tuple[Graph, Folding]:
        graph = piece()
        return graph, choose(graph, 5000)

    def random(seed: int) -> Callable[[], tuple[Graph, Folding]]:
        def make() -> tuple[Graph, Folding]:
            graph = random_residual("g", seed)
            return graph, random_folding(graph, seed) if seed % 2 else choose(graph)
        return make
    return {"mnist_resnet8": shipped, "resnet18 stage": stage,
            **{f"random{seed}": random(seed) for seed in (*SEEDS, 302, 304, 308, 326)}}


@pytest.mark.parametrize("name", cases())
def test_no_cycle_is_lost_and_no_entry_to_spare(name: str) -> None:
    graph, folding = cases()[name]()
    sized = size_fifos(graph, folding)
    assert sized.minimal and sized.depths.keys() == set(fifo_names(graph))
    images = sized.images
    full, got = (ends(graph, each, images) for each in (unbounded(graph, folding), sized.folding))
    assert (got <= full).all()
    assert sized.cycles_per_image == rate(got) <= sized.full
    for fifo, depth in sized.depths.items():
        assert depth >= sized.least[fifo]
        if depth > sized.least[fifo]:
            less = ends(graph, with_fifos(sized.folding, {fifo: depth - 1}), images)
            assert (less > got).any() or rate(less) > rate(got), fifo
    if name in ("mnist_resnet8", "resnet18 stage"):
        assert any(depth > sized.least[fifo] for fifo, depth in sized.depths.items())
    same_run(sized.trace, circuit_of(graph, sized.folding, images).run(images=images))


@pytest.mark.parametrize("name", [name for name in cases() if name.startswith("random")])
def test_the_rate_lasts(name: str) -> None:
    """Over many more images than it was sized for."""
    graph, folding = cases()[name]()
    sized = size_fifos(graph, folding)
    full, got = (ends(graph, each, 60) for each in (unbounded(graph, folding), sized.folding))
    assert got[-1, -1] - got[-20, -1] <= full[-1, -1] - full[-20, -1]


@pytest.mark.slow
def test_a_budget_spares_entries() -> None:
    graph, folding = cases()["mnist_resnet8"]()
    bits = []
    for budget in (0.0, 0.01, 0.1, 10.0):
        sized = size_fifos(graph, folding, budget=budget)
        full, got = (ends(graph, each, sized.images)
                     for each in (unbounded(graph, folding), sized.folding))
        assert (got + 1 <= (full + 1) * (1 + budget)).all()
        assert rate(got) <= rate(full) * (1 + budget)
        assert (rate(got) > rate(full)) == (budget > 0)
        bits.append(sized.bits)
    assert bits == sorted(set(bits), reverse=True)
    assert sized.depths == sized.least  # ten times as long is enough for those
    with pytest.raises(N2uqError, match=r"the FIFOs' budget must be 0 or more, not -1"):
        size_fifos(graph, folding, budget=-1)


def test_without_work_no_cycle_is_lost() -> None:
    """Only entries: FIFOs are as deep as those got that never fill."""
    graph, folding = cases()["mnist_resnet8"]()
    sized, best = size_fifos(graph, folding, work=0), size_fifos(graph, folding)
    assert not sized.minimal and sized.cycles_per_image == best.cycles_per_image
    full, got = (ends(graph, each, sized.images)
                 for each in (unbounded(graph, folding), sized.folding))
    assert (got <= full).all()
    assert sized.trace is not None
    assert all(depth == max(sized.trace.high[name], sized.least[name])
               for name, depth in sized.depths.items())
    assert sum(sized.depths.values()) > sum(best.depths.values())


def test_given_depths_stay(tmp_path: Path) -> None:
    graph, folding = cases()["random304"]()
    sized = size_fifos(graph, folding)
    name = next(name for name in sized.depths)
    deeper = with_fifos(folding, {name: sized.depths[name] + 100})
    again = size_fifos(graph, deeper)
    assert again.folding[name].depth == sized.depths[name] + 100
    assert again.depths.keys() == sized.depths.keys() - {name}
    whole = size_fifos(graph, sized.folding)
    assert (whole.folding, whole.depths, whole.trace) == (sized.folding, {}, None)
    save_folding(sized.folding, graph, tmp_path / "f.yaml")
    assert load_folding(tmp_path / "f.yaml", graph) == sized.folding


def test_graphs_without_branches_have_none() -> None:
    graph = lower(nets.find_net("digits_mlp_w2a2"))
    folding = choose(graph)
    sized = size_fifos(graph, folding)
    assert (sized.folding, sized.bits, sized.minimal) == (folding, 0, True)


# Residual blocks and their FIFOs; others that never fill in the run; each that can one entry less.
VARIANTS = {"same": ("sized", "deep", "less"), "down": ("sized",),
            "g114": ("sized", "deep", "less")}


@pytest.fixture(scope="module")
def blocks() -> dict[str, tuple[Graph, Sizing]]:
    graphs = [(n2uq_block("same", (8, 8, 8), 8), 64 * 72),
              (n2uq_block("down", (8, 8, 8), 16, 2), 64 * 72),
              (random_residual("g114", 114), None)]
    return {graph.name: (graph, size_fifos(graph, choose(graph, target)))
            for graph, target in graphs}


def variant(sized: Sizing, name: str) -> Folding:
    return with_fifos(sized.folding, {fifo: {
        "sized": depth, "deep": 4 * depth + 200, "less": max(depth - 1, sized.least[fifo])}[name]
        for fifo, depth in sized.depths.items()})


@pytest.fixture(scope="module")
def bench(blocks: dict[str, tuple[Graph, Sizing]], tmp_path_factory: pytest.TempPathFactory
          ) -> Bench:
    return Bench([whole(Accelerator(replace(graph, name=f"{name}_{each}"), variant(sized, each)),
                        graph, sized.images)
                  for name, (graph, sized) in blocks.items() for each in VARIANTS[name]],
                 tmp_path_factory)


@pytest.mark.slow
@pytest.mark.parametrize("source,sink,resets", [
    (0, 0, ()), (0.4, 0.3, (40, 1, 999)), (0.1, 0.7, ())])
def test_blocks_are_bit_exact(bench: Bench, source: float, sink: float, resets: tuple) -> None:
    bench.run(source, sink, resets)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_rtl_loses_no_cycle_either(bench: Bench, blocks: dict[str, tuple[Graph, Sizing]], name: str
                                   ) -> None:
    """And shows what the model says of all of them."""
    graph, sized = blocks[name]
    run, times = bench.run(), {}
    for each in VARIANTS[name]:
        times[each] = run.sinks[f"{name}_{each}"][0].cycles.reshape(sized.images, -1)
        np.testing.assert_array_equal(
            times[each], ends(graph, variant(sized, each), sized.images), each)
    ours = times["sized"]
    assert ours[-1, -1] + 1 == forecast(graph, sized.folding, images=sized.images).cycles
    if "deep" in times:
        assert (ours <= times["deep"]).all() and rate(ours) <= rate(times["deep"])
        assert any(depth > sized.least[fifo] for fifo, depth in sized.depths.items())
        assert (times["less"] > ours).any()


@pytest.mark.parametrize("text,message", [
    ("fifos: 7", "fifos must map FIFOs to depths, not 7"),
    ("fifos: {sum: 7}", "fifos: sum must be a FIFO of a join of g: add"),
    ("fifos: {NAME: true}", "fifos: NAME must be 1 to 67108864 beats, not True"),
    ("fifos: {NAME: 0}", "fifos: NAME must be 1 to 67108864 beats, not 0"),
    ("fifos: {NAME: 67108865}", "fifos: NAME must be 1 to 67108864 beats, not 67108865")])
def test_faulty_files(text: str, message: str, tmp_path: Path) -> None:
    graph, _ = cases()["random304"]()
    name = fifo_names(graph)[0]
    (tmp_path / "f.yaml").write_text(text.replace("NAME", name))
    with pytest.raises(N2uqError) as error:
        load_folding(tmp_path / "f.yaml", graph)
    assert message.replace("NAME", name) in str(error.value)


def test_units_called_as_fifos_are(tmp_path: Path) -> None:
    """The FIFOs step aside, in the graph and in files; depths stay theirs."""
    graph = n2uq_block("g", (4, 4, 2), 2)
    called = {"prelu3": "fifos", graph.nodes[1].name: "add_i0_fifo"}
    named = replace(graph, nodes=tuple(replace(
        node, name=called.get(node.name, node.name),
        inputs=tuple(called.get(name, name) for name in node.inputs)) for node in graph.nodes))
    assert fifo_names(named) == ["add_i0_fifo_", "add_i1_fifo"]
    folding = size_fifos(named, choose(named)).folding
    assert folding["add_i0_fifo_"] == size_fifos(graph, choose(graph)).folding["add_i0_fifo"]
    assert {"add_i0_fifo", "add_i0_fifo_"} <= {
        node.name for node in hardware_graph(named, folding)[0].nodes}
    save_folding(folding, named, tmp_path / "f.yaml")
    assert load_folding(tmp_path / "f.yaml", named) == folding
    assert "fifos_:\n  add_i0_fifo_: " in (tmp_path / "f.yaml").read_text()


def test_builds_are_identical(tmp_path: Path) -> None:
    """Sized once more, or with the depths of the first one's file."""
    graph = n2uq_block("g", (4, 4, 2), 2)
    folding, edge = choose(graph), graph.edges["input"]
    images = np.random.default_rng(0).integers(edge.lo[0], edge.hi[0], (2, 2, 4, 4))
    for name in "abc":
        kept = folding if name != "c" else load_folding(tmp_path / "a" / "folding.yaml", graph)
        emit(graph, size_fifos(graph, kept), tmp_path / name, images, None)
    manifests = [(tmp_path / name / "manifest.json").read_text() for name in "abc"]
    assert manifests[0] == manifests[1] == manifests[2]
    assert "fifos:\n  add_i0_fifo: " in (tmp_path / "a" / "folding.yaml").read_text()


def test_a_build_has_the_depths_that_it_is_given(tmp_path: Path) -> None:
    graph = n2uq_block("g", (4, 4, 2), 2)
    sized = size_fifos(graph, choose(graph))
    deeper = {name: depth + 100 for name, depth in sized.depths.items()}
    asked = replace(sized, folding=with_fifos(sized.folding, deeper))
    emit(graph, asked, tmp_path / "b", np.zeros((1, 2, 4, 4), int), None)
    loaded = load_folding(tmp_path / "b" / "folding.yaml", graph)
    assert {name: loaded[name].depth for name in fifo_names(graph)} == deeper
