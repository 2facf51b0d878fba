"""The verdict: exact builds pass, every kind of wrong bit is found and located, figures by hand."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from n2uq_hw.builds.emit import Build, emit, load_build
from n2uq_hw.builds.verify import Verdict, golden_saturated, verify
from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import (
    Add,
    Graph,
    Input,
    MatVec,
    Node,
    Saturate,
    Scale,
    SlidingWindow,
    Threshold,
    golden,
)
from n2uq_hw.ir.folding import MatVecFold
from n2uq_hw.lowering.formats import Formats
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import Net
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.sim.timing.forecast import forecast

SIMULATORS = ["verilator", pytest.param("icarus", marks=pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus Verilog is not installed"))]


@pytest.mark.parametrize("stalls,seed", [(0.0, 0), (0.4, 1), (0.8, 2)])
def test_exact_under_stalls(built: Path, images: np.ndarray, stalls: float, seed: int) -> None:
    labels = np.arange(len(images)) % 5
    build = load_build(built)
    verdict = verify(build, images, labels, stalls=stalls, seed=seed)
    assert verdict.mismatches == 0 and verdict.first_mismatch == "" and verdict.images == 40
    guesses = golden.run(build.graph, images.transpose(0, 2, 3, 1)).reshape(40, -1).argmax(axis=1)
    assert verdict.accuracy == (guesses == labels).mean()
    json.dumps(verdict.as_dict(), allow_nan=False)


def test_cycles_are_those_of_the_slowest_unit(built: Path, images: np.ndarray) -> None:
    """Steady state, by the foldings: no unit of this net is slower than its longest fold."""
    build = load_build(built)
    verdict = verify(build, images, None)
    assert verdict.accuracy is None
    assert verdict.cycles_per_image == int(verdict.cycles_per_image)
    fold, conv = build.folding["conv1"], build.graph["conv1"]
    assert isinstance(conv, MatVec)
    busy = 25 * conv.weights.size / (fold.pe * fold.simd)
    assert verdict.layers["conv1"] == busy / verdict.cycles_per_image
    assert verdict.mac_utilization == max(verdict.layers.values()) <= 1
    again = verify(build, images[:20], None)
    assert again.cycles_per_image == verdict.cycles_per_image
    assert again.cycles_first_output == verdict.cycles_first_output


def broken(built: Path, folder: Path, net: Net, name: str, **change: np.ndarray) -> Build:
    """A build whose Verilog has one node changed, and whose graph says otherwise."""
    right = lower(net)

    def other(node: Node) -> Node:
        return replace(node, **change) if node.name == name else node
    wrong = Graph(right.name, tuple(other(node) for node in right.nodes), right.meta).verify()
    emit(wrong, size_fifos(wrong, choose(right)), folder / "wrong",
         np.zeros((1, *net.input.shape), int), None)
    right.save(folder / "wrong" / "graph.safetensors")
    return load_build(folder / "wrong")


def first_difference(right: Graph, wrong: Graph, images: np.ndarray, name: str) -> str:
    """The report that golden alone would give, of the first image in which the output differs."""
    nhwc = images.transpose(0, 2, 3, 1)
    differs = (golden.run(right, nhwc) != golden.run(wrong, nhwc)).reshape(len(images), -1).any(1)
    image = int(differs.argmax())
    ours, theirs = (golden.run_all(graph, nhwc[image:image + 1])[name][0]
                    for graph in (right, wrong))
    at = tuple(int(v) for v in np.argwhere(ours != theirs)[0])
    return (f"image {image}: layer {name} first differs at pixel ({at[0]}, {at[1]}), "
            f"channel {at[2]}: {theirs[at]} in RTL, {ours[at]} in golden")


@pytest.mark.parametrize("layer", ["conv3", *(
    pytest.param(name, marks=pytest.mark.slow) for name in ("quan2", "logits"))])
def test_wrong_numbers_are_located(built: Path, tmp_path: Path, net: Net, images: np.ndarray,
                                     layer: str) -> None:
    right = lower(net)
    node = right[layer]
    if isinstance(node, MatVec):
        weights = node.weights.copy()
        weights[4, 2] *= -1
        change = {"weights": weights}
    elif isinstance(node, Threshold):
        change = {"thresholds": node.thresholds + 60}
    else:
        assert isinstance(node, Scale)
        offset = node.offset.copy()
        offset[3] += 1 << node.shift
        change = {"offset": offset}
    build = broken(built, tmp_path, net, layer, **change)
    assert "graph.safetensors" in build.changed
    verdict = verify(build, images, None, stalls=0.2)
    wrong = Graph(right.name, tuple(replace(n, **change) if n.name == layer else n
                                    for n in right.nodes), right.meta)
    nhwc = images.transpose(0, 2, 3, 1)
    differs = golden.run(right, nhwc) != golden.run(wrong, nhwc)
    assert verdict.mismatches == differs.reshape(len(images), -1).any(axis=1).sum() > 0
    assert verdict.first_mismatch == first_difference(right, wrong, images, layer)


def edited(built: Path, folder: Path, *changes: tuple[str, str]) -> Build:
    """A copy of the build with texts of its wrapper replaced."""
    shutil.copytree(built, folder / "edited", ignore=shutil.ignore_patterns("simulation*"))
    (path,) = (folder / "edited" / "rtl").glob("*_axis.v")
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return load_build(folder / "edited")


@pytest.mark.slow
@pytest.mark.parametrize("old,new", [
    ("m_axis_tlast = output_beat == OUTPUT_BEATS - 1", "m_axis_tlast = 1'b0"),
    ("result[", "!result[")], ids=["tlast", "padding"])
def test_bits_around_the_result_count_too(net: Net, tmp_path: Path, images: np.ndarray,
                                          old: str, new: str) -> None:
    graph = lower(net, Formats(output_fraction_bits=9))  # 13 bits, of 16 on the bus
    emit(graph, size_fifos(graph, choose(graph)), tmp_path / "b", images[:1], None)
    build = edited(tmp_path / "b", tmp_path, (old, new))
    assert build.changed == ("rtl/small_axis.v",)
    verdict = verify(build, images[:3], None)
    assert verdict.mismatches == 3
    assert "tdata padding or tlast" in verdict.first_mismatch


def test_a_beat_too_many_is_heard_however_late(built: Path, tmp_path: Path, images: np.ndarray
                                               ) -> None:
    """It comes when nothing moved for as long as an image takes to go through."""
    latency = verify(load_build(built), images[:1], None).cycles_first_output
    assert latency > 100
    late = edited(built, tmp_path, (".o__valid(m_axis_tvalid)", ".o__valid(right)"), (
        "    reg [31:0] input_beat", f"""
    reg [31:0] quiet;
    assign m_axis_tvalid = right || quiet == {latency};
    always @(posedge aclk) quiet <= !aresetn || s_axis_tvalid || m_axis_tvalid ? 0 : quiet + 1;
    reg [31:0] input_beat"""))
    with pytest.raises(N2uqError, match=r"^small: m_axis_tdata must give 10 beats, not "):
        verify(late, images[:2], None)


def test_a_deadlock_is_named(built: Path, tmp_path: Path, images: np.ndarray) -> None:
    build = edited(built, tmp_path, (".i__valid(s_axis_tvalid)",
                                     ".i__valid(s_axis_tvalid && input_beat != 9)"))
    with pytest.raises(N2uqError, match="small: deadlock, output m_axis_tdata gave"):
        verify(build, images[:3], None)


def clamping(lo: int, hi: int) -> Graph:
    """Pixels and their doubles in lo..hi, summed."""
    return Graph("clamping", (
        Input("x", shape=(3, 4, 2), lo=-8, hi=7), Saturate("once", ("x",), lo=lo, hi=hi),
        Scale("double", ("x",), multiplier=np.array([2])),
        Saturate("twice", ("double",), lo=lo, hi=hi), Add("sum", ("once", "twice")))).verify()


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(3).integers(-8, 8, (5, 2, 3, 4))


@pytest.fixture(scope="module")
def clamped(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("clamped") / "clamping"
    graph = clamping(-3, 5)
    emit(graph, size_fifos(graph, choose(graph)), path, pixels, None)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("stalls", [0.0, 0.5])
def test_saturation_is_counted(clamped: Path, pixels: np.ndarray, stalls: float) -> None:
    verdict = verify(load_build(clamped), pixels, None, stalls=stalls)
    assert verdict.saturated == sum(((x < -3) | (x > 5)).sum() for x in (pixels, 2 * pixels)) > 0
    assert (verdict.mismatches, verdict.first_mismatch, verdict.saturated_exact) == (0, "", True)
    assert verify(load_build(clamped), np.zeros_like(pixels), None).saturated == 0
    json.dumps(verdict.as_dict(), allow_nan=False)


def leftover() -> Graph:
    """Pixels and a slow layer's sums, held in ranges; the output is rows 0 and 4 of the sums.

    The last two rows of sums come after all that the output needs.
    """
    rng = np.random.default_rng(4)
    return Graph("leftover", (
        Input("x", shape=(8, 5, 4), lo=-8, hi=7), Saturate("pixels", ("x",), lo=-3, hi=5),
        SlidingWindow("window", ("pixels",), kernel=(2, 2), stride=(1, 1)),
        MatVec("layer", ("window",), weights=rng.integers(-4, 4, (4, 16))),
        Saturate("sums", ("layer",), lo=-20, hi=20),
        SlidingWindow("output", ("sums",), kernel=(1, 1), stride=(4, 3)))).verify()


@pytest.fixture(scope="module")
def slow_end(tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = leftover()
    path = tmp_path_factory.mktemp("leftover") / "leftover"
    emit(graph, size_fifos(graph, choose(graph) | {"layer": MatVecFold(1, 1)}), path,
         np.zeros((1, 4, 8, 5), int), None)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize("stalls", [0.0, 0.5])
def test_what_no_output_needs_is_counted(slow_end: Path, stalls: float, simulator: str) -> None:
    """The last image's saturated elements that strides leave out come late, and are counted."""
    build = load_build(slow_end)
    images = np.random.default_rng(5).integers(-8, 8, (2, 4, 8, 5))
    nhwc = images.transpose(0, 2, 3, 1)
    layer = golden.run_all(build.graph, nhwc)["layer"]
    for row in layer[-1, -2:]:
        assert (np.abs(row) > 20).any()
    verdict = verify(build, images, None, stalls=stalls, seed=2, simulator=simulator)
    assert (verdict.mismatches, verdict.saturated_exact) == (0, True)
    assert verdict.saturated == ((nhwc < -3) | (nhwc > 5)).sum() + (np.abs(layer) > 20).sum()


def test_a_wrong_count_is_a_mismatch(clamped: Path, tmp_path: Path, pixels: np.ndarray) -> None:
    build = edited(clamped, tmp_path, (".saturated(saturated)", ".saturated(saturated[31:1])"))
    verdict = verify(build, pixels, None)
    truth = golden_saturated(build.graph, pixels.transpose(0, 2, 3, 1))
    assert truth is not None and (verdict.mismatches, verdict.saturated_exact) == (1, False)
    assert verdict.first_mismatch == (f"the saturation counter differs in images 0 to 4: "
                                      f"{2 * truth} in RTL, {truth} in golden")


def test_golden_counts_stay_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.full((9, 3, 4, 2), 7)
    assert golden_saturated(clamping(-8, 6), images) == 2 * images.size
    assert golden_saturated(clamping(-8, 7), images) == images.size
    monkeypatch.setattr("n2uq_hw.builds.verify.ELEMENTS", 300)  # some images at a time
    assert golden_saturated(clamping(-8, 6), images) == 2 * images.size
    monkeypatch.setattr("n2uq_hw.builds.verify.COUNT_BITS", 8)
    assert golden_saturated(clamping(-8, 7), images) == 216
    assert golden_saturated(clamping(-8, 6), images) == 255


def test_without_saturation_nothing_is_counted(built: Path, images: np.ndarray) -> None:
    build = load_build(built)
    verdict = verify(build, images[:2], None)
    assert (verdict.saturated, verdict.saturated_exact) == (None, None)
    assert "saturated" not in (built / "rtl" / "small_axis.v").read_text()


@pytest.mark.parametrize("change,message", [
    ({"stalls": 1.0}, r"stalls must be a probability in 0..0.95, not 1.0"),
    ({"stalls": float("nan")}, "stalls must be a probability"),
    ({"jobs": 0}, "jobs must be at least 1, not 0"),
    ({"simulator": "spice"}, "must be verilator or icarus, not spice"),
    ({"images": np.zeros((0, 2, 5, 5), int)}, "images must be at least 1, not 0"),
    ({"images": np.zeros((2, 5, 5, 2), int)}, r"\[N, 2, 5, 5\], not int64 \[2, 5, 5, 2\]"),
    ({"images": np.full((2, 2, 5, 5), 16)}, r"must lie in 0..15, not 16..16")])
def test_faults(built: Path, images: np.ndarray, change: dict, message: str) -> None:
    arguments = {"images": images, **change}
    with pytest.raises(N2uqError, match=message):
        verify(load_build(built), arguments.pop("images"), None, **arguments)


def test_single_image(built: Path, images: np.ndarray) -> None:
    """Its cycles are those from its first beat to the last of its result, as predicted."""
    build = load_build(built)
    verdict: Verdict = verify(build, images[:1], None)
    predicted = forecast(build.graph, build.folding, images=1)
    assert (verdict.images, verdict.mismatches) == (1, 0)
    assert verdict.cycles_per_image == predicted.cycles_last_output
    assert verdict.cycles_first_output == predicted.cycles_first_output


@pytest.mark.slow
@pytest.mark.parametrize("stalls,bits", [(0.0, 2**27), (0.4, 3000)])
def test_shares_are_one_set(built: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch,
                            stalls: float, bits: int) -> None:
    """Each share runs as alone; what it shows of cycles is what the first one shows alone."""
    build, labels = load_build(built), np.arange(40) % 5
    whole = verify(build, images, labels, stalls=stalls, seed=1)
    monkeypatch.setattr("n2uq_hw.builds.verify.BITS", bits)
    told: list[float] = []
    verdict = verify(build, images, labels, stalls=stalls, seed=1, jobs=3,
                     progress=lambda stage, done: told.append(done))
    assert (verdict.images, verdict.mismatches) == (40, 0)
    assert verdict.accuracy == whole.accuracy and verdict.shares >= 3
    assert (verdict.shares == 3) == (bits > 3000)
    alone = verify(build, images[:40 // verdict.shares], None, stalls=stalls, seed=1)
    for key in ("cycles_first_output", "cycles_per_image", "mac_utilization", "layers"):
        assert getattr(verdict, key) == getattr(alone, key), key
    assert set(verdict.as_dict()) == set(whole.as_dict())
    assert verify(build, images[:2], None, jobs=3).shares == 2  # an image each, at least
    assert min(told) >= 0 and max(told) == 1


@pytest.mark.slow
def test_a_wrong_image_of_the_last_share_is_named(built: Path, tmp_path: Path, net: Net,
                                                  images: np.ndarray) -> None:
    right = lower(net)
    node = right["conv3"]
    assert isinstance(node, MatVec)
    weights = node.weights.copy()
    weights[4, 2] *= -1
    build = broken(built, tmp_path, net, "conv3", weights=weights)
    wrong = Graph(right.name, tuple(replace(n, weights=weights) if n.name == "conv3" else n
                                    for n in right.nodes), right.meta)
    nhwc = images.transpose(0, 2, 3, 1)
    differ = (golden.run(right, nhwc) != golden.run(wrong, nhwc)).reshape(40, -1).any(axis=1)
    assert not differ.all()
    chosen = images[[*[int(differ.argmin())] * 8, int(differ.argmax()), int(differ.argmax())]]
    verdict = verify(build, chosen, None, jobs=3, stalls=0.2)
    assert (verdict.shares, verdict.mismatches) == (3, 2)
    assert verdict.first_mismatch == first_difference(right, wrong, chosen, "conv3")
    assert verdict.first_mismatch.startswith("image 8: ")


@pytest.mark.slow
def test_a_deadlock_names_its_share(built: Path, tmp_path: Path, images: np.ndarray) -> None:
    build = edited(built, tmp_path, (".i__valid(s_axis_tvalid)",
                                     ".i__valid(s_axis_tvalid && s_axis_tdata == 0)"))
    quiet = np.zeros_like(images[:6])
    assert verify(build, quiet, None, jobs=2).mismatches == 0
    quiet[4] = images[4]
    with pytest.raises(N2uqError, match=r"^images 3 to 5: small: deadlock, output m_axis_tdata"):
        verify(build, quiet, None, jobs=2)


@pytest.mark.slow
def test_counts_of_shares_add_up(clamped: Path, tmp_path: Path, pixels: np.ndarray) -> None:
    verdict = verify(load_build(clamped), pixels, None, jobs=2)
    assert verdict.saturated == sum(((x < -3) | (x > 5)).sum() for x in (pixels, 2 * pixels))
    assert (verdict.mismatches, verdict.shares) == (0, 2)
    build = edited(clamped, tmp_path, (".saturated(saturated)", ".saturated(saturated[31:1])"))
    verdict = verify(build, pixels, None, jobs=2)
    truth = golden_saturated(build.graph, pixels[:2].transpose(0, 2, 3, 1))
    assert truth is not None and (verdict.mismatches, verdict.saturated_exact) == (1, False)
    assert verdict.first_mismatch == (f"the saturation counter differs in images 0 to 1: "
                                      f"{2 * truth} in RTL, {truth} in golden")
