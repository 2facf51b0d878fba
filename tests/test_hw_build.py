"""Whole accelerators of random chains and random foldings, side by side in one simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from units import Bench, Case

from n2uq_hw import golden
from n2uq_hw.errors import N2uqError
from n2uq_hw.folding import FORMS, STYLES, Fold, Folding, choose, divided
from n2uq_hw.hw.build import Accelerator, fifo_depth, hardware_graph, lanes_of, unit
from n2uq_hw.ir import (
    ArgMax,
    DepthwiseMatVec,
    Fifo,
    Flatten,
    Graph,
    Input,
    MatVec,
    MaxPool,
    Node,
    Pad,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    WidthConvert,
)
from n2uq_hw.lower import lower
from n2uq_hw.nets import find_net

GRAPHS = 14
IMAGES = 4


class Chain:
    """Builds a random chain of nodes, each on top of the last."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.rng = name, np.random.default_rng(seed)
        shape = tuple(int(v) for v in self.rng.integers(1, (7, 7, 5)))
        low = int(self.rng.integers(-4, 1))
        self.nodes: list[Node] = [Input("input", shape=shape, lo=low, hi=low + 9)]

    @property
    def graph(self) -> Graph:
        return Graph(self.name, tuple(self.nodes))

    @property
    def edge(self):
        return self.graph.edges[self.nodes[-1].name]

    def add(self, kind: type[Node], **fields) -> None:
        name = f"{kind.__name__.lower()}{len(self.nodes)}"
        self.nodes.append(kind(name, (self.nodes[-1].name,), **fields))

    def threshold(self) -> None:
        edge, rng = self.edge, self.rng
        channels, steps = (1 if rng.random() < 0.3 else edge.channels), int(rng.integers(1, 6))
        lo, hi = int(edge.lo.min()), int(edge.hi.max())
        self.add(Threshold, thresholds=rng.integers(lo - 1, hi + 3, (channels, steps)),
                 signs=rng.integers(-1, 2, (channels, steps)).astype(np.int8),
                 base=rng.integers(-2, 3, channels))

    def windows(self) -> None:
        rng = self.rng
        if rng.random() < 0.6:
            frame = tuple(int(v) for v in rng.integers(0, 3, 4))
            self.add(Pad, frame=frame, values=rng.integers(-2, 3, self.edge.channels))
        height, width, channels = self.edge.shape
        kernel = int(rng.integers(1, min(height, 3) + 1)), int(rng.integers(1, min(width, 3) + 1))
        self.add(SlidingWindow, kernel=kernel, stride=tuple(int(v) for v in rng.integers(1, 4, 2)))
        kind = rng.integers(0, 4)
        positions = kernel[0] * kernel[1]
        if kind == 0:
            self.add(MaxPool, positions=positions)
        elif kind == 1:
            self.add(SumPool, positions=positions)
        elif kind == 2:
            self.add(DepthwiseMatVec, weights=rng.integers(-4, 4, (positions, channels)))
        else:
            self.matvec()

    def matvec(self) -> None:
        shape = int(self.rng.integers(1, 7)), self.edge.channels
        odd = self.rng.random() < 0.7
        codes = self.rng.integers(0, 4, shape)
        self.add(MatVec, weights=2 * codes - 3 if odd else codes - 2)

    def finish(self) -> Graph:
        rng = self.rng
        if rng.random() < 0.6:
            self.add(Flatten)
            self.matvec()
        channels = self.edge.channels
        self.add(Scale, multiplier=rng.integers(-9, 10, channels), shift=int(rng.integers(0, 4)),
                 offset=rng.integers(-20, 20, channels))
        if self.edge.shape[:2] == (1, 1) and rng.random() < 0.5:
            self.add(ArgMax)
        return self.graph.verify()


def random_graph(name: str, seed: int) -> Graph:
    chain = Chain(name, seed)
    if chain.rng.random() < 0.3:
        chain.threshold()
    for _ in range(int(chain.rng.integers(1, 4))):
        chain.windows()
        chain.threshold()
    return chain.finish()


def random_folding(graph: Graph, seed: int) -> Folding:
    rng = np.random.default_rng(seed)
    folds = {}
    for node in graph.nodes:
        if not isinstance(node, Flatten):
            totals = divided(node, graph.reads(node), graph.edges[node.name])
            lanes = {key: int(rng.choice([d for d in range(1, total + 1) if total % d == 0]))
                     for key, (_, total) in totals.items()}
            folds[node.name] = Fold(**lanes, style=str(rng.choice(STYLES)),
                                    form=str(rng.choice(FORMS)))
    return folds


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    cases = []
    for seed in range(GRAPHS):
        graph = random_graph(f"g{seed}", seed)
        edge = graph.edges["input"]
        images = np.random.default_rng(seed).integers(edge.lo, edge.hi + 1, (IMAGES, *edge.shape))
        cases.append(Case(graph.name, Accelerator(graph, random_folding(graph, seed)), images,
                          golden.run(graph, images)))
    return Bench(cases, tmp_path_factory)


def test_random_graphs_use_every_node() -> None:
    kinds = {type(node) for seed in range(GRAPHS) for node in random_graph("g", seed).nodes}
    assert kinds == set(Node.KINDS.values()) - {Fifo, WidthConvert}


@pytest.mark.parametrize("source,sink,resets", [
    (0, 0, ()), (0.5, 0, ()), (0, 0.5, ()), (0.4, 0.3, (40, 1, 333)), (0.1, 0.9, ())])
def test_random_accelerators(bench: Bench, source: float, sink: float, resets: tuple) -> None:
    bench.run(source, sink, resets)


def test_stream_rules_hold(bench: Bench) -> None:
    bench.check_rules()


def test_hardware_graph_changes_no_value() -> None:
    for seed in range(GRAPHS):
        graph = random_graph("g", seed)
        folds = random_folding(graph, seed)
        hardware, all_folds = hardware_graph(graph, folds)
        edge = graph.edges["input"]
        images = np.random.default_rng(seed).integers(edge.lo, edge.hi + 1, (2, *edge.shape))
        np.testing.assert_array_equal(golden.run(graph, images), golden.run(hardware, images))
        for node in hardware.nodes[1:]:
            # Neighbours agree on lanes.
            given = lanes_of(hardware, all_folds, node.inputs[0])
            fold = all_folds.get(node.name, Fold())
            wanted = fold.simd if isinstance(node, MatVec | WidthConvert) else fold.pe
            assert isinstance(node, Flatten) or given == wanted, (seed, node.name)


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


def test_nodes_without_gateware_are_named() -> None:
    graph = random_graph("g", 0)
    with pytest.raises(N2uqError, match="no gateware for Flatten"):
        unit(Flatten("f"), (), graph.edges["input"], Fold())


def test_impossible_folding_is_found_before_elaboration() -> None:
    graph = lower(find_net("digits_mlp_w2a2"))
    with pytest.raises(N2uqError, match="fc1: PE must divide the 64 output channels, not 12"):
        hardware_graph(graph, {**choose(graph), "fc1": Fold(pe=12)})


def test_text_is_the_same_every_time(tmp_path: Path) -> None:
    from n2uq_hw.emit import accelerator_verilog

    graph = random_graph("g", 3)
    folds = random_folding(graph, 3)
    assert accelerator_verilog(graph, folds) == accelerator_verilog(graph, folds)
