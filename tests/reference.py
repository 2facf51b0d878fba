"""The authors' networks written out as functions of a state_dict, and parameters to break ours.

`noise` adds and subtracts the surrogates of the straight-through estimators in the forward pass,
in the authors' order; without it levels and quantized weights are what they stand for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from n2uq_hw import model, nn
from n2uq_hw.model import Layer

State = Mapping[str, Tensor]
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
MOBILENET_CHANNELS = [32, 16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]


def ltq(s: State, at: str, x: Tensor, noise: bool) -> Tensor:
    start, a = s[f"{at}.start"], s[f"{at}.a"]
    a = torch.where(a > s[f"{at}.eps"], a, s[f"{at}.eps"])
    x, n, zero = x * s[f"{at}.scale1"], len(a), s[f"{at}.zero"]
    threshold, left = start + a[0] / 2, start + 0.0
    level = zero + 2 / n if noise else zero + 1
    hard, smooth = torch.where(x > threshold, level, zero), zero * x
    for i in range(n):
        if i:
            threshold = threshold + (a[i - 1] / 2 + a[i] / 2)
            left = left + a[i - 1]
            level = level + (2 / n if noise else 1)
            hard = torch.where(x > threshold, level, hard)
        smooth = torch.where(x > left, 2 / n / a[i] * (x - left) + level - 2 / n, smooth)
    smooth = torch.where(x > left + a[-1], s[f"{at}.two"], smooth)
    return (hard + smooth - smooth if noise else hard * (2 / n)) * s[f"{at}.scale2"]


def pact(s: State, at: str, x: Tensor, bits: int) -> Tensor:
    clip, n = s[f"{at}.clip_val"], 2**bits - 1
    return torch.round(torch.minimum(F.relu(x), clip) * (n / clip)) / (n / clip)


def conv(s: State, at: str, x: Tensor, bits: int, stride: int, noise: bool) -> Tensor:
    weight, clip = s[f"{at}.weight"], s[f"{at}.clip_val"]
    if x.dtype == torch.float64:  # the weights stay those of float32
        k, delta = model.weight_codes(weight.float().numpy(), float(clip), bits)
        levels = torch.from_numpy((2 * k - (2**bits - 1)) * delta.reshape(-1, 1, 1, 1))
    else:
        codes, scale = nn.weight_codes(weight, clip, bits)
        levels = scale * (codes / ((2**bits - 1) / clip) - clip / 2)
        if noise:
            levels = levels - weight / scale + weight / scale
    return F.conv2d(x, levels, None, stride, weight.shape[-1] // 2, 1,
                    x.shape[1] // weight.shape[1])


def bn(s: State, at: str, x: Tensor) -> Tensor:
    return F.batch_norm(x, s[f"{at}.running_mean"], s[f"{at}.running_var"], s[f"{at}.weight"],
                        s[f"{at}.bias"], False, 0.1, 1e-5)


def prelu(s: State, at: str, k: int, x: Tensor) -> Tensor:
    x = F.prelu(x + s[f"{at}.bias{k}1.bias"], s[f"{at}.prelu{k}.weight"])
    return x + s[f"{at}.bias{k}2.bias"]


def unit(s: State, at: str, k: int, x: Tensor, bits: int, stride: int, noise: bool) -> Tensor:
    x = ltq(s, f"{at}.quan{k}", prelu(s, at, k, x), noise)
    return bn(s, f"{at}.bn{k}", conv(s, f"{at}.conv{k}", x, bits, stride, noise))


def block(s: State, at: str, x: Tensor, bits: int, stride: int, noise: bool) -> Tensor:
    y, bottleneck = x, f"{at}.conv3.weight" in s
    for k in (1, 2, 3) if bottleneck else (1, 2):
        y = unit(s, at, k, y, bits, stride if k == (2 if bottleneck else 1) else 1, noise)
    if f"{at}.downsample.2.weight" in s:
        x = ltq(s, f"{at}.downsample.0", x, noise)
        x = bn(s, f"{at}.downsample.2", conv(s, f"{at}.downsample.1", x, bits, stride, noise))
    elif f"{at}.downsample.1.weight" in s:
        x = bn(s, f"{at}.downsample.1", F.conv2d(x, s[f"{at}.downsample.0.weight"], None, stride))
    return prelu(s, at, 0 if bottleneck else 3, y + x)


def head(s: State, x: Tensor) -> Tensor:
    return F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), s["fc.weight"], s["fc.bias"])


def resnet(s: State, x: Tensor, bits: int, blocks: tuple[int, ...], noise: bool = False) -> Tensor:
    small = s["conv1.weight"].shape[-1] == 3  # ResNet-8
    x = F.conv2d(x, s["conv1.weight"], None, 1 if small else 2, 1 if small else 3)
    x = F.relu(bn(s, "bn1", x))
    x = x if small else F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(blocks, 1):
        for k in range(count):
            stride = 2 if stage > 1 and k == 0 else 1
            x = block(s, f"layer{stage}.{k}", x, bits, stride, noise)
    return head(s, x)


def mobilenetv2(s: State, x: Tensor, bits: int, noise: bool = False) -> Tensor:
    x = F.conv2d(x, s["feature.0.conv1.weight"], None, 2, 1)
    x = F.relu6(bn(s, "feature.0.bn1", x))
    for k in range(1, 18):
        before, after = MOBILENET_CHANNELS[k - 1:k + 1]
        stride = 2 if after != before and after in (24, 32, 64, 160) else 1
        y = x
        for part in (1, 2, 3):
            y = unit(s, f"feature.{k}", part, y, bits, stride if part == 2 else 1, noise)
        x = x + y if before == after and stride == 1 else y
    x = pact(s, "feature.18.quan1", x, bits)
    x = bn(s, "feature.18.bn1", conv(s, "feature.18.conv1", x, bits, 1, noise))
    return head(s, F.relu6(x))


def run(arch: str, s: State, x: Tensor, bits: int, noise: bool = False) -> Tensor:
    """Logits [N, classes] of normalized images [N, C, H, W], in the type of `x` and `s`."""
    with torch.no_grad():
        if arch == "mobilenetv2":
            return mobilenetv2(s, x, bits, noise)
        return resnet(s, x, bits, BLOCKS.get(arch, (1, 1, 1)), noise)


def adversarial(layers: tuple[Layer, ...], shape: tuple[int, int, int], seed: int = 0
                ) -> dict[str, np.ndarray]:
    """Parameters for random images of `shape`: slopes, BN weights and scales of either sign, one
    variance in four anywhere in 1e-9..1e5, and quantizers that see their whole range."""
    rng = np.random.default_rng(seed)
    params: dict[str, np.ndarray] = {}

    def values(layer: Layer, key: str, size: tuple[int, ...], x: np.ndarray) -> np.ndarray:
        value = rng.normal(0, 1, size)
        if key in ("running_mean", "running_var"):
            seen = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3)) + 1e-3
            if key == "running_mean":
                return seen[0] + 0.3 * value * np.sqrt(seen[1])
            extreme = 10.0**rng.uniform(-9, 5, size)
            return np.where(np.arange(len(value)) % 4, seen[1] * rng.uniform(0.3, 3, size), extreme)
        if key == "a":
            return rng.uniform(-0.1, 5, size) / len(value)
        if key == "scale1":
            spread = np.median(np.abs(x - np.median(x))) + 1e-3
            return rng.choice([-1, 1], size) * rng.uniform(0.5, 1.5, size) / spread
        if key == "scale2":
            return rng.choice([-1, 1], size) * rng.uniform(0.5, 2, size)
        if key == "clip_val":
            return np.abs(np.quantile(x, 0.8)) + 0.1 if isinstance(layer, model.Pact) else (
                rng.uniform(1.5, 2.5, size))
        if isinstance(layer, model.Conv | model.FloatConv | model.FloatLinear):
            return value / np.sqrt(np.prod(size[1:]) or 1)
        return value / 2 if isinstance(layer, model.PReLU) else value

    def step(layer: Layer, *x: np.ndarray) -> np.ndarray:
        p = {key: np.broadcast_to(values(layer, key, size, x[0]), size).astype(np.float32)
             for key, size in layer.shapes().items()}
        if isinstance(layer, model.LTQ):  # the first intervals lie below the median
            p["start"] = np.float32([np.median(x[0]) * p["scale1"][0] - p["a"].sum() / 2])
        params.update({f"{layer.name}.{key}": value for key, value in p.items()})
        return model.layer_float(layer, p, *x)

    model.walk(layers, rng.normal(0, 1, (4, *shape)), step)
    return params
