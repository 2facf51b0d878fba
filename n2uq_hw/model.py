"""The trained network as data: layers, parameters, net files, and what they compute in floats.

A `Net` is a chain of layers with the parameters of the authors' modules.  This module holds the
formulas of the paper in NumPy float64; nothing here knows of hardware, and nothing needs torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import singledispatch
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .errors import N2uqError

__all__ = [
    "LTQ", "AvgPool", "BatchNorm", "Bias", "Conv", "Flatten", "InputSpec", "Layer", "Linear",
    "MaxPool", "Net", "PReLU", "Pact", "layer_float", "load_net", "ltq_levels", "ltq_thresholds",
    "pact_levels", "weight_codes",
]

FORMAT = 1
BN_EPS = 1e-5
Params = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layer:
    """One layer: hyperparameters only; `Net.params` holds its arrays as ``name.parameter``."""

    name: str
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
    """Maximum over kernel × kernel pixels."""

    kernel: int
    stride: int


@dataclass(frozen=True)
class AvgPool(Layer):
    """Global average pool, [N, C, H, W] -> [N, C, 1, 1]."""


@dataclass(frozen=True)
class Flatten(Layer):
    """[N, C, H, W] -> [N, C·H·W]."""


@dataclass(frozen=True)
class InputSpec:
    """Integer pixels 0..max of `shape` (C, H, W); the network sees pixel · scale."""

    shape: tuple[int, int, int]
    max: int = 255
    scale: float = 1 / 255


@dataclass(frozen=True)
class Net:
    """A trained network: input, chain of layers, float32 parameters and free-form notes (JSON)."""

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
        """Float64 logits [N, classes] of integer images [N, C, H, W]."""
        x = self.check_images(images).astype(np.float64) * self.input.scale
        for layer in self.layers:
            x = layer_float(layer, self.of(layer), x)
        return x.reshape(len(x), -1)

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
        described = {
            "format": FORMAT, "name": self.name, "input": asdict(self.input),
            "layers": [{"kind": type(layer).__name__, **asdict(layer)} for layer in self.layers],
            "meta": self.meta,
        }
        part = path.with_name(path.name + ".part")
        try:
            save_file({k: np.ascontiguousarray(v) for k, v in self.params.items()}, part,
                      metadata={"n2uq": json.dumps(described, sort_keys=True)})
            part.replace(path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise N2uqError(f"{path}: cannot be written: {error}") from None


def load_net(path: Path) -> Net:
    """Read a net file; any fault in it is an N2uqError that names the file."""
    try:
        with safe_open(path, "np") as file:
            described = json.loads((file.metadata() or {})["n2uq"])
            params = {key: file.get_tensor(key) for key in sorted(file.keys())}
    except FileNotFoundError:
        raise N2uqError(f"{path}: no such net file") from None
    except (SafetensorError, OSError) as error:
        raise N2uqError(f"{path}: not a whole safetensors file: {error}") from None
    except (KeyError, ValueError):
        raise N2uqError(f"{path}: holds no n2uq description in its metadata") from None
    try:
        if described["format"] != FORMAT:
            raise N2uqError(f"{path}: net format must be {FORMAT}, not {described['format']}")
        given = described["input"]
        return Net(
            name=described["name"],
            input=InputSpec(tuple(given["shape"]), given["max"], given["scale"]),
            layers=tuple(_layer(row, path) for row in described["layers"]),
            params=params, meta=described["meta"])
    except N2uqError as error:
        raise N2uqError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
                        ) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise N2uqError(f"{path}: malformed n2uq description: {error!r}") from None


def _layer(row: dict[str, Any], path: Path) -> Layer:
    fields = dict(row)
    kind = fields.pop("kind")
    if kind not in Layer.KINDS:
        raise N2uqError(f"{path}: layer {row.get('name')} must be one of "
                        f"{', '.join(Layer.KINDS)}, not {kind}")
    return Layer.KINDS[kind](**fields)


def _check(net: Net) -> None:
    if len({layer.name for layer in net.layers}) != len(net.layers):
        raise N2uqError(f"{net.name}: layer names must differ from each other")
    wanted = {f"{layer.name}.{key}": shape
              for layer in net.layers for key, shape in layer.shapes().items()}
    for key in sorted(wanted.keys() ^ net.params.keys()):
        raise N2uqError(f"{net.name}: parameter {key} is "
                        + ("missing" if key in wanted else "of no layer"))
    for key, shape in wanted.items():
        value = net.params[key]
        if value.shape != shape:
            raise N2uqError(f"{net.name}: {key} must have shape {list(shape)}, "
                            f"not {list(value.shape)}")
        if not np.isfinite(value).all():
            raise N2uqError(f"{net.name}: {key} must be finite, not "
                            f"{value[~np.isfinite(value)][0]} ({(~np.isfinite(value)).sum()} "
                            f"of {value.size} values)")
    for layer in net.layers:
        bits = getattr(layer, "bits", 1)
        if bits not in range(1, 9):
            raise N2uqError(f"{net.name}: bits of {layer.name} must be in 1..8, not {bits}")
        p = net.of(layer)
        if "clip_val" in p and p["clip_val"][0] <= 0:
            raise N2uqError(f"{net.name}: {layer.name}.clip_val must be positive, "
                            f"not {p['clip_val'][0]}")
        if isinstance(layer, Conv | Linear):
            empty = ~p["weight"].reshape(len(p["weight"]), -1).any(axis=1)
            if empty.any():
                raise N2uqError(f"{net.name}: {layer.name}.weight must not hold an all-zero "
                                f"filter (its scale is 0): channel {int(empty.argmax())}")
        if isinstance(layer, BatchNorm) and (p["running_var"] < 0).any():
            raise N2uqError(f"{net.name}: {layer.name}.running_var must not be negative, "
                            f"not {p['running_var'].min()}")
    if net.input.max not in range(1, 65536) or len(net.input.shape) != 3:
        raise N2uqError(f"{net.name}: input must be (C, H, W) with max in 1..65535, "
                        f"not {net.input}")


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
    return p["start"].astype(np.float64) + np.cumsum(a) - a / 2


def ltq_levels(p: Params, x: np.ndarray) -> np.ndarray:
    """Level indices q = #{i : x·scale1 > θᵢ}, int64, 0..n, of float64 `x` of any shape."""
    scaled = x * float(p["scale1"][0])
    q = np.zeros(np.shape(x), np.int64)
    for threshold in ltq_thresholds(p):
        q += scaled > threshold
    return q


def pact_levels(p: Params, bits: int, x: np.ndarray) -> np.ndarray:
    """Level indices rint(clip(x, 0, c) · n / c), int64, 0..n, of float64 `x` of any shape."""
    n, clip = 2**bits - 1, float(p["clip_val"][0])
    return np.rint(np.clip(x, 0, clip) * n / clip).astype(np.int64)


def _per_channel(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Float64 parameters [C] shaped to broadcast along axis 1 of `x`."""
    return values.astype(np.float64).reshape((1, -1) + (1,) * (x.ndim - 2))


@singledispatch
def layer_float(layer: Layer, p: Params, x: np.ndarray) -> np.ndarray:
    """What a layer with parameters `p` computes of float64 `x` [N, C, ...]."""
    raise N2uqError(f"no float formula for {type(layer).__name__}")


@layer_float.register
def _(layer: Conv, p: Params, x: np.ndarray) -> np.ndarray:
    k, delta = weight_codes(p["weight"], p["clip_val"][0], layer.bits)
    w = (2 * k - (2**layer.bits - 1)) * delta.reshape(-1, 1, 1, 1)
    pad = layer.padding
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    views = np.lib.stride_tricks.sliding_window_view(x, (layer.kernel,) * 2, axis=(2, 3))
    views = views[:, :, ::layer.stride, ::layer.stride]
    inputs, outputs = x.shape[1] // layer.groups, layer.out_channels // layer.groups
    return np.concatenate([
        np.tensordot(views[:, g * inputs:(g + 1) * inputs], w[g * outputs:(g + 1) * outputs],
                     ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
        for g in range(layer.groups)], axis=1)


@layer_float.register
def _(layer: Linear, p: Params, x: np.ndarray) -> np.ndarray:
    k, delta = weight_codes(p["weight"], p["clip_val"][0], layer.bits)
    return x @ ((2 * k - (2**layer.bits - 1)) * delta.reshape(-1, 1)).T


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
    views = np.lib.stride_tricks.sliding_window_view(x, (layer.kernel,) * 2, axis=(2, 3))
    return views[:, :, ::layer.stride, ::layer.stride].max(axis=(4, 5))


@layer_float.register
def _(layer: AvgPool, p: Params, x: np.ndarray) -> np.ndarray:
    return x.mean(axis=(2, 3), keepdims=True)


@layer_float.register
def _(layer: Flatten, p: Params, x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)
