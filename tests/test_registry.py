"""Every kind of node and layer has every aspect; what has none raises and never guesses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from n2uq_hw import ir, model, nn
from n2uq_hw.cost import estimate, parts
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw import depths, units
from n2uq_hw.ir import Edge, Node, folding, golden
from n2uq_hw.ir.folding import Fold
from n2uq_hw.lowering import lower
from n2uq_hw.lowering.formats import Formats
from n2uq_hw.model import Layer
from n2uq_hw.plan import choice
from n2uq_hw.sim.timing import cycles

# What an aspect may leave out, and why.
NO_UNIT = {"Input", "Flatten"}               # the stream itself; the same stream, read otherwise
ASPECTS: dict[str, tuple[Callable, set[str]]] = {
    "ir.infer": (ir.infer, set()),
    "golden.evaluate": (golden.evaluate, {"Input"}),  # its value is what is given
    "hw.units.unit": (units.unit, NO_UNIT),
    "cost.estimate": (parts.parts, set()),
    "sim.timing.timing": (cycles.timing, NO_UNIT),
    "hw.depths.needed": (depths.needed, {"Input"}),  # which reads nothing
}
LAYER_ASPECTS: dict[str, Callable] = {
    "model.layer_float": model.layer_float,
    "nn.module_for": nn.module_for,
}


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("kind", Node.KINDS)
def test_every_node_has_every_aspect(kind: str, aspect: str) -> None:
    function, without = ASPECTS[aspect]
    registered = function.dispatch(Node.KINDS[kind]) is not function.dispatch(object)
    assert registered == (kind not in without), f"{aspect} of {kind}"


@pytest.mark.parametrize("kind", Layer.KINDS)
def test_every_layer_has_every_aspect(kind: str) -> None:
    for name, function in LAYER_ASPECTS.items():
        assert function.dispatch(Layer.KINDS[kind]) is not function.dispatch(object), name
    add = lower._Lowering.__dict__["add"].dispatcher
    assert add.dispatch(Layer.KINDS[kind]) is not add.dispatch(object), "lowering"


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
    (lambda: model.layer_float(OddLayer("odd"), {}, np.zeros(1)), "no float formula for OddLayer"),
    (lambda: nn.module_for(OddLayer("odd")), "no torch module for OddLayer odd"),
    (lambda: lower._Lowering(NET, Formats(), {}).add(OddLayer("odd")),
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
    assert {type(layer).__name__ for layer in NET.layers} == set(Layer.KINDS)
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
