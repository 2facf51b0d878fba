"""What outputs mean, for every kind of net: classes, one logit, a map, values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import random_net

from n2uq_hw import model
from n2uq_hw.builds.accuracy import agreement
from n2uq_hw.builds.emit import emit, load_build
from n2uq_hw.builds.report import write_report
from n2uq_hw.builds.task import Task, classes, margins, measure
from n2uq_hw.builds.verify import verify
from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import ArgMax, Graph, Input, Scale, golden
from n2uq_hw.lowering.formats import Formats
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import Net
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.timing.fifos import size_fifos

BODY = (model.Conv("conv", 2, 4, 3, 1, 1, bits=3), model.BatchNorm("bn", 4), model.LTQ("quan1", 2))
MAP = random_net("map", (*BODY, model.Conv("head", 4, 3, 1, bits=4)),
                 (2, 4, 6), seed=9)
ONE = random_net("one", (*BODY, model.Flatten("flat"), model.Linear("fc", 80, 1, 4)), (2, 4, 5))
IMAGES = np.random.default_rng(0).integers(0, 16, (30, 2, 4, 6))


def graph_of(shape: tuple[int, int, int], output: str = "logits", scale: float = 1.0) -> Graph:
    """Logits in -8..7 of `shape` (H, W, C), or the class."""
    nodes = (Input("input", shape=shape, lo=-8, hi=7), Scale("logits", inputs=("input",)))
    if output == "class":
        nodes += (ArgMax("top1", inputs=("logits",)),)
    return Graph("g", nodes, {"output": output, "output_scale": scale})


def test_classes_by_hand() -> None:
    assert classes(np.array([[[[1, 5, 5]]], [[[9, 0, 2]]]])).tolist() == [[[1]], [[0]]]
    assert classes(np.array([[[[0.0], [0.1]], [[-3], [7]]]])).tolist() == [[[0, 1], [0, 1]]]


def test_margins_by_hand() -> None:
    assert margins(np.array([[[[1, 5, 3.5]], [[7, 7, 0]]]])).tolist() == [[[1.5], [0]]]
    assert margins(np.array([[[[-2.0]], [[0.5]]]])).tolist() == [[[2], [0.5]]]


def test_a_class_that_never_wins_may_be_a_label() -> None:
    graph = graph_of((1, 1, 3), "class")
    nodes = [replace(graph["logits"], offset=np.array([0, 0, -99])) if node.name == "logits" else
             node for node in graph.nodes]
    graph = graph.with_nodes(nodes)
    assert graph.edges["top1"].hi.max() == 1
    assert Task(graph, np.array([2])).accuracy(np.array([[[1]]])) == 0


@pytest.mark.parametrize("shape,output,outputs,labels,counted,accuracy", [
    ((1, 1, 3), "logits", [[[[0, 2, 1]]], [[[-1, -3, -2]]]], [1, 2], "images", 0.5),
    ((1, 1, 3), "class", [[[[2]]], [[[0]]]], [2, 0], "images", 1.0),
    ((1, 1, 1), "logits", [[[[4]]], [[[0]]], [[[-4]]], [[[1]]]], [1, 0, 1, 1], "images", 0.75),
    ((1, 2, 2), "logits", [[[[0, 2], [5, 1]]]], [[[1, 0]]], "pixels", 1.0),
    ((1, 2, 2), "logits", [[[[0, 2], [5, 1]]]], [[[1, -1]]], "pixels", 1.0),
    ((1, 2, 2), "logits", [[[[0, 2], [5, 1]]]], [[[-1, 1]]], "pixels", 0.0),
    ((1, 2, 2), "logits", [[[[0, 2], [5, 1]]]], [[[-1, -1]]], "pixels", None),
    ((2, 1, 1), "logits", [[[[3]], [[0]]], [[[1]], [[-1]]]], [[1, 1], [0, 0]], "pixels", 0.5),
])
def test_accuracy_by_hand(shape, output, outputs, labels, counted, accuracy) -> None:
    task = Task(graph_of(shape, output, 0.5), np.array(labels))
    assert task.counted == counted
    assert task.accuracy(task.predictions(np.array(outputs))) == accuracy
    assert task.mean_error(task.predictions(np.array(outputs))) is None
    assert Task(graph_of(shape, output)).accuracy(classes(np.array(outputs))) is None


@pytest.mark.parametrize("output,labels", [
    ("logits", np.array([[[1.5, 0.25]], [[0, 1]]])),
    ("values", np.array([[[1.5, 0.25]], [[0, 1]]])),
    ("values", np.array([[2, 0], [0, 0]])), ("logits", np.array([[[[2.0, 0]]], [[[0, 0]]]]))])
def test_values_have_a_mean_error_and_no_classes(output: str, labels: np.ndarray) -> None:
    task = Task(graph_of((1, 2, 1), output, 0.25), labels)
    outputs = np.array([[[[4], [-2]]], [[[0], [6]]]])  # 1, -0.5, 0, 1.5
    assert (task.counted, task.rule) == ("values", "no classes")
    assert task.accuracy(task.predictions(outputs)) is None
    expected = np.abs(np.array([1, -0.5, 0, 1.5]) - labels.reshape(-1)).mean()
    assert task.mean_error(task.predictions(outputs)) == expected


def test_values_of_a_map_are_channels_first() -> None:
    outputs = np.arange(12).reshape(1, 2, 2, 3) - 6
    assert Task(graph_of((2, 2, 3)), outputs.transpose(0, 3, 1, 2) * 1.0).mean_error(outputs) == 0


@pytest.mark.parametrize("shape,output,labels,message", [
    ((1, 1, 3), "logits", [3], r"in 0\.\.2, not 3"),
    ((1, 1, 3), "class", [3], r"in 0\.\.2, not 3"),
    ((1, 1, 3), "logits", [-1], r"in 0\.\.2, not -1"),
    ((1, 1, 1), "logits", [1, -1], r"in 0\.\.1, not -1"),
    ((2, 4, 3), "logits", np.full((1, 2, 4), 255),
     r"in 0\.\.2, or negative where there is none, not 255"),
    ((2, 4, 3), "logits", [1], r"integers \[N, 2, 4\], not int64 \[1\]"),
    ((2, 4, 3), "logits", np.zeros((1, 4, 2), int), r"integers \[N, 2, 4\], not int64 \[1, 4, 2\]"),
    ((1, 1, 3), "logits", np.zeros((5, 2)), r"floats \[N, 3\], not float64 \[5, 2\]"),
    ((1, 1, 3), "class", np.zeros(5), "integers, since its output is a class, not float64"),
])
def test_labels_that_do_not_fit(shape, output, labels, message: str) -> None:
    with pytest.raises(N2uqError, match=f"^labels of g must be {message}$"):
        Task(graph_of(shape, output), np.array(labels))


def test_words() -> None:
    assert measure("images", "") == "accuracy" and measure("pixels", "") == "accuracy of pixels"
    assert measure("images", Task(graph_of((1, 1, 1))).rule) == (
        "accuracy; class 1 where the logit is above 0")
    assert measure("values", "no classes") == "mean absolute error"


# --- Whole nets ---------------------------------------------------------------------------------


def real(net: Net, images: np.ndarray) -> np.ndarray:
    """What the layers make of the images, [N, ...] as they leave it."""
    return model.walk(net.layers, images * net.input.scale,
                      lambda layer, *x: model.layer_float(layer, net.of(layer), *x))


def test_a_map_is_compared_pixel_by_pixel() -> None:
    graph, logits = lower(MAP), real(MAP, IMAGES)
    assert logits.shape == (30, 3, 4, 6)
    labels = logits.argmax(axis=1)
    assert len(np.unique(labels)) == 3
    labels[0] = (labels[0] + 1) % 3
    agreed = agreement(MAP, graph, IMAGES, labels)
    assert (agreed.counted, agreed.count) == ("pixels", 30 * 24)
    assert agreed.worst_logit_error is not None
    assert agreed.worst_logit_error < graph.meta["output_scale"]
    outputs = golden.run(graph, IMAGES.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert agreed.top1_agreement == (outputs.argmax(axis=1) == logits.argmax(axis=1)).mean() > 0.98
    assert agreed.accuracy == (outputs.argmax(axis=1) == labels).mean()
    assert agreed.accuracy_float == 29 / 30
    coarse = lower(MAP, Formats(output_fraction_bits=1))
    step, margin = coarse.meta["output_scale"], margins(logits.transpose(0, 2, 3, 1))
    assert step == 0.5
    assert agreement(MAP, coarse, IMAGES, None).close == ((margin > 0) & (margin < 0.5)).sum() > 0
    assert agreement(MAP, graph, IMAGES, labels, logits=logits) == agreed
    with pytest.raises(N2uqError, match=r"logits of map must be \[30, 3, 4, 6\], not \[30, 3\]"):
        agreement(MAP, graph, IMAGES, None, logits=logits[:, :, 0, 0])


def test_one_logit_is_a_class_or_a_value() -> None:
    graph, images = lower(ONE), IMAGES[..., :5]
    logits = real(ONE, images)[:, 0]
    labels = logits > 0
    assert 5 < labels.sum() < 25
    agreed = agreement(ONE, graph, images, labels.astype(np.uint8))
    outputs = golden.run(graph, images.transpose(0, 2, 3, 1)).reshape(-1)
    assert agreed.accuracy_float == 1 and agreed.count == 30
    assert agreed.accuracy == agreed.top1_agreement == ((outputs > 0) == labels).mean() == 1
    assert (graph.output, agreed.close) == ("fc", 0)  # the accumulator: its sign is the logit's
    values = agreement(ONE, graph, images, logits + 0.5)
    assert (values.top1_agreement, values.accuracy, values.counted) == (None, None, "values")
    assert values.mean_error_float == pytest.approx(0.5)
    assert values.mean_error == np.abs(
        outputs * graph.meta["output_scale"] - logits - 0.5).mean()
    said = replace(ONE, meta={"output": "values"})
    assert agreement(said, lower(said), images, None).counted == "values"


def test_a_logit_of_exactly_zero_is_one_in_floats_too() -> None:
    """Levels of 2/3 that cancel leave a rounding error, whose sign is no class."""
    layers = (model.LTQ("quan", 2), model.Flatten("flat"), model.Linear("fc", 24, 1, 4))
    net = random_net("zero", layers, (1, 4, 6))
    weight = np.random.default_rng(0).permutation(np.repeat([1, -1, 3, -3], 6))
    net = replace(net, params=net.params | {
        "fc.weight": weight[None].astype(np.float32), "quan.start": np.float32([0]),
        "quan.a": np.full(3, 0.3, np.float32), "quan.scale1": np.float32([1]),
        "quan.scale2": np.float32([1])})
    images = np.random.default_rng(1).integers(0, 16, (2000, 1, 4, 6))
    graph = lower(net)
    sums = golden.run(graph, images.transpose(0, 2, 3, 1)).reshape(-1)
    assert (net.forward(images)[sums == 0] > 0).any()
    assert agreement(net, graph, images, None).top1_agreement == 1


@pytest.mark.parametrize("net,message", [
    (ONE, "one: top1 must choose among classes, not one: the class is 1 where fc is above 0"),
    (MAP, "map: ArgMax top1: must read one vector, not an image .*"),
    (replace(MAP, meta={"output": "values"}), "map: top1 must choose among classes, not values")])
def test_top1_needs_classes(net: Net, message: str) -> None:
    with pytest.raises(N2uqError, match=f"^{message}$"):
        lower(net, top1=True)


@pytest.mark.slow
def test_the_verilog_of_a_map_and_its_page(tmp_path: Path) -> None:
    labels = real(MAP, IMAGES).argmax(axis=1)
    labels[::2, 0] = -1
    graph = lower(MAP)
    with pytest.raises(N2uqError, match=r"labels of map must be integers \[N, 4, 6\], not .*"):
        emit(graph, size_fifos(graph, choose(graph)), tmp_path / "map", IMAGES, labels[:, 0])
    assert not (tmp_path / "map").exists()
    emit(graph, size_fifos(graph, choose(graph)), tmp_path / "map", IMAGES, labels)
    build = load_build(tmp_path / "map")
    verdict = verify(build, *build.images(None, None))
    outputs = build.vectors["expected"].argmax(axis=3)
    assert verdict.mismatches == 0 and verdict.counted == "pixels"
    assert verdict.accuracy == (outputs == labels)[labels >= 0].mean()
    page = write_report(build).read_text()
    assert f"{100 * verdict.accuracy:.2f} %" in page and "accuracy of pixels" in page
    values = verify(build, IMAGES, real(MAP, IMAGES))
    assert values.accuracy is None and values.counted == "values"
    assert 0 < values.mean_error < graph.meta["output_scale"]
