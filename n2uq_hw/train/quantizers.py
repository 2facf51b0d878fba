"""Quantizers of other papers in torch, to train in N2UQ's place: same network, same budget.

Each learns levels that are integers of few bits times a scale, so that what is trained is what
hardware multiplies: `coded` takes a network out as `Coded`, exactly.  Gradients are those of each
paper.  Where a paper learns a clipping value or a step, it is a factor here, times a start that
the first values decide, so that Adam moves all of them, and N2UQ's, at one relative rate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .. import model
from ..model import LTQ, Conv, InputSpec, Linear
from ..model.coded import Activations, Coded, Weights
from ..nn import Network, QuantizedConv2d, QuantizedLinear, count_below, weight_codes
from ..nn.layers import even_padding

__all__ = ["METHODS", "Basis", "Codebook", "Companded", "Method", "Quantizer", "Steps", "coded",
           "of_fewest_bits", "use"]

WIDTH = 8        # bits of a level that is learned, with the sign that a weight has
ROUNDS = 50      # of Lloyd's algorithm
PIECES = 16      # of a companding function
MOMENTUM = 0.9   # of a basis
RIDGE = 1e-4     # that keeps a basis solvable
QUARTILE = 0.6745  # of a normal distribution
# Sums of powers of two by their bits, as Li et al. have them with 2 bits for a power or 0.
APOT = {1: (0, 1), 2: (0, 1, 2, 4), 3: (0, 1, 2, 3, 4, 6, 8, 10),
        4: (0, 1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 24, 32, 33, 36, 48)}


class Quantizer(nn.Module):
    """Codes, integer levels and a scale; learned from what passes, and by gradients.

    A value x, standardized where a subclass does that, gets the code that counts the thresholds
    strictly below it, and becomes ``scale · levels[code]``, of which any constant factor per output
    channel is left to the batch normalization that follows.
    """

    fitted: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def standardized(self, x: Tensor) -> Tensor:
        """What is quantized in the place of `x`."""
        return x

    @abstractmethod
    def fit(self, x: Tensor) -> None:
        """Start from the first values, standardized."""

    @abstractmethod
    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Thresholds [n - 1], levels [n] and scale [1]; or each with a row per output channel."""

    @abstractmethod
    def surrogate(self, x: Tensor, codes: Tensor, values: Tensor) -> Tensor:
        """What has the gradients of the paper; its values do not matter.

        Parameters: what is quantized, its codes, and what it becomes.
        """

    def codes(self, x: Tensor) -> Tensor:
        """Codes, int64, of what is standardized."""
        thresholds = self.tables()[0]
        if thresholds.dim() == 1:
            return count_below(x, thresholds)
        return torch.searchsorted(thresholds, x.flatten(1)).view(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Quantized `x` of any shape, weights [Cout, ...]."""
        x = self.standardized(x)
        with torch.no_grad():
            if not self.fitted:
                self.fit(x)
                self.fitted.fill_(True)
            _, levels, scale = self.tables()
            codes, table = self.codes(x), levels * scale
            values = (table[codes] if table.dim() == 1 else
                      table.gather(1, codes.flatten(1)).view(x.shape))
        smooth = self.surrogate(x, codes, values)
        return values + (smooth - smooth.detach())


def _middles(levels: Tensor) -> Tensor:
    return (levels[..., :-1] + levels[..., 1:]) / 2


def _pass(exact: Tensor, smooth: Tensor) -> Tensor:
    """`exact`, with the gradient of `smooth`."""
    return smooth + (exact - smooth).detach()


def _standardized(weight: Tensor) -> Tensor:
    return (weight - weight.mean()) / weight.std()


class Steps(Quantizer):
    """Fixed integer levels times a learned step.

    With levels -2^(b-1)..2^(b-1) - 1 or 0..2^b - 1 this is LSQ (Esser et al., ICLR 2020, section
    2.1, equations 1 to 3; the gradient's scale of section 2.2 cancels in Adam); with sums of
    powers of two, and weights standardized, APoT (Li et al., ICLR 2020, section 2: the levels, the
    reparameterized clipping function, whose clipping value is the step times the last level, and
    weight normalization).  It starts where LSQ's clipping value does: ``2·mean|x|·√steps``.

    Parameters
    ----------
    levels: integers, ascending.
    steps: positive levels of a uniform quantizer of the same bits.
    standardize: whether weights lose their mean and get standard deviation 1.
    """

    levels: Tensor
    start: Tensor

    def __init__(self, levels: Sequence[int], steps: int, *, standardize: bool = False) -> None:
        super().__init__()
        self.steps, self.standardize = steps, standardize
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.float32))
        self.register_buffer("start", torch.ones(1))
        self.factor = nn.Parameter(torch.ones(1))

    @property
    def step(self) -> Tensor:
        """Of one, positive."""
        return self.start * self.factor.abs()

    def standardized(self, x: Tensor) -> Tensor:
        return _standardized(x) if self.standardize else x

    def fit(self, x: Tensor) -> None:
        self.start.copy_(2 * x.abs().mean() * self.steps**0.5 / self.levels[-1])

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        return _middles(self.levels) * self.step, self.levels, self.step

    def surrogate(self, x: Tensor, codes: Tensor, values: Tensor) -> Tensor:
        inside = torch.clamp(x / self.step, float(self.levels[0]), float(self.levels[-1]))
        return self.step * _pass(values / self.step, inside)


class Codebook(Quantizer):
    """Weights by a learned codebook: k-means, then gradients (Han et al., ICLR 2016, section 3).

    A level gets the sum of the gradients of its weights; a weight, which Han's do not keep, gets
    its own straight through.  The weights of an output channel are taken by their mean magnitude,
    as N2UQ's are; levels are rounded to `width` bits.
    """

    def __init__(self, bits: int, width: int = WIDTH) -> None:
        super().__init__()
        self.most = 2**(width - 1) - 1
        self.values = nn.Parameter(torch.zeros(2**bits))

    def standardized(self, x: Tensor) -> Tensor:
        return x / x.detach().abs().flatten(1).mean(1).view(-1, *(1,) * (x.dim() - 1))

    def fit(self, x: Tensor) -> None:
        flat, n = x.flatten(), len(self.values)
        values = torch.quantile(flat, (torch.arange(n, dtype=flat.dtype) + 0.5) / n)
        for _ in range(ROUNDS):
            codes = count_below(flat, _middles(values))
            count = torch.bincount(codes, minlength=n)
            means = torch.bincount(codes, flat, n) / count
            values = torch.where(count > 0, means, values)
        self.values.copy_(values)

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        values, scale = self.values.sort().values, self.values.abs().max() / self.most
        levels = torch.round(values / scale)
        return _middles(levels) * scale, levels, scale[None]

    def surrogate(self, x: Tensor, codes: Tensor, values: Tensor) -> Tensor:
        return x + self.values.sort().values[codes]


def _interpolate(x: Tensor, points: Tensor, values: Tensor) -> Tensor:
    """The piecewise linear function through `points`, ascending, and `values`; of x inside."""
    k = torch.bucketize(x.detach(), points[1:-1].detach())
    slope = values.diff() / points.diff()
    return values[k] + slope[k] * (x - points[k])


class Companded(Quantizer):
    """LCQ: uniform levels behind a learned piecewise linear function (Yamamoto, CVPR 2021).

    ``sgn(x)·c·f⁻¹(round(f(|x|/c)·s)/s)`` where f rises from 0 to 1 in 16 pieces of equal width and
    softmax heights; all but the rounding has its own gradient (section 3).  Weights, standardized,
    have s = 2^(b-1) - 1 and two codes of 0, activations 2^b - 1; levels are rounded to 8 bits.
    """

    start: Tensor

    def __init__(self, bits: int, *, signed: bool) -> None:
        super().__init__()
        self.signed, self.steps = signed, 2**(bits - signed) - 1
        self.most = 2**(WIDTH - signed) - 1
        self.register_buffer("start", torch.ones(1))
        self.factor = nn.Parameter(torch.ones(1))
        self.heights = nn.Parameter(torch.zeros(PIECES))

    @property
    def clip(self) -> Tensor:
        """What becomes the last level, positive."""
        return self.start * self.factor.abs()

    def standardized(self, x: Tensor) -> Tensor:
        return _standardized(x) if self.signed else x

    def fit(self, x: Tensor) -> None:
        self.start.copy_(2 * x.abs().mean() * self.steps**0.5)

    def _function(self) -> tuple[Tensor, Tensor]:
        """The points of f and its values there."""
        rises = F.softmax(self.heights, 0).cumsum(0)
        ends = torch.ones_like(rises[:1])
        return (torch.linspace(0, 1, PIECES + 1, dtype=rises.dtype),
                torch.cat([0 * ends, rises[:-1], ends]))

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        points, values = self._function()
        places = torch.arange(self.steps + 1, dtype=values.dtype) / self.steps
        levels = torch.round(_interpolate(places, values, points) * self.most)
        thresholds = self.clip * _interpolate(_middles(places), values, points)
        if self.signed:
            levels = torch.cat([-levels.flip(0), levels])
            thresholds = torch.cat([-thresholds.flip(0), 0 * self.clip, thresholds])
        return thresholds, levels, self.clip / self.most

    def surrogate(self, x: Tensor, codes: Tensor, values: Tensor) -> Tensor:
        points, rises = self._function()
        inside = torch.clamp(x / self.clip, -1.0 if self.signed else 0.0, 1.0)
        u = _interpolate(inside.abs(), points, rises)
        u = _pass(torch.round(u * self.steps) / self.steps, u)
        return inside.sign() * self.clip * _interpolate(u, rises, points)


class Basis(Quantizer):
    """LQ-Nets: levels ``Σ ±v`` of a learned basis v (Zhang et al., ECCV 2018, section 3).

    Weights have a basis per output channel and digits ±1, activations one and digits 0 and 1, as
    in the authors' code.  Training solves for the basis by least squares, given the codes
    (section 3.3), and moves it by a tenth.  Gradients pass straight through, of activations those
    between 0 and the last level.  The basis is rounded so that levels have 8 bits.

    Parameters
    ----------
    channels: output channels of weights; 0: activations.
    """

    digits: Tensor
    basis: Tensor

    def __init__(self, bits: int, channels: int = 0) -> None:
        super().__init__()
        self.signed = channels > 0
        self.most = 2**(WIDTH - self.signed) - 1
        binary = (torch.arange(2**bits)[:, None] >> torch.arange(bits) & 1).float()
        self.register_buffer("digits", 2 * binary - 1 if self.signed else binary)
        self.register_buffer("basis", torch.zeros(channels or 1, bits))

    def _rows(self, x: Tensor) -> Tensor:
        return x.flatten(1) if self.signed else x.reshape(1, -1)

    def fit(self, x: Tensor) -> None:
        bits = self.basis.shape[1]
        unit = QUARTILE / 2**(bits - 1) if self.signed else 2 * QUARTILE / (2**bits - 1)
        self.basis.copy_(unit * self._rows(x).std(1, keepdim=True) * 2**torch.arange(bits))

    def rounded(self) -> tuple[Tensor, Tensor]:
        """The basis in integers [C, b], each above 0, of a given sum, and their scale [C]."""
        parts = F.pad(self.basis.cumsum(1), (1, 0))
        scale = parts[:, -1] / self.most
        integers = torch.round(parts / scale[:, None]).diff(dim=1).clamp(min=1)
        integers[:, -1] += self.most - integers.sum(1)
        return integers, scale

    def _sorted(self) -> tuple[Tensor, Tensor, Tensor]:
        """Levels [C, n], ascending, their scale [C] and digits [C, n, b]."""
        basis, scale = self.rounded()
        levels, order = (basis @ self.digits.T).sort(dim=1)
        return levels, scale, self.digits[order]

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        levels, scale, _ = self._sorted()
        scale = scale[:, None]
        rows = _middles(levels) * scale, levels, scale
        return rows if self.signed else (rows[0][0], rows[1][0], rows[2][0])

    def surrogate(self, x: Tensor, codes: Tensor, values: Tensor) -> Tensor:
        levels, scale, digits = self._sorted()
        if self.training:
            self._solve(self._rows(x.detach()), self._rows(codes), digits)
        return x if self.signed else torch.clamp(x, 0.0, float(levels[0, -1] * scale[0]))

    @torch.no_grad()
    def _solve(self, x: Tensor, codes: Tensor, digits: Tensor) -> None:
        """Least squares from how many values each code has, and their sum."""
        zeros = x.new_zeros(digits.shape[:2])
        counts = zeros.scatter_add(1, codes, torch.ones_like(x))
        sums = zeros.scatter_add(1, codes, x)
        square = torch.einsum("cn,cni,cnj->cij", counts, digits, digits)
        square = square + RIDGE * torch.eye(digits.shape[2], dtype=x.dtype)
        right = torch.einsum("cn,cni->ci", sums, digits) + RIDGE * self.basis
        self.basis.lerp_(torch.linalg.solve(square, right), 1 - MOMENTUM)
        self.basis.copy_(self.basis.abs().sort(dim=1).values)  # the same levels


@dataclass(frozen=True)
class Method:
    """Quantizers by their bits: of weights, given the output channels, too, and of activations.

    `most_bits` is the most that make sense.
    """

    weights: Callable[[int, int], Quantizer]
    activations: Callable[[int], Quantizer]
    most_bits: int = 4


def _apot_weights(bits: int, channels: int) -> Quantizer:
    half = APOT[bits - 1]
    return Steps([*(-level for level in reversed(half)), *half], 2**(bits - 1) - 1,
                 standardize=True)


def _uniform(bits: int) -> Quantizer:
    return Steps(range(2**bits), 2**bits - 1)


# Weights and activations of each method; N2UQ's own are those of `nn`.
METHODS: dict[str, Method | None] = {
    "N2UQ": None,
    "LSQ": Method(lambda bits, _: Steps(range(-2**(bits - 1), 2**(bits - 1)), 2**(bits - 1) - 1),
                  _uniform),
    "APoT": Method(_apot_weights, lambda bits: Steps(APOT[bits], 2**bits - 1)),
    "APoT × uniform": Method(_apot_weights, _uniform),
    "LQ-Nets": Method(Basis, Basis),
    "k-means": Method(lambda bits, _: Codebook(bits), _uniform),
    "k-means, 4-bit levels": Method(lambda bits, _: Codebook(bits, 4), _uniform, 3),
    "LCQ": Method(lambda bits, _: Companded(bits, signed=True),
                  lambda bits: Companded(bits, signed=False)),
}


def of_fewest_bits(network: Network) -> list[Conv | Linear]:
    """The layers with weights of as few bits as any."""
    held = [layer for layer in network.layers if isinstance(layer, Conv | Linear)]
    least = min(layer.bits for layer in held)
    return [layer for layer in held if layer.bits == least]


def use(method: str, network: Network) -> None:
    """Put the quantizers of a method of METHODS in the place of N2UQ's.

    Layers of more bits than others, the first and the last, keep N2UQ's weights; all weights keep
    their values.
    """
    chosen = METHODS[method]
    if chosen is None:
        return
    for layer in network.layers:
        if isinstance(layer, LTQ):
            network.set_submodule(layer.name, chosen.activations(layer.bits))
    for layer in of_fewest_bits(network):
        weight = network.get_parameter(f"{layer.name}.weight")
        with torch.no_grad():
            plain = (nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel, layer.stride,
                               even_padding(layer), layer.dilation, layer.groups, bias=False)
                     if isinstance(layer, Conv) else
                     nn.Linear(layer.in_features, layer.out_features, bias=False))
            plain.weight.copy_(weight)
        parametrize.register_parametrization(plain, "weight",
                                             chosen.weights(layer.bits, len(weight)))
        network.set_submodule(layer.name, plain)


@torch.no_grad()
def coded(network: Network, input: InputSpec) -> Coded:
    """A trained network in codes, levels and scales, as it computes them."""
    weights, activations = dict[str, Weights](), dict[str, Activations]()
    params = {key: value.numpy() for key, value in network.state_dict().items()}
    for layer in network.layers:
        module = network.get_submodule(layer.name)
        if isinstance(module, QuantizedConv2d | QuantizedLinear):
            codes, scale = weight_codes(module.weight, module.clip_val, module.bits)
            n = 2**module.bits - 1
            delta = scale.double() * module.clip_val.double() / (2 * n)
            weights[layer.name] = Weights(codes.byte().numpy(), 2 * np.arange(n + 1) - n,
                                          delta.flatten().numpy())
        elif parametrize.is_parametrized(module):
            held = network.get_submodule(f"{layer.name}.parametrizations.weight")
            assert isinstance(held, parametrize.ParametrizationList)
            quantizer, original = held[0], held.original
            assert isinstance(quantizer, Quantizer) and isinstance(original, Tensor)
            codes = quantizer.codes(quantizer.standardized(original))
            _, levels, scale = quantizer.tables()
            weights[layer.name] = Weights(codes.byte().numpy(), levels.long().numpy(),
                                          scale.double().flatten().numpy())
        elif isinstance(module, Quantizer):
            thresholds, levels, scale = module.tables()
            activations[layer.name] = Activations(thresholds.double().numpy(),
                                                  levels.long().numpy(), float(scale))
        elif isinstance(layer, LTQ):
            p = {key: params[f"{layer.name}.{key}"] for key in layer.shapes()}
            n = 2**layer.bits - 1
            activations[layer.name] = Activations(
                model.ltq_thresholds(p), np.arange(n + 1), 2 / n * float(p["scale2"][0]),
                float(p["scale1"][0]))
    return Coded(input, network.layers, params, weights, activations)
