"""The paper's networks with random parameters, for figures that need no trained ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from n2uq_hw.model import (
    BatchNorm,
    InputSpec,
    Layer,
    Net,
    architectures,
    images_name,
    layer_float,
    sources,
)

__all__ = ["NETWORKS", "plausible"]

NETWORKS: dict[str, Callable[[], tuple[Layer, ...]]] = {
    "resnet18": lambda: architectures.resnet(18, 2),
    "resnet34": lambda: architectures.resnet(34, 3),
    "resnet50": lambda: architectures.resnet(50, 2),
    "mobilenetv2": lambda: architectures.mobilenetv2(4),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def plausible(name: str, size: int, seed: int = 0) -> Net:
    """Network `name` of ImageNet images `size` × `size` as it is when training begins.

    Random weights, slopes of 0.25, intervals of equal width; running statistics are those of one
    random image, so that every quantizer sees its whole range.
    """
    layers, rng = NETWORKS[name](), np.random.default_rng(seed)
    params = {}
    for layer in layers:
        for key, shape in layer.shapes().items():
            constant = {"a": 2 / shape[0], "scale1": 1, "scale2": 1, "clip_val": 2, "start": 0,
                        "bias": 0, "running_mean": 0, "running_var": 1}.get(key)
            if key == "weight" and len(shape) == 1:
                constant = 0.25 if "prelu" in layer.name else 1
            value = (rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape) if constant is None
                     else np.full(shape, constant))
            params[f"{layer.name}.{key}"] = value.astype(np.float32)
    net = Net(name, InputSpec((3, size, size), 255, 1 / 255, MEAN, STD), layers, params)
    return replace(net, params=params | _statistics(net, rng))


def _statistics(net: Net, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Mean and variance of what each BatchNorm reads, for one small random image."""
    small = rng.uniform(0, 1, (2, 3, 32, 32))
    values = {images_name(net.layers):
              (small - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))}
    moments: dict[str, np.ndarray] = {}
    for layer in net.layers:
        xs = [values[name] for name in sources(net.layers)[layer.name]]
        p = net.of(layer)
        if isinstance(layer, BatchNorm):
            p = p | {"running_mean": xs[0].mean(axis=(0, 2, 3)).astype(np.float32),
                     "running_var": (xs[0].var(axis=(0, 2, 3)) + 1e-3).astype(np.float32)}
            moments |= {f"{layer.name}.{key}": p[key] for key in ("running_mean", "running_var")}
        values[layer.name] = layer_float(layer, p, *xs)
    return moments
