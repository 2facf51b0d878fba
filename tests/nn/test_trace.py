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

import n2uq_hw as n2
from n2uq_hw import model
from n2uq_hw.model import InputSpec, Net, sources
from n2uq_hw.model.architectures import resnet8
from n2uq_hw.nn import LTQ, PACT, LearnableBias, Network, QuantizedConv2d, QuantizedLinear

SPEC = InputSpec((2, 8, 8), 15, 1 / 15)


def trained(module: nn.Module, spec: InputSpec = SPEC, seed: int = 0) -> nn.Module:
    """With random parameters of either sign, and the running statistics of random images."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, value in module.named_parameters():
            if key.endswith("bias"):
                value.uniform_(-0.3, 0.3)
            elif value.dim() == 1 and key.endswith("weight"):
                value.uniform_(-0.5, 1.5)
            elif key.endswith((".a", ".scale1", ".scale2")):
                value.mul_(torch.rand_like(value) + 0.5)
        for each in module.modules():
            if isinstance(each, nn.modules.batchnorm._BatchNorm):
                each.momentum = 1.0
        module.train()(torch.rand(32, *spec.shape))
    return module.eval()


def agrees(module: nn.Module, net: Net) -> None:
    """The net computes in float64 what the module does."""
    images = np.random.default_rng(1).integers(0, net.input.max + 1, (40, *net.input.shape))
    pixels = torch.from_numpy(images * net.input.factor.reshape(-1, 1, 1)
                              + net.input.offset.reshape(-1, 1, 1))
    with torch.no_grad():
        expected = copy.deepcopy(module).double()(pixels).flatten(1).numpy()
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


MODULES = {"resnet": ResNet8, "mobilenet": MobileNet, "lenet": Lenet, "reuse": Reuse,
           "in place": InPlace, "mlp": mlp, "nested": nested}


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_the_net_computes_what_the_module_does(make: Any) -> None:
    spec = replace(SPEC, mean=(0.25, 0.5), std=(0.5, 2.0)) if make is ResNet8 else SPEC
    module = trained(make(), spec)
    state = copy.deepcopy(module.state_dict())
    net = n2.trace(module, spec, name="net", meta={"note": 1})
    agrees(module, net)
    assert net.name == "net" and net.input is spec and net.meta == {"note": 1}
    # It leaves no trace in the module.
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())


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
        return torch.round(x)


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


PIXELS = "for pixels, BatchNorm elsewhere"
BENDS = "ReLU, ReLU6, PReLU or a quantizer (LTQ, PACT)"
REFUSED = {
    "sigmoid": (after(nn.Sequential(nn.Sigmoid())),
                f"1.0: torch.sigmoid has no layer in a Net; what would do: {BENDS}"),
    "several": (after(nn.SiLU(), nn.ReLU(), nn.Tanh(), nn.Dropout(), nn.GELU()),
                f"1: F.silu has no layer in a Net; what would do: {BENDS} (and 2 more)"),
    "cat": (Does(lambda x: torch.cat([x, x], 1)), "forward: torch.cat has no layer in a Net; what "
            "would do: a sum of branches of one shape (+)"),
    "slice": (Does(lambda x: x[:, :, ::2, ::2]), "forward: Tensor.__getitem__ has no layer in a "
              "Net; what would do: a convolution or a max-pool with a stride"),
    "assigned": (Does(assigned), "forward: Tensor.__setitem__ has no layer in a Net; what would "
                 "do: a convolution or a max-pool with a stride"),
    "mask": (Does(lambda x: x[x > 0]), "forward: Tensor.__getitem__ has no layer in a Net; what "
             "would do: a convolution or a max-pool with a stride"),
    "division": (Does(lambda x: x / 2), "forward: Tensor.div has no layer in a Net; what would "
                 f"do: mean and std of the InputSpec {PIXELS}"),
    "erf": (Does(torch.erf), "forward: torch.erf has no layer in a Net; what would do: Conv2d, "
            "Linear, BatchNorm, PReLU, ReLU, ReLU6, MaxPool2d, AdaptiveAvgPool2d(1), Flatten, + "
            "and the layers of n2uq_hw.nn"),
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
    "groups": (after(nn.Conv2d(4, 4, 3, groups=4)), "1: F.conv2d must have 1 group, not 4; "
               "QuantizedConv2d may be depthwise"),
    "dilation": (after(nn.Conv2d(4, 4, 3, dilation=2)), "1: F.conv2d must have dilation 1, not 2"),
    "kernel": (after(nn.Conv2d(4, 4, (3, 5))), "1: F.conv2d must have one kernel size for height "
               "and width, not (3, 5)"),
    "even": (after(nn.Conv2d(4, 4, 2, padding="same")), "1: F.conv2d must have an odd kernel size "
             "for padding 'same', not 2"),
    "ceil": (after(nn.MaxPool2d(3, 2, ceil_mode=True)), "1: F.max_pool2d must have whole windows, "
             "not end within one (ceil_mode) of [N, 4, 8, 8]"),
    "indices": (Does(lambda x: F.max_pool2d(x, 2, return_indices=True)[0]),
                "forward: F.max_pool2d_with_indices has no layer in a Net; what would do: "),
    "average": (after(nn.AvgPool2d(2)), "1: F.avg_pool2d must average all pixels of [N, 4, 8, 8]; "
                "AdaptiveAvgPool2d(1) does"),
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
    "clamp": (after(nn.Hardtanh()), "1: F.hardtanh must be from 0, up to 6 or without end, not "
              f"from -1.0 to 1.0; what would do: {BENDS}"),
    "view": (Does(view_changed), "the output reads a view of a tensor that relu has changed in "
             "place; a copy would do"),
    "function": (Does(lambda x: F.relu(Straight.apply(x))),
                 f"forward: torch.round has no layer in a Net; what would do: {BENDS}"),
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
    found = str(caught.value)
    assert found.startswith(f"n: {message}") if message.endswith(" ") else found == f"n: {message}"
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
