"""Networks that others made: what is imported computes what the file does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shared import FORMATS, MODELS, NAMES, needs_models

from n2uq_hw.api import import_onnx
from n2uq_hw.importers.onnx import Imported, read_samples
from n2uq_hw.importers.onnx.ranges import Ends, bounds
from n2uq_hw.importers.onnx.reference import EXACT
from n2uq_hw.model import layer_float, load_net, walk


def imported(name: str) -> Imported:
    return import_onnx(MODELS / f"{name}.onnx", **FORMATS.get(name, {}))


@needs_models
@pytest.mark.parametrize("name", NAMES)
def test_the_net_computes_what_the_file_does(name: str) -> None:
    loaded = imported(name)
    samples = read_samples(MODELS / f"{name}.npz")
    outputs = loaded.net.forward(loaded.prepare(samples.inputs))
    if loaded.net.meta.get("top1"):
        outputs = outputs.argmax(axis=1)[:, None].astype(np.float64)
    if loaded.ending == "Sigmoid":
        outputs = 1 / (1 + np.exp(-outputs))
    assert np.abs(outputs - samples.outputs).max() <= EXACT * np.ptp(samples.outputs)


@needs_models
def test_a_net_of_a_file_saves_and_loads(tmp_path: Path) -> None:
    loaded = imported("brevitas_signed_zp_w4a4")
    loaded.net.save(tmp_path / "net.safetensors")
    images = loaded.prepare(read_samples(MODELS / "brevitas_signed_zp_w4a4.npz").inputs)
    assert (load_net(tmp_path / "net.safetensors").forward(images)
            == loaded.net.forward(images)).all()


@needs_models
@pytest.mark.parametrize("name", NAMES)
def test_values_stay_within_their_bounds(name: str) -> None:
    """Of every layer, for the reference's inputs."""
    loaded = imported(name)
    net, images = loaded.net, loaded.prepare(read_samples(MODELS / f"{name}.npz").inputs[:2])
    ends = tuple(np.ones((1, *net.input.shape)) * net.input.scale * end
                 for end in (net.input.min, net.input.max))
    seen = walk(net.layers, (images * net.input.scale, ends), lambda layer, *x: (
        layer_float(layer, net.of(layer), *(each for each, _ in x)),
        inside(bounds(layer, net.of(layer), *(each for _, each in x)),
               layer_float(layer, net.of(layer), *(each for each, _ in x)))))
    assert seen


def inside(ends: Ends, values: np.ndarray) -> Ends:
    slack = 1e-9 * (1 + np.abs(values).max())
    assert (values >= ends[0] - slack).all() and (values <= ends[1] + slack).all()
    return ends
