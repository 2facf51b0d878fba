"""Every kind of node and layer has every aspect; what has none raises and never guesses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from n2uq_hw import ir, model, nn
from n2uq_hw.cost import estimate, parts, samples
from n2uq_hw.errors import N2uqError
from n2uq_hw.exporters.onnx import _Writer
from n2uq_hw.hw import depths, units
from n2uq_hw.ir import Edge, Node, folding, golden
from n2uq_hw.ir.folding import Fold
from n2uq_hw.lowering import builder, lower
from n2uq_hw.lowering.formats import Formats
from n2uq_hw.model import Layer
from n2uq_hw.plan import choice
from n2uq_hw.sim.timing import cycles

# What an aspect may leave out, and why.
NO_UNIT = {"Input", "Flatten"}               # the stream itself; the same stream, read otherwise
BETWEEN = {"Fifo", "Fork", "WidthConvert"}   # their lanes are those of the units beside them
ASPECTS: dict[str, tuple[Any, set[str]]] = {
    "ir.infer": (ir.infer, set()),
    "golden.evaluate": (golden.evaluate, {"Input"}),  # its value is what is given
    "ir.folding.divided": (folding.divided, {"Flatten", *BETWEEN}),
    "hw.units.unit": (units.unit, NO_UNIT),
    "hw.depths.needed": (depths.needed, {"Input"}),  # reads nothing
    "cost.parts": (parts.parts, set()),
    "sim.timing.timing": (cycles.timing, NO_UNIT),
    "exporters.onnx.write": (_Writer.__dict__["write"].dispatcher, BETWEEN),
}
# What kinds that only hardware graphs have may take from the kind that they derive from.
INHERITED = {
    # One unit for both; a heap of chains costs what `hw.unrolled` counts.
    "Unrolled": {"ir.folding.divided", "hw.depths.needed", "cost.parts"},
    # A MatVec whose sums begin elsewhere: its unit and its parts know of the offset.
    "OffsetMatVec": {"ir.folding.divided", "hw.units.unit", "hw.depths.needed", "cost.parts",
                     "sim.timing.timing"},
}
# Layers of imported networks: no module of torch is trained with integer weights.
IMPORTED = {"Concat", "DepthToSpace", "IntConv", "IntLinear", "Permute", "PiecewiseLinear",
            "Pointwise", "Quant", "Steps", "Upsample"}
LAYER_ASPECTS: dict[str, Callable] = {
    "model.layer_float": model.layer_float,
    "nn.module_for": nn.module_for,
}


def kinds(base: type[Node] = Node) -> Iterator[type[Node]]:
    """All kinds of nodes of the package, those that only hardware graphs have too."""
    for kind in base.__subclasses__():
        if kind.__module__ == "n2uq_hw.ir.nodes":
            yield kind
        yield from kinds(kind)


def missing(kind: type[Node]) -> list[str]:
    """The aspects that a kind of node has no registration of its own for, and should have."""
    return [name for name, (function, without) in ASPECTS.items()
            if kind not in function.registry and kind.__name__ not in without
            and name not in INHERITED.get(kind.__name__, ())]


@pytest.mark.parametrize("kind", [*kinds()], ids=lambda kind: kind.__name__)
def test_every_node_has_every_aspect(kind: type[Node]) -> None:
    assert not missing(kind), f"{kind.__name__} lacks {', '.join(missing(kind))}"
    for name, (function, without) in ASPECTS.items():  # and no exception is out of date
        excused = kind.__name__ in without or name in INHERITED.get(kind.__name__, ())
        assert not (excused and kind in function.registry), f"{kind.__name__} has {name}"


def test_what_is_missing_is_named() -> None:
    assert missing(Odd) == list(ASPECTS)
    assert {kind.__name__ for kind in kinds()} == Node.KINDS.keys() | INHERITED.keys()


def test_every_unit_is_in_the_samples() -> None:
    """Nothing is estimated that no sample was synthesized of."""
    sampled = {sample.kind for sample in samples.load_samples()[1]}
    assert sampled == Node.KINDS.keys() - NO_UNIT


@pytest.mark.parametrize("kind", sorted(Layer.KINDS.keys() - IMPORTED))
def test_every_layer_has_every_aspect(kind: str) -> None:
    for name, function in LAYER_ASPECTS.items():
        assert function.dispatch(Layer.KINDS[kind]) is not function.dispatch(object), name


@pytest.mark.parametrize("kind", Layer.KINDS)
def test_every_layer_has_a_lowering(kind: str) -> None:
    assert Layer.KINDS[kind] in lower.RULES


def test_kinds_are_all_there_is() -> None:
    assert set(Node.KINDS.values()) == set(Node.__subclasses__()) - {Odd}
    assert set(Layer.KINDS.values()) == set(Layer.__subclasses__()) - {OddLayer}
    assert len(Node.KINDS) >= 13 and len(Layer.KINDS) >= 10


class Odd(Node):
    """A node that nothing knows; taken out of the kinds again."""


class OddLayer(Layer):
    """A layer that nothing knows."""


del Node.KINDS["Odd"], Layer.KINDS["OddLayer"]
EDGE = Edge((1, 1, 1), np.zeros(1, np.int64), np.ones(1, np.int64))
ODD = Odd("odd", ("x",))


@pytest.mark.parametrize("call,message", [
    (lambda: ir.infer(ODD, EDGE), "no shape rule for Odd"),
    (lambda: golden.evaluate(ODD, (EDGE,), np.zeros((1, 1, 1, 1), int)), "no golden model for Odd"),
    (lambda: units.unit(ODD, (EDGE,), EDGE, Fold()), "no gateware for Odd"),
    (lambda: estimate.estimate(ODD, (EDGE,), EDGE, Fold(), "xcup"), "no estimate for Odd"),
    (lambda: cycles.timing(ODD, (EDGE,), EDGE, Fold()), "no timing for Odd"),
    (lambda: folding.divided(ODD, (EDGE,), EDGE), "no lanes for Odd"),
    (lambda: depths.needed(ODD, 0, np.ones(1, int), (EDGE,), EDGE, 1, 1),
     "no order of beats for Odd"),
    (lambda: model.layer_float(OddLayer("odd"), {}, np.zeros(1)), "no float formula for OddLayer"),
    (lambda: nn.module_for(OddLayer("odd")), "no torch module for OddLayer odd"),
    (lambda: builder.Lowering(NET, Formats(), {}, lower.RULES).add(OddLayer("odd")),
     "net: no lowering for OddLayer odd"),
])
def test_the_base_case_raises(call: Callable[[], object], message: str) -> None:
    with pytest.raises(N2uqError, match=message):
        call()


def some_layers() -> tuple[Layer, ...]:
    return (model.Conv("conv", 2, 2, 3, groups=2), model.BatchNorm("bn", 2), model.Bias("bias", 2),
            model.PReLU("prelu", 2), model.LTQ("quan", 2), model.MaxPool("peak", 2, 1),
            model.Pact("pact", 2), model.FloatConv("full", 2, 2, 1), model.ReLU6("relu6"),
            model.Add("sum", inputs=("relu6", "pact")), model.ReLU("relu"), model.AvgPool("mean"),
            model.Flatten("flat"), model.FloatLinear("head", 2, 4), model.Pact("pact2", 2),
            model.Linear("fc", 4, 3))


def some_net() -> model.Net:
    layers = some_layers()
    params = {f"{layer.name}.{key}": np.linspace(0.3, 1, int(np.prod(shape)),
                                                 dtype=np.float32).reshape(shape)
              for layer in layers for key, shape in layer.shapes().items()}
    return model.Net("net", model.InputSpec((2, 5, 5)), layers, params)


NET = some_net()


def test_one_net_of_every_kind_of_layer() -> None:
    """Declared, lowered, folded, evaluated and made in torch, in one net."""
    assert {type(layer).__name__ for layer in NET.layers} == Layer.KINDS.keys() - IMPORTED
    graph = lower.lower(NET, top1=True)
    chosen = choice.choose(graph)
    for node in graph.nodes:
        if type(node).__name__ not in NO_UNIT:
            cycles = folding.fold_cycles(node, graph.reads(node), graph.edges[node.name],
                                         chosen[node.name])
            assert cycles >= graph.edges[node.name].size / graph.edges[node.name].channels
    images = np.arange(150).reshape(3, 2, 5, 5)
    assert golden.run(graph, images.transpose(0, 2, 3, 1)).shape == (3, 1, 1, 1)
    assert nn.Network.from_net(NET)(torch.from_numpy(images).float()).shape == (3, 3)
