"""Layers of any low-bit network: formulas by hand and against torch, and what they refuse."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from n2uq_hw import model
from n2uq_hw.errors import N2uqError
from n2uq_hw.model import OPS, InputSpec, Net, layer_float


def params(layer: model.Layer, **values: Any) -> model.Params:
    return {key: np.array(values[key], layer.TYPES.get(key, np.float32)).reshape(shape)
            for key, shape in layer.shapes().items()}


def run(layer: model.Layer, x: Any, **values: Any) -> np.ndarray:
    return layer_float(layer, params(layer, **values), np.array(x, np.float64))


@pytest.mark.parametrize("rounding,expected", [
    ("even", [-2, -2, 0, 0, 2, 3]), ("half_up", [-2, -1, 0, 1, 2, 3]),
    ("floor", [-3, -2, -1, 0, 1, 3]), ("ceil", [-2, -1, 0, 1, 2, 3]),
    ("to_zero", [-2, -1, 0, 0, 1, 3]), ("away", [-3, -2, -1, 1, 2, 3]),
    ("half_away", [-3, -2, 0, 1, 2, 3]), ("half_to_zero", [-2, -1, 0, 0, 1, 3])])
def test_rounding_by_hand(rounding: str, expected: list[int]) -> None:
    x = [-2.5, -1.5, -0.4, 0.5, 1.5, 9]
    assert run(model.Quant("q", 1, -9, 3, rounding), [x], scale=1, zero_point=0).tolist() == [
        expected]


def test_half_up_where_adding_a_half_rounds() -> None:
    below = np.nextafter(0.5, 0)  # below + 0.5 is 1 in float64
    assert run(model.Quant("q", 1, 0, 3, "half_up"), [[below]], scale=1, zero_point=0) == 0


def test_a_quantizer_with_scale_and_zero_point_per_channel() -> None:
    layer = model.Quant("q", 2, 0, 15)
    # channel 0: rint(3/0.5 + 2) = 8 -> 6·0.5; channel 1: rint(-9/2 + 3) = -2 (even) -> 0 -> -3·2
    assert run(layer, [[3, -9]], scale=[0.5, 2], zero_point=[2, 3]).tolist() == [[3, -6]]


def test_steps_count_what_is_at_least_a_threshold() -> None:
    layer = model.Steps("s", 2, 2)
    y = run(layer, [[[[1.0]], [[4.0]]]], thresholds=[[1, 2], [3, 4]], scale=[2, 10], offset=[-1, 0])
    assert y.reshape(-1).tolist() == [1, 20]


@pytest.mark.parametrize("padding", [0, (1, 2), (2, 1, 0, 3)])
@pytest.mark.parametrize("kernel,stride,dilation,groups", [
    ((3, 2), (2, 1), 1, 1), (2, 1, (1, 2), 2), ((1, 3), 1, 2, 4)])
def test_convolution_against_torch(kernel: Any, stride: Any, dilation: Any, groups: int,
                                   padding: Any) -> None:
    layer = model.IntConv("conv", 4, 8, kernel, stride, padding, dilation, groups)
    rng = np.random.default_rng(0)
    p = params(layer, codes=rng.integers(-8, 8, layer.shapes()["codes"]),
               scale=rng.uniform(0.1, 1, 8))
    x = rng.normal(size=(3, 4, 9, 10))
    top, bottom, left, right = model.frame(padding)
    theirs = F.conv2d(F.pad(torch.from_numpy(x), (left, right, top, bottom)),
                      torch.from_numpy(p["codes"].astype(float)), None, stride, 0, dilation, groups)
    np.testing.assert_allclose(layer_float(layer, p, x),
                               theirs.numpy() * p["scale"][:, None, None], atol=1e-12)


def test_linear_by_hand() -> None:
    layer = model.IntLinear("fc", 2, 2)
    assert run(layer, [[2, 5]], codes=[[1, -1], [3, 0]], scale=[0.5, 2]).tolist() == [[-1.5, 12]]


@pytest.mark.parametrize("count_pad", [False, True])
def test_average_pool_against_torch(count_pad: bool) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 8))
    theirs = F.avg_pool2d(torch.from_numpy(x), (3, 2), (2, 1), (1, 1), count_include_pad=count_pad)
    layer = model.AvgPool("mean", (3, 2), (2, 1), 1, count_pad)
    np.testing.assert_allclose(layer_float(layer, {}, x), theirs.numpy(), atol=1e-12)


def test_max_pool_with_dilation_against_torch() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 9, 8))
    theirs = F.max_pool2d(torch.from_numpy(x), (3, 2), (2, 1), (1, 0), (2, 3))
    layer = model.MaxPool("peak", (3, 2), (2, 1), (1, 0), (2, 3))
    assert (layer_float(layer, {}, x) == theirs.numpy()).all()


def test_moves_against_torch() -> None:
    x = np.arange(2 * 8 * 3 * 4, dtype=np.float64).reshape(2, 8, 3, 4)
    t = torch.from_numpy(x)
    shuffled = F.pixel_shuffle(t, 2).numpy()
    assert (run(model.DepthToSpace("d", 2, "CRD"), x) == shuffled).all()
    assert (run(model.DepthToSpace("d", 2, "DCR"), x.reshape(2, 2, 4, 3, 4).swapaxes(1, 2)
                .reshape(x.shape)) == shuffled).all()
    assert (run(model.Upsample("u", (2, 3)), x)
            == F.interpolate(t, scale_factor=(2, 3)).numpy()).all()
    assert (run(model.Permute("p", 3), x, order=[4, 0, 4]) == x[:, [4, 0, 4]]).all()
    assert (layer_float(model.Concat("c"), {}, x, x[:, :1])
            == torch.cat([t, t[:, :1]], 1).numpy()).all()
    assert (run(model.Flatten("f", "hwc"), x) == x.transpose(0, 2, 3, 1).reshape(2, -1)).all()


OPERATIONS: dict[str, Any] = {
    "add": lambda x, v: x + v, "sub": lambda x, v: x - v, "rsub": lambda x, v: v - x,
    "mul": lambda x, v: x * v, "div": lambda x, v: x / v, "rdiv": lambda x, v: v / x,
    "pow": lambda x, v: x**v, "min": torch.minimum, "max": torch.maximum,
    "leaky_relu": lambda x, v: torch.where(x < 0, x * v, x), "neg": torch.neg, "abs": torch.abs,
    "elu": lambda x, v: torch.where(x < 0, v * (torch.exp(x) - 1), x), "sign": torch.sign,
    "relu": F.relu, "floor": torch.floor, "ceil": torch.ceil, "round": torch.round,
    "sqrt": torch.sqrt, "exp": torch.exp, "log": torch.log, "erf": torch.erf,
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "softplus": F.softplus, "softsign": F.softsign,
    "hard_swish": F.hardswish, "silu": F.silu, "gelu": F.gelu}


@pytest.mark.parametrize("op", OPS)
def test_operations_against_torch_and_their_turns(op: str) -> None:
    x = np.linspace(-3, 3, 1201).reshape(-1, 1)
    if op in ("sqrt", "log"):
        x = x[x > 0].reshape(-1, 1)
    if op == "rdiv":
        x = x[x != 0].reshape(-1, 1)
    for value in (2.0, -2.0):
        layer = model.Pointwise("op", op)
        y = run(layer, x, value=value)
        t = torch.from_numpy(x)
        values = (torch.tensor(value, dtype=torch.float64),) if OPS[op].valued else ()
        np.testing.assert_allclose(y, OPERATIONS[op](t, *values).numpy(), rtol=1e-9, atol=1e-12)
        ends = [-np.inf, *OPS[op].turns, np.inf]
        for low, high in itertools.pairwise(ends):
            moves = np.diff(y[(x > low) & (x <= high)])
            assert (moves >= 0).all() or (moves <= 0).all(), (op, value, low)


def test_float32_rounds_as_a_runtime_does() -> None:
    rng = np.random.default_rng(0)
    x, value = rng.normal(size=(1000, 1)).astype(np.float32), np.float32(0.3)
    for op, ufunc in (("mul", np.multiply), ("add", np.add), ("div", np.divide)):
        y = run(model.Pointwise("op", op, 1, True), x, value=value)
        assert (y == ufunc(x, value)).all()


@pytest.mark.parametrize("layer,values,message", [
    (model.Quant("q", 1, 0, 3), {"scale": 0, "zero_point": 0}, "q.scale must be positive, not 0.0"),
    (model.Quant("q", 1, 4, 3), {"scale": 1, "zero_point": 0}, "lo of q must be at most its hi 3"),
    (model.Quant("q", 1, 0, 2**62), {"scale": 1, "zero_point": 0}, "hi of q must be an integer be"),
    (model.Quant("q", 1, 0, 3, "up"), {"scale": 1, "zero_point": 0}, "rounding of q must be one"),
    (model.Steps("s", 1, 2), {"thresholds": [2, 1], "scale": 1, "offset": 0},
     "s.thresholds must ascend in every channel"),
    (model.Permute("p", 2), {"order": [0, -1]}, "p.order must hold places from 0, not -1"),
    (model.Pointwise("x", "sin"), {}, "op of x must be one of add, "),
    (model.Pointwise("x", "add"), {"value": np.nan}, "x.value must be finite, not nan"),
    (model.Concat("c"), {}, "c must have two or more inputs, not ()"),
    (model.DepthToSpace("d", 2, "RCD"), {}, "mode of d must be one of DCR, CRD, not 'RCD'"),
    (model.IntConv("i", 4, 6, 3, groups=4), {"codes": 1, "scale": 1}, "groups of i must divide"),
])
def test_what_is_refused(layer: model.Layer, values: Any, message: str) -> None:
    arrays = {f"{layer.name}.{key}": np.broadcast_to(
        np.array(values[key], layer.TYPES.get(key, np.float32)), shape).copy()
        for key, shape in layer.shapes().items()}
    with pytest.raises(N2uqError) as caught:
        Net("net", InputSpec((2, 4, 4)), (layer,), arrays)
    assert message in str(caught.value)


def test_files_keep_types_tuples_and_signed_inputs(tmp_path: Any) -> None:
    layers = (model.IntConv("conv", 2, 3, (1, 2), (1, 1), (0, 0, 1, 0)),
              model.Pointwise("bias", "add", 3), model.Quant("q", 1, -8, 7, "floor"))
    arrays = {"conv.codes": np.arange(12, dtype=np.int32).reshape(3, 2, 1, 2),
              "conv.scale": np.array([0.1, 0.2, 0.3]), "bias.value": np.array([1.0, 2, 3]),
              "q.scale": np.array([0.7]), "q.zero_point": np.array([1.0])}
    net = Net("net", InputSpec((2, 4, 4), 7, 0.1, min=-8), layers, arrays)
    net.save(tmp_path / "net.safetensors")
    again = model.load_net(tmp_path / "net.safetensors")
    assert again.layers == layers and again.input == net.input
    images = np.random.default_rng(0).integers(-8, 8, (2, 2, 4, 4))
    assert (again.forward(images) == net.forward(images)).all()
    with pytest.raises(N2uqError, match=r"images of net must lie in -8\.\.7, not -9\.\.-9"):
        again.forward(np.full((1, 2, 4, 4), -9))
