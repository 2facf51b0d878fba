"""The trained network as data: layers, parameters, net files, and what they compute in floats.

A `Net` is a graph of layers with the parameters of the authors' modules.  This module holds the
formulas of the paper in NumPy float64; nothing here knows of hardware, and nothing needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from functools import singledispatch
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..errors import N2uqError
from ..files import load_arrays, save_arrays
from ..names import fresh, is_name
from ..tables import Shown, Table

__all__ = [
    "IMAGES", "LTQ", "Add", "AvgPool", "BatchNorm", "Bias", "Conv", "Flatten", "FloatConv",
    "FloatLinear", "InputSpec", "Layer", "Linear", "MaxPool", "Net", "PReLU", "Pact", "ReLU",
    "ReLU6", "convolve", "images_name", "layer_float", "load_net", "ltq_levels", "ltq_thresholds",
    "pact_levels", "sources", "walk", "weight_codes",
]

FORMAT = 1
IMAGES = "input"        # what layers call the images, see `images_name`
LATER = {"later": True}  # a field that older files lack; files hold it where it is no default
COLUMNS = 2**23         # float64 entries of a convolution's matrix of windows: 64 MiB
BN_EPS = 1e-5
LARGEST = float(np.finfo(np.float64).max)
T = TypeVar("T")
Params = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layer:
    """One layer: hyperparameters only; `Net.params` holds its arrays as ``name.parameter``.

    `inputs` names the layers that it reads; `images_name` is what the images are called, "input"
    unless a layer has that name.  () is the layer before it.
    """

    name: str
    inputs: tuple[str, ...] = field(default=(), kw_only=True, metadata=LATER)
    arity: ClassVar[int] = 1
    KINDS: ClassVar[dict[str, type[Layer]]] = {}

    def __init_subclass__(cls) -> None:
        Layer.KINDS[cls.__name__] = cls

    def shapes(self) -> Shapes:
        """Shape of each parameter, by its name inside the layer."""
        return {}


@dataclass(frozen=True)
class Conv(Layer):
    """2-D convolution with N2UQ weights, [N, Cin, H, W] -> [N, Cout, H', W']; pads with 0."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bits: int = 2

    def shapes(self) -> Shapes:
        """`weight` [Cout, Cin/groups, k, k], `clip_val` [1]."""
        return {"weight": (self.out_channels, self.in_channels // self.groups,
                           self.kernel, self.kernel), "clip_val": (1,)}


@dataclass(frozen=True)
class Linear(Layer):
    """Matrix product with N2UQ weights, [N, in] -> [N, out]."""

    in_features: int
    out_features: int
    bits: int = 2

    def shapes(self) -> Shapes:
        """`weight` [out, in], `clip_val` [1]."""
        return {"weight": (self.out_features, self.in_features), "clip_val": (1,)}


@dataclass(frozen=True)
class FloatConv(Layer):
    """Full-precision 2-D convolution without bias, [N, Cin, H, W] -> [N, Cout, H', W']."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    padding: int = 0

    def shapes(self) -> Shapes:
        """`weight` [Cout, Cin, k, k]."""
        return {"weight": (self.out_channels, self.in_channels, self.kernel, self.kernel)}


@dataclass(frozen=True)
class FloatLinear(Layer):
    """Full-precision matrix product and bias, [N, in] -> [N, out]."""

    in_features: int
    out_features: int

    def shapes(self) -> Shapes:
        """`weight` [out, in], `bias` [out]."""
        return {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalization with running statistics, eps 1e-5."""

    channels: int

    def shapes(self) -> Shapes:
        """`weight`, `bias`, `running_mean`, `running_var`, each [C]."""
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (self.channels,))


@dataclass(frozen=True)
class Bias(Layer):
    """Learnable bias per channel."""

    channels: int

    def shapes(self) -> Shapes:
        """`bias` [1, C, 1, 1]."""
        return {"bias": (1, self.channels, 1, 1)}


@dataclass(frozen=True)
class PReLU(Layer):
    """Slope per channel below zero; the slope may be negative."""

    channels: int

    def shapes(self) -> Shapes:
        """`weight` [C]."""
        return {"weight": (self.channels,)}


@dataclass(frozen=True)
class ReLU(Layer):
    """0 below zero."""


@dataclass(frozen=True)
class ReLU6(Layer):
    """0 below zero, 6 above six."""


@dataclass(frozen=True)
class Add(Layer):
    """The sum of two layers of one shape."""

    arity: ClassVar[int] = 2


@dataclass(frozen=True)
class LTQ(Layer):
    """Learnable threshold quantizer to 2**bits levels (paper section 3.2)."""

    bits: int

    def shapes(self) -> Shapes:
        """`start` [1], `a` [2**bits - 1], `scale1` [1], `scale2` [1]."""
        return {"start": (1,), "a": (2**self.bits - 1,), "scale1": (1,), "scale2": (1,)}


@dataclass(frozen=True)
class Pact(Layer):
    """PACT quantizer: clip to 0..c, 2**bits uniform levels, half-even rounding."""

    bits: int

    def shapes(self) -> Shapes:
        """`clip_val` [1]."""
        return {"clip_val": (1,)}


@dataclass(frozen=True)
class MaxPool(Layer):
    """Maximum over kernel × kernel pixels; pads with -inf, by at most half a kernel."""

    kernel: int
    stride: int
    padding: int = field(default=0, metadata=LATER)


@dataclass(frozen=True)
class AvgPool(Layer):
    """Global average pool, [N, C, H, W] -> [N, C, 1, 1]."""


@dataclass(frozen=True)
class Flatten(Layer):
    """[N, C, H, W] -> [N, C·H·W]."""


@dataclass(frozen=True)
class InputSpec:
    """Integer pixels 0..max of `shape` (C, H, W); the network sees (pixel · scale - mean) / std.

    `mean` and `std` hold a value per channel, or nothing: 0 and 1.
    """

    shape: tuple[int, int, int]
    max: int = 255
    scale: float = 1 / 255
    mean: tuple[float, ...] = field(default=(), metadata=LATER)
    std: tuple[float, ...] = field(default=(), metadata=LATER)

    @property
    def factor(self) -> np.ndarray:
        """Float64 [C]; the network sees pixel · factor + offset."""
        return self.scale / np.array(self.std or (1,) * self.shape[0], np.float64)

    @property
    def offset(self) -> np.ndarray:
        """Float64 [C], the value of pixel 0."""
        mean = np.array(self.mean or (0,) * self.shape[0], np.float64)
        return (0 - mean) / np.array(self.std or (1,) * self.shape[0], np.float64)


@dataclass(frozen=True, repr=False)
class Net(Shown):
    """A trained network: input, layers, float32 parameters and free-form notes (JSON).

    The layers are a graph in topological order; the last one is the only output.  Its values are
    logits of classes, unless ``meta["output"]`` is "values", as of a regression.
    """

    name: str
    input: InputSpec
    layers: tuple[Layer, ...]
    params: Params
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    def of(self, layer: Layer) -> Params:
        """The layer's own parameters by their short names, float32."""
        return {key: self.params[f"{layer.name}.{key}"] for key in layer.shapes()}

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Float64 logits [N, classes], of a map [N, C·H·W], of integer images [N, C, H, W]."""
        x = self.check_images(images).astype(np.float64)
        x = x * _per_channel(self.input.factor, x) + _per_channel(self.input.offset, x)
        x = walk(self.layers, x, lambda layer, *x: layer_float(layer, self.of(layer), *x))
        return x.reshape(len(x), math.prod(x.shape[1:]))

    def parts(self) -> list[str | Table]:
        """The name, the input, and a row per layer."""
        table = Table("layer", "kind", "reads", "settings", "parameters", left=4)
        for layer in self.layers:
            settings = {f.name: getattr(layer, f.name) for f in fields(layer)
                        if f.name not in ("name", "inputs")}
            count = sum(math.prod(shape) for shape in layer.shapes().values())
            table.add_row(layer.name, type(layer).__name__, ", ".join(layer.inputs),
                          ", ".join(f"{key} {value}" for key, value in settings.items()),
                          f"{count:,}" if count else "")
        shape = "×".join(map(str, self.input.shape))
        return [f"{self.name}, input {shape} in 0..{self.input.max}", table,
                f"{sum(value.size for value in self.params.values()):,} parameters"]

    def check_images(self, images: np.ndarray) -> np.ndarray:
        """Return `images` if they are integers [N, C, H, W] in 0..max, else raise N2uqError."""
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != tuple(self.input.shape):
            raise N2uqError(f"images of {self.name} must have shape [N, "
                            f"{', '.join(map(str, self.input.shape))}], not {list(images.shape)}")
        if images.dtype.kind not in "ui":
            raise N2uqError(f"images of {self.name} must be integers, not {images.dtype}")
        if images.size and (images.min() < 0 or images.max() > self.input.max):
            raise N2uqError(f"images of {self.name} must lie in 0..{self.input.max}, "
                            f"not {images.min()}..{images.max()}")
        return images

    def save(self, path: Path) -> None:
        """Write the net as one safetensors file; it appears whole or not at all."""
        save_arrays(path, self.params, "n2uq", {
            "format": FORMAT, "name": self.name, "input": _row(self.input),
            "layers": [{"kind": type(layer).__name__, **_row(layer)} for layer in self.layers],
            "meta": self.meta})


def images_name(layers: Iterable[Layer]) -> str:
    """What `layers` call the images: IMAGES, with a _ behind it where one of them is called so."""
    return fresh(IMAGES, {layer.name for layer in layers})


def sources(layers: tuple[Layer, ...]) -> dict[str, tuple[str, ...]]:
    """What each layer reads, by its name; the images under `images_name`."""
    before = (images_name(layers), *(layer.name for layer in layers))
    return {layer.name: layer.inputs or (previous,)
            for layer, previous in zip(layers, before, strict=False)}


def load_net(path: Path) -> Net:
    """Read a net file; any fault in it is an N2uqError that names the file."""
    params, described = load_arrays(path, "n2uq", FORMAT)
    try:
        given = described["input"]
        return Net(
            name=described["name"],
            input=InputSpec(tuple(given["shape"]), given["max"], given["scale"],
                            tuple(given.get("mean", ())), tuple(given.get("std", ()))),
            layers=tuple(_layer(row) for row in described["layers"]),
            params=params, meta=described["meta"])
    except N2uqError as error:
        raise N2uqError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise N2uqError(f"{path}: malformed n2uq description: {error!r}") from None


def walk(layers: tuple[Layer, ...], images: T, step: Callable[..., T]) -> T:
    """The last value of the graph, where a layer's is ``step(layer, *values of its inputs)``.

    A value is dropped when its last reader has read it.
    """
    name = images_name(layers)
    values, reads = {name: images}, sources(layers)
    last = {name: reader for reader, names in reads.items() for name in names}
    for layer in layers:
        name, names = layer.name, reads[layer.name]
        values[name] = step(layer, *(values[each] for each in names))
        for each in {*names}:
            if last[each] == name:
                del values[each]
    return values[name]


def _row(described: Layer | InputSpec) -> dict[str, Any]:
    """The fields that a file holds."""
    return {f.name: getattr(described, f.name) for f in fields(described)
            if not (f.metadata.get("later") and getattr(described, f.name) == f.default)}


def _layer(row: dict[str, Any]) -> Layer:
    kind = row.pop("kind")
    if "inputs" in row:
        row["inputs"] = tuple(row["inputs"])
    if kind not in Layer.KINDS:
        raise N2uqError(f"layer {row.get('name')} must be one of {', '.join(Layer.KINDS)}, "
                        f"not {kind}")
    return Layer.KINDS[kind](**row)


def _check(net: Net) -> None:
    if not is_name(net.name):
        raise N2uqError(f"net name must be text that prints, not {net.name!r}")
    _check_input(net)
    _check_names(net)
    for layer in net.layers:
        _check_hyperparameters(net, layer)
    _check_inputs(net)
    if not isinstance(net.meta, dict):
        raise N2uqError(f"{net.name}: meta must be a dict, not {type(net.meta).__name__}")
    wanted = {f"{layer.name}.{key}": shape
              for layer in net.layers for key, shape in layer.shapes().items()}
    for key in sorted(wanted.keys() ^ net.params.keys()):
        raise N2uqError(f"{net.name}: parameter {key} is "
                        + ("missing" if key in wanted else "of no layer"))
    for key, shape in wanted.items():
        value = net.params[key]
        if value.shape != shape or value.dtype != np.float32:
            raise N2uqError(f"{net.name}: {key} must be float32 {list(shape)}, "
                            f"not {value.dtype} {list(value.shape)}")
        if not np.isfinite(value).all():
            raise N2uqError(f"{net.name}: {key} must be finite, not "
                            f"{value[~np.isfinite(value)][0]} ({(~np.isfinite(value)).sum()} "
                            f"of {value.size} values)")
    for layer in net.layers:
        _check_values(net, layer)


def _check_input(net: Net) -> None:
    shape, largest, scale = net.input.shape, net.input.max, net.input.scale
    if len(shape) != 3 or any(type(size) is not int or size < 1 for size in shape):
        raise N2uqError(f"{net.name}: input shape must be three positive sizes (C, H, W), "
                        f"not {shape!r}")
    if type(largest) is not int or not 1 <= largest <= 65535:
        raise N2uqError(f"{net.name}: input max must be in 1..65535, not {largest!r}")
    if type(scale) not in (int, float) or not 0 < scale <= LARGEST:
        raise N2uqError(f"{net.name}: input scale must be positive and finite, not {scale!r}")
    for what, values in (("mean", net.input.mean), ("std", net.input.std)):
        if len(values) not in (0, shape[0]) or any(
                type(value) not in (int, float) or not abs(value) <= LARGEST for value in values):
            raise N2uqError(f"{net.name}: input {what} must be {shape[0]} finite numbers, one per "
                            f"channel, not {values!r}")
    with np.errstate(all="ignore"):
        factor, offset = net.input.factor, net.input.offset
    good = (factor > 0) & np.isfinite(factor) & np.isfinite(offset)
    if not good.all():
        raise N2uqError(f"{net.name}: input std must be positive, and large enough for pixels and "
                        f"means to be divided by it, not {net.input.std[int(good.argmin())]}")


def _check_names(net: Net) -> None:
    taken: set[str] = set()
    for layer in net.layers:
        if not is_name(layer.name):
            raise N2uqError(f"{net.name}: layer names must be text that prints, "
                            f"not {layer.name!r}")
        if layer.name in taken:
            raise N2uqError(f"{net.name}: layer names must differ, not be {layer.name!r} twice")
        taken.add(layer.name)


def _check_inputs(net: Net) -> None:
    """One output, and every layer reads layers before it."""
    before = {images_name(net.layers)}
    for layer in net.layers:
        given = layer.inputs
        implied = given == () and layer.arity == 1
        if not implied and (type(given) is not tuple or len(given) != layer.arity):
            raise N2uqError(f"{net.name}: {layer.name} must have {layer.arity} "
                            f"input{'s' * (layer.arity > 1)}, not {given!r}")
        for name in given:
            if not isinstance(name, str) or name not in before:
                raise N2uqError(f"{net.name}: inputs of {layer.name} must be layers before it, "
                                f"not {name!r}")
        before.add(layer.name)
    read = {name for names in sources(net.layers).values() for name in names}
    for layer in net.layers[:-1]:
        if layer.name not in read:
            raise N2uqError(f"{net.name}: {layer.name} must be read by another layer, since the "
                            f"output is {net.layers[-1].name}")


def _check_hyperparameters(net: Net, layer: Layer) -> None:
    """Every field but the name and the inputs is a size."""
    for f in fields(layer)[2:]:
        value, least = getattr(layer, f.name), 0 if f.name == "padding" else 1
        if type(value) is not int or value < least or (f.name == "bits" and value > 8):
            raise N2uqError(f"{net.name}: {f.name} of {layer.name} must be "
                            + ("in 1..8" if f.name == "bits" else f"an integer from {least}")
                            + f", not {value!r}")
    if isinstance(layer, Conv) and (layer.in_channels % layer.groups
                                    or layer.out_channels % layer.groups):
        raise N2uqError(f"{net.name}: groups of {layer.name} must divide its channels "
                        f"{layer.in_channels} and {layer.out_channels}, not {layer.groups}")


    if isinstance(layer, MaxPool) and 2 * layer.padding > layer.kernel:
        raise N2uqError(f"{net.name}: padding of {layer.name} must be at most half of its kernel "
                        f"{layer.kernel}, not {layer.padding}")


def _check_values(net: Net, layer: Layer) -> None:
    p = net.of(layer)
    if "clip_val" in p and p["clip_val"][0] <= 0:
        raise N2uqError(f"{net.name}: {layer.name}.clip_val must be positive, "
                        f"not {p['clip_val'][0]}")
    if isinstance(layer, Conv | Linear):
        empty = ~p["weight"].reshape(len(p["weight"]), -1).any(axis=1)
        if empty.any():
            raise N2uqError(f"{net.name}: {layer.name}.weight must not hold an all-zero "
                            f"filter (its scale is 0): channel {int(empty.argmax())}")
        with np.errstate(all="ignore"):
            k, delta = weight_codes(p["weight"], p["clip_val"][0], layer.bits)
        bad = ~(np.isfinite(delta) & (delta > 0))
        bad |= ((k < 0) | (k >= 2**layer.bits)).reshape(len(k), -1).any(axis=1)
        if bad.any():
            at = int(bad.argmax())
            raise N2uqError(f"{net.name}: {layer.name}.weight and clip_val must have a float32 "
                            f"scale, not {delta[at]} (channel {at}, largest weight "
                            f"{np.abs(p['weight'][at]).max()}, clip_val {p['clip_val'][0]})")
    if isinstance(layer, BatchNorm) and (p["running_var"] < 0).any():
        raise N2uqError(f"{net.name}: {layer.name}.running_var must not be negative, "
                        f"not {p['running_var'].min()}")


# --- The formulas of the paper ----------------------------------------------------------------


def weight_codes(weight: np.ndarray, clip_val: float, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantize weights to codes, one scale per output channel (paper section 3.3).

    Parameters
    ----------
    weight: float32 [Cout, ...].
    clip_val: positive clip width.
    bits: 1..8.

    Returns
    -------
    k: int64 like `weight`, 0..2**bits - 1; the weight is the odd level ``2k - (2**bits - 1)``.
    delta: float64 [Cout]; the real weight is ``delta * (2k - n)``.

    The float32 operations and their order are the reference's, since k hangs on their rounding:
    means are nested from the last axis to the first, and kept axes keep the order of additions.
    """
    n = 2**bits - 1
    scale = np.abs(weight.astype(np.float32))
    for axis in range(weight.ndim - 1, 0, -1):
        scale = scale.mean(axis=axis, keepdims=True, dtype=np.float32)
    scale = np.float32(n / 2**(bits - 1)) * scale
    clip = np.float32(clip_val)
    half = clip / np.float32(2)
    u = np.clip(weight.astype(np.float32) / scale, -half, half)
    k = np.rint((u + half) * (np.float32(n) / clip)).astype(np.int64)
    delta = scale.reshape(-1).astype(np.float64) * float(clip) / (2 * n)
    return k, delta


def ltq_thresholds(p: Params) -> np.ndarray:
    """Thresholds θ [n], float64, ascending, to be compared with x · scale1 (strict >)."""
    a = np.maximum(p["a"].astype(np.float64), 1e-3)
    # The sums of the paper's recurrence, one after the other: θ₁, then + (aᵢ₋₁/2 + aᵢ/2).
    return np.cumsum(np.concatenate([p["start"] + a[:1] / 2, a[:-1] / 2 + a[1:] / 2]))


def ltq_levels(p: Params, x: np.ndarray) -> np.ndarray:
    """Level indices q = #{i : x·scale1 > θᵢ}, int64, 0..n, of finite float64 `x` of any shape."""
    # side="left" counts the thresholds strictly below.
    return np.searchsorted(ltq_thresholds(p), x * float(p["scale1"][0]), side="left")


def pact_levels(p: Params, bits: int, x: np.ndarray) -> np.ndarray:
    """Level indices rint(clip(x, 0, c) · n / c), int64, 0..n, of float64 `x` of any shape."""
    n, clip = 2**bits - 1, float(p["clip_val"][0])
    return np.rint(np.clip(x, 0, clip) * n / clip).astype(np.int64)


def _per_channel(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Float64 parameters [C] shaped to broadcast along axis 1 of `x`."""
    return values.astype(np.float64).reshape((1, -1) + (1,) * (x.ndim - 2))


@singledispatch
def layer_float(layer: Layer, p: Params, *x: np.ndarray) -> np.ndarray:
    """What a layer with parameters `p` computes of float64 `x` [N, C, ...], one per input."""
    raise N2uqError(f"no float formula for {type(layer).__name__}")


def _windows(layer: Conv | FloatConv | MaxPool, x: np.ndarray, pad: float) -> np.ndarray:
    """Views [N, C, H', W', k, k] of `x` framed with the value `pad`."""
    frame = (layer.padding,) * 2
    x = np.pad(x, ((0, 0), (0, 0), frame, frame), constant_values=pad)
    views = np.lib.stride_tricks.sliding_window_view(x, (layer.kernel,) * 2, axis=(2, 3))
    return views[:, :, ::layer.stride, ::layer.stride]


def convolve(layer: Conv | FloatConv, w: np.ndarray, groups: int, x: np.ndarray) -> np.ndarray:
    """Convolution with float64 `w` [Cout, Cin/groups, k, k], as a product of matrices per group."""
    views = _windows(layer, x, 0)
    images, _, height, width = views.shape[:4]
    y = np.empty((images, len(w), height, width))
    w = w.reshape(groups, len(w) // groups, -1)
    batch = max(1, COLUMNS // max(1, math.prod(views.shape[1:])))
    for at in range(0, images, batch):
        part = views[at:at + batch]
        columns = (part.reshape(len(part), groups, -1, *part.shape[2:])
                   .transpose(1, 2, 5, 6, 0, 3, 4).reshape(groups, w.shape[2], -1))
        y[at:at + batch] = (w @ columns).reshape(-1, len(part), height, width).swapaxes(0, 1)
    return y


# Whole numbers times levels are summed, and Δ comes last: what cancels leaves the least behind.
@layer_float.register
def _(layer: Conv, p: Params, x: np.ndarray) -> np.ndarray:
    k, delta = weight_codes(p["weight"], p["clip_val"][0], layer.bits)
    w = (2 * k - (2**layer.bits - 1)).astype(np.float64)
    return convolve(layer, w, layer.groups, x) * _per_channel(delta, x)


@layer_float.register
def _(layer: FloatConv, p: Params, x: np.ndarray) -> np.ndarray:
    return convolve(layer, p["weight"].astype(np.float64), 1, x)


@layer_float.register
def _(layer: FloatLinear, p: Params, x: np.ndarray) -> np.ndarray:
    return x @ p["weight"].astype(np.float64).T + p["bias"]


@layer_float.register
def _(layer: ReLU, p: Params, x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


@layer_float.register
def _(layer: ReLU6, p: Params, x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0, 6)


@layer_float.register
def _(layer: Add, p: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x + y


@layer_float.register
def _(layer: Linear, p: Params, x: np.ndarray) -> np.ndarray:
    k, delta = weight_codes(p["weight"], p["clip_val"][0], layer.bits)
    return x @ (2 * k - (2**layer.bits - 1)).astype(np.float64).T * delta


@layer_float.register
def _(layer: BatchNorm, p: Params, x: np.ndarray) -> np.ndarray:
    mean, var, weight, bias = (_per_channel(p[key], x) for key in
                               ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / np.sqrt(var + BN_EPS) * weight + bias


@layer_float.register
def _(layer: Bias, p: Params, x: np.ndarray) -> np.ndarray:
    return x + _per_channel(p["bias"], x)


@layer_float.register
def _(layer: PReLU, p: Params, x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, x * _per_channel(p["weight"], x))


@layer_float.register
def _(layer: LTQ, p: Params, x: np.ndarray) -> np.ndarray:
    return ltq_levels(p, x) * (2 / (2**layer.bits - 1) * float(p["scale2"][0]))


@layer_float.register
def _(layer: Pact, p: Params, x: np.ndarray) -> np.ndarray:
    return pact_levels(p, layer.bits, x) * (float(p["clip_val"][0]) / (2**layer.bits - 1))


@layer_float.register
def _(layer: MaxPool, p: Params, x: np.ndarray) -> np.ndarray:
    return _windows(layer, x, -np.inf).max(axis=(4, 5))


@layer_float.register
def _(layer: AvgPool, p: Params, x: np.ndarray) -> np.ndarray:
    return x.mean(axis=(2, 3), keepdims=True)


@layer_float.register
def _(layer: Flatten, p: Params, x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), math.prod(x.shape[1:]))
