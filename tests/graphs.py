"""Random graphs and foldings, residual blocks by hand, and their accelerators as test cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from hypothesis import strategies as st
from units import Case, images_on

from n2uq_hw.hw.accelerator import Accelerator
from n2uq_hw.ir import (
    Add,
    ArgMax,
    Concat,
    DepthToSpace,
    DepthwiseMatVec,
    Edge,
    Fifo,
    Flatten,
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
    Upsample,
    golden,
)
from n2uq_hw.ir.folding import (
    FORMS,
    LUTS,
    STYLES,
    Folding,
    MatVecFold,
    ThresholdFold,
    UnrolledFold,
    choices,
    unfolded,
)


class Drawn:
    """What is asked of a Generator here, drawn by hypothesis, which looks for the least that fails.
    """

    def __init__(self, data: st.DataObject) -> None:
        self.draw = data.draw

    def integers(self, low, high, size=None) -> np.ndarray:
        low, high = (np.broadcast_to(end, size) if size is not None else end
                     for end in np.broadcast_arrays(low, high))
        if low.size > 8:  # one draw, where there are many: there is a limit
            rng = np.random.default_rng(self.draw(st.integers(0, 2**16)))
            return rng.integers(low, high)
        return np.array([self.draw(st.integers(int(a), int(b) - 1)) for a, b in zip(
            low.flat, high.flat, strict=True)], np.int64).reshape(low.shape)

    def random(self) -> float:
        return self.draw(st.integers(0, 99)) / 100

    def choice(self, options: Sequence) -> Any:
        return self.draw(st.sampled_from(list(options)))


Source = int | Drawn  # of what is random: a seed, or hypothesis


def generator(source: Source) -> Any:
    return source if isinstance(source, Drawn) else np.random.default_rng(source)


class Grower:
    """Builds a random graph node by node, each on top of the `tip`."""

    def __init__(self, name: str, source: Source) -> None:
        self.name, self.rng = name, generator(source)
        shape = tuple(int(v) for v in self.rng.integers(1, (7, 7, 5)))
        low = int(self.rng.integers(-4, 1))
        self.nodes: list[Node] = [Input("input", shape=shape, lo=low, hi=low + 9)]
        self.tip = "input"

    @property
    def edge(self) -> Edge:
        return Graph(self.name, tuple(self.nodes)).edges[self.tip]

    def add(self, kind: type[Node], *others: str, **fields) -> None:
        name = f"{kind.__name__.lower()}{len(self.nodes)}"
        self.nodes.append(kind(name, (self.tip, *others), **fields))
        self.tip = name

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
            self.matvec(int(rng.integers(1, 7)))

    def matvec(self, outputs: int, groups: int = 1) -> None:
        shape = outputs, self.edge.channels // groups
        odd = self.rng.random() < 0.7
        codes = self.rng.integers(0, 4, shape)
        self.add(MatVec, weights=2 * codes - 3 if odd else codes - 2, groups=groups)

    def branch(self, stride: tuple[int, int], channels: int, nested: int) -> None:
        """One or two convolutions that keep the shape but for `stride`; perhaps a block."""
        rng = self.rng
        for step in stride, (1, 1):
            kernel = np.minimum(rng.integers(1, 4, 2), 1 + 2 * (rng.random() < 0.8))
            before = rng.integers(0, kernel)  # any split of the frame, not only the middle
            (top, left), (bottom, right) = before, kernel - 1 - before
            self.threshold()
            if kernel.max() > 1:
                self.add(Pad, frame=tuple(int(v) for v in (top, bottom, left, right)),
                         values=rng.integers(-2, 3, self.edge.channels))
            self.add(SlidingWindow, kernel=tuple(int(v) for v in kernel), stride=step)
            self.matvec(channels)
            if rng.random() < 0.4:
                break
        if nested and rng.random() < 0.6:
            self.block(nested - 1, keep=True)

    def block(self, nested: int, keep: bool = False) -> None:
        """Branches, of which one may be the identity or hold a block, and their sum."""
        rng, x, channels = self.rng, self.tip, self.edge.channels
        if keep or rng.random() < 0.6:
            stride, identity = (1, 1), True
        else:
            stride = tuple(int(v) for v in rng.integers(1, 3, 2))
            channels, identity = int(rng.integers(1, 5)), False
        self.branch(stride, channels, nested)
        if not identity:
            first, self.tip = self.tip, x
            self.branch(stride, channels, 0)
            self.add(Add, first)
        elif rng.random() < 0.5:
            self.add(Add, x)
        else:
            first, self.tip = self.tip, x
            self.add(Add, first)
        if identity and rng.random() < 0.4:
            self.add(Add, x)  # a third reader
        if rng.random() < 0.3:
            self.add(Add, self.tip)
        lo, hi = int(self.edge.lo.min()), int(self.edge.hi.max())
        if rng.random() < 0.5:
            self.add(Saturate, lo=lo // 3, hi=-(-hi // 3))
        channels = self.edge.channels
        self.add(PiecewiseLinear, turn=rng.integers(lo, hi + 1, channels), shift=3,
                 multiplier=rng.integers(-9, 10, (2, channels)),
                 offset=rng.integers(-20, 20, (2, channels)))

    def spread(self) -> None:
        """Pixels, windows or channels in other places."""
        rng, (height, width, channels) = self.rng, self.edge.shape
        kind = int(rng.integers(0, 4))
        if kind == 0 and height * width <= 12:
            self.add(Upsample, factor=tuple(int(v) for v in rng.integers(1, 4, 2)))
        elif kind == 1:
            block = int(rng.integers(1, 3))
            self.add(Permute, order=rng.integers(0, channels, block**2 * int(rng.integers(1, 3))))
            self.add(DepthToSpace, block=block, mode=str(rng.choice(["DCR", "CRD"])))
        elif kind == 2:
            self.add(Permute, order=np.argsort([rng.random() for _ in range(channels)]))
        groups = int(rng.choice([k for k in range(1, self.edge.channels + 1)
                                 if self.edge.channels % k == 0]))
        height, width, channels = self.edge.shape
        kernel, dilation = (1 + (height > 2), 1 + (width > 2)), (1 + (height > 3), 1 + (width > 3))
        self.add(SlidingWindow, kernel=kernel, dilation=dilation, groups=groups)
        self.matvec(groups * int(rng.integers(1, 3)), groups)

    def dense(self) -> None:
        """The channels of a tensor beside those of branches from it, and from each other."""
        rng, x = self.rng, self.tip
        tensors = [x]
        for _ in range(int(rng.integers(1, 3))):
            self.tip = tensors[int(rng.integers(0, len(tensors)))]
            self.branch((1, 1), int(rng.integers(1, 5)), 0)
            tensors.append(self.tip)
        if rng.random() < 0.3:
            tensors.append(x)  # twice
        first, *more = (tensors[k] for k in np.argsort([rng.random() for _ in tensors]))
        self.tip = first
        self.add(Concat, *more)

    def finish(self) -> Graph:
        rng = self.rng
        if rng.random() < 0.6:
            self.add(Flatten)
            self.matvec(int(rng.integers(1, 7)))
        channels = self.edge.channels
        self.add(Scale, multiplier=rng.integers(-9, 10, channels), shift=int(rng.integers(0, 4)),
                 offset=rng.integers(-20, 20, channels))
        if self.edge.shape[:2] == (1, 1) and rng.random() < 0.5:
            self.add(ArgMax)
        return Graph(self.name, tuple(self.nodes)).verify()


def random_chain(name: str, source: Source) -> Graph:
    """Every node reads the one before."""
    grower = Grower(name, source)
    if grower.rng.random() < 0.3:
        grower.threshold()
    for _ in range(int(grower.rng.integers(1, 4))):
        grower.windows()
        grower.threshold()
    return grower.finish()


def random_residual(name: str, source: Source) -> Graph:
    """One or two blocks, perhaps right behind the Input."""
    grower = Grower(name, source)
    if grower.rng.random() < 0.5:
        grower.windows()
    for _ in range(int(grower.rng.integers(1, 3))):
        grower.block(nested=1)
    return grower.finish()


def random_dense(name: str, source: Source) -> Graph:
    """One or two Concats of branches, with pixels, windows and channels in other places behind."""
    grower = Grower(name, source)
    for _ in range(int(grower.rng.integers(1, 3))):
        if grower.rng.random() < 0.4:
            grower.windows()
        grower.dense()
        grower.threshold()
        grower.spread()
    return grower.finish()


def random_folding(graph: Graph, source: Source) -> Folding:
    """Any lanes, styles and forms that there are."""
    rng = generator(source)
    folds = {}
    for node in graph.nodes:
        if not isinstance(node, Flatten):
            can = choices(node, graph.reads(node), graph.edges[node.name])
            lanes = {key: int(rng.choice(lanes)) for key, lanes in can.items()}
            fold, style, form = unfolded(node, **lanes), rng.choice(STYLES), rng.choice(FORMS)
            if isinstance(fold, ThresholdFold):
                fold = replace(fold, style=str(style))
            if isinstance(fold, MatVecFold):
                fold = replace(fold, form=str(form))
            if isinstance(node, MatVec) and rng.random() < 0.3:
                fold = UnrolledFold(len(node.weights), graph.reads(node)[0].channels,
                                    levels=int(rng.integers(1, 5)), lut=int(rng.choice(LUTS)))
            folds[node.name] = fold
    return folds


def convolution(name: str, x: str, channels: int, outputs: int, rng: np.random.Generator, *,
                kernel: int = 3, stride: int = 1) -> list[Node]:
    """A quantizer of 2 bits and a convolution with weights of 2 bits."""
    frame = (kernel - 1) // 2
    return [
        Threshold(f"{name}_quan", (x,), thresholds=np.sort(rng.integers(-30, 30, (channels, 3))),
                  signs=np.ones((channels, 3), np.int8), base=np.zeros(channels, np.int64)),
        Pad(f"{name}_pad", (f"{name}_quan",), frame=(frame,) * 4),
        SlidingWindow(f"{name}_window", (f"{name}_pad",), kernel=(kernel,) * 2,
                      stride=(stride,) * 2),
        MatVec(name, (f"{name}_window",), weights=2 * rng.integers(
            0, 4, (outputs, kernel**2 * channels)) - 3)]


def n2uq_block(name: str, shape: tuple[int, int, int], outputs: int, stride: int = 1) -> Graph:
    """A residual block as lowering makes it; with `stride` 2 or other `outputs`, downsampling."""
    rng, channels = np.random.default_rng(outputs + stride), shape[2]

    def normalized(x: str) -> Scale:
        return Scale(f"{x}_bn", (x,), multiplier=rng.integers(-9, 10, outputs), shift=3,
                     offset=rng.integers(-20, 20, outputs))

    nodes: list[Node] = [Input("input", shape=shape, lo=-60, hi=60)]
    nodes += convolution("conv1", "input", channels, outputs, rng, stride=stride)
    nodes += convolution("conv2", "conv1", outputs, outputs, rng)
    nodes.append(normalized("conv2"))
    identity = "input"
    if stride > 1 or outputs != channels:
        nodes += convolution("down", "input", channels, outputs, rng, kernel=1, stride=stride)
        nodes.append(normalized("down"))
        identity = "down_bn"
    nodes += [
        Add("add", ("conv2_bn", identity)), Saturate("sat", ("add",), lo=-64, hi=63),
        PiecewiseLinear("prelu3", ("sat",), turn=rng.integers(-30, 30, outputs), shift=4,
                        multiplier=np.stack([rng.integers(-9, 10, outputs), np.full(outputs, 16)]),
                        offset=rng.integers(-99, 99, (2, outputs)))]
    return Graph(name, tuple(nodes)).verify()


def resnet18() -> Graph:
    """The nodes of ResNet-18 at 224 × 224, with weights that mean nothing."""
    rng = np.random.default_rng(18)
    nodes: list[Node] = [
        Input("input", shape=(224, 224, 3)),
        Pad("stem_pad", ("input",), frame=(3,) * 4),
        SlidingWindow("stem_window", ("stem_pad",), kernel=(7, 7), stride=(2, 2)),
        MatVec("stem", ("stem_window",), weights=rng.integers(-127, 128, (64, 147))),
        Scale("stem_bn", ("stem",), shift=10, clip=(0, 1023)),
        Pad("pool_pad", ("stem_bn",), frame=(1,) * 4),
        SlidingWindow("pool_window", ("pool_pad",), kernel=(3, 3), stride=(2, 2)),
        MaxPool("pool", ("pool_window",), positions=9)]
    x, channels = "pool", 64
    for k, outputs in enumerate((64, 64, 128, 128, 256, 256, 512, 512)):
        stride = outputs // channels
        block = n2uq_block("block", (8, 8, channels), outputs, stride).nodes[1:]
        names = {"input": x, **{node.name: f"block{k}_{node.name}" for node in block}}
        nodes += [replace(node, name=names[node.name],
                          inputs=tuple(names[name] for name in node.inputs)) for node in block]
        x, channels = names["prelu3"], outputs
    nodes += [SlidingWindow("mean_window", (x,), kernel=(7, 7)),
              SumPool("mean", ("mean_window",), positions=49),
              MatVec("fc", ("mean",), weights=rng.integers(-127, 128, (1000, 512))),
              Scale("logits", ("fc",))]
    return Graph("resnet18", tuple(nodes))


@dataclass(frozen=True)
class Whole(Case):
    """An accelerator; its saturation counter does not go with its output, and is left open."""

    counter: ClassVar[dict[str, int]] = {}


def with_depths(accelerator: Accelerator, factor: int = 1, less: int = 0) -> Accelerator:
    """The accelerator with other depths of the FIFOs on its Adds, even some that deadlock."""
    graph, adds = accelerator.graph, branch_fifos(accelerator.graph)
    accelerator.graph = graph.with_nodes(
        replace(node, depth=factor * node.depth - less) if node.name in adds else node
        for node in graph.nodes)
    return accelerator


def branch_fifos(graph: Graph) -> dict[str, int]:
    """Depths of the FIFOs on the Adds of a hardware graph."""
    named: Iterable[str] = (name for node in graph.nodes if len(node.inputs) > 1
                            for name in node.inputs)
    depths = {node.name: node.depth for node in graph.nodes if isinstance(node, Fifo)}
    return {name: depths[name] for name in named}


def whole(accelerator: Accelerator, graph: Graph, images: int, seed: int = 0) -> Whole:
    """The accelerator of `graph` on so many random images."""
    images_in = images_on(graph.edges[graph.input.name], images, seed)
    return Whole(accelerator.graph.name, accelerator, images_in, golden.run(graph, images_in))
