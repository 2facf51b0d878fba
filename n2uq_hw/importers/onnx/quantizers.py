"""Rules of quantizers, in all dialects, and of the operators that hold their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...model import Steps
from .constants import (
    Constant,
    checked_scale,
    checked_zero,
    code_range,
    quantizer_ends,
    rounding_of,
)
from .linear import average_pool, convolution, product
from .reading import Node, NoForm
from .tensors import Tensor
from .trace import RULES, WIDE, Trace, Value, rule

__all__ = ["dequantized", "quantized"]

NEVER = float(np.finfo(np.float64).max) / 4    # a threshold that nothing reaches
MOST_STEPS = 2**16 - 1
LAYOUTS = {2: "NC", 3: "NWC", 4: "NCHW"}


def _constants(*inputs: object) -> list[Constant]:
    if not all(isinstance(each, Constant) for each in inputs):
        raise NoForm("scale, zero point and bit width must be constant")
    return [each for each in inputs if isinstance(each, Constant)]


@rule("Quant", "IntQuant")
def _quant(trace: Trace, node: Node, x: Value, *inputs: Value) -> Tensor:
    """QONNX: q = clip(round(x/scale + zero point)), whose value is (q - zero point)·scale."""
    scale, zero, bits = _constants(*inputs)
    s, z = checked_scale(scale.array), checked_zero(zero.array)
    signed, narrow = bool(node.of("signed", 1)), bool(node.of("narrow", 0))
    ends = quantizer_ends(bits.value, signed, narrow)
    if not isinstance(x, Tensor):
        raise NoForm("must quantize an activation")
    if s.min() < np.finfo(np.float32).tiny:
        trace.notes.append(f"{node.name}: its scale {s.min():.3g} is denormal in float32")
    if bits.value == 1 and signed:  # as the executor has it: the sign
        x = trace.pointwise(x, "add", s * z, f"{node.name}_zero")
        return _sign(trace, x, s, -s * z, node)
    return trace.quantize(x, s, z, ends, rounding_of(node), node.name)


@rule("BipolarQuant")
def _bipolar(trace: Trace, node: Node, x: Tensor, scale: Value) -> Tensor:
    s = checked_scale(_constants(scale)[0].array)
    return _sign(trace, trace.plain(x, node.name), s, np.zeros(1), node)


def _sign(trace: Trace, x: Tensor, s: np.ndarray, offset: np.ndarray, node: Node) -> Tensor:
    """+s from 0 on, -s below."""
    x = trace.plain(x, node.name)
    x, scale = trace.per_channel(x, s)
    x, base = trace.per_channel(x, offset)
    scale, base = np.broadcast_arrays(scale, base)
    name = trace.emit(Steps, node.name, x.layer, params={
        "thresholds": np.zeros((len(scale), 1)), "scale": 2 * scale, "offset": base - scale},
        channels=len(scale), steps=1)
    trace.bipolar.add(name)
    return x.of(name)


@rule("Trunc")
def _trunc(trace: Trace, node: Node, x: Tensor, *inputs: Value) -> Tensor:
    """Codes of the input, less their last bits; version 2 says the scale of what is left."""
    held = _constants(*inputs)
    scale, zero = checked_scale(held[0].array), checked_zero(held[1].array)
    if scale.size != 1 or zero.size != 1:
        raise NoForm("must have one scale and one zero point")
    s, z = scale.item(), zero.item()
    if len(held) == 4:
        drop, after, ends = 2.0**(held[2].value - held[3].value), s, WIDE
        if z:
            raise NoForm(f"zero point must be 0, not {z:g}")
    elif len(held) == 5:
        after = checked_scale(held[3].array).item()
        drop = 2.0**np.round(np.log2(after / s))
        ends = quantizer_ends(held[4].value, bool(node.of("signed", 1)), bool(node.of("narrow", 0)))
    else:
        raise NoForm(f"must have 5 or 6 inputs, not {len(held) + 1}")
    rounding = rounding_of(node, "FLOOR")
    x = trace.pointwise(x, "div", np.array(s), f"{node.name}_codes")
    if rounding == "floor":
        # Codes are whole but for the rounding of floats: half a code more takes none below.
        x = trace.pointwise(x, "add", np.array(0.5), f"{node.name}_half")
    else:
        x = trace.quantize(x, np.ones(1), np.zeros(1), WIDE, "even", f"{node.name}_whole")
    x = trace.pointwise(x, "div", np.array(drop), f"{node.name}_drop")
    y = trace.quantize(x, np.ones(1), np.array(z / drop), ends, rounding, node.name)
    return replace(y, factor=after)


@rule("MaxPoolNHWC")
def _max_pool_nhwc(trace: Trace, node: Node, x: Tensor) -> Value:
    return trace.channels_last(replace(node, op="MaxPool"), x)


@rule("QuantAvgPool2d")
def _quant_avg_pool(trace: Trace, node: Node, x: Tensor) -> Tensor:
    """FINN: the sum of a window of codes, less its last bits."""
    if node.of("data_layout", "NCHW") == "NHWC" and len(x.dims) == 4:
        turned = replace(node, attributes=node.attributes | {"data_layout": "NCHW"})
        y = _quant_avg_pool(trace, turned, trace.view(x).transposed((0, 3, 1, 2)))
        return y.transposed((0, 2, 3, 1))
    k, stride, bits = (node.of(key, 1) for key in ("kernel", "stride", "ibits"))
    if not (1 <= k <= 2**10 and 1 <= bits <= 32):
        raise NoForm(f"kernel must be in 1..1024 and ibits in 1..32, not {k} and {bits}")
    drop = max(((2**bits - 1) * k * k).bit_length() - node.of("obits", 1), 0)
    pool = replace(node, op="AveragePool", name=f"{node.name}_sum", attributes={
        "kernel_shape": (k, k), "strides": (stride, stride)})
    y = average_pool(trace, pool, trace.plain(x, node.name), total=True)
    if not drop:
        return trace.quantize(y, np.ones(1), np.zeros(1), WIDE, "even", node.name)
    y = trace.pointwise(y, "div", np.array(2.0**drop), f"{node.name}_drop")
    return trace.quantize(y, np.ones(1), np.zeros(1), WIDE, "floor", node.name)


@rule("MultiThreshold")
def _multi_threshold(trace: Trace, node: Node, x: Tensor, thresholds: Value) -> Tensor:
    """FINN: out_scale · #{x >= threshold} + out_bias."""
    if not isinstance(thresholds, Constant) or thresholds.array.ndim != 2:
        raise NoForm("thresholds must be a constant matrix, a row per channel")
    if not 1 <= thresholds.array.shape[1] <= MOST_STEPS:
        raise NoForm(f"thresholds must be 1 to {MOST_STEPS:,} per channel, not "
                     f"{thresholds.array.shape[1]:,}")
    rows = np.sort(thresholds.array.astype(np.float64), axis=1)
    if np.isnan(rows).any():
        raise NoForm("thresholds must be numbers, not NaN")
    rows = rows.clip(-NEVER, NEVER)
    layout = node.of("data_layout", "") or LAYOUTS.get(len(x.dims), "NC")
    axis = layout.find("C") if "C" in layout else 1
    if len(layout) != len(x.dims):
        raise NoForm(f"data_layout must have {len(x.dims)} axes, not be {layout}")
    x = trace.plain(x, node.name)
    if len(rows) > 1:
        places = np.arange(len(rows), dtype=np.float64).reshape(
            [-1 if k == axis else 1 for k in range(len(x.dims))])
        x, order = trace.per_channel(x, places)
        rows = rows[order.astype(np.int64)]
    scale, bias = node.of("out_scale", 1.0), node.of("out_bias", 0.0)
    return x.of(trace.emit(Steps, node.name, x.layer, params={
        "thresholds": rows, "scale": np.full(len(rows), scale),
        "offset": np.full(len(rows), bias)}, channels=len(rows), steps=rows.shape[1]))


@rule("RequantShift")
def _requant_shift(trace: Trace, node: Node, x: Tensor, factor: Value, addend: Value) -> Tensor:
    """Deeploy: floor((x·mul + add)/div + 1/2), clipped to n_levels."""
    mul, add = _constants(factor, addend)

    def one(key: str) -> float:
        value = np.asarray(node.attributes.get(key, ()))
        if value.size != 1 or value.dtype.kind not in "iufb":
            raise NoForm(f"{key} must be one number")
        return float(value.reshape(()))

    div, key = one("div"), "n_levels_out" if "n_levels_out" in node.attributes else "n_levels"
    levels = one(key)
    if not 2 <= levels <= 2**32 or levels != int(levels) or not 0 < div < 2.0**63:
        raise NoForm(f"div must be positive and n_levels_out in 2..2^32, not {div:g} and "
                     f"{levels:g}")
    ends = (-int(levels) // 2, int(levels) // 2 - 1) if one("signed") else (0, int(levels) - 1)
    for op, array, part in (("mul", mul.array, "_mul"), ("add", add.array, "_add"),
                            ("div", np.array(div), "_div")):
        x = trace.pointwise(x, op, array.astype(np.float64), f"{node.name}{part}")
    return trace.quantize(x, np.ones(1), np.zeros(1), ends, "half_up", node.name)


# --- Quantize and dequantize --------------------------------------------------------------------


def _one(scale: Value, zero: Value | None) -> tuple[float, float]:
    """The scale and the zero point of an activation."""
    pair = _constants(scale, *([zero] if zero is not None else []))
    s = checked_scale(pair[0].array)
    z = checked_zero(pair[1].array) if len(pair) == 2 else np.zeros(1)
    if s.size != 1 or z.size != 1:
        raise NoForm("an activation must have one scale and one zero point")
    return s.item(), z.item()


@rule("QuantizeLinear")
def _quantize_linear(trace: Trace, node: Node, x: Tensor, scale: Value,
                     zero: Value | None = None) -> Tensor:
    return quantized(trace, node, x, *_one(scale, zero), node.name)


def quantized(trace: Trace, node: Node, x: Tensor, s: float, z: float, label: str) -> Tensor:
    """The codes of `x`."""
    if x.tail is not None:
        return trace.behind(label, x, lambda t: quantized(trace, node, t, s, z, label))
    y = trace.quantize(x, np.array(s), np.array(z), code_range(node), "even", label)
    return replace(y, coded=(s, z))


@rule("DequantizeLinear")
def _dequantize_linear(trace: Trace, node: Node, x: Value, scale: Value,
                       zero: Value | None = None) -> Tensor:
    if not isinstance(x, Tensor):
        raise NoForm("must read codes of an activation")
    return dequantized(trace, x, *_one(scale, zero), node.name)


def dequantized(trace: Trace, x: Tensor, s: float, z: float, label: str) -> Tensor:
    """The reals that codes stand for."""
    if x.coded is not None and x.coded[1] == z:
        return replace(x, coded=None, factor=1.0 if x.coded[0] == s else s / x.coded[0])
    x = trace.plain(x, label)
    return replace(trace.pointwise(x, "sub", np.array(z), f"{label}_zero"), factor=s)


def _whole(trace: Trace, x: Value, s: float, z: float, label: str) -> Tensor:
    """Codes less their zero point, as whole numbers."""
    if not isinstance(x, Tensor):
        raise NoForm("must read codes of an activation")
    return dequantized(trace, x, 1.0, z, label)


def _weights(w: Value, zero: Value | None, axis: int) -> Constant:
    """Codes of weights less their zero point, with scale 1."""
    codes = _constants(w)[0]
    z = _constants(zero)[0].array if zero is not None else np.zeros(1)
    shape = [1] * codes.array.ndim
    if z.size > 1:
        shape[axis] = z.size
    array = codes.array - z.reshape(shape)
    return Constant(array, array, np.ones(array.shape))


def _requantized(trace: Trace, node: Node, acc: Tensor, bias: Value | None, factors: np.ndarray,
                 zero: Value | None) -> Tensor:
    """As the runtime has it: the accumulator as float32 times float32, rounded half to even."""
    spread = (-1, *(1,) * (len(acc.dims) - 2))
    addend = _constants(bias)[0].array.reshape(spread) if bias is not None else np.zeros(1)
    acc = trace.pointwise(acc, "add", addend, f"{node.name}_bias", float32=True)
    acc = trace.pointwise(acc, "mul", factors.astype(np.float64).reshape(spread) if factors.size > 1
                          else factors.astype(np.float64).reshape(1), f"{node.name}_scale",
                          float32=True)
    z = checked_zero(_constants(zero)[0].array).item() if zero is not None else 0.0
    y = trace.quantize(acc, np.ones(1), np.array(z), code_range(node), "even", node.name)
    return replace(y, coded=(1.0, z))


def _float32(*values: Value | float) -> list[np.ndarray]:
    return [np.asarray(each.array if isinstance(each, Constant) else each, np.float32)
            for each in values]


@rule("QLinearConv")
def _qlinear_conv(trace: Trace, node: Node, x: Value, xs: Value, xz: Value, w: Value, ws: Value,
                  wz: Value, ys: Value, yz: Value, bias: Value | None = None) -> Tensor:
    t = _whole(trace, x, *_one(xs, xz), node.name)
    acc = convolution(trace, node, t, _weights(w, wz, 0), f"{node.name}_acc")
    a, b, c = _float32(*_constants(xs, ws, ys))
    return _requantized(trace, node, acc, bias, a * b / c, yz)


@rule("QLinearMatMul")
def _qlinear_matmul(trace: Trace, node: Node, x: Value, xs: Value, xz: Value, w: Value, ws: Value,
                    wz: Value, ys: Value, yz: Value) -> Tensor:
    t = _whole(trace, x, *_one(xs, xz), node.name)
    acc = product(trace, node, t, _weights(w, wz, 1), f"{node.name}_acc")
    a, b, c = _float32(*_constants(xs, ws, ys))
    return _requantized(trace, node, acc, None, a * b / c, yz)


@rule("QGemm")
def _qgemm(trace: Trace, node: Node, x: Value, xs: Value, xz: Value, w: Value, ws: Value,
           wz: Value, bias: Value | None = None, ys: Value | None = None,
           yz: Value | None = None) -> Tensor:
    if node.of("transA", 0):
        raise NoForm("transA must be 0")
    t = _whole(trace, x, *_one(xs, xz), node.name)
    turned = bool(node.of("transB", 0))
    weights = _weights(w, wz, 0 if turned else 1)
    weights = weights.map(lambda array: array.T) if turned else weights
    acc = product(trace, node, t, weights, f"{node.name}_acc")
    alpha, a, b = _float32(node.of("alpha", 1.0), *_constants(xs, ws))
    if ys is not None:
        return _requantized(trace, node, acc, bias, alpha * a * b / _float32(ys)[0], yz)
    if bias is not None:
        acc = trace.pointwise(acc, "add", _constants(bias)[0].array, f"{node.name}_bias")
    return trace.pointwise(acc, "mul", (alpha * a * b).astype(np.float64), node.name)


@rule("ConvInteger", "MatMulInteger")
def _integer(trace: Trace, node: Node, x: Value, w: Value, xz: Value | None = None,
             wz: Value | None = None) -> Tensor:
    zero = _constants(xz)[0].value if xz is not None else 0.0
    t = _whole(trace, x, 1.0, zero, node.name)
    if node.op == "ConvInteger":
        return convolution(trace, node, t, _weights(w, wz, 0), node.name)
    return product(trace, node, t, _weights(w, wz, 1), node.name)


@rule("QLinearAdd", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearLeakyRelu",
      "QLinearSigmoid", "QLinearSoftmax", "QLinearConcat")
def _qlinear(trace: Trace, node: Node, *inputs: Value) -> Tensor:
    """The reals that the codes stand for, the operation on them, and its codes."""
    if node.op == "QLinearConcat":
        out, rest = inputs[:2], inputs[2:]
        groups = [rest[k:k + 3] for k in range(0, len(rest), 3)]
    else:
        count = 2 if node.op == "QLinearAdd" else 1
        groups = [inputs[3 * k:3 * k + 3] for k in range(count)]
        out = inputs[3 * count:3 * count + 2]
    reals = []
    for k, (x, s, z) in enumerate(groups):
        if not isinstance(x, Tensor):
            raise NoForm("must read codes of activations")
        reals.append(dequantized(trace, x, *_one(s, z), f"{node.name}_{k}"))
    inner = replace(node, op=node.op.removeprefix("QLinear"), name=f"{node.name}_real")
    if inner.op == "GlobalAveragePool" and node.of("channels_last", 0):
        raise NoForm("channels_last must be 0")
    y = RULES[inner.op](trace, inner, *reals)
    if not isinstance(y, Tensor):
        raise NoForm("must have one output")
    return quantized(trace, node, y, *_one(out[0], out[1] if len(out) > 1 else None), node.name)

