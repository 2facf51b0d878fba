"""The torch modules against NumPy transcriptions, hand calculations and numerical derivatives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from n2uq_hw import model, nn
from n2uq_hw.errors import N2uqError
from n2uq_hw.model import InputSpec, Net, load_net
from n2uq_hw.nn import layers as nn_layers

LAYERS = (
    model.Conv("conv1", 2, 6, 3, 2, 1, bits=8), model.BatchNorm("bn1", 6), model.Bias("bias1a", 6),
    model.PReLU("prelu1", 6), model.Bias("bias1b", 6), model.LTQ("quan1", 3),
    model.Conv("conv2", 6, 6, 3, 1, 1, 6, bits=3), model.BatchNorm("bn2", 6),
    model.Pact("pact2", 4), model.MaxPool("pool2", 2, 1),
    model.Conv("conv3", 6, 4, 1, bits=1), model.LTQ("quan3", 2), model.AvgPool("pool3"),
    model.Flatten("flatten"), model.Linear("fc", 4, 3, bits=2), model.BatchNorm("bn_out", 3))


# Two blocks' worth of shortcuts, by dotted names
GRAPH = (
    model.FloatConv("conv1", 2, 6, 3, 2, 1), model.BatchNorm("bn1", 6), model.ReLU6("relu"),
    model.MaxPool("maxpool", 3, 2, 1), model.LTQ("layer1.0.quan1", 2),
    model.Conv("layer1.0.conv1", 6, 6, 3, 1, 1), model.BatchNorm("layer1.0.bn1", 6),
    model.LTQ("layer1.0.downsample.0", 2, inputs=("maxpool",)),
    model.Conv("layer1.0.downsample.1", 6, 6, 1, bits=3),
    model.Add("layer1.0.add", inputs=("layer1.0.bn1", "layer1.0.downsample.1")),
    model.ReLU("layer1.0.relu"), model.Add("layer1.1", inputs=("layer1.0.relu", "maxpool")),
    model.AvgPool("avgpool"), model.Flatten("flatten"), model.FloatLinear("fc", 6, 4))


def ltq_indices(x: np.ndarray, start: float, a: np.ndarray, scale1: float) -> np.ndarray:
    """q by the formula, one float32 operation after the other."""
    a = np.where(a > np.float32(1e-3), a, np.float32(1e-3)).astype(np.float32)
    x = x.astype(np.float32) * np.float32(scale1)
    threshold = np.float32(start) + a[0] / np.float32(2)
    q = (x > threshold).astype(np.int64)
    for before, width in pairwise(a):
        threshold = threshold + (before / np.float32(2) + width / np.float32(2))
        q += x > threshold
    return q


def surrogate(x: np.ndarray, start: float, a: np.ndarray) -> np.ndarray:
    """The piecewise-linear function whose gradient the G-STE takes."""
    points = start + np.concatenate([[0], np.cumsum(np.maximum(a, 1e-3))])
    return np.interp(x, points, np.linspace(0, 2, len(points)))


def ltq(start: float, a: np.ndarray, scale1: float, scale2: float) -> nn.LTQ:
    module = nn.LTQ(int(np.log2(len(a) + 1))).double()
    values = {"start": [start], "a": a, "scale1": [scale1], "scale2": [scale2]}
    with torch.no_grad():
        for key, value in values.items():
            module.get_parameter(key).copy_(torch.tensor(np.asarray(value)))
    return module


def filled(layers: tuple[model.Layer, ...], images: torch.Tensor) -> nn.Network:
    """A network with random parameters of either sign and the running statistics of `images`."""
    torch.manual_seed(4)
    network = nn.Network(layers)
    for key, value in network.state_dict().items():
        if key.endswith(".bias"):
            value.uniform_(-0.3, 0.3)
        elif ("bn" in key or "prelu" in key) and key.endswith(".weight"):
            value.uniform_(-1.0, 1.5)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = 1.0
    network(images)
    return network.eval()


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
@pytest.mark.parametrize("scale1,scale2", [(1.0, 1.0), (-1.7, 0.3), (0.6, -2.0)])
def test_ltq_levels_match_the_formula(bits: int, scale1: float, scale2: float) -> None:
    rng = np.random.default_rng(bits)
    n = 2**bits - 1
    a = rng.uniform(-0.2, 1.0, n).astype(np.float32)  # some below the floor of 1e-3, some negative
    module = ltq(-0.4, a, scale1, scale2).float()
    x = (rng.uniform(-1, 1 + np.maximum(a, 0).sum(), (5, 400)) / scale1).astype(np.float32)
    q = ltq_indices(x, -0.4, a, scale1)
    assert q.min() == 0 and q.max() == n
    expected = q.astype(np.float32) * np.float32(2 / n) * np.float32(scale2)
    np.testing.assert_array_equal(module(torch.from_numpy(x)).detach().numpy(), expected)


def test_ltq_compares_strictly() -> None:
    # Dyadic widths: the thresholds 0.5, 0.875 and 1.5 are exact.
    module = ltq(0.25, np.array([0.5, 0.25, 1.0]), 1.0, 1.5).float()
    thresholds = torch.tensor([0.5, 0.875, 1.5])
    above = torch.nextafter(thresholds, torch.tensor(9.0))
    assert module(thresholds).tolist() == [0, 1, 2]
    assert module(above).tolist() == [1, 2, 3]


@pytest.mark.parametrize("scale1,scale2", [(1.3, 0.7), (-0.8, 1.1), (0.9, -1.2)])
def test_gste_gradients_are_those_of_the_surrogate(scale1: float, scale2: float) -> None:
    rng = np.random.default_rng(3)
    start, a = -0.3, np.array([0.7, 5e-4, 0.4, 1.1, 0.2, 0.3, 0.9])  # a[1] rests on the floor
    x, weight = rng.uniform(-4, 5, 300), rng.normal(size=300)
    tensor = torch.tensor(x, requires_grad=True)
    module = ltq(start, a, scale1, scale2)
    (module(tensor) * torch.tensor(weight)).sum().backward()

    def slope(f: Callable[[float], float], h: float = 1e-7) -> float:
        return (f(h) - f(-h)) / (2 * h)

    def total(dx: float = 0, dstart: float = 0, da: np.ndarray | float = 0, d1: float = 0) -> float:
        y = surrogate((x + dx) * (scale1 + d1), start + dstart, a + da)
        return float((y * scale2 * weight).sum())

    step = ltq_indices(x, start, a, scale1) * 2 / len(a)
    expected = {
        "start": [slope(lambda h: total(dstart=h))],
        "a": [slope(lambda h, row=row: total(da=h * row)) for row in np.eye(len(a))],
        "scale1": [slope(lambda h: total(d1=h))],
        "scale2": [(step * weight).sum()],  # what scale2 multiplies is the step, not the surrogate
    }
    assert expected["a"][1] == 0
    for key, value in expected.items():
        grad = module.get_parameter(key).grad
        np.testing.assert_allclose(grad.numpy(), value, rtol=1e-5, atol=1e-6, err_msg=key)
    each = [slope(lambda h, i=i: float(surrogate((x[i] + h) * scale1, start, a)))
            for i in range(len(x))]
    np.testing.assert_allclose(tensor.grad.numpy(), np.array(each) * scale2 * weight, atol=1e-6)


@pytest.mark.parametrize("weight,bits,clip,codes,levels", [
    # mean 2, s = 1.5·2 = 3, u = ±1/3 and ±1, Δ = 3·2/6 = 1
    ([1, -1, 3, -3], 2, 2.0, [2, 1, 3, 0], [1, -1, 3, -3]),
    # mean 1, s = 1: signs, Δ = 1·2/2
    ([0.5, -0.5, 1.5, -1.5], 1, 2.0, [1, 0, 1, 0], [1, -1, 1, -1]),
    # mean 2, s = 3, u = 0, 8/3 clipped to 1, 0, 0; (0 + 1)·1.5 rounds half to even 2
    ([0, 8, 0, 0], 2, 2.0, [2, 3, 2, 2], [1, 3, 1, 1]),
    # mean 4, s = 7/4·4 = 7, u = ±1/7 and ±1; (u + 1)·3.5 = 4, 3, 7, 0; Δ = 7·2/14 = 1
    ([1, -1, 7, -7], 3, 2.0, [4, 3, 7, 0], [1, -1, 7, -7]),
    # mean 2, s = 3, clip 1: u clipped to ±1/2 at 3; (1/3 + 1/2)·3 = 2.5 - half to even
    ([3, -3, 2, 0], 2, 1.0, [3, 0, 3, 2], [1.5, -1.5, 1.5, 0.5]),
])
def test_weight_quantizer_by_hand(weight, bits, clip, codes, levels) -> None:
    tensor, clip_val = torch.tensor([weight], dtype=torch.float32), torch.tensor([clip])
    assert nn.weight_codes(tensor, clip_val, bits)[0].tolist() == [codes]
    np.testing.assert_allclose(nn.quantize_weight(tensor, clip_val, bits), [levels], rtol=1e-6)
    assert model.weight_codes(tensor.numpy(), clip, bits)[0].tolist() == [codes]


def test_weight_gradient_is_straight_through_also_where_clipped() -> None:
    weight = torch.tensor([[0.1, -0.2, 8.0, 0.4]], requires_grad=True)
    clip_val = torch.tensor([2.0], requires_grad=True)
    quantized = nn.quantize_weight(weight, clip_val, 2)
    quantized.sum().backward()
    scale = 1.5 * 8.7 / 4
    np.testing.assert_allclose(weight.grad, np.full((1, 4), 1 / scale), rtol=1e-6)
    assert clip_val.grad is None
    with torch.no_grad():
        assert torch.equal(quantized, nn.quantize_weight(weight, clip_val, 2))


def test_pact_rounds_half_to_even_and_passes_gradients() -> None:
    pact = nn.PACT(2)
    torch.nn.init.constant_(pact.clip_val, 3.0)  # levels 0, 1, 2, 3
    x = torch.tensor([-1.0, 0.5, 1.5, 2.4, 9.0], requires_grad=True)
    y = pact(x)
    y.sum().backward()
    assert y.tolist() == [0, 0, 2, 2, 3]
    assert x.grad.tolist() == [0, 1, 1, 1, 0] and pact.clip_val.grad.tolist() == [1]


def test_state_dict_of_the_authors_modules_loads_strictly() -> None:
    """Half a ResNet block and a depthwise convolution, by the names and shapes of a checkpoint."""
    quan = {"start": (1,), "a": (3,), "scale1": (1,), "scale2": (1,), "two": (1,), "one": (1,),
            "zero": (1,), "minusone": (1,), "eps": (1,)}
    theirs = {
        "bias11": {"bias": (1, 4, 1, 1)}, "prelu1": {"weight": (4,)}, "quan1": quan,
        "conv1": {"weight": (8, 4, 3, 3), "clip_val": (1,), "zero": (1,)},
        "conv2": {"weight": (8, 1, 3, 3), "clip_val": (1,), "zero": (1,)},
        "quan2": {"clip_val": (1,)}}
    state = {f"{name}.{key}": torch.rand(shape)
             for name, shapes in theirs.items() for key, shape in shapes.items()}
    ours = torch.nn.ModuleDict({
        "bias11": nn.LearnableBias(4), "prelu1": torch.nn.PReLU(4), "quan1": nn.LTQ(2),
        "conv1": nn.QuantizedConv2d(4, 8, 3), "quan2": nn.PACT(4),
        "conv2": nn.QuantizedConv2d(8, 8, 3, groups=8)})
    ours.load_state_dict(state, strict=True)
    assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items())
    constants = {key: float(value) for key, value in nn.LTQ(2).named_parameters()
                 if not value.requires_grad}
    assert constants == pytest.approx({"two": 2, "one": 1, "zero": 0, "minusone": -1, "eps": 1e-3})


def test_nested_modules_by_the_authors_names() -> None:
    network = nn.Network(GRAPH)
    assert [*network.state_dict()][:6] == [
        "conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var",
        "bn1.num_batches_tracked"]
    keys = {key for key in network.state_dict() if key.startswith("layer1.0.downsample.")}
    assert keys == {*(f"layer1.0.downsample.0.{key}" for key in (
        "start", "a", "scale1", "scale2", "two", "one", "zero", "minusone", "eps")),
        *(f"layer1.0.downsample.1.{key}" for key in ("weight", "clip_val", "zero"))}
    assert isinstance(network.get_submodule("layer1.0.quan1"), nn.LTQ)
    state = {key: torch.rand_like(value.float()) for key, value in network.state_dict().items()}
    network.load_state_dict(state, strict=True)
    with pytest.raises(RuntimeError, match=r"Missing key.*layer1.0.quan1.a"):
        network.load_state_dict({k: v for k, v in state.items() if k != "layer1.0.quan1.a"})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*layer1.0.quan9.a"):
        network.load_state_dict({**state, "layer1.0.quan9.a": torch.ones(3)})


def test_a_graph_passes_gradients_to_every_parameter() -> None:
    network = nn.Network(GRAPH)
    network(torch.rand(8, 2, 9, 9)).square().sum().backward()
    without = {key for key, value in network.named_parameters()
               if value.requires_grad and (value.grad is None or not value.grad.any())}
    assert without == {"layer1.0.conv1.clip_val", "layer1.0.downsample.1.clip_val"}


def test_layers_may_be_called_as_parts_of_torchs_modules_and_of_each_other() -> None:
    names = ("train", "layers.0", "a", "a.weight", "a.weight.b", "_modules", "forward", "a.half",
             "..", "b.c", "b")
    layers = tuple(model.Bias(name, 2) for name in names)
    network = nn.Network(layers)
    assert {*network.state_dict()} == {f"{name}.bias" for name in names}
    for k, layer in enumerate(layers):
        network.module(layer).bias.data.fill_(2.0**k)
    assert (network(torch.zeros(1, 2, 1, 1)) == 2**len(names) - 1).all()
    spec = model.InputSpec((2, 1, 1))
    net = network.to_net("n", spec, {})
    assert [float(net.params[f"{name}.bias"].max()) for name in names] == [
        2.0**k for k in range(len(names))]
    assert {*nn.Network.from_net(net).state_dict()} == {*network.state_dict()}


@pytest.mark.parametrize("layers", [LAYERS, GRAPH])
def test_logits_match_the_reference_and_the_file(layers: tuple[model.Layer, ...], tmp_path: Path
                                                 ) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 2, 9, 9), np.uint8)
    network = filled(layers, torch.from_numpy(images) / 255)
    net = network.to_net("every_layer", InputSpec((2, 9, 9), 255, 1 / 255), {"note": 1})
    expected = net.forward(images)
    assert len(np.unique(expected, axis=0)) > 32
    # In float64 no value comes near enough to a threshold for the order of operations to matter.
    with torch.no_grad():
        logits = nn.Network.from_net(net).double()(torch.from_numpy(images).double() / 255)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    net.save(tmp_path / "net.safetensors")
    again = nn.Network.from_net(load_net(tmp_path / "net.safetensors"))
    state = network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items()
               if not key.endswith("num_batches_tracked"))
    assert not any(key.endswith((".two", ".zero", ".eps", "tracked")) for key in net.params)


def test_a_weight_on_a_boundary_keeps_the_code_of_torch(monkeypatch) -> None:
    """NumPy takes the weight for one code less or more until it is moved."""
    exact = model.weight_codes
    before = np.float32([[1.5, -2.1, 0.3, 4.0, -0.2], [1.0, 2.0, 3.0, -1.0, -2.0]])
    clip_val = np.float32([2.0])
    wanted = exact(before, 2.0, 2)[0]
    assert wanted[0, 0] > 0 and wanted[1, 4] < 3
    for sign in (-1, 1):
        def apart(w: np.ndarray, c: float, b: int, sign: int = sign) -> tuple:
            k, delta = exact(w, c, b)
            k[0, 0] += sign * bool(w[0, 0] == before[0, 0])
            k[1, 4] += sign * bool(w[1, 4] == before[1, 4])
            return k, delta

        monkeypatch.setattr(model, "weight_codes", apart)
        weight = before.copy()
        assert nn.settle_codes("w", weight, clip_val, 2) == 2
        assert exact(weight, 2.0, 2)[0].tolist() == wanted.tolist()
        assert np.sign(weight - before)[[0, 1], [0, 4]].tolist() == [-sign, -sign]
        np.testing.assert_allclose(weight, before, rtol=2e-5)
    monkeypatch.setattr(model, "weight_codes", exact)
    weight = before.copy()
    assert nn.settle_codes("w", weight, clip_val, 2) == 0 and (weight == before).all()


def test_weights_that_all_lie_on_boundaries_move_until_torch_and_numpy_agree(monkeypatch) -> None:
    network = nn.Network((model.Linear("fc", 4, 1, 2),))
    with torch.no_grad():
        # mean 2, s = 3: -2 lies at (-2/3 + 1)·1.5 = 0.5, on the boundary of codes 0 and 1
        network.get_parameter("fc.weight").copy_(torch.tensor([[2.0, -2.0, 2.0, -2.0]]))
    exact = nn.weight_codes
    monkeypatch.setattr(nn_layers, "weight_codes", lambda w, c, b: exact(w, c * (1 + 1e-6), b))

    def export() -> Net:
        return network.to_net("boundary", InputSpec((1, 2, 2)), {})

    before = network.get_parameter("fc.weight").detach().numpy().copy()
    after = export().params["fc.weight"]
    k, _ = model.weight_codes(after, 2.0, 2)
    theirs, _ = nn.weight_codes(torch.from_numpy(after), torch.tensor([2.0]), 2)
    assert k.tolist() == theirs.tolist()
    assert (after != before).any()
    np.testing.assert_allclose(after, before, rtol=1e-4)
    monkeypatch.setattr(nn_layers, "weight_codes", lambda w, c, b: (3 - exact(w, c, b)[0], None))
    with pytest.raises(N2uqError, match=r"^boundary: fc.weight must get the same codes .* 4 of 4"):
        export()


DIVERGED = {
    "nan": (lambda net: net.c.weight[1, 0, 0, 2:].fill_(torch.nan),
            r"n: c.weight must be finite, not nan \(1 of 36 values\)"),
    "infinite": (lambda net: net.q.a[1:].fill_(-torch.inf),
                 r"n: q.a must be finite, not -inf \(2 of 3 values\)"),
    "zero": (lambda net: net.fc.weight[2].zero_(),
             r"n: fc.weight must not hold an all-zero filter \(its scale is 0\): channel 2"),
    "clip": (lambda net: net.c.clip_val.fill_(-0.5),
             r"n: c.clip_val must be positive, not -0\.5"),
    "bfloat16": (lambda net: net.bfloat16(), "n: c.weight must be float32, not bfloat16; .*"),
    "float16": (lambda net: net.fc.half(), "n: fc.weight must be float32, not float16; .*"),
    "double": (lambda net: net.q.double(), "n: q.start must be float32, not float64; .*"),
    "missing": (lambda net: net.add_module("c", torch.nn.Identity()),
                "n: parameter c.clip_val is missing"),
    "shape": (lambda net: net.add_module("q", nn.LTQ(3)),
              r"n: q.a must be float32 \[3\], not float32 \[7\]"),
}


@pytest.mark.parametrize("change", DIVERGED)
def test_to_net_names_the_parameter_and_what_is_wrong_with_it(change: str) -> None:
    network = nn.Network((model.Conv("c", 1, 4, 3, 1, 1), model.LTQ("q", 2), model.Flatten("f"),
                          model.Linear("fc", 64, 3)))
    spoil, message = DIVERGED[change]
    with torch.no_grad():
        spoil(network)
    with pytest.raises(N2uqError, match=f"^{message}$") as caught:
        network.to_net("n", InputSpec((1, 4, 4)), {})
    assert "\n" not in str(caught.value)


def test_a_layer_without_a_module_is_an_error() -> None:
    with pytest.raises(N2uqError, match="no torch module for Layer odd"):
        nn.Network((model.Layer("odd"),))
