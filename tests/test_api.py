"""The front door: what a notebook needs, against the parts that it is made of."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import n2uq_hw as n2
from n2uq_hw import progress
from n2uq_hw.data import load
from n2uq_hw.ir import Scale, golden
from n2uq_hw.plan.choice import choose, load_folding, save_folding, unrolled
from n2uq_hw.sim.timing.forecast import forecast
from n2uq_hw.tables import Table

NET = "digits_cnn_w2a2"


@pytest.fixture(scope="module")
def graph() -> n2.Graph:
    return n2.lower(NET)


@pytest.fixture(scope="module")
def build(net: n2.Net, tmp_path_factory: pytest.TempPathFactory) -> n2.Build:
    """Of the small net, with images and labels of its own."""
    images = np.random.default_rng(1).integers(0, 16, (80, *net.input.shape))
    return n2.build(n2.lower(net), None, tmp_path_factory.mktemp("api") / "b", net=net,
                    images=images, labels=np.arange(80) % 5)


def test_the_import_is_light() -> None:
    code = ("import sys, n2uq_hw as n2; heavy = {'torch', 'amaranth', 'matplotlib', 'numpy', "
            "'typer'} & set(sys.modules); assert not heavy, heavy; assert callable(n2.fold); "
            "assert 'torch' not in sys.modules and 'lower' in dir(n2)")
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = n2.nothing
    assert all(getattr(n2, name) is not None for name in n2.__all__)


def test_forward_is_golden_in_the_layout_of_the_net(graph: n2.Graph, net: n2.Net) -> None:
    images = load("digits").images[:50]
    out = graph.forward(images)
    assert np.array_equal(out, golden.run(graph, images.transpose(0, 2, 3, 1))[:, 0, 0])
    # Of a 14-bit format, whose step is `scale`, as the float net says.
    assert np.abs(out * graph.scale - n2.load(NET).forward(images)).max() <= graph.scale
    top1 = n2.lower(net, top1=True)
    some = np.random.default_rng(2).integers(0, 16, (7, *net.input.shape))
    assert np.array_equal(top1.forward(some), n2.lower(net).forward(some).argmax(axis=1))
    with pytest.raises(n2.N2uqError, match=r"integers \[N, 1, 8, 8\], not uint8 \[50, 8, 8, 1\]"):
        graph.forward(images.transpose(0, 2, 3, 1))


def test_calibration_and_formats_are_those_of_the_command(net: n2.Net, tmp_path: Path) -> None:
    resnet = n2.load("mnist_resnet8_w2a2")
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 28, 28))
    np.savez(tmp_path / "i.npz", images=images)
    held = n2.lower(resnet, calibrate=images)
    assert held.digest == n2.lower(resnet, calibrate=tmp_path / "i.npz").digest
    assert held.digest != n2.lower(resnet).digest
    assert n2.lower(resnet, n2.Formats(residual_fraction_bits=5)).meta[
        "residual_fraction_bits"] == 5


def test_plans(graph: n2.Graph, tmp_path: Path) -> None:
    plan = n2.fold(graph, cycles=2304)
    assert plan.cycles == forecast(graph, plan.folding).cycles_per_image <= 2304
    assert plan.luts == plan.estimate.lut + plan.estimate.lutram
    assert n2.fold(graph, fps=100_000, clock=230.4).cycles <= 2304
    assert n2.fold(graph, luts=plan.luts).luts <= plan.luts
    assert n2.fold(graph).folding == choose(graph)
    assert n2.fold(graph, cycles=2304, search=False).folding == choose(graph, 2304)
    assert n2.fold(graph, unroll=3, lut=4).folding == unrolled(graph, 3, 4)
    save_folding(plan.folding, graph, tmp_path / "f.yaml")
    assert n2.fold(graph, folding=tmp_path / "f.yaml").folding == load_folding(
        tmp_path / "f.yaml", graph)
    for arguments, message in (
            ({"cycles": 5, "fps": 9.5}, "fps 9.5 and cycles 5 exclude each other"),
            ({"lut": 4}, "lut must come with unroll, and is given without: 4"),
            ({"fps": 1e9}, "at its fastest"), ({"family": "vax"}, "not vax"),
            ({"fps": float("nan")}, r"fps must be in 1e-06..1,000,000,000,000 images/s, not nan"),
            ({"cycles": 0}, r"cycles must be in 1\.\."), ({"luts": "many"}, "not 'many'"),
            ({"fps": 9, "clock": 0}, r"clock must be in 0.001..100,000 MHz, not 0"),
            ({"folding": {}}, "folding must have all units, not lack input"),
            ({"folding": "no.yaml"}, "no.yaml: no such file")):
        with pytest.raises(n2.N2uqError, match=message):
            n2.fold(graph, **arguments)


def test_a_build_verifies_costs_and_reports(build: n2.Build) -> None:
    assert build.vectors["images"].shape == (64, 2, 5, 5)
    assert np.array_equal(build.vectors["expected"][:, 0, 0],
                          build.graph.forward(build.vectors["images"]))
    verdict = build.verify(stalls=0.3, seed=3)
    assert (verdict.images, verdict.mismatches, verdict.stalls) == (64, 0, 0.3)
    images = np.random.default_rng(5).integers(0, 16, (12, *build.vectors["images"].shape[1:]))
    straight = build.verify(images, jobs=0)
    assert (straight.images, straight.mismatches, straight.accuracy) == (12, 0, None)
    assert build.verify(images).cycles_per_image == build.cycles(12).cycles_per_image
    assert (build.plan.folding, build.plan.cycles) == (
        build.folding, build.cycles().cycles_per_image)
    costs = build.cost("ecp5", dsp=False)
    assert costs.total == costs.synthesis.total and costs.total.lut > 0
    assert costs.estimates.keys() >= costs.synthesis.units.keys()
    page = build.report().read_text(encoding="utf-8")
    assert "Bit-exact on 64 images." in page and "Cycles measured are the cycles predicted." in page
    assert n2.load_build(build.path).verify().mismatches == 0
    with pytest.raises(n2.N2uqError, match="stalls must be a probability"):
        build.verify(stalls=2)
    with pytest.raises(n2.N2uqError, match="labels must be 12 integers, not int64"):
        build.verify(images, np.zeros(3, int))
    with pytest.raises(n2.N2uqError, match=r"seed must be in 0\.\.4,294,967,295, not -1"):
        build.verify(seed=-1)
    with pytest.raises(n2.N2uqError, match="clock must be"):
        build.report(clock=0)
    with pytest.raises(n2.N2uqError, match="manifest"):
        n2.load_build(build.path / "rtl")


def test_what_makes_no_build_leaves_none(graph: n2.Graph, net: n2.Net, tmp_path: Path) -> None:
    images = np.zeros((3, 1, 8, 8), int)
    for more, message in (
            ({"images": images[:0]}, "N at least 1"), ({"images": images / 2}, "must be integers"),
            ({"images": images + 99}, r"must lie in 0\.\.16, not 99"),
            ({"images": images, "labels": np.zeros(2, int)}, "labels must be 3 integers")):
        with pytest.raises(n2.N2uqError, match=message):
            n2.build(graph, None, tmp_path / "b", **more)
    with pytest.raises(n2.N2uqError, match="plan must be of the graph that is built, digits_cnn"):
        n2.build(graph, n2.fold(n2.lower(net)), tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_a_bit_that_differs_is_a_verdict(net: n2.Net, tmp_path: Path) -> None:
    """No error: the caller did nothing wrong."""
    graph = n2.lower(net)
    last = graph.nodes[-1]
    assert isinstance(last, Scale)
    other = graph.with_nodes([*graph.nodes[:-1], replace(last, offset=last.offset + 2**last.shift)])
    wrong = n2.build(other, None, tmp_path / "b")
    right = n2.Build(wrong.path, graph, wrong.folding, wrong.vectors, ())
    verdict = right.verify(wrong.vectors["images"][:3])
    assert verdict.mismatches == 3 and "image 0" in verdict.first_mismatch
    assert "3 mismatches (DIFFERENT)" in repr(verdict) and verdict.first_mismatch in repr(verdict)


def test_what_prints_as_a_table(graph: n2.Graph, build: n2.Build) -> None:
    for shown, words in ((n2.load(NET), ["quan1", "LTQ", "15,870 parameters"]),
                         (graph, ["conv2", "MatVec", "294,912", "452,864 MACs per image"]),
                         (n2.fold(graph, cycles=2304), ["in all", "cycles per image, 196.6 MACs"]),
                         (build.cycles(), ["bottleneck: ", "starved"]),
                         (build, [str(build.path), "SIMD"])):
        html = shown._repr_html_()
        assert all(word in repr(shown) and word in html for word in words)
        assert html.count("<table>") == html.count("</table>") >= 1
    table = Table("a<b")
    table.add_row("x & y")
    assert "a&lt;b" in table._repr_html_() and "x &amp; y" in table._repr_html_()
    assert str(table) == "a<b\nx & y"


class Front:
    """An IPython with a kernel, whose display keeps what it is shown."""

    kernel = object()


def test_progress_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Handle:
        def update(self, shown: str) -> None:
            seen.append(shown)

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = Front  # type: ignore[attr-defined]
    display = types.ModuleType("IPython.display")
    display.HTML = str  # type: ignore[attr-defined]
    display.display = lambda shown, display_id: Handle()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    with progress.bars() as report:
        for k in range(1001):
            report("a <stage>", k / 1000)
    assert len(seen) == 102 and seen[-1] == ""  # one per percent, and then nothing is left
    assert 'value="1.0"' in seen[-2] and "a &lt;stage&gt;" in seen[-2]


def test_no_progress_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.bars() as report:
        report("stage", 0.5)
    assert capfd.readouterr() == ("", "")


def test_the_face_says_what_it_takes() -> None:
    """Every public name and method of the face has a docstring of its own."""
    def described() -> Iterator[object]:
        for name in n2.__all__:
            item = getattr(n2, name)
            yield item
            if isinstance(item, type) and item.__module__ == "n2uq_hw.api":
                yield from (value for key, value in vars(item).items()
                            if not key.startswith("_") and callable(value))
    assert all((item.__doc__ or "").strip() for item in described())
