"""The walk over an ONNX graph: what each node becomes, layer by layer; nothing is guessed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import onnx

from ...model import (
    Add,
    AvgPool,
    Concat,
    DepthToSpace,
    Flatten,
    FloatConv,
    FloatLinear,
    Layer,
    MaxPool,
    Params,
    Permute,
    PiecewiseLinear,
    Pointwise,
    Quant,
    Steps,
    Upsample,
    layer_float,
)
from ...names import fresh
from .constants import BINARY, FOLDS, UNARY, Constant
from .reading import LARGEST_TENSOR, STANDARD, Node, NoForm, Source
from .tensors import Axes, Tensor, atoms

__all__ = ["DOMAINS", "RULES", "WIDE", "Row", "Trace", "Value", "rule"]

Value = Constant | Tensor
Rule = Callable[..., Value | Sequence[Value | None]]
F = TypeVar("F", bound=Rule)
RULES: dict[str, Rule] = {}
# Where operators that are no standard ones come from; QONNX's have been in all but the last three.
CHANNELS_LAST = "qonnx.custom_op.channels_last"
DOMAINS = ("", "ai.onnx", "qonnx.custom_op.general", CHANNELS_LAST,
           "finn.custom_op.general", "onnx.brevitas", "brevitas.onnx", "com.microsoft", "PACTOps",
           "ai.onnx.contrib")
MALFORMED = (ValueError, IndexError, TypeError, OverflowError, KeyError, ZeroDivisionError)
WIDE = (-2**46, 2**46)        # of a rounding without bounds of its own
INPUTS = {"Quant": (4, 4), "IntQuant": (4, 4), "BipolarQuant": (2, 2), "MultiThreshold": (2, 2),
          "Trunc": (5, 6), "QuantAvgPool2d": (1, 1), "MaxPoolNHWC": (1, 1), "Im2Col": (1, 1),
          "RequantShift": (3, 3), "QGemm": (6, 9), "QLinearAdd": (7, 8),
          "QLinearGlobalAveragePool": (4, 5), "QLinearAveragePool": (4, 5),
          "QLinearLeakyRelu": (4, 5), "QLinearSigmoid": (4, 5), "QLinearSoftmax": (5, 5),
          "QLinearConcat": (5, 62)}
NO_PADS = (0, 0, 0, 0)
NOTHING = Constant(np.zeros(0))
FOLDED, TIMES = 2**24, 64      # elements of computed constants, and how often what a file holds
NEUTRAL = {"add": 0.0, "sub": 0.0, "mul": 1.0, "div": 1.0, "min": math.inf, "max": -math.inf}
# Operations with whole numbers that give such.
WHOLE = ("add", "sub", "rsub", "mul", "neg", "abs", "sign", "min", "max", "relu", "floor", "ceil",
         "round")
# Operators on single values, which change what lies around an image, too.
EACH = (*UNARY, *BINARY, "Quant", "IntQuant", "BipolarQuant", "MultiThreshold", "Clip", "LeakyRelu",
        "Elu", "Selu", "Celu", "HardSigmoid", "Gelu", "PRelu", "Reciprocal", "Swish", "Cast",
        "BatchNormalization", "QuantizeLinear", "DequantizeLinear", "RequantShift")
PASSES = ("Identity", "Dropout", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "TopK",
          "ArgMax")


def rule(*names: str) -> Callable[[F], F]:
    """Register a rule: what a node becomes of its inputs, at least one of them a `Tensor`."""
    def register(function: F) -> F:
        for name in names:
            RULES[name] = function
        return function
    return register


class Row(NamedTuple):
    """A node and what it became; where that is nothing, `why` says why not."""

    node: str
    op: str
    became: str
    why: str = ""


class Trace:
    """The layers so far, and what each tensor of the graph is.

    Members
    -------
    plain_weights: layers whose weights are whole numbers without a quantizer.
    bipolar: layers that are BipolarQuant nodes.
    tail, rising: layers that were left off behind what was, and values that each must not order
        otherwise.
    fenced: layers with a Pad around them, behind which what they read is out of reach.
    made: the node that each layer was made for.
    whole, positive: layers that give whole numbers, and none below 0; "" for the images.
    """

    def __init__(self, source: Source, letters: str) -> None:
        self.source, self.letters = source, letters
        self.layers: list[Layer] = []
        self.params: dict[str, np.ndarray] = {}
        self.taken: set[str] = set()
        self.made: dict[str, str] = {}
        self.named: dict[str, Layer] = {}
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.text = ""
        self.top1 = False
        self.plain_weights: set[str] = set()
        self.bipolar: set[str] = set()
        self.fenced: set[str] = set()
        self.tail: list[Layer] = []
        self.rising: dict[str, np.ndarray] = {}
        self.whole = {""} if source.whole or source.pixels else set()
        self.positive: set[str] = set()
        self.readers: dict[str, list[Node]] = {}
        for node in source.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.unread = Counter(name for node in source.nodes for name in node.inputs if name)
        self.room = FOLDED + TIMES * sum(array.size for array in source.constants.values())
        batch = atoms(source.shape[0])
        dims = tuple(atoms(size) for size in source.shape[1:])
        axes: dict[str, Axes] = {"C": (), "H": (), "W": ()} | dict(zip(letters, dims, strict=True))
        self.entry = Tensor("", axes["C"], axes["H"], axes["W"], (batch, *dims), batch)
        self.values: dict[str, Value | None] = {
            name: Constant(array) for name, array in source.constants.items()}
        self.values[source.input] = self.entry

    def run(self) -> None:
        """Walk over all nodes; those without a form stay so, and so does what reads them."""
        for node in self.source.nodes:
            self.text, before = "", len(self.layers)
            try:
                results = self.step(node)
                self.made |= dict.fromkeys(
                    (layer.name for layer in self.layers[before:]), node.name)
                became = self.text or ", ".join(
                    _described(layer, node.name) for layer in self.layers[before:])
                self.rows.append(Row(node.name, node.op, became or (
                    "a constant" if all(isinstance(each, Constant) for each in results)
                    else "nothing of its own")))
            except NoForm as error:
                results = ()
                self.rows.append(Row(node.name, node.op, "", str(error)))
            except MALFORMED as error:
                results = ()
                self.rows.append(Row(node.name, node.op, "", f"must be as ONNX has it: {error}"))
            for place, name in enumerate(node.outputs):
                if name:
                    self.values[name] = results[place] if place < len(results) else None
            for name in filter(None, node.inputs):
                self.unread[name] -= 1
                if not self.unread[name] and isinstance(self.values[name], Constant):
                    self.values[name] = NOTHING  # no longer in memory

    def step(self, node: Node) -> Sequence[Value | None]:
        """The values of the outputs of one node."""
        inputs = [self.values[name] if name else None for name in node.inputs]
        missing = [name for name in node.inputs if name and self.values[name] is None]
        if missing:
            raise NoForm(f"reads {missing[0]}, which has no form")
        if node.domain not in DOMAINS:
            raise NoForm(f"must be of a known domain, not {node.domain}")
        known = FOLDS if not any(isinstance(each, Tensor) for each in inputs) else RULES
        if node.op not in known:
            raise NoForm(_unknown(node, known is FOLDS))
        _check_inputs(node)
        with np.errstate(all="ignore"):
            result: Value | Sequence[Value | None]
            if known is FOLDS:
                result = FOLDS[node.op](node, *inputs)
            elif node.domain == CHANNELS_LAST:
                result = self.channels_last(node, *inputs)
            elif node.op in EACH:
                result = self.around(node, *inputs)
            else:
                result = RULES[node.op](self, node, *inputs)
        if isinstance(result, Constant) and result.array.dtype.kind == "f" and not np.isfinite(
                result.array).all() and node.op != "Constant":
            raise NoForm("a constant must be finite, not NaN or infinite")
        if known is FOLDS and isinstance(result, Constant):
            self.room -= result.array.size
            if self.room < 0:
                raise NoForm("constants of the graph must not grow beyond what the file holds")
            self.watch(node, inputs, result)
        return (result,) if isinstance(result, Constant | Tensor) else result

    def around(self, node: Node, *inputs: Value | None) -> Value | Sequence[Value | None]:
        """An operator on single values: of an image, and of what a Pad has put around it."""
        ended = [each for each in inputs if isinstance(each, Tensor) and each.tail is not None]
        if len(ended) == 1 and self.at_end(node, EACH):
            return self.behind(node.name, ended[0], lambda t: RULES[node.op](
                self, node, *(t if each is ended[0] else each for each in inputs)))
        padded = [each for each in inputs if isinstance(each, Tensor) and any(each.pads)]
        if len(padded) != 1 or sum(isinstance(each, Tensor) for each in inputs) > 1 or (
                node.op == "Add" and padded[0].factor == 1 and padded[0].coded is None):
            return RULES[node.op](self, node, *inputs)
        t, before = padded[0], len(self.layers)
        inner, base = replace(t, pads=NO_PADS, base=np.zeros(1)), t.base
        if base.any():
            inner = self.added(inner, base, f"{node.name}_base")
        self.fenced.add(inner.layer)
        y = RULES[node.op](self, node, *(inner if each is t else each for each in inputs))
        if not isinstance(y, Tensor):
            raise NoForm("must have one output")
        values = {t.layer: np.zeros((1, t.size, 1, 1))}
        for layer in self.layers[before:]:
            values[layer.name] = layer_float(layer, self.of(layer), *(
                values[name] for name in layer.inputs))
        base = values[y.layer].reshape(-1)
        if base.any():
            y = self.added(y, -base, f"{node.name}_around")
        return replace(y, pads=t.pads, base=base)

    def behind(self, label: str, t: Tensor, make: Callable[[Tensor], Any]) -> Tensor:
        """What `make` makes of the tail of `t`: layers that the net does without."""
        assert t.tail is not None
        before, name = len(self.layers), t.tail.layer
        y = make(replace(t, layer=name, ending="", tail=None, factor=t.tail.factor,
                         coded=t.tail.coded))
        made = self.layers[before:]
        self.layers, self.tail = self.layers[:before], self.tail + made
        least, most = {"LogSoftmax": (-32, 0), "Tanh": (-1, 1)}.get(t.ending, (0, 1))
        values = self.rising
        values.setdefault(name, np.linspace(least, most, 1025).reshape(-1, 1))
        for layer in made:
            values[layer.name] = layer_float(layer, self.of(layer), *(
                values[each] for each in layer.inputs))
        if values[y.layer].shape[1] > 1 or (np.diff(values[y.layer], axis=0) < 0).any():
            raise NoForm(f"must rise, the same for all classes, behind the {t.ending}")
        self.text = f"left off with the {t.ending} before it"
        if made:
            self.notes.append(f"{label}: is {self.text}")
        return replace(y, layer=t.layer, ending=t.ending, tail=y, factor=1.0, coded=None)

    def added(self, t: Tensor, value: np.ndarray, label: str) -> Tensor:
        """The value of `t` and a constant, [1] or [C]."""
        name = self.emit(Pointwise, label, t.layer, params={"value": value}, op="add",
                         channels=len(value))
        return replace(t, layer=name)

    def channels_last(self, node: Node, x: Value | None, *inputs: Value | None) -> Value:
        """A standard operator on a tensor that has its channels last, as weights then have, too."""
        if not isinstance(x, Tensor):
            raise NoForm("must read an activation")
        rank = len(x.dims)
        first, last = (0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)
        moved = [each.map(lambda array: array.transpose(first)) if node.op == "Conv" and isinstance(
            each, Constant) and each.array.ndim == rank else each for each in inputs]
        y = RULES[node.op](self, node, self.turned(x, first), *moved)
        if not isinstance(y, Tensor):
            raise NoForm("must have one output")
        return self.turned(y, last)

    def turned(self, t: Tensor, order: Sequence[int]) -> Tensor:
        """`t` with its axes in another order, which keeps what is around an image."""
        bare = replace(t, pads=NO_PADS)
        return replace(self.view(bare).transposed(order), pads=t.pads)

    def watch(self, node: Node, inputs: Sequence[Value | None], result: Constant) -> None:
        """Say what is strange in a quantizer of weights."""
        weights = inputs[0] if inputs else None
        if not isinstance(weights, Constant) or not node.op.endswith("Quant"):
            return
        if result.codes is None:
            return
        if weights.array.ndim > 1 and np.ptp(result.codes) == 0:
            self.notes.append(f"{node.name}: makes one value of all {weights.array.size:,} weights")
        lost = int(((weights.array < 0) & (result.array >= 0)).sum())
        if not node.of("signed", 1) and result.codes.min() >= 0 and lost:
            self.notes.append(f"{node.name}: is unsigned, and takes {lost:,} of "
                              f"{weights.array.size:,} weights that are below 0 to 0 or more")

    # --- Layers ---------------------------------------------------------------------------------

    def emit(self, kind: type[Layer], label: str, *reads: str, params: Params | None = None,
             **fields: Any) -> str:
        """Append a layer that reads `reads`; returns its name, which nothing else has."""
        name = " ".join("".join(c if c.isprintable() else "_" for c in label).split()) or "layer"
        self.taken.add(name := fresh(name, self.taken))
        layer = kind(name=name, inputs=reads, **fields)
        self.layers.append(layer)
        self.named[name] = layer
        for key, value in (params or {}).items():
            if not np.isfinite(value).all():
                raise NoForm(f"{key} must be finite, not {value[~np.isfinite(value)][0]}")
            self.params[f"{name}.{key}"] = np.ascontiguousarray(
                value, layer.TYPES.get(key, np.float32))
        rounds = isinstance(layer, PiecewiseLinear | Quant | Steps)
        if (rounds or self.whole.issuperset(reads)) and _whole(layer, self.of(layer)):
            self.whole.add(name)
        if _positive(layer, self.of(layer), self.positive.issuperset(reads)):
            self.positive.add(name)
        return name

    def layer(self, name: str) -> Layer | None:
        """The layer of that name; None for the images."""
        return self.named.get(name)

    def of(self, layer: Layer) -> Params:
        """The parameters of a layer."""
        return {key: self.params[f"{layer.name}.{key}"] for key in layer.shapes()}

    def unpadded(self, t: Tensor) -> Tensor:
        """`t`, if it is a value and nothing else."""
        if t.ending:
            raise NoForm(f"must not follow {t.ending}, which must be at the end of the network")
        if any(t.pads):
            raise NoForm("a Pad must be before a convolution or a pool, or what works on single "
                         "values")
        if t.columns is not None:
            raise NoForm("windows of Im2Col must go into a matrix product")
        if t.levels is not None:
            raise NoForm("must not read comparisons with several constants, before they are summed")
        return t

    def view(self, t: Tensor) -> Tensor:
        """`t`, if its axes may move."""
        return replace(self.unpadded(replace(t, ending="")), ending=t.ending)

    def plain(self, t: Tensor, label: str) -> Tensor:
        """`t` as a layer whose value it is."""
        t = self.unpadded(t)
        if t.coded is not None:
            (scale, zero), t = t.coded, replace(t, coded=None)
            t = self.pointwise(t, "div", np.array(scale), f"{label}_codes")
            t = self.pointwise(t, "add", np.array(zero), f"{label}_codes")
        if t.factor != 1:
            factor, t = t.factor, replace(t, factor=1.0)
            t = self.pointwise(t, "mul", np.array(factor), f"{label}_scale")
        return t

    def per_channel(self, t: Tensor, array: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """A constant that goes with `t` as float64 [1] or [C]; `t` becomes a vector if it must."""
        values = t.aligned(array)
        if any(size > 1 for size in values.shape[len(t.channels):]) and len(
                [dim for dim in t.dims if set(dim) - set(t.batch)]) == 1:
            t = self.flattened(t)
            values = t.aligned(array)
        if any(size > 1 for size in values.shape[len(t.channels):]):
            raise NoForm("a constant must have one value per channel, not one per pixel")
        values = values.reshape(values.shape[:len(t.channels)]).astype(np.float64)
        if values.size > 1:
            values = np.broadcast_to(values, [atom.size for atom in t.channels])
        return t, values.reshape(-1)

    def pointwise(self, t: Tensor, op: str, array: np.ndarray | None = None, label: str = "", *,
                  float32: bool = False) -> Tensor:
        """An element-wise operation, with a constant if it has one."""
        if any(t.pads) and op == "add" and array is not None and not float32:
            inner, values = self.per_channel(replace(t, pads=NO_PADS), array)
            return replace(inner, pads=t.pads, base=t.base + values)
        t = self.plain(t, label)
        if array is None:
            return t.of(self.emit(Pointwise, label, t.layer, op=op))
        if op in NEUTRAL and (array == NEUTRAL[op]).all() and not float32:
            return t
        t, values = self.per_channel(t, array)
        return t.of(self.emit(Pointwise, label, t.layer, params={"value": values}, op=op,
                                      channels=len(values), float32=float32))

    def quantize(self, t: Tensor, scale: np.ndarray, zero: np.ndarray, ends: tuple[int, int],
                 rounding: str, label: str) -> Tensor:
        """A quantizer of reals; none where the values are on its grid already."""
        t = self.plain(t, label)
        t, s = self.per_channel(t, scale)
        t, z = self.per_channel(t, zero)
        count = max(len(s), len(z))
        s, z = np.broadcast_to(s, count), np.broadcast_to(z, count)
        before = self.grid(t.layer)
        if before is not None and before.channels == count and (
                ends[0] <= before.lo and before.hi <= ends[1]) and np.array_equal(
                    self.params[f"{before.name}.scale"], s) and np.array_equal(
                    self.params[f"{before.name}.zero_point"], z):
            self.text = f"nothing: its values are those of {before.name}"
            return t
        return t.of(self.emit(Quant, label, t.layer, params={"scale": s, "zero_point": z},
                                      channels=count, lo=ends[0], hi=ends[1], rounding=rounding))

    def undone(self, t: Tensor, op: str, array: np.ndarray, label: str) -> Tensor | None:
        """What a quantizer of whole numbers becomes whose operand is taken back behind it.

        x/s → round, clip → ·s is a quantizer of scale s; x + z → round, clip → - z one with a zero
        point.  Both are the same operations in one layer.
        """
        layer = self.layer(t.layer)
        if not isinstance(layer, Quant) or t.factor != 1 or t.coded is not None or (
                t.layer in self.fenced):
            return None
        before = self.layer(layer.inputs[0])
        scale, zero = (self.params[f"{layer.name}.{key}"] for key in ("scale", "zero_point"))
        wanted = {"mul": "div", "sub": "add"}.get(op)
        if not isinstance(before, Pointwise) or before.op != wanted or before.float32 or (
                scale != 1).any() or (op == "sub" and zero.any()):
            return None
        _, values = self.per_channel(t, array)
        if not np.array_equal(values, self.params[f"{before.name}.value"]) or (values <= 0).any():
            return None
        count = max(len(values), len(zero))
        params = {"scale": values if op == "mul" else scale,
                  "zero_point": values if op == "sub" else zero}
        return t.of(self.emit(Quant, label, *before.inputs, params={
            key: np.broadcast_to(value, count) for key, value in params.items()}, channels=count,
            lo=layer.lo, hi=layer.hi, rounding=layer.rounding))

    def grid(self, name: str) -> Quant | None:
        """The quantizer whose values those of a layer are."""
        layer = self.layer(name)
        while isinstance(layer, Flatten | Upsample) or (
                isinstance(layer, MaxPool) and not layer.zeros):
            layer = self.layer(layer.inputs[0])
        return layer if isinstance(layer, Quant) else None

    def narrowed(self, t: Tensor, low: float, high: float, label: str) -> Tensor | None:
        """`t` clipped, where the last layer is a quantizer and the bounds are among its values."""
        layer = self.layer(t.layer)
        if not isinstance(layer, Quant) or any(t.pads) or t.ending or t.layer in self.fenced:
            return None
        scale, zero = (self.params[f"{layer.name}.{key}"] for key in ("scale", "zero_point"))
        if t.coded is None:
            if t.factor != 1 or (scale != scale[0]).any() or (zero != zero[0]).any():
                return None
            low, high = (end / scale[0] + zero[0] for end in (low, high))
        nearest = [round(end) if math.isfinite(end) else end for end in (low, high)]
        if any(abs(end - near) > 1e-9 * max(1.0, abs(end)) for end, near in zip(
                (low, high), nearest, strict=True) if math.isfinite(end)):
            return None
        lo, hi = max(layer.lo, nearest[0]), min(layer.hi, nearest[1])
        if lo > hi:
            return None
        if (lo, hi) == (layer.lo, layer.hi):
            self.text = f"nothing: {layer.name} keeps within it"
            return t
        name = self.emit(Quant, label, *layer.inputs, params={"scale": scale, "zero_point": zero},
                         channels=layer.channels, lo=int(lo), hi=int(hi), rounding=layer.rounding)
        return replace(t, layer=name)

    # --- Axes -----------------------------------------------------------------------------------

    def flattened(self, t: Tensor) -> Tensor:
        """`t` as a view of a vector."""
        if t.vector:
            return t
        name = self.emit(Flatten, f"{t.layer or self.source.input}_flat", t.layer)
        return replace(t, layer=name, channels=t.axes, height=(), width=(), vector=True)

    def reordered(self, t: Tensor, order: Axes) -> Tensor:
        """`t` with its channels in another order."""
        if order == t.channels:
            return t
        places = np.arange(t.size).reshape([atom.size for atom in t.channels])
        places = places.transpose([t.channels.index(atom) for atom in order]).reshape(-1)
        name = self.emit(Permute, f"{t.layer or self.source.input}_order", t.layer,
                         params={"order": places}, channels=t.size)
        return replace(t, layer=name, channels=order,
                       base=t.base[places] if t.base.size > 1 else t.base)

    def image(self, t: Tensor) -> tuple[Tensor, bool]:
        """`t` with its channels along axis 1, and whether height and width are the other way."""
        self.unpadded(replace(t, pads=NO_PADS))
        if len(t.dims) not in (3, 4) or t.dims[0] != t.batch:
            raise NoForm("must read an image [N, C, H, W] or [N, C, W], not one of shape "
                         f"{list(t.shape)}")
        t = self.pixels(t) if t.vector else t
        if (blocks := self.blocks(t)) is not None:
            return blocks
        channels, spatial = t.dims[1], t.dims[2:]
        if set(channels) != set(t.channels):
            raise NoForm("must have the channels in axis 1")
        t = self.reordered(t, channels)
        if len(spatial) == 1:
            if spatial[0] != t.height + t.width or (t.height and t.width):
                raise NoForm("must read [N, C, W] of one axis")
            return t, bool(t.height)
        if spatial == (t.height, t.width):
            return t, False
        if spatial == (t.width, t.height):
            return t, True
        raise NoForm("must have height and width in the last two axes")

    def blocks(self, t: Tensor) -> tuple[Tensor, bool] | None:
        """An image with parts of its channels behind its height or width, as larger pixels."""
        channels, spatial = t.dims[1], t.dims[2:]
        own = (t.height, t.width) if len(spatial) == 2 else (t.height + t.width,)
        inner = [dim[len(axes):] for dim, axes in zip(spatial, own, strict=True)]
        parts = [atom for dim in inner for atom in dim]
        if not parts or any(dim[:len(axes)] != axes for dim, axes in zip(
                spatial, own, strict=True)) or {*channels, *parts} != set(t.channels):
            return None
        t, tall = self.reordered(t, (*channels, *parts)), len(spatial) == 1 and bool(t.height)
        block = [math.prod(atom.size for atom in dim) for dim in inner]
        sides = [atoms(math.prod(atom.size for atom in dim)) for dim in spatial]
        if len(spatial) == 1:
            block, image = ([*block, 1], [*sides, ()]) if tall else ([1, *block], [(), *sides])
        else:
            image = sides
        name = self.emit(DepthToSpace, f"{t.layer}_blocks", t.layer, mode="CRD",
                         block=block[0] if block[0] == block[1] else tuple(block))
        return replace(t, layer=name, channels=channels, height=image[0], width=image[1],
                       dims=(t.batch, channels, *sides)), tall

    def pixels(self, t: Tensor) -> Tensor:
        """A vector as the image that its axes make of it."""
        channels, *spatial = t.dims[1:]
        t = self.reordered(t, (*(atom for dim in spatial for atom in dim), *channels))
        sides = [math.prod(atom.size for atom in dim) for dim in spatial]
        high, wide = (1, *sides)[-2:]
        name = self.emit(DepthToSpace, f"{t.layer}_pixels", t.layer, mode="DCR",
                         block=high if high == wide else (high, wide))
        axes = [atoms(side) for side in sides]
        return replace(t, layer=name, channels=channels, height=axes[-2] if len(axes) > 1 else (),
                       width=axes[-1], dims=(t.batch, channels, *axes), vector=False)

    def bounded(self, t: Tensor) -> Tensor:
        """`t`, if it is not too large."""
        if math.prod(atom.size for atom in t.axes) > LARGEST_TENSOR:
            raise NoForm(f"must make at most {LARGEST_TENSOR:,} elements")
        return t

    def at_end(self, node: Node, also: tuple[str, ...] = ()) -> bool:
        """Whether nothing but views of its output and the choice of a class follow a node."""
        waiting = list(node.outputs)
        while waiting:
            for reader in self.readers.get(waiting.pop(), ()):
                if reader.op not in PASSES + also:
                    return False
                waiting += [name for name in reader.outputs if name]
        return True


def _check_inputs(node: Node) -> None:
    """As many inputs as the operator has, the first of them not left out."""
    least, most = INPUTS.get(node.op, (1, 64))
    if node.op not in INPUTS and onnx.defs.has(node.op):
        try:
            opset = node.opset if node.domain in STANDARD else onnx.defs.onnx_opset_version()
            schema = onnx.defs.get_schema(node.op, opset, "")
        except onnx.defs.SchemaError:
            raise NoForm(f"must be in opset {node.opset}, and is not") from None
        least, most = schema.min_input, schema.max_input
    if not least <= len(node.inputs) <= most or (least and not all(node.inputs[:least])):
        raise NoForm(f"must have {least} to {most} inputs, not "
                     f"{len([name for name in node.inputs if name])}")


def _whole(layer: Layer, p: Params) -> bool:
    """Whether it makes whole numbers, of such where it rounds none."""
    if isinstance(layer, Pointwise):
        return layer.op in WHOLE and all((value == np.rint(value)).all() for value in p.values())
    if isinstance(layer, AvgPool):
        return layer.total
    return not isinstance(layer, FloatConv | FloatLinear) and all(
        (p[key] == np.rint(p[key])).all() for key in ("scale", "zero_point", "offset") if key in p)


def _positive(layer: Layer, p: Params, reads: bool) -> bool:
    """Whether it makes nothing below 0, where what it `reads` is so or not."""
    match layer:
        case Quant():
            return bool((layer.lo >= p["zero_point"]).all())
        case Steps():
            return bool((p["offset"] >= 0).all() and (p["scale"] >= 0).all())
        case Pointwise():
            return layer.op in ("relu", "abs", "sigmoid") or (
                layer.op == "max" and bool((p["value"] >= 0).all())) or (
                reads and layer.op in ("mul", "div", "add", "min")
                and bool((p["value"] >= 0).all()))
    return reads and isinstance(layer, MaxPool | AvgPool | Flatten | Permute | DepthToSpace
                                | Upsample | Concat | Add)


def _described(layer: Layer, name: str) -> str:
    """The kind of a layer, what it does, and its name where that is not the node's."""
    kind = type(layer).__name__
    if isinstance(layer, Pointwise):
        return f"{kind} {layer.op}"
    return kind if layer.name == name else f"{kind} {layer.name}"


def _unknown(node: Node, constant: bool) -> str:
    if any(value is None for value in node.attributes.values()) and node.op in (
            "If", "Loop", "Scan"):
        return "is control flow, which has no integer form"
    if constant and node.op in RULES:
        return "must read an activation, not constants alone"
    return "has no integer form"
