"""Quantizers of other papers against their formulas, and networks of them against plain NumPy."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

from n2uq_hw import data
from n2uq_hw.hw.designs import Apot
from n2uq_hw.model.coded import Activations, Coded, Weights
from n2uq_hw.nn import Network
from n2uq_hw.train import fit
from n2uq_hw.train.quantizers import (
    APOT,
    METHODS,
    Basis,
    Codebook,
    Companded,
    Quantizer,
    Steps,
    coded,
    use,
)

BITS = (2, 3, 4)


def fitted(quantizer: Quantizer, x: torch.Tensor) -> Quantizer:
    """In double precision, started from `x`."""
    quantizer.double()(x)
    return quantizer.eval()


def values(size: int, seed: int = 0, channels: int = 1) -> torch.Tensor:
    """Normal values, some of them far out, in double precision."""
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 0.7, (channels, size)))


def gradients(quantizer: Quantizer, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Of ``(quantized x · weight).sum()``: returned for `x`, left in the parameters."""
    x = x.clone().requires_grad_()
    (quantizer(x) * weight).sum().backward()
    assert x.grad is not None
    return x.grad


def test_lsq_is_the_formula_of_its_paper() -> None:
    # Equations 1 and 2, and the gradients of equation 3, of values inside and outside.
    x, weight = values(400), values(400, 1)
    for low, high in ((-4, 3), (0, 7)):
        quantizer = fitted(Steps(range(low, high + 1), high), x)
        start = 2 * x.abs().mean() / high**0.5
        with torch.no_grad():
            quantizer.factor.fill_(0.8)
        step = 0.8 * start
        torch.testing.assert_close(
            quantizer(x), torch.round(torch.clamp(x / step, low, high)) * step)
        to_x = gradients(quantizer, x, weight)
        v = x / step
        inside = (v > low) & (v < high)
        assert 0 < inside.sum() < x.numel()
        torch.testing.assert_close(to_x, torch.where(inside, weight, 0.0))
        to_step = torch.where(inside, torch.round(v) - v, torch.clamp(v, low, high))
        torch.testing.assert_close(quantizer.factor.grad, (to_step * weight).sum()[None] * start)


def test_apot_levels_are_those_of_paper_and_design() -> None:
    # Section 2.2 with k = 2: n terms, the i-th 0 or one of 2^-i, 2^-(i + n), 2^-(i + 2n).
    for bits, terms in ((2, 1), (4, 2)):
        exponents = [[0.0, *(2.0**-(i + j * terms) for j in range(3))] for i in range(terms)]
        sums = np.array(sorted(map(sum, product(*exponents))))
        np.testing.assert_allclose(np.array(APOT[bits]) / APOT[bits][-1], sums / sums[-1])
    for bits in BITS:
        design = Apot(weight_bits=bits, act_bits=bits, lanes=8, both=True)
        weights = METHODS["APoT"].weights(bits, 1).tables()[1]
        acts = METHODS["APoT"].activations(bits).tables()[1]
        assert sorted(weights.tolist()) == sorted(design.weights.tolist())
        assert acts.tolist() == design.activations.tolist()


def test_apot_projects_what_is_standardized_and_learns_its_clipping_value() -> None:
    # The reparameterized clipping function of section 2.3 on weights normalized as in 2.4.
    w, weight = values(300, channels=4), values(300, 1, 4)
    quantizer = fitted(METHODS["APoT"].weights(3, 4), w)
    x = (w - w.mean()) / w.std()
    clip = 2 * float(x.abs().mean()) * 3**0.5
    levels = np.array([-4, -2, -1, 0, 1, 2, 4]) / 4
    v = np.clip(x.numpy() / clip, -1, 1)
    nearest = levels[np.abs(v[..., None] - levels).argmin(-1)]
    np.testing.assert_allclose(quantizer(w).detach(), clip * nearest)
    assert 0 < (np.abs(v) == 1).sum() < v.size
    gradients(quantizer, w, weight)
    to_clip = np.where(np.abs(v) == 1, np.sign(v), nearest - v)
    expected = (to_clip * weight.numpy()).sum() * clip
    np.testing.assert_allclose(quantizer.factor.grad.item(), expected)


def test_a_codebook_starts_at_k_means_and_sums_the_gradients_of_its_weights() -> None:
    w, weight = values(500, channels=3), values(500, 1, 3)
    quantizer = fitted(Codebook(3), w)
    magnitude = w.abs().mean(1, keepdim=True)
    x = (w / magnitude).numpy()
    exact = np.sort(quantizer.values.detach().numpy())
    codes = np.abs(x[..., None] - exact).argmin(-1)
    # Each level is the mean of the values nearest to it.
    np.testing.assert_allclose([x[codes == k].mean() for k in range(8)], exact, atol=1e-3)
    levels = np.rint(exact * 127 / np.abs(exact).max())
    scale = np.abs(exact).max() / 127
    nearest = np.abs(x[..., None] - levels * scale).argmin(-1)
    np.testing.assert_allclose(quantizer(w).detach(), scale * levels[nearest])
    to_w = gradients(quantizer, w, weight)
    torch.testing.assert_close(to_w, weight / magnitude)
    sums = [weight.numpy()[nearest == k].sum() for k in range(8)]
    np.testing.assert_allclose(np.sort(quantizer.values.grad.numpy()), np.sort(sums))


@pytest.mark.parametrize("signed", [False, True])
def test_companding_is_the_formula_and_has_its_gradients(signed: bool) -> None:
    x, weight = values(400), values(400, 1)
    quantizer = fitted(Companded(3, signed=signed), x)
    with torch.no_grad():
        quantizer.heights.copy_(torch.linspace(-1, 2, 16))
        quantizer.factor.fill_(0.7)
    steps, most = (3, 127) if signed else (7, 255)
    standard = ((x - x.mean()) / x.std() if signed else x).numpy()
    heights = np.exp(quantizer.heights.detach().numpy())
    points = np.linspace(0, 1, 17)
    rises = np.concatenate([[0], np.cumsum(heights / heights.sum())])
    clip = float(quantizer.clip.detach())
    v = np.clip(np.abs(standard) / clip, 0, 1) if signed else np.clip(standard / clip, 0, 1)
    q = np.rint(np.interp(v, points, rises) * steps) / steps
    level = np.rint(np.interp(q, rises, points) * most) / most
    np.testing.assert_allclose(quantizer(x).detach(), np.sign(standard) * clip * level, atol=1e-12)
    assert len(quantizer.tables()[1]) == 8
    if signed:
        return  # the gradients of what is standardized are tested with APoT

    # Central differences of the formula with the rounding's error held fixed, as by its STE.
    wrong = q - np.interp(v, points, rises)

    def line(x: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
        k = np.searchsorted(xs[1:-1], x)  # beyond the ends the first and the last piece go on
        return ys[k] + (np.diff(ys) / np.diff(xs))[k] * (x - xs[k])

    def total(clip: float, theta: np.ndarray) -> float:
        heights = np.exp(theta)
        rises = np.concatenate([[0], np.cumsum(heights / heights.sum())])
        u = line(np.clip(standard / clip, 0, 1), points, rises) + wrong
        return float((clip * line(u, rises, points) * weight.numpy()).sum())

    gradients(quantizer, x, weight)
    theta, h = np.linspace(-1, 2, 16), 1e-7
    slope = (total(clip + h, theta) - total(clip - h, theta)) / (2 * h)
    np.testing.assert_allclose(quantizer.factor.grad.item(), slope * float(quantizer.start),
                               rtol=1e-4)
    slopes = [(total(clip, theta + d) - total(clip, theta - d)) / (2 * h) for d in h * np.eye(16)]
    np.testing.assert_allclose(quantizer.heights.grad, slopes, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("channels", [0, 3])
def test_a_basis_moves_a_tenth_to_the_least_squares_solution(channels: int) -> None:
    x = values(600, channels=channels or 1)
    quantizer = fitted(Basis(3, channels), x).train()
    before = quantizer.basis.clone()
    quantizer(x)
    most = 127 if channels else 255
    for row, old, new in zip(x.numpy(), before.numpy(), quantizer.basis.numpy(), strict=True):
        integers = np.diff(np.rint(np.cumsum([0, *old]) * most / old.sum()))
        scale = old.sum() / most
        digits = np.array([*product((-1, 1) if channels else (0, 1), repeat=3)])
        nearest = digits[np.abs(row[:, None] - digits @ integers * scale).argmin(1)]
        solved = np.linalg.lstsq(nearest.astype(float), row, rcond=None)[0]
        np.testing.assert_allclose(new, 0.9 * old + 0.1 * solved, atol=1e-6)
        assert (np.diff(new) > 0).all() and new[0] > 0
    assert not torch.equal(before, quantizer.basis)
    held = quantizer.basis.clone()
    quantizer.eval()(x)
    assert torch.equal(held, quantizer.basis)


def test_a_basis_of_activations_passes_gradients_within_its_levels() -> None:
    x, weight = values(400), values(400, 1)
    quantizer = fitted(Basis(2), x)
    _, levels, scale = quantizer.tables()
    inside = (x > 0) & (x < levels[-1] * scale)
    torch.testing.assert_close(gradients(quantizer, x, weight), torch.where(inside, weight, 0.0))
    assert quantizer(x).min() == 0 and 0 < inside.sum() < x.numel()


RECIPE = fit.Recipe("digits", "cnn", (8, 8, 8), (2, 3), epochs=2, lr=1e-2, batch=32)


@pytest.fixture(scope="module", params=[*product(METHODS, (2,)), ("LQ-Nets", 3), ("LCQ", 4)],
                ids=lambda param: f"{param[0]} {param[1]}")
def trained(request) -> tuple[str, Network, Coded]:
    method, bits = request.param
    recipe, dataset = replace(RECIPE, weight_bits=bits, act_bits=bits), data.load("digits", None,
                                                                                 "train")
    network, spec = fit.start(recipe, dataset)
    use(method, network)
    assert fit.fit(network, recipe, dataset, method, quiet=True) > 0.4  # chance is 0.1
    return method, network.eval(), coded(network, spec)


def test_codes_and_integers_are_the_trained_network(trained) -> None:
    _, network, integers = trained
    test = data.load("digits")
    with torch.no_grad():
        single = network(torch.from_numpy(test.images) / test.max).numpy()
        double = network.double()(torch.from_numpy(test.images).double() / test.max).numpy()
    logits = integers.forward(test.images)
    np.testing.assert_allclose(logits, double, atol=1e-5)
    assert (logits.argmax(1) == double.argmax(1)).all()
    # In float32 a value may fall on the other side of a threshold.
    assert (logits.argmax(1) == single.argmax(1)).mean() > 0.99
    assert integers.accuracy(test.images, test.labels) == (double.argmax(1) == test.labels).mean()


def test_levels_ascend_in_the_bits_of_the_method(trained) -> None:
    method, _, integers = trained
    inner = [*integers.weights][1:-1]
    assert inner == ["conv2", "conv3"] and [*integers.activations] == ["quan1", "quan2", "quan3"]
    for held in (*(integers.weights[name] for name in inner), *integers.activations.values()):
        assert (np.diff(held.levels) >= 0).all() and held.levels.dtype == np.int64
        assert held.levels.shape[-1] in (4, 8, 16)
    for name in inner:
        used = integers.weights[name]
        assert len(np.unique(used.integers)) > 2 or method.startswith(("APoT", "LCQ"))
        if method == "k-means, 4-bit levels":
            assert np.abs(used.levels).max() == 7


def test_only_quantizers_differ_between_methods() -> None:
    dataset = data.load("digits", None, "train")
    networks = {method: fit.start(RECIPE, dataset)[0] for method in METHODS}
    first = {}
    for method, network in networks.items():
        use(method, network)
        state = network.state_dict()
        weights = [state[f"conv{k}.parametrizations.weight.original"
                         if f"conv{k}.parametrizations.weight.original" in state else
                         f"conv{k}.weight"] for k in (1, 2, 3)]
        assert [layer.name for layer in network.layers] == [
            layer.name for layer in networks["N2UQ"].layers]
        first.setdefault("weights", weights)
        for ours, theirs in zip(weights, first["weights"], strict=True):
            assert torch.equal(ours, theirs)
        assert parametrize.is_parametrized(network.get_submodule("conv2")) == (method != "N2UQ")


def test_a_code_counts_the_thresholds_strictly_below() -> None:
    quantizer = Activations(np.array([0.5, 1.0, 1.5]), np.array([0, 3, 5, 9]), 0.1, 2.0)
    assert quantizer.codes(np.array([-1, 0.25, 0.2500001, 0.5, 0.6, 9])).tolist() == [
        0, 0, 1, 1, 2, 3]


def test_rows_of_levels_belong_to_output_channels() -> None:
    levels = np.array([[-3, -1, 1, 3], [-9, -2, 2, 9]])
    held = Weights(np.array([[0, 3, 1], [2, 0, 3]], np.uint8), levels, np.ones(2))
    assert held.integers.tolist() == [[-3, 3, -1], [2, -9, 9]]
