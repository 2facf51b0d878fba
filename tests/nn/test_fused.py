"""The compiled pass of bias–PReLU–bias and thresholds against the layers one by one."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from n2uq_hw import model, nn, tools
from n2uq_hw.errors import N2uqError
from n2uq_hw.nn import fused

CASES = {  # bits of the quantizer, shape of x; pixels that fill no whole vector among them
    "1 bit": (1, (3, 5, 7, 3)), "2 bits": (2, (4, 6, 16, 16)), "3 bits": (3, (2, 3, 5, 5)),
    "4 bits": (4, (8, 4, 9, 9)), "features": (2, (9, 4)), "no quantizer": (0, (3, 4, 6, 5))}


def network(bits: int, channels: int) -> nn.Network:
    layers: tuple[model.Layer, ...] = (
        model.Bias("before", channels), model.PReLU("prelu", channels),
        model.Bias("after", channels))
    module = nn.Network((*layers, model.LTQ("quan", bits)) if bits else layers)
    torch.manual_seed(bits)
    with torch.no_grad():
        for key, value in module.named_parameters():
            if key.endswith("bias"):
                value.uniform_(-0.3, 0.3)
            elif key == "prelu.weight":
                value.uniform_(-0.5, 1)
            elif key.endswith(("scale1", "scale2")):
                value.uniform_(0.5, 1.5)
            elif key == "quan.a":
                value.mul_(torch.rand_like(value) + 0.3)
                value[:1] = 1e-4  # below its floor
    return module


def run(module: nn.Network, x: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Values, and the gradients of their weighted sum."""
    x = x.detach().to(weight.dtype, copy=True).requires_grad_()
    module.zero_grad()
    y = module(x)
    y.backward(weight)
    grads = {key: value.grad for key, value in module.named_parameters() if value.grad is not None}
    return y.detach(), {"x": x.grad, **grads}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("threads", [1, 2])
def test_values_to_the_bit_and_gradients_to_a_millionth(
        case: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bits, shape = CASES[case]
    module = network(bits, shape[1])
    x, weight = torch.randn(shape), torch.randn(shape)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        used = []
        whole = fused._Fused.apply
        monkeypatch.setattr(fused._Fused, "apply", lambda *args: used.append(1) or whole(*args))
        values, grads = run(module, x, weight)
        assert len(used) == 1  # the whole run in one
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(fused, "_library", lambda: None)
    assert torch.equal(values, run(module, x, weight)[0])
    exact = run(copy.deepcopy(module).double(), x, weight.double())[1]
    assert grads.keys() == exact.keys()
    for key, value in exact.items():  # sums of terms of about 1, which may cancel
        largest = max(1.0, float(value.abs().max()))
        np.testing.assert_allclose(grads[key], value, rtol=0, atol=1e-6 * largest, err_msg=key)


def test_a_quantizer_alone_and_what_it_does_not_apply_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """More bits, double precision, other strides, no compiler: the layers run one by one."""
    x = torch.randn(3, 4, 5, 5)
    parts = nn.LTQ(2).parts()
    whole = fused.fused(x, None, parts)
    assert torch.equal(whole, nn.gste(x * parts[2], *parts[:2]) * parts[3])
    assert fused.fused(x, None, nn.LTQ(8).parts()) is None
    assert fused.fused(x.double(), None, parts) is None
    assert fused.fused(x.to("meta"), None, parts) is None
    assert fused.fused(x.transpose(1, 2), None, parts) is None
    assert fused.fused(x[:0], None, parts) is None

    def without(*_: object) -> None:
        raise N2uqError("g++: needed on PATH for training, and not found")

    monkeypatch.setattr(tools, "library", without)
    fused._library.cache_clear()
    try:
        assert fused.fused(x, None, parts) is None
        assert torch.equal(nn.LTQ(2)(x), whole)
    finally:
        fused._library.cache_clear()


def test_what_is_read_elsewhere_or_looked_into_stays_apart() -> None:
    """A second reader gets its value; a hook sees what passes."""
    layers = (model.Bias("b", 2), model.PReLU("p", 2), model.Bias("c", 2), model.LTQ("q", 2),
              model.Add("sum", inputs=("q", "c")))
    branched = nn.Network(layers)
    assert [[layer.name for layer in run] for run in branched.runs] == [["b", "p", "c"]]
    x = torch.randn(2, 2, 3, 3)
    y = torch.where(x > 0, x, x / 4)
    assert torch.equal(branched(x), branched.get_submodule("q")(y) + y)
    seen: list[Tensor] = []
    branched.get_submodule("p").register_forward_hook(lambda module, args, y: seen.append(y))
    branched(x)
    assert torch.equal(seen[0], y)


def test_the_library_is_kept_by_what_it_was_compiled_of(tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "two.cpp"
    source.write_text('extern "C" int two() { return 2; }')
    assert tools.library(source, "a test").two() == 2
    source.write_text('extern "C" int two() { return 3; }')
    assert tools.library(source, "a test").two() == 3
    assert len([*(tmp_path / "cache" / "n2uq-hw").iterdir()]) == 2
    source.write_text("not C")
    with pytest.raises(N2uqError, match=r"^g\+\+: "):
        tools.library(source, "a test")
