"""Operators of every dialect, in small graphs: the net computes what other runtimes do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import QONNX, Net, by_onnxruntime, by_qonnx
from qonnx.custom_op.general.trunc import trunc_v1, trunc_v2

import n2uq_hw as n2
from n2uq_hw import ir, model
from n2uq_hw.importers.onnx import Format, Imported, Samples, check, import_onnx

RNG = np.random.default_rng(0)
W = RNG.integers(-3, 4, (6, 4, 3, 3)).astype(np.float32)      # of a convolution
M = RNG.integers(-3, 4, (20, 5)).astype(np.float32)           # of a matrix product
C = RNG.uniform(0.5, 2, (1, 4, 1, 1)).astype(np.float32)      # per channel
Runtime = Callable[..., np.ndarray]
IMAGE, ROW, VECTOR = (1, 4, 6, 8), (1, 4, 9), (1, 20)


def imported(net: Net, output: str, tmp_path: Path, form: Format | None = None) -> Imported:
    return import_onnx(net.save(output, tmp_path / "net.onnx"), form or Format(bits=4, signed=True))


def agrees(net: Net, output: str, tmp_path: Path, runtime: Runtime = by_onnxruntime,
           form: Format | None = None, inputs: np.ndarray | None = None) -> Imported:
    """The net's float formula equals another runtime's result, for integers -8..7."""
    loaded = imported(net, output, tmp_path, form)
    if inputs is None:
        inputs = np.random.default_rng(1).integers(-8, 8, (5, *net.shape[1:])).astype(np.float32)
    theirs = runtime(net.model(output), inputs).astype(np.float64)
    ours = loaded.net.forward(loaded.prepare(inputs))
    assert ours.size == theirs.size and np.ptp(theirs) > 0
    if loaded.order is not None:
        theirs = theirs.reshape(len(theirs), -1)[:, loaded.order]
    np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, rtol=2e-5,
                               atol=2e-6 * np.abs(theirs).max())
    return loaded


# Each of them: the shape of the input, and what the graph does to x.
GRAPHS: dict[str, tuple[tuple[int, ...], Callable[[Net], str]]] = {
    "conv": (IMAGE, lambda n: n.op("Conv", "x", W, np.arange(6.0), pads=[1, 0, 2, 1],
                                   strides=[2, 1], dilations=[1, 2])),
    "conv same upper": (IMAGE, lambda n: n.op("Conv", "x", W, auto_pad="SAME_UPPER",
                                              strides=[2, 3])),
    "conv same lower": (IMAGE, lambda n: n.op("Conv", "x", W, auto_pad="SAME_LOWER",
                                              strides=[1, 2])),
    "conv of groups": (IMAGE, lambda n: n.op("Conv", "x", W[:, :2], group=2)),
    "depthwise conv": (IMAGE, lambda n: n.op("Conv", "x", W[:4, :1], group=4, pads=[1] * 4)),
    "conv 1-D": (ROW, lambda n: n.op("Conv", "x", W[..., 0], strides=[2], pads=[1, 2])),
    "conv of a row as a column": (ROW, lambda n: n.op("Conv", n.op(
        "Unsqueeze", "x", n.const([3], np.int64)), W[..., :1], pads=[1, 0, 1, 0])),
    "pad before a conv": (IMAGE, lambda n: n.op("Conv", n.op(
        "Pad", "x", n.const([0, 0, 1, 2, 0, 0, 0, 1], np.int64)), W)),
    "pad with a value": (IMAGE, lambda n: n.op("Conv", n.op(
        "Pad", n.op("Mul", "x", 0.5), n.const([0, 0, 1, 2, 0, 0, 0, 1], np.int64),
        np.float32(-1.5)), W, np.arange(6.0), strides=[1, 2])),
    "pad with a value per channel": (IMAGE, lambda n: n.op("Conv", n.op("Add", n.op(
        "Pad", n.op("Sub", "x", C * 3), n.const([0, 0, 1, 1] * 2, np.int64)), C * 3), W[:, :2],
        group=2)),
    "functions behind a pad": (IMAGE, lambda n: n.op("Conv", n.op("Clip", n.op("Add", n.op(
        "Mul", n.op("Pad", "x", n.const([0, 0, 1, 1] * 2, np.int64)), C), 1.0), np.float32(0.5),
        np.float32(4)), W)),
    "pad with channels last": (IMAGE, lambda n: n.op("Conv", n.op("Transpose", n.op("Pad", n.op(
        "Transpose", "x", perm=[0, 2, 3, 1]), n.const([0, 1, 2, 0, 0, 0, 1, 0], np.int64)),
        perm=[0, 3, 1, 2]), W)),
    "pad before an average pool": (IMAGE, lambda n: n.op("AveragePool", n.op(
        "Pad", "x", n.const([0, 0, 1, 1] * 2, np.int64)), kernel_shape=[3, 3], strides=[1, 2])),
    "relu and pad before a max pool": (IMAGE, lambda n: n.op("MaxPool", n.op("Pad", n.op(
        "Relu", "x"), n.const([0, 0, 1, 1] * 2, np.int64)), kernel_shape=[3, 3], strides=[2, 2])),
    "channels last": (IMAGE, lambda n: n.op("Transpose", n.op("Conv", n.op(
        "Transpose", n.op("Transpose", "x", perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2]), W),
        perm=[0, 3, 1, 2])),
    "height and width swapped": (IMAGE, lambda n: n.op("Transpose", n.op("Conv", n.op(
        "Transpose", "x", perm=[0, 1, 3, 2]), W, strides=[1, 2], pads=[0, 1, 0, 0]),
        perm=[0, 1, 3, 2])),
    "matmul": (VECTOR, lambda n: n.op("MatMul", "x", M)),
    "matmul of pixels": (IMAGE, lambda n: n.op("Transpose", n.op("MatMul", n.op(
        "Transpose", "x", perm=[0, 2, 3, 1]), M[:4]), perm=[0, 3, 1, 2])),
    "gemm": (VECTOR, lambda n: n.op("Gemm", "x", M, np.arange(5.0), alpha=0.5, beta=2.0)),
    "gemm of a transposed matrix": (VECTOR, lambda n: n.op("Gemm", "x", M.T.copy(), transB=1)),
    "flatten": ((1, 5, 2, 2), lambda n: n.op("MatMul", n.op("Flatten", "x"), M)),
    "flatten channels last": ((1, 5, 2, 2), lambda n: n.op("MatMul", n.op(
        "Reshape", n.op("Transpose", "x", perm=[0, 2, 3, 1]), n.const([1, -1], np.int64)), M)),
    "flatten any order, bias per element": ((1, 5, 2, 2), lambda n: n.op("MatMul", n.op(
        "Add", n.op("Reshape", n.op("Transpose", "x", perm=[0, 3, 1, 2]),
                    n.const([1, 20], np.int64)), np.arange(20.0)), M)),
    "shapes that are computed": ((1, 5, 2, 2), lambda n: n.op("MatMul", n.op(
        "Reshape", "x", n.op("Concat", n.op("Unsqueeze", n.op(
            "Gather", n.op("Shape", "x"), n.const(0, np.int64), axis=0), n.const([0], np.int64)),
            n.const([-1], np.int64), axis=0)), M)),
    "squeeze and unsqueeze": (VECTOR, lambda n: n.op("Squeeze", n.op("Mul", n.op(
        "Unsqueeze", n.op("MatMul", "x", M), n.const([2], np.int64)),
        np.arange(1.0, 6).reshape(5, 1)), n.const([2], np.int64))),
    "batch normalization": (IMAGE, lambda n: n.op(
        "BatchNormalization", "x", C.reshape(-1), -C.reshape(-1), np.arange(4.0),
        C.reshape(-1) * 3, epsilon=1e-3)),
    "constants on both sides": (IMAGE, lambda n: n.op("Div", n.op("Sub", 3.0, n.op(
        "Mul", C, n.op("Add", "x", C))), C[0])),
    "division by an activation": (IMAGE, lambda n: n.op("Div", 3.0, n.op("Exp", n.op(
        "Mul", "x", 0.1)))),
    "division of whole numbers": (IMAGE, lambda n: n.op("Cast", n.op("Div", n.op(
        "Mul", n.op("Cast", "x", to=TensorProto.INT64), n.const(3, np.int64)),
        n.const(4, np.int64)), to=1)),
    "shift": (IMAGE, lambda n: n.op("Cast", n.op("BitShift", n.op("Cast", n.op(
        "Abs", n.op("Round", n.op("Mul", "x", 3.0))), to=TensorProto.UINT64), n.const(
            np.array(2, np.uint64)), direction="RIGHT"), to=1)),
    "pow": (IMAGE, lambda n: n.op("Pow", "x", 3.0)),
    "min and max": (IMAGE, lambda n: n.op("Max", n.op("Min", "x", 3.5), -2.5)),
    "clip": (IMAGE, lambda n: n.op("Clip", "x", np.float32(-2.5), np.float32(3))),
    "clip on one side": (IMAGE, lambda n: n.op("Clip", "x", "", np.float32(3))),
    "floor, then clip": (IMAGE, lambda n: n.op("Clip", n.op("Floor", n.op("Mul", "x", 0.3)),
                                               np.float32(-1), np.float32(1))),
    "round, then relu": (IMAGE, lambda n: n.op("Relu", n.op("Round", n.op("Mul", "x", 0.5)))),
    "ceil and sign": (IMAGE, lambda n: n.op("Add", n.op("Ceil", n.op("Mul", "x", 0.3)),
                                            n.op("Sign", "x"))),
    "sum of branches": (IMAGE, lambda n: n.op("Add", n.op("Conv", "x", W, pads=[1] * 4),
                                              n.op("Conv", "x", W[..., :1, :1] * 2))),
    "difference of branches": (IMAGE, lambda n: n.op("Sub", n.op("Relu", "x"),
                                                     n.op("Mul", "x", C))),
    "square": (IMAGE, lambda n: n.op("Mul", "x", "x")),
    "silu in two nodes": (IMAGE, lambda n: n.op("Mul", "x", n.op("Sigmoid", "x"))),
    "sums of vector and image": ((1, 5, 1, 1), lambda n: n.op("Add", n.op("Flatten", "x"), n.op(
        "MatMul", n.op("Flatten", "x"), M[:5]))),
    "max pool": (IMAGE, lambda n: n.op("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 1],
                                       pads=[1, 0, 0, 1])),
    "max pool with ceil_mode": (IMAGE, lambda n: n.op("MaxPool", "x", kernel_shape=[3, 3],
                                                      strides=[2, 2], ceil_mode=1)),
    "max pool behind a Pad with 0": (IMAGE, lambda n: n.op("MaxPool", n.op(
        "Pad", "x", n.const([0, 0, 2, 1, 0, 0, 0, 2], np.int64)), kernel_shape=[2, 2])),
    "max pool behind a Pad with any value": (IMAGE, lambda n: n.op("MaxPool", n.op(
        "Pad", n.op("Mul", n.op("Round", "x"), -0.5), n.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        1.5), kernel_shape=[3, 3], strides=[2, 1])),
    "max pool behind a Pad with -inf": (IMAGE, lambda n: n.op("MaxPool", n.op(
        "Pad", "x", n.const([0, 0, 1, 0, 0, 0, 0, 1], np.int64), -np.inf), kernel_shape=[3, 3],
        pads=[0, 1, 1, 0])),
    "max pool 1-D": (ROW, lambda n: n.op("MaxPool", "x", kernel_shape=[2], strides=[2])),
    "average pool": (IMAGE, lambda n: n.op("AveragePool", "x", kernel_shape=[3, 2], strides=[2, 1],
                                           pads=[1, 0, 0, 1])),
    "average pool that counts pads": (IMAGE, lambda n: n.op(
        "AveragePool", "x", kernel_shape=[3, 2], pads=[1, 0, 1, 1], count_include_pad=1)),
    "average pool with ceil_mode that counts pads": (IMAGE, lambda n: n.op(
        "AveragePool", n.op("Relu", "x"), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4,
        ceil_mode=1, count_include_pad=1)),
    "average pool 1-D with ceil_mode that counts pads": (ROW, lambda n: n.op(
        "AveragePool", "x", kernel_shape=[3], strides=[2], pads=[2, 1], ceil_mode=1,
        count_include_pad=1)),
    "global average pool": (IMAGE, lambda n: n.op("GlobalAveragePool", "x")),
    "global max pool": (IMAGE, lambda n: n.op("GlobalMaxPool", "x")),
    "mean over pixels": (IMAGE, lambda n: n.op("ReduceMean", "x", n.const([-1, 2], np.int64),
                                               keepdims=0)),
    "sum over pixels": (ROW, lambda n: n.op("ReduceSum", "x", n.const([2], np.int64))),
    "max over pixels": (IMAGE, lambda n: n.op("ReduceMax", "x", n.const([2, 3], np.int64))),
    "sum over axes of one": (IMAGE, lambda n: n.op("ReduceSum", n.op("ReduceMean", n.op(
        "Unsqueeze", n.op("Mul", "x", 3.0), n.const([1, 4], np.int64)), n.const([1], np.int64),
        keepdims=0), n.const([3], np.int64), keepdims=0)),
    "concat": (IMAGE, lambda n: n.op("Concat", "x", n.op("Conv", "x", W, pads=[1] * 4),
                                     n.op("Mul", "x", 2.0), axis=1)),
    "concat of vectors": (VECTOR, lambda n: n.op("Concat", "x", n.op("MatMul", "x", M), axis=1)),
    "split": (IMAGE, lambda n: n.op("Concat", *n.op(
        "Split", "x", n.const([1, 3], np.int64), axis=1, outputs=2)[::-1], axis=1)),
    "slice": (IMAGE, lambda n: n.op("Slice", "x", n.const([3], np.int64), n.const([0], np.int64),
                                    n.const([1], np.int64), n.const([-2], np.int64))),
    "gather": (IMAGE, lambda n: n.op("Gather", "x", n.const([2, 0, 2], np.int64), axis=1)),
    "channel shuffle": (IMAGE, lambda n: n.op("Conv", n.op("Reshape", n.op("Transpose", n.op(
        "Reshape", "x", n.const([1, 2, 2, 6, 8], np.int64)), perm=[0, 2, 1, 3, 4]),
        n.const([1, 4, 6, 8], np.int64)), W[:, :2], group=2)),
    "depth to space": (IMAGE, lambda n: n.op("DepthToSpace", "x", blocksize=2)),
    "depth to space CRD": (IMAGE, lambda n: n.op("DepthToSpace", "x", blocksize=2, mode="CRD")),
    "pixel shuffle by reshapes": ((1, 8, 3, 4), lambda n: n.op("Conv", n.op("Reshape", n.op(
        "Transpose", n.op("Reshape", "x", n.const([1, 2, 2, 2, 3, 4], np.int64)),
        perm=[0, 1, 4, 2, 5, 3]), n.const([1, 2, 6, 8], np.int64)), W[:, :2])),
    "pixel shuffle of rows": ((1, 12, 3, 4), lambda n: n.op("Conv", n.op("Reshape", n.op(
        "Transpose", n.op("Reshape", "x", n.const([1, 2, 3, 2, 3, 4], np.int64)),
        perm=[0, 1, 4, 2, 5, 3]), n.const([1, 2, 9, 8], np.int64)), W[:, :2])),
    "pixel shuffle 1-D": (ROW, lambda n: n.op("MaxPool", n.op("Reshape", n.op(
        "Transpose", n.op("Reshape", "x", n.const([1, 2, 2, ROW[2]], np.int64)),
        perm=[0, 1, 3, 2]), n.const([1, 2, 2 * ROW[2]], np.int64)), kernel_shape=[3])),
    "a vector as an image": (VECTOR, lambda n: n.op("MaxPool", n.op(
        "Reshape", "x", n.const([1, 2, 2, 5], np.int64)), kernel_shape=[2, 3])),
    "a vector as a sequence": (VECTOR, lambda n: n.op("MaxPool", n.op(
        "Reshape", "x", n.const([1, 4, 5], np.int64)), kernel_shape=[3])),
    "transposed conv": (IMAGE, lambda n: n.op(
        "ConvTranspose", "x", W.reshape(4, 6, 3, 3), np.arange(6.0), strides=[2, 2],
        pads=[1, 1, 1, 1], output_padding=[1, 1])),
    "transposed conv of blocks": (IMAGE, lambda n: n.op("ConvTranspose", "x", np.ascontiguousarray(
        W.reshape(4, 6, 3, 3)[:, :, :2, :2]), strides=[2, 2])),
    "transposed conv in groups": (IMAGE, lambda n: n.op(
        "ConvTranspose", "x", np.ascontiguousarray(W.reshape(4, 6, 3, 3)[:, :, :1]), group=2,
        strides=[1, 3], pads=[0, 0, 0, 0])),
    "transposed conv of stride 1": (IMAGE, lambda n: n.op(
        "ConvTranspose", "x", W.reshape(4, 6, 3, 3), dilations=[1, 2], pads=[2, 1, 0, 3])),
    "transposed conv with dilation": (IMAGE, lambda n: n.op(
        "ConvTranspose", "x", W.reshape(4, 6, 3, 3), dilations=[3, 2], strides=[2, 3],
        output_padding=[1, 1])),
    "transposed conv 1-D": (ROW, lambda n: n.op("ConvTranspose", "x", np.ascontiguousarray(
        W.reshape(4, 3, 6, 3)[..., :2]).reshape(4, 9, 4), strides=[2], pads=[1, 1])),
    "transposed conv of an odd size": (IMAGE, lambda n: n.op(
        "ConvTranspose", "x", W.reshape(4, 6, 3, 3), np.arange(6.0), strides=[2, 2],
        pads=[1, 1, 1, 0])),
    "transposed conv that is cut": (IMAGE, lambda n: n.op(
        "ConvTranspose", "x", np.ascontiguousarray(W.reshape(4, 6, 3, 3)[:, :, :1]),
        strides=[3, 2], pads=[4, 3, 5, 0], output_padding=[2, 0])),
    "transposed conv 1-D that is cut": (ROW, lambda n: n.op("ConvTranspose", "x", W.reshape(
        4, 3, 6, 3).reshape(4, 18, 3), strides=[2], pads=[1, 1])),
    "upsample": (IMAGE, lambda n: n.op("Resize", "x", "", np.float32([1, 1, 2, 3]),
                                       mode="nearest")),
    "upsample by sizes": (IMAGE, lambda n: n.op(
        "Resize", "x", "", "", n.const([1, 4, 12, 8], np.int64), mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor")),
    "upsample of one pixel": ((1, 20, 1, 1), lambda n: n.op(
        "Resize", "x", "", np.float32([1, 1, 2, 3]), mode="nearest")),
    "bitwise and": (IMAGE, lambda n: n.op("Cast", n.op("Div", n.op("BitwiseAnd", n.op(
        "Add", n.op("Mul", n.op("Cast", n.op("Round", "x"), to=TensorProto.INT64),
                    n.const(7, np.int64)), n.const(np.arange(4).reshape(1, 4, 1, 1), np.int64)),
        n.const(-8, np.int64)), n.const(8, np.int64)), to=1)),
    "where": (IMAGE, lambda n: n.op("Where", n.op("GreaterOrEqual", "x", 1.0), np.float32(2),
                                    np.float32(-1))),
    "comparison": (IMAGE, lambda n: n.op("Cast", n.op("Less", "x", C), to=1)),
    "comparison, strictly": (IMAGE, lambda n: n.op("Cast", n.op("Greater", 2.0, "x"), to=1)),
    "constant node": (VECTOR, lambda n: n.op("Mul", "x", n.op("Constant",
                                                              value_floats=[1.0, -2] * 10))),
    "weights in a subgraph of constants": (VECTOR, lambda n: n.op("MatMul", "x", n.op(
        "Transpose", n.op("Reshape", n.op("Mul", n.op("Floor", np.linspace(-3, 3, 40)), 0.25),
                          n.const([2, 20], np.int64)), perm=[1, 0]))),
}
ACTIVATIONS: dict[str, dict[str, Any]] = {
    "Relu": {}, "LeakyRelu": {"alpha": 0.3}, "Elu": {"alpha": 0.7}, "Selu": {}, "Celu": {
        "alpha": 2.0}, "HardSigmoid": {"alpha": 0.15}, "HardSwish": {}, "Softplus": {},
    "Softsign": {}, "Tanh": {}, "Sigmoid": {}, "Exp": {}, "Neg": {}, "Abs": {}, "Erf": {},
    "Floor": {}, "Ceil": {}, "Round": {}, "Sign": {}, "Gelu": {}, "Identity": {}}


@pytest.mark.parametrize("name", GRAPHS)
def test_operators_by_onnxruntime(name: str, tmp_path: Path) -> None:
    shape, build = GRAPHS[name]
    net = Net(*shape)
    agrees(net, build(net), tmp_path)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_by_onnxruntime(name: str, tmp_path: Path) -> None:
    net = Net(*IMAGE)
    agrees(net, net.op("Mul", net.op(name, net.op("Mul", "x", 0.3), **ACTIVATIONS[name]), 2.0),
           tmp_path)


def test_prelu_and_square_roots(tmp_path: Path) -> None:
    net = Net(*IMAGE)
    y = net.op("PRelu", "x", np.float32([[[0.1]], [[-0.5]], [[2]], [[0]]]))
    agrees(net, net.op("Sqrt", net.op("Add", net.op("Abs", y), 1.0)), tmp_path)
    net = Net(*IMAGE)
    agrees(net, net.op("Reciprocal", net.op("Add", net.op("Abs", "x"), 1.0)), tmp_path)


# --- QONNX ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP",
                                  "HALF_DOWN", "floor"])
def test_roundings_by_qonnx(mode: str, tmp_path: Path) -> None:
    net = Net(*IMAGE)
    agrees(net, net.quant(net.op("Mul", "x", 0.5), 1.0, 3, mode=mode), tmp_path, by_qonnx)


@pytest.mark.parametrize("signed,narrow,bits,zero", [
    (1, 0, 4, 0), (1, 1, 4, 0), (0, 0, 3, 0), (0, 1, 3, 0), (0, 0, 4, 5), (1, 1, 2, 0),
    (0, 0, 1, 0), (1, 0, 1, 0), (1, 0, 3, -2)])
def test_quantizers_by_qonnx(signed: int, narrow: int, bits: int, zero: int, tmp_path: Path
                             ) -> None:
    net = Net(*IMAGE)
    weights = net.quant(np.linspace(-1.3, 1.4, 216, dtype=np.float32).reshape(W.shape), 0.25, bits,
                        zero, signed=signed, narrow=narrow)
    x = net.quant(net.op("Mul", "x", 0.37), 0.25, bits, zero, signed=signed, narrow=narrow)
    loaded = agrees(net, net.op("Conv", x, weights, pads=[1, 1, 1, 1]), tmp_path, by_qonnx)
    kinds = [type(layer) for layer in loaded.net.layers]
    assert kinds == [model.Pointwise, model.Steps if bits == signed == 1 else model.Quant,
                     model.IntConv]


def test_scales_per_channel_by_qonnx(tmp_path: Path) -> None:
    net = Net(*IMAGE)
    weights = net.quant(np.linspace(-1.3, 1.4, 216, dtype=np.float32).reshape(W.shape),
                        np.linspace(0.1, 0.3, 6).reshape(6, 1, 1, 1), 3)
    x = net.quant("x", C, 3, np.float32([[[[1]], [[0]], [[2]], [[0]]]]), signed=0)
    loaded = agrees(net, net.op("Conv", x, weights), tmp_path, by_qonnx)
    assert np.allclose(loaded.net.params["Conv_2.scale"], np.linspace(0.1, 0.3, 6))


def test_bipolar_by_qonnx(tmp_path: Path) -> None:
    net = Net(*VECTOR)
    weights = net.op("BipolarQuant", M - 0.5, np.float32(0.5), domain=QONNX)
    x = net.op("BipolarQuant", "x", np.float32(2), domain=QONNX)
    agrees(net, net.op("MatMul", x, weights), tmp_path, by_qonnx)


@pytest.mark.parametrize("rank", [2, 4])
def test_multi_threshold_by_qonnx(rank: int, tmp_path: Path) -> None:
    net = Net(*(VECTOR if rank == 2 else IMAGE))
    channels = net.shape[1]
    rows = np.sort(RNG.integers(-9, 9, (channels, 3)), axis=1).astype(np.float32)
    y = net.op("MultiThreshold", "x", rows, domain="finn.custom_op.general", out_dtype="INT4",
               out_scale=0.5, out_bias=-1.0)
    agrees(net, y, tmp_path, by_qonnx)


def test_multi_threshold_channels_last(tmp_path: Path) -> None:
    net = Net(1, 5, 3, 4)
    rows = np.sort(RNG.integers(-9, 9, (4, 3)), axis=1).astype(np.float32)
    y = net.op("MultiThreshold", "x", rows, domain=QONNX, out_dtype="UINT2", data_layout="NHWC")
    y = net.op("MatMul", net.op("Reshape", y, net.const([1, -1], np.int64)),
               np.arange(120.0).reshape(60, 2))
    agrees(net, y, tmp_path, by_qonnx)


def test_operators_with_channels_last(tmp_path: Path) -> None:
    net = Net(1, 6, 8, 4)
    domain = "qonnx.custom_op.channels_last"
    y = net.op("Conv", "x", W.transpose(0, 2, 3, 1).copy(), domain=domain, kernel_shape=[3, 3],
               strides=[1, 1], dilations=[1, 1], pads=[1, 0, 0, 1], group=1)
    y = net.op("BatchNormalization", y, *(np.arange(1.0, 7) * k for k in (1, -1, 3, 2)),
               domain=domain, epsilon=1e-5)
    y = net.op("MaxPool", y, domain=domain, kernel_shape=[2, 2], strides=[2, 2], pads=[0] * 4)
    y = net.op("MaxPoolNHWC", y, domain=QONNX, kernel_shape=[2, 1], strides=[1, 1], pads=[0] * 4)
    y = net.op("MatMul", net.op("Reshape", y, net.const([1, -1], np.int64)),
               RNG.integers(-3, 4, (18, 5)).astype(np.float32))
    first = Net(1, 4, 6, 8)
    z = first.op("Conv", "x", W, pads=[1, 0, 0, 1])
    z = first.op("BatchNormalization", z, *(np.arange(1.0, 7) * k for k in (1, -1, 3, 2)))
    z = first.op("MaxPool", z, kernel_shape=[2, 2], strides=[2, 2])
    z = first.op("MaxPool", z, kernel_shape=[2, 1])
    z = first.op("Reshape", first.op("Transpose", z, perm=[0, 2, 3, 1]),
                 first.const([1, -1], np.int64))
    z = first.op("MatMul", z, next(onnx.numpy_helper.to_array(each) for each in net.constants[::-1]
                                   if each.dims == [18, 5]))
    agrees(net, y, tmp_path, lambda _, inputs: by_onnxruntime(
        first.model(z), inputs.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("bits", [2, 8])
def test_finns_average_pool(bits: int, tmp_path: Path) -> None:
    net = Net(*IMAGE)
    y = net.op("QuantAvgPool2d", "x", domain=QONNX, kernel=2, stride=2, ibits=4, obits=bits,
               signed=1)
    loaded = imported(net, y, tmp_path)
    x = np.random.default_rng(1).integers(-8, 8, (5, *IMAGE[1:]))
    sums = x.reshape(5, 4, 3, 2, 4, 2).sum(axis=(3, 5))
    expected = sums >> max(6 - bits, 0)  # 15 · 4 has 6 bits
    assert (loaded.net.forward(x).reshape(expected.shape) == expected).all()


@pytest.mark.parametrize("mode", ["FLOOR", "ROUND", "CEIL"])
def test_trunc_of_both_versions(mode: str, tmp_path: Path) -> None:
    """By qonnx's own functions."""
    x = np.random.default_rng(1).integers(0, 8, (5, *IMAGE[1:])).astype(np.float32)
    codes = x.reshape(5, 4, 3, 2, 4, 2).mean(axis=(3, 5))
    for version, expected in (
            (1, trunc_v1(codes * 0.3, 0.075, 0.0, 5, 3, mode)),
            (2, trunc_v2(codes * 0.3, 0.075, 0.0, 5, 0, 0, 0.3, np.float64(2), mode))):
        net = Net(*IMAGE)
        y = net.op("AveragePool", net.op("Mul", "x", 0.3), kernel_shape=[2, 2], strides=[2, 2])
        last = (3.0,) if version == 1 else (0.3, 2.0)
        signed = {} if version == 1 else {"signed": 0}
        y = net.op("Trunc", y, np.float32(0.075), np.float32(0), np.float32(5),
                   *(np.float32(each) for each in last), domain=QONNX, rounding_mode=mode, **signed)
        loaded = imported(net, y, tmp_path, Format(bits=3))
        ours = loaded.net.forward(loaded.prepare(x))
        np.testing.assert_allclose(ours.reshape(expected.shape), expected, rtol=1e-6)


@pytest.mark.parametrize("domain", ["", "onnx.brevitas", "qonnx.custom_op.general",
                                    "finn.custom_op.general"])
def test_domains_of_every_age(domain: str, tmp_path: Path) -> None:
    net = Net(*VECTOR)
    y = net.op("Quant", "x", np.float32(2), np.float32(0), np.float32(3), domain=domain, signed=1,
               narrow=0)
    assert type(imported(net, y, tmp_path).net.layers[0]) is model.Quant


@pytest.mark.parametrize("zero", [0.0, 3.0])
def test_quantizers_that_are_written_out(zero: float, tmp_path: Path) -> None:
    """x/s, + z, round, clip, - z, ·s: of activations and of weights."""
    def fake(net: Net, x: Any, scale: Any, low: int, high: int) -> str:
        x = net.op("Div", x, np.float32(scale))
        x = net.op("Add", x, zero) if zero else x
        x = net.op("Clip", net.op("Round", x), np.float32(low), np.float32(high))
        x = net.op("Sub", x, zero) if zero else x
        return net.op("Mul", x, np.float32(scale))

    net = Net(*IMAGE)
    scales = np.linspace(0.1, 0.3, 6).reshape(6, 1, 1, 1)
    weights = fake(net, np.linspace(-1.3, 1.4, 216).reshape(W.shape), scales, -4, 7)
    y = net.op("Conv", fake(net, net.op("Tanh", "x"), 0.3, -1, 6), weights, pads=[1] * 4)
    loaded = agrees(net, y, tmp_path)
    assert [type(layer) for layer in loaded.net.layers] == [
        model.Pointwise, model.Quant, model.IntConv]
    assert loaded.net.params[f"{loaded.net.layers[1].name}.zero_point"] == [zero]
    assert np.allclose(loaded.net.params[f"Conv_{len(net.nodes) - 1}.scale"], scales.reshape(-1))


def test_lowered_convolutions_of_finn(tmp_path: Path) -> None:
    net = Net(*IMAGE)
    dense = np.zeros((4, 4, 3, 3), np.float32)
    dense[np.arange(4), np.arange(4)] = W[:4, 0]
    y = net.op("Transpose", "x", perm=[0, 2, 3, 1])
    for weights, pads in ((dense, [1, 0, 1, 2]), (W, [0, 0, 0, 0])):
        y = net.op("Im2Col", y, domain=QONNX, kernel_size=[3, 3], stride=[1, 2], pad_amount=pads,
                   input_shape="", depthwise=0)
        y = net.op("MatMul", y, weights.transpose(0, 2, 3, 1).reshape(len(weights), -1).T.copy())
    y = net.op("Transpose", y, perm=[0, 3, 1, 2])
    plain = Net(*IMAGE)
    z = plain.op("Conv", "x", dense, strides=[1, 2], pads=[1, 0, 1, 2])
    z = plain.op("Conv", z, W, strides=[1, 2])
    loaded = agrees(net, y, tmp_path, lambda _, inputs: by_onnxruntime(plain.model(z), inputs))
    assert [layer.groups for layer in loaded.net.layers] == [4, 1]


def test_requant_shift_is_its_formula(tmp_path: Path) -> None:
    net = Net(*IMAGE)
    mul, add = np.float32([[[3]], [[-2]], [[5]], [[1]]]), np.float32([[[1]], [[2]], [[0]], [[-9]]])
    y = net.op("RequantShift", "x", mul, add)
    for name, value in (("div", 8.0), ("n_levels_out", 8.0), ("signed", 1.0)):
        net.nodes[-1].attribute.append(helper.make_attribute(
            name, numpy_helper.from_array(np.array(value, np.float32))))
    loaded = imported(net, y, tmp_path)
    x = np.random.default_rng(1).integers(-8, 8, (5, *IMAGE[1:]))
    expected = np.clip(np.floor((x * mul + add) / 8 + 0.5), -4, 3)
    assert (loaded.net.forward(x).reshape(x.shape) == expected).all()


# --- QCDQ, QDQ, QOperator -------------------------------------------------------------------------


def qdq(net: Net, x: Any, scale: Any, zero: Any, clip: tuple[int, int] | None = None,
        **attributes: Any) -> str:
    x = net.op("QuantizeLinear", x, np.float32(scale), zero, **attributes)
    if clip is not None:
        x = net.op("Clip", x, zero.dtype.type(clip[0]), zero.dtype.type(clip[1]))
    return net.op("DequantizeLinear", x, np.float32(scale), zero, **attributes)


def test_qcdq_and_qdq(tmp_path: Path) -> None:
    net = Net(*IMAGE, opset=17)
    weights = qdq(net, W / 3, np.linspace(0.2, 0.4, 6), np.zeros(6, np.int8), (-3, 3), axis=0)
    x = qdq(net, "x", 0.7, np.uint8(3), (0, 7))
    y = qdq(net, net.op("Relu", net.op("Conv", x, weights, np.arange(6.0), pads=[1] * 4)), 0.5,
            np.int8(-128))
    y = qdq(net, net.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), 0.5, np.int8(-128))
    loaded = agrees(net, y, tmp_path)
    assert [type(layer).__name__ for layer in loaded.net.layers] == [
        "Quant", "IntConv", "Pointwise", "Pointwise", "Quant", "MaxPool"]
    assert (loaded.net.layers[0].lo, loaded.net.layers[0].hi) == (0, 7)


def qoperators(net: Net) -> str:
    """A convolution, a sum, pools, a concatenation and a matrix product on codes."""
    w8, zero8 = W.astype(np.int8), np.zeros(6, np.int8)
    x = net.op("QuantizeLinear", "x", np.float32(0.5), np.uint8(16))
    scales = np.linspace(0.02, 0.05, 6, dtype=np.float32)
    y = net.op("QLinearConv", x, np.float32(0.5), np.uint8(16), w8, scales, zero8, np.float32(0.03),
               np.uint8(100), np.arange(6, dtype=np.int32) * 30, pads=[1] * 4)
    z = net.op("QLinearConv", x, np.float32(0.5), np.uint8(16), w8[::-1].copy(), scales, zero8,
               np.float32(0.04), np.uint8(90), pads=[1] * 4)
    y = net.op("QLinearAdd", y, np.float32(0.03), np.uint8(100), z, np.float32(0.04), np.uint8(90),
               np.float32(0.05), np.uint8(120), domain="com.microsoft")
    y = net.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("QLinearLeakyRelu", y, np.float32(0.05), np.uint8(120), np.float32(0.04),
               np.uint8(20), domain="com.microsoft", alpha=0.1)
    y = net.op("QLinearGlobalAveragePool", y, np.float32(0.04), np.uint8(20), np.float32(0.02),
               np.uint8(10), domain="com.microsoft", channels_last=0)
    y = net.op("Flatten", y)
    y = net.op("QLinearMatMul", y, np.float32(0.02), np.uint8(10), M[:6].astype(np.int8),
               np.float32(0.1), np.int8(0), np.float32(0.05), np.uint8(128))
    y = net.op("QGemm", y, np.float32(0.05), np.uint8(128), M[:5].astype(np.int8), np.float32(0.1),
               np.int8(0), np.arange(5, dtype=np.int32), np.float32(0.06), np.uint8(99),
               domain="com.microsoft", alpha=1.0)
    return net.op("DequantizeLinear", y, np.float32(0.06), np.uint8(99))


def test_qoperators_to_the_bit(tmp_path: Path) -> None:
    net = Net(*IMAGE, opset=17)
    y = qoperators(net)
    inputs = np.random.default_rng(1).integers(-16, 240, (40, *IMAGE[1:])).astype(np.float32) / 2
    loaded = imported(net, y, tmp_path, Format())
    theirs = by_onnxruntime(net.model(y), inputs)
    ours = loaded.net.forward(loaded.prepare(inputs))
    assert np.abs(ours.astype(np.float32) - theirs).max() < 1e-6 and np.ptp(theirs) > 1


def test_every_pair_of_a_sum_of_codes_by_onnxruntime(tmp_path: Path) -> None:
    net = Net(1, 2, 256, 256, opset=17)
    x = net.op("QuantizeLinear", "x", np.float32(1), np.uint8(0))
    a, b = net.op("Split", x, axis=1, outputs=2)
    y = net.op("QLinearAdd", a, np.float32(0.0307), np.uint8(100), b, np.float32(0.0411),
               np.uint8(90), np.float32(0.0553), np.uint8(120), domain="com.microsoft")
    y = net.op("DequantizeLinear", y, np.float32(1), np.uint8(0))
    codes = np.mgrid[:256, :256].astype(np.float32)[None]
    loaded = imported(net, y, tmp_path, Format())
    assert (loaded.net.forward(loaded.prepare(codes)).reshape(-1)
            == by_onnxruntime(net.model(y), codes).reshape(-1)).all()


def test_integer_operators(tmp_path: Path) -> None:
    net = Net(*IMAGE, element=TensorProto.UINT8)
    acc = net.op("ConvInteger", "x", W.astype(np.int8), np.uint8(3))
    y = net.op("Mul", net.op("Cast", acc, to=1), 0.01)
    x = np.random.default_rng(1).integers(0, 256, (3, *IMAGE[1:])).astype(np.uint8)
    loaded = agrees(net, y, tmp_path, form=Format(), inputs=x)
    assert loaded.net.input.max == 255 and loaded.net.input.scale == 1


# --- The input, the output, and what is left off --------------------------------------------------


def test_the_quantizer_of_the_input_gives_its_format(tmp_path: Path) -> None:
    net = Net("N", *IMAGE[1:])
    x = net.quant(net.op("Sub", net.op("Mul", "x", 2.0), 1.0), 0.25, 3, narrow=1)
    loaded = agrees(net, net.op("Conv", x, W), tmp_path, by_onnxruntime_of_quant, Format(),
                    np.random.default_rng(1).uniform(0, 1, (3, *IMAGE[1:])).astype(np.float32))
    spec = loaded.net.input
    assert (spec.min, spec.max, spec.scale) == (-3, 3, 0.25)
    assert [layer.name for layer, _ in loaded.host] == ["Mul_0", "Sub_1", "Quant_2"]
    assert "the host computes Mul_0, Sub_1, Quant_2" in loaded.notes[-1]


def by_onnxruntime_of_quant(graph: Any, inputs: np.ndarray) -> np.ndarray:
    x = np.clip(np.rint((inputs * 2 - 1) / 0.25), -3, 3) * 0.25
    net = Net(*IMAGE)
    return by_onnxruntime(net.model(net.op("Conv", "x", W)), x.astype(np.float32))


@pytest.mark.parametrize("ending", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_endings_are_left_off_and_said(ending: str, tmp_path: Path) -> None:
    net = Net(*VECTOR)
    loaded = imported(net, net.op("Identity", net.op(ending, net.op("MatMul", "x", M))), tmp_path)
    assert loaded.ending == ending and type(loaded.net.layers[-1]) is model.IntLinear
    assert any(ending in note for note in loaded.notes)


def _byte(n: Net, value: int) -> str:
    return n.const(np.array(value, np.uint8))


def _quantized(n: Net, x: str) -> str:
    return n.op("QuantizeLinear", x, np.float32(1 / 256), _byte(n, 0))


ENDS: dict[str, Callable[[Net, str], str]] = {
    "quantize, dequantize": lambda n, x: n.op("DequantizeLinear", _quantized(
        n, n.op("Softmax", x)), np.float32(1 / 256), _byte(n, 0)),
    "codes": lambda n, x: n.op("Cast", _quantized(n, n.op("Softmax", x)), to=1),
    "on codes": lambda n, x: n.op("DequantizeLinear", n.op(
        "QLinearSoftmax", n.op("QuantizeLinear", x, np.float32(0.5), _byte(n, 128)),
        np.float32(0.5), _byte(n, 128), np.float32(1 / 256), _byte(n, 0), axis=1, opset=13,
        domain="com.microsoft"), np.float32(1 / 256), _byte(n, 0)),
    "written out": lambda n, x: n.op("Reshape", n.op("Clip", n.op("Round", n.op("Mul", n.op(
        "Softmax", n.op("Unsqueeze", x, n.const([1], np.int64)), axis=-1), 255.0)),
        np.float32(0), np.float32(200)), n.const([1, 5], np.int64)),
    "logarithm": lambda n, x: _quantized(n, n.op("Add", n.op("Mul", n.op(
        "LogSoftmax", x, axis=1), 1 / 16), 1.0)),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_follows_a_softmax_is_left_off_and_checked(name: str, tmp_path: Path) -> None:
    """Golden, with the Softmax and the rest computed behind it, gives the file's outputs."""
    net = Net(*VECTOR, opset=17)
    y = ENDS[name](net, net.op("Mul", net.op("MatMul", "x", M), 0.1373))
    y = net.op("Cast", y, to=1)
    loaded = imported(net, y, tmp_path)
    assert loaded.ending == ("LogSoftmax" if name == "logarithm" else "Softmax")
    assert not {type(layer) for layer in loaded.net.layers[4:]}
    said = [note for note in loaded.notes if "left off" in note]
    assert len(said) >= 2 and said[1].endswith(f"left off with the {loaded.ending} before it")
    inputs = np.random.default_rng(1).integers(-8, 8, (50, 20)).astype(np.float32)
    theirs = by_onnxruntime(net.model(y), inputs).reshape(50, -1)
    result = check(loaded, Samples(tmp_path, inputs, theirs))
    assert result.exact and len(np.unique(theirs)) > 20


def test_what_falls_behind_a_softmax_is_refused(tmp_path: Path) -> None:
    net = Net(*VECTOR)
    y = net.op("Mul", net.op("Softmax", net.op("MatMul", "x", M)), -1.0)
    with pytest.raises(n2.N2uqError, match="Mul_2 must rise, the same for all classes, behind the"):
        imported(net, y, tmp_path)
    net = Net(*VECTOR)
    y = net.op("Mul", net.op("Softmax", net.op("MatMul", "x", M)), np.arange(5.0))
    with pytest.raises(n2.N2uqError, match="Mul_2 must rise, the same for all classes, behind the"):
        imported(net, y, tmp_path)


@pytest.mark.parametrize("kind", ["TopK", "ArgMax"])
def test_the_class_at_the_end(kind: str, tmp_path: Path) -> None:
    net = Net(*VECTOR)
    y = net.op("Softmax", net.op("MatMul", "x", M))
    y = net.op("ArgMax", y, axis=1) if kind == "ArgMax" else net.op(
        "TopK", y, net.const([1], np.int64), outputs=2)[1]
    loaded = imported(net, y, tmp_path)
    assert loaded.net.meta["top1"] is True and loaded.net.layers[-1].name == "MatMul_0"


def test_outputs_keep_the_order_of_the_file(tmp_path: Path) -> None:
    net = Net(*IMAGE)
    y = net.op("Flatten", net.op("Transpose", net.op("Mul", "x", C), perm=[0, 2, 3, 1]))
    loaded = agrees(net, y, tmp_path)
    assert type(loaded.net.layers[-1]) is model.Permute


@pytest.mark.parametrize("shape", [(1, 6, 8, 4), (1, 9, 4)])
def test_inputs_with_channels_last(shape: tuple[int, ...], tmp_path: Path) -> None:
    net = Net(*shape)
    rank = len(shape)
    x = net.op("Transpose", "x", perm=[0, rank - 1, *range(1, rank - 1)])
    loaded = agrees(net, net.op("Conv", x, W if rank == 4 else W[..., 0]), tmp_path)
    assert loaded.net.input.shape[0] == 4


def test_a_fixed_batch(tmp_path: Path) -> None:
    net = Net(3, *IMAGE[1:])
    y = net.op("MatMul", net.op("Reshape", net.op("Conv", "x", W), n := net.const(
        [3, 144], np.int64)), np.arange(288.0).reshape(144, 2))
    assert n and type(imported(net, y, tmp_path).net.layers[-1]) is model.IntLinear


# --- Written-out thresholds, and our own files ----------------------------------------------------


@pytest.mark.parametrize("signs", [None, [1, -1, 1]])
def test_comparisons_that_are_summed(signs: list[int] | None, tmp_path: Path) -> None:
    net = Net(*IMAGE)
    rows = np.sort(RNG.integers(-9, 9, (1, 4, 3, 1, 1)), axis=2).astype(np.float32)
    y = net.op("Cast", net.op("GreaterOrEqual", net.op("Unsqueeze", "x", net.const([2], np.int64)),
                              rows), to=1)
    if signs is not None:
        y = net.op("Mul", y, np.float32(signs).reshape(1, 1, 3, 1, 1))
    loaded = agrees(net, net.op("ReduceSum", y, net.const([2], np.int64), keepdims=0), tmp_path)
    steps = [layer for layer in loaded.net.layers if isinstance(layer, model.Steps)]
    assert sum(layer.steps for layer in steps) == 3


def test_sums_over_pixels_are_exact(tmp_path: Path) -> None:
    """49·(k/49) is less than k for some k in floats: a sum is no average times its pixels."""
    reached = np.array([k for k in range(1, 300) if k / 49 * 49 < k][:4], np.float32)
    assert len(reached) == 4
    net = Net(1, 4, 7, 7)
    y = net.op("Cast", net.op("GreaterOrEqual", net.op(
        "ReduceSum", "x", net.const([2, 3], np.int64), keepdims=0), reached), to=1)
    images = np.zeros((8, 4, 49))
    for channel, k in enumerate(reached.astype(int)):
        images[:4, channel, :k // 7], images[:4, channel, 48] = 7, k % 7
        images[4:, channel, :k // 7], images[4:, channel, 48] = 7, k % 7 - 1
    images = images.reshape(8, 4, 7, 7)
    loaded = agrees(net, y, tmp_path, inputs=images.astype(np.float32))
    graph = n2.lower(loaded.net)
    assert [type(node) for node in graph.nodes] == [ir.Input, ir.Flatten, ir.SumPool, ir.Threshold]
    want = np.repeat([1, 0], 4)[:, None] + np.zeros(4)
    assert (graph.forward(images.astype(np.int64)).reshape(8, 4) * graph.scale == want).all()


def test_sums_of_lines_are_exact(tmp_path: Path) -> None:
    """What waits before the sum counts once per pixel: Σ(x/4 + 3/8), right at its thresholds."""
    totals = np.array([k for k in range(1, 300)
                       if (k / 49 * 0.25 + 0.375) * 49 < k * 0.25 + 49 * 0.375][:4])
    net = Net(1, 4, 7, 7)
    y = net.op("Add", net.op("Mul", "x", np.float32(0.25)), np.float32(0.375))
    reached = (totals * 0.25 + 49 * 0.375).astype(np.float32)
    y = net.op("Cast", net.op("GreaterOrEqual", net.op(
        "ReduceSum", y, net.const([2, 3], np.int64), keepdims=0), reached), to=1)
    sums = totals[:, None] - [[0, 1]]  # of x: at the threshold, and below it
    images = np.zeros((2, 4, 49))
    for image, channel in np.ndindex(2, 4):
        total = sums[channel, image]
        images[image, channel, :total // 7], images[image, channel, 48] = 7, total % 7
    images = images.reshape(2, 4, 7, 7)
    loaded = agrees(net, y, tmp_path, inputs=images.astype(np.float32))
    graph = n2.lower(loaded.net)
    assert [type(node) for node in graph.nodes] == [ir.Input, ir.Flatten, ir.SumPool, ir.Threshold]
    got = graph.forward(images.astype(np.int64)).reshape(2, 4) * graph.scale
    assert (got == [[1] * 4, [0] * 4]).all()


def test_two_lines_by_a_comparison(tmp_path: Path) -> None:
    net = Net(*IMAGE)
    lines = [net.op("Floor", net.op("Div", net.op("Add", net.op(
        "Mul", "x", np.float32([[[3]], [[-2]], [[5]], [[1]]]) * k), 7.0 * k), 8.0))
        for k in (1, 3)]
    turn = np.float32([[[1]], [[-2]], [[0]], [[4]]])
    y = net.op("Where", net.op("GreaterOrEqual", "x", turn), *lines)
    loaded = agrees(net, y, tmp_path)
    assert [type(layer) for layer in loaded.net.layers] == [model.PiecewiseLinear]
    images = np.random.default_rng(1).integers(-8, 8, (5, *IMAGE[1:]))
    assert (n2.lower(loaded.net).forward(images).reshape(5, -1) == loaded.net.forward(images)).all()


def test_lines_of_64_bits_are_whole_numbers(tmp_path: Path) -> None:
    """Products of 58 bits, which no float holds, masked and divided: a Scale."""
    net = Net(*IMAGE, element=TensorProto.INT64)
    m = RNG.integers(2**46, 2**48, (1, 4, 1, 1)) | 1
    y = net.op("Add", net.op("Mul", net.op("Mul", "x", net.const(2**10 + 1, np.int64)),
                             net.const(m * [[[[1]], [[-1]], [[1]], [[-1]]]])), net.const(m // 3))
    y = net.op("Div", net.op("BitwiseAnd", y, net.const(-2**40, np.int64)),
               net.const(2**40, np.int64))
    path = net.save(net.op("Cast", y, to=1), tmp_path / "net.onnx")
    images = np.random.default_rng(1).integers(-8, 8, (5, *IMAGE[1:]))
    theirs = by_onnxruntime(onnx.load(path), images)
    graph = n2.lower(import_onnx(path, Format(bits=4, signed=True)).net)
    assert [type(node) for node in graph.nodes] == [ir.Input, ir.Scale]
    ours = graph.forward(images)
    assert (ours * graph.scale == theirs).all() and np.abs(ours).max() > 2**15


def test_two_quantizers_of_one_tensor_are_one(tmp_path: Path) -> None:
    net = Net(*IMAGE)
    rows = np.sort(RNG.integers(-9, 9, (2, 4, 3)), axis=2).astype(np.float32)
    y = net.op("Add", net.op("MultiThreshold", "x", rows[0], domain=QONNX, out_dtype="UINT2"),
               net.op("MultiThreshold", net.op("Mul", "x", -1.0), rows[1], domain=QONNX,
                      out_dtype="UINT2", out_bias=2.0))
    graph = n2.lower(agrees(net, y, tmp_path, by_qonnx).net)
    assert [type(node) for node in graph.nodes] == [ir.Input, ir.Threshold]
    assert {-1, 1} <= {*graph.nodes[1].signs.reshape(-1)}
    images = np.mgrid[-8:8, :4, :1, :1][0]
    want = (images[..., None] >= rows[0][None, :, None, None]).sum(axis=-1) + 2 + (
        -images[..., None] >= rows[1][None, :, None, None]).sum(axis=-1)
    graph = n2.lower(imported(net, y, tmp_path).net)
    assert (graph.forward(np.broadcast_to(images, (16, *IMAGE[1:]))) == want).all()


def test_sums_of_accumulators_with_whole_biases_are_whole(tmp_path: Path) -> None:
    """20 bits each, with biases: too many pairs for a search, and none is needed."""
    net = Net(*IMAGE)
    sides = [net.op("Conv", "x", W[:4] * k, np.arange(4.0) * k) for k in (999, 1001)]
    graph = n2.lower(imported(net, net.op("Add", *sides), tmp_path).net)
    images = np.random.default_rng(1).integers(-8, 8, (5, *IMAGE[1:]))
    theirs = by_onnxruntime(net.model("t2_0"), images.astype(np.float32))
    assert graph.scale == 1 and (graph.forward(images) == theirs).all()


def test_weights_in_digits_are_one_product(tmp_path: Path) -> None:
    net = Net(*IMAGE)
    y = net.op("Add", net.op("Conv", "x", W, pads=[1] * 4), net.op(
        "Mul", net.op("Conv", "x", W[::-1].copy(), pads=[1] * 4), 16.0))
    loaded = agrees(net, y, tmp_path)
    assert [type(layer) for layer in loaded.net.layers] == [model.IntConv]
    assert (loaded.net.params["Add_3.codes"] == W + 16 * W[::-1]).all()


@pytest.mark.parametrize("dialect", ["qonnx", "integer"])
@pytest.mark.parametrize("name", ["digits_mlp_w2a2", "digits_cnn_w2a2"])
def test_out_and_in_again_is_the_same_graph(name: str, dialect: str, tmp_path: Path) -> None:
    graph = n2.lower(name)
    n2.export(graph, tmp_path / "net.onnx", dialect=dialect)
    again = n2.lower(n2.load(tmp_path / "net.onnx"))
    assert [type(node) for node in again.nodes] == [type(node) for node in graph.nodes]
    for one, other in zip(graph.nodes, again.nodes, strict=True):
        assert len(one.inputs) == len(other.inputs)
        ours, theirs = graph.edges[one.name], again.edges[other.name]
        assert ours.shape == theirs.shape and (ours.lo == theirs.lo).all()
        assert (ours.hi == theirs.hi).all()
    images = np.random.default_rng(0).integers(0, 17, (20, 1, 8, 8))
    assert (again.forward(images) == graph.forward(images)).all()
