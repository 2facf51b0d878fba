# amaranth: UnusedElaboratable=no
"""LQ-Nets' bases and buckets: levels by hand, fits, tables that are loaded, what cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.designs import Basis, Buckets, Decode
from n2uq_hw.hw.designs.basis import fit_basis
from n2uq_hw.hw.designs.codebook import lloyd_max

POINT = {"weight_bits": 2, "act_bits": 2, "lanes": 2}


def test_levels_of_a_basis() -> None:
    design = Basis(**POINT, basis=[3, 10], act_width=4, act_basis=[4, 11])
    assert design.weights.tolist() == [-13, -7, 7, 13]
    assert design.activations.tolist() == [0, 4, 11, 15]
    w, a = np.array([[0, 2], [3, 1]]), np.array([[1, 3], [2, 2]])
    assert design.golden(w, a).tolist() == [-13 * 4 + 7 * 15, 13 * 11 - 7 * 11]


def test_a_basis_ends_where_its_width_does() -> None:
    design = Basis(**POINT, act_width=8)
    assert design.weights.max() == 127 and design.activations.max() == 255


def test_a_basis_of_a_normal_distribution_is_lloyd_maxs_where_two_bits_are_free() -> None:
    """Four symmetric levels ±v0 ±v1 are any: those of Max's table, (1.510 ± 0.4528)/2."""
    values = np.sort(np.random.default_rng(1).normal(size=400_001))
    low, high = lloyd_max(2, zero=False)
    assert fit_basis(values, 2) == pytest.approx([(high - low) / 2, (high + low) / 2], abs=5e-3)


@pytest.mark.parametrize("basis,signed", [
    ([0.3, 0.9], True), ([0.2, 0.5, 1.1], True), ([3, 8], False), ([1.0, 2.2, 4.1], False)])
def test_a_trained_codebook_of_a_basis_is_found_again(basis: list[float], signed: bool) -> None:
    bits = np.arange(2**len(basis))[:, None] >> np.arange(len(basis)) & 1
    levels = (2 * bits - 1 if signed else bits) @ np.array(basis)
    assert fit_basis(levels, len(basis), signed=signed) == pytest.approx(basis)


def test_a_codebook_that_is_no_basis_is_fitted_with_the_least_squares() -> None:
    """Of ±1, ±2, ±4, ±5 no basis is exact: none of a fine grid is nearer than the fit."""
    levels = np.array([-5, -4, -2, -1, 1, 2, 4, 5])
    signs = 2 * (np.arange(8)[:, None] >> np.arange(3) & 1) - 1

    def error(basis: np.ndarray) -> float:
        return float(np.square(levels - np.sort(signs @ basis)).sum())

    steps = np.arange(-5, 6) / 50
    near = fit_basis(levels, 3)
    assert all(error(near) <= error(near + np.array([a, b, c])) + 1e-9
               for a in steps for b in steps for c in steps)


def test_tables_of_a_basis_are_subset_sums() -> None:
    """Both products of H for each bit of an activation, and their sum for its parities."""
    design = Basis(weight_bits=1, act_bits=1, lanes=6, act_width=4, basis=[100], act_basis=[9])
    assert design.tables["sums0"].tolist() == [900 * k for k in range(32)]  # five bits of one sum
    design = Basis(**POINT, basis=[3, 10])
    assert [table.tolist() for table in design.tables.values()] == [
        [c * k for k in range(32)] for c in (3, 10, -13)]


def test_coefficients_of_buckets_are_differences_of_levels() -> None:
    design = Buckets(**POINT, weights=[-9, -2, 3, 50])
    (table,) = design.tables.values()  # one bit of each sum
    assert table[[0, 1, 2, 4, 8]].tolist() == [0, -9, -2 + 9, 3 + 9, 50 - 3 + 2 - 9]
    assert table[0b0111] == -9 + -2 + 9 + 3 + 9


@pytest.mark.parametrize("cls", [Basis, Buckets])
def test_writable_tables_hold_any_levels_of_the_width(cls: type[Basis | Buckets]) -> None:
    """The entries of bases and codebooks at the ends of what the width allows are in the range."""
    rng = np.random.default_rng(1)
    point = {"weight_bits": 3, "act_bits": 3, "lanes": 8}
    choices: list[dict[str, list[int]]] = [
        {"weights": sorted(row)} for row in rng.choice([-128, -127, 0, 127], (40, 8)).tolist()]
    if cls is Basis:
        choices = [{"basis": each} for each in ([1, 1, 125], [42, 42, 43], [1, 1, 1], [1, 63, 63])]
    ranges = cls(**point, writable=True).ranges
    for levels in choices:
        design = cls(**point, **levels)
        for name, table in design.tables.items():
            lo, hi = ranges[name]
            assert lo <= table.min() and table.max() <= hi, (name, levels)


@pytest.mark.parametrize("cls,change,message", [
    (Basis, {"basis": [1, 2, 3]}, r"basis of weights must be 2 integers, not \[1, 2, 3\]"),
    (Basis, {"basis": [0.5, 1]}, r"basis of weights must be 2 integers, not \[0.5, 1.0\]"),
    (Basis, {"basis": [2, 1]},
     r"basis of weights must ascend from 1 and add up to 127 at most, not \[2, 1\]"),
    (Basis, {"basis": [0, 1]},
     r"basis of weights must ascend from 1 and add up to 127 at most, not \[0, 1\]"),
    (Basis, {"basis": [1, 127]},
     r"basis of weights must ascend from 1 and add up to 127 at most, not \[1, 127\]"),
    (Basis, {"act_width": 4, "act_basis": [6, 10]},
     r"basis of activations must ascend from 1 and add up to 15 at most, not \[6, 10\]"),
    (Basis, {"act_basis": [1, 2]}, "a basis of activations needs a width, not 0"),
    (Basis, {"weight_width": 1}, "width of weights must be 2..16, not 1"),
    (Basis, {"act_width": 17}, "width of activations must be 0..16, not 17"),
    (Basis, {"weight_bits": 8, "weight_width": 4},
     r"basis of weights must ascend from 1 and add up to 7 at most, not \[0, .*"),
    (Buckets, {"act_width": 8}, "width of activations must be 0, not 8"),
    (Buckets, {"weights": [1, 0, 2, 3]}, r"weights must ascend within -128..127, not \[1, 0, .*"),
])
def test_what_such_a_design_cannot_be(cls: type[Basis | Buckets], change: dict[str, object],
                                      message: str) -> None:
    with pytest.raises(N2uqError, match=f"^{cls.method}: {message}$"):
        cls(**POINT | change)


def test_what_has_no_basis() -> None:
    with pytest.raises(N2uqError, match=r"^basis: must be above 0, and that of these .*"):
        fit_basis([0, 0, 0], 2)


def test_a_basis_is_a_codebook() -> None:
    """Two bits with a sign: the same levels in both formats give the same products."""
    basis = Basis(**POINT, basis=[30, 80])
    book = Decode(**POINT, weight_width=8, weights=[-110, -50, 50, 110])
    assert (basis.products == book.products).all()
