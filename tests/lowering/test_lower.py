"""Lowered layers against the paper's formulas, written out here, at every integer of a range."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from shared import MNIST
from truth import check_every_integer, true_deltas, true_scalar

from n2uq_hw import data, model, nn
from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import DepthwiseMatVec, Graph, MatVec, SlidingWindow, Threshold, golden
from n2uq_hw.lowering.lower import lower
from n2uq_hw.lowering.steps import step_function
from n2uq_hw.model import InputSpec, Net
from n2uq_hw.nets import find_net, shipped


def check_steps(graph: Graph) -> None:
    """Steps are sorted, used ones first, none outside the range, no column without a use."""
    for node in graph.nodes:
        if isinstance(node, Threshold):
            (edge,), used = graph.reads(node), node.signs != 0
            lo, hi = (edge.lo, edge.hi) if len(node.base) > 1 else (edge.lo.min(), edge.hi.max())
            at = node.thresholds.T
            assert ((at > lo) & (at <= hi)).T[used].all() and not node.thresholds[~used].any()
            assert used.any(axis=0).all()
            assert not (used[:, 1:] & ~used[:, :-1]).any()
            later = np.diff(node.thresholds, axis=1) >= 0
            assert later[used[:, 1:]].all()


def logits_of(net: Net, graph: Graph, images: np.ndarray) -> np.ndarray:
    out = golden.run(graph, images.transpose(0, 2, 3, 1))
    return out.reshape(len(images), -1) * graph.meta["output_scale"]


def check_logits(net: Net, graph: Graph, images: np.ndarray) -> np.ndarray:
    """Golden's logits are within one step of the float64 model's; returns golden's."""
    got = logits_of(net, graph, images)
    assert np.abs(got - net.forward(images)).max() < graph.meta["output_scale"]
    return got


# --- Nets for the tests ------------------------------------------------------------------------


def make(layers: tuple[model.Layer, ...], values: dict[str, object],
         spec: InputSpec, rng: np.random.Generator | None = None) -> Net:
    """A net with the parameters `values`; the others are ordinary random ones."""
    rng = rng or np.random.default_rng(0)
    params = {}
    for layer in layers:
        for key, shape in layer.shapes().items():
            name = f"{layer.name}.{key}"
            kinds = {"clip_val": (1.0, 3.0), "running_var": (0.1, 2), "a": (0.1, 1)}
            value = values.get(name)
            if value is None:
                value = rng.uniform(*kinds.get(key, (-1.5, 1.5)), shape)
            params[name] = np.broadcast_to(np.asarray(value, np.float32), shape).copy()
    return Net("net", spec, layers, params)


def unit_weights(outputs: int, inputs: int, bits: int) -> np.ndarray:
    """Weights ±1, ±n in equal shares: s = n, so that with clip 2 the real weights are the codes."""
    row = np.tile([1, 2**bits - 1], inputs // 2) * np.resize([1, 1, -1, -1, 1, -1], inputs)
    return np.stack([np.roll(row, c) * (-1)**c for c in range(outputs)]).astype(np.float32)


def calibrated(net: Net, images: np.ndarray) -> Net:
    """Each LTQ's intervals moved over the middle of what it meets, so that no level is idle."""
    params, x = dict(net.params), images * net.input.scale
    for layer in net.layers:
        p = {key: params[f"{layer.name}.{key}"] for key in layer.shapes()}
        if isinstance(layer, model.LTQ):
            low, high = np.quantile(x * float(p["scale1"][0]), (0.1, 0.9))
            p["start"][:], p["a"][:] = low, (high - low) / len(p["a"])
        x = model.layer_float(layer, p, x)
    return Net(net.name, net.input, net.layers, params)


POOLS = {
    "bn.weight": [0, 1, -1, 0.3, -0.7, 1e-30, -1e-12, 1e9, -3e37, 2],
    "bn.bias": [0, 1, -1, 0.5, 3, -2.25, 1e6, -1e-20],
    "bn.running_mean": [0, 1, -3, 2.5, 40, -1e5, 0.1],
    "bn.running_var": [0, 0, 1e-38, 1, 0.7, 1e4, 1e30],
    "bias.bias": [0, 1, -1, -0.5, 4, 0.1, -1e3, 1e-30],
    "prelu.weight": [0, 1, 0.25, -0.25, -1, -1.7, 3, -1e-30, 1e20],
    "start": [0, -0.5, 0.5, -3.5, 1, 0.1, -20, 1e5],
    "a": [0, 1, 1, 2, 1e-3, -4, 0.5, 0.37, 30],
    "scale1": [1, -1, 1, 0.5, -0.1, 0, 1e-20, -1e12],
    "scale2": [1, -1, 1.5, -0.3, 0, 1e-20, 1e12],
    "clip_val": [1, 2, 2, 3, 0.37, 1e-5, 1e5],
}


def adversarial(seed: int) -> Net:
    """Linear, a random chain, quantizer, perhaps one more, Linear, chain, quantizer, Linear."""
    rng = np.random.default_rng(seed)
    layers: list[model.Layer] = [model.Flatten("flatten")]
    values: dict[str, object] = {}
    wide = 8
    for block in range(2):
        bits, plain = int(rng.integers(1, 9)), rng.random() < 0.5
        layers.append(model.Linear(f"fc{block}", wide, 6, bits))
        if plain:  # real weights that are integers, so that thresholds are hit exactly
            values[f"fc{block}.weight"] = unit_weights(6, wide, bits)
            values[f"fc{block}.clip_val"] = 2
        wide = 6
        for at in range(rng.integers(0, 6)):
            kind = rng.choice([model.BatchNorm, model.Bias, model.PReLU, model.PReLU])
            layers.append(kind(f"{kind.__name__.lower()}{block}{at}", wide))
        for at in range(rng.integers(1, 3)):
            kind = model.Pact if rng.random() < 0.25 else model.LTQ
            layers.append(kind(f"quan{block}{at}", int(rng.choice([1, 2, 2, 3, 4, 8]))))
    layers.append(model.Linear("fc", wide, 3, 2))
    for layer in layers:
        short = {"BatchNorm": "bn.", "Bias": "bias.", "PReLU": "prelu."}.get(
            type(layer).__name__, "")
        for key, shape in layer.shapes().items():
            if not isinstance(layer, model.Linear) and rng.random() < 0.9:
                values[f"{layer.name}.{key}"] = rng.choice(POOLS[short + key], shape)
    scale = float(rng.choice([1.0, 1 / 255, 0.25]))
    return make(tuple(layers), values, InputSpec((1, 2, 4), int(rng.integers(1, 30)), scale), rng)


# --- Tests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped())
def test_shipped_nets_agree_at_every_integer(name: str) -> None:
    net = find_net(name)
    graph = lower(net)
    assert check_every_integer(net, graph) > 1000
    check_steps(graph)


def test_adversarial_nets_agree_at_every_integer() -> None:
    """Zero, huge, tiny and negative parameters; at least some nets have each shape of function."""
    shapes = {"constant": 0, "up": 0, "down": 0, "both": 0, "refused": 0}
    for seed in range(300):
        net = adversarial(seed)
        try:
            graph = lower(net)
        except N2uqError as error:  # overflows float64, or 62 bits
            assert re.search(r"finite in float64|must fit 62 bits|logits must stay", str(error))
            shapes["refused"] += 1
            continue
        check_every_integer(net, graph)
        check_steps(graph)
        for node in graph.nodes:
            if isinstance(node, Threshold):
                up, down = (node.signs == 1).any(axis=1), (node.signs == -1).any(axis=1)
                shapes["both"] += (up & down).sum()
                shapes["up"] += (up & ~down).sum()
                shapes["down"] += (down & ~up).sum()
                shapes["constant"] += (~up & ~down).sum()
    assert min(shapes[key] for key in ("constant", "up", "down", "both")) > 50, shapes
    assert shapes["refused"] < 100, shapes


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("act_bits", range(1, 9))
@pytest.mark.parametrize("sign1,sign2", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_thresholds_exactly_on_integers(bits: int, act_bits: int, sign1: int, sign2: int) -> None:
    """acc·Δ·δ equals every threshold at some integer: the comparison is strict."""
    n = 2**act_bits - 1
    layers = (model.Flatten("flatten"), model.Linear("fc1", 8, 4, bits), model.PReLU("prelu", 4),
              model.LTQ("quan", act_bits), model.Linear("fc", 4, 2, 2))
    net = make(layers, {
        "fc1.weight": unit_weights(4, 8, bits), "fc1.clip_val": 2, "quan.start": -n / 2,
        "quan.a": 1, "quan.scale1": sign1, "quan.scale2": sign2 * n / 2,
        "prelu.weight": [1, -1, 0, -0.5]}, InputSpec((1, 2, 4), 50, 1.0))
    graph = lower(net)
    check_every_integer(net, graph)
    check_steps(graph)
    assert graph["fc1"].weights.tolist() == unit_weights(4, 8, bits).astype(int).tolist()
    if sign1 == 1:  # θ = (1 - n)/2 + i; strictly above the integer is the next one
        ascending = graph["quan"].thresholds[0, graph["quan"].signs[0] != 0]
        assert ascending.tolist() == [(1 - n) // 2 + i + 1 for i in range(n)]
    assert set(graph["quan"].signs[0].tolist()) - {0} == {sign1 * sign2}


def test_strict_comparison_by_hand() -> None:
    # x = acc - 3 (BN with mean 3 hits its bias exactly there), θ = 0.5: bias 0.5 is not above it.
    layers = (model.Flatten("flatten"), model.Linear("fc1", 8, 3, 1), model.BatchNorm("bn", 3),
              model.LTQ("quan", 1), model.Linear("fc", 3, 2, 1))
    net = make(layers, {
        "fc1.weight": unit_weights(3, 8, 1), "fc1.clip_val": 2, "bn.weight": [1, -1, 0],
        "bn.bias": [0.5, 0.5, 0.6], "bn.running_mean": 3, "bn.running_var": 1, "quan.start": 0,
        "quan.a": 1, "quan.scale1": 1, "quan.scale2": 1}, InputSpec((1, 2, 4), 15, 1.0))
    node = lower(net)["quan"]
    assert node.thresholds.tolist() == [[4], [3], [0]]
    assert node.signs.tolist() == [[1], [-1], [0]] and node.base.tolist() == [0, 1, 1]


def test_pact_rounds_half_to_even_at_integers() -> None:
    # q = rint(acc/2): 1 -> 0, 3 -> 2, 5 -> 2, 7 -> 4
    layers = (model.Flatten("flatten"), model.Linear("fc1", 8, 1, 1), model.Bias("bias", 1),
              model.Pact("quan", 3), model.Linear("fc", 1, 2, 1))
    net = make(layers, {"fc1.weight": unit_weights(1, 8, 1), "fc1.clip_val": 2, "bias.bias": 0,
                        "quan.clip_val": 14}, InputSpec((1, 2, 4), 15, 1.0))
    graph = lower(net)
    check_every_integer(net, graph)
    assert graph["quan"].thresholds.tolist() == [[2, 3, 6, 7, 10, 11, 14]]


def test_v_shape_by_hand() -> None:
    # PReLU slope -1 makes |acc|; thresholds 0.5, 2, 3.5 are passed at 1, 3, 4 on either side.
    layers = (model.Flatten("flatten"), model.Linear("fc1", 8, 1, 1), model.PReLU("prelu", 1),
              model.LTQ("quan", 2), model.Linear("fc", 1, 2, 1))
    net = make(layers, {
        "fc1.weight": unit_weights(1, 8, 1), "fc1.clip_val": 2, "prelu.weight": -1,
        "quan.start": 0, "quan.a": [1, 2, 1], "quan.scale1": 1, "quan.scale2": 1},
        InputSpec((1, 2, 4), 3, 1.0))
    node = lower(net)["quan"]
    assert node.thresholds.tolist() == [[-3, -2, 0, 1, 3, 4]]
    assert node.signs.tolist() == [[-1, -1, -1, 1, 1, 1]] and node.base.tolist() == [3]


def test_step_function_of_several_turns() -> None:
    """A tent of tents: three PReLUs with negative slopes make a W of W's."""
    def fold(x: np.ndarray, slope: float, shift: float) -> np.ndarray:
        return np.where(x > 0, x, slope * x) - shift

    shifts = np.array([[40.0, 32.0], [17.0, 16.0], [8.5, 8.0]])
    stages = [lambda x: x, *(lambda x, s=s: fold(x, -1.0, s) for s in shifts),
              lambda x: np.clip(np.floor(x), 0, 7).astype(np.int64)]
    lo, hi = np.array([-100, -64]), np.array([90, 64])
    thresholds, signs, base = step_function(stages, [(1, 0), (2, 0), (3, 0)], lo, hi, 7)
    assert (signs == 1).sum() > 14
    for c in range(2):
        x = np.arange(lo[c], hi[c] + 1)
        expected = x.astype(float)
        for shift in shifts[:, c]:
            expected = fold(expected, -1.0, shift)
        got = base[c] + (signs[c] * (x[:, None] >= thresholds[c])).sum(axis=1)
        assert got.tolist() == np.clip(np.floor(expected), 0, 7).tolist()


def test_a_range_of_one_integer_is_constant() -> None:
    thresholds, signs, base = step_function(
        [lambda x: x, lambda x: (x > 1).astype(np.int64)], [], np.array([2, 0]), np.array([2, 0]),
        1)
    assert thresholds.shape == signs.shape == (2, 0) and base.tolist() == [1, 0]


def test_step_function_at_the_ends_of_62_bits() -> None:
    top = 2**61 - 1
    stages = [lambda x: x * 2.0**-60, lambda x: (x > 0.5).astype(np.int64)]
    thresholds, _, _ = step_function(stages, [], np.array([-top]), np.array([top]), 1)
    # Floats near 2^59 lie 64 or 128 apart, and the truth is the float's.
    assert 0 < thresholds[0, 0] - 2**59 <= 128


CHAINS = [name for name in shipped() if "resnet" not in name]


@pytest.mark.parametrize("name", CHAINS)
def test_whole_nets_against_the_float_model(name: str) -> None:
    net = find_net(name)
    if net.meta["dataset"] == "mnist" and not MNIST.is_dir():
        pytest.skip("no MNIST: name it in N2UQ_MNIST")
    images = data.load(net.meta["dataset"], MNIST).images
    images = images if len(images) < 1000 else images[:2000 if "mlp" in name else 300]
    graph = lower(net)
    logits = check_logits(net, graph, images)
    classes = golden.run(lower(net, top1=True), images.transpose(0, 2, 3, 1)).reshape(-1)
    assert classes.tolist() == logits.argmax(axis=1).tolist()
    assert classes.tolist() == net.forward(images).argmax(axis=1).tolist()


@pytest.mark.parametrize("name", CHAINS)
def test_logits_are_within_a_step_over_the_whole_range(name: str) -> None:
    net = find_net(name)
    graph = lower(net)
    node, (edge,) = graph["logits"], graph.reads(graph["logits"])
    x = np.linspace(edge.lo, edge.hi, 5001).round()
    *_, quantizer, linear, bn = net.layers
    *_, quantizer = (layer for layer in net.layers if isinstance(layer, model.LTQ))
    delta = 2 / (2**quantizer.bits - 1) * float(net.params[f"{quantizer.name}.scale2"][0])
    real = true_scalar(bn, net.of(bn), x * true_deltas(net.of(linear), linear.bits) * abs(delta))
    got = (x.astype(np.int64) * node.multiplier + node.offset) >> node.shift
    assert graph.meta["output_scale"] == 2.0**-8
    assert np.abs(got * 2.0**-8 - real).max() < 2.0**-8


@pytest.mark.parametrize("seed", range(6))
def test_random_convolutional_nets(seed: int) -> None:
    """Padding, strides, depthwise, pools, quantizers right after a Flatten, negative levels."""
    rng = np.random.default_rng(seed)
    stride, groups = int(rng.integers(1, 3)), int(rng.choice([1, 6]))
    layers: tuple[model.Layer, ...] = (
        model.LTQ("quan0", 3), model.Conv("conv1", 3, 6, 3, stride, 1, bits=3),
        model.BatchNorm("bn1", 6), model.PReLU("prelu1", 6), model.LTQ("quan1", 2),
        model.Conv("conv2", 6, 6, int(rng.choice([1, 3])), 1, int(rng.integers(0, 2)), groups,
                   bits=4),
        model.Bias("bias2", 6), model.Pact("quan2", 2), model.MaxPool("pool", 2, 1))
    sample = Net("sample", InputSpec((3, 9, 8), 63, 1 / 16), layers,
                 make(layers, {}, InputSpec((3, 9, 8))).params)
    features = sample.forward(np.zeros((1, 3, 9, 8), np.uint8)).shape[1]
    if seed % 2:
        layers += (model.AvgPool("mean"), model.Flatten("flatten"))
        features, bits = 6, 8
    else:
        layers += (model.Flatten("flatten"), model.BatchNorm("bn3", features),
                   model.PReLU("prelu3", features))
        bits = 3
    layers += (model.LTQ("quan3", bits), model.LTQ("quan4", bits),
               model.Linear("fc", features, 5, 3), model.Bias("bias_out", 5))
    negative = {f"{layer.name}.scale2": rng.choice([-1.5, 1.5])
                for layer in layers if isinstance(layer, model.LTQ)}
    images = rng.integers(0, rng.integers(16, 65, (20, 3, 1, 1)), (20, 3, 9, 8))
    net = calibrated(make(layers, negative, InputSpec((3, 9, 8), 63, 1 / 16), rng), images)
    graph = lower(net)
    assert len(np.unique(check_logits(net, graph, images), axis=0)) > 10
    check_steps(graph)


@pytest.mark.parametrize("kernel,stride,padding", [(3, 1, 1), (3, 2, 1), (1, 1, 0), (2, 2, 0)])
def test_depthwise(kernel: int, stride: int, padding: int) -> None:
    layers = (model.Conv("conv1", 4, 4, kernel, stride, padding, 4, bits=3),
              model.BatchNorm("bn1", 4), model.LTQ("quan1", 3), model.AvgPool("pool"),
              model.Flatten("flatten"), model.Linear("fc", 4, 3, 4))
    net = make(layers, {"quan1.scale1": 3}, InputSpec((4, 7, 6), 255, 1 / 255))
    graph = lower(net)
    node = graph["conv1"]
    window = graph[node.inputs[0]]
    assert isinstance(node, DepthwiseMatVec) and isinstance(window, SlidingWindow)
    assert window.kernel == (kernel, kernel) and node.weights.shape == (kernel**2, 4)
    assert not any(isinstance(other, MatVec) for other in graph.nodes if other.name != "fc")
    check_every_integer(net, graph)
    images = np.random.default_rng(1).integers(0, 256, (16, 4, 7, 6))
    got = check_logits(net, graph, images)
    assert len(np.unique(got, axis=0)) > 8
    with torch.no_grad():
        theirs = nn.Network.from_net(net).double()(torch.from_numpy(images).double() / 255)
    # In double, torch keeps its float32 scales' rounding out: 1e-6 of the logits.
    assert np.abs(got - theirs.numpy()).max() < 1.01 * graph.meta["output_scale"]


def test_levels_of_scale_zero_are_zero() -> None:
    net = make((model.LTQ("quan", 3), model.Flatten("flatten"), model.Linear("fc", 4, 2)),
               {"quan.scale2": 0}, InputSpec((1, 2, 2)))
    graph = lower(net)
    assert graph["quan"].signs.size == 0 and graph.edges["quan"].hi.max() == 0
    check_logits(net, graph, np.full((1, 1, 2, 2), 255))


SPEC = InputSpec((2, 4, 4))
CONV, FLAT, QUAN = model.Conv("conv", 2, 2, 3), model.Flatten("flat"), model.LTQ("quan", 2)


@pytest.mark.parametrize("layers,message", [
    ((model.Layer("odd"),), "net: no lowering for Layer odd"),
    ((CONV, model.Conv("conv2", 2, 2, 1)),
     r"net: Conv conv2 must follow a quantizer \(LTQ or Pact\) or the input, not conv"),
    ((CONV, model.Bias("bias", 2), model.Conv("conv2", 2, 2, 1)),
     "net: Conv conv2 must follow a quantizer .* not bias"),
    ((model.Conv("conv", 2, 1, 3), model.Conv("conv2", 1, 2, 1)), "conv2 must follow a quantizer"),
    ((CONV, model.BatchNorm("bn", 3)), "net: BatchNorm bn must have 2 channels, not 3"),
    ((CONV, model.PReLU("prelu", 1)), "net: PReLU prelu must have 2 channels, not 1"),
    ((model.Conv("conv", 3, 2, 3),), "net: Conv conv must have 2 input channels, not 3"),
    ((model.Conv("conv", 2, 2, 5),), r"net: SlidingWindow conv_window: kernel 5×5 .* 4×4"),
    ((model.MaxPool("pool", 5, 1),), r"net: SlidingWindow pool_window: kernel 5×5 .* 4×4"),
    ((model.Linear("fc", 32, 2),), r"net: Linear fc must follow a Flatten, not read an image"),
    ((FLAT, model.Linear("fc", 30, 2)), "net: Linear fc must have 32 input features, not 30"),
    ((FLAT, model.Conv("conv", 32, 2, 1)), "net: Conv conv must read an image, not the vector"),
    ((FLAT, QUAN), "net: a Flatten must be followed by a Linear"),
])
def test_errors_name_layer_rule_and_value(layers, message: str) -> None:
    with pytest.raises(N2uqError, match=message) as caught:
        lower(make(layers, {}, SPEC))
    assert "\n" not in str(caught.value)


def test_an_image_has_no_class() -> None:
    with pytest.raises(N2uqError, match="ArgMax top1: must read one vector"):
        lower(make((CONV,), {}, SPEC), top1=True)


def test_overflow_names_the_layer() -> None:
    chain = tuple(model.BatchNorm(f"bn{i}", 2) for i in range(9))
    huge = {f"bn{i}.{key}": value for i in range(9) for key, value in
            (("weight", 3e38), ("running_var", 0), ("running_mean", 0.5))}
    with pytest.raises(N2uqError, match=r"net: LTQ quan cannot be lowered: .* must be finite"):
        lower(make((CONV, *chain, QUAN), huge, SPEC))
    with pytest.raises(N2uqError, match=r"net: values after bn8 must stay below 2\^60 steps"):
        lower(make((CONV, *chain), huge, SPEC))
