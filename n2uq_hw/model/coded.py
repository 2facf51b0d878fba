"""A trained network as codes, integer levels and scales, whatever its number format.

Plain NumPy: what integer hardware computes, with thresholds where that has them.  A dot product is
one of integers; what stands between it and the next quantizer is a function of that integer, which
hardware keeps as thresholds, and here is evaluated in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .layers import LTQ, Conv, Flatten, Layer, Linear, MaxPool, convolve, layer_float
from .net import InputSpec, walk

__all__ = ["Activations", "Coded", "Weights"]


@dataclass(frozen=True)
class Weights:
    """Codes of weights, uint8 [Cout, ...], each a place in `levels`.

    `levels` is int64 [2^bits], ascending, or [Cout, 2^bits], a row per output channel; a weight is
    its level times `scale`, float64 [Cout] or [1].
    """

    codes: np.ndarray
    levels: np.ndarray
    scale: np.ndarray

    @property
    def integers(self) -> np.ndarray:
        """Int64, like `codes`."""
        if self.levels.ndim == 1:
            return self.levels[self.codes]
        rows = self.codes.reshape(len(self.codes), -1).astype(np.int64)
        return np.take_along_axis(self.levels, rows, 1).reshape(self.codes.shape)


@dataclass(frozen=True)
class Activations:
    """A quantizer: the code of x is how many `thresholds` lie strictly below ``x · factor``.

    `levels` is int64 [2^bits], ascending; an activation is its level times `scale`.
    """

    thresholds: np.ndarray
    levels: np.ndarray
    scale: float
    factor: float = 1.0

    def codes(self, x: np.ndarray) -> np.ndarray:
        """Int64, like `x`."""
        return np.searchsorted(self.thresholds, x * self.factor, side="left")


@dataclass(frozen=True)
class Coded:
    """A network whose convolutions, linear layers and quantizers are `Weights` and `Activations`.

    `weights` and `activations` are by layer; `params` holds the arrays of the other layers, as
    those of a `Net`.
    """

    input: InputSpec
    layers: tuple[Layer, ...]
    params: Mapping[str, np.ndarray]
    weights: Mapping[str, Weights]
    activations: Mapping[str, Activations]

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Float64 logits [N, classes] of integer images [N, C, H, W]."""
        def step(layer: Layer, read: tuple[np.ndarray, float]) -> tuple[np.ndarray, float]:
            x, scale = read  # integers and their scale, or reals and 1
            if isinstance(layer, Conv | Linear):
                held = self.weights[layer.name]
                w = held.integers.astype(np.float64)
                dot = convolve(layer, w, layer.groups, x) if isinstance(layer, Conv) else x @ w.T
                scales = (held.scale * scale).reshape((1, -1) + (1,) * (x.ndim - 2))
                return dot * scales, 1.0
            if isinstance(layer, LTQ):
                quantizer = self.activations[layer.name]
                codes = quantizer.codes(x * scale)
                return quantizer.levels[codes].astype(np.float64), quantizer.scale
            if isinstance(layer, MaxPool | Flatten):  # of levels: levels
                return layer_float(layer, {}, x), scale
            p = {key: self.params[f"{layer.name}.{key}"] for key in layer.shapes()}
            return layer_float(layer, p, x * scale), 1.0

        logits, _ = walk(self.layers, (images.astype(np.float64), self.input.scale), step)
        return logits.reshape(len(logits), -1)

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Share of images that are classified right."""
        return float((self.forward(images).argmax(axis=1) == labels).mean())
