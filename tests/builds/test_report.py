"""The HTML page of a build: what it says, that it is whole, and how Chromium takes it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_net

from n2uq_hw import charts, model
from n2uq_hw.builds import pictures
from n2uq_hw.builds.accuracy import Agreement
from n2uq_hw.builds.diagram import WIDTH, Box, Line, columns, diagram, layers
from n2uq_hw.builds.emit import Build, emit, load_build
from n2uq_hw.builds.measured import (
    FILE,
    keep_agreement,
    keep_costs,
    keep_verdict,
    load_measured,
    verilog_hash,
)
from n2uq_hw.builds.report import PAGE, write_report
from n2uq_hw.builds.synth import Resources, Synthesis
from n2uq_hw.builds.verify import Verdict
from n2uq_hw.data import channels_last
from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import Edge, Graph, Input, MatVec, Scale, Threshold, golden
from n2uq_hw.lowering.lower import lower
from n2uq_hw.plan.choice import choose, unrolled
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.sim.timing.forecast import forecast, stalled

CHROMIUM = shutil.which("chromium")
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page, which must be closed as they were opened; text by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str, **attrs: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag
                and all(attributes.get(key) == value for key, value in attrs.items())]


@pytest.fixture
def small(built: Path, tmp_path: Path) -> Build:
    """A build of one's own."""
    shutil.copytree(built, tmp_path / "small", ignore=shutil.ignore_patterns(
        "simulation*", "synthesis", FILE, PAGE))
    return load_build(tmp_path / "small")


def page(build: Build, *images: Any) -> Page:
    return Page(write_report(build, *images).read_text(encoding="utf-8"))


def verdict(build: Build, **changed: Any) -> Verdict:
    """What a simulation without stalls would show: the timing model's cycles."""
    images = changed.get("images", 8)
    timing = forecast(build.graph, build.folding, images=images)
    return replace(Verdict(
        images=images, mismatches=0, cycles_first_output=timing.cycles_first_output,
        cycles_per_image=timing.cycles_per_image, mac_utilization=0.5, accuracy=0.625,
        cycles_per_second=1e5, stalls=0.0, seed=0, simulator="icarus"), **changed)


def costs(build: Build, family: str = "xcup") -> Synthesis:
    units = {name: Resources(lut=k + 1, ff=10 * k, lutram=k % 2) for k, name in enumerate(
        ("conv1", "conv1_fifo", "quan1", "fc"))}
    return Synthesis("small_accelerator", family, Resources(lut=1234, ff=77, bram=3, lutram=6),
                     units, {}, 9, "0.70", "")


def test_a_page_of_a_build_that_was_only_built(small: Build) -> None:
    html = page(small)
    assert "Not simulated yet." in html.text and "Not costed yet" in html.text
    assert html.all("html", lang="en") and html.all("meta", charset="utf-8")
    assert html.all("meta", name="viewport")
    # Nothing comes from elsewhere, nothing runs.
    assert not html.all("script") and not html.all("img")
    text = (small.path / PAGE).read_text(encoding="utf-8")
    assert not re.search(r'(?:href|src)="(?:https?:|//)', text) and "@import" not in text
    body = text.partition("</style>")[2]  # its colors are those of the style sheet
    assert "var(--first)" in body and not any(
        color in body for pair in charts.THEME.values() for color in pair)
    for link in html.all("a"):
        target, _, fragment = (link["href"] or "").partition("#")
        assert (small.path / target).exists() if target else html.all(
            "section", id=fragment), link
    # Every picture has text: its numbers, or a caption.
    for svg in html.all("svg"):
        assert svg["aria-label"] and svg["role"] in ("img", "group")
    assert len(html.all("figure")) == len(html.all("figcaption"))
    ids = Counter(attrs["id"] for _, attrs in html.elements if "id" in attrs)
    assert set(ids.values()) == {1}
    assert all(name in ids for attrs in html.all("figure") if (name := attrs.get(
        "aria-labelledby")))
    headings = [int(tag[1]) for tag, _ in html.elements if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1 and headings.count(1) == 1 and set(headings[1:]) == {2}


def test_the_numbers_are_those_of_the_model(small: Build) -> None:
    html, model_says = page(small), forecast(small.graph, small.folding)
    rows = {row[0]: row for row in html.rows}
    verilog = (small.path / "rtl" / "small.v").read_text().splitlines()
    for row in model_says.layers:
        cells = rows[row["name"]]
        assert cells[1] == row["kind"] and f"{100 * row['utilization']:.1f} %" in cells
        assert cells[9:12] == [f"{100 * row[mode] / model_says.cycles:.1f} %" for mode in
                               ("busy", "starved", "blocked")]
        if row["kind"] != "Input":
            assert verilog[int(cells[-1]) - 1].startswith(f"module small_{row['name']}(")
    assert f"{model_says.cycles_per_image:,.2f}" in html.text
    label = html.all("svg", **{"class": "chart"})[0]["aria-label"] or ""
    fc = next(row for row in model_says.layers if row["name"] == "fc")
    assert f"fc busy {100 * fc['busy'] / model_says.cycles:.1f} %" in label
    expected = small.vectors["expected"].reshape(8, -1).argmax(axis=1)
    share = float((expected == small.vectors["labels"]).mean())
    assert ["golden (integers)", f"{100 * share:.2f} %", "8"] in html.rows


@pytest.mark.slow
def test_the_same_build_gives_the_same_page(small: Build) -> None:
    keep_verdict(small, verdict(small), verilog_hash(small))
    first = write_report(small).read_bytes()
    assert write_report(load_build(small.path)).read_bytes() == first
    code = ("import sys; from pathlib import Path; from n2uq_hw.builds.emit import load_build; "
            "from n2uq_hw.builds.report import write_report; "
            "write_report(load_build(Path(sys.argv[1])))")
    subprocess.run([sys.executable, "-c", code, small.path], check=True)
    assert (small.path / PAGE).read_bytes() == first
    assert not list(small.path.glob(".*"))


def test_what_was_measured_is_shown(small: Build) -> None:
    of = verilog_hash(small)
    keep_verdict(small, verdict(small, accuracy=0.75), of)
    with_stalls = stalled(small.graph, small.folding, 6, 0.3, 7)
    keep_verdict(small, verdict(
        small, images=6, stalls=0.3, seed=7, cycles_per_image=with_stalls.cycles_per_image,
        cycles_first_output=with_stalls.cycles_first_output, saturated=12345), of)
    keep_costs(small, costs(small), True, None, of)
    keep_agreement(small, Agreement(40, 1.0, 0.01, 0.5, 0.525, None, None, "images", 40, "",
                                      0, 2**-8), 0.512)
    html = page(small)
    assert "✔ Bit-exact on 8 images." in html.text
    assert "Cycles measured are the cycles predicted." in html.text
    assert "In 6 images 12,345 elements of the residual stream were saturated" in html.text
    rows = {tuple(row[:4]): row for row in html.rows}
    assert rows["8", "0", "0.0", "0"][8] == rows["6", "0", "0.3", "7"][8] == "✔ yes"
    assert ["xcup", "1,234", "6", "0", "77", "3", "0", "0.70"] in html.rows
    assert ["float model, as trained", "51.20 %", "test split"] in html.rows
    assert ["float model", "52.50 %", "40"] in html.rows
    assert ["golden (integers)", "50.00 %", "40"] in html.rows
    assert ["Verilog in simulation", "75.00 %", "8"] in html.rows
    # conv1: 1 LUT, and 2 + 1 that are memory in the FIFO before it; quan1: 3.
    rows_of = {row[0]: row for row in html.rows}
    assert rows_of["conv1"][-4] == "1 + 3" and rows_of["quan1"][-4] == "3"
    assert "conv1 4 LUT, 10 FF" in next(
        label for svg in html.all("svg", role="img")
        if (label := svg["aria-label"] or "").startswith("Cells on xcup"))


@pytest.mark.parametrize("wrong", ["mismatches", "cycles"])
def test_what_is_wrong_is_said(small: Build, wrong: str) -> None:
    good = verdict(small)
    bad = (replace(good, mismatches=3, seed=1, first_mismatch="image 5: layer <fc> differs & so on")
           if wrong == "mismatches" else replace(good, cycles_first_output=1))
    keep_verdict(small, good, verilog_hash(small))
    keep_verdict(small, bad, verilog_hash(small))
    html = page(small)
    if wrong == "mismatches":
        assert "✘ Not bit-exact." in html.text and "Bit-exact on" not in html.text
        assert "3 of 8 images differ from golden: image 5: layer <fc> differs & so on" in html.text
    else:
        assert "Its cycles were not as predicted." in html.text
        assert [row[8] for row in html.rows if row[0] == "8"] == ["✘ no"]


def test_results_of_another_build_are_not_shown(small: Build) -> None:
    of = verilog_hash(small)
    keep_verdict(small, verdict(small), of)
    verilog = small.path / "rtl" / "small.v"
    verilog.write_text(verilog.read_text() + "// other\n")
    other = load_build(small.path)
    assert load_measured(other) == {} and "Not simulated yet" in page(other).text
    assert "rtl/small.v is not as it was built" in page(other).text
    keep_costs(other, costs(other), True, None, verilog_hash(other))
    assert set(load_measured(other)) == {"costs"}
    # A simulation that began before the Verilog changed is of the Verilog before.
    keep_verdict(other, verdict(other), of)
    assert set(load_measured(other)) == {"costs"}


def test_a_result_takes_the_place_of_the_same_measured_before(small: Build) -> None:
    of = verilog_hash(small)
    for accuracy in (0.1, 0.2):
        for images in (4, 8):
            keep_verdict(small, verdict(small, images=images, accuracy=accuracy), of)
    held = load_measured(small)["verdicts"]
    assert [(row["images"], row["accuracy"]) for row in held] == [(8, 0.2), (4, 0.2)]
    keep_costs(small, costs(small, "ecp5"), False, None, of)
    keep_costs(small, costs(small, "xcup"), True, None, of)
    assert list(load_measured(small)["costs"]) == ["ecp5, no DSP blocks", "xcup"]
    assert "cells on xcup" in page(small).text


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"verilog": 1, "results": {}}', "edited",
                                  "\ud800".encode("utf-8", "surrogatepass")])
def test_results_that_were_edited_are_refused(small: Build, text: str | bytes) -> None:
    of = verilog_hash(small)
    keep_verdict(small, verdict(small, mismatches=1), of)
    file = small.path / FILE
    if text == "edited":
        text = file.read_text().replace('"mismatches": 1', '"mismatches": 0')
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(N2uqError, match=r"measured\.json: must be as n2uq-hw wrote it"):
        write_report(small)
    keep_verdict(small, verdict(small), of)  # what is measured anew is kept
    assert [row["mismatches"] for row in load_measured(small)["verdicts"]] == [0]


def test_histograms_are_of_goldens_sums(small: Build, images: np.ndarray,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, np.ndarray] = {}
    edges = {id(small.graph.edges[node.inputs[0]]): node for node in small.graph.nodes
             if isinstance(node, Threshold)}

    def spy(channels: Sequence, sums: np.ndarray, edge: Edge) -> Any:
        seen[edges[id(edge)].name] = sums
        return charts.figure(10, 10)
    monkeypatch.setattr(pictures, "thresholds", spy)
    monkeypatch.setattr(pictures, "SHOWN", 3)
    monkeypatch.setattr("n2uq_hw.builds.report.PORTION", 1)
    write_report(small, images, None)
    values = golden.run_all(small.graph, channels_last(images, (5, 5, 2), "small"))
    for node in edges.values():
        x = values[node.inputs[0]]
        x = x.reshape(-1, x.shape[-1])[:, :pictures.SHOWN]
        np.testing.assert_array_equal(seen[node.name], x if len(node.signs) > 1 else
                                      values[node.inputs[0]].reshape(-1, 1))


def test_equidistant_thresholds_by_hand() -> None:
    node = Threshold("t", ("x",), thresholds=np.array([[0, 7, 90, 30], [5, 5, 5, 5], [9, 0, 4, 1]]),
                     signs=np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, -1, 1, -1]], np.int8),
                     base=np.zeros(3, np.int64))
    edge = Edge((1, 1, 3), np.zeros(3, np.int64), np.full(3, 99))
    rising, none, both = pictures.steps_of(node, edge)
    assert rising.learned.tolist() == [0, 7, 30] and rising.equidistant.tolist() == [0, 15, 30]
    assert rising.departure == 8 / 15
    assert none.learned.tolist() == [] and none.departure == 0
    # Two that fall, then two that rise: each run by itself is equidistant.
    assert both.learned.tolist() == [0, 1, 4, 9] and both.signs.tolist() == [-1, -1, 1, 1]
    assert both.equidistant.tolist() == [0, 1, 4, 9] and both.departure == 0
    with charts.style("t"):
        pictures.thresholds([none], None, edge)  # nothing to draw is no fault


def boxes(*names: str) -> list[Box]:
    return [Box(name, "", 0.5, f"#{name}", name) for name in names]


def test_the_picture_of_a_block_by_hand() -> None:
    nodes = boxes("a", "b", "c", "d", "e", "add", "end")
    lines = [Line("a", "b", ""), Line("b", "c", ""), Line("c", "d", ""), Line("a", "e", ""),
             Line("d", "add", ""), Line("e", "add", ""), Line("add", "end", "")]
    rows = layers(nodes, lines)
    assert rows == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 1, "add": 4, "end": 5}
    at, passing = columns(nodes, lines, rows)
    assert at == dict.fromkeys("abcd", 0) | {"add": 0, "end": 0, "e": 1}
    assert passing == {lines[5]: 1}  # from e down its own column


@pytest.mark.parametrize("seed", range(20))
def test_boxes_and_lines_never_share_a_place(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 14
    nodes = boxes(*(f"n{k}" for k in range(count)))
    pairs = {(int(rng.integers(0, k)), k) for k in range(1, count) for _ in range(2)}
    lines = [Line(f"n{a}", f"n{b}", "") for a, b in sorted(pairs)]
    rows = layers(nodes, lines)
    at, passing = columns(nodes, lines, rows)
    taken = [(rows[name], column) for name, column in at.items()]
    taken += {(row, column) for line, column in passing.items()
              for row in range(rows[line.source] + 1, rows[line.target])
              if column not in (at[line.source], at[line.target])}
    assert len(taken) == len(set(taken))
    assert all(rows[line.source] < rows[line.target] for line in lines)


def test_the_picture_is_cut_into_parts() -> None:
    nodes = boxes(*(f"n{k}" for k in range(30)))
    html = Page(diagram(nodes, [Line(a.name, b.name, "2 bit × 4") for a, b in
                                pairwise(nodes)]))
    parts = html.all("svg")
    views = [[float(v) for v in (part["viewbox"] or "").split()] for part in parts]
    assert len(parts) == 4 and all(top + height == below for (_, top, _, height), (_, below, _, _)
                                   in pairwise(views))
    assert len(html.all("rect", width=str(WIDTH))) == 30


def test_names_are_escaped(tmp_path: Path) -> None:
    html = Page(diagram([Box("<b>&", "a < b", 0, 'x"y', "<i>")], []))
    assert "<b>&" in html.text and not html.all("b") and html.all("a", href='x"y')
    with charts.style("x"):
        drawn = charts.figure(50, 50)
        drawn.subplots().set(title="<b> $x_1$ & y")
        html = Page(charts.inline(drawn, "x", '<b> & "quoted"'))
    assert "<b> $x_1$ & y" in html.text
    assert html.all("svg", **{"aria-label": '<b> & "quoted"'})


LONG = "conv_with_a_name_that_is_much_too_long_for_a_box"


@pytest.mark.parametrize("kind", ["unrolled", "top1", "one unit", "no images"])
def test_builds_of_other_kinds(kind: str, tmp_path: Path) -> None:
    layers = (model.Linear("fc1", 12, 4, bits=2), model.BatchNorm("bn", 4), model.LTQ(LONG, 2),
              model.Linear("fc2", 4, 3, bits=2))
    images = np.random.default_rng(0).integers(0, 16, (3, 3, 2, 2))
    graph = lower(random_net("tiny", (model.Flatten("flat"), *layers), (3, 2, 2)),
                  top1=kind == "top1")
    if kind == "one unit":
        graph = Graph("tiny", (Input("input", shape=(2, 2, 3), hi=15), Scale("scale", ("input",))))
    folding = unrolled(graph) if kind == "unrolled" else choose(graph)
    emit(graph, size_fifos(graph, folding), tmp_path / "b", images, None)
    build = load_build(tmp_path / "b")
    html = page(build, images[:0], np.zeros(0, np.int64)) if kind == "no images" else page(build)
    assert ("No images are at hand" in html.text) == (kind == "no images")
    assert bool(html.all("section", id="thresholds")) == (kind != "one unit")
    names = {row[0] for row in html.rows}
    assert names >= {row["name"] for row in forecast(graph, folding).layers}
    assert any(isinstance(node, MatVec) for node in graph.nodes) != (kind == "one unit")


@pytest.mark.slow
def test_the_command_line(small: Build, tmp_path: Path) -> None:
    def command(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "n2uq_hw", "report", *options],
                              capture_output=True, text=True, cwd=tmp_path)
    done = command("small", "--clock", "123")
    assert (done.returncode, done.stdout, done.stderr) == (0, "small/report.html\n", "")
    assert "images/s at 123 MHz" in (small.path / PAGE).read_text(encoding="utf-8")
    (tmp_path / "none").mkdir()
    for options, fault in (
            (["none"], "none: must be a build directory, but has no manifest.json"),
            (["small", "--clock", "0"], "--clock must be in 0.001..100,000 MHz, not 0"),
            (["small", "--clock", "nan"], "--clock must be in 0.001..100,000 MHz, not nan"),
            (["small", "--images", "9"], "images must be 1 to the 8 at hand, not 9")):
        failed = command(*options)
        assert (failed.returncode, failed.stdout) == (2, "") and fault in failed.stderr
    before = (small.path / PAGE).read_bytes()
    (small.path / FILE).write_text("{}")
    assert command("small").returncode == 2 and (small.path / PAGE).read_bytes() == before


def chromium(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Debian's headless Chromium, with a profile of its own."""
    assert CHROMIUM is not None
    return subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", *options],
        capture_output=True, text=True, timeout=120, cwd=folder)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: chromium)")
def test_chromium_shows_it(small: Build, tmp_path: Path) -> None:
    """No message on the console; the elements are there; nothing is wider than a telephone."""
    of = verilog_hash(small)
    keep_verdict(small, verdict(small), of)
    keep_costs(small, costs(small), True, None, of)
    path = write_report(small)
    probe = tmp_path / "probe.html"  # a frame as wide as a telephone, and what is in it
    measure = (
        "const d = f.contentDocument, r = {}; r.scroll = d.documentElement.scrollWidth;"
        "for (const s of ['table', 'figure', 'svg', 'h2']) r[s] = d.querySelectorAll(s).length;"
        "r.empty = [...d.querySelectorAll('svg')].filter("
        "s => !s.getBoundingClientRect().height).length;"
        "r.ink = f.contentWindow.getComputedStyle(d.body).color;"
        "r.fills = [...new Set([...d.querySelectorAll('svg.chart path')].map("
        "s => f.contentWindow.getComputedStyle(s).fill))];"
        "document.body.dataset.found = JSON.stringify(r);")
    probe.write_text(f"<!DOCTYPE html><meta charset=utf-8><body><iframe id=f width=390 height=800 "
                     f"src='{path.as_uri()}'></iframe><script>f.onload = () => {{{measure}}}"
                     "</script>")
    done = chromium(tmp_path, "--allow-file-access-from-files", "--dump-dom",
                    "--virtual-time-budget=5000", probe.as_uri())
    assert done.returncode == 0 and "CONSOLE" not in done.stderr, done.stderr
    seen = json.loads(Page(done.stdout).all("body")[0]["data-found"] or "null")
    own = Page(path.read_text(encoding="utf-8"))
    assert seen["scroll"] == 390, seen
    for tag in ("table", "figure", "svg", "h2"):
        assert seen[tag] == len(own.all(tag)) > 3, tag
    assert seen["empty"] == 0
    def rgb(name: str) -> str:
        light = charts.color(name)
        return f"rgb({', '.join(str(int(light[k:k + 2], 16)) for k in (1, 3, 5))})"
    assert seen["ink"] == rgb("ink") and {rgb("first"), rgb("second")} <= set(seen["fills"])
    for name, options in (("light", []), ("dark", ["--force-dark-mode"])):
        shot = tmp_path / f"{name}.png"
        done = chromium(tmp_path, "--window-size=1280,2000", f"--screenshot={shot}", *options,
                        path.as_uri())
        assert done.returncode == 0 and "CONSOLE" not in done.stderr, done.stderr
        assert len(shot.read_bytes()) > 50_000
    from matplotlib.image import imread
    light, dark = (imread(tmp_path / f"{name}.png")[..., :3].mean() for name in ("light", "dark"))
    assert light > 0.85 and dark < 0.25  # the paper's brightness, mostly
