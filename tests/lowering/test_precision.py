"""Fraction bits by the gain behind each rounding: by hand, and as a bound on what nets read."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from adverse import NORMAL

from n2uq_hw import model
from n2uq_hw.builds.accuracy import agreement
from n2uq_hw.ir import PiecewiseLinear, Scale, golden
from n2uq_hw.lowering.formats import Formats
from n2uq_hw.lowering.lower import lower
from n2uq_hw.lowering.precision import BUDGET, Precision
from n2uq_hw.model import InputSpec, Net

VAR = 1 - 1e-5  # of a batch norm whose gain is its weight


def make(layers: tuple[model.Layer, ...], values: dict[str, object], spec: InputSpec) -> Net:
    """A net with these parameters by layer.key, key or kind; all others 1."""
    params = {}
    for layer in layers:
        for key, shape in layer.shapes().items():
            name = f"{layer.name}.{key}"
            value = values.get(name, values.get(key, VAR if key == "running_var" else 1))
            params[name] = np.broadcast_to(np.asarray(value, np.float32), shape).copy()
    return Net("net", spec, layers, params)


SUM = (model.Add("sum", inputs=("input", "input")),)  # of two roundings; 4 count, for one Add
BN, LTQ, PACT = model.BatchNorm("bn", 2), model.LTQ("quan", 2), model.Pact("quan", 2)
END = (model.Flatten("flat"), model.Linear("fc", 2, 2))
POOL = model.AvgPool("pool")


@pytest.mark.parametrize("layers,values,bits", [
    # 4 roundings of a step, an interval of 1/2: 4·2·2048 = 2^14
    ((POOL, LTQ), {"a": 0.5}, 14),
    ((POOL, LTQ), {"a": [0.25, 0.25, 1.0]}, 14),               # the mean counts
    ((POOL, LTQ), {"a": 0.5, "scale1": -2.1}, 16),
    ((POOL, BN, LTQ), {"a": 0.5, "bn.weight": [100, -1]}, 21),  # 100·2^14 = 2^20.6
    ((POOL, BN, LTQ), {"a": 0.5, "bn.weight": 1e-3}, 5),      # 2^4.03
    ((POOL, PACT), {"clip_val": 0.3}, 17),                    # 3 intervals: 4·10·2048 = 2^16.3
    # Twice the gain on one side of zero; the line rounds a third time, but 4·2 stay the most.
    ((model.PReLU("prelu", 2), POOL, LTQ), {"a": 0.5, "prelu.weight": [-2.0, 0.1]}, 15),
    ((model.FloatConv("conv", 2, 2, 1), POOL, LTQ),
     {"a": 0.5, "conv.weight": np.float32([[[[8]], [[-24]]], [[[1]], [[0]]]])}, 19),  # 32
    # x + 7·x, each with an error of 2 steps, and 1 more, 17; but 6 count with 7 times the gain, 42.
    ((BN, model.Add("sum2", inputs=("sum", "bn")), POOL, LTQ), {"a": 0.5, "bn.weight": 7}, 18),
    # x + x + ... in a chain doubles: 2, 4, 8, 16 and 32 steps, above 12.
    ((*(model.Add(f"sum{k}", inputs=(f"sum{k - 1}" if k else "sum",) * 2) for k in range(4)),
      POOL, LTQ), {"a": 0.5}, 17),
])
def test_fraction_bits_by_hand(layers, values, bits: int) -> None:
    net = make((*SUM, *layers, *END), values, InputSpec((2, 4, 4), 15, 0.3))
    assert Precision.of(net).residual == bits
    assert lower(net).meta["residual_fraction_bits"] == bits


def test_a_quantizer_that_reads_no_rounding_asks_for_none() -> None:
    """Its intervals of 1/1000 are of exact accumulators."""
    layers = (*SUM, model.LTQ("quan1", 2), model.Conv("conv", 2, 2, 1), model.LTQ("quan2", 2),
              model.AvgPool("pool"), *END)
    net = make(layers, {"quan1.a": 0.5, "quan2.a": 1e-3, "conv.weight": [[[[1]], [[2]]]]},
               InputSpec((2, 4, 4), 15, 0.3))
    assert Precision.of(net).residual == 14


def test_outputs_that_come_from_the_stream_keep_eight_bits_of_it() -> None:
    """The only quantizer reads values of thousands; behind it comes a tail of order 1."""
    layers = (*SUM, model.BatchNorm("bn0", 2), model.LTQ("quan", 2), model.Conv("conv", 2, 2, 1),
              BN, model.ReLU6("relu"), POOL, model.Flatten("flat"), model.FloatLinear("fc", 2, 2))
    net = make(layers, {"a": 1e3, "bn0.weight": 1e-3, "conv.weight": [[[[1]], [[2]]]]},
               InputSpec((2, 4, 4), 15, 0.3))
    assert Precision.of(net).residual == 8


@pytest.mark.parametrize("size,sums", [((4, 4), 5), ((4, 1), 7), ((1, 1), 8)])
@pytest.mark.parametrize("gain,stem_bits", [(0.99, 16), (1000.0, 16), (1000.0, 12), (0.99, 20)])
def test_padded_pixels_by_hand(size: tuple[int, int], sums: int, gain: float, stem_bits: int
                               ) -> None:
    """A corner sees 5 padded pixels of 9; an image of one column 7, of one pixel 8."""
    layers = (model.FloatConv("conv", 1, 2, 3, 1, 1), BN, model.LTQ("quan", 2), POOL, *END)
    net = make(layers, {"a": 0.5, "bn.weight": [-gain, 0.1], "conv.weight": 1.0}, InputSpec(
        (1, *size), 15, 1.0, (0.3,), (4.0,)))
    # Rounded by 1/2 at most, 1/4 per pixel of 0..15, in intervals of 1/2.
    moved = sums / 2 * 0.25 * gain / 0.5
    bits = int(np.ceil(np.log2(moved * 2048)))
    assert Precision.of(net).pixels == bits
    graph = lower(net, Formats(stem_bits=stem_bits))
    assert graph["pixels"].multiplier.tolist() == [2**(bits + stem_bits - 16)]


def test_pads_without_a_mean_are_exact() -> None:
    layers = (model.FloatConv("conv", 1, 2, 3, 1, 1), BN, model.LTQ("quan", 2), POOL, *END)
    net = make(layers, {"conv.weight": 1.0}, InputSpec((1, 4, 4), 15, 1.0, (), (4.0,)))
    assert Precision.of(net).pixels == 0


# --- The bound, in nets with extreme gains ------------------------------------------------------


def extreme(seed: int, decades: float) -> tuple[Net, np.ndarray]:
    """Stem, residual block, pool, batch norm, head; gains of 10^±decades; weights that are exact.

    Quantizers spread over what they read.
    """
    rng = np.random.default_rng(seed)
    layers: tuple[model.Layer, ...] = (
        model.FloatConv("stem", 3, 6, 3, 1, 1), model.BatchNorm("bn0", 6),
        model.ReLU("relu") if seed % 2 else model.PReLU("relu", 6))
    if seed % 3 == 0:
        layers += (model.MaxPool("pool0", 2, 1),)
    start = layers[-1].name
    layers += (
        model.LTQ("quan1", 2), model.Conv("conv1", 6, 6, 3, 1, 1), model.BatchNorm("bn1", 6),
        model.Add("sum", inputs=(start, "bn1")), model.Bias("bias1", 6), model.PReLU("prelu", 6),
        model.Bias("bias2", 6),
        model.MaxPool("pool1", 2, 2) if seed % 4 < 2 else model.FloatConv("down", 6, 6, 1),
        model.BatchNorm("bn2", 6), model.LTQ("quan2", 2) if seed % 5 else model.Pact("quan2", 3),
        model.AvgPool("pool2"), model.Flatten("flat"), model.Linear("fc", 6, 5, 8))
    spec = InputSpec((3, 6, 6), 255, 1 / 255, **NORMAL)
    images = rng.integers(0, 256, (60, 3, 6, 6))
    params: model.Params = {}

    def step(layer: model.Layer, *x: np.ndarray) -> np.ndarray:
        (x0, *_), p = x, {}
        for key, shape in layer.shapes().items():
            value = rng.normal(0, 1, shape)
            if isinstance(layer, model.FloatConv):
                value = np.sign(value)  # symmetric codes hold it exactly
            elif isinstance(layer, model.BatchNorm):
                seen = x0.var(axis=(0, 2, 3)) + 0.01 * x0.var()
                value = {"running_mean": x0.mean(axis=(0, 2, 3)), "running_var": seen,
                         "weight": value * 10.0**(decades * rng.choice([-1, 0, 1])),
                         "bias": 0.3 * value}[key]
            elif key == "clip_val":
                value = np.quantile(np.abs(x0), 0.8) if isinstance(layer, model.Pact) else 2
            elif key in ("a", "start"):
                low, high = np.quantile(x0, (0.1, 0.9))
                value = low if key == "start" else max(high - low, 1e-2) / 3
            elif key in ("scale1", "scale2"):
                value = 1
            p[key] = np.broadcast_to(value, shape).astype(np.float32)
        params.update({f"{layer.name}.{key}": value for key, value in p.items()})
        return model.layer_float(layer, p, *x)

    factor, offset = spec.factor[:, None, None], spec.offset[:, None, None]
    model.walk(layers, images * factor + offset, step)
    return Net("net", spec, layers, params), images


@pytest.mark.parametrize("decades", [0, 2, 4])
@pytest.mark.parametrize("seed", range(10))
def test_no_quantizer_reads_an_error_above_the_bound(seed: int, decades: float) -> None:
    """Each level is that of the float value, moved by no more than two of `BUDGET`.

    One is for the stream, one for padded pixels.  The float net gets golden's levels, so that it
    is compared at each quantizer alone.
    """
    net, images = extreme(seed, decades)
    graph = lower(net)
    values = golden.run_all(graph, images.transpose(0, 2, 3, 1))

    def step(layer: model.Layer, *x: np.ndarray) -> np.ndarray:
        p = net.of(layer)
        if not isinstance(layer, model.LTQ | model.Pact):
            return model.layer_float(layer, p, *x)
        got = values[layer.name].transpose(0, 3, 1, 2)
        if isinstance(layer, model.LTQ):
            interval = float(np.maximum(p["a"], 1e-3).mean() / abs(p["scale1"][0]))
            levels, delta = partial(model.ltq_levels, p), 2 / 3
        else:
            interval = delta = float(p["clip_val"][0] / 7)
            levels = partial(model.pact_levels, p, 3)
        moved = 2 * BUDGET * interval
        low, high = levels(x[0] - moved), levels(x[0] + moved)
        assert ((low <= got) & (got <= high)).all(), layer.name
        assert len(np.unique(got)) > 1
        return got * delta

    factor, offset = net.input.factor[:, None, None], net.input.offset[:, None, None]
    model.walk(net.layers, images * factor + offset, step)
    assert agreement(net, graph, images, None).top1_agreement >= 0.99


# --- Layers that wait behind a bend -------------------------------------------------------------

BN1, BN2, BIAS = model.BatchNorm("bn1", 2), model.BatchNorm("bn2", 2), model.Bias("bias", 2)
RELU, RELU6, PRELU = model.ReLU("relu"), model.ReLU6("relu6"), model.PReLU("prelu", 2)
PICTURE = model.MaxPool("pool", 2, 1)
TWICE = model.Add("sum", inputs=("conv", "bn2"))


@pytest.mark.parametrize("layers,roundings,nodes", [
    ((RELU, BN2, PICTURE), (1, 3), ["relu", "bn2"]),
    ((BN1, RELU6, BN2, PICTURE), (1, 3), ["relu6", "bn2"]),
    ((BN1, PRELU, BN2, TWICE), (1, 3), ["conv_fixed", "prelu", "bn2"]),
    ((PRELU, BIAS, BN2, RELU, PICTURE), (1, 3), ["prelu", "relu"]),
    ((RELU, BN2, PRELU, BIAS, PICTURE), (1, 6), ["relu", "prelu"]),
    ((BN1, PRELU, BIAS, RELU6, BN2, PICTURE), (1, 1, 3), ["prelu", "relu6", "bn2"]),
    ((RELU, PRELU, RELU6, PICTURE), (1, 2, 1), ["relu", "prelu", "relu6"]),
])
def test_layers_wait_behind_a_bend(layers, roundings: tuple[int, ...], nodes: list[str]) -> None:
    """A bend is rounded with all before it; what waits behind goes on from there.

    `roundings`: the gain of what follows each; an error of a step grows by these, and one comes.
    """
    conv = model.Conv("conv", 1, 2, 2, bits=3)
    net = make((conv, *layers), {
        "conv.weight": [[[[1, -2], [0.5, 3]]], [[[-1, 2], [2, -3]]]], "conv.clip_val": 2,
        "bn1.weight": [1.5, -1], "bn1.bias": 0.3, "bn2.weight": [-3, 2], "bn2.bias": [2, -0.7],
        "prelu.weight": [0.25, -2], "bias.bias": np.reshape([0.4, -0.6], (1, 2, 1, 1))},
        InputSpec((1, 5, 6), 15, 1 / 15))
    images = np.random.default_rng(0).integers(0, 16, (20, 1, 5, 6))
    graph = lower(net, Formats(residual_fraction_bits=10))
    lines = [node.name for node in graph.nodes if isinstance(node, Scale | PiecewiseLinear)]
    assert lines == nodes and graph.meta["output_scale"] == 2**-10
    outputs = golden.run(graph, images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    expected = net.forward(images).reshape(outputs.shape)
    assert np.ptp(expected, axis=(0, 2, 3)).min() > 0.5
    steps = 0.0
    for gain in roundings:
        steps = steps * gain + 1
    steps += "conv_fixed" in nodes
    assert np.abs(outputs * 2**-10 - expected).max() <= steps * 2**-10


def test_what_a_multiplier_has_no_room_for_is_said() -> None:
    """9·2^f needs f + 4 bits, and 7·(x - 1) + 1, of ±(63 + 6)·2^f at most, f + 7."""
    layers = (*SUM, BN, model.Add("sum2", inputs=("sum", "bn")), POOL, LTQ, *END)
    net = make(layers, {"a": 0.5, "bn.weight": 7}, InputSpec((2, 4, 4), 15, 0.3))
    said = {bits: lower(net, Formats(residual_fraction_bits=bits)).meta.get("warnings")
            for bits in (23, 24)}
    assert said == {23: None, 24: ["sum of 28 bits and bn of 31 have more than 58 together: the "
                                   "lowest are lost"]}


def test_a_steep_slope_that_leaves_no_room_is_said() -> None:
    """As above, times 4 below 0, needs two bits more: f + 4 and f + 9."""
    prelu = model.PReLU("steep", 2)
    layers = (*SUM, BN, prelu, model.Add("sum2", inputs=("sum", "steep")), POOL, LTQ, *END)
    said = {}
    for bits, slope in ((22, 4), (23, 1), (23, 4), (24, 4)):
        net = make(layers, {"a": 0.5, "bn.weight": 7, "steep.weight": slope},
                   InputSpec((2, 4, 4), 15, 0.3))
        graph = lower(net, Formats(residual_fraction_bits=bits))
        said[bits, slope] = graph.meta.get("warnings")
    steep = "sum of {} bits and steep of {} have more than 58 together: the lowest are lost"
    assert said == {
        (22, 4): None, (23, 1): None, (23, 4): [steep.format(27, 32)],
        (24, 4): ["sum of 28 bits and bn of 31 have more than 58 together: the lowest are lost",
                  steep.format(28, 33)]}
