"""The levels of the comparison: MVUs, networks and quantizers, proven and costed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comparisons import SMALL

from n2uq_hw.compare import report
from n2uq_hw.compare.measure import measure
from n2uq_hw.compare.subjects import (
    LEVELS,
    VECTORS,
    Level,
    MismatchError,
    Streamed,
    Subject,
    _loaded,
)
from n2uq_hw.compare.wholes import mvus, quantizers
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.designs import DESIGNS, Apot, Decode, Trained, Uniform
from n2uq_hw.hw.designs.mvu import CodedMatVec
from n2uq_hw.train import study

MVU = {"weight_bits": 2, "act_bits": 2, "outputs": 8, "inputs": 24, "pe": 2, "simd": 4}


def wholes(**point: int) -> dict[str, Streamed]:
    return {whole.name: Streamed(whole, 8) for whole in mvus(
        (Uniform, Decode), **(MVU | point))}


def files_of(subject: Subject, folder: Path) -> list[Path]:
    folder.mkdir()
    for name, text in subject.verilog().items():
        (folder / name).write_text(text)
    return sorted(folder.iterdir())


@pytest.mark.slow
def test_mvus_are_proven(tmp_path: Path) -> None:
    """Tables written or not; and what has other weights is found out."""
    ours, other = wholes(), wholes(seed=2)
    for k, name in enumerate(("direct", "decode w4 operator writable")):
        proof = ours[name].prove(files_of(ours[name], tmp_path / f"{k}"), None)
        assert proof.dots == 2 * VECTORS * MVU["outputs"] and proof.gates is None
        assert proof.latency > MVU["inputs"] / MVU["simd"]
        with pytest.raises(MismatchError, match=f"^{name}: beat .* differs between Verilog and "):
            ours[name].prove(files_of(other[name], tmp_path / f"other{k}"), None)


@pytest.mark.slow
def test_an_mvu_with_the_levels_of_lsq_is_proven(tmp_path: Path) -> None:
    trained = Trained("LSQ", (-2, -1, 0, 1), (0, 1, 2, 3))
    for whole in mvus((Decode,), **MVU, trained=trained):
        subject = Streamed(whole, 8)
        assert subject.prove(files_of(subject, tmp_path / whole.name), None).dots > 100
    assert whole.name == "decode w2 of LSQ pairs"


@pytest.mark.slow
def test_tables_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = wholes()["decode w4 operator writable"]
    monkeypatch.setattr(
        "n2uq_hw.compare.subjects._loaded",
        lambda *arguments: _loaded(*arguments).replace("load_en = 1'd1", "load_en = 1'd0"))
    with pytest.raises(MismatchError):
        subject.prove(files_of(subject, tmp_path / "v"), None)


@pytest.mark.slow
def test_a_whole_level(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def small(classes: Any, *, weight_bits: int, act_bits: int, lanes: int) -> Any:
        for whole in mvus(classes, **(MVU | {"weight_bits": weight_bits, "act_bits": act_bits})):
            if whole.name in ("direct", "apot case"):
                yield Streamed(whole, lanes)

    monkeypatch.setitem(LEVELS, "mvu", Level(small, (8,)))
    settings = replace(SMALL, classes=(Uniform, Apot), level="mvu", lanes=(8,), routed="none")
    comparison = measure(settings, tmp_path / "cache")
    assert not comparison.failures
    assert [(row.design, row.level, row.family, row.macs) for row in comparison.rows] == [
        ("direct", "mvu", "ecp5", 8), ("apot case", "mvu", "ecp5", 8)]
    assert all(row.lut > 50 and row.ff > 20 and row.latency > 6 for row in comparison.rows)
    summary = report.write(comparison, settings, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "its Verilog is simulated" in text and "a layer of it" in text
    assert {point["method"] for point in summary["imagenet"]} >= {"N2UQ", "APoT"}
    assert not summary["reference_points"]


@pytest.mark.parametrize("level,lanes,net", [
    ("lane", 4, "digits_cnn"), ("mvu", 4, "digits_cnn"), ("network", 0, "digits_cnn"),
    ("network", 0, "mnist_mlp")])
def test_trained_levels_are_in_the_hardware(level: str, lanes: int, net: str) -> None:
    asked = study.STUDIES[net]
    first = next(iter(asked.layers))
    (trained,) = (each for each in asked.levels(study.load_rows(asked.results))
                  if (each[first].method, len(each[first].weights)) == ("k-means", 4))
    subjects = list(LEVELS[level].subjects(
        DESIGNS, trained=trained, weight_bits=2, act_bits=2, lanes=lanes))
    assert len({each.name for each in subjects}) == len(subjects) > 3
    for each in subjects:
        assert each.trained == "k-means" and (level != "network" or each.case == f"{net}_w2a2")
        held = {first: each.design} if level == "lane" else {
            first if node.name == "mvu" else node.name: node.design
            for node in each.whole.graph.nodes if isinstance(node, CodedMatVec)}
        assert held.keys() == (trained.keys() if level == "network" else {first})
        for layer, design in held.items():
            assert sorted(design.weights.tolist()) == list(trained[layer].weights)


def test_networks_keep_their_folding() -> None:
    subjects = list(LEVELS["network"].subjects(
        (Uniform, Decode), weight_bits=2, act_bits=2, lanes=0))
    assert {subject.case for subject in subjects} == {"digits_cnn_w2a2", "mnist_mlp_w2a2"}
    by_net: dict[str, list[Streamed]] = {}
    for subject in subjects:
        by_net.setdefault(subject.case, []).append(subject)
    for group in by_net.values():
        lanes = [{name: (fold.pe, fold.simd) for name, fold in each.whole.folding.items()}
                 for each in group]
        assert all(each == lanes[0] for each in lanes)
        assert len({each.whole.graph.name for each in group}) == len(group)
        assert len({repr(each.identity) for each in group}) == len(group)
        assert all(each.lanes == group[0].lanes > 1 for each in group)


@pytest.mark.slow
def test_quantizers_have_cases(tmp_path: Path) -> None:
    level = LEVELS["quantizer"]
    subjects = list(level.subjects((Uniform, Decode), weight_bits=2, act_bits=2, lanes=8))
    assert {each.method for each in level.subjects(
        (Uniform, Apot), weight_bits=2, act_bits=2, lanes=8)} == {"N2UQ"}
    assert {(each.case, each.uniform, each.writable) for each in subjects} == {
        (case, *of) for case in ("monotone", "general")
        for of in ((True, False), (False, False), (False, True))}
    written = next(each for each in subjects if each.writable)
    proof = written.prove(files_of(written, tmp_path / "v"), None)
    assert proof.dots == 2 * VECTORS * 64


@pytest.mark.slow
def test_quantizers_of_several_bits_stand_side_by_side(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def small(classes: Any, *, weight_bits: int, act_bits: int, lanes: int) -> Any:
        for whole in quantizers(bits=act_bits, channels=4, pe=lanes, sum_bits=6):
            if whole.name in ("monotone parallel", "monotone parallel codebook 4 bits"):
                yield Streamed(whole, lanes)

    monkeypatch.setitem(LEVELS, "quantizer", Level(small, (2,)))
    settings = replace(SMALL, classes=(Uniform, Decode), level="quantizer", bits=(1, 2),
                       families=("ecp5",), routed="none")
    comparison = measure(settings, tmp_path / "cache")
    assert [(row.act_bits, row.weight_bits, row.uniform, row.error) for row in comparison.rows] == [
        (bits, 0, uniform, "") for bits in (1, 2) for uniform in (True, False)]
    report.write(comparison, settings, tmp_path / "out")
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    ours = [row.luts for row in comparison.rows if row.uniform]
    assert f"| monotone parallel | {ours[0]} | {ours[1]} |" in lines
    for bits, luts in enumerate(ours, 1):
        assert any(line.startswith(f"| {bits} | monotone, 2 | ecp5 | monotone parallel | {luts} |")
                   for line in lines)


@pytest.mark.slow
def test_a_network_is_proven(tmp_path: Path) -> None:
    subjects = LEVELS["network"].subjects((Apot,), weight_bits=3, act_bits=3, lanes=0)
    subject = next(iter(subjects))
    assert subject.prove(files_of(subject, tmp_path / "v"), None).dots > 100


@pytest.mark.parametrize("changed,message", [
    ({"level": "network"}, "lanes cannot be chosen at level network, whose folding has them"),
    ({"lanes": (0,)}, "lanes must be given at level lane")])
def test_lanes_of_levels(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(N2uqError, match=f"^{message}$"):
        replace(SMALL, **changed)


@pytest.mark.parametrize("changed", [
    {"level": "network", "bits": (7,), "lanes": (0,)},
    {"level": "mvu", "families": ("cmos",), "lanes": (8,), "classes": (Uniform,)}])
def test_nothing_to_compare(changed: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(N2uqError, match=f"^level {changed['level']}: must have a design at these"):
        measure(replace(SMALL, **changed), tmp_path)


def test_lanes_of_an_mvu() -> None:
    with pytest.raises(N2uqError, match="lanes of an MVU must be a power of two, not 24"):
        list(LEVELS["mvu"].subjects((Uniform,), weight_bits=2, act_bits=2, lanes=24))
