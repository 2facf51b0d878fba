"""Heaps of bits: the optimizer's graph computes the matrix product, at corners and inside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.chains import FALSE, TRUE, HeapGraph, evaluate
from n2uq_hw.hw.compress import LEVEL
from n2uq_hw.hw.heaps import optimize
from n2uq_hw.hw.words import signed_digits
from n2uq_hw.ir.folding import LUTS


def vectors(weights: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Both ends of every output, all low, all high, and random ones, [n, K]."""
    rng = np.random.default_rng(1)
    up = np.where(weights > 0, hi, lo)
    down = np.where(weights > 0, lo, hi)
    return np.concatenate([up, down, [lo, hi], rng.integers(lo, hi + 1, (64, len(lo)))])


def check(graph: HeapGraph, weights: np.ndarray, lo: np.ndarray, hi: np.ndarray,
          wraps: bool) -> None:
    """The graph's outputs, their ranges, and what hardware relies on."""
    x = vectors(weights, lo, hi)
    expected = x @ weights.T
    assert np.array_equal(evaluate(graph, x), expected)
    assert [s.lo for s in graph.sums] == expected.min(axis=0).tolist()
    assert [s.hi for s in graph.sums] == expected.max(axis=0).tolist()
    for s in graph.sums:
        if wraps:
            assert s.offset == 0
        else:  # an unsigned number, no bit wider than its largest value
            assert s.lo >= s.offset and len(s.bits) == (s.hi - s.offset).bit_length()
    bits = 1 + sum(graph.widths)
    for chain in graph.chains:
        assert chain.first == bits
        assert all(literal >> 1 < bits for literal in chain.reads)
        assert chain.level == 1 + max(graph.levels[literal >> 1] for literal in chain.reads)
        assert len(chain.x) == len(chain.y)
        for literals, table in chain.y:
            assert len(literals) < graph.lut and table >> 2**len(literals) == 0
            assert not any(literal & 1 for literal in literals)
        if graph.lut == 6:  # x and carry enter the carry chain by themselves
            assert not any(literal & 1 for literal in (*chain.x, chain.carry) if literal > TRUE)
        bits += chain.width
    assert bits == len(graph.levels)


def odd(bits: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return 2 * rng.integers(0, 2**bits, shape) - (2**bits - 1)


def special() -> dict[str, tuple[np.ndarray, int, int]]:
    """Matrices [N, K] and the range of all inputs."""
    rng = np.random.default_rng(0)
    one = odd(2, (1, 9), rng)
    return {
        "odd2": (odd(2, (7, 19), rng), 0, 3), "odd1": (odd(1, (5, 30), rng), 0, 1),
        "odd4": (odd(4, (3, 11), rng), 0, 15), "odd_signed": (odd(2, (4, 12), rng), -2, 1),
        "ternary": (rng.integers(-1, 2, (6, 24)), 0, 3), "zero": (np.zeros((2, 5), int), 0, 3),
        "zero_row": (np.stack([np.zeros(6, int), odd(2, (1, 6), rng)[0]]), 0, 3),
        "int8": (rng.integers(-128, 128, (3, 10)), -128, 127),
        "far": (rng.integers(10**6, 10**6 + 9, (2, 4)), 5, 9),
        "alike": (np.concatenate([one, one, -one, 2 * one]), 0, 3),
        "one_input": (np.array([[-3], [1], [0], [7]]), -5, 2), "one_output": (one, 0, 3),
        "single": (np.array([[1]]), 0, 1), "minus": (np.array([[-1]]), 0, 1),
        "constant": (odd(2, (3, 4), rng), 2, 2), "negative": (odd(2, (3, 8), rng), -7, -4),
        "complements": (np.array([[-84], [-71], [-94], [-128]]), -8, -1),
        "tall": (odd(2, (2, 150), rng), 0, 3)}


@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("lut", LUTS)
@pytest.mark.parametrize("name", special())
def test_special_matrices(name: str, lut: int, wraps: bool) -> None:
    weights, lo, hi = special()[name]
    ends = np.full(weights.shape[1], lo), np.full(weights.shape[1], hi)
    check(optimize(weights, *ends, lut=lut, wraps=wraps), weights, *ends, wraps)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_random_matrices(data: st.DataObject) -> None:
    outputs, inputs = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 12))
    most = data.draw(st.sampled_from([1, 2, 3, 9, 200]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    weights = rng.integers(-most, most + 1, (outputs, inputs))
    weights = weights | 1 if data.draw(st.booleans()) else weights
    lo = rng.integers(-9, 3, inputs)
    hi = lo + rng.integers(0, 12, inputs)
    wraps, lut = data.draw(st.booleans()), data.draw(st.sampled_from(LUTS))
    check(optimize(weights, lo, hi, lut=lut, wraps=wraps), weights, lo, hi, wraps)


def test_same_seed_same_graph() -> None:
    weights, lo, hi = odd(2, (4, 20), np.random.default_rng(0)), np.zeros(20), np.full(20, 3)
    first, again, other = (optimize(weights, lo, hi, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_effort_and_progress() -> None:
    """The best of more trials is no worse: those of less effort are among them."""
    weights = np.random.default_rng(3).integers(-1, 2, (1, 60))
    lo, hi = np.zeros(60), np.full(60, 3)
    told: list[float] = []
    scores = []
    for effort in (1, 2, 12):
        graph = optimize(weights, lo, hi, progress=told.append, effort=effort)
        scores.append(graph.luts + LEVEL * graph.depth)
    assert scores[0] >= scores[1] >= scores[2] < scores[0]
    optimize(np.concatenate([weights, -weights]), lo, hi, progress=told.append)
    assert told == [1, 1, 1, 0.5, 1]


def test_fewer_luts_than_bits() -> None:
    """Five bits go per three LUTs: a heap costs at most two thirds of its bits."""
    weights = odd(2, (8, 64), np.random.default_rng(5))
    lo, hi = np.zeros(64), np.full(64, 3)
    digits = np.count_nonzero(signed_digits((weights - 1) // 2))
    assert optimize(weights, lo, hi, lut=6).luts < 2 * 2 * digits / 3
    assert optimize(weights, lo, hi, lut=4).luts < 1.5 * 2 * digits


def test_signed_digits() -> None:
    """They sum up to the values, and no two of them are neighbours: there are no fewer."""
    values = np.array([0, 1, -1, 2, 3, -3, 7, 11, 170, -171, 2**40 - 1, *range(-300, 300)])
    digits = signed_digits(values)
    assert np.array_equal(digits @ 2**np.arange(digits.shape[1]), values)
    assert not (digits[:, 1:] & digits[:, :-1] & 1).any() and set(np.unique(digits)) == {-1, 0, 1}


def test_no_bits_of_nothing() -> None:
    graph = optimize(np.zeros((1, 2)), np.zeros(2), np.ones(2))
    assert graph.chains == [] and graph.depth == 0 and set(graph.sums[0].bits) <= {FALSE}


@pytest.mark.parametrize("change,message", [
    ({"weights": np.ones(3)}, r"^weights and ranges must be \[N, K\], \[K\] and \[K\], not \[3\], "
                              r"\[3\] and \[3\]$"),
    ({"hi": np.ones(2)}, r"^weights and ranges must be .*, not \[1, 3\], \[3\] and \[2\]$"),
    ({"weights": np.ones((0, 3))}, r"^weights and ranges must be .*, not \[0, 3\], "),
    ({"lo": np.array([0, 2, 0])}, r"^ranges must not be empty, as that of input 1$"),
    ({"lut": 5}, r"^LUTs must have 4 or 6 inputs and effort be at least 1, not 5 and 1$"),
    ({"effort": 0}, r"^LUTs must have 4 or 6 inputs and effort be at least 1, not 6 and 0$")])
def test_bad_arguments(change: dict, message: str) -> None:
    good = {"weights": np.ones((1, 3)), "lo": np.zeros(3), "hi": np.ones(3)}
    with pytest.raises(N2uqError, match=message):
        optimize(**{**good, **change})
