"""Residual nets: thresholds against the formulas, fixed point against float64, formats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from adverse import NORMAL, adverse
from marks import few
from shared import CHECKPOINT, MNIST, needs_checkpoint, needs_mnist
from truth import check_every_integer

from n2uq_hw import ir, model
from n2uq_hw.builds import accuracy
from n2uq_hw.data import load, read_npz
from n2uq_hw.errors import N2uqError
from n2uq_hw.importers.checkpoint import import_checkpoint
from n2uq_hw.ir import golden
from n2uq_hw.lowering.formats import Formats
from n2uq_hw.lowering.lower import lower
from n2uq_hw.lowering.precision import Precision
from n2uq_hw.model import InputSpec, Net, architectures
from n2uq_hw.nets import find_net

ARCHITECTURES = {
    "resnet8": architectures.resnet8(1, 2, 10),
    "resnet18": architectures.resnet(18, 2, True, 10),
    "resnet18_float_downsample": architectures.resnet(18, 3, False, 10),
    "resnet34": architectures.resnet(34, 3, True, 10),
    "resnet50": architectures.resnet(50, 2, True, 10),
    "resnet50_float_downsample": architectures.resnet(50, 4, False, 10),
    "mobilenetv2": architectures.mobilenetv2(4, 10),
}


def images_of(net: Net, count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *net.input.shape))


@pytest.mark.parametrize("seed", range(3))
def test_resnet8_agrees_at_every_integer(seed: int) -> None:
    net = adverse(ARCHITECTURES["resnet8"], 28, seed, channels=1)
    graph = lower(net, Formats(residual_fraction_bits=4))
    assert check_every_integer(net, graph, every=2**30) > 10**6


@pytest.mark.parametrize("name", few(list(ARCHITECTURES)[1:], list(ARCHITECTURES)[1].__eq__))
def test_architectures_agree_at_every_integer_of_some_channels(name: str) -> None:
    net = adverse(ARCHITECTURES[name], 32)
    formats = Formats(8)
    if "float" in name:  # a full-precision shortcut multiplies the range of the whole stream
        formats = Formats(2, stem_bits=8)
        net = replace(net, params={
            key: np.full_like(value, 50) if key.endswith("downsample.1.running_var") else value
            for key, value in net.params.items()})
    assert check_every_integer(net, lower(net, formats), every=2**17, part_of=32,
                               stem_bits=formats.stem_bits) > 10**6


# --- Fixed point against float64, node by node -------------------------------------------------


def check_fixed_point(net: Net, graph: ir.Graph, images: np.ndarray) -> int:
    """Each Scale and PiecewiseLinear is within a step of the float64 formulas of its own input.

    What the layers between two fixed-point tensors make of the integers that golden holds.
    """
    values = golden.run_all(graph, images.transpose(0, 2, 3, 1))
    step, count = 2.0**-graph.meta["residual_fraction_bits"], 0
    layers = {layer.name: layer for layer in net.layers}
    reads = model.sources(net.layers)
    for node in graph.nodes:
        if isinstance(node, ir.PiecewiseLinear):  # bias, PReLU and bias of a sum
            prelu = layers[node.name]
            (before,) = reads[prelu.name]
            after = next(layer for layer in net.layers if reads[layer.name] == (prelu.name,))
            x = values[node.inputs[0]].astype(np.float64).transpose(0, 3, 1, 2) * step
            for layer in (layers[before], prelu, after):
                x = model.layer_float(layer, net.of(layer), x)
            error = np.abs(values[node.name].transpose(0, 3, 1, 2) * step - x).max()
            assert error <= step, node.name
            count += 1
    return count


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "resnet50"])
def test_bias_prelu_bias_in_fixed_point(name: str) -> None:
    net = adverse(ARCHITECTURES[name], 32, channels=1 if name == "resnet8" else 3)
    graph = lower(net)
    blocks = sum(isinstance(layer, model.Add) for layer in net.layers)
    assert check_fixed_point(net, graph, images_of(net, 2)) == blocks


def test_a_sum_by_hand() -> None:
    """Input + input, times 3 / 8 and rounded: 2 fraction bits hold the sum of two halves."""
    layers = (model.Add("sum", inputs=("input", "input")), model.AvgPool("pool"),
              model.Flatten("flatten"), model.FloatLinear("fc", 1, 1))
    net = Net("net", InputSpec((1, 2, 2), 7, 0.25), layers,
              {"fc.weight": np.array([[3.0]], np.float32), "fc.bias": np.array([1.0], np.float32)})
    graph = lower(net, Formats(residual_fraction_bits=2, output_fraction_bits=8))
    pixels = np.array([[[[1, 2], [3, 7]]]])
    # Mean of twice the pixels: 2·(13/4)·0.25 = 1.625; times 3, plus 1: 5.875 = 1504 / 256.
    assert golden.run(graph, pixels.transpose(0, 2, 3, 1)).item() == 1504
    assert net.forward(pixels).item() == 5.875


def test_the_pad_of_a_normalized_image_is_its_mean() -> None:
    """A black border in the integers is what 0 is in the normalized image, not pixel 0."""
    rng = np.random.default_rng(0)
    layers = (model.FloatConv("conv", 3, 4, 5, 2, 2), model.ReLU("relu"), model.AvgPool("pool"),
              model.Flatten("flatten"), model.FloatLinear("fc", 4, 3))
    net = Net("net", InputSpec((3, 6, 6), 255, 1 / 255, **NORMAL), layers, {
        f"{layer.name}.{key}": rng.normal(0, 0.3, shape).astype(np.float32)
        for layer in layers for key, shape in layer.shapes().items()})
    images = images_of(net, 20)
    real = net.forward(images)
    for bits, tolerance in ((8, 0.05), (16, 0.004)):
        graph = lower(net, Formats(16, stem_bits=bits, head_bits=16))
        pad = graph["conv_pad"]
        ones = graph["pixels"].multiplier[0]  # as many more as the stem has bits
        assert ones == 2.0**(Precision.of(net).pixels + bits - 16) > 1
        np.testing.assert_array_equal(pad.values, np.rint(np.array(NORMAL["mean"]) * 255 * ones))
        got = golden.run(graph, images.transpose(0, 2, 3, 1)).reshape(20, 3)
        got = got * graph.meta["output_scale"]
        assert np.abs(got - real).max() < tolerance
    black = replace(pad, values=np.zeros(1, np.int64))
    wrong = graph.with_nodes([black if node is pad else node for node in graph.nodes])
    got = golden.run(wrong, images.transpose(0, 2, 3, 1)).reshape(20, 3)
    got = got * wrong.meta["output_scale"]
    assert np.abs(got - real).max() > 0.05


def test_fine_formats_come_nearer_to_the_float_model() -> None:
    """Without quantizers between, nothing amplifies what the formats round."""
    rng = np.random.default_rng(5)
    layers = (
        model.FloatConv("conv", 3, 8, 3, 2, 1), model.BatchNorm("bn", 8), model.ReLU6("relu"),
        model.MaxPool("pool", 3, 2, 1), model.FloatConv("down", 8, 8, 1), model.BatchNorm("bn2", 8),
        model.Add("sum", inputs=("pool", "bn2")), model.Bias("bias1", 8), model.PReLU("prelu", 8),
        model.Bias("bias2", 8), model.AvgPool("avg"), model.Flatten("flatten"),
        model.FloatLinear("fc", 8, 5))
    net = Net("net", InputSpec((3, 15, 15), 255, 1 / 255, **NORMAL), layers, {
        f"{layer.name}.{key}": (rng.uniform(0.5, 2, shape) if key == "running_var" else
                                rng.normal(0, 0.7, shape)).astype(np.float32)
        for layer in layers for key, shape in layer.shapes().items()})
    images = images_of(net, 8)
    errors = [accuracy.agreement(net, lower(net, formats), images, None).worst_logit_error
              for formats in (Formats(4, stem_bits=6, head_bits=6), Formats(8, None, 8, 8),
                              Formats(20, None, 16, 16), Formats(24, None, 24, 24))]
    assert errors[0] > errors[1] > 10 * errors[2] > 40 * errors[3] and errors[2] < 2**-8, errors


# --- Formats ------------------------------------------------------------------------------------


def test_fraction_bits_by_hand() -> None:
    """9 sums and stem, 2 roundings each, 1/2048 of the narrowest mean interval 2/3: 2^-15.7."""
    net = adverse(architectures.resnet(18, 2, True, 10), 32)
    plain = {key: np.full(value.shape, {"a": 2 / 3, "scale1": 1}.get(key.split(".")[-1], 0.5),
                          np.float32) for key, value in net.params.items()}
    assert Precision.of(replace(net, params=plain)).residual == 16
    wide = {key: value * 2 if key.endswith(".a") else value for key, value in plain.items()}
    assert Precision.of(replace(net, params=wide)).residual == 15


def test_a_residual_stream_that_does_not_fit_names_the_range_that_it_needs() -> None:
    net = adverse(ARCHITECTURES["resnet8"], 28, channels=1)
    with pytest.raises(N2uqError, match=r"^net: relu needs \d+ residual bits for its range "
                       r"0\.\.\d+ in steps of 2\^-8, not 6$"):
        lower(net, Formats(8, residual_bits=6))


def test_calibrated_ranges_hold_the_images_and_saturate_others() -> None:
    net = adverse(ARCHITECTURES["resnet8"], 28, channels=1)
    images = images_of(net, 6)
    formats = Formats(8)
    ranges = accuracy.calibrate(net, formats, images)
    plain, held = lower(net, formats), lower(net, formats, ranges=ranges)
    saturated = [node for node in held.nodes if isinstance(node, ir.Saturate)]
    assert saturated and {node.inputs[0] for node in saturated} <= set(plain.meta["residual"])
    nhwc = images.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(golden.run(held, nhwc), golden.run(plain, nhwc))
    for name in plain.meta["residual"]:
        reach = np.abs(golden.run_all(plain, nhwc)[name].astype(np.int64)).max()
        lo, hi = ranges[name]
        assert lo == -hi - 1 and 2 * reach <= hi < 4 * max(reach, 1)
    tight = {name: (-(1 << 6), (1 << 6) - 1) for name in ranges}
    wrong = lower(net, formats, ranges=tight)
    for node in wrong.nodes:
        if isinstance(node, ir.Saturate):
            assert wrong.edges[node.name].width <= 7
    assert (golden.run(wrong, nhwc) != golden.run(plain, nhwc)).any()


@pytest.mark.parametrize("bits, message", [
    ({"residual_fraction_bits": 31}, "residual-fraction-bits must be in 0..30, not 31"),
    ({"stem_bits": 1}, "stem-bits must be in 2..24, not 1"),
    ({"head_bits": 25}, "head-bits must be in 2..24, not 25"),
    ({"output_fraction_bits": 31}, "output-fraction-bits must be in 0..30, not 31"),
    ({"residual_bits": 1}, "residual-bits must be in 2..48, not 1"),
])
def test_formats_have_limits(bits: dict[str, int], message: str) -> None:
    with pytest.raises(N2uqError, match=f"^{message}$"):
        Formats(**bits)


# --- The trained checkpoint ---------------------------------------------------------------------


@needs_checkpoint
def test_the_trained_checkpoint_keeps_its_classes() -> None:
    net = import_checkpoint(CHECKPOINT, "resnet18", size=32)
    samples = read_npz(CHECKPOINT.with_suffix(".npz"))
    for formats, least in ((Formats(), 0.995), (Formats(20, None, 16, 16), 0.999)):
        agreed = accuracy.agreement(net, lower(net, formats), samples.images, samples.labels,
                                    logits=samples.logits)
        assert agreed.images == 360 and agreed.top1_agreement >= least
        assert agreed.accuracy is not None and agreed.accuracy >= 0.97


@needs_checkpoint
def test_the_trained_checkpoint_agrees_at_every_integer() -> None:
    net = import_checkpoint(CHECKPOINT, "resnet18", size=32)
    assert check_every_integer(net, lower(net), every=2**16, part_of=8) > 4 * 10**6


@pytest.mark.slow
@needs_mnist
def test_the_shipped_resnet_keeps_its_classes() -> None:
    net, test = find_net("mnist_resnet8_w2a2"), load("mnist", MNIST)
    images, labels = test.images[:1000], test.labels[:1000]
    agreed = accuracy.agreement(net, lower(net), images, labels)
    assert agreed.top1_agreement >= 0.995
    assert check_every_integer(net, lower(net), every=2**14) > 300_000
