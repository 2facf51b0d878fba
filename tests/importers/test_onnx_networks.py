"""Networks of all dialects with odd parts: golden equals another runtime's result.

Scales are such that no value lies midway between two levels, where runtimes of float32 err.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from onnx import TensorProto
from onnx_graphs import QONNX, Net, by_onnxruntime, by_qonnx

from n2uq_hw.importers.onnx import Format, Samples, check, import_onnx

EXACT = 2e-6     # of the outputs' range: what float32 leaves
FINN, MICROSOFT = "finn.custom_op.general", "com.microsoft"
Random = np.random.Generator
Build = Callable[[Net, Random], str]


class Case(NamedTuple):
    """A network, the runtime that is right about it, and what it reads."""

    shape: tuple[int, ...]
    build: Build
    run: Callable[..., np.ndarray] = by_qonnx
    least: float = -2          # of the inputs; whole numbers, where `form` is given
    most: float = 2
    form: Format | None = None
    opset: int = 20
    element: int = TensorProto.FLOAT


CASES: dict[str, Case] = {}


def case(*shape: int, **fields: Any) -> Callable[[Build], Build]:
    def register(build: Build) -> Build:
        CASES[build.__name__] = Case((1, *shape), build, **fields)
        return build
    return register


def weights(rng: Random, *shape: int, most: int = 3) -> np.ndarray:
    return rng.integers(-most, most + 1, shape).astype(np.float32)


def sizes(n: Net, *values: int) -> str:
    return n.const(values, np.int64)


def rectified(n: Net, x: str, scale: float, bits: int = 4) -> str:
    return n.quant(n.op("Relu", x), scale, bits, signed=0)


def normalized(n: Net, rng: Random, x: str, channels: int, least: float = 0.5) -> str:
    return n.op("BatchNormalization", x, *(np.float32(rng.uniform(least, 2, channels))
                                           for _ in range(3)),
                np.float32(rng.uniform(0.5, 2, channels)))


@case(3, 9, 11)
def shuffle_split_and_sum(n: Net, rng: Random) -> str:
    x = n.op("Conv", n.quant("x", 0.25, 4), n.quant(
        np.float32(rng.normal(0, 1, (8, 3, 3, 3))), np.linspace(0.2, 0.4, 8).reshape(8, 1, 1, 1),
        3), rng.normal(0, 1, 8), pads=[1, 2, 0, 1], strides=[2, 1])
    x = n.op("Conv", rectified(n, normalized(n, rng, x, 8), 0.37), n.quant(
        np.float32(rng.normal(0, 1, (8, 4, 3, 3))), 0.3, 4), group=2, pads=[2] * 4,
        dilations=[2, 2])
    x = n.op("Transpose", n.op("Reshape", x, sizes(n, 1, 2, 4, 4, 12)), perm=[0, 2, 1, 3, 4])
    x = n.op("LeakyRelu", n.op("Reshape", x, sizes(n, 1, 8, 4, 12)), alpha=-0.3)
    a, b = n.op("Split", rectified(n, x, 0.5, 3), sizes(n, 3, 5), axis=1, outputs=2)
    a = n.op("Conv", a, n.quant(weights(rng, 5, 3, 1, 1), 1.0, 3))
    b = n.op("Conv", b, n.quant(weights(rng, 5, 1, 3, 3), 1.0, 3), group=5, pads=[1] * 4)
    y = n.quant(n.op("Add", n.quant(a, 0.7, 5), n.quant(b, 0.3, 5)), 0.9, 4)
    y = n.op("Flatten", n.op("GlobalAveragePool", y))
    return n.op("Gemm", y, n.quant(weights(rng, 4, 5), 0.5, 4), np.float32([0.1, -0.2, 0.3, 0]),
                transB=1, alpha=0.5)


@case(2, 8, 8)
def u_net_of_concats_and_blocks(n: Net, rng: Random) -> str:
    a = n.op("Conv", n.quant("x", 0.125, 5), n.quant(weights(rng, 6, 2, 3, 3), 0.5, 3),
             pads=[1] * 4)
    a = rectified(n, a, 0.3137)
    d = n.op("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2])
    d = n.op("Conv", d, n.quant(weights(rng, 8, 6, 3, 3), 0.5, 3), pads=[1] * 4)
    u = n.op("Resize", rectified(n, d, 1.2713), "", np.float32([1, 1, 2, 2]), mode="nearest")
    c = n.op("Conv", n.quant(n.op("Concat", a, u, axis=1), 0.8071, 4, signed=0),
             n.quant(weights(rng, 8, 14, 3, 3), 0.5, 3), pads=[1] * 4)
    c = n.op("DepthToSpace", rectified(n, c, 2.3019), blocksize=2, mode="CRD")
    return n.op("Conv", c, n.quant(weights(rng, 1, 2, 1, 1), 0.5, 4), np.float32([0.3]))


@case(2, 8, 8)
def products_of_two_scales(n: Net, rng: Random) -> str:
    """A Concat of two quantizers, which a convolution and, flat, a matrix product read."""
    x = n.quant("x", 0.1259, 5)
    a = n.op("Conv", x, n.quant(weights(rng, 3, 2, 3, 3), 0.5, 3), pads=[1] * 4)
    a = rectified(n, a, 0.3137)
    b = n.quant(n.op("Conv", x, n.quant(weights(rng, 5, 2, 1, 1), 0.5, 3)), 0.4721, 3)
    c = n.op("Concat", a, b, axis=1)
    y = n.op("Conv", c, n.quant(weights(rng, 4, 8, 3, 3), 0.5, 3), rng.normal(0, 1, 4),
             pads=[1] * 4, strides=[2, 2])
    y = n.op("Concat", rectified(n, y, 1.3137), n.op("MaxPool", b, kernel_shape=[2, 2],
                                                     strides=[2, 2]), axis=1)
    return n.op("MatMul", n.op("Flatten", y), n.quant(weights(rng, 144, 3), 0.25, 3))


@case(3, 4, 4)
def decoder_of_a_vector(n: Net, rng: Random) -> str:
    """A matrix product, with weights of three axes, whose vector becomes an image."""
    x = n.op("Reshape", n.quant("x", 0.2173, 4), sizes(n, 1, 1, 48))
    x = n.op("MatMul", x, n.quant(weights(rng, 1, 48, 36), 0.5, 3))
    x = n.op("Reshape", rectified(n, x, 2.137), sizes(n, 1, 4, 3, 3))
    x = n.op("Resize", x, "", np.float32([1, 1, 2, 2]), mode="nearest")
    x = n.op("Conv", x, n.quant(weights(rng, 5, 4, 3, 3), 0.5, 3), pads=[1] * 4)
    x = n.op("MatMul", n.op("Flatten", rectified(n, x, 1.913)), n.quant(
        weights(rng, 180, 6), 0.5, 3))
    x = n.op("Reshape", n.quant(x, 5.137, 4), sizes(n, 1, 6, 1, 1))
    x = n.op("Conv", x, n.quant(weights(rng, 3, 6, 1, 1), 0.05, 3))
    return n.op("Tanh", x)


@case(4, 32)
def causal_sequence(n: Net, rng: Random) -> str:
    x = n.quant("x", 0.25, 4)
    for dilation in (1, 2, 4):
        y = n.op("Pad", x, sizes(n, 0, 0, 2 * dilation, 0, 0, 0))
        y = n.op("Conv", y, n.quant(weights(rng, 4, 4, 3), 0.5, 2, narrow=1), rng.normal(0, 1, 4),
                 dilations=[dilation])
        x = n.quant(n.op("Add", n.quant(x, 0.4, 4), n.quant(rectified(n, y, 0.9), 0.4, 5)), 0.55, 4)
    return n.op("MatMul", n.op("ReduceMean", x, sizes(n, 2), keepdims=0),
                n.quant(weights(rng, 4, 3), 0.25, 4))


@case(3, 6, 6)
def bipolar(n: Net, rng: Random) -> str:
    def sign(x: Any, scale: float) -> str:
        return n.op("BipolarQuant", x, np.float32(scale), domain=QONNX)
    x = n.op("Conv", sign("x", 1), sign(weights(rng, 6, 3, 3, 3) - 0.5, 0.25))
    x = sign(normalized(n, rng, x, 6, -1), 0.5)
    x = n.op("MatMul", n.op("Reshape", x, sizes(n, 1, -1)), sign(weights(rng, 96, 5) - 0.5, 1))
    return n.op("Mul", x, np.float32([1, -1, 2, 0.5, -3]))


@case(4, 8, 8)
def truncated_average(n: Net, rng: Random) -> str:
    x = n.op("Conv", n.quant("x", 0.25, 4, signed=0), n.quant(weights(rng, 6, 4, 3, 3), 0.25, 3),
             auto_pad="SAME_UPPER", strides=[2, 2])
    x = n.op("AveragePool", rectified(n, x, 0.5), kernel_shape=[2, 2], strides=[2, 2])
    x = n.op("Trunc", n.op("Mul", x, 4.0), np.float32(0.5), np.float32(0), np.float32(6),
             np.float32(4), domain=QONNX, rounding_mode="FLOOR")
    x = n.op("MatMul", n.op("Flatten", x), n.quant(weights(rng, 24, 7), 1.0, 3))
    return n.op("Softmax", n.op("Add", x, rng.normal(0, 1, 7)), axis=1)


@case(5, 7, 7)
def zero_points(n: Net, rng: Random) -> str:
    x = n.op("Conv", n.quant("x", 0.3, 4, 5, signed=0), n.quant(
        np.float32(rng.normal(0, 1, (6, 5, 2, 3))), 0.21, 4, 2, signed=0), pads=[1, 0, 0, 2])
    x = n.op("MaxPool", n.quant(x, 0.8, 4, 7, signed=0), kernel_shape=[3, 3], strides=[2, 2],
             pads=[1, 1, 0, 0])
    x = n.op("Conv", x, n.quant(weights(rng, 3, 6, 1, 1), 0.5, 3))
    return n.op("ReduceMean", x, sizes(n, 2, 3), keepdims=0)


@case(3, 8, 8, least=0, most=255, form=Format(bits=8))
def thresholds(n: Net, rng: Random) -> str:
    def counted(x: str, channels: int, steps: int, span: int, **fields: float) -> str:
        rows = np.sort(rng.integers(-span, span, (channels, steps)), axis=1).astype(np.float32)
        return n.op("MultiThreshold", x, rows, domain=FINN, out_dtype="INT4", **fields)
    x = counted("x", 1, 15, 255, out_bias=-8.0)
    x = n.op("Conv", x, weights(rng, 6, 3, 3, 3), pads=[1] * 4)
    x = counted(x, 6, 3, 40, out_scale=2.0, out_bias=-3.0)
    y = n.op("Conv", x, weights(rng, 6, 1, 3, 3), group=6, pads=[1] * 4)
    y = counted(n.op("Mul", y, np.float32(rng.uniform(-1, 1, (1, 6, 1, 1)))), 6, 7, 12)
    y = n.op("Transpose", counted(n.op("Add", x, y), 1, 7, 9), perm=[0, 2, 3, 1])
    y = n.op("MatMul", n.op("Reshape", y, sizes(n, 1, -1)), weights(rng, 384, 4))
    return n.op("Add", n.op("Mul", y, np.float32(0.01)), np.float32([0.3, 0.1, 0, -0.1]))


@case(8, 10)
def quantize_and_dequantize(n: Net, rng: Random) -> str:
    def codes(x: str, scale: float, zero: int, *ends: int) -> str:
        q = n.op("QuantizeLinear", x, np.float32(scale), n.const(np.array(zero, np.int8)))
        if ends:
            q = n.op("Clip", q, *(n.const(np.array(end, np.int8)) for end in ends))
        return n.op("DequantizeLinear", q, np.float32(scale), n.const(np.array(zero, np.int8)))

    def held(axis: int, *shape: int) -> str:
        return n.op("DequantizeLinear", n.const(weights(rng, *shape, most=7).astype(np.int8)),
                    np.float32(np.linspace(0.051, 0.107, shape[axis])),
                    n.const(np.zeros(shape[axis], np.int8)), axis=axis)
    x = n.op("Conv", codes("x", 0.02, 0), held(0, 6, 8, 3), rng.normal(0, 1, 6), pads=[1, 1],
             strides=[2])
    x = codes(n.op("Clip", x, np.float32(0), np.float32(6)), 0.1, -128)
    y = codes(n.op("Conv", x, held(0, 6, 1, 5), group=6, pads=[2, 2]), 0.15, 3, -8, 7)
    x = n.op("MaxPool", n.op("Concat", codes(x, 0.217, 0), y, axis=1), kernel_shape=[2],
             strides=[2])
    x = n.op("MatMul", codes(n.op("Flatten", x), 0.193, 0), held(1, 24, 4))
    return n.op("Add", x, np.float32([1, 2, 3, 4]))


@case(3, 8, 8, run=by_onnxruntime, opset=17)
def operators_on_codes(n: Net, rng: Random) -> str:
    """Weights of 7 bits: onnxruntime saturates pairs of larger products on some processors."""
    def u8(value: int) -> str:
        return n.const(np.array(value, np.uint8))

    def i8(*shape: int) -> str:
        return n.const(weights(rng, *shape, most=60).astype(np.int8))
    x = n.op("QuantizeLinear", "x", np.float32(0.017), u8(113))
    x = n.op("QLinearConv", x, np.float32(0.017), u8(113), i8(8, 3, 3, 3),
             np.float32(rng.uniform(0.001, 0.01, 8)), n.const(np.zeros(8, np.int8)),
             np.float32(0.031), u8(101), n.const(rng.integers(-500, 500, 8).astype(np.int32)),
             pads=[0, 1, 1, 2], strides=[1, 2])
    y = n.op("QLinearConv", x, np.float32(0.031), u8(101), i8(8, 1, 3, 3), np.float32(0.004),
             n.const(np.int8(0)), np.float32(0.023), u8(7), group=8, pads=[1] * 4)
    z = n.op("QLinearAdd", x, np.float32(0.031), u8(101), y, np.float32(0.023), u8(7),
             np.float32(0.04), u8(90), domain=MICROSOFT)
    z = n.op("QLinearGlobalAveragePool", z, np.float32(0.04), u8(90), np.float32(0.02), u8(100),
             domain=MICROSOFT)
    z = n.op("QLinearMatMul", n.op("Flatten", z), np.float32(0.02), u8(100), i8(8, 5),
             np.float32(0.01), n.const(np.int8(0)), np.float32(0.05), u8(128))
    return n.op("DequantizeLinear", z, np.float32(0.05), u8(128))


@case(4, 8, 8, run=by_onnxruntime, least=0, most=127, form=Format(bits=7))
def whole_numbers(n: Net, rng: Random) -> str:
    def requantized(x: str, factors: Any, addends: Any, divisor: float) -> str:
        y = n.op("Add", n.op("Mul", x, np.float32(factors)), np.float32(addends))
        y = n.op("Floor", n.op("Div", y, np.float32(divisor)))
        return n.op("Clip", y, np.float32(0), np.float32(15))
    x = n.op("Conv", n.op("Pad", "x", sizes(n, *[0, 0, 1, 1] * 2)), weights(rng, 8, 4, 3, 3))
    x = requantized(x, rng.integers(1, 40, (1, 8, 1, 1)), rng.integers(-200, 300, (1, 8, 1, 1)),
                    256)
    a = n.op("Conv", x, weights(rng, 8, 8, 1, 1))
    b = n.op("Conv", x, weights(rng, 8, 4, 3, 3), group=2, pads=[1] * 4)
    x = requantized(n.op("Add", a, b), rng.integers(-30, 40, (1, 8, 1, 1)), 77, 512)
    x = requantized(n.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]), 4, 2, 4)
    return n.op("MatMul", n.op("Flatten", n.op("Transpose", x, perm=[0, 2, 3, 1])),
                weights(rng, 128, 6))


@case(4, 6, 6, run=by_onnxruntime, least=0, most=255, form=Format(), element=TensorProto.UINT8)
def integer_operators(n: Net, rng: Random) -> str:
    x = n.op("ConvInteger", "x", n.const(weights(rng, 6, 4, 3, 3, most=9).astype(np.int8)),
             n.const(np.uint8(128)), pads=[1] * 4)
    x = n.op("Mul", n.op("Cast", x, to=1), np.float32(rng.uniform(0.0005, 0.002, (1, 6, 1, 1))))
    x = n.op("QuantizeLinear", n.op("Relu", x), np.float32(0.02), n.const(np.uint8(0)))
    x = n.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    x = n.op("MatMulInteger", n.op("Reshape", x, sizes(n, 1, -1)),
             n.const(weights(rng, 24, 5, most=9).astype(np.int8)))
    return n.op("Mul", n.op("Cast", x, to=1), np.float32(0.0006))


@case(6, 5, 5)
def shared_weights_and_many_readers(n: Net, rng: Random) -> str:
    x, held = n.quant("x", 0.2, 4), n.quant(weights(rng, 6, 6, 3, 3), 0.3, 3)
    q = n.quant(n.op("Conv", x, held, pads=[1] * 4), 1.0137, 3)
    p = n.op("Relu", n.op("Conv", n.op("Neg", x), held, pads=[1] * 4))
    p = n.quant(normalized(n, rng, p, 6, -1), 0.4, 4)
    y = n.op("Add", n.op("Add", q, np.float32(rng.integers(-2, 3, (1, 6, 1, 1)))), p)
    y = n.quant(n.op("Tanh", n.op("Mul", y, 0.3)), 0.125, 4)
    z = n.quant(n.op("Concat", y, q, x, axis=1), 0.17, 4)
    z = n.op("Conv", z, n.quant(weights(rng, 4, 18, 1, 1), 0.3, 3))
    z = rectified(n, normalized(n, rng, z, 4), 0.5, 5)
    return n.op("Gemm", n.op("Reshape", z, sizes(n, 0, -1)), n.quant(weights(rng, 100, 3), 0.25, 3),
                np.float32([1, 2, 3]))


@case(1, 12, 12, least=0, most=1)
def channels_last_with_pads(n: Net, rng: Random) -> str:
    x = n.quant(n.op("Sub", n.op("Mul", "x", 2.0), 1.0), 0.125, 5)
    x = n.op("Pad", x, sizes(n, 0, 0, 0, 0, 0, 0, 1, 1))
    x = n.op("Conv", x, n.quant(weights(rng, 8, 1, 3, 3), 0.25, 3), rng.normal(0, 1, 8),
             strides=[2, 2])
    x = n.quant(n.op("HardSigmoid", x, alpha=0.25, beta=0.5), 1 / 15, 4, signed=0)
    x = n.op("MaxPool", n.op("Pad", x, sizes(n, *[0, 0, 1, 1] * 2)), kernel_shape=[3, 3],
             strides=[2, 2])
    x = n.op("Reshape", n.op("Transpose", x, perm=[0, 2, 3, 1]), sizes(n, -1, 1, 72))
    x = n.op("Add", n.op("MatMul", x, n.quant(weights(rng, 72, 6), 0.25, 3)), rng.normal(0, 1, 6))
    x = n.op("Squeeze", rectified(n, x, 0.5), sizes(n, 1))
    return n.op("Sigmoid", n.op("Gemm", x, n.quant(weights(rng, 3, 6), 0.25, 3), transB=1))


@case(4, 6, 6)
def averages_beside_products(n: Net, rng: Random) -> str:
    x = n.quant("x", 0.25, 4)
    a = n.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    b = n.op("Conv", x, n.quant(weights(rng, 2, 4, 1, 1), 0.5, 3))
    b = n.op("PRelu", b, np.float32([[[-0.5]], [[0.25]]]))
    y = n.quant(n.op("Concat", n.op("Relu", a), b, axis=1), 0.3, 4)
    y = n.op("Mul", y, np.float32(rng.uniform(0.5, 2, (1, 6, 1, 1))))
    y = n.quant(n.op("Add", y, n.op("Gather", y, sizes(n, 5, 4, 3, 2, 1, 0), axis=1)), 0.4, 4)
    return n.op("Flatten", n.op("Conv", y, n.quant(weights(rng, 5, 6, 3, 3), 0.5, 3), pads=[1] * 4,
                                strides=[3, 2]))


@case(3, 7, 9)
def averages_of_fewer_pixels(n: Net, rng: Random) -> str:
    """Pads that do not count, and windows that end beyond the image."""
    x = n.op("Conv", n.quant("x", 0.25, 4), n.quant(weights(rng, 6, 3, 3, 3), 0.5, 3), pads=[1] * 4)
    x = rectified(n, normalized(n, rng, x, 6), 0.7137)
    x = n.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=0)
    x = n.quant(normalized(n, rng, x, 6), 0.4137, 4)
    x = n.op("Conv", x, n.quant(weights(rng, 4, 6, 1, 1), 0.5, 3))
    x = n.op("AveragePool", n.quant(x, 0.6183, 5), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    x = n.op("MaxPool", n.quant(x, 0.2917, 5), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    return n.op("MatMul", n.op("Flatten", x), n.quant(weights(rng, 16, 5), 0.25, 3))


def per_channel(n: Net, rng: Random, *shape: int, bits: int = 4, axis: int = 0) -> str:
    """Weights with a scale for each of the channels along an axis."""
    scales = rng.uniform(0.2, 0.6, shape[axis])
    return n.quant(np.float32(rng.normal(0, 1, shape)),
                   scales.reshape([-1 if k == axis else 1 for k in range(len(shape))]), bits)


@case(3, 8, 8)
def inverted_residuals(n: Net, rng: Random) -> str:
    """MobileNetV2's block as Brevitas exports it: quantized sum, scales per channel."""
    x = n.op("Conv", n.quant("x", 0.125, 6), per_channel(n, rng, 8, 3, 3, 3), pads=[1] * 4)
    x = n.quant(normalized(n, rng, x, 8), 0.3137, 5)
    y = n.op("Conv", x, per_channel(n, rng, 16, 8, 1, 1))
    y = n.op("Clip", normalized(n, rng, y, 16), np.float32(0), np.float32(6))
    y = n.op("Conv", n.quant(y, 0.4019, 4, signed=0), per_channel(n, rng, 16, 1, 3, 3),
             group=16, pads=[1] * 4)
    y = n.op("Clip", normalized(n, rng, y, 16), np.float32(0), np.float32(6))
    y = n.op("Conv", n.quant(y, 0.4019, 4, signed=0), per_channel(n, rng, 8, 16, 1, 1))
    y = n.quant(normalized(n, rng, y, 8), 0.3137, 5)
    y = n.quant(n.op("Add", x, y), 0.6421, 5)
    y = n.op("Flatten", n.op("GlobalAveragePool", y))
    return n.op("Gemm", n.quant(y, 0.1173, 6), per_channel(n, rng, 5, 8), rng.normal(0, 1, 5),
                transB=1)


@case(2, 8, 8)
def u_net_with_transposed_convolutions(n: Net, rng: Random) -> str:
    a = n.op("Conv", n.quant("x", 0.125, 5), per_channel(n, rng, 6, 2, 3, 3), pads=[1] * 4)
    a = rectified(n, normalized(n, rng, a, 6), 0.3137)
    d = n.op("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2])
    d = rectified(n, n.op("Conv", d, per_channel(n, rng, 8, 6, 3, 3), pads=[1] * 4), 0.9713)
    u = n.op("ConvTranspose", d, per_channel(n, rng, 8, 4, 2, 2, axis=1), rng.normal(0, 1, 4),
             strides=[2, 2])
    u = rectified(n, normalized(n, rng, u, 4), 1.2713)
    c = n.op("Conv", n.quant(n.op("Concat", a, u, axis=1), 0.8071, 4, signed=0),
             per_channel(n, rng, 6, 10, 3, 3), pads=[1] * 4)
    return n.op("Conv", rectified(n, c, 1.5137), per_channel(n, rng, 2, 6, 1, 1), np.ones(2))


@case(1, 12, 12)
def autoencoder(n: Net, rng: Random) -> str:
    x = n.quant("x", 0.125, 5)
    for inputs, outputs in ((1, 6), (6, 8)):
        x = n.op("Conv", x, per_channel(n, rng, outputs, inputs, 3, 3), pads=[1] * 4,
                 strides=[2, 2])
        x = rectified(n, normalized(n, rng, x, outputs), 0.7137)
    x = rectified(n, n.op("MatMul", n.op("Flatten", x), n.quant(weights(rng, 72, 72), 0.1, 3)),
                  1.2137)
    x = n.op("Reshape", x, sizes(n, 1, 8, 3, 3))
    x = n.op("ConvTranspose", x, per_channel(n, rng, 8, 6, 4, 4, axis=1), strides=[2, 2],
             pads=[1] * 4)
    x = rectified(n, normalized(n, rng, x, 6), 1.7137)
    x = n.op("ConvTranspose", x, n.quant(weights(rng, 6, 1, 3, 3), 0.02, 3), np.ones(1),
             strides=[2, 2], pads=[1] * 4, output_padding=[1, 1])
    return n.op("Sigmoid", x)


@case(3, 6, 6, form=Format(bits=8), least=0, most=255)
def normalized_pixels(n: Net, rng: Random) -> str:
    """ImageNet's mean and deviation before the first quantizer: a table per channel."""
    mean, std = (np.float32(each).reshape(1, 3, 1, 1) for each in (
        [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = n.op("Div", n.op("Sub", n.op("Div", "x", np.float32(255)), mean), std)
    x = n.op("Conv", n.quant(x, 0.0187, 8), per_channel(n, rng, 4, 3, 3, 3), pads=[1] * 4)
    return n.op("Flatten", rectified(n, x, 0.7137))


@case(2, 6, 6)
def odd_sizes(n: Net, rng: Random) -> str:
    """Transposed convolutions that are cut; averages that count pads, but not what ceil adds."""
    x = n.op("AveragePool", n.quant("x", 0.125, 5), kernel_shape=[3, 3], strides=[2, 2],
             pads=[1] * 4, ceil_mode=1, count_include_pad=1)
    x = n.op("ConvTranspose", n.quant(x, 0.1137, 4), per_channel(n, rng, 2, 4, 3, 3, axis=1),
             rng.normal(0, 1, 4), strides=[2, 2], pads=[1] * 4)
    x = rectified(n, normalized(n, rng, x, 4), 0.7137)
    x = n.op("ConvTranspose", x, n.quant(weights(rng, 4, 2, 2, 3), 0.02, 3), np.ones(4), group=2,
             strides=[3, 1], pads=[1, 0, 1, 2])
    return n.op("Flatten", x)


@case(5, 12)
def perceptron_of_a_transformer(n: Net, rng: Random) -> str:
    """Tokens [N, T, C]: products with bias, Gelu in a table, a quantized sum, a mean."""
    x = n.quant("x", 0.125, 5)
    for _ in range(2):
        y = n.op("Add", n.op("MatMul", x, per_channel(n, rng, 12, 24, axis=1)),
                 np.float32(rng.normal(0, 1, 24)))
        y = n.quant(n.op("Gelu", n.op("Mul", y, 0.3)), 0.0713, 6)
        y = n.op("Add", n.op("MatMul", y, per_channel(n, rng, 24, 12, axis=1)),
                 np.float32(rng.normal(0, 1, 12)))
        x = n.quant(n.op("Add", x, n.quant(n.op("Mul", y, 0.2), 0.0921, 6)), 0.1371, 6)
    x = n.quant(n.op("ReduceMean", x, sizes(n, 1), keepdims=0), 0.0371, 7)
    return n.op("MatMul", x, n.quant(weights(rng, 12, 4), 0.25, 3))


@case(10, 49, run=by_onnxruntime)
def keyword_spotting_as_qcdq(n: Net, rng: Random) -> str:
    """1-D convolutions, depthwise and pointwise, weights of int8 with a scale per channel."""
    def held(scale: float, x: str, low: int = -128) -> str:
        s, zero = np.float32(scale), n.const(np.int8(0))
        x = n.op("QuantizeLinear", x, s, zero)
        if low > -128:
            x = n.op("Clip", x, n.const(np.int8(low)), n.const(np.int8(-low - 1)))
        return n.op("DequantizeLinear", x, s, zero)

    def kernel(*shape: int) -> str:
        codes = n.const(rng.integers(-7, 8, shape).astype(np.int8))
        codes = n.op("Clip", codes, n.const(np.int8(-7)), n.const(np.int8(7)))
        return n.op("DequantizeLinear", codes, np.float32(rng.uniform(0.01, 0.1, shape[0])),
                    n.const(np.zeros(shape[0], np.int8)), axis=0)

    x = n.op("Conv", held(0.02, "x"), kernel(16, 10, 3), np.float32(rng.normal(0, 0.1, 16)),
             pads=[1, 1], strides=[2])
    for dilation in (1, 2):
        x = held(0.0371, n.op("Relu", x), -8)
        x = n.op("Conv", x, kernel(16, 1, 3), group=16, pads=[dilation] * 2, dilations=[dilation])
        x = n.op("Conv", held(0.0173, n.op("Relu", x), -8), kernel(16, 16, 1),
                 np.float32(rng.normal(0, 0.1, 16)))
    x = n.op("AveragePool", held(0.0291, n.op("Relu", x)), kernel_shape=[4], strides=[4],
             ceil_mode=1)
    x = n.op("Flatten", held(0.0113, x))
    return n.op("Gemm", x, kernel(6, 112), np.float32(rng.normal(0, 0.1, 6)), transB=1)


@case(4, 8, 8)
def products_of_pixels(n: Net, rng: Random) -> str:
    x = n.op("Transpose", n.quant("x", 0.25, 4), perm=[0, 2, 3, 1])
    x = n.op("Transpose", n.op("MatMul", x, n.quant(weights(rng, 4, 8), 0.5, 3)),
             perm=[0, 3, 1, 2])
    x = n.op("Conv", n.quant(n.op("HardSwish", x), 0.25, 5), n.quant(
        weights(rng, 8, 1, 3, 3), 0.5, 3), group=8, pads=[1] * 4, strides=[2, 2])
    x = n.op("GlobalMaxPool", n.quant(n.op("Clip", x, np.float32(-4), np.float32(4)), 0.3, 4))
    x = n.op("Conv", x, n.quant(weights(rng, 6, 8, 1, 1), 0.5, 3), rng.normal(0, 1, 6))
    return n.op("LogSoftmax", n.op("Squeeze", x, sizes(n, 2, 3)), axis=1)


@pytest.mark.parametrize("name", CASES)
def test_golden_equals_the_runtime(name: str, tmp_path: Path) -> None:
    it, rng = CASES[name], np.random.default_rng(7)
    net = Net(*it.shape, opset=it.opset, element=it.element)
    output = it.build(net, rng)
    path, size = net.save(output, tmp_path / "net.onnx"), (6, *it.shape[1:])
    inputs = rng.uniform(it.least, it.most, size) if it.form is None else rng.integers(
        int(it.least), int(it.most) + 1, size)
    dtype = np.uint8 if it.element == TensorProto.UINT8 else np.float32
    theirs = it.run(net.model(output), inputs.astype(dtype)).astype(np.float64)
    result = check(import_onnx(path, it.form), Samples(path, inputs.astype(dtype),
                                                       theirs.reshape(len(inputs), -1)))
    assert np.ptp(theirs) > 0 and result.worst_error < EXACT
