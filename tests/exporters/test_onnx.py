"""Exported files compute golden's integers, in the runtimes of others."""

from __future__ import annotations

import json
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import random_chain, random_dense, random_residual
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.util.cleanup import cleanup_model
from units import images_on

from n2uq_hw import api, data, ir, nets
from n2uq_hw.errors import N2uqError
from n2uq_hw.exporters.onnx import SCALE_KEY, export_onnx
from n2uq_hw.importers.onnx.reading import INPUT_KEY
from n2uq_hw.ir import Graph, Input, MatVec, Scale, Threshold
from n2uq_hw.lowering.lower import lower


def by_onnxruntime(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {model.graph.input[0].name: images.astype(np.float32)})[0]


def by_qonnx(model: onnx.ModelProto, images: np.ndarray, cleanup: bool = False) -> np.ndarray:
    wrapper = ModelWrapper(model)
    if cleanup:
        wrapper = cleanup_model(wrapper)
    feed = {wrapper.graph.input[0].name: images.astype(np.float32)}
    (output,) = execute_onnx(wrapper, feed).values()
    return output


def same(graph: Graph, outputs: np.ndarray, images: np.ndarray) -> None:
    wanted = graph.forward(images)
    assert np.array_equal(outputs.reshape(wanted.shape), wanted)


@pytest.mark.parametrize("top1", [False, True])
@pytest.mark.parametrize("name", ["digits_mlp_w2a2", "digits_cnn_w2a2"])
def test_the_digits_nets_on_the_whole_test_set(name: str, top1: bool) -> None:
    graph = lower(nets.find_net(name), top1=top1)
    images = data.images_for("digits", None)[0]
    same(graph, by_onnxruntime(export_onnx(graph, "integer", len(images)), images), images)
    same(graph, by_qonnx(export_onnx(graph, "qonnx", len(images)), images), images)
    same(graph, by_qonnx(export_onnx(graph, "qonnx", 1), images[:1], cleanup=True), images[:1])
    same(graph, by_qonnx(export_onnx(graph, "integer", len(images)), images), images)


def test_a_residual_net() -> None:
    """Sums above 2^24 and products above 2^53."""
    graph = lower(nets.find_net("mnist_resnet8_w2a2"))
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 28, 28))
    same(graph, by_onnxruntime(export_onnx(graph, "integer", 4), images), images)
    same(graph, by_qonnx(export_onnx(graph, "qonnx", 4), images), images)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", [random_chain, random_residual, random_dense])
def test_random_graphs(kind, seed: int) -> None:
    graph = kind(f"{kind.__name__}{seed}", seed)
    images = np.moveaxis(images_on(graph.edges["input"], 5, seed), -1, 1)
    same(graph, by_onnxruntime(export_onnx(graph, "integer", 5), images), images)
    same(graph, by_qonnx(export_onnx(graph, "qonnx", 5), images), images)


def wide(weight_bits: int, pixel_bits: int, seed: int = 0) -> Graph:
    rng = np.random.default_rng(seed)
    top = 2**(weight_bits - 1)
    return Graph("wide", (
        Input("input", shape=(5, 4, 3), lo=-2**pixel_bits + 1, hi=2**pixel_bits - 1),
        Scale("whole", ("input",), shift=0, multiplier=np.array([3, -1, 2])),
        ir.Pad("pad", ("whole",), frame=(1, 0, 1, 0), values=np.array([7, -9, 0])),
        ir.SlidingWindow("window", ("pad",), kernel=(3, 2), stride=(2, 1)),
        MatVec("conv", ("window",), weights=rng.integers(-top, top, (4, 18))))).verify()


def grouped(groups: int, dilation: tuple[int, int]) -> Graph:
    rng = np.random.default_rng(groups)
    return Graph("grouped", (
        Input("input", shape=(7, 6, 4), lo=-3, hi=4),
        ir.Pad("pad", ("input",), frame=(1, 0, 2, 1), values=np.array([1, -2, 0, 3])),
        ir.SlidingWindow("window", ("pad",), kernel=(3, 2), stride=(1, 2), dilation=dilation,
                         groups=groups),
        MatVec("conv", ("window",), weights=rng.integers(-4, 4, (8, 24 // groups)), groups=groups),
        ir.Concat("both", ("conv", "conv")),
        Scale("half", ("both",), shift=1, ties="even", multiplier=np.array([3]),
              offset=np.arange(16)))).verify()


@pytest.mark.parametrize("groups,dilation", [(1, (2, 3)), (2, (1, 1)), (4, (2, 1))])
def test_groups_dilation_concat_and_ties_to_even(groups: int, dilation: tuple[int, int]) -> None:
    graph = grouped(groups, dilation)
    images = np.moveaxis(images_on(graph.edges["input"], 30, 0), -1, 1)
    same(graph, by_onnxruntime(export_onnx(graph, "integer", 30), images), images)
    same(graph, by_qonnx(export_onnx(graph, "qonnx", 30), images), images)


@pytest.mark.parametrize("shape", [(3, 2, 8), (1, 1, 8)])
@pytest.mark.parametrize("mode,block", [("DCR", 2), ("CRD", 2), ("DCR", (4, 1)), ("CRD", (2, 4))])
def test_what_moves_pixels_and_channels(mode: str, block: int | tuple[int, int],
                                        shape: tuple[int, int, int]) -> None:
    graph = Graph("moves", (
        Input("input", shape=shape, lo=-9, hi=9),
        ir.Permute("order", ("input",), order=np.array([3, 1, 7, 0, 2, 5, 6, 4])),
        ir.DepthToSpace("blocks", ("order",), block=block, mode=mode),
        ir.Upsample("larger", ("blocks",), factor=(2, 3)))).verify()
    images = np.moveaxis(images_on(graph.edges["input"], 9, 0), -1, 1)
    same(graph, by_onnxruntime(export_onnx(graph, "integer", 9), images), images)
    same(graph, by_qonnx(export_onnx(graph, "qonnx", 9), images), images)


@pytest.mark.parametrize("weight_bits,pixel_bits", [(2, 3), (16, 8), (24, 8), (8, 22), (20, 20)])
def test_convolutions_wider_than_float32(weight_bits: int, pixel_bits: int) -> None:
    """Digits of pixels and weights, both signs, against golden's int64."""
    graph = wide(weight_bits, pixel_bits)
    images = np.moveaxis(images_on(graph.edges["input"], 6, 1), -1, 1)
    images[0], images[1] = graph.input.lo, graph.input.hi
    same(graph, by_onnxruntime(export_onnx(graph, "integer", 6), images), images)


def steps(signs: np.ndarray, base: np.ndarray) -> Graph:
    thresholds = np.sort(np.random.default_rng(3).integers(-9, 10, signs.shape), axis=1)
    return Graph("steps", (
        Input("input", shape=(3, 3, len(base)), lo=-9, hi=9),
        Threshold("quan", ("input",), thresholds=thresholds, signs=signs.astype(np.int8),
                  base=base))).verify()


@pytest.mark.parametrize("signs", [
    [[1, 1, 1], [1, 1, 1]], [[-1, -1, -1], [-1, -1, 0]], [[1, 1, 0], [-1, -1, -1]],
    [[1, -1, 1], [-1, -1, 1]], [[0, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 0]]])
@pytest.mark.parametrize("dialect,run", [("integer", by_onnxruntime), ("qonnx", by_qonnx)])
def test_steps_of_every_direction(dialect, run, signs: list[list[int]]) -> None:
    graph = steps(np.array(signs), np.array([2, -3]))
    images = np.moveaxis(images_on(graph.edges["input"], 40, 0), -1, 1)
    same(graph, run(export_onnx(graph, dialect, 40), images), images)


def test_what_the_file_says() -> None:
    graph = lower(nets.find_net("digits_cnn_w2a2"))
    model = export_onnx(graph)
    held = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(held[INPUT_KEY]) == {"min": 0, "max": 16}
    assert float(held[SCALE_KEY]) == graph.scale
    assert {node.op_type for node in model.graph.node} == {
        "Quant", "Conv", "MultiThreshold", "MaxPool", "Flatten", "MatMul", "Mul", "Add", "Div",
        "Floor", "Cast"}
    assert export_onnx(graph).SerializeToString() == model.SerializeToString()


def alike(graph: Graph, other: Graph) -> None:
    """Equal nodes and edges, but for their names."""
    assert [type(node) for node in graph.nodes] == [type(node) for node in other.nodes]
    names = {a.name: b.name for a, b in zip(graph.nodes, other.nodes, strict=True)}
    for a, b in zip(graph.nodes, other.nodes, strict=True):
        assert tuple(names[name] for name in a.inputs) == b.inputs
        for field in fields(a)[2:]:
            one, two = getattr(a, field.name), getattr(b, field.name)
            assert np.array_equal(one, two), (a.name, field.name)


@pytest.mark.parametrize("dialect", ["qonnx", "integer"])
@pytest.mark.parametrize("name", nets.shipped())
def test_there_and_back(name: str, dialect: str, tmp_path: Path) -> None:
    """Of every shipped net, node for node."""
    graph = lower(nets.find_net(name))
    onnx.save_model(export_onnx(graph, dialect), tmp_path / "net.onnx")
    alike(graph, api.lower(api.load(tmp_path / "net.onnx")))


@pytest.mark.parametrize("name", ["digits_cnn_w2a2", "mnist_resnet8_w2a2"])
def test_there_and_back_with_the_class(name: str, tmp_path: Path) -> None:
    graph = lower(nets.find_net(name), top1=True)
    onnx.save_model(export_onnx(graph), tmp_path / "net.onnx")
    alike(graph, api.lower(api.load(tmp_path / "net.onnx")))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", [random_chain, random_residual, random_dense])
def test_random_graphs_there_and_back(kind, seed: int, tmp_path: Path) -> None:
    """What comes back gives golden's integers."""
    graph = kind("net", seed)
    images = np.moveaxis(images_on(graph.edges["input"], 5, seed), -1, 1)
    onnx.save_model(export_onnx(graph, ("qonnx", "integer")[seed % 2]), tmp_path / "net.onnx")
    try:
        again = api.lower(api.load(tmp_path / "net.onnx"))
    except N2uqError as error:
        assert any(part in str(error) for part in (
            "top1 must choose among classes", "must read whole numbers"))
        return
    same(graph, again.forward(images) * again.scale, images)


def test_hardware_graphs_and_values_too_wide_are_refused() -> None:
    pixels = Input("input", shape=(1, 1, 2), lo=0, hi=3)
    graph = Graph("g", (pixels, ir.Fifo("wait", ("input",)))).verify()
    with pytest.raises(N2uqError, match="g: Fifo wait must be of a graph that was lowered, not of"):
        export_onnx(graph)
    graph = Graph("g", (pixels, ir.OffsetMatVec("sums", ("input",), weights=np.ones((2, 2), int),
                                                 offset=np.ones(2, int)))).verify()
    with pytest.raises(N2uqError, match="g: OffsetMatVec sums must be of a graph that was"):
        export_onnx(graph)
    graph = Graph("g", (pixels, Scale("large", ("input",), multiplier=np.array([2**55])))).verify()
    with pytest.raises(N2uqError, match=r"g: values of large must stay within 2\^53 to be held"):
        export_onnx(graph)


def test_a_file_on_disk_is_checked_by_onnx(tmp_path: Path) -> None:
    model = export_onnx(lower(nets.find_net("digits_mlp_w2a2")), "integer")
    onnx.save_model(model, tmp_path / "net.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        onnx.checker.check_model(str(tmp_path / "net.onnx"), full_check=True)
