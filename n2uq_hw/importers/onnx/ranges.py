"""What each layer's values may be, by interval arithmetic: layers that give one value are dead."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...model import (
    OPS,
    FloatConv,
    FloatLinear,
    IntConv,
    IntLinear,
    Layer,
    Net,
    Params,
    Pointwise,
    Quant,
    Steps,
    layer_float,
    walk,
)

__all__ = ["dead_layers"]

WORK = 2**30      # multiplications; larger nets are not looked at
Ends = tuple[np.ndarray, np.ndarray]


def dead_layers(net: Net) -> list[tuple[str, float]]:
    """Quantizers that give one value whatever the image, and that value.

    Branches are taken as independent: what is named is dead, and more may be.
    """
    dead: list[tuple[str, float]] = []

    def step(layer: Layer, *ends: Ends) -> Ends:
        low, high = bounds(layer, net.of(layer), *ends)
        if isinstance(layer, Quant | Steps) and (low == high).all() and np.ptp(low) == 0:
            dead.append((layer.name, float(low.reshape(-1)[0])))
        return low, high

    if _work(net) <= WORK:
        images = np.ones((1, *net.input.shape)) * net.input.scale
        with np.errstate(all="ignore"):
            walk(net.layers, (images * net.input.min, images * net.input.max), step)
    return dead


def _work(net: Net) -> int:
    """Multiplications of an image, as if no layer made it smaller."""
    weights = {True: 0, False: 0}
    for layer in net.layers:
        if isinstance(layer, IntConv | IntLinear | FloatConv | FloatLinear):
            held = sum(value.size for value in net.of(layer).values())
            weights[isinstance(layer, IntConv | FloatConv)] += held
    return weights[False] + weights[True] * net.input.shape[1] * net.input.shape[2]


def bounds(layer: Layer, p: Params, *ends: Ends) -> Ends:
    """The least and the largest that a layer makes of values between such."""
    def run(params: Params, *x: np.ndarray) -> np.ndarray:
        return layer_float(layer, params, *x)

    if isinstance(layer, IntConv | IntLinear | FloatConv | FloatLinear):
        return _weighted(p, "codes" if "codes" in p else "weight", run, *ends[0])
    if isinstance(layer, Pointwise):
        low, high = ends[0]
        values = [run(p, low), run(p, high)]
        for turn in OPS[layer.op].turns:
            values.append(run(p, np.clip(turn, low, high)))
        if OPS[layer.op].turns and layer.op == "rdiv" and ((low <= 0) & (high >= 0)).any():
            return np.full_like(low, -np.inf), np.full_like(high, np.inf)
        return np.minimum.reduce(values), np.maximum.reduce(values)
    lows, highs = zip(*ends, strict=True)
    one, two = run(p, *lows), run(p, *highs)
    return np.minimum(one, two), np.maximum(one, two)


def _weighted(p: Params, name: str, run: Callable[..., np.ndarray], low: np.ndarray,
              high: np.ndarray) -> Ends:
    signs = np.sign(p.get("scale", np.ones(1)))
    signs = signs.reshape(-1, *(1,) * (p[name].ndim - 1))
    w = p[name] * signs.astype(p[name].dtype)
    up, down = np.maximum(w, 0) * signs, np.minimum(w, 0) * signs
    none = {"bias": np.zeros_like(p["bias"])} if "bias" in p else {}
    return (run(p | {name: up}, low) + run(p | {name: down} | none, high),
            run(p | {name: up}, high) + run(p | {name: down} | none, low))

