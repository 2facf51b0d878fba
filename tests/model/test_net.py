"""The formulas by hand and against torch, and net files with every kind of fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import check_full_disk, faults_of_damage
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from n2uq_hw import model, nn
from n2uq_hw.errors import N2uqError
from n2uq_hw.files import load_arrays
from n2uq_hw.model import InputSpec, Net, layer_float, load_net, weight_codes
from n2uq_hw.model import layers as model_layers
from n2uq_hw.nets import find_net, shipped

LAYERS: tuple[model.Layer, ...] = (
    model.Conv("conv", 2, 4, 3, 2, 1, 2, bits=3), model.BatchNorm("bn", 4), model.Bias("bias", 4),
    model.PReLU("prelu", 4), model.LTQ("quan", 2), model.MaxPool("peak", 2, 1),
    model.Pact("pact", 3), model.AvgPool("mean"), model.Flatten("flat"),
    model.Linear("fc", 4, 3, bits=2))


# A stem, a block with a shortcut, and a head, by the authors' names.
GRAPH: tuple[model.Layer, ...] = (
    model.FloatConv("conv1", 2, 4, 3, 2, 1), model.ReLU6("relu"),
    model.MaxPool("maxpool", 3, 2, 1), model.LTQ("layer1.0.quan1", 2),
    model.Conv("layer1.0.conv1", 4, 4, 3, 1, 1), model.BatchNorm("layer1.0.bn1", 4),
    model.FloatConv("layer1.0.downsample.0", 4, 4, 1, inputs=("maxpool",)),
    model.Add("layer1.0.add", inputs=("layer1.0.bn1", "layer1.0.downsample.0")),
    model.ReLU("layer1.0.relu"), model.Add("again", inputs=("maxpool", "layer1.0.relu")),
    model.AvgPool("avgpool"), model.Flatten("flatten"), model.FloatLinear("fc", 4, 3))
SPEC = InputSpec((2, 7, 6), 255, 1 / 255)


def make(layers: tuple[model.Layer, ...] = LAYERS, **changes: Any) -> Net:
    rng = np.random.default_rng(1)
    params = {f"{layer.name}.{key}": rng.uniform(0.2, 1.5, shape).astype(np.float32)
              for layer in layers for key, shape in layer.shapes().items()}
    fields = {"name": "net", "input": SPEC, "layers": layers, "params": params, "meta": {}}
    return Net(**{**fields, **changes})


def one(layer: model.Layer, **params: Any) -> Callable[[Any], Any]:
    arrays = {key: np.array(params[key], np.float32).reshape(shape)
              for key, shape in layer.shapes().items()}
    return lambda x: layer_float(layer, arrays, np.array(x, np.float64)).tolist()


# --- Formulas -----------------------------------------------------------------------------------


def test_weight_codes_by_hand() -> None:
    # mean 2, s = 3·2/2 = 3, k = rint((w/3 + 1)·1.5), Δ = 3·2/6 = 1
    k, delta = weight_codes(np.array([[1, -1, 3, -3]], np.float32), 2.0, 2)
    assert k.tolist() == [[2, 1, 3, 0]] and delta.tolist() == [1.0]
    assert k.dtype == np.int64 and delta.dtype == np.float64
    # One scale per output channel; (u + 1)·1.5 = 1.5 and 2.5 round half to even.
    k, delta = weight_codes(np.array([[0, 8, 0, 0], [-2, 2, -2, 2]], np.float32), 2.0, 2)
    assert k.tolist() == [[2, 3, 2, 2], [0, 2, 0, 2]]
    assert delta.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bits", range(1, 9))
def test_weight_codes_are_all_odd_levels(bits: int) -> None:
    n = 2**bits - 1
    weight = np.linspace(-1, 1, 4001, dtype=np.float32).reshape(1, -1)
    k, delta = weight_codes(weight, 1.0, bits)
    assert sorted(set(k.ravel().tolist())) == list(range(n + 1))
    assert (np.diff(k) >= 0).all() and (k + k[:, ::-1] == n).mean() > 0.99
    scale = np.float32(n / 2**(bits - 1)) * np.float32(0.5)
    assert delta[0] == pytest.approx(scale / (2 * n), rel=1e-3)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("shape", [(8, 16), (4, 3, 3, 3), (6, 1, 5, 5)])
def test_weight_codes_match_torch(bits: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(bits)
    weight, clip = rng.normal(size=shape).astype(np.float32), np.float32(rng.uniform(0.5, 3))
    k, delta = weight_codes(weight, clip, bits)
    theirs, scale = nn.weight_codes(torch.from_numpy(weight), torch.tensor([clip]), bits)
    # Float32 means may differ in the last bit, so a weight on a boundary may.
    assert (k != theirs.numpy()).mean() <= 0.01 and np.abs(k - theirs.numpy()).max() <= 1
    n = 2**bits - 1
    np.testing.assert_allclose(delta, scale.numpy().reshape(-1) * clip / (2 * n), rtol=1e-6)
    assert k.min() >= 0 and k.max() <= n


def test_ltq_compares_strictly_and_counts() -> None:
    # θ = 0.25 + 0.5/2 = 0.5, then 0.875 and 1.5; δ = 2/3·1.5 = 1
    ltq = one(model.LTQ("q", 2), start=0.25, a=[0.5, 0.25, 1], scale1=1, scale2=1.5)
    assert ltq([0.5, 0.875, 1.5]) == [0, 1, 2]
    assert ltq(np.nextafter([0.5, 0.875, 1.5], 9)) == [1, 2, 3]
    assert ltq([-9, -0.0, 0.0, 9]) == [0, 0, 0, 3]
    turned = one(model.LTQ("q", 2), start=0.25, a=[0.5, 0.25, 1], scale1=-1, scale2=-1.5)
    assert turned([-0.5, -0.6, -2, 5]) == [0, -1, -3, 0]


def test_ltq_thresholds_keep_the_floor() -> None:
    p = {"start": np.float32([1]), "a": np.float32([-3, 0, 1e-4])}
    assert model.ltq_thresholds(p) == pytest.approx([1.0005, 1.0015, 1.0025], abs=1e-12)
    assert (np.diff(model.ltq_thresholds(p)) > 0).all()


def test_pact_rounds_half_to_even() -> None:
    pact = one(model.Pact("q", 2), clip_val=3)
    assert pact([-1, 0, 0.5, 0.51, 1.5, 2.5, 3, 99]) == [0, 0, 0, 1, 2, 2, 3, 3]


def test_scalar_layers_by_hand() -> None:
    bn = one(model.BatchNorm("bn", 2), weight=[2, -1], bias=[0.5, 1], running_mean=[1, 0],
             running_var=[4 - 1e-5, 0])
    (value, zero), = bn([[5.0, 0.0]])
    assert value == pytest.approx(4.5, abs=1e-6) and zero == 1
    assert one(model.Bias("b", 2), bias=[1, -2])([[3, 3]]) == [[4, 1]]
    prelu = one(model.PReLU("p", 3), weight=[-0.5, 0, 2])
    assert prelu([[-2, -2, -2], [2, 2, 2]]) == [[1, 0, -4], [2, 2, 2]]


def test_full_precision_layers_by_hand() -> None:
    assert one(model.ReLU("r"))([[-1, 0, 2]]) == [[0, 0, 2]]
    assert one(model.ReLU6("r"))([[-1, 0, 5.5, 6, 7]]) == [[0, 0, 5.5, 6, 6]]
    fc = one(model.FloatLinear("fc", 2, 3), weight=[[1, 2], [0, -1], [3, 0]], bias=[0.5, 0, -1])
    assert fc([[2, -1]]) == [[0.5, 1, 5]]
    conv = one(model.FloatConv("c", 1, 1, 3, 2, 1), weight=[1, 1, 1, 1, 1, 1, 1, 1, -1])
    assert conv(np.arange(9).reshape(1, 1, 3, 3)) == [[[[0 + 1 + 3 - 4, 1 + 2 + 4 + 5],
                                                         [3 + 4 + 6 + 7, 4 + 5 + 7 + 8 - 2 * 0]]]]
    x, y = np.array([[1.0, 2]]), np.array([[0.5, -2]])
    assert layer_float(model.Add("a", inputs=("x", "y")), {}, x, y).tolist() == [[1.5, 0]]


def test_pools_and_flatten_by_hand() -> None:
    x = np.arange(24).reshape(1, 2, 3, 4)
    assert one(model.MaxPool("p", 2, 2))(x) == [[[[5, 7]], [[17, 19]]]]
    assert one(model.MaxPool("p", 2, 1))(x)[0][0] == [[5, 6, 7], [9, 10, 11]]
    # A frame of -inf, not of 0
    assert one(model.MaxPool("p", 3, 2, 1))(x - 99) == [[[[-94, -92], [-90, -88]],
                                                         [[-82, -80], [-78, -76]]]]
    assert one(model.AvgPool("p"))(x) == [[[[5.5]], [[17.5]]]]
    assert one(model.Flatten("f"))(x) == [list(range(24))]


@pytest.mark.parametrize("stride,padding,groups", [(1, 0, 1), (2, 1, 1), (1, 1, 2), (2, 2, 4)])
def test_convolution_against_torch(stride: int, padding: int, groups: int) -> None:
    layer = model.Conv("conv", 4, 8, 3, stride, padding, groups, bits=4)
    rng = np.random.default_rng(stride)
    p = {"weight": rng.normal(size=layer.shapes()["weight"]).astype(np.float32),
         "clip_val": np.float32([2])}
    k, delta = weight_codes(p["weight"], 2.0, 4)
    weight, x = (2 * k - 15) * delta[:, None, None, None], rng.normal(size=(3, 4, 6, 7))
    theirs = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(weight), None,
                                        stride, padding, 1, groups)
    np.testing.assert_allclose(layer_float(layer, p, x), theirs.numpy(), atol=1e-12)


def test_many_images_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = model.Conv("conv", 4, 8, 3, 1, 1, groups=2)
    p = {key: np.random.default_rng(2).uniform(1, 2, shape).astype(np.float32)
         for key, shape in layer.shapes().items()}
    x = np.random.default_rng(3).normal(size=(7, 4, 5, 6))
    whole = layer_float(layer, p, x)
    monkeypatch.setattr(model_layers, "COLUMNS", 2 * 4 * 9 * 5 * 6)  # two images at a time
    np.testing.assert_allclose(layer_float(layer, p, x), whole, rtol=1e-12)
    monkeypatch.setattr(model_layers, "COLUMNS", 1)
    np.testing.assert_allclose(layer_float(layer, p, x), whole, rtol=1e-12)


def test_a_layer_without_a_formula_is_an_error() -> None:
    with pytest.raises(N2uqError, match="no float formula for Layer"):
        layer_float(model.Layer("odd"), {}, np.zeros(1))


# --- Graphs -------------------------------------------------------------------------------------


def test_a_graph_against_torch() -> None:
    net = make(GRAPH, input=InputSpec((2, 7, 6), 255, 1 / 255, (0.5, 0.25), (0.25, 2.0)))
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 7, 6))
    p = {key: torch.from_numpy(value).double() for key, value in net.params.items()}
    F = torch.nn.functional
    x = (torch.from_numpy(images) / 255.0 - torch.tensor([0.5, 0.25])[:, None, None].double()
         ) / torch.tensor([0.25, 2.0])[:, None, None].double()
    x = F.max_pool2d(F.relu6(F.conv2d(x, p["conv1.weight"], None, 2, 1)), 3, 2, 1)
    q = torch.from_numpy(layer_float(GRAPH[3], net.of(GRAPH[3]), x.numpy()))
    k, delta = weight_codes(net.params["layer1.0.conv1.weight"],
                            net.params["layer1.0.conv1.clip_val"][0], 2)
    y = F.conv2d(q, torch.from_numpy((2 * k - 3) * delta[:, None, None, None]), None, 1, 1)
    y = F.batch_norm(y, *(p[f"layer1.0.bn1.{key}"] for key in
                          ("running_mean", "running_var", "weight", "bias")))
    y = x + F.relu(y + F.conv2d(x, p["layer1.0.downsample.0.weight"]))
    y = F.linear(y.mean((2, 3)), p["fc.weight"], p["fc.bias"])
    np.testing.assert_allclose(net.forward(images), y.numpy(), rtol=1e-6)
    assert len(np.unique(net.forward(images))) == 15


def test_sources() -> None:
    reads = model.sources(GRAPH)
    assert list(reads) == [layer.name for layer in GRAPH]
    assert reads["conv1"] == ("input",) and reads["relu"] == ("conv1",)
    assert reads["layer1.0.downsample.0"] == ("maxpool",)
    assert reads["layer1.0.add"] == ("layer1.0.bn1", "layer1.0.downsample.0")


def test_values_are_dropped_when_read() -> None:
    alive: set[str] = set()

    class Value:
        def __init__(self, name: str) -> None:
            self.name = name
            alive.add(name)

        def __del__(self) -> None:
            alive.discard(self.name)

    seen = {}

    def step(layer: model.Layer, *x: Value) -> Value:
        seen[layer.name] = alive - {"input"}  # the caller may hold the images
        return Value(layer.name)

    assert model.walk(GRAPH, Value("input"), step).name == "fc"
    assert seen["layer1.0.conv1"] == {"maxpool", "layer1.0.quan1"}
    assert seen["layer1.0.add"] == {"maxpool", "layer1.0.bn1", "layer1.0.downsample.0"}
    assert seen["fc"] == {"flatten"}
    # read twice by one layer
    twice = (model.ReLU("a"), model.Add("b", inputs=("a", "a")))
    assert model.walk(twice, 3, lambda layer, *x: sum(x)) == 6
    assert model.walk((), 3, lambda layer, *x: 0) == 3


def test_factor_and_offset() -> None:
    spec = InputSpec((3, 2, 2), 255, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert spec.factor == pytest.approx([1 / 255 / 0.229, 1 / 255 / 0.224, 1 / 255 / 0.225])
    assert spec.offset == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    assert spec.factor.dtype == spec.offset.dtype == np.float64
    plain = InputSpec((2, 2, 2), 16, 1 / 16)
    assert plain.factor.tolist() == [1 / 16] * 2 and plain.offset.tolist() == [0, 0]
    assert not np.signbit(plain.offset).any()
    net = make((model.ReLU("relu"),), input=replace(SPEC, mean=(0.5, -1.0), std=(2, 4)))
    pixels = np.full((1, 2, 7, 6), 255)
    assert net.forward(pixels)[0] == pytest.approx([0.25] * 42 + [0.5] * 42)


@pytest.mark.parametrize("names", [
    ["a.b", "a_b", "a", "A"], ["layer1.0.conv1"], ["0", "0.a"], ["a..b", ".a", "a.", "."],
    ["β", "层 1", "/stem/Conv:0", "a-b"], ["input", "logits", "i", "o"], ["x" * 5000]])
def test_any_text_that_prints_is_a_name(names: list[str]) -> None:
    assert [layer.name for layer in make(tuple(map(model.ReLU, names))).layers] == names


def test_a_layer_may_be_called_as_the_images_are() -> None:
    net = make((model.ReLU("input"), model.Add("sum", inputs=("input", "input_"))))
    assert model.sources(net.layers) == {"input": ("input_",), "sum": ("input", "input_")}
    images = np.arange(net.input.max + 1)[:1].repeat(np.prod(net.input.shape))
    images = (images + 3).reshape(1, *net.input.shape)
    np.testing.assert_allclose(net.forward(images), 2 * 3 * net.input.scale)


X, Y = model.ReLU("x"), model.ReLU("y")


@pytest.mark.parametrize("layers,message", [
    ((model.ReLU(""),), "net: layer names must be text that prints, not ''"),
    ((model.ReLU(" a"),), "text that prints, not ' a'"),
    ((model.ReLU("a\nb"),), r"text that prints, not 'a\\nb'"),
    ((model.ReLU("\ud800"),), r"text that prints, not '\\ud800'"),
    ((X, model.ReLU("x")), "net: layer names must differ, not be 'x' twice"),
    ((X, model.Add("a")), r"net: a must have 2 inputs, not \(\)"),
    ((X, model.Add("a", inputs=("x",))), r"net: a must have 2 inputs, not \('x',\)"),
    ((X, model.Add("a", inputs=("x", "x", "x"))), "net: a must have 2 inputs"),
    ((X, model.ReLU("a", inputs=("x", "input"))), r"net: a must have 1 input, not \('x', 'input'"),
    ((X, model.ReLU("a", inputs="x")), "net: a must have 1 input, not 'x'"),
    ((X, model.ReLU("a", inputs=["x"])), r"net: a must have 1 input, not \['x'\]"),
    ((X, model.ReLU("a", inputs=None)), "net: a must have 1 input, not None"),
    ((X, model.ReLU("a", inputs=(3,))), "net: inputs of a must be layers before it, not 3"),
    ((X, model.ReLU("a", inputs=("a",))), "net: inputs of a must be layers before it, not 'a'"),
    ((model.ReLU("a", inputs=("y",)), Y), "net: inputs of a must be layers before it, not 'y'"),
    ((X, model.ReLU("y", inputs=("input",))), "net: x must be read by another .* output is y"),
    ((X, Y, model.Add("a", inputs=("x", "x"))), "net: y must be read by another layer"),
    ((model.MaxPool("p", 3, 2, 2),), "net: padding of p must be at most half of its kernel 3, not"),
    ((model.MaxPool("p", 3, 2, -1),), "padding of p must be an integer from 0, not -1"),
    ((model.FloatConv("c", 1, 0, 3),), "out_channels of c must be an integer from 1, not 0"),
    ((model.FloatLinear("f", True, 1),), "in_features of f must be an integer from 1, not True"),
])
def test_faulty_graphs(layers: tuple[model.Layer, ...], message: str) -> None:
    with pytest.raises(N2uqError, match=message) as caught:
        Net("net", SPEC, layers, {})
    assert "\n" not in str(caught.value)


# --- Images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("images,message", [
    (np.zeros((2, 7, 6), int), r"must have shape \[N, 2, 7, 6\], not \[2, 7, 6\]"),
    (np.zeros((1, 7, 6, 2), int), r"must have shape .* not \[1, 7, 6, 2\]"),
    (np.zeros((1, 2, 7, 6)), "must be integers, not float64"),
    (np.zeros((1, 2, 7, 6), bool), "must be integers, not bool"),
    (np.full((1, 2, 7, 6), 256), r"must lie in 0\.\.255, not 256\.\.256"),
    (np.full((1, 2, 7, 6), -1), r"must lie in 0\.\.255, not -1\.\.-1"),
])
def test_images_are_checked(images: np.ndarray, message: str) -> None:
    with pytest.raises(N2uqError, match=message):
        make().forward(images)


def test_an_empty_batch_has_no_logits() -> None:
    net = find_net("digits_mlp_w2a2")
    assert net.forward(np.zeros((0, 1, 8, 8), np.uint8)).shape == (0, 10)


# --- Nets and their files -----------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped())
def test_round_trip(name: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    net = find_net(name)
    net.save(one)
    again = load_net(one)
    again.save(two)
    assert one.read_bytes() == two.read_bytes()
    assert (again.name, again.input, again.layers, again.meta) == (
        net.name, net.input, net.layers, net.meta)
    assert all((again.params[key] == value).all() for key, value in net.params.items())
    # Files from before there were graphs are written as they were.
    assert one.read_bytes() == shipped()[name].read_bytes()


def test_round_trip_of_a_graph(tmp_path: Path) -> None:
    spec = InputSpec((2, 7, 6), 255, 1 / 255, (0.5, 0.25), (0.25, 2.0))
    net = make(GRAPH, input=spec)
    net.save(tmp_path / "net")
    again = load_net(tmp_path / "net")
    assert (again.input, again.layers) == (spec, GRAPH)
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 7, 6))
    assert (again.forward(images) == net.forward(images)).all()


Change = Callable[[dict[str, Any], dict[str, np.ndarray]], object]


def row(described: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in described["layers"] if row["name"] == name)


def put(key: str, *values: float, at: int = 0) -> Change:
    """Overwrite the first values of a parameter."""
    def change(described: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        arrays[key].reshape(-1)[at:at + len(values)] = values
    return change


def cast(key: str, dtype: Any) -> Change:
    return lambda d, a: a.update({key: a[key].astype(dtype)})


@pytest.mark.parametrize("change,message", [
    # description
    (lambda d, a: d.update(format="1"), "n2uq format must be 1, not '1'"),
    (lambda d, a: d.pop("layers"), "malformed n2uq description: KeyError"),
    (lambda d, a: d.pop("meta"), "malformed n2uq description: KeyError"),
    (lambda d, a: d.update(meta="x"), "net: meta must be a dict, not str"),
    (lambda d, a: d.update(name="a\tb"), r"net name must be text that prints, not 'a\\tb'"),
    (lambda d, a: d.update(name=7), "net name must be text that prints, not 7"),
    (lambda d, a: d.update(layers=5), "malformed n2uq description: TypeError"),
    (lambda d, a: d.update(layers=["conv"]), "malformed n2uq description"),
    (lambda d, a: d.update(layers={"a": 1}), "malformed n2uq description"),
    (lambda d, a: d.update(input=None), "malformed n2uq description: TypeError"),
    (lambda d, a: d["input"].update(shape=[2, 7]), r"net: input shape must be three .* \(2, 7\)"),
    (lambda d, a: d["input"].update(shape=[2, 7, 0]), "net: input shape must be three positive"),
    (lambda d, a: d["input"].update(shape=[2, 7, -6]), "net: input shape must be three positive"),
    (lambda d, a: d["input"].update(shape="abc"), "net: input shape must be three positive sizes"),
    (lambda d, a: d["input"].update(shape=7), "malformed n2uq description: TypeError"),
    (lambda d, a: d["input"].update(max=0), r"net: input max must be in 1\.\.65535, not 0"),
    (lambda d, a: d["input"].update(max=65536), r"net: input max must be in 1\.\.65535, not 65536"),
    (lambda d, a: d["input"].update(max="255"), "net: input max must be in"),
    (lambda d, a: d["input"].update(max=True), "net: input max must be in"),
    (lambda d, a: d["input"].update(scale=0), "net: input scale must be positive and finite"),
    (lambda d, a: d["input"].update(scale=-1.0), "net: input scale must be positive and finite"),
    (lambda d, a: d["input"].update(scale=float("nan")), "net: input scale must be .* not nan"),
    (lambda d, a: d["input"].update(scale=float("inf")), "net: input scale must be .* not inf"),
    (lambda d, a: d["input"].update(scale="1"), "net: input scale must be positive"),
    (lambda d, a: d["input"].update(scale=10**400), "net: input scale must be positive and finite"),
    (lambda d, a: d["input"].update(mean=[1.0]), r"net: input mean must be 2 finite .* \(1\.0,\)"),
    (lambda d, a: d["input"].update(mean=[1.0, float("nan")]), "input mean must be 2 finite num"),
    (lambda d, a: d["input"].update(mean=[1.0, True]), "input mean must be 2 finite numbers"),
    (lambda d, a: d["input"].update(mean=5), "malformed n2uq description: TypeError"),
    (lambda d, a: d["input"].update(std=[1.0, "x"]), "net: input std must be 2 finite numbers"),
    (lambda d, a: d["input"].update(std=[1.0, 10**400]), "net: input std must be 2 finite numbers"),
    (lambda d, a: d["input"].update(std=[1.0, 0.0]), "net: input std must be positive, .* not 0.0"),
    (lambda d, a: d["input"].update(std=[1.0, -2.0]), "net: input std must be positive, .* -2.0"),
    (lambda d, a: d["input"].update(std=[1.0, 1e-320]), "input std must be positive, and large"),
    # layers
    (lambda d, a: row(d, "bn").update(inputs=5), "net: bn must have 1 input, not 5"),
    (lambda d, a: row(d, "bn").update(inputs=["fc"]), "inputs of bn must be layers before it, not"),
    (lambda d, a: row(d, "bn").update(inputs=[["conv"]]), "inputs of bn must be layers before it"),
    (lambda d, a: row(d, "peak").update(padding=2), "padding of peak must be at most half of"),
    (lambda d, a: row(d, "conv").update(kind="Conv3"), "layer conv must be one of Conv, .* Conv3"),
    (lambda d, a: row(d, "conv").update(kind=[1]), "malformed n2uq description: TypeError"),
    (lambda d, a: row(d, "conv").pop("kind"), "malformed n2uq description: KeyError"),
    (lambda d, a: row(d, "conv").pop("kernel"), "malformed n2uq description: TypeError"),
    (lambda d, a: row(d, "conv").update(spread=2), "malformed n2uq description: TypeError"),
    (lambda d, a: row(d, "conv").update(name="fc"), "names must differ, not be 'fc' twice"),
    (lambda d, a: row(d, "conv").update(name=" "), "layer names must be .* not ' '"),
    (lambda d, a: row(d, "conv").update(name=["x"]), "layer names must be text that prints"),
    (lambda d, a: row(d, "conv").update(name=""), "layer names must be text that prints"),
    (lambda d, a: row(d, "conv").update(bits=0), r"net: bits of conv must be in 1\.\.8, not 0"),
    (lambda d, a: row(d, "conv").update(bits=9), r"net: bits of conv must be in 1\.\.8, not 9"),
    (lambda d, a: row(d, "quan").update(bits=9), r"net: bits of quan must be in 1\.\.8, not 9"),
    (lambda d, a: row(d, "quan").update(bits=10**9), r"net: bits of quan must be in 1\.\.8"),
    (lambda d, a: row(d, "pact").update(bits=2.0), r"bits of pact must be in 1\.\.8, not 2\.0"),
    (lambda d, a: row(d, "fc").update(bits=True), r"net: bits of fc must be in 1\.\.8, not True"),
    (lambda d, a: row(d, "fc").update(bits="2"), r"net: bits of fc must be in 1\.\.8, not '2'"),
    (lambda d, a: row(d, "conv").update(groups=0), "groups of conv must be an integer from 1, not"),
    (lambda d, a: row(d, "conv").update(groups=3), "groups of conv must divide its channels 2 and"),
    (lambda d, a: row(d, "conv").update(padding=-1), "padding of conv must be an integer from 0"),
    (lambda d, a: row(d, "conv").update(stride=[1]), "stride of conv must be 2 integers from 1"),
    (lambda d, a: row(d, "conv").update(padding=[1, 2, 3]), "conv must be 2 or 4 integers from 0"),
    (lambda d, a: row(d, "flat").update(order="whc"), "order of flat must be one of chw, hwc, not"),
    (lambda d, a: row(d, "mean").update(count_pad=1), "count_pad of mean must be one of False, "),
    (lambda d, a: d["input"].update(min=1), r"input min must be in -65535\.\.0, not 1"),
    (lambda d, a: row(d, "conv").update(stride=0), "stride of conv must be an integer from 1"),
    (lambda d, a: row(d, "conv").update(kernel=None), "kernel of conv must be an integer from 1"),
    (lambda d, a: row(d, "peak").update(kernel=0), "kernel of peak must be an integer from 1"),
    (lambda d, a: row(d, "bn").update(channels=10**12), "net: bn.weight must be float32 .* not"),
    (lambda d, a: row(d, "bn").update(channels=-4), "channels of bn must be an integer from 1"),
    # parameters
    (lambda d, a: a.pop("bn.bias"), "net: parameter bn.bias is missing"),
    (lambda d, a: a.update(extra=a["bn.bias"]), "net: parameter extra is of no layer"),
    (lambda d, a: a.update({"bn.bias": a["fc.weight"]}),
     r"net: bn.bias must be float32 \[4\], not float32 \[3, 4\]"),
    (cast("fc.weight", np.int32), r"net: fc.weight must be float32 \[3, 4\], not int32 \[3, 4\]"),
    (cast("fc.weight", np.float16), "net: fc.weight must be float32 .* not float16"),
    (cast("fc.weight", np.float64), "net: fc.weight must be float32 .* not float64"),
    (cast("fc.weight", bool), "net: fc.weight must be float32 .* not bool"),
    (put("quan.a", np.nan), r"net: quan.a must be finite, not nan \(1 of 3 values\)"),
    (put("bn.bias", -np.inf, np.inf), r"net: bn.bias must be finite, not -inf \(2 of 4 values\)"),
    (put("pact.clip_val", 0), "net: pact.clip_val must be positive, not 0"),
    (put("conv.clip_val", -1), r"net: conv.clip_val must be positive, not -1\.0"),
    (put("bn.running_var", -9), "net: bn.running_var must not be negative, not -9"),
    (put("fc.weight", 0, 0, 0, 0, at=4), "net: fc.weight must not hold an all-zero .* channel 1"),
    (put("fc.weight", 0, 0, 1e-45, 0), r"net: fc.weight and clip_val must have a float32 scale"),
    (put("fc.weight", 3e38, 3e38, 3e38, 3e38), r"must have a float32 scale, not inf \(channel 0"),
    (put("fc.clip_val", 1e-45), "net: fc.weight and clip_val must have a float32 scale"),
])
def test_faulty_files(change: Change, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    make().save(path)
    arrays, described = load_arrays(path, "n2uq", 1)
    arrays = {key: value.copy() for key, value in arrays.items()}
    change(described, arrays)
    save_file(arrays, path, metadata={"n2uq": json.dumps(described)})
    check_fault(path, message)


def check_fault(path: Path, message: str) -> None:
    with pytest.raises(N2uqError, match=message) as caught:
        load_net(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_types_that_numpy_has_not(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    make().save(path)
    arrays, described = load_arrays(path, "n2uq", 1)
    tensors = {key: torch.from_numpy(value.copy()) for key, value in arrays.items()}
    tensors["fc.weight"] = tensors["fc.weight"].to(dtype)
    save_torch(tensors, path, metadata={"n2uq": json.dumps(described)})
    check_fault(path, r"fc.weight must have a NumPy type, not (BF16|F8_E4M3)")


def test_files_that_are_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    check_fault(path, "no such file")
    check_fault(tmp_path, "must be a file, and is a folder")
    make().save(path)
    whole = path.read_bytes()
    for size in (0, 5, 8, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        check_fault(path, "not a whole safetensors file")
    path.write_bytes(whole + b"more")
    check_fault(path, "not a whole safetensors file")
    save_file({"a": np.zeros(1)}, path)
    check_fault(path, "holds no n2uq description")
    for text in ("{", "[" * 100000):
        save_file({"a": np.zeros(1)}, path, metadata={"n2uq": text})
        check_fault(path, "the n2uq description must be JSON")
    save_file({"a": np.zeros(1)}, path, metadata={"n2uq": "[1]"})
    check_fault(path, "the n2uq description must be an object, not list")


def test_random_damage_is_an_error_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    make().save(path)
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert faults_of_damage(path, load_net, end=header) > 200


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "net.safetensors"
    check_full_disk(path, lambda target: make().save(target), monkeypatch)
    with pytest.raises(N2uqError, match="cannot be written"):
        make(meta={"path": path}).save(path)  # no JSON
    assert path.read_bytes() == b"old"
    make().save(path)
    assert load_net(path).layers == LAYERS and path.stat().st_mode & 0o400


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"old")

    def interrupted(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make().save(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_bytes() == b"old"
