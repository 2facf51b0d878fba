"""Our graphs of layers against the networks written out, and against published numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import reference
import torch

from n2uq_hw import model
from n2uq_hw.errors import N2uqError
from n2uq_hw.model import InputSpec, Layer, Net, architectures
from n2uq_hw.nn import Network

Layers = tuple[Layer, ...]
CONSTANTS = {"two": 2.0, "one": 1.0, "zero": 0.0, "minusone": -1.0, "eps": 1e-3}
MADE: dict[str, tuple[str, int, Callable[[], Layers]]] = {
    "resnet8": ("resnet8", 2, lambda: architectures.resnet8(3, 2, 10)),
    "resnet18": ("resnet18", 2, lambda: architectures.resnet(18, 2, True, 10)),
    "resnet18-fp": ("resnet18", 3, lambda: architectures.resnet(18, 3, False, 7)),
    "resnet34": ("resnet34", 4, lambda: architectures.resnet(34, 4, True, 5)),
    "resnet50": ("resnet50", 2, lambda: architectures.resnet(50, 2, True, 10)),
    "resnet50-fp": ("resnet50", 2, lambda: architectures.resnet(50, 2, False, 10)),
    "mobilenetv2": ("mobilenetv2", 4, lambda: architectures.mobilenetv2(4, 10))}


def net_of(layers: Layers, size: int = 32) -> Net:
    spec = InputSpec((3, size, size), 255, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return Net("net", spec, layers, reference.adversarial(layers, spec.shape))


def state_of(net: Net, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """The parameters and the constants by the authors' names."""
    state = {key: torch.from_numpy(value) for key, value in net.params.items()}
    state |= {f"{layer.name}.{key}": torch.tensor([value]) for layer in net.layers
              for key, value in CONSTANTS.items() if isinstance(layer, model.LTQ)}
    return {key: value.to(dtype) for key, value in state.items()}


@pytest.mark.parametrize("name", MADE)
def test_forward_is_that_of_the_network_written_out(name: str) -> None:
    """In float32 bit for bit in torch; in float64 up to the order of additions."""
    arch, bits, make = MADE[name]
    net = net_of(make())
    images = np.random.default_rng(1).integers(0, 256, (2, *net.input.shape), np.uint8)
    factor, offset = (torch.from_numpy(value)[:, None, None]
                      for value in (net.input.factor, net.input.offset))
    x = torch.from_numpy(images) * factor + offset
    expected = reference.run(arch, state_of(net), x.float(), bits)
    with torch.no_grad():
        assert torch.equal(Network.from_net(net)(x.float()), expected)
    assert expected.isfinite().all() and (expected[0] != expected[1]).all()
    expected = reference.run(arch, state_of(net, torch.float64), x, bits).numpy()
    np.testing.assert_allclose(net.forward(images), expected, rtol=1e-9,
                               atol=1e-9 * np.abs(expected).max())


# Parameters of torchvision's models of 1000 classes, quantizers and their biases apart.
@pytest.mark.parametrize("layers,count", [
    (architectures.resnet(18), 11_689_512), (architectures.resnet(34), 21_797_672),
    (architectures.resnet(50), 25_557_032), (architectures.resnet(50, 4, False), 25_557_032),
    # torchvision leaves out the first expansion, 32 to 32 channels and its BN
    (architectures.mobilenetv2(), 3_504_872 + 32 * 32 + 2 * 32)])
def test_parameters_are_as_many_as_published(layers: Layers, count: int) -> None:
    kinds = (model.Conv, model.FloatConv, model.BatchNorm, model.FloatLinear)
    assert sum(int(np.prod(shape)) for layer in layers if isinstance(layer, kinds)
               for key, shape in layer.shapes().items() if key in ("weight", "bias")) == count


def test_names_are_the_authors() -> None:
    quan = [f"{key}" for key in ("start", "a", "scale1", "scale2", *CONSTANTS)]
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    quantized = ["weight", "clip_val", "zero"]
    inside = {"quan": quan, "bn": norm, "conv": quantized, "prelu": ["weight"], "bias": ["bias"]}

    def block(at: str, parts: str, downsample: str) -> set[str]:
        names = {f"{at}.{part}.{key}" for part in parts.split()
                 for key in inside[part.rstrip("0123456789")]}
        for k, kind in enumerate(downsample.split()):
            keys = ["weight"] if kind == "fp" else inside[kind]
            names |= {f"{at}.downsample.{k}.{key}" for key in keys}
        return names

    basic = ("bias11 prelu1 bias12 quan1 conv1 bn1 bias21 prelu2 bias22 quan2 conv2 bn2 "
             "bias31 prelu3 bias32")
    ends = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{key}" for key in norm)}
    wanted = set(ends)
    for stage in range(1, 5):
        wanted |= block(f"layer{stage}.0", basic, "quan conv bn" if stage > 1 else "")
        wanted |= block(f"layer{stage}.1", basic, "")
    assert set(Network(architectures.resnet(18)).state_dict()) == wanted

    bottleneck = basic + " quan3 conv3 bn3 bias01 prelu0 bias02"
    wanted = set(ends)
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for k in range(blocks):
            wanted |= block(f"layer{stage}.{k}", bottleneck, "" if k else "fp bn")
    with torch.device("meta"):
        assert set(Network(architectures.resnet(50, 2, False)).state_dict()) == wanted

    inverted = basic + " quan3 conv3 bn3"
    wanted = {"fc.weight", "fc.bias", "feature.0.conv1.weight", "feature.18.quan1.clip_val",
              *(f"feature.{k}.bn1.{key}" for k in (0, 18) for key in norm),
              *(f"feature.18.conv1.{key}" for key in quantized)}
    for k in range(1, 18):
        wanted |= block(f"feature.{k}", inverted, "")
    with torch.device("meta"):
        assert set(Network(architectures.mobilenetv2()).state_dict()) == wanted


def test_add_reads_the_block_and_its_shortcut() -> None:
    adds = {layer.name: layer.inputs for layer in architectures.resnet(18)
            if isinstance(layer, model.Add)}
    assert len(adds) == 8
    assert adds["layer1.0.add"] == ("layer1.0.bn2", "maxpool")
    assert adds["layer1.1.add"] == ("layer1.1.bn2", "layer1.0.bias32")
    assert adds["layer2.0.add"] == ("layer2.0.bn2", "layer2.0.downsample.2")
    adds = {layer.name: layer.inputs for layer in architectures.mobilenetv2()
            if isinstance(layer, model.Add)}
    assert list(adds) == [f"feature.{k}.add" for k in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]
    assert adds["feature.6.add"] == ("feature.6.bn3", "feature.5.add")
    assert adds["feature.3.add"] == ("feature.3.bn3", "feature.2.bn3")


@pytest.mark.parametrize("layers", [
    architectures.resnet(18), architectures.resnet(50), architectures.mobilenetv2()])
def test_images_of_any_size(layers: Layers) -> None:
    network = Network(layers).eval()
    with torch.no_grad():
        for size in (32, 33, 63, 224):
            assert network(torch.rand(1, 3, size, size)).shape == (1, 1000)


def test_depth_and_widths() -> None:
    with pytest.raises(N2uqError, match="resnet depth must be one of 18, 34, 50, not 101"):
        architectures.resnet(101)
    convs = [layer for layer in architectures.resnet8(1, 4, 10, (4, 6, 8))
             if isinstance(layer, model.Conv)]
    assert [(x.in_channels, x.out_channels, x.stride, x.bits) for x in convs] == [
        (4, 4, 1, 4), (4, 4, 1, 4), (4, 6, 2, 4), (6, 6, 1, 4), (4, 6, 2, 4), (6, 8, 2, 4),
        (8, 8, 1, 4), (6, 8, 2, 4)]
