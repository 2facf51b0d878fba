"""What the tests of low-bit nets share: nets with random parameters, and images."""

from __future__ import annotations

from typing import Any

import numpy as np

from n2uq_hw.model import InputSpec, Layer, Net

RANDOM: dict[str, Any] = {
    "codes": lambda rng, shape: rng.integers(-7, 8, shape),
    "scale": lambda rng, shape: rng.uniform(0.01, 0.1, shape),
    "zero_point": lambda rng, shape: np.zeros(shape),
    "offset": lambda rng, shape: np.zeros(shape),
    "thresholds": lambda rng, shape: np.sort(rng.normal(0, 2, shape), axis=1),
    "value": lambda rng, shape: rng.uniform(0.1, 2, shape)}


def make(*layers: Layer, spec: InputSpec, seed: int = 0, **values: object) -> Net:
    """A net with the parameters LAYER_PARAMETER of `values`; the others are random."""
    rng, params = np.random.default_rng(seed), {}
    for layer in layers:
        for key, shape in layer.shapes().items():
            value = values.get(f"{layer.name}_{key}")
            if value is None:
                value = RANDOM.get(key, lambda rng, shape: rng.uniform(0.1, 1, shape))(rng, shape)
            dtype = layer.TYPES.get(key, np.float32)
            params[f"{layer.name}.{key}"] = np.broadcast_to(np.asarray(value, dtype), shape).copy()
    return Net("net", spec, layers, params)


def random_images(net: Net, count: int = 12, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(net.input.min, net.input.max + 1, (count, *net.input.shape))
