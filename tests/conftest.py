"""Fixtures that several tests share: the command line, a small net of every layer, its build."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from n2uq_hw import cli, model
from n2uq_hw.builds.emit import emit, load_build
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import InputSpec, Net
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.timing.fifos import size_fifos

Cli = Callable[..., tuple[int, str, str]]
# First: among many other modules of pybind11 in one process, its own import has failed at times.
import_module("matplotlib.figure")
LAYERS = (
    model.Conv("conv1", 2, 4, 3, 1, 1, bits=8), model.BatchNorm("bn1", 4), model.PReLU("prelu1", 4),
    model.LTQ("quan1", 2), model.Conv("dw2", 4, 4, 3, 2, 1, groups=4, bits=4),
    model.BatchNorm("bn2", 4), model.LTQ("quan2", 3), model.Conv("conv3", 4, 6, 1, bits=2),
    model.BatchNorm("bn3", 6), model.Pact("quan3", 2), model.MaxPool("pool3", 2, 1),
    model.Flatten("flatten"), model.Linear("fc", 24, 5, bits=3), model.BatchNorm("bn_out", 5))

settings.register_profile("seeded", derandomize=True, database=None)  # others: bench fuzz
settings.load_profile("seeded")


def random_net(name: str, layers: tuple[model.Layer, ...], shape: tuple[int, int, int],
               seed: int = 0, largest: int = 15) -> Net:
    """A net with random parameters of either sign, whose quantizers see their whole range."""
    rng = np.random.default_rng(seed)
    params = {}
    for layer in layers:
        for key, size in layer.shapes().items():
            value = rng.normal(0, 1, size)
            if key in ("running_var", "clip_val") or (layer.name, key) == ("quan1", "a"):
                value = np.abs(value) + 0.5
            elif key in ("a", "scale2"):
                value = np.abs(value) + 0.1
            params[f"{layer.name}.{key}"] = value.astype(np.float32)
    return Net(name, InputSpec(shape, largest, 1 / largest), layers, params)


@pytest.fixture(scope="session")
def net() -> Net:
    """A random net of every layer that chains are made of, 2 × 5 × 5 pixels in 0..15."""
    return random_net("small", LAYERS, (2, 5, 5))


@pytest.fixture(scope="session")
def images(net: Net) -> np.ndarray:
    """40 random images."""
    return np.random.default_rng(1).integers(0, 16, (40, *net.input.shape))


@pytest.fixture(scope="session")
def built(net: Net, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build directory of `net`."""
    graph = lower(net)
    folder = tmp_path_factory.mktemp("built") / "small"
    emit(graph, size_fifos(graph, choose(graph)), folder, images[:8], np.arange(8) % 5)
    assert load_build(folder).changed == ()
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line in this process, in a folder of its own: exit code, both outputs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("N2UQ_MNIST", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["n2uq-hw", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, *capsys.readouterr()
    return call
