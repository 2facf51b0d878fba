"""What lowered thresholds must be: the paper's formulas, written out once more, in float64."""

from __future__ import annotations

import numpy as np

from n2uq_hw import model
from n2uq_hw.ir import Graph, MaxPool, PiecewiseLinear, Scale
from n2uq_hw.model import Net

Arrays = dict[str, np.ndarray]
EVERY = 2**17  # integers of a range up to which all are checked; of a wider one, those that matter


def true_deltas(p: Arrays, bits: int) -> np.ndarray:
    """Δ_c = s_c·clip/(2n), s_c the float32 L1 scale."""
    n = 2**bits - 1
    mean = np.abs(p["weight"])
    while mean.ndim > 1:
        mean = mean.mean(axis=-1, keepdims=mean.ndim == 2, dtype=np.float32)
        if mean.shape[-1:] == (1,) and mean.ndim == 2:
            mean = mean[:, 0]
    return (np.float32(n / 2**(bits - 1)) * mean).astype(float) * float(p["clip_val"][0]) / (2 * n)


def true_scalar(layer: model.Layer, p: Arrays, x: np.ndarray) -> np.ndarray:
    """BN, bias or PReLU of float64 `x` [M, C]."""
    p = {key: value.astype(np.float64).reshape(-1) for key, value in p.items()}
    if isinstance(layer, model.BatchNorm):
        return (x - p["running_mean"]) / np.sqrt(p["running_var"] + 1e-5) * p["weight"] + p["bias"]
    if isinstance(layer, model.Bias):
        return x + p["bias"]
    if isinstance(layer, model.ReLU | model.ReLU6):
        return np.clip(x, 0, 6 if isinstance(layer, model.ReLU6) else np.inf)
    assert isinstance(layer, model.PReLU)
    return np.where(x > 0, x, x * p["weight"])


def true_float_conv(net: Net, layer: model.FloatConv, bits: int, pixel: float
                    ) -> tuple[list, list]:
    """Factors and constant of an accumulator of pixels, for weights of `bits` bits.

    Weights times the pixels' factors are symmetric integers; the pixels' offset adds the product
    of weights and offset, which is -mean/std.
    """
    w = net.of(layer)["weight"].astype(np.float64) * net.input.factor[:, None, None]
    delta = np.abs(w).max(axis=(1, 2, 3)) / (2**(bits - 1) - 1)
    k = np.rint(w / delta[:, None, None, None])
    black = -net.input.offset / net.input.factor
    return ([delta, np.array([pixel])],
            [(model.Bias("dark", len(delta)),
              {"bias": -(k.sum(axis=(2, 3)) * black).sum(axis=1) * delta})])


def true_levels(layer: model.Layer, p: Arrays, x: np.ndarray) -> tuple[np.ndarray, float]:
    """(q, δ) of an LTQ or a PACT quantizer."""
    n = 2**layer.bits - 1
    if isinstance(layer, model.Pact):
        c = float(p["clip_val"][0])
        return np.round(np.minimum(np.maximum(x, 0), c) * n / c), c / n
    a = [max(float(width), 1e-3) for width in p["a"]]
    q, theta = np.zeros(x.shape), float(p["start"][0]) + a[0] / 2
    for i in range(n):
        if i:
            theta = theta + (a[i - 1] / 2 + a[i] / 2)
        q += x * float(p["scale1"][0]) > theta
    return q, 2 / n * float(p["scale2"][0])


def _points(lo: np.ndarray, hi: np.ndarray, steps: np.ndarray, every: int) -> np.ndarray:
    """Every integer of each channel's range [M, C]; of a wide one both ends, the neighbours of each
    step, and random ones."""
    if (size := int((hi - lo).max()) + 1) <= every:
        return np.minimum(lo + np.arange(size)[:, None], hi)
    near = np.broadcast_to(steps.T[:, None] + np.arange(-2, 3)[:, None], (len(steps.T), 5, len(lo)))
    some = np.random.default_rng(0).integers(lo, hi + 1, (every // 8, len(lo)))
    return np.concatenate([lo[None], hi[None], near.reshape(-1, len(lo)), some]).clip(lo, hi)


def check_every_integer(net: Net, graph: Graph, *, every: int = EVERY, part_of: int = 1,
                        stem_bits: int = 16) -> int:
    """Every Threshold of `graph` at every integer of each channel's range; how many there are.

    `part_of`: only one channel in so many.  `stem_bits`: what the graph was lowered with.
    """
    offset = net.input.offset
    plain = not offset.any()
    start = [np.array([net.input.factor[0]])] if plain else [net.input.factor]
    states: dict[str, tuple[list, list]] = {"input": (start, [])}
    names = {node.name for node in graph.nodes}
    step = np.array([2.0**-graph.meta.get("residual_fraction_bits", 0)])
    count = 0
    for layer in net.layers:
        p, name = net.of(layer), layer.name
        source = model.sources(net.layers)[layer.name][0]
        factors, waiting = states[source]
        node = graph[name] if name in names else None
        if isinstance(layer, model.Conv | model.Linear):
            factors = [true_deltas(p, layer.bits), *factors]
        elif isinstance(layer, model.LTQ | model.Pact):
            assert node is not None
            (edge,), out = graph.reads(node), graph.edges[name]
            channels = np.arange(0, edge.channels, part_of)
            for part in np.array_split(channels, max(1, len(channels) // 8)):
                served = part if len(node.base) > 1 else part * 0
                x = _points(edge.lo[part], edge.hi[part], node.thresholds[served], every)
                y = x.astype(np.float64)
                for factor in factors:
                    y = y * (factor if factor.size == 1 else factor[part])
                for scalar, q in waiting:
                    y = true_scalar(scalar, {k: v.reshape(-1)[part] for k, v in q.items()}, y)
                q, delta = true_levels(layer, p, y)
                got = np.broadcast_to(node.base[served], x.shape).copy()
                for s in range(node.signs.shape[1]):
                    got += node.signs[served, s] * (x >= node.thresholds[served, s])
                np.testing.assert_array_equal(got, q * np.sign(delta), err_msg=layer.name)
                assert (got.min(0) == out.lo[part]).all() and (got.max(0) == out.hi[part]).all()
                count += x.size
            factors, waiting = [np.array([abs(delta) or 1.0])], []
        elif isinstance(node, Scale | PiecewiseLinear) or isinstance(layer, model.Add):
            factors, waiting = [step], []
        elif isinstance(layer, model.Bias) and source in names and isinstance(
                graph[source], PiecewiseLinear):
            factors, waiting = [step], []  # the node before has taken it in
        elif isinstance(layer, model.BatchNorm | model.Bias | model.PReLU | model.ReLU
                        | model.ReLU6):
            waiting = [*waiting, (layer, p)]
        elif isinstance(layer, model.AvgPool):
            factors = [factors[0] / graph[name].positions]
        elif isinstance(layer, model.FloatConv) and source == "input":
            pixel = 1 / int(graph["pixels"].multiplier[0]) if "pixels" in names else 1.0
            factors, waiting = true_float_conv(net, layer, stem_bits, pixel)
        elif isinstance(layer, model.FloatConv | model.FloatLinear):
            factors, waiting = [np.array([np.nan])], []  # no threshold may depend on them
        else:
            assert isinstance(layer, model.Flatten | model.MaxPool)
            assert not isinstance(layer, model.MaxPool) or isinstance(node, MaxPool)
        states[layer.name] = factors, waiting
    assert not waiting or graph.output == "logits"
    return count
