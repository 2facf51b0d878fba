"""Nets with random parameters out of those that trained nets hold at their worst."""

from __future__ import annotations

import numpy as np

from n2uq_hw import model
from n2uq_hw.model import InputSpec, Net

NORMAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
POOLS = {
    "running_var": [1e-6, 1e-3, 1, 1, 50], "running_mean": [0, -2, 3, 0.5],
    "bias": [0, 0.5, -0.5, 1, -2], "a": [-4, 0, 1e-3, 0.2, 0.6, 1], "start": [-0.5, 0, 0.3],
    "scale1": [1, -1, 0.7, 1.5], "scale2": [1, -1, 0.8], "clip_val": [1.5, 2, 2.5],
}
SLOPES = [0.25, 0, 1, -0.25, -1, 1.5]
GAINS = [1, -1, 0.5, -0.7, 2, 0]


def adverse_params(layers: tuple[model.Layer, ...], seed: int = 0) -> model.Params:
    """Negative slopes, gains and scales, extreme variances, intervals at the floor."""
    rng = np.random.default_rng(seed)
    params = {}
    for layer in layers:
        for key, shape in layer.shapes().items():
            pool = POOLS.get(key)
            if key == "weight" and len(shape) == 1:
                pool = SLOPES if isinstance(layer, model.PReLU) else GAINS
            value = rng.normal(0, 0.2, shape) if pool is None else rng.choice(pool, shape)
            params[f"{layer.name}.{key}"] = value.astype(np.float32)
    return params


def adverse(layers: tuple[model.Layer, ...], size: int, seed: int = 0, channels: int = 3) -> Net:
    """A net of images [channels, size, size], normalized as those of ImageNet are."""
    spec = InputSpec((channels, size, size), 255, 1 / 255,
                     *(values[:channels] for values in NORMAL.values()))
    return Net("net", spec, layers, adverse_params(layers, seed))


def cut(layers: tuple[model.Layer, ...], *prefixes: str) -> tuple[model.Layer, ...]:
    """The layers whose names begin so, reading the images where they read another layer."""
    reads = model.sources(layers)
    kept = [layer for layer in layers if layer.name.startswith(prefixes)]
    names = {layer.name for layer in kept}
    return tuple(type(layer)(**{**vars(layer), "inputs": tuple(
        name if name in names else "input" for name in reads[layer.name])}) for layer in kept)
