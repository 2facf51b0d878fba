# amaranth: UnusedElaboratable=no
"""Whole accelerators of random graphs and random foldings, side by side in one simulation."""

from __future__ import annotations

import re
import sys
from itertools import count
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from graphs import (
    random_chain,
    random_dense,
    random_folding,
    random_residual,
    whole,
    with_depths,
)
from marks import few
from units import Bench

from n2uq_hw.builds.emit import accelerator_verilog
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.accelerator import Accelerator
from n2uq_hw.hw.depths import fifo_depth
from n2uq_hw.hw.library import Library
from n2uq_hw.hw.passes import hardware_graph, lanes_of
from n2uq_hw.hw.units import unit
from n2uq_hw.ir import (
    Add,
    ArgMax,
    Concat,
    Fifo,
    Flatten,
    Fork,
    Graph,
    Input,
    MatVec,
    Node,
    OffsetMatVec,
    Saturate,
    Scale,
    Threshold,
    WidthConvert,
    golden,
)
from n2uq_hw.ir.folding import Fold, Folding, MatVecFold, ThresholdFold, lanes_in
from n2uq_hw.lowering.lower import lower
from n2uq_hw.nets import find_net
from n2uq_hw.plan.choice import choose

IMAGES = 4
CHAINS, RESIDUALS = range(8), (26, 151, 170, 175, 197, 215)  # small ones of every kind
DENSE = (12, 20, 23, 54)


def random_graph(seed: int) -> Graph:
    """Chains, then graphs with branches."""
    if seed in CHAINS:
        return random_chain(f"g{seed}", seed)
    branched = [(random_residual, each) for each in RESIDUALS] + [
        (random_dense, each) for each in DENSE]
    make, source = branched[seed - len(CHAINS)]
    return make(f"g{seed}", source)


GRAPHS = range(len(CHAINS) + len(RESIDUALS) + len(DENSE))


FEW = (0, 5, len(CHAINS), len(CHAINS) + len(RESIDUALS))


@pytest.fixture(scope="module", params=[
    pytest.param(FEW, id="few"), pytest.param(GRAPHS, id="all", marks=pytest.mark.slow)])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Half of the branches have the FIFOs that just do not deadlock, others twice as deep ones."""
    cases = []
    for seed in request.param:
        graph = random_graph(seed)
        accelerator = Accelerator(graph, random_folding(graph, seed))
        cases.append(whole(with_depths(accelerator, 1 + seed % 2), graph, IMAGES, seed))
    return Bench(cases, tmp_path_factory)


def test_random_graphs_use_every_node() -> None:
    kinds = {type(node) for seed in GRAPHS for node in random_graph(seed).nodes}
    assert kinds == set(Node.KINDS.values()) - {Fifo, Fork, WidthConvert}


@pytest.mark.parametrize("source,sink,resets", few([
    (0, 0, ()), (0.5, 0, ()), (0, 0.5, ()), (0.4, 0.3, (40, 1, 333)), (0.1, 0.9, ())],
    lambda each: len(each[2]) == 3 or not any(each[:2])))
def test_random_accelerators(bench: Bench, source: float, sink: float, resets: tuple) -> None:
    bench.run(source, sink, resets)


@pytest.mark.slow
def test_stream_rules_hold(bench: Bench) -> None:
    bench.check_rules()


def test_hardware_graph_changes_no_value() -> None:
    for seed in GRAPHS:
        graph = random_graph(seed)
        hardware, folds = hardware_graph(graph, random_folding(graph, seed))
        edge = graph.edges["input"]
        images = np.random.default_rng(seed).integers(edge.lo, edge.hi + 1, (2, *edge.shape))
        np.testing.assert_array_equal(golden.run(graph, images), golden.run(hardware, images))
        for node in hardware.nodes[1:]:
            for port, name in enumerate(node.inputs):  # neighbours agree on lanes
                assert isinstance(node, Flatten) or (
                    lanes_of(hardware, folds, name) == lanes_in(
                        node, port, folds[node.name], hardware.edges[name])), node
            readers = sum(other.inputs.count(node.name) for other in hardware.nodes)
            assert readers <= 1 or (isinstance(node, Fork) and node.ways == readers), node
            if isinstance(node, Add | Concat):
                assert all(isinstance(hardware[name], Fifo) for name in node.inputs)


@pytest.mark.parametrize("weights,steps,form,moved", [
    ("odd", 4, "pairs", True), ("odd", 4, "planes", False), ("all", 4, "pairs", False),
    ("odd", 1, "pairs", False), ("odd", 4, "heap", True)])
def test_offsets_lie_in_thresholds(weights: str, steps: int, form: str, moved: bool) -> None:
    """Where each channel has steps of its own: others have more lanes than there are channels."""
    rng = np.random.default_rng(0)
    w = 2 * rng.integers(0, 4, (4, 6)) - 3 if weights == "odd" else rng.integers(-2, 2, (4, 6))
    at = np.sort(rng.integers(-20, 20, (steps, 3)), axis=1)
    graph = Graph("g", (
        Input("x", shape=(1, 2, 6), lo=0, hi=3), MatVec("y", ("x",), weights=w),
        Threshold("z", ("y",), thresholds=at, signs=np.ones_like(at, np.int8))))
    hardware, _ = hardware_graph(graph, {
        "x": Fold(6), "y": MatVecFold(2, 3, form), "z": ThresholdFold(2)})
    assert isinstance(hardware["y"], OffsetMatVec) is moved
    images = rng.integers(0, 4, (50, 1, 2, 6))
    ours, theirs = (golden.run_all(each, images) for each in (graph, hardware))
    assert (ours["z"] == theirs["z"]).all() and len(np.unique(ours["z"])) > 2
    assert (ours["y"] != theirs["y"]).any() == moved
    assert not moved or hardware.edges["y"].lo.min() == 0


def test_an_offset_is_not_moved_past_a_second_reader() -> None:
    """Pairs do without; a heap cannot."""
    weights, steps = np.ones((2, 2), np.int8), np.zeros((2, 1), np.int64)
    graph = Graph("g", (
        Input("x", shape=(1, 1, 2), lo=0, hi=3), MatVec("y", ("x",), weights=weights),
        Threshold("z", ("y",), thresholds=steps, signs=np.ones_like(steps, np.int8)),
        Add("s", ("y", "z"))))
    folds = {"x": Fold(), "y": MatVecFold(form="pairs"), "z": ThresholdFold(), "s": Fold()}
    assert type(hardware_graph(graph, folds)[0]["y"]) is MatVec
    with pytest.raises(N2uqError, match=r"^y: form heap must have odd weights, and behind it a "):
        hardware_graph(graph, folds | {"y": MatVecFold(form="heap")})


def diamond(**clamp: int) -> Graph:
    """The input scaled three ways, summed."""
    nodes: list[Node] = [Input("x", shape=(2, 2, 2), lo=-8, hi=7)]
    nodes += [Scale(name, ("x",), multiplier=np.array([k])) for k, name in enumerate("abc")]
    nodes += [Add("ab", ("a", "b")), Add("abc", ("ab", "c")), Add("more", ("abc", "abc"))]
    return Graph("diamond", (*nodes, Saturate("held", ("more",), **clamp)))


def test_forks_by_hand() -> None:
    graph = diamond(lo=-2, hi=2)
    folding = {node.name: Fold(pe=2 if node.name in ("x", "a", "more") else 1)
               for node in graph.nodes}
    hardware, folds = hardware_graph(graph, folding)
    reads = {node.name: node.inputs for node in hardware.nodes}
    assert list(reads) == [
        "x", "x_fork", "a", "b_width", "b", "c_width", "c",
        "ab_i0_width", "ab_i0_fifo", "ab_i1_fifo", "ab", "abc_i0_fifo", "abc_i1_fifo", "abc",
        "abc_fork", "more_i0_width", "more_i0_fifo", "more_i1_width", "more_i1_fifo", "more",
        "held_width", "held"]
    assert reads["a"] == reads["b_width"] == reads["c_width"] == ("x_fork",)
    assert reads["more_i0_width"] == reads["more_i1_width"] == ("abc_fork",)
    assert reads["more"] == ("more_i0_fifo", "more_i1_fifo")
    assert folds["x_fork"].pe == 2 and folds["abc_fork"].pe == 1
    assert [node.ways for node in hardware.nodes if isinstance(node, Fork)] == [3, 2]


def test_only_saturation_is_counted() -> None:
    graph = diamond(lo=-2, hi=2)
    assert "saturated" in Accelerator(graph, choose(graph)).signature.members
    plain = Graph("plain", graph.nodes[:-1])
    assert "saturated" not in Accelerator(plain, choose(plain)).signature.members


def test_fifos_by_hand() -> None:
    graph = lower(find_net("digits_cnn_w2a2"))
    depth = {node.name: fifo_depth(graph, node, 1) for node in graph.nodes[1:]
             if not isinstance(node, Flatten)}
    assert depth["conv1_pad"] == 0           # the source waits
    assert depth["conv1"] == depth["conv2"] == 2
    assert depth["conv2_pad"] == (8 + 2) * 16  # rows 0, 1 and 2 less the pad's: a row and 2 pixels
    assert depth["conv3_pad"] == (4 + 2) * 32
    assert depth["pool2_window"] == 2 * 32   # the line buffer has a row to spare
    assert depth["fc"] == 128                # one vector, while the one before is replayed
    assert depth["quan1"] == depth["quan2"] == 2  # cuts the ready path into a MatVec
    assert depth["pool2"] == depth["logits"] == 0
    # Before whole windows: a pixel per cycle while the frame is given, and two for the Fifo itself.
    assert fifo_depth(graph, graph["conv2_pad"], 16, whole=True) == 8 + 1 + 2
    assert fifo_depth(graph, graph["pool2_window"], 32, whole=True) == 2


def test_nodes_without_gateware_are_named() -> None:
    graph = random_graph(0)
    with pytest.raises(N2uqError, match="no gateware for Flatten"):
        unit(Flatten("f"), (), graph.edges["input"], Fold())


def test_impossible_folding_is_found_before_elaboration() -> None:
    graph = lower(find_net("digits_mlp_w2a2"))
    with pytest.raises(N2uqError, match="fc1: PE must divide the 64 output channels, not 12"):
        hardware_graph(graph, {**choose(graph), "fc1": MatVecFold(pe=12)})


@pytest.mark.slow
def test_text_is_the_same_every_time(tmp_path: Path) -> None:
    graph = random_graph(3)
    folds = random_folding(graph, 3)
    assert accelerator_verilog(graph, folds) == accelerator_verilog(graph, folds)


def classes(total: int, pe: int, inputs: int = 4) -> tuple[Graph, Folding]:
    """A layer of so many classes, PE at a time, their scales, steps and the largest."""
    rng = np.random.default_rng(0)
    at = np.sort(rng.integers(-300, 300, (total, 3)), axis=1)
    return Graph("classes", (
        Input("x", shape=(1, 1, inputs), lo=0, hi=3),
        MatVec("fc", ("x",), weights=2 * rng.integers(0, 4, (total, inputs)) - 3),
        Scale("scale", ("fc",), multiplier=rng.integers(1, 9, total)),
        Threshold("steps", ("scale",), thresholds=at, signs=np.ones_like(at, np.int8)),
        ArgMax("top", ("steps",)))), {
            "x": Fold(inputs), "fc": MatVecFold(pe, inputs), "scale": Fold(pe),
            "steps": ThresholdFold(pe), "top": Fold(pe)}


@pytest.mark.slow
def test_a_thousand_classes_at_once() -> None:
    graph, folding = classes(1000, 1000)
    verilog = accelerator_verilog(graph, folding)["classes.v"]
    assert verilog.count(" pe999 (") == 1 and len(verilog) < 2500 * 1000


def test_a_beat_is_one_statement() -> None:
    """Amaranth's time grows with the square of the statements for one signal."""
    library = Library()
    library.signature("classes", lambda: Accelerator(*classes(80, 40)))
    processes = [process for text in library.rtlil().values()
                 for process in re.findall(r"^  process.*?^  end$", text, re.S | re.M)]
    # A value that holds, the enabled one, that of reset.
    assert max(len(re.findall("^ +assign ", each, re.M)) for each in processes) == 3


def test_work_grows_as_lanes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are counted, in two groups of channels: tables are ROMs, several for a wide one."""
    monkeypatch.setattr("n2uq_hw.hw.memory.WIDEST", 64)

    def calls(pe: int) -> int:
        library, counter = Library(), count()

        def called(frame: FrameType, event: str, arg: object) -> None:
            if event == "call":
                next(counter)
        library.signature("classes", lambda: Accelerator(*classes(2 * pe, pe)))
        before = sys.getprofile()
        sys.setprofile(called)
        try:
            library.rtlil()
        finally:
            sys.setprofile(before)
        return next(counter)
    assert calls(160) < 4.5 * calls(40)
