"""Modules as users write them against their traces, and what a trace refuses."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from user_modules import SPEC, TCN, DenseNet, UNet, taken, trained

import n2uq_hw as n2
from n2uq_hw import model
from n2uq_hw.model import InputSpec, Net, sources
from n2uq_hw.model.architectures import resnet8
from n2uq_hw.nn import LTQ, PACT, LearnableBias, Network, QuantizedConv2d, QuantizedLinear


def agrees(module: nn.Module, net: Net) -> None:
    """The net computes in float64 what the module does."""
    images = np.random.default_rng(1).integers(0, net.input.max + 1, (40, *net.input.shape))
    pixels = torch.from_numpy(images * net.input.factor.reshape(-1, 1, 1)
                              + net.input.offset.reshape(-1, 1, 1))
    with torch.no_grad():
        expected = copy.deepcopy(module).double()(taken(module, pixels)).flatten(1).numpy()
    assert len(np.unique(expected, axis=0)) > 20
    np.testing.assert_allclose(net.forward(images), expected, atol=1e-5)


def kinds(net: Net) -> dict[str, str]:
    return {layer.name: type(layer).__name__ for layer in net.layers}


# --- Modules ------------------------------------------------------------------------------------


class Shifted(nn.Module):
    """bias–PReLU–bias, as the paper has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before, self.after = LearnableBias(channels), LearnableBias(channels)
        self.prelu = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.prelu(self.before(x)))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.act1, self.quan1 = Shifted(inputs), LTQ(2)
        self.conv1 = QuantizedConv2d(inputs, outputs, 3, stride, 1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act2, self.quan2 = Shifted(outputs), LTQ(2)
        self.conv2 = QuantizedConv2d(outputs, outputs, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Sequential(
            LTQ(2), QuantizedConv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(self.quan1(self.act1(x))))
        out = self.bn2(self.conv2(self.quan2(self.act2(out))))
        out += self.shortcut(x)
        return out


class ResNet8(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding="same")
        self.bn, self.relu = nn.BatchNorm2d(4, eps=1e-3), nn.ReLU(inplace=True)
        self.blocks = nn.ModuleList([Block(4, 4, 1), Block(4, 6, 2)])
        self.pool, self.drop, self.fc = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.2), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.fc(self.drop(self.pool(x).view(x.size(0), -1)))


def unit(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
    return [PACT(4), QuantizedConv2d(inputs, outputs, kernel, stride, kernel // 2, groups, bits=4),
            nn.BatchNorm2d(outputs), nn.ReLU6()]


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6()),
            nn.Sequential(*unit(4, 8, 1, 1, 1), *unit(8, 8, 3, 1, 8), *unit(8, 6, 1, 1, 1)))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 3, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean([2, 3]))


class Lenet(nn.Module):
    """Functional forms, and a forward that looks at shapes and types."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 1, bias=False)
        self.fc1, self.fc2 = nn.Linear(24, 8), nn.Linear(8, 4)
        self.offset = nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 2 or not isinstance(x, Tensor):
            raise ValueError("two channels")
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.leaky_relu(self.conv2(x.contiguous()), 0.1)
        x = F.max_pool2d(x, 3, stride=1, padding=1)
        x = F.avg_pool2d(x, 1) if x.shape[-1] > 3 else F.max_pool2d(x, kernel_size=2, stride=1)
        x = torch.flatten(x, 1)
        x = F.dropout(x, 0.1, self.training)
        x = self.fc1(x).clamp(min=0) + self.offset
        return self.fc2(F.hardtanh(x, 0, 6).to("cpu"))


class Reuse(nn.Module):
    """A module without parameters, one with, and a block, each called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.conv = nn.ReLU(), nn.Conv2d(2, 2, 3, 1, 1)
        self.tied, self.block = nn.Conv2d(2, 2, 3, 1, 1), Block(2, 2, 1)
        self.tied.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        y = self.relu(self.conv(x))
        return self.block(self.block(sum([x, y, nn.ReLU6()(self.tied(x))])))


class InPlace(nn.Module):
    """What is changed in place has changed under all of its names."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.tensor([[[-0.5]], [[-0.25]]])
        same = kept = nn.Identity()(x)
        kept = kept.clone()
        same += kept
        x.add_(1)
        y = F.relu(x + kept, inplace=True)
        y.relu_()
        return x + y + same


class Standardized(nn.Conv2d):
    """Weights that are computed: they are constants."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), QuantizedLinear(128, 12, bits=8), nn.BatchNorm1d(12, affine=False),
        Shifted(12), LTQ(2), QuantizedLinear(12, 12), nn.BatchNorm1d(12), nn.PReLU(), LTQ(3),
        QuantizedLinear(12, 4, bits=8))


def nested() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Sequential(Standardized(2, 4, 3, 1, 1)), nn.Sequential()),
        nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d((8, 8)), nn.Dropout2d()),
        nn.AvgPool2d(8), nn.Flatten(), nn.Sequential(nn.Linear(4, 3)))


class Rectangles(nn.Module):
    """Kernels, strides, dilation, groups and padding of two sizes; pools of windows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, (3, 5), (1, 2), (1, 2), groups=2)
        self.same = nn.Conv2d(8, 8, (2, 3), padding="same", dilation=(1, 2), groups=8)
        self.norm, self.quan = nn.BatchNorm2d(8), LTQ(2)
        self.quantized = QuantizedConv2d(8, 6, (1, 3), (2, 1), (0, 1), 2)
        self.shuffle = nn.ChannelShuffle(2)
        self.pad, self.last = nn.ZeroPad2d((1, 0, 2, 0)), nn.Conv2d(6, 4, (3, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.same(self.conv(x)), (3, 1), 1, (1, 0))
        x = self.shuffle(self.quantized(self.quan(self.norm(x))))
        x = F.avg_pool2d(self.last(self.pad(x)), (1, 2), 1, (0, 1), count_include_pad=False)
        return F.pixel_shuffle(F.avg_pool2d(x, 3, 1, 1)[:, :, ::2], 2)


class Pools(nn.Module):
    """Windows that end beyond the image, and averages of those with fewer pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.quan = nn.Conv2d(2, 4, 3, padding=1), LTQ(3)
        self.mean = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.again, self.last = LTQ(3), QuantizedConv2d(4, 4, 1)
        self.most = nn.MaxPool2d(3, 2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.pad(self.conv(x), (1, 0, 0, 1)), 2, 1)
        x = self.again(self.mean(self.quan(self.most(x))))
        x = F.avg_pool2d(x, 2, 1, 1, ceil_mode=True)
        x = self.last(F.avg_pool2d(x, 2, 3, ceil_mode=True, divisor_override=1))
        return F.avg_pool2d(x, (2, 1), (1, 2), (1, 0), ceil_mode=True, count_include_pad=False)


class CountedPads(nn.Module):
    """Averages that count their own pads, but not what ceil_mode adds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(2, 4, 1), nn.AvgPool2d((2, 3), 2, (1, 1), ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.pool(F.relu(self.conv(x))))


class Upscaler(nn.Module):
    """Transposed convolutions of several strides, with dilation and in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ConvTranspose2d(2, 6, 3, 2, 1, output_padding=1)
        self.norm, self.quan = nn.BatchNorm2d(6), LTQ(3)
        self.second = nn.ConvTranspose2d(6, 4, (2, 4), (1, 2), (0, 1), groups=2, bias=False)
        self.last = nn.ConvTranspose2d(4, 3, (1, 3), (1, 2), dilation=(1, 2), output_padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.quan(self.norm(F.relu(self.first(x))))
        return self.last(self.quan(F.max_pool2d(self.second(x), (4, 2))))


class Upsampled(nn.Module):
    """A transposed convolution of a sequence."""

    spec = InputSpec((2, 1, 16), 255, 1 / 255)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.quan = nn.Conv1d(2, 4, 3), LTQ(2)
        self.up = nn.ConvTranspose1d(4, 3, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.quan(self.conv(x)))


class Decoder(nn.Module):
    """A vector that becomes an image, and another that becomes a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = nn.Linear(128, 24), nn.Conv2d(2, 3, (2, 3))
        self.second, self.last = nn.Linear(12, 30), nn.Conv1d(5, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x.flatten(1))).view(-1, 2, 3, 4)
        return self.last(self.second(self.conv(x).flatten(1)).reshape(-1, 5, 6))


class Scalars(nn.Module):
    """Functions of one value, as modules and as functions, and constants on either side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.seq = nn.Sequential(nn.Hardtanh(-0.9, 0.95), nn.LeakyReLU(0.2), nn.Tanh(), nn.SiLU(),
                                 nn.GELU(), nn.ELU(0.5), nn.Hardswish(), nn.Softplus(),
                                 nn.Hardsigmoid(), nn.Softsign(), nn.ReLU6())
        self.scale = nn.Parameter(torch.rand(4, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.conv(x) * self.scale) - 0.25
        x = self.seq(-(1 - 2 * x / 3).clamp(-2) + 0.1).abs()
        return 1 / (x.exp() + 1) + F.hardtanh(x.sqrt(), max_val=0.9)


MODULES = {"unet": UNet, "densenet": DenseNet, "tcn": TCN, "rectangles": Rectangles, "pools": Pools,
           "decoder": Decoder, "counted pads": CountedPads, "upscaler": Upscaler,
           "upsampled": Upsampled,
           "scalars": Scalars, "resnet": ResNet8, "mobilenet": MobileNet, "lenet": Lenet,
           "reuse": Reuse, "in place": InPlace, "mlp": mlp, "nested": nested}


SPECS = {ResNet8: replace(SPEC, mean=(0.25, 0.5), std=(0.5, 2.0)),
         TCN: TCN.spec, Upsampled: Upsampled.spec}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_the_net_computes_what_the_module_does(make: Any) -> None:
    spec = SPECS.get(make, SPEC)
    module = trained(make(), spec)
    state = copy.deepcopy(module.state_dict())
    net = n2.trace(module, spec, name="net", meta={"note": 1})
    agrees(module, net)
    assert net.name == "net" and net.input is spec and net.meta == {"note": 1}
    # It leaves no trace in the module.
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())


def test_an_example_batch_says_what_pixels_are() -> None:
    """Floats of 0..1 are pixels of 0..255; integers are seen as they are."""
    module = trained(after(nn.ReLU()))
    net = n2.trace(module, torch.rand(3, 2, 8, 8))
    assert net.input == InputSpec((2, 8, 8), 255, 1 / 255)
    agrees(module, net)
    for largest, most in ((200, 255), (1000, 1023)):
        net = n2.trace(module, np.full((1, 2, 8, 8), largest))
        assert net.input == InputSpec((2, 8, 8), most, 1.0)
    assert n2.trace(trained(TCN(), SPECS[TCN]), torch.rand(1, 2, 16)).input.shape == (2, 1, 16)
    for batch, message in (
            (torch.rand(2, 8), r"must be numbers \[N, C, H, W\] or \[N, C, L\], not float32 "
             r"\[2, 8\]"), (torch.randn(2, 2, 8, 8), "of floats must lie in 0..1, not -"),
            (np.full((1, 2, 8, 8), -3), r"of integers must lie in 0\.\.max, not from -3")):
        with pytest.raises(n2.N2uqError, match=f"^an example batch {message}"):
            n2.trace(module, batch)


def test_of_a_compiled_module_the_original_is_traced() -> None:
    class Compiled(nn.Module):  # what torch.compile makes, which takes seconds to import
        def __init__(self) -> None:
            super().__init__()
            self._orig_mod = after(nn.ReLU())

    assert kinds(n2.trace(Compiled().eval(), SPEC)) == {
        "0": "FloatConv", "0_bias": "Bias", "1": "ReLU"}


def test_buffers_keep_their_values() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("sum", torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            self.sum += x.mean()
            return F.relu(x)

    module = Counts().eval()
    assert kinds(n2.trace(module, SPEC)) == {"relu": "ReLU"}
    assert module.sum == 1


def test_hooks_of_the_user_belong_to_the_module() -> None:
    module = trained(after(LTQ(2)))
    module[1].register_forward_pre_hook(lambda module, args: (args[0] + 0.25,))
    module[1].register_forward_hook(lambda module, args, output: F.relu(output + 0.5))
    net = n2.trace(module, SPEC)
    agrees(module, net)
    assert [*kinds(net).values()] == ["FloatConv", "Bias", "Bias", "LTQ", "Bias", "ReLU"]


def test_layers_are_named_as_the_modules_are() -> None:
    assert kinds(n2.trace(trained(ResNet8()), SPEC)) == {
        "stem": "FloatConv", "stem_bias": "Bias", "bn": "BatchNorm", "relu": "ReLU",
        **{f"blocks.{k}.{name}": kind for k in (0, 1) for name, kind in {
            "act1.before": "Bias", "act1.prelu": "PReLU", "act1.after": "Bias", "quan1": "LTQ",
            "conv1": "Conv", "bn1": "BatchNorm", "act2.before": "Bias", "act2.prelu": "PReLU",
            "act2.after": "Bias", "quan2": "LTQ", "conv2": "Conv", "bn2": "BatchNorm",
            **({"shortcut.0": "LTQ", "shortcut.1": "Conv", "shortcut.2": "BatchNorm"} if k else {}),
            "add": "Add"}.items()},
        "pool": "AvgPool", "flatten": "Flatten", "fc": "FloatLinear"}
    reuse = kinds(n2.trace(trained(Reuse()), SPEC))
    assert {"conv", "conv_1", "relu", "relu_1", "relu6", "add", "add_1", "tied", "block.conv1",
            "block.conv1_1", "block.add_1"} <= reuse.keys() and "conv_2" not in reuse
    assert n2.trace(trained(Reuse()), SPEC).name == "Reuse"
    later = Does(lambda x: later.relu(F.relu(x) + 1), relu=nn.ReLU()).eval()
    assert [*kinds(n2.trace(later, SPEC))] == ["conv", "conv_bias", "relu_1", "bias", "relu"]


@pytest.mark.parametrize("layers,shape", [
    (resnet8(1, widths=(4, 6)), (1, 8, 8)),
    ((model.Conv("a.conv", 2, 4, 2, 2, bits=1), model.MaxPool("a.pool", 3, 2, 1), model.LTQ("q", 8),
      model.Flatten("flatten"), model.Linear("input", 16, 3, 3), model.BatchNorm("bn", 3),
      model.Add("relu", inputs=("bn", "input"))), (2, 8, 8)),
])
def test_a_network_of_layers_comes_back(layers: tuple[model.Layer, ...],
                                        shape: tuple[int, int, int]) -> None:
    network, spec = Network(layers).eval(), InputSpec(shape)
    net, expected = n2.trace(network, spec, name="n"), network.to_net("n", spec, {})
    assert sources(net.layers) == sources(layers)
    assert [replace(layer, inputs=()) for layer in net.layers] == [
        replace(layer, inputs=()) for layer in layers]
    assert net.params.keys() == expected.params.keys()
    assert all(np.array_equal(value, expected.params[key]) for key, value in net.params.items())


def test_from_a_users_module_to_proven_hardware(tmp_path: Path) -> None:
    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quan, self.conv = LTQ(2), QuantizedConv2d(2, 3, 3, 2)
            self.bn, self.last = nn.BatchNorm2d(3), LTQ(2)
            self.fc = QuantizedLinear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.flatten(self.last(F.relu(self.bn(self.conv(self.quan(x))))), 1))

    spec = InputSpec((2, 5, 5), 15, 1 / 15)
    module = trained(Tiny(), spec)
    net = n2.trace(module, spec, name="tiny")
    agrees(module, net)
    graph = n2.lower(net)
    images = np.random.default_rng(2).integers(0, 16, (6, 2, 5, 5))
    assert np.abs(graph.forward(images) * graph.scale - net.forward(images)).max() <= graph.scale
    assert n2.build(graph, None, tmp_path / "b", images=images).verify(
        stalls=0.3).mismatches == 0


@pytest.mark.parametrize("groups", [2, 4])
def test_full_precision_convolutions_in_groups_lower(groups: int) -> None:
    module = trained(after(nn.Conv2d(4, 8, (1, 3), groups=groups), nn.BatchNorm2d(8), nn.Hardtanh(),
                           LTQ(2), nn.Flatten(), QuantizedLinear(384, 3)))
    net = n2.trace(module, SPEC)
    graph, images = n2.lower(net), np.random.default_rng(0).integers(0, 16, (8, 2, 8, 8))
    expected = net.forward(images)
    error = np.abs(graph.forward(images) * graph.scale - expected).max()
    assert error < 0.02 * np.ptp(expected)


# --- Refusals -----------------------------------------------------------------------------------


class Does(nn.Module):
    """A convolution `conv`, then `what` is done to its 4 × 8 × 8 pixels."""

    def __init__(self, what: Any, **modules: nn.Module) -> None:
        super().__init__()
        self.conv, self.what = nn.Conv2d(2, 4, 3, 1, 1), what
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Any:
        return self.what(self.conv(x))


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.mish(x)


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def assigned(x: Tensor) -> Tensor:
    x[:, 0] = 0
    return x


def view_changed(x: Tensor) -> Tensor:
    flat = x.flatten(1)
    x.relu_()
    return flat


def after(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 4, 3, 1, 1), *modules)


SCALARS = "ReLU, ReLU6, PReLU, Sigmoid, Tanh, Hardtanh or a quantizer (LTQ, PACT)"
STRIDE = "a convolution or a max-pool with a stride"
CUT = ("must take every n-th pixel, or cut off what a convolution before it has padded; what would "
       f"do: {STRIDE}")
MARGIN = "must read what no F.pad has framed, as a convolution or a max pool may"
REFUSED = {
    "mish": (after(nn.Sequential(nn.Mish())),
             f"1.0: F.mish has no layer in a Net; what would do: {SCALARS}"),
    "several": (after(nn.Mish(), nn.ReLU(), nn.SELU(), nn.Dropout(), nn.CELU()),
                f"1: F.mish has no layer in a Net; what would do: {SCALARS} (and 2 more)"),
    "rows": (Does(lambda x: torch.cat([x, x], 2)), "forward: torch.cat must join channels, axis 1, "
             "not axis 2 of [N, 4, 8, 8]"),
    "constants": (Does(lambda x: torch.cat([x, torch.ones(7, 1, 8, 8)], 1)),
                  "forward: torch.cat must read layers, not constants"),
    "slice": (Does(lambda x: F.relu(x)[:, :, 1:]), f"forward: Tensor.__getitem__ {CUT}"),
    "one": (Does(lambda x: x[:, 0]), f"forward: Tensor.__getitem__ {CUT}"),
    "cut of two readers": (Does(lambda x: x[:, :, 1:] + F.max_pool2d(x, (2, 1), 1)),
                           f"forward: Tensor.__getitem__ {CUT}"),
    "cut of more than is padded": (Does(lambda x: x[:, :, 2:]),
                                   f"forward: Tensor.__getitem__ {CUT}"),
    "chunk": (Does(lambda x: x.chunk(2, 1)[0]), "forward: Tensor.chunk has no layer in a Net; what "
              f"would do: {STRIDE}"),
    "assigned": (Does(assigned), "forward: Tensor.__setitem__ has no layer in a Net; what would "
                 f"do: {STRIDE}"),
    "mask": (Does(lambda x: x[x > 0]), "forward: Tensor.__getitem__ has no layer in a Net; what "
             f"would do: {STRIDE}"),
    "two layers": (Does(lambda x: x * F.relu(x)),
                   "forward: Tensor.mul must read one layer and constants, not two layers"),
    "constant per pixel": (Does(lambda x: x * torch.ones(8, 8)), "forward: Tensor.mul must read a "
                           "value per channel of [N, 4, 8, 8], not [8, 8]"),
    "frame": (Does(lambda x: F.relu(F.pad(x, (1, 1)))), f"forward: F.relu {MARGIN}"),
    "framed twice": (Does(lambda x: F.max_pool2d(F.pad(x, (1, 1)), 3, 1, 1)),
                     "forward: F.max_pool2d must not pad, or have ceil_mode, where F.pad has "
                     "framed what it reads"),
    "framed output": (Does(lambda x: F.pad(x, (1, 1))), f"the output {MARGIN}"),
    "framed by ones": (Does(lambda x: F.pad(x, (1, 1), value=1.0)), "forward: F.pad must add zeros "
                       "around images, not [1, 1] of 1.0"),
    "framed channels": (Does(lambda x: F.pad(x, (0, 0, 0, 0, 1, 1))), "forward: F.pad must add "
                        "zeros around images, not [0, 0, 0, 0, 1, 1] of 0"),
    "bilinear": (after(nn.Upsample(scale_factor=2, mode="bilinear")),
                 "1: F.interpolate must have mode nearest, not bilinear"),
    "half": (after(nn.Upsample(scale_factor=1.5)), "1: F.interpolate must repeat whole pixels of "
             "[N, 4, 8, 8], not make [N, 4, 12, 12]"),
    "erfinv": (Does(torch.erfinv), "forward: torch.erfinv has no layer in a Net; what would do: "
               "Conv1d, Conv2d, Linear, BatchNorm, PReLU, ReLU, Sigmoid, Tanh, max and average "
               "pools, Flatten, Upsample, PixelShuffle, cat, + and the layers of n2uq_hw.nn"),
    "control flow": (Does(lambda x: x if x.mean() > 0 else -x), "forward: Tensor.__bool__ reads "
                     "values, which must not steer forward; shapes may"),
    "item": (Does(lambda x: x + x.max().item()), "forward: Tensor.item reads values, which must "
             "not steer forward; shapes may"),
    "two inputs": (Two(), "forward must take the images alone, not x, y"),
    "two outputs": (Does(lambda x: (x, x)), "forward must return one tensor, not tuple"),
    "constant": (Does(lambda x: torch.ones(1)), "the output has no part in the images"),
    "nothing": (nn.Identity(), "forward must do something with the images"),
    "channels": (after(nn.ReLU(), nn.Conv2d(3, 2, 1)),
                 "2: F.conv2d does not fit [N, 4, 8, 8] and [2, 3, 1, 1] and [2]: "),
    "quantized channels": (after(QuantizedConv2d(3, 2, 1)),
                           "1: F.conv2d does not fit [N, 4, 8, 8] and [2, 3, 1, 1]: "),
    "features": (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
                 "1: F.linear does not fit [N, 128] and [3, 64] and [3]: "),
    "fails": (Does(lambda x: x.shape[9]), "forward must run on images [N, 2, 8, 8], and fails: "
              "tuple index out of range"),
    "training": (after(nn.BatchNorm2d(4), nn.Dropout()).train(), "1 must be in evaluation mode "
                 "(and 1 more); call module.eval() first"),
    "batch statistics": (after(nn.BatchNorm2d(4, track_running_stats=False)), "1: F.batch_norm "
                         "must use running statistics: track them, and call module.eval() first"),
    "eps": (after(nn.BatchNorm2d(4, eps=1e-9)), "1: F.batch_norm must have eps 1e-05 or more where "
            "a variance is as small, not 1e-09"),
    "dropping": (Does(F.dropout), "forward: F.dropout must not drop in evaluation mode: pass "
                 "training=self.training, and call module.eval() first"),
    "unused": (Does(lambda x: x, aux=nn.Linear(2, 2)),
               "aux.weight must be read by forward (and 1 more); delete what is not used"),
    "indices": (Does(lambda x: F.max_pool2d(x, 2, return_indices=True)[0]),
                "forward: F.max_pool2d_with_indices has no layer in a Net; what would do: "),
    "windows": (after(nn.AdaptiveAvgPool2d(3)), "1: F.adaptive_avg_pool2d must make windows of one "
                "size, not (3, 3) of [N, 4, 8, 8]"),
    "transposed": (after(nn.ConvTranspose2d(4, 2, 3, 2, 1)), "1: F.conv_transpose2d must make "
                   "whole multiples of its stride 2, not [N, 2, 15, 15]; output_padding would do"),
    "divisor": (after(nn.AvgPool2d(2, divisor_override=3)),
                "1: F.avg_pool2d must have divisor_override None or 1, not 3"),
    "mean": (Does(lambda x: x.mean((0, 1))), "forward: Tensor.mean must average all pixels of "
             "[N, 4, 8, 8]; AdaptiveAvgPool2d(1) does"),
    "matrix": (after(nn.Linear(8, 2)), "1: F.linear must read a vector [N, features], not "
               "[N, 4, 8, 8]; a Flatten before it would do"),
    "quantized matrix": (after(QuantizedLinear(8, 2)), "1: QuantizedLinear must read a vector "
                         "[N, features], not [N, 4, 8, 8]; a Flatten before it would do"),
    "mixed": (Does(lambda x: x.view(1, -1)), "forward: Tensor.view must make a vector of each "
              "image, [N, 256], not [1, 1792]"),
    "broadcast": (Does(lambda x: x + x.mean((2, 3), True)), "forward: Tensor.add must read tensors "
                  "of one shape, not [N, 4, 8, 8] and [N, 4, 1, 1]"),
    "bias": (Does(lambda x: x + torch.ones(8)), "forward: Tensor.add must read a bias per channel "
             "of [N, 4, 8, 8], not [8]"),
    "alpha": (Does(lambda x: torch.add(x, x, alpha=2)), "forward: torch.add must have alpha 1, "
              "not 2"),
    "view": (Does(view_changed), "the output reads a view of a tensor that relu has changed in "
             "place; a copy would do"),
    "function": (Does(lambda x: F.relu(Straight.apply(x))),
                 f"forward: F.mish has no layer in a Net; what would do: {SCALARS}"),
    "precision": (Does(lambda x: F.relu(x.double())), "forward: Tensor.double has no layer in a "
                  "Net; what would do: float32 throughout (and 1 more)"),
    "module": (Does(lambda x: x).double(), "conv.weight must be float32, not float64; the module's "
               "float() makes it so"),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_names_the_module_the_operation_and_what_would_do(case: str) -> None:
    module, message = REFUSED[case]
    if case != "training":
        module.eval()
    if case == "eps":
        module[1].running_var.zero_()
    with pytest.raises(n2.N2uqError) as caught:
        n2.trace(module, SPEC, name="n")
    text = str(caught.value)
    assert text.startswith(f"n: {message}") if message.endswith(" ") else text == f"n: {message}"
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_net_says_what_is_wrong_with_values_input_and_name() -> None:
    module = after(LTQ(2)).eval()
    for spec, message in ((InputSpec((2, 8, -1)), "input shape must be three positive sizes"),
                          (InputSpec((2, 8, 8), 0), "input max must be in 1..65535, not 0")):
        with pytest.raises(n2.N2uqError, match=f"^Sequential: {message}"):
            n2.trace(module, spec)
    with pytest.raises(n2.N2uqError, match=r"^module must be a torch module, not int$"):
        n2.trace(5, SPEC)
    with pytest.raises(n2.N2uqError, match=r"^n: 1 must be a module in Python, not a script$"):
        n2.trace(after(torch.jit.script(nn.ReLU())).eval(), SPEC, name="n")
    with torch.no_grad():
        module[1].a[1] = torch.nan
    with pytest.raises(n2.N2uqError, match=r"^n: 1\.a must be finite, not nan \(1 of 3 values\)"):
        n2.trace(module, SPEC, name="n")


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("n2uq_hw.nn.trace", "n2uq_hw.nn.layers", "n2uq_hw.nn"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(n2.N2uqError) as caught:
        n2.trace(None, SPEC)
    assert str(caught.value) == ("torch: needed to trace modules, and not installed "
                                 "(pip install 'n2uq-hw[train]')")
