"""The networks of the paper in simulation, every bit: pieces at paper widths, and whole nets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from adverse import adverse, adverse_params, cut
from graphs import whole
from shared import CHECKPOINT, MNIST, needs_checkpoint, needs_mnist
from test_timing import SIDES, check_wholes
from units import Bench

from n2uq_hw import data, model
from n2uq_hw.builds.emit import emit, load_build
from n2uq_hw.builds.verify import Verdict, verify
from n2uq_hw.data import read_npz
from n2uq_hw.hw.accelerator import Accelerator
from n2uq_hw.importers.checkpoint import import_checkpoint
from n2uq_hw.ir import Graph
from n2uq_hw.lowering.formats import Formats
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import InputSpec, Net, architectures
from n2uq_hw.nets import find_net
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.timing.fifos import Sizing, size_fifos
from n2uq_hw.sim.timing.forecast import stalled

RESNET18 = architectures.resnet(18, 2, True, 10)
MOBILENETV2 = architectures.mobilenetv2(4, 10)


def folded(net: Net, formats: Formats | None, cycles: int | None) -> tuple[Graph, Sizing]:
    graph = lower(net, formats)
    return graph, size_fifos(graph, choose(graph, cycles))


def in_rtl(net: Net, folder: Path, images: np.ndarray, labels: np.ndarray | None = None, *,
           formats: Formats | None = None, cycles: int | None = None,
           stalls: tuple[float, ...] = (0.0, 0.3)) -> list[Verdict]:
    """Build and run with each share of stalls; every bit is as in golden, every cycle as predicted.
    """
    graph, sized = folded(net, formats, cycles)
    emit(graph, sized, folder / net.name, images[:1], None)
    build = load_build(folder / net.name)
    verdicts = [verify(build, images, labels, stalls=share, seed=5) for share in stalls]
    for share, verdict in zip(stalls, verdicts, strict=True):
        assert verdict.mismatches == 0, verdict.first_mismatch
        assert verdict.images == len(images)
        predicted = stalled(graph, sized.folding, len(images), share, 5)
        assert verdict.cycles_first_output == predicted.cycles_first_output
        assert verdict.cycles_per_image == predicted.cycles_per_image
    return verdicts


@pytest.mark.slow
@needs_mnist
def test_resnet8_on_mnist(tmp_path: Path) -> None:
    net = find_net("mnist_resnet8_w2a2")
    test = data.load("mnist", MNIST)
    images, labels = test.images[:100], test.labels[:100]
    verdicts = in_rtl(net, tmp_path, images, labels)
    right = float((net.forward(images).argmax(axis=1) == labels).mean())
    # Fixed point may move a class, and did not when the net was trained.
    assert all(abs(verdict.accuracy - right) <= 0.01 for verdict in verdicts)


def piece(layers: tuple[model.Layer, ...], channels: int, size: int, seed: int) -> Net:
    """A piece of a network on images that are its residual stream, -2..2 in 256 steps."""
    spec = InputSpec((channels, size, size), 255, 4 / 255, (2.0,) * channels, (1.0,) * channels)
    return Net("piece", spec, layers, adverse_params(layers, seed))


# name: (layers, channels in, pixels each way, cycles per image)
PIECES = {
    "resnet18_stage2_with_downsample": (cut(RESNET18, "layer2."), 64, 8, 40_000),
    "mobilenetv2_with_sum": (cut(MOBILENETV2, "feature.3."), 24, 8, 20_000),
}
MORE_PIECES = {
    "resnet18_stage1": (cut(RESNET18, "layer1."), 64, 8, 40_000),
    "mobilenetv2_stride_2": (cut(MOBILENETV2, "feature.2."), 16, 8, 20_000),
    "resnet18_stage4_with_downsample": (cut(RESNET18, "layer4."), 256, 4, 60_000),
    "resnet50_block_with_downsample": (
        cut(architectures.resnet(50, 2, True, 10), "layer1.0."), 64, 6, 20_000),
    "resnet18_block_with_float_downsample": (
        cut(architectures.resnet(18, 2, False, 10), "layer2.0."), 64, 8, 20_000),
    "mobilenetv2_first": (cut(MOBILENETV2, "feature.1."), 32, 8, 20_000),
    "mobilenetv2_wider": (cut(MOBILENETV2, "feature.11."), 64, 6, 20_000),
    "mobilenetv2_last": (cut(MOBILENETV2, "feature.18."), 320, 3, 20_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    *PIECES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_PIECES)])
def test_pieces_at_paper_widths(name: str, tmp_path: Path) -> None:
    layers, channels, size, cycles = (PIECES | MORE_PIECES)[name]
    net = piece(layers, channels, size, seed=len(name))
    images = np.random.default_rng(3).integers(0, 256, (3, channels, size, size))
    in_rtl(net, tmp_path, images, cycles=cycles, formats=Formats(10, stem_bits=8))


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    cases = []
    for name, (layers, channels, size, cycles) in PIECES.items():
        graph, sized = folded(piece(layers, channels, size, seed=len(name)),
                              Formats(10, stem_bits=8), cycles)
        graph = replace(graph, name=name)
        cases.append(whole(Accelerator(graph, sized.folding), graph, 3))
    return Bench(cases, tmp_path_factory)


@pytest.mark.slow
@pytest.mark.parametrize("stalls", SIDES)
def test_every_beat_of_pieces_is_predicted(pieces: Bench, stalls: tuple[float, float]) -> None:
    """A slow source, a slow sink, both and none."""
    check_wholes(pieces, stalls, 9)


@pytest.mark.slow
@needs_checkpoint
def test_the_whole_trained_resnet18(tmp_path: Path) -> None:
    net = import_checkpoint(CHECKPOINT, "resnet18", size=32)
    samples = read_npz(CHECKPOINT.with_suffix(".npz"))
    (verdict,) = in_rtl(net, tmp_path, samples.images[:20], samples.labels[:20], stalls=(0.2,))
    assert samples.logits is not None
    right = (samples.logits[:20].argmax(axis=1) == samples.labels[:20]).mean()
    assert verdict.accuracy == right


@pytest.mark.slow
@pytest.mark.parametrize("layers", [RESNET18, MOBILENETV2], ids=["resnet18", "mobilenetv2"])
def test_whole_networks_with_adverse_parameters(layers, tmp_path: Path) -> None:
    net = adverse(layers, 32)
    images = np.random.default_rng(4).integers(0, 256, (3, 3, 32, 32))
    in_rtl(net, tmp_path, images, formats=Formats(10), stalls=(0.0, 0.2))
