"""The format of the outputs, and 24-bit stems and heads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from adverse import NORMAL
from conftest import random_net

from n2uq_hw import ir, model
from n2uq_hw.builds.accuracy import agreement
from n2uq_hw.builds.emit import emit, load_build
from n2uq_hw.builds.verify import verify
from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import golden
from n2uq_hw.lowering.formats import Formats, output_fraction_bits
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import InputSpec, Net
from n2uq_hw.nets import find_net, shipped
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.timing.fifos import size_fifos


def scaled(net: Net, layer: str, factor: float) -> Net:
    """The net with outputs `factor` times as large, by the batch norm behind its last layer."""
    keys = (f"{layer}.weight", f"{layer}.bias")
    return replace(net, params=net.params | {
        key: (net.params[key] * factor).astype(np.float32) for key in keys})


@pytest.mark.parametrize("reach,spread,least,bits", [
    (20, 1.0, 0, 8), (20, 1.01, 0, 8), (20, 0.99, 0, 9),  # 2^8 steps of the spread: 12 bits of 16
    (0.02, 2**-10, 0, 18), (20, 100, 0, 8), (20, 1.0, 13, 13),
    (64, 1.0, 30, 21), (65, 1.0, 30, 20),                 # 28 bits with the sign
    (2.0**40, 2.0**30, 0, -13), (0, 0, 0, 8)])
def test_fraction_bits_of_outputs_by_hand(reach: float, spread: float, least: int, bits: int
                                          ) -> None:
    assert output_fraction_bits(reach, spread, least) == bits


@pytest.mark.parametrize("name", [name for name in shipped() if "resnet" not in name])
def test_shipped_chains_keep_eight_fraction_bits(name: str) -> None:
    assert lower(find_net(name)).meta["output_scale"] == 2**-8


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**-7, 1.0, 2.0**9, 2.0**40])
def test_classes_do_not_depend_on_the_scale_of_logits(net: Net, images: np.ndarray, factor: float
                                                      ) -> None:
    net = scaled(net, "bn_out", factor)
    graph = lower(net)
    agreed = agreement(net, graph, images, None)
    assert agreed.top1_agreement == 1 and agreed.worst_logit_error < graph.meta["output_scale"]
    reach = max(-graph.edges["logits"].lo.min(), graph.edges["logits"].hi.max())
    assert 2**11 <= reach < 2**27


def test_one_format_suits_the_narrowest_of_several_values(net: Net, images: np.ndarray) -> None:
    weight, bias = (net.params[f"bn_out.{key}"].copy() for key in ("weight", "bias"))
    weight[2], bias[2] = weight[2] / 1000, bias[2] / 1000
    net = replace(net, params=net.params | {"bn_out.weight": weight, "bn_out.bias": bias})
    real = net.forward(images)[:, 2]
    assert np.ptp(real) > 100 * lower(net).meta["output_scale"]


def test_outputs_that_differ_by_little_are_told_apart() -> None:
    """A head whose logits lie within 0.03 for 1,000 classes, behind a residual stream."""
    rng = np.random.default_rng(0)
    layers = (model.FloatConv("stem", 3, 8, 3), model.ReLU6("relu"), model.LTQ("quan", 4),
              model.Conv("conv", 8, 8, 1, bits=4), model.BatchNorm("bn", 8),
              model.Add("sum", inputs=("relu", "bn")), model.AvgPool("pool"), model.Flatten("flat"),
              model.FloatLinear("fc", 8, 1000))
    net = random_net("small", layers, (3, 6, 6), largest=255)
    net = replace(net, params=net.params | {
        "fc.weight": rng.uniform(-1e-4, 1e-4, (1000, 8)).astype(np.float32),
        "fc.bias": rng.uniform(-0.028, 0.028, 1000).astype(np.float32)})
    images = rng.integers(0, 256, (20, 3, 6, 6))
    real = net.forward(images)
    assert np.abs(real).max() < 0.03
    graph = lower(net, Formats(head_bits=16))
    agreed = agreement(net, graph, images, None)
    assert agreed.top1_agreement == 1 and agreed.worst_logit_error < 1e-5
    coarse = agreement(net, lower(net, Formats(output_fraction_bits=8)), images, None)
    assert coarse.top1_agreement < 0.1 and coarse.close == 20


def test_accumulators_that_are_the_outputs_stay_as_they_are() -> None:
    layers = (model.Conv("conv", 1, 4, 3, bits=3), model.LTQ("quan", 2), model.AvgPool("pool"))
    net = random_net("pooled", layers, (1, 5, 5))
    images = np.random.default_rng(0).integers(0, 16, (9, 1, 5, 5))
    graph = lower(net)
    assert graph.output == "pool"
    got = golden.run(graph, images.transpose(0, 2, 3, 1)).reshape(9, 4) * graph.meta["output_scale"]
    np.testing.assert_allclose(got, net.forward(images), rtol=1e-12)
    chosen = lower(net, Formats(output_fraction_bits=5))
    assert chosen.output == "logits" and chosen.meta["output_scale"] == 2**-5


@pytest.mark.parametrize("top1", [False, True])
def test_output_fraction_bits_as_chosen(net: Net, images: np.ndarray, top1: bool) -> None:
    graph = lower(net, Formats(output_fraction_bits=3), top1=top1)
    real, agreed = net.forward(images), agreement(net, graph, images, None)
    ordered = np.sort(real, axis=1)
    assert agreed.close == ((ordered[:, -1] - ordered[:, -2]) < 1 / 8).sum() > 0
    assert agreed.step == 1 / 8
    if not top1:
        assert 2**-9 < agreed.worst_logit_error < 1 / 8
    with pytest.raises(N2uqError, match=r"values after bn_out must stay below 2\^60 steps"):
        lower(scaled(net, "bn_out", 2.0**40), Formats(output_fraction_bits=30))


# --- 24 bits ------------------------------------------------------------------------------------

STEM = (model.FloatConv("stem", 3, 4, 3, 1, 1), model.BatchNorm("bn", 4), model.ReLU("relu"),
        model.FloatConv("down", 4, 4, 1), model.Add("sum", inputs=("relu", "down")),
        model.AvgPool("pool"), model.Flatten("flat"), model.FloatLinear("fc", 4, 3))


def wide_net() -> Net:
    net = random_net("wide", STEM, (3, 4, 4), largest=255)
    return replace(net, input=InputSpec((3, 4, 4), 255, 1 / 255, **NORMAL))


def test_24_bits_come_nearer_than_16() -> None:
    """Accumulators wider than the product of a multiplier may be are rounded, and say so."""
    net, images = wide_net(), np.random.default_rng(0).integers(0, 256, (20, 3, 4, 4))
    errors = [agreement(net, lower(net, Formats(24, None, bits, bits, 24)), images, None
                        ).worst_logit_error for bits in (8, 16, 24)]
    assert errors[0] > 50 * errors[1] > 500 * errors[2], errors
    graph = lower(net, Formats(24, None, 24, 24))
    rounded = [node.name for node in graph.nodes if node.name.endswith("_rounded")]
    assert "stem_rounded" in rounded
    assert all(edge.width <= ir.nodes.MAX_BITS for edge in graph.edges.values())
    for name in ("stem", "fc"):
        assert int(np.abs(graph[name].weights).max()) == 2**23 - 1


def test_sums_of_24_bit_weights_fit_int64_whatever_they_read() -> None:
    """16-bit pixels, 576 terms: as many fraction bits of pixels as there is room for."""
    layers = (model.FloatConv("stem", 64, 2, 3, 1, 1), model.AvgPool("pool"),
              model.Flatten("flat"), model.FloatLinear("fc", 2, 2))
    net = random_net("deep", layers, (64, 3, 3), largest=65535)
    net = replace(net, input=InputSpec((64, 3, 3), 65535, 1 / 65535, (0.4,) * 64, (0.2,) * 64))
    images = np.random.default_rng(0).integers(0, 65536, (5, 64, 3, 3))
    graph = lower(net, Formats(24, None, 24, 24))
    assert agreement(net, graph, images, None).worst_logit_error < 1e-4


@pytest.mark.slow
def test_the_verilog_of_24_bits(tmp_path: Path) -> None:
    net, images = wide_net(), np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4))
    graph = lower(net, Formats(stem_bits=24, head_bits=24))
    emit(graph, size_fifos(graph, choose(graph)), tmp_path / "b", images, None)
    verdict = verify(load_build(tmp_path / "b"), images, None, stalls=0.2)
    assert (verdict.images, verdict.mismatches) == (6, 0)
