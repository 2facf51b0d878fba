"""Modules of low-bit layers against their formulas, and back into nets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from low_bit import make, random_images
from shared import MODELS, needs_models

import n2uq_hw as n2
from n2uq_hw import model, nn
from n2uq_hw.importers.onnx import import_onnx
from n2uq_hw.model import InputSpec, Net
from n2uq_hw.model.low_bit import ROUNDINGS

SPEC = InputSpec((3, 6, 7), 7, 0.25, min=-8)
LAYERS = (
    model.IntConv("conv", 3, 4, (3, 2), (1, 2), (1, 0, 2, 1), (1, 2)),
    model.Quant("quan", 4, -3, 4), model.IntConv("group", 4, 6, 3, 1, 1, groups=2),
    model.Steps("steps", 6, 5), model.AvgPool("sums", 2, 2, total=True),
    model.Flatten("flat"), model.IntLinear("fc", 24, 3))


def as_torch(net: Net, images: np.ndarray) -> np.ndarray:
    module = nn.Network.from_net(net).double()
    with torch.no_grad():
        return module(torch.from_numpy(images * net.input.scale)).numpy()


def test_a_network_computes_what_the_net_does() -> None:
    net = make(*LAYERS, spec=SPEC, quan_scale=0.07, quan_zero_point=[0, 1, -1, 2],
               steps_thresholds=np.sort(np.random.default_rng(3).normal(0, 0.2, (6, 5)), axis=1))
    images = random_images(net)
    ours, theirs = net.forward(images), as_torch(net, images)
    assert np.ptp(ours) > 0.1 and np.abs(ours - theirs).max() < 1e-12


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_roundings(rounding: str) -> None:
    """Of halves and quarters on both sides of 0, as NumPy has them."""
    spec = InputSpec((1, 1, 64), 31, 0.25, min=-32)
    net = make(model.Quant("quan", 1, -5, 6, rounding), spec=spec, quan_scale=1, quan_zero_point=0)
    images = np.arange(-32, 32).reshape(1, 1, 1, 64)
    want = ROUNDINGS[rounding](images / 4).clip(-5, 6)
    assert (as_torch(net, images) == want).all()
    assert (net.forward(images).reshape(want.shape) == want).all()


def test_lines_in_fixed_point() -> None:
    net = make(model.PiecewiseLinear("line", 3, 4), spec=SPEC, line_turn=[-2, 0, 3],
               line_multiplier=[[3, -5, 7], [11, 2, -1]], line_offset=[[1, 2, 3], [-40, 5, 60]])
    images = random_images(net)
    assert (as_torch(net, images) == net.forward(images).reshape(images.shape)).all()


def test_a_scale_stays_as_it_is_in_other_floats() -> None:
    module = nn.Quant(1, 0, 3)
    module.scale.fill_(1 / 3)
    assert module.float().double().scale.item() == 1 / 3


class Mixed(torch.nn.Module):
    """What a user writes: integer layers in a module of his own, torch's beside them."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.conv, self.quan = nn.IntConv2d(3, 4, 3, padding=1, groups=1), nn.Quant(4, 0, 7)
        self.side, self.steps = nn.IntConv2d(3, 4, 1), nn.Steps(1, 3)
        self.fc = nn.IntLinear(36, 5)
        for layer in (self.conv, self.side, self.fc):
            layer.codes.copy_(torch.from_numpy(rng.integers(-3, 4, layer.codes.shape)))
            layer.scale.copy_(torch.from_numpy(rng.uniform(0.1, 0.2, layer.scale.shape)))
        self.quan.scale.copy_(torch.tensor([0.3, 0.4, 0.5, 0.6]))
        self.steps.thresholds.copy_(torch.tensor([[-0.5, 0.1, 0.9]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, 6, 7] -> [N, 5]."""
        x = self.quan(torch.relu(self.conv(x))) + self.steps(self.side(x))
        x = torch.nn.functional.avg_pool2d(x, 2, divisor_override=1)
        return self.fc(torch.flatten(x, 1))


def test_a_traced_module_is_the_net_it_computes() -> None:
    module = Mixed()
    net = n2.trace(module, SPEC)
    assert [type(layer) for layer in net.layers] == [
        model.IntConv, model.ReLU, model.Quant, model.IntConv, model.Steps, model.Add,
        model.AvgPool, model.Flatten, model.IntLinear]
    assert net.layers[6].total
    images = random_images(net)
    with torch.no_grad():
        theirs = module.double()(torch.from_numpy(images * SPEC.scale)).numpy()
    assert np.abs(net.forward(images) - theirs).max() < 1e-12
    graph = n2.lower(net)
    assert np.abs(graph.forward(images) * graph.scale - theirs).max() < 1e-5 * np.ptp(theirs)


@needs_models
def test_an_imported_net_becomes_a_module_and_comes_back(tmp_path: Path) -> None:
    net = import_onnx(MODELS / "brevitas_signed_zp_w4a4.onnx").net
    images = random_images(net)
    module = nn.Network.from_net(net)
    again = module.to_net(net.name, net.input, net.meta)
    assert again.layers == net.layers and all(
        (again.params[key] == value).all() for key, value in net.params.items())
    assert np.abs(as_torch(net, images) - net.forward(images)).max() < 1e-9
