"""Float models as N2UQ models: what they compute, that they lower, and that they learn."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from user_modules import SPEC, TCN, DenseNet, UNet, trained

import n2uq_hw as n2
from n2uq_hw import data, model
from n2uq_hw.model import InputSpec, Net
from n2uq_hw.nn import convert


class Basic(nn.Module):
    """The block of torchvision's ResNets: one ReLU is called twice."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None if (inputs, stride) == (outputs, 1) else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + identity)


class ResNet(nn.Module):
    def __init__(self, channels: int = 2, widths: tuple[int, ...] = (6, 8)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layers = nn.Sequential(*(Basic(inputs, outputs, 1 + (inputs != outputs))
                                      for inputs, outputs in zip((widths[0], *widths), widths,
                                                                 strict=False)))
        self.fc = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Inverted(nn.Module):
    """MobileNetV2's bottleneck: its end is linear."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(True),
            nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden),
            nn.ReLU6(True), nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6(True),
            Inverted(6, 12), Inverted(6, 12), nn.Conv2d(6, 12, 1), nn.ReLU6())
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean([2, 3]))


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1),
        nn.PReLU(8), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 12), nn.Sigmoid(),
        nn.Linear(12, 5))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


MODULES: dict[str, Any] = {"resnet": ResNet, "mobilenet": MobileNet, "cnn": cnn, "unet": UNet,
                           "densenet": DenseNet, "tcn": TCN}


def kinds(layers: tuple[model.Layer, ...]) -> Counter[str]:
    return Counter(type(layer).__name__ for layer in layers)


@pytest.mark.parametrize("name", MODULES)
def test_with_eight_bits_it_computes_almost_what_the_model_does(name: str) -> None:
    """Weights copied, thresholds where they cost least; in spreads of an output."""
    make = MODULES[name]
    spec = TCN.spec if make is TCN else SPEC
    module = trained(make(), spec)
    state = copy.deepcopy(module.state_dict())
    images = torch.randint(0, 16, (96, *spec.shape)) / 15
    taken = images.squeeze(2) if make is TCN else images
    with torch.no_grad():
        wanted = module(taken)
        errors = [float((convert(module, bits, bits, 8, batches=taken.split(32)).eval()(images)
                         - wanted).abs().mean() / wanted.std(0).mean()) for bits in (2, 4, 8)]
    assert errors[2] < min(0.15, *errors[:2]), errors
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "cnn"])
def test_the_result_traces_and_lowers(name: str) -> None:
    module = trained(MODULES[name](), SPEC)
    images = torch.randint(0, 16, (64, 2, 8, 8))
    network = convert(module, batches=[images / 15]).eval()
    net = n2.trace(network, SPEC, name="net")
    same = network.to_net("net", SPEC, {})
    assert net.params.keys() == same.params.keys()
    graph, expected = n2.lower(net), net.forward(images.numpy())
    ours = graph.forward(images.numpy()) * graph.scale
    assert np.abs(ours - expected).max() < 0.05 * np.ptp(expected)
    assert not {"ReLU", "Dropout"} & kinds(net.layers).keys()


def test_layers_are_those_of_the_paper() -> None:
    network = convert(trained(ResNet(), SPEC), 2, 3, 8, batches=torch.rand(16, 2, 8, 8))
    layers = {layer.name: layer for layer in network.layers}
    convs = {name: each.bits for name, each in layers.items() if isinstance(each, model.Conv)}
    assert convs == {"conv1": 8, "layers.0.conv1": 2, "layers.0.conv2": 2, "layers.1.conv1": 2,
                     "layers.1.conv2": 2, "layers.1.downsample.0": 2}
    assert isinstance(layers["fc"], model.FloatLinear)  # it reads averages
    assert {each.bits for each in layers.values() if isinstance(each, model.LTQ)} == {3}
    # An LTQ of its own before each convolution, one of two that read the same; the stream is real.
    reads = model.sources(network.layers)
    assert reads["layers.0.conv2"] == ("layers.0.relu_quan",)
    assert reads["layers.1.conv1"] == reads["layers.1.downsample.0"]
    chain = ["layers.0.conv2"]
    while len(chain) < 6:
        chain.append(reads[chain[-1]][0])
    assert [type(layers[name]).__name__ for name in chain] == [
        "Conv", "LTQ", "Bias", "PReLU", "Bias", "BatchNorm"]
    adds = [name for name, each in layers.items() if isinstance(each, model.Add)]
    assert all(not isinstance(layers[each], model.LTQ) for name in adds for each in reads[name])
    plain = convert(trained(cnn(), SPEC), 2, 2, 0, batches=torch.rand(16, 2, 8, 8))
    assert kinds(plain.layers)["FloatConv"] == 1 and kinds(plain.layers)["FloatLinear"] == 1


@pytest.mark.slow
def test_it_learns_on() -> None:
    """A float ResNet of the digits, converted at 2 bits and trained on for some epochs."""
    torch.manual_seed(0)
    digits = data.load("digits", split="train")
    x, y = torch.from_numpy(digits.images) / 16, torch.from_numpy(digits.labels)
    module = ResNet(1, (8, 16))

    def learn(network: nn.Module, epochs: int) -> float:
        optimizer = torch.optim.Adam(network.parameters(), 5e-3)
        network.train()
        for _ in range(epochs):
            for batch in torch.randperm(1200).split(60):
                loss = F.cross_entropy(network(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            return float((network.eval()(x[1200:]).argmax(1) == y[1200:]).float().mean())

    assert learn(module, 4) > 0.85
    network = convert(module, batches=x[:200])
    with torch.no_grad():
        start = float((network.eval()(x[1200:]).argmax(1) == y[1200:]).float().mean())
    assert start > 0.3 and learn(network, 3) > max(start, 0.85)
    net: Net = network.to_net("digits", InputSpec((1, 8, 8), 16, 1 / 16), {})
    graph = n2.lower(net)
    assert (graph.forward(digits.images[:200]).argmax(1)
            == net.forward(digits.images[:200]).argmax(1)).mean() > 0.97


@pytest.mark.parametrize("change,message", [
    ({"weight_bits": 9}, r"weight_bits must be in 1\.\.8, not 9"),
    ({"act_bits": 0}, r"act_bits must be in 1\.\.8, not 0"),
    ({"first_last_bits": -1}, r"first_last_bits must be in 0\.\.8, not -1"),
    ({"batches": []}, r"batches must be one or more tensors \[N, C, H, W\] or \[N, C, L\]"),
    ({"batches": torch.rand(8, 8)}, r"batches must be one or more tensors"),
])
def test_what_is_asked_is_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(n2.N2uqError, match=f"^{message}"):
        convert(cnn(), **{"batches": torch.rand(4, 2, 8, 8), **change})
    with pytest.raises(n2.N2uqError, match=r"^Sequential: 1: F\.mish has no layer"):
        convert(nn.Sequential(nn.Conv2d(2, 2, 1), nn.Mish()), batches=torch.rand(4, 2, 8, 8))
