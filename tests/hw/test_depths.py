# amaranth: UnusedElaboratable=no
"""FIFOs where branches meet: what beats need, and the least depths that flow."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from graphs import (
    branch_fifos,
    convolution,
    random_dense,
    random_folding,
    random_residual,
    resnet18,
    whole,
)
from units import Bench

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.accelerator import Accelerator
from n2uq_hw.hw.depths import least_depth, needed
from n2uq_hw.hw.passes import hardware_graph, lanes_of
from n2uq_hw.ir import (
    Add,
    ArgMax,
    Concat,
    DepthToSpace,
    DepthwiseMatVec,
    Edge,
    Fifo,
    Flatten,
    Fork,
    Graph,
    Input,
    MatVec,
    MaxPool,
    Node,
    Pad,
    Permute,
    Scale,
    SlidingWindow,
    SumPool,
    Upsample,
    WidthConvert,
    golden,
    infer,
)
from n2uq_hw.ir.folding import Fold, Folding, MatVecFold, unfolded
from n2uq_hw.plan.choice import choose

SAME = [Fifo, Fork, Flatten]


def edge_of(shape: tuple[int, int, int]) -> Edge:
    """An edge on which golden can carry the number of each element, from 1 on."""
    size = shape[0] * shape[1] * shape[2]
    return Edge(shape, np.zeros(shape[2], np.int64), np.full(shape[2], size))


def last_element(node: Node, edge: Edge) -> np.ndarray:
    """The last element of the image that each element of the result depends on, by golden."""
    numbers = np.arange(1, edge.size + 1).reshape(1, *edge.shape)
    if isinstance(node, MatVec | ArgMax):  # of a whole pixel
        outputs = infer(node, edge).channels
        return numbers[..., -1:].repeat(outputs, axis=3).reshape(-1)
    if isinstance(node, SumPool | DepthwiseMatVec):
        node = MaxPool("max", positions=edge.channels // infer(node, edge).channels)
    return golden.evaluate(node, (edge,), numbers).reshape(-1)


def same_needs(node: Node, edge: Edge, takes: int, gives: int) -> None:
    out = infer(node, edge)
    elements = np.maximum.accumulate(last_element(node, edge))[gives - 1::gives]
    expected = np.maximum(-(-elements // takes), 1)  # a frame waits for its image
    counts = np.arange(1, out.size // gives + 1)
    np.testing.assert_array_equal(
        needed(node, 0, counts, (edge,), out, takes, gives), expected, str(node))


@pytest.mark.parametrize("seed", range(40))
def test_needs_in_groups_and_with_dilation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups, of_group = (int(v) for v in rng.integers(1, 4, 2))
    kernel, dilation = (tuple(int(v) for v in rng.integers(1, 4, 2)) for _ in range(2))
    height, width = (int((k - 1) * d + rng.integers(1, 5))
                     for k, d in zip(kernel, dilation, strict=True))
    read = edge_of((height, width, groups * of_group))
    lanes = int(rng.choice([d for d in range(1, of_group + 1) if of_group % d == 0]))
    window = SlidingWindow("window", kernel=kernel, dilation=dilation, groups=groups,
                           stride=tuple(int(v) for v in rng.integers(1, 4, 2)))
    whole = kernel[0] * kernel[1] * read.channels
    same_needs(window, read, *((read.channels, whole) if seed % 3 == 0 else (lanes, lanes)))
    # Outputs of a group are of its inputs alone: two of each.
    vector = edge_of((2, 2, 2 * groups))
    matvec = MatVec("matvec", weights=np.ones((2 * groups, 2), np.int8), groups=groups)
    for takes, gives in ((1, 1), (1, 2), (2, 1), (2, 2)):
        last = np.arange(2, vector.size + 1, 2).repeat(2)[gives - 1::gives]
        np.testing.assert_array_equal(needed(
            matvec, 0, np.arange(1, len(last) + 1), (vector,), infer(matvec, vector), takes, gives),
            last // takes)


@pytest.mark.parametrize("seed", range(60))
def test_needs_are_those_of_golden(seed: int) -> None:
    """A beat needs what any of its elements, or of an earlier beat's, depends on."""
    rng = np.random.default_rng(seed)
    height, width, channels = (int(v) for v in rng.integers(1, (6, 6, 5)))
    kernel = int(rng.integers(1, min(height, 3) + 1)), int(rng.integers(1, min(width, 3) + 1))
    read, positions = edge_of((height, width, channels)), kernel[0] * kernel[1]
    windows = edge_of((height, width, positions * channels))
    nodes = [
        (Pad("pad", frame=tuple(int(v) for v in rng.integers(0, 3, 4))), read),
        (SlidingWindow("window", kernel=kernel,
                       stride=tuple(int(v) for v in rng.integers(1, 4, 2))), read),
        (MatVec("matvec", weights=np.ones((int(rng.integers(1, 7)), channels), np.int8)), read),
        (ArgMax("argmax"), edge_of((1, 1, channels))),
        (WidthConvert("width"), read),
        (MaxPool("max", positions=positions), windows),
        (SumPool("sum", positions=positions), windows),
        (DepthwiseMatVec("depth", weights=np.ones((positions, channels), np.int8)), windows),
        (Upsample("up", factor=tuple(int(v) for v in rng.integers(1, 4, 2))), read),
        *((kind("same"), read) for kind in SAME)]
    for node, edge in nodes:
        out = infer(node, edge)
        takes, gives = (int(rng.choice([d for d in range(1, n + 1) if n % d == 0]))
                        for n in (edge.channels, out.channels))
        if not isinstance(node, MatVec | ArgMax | WidthConvert):  # which alone change lanes
            gives = takes = int(rng.choice([d for d in range(1, channels + 1)
                                            if channels % d == 0]))
        if isinstance(node, SlidingWindow) and seed % 3:  # a whole row of the kernel, or all of it
            takes, gives = channels, kernel[1] * channels * (kernel[0] if seed % 3 == 2 else 1)
        if isinstance(node, MaxPool | SumPool) and seed % 3 == 2:
            takes, gives = positions * channels, channels
        same_needs(node, edge, takes, gives)


class Flow:
    """A hardware graph at work without a clock, every unit with as little room as it can have.

    A unit takes what its next beat needs and no more; a Fork's readers take each beat once; an Add
    takes both of its beats when both are there, straight from its FIFOs.
    """

    def __init__(self, graph: Graph, lanes: dict[str, int], images: int = 3) -> None:
        self.nodes = {node.name: node for node in graph.nodes}
        beats = {name: graph.edges[name].size // lanes[name] for name in self.nodes}
        self.total = {name: images * beats[name] for name in beats}
        self.readers: dict[str, list[tuple[str, int]]] = {name: [] for name in beats}
        self.needs = {}
        for node in graph.nodes:
            counts = np.arange(1, beats[node.name] + 1)
            for k, name in enumerate(node.inputs):
                self.readers[name].append((node.name, k))
                needs = needed(node, k, counts, graph.reads(node), graph.edges[node.name],
                               lanes[name], lanes[node.name])
                self.needs[node.name, k] = np.concatenate(
                    [needs + image * beats[name] for image in range(images)])
        self.taken = {key: 0 for key in self.needs}
        self.handed = {(name, way): 0 for name, readers in self.readers.items()
                       for way in range(max(len(readers), 1))}
        self.output = graph.output

    def gone(self, name: str) -> int:
        """Beats that all readers have."""
        return min(self.handed[name, way] for way in range(max(len(self.readers[name]), 1)))

    def ready(self, name: str) -> bool:
        """Whether the next beat is there to be handed over."""
        node, beats = self.nodes[name], self.gone(name)
        return beats < self.total[name] and all(
            self.taken[name, k] >= self.needs[name, k][beats] for k in range(len(node.inputs)))

    def accepts(self, name: str, k: int) -> bool:
        """Whether `name` takes one more beat of its input `k`."""
        node, beats = self.nodes[name], self.gone(name)
        if isinstance(node, Fifo):
            (reader, port), = self.readers[name]
            left = beats
            if isinstance(self.nodes[reader], Add | Concat):  # what its beats needed that have left
                left = np.append(0, self.needs[reader, port])[self.gone(reader)]
            return self.taken[name, k] < left + node.depth
        return beats == self.total[name] or self.taken[name, k] < self.needs[name, k][beats]

    def step(self, name: str) -> bool:
        """Hand the next beat to all readers that take it; whether any did."""
        moved = False
        if self.ready(name):
            beats = self.gone(name)
            for way, (reader, k) in enumerate(self.readers[name] or [("", 0)]):
                if self.handed[name, way] == beats and (not reader or self.accepts(reader, k)):
                    self.handed[name, way] += 1
                    if reader:
                        self.taken[reader, k] += 1
                    moved = True
        return moved

    def ends(self) -> bool:
        """Whether all of the output leaves."""
        while any([self.step(name) for name in self.nodes]):
            continue
        return self.gone(self.output) == self.total[self.output]


def least(graph: Graph, folding: Folding) -> tuple[Graph, dict[str, int]]:
    """The hardware graph with least depths, and the lanes of its edges."""
    hardware, folds = hardware_graph(graph, folding)
    return hardware, {node.name: lanes_of(hardware, folds, node.name) for node in hardware.nodes}


@pytest.mark.parametrize("seed", range(24))
def test_least_depths_flow_in_random_graphs(seed: int) -> None:
    graph = random_residual("g", seed)
    assert Flow(*least(graph, random_folding(graph, seed))).ends()


@pytest.mark.parametrize("seed", range(24))
def test_least_depths_flow_beside_each_other(seed: int) -> None:
    graph = random_dense("g", seed)
    assert Flow(*least(graph, random_folding(graph, seed))).ends()


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("block,channels,lanes", [(1, 4, 2), (2, 1, 1), (2, 2, 1), (3, 4, 2),
                                                  (2, 4, 4), ((3, 1), 2, 1), ((1, 2), 4, 2)])
def test_needs_of_blocks(mode: str, block: int | tuple[int, int], channels: int, lanes: int
                         ) -> None:
    """In mode CRD a unit takes whole pixels, unless their order is that of DCR."""
    node = DepthToSpace("d", block=block, mode=mode)
    read = edge_of((3, 2, math.prod(node.sides) * channels))
    if mode == "DCR" or 1 in (block, channels):
        same_needs(node, read, lanes, lanes)
    else:
        out, pixel = infer(node, read), read.channels
        elements = np.maximum.accumulate(last_element(node, read))[lanes - 1::lanes]
        np.testing.assert_array_equal(
            needed(node, 0, np.arange(1, out.size // lanes + 1), (read,), out, lanes, lanes),
            -(-elements // pixel) * pixel // lanes)


def test_needs_of_a_permute() -> None:
    node, read = Permute("p", order=np.array([3, 0])), edge_of((1, 2, 4))
    for takes, gives, beats in ((1, 1, [4, 4, 8, 8]), (4, 2, [1, 2]), (2, 1, [2, 2, 4, 4])):
        assert needed(node, 0, np.arange(1, len(beats) + 1), (read,), infer(node, read), takes,
                      gives).tolist() == beats


@pytest.mark.parametrize("pe", [1, 2, 12])
def test_needs_of_a_concat(pe: int) -> None:
    """The last element of each input that a beat, or an earlier one, is made of."""
    reads = tuple(edge_of((3, 2, channels)) for channels in (4, 2, 6))
    node, numbers = Concat("cat"), [np.arange(1, read.size + 1).reshape(1, *read.shape)
                                    for read in reads]
    out = infer(node, *reads)
    for port, read in enumerate(reads):
        zeros = [x * (k == port) for k, x in enumerate(numbers)]
        elements = np.maximum.accumulate(golden.evaluate(node, reads, *zeros).reshape(-1))
        takes = min(pe, read.channels)
        np.testing.assert_array_equal(
            needed(node, port, np.arange(1, out.size // pe + 1), reads, out, takes, pe),
            -(-elements[pe - 1::pe] // takes))


def skip(*branch: Node, shape: tuple[int, int, int] = (4, 5, 2)) -> Graph:
    """A branch of nodes that starts at the Input, added to the identity."""
    nodes = (Input("x", shape=shape, hi=3), *branch, Add("sum", (branch[-1].name, "x")))
    return Graph("skip", nodes).verify()


def conv(name: str, x: str) -> list[Node]:
    """3 × 3, padded."""
    return convolution(name, x, 2, 2, np.random.default_rng(0))


def depths(graph: Graph, lanes: int = 1) -> tuple[int, int]:
    """Least depths on the inputs of the Add."""
    folding = {node.name: unfolded(node, pe=lanes) for node in graph.nodes}
    hardware, _ = least(graph, folding | {
        name: replace(fold, simd=lanes) for name, fold in folding.items()
        if isinstance(fold, MatVecFold)})
    first, second = branch_fifos(hardware).values()
    return first, second


def test_depths_by_hand() -> None:
    """Images of 4 × 5 pixels, 2 beats a pixel; the Fork holds the last beat that is needed."""
    once, twice = conv("a", "x"), conv("a", "x") + conv("b", "a")
    assert depths(skip(*once)) == (2, (5 + 2) * 2 - 1)        # the first row and 2 pixels
    assert depths(skip(*twice)) == (2, (2 * 5 + 3) * 2 - 1)   # two rows and 3 pixels
    assert depths(skip(*once), lanes=2) == (2, 5 + 2 - 1)
    # Within the branch, the longer of two ways counts, in whichever order they are read.
    nested = [*conv("a", "x"), Scale("s", ("a",)), *conv("b", "a"), Add("inner", ("s", "b"))]
    hardware, _ = least(skip(*nested), {node.name: unfolded(node) for node in skip(*nested).nodes})
    assert list(branch_fifos(hardware).values()) == [(5 + 2) * 2, 2, 2, (2 * 5 + 3) * 2 - 1]
    # The Fork serves the Add's identity first if that reads it first.
    turned = Graph("g", (Input("x", shape=(4, 5, 2), hi=3), Add("early", ("x", "x")), *once,
                         Add("sum", ("early", "a"))))
    hardware, _ = least(turned, {node.name: unfolded(node) for node in turned.nodes})
    assert list(branch_fifos(hardware).values())[2:] == [(5 + 2) * 2, 2]
    # No beat of the mean comes before the last pixel; by then all of the corner is there.
    mean = [SlidingWindow("window", ("x",), kernel=(4, 5)),
            SumPool("mean", ("window",), positions=20),
            SlidingWindow("corner", ("x",), stride=(4, 5))]
    graph = Graph("g", (Input("x", shape=(4, 5, 6), hi=3), *mean, Add("sum", ("mean", "corner"))))
    hardware, _ = least(graph, {node.name: unfolded(node) for node in graph.nodes})
    assert list(branch_fifos(hardware).values()) == [2, 6]


def test_beats_that_wait_by_hand() -> None:
    needs, late, taken = np.array([1, 2, 3, 4]), np.array([4, 4, 4, 4]), np.arange(4)
    assert least_depth(needs, late, taken, 4, -1) == 3
    assert least_depth(needs, late, taken, 4, 0) == 4  # the next image's first comes after the sum
    assert least_depth(late, needs, taken, 4, 0) == 1


def test_nodes_without_an_order_are_named() -> None:
    edge = edge_of((1, 1, 1))
    with pytest.raises(N2uqError, match="no order of beats for Input"):
        needed(Input("x"), 0, np.ones(1, int), (edge,), edge, 1, 1)


def test_every_node_has_an_order() -> None:
    for kind in Node.KINDS.values():
        assert (needed.dispatch(kind) is not needed.dispatch(Node)) == (kind is not Input), kind


def concat(turned: bool) -> tuple[Graph, Folding]:
    """A window's sums of 2 channels beside the image's 4, or the other way round."""
    nodes = (Input("x", shape=(4, 5, 4), hi=3),
             *convolution("a", "x", 4, 2, np.random.default_rng(0)),
             Concat("both", ("x", "a") if turned else ("a", "x")))
    graph = Graph("g", nodes).verify()
    return graph, {node.name: unfolded(node) for node in graph.nodes} | {"both": Fold(2)}


@pytest.mark.parametrize("turned", [False, True])
def test_inputs_that_are_not_alike(turned: bool) -> None:
    """Each has a depth of its own; with an entry less it does not flow."""
    graph, folding = concat(turned)
    hardware, lanes = least(graph, folding)
    assert [lanes[name] for name in hardware["both"].inputs] == [2, 2]
    depths = branch_fifos(hardware)
    name, depth = max(depths.items(), key=lambda pair: pair[1])
    # A row and two pixels of the image wait for their first sum, but for the beat that the Fork
    # holds; what comes first in a pixel of the result leaves before.
    assert (name, depth) == (("both_i0_fifo", 7 * 2 - 2 - 1) if turned else
                             ("both_i1_fifo", 7 * 2 - 1))
    assert Flow(hardware, lanes).ends()
    short = hardware.with_nodes(replace(node, depth=depth - 1) if node.name == name else node
                                for node in hardware.nodes)
    assert not Flow(short, lanes).ends()


def test_queues_of_resnet18() -> None:
    """At most 1.2 Mbit in all, and none deeper than its image and a row."""
    graph = resnet18()
    hardware, folds = hardware_graph(graph, choose(graph))
    queues = branch_fifos(hardware)
    assert len(queues) == 16
    assert sum(depth * folds[name].pe * hardware.edges[name].width
               for name, depth in queues.items()) < 1.2e6


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The least depths, and one of them less 1."""
    graph = skip(*conv("a", "x"), *conv("b", "a"))
    folding = {node.name: unfolded(node) for node in graph.nodes}
    cases = []
    for less, name in enumerate(["enough", "short"]):
        accelerator = Accelerator(replace(graph, name=name), folding)
        accelerator.graph = accelerator.graph.with_nodes(
            replace(node, depth=node.depth - less) if node.name == "sum_i1_fifo" else node
            for node in accelerator.graph.nodes)
        assert branch_fifos(accelerator.graph)["sum_i1_fifo"] == 25 - less
        cases.append(whole(accelerator, graph, 2))
    return Bench(cases, tmp_path_factory)


@pytest.mark.slow
def test_one_beat_less_deadlocks(tight: Bench) -> None:
    with pytest.raises(N2uqError, match=r"^short: deadlock, output o__payload gave 0 of 80 "):
        tight.run()
