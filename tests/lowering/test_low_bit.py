"""Low-bit nets lowered: the same levels as the float64 formulas, at every integer there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from low_bit import make, random_images

from n2uq_hw import model
from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import (
    Add,
    DepthwiseMatVec,
    Edge,
    Graph,
    MatVec,
    Scale,
    SlidingWindow,
    Threshold,
    golden,
)
from n2uq_hw.lowering.lower import lower
from n2uq_hw.lowering.quantize import levels_of, quantized
from n2uq_hw.lowering.values import Stage, Value
from n2uq_hw.model import (
    AvgPool,
    BatchNorm,
    Concat,
    DepthToSpace,
    Flatten,
    InputSpec,
    IntConv,
    IntLinear,
    Layer,
    MaxPool,
    Net,
    Permute,
    Pointwise,
    Quant,
    Steps,
    Upsample,
)


def check(net: Net, images: np.ndarray, *, within: float = 0.0) -> Graph:
    """Golden's outputs are the float64 formulas', `within` a share of their range."""
    graph = lower(net)
    got = graph.forward(images).reshape(len(images), -1) * graph.scale
    want = net.forward(images)
    worst = np.abs(got - want).max()
    assert worst <= max(within, 1e-12) * np.abs(want).max(), worst
    return graph


def sweep(net: Net) -> np.ndarray:
    """Images of one pixel, all channels alike, at every integer of the input's range."""
    every = np.arange(net.input.min, net.input.max + 1)
    return np.broadcast_to(every[:, None, None, None], (len(every), *net.input.shape))


# --- A quantizer behind an accumulator: every integer -----------------------------------------

CHANNELS = 3
UNARY = [op for op, it in model.OPS.items() if not it.valued and op not in ("log", "sqrt", "exp")]


def chain(draw: Any) -> tuple[list[Layer], dict[str, object]]:
    """Up to four element-wise operations, any of the table, values for all or per channel."""
    layers: list[Layer] = []
    values: dict[str, object] = {}
    for k in range(draw(st.integers(0, 4))):
        op = draw(st.sampled_from([*UNARY, "mul", "add", "sub", "div", "min", "max", "leaky_relu",
                                   "batch_norm", "elu"]))
        name = f"op{k}"
        if op == "batch_norm":
            layers.append(BatchNorm(name, CHANNELS))
            continue
        channels = draw(st.sampled_from([1, CHANNELS]))
        layers.append(Pointwise(name, op, channels, float32=draw(st.booleans())))
        if model.OPS[op].valued:
            small = st.sampled_from([-2.5, -1.0, -0.125, 0.3, 0.5, 1.0, 3.0])
            values[f"{name}_value"] = [draw(small) for _ in range(channels)]
    return layers, values


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_chain_and_quantizer_at_every_integer(data: Any) -> None:
    draw = data.draw
    layers, values = chain(draw)
    scales = st.sampled_from([0.125, 0.25, 1.0, 2.0, 0.3, 0.07])
    channels = draw(st.sampled_from([1, CHANNELS]))
    if draw(st.booleans()):
        lo = draw(st.sampled_from([-128, -8, -1, 0]))
        quantizer: Layer = Quant("q", channels, lo, lo + draw(st.sampled_from([1, 3, 15, 16, 255])),
                                 draw(st.sampled_from(["even", "floor", "ceil", "half_up",
                                                       "to_zero"])))
        values |= {"q_scale": [draw(scales) for _ in range(channels)],
                   "q_zero_point": [draw(st.sampled_from([0, 0, 3, -2]))] * channels}
    else:
        quantizer = Steps("q", channels, draw(st.sampled_from([1, 3, 20])))
        values |= {"q_scale": 0.5, "q_offset": draw(st.sampled_from([0.0, -0.25, -4.0]))}
    net = make(IntConv("conv", CHANNELS, CHANNELS, 1, groups=CHANNELS), *layers, quantizer,
               spec=InputSpec((CHANNELS, 1, 1), 90, 0.5, min=-70), **values,
               conv_codes=np.reshape([3, -2, 1], (CHANNELS, 1, 1, 1)),
               conv_scale=draw(st.sampled_from([0.25, 0.03])))
    images = sweep(net)
    if not np.isfinite(net.forward(images)).all():
        return
    check(net, images, within=0.0 if channels == 1 else 1e-5)  # of other scales, 28 bits come out


def test_many_levels_are_one_multiply_add_and_shift() -> None:
    """8 bits behind 16: a line per channel, rising or falling, equals all 255 steps."""
    net = make(IntConv("conv", 2, 2, 1, groups=2), Pointwise("m", "mul", 2),
               Pointwise("a", "add", 2), Quant("q", 1, 0, 255, "floor"),
               spec=InputSpec((2, 1, 1), 30000, 1.0, min=-30000), conv_scale=1,
               conv_codes=np.reshape([3, 5], (2, 1, 1, 1)), m_value=[0.00237, -0.0011],
               a_value=[100.3, 77.7], q_scale=1)
    graph = check(net, sweep(net))
    node = graph["q"]
    assert isinstance(node, Scale) and node.ties == "floor" and node.clip == (0, 255)
    assert node.multiplier[0] > 0 > node.multiplier[1]
    assert "equals the formula at every integer: 255 steps" in graph.meta["exact"]["q"]


def test_sixteen_bits_of_powers_of_two_round_ties_to_even() -> None:
    """As QKeras has them: no line without ties passes; thousands of integers are ties."""
    net = make(IntConv("conv", 1, 1, 1), Pointwise("relu", "relu"), Quant("q", 1, 0, 65535),
               spec=InputSpec((1, 1, 1), 65535, 1.0, min=-65535), conv_codes=[[[[7]]]],
               conv_scale=2.0**-9, q_scale=2.0**-6)
    graph = check(net, sweep(net))
    node = graph["q"]
    assert isinstance(node, Scale) and node.ties == "even" and node.shift == 3
    assert node.multiplier.tolist() == [1]


def test_channels_that_one_end_of_the_clip_holds() -> None:
    """A constant channel beside one of 255 steps: its line stays near the clip, within 62 bits."""
    net = make(IntConv("conv", 4, 4, 1, groups=4), Pointwise("a", "add", 4), Quant("q", 1, -8, 247),
               spec=InputSpec((4, 1, 1), 3000, 1.0), conv_scale=0.125, q_scale=1,
               conv_codes=np.reshape([1, 1, 1, -1], (4, 1, 1, 1)), a_value=[0.4, -900, 900, -8.5])
    graph = check(net, sweep(net))
    node = graph["q"]
    assert isinstance(node, Scale) and np.abs(node.offset).max() < 2000 << node.shift
    assert sorted(graph.edges["q"].lo) == [-8, -8, 0, 247]


@pytest.mark.parametrize("padding", [0, 1])
def test_half_a_level_off_zero(padding: int) -> None:
    """Doubled integers count half a scale."""
    net = make(Steps("s", 1, 3), IntConv("conv", 4, 5, 3, 1, padding), Quant("q", 1, -8, 7),
               spec=IMAGE, s_scale=0.5, s_offset=-0.25, q_scale=0.1)
    check(net, random_images(net))


def test_ties_to_even_of_an_odd_zero_point() -> None:
    """q = rint(x/4 + 3): -2/4 + 3 is 2.5, which rounds to 2; but -1/2 would round to 0, not -1."""
    net = make(Quant("q", 1, -8, 200), q_scale=4, q_zero_point=3,
               spec=InputSpec((1, 1, 1), 600, 1.0, min=-600))
    graph = check(net, sweep(net))
    node = graph["q"]
    assert isinstance(node, Scale) and node.ties == "even"
    assert graph.forward(np.array([[[[-2]]]])).tolist() == [[2 - 3]]


def test_ties_by_hand() -> None:
    # x/2 to even: -3..5 become -2, -1, 0, 0, 0, 1, 2, 2, 2
    net = make(Pointwise("half", "mul"), Quant("q", 1, -8, 7), half_value=0.5, q_scale=1,
               spec=InputSpec((1, 1, 1), 5, 1.0, min=-3))
    assert check(net, sweep(net)).forward(sweep(net)).reshape(-1).tolist() == [
        -2, -1, 0, 0, 0, 1, 2, 2, 2]


def test_a_range_too_wide_to_evaluate_is_bisected() -> None:
    """2^31 integers; every step's two sides are the formula's."""
    net = make(IntConv("conv", 1, 1, 1), IntConv("conv2", 1, 1, 1), Pointwise("m", "mul"),
               Quant("q", 1, 0, 255, "half_up"), spec=InputSpec((1, 1, 1), 65535, 1.0, min=-65535),
               conv_codes=[[[[32749]]]], conv_scale=1, conv2_codes=[[[[1]]]], conv2_scale=1,
               m_value=1.3e-7, q_scale=1)
    graph = check(net, sweep(net)[::97])
    assert "bisected over all 4,292" in graph.meta["exact"]["q"]
    node = graph["q"]
    edge = graph.edges["conv2"]
    at = np.rint((np.arange(1, 255) - 0.5) / 1.3e-7).astype(np.int64)
    x = (at[:, None] + np.arange(-3, 4)).reshape(-1, 1, 1, 1)
    want = np.clip(np.floor(x * 1.3e-7 + 0.5), 0, 255)
    assert golden.evaluate(node, (edge,), x).tolist() == want.tolist()


def test_a_constant_quantizer_is_warned_of() -> None:
    net = make(Pointwise("dead", "min"), Quant("q", 1, 0, 3), dead_value=-1.0, q_scale=1,
               spec=InputSpec((1, 1, 1), 5, 1.0))
    assert check(net, sweep(net)).meta["warnings"] == [
        "q is constant: whatever it reads, it gives one level"]


def test_a_quantizer_that_changes_nothing_has_no_node() -> None:
    net = make(Quant("q", 1, 0, 15), Quant("again", 1, 0, 15), Quant("wider", 1, -128, 127),
               spec=InputSpec((1, 1, 1), 20, 0.5), q_scale=0.5, again_scale=0.5, wider_scale=0.5)
    graph = check(net, sweep(net))
    assert [node.name for node in graph.nodes] == ["input", "q"]
    assert set(graph.meta["exact"]) == {"q", "again", "wider"}


# --- Integer weights -----------------------------------------------------------------------------

IMAGE = InputSpec((4, 7, 6), 15, 0.125, min=-8)


@pytest.mark.parametrize("layer", [
    IntConv("conv", 4, 6, 3, 1, 1), IntConv("conv", 4, 6, (3, 2), (2, 1), (1, 0, 2, 1)),
    IntConv("conv", 4, 4, (1, 4), groups=4), IntConv("conv", 4, 8, 3, 2, 1, groups=2),
    IntConv("conv", 4, 8, 2, 1, 0, groups=4), IntConv("conv", 4, 6, 1, groups=2),
    IntConv("conv", 4, 6, (2, 3), 1, 1, (3, 2)), IntConv("conv", 4, 6, 3, 2, 1, 2, 2),
    IntConv("conv", 4, 4, 2, 1, 0, 2, 4)], ids=str)
@pytest.mark.parametrize("zero", [0, 3])
def test_convolutions(layer: IntConv, zero: int) -> None:
    """A pad is real 0, the level of the zero point, which the stream has as integer 0."""
    net = make(Quant("q0", 1, 0, 7), layer, BatchNorm("bn", layer.out_channels),
               Quant("q1", 1, 0, 7), spec=IMAGE, q0_scale=0.3, q0_zero_point=zero, q1_scale=0.2)
    graph = check(net, random_images(net))
    assert isinstance(graph["conv"], DepthwiseMatVec) == (layer.groups == 4 == layer.out_channels)


@pytest.mark.parametrize("padding", [0, 1])
def test_bipolar_activations(padding: int) -> None:
    """Levels 0 and 1 stand for -1 and 1; what a pad of 0 lies midway between is doubled."""
    net = make(Steps("sign", 1, 1), IntConv("conv", 4, 5, 3, 1, padding), Steps("sign2", 1, 1),
               Flatten("flat"), IntLinear("fc", 5 * (20 if padding == 0 else 42), 3), spec=IMAGE,
               sign_thresholds=[[0]], sign_scale=2, sign_offset=-1, sign2_thresholds=[[0]],
               sign2_scale=2, sign2_offset=-1, conv_codes=np.random.default_rng(0).choice(
                   [-1, 1], (5, 4, 3, 3)), fc_scale=0.5)
    graph = check(net, random_images(net), within=1e-7)
    assert graph.edges["sign"].hi.max() == 1 and graph.edges["sign"].lo.min() == 0
    assert ("sign_doubled" in {node.name for node in graph.nodes}) == (padding == 1)


def test_scales_per_channel_go_into_weights() -> None:
    scales = np.array([0.25, 0.5, 0.25, 1.0])
    net = make(Quant("q0", 4, -4, 3), IntConv("conv", 4, 5, 3), Quant("q1", 1, 0, 7), spec=IMAGE,
               q0_scale=scales, q1_scale=0.2)
    graph, codes = check(net, random_images(net)), net.params["conv.codes"]
    node = graph["conv"]
    assert isinstance(node, MatVec)
    assert node.weights.tolist() == (codes * (scales * 4)[:, None, None]).transpose(
        0, 2, 3, 1).reshape(5, -1).tolist()
    depthwise = make(Quant("q0", 4, -4, 3), IntConv("conv", 4, 4, 3, groups=4),
                     Quant("q1", 1, 0, 7), spec=IMAGE, q0_scale=[0.1, 0.3, 0.7, 0.2], q1_scale=0.2)
    check(depthwise, random_images(depthwise))


def test_a_bias_in_whole_steps_leaves_the_output_an_integer() -> None:
    net = make(Flatten("flat"), IntLinear("fc", 168, 3), Pointwise("b", "add", 3), spec=IMAGE,
               fc_scale=0.5, b_value=np.array([5, -3, 1000]) * 0.0625)
    graph = check(net, random_images(net))
    assert graph.scale == 0.0625 and graph["logits"].offset.tolist() == [5, -3, 1000]
    other = make(Flatten("flat"), IntLinear("fc", 168, 3), Pointwise("b", "add", 3), spec=IMAGE)
    assert check(other, random_images(other), within=1e-7)["logits"].shift > 0


# --- Pools and sums ------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ["floor", "even"])
@pytest.mark.parametrize("layer", [AvgPool("pool", 2, 2), AvgPool("pool", (3, 2), (1, 2), 1),
                                   AvgPool("pool")], ids=str)
def test_average_pools_are_sums_and_steps(layer: AvgPool, rounding: str) -> None:
    net = make(Quant("q0", 1, 0, 7), layer, Quant("q1", 1, 0, 3, rounding), spec=IMAGE,
               q0_scale=0.25, q1_scale=0.5)
    check(net, random_images(net, 40))


def test_max_pools_pad_signed_levels_and_read_accumulators() -> None:
    net = make(Quant("q0", 1, -4, 3), MaxPool("pool", 3, 2, 1), IntConv("conv", 4, 5, 2),
               Pointwise("m", "mul", 5), MaxPool("pool2", 2, 1), Quant("q1", 1, -8, 7), spec=IMAGE,
               q0_scale=0.25, q1_scale=0.5, m_value=[1, -2, 0.5, -0.1, 3])
    graph = check(net, random_images(net, 40))
    assert graph["conv_negated"].multiplier.tolist() == [1, -1, 1, -1, 1]


def pairs(net: Net) -> np.ndarray:
    """Images of one pixel of two channels: every pair of the input's integers."""
    every = np.arange(net.input.min, net.input.max + 1)
    return np.stack(np.meshgrid(every, every), axis=-1).reshape(-1, 2, 1, 1)


def two_branches(*layers: Layer, **values: object) -> Net:
    """Each channel quantized by itself to 4 and 5 bits, then added."""
    return make(IntConv("left", 2, 1, 1), Quant("a", 1, -8, 7),
                IntConv("right", 2, 1, 1, inputs=("input",)), Quant("b", 1, 0, 31),
                model.Add("sum", inputs=("a", "b")), *layers, **values,
                spec=InputSpec((2, 1, 1), 40, 0.05, min=-35),
                left_codes=np.reshape([1, 0], (1, 2, 1, 1)), left_scale=1, right_scale=1,
                right_codes=np.reshape([0, 1], (1, 2, 1, 1)))


@pytest.mark.parametrize("a,b", [(0.1, 0.1), (0.1, 0.05), (0.1, 0.0625), (0.13, 0.0717),
                                 (0.0717, 0.4)])
@pytest.mark.parametrize("most", [3, 15, 255])
def test_sums_of_two_scales_at_every_pair(a: float, b: float, most: int) -> None:
    # Scales of float32, as files have them, so that float64 knows ties.
    net = two_branches(Pointwise("relu", "relu"), Quant("q", 1, 0, most), a_scale=np.float32(a),
                       b_scale=np.float32(b), q_scale=np.float32(0.4 if most < 16 else 0.031))
    graph = check(net, pairs(net))
    assert isinstance(graph["sum"], Add) and "residual" not in graph.meta
    assert isinstance(graph["q"], Threshold | Scale)


def test_a_sum_of_three_is_checked_for_all_triples() -> None:
    net = make(Quant("a", 1, -2, 1), Quant("b", 1, 0, 3, inputs=("input",)),
               model.Add("sum1", inputs=("a", "b")), Quant("c", 1, 0, 7, inputs=("input",)),
               model.Add("sum2", inputs=("sum1", "c")), BatchNorm("bn", 4), Quant("q", 1, 0, 7),
               spec=IMAGE, a_scale=0.3, b_scale=0.17, c_scale=0.11, q_scale=0.21)
    graph = check(net, random_images(net))
    assert "equal at all 512 pairs" in graph.meta["exact"]["q"]


def test_a_sum_that_no_quantizer_reads_is_rounded_and_says_so() -> None:
    net = two_branches(IntConv("conv", 1, 1, 1), a_scale=0.13, b_scale=0.0717)
    assert "sum" in check(net, pairs(net), within=1e-3).meta["residual"]


# --- Branches and moves --------------------------------------------------------------------------


def test_concatenated_levels_and_accumulators() -> None:
    """Scales of branches go into weights; what waits in a branch waits behind the Concat."""
    net = make(Quant("a", 1, 0, 7), Quant("b", 1, -8, 7, inputs=("input",)),
               Concat("both", inputs=("a", "b")), IntConv("conv", 8, 5, 3), BatchNorm("bn", 5),
               Pointwise("leaky", "leaky_relu"), IntConv("side", 8, 3, 3, inputs=("both",)),
               AvgPool("mean", 1, 1), Concat("dense", inputs=("leaky", "mean", "side")),
               BatchNorm("bn2", 11), Quant("q", 1, 0, 255), spec=IMAGE, a_scale=0.25, b_scale=0.125,
               leaky_value=0.125, q_scale=0.01)
    graph = check(net, random_images(net))
    assert graph["dense"].inputs == ("conv", "mean", "side") and "residual" not in graph.meta
    vectors = make(Flatten("f1"), Quant("a", 1, 0, 7), Flatten("f2", inputs=("input",)),
                   Quant("b", 1, -8, 7), Concat("both", inputs=("a", "b")),
                   IntLinear("fc", 336, 3), spec=IMAGE, a_scale=0.25, b_scale=0.125, fc_scale=1)
    check(vectors, random_images(vectors))


@pytest.mark.parametrize("layers", [
    [Upsample("up", (2, 3)), AvgPool("mean", 2)], [DepthToSpace("shuffle", 2, "CRD")],
    [DepthToSpace("shuffle", 2)], [Permute("order", 5)],
    [Permute("order", 5), BatchNorm("bn", 5), Permute("again", 3), MaxPool("pool", 2, 2)],
    [Flatten("flat", "hwc")], [Flatten("flat"), BatchNorm("bn", 168)],
    [Flatten("flat"), DepthToSpace("view", (3, 7), "CRD"), Flatten("again")],
    [Flatten("flat"), BatchNorm("bn", 168), Permute("order", 168)]], ids=str)
@pytest.mark.parametrize("quantized", [True, False])
def test_moves(layers: list[Layer], quantized: bool) -> None:
    """Of levels, and of accumulators that wait; channels taken twice or not at all."""
    waits: list[Layer] = [Pointwise("m", "mul", 4), Pointwise("t", "tanh")]
    if quantized or isinstance(layers[0], Upsample | DepthToSpace):
        waits = []
    flat = isinstance(layers[0], Flatten)
    end: list[Layer] = [IntLinear("fc", 168, 4)] if flat else []
    net = make(*[Quant("q0", 1, -4, 3)][:quantized], *waits, *layers,
               Quant("q", 1, -8, 7), *end, spec=IMAGE, q0_scale=0.25, q_scale=0.125,
               order_order=np.arange(168)[::-1] if flat else [3, 0, 1, 1, 2], again_order=[4, 0, 2])
    check(net, random_images(net), within=1e-7)


@pytest.mark.parametrize("layers,values", [
    ((Quant("q0", 1, -4, 3), AvgPool("mean", 3, 1, 1, False), Quant("q", 1, -8, 7)),
     {"q0_scale": 0.25, "q_scale": 0.125}),
    ((Quant("q0", 1, 0, 7), AvgPool("mean", 3, 2, (1, 0, 0, 2), False), BatchNorm("bn", 4),
      Pointwise("relu", "relu"), Quant("q", 4, 0, 7)), {"q0_zero_point": 2, "q0_scale": 0.5}),
    ((Steps("q0", 1, 3), Pointwise("a", "add", 4), AvgPool("mean", (2, 5), 1, (1, 1, 2, 4), False),
      Quant("q", 1, -128, 127, "floor"), MaxPool("most", 2, 1), Steps("s", 1, 5)),
     {"q0_offset": -0.3, "q_scale": 0.01}),
    ((Quant("q0", 4, -4, 3), AvgPool("mean", 3, 3, (0, 0, 0, 1), False), Flatten("flat"),
      Quant("q", 1, -8, 7), IntLinear("fc", 16, 3)),
     {"q0_scale": [0.3, 0.1, 0.2, 0.7], "q_scale": 0.1})])
def test_means_of_windows_of_fewer_pixels(layers: tuple[Layer, ...], values: dict) -> None:
    """The divisor is that of each window, though a channel has one table for all."""
    net = make(*layers, spec=IMAGE, **values)
    graph = check(net, random_images(net, 40), within=1e-7)
    assert "residual" not in graph.meta


@pytest.mark.parametrize("pool", [MaxPool("pool", (3, 2), 1, (2, 1, 0, 3), zeros=True),
                                  AvgPool("pool", 3, 2, 1)])
@pytest.mark.parametrize("layers,values", [
    ((Quant("q0", 4, -4, 3),), {"q0_scale": [0.25, 0.5, 0.125, 1]}),
    ((Steps("s", 4, 3),), {"s_offset": [-3.5, -2, -0.5, 1], "s_scale": [0.5, -2, 1, -1]}),
    ((Quant("q0", 1, -4, 3), Pointwise("m", "mul", 4), Pointwise("a", "add", 4)),
     {"q0_scale": 0.5, "m_value": [-1, 0.5, 1, -2], "a_value": [1.5, -1, 0.5, 3]})])
def test_pools_with_zeros_around(layers: tuple[Layer, ...], pool: Layer, values: dict) -> None:
    net = make(*layers, pool, Quant("q", 1, -64, 63), spec=IMAGE, **values, q_scale=0.03125)
    check(net, random_images(net), within=1e-9)


@pytest.mark.parametrize("slopes,bits", [([1.3] * 4, 3), ([1, 2, 0.75, -3], 7)])
def test_a_normalization_before_a_product(slopes: list[float], bits: int) -> None:
    """Its slopes go into the weights, up to ±7, where they have small ratios; its offsets out."""
    net = make(Quant("q0", 1, -8, 7), BatchNorm("bn", 4), IntConv("conv", 4, 3, 3),
               Quant("q", 1, -8, 7), spec=IMAGE, q0_scale=0.3, bn_running_var=0.37, q_scale=1.137,
               bn_weight=slopes)
    graph = check(net, random_images(net, 40))
    conv = graph["conv"]
    assert isinstance(conv, MatVec) and int(np.abs(conv.weights).max()).bit_length() == bits
    assert "warnings" not in graph.meta


def test_weights_that_hold_the_scales_of_channels_are_said() -> None:
    net = make(Quant("q0", 4, -8, 7), IntConv("conv", 4, 3, 3, 1, 1), Quant("q", 1, -8, 7),
               spec=IMAGE, q0_scale=np.float32([0.3, 0.1, 0.2, 0.7]), q_scale=1.137)
    (warning,) = check(net, random_images(net)).meta["warnings"]
    assert warning.startswith("conv has weights of 30 bits, since channels of q0 have different ")


def test_groups_are_not_written_out() -> None:
    net = make(IntConv("conv", 4, 8, 3, groups=2), Quant("q", 1, 0, 7), spec=IMAGE, q_scale=1)
    graph = check(net, random_images(net))
    conv, window = graph["conv"], graph["conv_window"]
    assert isinstance(conv, MatVec) and isinstance(window, SlidingWindow)
    assert conv.groups == window.groups == 2 and conv.weights.shape == (8, 18)


# --- Refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers,values,message", [
    ((Quant("q", 3, 0, 3),), {}, "net: Quant q must have 1 or 4 channels, not 3"),
    ((Pointwise("p", "add", 3),), {}, "net: Pointwise p must have 1 or 4 channels, not 3"),
    ((Quant("q", 4, 0, 3), IntConv("conv", 4, 2, 1)), {"q_scale": [0.1, np.e, 0.7, np.pi]},
     "net: IntConv conv must read values of one scale, .* of q, whose channels have 4 scales"),
    ((Steps("s", 1, 3), IntConv("conv", 4, 2, 3, 1, 1)), {"s_scale": 1, "s_offset": 0.3},
     "net: IntConv conv pads with 0, which must be a level of s or lie midway .* not at -0.3"),
    ((Quant("q", 1, 0, 3), AvgPool("pool", 2, 1, 1, False), IntConv("conv", 4, 2, 1)), {},
     "net: pool must be followed by a quantizer, since it is no line"),
    ((Pointwise("p", "tanh"), IntConv("conv", 4, 2, 1)), {},
     "net: p must be followed by a quantizer, since it is no line"),
    ((Quant("q", 1, 0, 3), Pointwise("p", "tanh")), {},
     "net: p must be followed by a quantizer, since it is no line"),
    ((Pointwise("p", "rdiv"), Quant("q", 1, 0, 3)), {},
     "net: Quant q cannot be lowered: values before the quantizer must be finite .* not inf"),
    ((Steps("s", 1, 3),), {"s_scale": 0}, "net: Steps s must have a scale other than 0"),
])
def test_errors_name_layer_rule_and_value(layers, values, message: str) -> None:
    with pytest.raises(N2uqError, match=message) as caught:
        lower(make(*layers, spec=IMAGE, **values))
    assert "\n" not in str(caught.value)


def waiting(op: str, value: float | np.ndarray) -> Stage:
    values = np.atleast_1d(np.asarray(value, np.float64))
    return Stage(Pointwise(op, op=op, channels=len(values)), {"value": values})


WIDE_EDGE = Edge((1, 1, 2), np.array([-2**25, -5]), np.array([2**25, 2**24 - 1]))


@pytest.mark.parametrize("rounding, stages", [
    ("floor", [("mul", [5633.0, -48.5]), ("add", [6.5, -7.0]), ("div", 4096.0)]),
    ("floor", [("rsub", 0.25), ("mul", 12345.0), ("sub", 3.0), ("mul", 2.0**-12)]),
    ("to_zero", [("mul", 7.0), ("sub", [1e6, -3.0])]),  # whole numbers: nothing is rounded
    ("floor", [("mul", 0.5), ("add", 0.5)])])
def test_dyadic_lines_need_no_steps(rounding: str, stages: list) -> None:
    """More levels than steps could be, clipped by the quantizer or not."""
    x = Value("x", WIDE_EDGE, (np.ones(1),), tuple(waiting(*stage) for stage in stages))
    layer = Quant("q", channels=1, lo=-2**23, hi=2**24, rounding=rounding)
    levels = levels_of(layer, {"scale": np.ones(1), "zero_point": np.array([3.0])})
    node = quantized(x, levels).node
    assert isinstance(node, Scale)
    integers = np.random.default_rng(0).integers(WIDE_EDGE.lo, WIDE_EDGE.hi + 1, (100_000, 2))
    integers[:20_000, 0] = np.arange(-10_000, 10_000)
    integers[-2:] = WIDE_EDGE.lo, WIDE_EDGE.hi
    y = integers.astype(np.float64)
    for op, value in stages:
        y = {"mul": y * value, "add": y + value, "sub": y - value, "rsub": value - y,
             "div": y / value}[op]
    formula = np.clip({"floor": np.floor, "to_zero": np.trunc}[rounding](y + 3), -2**23, 2**24) - 3
    ours = golden.evaluate(node, (WIDE_EDGE,), integers.reshape(-1, 1, 1, 2))
    assert (ours.reshape(-1, 2) == formula).all() and np.ptp(formula) > 2**20


@pytest.mark.parametrize("rounding, stages", [
    ("floor", [("add", 2.0**60), ("sub", 2.0**60)]),      # floats round the first sum
    ("floor", [("mul", 0.1)]), ("floor", [("div", 3.0)]),
    ("to_zero", [("mul", 0.5)]), ("even", [("div", 2.0)])])
def test_other_lines_of_many_levels_are_refused(rounding: str, stages: list) -> None:
    x = Value("x", WIDE_EDGE, (np.ones(1),), tuple(waiting(*stage) for stage in stages))
    layer = Quant("q", channels=1, lo=-2**30, hi=2**30, rounding=rounding)
    with pytest.raises(N2uqError, match=r"^q must have at most 131072 levels"):
        quantized(x, levels_of(layer, {"scale": np.ones(1), "zero_point": np.zeros(1)}))
