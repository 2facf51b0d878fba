"""Training: a short run learns, repeats itself and writes whole files; the shipped nets hold."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from shared import MNIST, needs_mnist

from n2uq_hw import data, model, nn
from n2uq_hw.errors import N2uqError
from n2uq_hw.model import Net, load_net
from n2uq_hw.train import fit
from n2uq_hw.train.fit import RECIPES, Recipe, cnn, mlp, run_training

NETS = Path(fit.__file__).parents[1] / "nets"
SHORT = {"widths": (32,), "epochs": 2, "lr": 1e-2, "batch": 32, "quiet": True, "name": "short"}


def accuracy(net: Net, dataset: data.Dataset, images: int) -> float:
    """Share of the first `images` that the float reference classifies right."""
    classes = net.forward(dataset.images[:images]).argmax(1)
    return float((classes == dataset.labels[:images]).mean())


@pytest.mark.parametrize("architecture,input_bits,widths", [
    ("mlp", 2, (32,)), ("cnn", 0, (32,)), ("resnet8", 0, (4, 8, 8))])
def test_a_short_run_learns_and_repeats_itself(tmp_path: Path, architecture: str, input_bits: int,
                                               widths: tuple[int, ...]) -> None:
    paths = [tmp_path / name for name in ("one.safetensors", "two.safetensors")]
    short = {**SHORT, "widths": widths, "epochs": 4 if architecture == "resnet8" else 2}
    for path in paths:
        run_training("digits", architecture, out=path, input_bits=input_bits, **short)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    net = load_net(paths[0])
    assert net.meta["accuracy"]["float"] > 0.3  # chance is 0.1
    assert net.meta["accuracy"]["float"] == accuracy(net, data.load("digits"), 360)
    assert net.meta["recipe"]["widths"] == [*widths] and net.meta["dataset"] == "digits"


def test_an_interrupted_run_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "net.safetensors"
    out.write_bytes(b"old")
    monkeypatch.setattr(fit, "shifted", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_training("digits", "mlp", out=out, **SHORT)
    assert [p.name for p in tmp_path.iterdir()] == [out.name] and out.read_bytes() == b"old"


@pytest.mark.parametrize("change,message", [
    ({"dataset": "cifar"}, "dataset must be one of digits, mnist, not 'cifar'"),
    ({"architecture": "vit"}, "architecture must be one of mlp, cnn, resnet8, .* not 'vit'"),
    ({"weight_bits": 9}, r"weight_bits must be in 1\.\.8, not 9"),
    ({"act_bits": 0}, r"act_bits must be in 1\.\.8, not 0"),
    ({"input_bits": -1}, r"input_bits must be in 0\.\.8, not -1"),
    ({"epochs": 0}, "epochs must be in"), ({"batch": 1}, "batch must be in"),
    ({"seed": -1}, "seed must be in"), ({"lr": 0.0}, "lr must be above 0"),
    ({"widths": ()}, "widths must be one or more positive numbers"),
    ({"pools": (3,)}, r"pools must name convolutions 1\.\.2, not \(3,\)"),
    ({"architecture": "resnet8", "weight_bits": 3}, "weight_bits of resnet8 must be its act_b"),
    ({"architecture": "resnet8", "widths": (4, 0)}, "widths must be one or more positive numbers"),
    ({"architecture": "resnet8", "first_last_bits": 4}, "first_last_bits of resnet8 must be 8"),
    ({"architecture": "resnet8", "input_bits": 2}, "input_bits of resnet8 must be 0, not 2"),
    ({"architecture": "resnet8", "pools": (1,)}, r"pools of resnet8 must be None, not \(1,\)"),
    ({"architecture": "resnet18"}, r"widths of resnet18 must be \(\), not \(4, 4\)"),
    ({"architecture": "mobilenetv2"}, r"widths of mobilenetv2 must be \(\), not \(4, 4\)"),
])
def test_a_recipe_checks_itself(change: dict, message: str) -> None:
    with pytest.raises(N2uqError, match=message):
        replace(Recipe("digits", "cnn", (4, 4)), **change)


def test_networks_of_the_paper_for_small_images() -> None:
    for name, kinds in (("resnet18", (model.Add,) * 8), ("mobilenetv2", (model.Add,) * 10),
                        ("resnet8", (model.Add,) * 3)):
        recipe = Recipe("digits", name, (), weight_bits=4, act_bits=4)
        layers = fit.ARCHITECTURES[name](recipe, (1, 8, 8), 10)
        assert tuple(type(x) for x in layers if isinstance(x, model.Add)) == kinds
        assert layers[0].in_channels == 1 and layers[-1].out_features == 10
        assert {x.bits for x in layers if isinstance(x, model.Conv | model.LTQ | model.Pact)} == {4}
        with torch.no_grad():
            assert nn.Network(layers).eval()(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_errors_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(N2uqError, match="must be a file in a folder that exists"):
        run_training("digits", "mlp", out=tmp_path / "none" / "net.safetensors", **SHORT)
    with pytest.raises(N2uqError, match="pools must leave a pixel of 2 × 2, not 2 of them"):
        cnn(Recipe("digits", "cnn", (4, 4)), (1, 2, 2), 10)


def test_recipes_by_name_on_the_command_line(capsys) -> None:
    assert fit._main(["digits_resnet"]) == 2
    assert "one of digits_mlp_w2a2" in capsys.readouterr().err


def test_bits_of_the_layers() -> None:
    recipe = Recipe("digits", "mlp", (5, 6), weight_bits=3, act_bits=4, first_last_bits=7)
    layers = mlp(recipe, (1, 8, 8), 10)
    assert [(x.in_features, x.out_features, x.bits) for x in layers
            if isinstance(x, model.Linear)] == [(64, 5, 7), (5, 6, 3), (6, 10, 7)]
    assert [x.bits for x in layers if isinstance(x, model.LTQ)] == [4, 4]
    layers = cnn(replace(recipe, input_bits=2), (1, 8, 8), 10)
    assert [x.name for x in layers] == [
        "input_quan", "conv1", "bn1", "bias1a", "prelu1", "bias1b", "quan1", "pool1",
        "conv2", "bn2", "bias2a", "prelu2", "bias2b", "quan2", "pool2", "flatten", "fc", "bn_out"]


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_nets_come_from_their_recipes(name: str) -> None:
    net, recipe = load_net(NETS / f"{name}.safetensors"), RECIPES[name]
    assert net.name == name and net.meta["recipe"] == json.loads(json.dumps(asdict(recipe)))
    topology = fit.ARCHITECTURES[recipe.architecture](recipe, net.input.shape, 10)
    assert net.layers == topology


@pytest.mark.parametrize("name,least", [
    ("digits_mlp_w2a2", 0.97), ("digits_cnn_w2a2", 0.98), ("digits_cnn_w3a3", 0.98),
    ("digits_cnn_w4a4", 0.98)])
def test_shipped_digits_nets_reach_their_accuracy(name: str, least: float) -> None:
    net = load_net(NETS / f"{name}.safetensors")
    assert accuracy(net, data.load("digits"), 360) == net.meta["accuracy"]["float"] > least


@needs_mnist
def test_shipped_mnist_mlp_is_two_bits_throughout() -> None:
    net = load_net(NETS / "mnist_mlp_w2a2.safetensors")
    assert [x.out_features for x in net.layers if isinstance(x, model.Linear)] == [64, 64, 64, 10]
    assert {x.bits for x in net.layers if isinstance(x, model.Linear | model.LTQ)} == {2}
    assert accuracy(net, data.load("mnist", MNIST), 10000) == net.meta["accuracy"]["float"] > 0.966


@needs_mnist
def test_shipped_mnist_cnn_reaches_its_accuracy() -> None:
    net = load_net(NETS / "mnist_cnn_w2a2.safetensors")
    assert net.meta["accuracy"]["float"] > 0.99
    # The first thousand images only: all of them take half a minute.
    assert accuracy(net, data.load("mnist", MNIST), 1000) > 0.98
    assert np.prod(net.input.shape) == 784


@needs_mnist
def test_shipped_mnist_resnet8_reaches_its_accuracy() -> None:
    net = load_net(NETS / "mnist_resnet8_w2a2.safetensors")
    assert {x.bits for x in net.layers if isinstance(x, model.Conv | model.LTQ)} == {2}
    assert sum(isinstance(x, model.Add) for x in net.layers) == 3
    assert net.meta["accuracy"]["float"] > 0.99
    assert accuracy(net, data.load("mnist", MNIST), 1000) > 0.98
