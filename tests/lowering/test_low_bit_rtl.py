"""Low-bit nets in RTL: bit-exact under stalls, in the cycles that the timing model predicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from low_bit import make, random_images
from shared import FORMATS, MODELS, NAMES, needs_models

from n2uq_hw import api, model
from n2uq_hw.builds.emit import emit, load_build
from n2uq_hw.builds.verify import verify
from n2uq_hw.importers.onnx import check, read_samples
from n2uq_hw.ir import Graph, Scale
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import (
    AvgPool,
    BatchNorm,
    Concat,
    DepthToSpace,
    Flatten,
    InputSpec,
    IntConv,
    IntLinear,
    MaxPool,
    Net,
    Permute,
    Pointwise,
    Quant,
    Steps,
    Upsample,
)
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.sim.timing.forecast import forecast


def same_in_rtl(graph: Graph, images: np.ndarray, folder: Path) -> None:
    sizing = size_fifos(graph, choose(graph))
    emit(graph, sizing, folder / "build", images[:1], None)
    build = load_build(folder / "build")
    straight = verify(build, images, None)
    stalled = verify(build, images[:2], None, stalls=0.3, seed=3)
    assert straight.mismatches == 0, straight.first_mismatch
    assert stalled.mismatches == 0, stalled.first_mismatch
    foreseen = forecast(graph, sizing.folding, images=len(images))
    assert straight.cycles_per_image == foreseen.cycles_per_image
    assert straight.cycles_first_output == foreseen.cycles_first_output


def every_kind() -> Net:
    """Signed pixels, a window of any shape, groups, sums of two scales, ties to even, branches."""
    return make(
        Quant("q0", 1, -8, 7), IntConv("c1", 4, 4, (3, 2), 1, (1, 1, 1, 0), groups=2),
        BatchNorm("bn1", 4), Pointwise("leaky", "leaky_relu"), Quant("left", 1, -4, 3),
        IntConv("c2", 4, 4, 3, 1, 2, 2, 4, inputs=("q0",)), Pointwise("tanh", "tanh"),
        Quant("right", 1, -4, 3), model.Add("sum", inputs=("left", "right")),
        Quant("both", 1, 0, 31), MaxPool("peak", 2, 2), IntConv("c3", 4, 4, 1),
        Quant("even", 1, -128, 127), Steps("steps", 4, 3, inputs=("peak",)),
        Concat("cat", inputs=("even", "steps")), Quant("common", 1, -8, 7),
        AvgPool("mean", 2, 1), Quant("floor", 1, -8, 7, "floor"), DepthToSpace("blocks", 2, "CRD"),
        Permute("order", 4), Upsample("up", (1, 2)), Flatten("flat"),
        Steps("sign", 1, 1), IntLinear("fc", 128, 3), Pointwise("bias", "add", 3),
        spec=InputSpec((4, 6, 6), 15, 0.125, min=-8), q0_scale=0.125, left_scale=0.11,
        right_scale=0.27, both_scale=0.03125, leaky_value=-0.25, c3_scale=0.25,
        even_scale=0.0625, steps_scale=0.5, steps_offset=-0.5, common_scale=0.25, floor_scale=0.25,
        sign_thresholds=[[0.1]], sign_scale=2, sign_offset=-1, fc_scale=0.5,
        bias_value=[0.5, -1, 2], order_order=[1, 0, 0, 1])


def test_every_kind_of_layer(tmp_path: Path) -> None:
    net = every_kind()
    images, graph = random_images(net, 3), lower(net)
    assert np.abs(graph.forward(images) * graph.scale - net.forward(images)).max() < 1e-9
    assert {node.ties for node in graph.nodes if isinstance(node, Scale)} == {"floor", "even"}
    same_in_rtl(graph, images, tmp_path)


@needs_models
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow) if "qkeras" in name else name for name in NAMES])
def test_golden_computes_what_the_file_does(name: str) -> None:
    imported = api.import_onnx(MODELS / f"{name}.onnx", **FORMATS.get(name, {}))
    agrees = check(imported, read_samples(MODELS / f"{name}.npz"))
    assert agrees.exact and agrees.same_class == 1
    graph = lower(imported.net)
    assert "residual" not in graph.meta
    assert set(graph.meta["exact"]) == {layer.name for layer in imported.net.layers
                                        if isinstance(layer, Quant | Steps)}


@needs_models
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_rtl_computes_what_the_file_does(name: str, tmp_path: Path) -> None:
    imported = api.import_onnx(MODELS / f"{name}.onnx", **FORMATS.get(name, {}))
    images = imported.prepare(read_samples(MODELS / f"{name}.npz").inputs)
    same_in_rtl(lower(imported.net), images[:2 if name.startswith("d") else 3], tmp_path)
