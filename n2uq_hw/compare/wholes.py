# amaranth: UnusedElaboratable=no
"""What is compared above the lane array: quantizers, whole MVUs, whole networks, in every design.

Each is a graph with its folding, which the product's own `Accelerator` builds: streams, width
converters and FIFOs are the same for all.  N2UQ's are the product's own units.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from ..builds.emit import library_verilog
from ..errors import N2uqError
from ..hw.accelerator import Accelerator, module_name, prefix
from ..hw.designs.design import Design, Tabled, Trained
from ..hw.designs.mvu import CodedMatVec
from ..hw.designs.quantizer import Codebook
from ..hw.designs.uniform import Uniform
from ..hw.library import Library
from ..ir import Edge, Graph, Input, MatVec, Node, Threshold, weight_bits
from ..ir.folding import FORMS, STYLES, Fold, Folding, MatVecFold, ThresholdFold
from ..lowering.lower import lower
from ..nets import find_net
from ..plan.choice import choose

__all__ = ["Whole", "coded", "mvus", "networks", "quantizers"]

LEVEL_BITS = (4, 8, 16)  # of the entries of a codebook behind comparators
NORMAL = NormalDist()


@dataclass(frozen=True)
class Whole:
    """A graph in some design.

    Members
    -------
    name, method, uniform, trained: of the design, as in the tables.
    point: what it is measured at: bits, PE, SIMD, ...
    """

    name: str
    method: str
    uniform: bool
    point: Mapping[str, Any]
    graph: Graph
    folding: Folding
    trained: str = ""

    @property
    def tables(self) -> dict[str, Tabled]:
        """What is written while it runs, by the prefix of its `load_ports`."""
        having = {f"{node.name}_": node if isinstance(node, Codebook) else node.design
                  for node in self.graph.nodes if isinstance(node, CodedMatVec | Codebook)}
        return {prefix: of for prefix, of in having.items() if of.writable}

    @property
    def top(self) -> str:
        """The module of the whole."""
        return module_name(self.graph)

    def create(self) -> Accelerator:
        """The gateware."""
        return Accelerator(self.graph, self.folding)

    def verilog(self) -> dict[str, str]:
        """Texts by file name: the Verilog and the memory files that it reads."""
        library = Library()
        library.signature(self.top, self.create)
        return library_verilog(library, prefix(self.graph))


def quantizers(*, bits: int, channels: int = 64, pe: int = 1, sum_bits: int = 12, seed: int = 1
               ) -> Iterator[Whole]:
    """Quantizers to 2^bits levels of `channels` accumulators of `sum_bits`, PE per beat.

    Steps are monotone, as of most layers, or general: those of V-shaped functions, two per level.
    """
    rng, half = np.random.default_rng(seed), 2**(sum_bits - 1)
    count = 2**bits - 1
    for kind, size in (("monotone", count), ("general", 2 * count)):
        steps = np.sort(rng.integers(-half // 2, half // 2, (channels, size)))
        signs = np.repeat([[-1, 1]], count, axis=1)[:, -size:] * np.ones_like(steps)
        tables: dict[str, Any] = {"thresholds": steps, "signs": signs.astype(np.int8),
                                  "base": np.full(channels, count * (kind == "general"))}
        books: list[Codebook | None] = [None, *(
            Codebook("book", ("quan",), bits=width, writable=writable, values=np.round(
                np.linspace(0, 1, count + 1)**1.5 * (2**width - 1)).astype(np.int64))
            for width in LEVEL_BITS for writable in (False, True))]
        for style in STYLES:
            for book in books:
                title = f"{kind} {style}"
                if book:
                    title += f" codebook {book.bits} bits{' written' * book.writable}"
                graph = Graph(_identifier(title), (
                    Input("input", shape=(1, 1, channels), lo=-half, hi=half - 1),
                    Threshold("quan", ("input",), **tables), *filter(None, [book])))
                yield Whole(title, "codebook" if book else Uniform.method, not book, {
                    "weight_bits": 0, "act_bits": bits, "channels": channels, "pe": pe,
                    "sum_bits": sum_bits, "case": kind}, graph,
                    {node.name: ThresholdFold(pe, style) if isinstance(node, Threshold)
                     else Fold(pe) for node in graph.nodes})


def mvus(classes: Iterable[type[Design]], *, weight_bits: int, act_bits: int,
         outputs: int = 128, inputs: int = 1152, pe: int = 16, simd: int = 32, seed: int = 1,
         trained: Trained | None = None) -> Iterator[Whole]:
    """An MVU and its quantizer in the designs of `classes`, for normally distributed weights.

    The defaults are a 3 × 3 convolution of ResNet-18 from 128 to 128 channels, without its window.
    With `trained` levels, in the designs that have them.
    """
    normal = np.random.default_rng(seed).normal(size=(outputs, inputs))
    # N2UQ's scale; its levels end there.
    normal /= (2 - 2.0**(1 - weight_bits)) * np.abs(normal).mean(axis=1, keepdims=True)
    point = {"weight_bits": weight_bits, "act_bits": act_bits, "outputs": outputs,
             "inputs": inputs, "pe": pe, "simd": simd}
    for cls in classes:
        designs = list(_designs(cls, trained, weight_bits=weight_bits, act_bits=act_bits,
                                lanes=simd))
        if issubclass(cls, Uniform) and not trained:
            levels = designs[0].weights
            node = MatVec("mvu", ("input",), weights=levels[nearest(levels, normal)])
            for form in FORMS:
                yield _mvu(form, designs[0], point, node, MatVecFold(pe, simd, form))
        else:
            for design in designs:
                yield _mvu(design.name, design, point, CodedMatVec(
                    "mvu", ("input",), weights=nearest(design.weights, normal), design=design),
                    MatVecFold(pe, simd))


def _designs(cls: type[Design], trained: Trained | None, **point: int) -> Iterator[Design]:
    return cls.with_levels(trained, **point) if trained else cls.variants(**point)


def nearest(levels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The code of the level that is nearest to each of `values`, which end at -1 and 1."""
    order = np.argsort(levels, kind="stable")
    middles = (levels[order][1:] + levels[order][:-1]) / 2 / np.abs(levels).max()
    return order[np.searchsorted(middles, values)]


def _mvu(name: str, design: Design, point: Mapping[str, int], node: MatVec, fold: MatVecFold
         ) -> Whole:
    source = Input("input", shape=(1, 1, point["inputs"]), hi=2**design.act_bits - 1)
    read = Graph(node.name, (source,)).edges["input"]
    mean, deviation = moments(node, read)
    cuts = [NORMAL.inv_cdf(k / 2**design.act_bits) for k in range(1, 2**design.act_bits)]
    steps = np.ceil(mean[:, None] + np.outer(deviation, cuts)).astype(np.int64)
    quantizer = Threshold("quan", (node.name,), thresholds=steps, signs=np.ones_like(
        steps, np.int8), base=np.zeros(len(steps), np.int64))
    # As many lanes as keep up.
    beats = point["inputs"] // fold.simd
    lanes = next(n for n in range(1, fold.pe + 1) if fold.pe % n == 0 and fold.pe // n <= beats)
    return Whole(name, design.method, design.uniform, point, Graph(
        _identifier(name), (source, node, quantizer)), {
            "input": Fold(fold.simd), node.name: fold, "quan": ThresholdFold(lanes)},
        design.trained)


def moments(node: MatVec, read: Edge) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each output, float64 [N], where all codes are as likely."""
    if isinstance(node, CodedMatVec):
        products = node.design.products[:, :int(read.hi.max()) + 1]
        means, variances = (f(products, axis=1)[node.weights] for f in (np.mean, np.var))
    else:
        codes = np.arange(int(read.hi.max()) + 1)
        means = node.weights * codes.mean()
        variances = node.weights.astype(float)**2 * codes.var()
    return means.sum(axis=1), np.maximum(np.sqrt(variances.sum(axis=1)), 1e-9)


def networks(classes: Iterable[type[Design]], *, net: str, cycles: int | None = None,
             trained: Mapping[str, Trained] | None = None) -> Iterator[Whole]:
    """A shipped network in the designs of `classes`: its own codes and topology, one folding.

    An image takes at most so many `cycles`; the folding is otherwise as `choose` has it.  With
    levels `trained` by layer, in the designs that have them and whose codes of activations ascend.

    Layers of the network's own few bits are in the design, with thresholds where they would lie;
    layers of 8 bits, the first and the last, stay as they are.
    """
    graph = lower(find_net(net))
    folding = choose(graph, cycles)
    bits = min(weight_bits(node.weights) for node in graph.nodes if isinstance(node, MatVec))
    names = [node.name for node in graph.nodes if isinstance(node, MatVec)
             and weight_bits(node.weights) == bits
             and graph.reads(node)[0].hi.max() < 2**bits]
    point = {"weight_bits": bits, "act_bits": bits, "case": net,
             "lanes": sum(folding[name].pe * folding[name].simd for name in names)}
    if trained is not None and not trained.keys() >= {*names}:
        return
    for cls in classes:
        if issubclass(cls, Uniform):
            for form in FORMS if trained is None else ():
                folds = {name: replace(fold, form=form) for name in names
                         if isinstance(fold := folding[name], MatVecFold)}
                yield Whole(form, cls.method, True, point, replace(
                    graph, name=_identifier(f"{graph.name} {form}")), folding | folds,
                    cls.trained)
            continue
        by_name = [{design.name: design for design in _designs(
            cls, trained[name] if trained else None, weight_bits=bits, act_bits=bits,
            lanes=folding[name].simd)} for name in names]
        for title in by_name[0]:
            if all(title in layer and (trained is None or _counts(layer[title]))
                   for layer in by_name):
                layers = [layer[title] for layer in by_name]
                yield Whole(title, layers[0].method, layers[0].uniform, point, replace(
                    coded(graph, dict(zip(names, layers, strict=True))),
                    name=_identifier(f"{graph.name} {title}")), folding, layers[0].trained)


def _counts(design: Design) -> bool:
    """Whether a quantizer that counts thresholds makes its codes of activations."""
    return not design.activations[0] and bool((np.diff(design.activations) > 0).all())


def coded(graph: Graph, by_layer: Mapping[str, Design]) -> Graph:
    """`graph` with the MatVecs named in designs, and the thresholds after them moved along.

    Levels go by their order: the third least weight becomes the third least of the design.  A
    threshold stays as many standard deviations from the mean as it was.
    """
    nodes: list[Node] = []
    moved: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = {}
    for node in graph.nodes:
        new: Node = node
        if (design := by_layer.get(node.name)) and isinstance(node, MatVec):
            (read,) = graph.reads(node)
            if not _counts(design):
                raise N2uqError(f"{node.name}: activations of {design.name} must ascend from 0, "
                                f"not be {design.activations.tolist()}")
            levels = 2 * np.arange(2**design.weight_bits) - (2**design.weight_bits - 1)
            order = np.argsort(design.weights, kind="stable")
            new = coded = CodedMatVec(node.name, node.inputs, design=design,
                                      weights=order[np.searchsorted(levels, node.weights)])
            moved[node.name] = *moments(node, read), *moments(coded, read)
        elif isinstance(node, Threshold) and node.inputs[0] in moved:
            mean, deviation, to, by = (values[:, None] for values in moved[node.inputs[0]])
            new = replace(node, thresholds=np.ceil(
                to + (node.thresholds - mean) / deviation * by).astype(np.int64))
        nodes.append(new)
    return graph.with_nodes(nodes)


def _identifier(title: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in title)
