"""Real networks on real data, every bit: the whole digits test split, a thousand MNIST images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shared import MNIST, needs_mnist

from n2uq_hw import data
from n2uq_hw.builds.accuracy import agreement
from n2uq_hw.builds.emit import emit, load_build
from n2uq_hw.builds.verify import verify
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import Conv
from n2uq_hw.nets import find_net
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.timing.fifos import size_fifos

NETS = ["digits_cnn_w2a2", pytest.param("digits_mlp_w2a2", marks=pytest.mark.slow),
        pytest.param("mnist_mlp_w2a2", marks=[needs_mnist, pytest.mark.slow]),
        pytest.param("digits_cnn_w3a3", marks=pytest.mark.slow),
        pytest.param("digits_cnn_w4a4", marks=pytest.mark.slow),
        pytest.param("mnist_cnn_w2a2", marks=[needs_mnist, pytest.mark.slow])]
IMAGES = 1000  # of MNIST; digits has 360


@pytest.mark.parametrize("name", NETS)
def test_verilog_is_bit_exact_and_busy(name: str, tmp_path: Path) -> None:
    net = find_net(name)
    samples = data.images_for(net.meta["dataset"], MNIST if MNIST.is_dir() else None)
    assert samples is not None and samples[1] is not None
    images, labels = samples[0][:IMAGES], samples[1][:IMAGES]
    graph = lower(net)
    emit(graph, size_fifos(graph, choose(graph)), tmp_path / name, images[:8], labels[:8])
    build = load_build(tmp_path / name)
    right = np.mean(net.forward(images).argmax(axis=1) == labels)
    for stalls in (0.0, 0.3):
        verdict = verify(build, images, labels, stalls=stalls, seed=7)
        assert verdict.images == len(images) == (360 if "digits" in name else IMAGES)
        assert verdict.mismatches == 0, verdict.first_mismatch
        assert verdict.accuracy == right  # the float model's, on the same images
        if stalls == 0 and any(isinstance(layer, Conv) for layer in net.layers):
            assert verdict.mac_utilization >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_mlp_w2a2", "digits_cnn_w4a4"])
def test_class_index_comes_out_too(name: str, tmp_path: Path) -> None:
    net = find_net(name)
    test = data.load("digits")
    graph = lower(net, top1=True)
    agrees = agreement(net, graph, test.images, test.labels)
    assert agrees.worst_logit_error is None and agrees.top1_agreement == 1
    if "mlp" in name:
        emit(graph, size_fifos(graph, choose(graph, 512)), tmp_path / name, test.images[:8], None)
        verdict = verify(load_build(tmp_path / name), test.images, test.labels, stalls=0.5)
        assert verdict.mismatches == 0 and verdict.accuracy == agrees.accuracy
