"""The networks of the paper as layers, named as the authors' modules are.

Source: Liu et al., CVPR 2022 (arXiv 2111.14826); ResNets after He et al., CVPR 2016, MobileNetV2
after Sandler et al., CVPR 2018.  First and last layer stay in full precision.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import N2uqError
from .layers import (
    LTQ,
    Add,
    AvgPool,
    BatchNorm,
    Bias,
    Conv,
    Flatten,
    FloatConv,
    FloatLinear,
    Layer,
    MaxPool,
    Pact,
    PReLU,
    ReLU,
    ReLU6,
)

__all__ = ["WIDTHS", "mobilenetv2", "resnet", "resnet8"]

Layers = list[Layer]
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # blocks
WIDTHS = (16, 32, 64)  # of ResNet-8
EXPANSION = 4  # of a bottleneck's output, in ResNet-50
# Output channels, how many bottlenecks, stride of the first; all but the first expand by 6.
INVERTED = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
INVERTED_EXPANSION, LAST_CHANNELS = 6, 1280


def _shifted_prelu(at: str, k: int, channels: int) -> Layers:
    """bias{k}1 → prelu{k} → bias{k}2, by the authors' names."""
    return [Bias(f"{at}.bias{k}1", channels), PReLU(f"{at}.prelu{k}", channels),
            Bias(f"{at}.bias{k}2", channels)]


def _unit(at: str, k: int, channels: int, outputs: int, kernel: int, stride: int, groups: int,
          bits: int) -> Layers:
    """bias–PReLU–bias, LTQ, quantized convolution and batch normalization number `k`."""
    return [*_shifted_prelu(at, k, channels), LTQ(f"{at}.quan{k}", bits),
            Conv(f"{at}.conv{k}", channels, outputs, kernel, stride, kernel // 2, groups, bits),
            BatchNorm(f"{at}.bn{k}", outputs)]


def _from(layers: Layers, source: str) -> Layers:
    """`layers`, the first of which reads `source`."""
    return [replace(layers[0], inputs=(source,)), *layers[1:]]


def _downsample(at: str, channels: int, outputs: int, stride: int, bits: int,
                quantize: bool) -> Layers:
    """The shortcut of a block that changes the shape: a 1 × 1 convolution, quantized or not."""
    if quantize:
        return [LTQ(f"{at}.downsample.0", bits),
                Conv(f"{at}.downsample.1", channels, outputs, 1, stride, bits=bits),
                BatchNorm(f"{at}.downsample.2", outputs)]
    return [FloatConv(f"{at}.downsample.0", channels, outputs, 1, stride),
            BatchNorm(f"{at}.downsample.1", outputs)]


def _block(at: str, source: str, channels: int, width: int, stride: int, bits: int,
           quantize: bool, bottleneck: bool) -> Layers:
    """A residual block that reads the layer `source`; the last of its layers is its output."""
    if bottleneck:
        outputs = EXPANSION * width
        units = (_unit(at, 1, channels, width, 1, 1, 1, bits)
                 + _unit(at, 2, width, width, 3, stride, 1, bits)
                 + _unit(at, 3, width, outputs, 1, 1, 1, bits))
    else:
        outputs = width
        units = (_unit(at, 1, channels, width, 3, stride, 1, bits)
                 + _unit(at, 2, width, width, 3, 1, 1, bits))
    shortcut: Layers = []
    if (channels, 1) != (outputs, stride):
        shortcut = _from(_downsample(at, channels, outputs, stride, bits, quantize), source)
    identity = shortcut[-1].name if shortcut else source
    return [*_from(units, source), *shortcut,
            Add(f"{at}.add", inputs=(units[-1].name, identity)),
            *_shifted_prelu(at, 0 if bottleneck else 3, outputs)]


def _resnet(stem: Layers, channels: int, stages: tuple[tuple[int, int], ...], bits: int,
            quantize: bool, bottleneck: bool, classes: int) -> tuple[Layer, ...]:
    """Stem, stages of (blocks, width), and head; every stage but the first halves the image."""
    layers = list(stem)
    for stage, (blocks, width) in enumerate(stages, 1):
        for k in range(blocks):
            layers += _block(f"layer{stage}.{k}", layers[-1].name, channels, width,
                             2 if stage > 1 and k == 0 else 1, bits, quantize, bottleneck)
            channels = width * (EXPANSION if bottleneck else 1)
    return (*layers, AvgPool("avgpool"), Flatten("flatten"), FloatLinear("fc", channels, classes))


def resnet(depth: int, bits: int = 2, quantize_downsample: bool = True, classes: int = 1000,
           channels_in: int = 3) -> tuple[Layer, ...]:
    """ResNet-18, -34 or -50.

    Parameters
    ----------
    depth: 18, 34 or 50.
    bits: of weights and activations between stem and head.
    quantize_downsample: whether the convolutions of the shortcuts are quantized too.
    classes: outputs.
    channels_in: of the images.
    """
    if depth not in STAGES:
        raise N2uqError(f"resnet depth must be one of {', '.join(map(str, STAGES))}, not {depth}")
    stem = [FloatConv("conv1", channels_in, 64, 7, 2, 3), BatchNorm("bn1", 64), ReLU("relu"),
            MaxPool("maxpool", 3, 2, 1)]
    stages = tuple(zip(STAGES[depth], (64, 128, 256, 512), strict=True))
    return _resnet(stem, 64, stages, bits, quantize_downsample, depth == 50, classes)


def resnet8(channels_in: int, bits: int = 2, classes: int = 10,
            widths: tuple[int, ...] = WIDTHS) -> tuple[Layer, ...]:
    """The small residual net: a 3 × 3 stem, then a block per entry of `widths`."""
    stem = [FloatConv("conv1", channels_in, widths[0], 3, 1, 1), BatchNorm("bn1", widths[0]),
            ReLU("relu")]
    return _resnet(stem, widths[0], tuple((1, width) for width in widths), bits, True, False,
                   classes)


def mobilenetv2(bits: int = 4, classes: int = 1000, channels_in: int = 3) -> tuple[Layer, ...]:
    """MobileNetV2, with a global average pool for any size of images.

    Parameters
    ----------
    bits: of weights and activations between stem and head.
    classes: outputs.
    channels_in: of the images.
    """
    channels, k = 32, 0
    layers: Layers = [FloatConv("feature.0.conv1", channels_in, channels, 3, 2, 1),
                      BatchNorm("feature.0.bn1", channels), ReLU6("feature.0.relu")]
    for outputs, blocks, first_stride in INVERTED:
        for stride in (first_stride, *(1,) * (blocks - 1)):
            k += 1
            at, source = f"feature.{k}", layers[-1].name
            middle = channels * (1 if k == 1 else INVERTED_EXPANSION)
            layers += _from(_unit(at, 1, channels, middle, 1, 1, 1, bits)
                            + _unit(at, 2, middle, middle, 3, stride, middle, bits)
                            + _unit(at, 3, middle, outputs, 1, 1, 1, bits), source)
            if (channels, 1) == (outputs, stride):
                layers.append(Add(f"{at}.add", inputs=(f"{at}.bn3", source)))
            channels = outputs
    at = f"feature.{k + 1}"
    return (*layers, Pact(f"{at}.quan1", bits),
            Conv(f"{at}.conv1", channels, LAST_CHANNELS, 1, bits=bits),
            BatchNorm(f"{at}.bn1", LAST_CHANNELS), ReLU6(f"{at}.relu"),
            AvgPool("avgpool"), Flatten("flatten"), FloatLinear("fc", LAST_CHANNELS, classes))
