"""Foldings: chosen ones meet their target, given ones are checked before anything is built."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import n2uq_block, resnet18

from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import (
    ArgMax,
    DepthwiseMatVec,
    Flatten,
    Graph,
    Input,
    MatVec,
    Node,
    Pad,
    Scale,
    SlidingWindow,
    Threshold,
    folding,
    infer,
)
from n2uq_hw.ir.folding import (
    DepthwiseFold,
    Fold,
    MatVecFold,
    ThresholdFold,
    UnrolledFold,
    check,
    choices,
    fold_cycles,
    style_of,
)
from n2uq_hw.lowering.lower import lower
from n2uq_hw.nets import find_net, shipped
from n2uq_hw.plan import choice
from n2uq_hw.plan.choice import choose, load_folding, save_folding


@pytest.fixture(scope="module")
def graph() -> Graph:
    return lower(find_net("digits_cnn_w2a2"))


def slowest(graph: Graph, folds: folding.Folding) -> int:
    return max(fold_cycles(node, graph.reads(node), graph.edges[node.name], folds[node.name])
               for node in graph.nodes if not isinstance(node, Flatten | Input))


def late(graph: Graph, folds: folding.Folding, target: int) -> list[str]:
    """MatVecs that a window feeds too slowly: no queue holds their vector, which they read once."""
    names = []
    for node in graph.nodes:
        if isinstance(node, MatVec) and isinstance(graph[node.inputs[0]], SlidingWindow | Input):
            (outputs, inputs), fold = node.weights.shape, folds[node.name]
            come = inputs / min(folds[node.inputs[0]].pe, fold.simd)
            vector = come + (outputs // fold.pe - 1) * (inputs // fold.simd)
            if np.prod(graph.edges[node.name].shape[:2]) * vector > target:
                names.append(node.name)
    return names


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("factor", [1, 2, 5, 100])
def test_chosen_foldings_meet_their_target(name: str, factor: int) -> None:
    graph = lower(find_net(name))
    target = folding.slowest_window(graph) * factor
    folds = choose(graph, target)
    check(graph, folds)
    assert slowest(graph, folds) <= target
    assert not late(graph, folds, target)


def test_a_window_makes_a_pixel_per_cycle_or_a_row_or_all_of_its_kernel(graph: Graph) -> None:
    assert folding.slowest_window(graph) == 8 * 8 * 9  # conv1 and conv2, by hand
    assert folding.reach(graph) == (10 * 10, "conv1_pad")  # a pixel per cycle, the frame's too
    assert folding.reach(resnet18()) == (230 * 230, "stem_pad")
    # It takes a pixel per cycle at most: 64 of them, and makes but 9 windows of 2 rows.
    node = SlidingWindow("w", ("x",), kernel=(2, 2), stride=(3, 3))
    few = Graph("g", (Input("x", shape=(8, 8, 5)), node))
    assert choices(node, few.reads(node), few.edges["w"]) == {"pe": (1, 5, 10, 20)}
    for lanes in (5, 10, 20):
        assert fold_cycles(node, few.reads(node), few.edges["w"], Fold(lanes)) == 8 * 8
    column, row, pixel = (SlidingWindow("w", ("x",), kernel=kernel)
                          for kernel in ((3, 1), (1, 3), (1, 1)))
    assert [choices(node, few.reads(node), infer(node, few.edges["x"]))["pe"][2:]
            for node in (column, row, pixel)] == [(15,), (15,), ()]


@pytest.mark.parametrize("nodes,cycles", [
    ([Scale("y", ("x",))], 36),                                         # a pixel per cycle
    ([Pad("y", ("x",), frame=(2, 2, 2, 2)),                             # frame and all
      SlidingWindow("z", ("y",), stride=(2, 2))], 100),
    ([Flatten("y", ("x",)), ArgMax("z", ("y",))], 27)],                 # 4 elements per cycle
    ids=["scale", "pad", "vector"])
def test_the_default_target_can_be_reached(nodes: list[Node], cycles: int) -> None:
    graph = Graph("g", (Input("x", shape=(6, 6, 3)), *nodes)).verify()
    assert folding.slowest_window(graph) == cycles
    assert slowest(graph, choose(graph)) <= cycles


@pytest.mark.parametrize("outputs,stride", [(8, 1), (16, 2)])
def test_residual_blocks_meet_their_target(outputs: int, stride: int) -> None:
    graph = n2uq_block("block", (8, 8, 8), outputs, stride)
    folds = choose(graph)
    check(graph, folds)
    assert slowest(graph, folds) <= folding.slowest_window(graph) == 64 // stride**2 * 9


def test_a_large_graph_is_folded_at_once() -> None:
    """124 nodes, those of ResNet-18."""
    graph = resnet18()
    _ = graph.edges
    began = time.process_time()
    folds = choose(graph)
    assert time.process_time() - began < 10
    assert slowest(graph, folds) <= folding.slowest_window(graph) == 112 * 112 * 49


@pytest.mark.parametrize("target,message", [
    (64, "conv1_pad: takes 100 cycles per image at its fastest; 64 cannot be reached"),
    (0, "digits_cnn_w2a2: cycles per image must be at least 1, not 0")])
def test_targets_out_of_reach(graph: Graph, target: int, message: str) -> None:
    with pytest.raises(N2uqError) as error:
        choose(graph, target)
    assert str(error.value) == message


@pytest.mark.parametrize("unit,change,message", [
    ("conv2", {"pe": 12}, "conv2: PE must divide the 32 output channels, not 12"),
    ("conv2", {"simd": 5}, "conv2: SIMD must divide the 144 inputs, not 5"),
    ("quan2", {"pe": 0}, "quan2: PE must divide the 32 channels, not 0"),
    ("conv1_pad", {"pe": 2}, "conv1_pad: PE must divide the 1 channels, not 2"),
    ("pool2_window", {"pe": -1}, "pool2_window: PE must divide the 32 channels or be 64, a row of "
     "the kernel, or be 128, a whole window, not -1"),
    ("pool2", {"pe": 64}, "pool2: PE must divide the 32 channels or be 128, a whole window, not "
     "64"),
    ("input", {"pe": 7}, "input: PE must divide the 64 elements, not 7"),
    ("logits", {"pe": 3}, "logits: PE must divide the 10 channels, not 3"),
    ("quan1", {"style": "serial"}, "quan1: style must be one of parallel, search, not 'serial'"),
    ("conv1", {"form": ""},
     "conv1: form must be one of planes, product, direct, pairs, heap, not ''"),
    ("conv2", {"memory": "bram"}, "conv2: memory must be one of auto, block, logic, not 'bram'"),
    ("quan1", Fold(), "quan1: folding must be ThresholdFold, not Fold(pe=1)"),
    ("conv2", ThresholdFold(), "conv2: folding must be MatVecFold or UnrolledFold, not "
     "ThresholdFold(pe=1, style='parallel')"),
    ("conv2", UnrolledFold(16, 144), "conv2: PE must be all 32 output channels, unrolled, not 16"),
    ("conv2", UnrolledFold(32, 9), "conv2: SIMD must be all 144 inputs, unrolled, not 9"),
    ("conv2", UnrolledFold(32, 144, levels=0), "conv2: levels must be at least 1, not 0"),
    ("conv2", UnrolledFold(32, 144, lut=5), "conv2: lut must be one of 4, 6, not 5")])
def test_impossible_foldings(graph: Graph, unit: str, change: dict | Fold, message: str) -> None:
    folds = choose(graph)
    with pytest.raises(N2uqError) as error:
        check(graph, {**folds, unit: change if isinstance(change, Fold)
                      else replace(folds[unit], **change)})
    assert str(error.value) == message


def test_logic_has_an_end() -> None:
    """1,024 x 128 weights of two bits each, with inputs of one: 2^18 bits of products."""
    weights = np.resize([1, -2], (1024, 128))
    for width, hi in ((1, 1), (2, 2)):
        graph = Graph("net", (Input("input", shape=(1, 1, 128), lo=0, hi=hi),
                              MatVec("fc", ("input",), weights)))
        folds = {"input": Fold(128), "fc": UnrolledFold(1024, 128)}
        if width == 1:
            check(graph, folds)
            continue
        with pytest.raises(N2uqError, match=r"^fc: must have 262,144 bits of products at most, "
                                            r"unrolled, not 524,288; fold it$"):
            check(graph, folds)


def test_one_table_serves_any_number_of_elements() -> None:
    graph = lower(find_net("mnist_mlp_w2a2"))
    shared = next(node for node in graph.nodes if isinstance(node, Threshold))
    assert len(shared.signs) == 1
    folds = choose(graph)
    check(graph, {**folds, shared.name: ThresholdFold(pe=98)})


def test_weights_lie_where_they_cost_least(graph: Graph) -> None:
    """By hand, on xcup, where a block is worth 160 LUTs and gives 36 bits at once."""
    folds = choose(graph, 2304)
    # 36 words of 256 bits: 8 blocks, 1,280 LUTs' worth, or 256 columns of two LUTs at most.
    assert (folds["conv2"].pe * folds["conv2"].simd, folds["conv2"].memory) == (128, "logic")
    # 144 words of 128 bits: 4 blocks, 640 LUTs' worth, or 128 columns of about ten LUTs.
    assert (folds["conv3"].pe * folds["conv3"].simd, folds["conv3"].memory) == (64, "block")
    assert style_of(folds["conv3"]) == "pairs, block"
    assert style_of(folds["pool2"]) == ""
    mlp = lower(find_net("digits_mlp_w2a2"))
    assert choose(mlp, 1)["fc1"].memory == "auto"  # of one word there is nothing to choose


def test_styles_go_by_channel_groups(graph: Graph) -> None:
    folds = choose(graph)
    assert (folds["quan2"].pe, folds["quan2"].style) == (4, "search")  # 8 groups of 32 channels
    fast = choose(lower(find_net("mnist_mlp_w2a2")))
    assert fast["input_quan"].style == "parallel"                      # one table for all


@pytest.mark.parametrize("cycles", [None, 2304, 100_000])
def test_files_keep_what_they_are_given(graph: Graph, tmp_path: Path, cycles: int | None) -> None:
    folds = choose(graph, cycles)
    folds["conv2"] = MatVecFold(pe=4, simd=9, form="direct", memory="logic")
    folds["conv3"] = MatVecFold()  # what is default must be written too: `choose` says otherwise
    folds["quan2"] = ThresholdFold(pe=8, style="search")
    folds["quan3"] = ThresholdFold()
    assert choose(graph)["conv3"] != folds["conv3"] and choose(graph)["quan3"] != folds["quan3"]
    save_folding(folds, graph, tmp_path / "folding.yaml")
    assert load_folding(tmp_path / "folding.yaml", graph) == folds
    text = (tmp_path / "folding.yaml").read_text()
    assert "conv2: {pe: 4, simd: 9, form: direct, memory: logic}\n" in text
    assert "quan2: {pe: 8, style: search}\n" in text and "pool2: {pe: " in text


def test_an_unrolled_layer_has_all_lanes(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "folding.yaml"
    path.write_text("conv2: {form: unrolled, levels: 3}\n")
    folds = load_folding(path, graph)
    assert folds == {**choose(graph), "conv2": UnrolledFold(32, 144, levels=3)}
    save_folding(folds, graph, path)
    assert "conv2: {pe: 32, simd: 144, form: unrolled, levels: 3, lut: 6}\n" in path.read_text()
    assert load_folding(path, graph) == folds


def test_everything_unrolled(graph: Graph) -> None:
    folds = choice.unrolled(graph, levels=4, lut=4)
    check(graph, folds)
    assert folds["fc"] == UnrolledFold(10, 128, levels=4, lut=4)
    # A pixel comes, and is padded; windows go whole to what takes them.
    assert [folds[name].pe for name in ("input", "conv2_pad", "conv2_window", "pool2_window",
                                        "pool2", "logits")] == [1, 16, 144, 128, 128, 10]
    depthwise = Graph("g", (Input("x", shape=(8, 8, 4)),
                            SlidingWindow("w", ("x",), kernel=(3, 3)),
                            DepthwiseMatVec("d", ("w",), weights=np.ones((9, 4), np.int8))))
    assert choice.unrolled(depthwise) == {"x": Fold(4), "w": Fold(4), "d": DepthwiseFold(4)}


def test_units_left_out_keep_the_chosen_folding(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "folding.yaml"
    path.write_text("conv2: {simd: 48}\n")
    folds = choose(graph)
    assert load_folding(path, graph) == {**folds, "conv2": replace(folds["conv2"], simd=48)}


@pytest.mark.parametrize("text,message", [
    ("a: [", "not YAML"), ("- 1", "must map layer names to foldings, not list"), ("", "NoneType"),
    ("conv9: {pe: 1}", "conv9 must be a unit of digits_cnn_w2a2"),
    ("conv2: 7", "conv2 must map pe, simd, form or memory, not 7"),
    ("conv2: {lanes: 7}", "conv2: key must be pe, simd, form or memory, not lanes"),
    ("conv2: {levels: 2}", "conv2: key must be pe, simd, form or memory, not levels"),
    ("conv2: {form: unrolled, memory: block}",
     "conv2: key must be pe, simd, form, levels or lut, not memory"),
    ("quan1: {form: unrolled}", "quan1: key must be pe or style, not form"),
    ("pool2: {style: search}", "pool2: key must be pe, not style"),
    ("conv2: {form: planar}",
     "conv2.form must be one of planes, product, direct, pairs, heap, unrolled, not 'planar'"),
    ("conv2: {form: 7}", "conv2.form must be str, not 7"),
    ("conv2: {pe: two}", "conv2.pe must be int, not 'two'"),
    ("conv2: {pe: true}", "conv2.pe must be int, not True"),
    ("conv2: {pe: 12}", "conv2: PE must divide the 32 output channels, not 12"),
    ("!!python/object/apply:os.system ['true']", "not YAML"), ("\0", "not YAML")])
def test_faulty_files(graph: Graph, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "folding.yaml"
    path.write_text(text)
    with pytest.raises(N2uqError, match=message) as error:
        load_folding(path, graph)
    assert "\n" not in str(error.value)


def test_missing_file(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(N2uqError, match="no such file"):
        load_folding(tmp_path / "none.yaml", graph)
