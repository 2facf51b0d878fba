"""Explored designs: estimates are `fold`'s, cells are `cost`'s, fronts are those of the definition.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import n2uq_hw as n2
from n2uq_hw import model
from n2uq_hw.exploring import search
from n2uq_hw.exploring.points import area, better, estimate, promising, ranks, targets
from n2uq_hw.plan.choice import load_folding

LAYERS = (  # formats of stem and head matter to it
    model.FloatConv("stem", 1, 3, 3, 1, 1), model.BatchNorm("bn1", 3), model.LTQ("quan1", 2),
    model.Flatten("flatten"), model.FloatLinear("head", 27, 3))
IMAGES = np.random.default_rng(2).integers(0, 16, (200, 1, 3, 3))


@pytest.fixture(scope="module")
def float_ends() -> n2.Net:
    rng = np.random.default_rng(0)
    params = {f"{layer.name}.{key}": (np.abs(rng.normal(0, 1, shape)) + 0.2 if key in (
        "running_var", "a", "scale2") else rng.normal(0, 1, shape)).astype(np.float32)
        for layer in LAYERS for key, shape in layer.shapes().items()}
    net = n2.Net("ends", n2.InputSpec((1, 3, 3), 15, 1 / 15), LAYERS, params)
    params["head.bias"] -= net.forward(IMAGES).mean(axis=0).astype(np.float32)  # all classes occur
    return net


def test_fronts_are_those_of_the_definition() -> None:
    """By hand: (2, 2) is worse than (1, 2); (3, 1) and (1, 2) are on the front, (2, 3) is last."""
    goals = [(1.0, 2.0), (2.0, 2.0), (3.0, 1.0), (2.0, 3.0), (1.0, 2.0)]
    assert ranks(goals) == [0, 1, 0, 2, 0]
    assert better((1, 2), (2, 2)) and not better((1, 2), (1, 2)) and not better((3, 1), (1, 2))
    assert promising(goals, 2) == [0, 2] and promising(goals, 3) == [0, 1, 2]
    assert promising(goals, 0) == [] and promising(goals, 99) == [0, 1, 2, 3]
    line = [(float(2**k), -float(k)) for k in range(9)]
    assert promising(line, 3) == [0, 4, 8] and promising(line, 1) == [0]


def test_estimates_are_those_of_fold(float_ends: n2.Net) -> None:
    graph = n2.lower(float_ends, n2.Formats(stem_bits=3))
    points = estimate(graph, "ecp5", "least")["points"]
    assert len(points) > 2
    for cycles in targets(graph)[1:3]:
        plan = n2.fold(graph, cycles=cycles, family="ecp5")
        (point,) = [each for each in points if each["cycles_per_image"] == plan.cycles]
        assert point["estimated"] == plan.estimate._asdict()
        assert plan.luts + 400 * plan.estimate.bram == area(point["estimated"], "ecp5")
    for style in ("pairs", "product"):
        forms = re.findall(r"form: (\w+)", estimate(graph, "xcup", style)["points"][-1]["folding"])
        assert forms and {*forms} == {style}


def check(found: n2.Exploration, key: str) -> None:
    """The front marked is that of the definition."""
    rows = [row for row in found.rows if row[f"area_{key}"] is not None]
    for row in rows:
        beaten = any(
            other["images_per_second"] >= row["images_per_second"]
            and other[f"area_{key}"] <= row[f"area_{key}"]
            and (other["agreement"] or 0) >= (row["agreement"] or 0)
            and (other["images_per_second"], other[f"area_{key}"], other["agreement"])
            != (row["images_per_second"], row[f"area_{key}"], row["agreement"]) for other in rows)
        assert row[f"front_{key}"] is not beaten


def explored(net: n2.Net, images: Path, cache: Path, **options: object) -> n2.Exploration:
    return n2.explore(net, stem_bits=(8, 2), head_bits=(8,), styles=("folded", "pairs"),
                      data_path=images, cache=cache, jobs=2, **options)


@pytest.fixture(scope="module")
def pictures(float_ends: n2.Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, images=IMAGES, labels=float_ends.forward(IMAGES).argmax(axis=1))
    return path


def test_bits_are_told_apart_and_results_are_kept(float_ends: n2.Net, pictures: Path,
                                                  tmp_path: Path) -> None:
    found = explored(float_ends, pictures, tmp_path / "cache", budget=0, out=tmp_path / "out")
    assert {row["stem_bits"] for row in found.rows} == {8, 2} and found.images == 200
    labels = float_ends.forward(IMAGES).argmax(axis=1)
    for bits in (8, 2):
        graph = n2.lower(float_ends, n2.Formats(stem_bits=bits))
        agrees = n2.agreement(float_ends, graph, IMAGES, labels)
        assert {(row["agreement"], row["accuracy"]) for row in found.rows
                if row["stem_bits"] == bits} == {(agrees.top1_agreement, agrees.accuracy)}
    assert len({row["agreement"] for row in found.rows}) == 2
    check(found, "estimated")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    again = explored(float_ends, pictures, tmp_path / "cache", budget=0)
    assert again.as_dict() == found.as_dict()
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    written = (tmp_path / "out" / "explore.json").read_text("utf-8")
    assert json.loads(written) == found.as_dict()
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert not re.search(r'(?:href|src)="(?:https?:|//)|@import|fetch\(', page)
    assert page.count("<circle") == len(found.rows) and "0 of them synthesized" in page
    row = found.rows[0]
    graph = n2.lower(float_ends, n2.Formats(stem_bits=row["stem_bits"]))
    folding = load_folding(tmp_path / "out" / "foldings" / f"{row['name']}.yaml", graph)
    assert n2.fold(graph, folding=folding).cycles == row["cycles_per_image"]


@pytest.mark.slow
def test_cells_are_those_of_cost(float_ends: n2.Net, pictures: Path, tmp_path: Path) -> None:
    found = explored(float_ends, pictures, tmp_path / "cache", budget=3, out=tmp_path / "out")
    measured = [row for row in found.rows if row["measured"]]
    assert len(measured) == 3 and not found.failures
    check(found, "measured")
    assert found.front == [row for row in found.rows if row["front_measured"]]
    for row in measured:
        graph = n2.lower(float_ends, n2.Formats(stem_bits=row["stem_bits"]))
        built = n2.build(graph, n2.fold(graph, folding=tmp_path / "out" / "foldings" /
                                        f"{row['name']}.yaml"), tmp_path / row["name"])
        total = vars(built.cost("xcup", dsp=False).total)
        assert row["measured"] == total
        assert row["area_measured"] == total["lut"] + total["lutram"] + 160 * total["bram"]
        assert built.cycles().cycles_per_image == row["cycles_per_image"]
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count("<circle") == len(found.rows) + 3 and page.count('class="moved"') == 3


@pytest.mark.parametrize("options, message", [
    ({"family": "ice40"}, "family must be of ecp5, xcup, not ice40|xcup, ecp5, not ice40"),
    ({"styles": ("fast",)}, "styles must be of least, .*, not fast"),
    ({"stem_bits": (8, 8)}, "stem-bits must be one or more, each once, not 8, 8"),
    ({"cycles": (9, 3)}, "cycles must be the fewest and the most, 1 or more, not 9, 3"),
    ({"budget": -1}, "budget must be in 0..10,000 designs, not -1")])
def test_what_cannot_be_explored(options: dict, message: str) -> None:
    with pytest.raises(n2.N2uqError, match=message):
        search.Options(**options)


def test_the_command_line(run: object, float_ends: n2.Net, tmp_path: Path) -> None:
    float_ends.save(tmp_path / "ends.safetensors")
    code, shown, fault = run(
        "explore", "ends.safetensors", "--budget", 0, "--stem-bits", 8, "--head-bits", 8,
        "--styles", "folded", "--cycles", "20,100", "--cache", "cache", "--json")
    assert (code, fault) == (0, "")
    rows = json.loads(shown)["rows"]
    assert rows and all(20 <= row["cycles_per_image"] <= 100 for row in rows)
    assert run("explore", "ends.safetensors", "--styles", "x")[2] == (
        "error: styles must be of least, folded, planes, product, direct, pairs, logic, not x\n")
