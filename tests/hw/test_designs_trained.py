# amaranth: UnusedElaboratable=no
"""Designs with the levels that a method trained: which there are, and that gates compute them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from marks import few

from n2uq_hw.compare.subjects import Lane
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.designs import DESIGNS, Basis, Buckets, Decode, Design, ProductTable, Trained
from n2uq_hw.train import study

LSQ = Trained("LSQ", tuple(range(-8, 8)), tuple(range(16)))
LCQ = Trained("LCQ", (-127, 0, 0, 127), (0, 90, 171, 255))
LQ = Trained("LQ-Nets", (-127, -55, 55, 127), (0, 80, 175, 255), (36, 91), (80, 175))
DIGITS = study.STUDIES["digits_cnn"]
SHIPPED = [each["conv2"] for each in DIGITS.levels(study.load_rows(DIGITS.results))]


def designs_of(cls: type[Design], trained: Trained, lanes: int = 2) -> list[Design]:
    w, a = (len(levels).bit_length() - 1 for levels in (trained.weights, trained.activations))
    return list(cls.with_levels(trained, weight_bits=w, act_bits=a, lanes=lanes))


def test_forms_of_trained_levels() -> None:
    assert [(each.name, each.method, each.uniform) for cls in (Decode, ProductTable)
            for each in designs_of(cls, LSQ)] == [
        ("decode w4 of LSQ operator", "LSQ", True), ("decode w4 of LSQ planes", "LSQ", True),
        ("decode w4 of LSQ pairs", "LSQ", True),
        ("product w4 of LSQ", "LSQ", True), ("product w4 of LSQ chained", "LSQ", True),
        ("product w4 of LSQ split2", "LSQ", True)]
    assert [(each.name, each.method, each.uniform) for cls in (Decode, ProductTable)
            for each in designs_of(cls, LCQ)] == [
        ("decode w8 a8 of LCQ operator", "codebook", False),
        ("decode w8 a8 of LCQ planes", "codebook", False),
        ("product w8 a8 of LCQ", "product table", False),
        ("product w8 a8 of LCQ chained", "product table", False),
        ("product w8 a8 of LCQ signed", "product table", False)]
    assert [each.name for each in designs_of(Buckets, LSQ)] == ["buckets w4 of LSQ"]
    assert [each.name for each in designs_of(Basis, LQ)] == ["lq w8 a8 of LQ-Nets"]
    assert not designs_of(Buckets, LCQ) and not designs_of(Basis, LCQ)


def lsq(bits: int) -> Trained:
    return Trained("LSQ", tuple(range(-2**(bits - 1), 2**(bits - 1))), tuple(range(2**bits)))


def test_form_pairs_is_for_its_own_levels() -> None:
    for trained, uniform in ((lsq(2), True), (Trained("LSQ", (-2, -1, 0, 1), (0, 1, 2, 4)), False),
                             (Trained("k-means", (-2, -1, 1, 2), (0, 1, 2, 3)), False)):
        assert any(each.form == "pairs" for each in designs_of(Decode, trained)) is uniform
    with pytest.raises(N2uqError, match=r"^codebook: form pairs must have levels \[-2, -1, 0, 1\] "
                       r"and uniform activations, not \[-8, -2, 2, 7\]$"):
        Decode(form="pairs", weights=[-8, -2, 2, 7], weight_bits=2, act_bits=2, lanes=2,
               weight_width=4)


@pytest.mark.parametrize("cls, trained, lanes", few([
    *product((Decode, ProductTable), (LSQ, LCQ), (2,)), (Basis, LQ, 2),
    *((Decode, lsq(bits), lanes) for bits in (1, 2, 3) for lanes in (1, 3, 4))],
    lambda each: each[1:] == (LQ, 2)))
def test_gates_are_golden(cls: type[Design], trained: Trained, lanes: int, tmp_path: Path) -> None:
    for design in designs_of(cls, trained, lanes):
        files = []
        for name, text in Lane(design).verilog().items():
            files.append(tmp_path / name)
            files[-1].write_text(text)
        assert Lane(design).prove(files, None).dots > 1000


@pytest.mark.parametrize(
    "trained", SHIPPED, ids=lambda trained: f"{trained.method} {len(trained.weights)}")
def test_shipped_levels_are_the_designs(trained: Trained) -> None:
    every = [design for cls in DESIGNS for design in designs_of(cls, trained)]
    assert len({design.name for design in every}) == len(every) > 2
    for design in every:
        assert design.trained == trained.method and not design.writable
        assert sorted(design.weights.tolist()) == list(trained.weights)
        assert sorted(design.activations.tolist()) == list(trained.activations)


def test_every_method_has_designs() -> None:
    bits = {(trained.method, len(trained.weights).bit_length() - 1) for trained in SHIPPED}
    assert bits == {(method, each) for method, each in product(study.LEARNED, DIGITS.bits)
                    if each < 4 or method != "k-means, 4-bit levels"}
    fixed = {each.trained for cls in DESIGNS
             for each in cls.variants(weight_bits=2, act_bits=2, lanes=1)}
    assert fixed >= {"N2UQ", "APoT", "APoT × uniform"}
    least = [trained.weights[0] for trained in SHIPPED if trained.method == "LSQ"]
    assert np.unique(least).tolist() == [
        -8, -4, -2]
