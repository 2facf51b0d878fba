"""Constants of the graph, evaluated as they are met, and the codes that quantizers make."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...model import OPS
from ...model.low_bit import ROUNDINGS
from .reading import Node, NoForm

__all__ = ["BINARY", "BOOL", "FLOATS", "FOLDS", "UNARY", "WHOLE", "Constant", "axes_of", "axis_of",
           "ends_of", "quantizer_ends", "rounding_of", "shape_of"]

LEAST_SCALE = float(np.finfo(np.float64).tiny)
MOST_BITS = 32
LARGEST_GROWTH = 2**22    # elements of a constant that is larger than those it is made of
LARGEST_PRODUCT = 2**28   # multiplications of two constants
FLOATS, BOOL = (1, 10, 11, 16), 9     # of the types that a Cast names
WHOLE = (2, 3, 4, 5, 6, 7, 12, 13, 21, 22)
ROUND = {"ROUND": "even", "HALF_EVEN": "even", "CEIL": "ceil", "FLOOR": "floor", "UP": "away",
         "DOWN": "to_zero", "HALF_UP": "half_away", "HALF_DOWN": "half_to_zero"}
# ONNX operators that are operations of `OPS`; of two operands, either one may be the constant.
UNARY = {"Relu": "relu", "Floor": "floor", "Ceil": "ceil", "Round": "round", "Neg": "neg",
         "Abs": "abs", "Sqrt": "sqrt", "Exp": "exp", "Log": "log", "Erf": "erf", "Sign": "sign",
         "Sigmoid": "sigmoid", "Tanh": "tanh", "Softplus": "softplus", "Softsign": "softsign",
         "HardSwish": "hard_swish"}
BINARY = {"Add": ("add", "add"), "Sub": ("sub", "rsub"), "Mul": ("mul", "mul"),
          "Div": ("div", "rdiv"), "Pow": ("pow", ""), "Min": ("min", "min"), "Max": ("max", "max")}


@dataclass(frozen=True, eq=False)
class Constant:
    """Float64, int64 or bool values; where a quantizer made them, values = `codes` · `scale`.

    `codes` and `scale` have the shape of the values; a scale may be repeated in memory.
    """

    array: np.ndarray
    codes: np.ndarray | None = None
    scale: np.ndarray | None = None

    def map(self, move: Callable[[np.ndarray], np.ndarray]) -> Constant:
        """The same elements elsewhere."""
        return Constant(move(self.array),
                        None if self.codes is None else move(self.codes),
                        None if self.scale is None else move(self.scale))

    def scaled(self, factor: np.ndarray, op: Callable[..., np.ndarray]) -> Constant:
        """Times a constant, or by one; codes stay as they are."""
        array = op(self.array, factor)
        if self.codes is None or self.scale is None or array.shape != self.array.shape:
            return Constant(array)
        return Constant(array, self.codes, np.broadcast_to(op(self.scale, factor), array.shape))

    @property
    def value(self) -> float:
        """Of a constant of one element."""
        if self.array.size != 1:
            raise NoForm(f"a constant must have one value, not {self.array.size}")
        return float(self.array.reshape(()))


def coded(codes: np.ndarray, scale: np.ndarray) -> Constant:
    """Codes times a scale, which goes with them as NumPy has it."""
    scale = np.broadcast_to(scale, codes.shape)
    return Constant(codes * scale, codes, scale)


def shape_of(values: Constant) -> tuple[int, ...]:
    """Sizes that a constant holds."""
    if values.array.dtype != np.int64 or values.array.ndim > 1:
        raise NoForm("a shape must be one row of whole numbers")
    return tuple(int(size) for size in np.atleast_1d(values.array))


def axes_of(node: Node, inputs: Sequence[Any], rank: int, place: int = 1,
            default: Sequence[int] | None = None) -> tuple[int, ...]:
    """The axes that a node names, as an input or as an attribute, counted from 0."""
    if len(inputs) > place and inputs[place] is not None:
        if not isinstance(inputs[place], Constant):
            raise NoForm("axes must be constant")
        axes: Sequence[int] = shape_of(inputs[place])
    else:
        held = node.attributes.get("axes")
        axes = held if isinstance(held, tuple) else tuple(default or range(rank))
    if any(not -rank <= axis < rank for axis in axes):
        raise NoForm(f"axes must be in {-rank}..{rank - 1}, not {list(axes)}")
    return tuple(axis % rank for axis in axes)


def axis_of(node: Node, rank: int, default: int) -> int:
    """The axis that a node names, counted from 0."""
    axis = node.of("axis", default)
    if not -rank <= axis < rank:
        raise NoForm(f"axis must be in {-rank}..{rank - 1}, not {axis}")
    return axis % rank


def ends_of(node: Node, inputs: Sequence[Any]) -> tuple[float, float]:
    """The bounds of a Clip, as inputs or as attributes."""
    ends = []
    for place, key, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        if len(inputs) > place and inputs[place] is not None:
            if not isinstance(inputs[place], Constant):
                raise NoForm(f"{key} must be constant")
            ends.append(inputs[place].value)
        else:
            ends.append(float(node.attributes.get(key, default)))
    if math.isnan(ends[0]) or math.isnan(ends[1]):
        raise NoForm("bounds must be numbers, not NaN")
    return ends[0], ends[1]


def checked_scale(scale: np.ndarray) -> np.ndarray:
    """A scale, if it is one."""
    scale = scale.astype(np.float64)
    if not (np.isfinite(scale) & (scale > 0)).all():
        bad = scale[~(np.isfinite(scale) & (scale > 0))].reshape(-1)[0]
        raise NoForm(f"scale must be positive and finite, not {bad}")
    if (scale < LEAST_SCALE).any():
        raise NoForm(f"scale must be at least {LEAST_SCALE:.3g}, not {scale.min():.3g}")
    return scale


def checked_zero(zero: np.ndarray) -> np.ndarray:
    """A zero point, if it is one."""
    zero = zero.astype(np.float64)
    if not np.isfinite(zero).all() or (np.abs(zero) > 2.0**MOST_BITS).any():
        raise NoForm(f"zero point must be finite and below 2^{MOST_BITS}, "
                     f"not {zero.reshape(-1)[np.abs(zero).argmax()]}")
    return zero


def rounding_of(node: Node, default: str = "ROUND") -> str:
    """A rounding of `ROUNDINGS`, from QONNX's name."""
    mode = node.of("rounding_mode", default).upper()
    if mode not in ROUND:
        raise NoForm(f"rounding_mode must be one of {', '.join(ROUND)}, not {mode}")
    return ROUND[mode]


def quantizer_ends(bits: float, signed: bool, narrow: bool) -> tuple[int, int]:
    """Least and largest code of so many bits."""
    if bits != int(bits) or not 1 <= bits <= MOST_BITS:
        raise NoForm(f"bit width must be a whole number in 1..{MOST_BITS}, not {bits:g}")
    size = int(bits)
    if signed:
        return -2**(size - 1) + narrow, max(2**(size - 1) - 1, -2**(size - 1) + narrow)
    return 0, max(2**size - 1 - narrow, 0)


# --- Evaluation ---------------------------------------------------------------------------------

Fold = Callable[..., Constant]
FOLDS: dict[str, Fold] = {}


def fold(*names: str) -> Callable[[Fold], Fold]:
    def register(rule: Fold) -> Fold:
        for name in names:
            FOLDS[name] = rule
        return rule
    return register


def _bounded(*shapes: tuple[int, ...], held: int | None = None) -> tuple[int, ...]:
    """The shape of what is computed of such; it may not be much larger than they are, or `held`."""
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        raise NoForm(f"shapes must go together, not be "
                     f"{' and '.join(str(list(shape)) for shape in shapes)}") from None
    most = max(LARGEST_GROWTH, *(math.prod(each) for each in shapes)) if held is None else max(
        LARGEST_GROWTH, held)
    if math.prod(shape) > most:
        raise NoForm(f"constants must have at most {most:,} elements, not {math.prod(shape):,}")
    return shape


def _elementwise(node: Node, *inputs: Constant) -> Constant:
    _bounded(*(each.array.shape for each in inputs))
    arrays = [each.array for each in inputs]
    if node.op in UNARY:
        return Constant(OPS[UNARY[node.op]].function(arrays[0].astype(np.float64)))
    if node.op == "Div" and all(array.dtype == np.int64 for array in arrays):
        if not arrays[1].all():
            raise NoForm("must not divide by 0")
        return Constant(np.trunc(arrays[0] / arrays[1]).astype(np.int64))
    function = OPS[BINARY[node.op][0]].function
    if node.op == "Mul" and inputs[1].array.size > inputs[0].array.size:
        inputs = inputs[::-1]
    if node.op in ("Mul", "Div") and (whole := _whole(inputs[0])) is not None:
        return whole.scaled(inputs[1].array.astype(np.float64), function)
    result = arrays[0]
    for array in arrays[1:]:
        result = function(result, array)
    return Constant(result)


def _whole(x: Constant) -> Constant | None:
    """A constant with codes; one of whole numbers is its own."""
    if x.codes is not None or x.array.ndim < 2:
        return x if x.codes is not None else None
    array = x.array.astype(np.float64)
    return coded(array, np.ones(1)) if (array == np.rint(array)).all() else None


for _name in (*UNARY, *BINARY):
    FOLDS[_name] = _elementwise


@fold("Identity", "Dropout")
def _identity(node: Node, x: Constant, *rest: Constant) -> Constant:
    return x


@fold("Cast")
def _cast(node: Node, x: Constant) -> Constant:
    to = node.of("to", 0)
    if to in FLOATS:
        return Constant(x.array.astype(np.float64), x.codes, x.scale)
    if to != BOOL and to not in WHOLE:
        raise NoForm(f"must make numbers, not type {to}")
    return Constant(x.array.astype(bool) if to == BOOL else np.trunc(x.array).astype(np.int64))


@fold("Constant")
def _constant(node: Node) -> Constant:
    for key, dtype in (("value", None), ("value_float", float), ("value_floats", float),
                       ("value_int", np.int64), ("value_ints", np.int64)):
        if node.attributes.get(key) is not None:
            value = node.attributes[key]
            return Constant(value if dtype is None else np.array(value, dtype))
    raise NoForm("a constant must be of numbers")


@fold("ConstantOfShape")
def _constant_of_shape(node: Node, shape: Constant) -> Constant:
    value = node.of("value", np.zeros(1))
    return Constant(np.full(_bounded(shape_of(shape), held=1), value.reshape(-1)[0]))


@fold("Shape")
def _shape(node: Node, x: Constant) -> Constant:
    return Constant(np.array(x.array.shape, np.int64))


def reshape_target(node: Node, shape: Constant, before: Sequence[int]) -> tuple[int, ...]:
    """The sizes that a Reshape asks for: 0 keeps one."""
    wanted = shape_of(shape)
    if node.of("allowzero", 0):
        return wanted
    if any(size == 0 and axis >= len(before) for axis, size in enumerate(wanted)):
        raise NoForm(f"shape must keep sizes that there are, not be {list(wanted)}")
    return tuple(before[axis] if size == 0 else size for axis, size in enumerate(wanted))


@fold("Reshape")
def _reshape(node: Node, x: Constant, shape: Constant) -> Constant:
    return x.map(lambda array: array.reshape(reshape_target(node, shape, x.array.shape)))


@fold("Flatten")
def _flatten(node: Node, x: Constant) -> Constant:
    axis = node.of("axis", 1)
    return x.map(lambda array: array.reshape(math.prod(array.shape[:axis]), -1))


@fold("Transpose")
def _transpose(node: Node, x: Constant) -> Constant:
    order = node.of("perm", tuple(reversed(range(x.array.ndim))))
    return x.map(lambda array: array.transpose(order))


@fold("Squeeze")
def _squeeze(node: Node, x: Constant, *axes: Constant) -> Constant:
    ones = [axis for axis, size in enumerate(x.array.shape) if size == 1]
    return x.map(lambda array: array.squeeze(axes_of(node, (x, *axes), array.ndim, default=ones)))


@fold("Unsqueeze")
def _unsqueeze(node: Node, x: Constant, *axes: Constant) -> Constant:
    held = shape_of(axes[0]) if axes else node.of("axes", ())
    return x.map(lambda array: np.expand_dims(array, held))


@fold("Concat")
def _concat(node: Node, *inputs: Constant) -> Constant:
    axis = node.of("axis", 0)
    whole = np.concatenate([each.array for each in inputs], axis)
    if any(each.codes is None for each in inputs):
        return Constant(whole)
    return Constant(whole, np.concatenate([each.codes for each in inputs if each.codes is not None],
                                          axis),
                    np.concatenate([each.scale for each in inputs if each.scale is not None], axis))


@fold("Gather")
def _gather(node: Node, x: Constant, index: Constant) -> Constant:
    return x.map(lambda array: np.take(array, index.array, axis=node.of("axis", 0)))


def slices_of(node: Node, inputs: Sequence[Any], shape: Sequence[int]) -> tuple[slice, ...]:
    """A slice per axis, from inputs or attributes."""
    def held(place: int, key: str, default: Sequence[int]) -> tuple[int, ...]:
        if len(inputs) > place and inputs[place] is not None:
            if not isinstance(inputs[place], Constant):
                raise NoForm(f"{key} must be constant")
            return shape_of(inputs[place])
        return tuple(node.attributes.get(key, default))
    starts, ends = held(1, "starts", ()), held(2, "ends", ())
    axes = held(3, "axes", range(len(starts)))
    steps = held(4, "steps", (1,) * len(starts))
    cut = [slice(None)] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if not -len(shape) <= axis < len(shape) or step == 0:
            raise NoForm(f"axes and steps must be of the tensor, not {axis} and {step}")
        cut[axis] = slice(start, None if step < 0 and end < -shape[axis] else end, step)
    return tuple(cut)


@fold("Slice")
def _slice(node: Node, x: Constant, *inputs: Constant) -> Constant:
    cut = slices_of(node, (x, *inputs), x.array.shape)
    return x.map(lambda array: array[cut])


@fold("Expand")
def _expand(node: Node, x: Constant, shape: Constant) -> Constant:
    whole = _bounded(x.array.shape, shape_of(shape), held=x.array.size)
    return x.map(lambda array: np.broadcast_to(array, whole))


@fold("MatMul")
def _matmul(node: Node, x: Constant, y: Constant) -> Constant:
    if x.array.ndim != 2 or y.array.ndim != 2:
        raise NoForm("constants must be matrices to be multiplied")
    _bounded((x.array.shape[0], y.array.shape[1]), held=x.array.size + y.array.size)
    if x.array.size * y.array.shape[1] > LARGEST_PRODUCT:
        raise NoForm(f"constants must need at most {LARGEST_PRODUCT:,} multiplications")
    return Constant(x.array @ y.array)


@fold("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")
def _reduce(node: Node, x: Constant, *axes: Constant) -> Constant:
    over = axes_of(node, (x, *axes), x.array.ndim)
    functions: dict[str, Callable[..., Any]] = {
        "ReduceMean": np.mean, "ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min,
        "ReduceProd": np.prod}
    function = functions[node.op]
    return Constant(np.asarray(function(x.array, axis=over, keepdims=bool(node.of("keepdims", 1)))))


@fold("Clip")
def _clip(node: Node, x: Constant, *ends: Constant) -> Constant:
    low, high = ends_of(node, (x, *ends))
    array = np.clip(x.array, low, high).astype(x.array.dtype)
    return Constant(array)


@fold("Where")
def _where(node: Node, test: Constant, one: Constant, other: Constant) -> Constant:
    _bounded(*(each.array.shape for each in (test, one, other)))
    return Constant(np.where(test.array, one.array, other.array))


@fold("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
def _compare(node: Node, x: Constant, y: Constant) -> Constant:
    _bounded(x.array.shape, y.array.shape)
    function = {"Equal": np.equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal,
                "Less": np.less, "LessOrEqual": np.less_equal}[node.op]
    return Constant(function(x.array, y.array))


@fold("Reciprocal")
def _reciprocal(node: Node, x: Constant) -> Constant:
    return Constant(1 / x.array)


# --- Quantizers of constants ----------------------------------------------------------------------


@fold("Quant", "IntQuant")
def _quant(node: Node, x: Constant, scale: Constant, zero: Constant, bits: Constant) -> Constant:
    s, z = checked_scale(scale.array), checked_zero(zero.array)
    _bounded(x.array.shape, s.shape, z.shape)
    signed, narrow = bool(node.of("signed", 1)), bool(node.of("narrow", 0))
    low, high = quantizer_ends(bits.value, signed, narrow)
    q = x.array / s + z
    if bits.value == 1 and signed:
        return coded(np.where(q >= 0, 1.0, -1.0) - z, s)
    return coded(np.clip(ROUNDINGS[rounding_of(node)](q), low, high) - z, s)


@fold("BipolarQuant")
def _bipolar(node: Node, x: Constant, scale: Constant) -> Constant:
    return coded(np.where(x.array >= 0, 1.0, -1.0), checked_scale(scale.array))


def along(node: Node, values: Constant, rank: int) -> np.ndarray:
    """A scale or zero point of a QuantizeLinear: one, or one along its axis."""
    if values.array.ndim != 1 or values.array.size == 1:
        return values.array.reshape((1,) * rank) if values.array.size == 1 else values.array
    axis = node.of("axis", 1)
    if not -rank <= axis < rank:
        raise NoForm(f"axis must be in {-rank}..{rank - 1}, not {axis}")
    sizes = [1] * rank
    sizes[axis] = values.array.size
    return values.array.reshape(sizes)


def _unblocked(node: Node) -> None:
    if node.of("block_size", 0):
        raise NoForm(f"must have a scale per tensor or axis, not per block of "
                     f"{node.of('block_size', 0)}")


def code_range(node: Node) -> tuple[int, int]:
    """Least and largest code of the type that a zero point has."""
    held = node.attributes.get("range")
    if held is None:
        raise NoForm("zero point must be a constant of 4 to 32 bits")
    return int(held[0]), int(held[1])


@fold("QuantizeLinear")
def _quantize(node: Node, x: Constant, scale: Constant, zero: Constant | None = None) -> Constant:
    _unblocked(node)
    rank = x.array.ndim
    s = along(node, scale, rank)
    z = along(node, zero, rank) if zero is not None else np.zeros(1)
    _bounded(x.array.shape, s.shape)
    low, high = code_range(node)
    return Constant(np.clip(np.rint(x.array / checked_scale(s)) + z, low, high).astype(np.int64))


@fold("DequantizeLinear")
def _dequantize(node: Node, x: Constant, scale: Constant, zero: Constant | None = None) -> Constant:
    _unblocked(node)
    rank = x.array.ndim
    s = along(node, scale, rank)
    z = along(node, zero, rank) if zero is not None else np.zeros(1)
    _bounded(x.array.shape, s.shape)
    return coded(x.array - checked_zero(z), checked_scale(s))
