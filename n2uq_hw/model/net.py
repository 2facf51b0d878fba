"""The trained network as data: layers, parameters, net files, and what they compute in floats.

A `Net` is a graph of layers with the parameters of the authors' modules, or of any low-bit network.
Nothing here knows of hardware, and nothing needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import N2uqError
from ..files import load_arrays, save_arrays
from ..names import fresh, is_name
from ..tables import Shown, Table
from .layers import (
    LATER,
    AvgPool,
    BatchNorm,
    Conv,
    FloatConv,
    Layer,
    Linear,
    MaxPool,
    Params,
    frame,
    layer_float,
    pair,
    per_channel,
    weight_codes,
)
from .low_bit import ROUNDINGS, IntConv, Quant, check_values
from .pointwise import OPS

__all__ = ["IMAGES", "InputSpec", "Net", "images_name", "load_net", "sources", "walk"]

FORMAT = 1
IMAGES = "input"        # what layers call the images, see `images_name`
LARGEST = float(np.finfo(np.float64).max)
WIDEST = 65535          # of a pixel, either way from 0
T = TypeVar("T")


@dataclass(frozen=True)
class InputSpec:
    """Integer pixels min..max of `shape` (C, H, W); the network sees (pixel · scale - mean) / std.

    `mean` and `std` hold a value per channel, or nothing: 0 and 1.
    """

    shape: tuple[int, int, int]
    max: int = 255
    scale: float = 1 / 255
    mean: tuple[float, ...] = field(default=(), metadata=LATER)
    std: tuple[float, ...] = field(default=(), metadata=LATER)
    min: int = field(default=0, metadata=LATER)

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
    """A trained network: input, layers, their parameters and free-form notes (JSON).

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
        """The layer's own parameters by their short names."""
        return {key: self.params[f"{layer.name}.{key}"] for key in layer.shapes()}

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Float64 logits [N, classes], of a map [N, C·H·W], of integer images [N, C, H, W]."""
        x = self.check_images(images).astype(np.float64)
        x = x * per_channel(self.input.factor, x) + per_channel(self.input.offset, x)
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
        return [f"{self.name}, input {shape} in {self.input.min}..{self.input.max}", table,
                f"{sum(value.size for value in self.params.values()):,} parameters"]

    def check_images(self, images: np.ndarray) -> np.ndarray:
        """Return `images` if they are integers [N, C, H, W] in min..max, else raise N2uqError."""
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != tuple(self.input.shape):
            raise N2uqError(f"images of {self.name} must have shape [N, "
                            f"{', '.join(map(str, self.input.shape))}], not {list(images.shape)}")
        if images.dtype.kind not in "ui":
            raise N2uqError(f"images of {self.name} must be integers, not {images.dtype}")
        least, most = self.input.min, self.input.max
        if images.size and (images.min() < least or images.max() > most):
            raise N2uqError(f"images of {self.name} must lie in {least}..{most}, "
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
        spec = described["input"]
        return Net(
            name=described["name"],
            input=InputSpec(tuple(spec["shape"]), spec["max"], spec["scale"],
                            tuple(spec.get("mean", ())), tuple(spec.get("std", ())),
                            spec.get("min", 0)),
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
    row = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
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
    types = {f"{layer.name}.{key}": layer.TYPES.get(key, np.float32)
             for layer in net.layers for key in layer.shapes()}
    for key in sorted(wanted.keys() ^ net.params.keys()):
        raise N2uqError(f"{net.name}: parameter {key} is "
                        + ("missing" if key in wanted else "of no layer"))
    for key, shape in wanted.items():
        value, dtype = net.params[key], types[key]
        if value.shape != shape or value.dtype != dtype:
            raise N2uqError(f"{net.name}: {key} must be {np.dtype(dtype)} {list(shape)}, "
                            f"not {value.dtype} {list(value.shape)}")
        if not np.isfinite(value).all():
            raise N2uqError(f"{net.name}: {key} must be finite, not "
                            f"{value[~np.isfinite(value)][0]} ({(~np.isfinite(value)).sum()} "
                            f"of {value.size} values)")
    for layer in net.layers:
        _check_values(net, layer)


def _check_input(net: Net) -> None:
    shape, scale = net.input.shape, net.input.scale
    least, most = net.input.min, net.input.max
    if len(shape) != 3 or any(type(size) is not int or size < 1 for size in shape):
        raise N2uqError(f"{net.name}: input shape must be three positive sizes (C, H, W), "
                        f"not {shape!r}")
    if type(most) is not int or not 1 <= most <= WIDEST:
        raise N2uqError(f"{net.name}: input max must be in 1..{WIDEST}, not {most!r}")
    if type(least) is not int or not -WIDEST <= least <= 0:
        raise N2uqError(f"{net.name}: input min must be in {-WIDEST}..0, not {least!r}")
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
        inputs, arity = layer.inputs, layer.arity
        implied = inputs == () and arity == 1
        if not implied and (type(inputs) is not tuple or (
                len(inputs) != arity if arity else len(inputs) < 2)):
            raise N2uqError(f"{net.name}: {layer.name} must have {arity or 'two or more'} "
                            f"input{'s' * (arity != 1)}, not {inputs!r}")
        for name in inputs:
            if not isinstance(name, str) or name not in before:
                raise N2uqError(f"{net.name}: inputs of {layer.name} must be layers before it, "
                                f"not {name!r}")
        before.add(layer.name)
    read = {name for names in sources(net.layers).values() for name in names}
    for layer in net.layers[:-1]:
        if layer.name not in read:
            raise N2uqError(f"{net.name}: {layer.name} must be read by another layer, since the "
                            f"output is {net.layers[-1].name}")


SIZES = {"kernel": (2,), "stride": (2,), "dilation": (2,), "padding": (2, 4), "factor": (2,),
         "block": (2,)}
CHOICES = {"order": ("chw", "hwc"), "mode": ("DCR", "CRD"), "op": tuple(OPS),
           "rounding": tuple(ROUNDINGS),
           **dict.fromkeys(("float32", "count_pad", "total", "zeros"), (False, True))}


def _check_hyperparameters(net: Net, layer: Layer) -> None:
    """Every field but the name and the inputs is a size, a choice, or an end of a range."""
    for f in fields(layer)[2:]:
        rule = _broken(layer, f.name, getattr(layer, f.name))
        if rule:
            raise N2uqError(f"{net.name}: {f.name} of {layer.name} must be {rule}, "
                            f"not {getattr(layer, f.name)!r}")
    if isinstance(layer, Conv | FloatConv | IntConv) and (layer.in_channels % layer.groups
                                              or layer.out_channels % layer.groups):
        raise N2uqError(f"{net.name}: groups of {layer.name} must divide its channels "
                        f"{layer.in_channels} and {layer.out_channels}, not {layer.groups}")
    if isinstance(layer, AvgPool) and layer.total and layer.kernel == 0:
        raise N2uqError(f"{net.name}: kernel of {layer.name} must be its window's size, since it "
                        "gives totals, not 0")
    if isinstance(layer, MaxPool) and not layer.zeros:
        (height, width), sides = pair(layer.kernel), frame(layer.padding)
        # What is padded alike on all sides, torch pads by at most half.
        most = ((height - 1) * pair(layer.dilation)[0], (width - 1) * pair(layer.dilation)[1]) \
            if isinstance(layer.padding, tuple) else (height // 2, width // 2)
        if max(sides[:2]) > most[0] or max(sides[2:]) > most[1]:
            raise N2uqError(f"{net.name}: padding of {layer.name} must be at most half of its "
                            f"kernel {layer.kernel}, not {layer.padding}")
    if isinstance(layer, Quant) and layer.lo > layer.hi:
        raise N2uqError(f"{net.name}: lo of {layer.name} must be at most its hi {layer.hi}, "
                        f"not {layer.lo}")


def _broken(layer: Layer, name: str, value: Any) -> str:
    """The rule that a value breaks; nothing where it is as it should be."""
    if name in CHOICES:
        good = type(value) in (str, bool) and value in CHOICES[name]
        return "" if good else f"one of {', '.join(map(str, CHOICES[name]))}"
    if name in ("lo", "hi"):
        return "" if type(value) is int and abs(value) < 2**62 else "an integer below 2^62"
    if name == "bits":
        return "" if type(value) is int and 1 <= value <= 8 else "in 1..8"
    least = int(not (name in ("padding", "shift")
                     or (isinstance(layer, AvgPool) and name == "kernel")))
    if type(value) is tuple and name in SIZES:
        good = len(value) in SIZES[name] and all(type(size) is int and size >= least
                                                 for size in value)
        return "" if good else f"{' or '.join(map(str, SIZES[name]))} integers from {least}"
    return "" if type(value) is int and value >= least else f"an integer from {least}"


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
    if rule := check_values(layer, p):
        raise N2uqError(f"{net.name}: {layer.name}.{rule}")
    if isinstance(layer, BatchNorm) and (p["running_var"] < 0).any():
        raise N2uqError(f"{net.name}: {layer.name}.running_var must not be negative, "
                        f"not {p['running_var'].min()}")
