# amaranth: UnusedElaboratable=no
"""Levels of designs with codebooks, and of APoT, against the papers and hand calculation."""

from __future__ import annotations

import numpy as np
import pytest

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.designs import Apot, Decode, ProductTable
from n2uq_hw.hw.designs.codebook import lloyd_max

POINT = {"weight_bits": 2, "act_bits": 2, "lanes": 2}


@pytest.mark.parametrize("bits,levels", [
    (1, [0.7980]), (2, [0.4528, 1.510]), (3, [0.2451, 0.7560, 1.344, 2.152]),
    (4, [0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733])])
def test_lloyd_max_is_maxs_table(bits: int, levels: list[float]) -> None:
    """Max, Quantizing for minimum distortion, 1960, table I."""
    assert lloyd_max(2**bits // 2, zero=False) == pytest.approx(levels, abs=6e-4)


def test_lloyd_max_beside_zero_is_in_the_middle_of_what_is_nearest() -> None:
    levels = np.array([0, *lloyd_max(7, zero=True)])
    x = np.linspace(0, 9, 2_000_001)
    nearest = np.abs(x[:, None] - levels).argmin(axis=1)
    mass = np.exp(-x**2 / 2)
    means = np.bincount(nearest, mass * x) / np.bincount(nearest, mass)
    assert means[1:] == pytest.approx(levels[1:], abs=1e-5)


def test_codebooks_end_where_their_width_does() -> None:
    design = Decode(**POINT, weight_width=8, act_width=8)
    assert design.weights.tolist() == [-127, -38, 38, 127]       # 127 · 0.4528 / 1.510
    assert design.activations.tolist() == [0, 70, 149, 255]      # 255 · (0.5606, 1.188) / 2.033
    assert ProductTable(**POINT, weight_width=4, signed=True).weights.tolist() == [2, 7, -2, -7]


def test_rounded_products() -> None:
    """Times 127/21: 2 → 12.1, 4 → 24.2, 6 → 36.3, 7 → 42.3, 14 → 84.7, 21 → 127."""
    design = ProductTable(**POINT, weight_width=4, rounded=8)
    assert design.products.tolist() == [[0, -42, -85, -127], [0, -12, -24, -36],
                                        [0, 12, 24, 36], [0, 42, 85, 127]]
    w, a = np.array([[0, 2], [3, 3]]), np.array([[1, 3], [3, 2]])
    assert design.golden(w, a).tolist() == [-42 + 36, 127 + 85]
    off = [2 - 12 * 21 / 127, 4 - 24 * 21 / 127, 6 - 36 * 21 / 127,
           7 - 42 * 21 / 127, 14 - 85 * 21 / 127]
    assert design.rounding == pytest.approx(np.sqrt(2 * np.square(off).sum() / 16) / 21)
    assert ProductTable(**POINT).rounding == 0


@pytest.mark.parametrize("bits,weights,activations", [
    (2, [1], [1, 2, 4]),
    (3, [1, 2, 4], [1, 2, 3, 4, 6, 8, 10]),
    (4, [1, 2, 3, 4, 6, 8, 10], [1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 24, 32, 33, 36, 48])])
def test_apot_levels_are_the_papers(bits: int, weights: list[int], activations: list[int]) -> None:
    """{0, 1, 1/4, 1/16} + {0, 1/2, 1/8, 1/32} for 4 bits, and their like, in units of the least."""
    design = Apot(weight_bits=bits, act_bits=bits, lanes=1, both=True)
    assert sorted(design.weights) == [*(-w for w in weights[::-1]), 0, 0, *weights]
    assert design.activations.tolist() == [0, *activations]


def test_pot_levels() -> None:
    design = Apot(weight_bits=4, act_bits=2, lanes=1, one=True)
    assert design.weights[:8].tolist() == [0, 1, 2, 4, 8, 16, 32, 64]
    assert design.weights[8:].tolist() == [0, -1, -2, -4, -8, -16, -32, -64]


def test_a_code_of_apot_is_a_sign_and_places_of_powers() -> None:
    """Sign, place in {0, 1, 4, 8}, place in {0, 2}."""
    design = Apot(weight_bits=4, act_bits=2, lanes=1)
    assert design.weights[[0b0_10_1, 0b0_11_0, 0b1_01_1, 0b1_00_0]].tolist() == [6, 8, -3, 0]


@pytest.mark.parametrize("cls,change,message", [
    (Decode, {"weights": [1, 2, 3]}, r"weights must be 4 integers, not \[1, 2, 3\]"),
    (Decode, {"weights": [0.5, 1, 2, 3]}, r"weights must be 4 integers, not \[0.5, .*"),
    (Decode, {"weights": [1, 0, 2, 3]}, r"weights must ascend within -128..127, not \[1, 0, .*"),
    (Decode, {"weights": [0, 1, 2, 128]}, r"weights must ascend within -128..127, not \[0, 1.*"),
    (Decode, {"act_width": 4, "activations": [0, 1, 2, 16]},
     r"activations must ascend within 0..15, not \[0, 1, 2, 16\]"),
    (Decode, {"activations": [0, 1, 2, 3]}, "levels of activations need a width, not 0"),
    (Decode, {"weight_width": 1}, "width of weights must be 2..16, not 1"),
    (Decode, {"act_width": 17}, "width of activations must be 0..16, not 17"),
    (Decode, {"form": "case"}, "form must be one of operator, planes, pairs, not case"),
    (ProductTable, {"signed": True, "weights": [-3, -1, 1, 4]},
     r"weights with a sign must be symmetric, not \[-3, -1, 1, 4\]"),
    (ProductTable, {"split": 1, "rounded": 8}, "split must be 0 where a product is no sum, not 1"),
    (ProductTable, {"split": 1, "act_width": 8},
     "split must be 0 where a product is no sum, not 1"),
    (ProductTable, {"rounded": 1}, "bits of an entry must be 2..16, not 1"),
    (Apot, {"weight_bits": 8}, "weight bits must be 2..7, not 8"),
    (Apot, {"weight_bits": 7, "one": True}, "weight bits must be 2..6, not 7"),
    (Apot, {"act_bits": 7, "both": True}, "bits of activations in terms must be 1..6, not 7"),
    (Apot, {"form": "operator"}, "form must be one of case, shift, chained, not operator"),
    (Apot, {"form": "chained", "writable": True},
     "chained tables must be constant, not writable"),
    (ProductTable, {"chained": True, "writable": True},
     "chained tables must be constant, not writable"),
])
def test_what_such_a_design_cannot_be(cls: type[Decode | ProductTable | Apot],
                                      change: dict[str, object], message: str) -> None:
    with pytest.raises(N2uqError, match=f"^{cls.method}: {message}$"):
        cls(**POINT | change)
