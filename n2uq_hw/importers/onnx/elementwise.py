"""Rules of element-wise operations, normalizations, sums and comparisons."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np

from ...model import Add, IntConv, IntLinear, Pointwise, Steps
from ...names import fresh
from .constants import (
    BINARY,
    UNARY,
    Constant,
    axes_of,
    ends_of,
)
from .linear import over_pixels
from .lines import bent
from .reading import Node, NoForm
from .tensors import Levels, Tensor
from .trace import EACH, WIDE, Trace, Value, rule

__all__ = ["add"]

NEVER = float(np.finfo(np.float64).max) / 4    # a threshold that nothing reaches


def _left_off(trace: Trace, node: Node, x: Tensor) -> Tensor:
    trace.text = f"left off: {node.op} at the end"
    trace.notes.append(f"{node.name}: {node.op} at the end is left off; the order of classes is "
                       "the same")
    x, name = trace.plain(x, node.name), fresh(node.name, trace.taken)
    trace.taken.add(name)
    return replace(x, ending=node.op, tail=x.of(name))


@rule(*UNARY)
def _unary(trace: Trace, node: Node, x: Tensor) -> Tensor:
    if node.op in ("Sigmoid", "Tanh") and trace.at_end(node):
        return _left_off(trace, node, x)
    if node.op in ("Floor", "Ceil", "Round"):
        rounding = {"Floor": "floor", "Ceil": "ceil", "Round": "even"}[node.op]
        return trace.quantize(x, np.ones(1), np.zeros(1), WIDE, rounding, node.name)
    if node.op == "Relu" and (kept := trace.narrowed(x, 0.0, math.inf, node.name)):
        return kept
    y = trace.pointwise(x, UNARY[node.op], None, node.name)
    if node.op == "Sign":
        return trace.quantize(y, np.ones(1), np.zeros(1), (-1, 1), "even", f"{node.name}_levels")
    return y


@rule("Softmax", "LogSoftmax")
def _softmax(trace: Trace, node: Node, x: Tensor) -> Tensor:
    if not trace.at_end(node, EACH):
        raise NoForm("must be at the end of the network")
    return _left_off(trace, node, x)


@rule(*BINARY)
def _binary(trace: Trace, node: Node, *inputs: Value) -> Value:
    result = inputs[0]
    if len(inputs) == 1:
        return result
    for place, other in enumerate(inputs[1:]):
        label = node.name if place == 0 else f"{node.name}_{place + 1}"
        if isinstance(result, Tensor) and isinstance(other, Tensor):
            result = _two(trace, node, result, other, label)
        elif isinstance(result, Tensor) and isinstance(other, Constant):
            result = _based(trace, node, result, other, label) or _valued(
                trace, result, BINARY[node.op][0], other, label)
        elif isinstance(other, Tensor) and isinstance(result, Constant):
            result = _valued(trace, other, BINARY[node.op][1], result, label)
        else:
            raise NoForm("must not begin with two constants")
    return result


def _based(trace: Trace, node: Node, x: Tensor, value: Constant, label: str) -> Tensor | None:
    """Steps that count whole numbers, and a whole number more: steps from another base."""
    layer, array = trace.layer(x.layer), value.array.astype(np.float64)
    shared = any(len(trace.readers.get(name, ())) > 1 for name in node.inputs)
    if node.op != "Add" or not isinstance(layer, Steps) or shared or any(x.pads) \
            or x.layer not in trace.whole - trace.fenced or (array != np.rint(array)).any() \
            or (x.factor, x.coded, x.levels) != (1, None, None):
        return None
    x, base = trace.per_channel(trace.unpadded(x), array)
    p = trace.of(layer)
    count = max(len(base), len(p["scale"]))
    params = {key: np.broadcast_to(each, (count, *each.shape[1:])) for key, each in (
        p | {"offset": p["offset"] + base}).items()}
    return x.of(trace.emit(Steps, label, *layer.inputs, params=params, channels=count,
                           steps=layer.steps))


def _valued(trace: Trace, x: Tensor, op: str, value: Constant, label: str) -> Tensor:
    if not op:
        raise NoForm("must have a constant exponent")
    if x.levels is not None and op == "mul":
        return weighted(trace, x, x.levels, value.array.astype(np.float64))
    array = value.array.astype(np.float64)
    if value.array.dtype == np.int64 and (np.abs(array) >= 2.0**53).any():
        raise NoForm(f"a whole constant must be below 2^53, not {np.abs(value.array).max()}")
    if not np.isfinite(array).all():
        raise NoForm("a constant must be finite, not NaN or infinite")
    if op == "div" and not array.all():
        raise NoForm("must not divide by 0")
    if op in ("min", "max") and array.size == 1:
        low, high = (-math.inf, array.item()) if op == "min" else (array.item(), math.inf)
        if (kept := trace.narrowed(x, low, high, label)) is not None:
            return kept
    if array.ndim > len(x.dims):  # such as [1, 1, C] with [N, C]
        lead = array.shape[:array.ndim - len(x.dims)]
        if any(size > 1 for size in lead):
            raise NoForm(f"a constant must not have more axes than {list(x.shape)}, "
                         f"not {list(array.shape)}")
        x = replace(x, dims=((),) * len(lead) + x.dims)
    if op in ("div", "rdiv") and value.array.dtype == np.int64:  # of whole numbers, towards 0
        if op == "div" and array.size == 1 and not x.factor % array.item():
            return replace(x, factor=x.factor / array.item())
        y = trace.pointwise(x, op, array, f"{label}_quotient")
        return trace.quantize(y, np.ones(1), np.zeros(1), WIDE, "to_zero", label)
    return trace.undone(x, op, array, label) or trace.pointwise(x, op, array, label)


def _two(trace: Trace, node: Node, x: Tensor, y: Tensor, label: str) -> Tensor:
    if node.op == "Add":
        return add(trace, x, y, label)
    if node.op == "Sub":
        return add(trace, x, trace.pointwise(y, "neg", None, f"{label}_neg"), label)
    if node.op == "Mul":
        if x is y:
            return trace.pointwise(x, "pow", np.array(2.0), label)
        for one, other in ((x, y), (y, x)):
            layer = trace.layer(other.layer)
            if isinstance(layer, Pointwise) and layer.op == "sigmoid" and (
                    layer.inputs == (one.layer,) and one.dims == other.dims):
                return trace.pointwise(one, "silu", None, label)
    verb = {"Mul": "multiply", "Div": "divide"}.get(node.op, "join")
    raise NoForm(f"must not {verb} two activations: only their sum has an integer form, and x·x, "
                 "and x·Sigmoid(x)")


def add(trace: Trace, x: Tensor, y: Tensor, label: str) -> Tensor:
    """The sum of two activations of one shape."""
    if x.factor != y.factor or x.coded is not None or y.coded is not None:
        x, y = trace.plain(x, f"{label}_a"), trace.plain(y, f"{label}_b")
    x, y = trace.unpadded(x), trace.unpadded(y)
    if x.vector != y.vector:
        x, y = trace.flattened(x), trace.flattened(y)
    if x.pattern() != y.pattern():
        if len(x.dims) == len(y.dims) and x.shape == y.shape:
            for axis in range(len(x.dims)):  # channels in another order than they are held
                if set(x.dims[axis]) == set(x.channels) and set(y.dims[axis]) == set(y.channels):
                    x = trace.reordered(x, x.dims[axis])
                    y = trace.reordered(y, y.dims[axis])
        if x.pattern() != y.pattern():
            raise NoForm(f"must add two activations of one shape and order of axes, not "
                         f"{list(x.shape)} and {list(y.shape)}")
    return _one_product(trace, x, y, label) or replace(
        x, layer=trace.emit(Add, label, x.layer, y.layer))


def _one_product(trace: Trace, x: Tensor, y: Tensor, label: str) -> Tensor | None:
    """Two products of one tensor, with weights in digits: the product with their sum."""
    sides = []
    for t in (x, y):
        layer, factor = trace.layer(t.layer), 1.0
        if isinstance(layer, Pointwise) and layer.op == "mul" and layer.channels == 1:
            factor = float(trace.of(layer)["value"][0])
            layer = trace.layer(layer.inputs[0])
        if not isinstance(layer, IntConv | IntLinear):
            return None
        sides.append((layer, factor, trace.of(layer)))
    (one, a, p), (other, b, q) = sides
    codes = p["codes"] * a + q["codes"] * b if p["codes"].shape == q["codes"].shape else np.full(
        1, np.inf)
    if replace(one, name="") != replace(other, name="") or (p["scale"] != q["scale"]).any() or (
            np.abs(codes).max() >= 2.0**31 or (codes != np.rint(codes)).any()):
        return None
    sizes = {f.name: getattr(one, f.name) for f in fields(one)[2:]}
    return replace(x, layer=trace.emit(type(one), label, *one.inputs, params={
        "codes": codes, "scale": p["scale"]}, **sizes))


@rule("Clip")
def _clip(trace: Trace, node: Node, x: Tensor, *ends: Any) -> Tensor:
    low, high = ends_of(node, (x, *ends))
    return clipped(trace, x, low, high, node.name)


def clipped(trace: Trace, x: Tensor, low: float, high: float, label: str) -> Tensor:
    """`x` within bounds that may be infinite."""
    if (kept := trace.narrowed(x, low, high, label)) is not None:
        return kept
    if low > -math.inf:
        x = trace.pointwise(x, "max", np.array(low), f"{label}_low")
    return trace.pointwise(x, "min", np.array(high), f"{label}_high") if high < math.inf else x


@rule("LeakyRelu", "Elu", "Selu", "Celu", "HardSigmoid", "Gelu", "PRelu", "Reciprocal", "Swish")
def _activation(trace: Trace, node: Node, x: Tensor, slope: object = None) -> Tensor:
    def then(t: Tensor, op: str, value: float | None, part: str = "") -> Tensor:
        return trace.pointwise(t, op, None if value is None else np.array(value),
                               f"{node.name}{part}")
    match node.op:
        case "PRelu":
            if not isinstance(slope, Constant):
                raise NoForm("slope must be constant")
            return trace.pointwise(x, "leaky_relu", slope.array, node.name)
        case "LeakyRelu":
            return then(x, "leaky_relu", node.of("alpha", 0.01))
        case "Elu":
            return then(x, "elu", node.of("alpha", 1.0))
        case "Selu":
            y = then(x, "elu", node.of("alpha", 1.67326319217681884765625))
            return then(y, "mul", node.of("gamma", 1.05070102214813232421875), "_gamma")
        case "Celu":
            alpha = node.of("alpha", 1.0)
            return then(then(then(x, "div", alpha, "_in"), "elu", 1.0), "mul", alpha, "_out")
        case "HardSigmoid":
            y = then(then(x, "mul", node.of("alpha", 0.2), "_alpha"), "add",
                     node.of("beta", 0.5), "_beta")
            return then(then(y, "max", 0.0, "_low"), "min", 1.0, "_high")
        case "Reciprocal":
            return then(x, "rdiv", 1.0)
        case "Swish":
            if node.of("alpha", 1.0) != 1:
                raise NoForm(f"alpha must be 1, not {node.of('alpha', 1.0)}")
            return then(x, "silu", None)
    if node.of("approximate", "none") != "none":
        raise NoForm(f"approximate must be none, not {node.of('approximate', 'none')}")
    return then(x, "gelu", None)


@rule("BatchNormalization")
def _batch_norm(trace: Trace, node: Node, x: Tensor, *inputs: Value) -> Tensor:
    """In the order of the formula: (x - mean) / sqrt(var + eps) · weight + bias."""
    if len(inputs) != 4 or not all(isinstance(each, Constant) for each in inputs):
        raise NoForm("scale, bias, mean and variance must be constant")
    if node.of("training_mode", 0):
        raise NoForm("must not be in training mode")
    weight, bias, mean, var = (each.array.astype(np.float64).reshape(
        -1, *(1,) * (len(x.dims) - 2)) for each in inputs if isinstance(each, Constant))
    deviation = np.sqrt(var + node.of("epsilon", 1e-5))
    if not (np.isfinite(deviation) & (deviation > 0)).all():
        raise NoForm("variance must be positive and finite")
    for op, array, part in (("sub", mean, "_mean"), ("div", deviation, "_deviation"),
                            ("mul", weight, "_weight"), ("add", bias, "_bias")):
        x = trace.pointwise(x, op, array, f"{node.name}{part}")
    return x


# --- Comparisons --------------------------------------------------------------------------------


@rule("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
def _compare(trace: Trace, node: Node, x: Value, y: Value) -> Tensor:
    """1 or 0: a level above a threshold, or one less than above it."""
    op = node.op
    if isinstance(x, Constant):
        x, y = y, x
        op = op.replace("Greater", "?").replace("Less", "Greater").replace("?", "Less")
    if not isinstance(x, Tensor) or not isinstance(y, Constant):
        raise NoForm("must compare an activation with a constant")
    x = trace.plain(x, node.name)
    array = y.array.astype(np.float64)
    if op in ("Greater", "LessOrEqual"):  # x > c where x >= the next float64
        array = np.nextafter(array, np.inf)
    sign, base = (1.0, 0.0) if op.startswith("Greater") else (-1.0, 1.0)
    several = [axis for axis, size in enumerate(array.shape)
               if size > 1 and array.ndim == len(x.dims) and not x.dims[axis]]
    if several:
        x, rows = _rows(trace, x, array, several[-1])
        return replace(x, levels=Levels(several[-1], rows, np.full(rows.shape, sign), base))
    x, bounds = trace.per_channel(x, array)
    return _counted(trace, x, bounds[:, None], sign, base, node.name)


def _rows(trace: Trace, x: Tensor, array: np.ndarray, axis: int) -> tuple[Tensor, np.ndarray]:
    """A constant with several values along an axis where `x` has one, as rows per channel."""
    rows = np.moveaxis(array, axis, -1)
    places = np.arange(rows[..., 0].size, dtype=np.float64).reshape(np.expand_dims(
        rows[..., 0], axis).shape)
    x, order = trace.per_channel(x, places)
    return x, rows.reshape(-1, rows.shape[-1])[order.astype(np.int64)].astype(np.float64)


def _counted(trace: Trace, x: Tensor, rows: np.ndarray, sign: float, base: float, label: str
             ) -> Tensor:
    """base + sign · #{x >= threshold}, rows of thresholds."""
    count = len(rows)
    return x.of(trace.emit(Steps, label, x.layer, params={
        "thresholds": np.sort(rows, axis=1), "scale": np.full(count, sign),
        "offset": np.full(count, base)}, channels=count, steps=rows.shape[1]))


def weighted(trace: Trace, x: Tensor, levels: Levels, array: np.ndarray) -> Tensor:
    """Comparisons times constants, such as the signs of steps."""
    bare = replace(x, levels=None)
    if array.size == 1:
        array = np.broadcast_to(array, levels.thresholds.shape)
    else:
        _, array = _rows(trace, bare, array, levels.axis)
    return replace(bare, levels=replace(levels, weights=levels.weights * array))


@rule("ReduceSum")
def _sum(trace: Trace, node: Node, x: Tensor, *axes: Value) -> Tensor:
    """Over pixels; or of comparisons with several constants, which makes them a quantizer."""
    if x.levels is None:
        return over_pixels(trace, node, x, *axes)
    levels, over = x.levels, axes_of(node, (x, *axes), len(x.dims))
    if over != (levels.axis,):
        raise NoForm(f"must be over axis {levels.axis}, along which there are several comparisons, "
                     f"not over {list(over)}")
    bare = replace(x, levels=None)
    if not node.of("keepdims", 1):
        bare = replace(bare, dims=tuple(dim for k, dim in enumerate(x.dims) if k != levels.axis))
    weights = levels.weights
    if levels.base or (weights != np.rint(weights)).any() or np.abs(weights).max() > 1:
        raise NoForm("comparisons must count 1 or -1")
    parts = []
    for sign, part in ((1.0, "_up"), (-1.0, "_down")):
        used = weights == sign
        if used.any():
            most = int(used.sum(axis=1).max())
            rows = np.sort(np.where(used, levels.thresholds, NEVER), axis=1)[:, :most]
            rows = np.broadcast_to(rows, np.broadcast_shapes(rows.shape, (len(weights), 1)))
            parts.append(_counted(trace, bare, rows, sign, 0.0, f"{node.name}{part}"))
    if not parts:
        raise NoForm("must count a comparison")
    return parts[0] if len(parts) == 1 else add(trace, parts[0], parts[1], node.name)


@rule("Not")
def _not(trace: Trace, node: Node, x: Tensor) -> Tensor:
    return trace.pointwise(x, "rsub", np.array(1.0), node.name)


@rule("Where")
def _where(trace: Trace, node: Node, test: Value, one: Value, other: Value) -> Tensor:
    """Two constants, or two lines in fixed point, by a comparison."""
    layer = trace.layer(test.layer) if isinstance(test, Tensor) else None
    if not isinstance(test, Tensor) or not isinstance(layer, Steps):
        raise NoForm("must choose by a comparison")
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return bent(trace, layer, one, other, node.name)
    if not (isinstance(one, Constant) and isinstance(other, Constant)
            and one.array.size == other.array.size == 1):
        raise NoForm("must choose between two constants, or two lines that are rounded down")
    span, base = one.value - other.value, other.value
    params = trace.of(layer)
    params |= {"scale": params["scale"] * span, "offset": params["offset"] * span + base}
    return replace(test, layer=trace.emit(Steps, node.name, *layer.inputs, params=params,
                                          channels=layer.channels, steps=layer.steps))
