"""Designs with a codebook on one side or both: any levels, by default Lloyd-Max's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import erf, exp, inf, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...errors import N2uqError
from .design import Design, Trained

__all__ = ["CodebookDesign", "lloyd_max"]

ROUNDS = 2000  # after which levels of up to 5 bits move by less than 1e-9


@cache
def lloyd_max(count: int, *, zero: bool) -> tuple[float, ...]:
    """The positive levels, ascending, that leave a standard normal value the least squared error.

    They are symmetric, `count` on each side, by Lloyd's algorithm: each is the mean of the values
    nearest to it.  With `zero` there is one more level at 0, which stays there.
    """
    levels = np.arange(1, count + 1) * 3.0 / count
    for _ in range(ROUNDS):
        bounds = [levels[0] / 2 if zero else 0.0, *(levels[:-1] + levels[1:]) / 2, inf]
        density = np.array([exp(-bound**2 / 2) for bound in bounds]) / sqrt(2 * pi)
        below = np.array([erf(bound / sqrt(2)) for bound in bounds]) / 2
        levels = -np.diff(density) / np.diff(below)
    return tuple(levels.tolist())


def scaled(levels: np.ndarray, largest: int) -> np.ndarray:
    """The integers nearest to `levels` times what makes the last one `largest`."""
    return np.rint(levels * (largest / levels[-1])).astype(np.int64)


class CodebookDesign(Design):
    """Weights are any integers of some width, activations uniform or such integers too.

    Parameters
    ----------
    weight_width: bits of a level of weights, with its sign; 2..16.
    act_width: bits of a level of activations, unsigned, at most 16; 0: 0..2^act_bits - 1.
    weights, activations: the levels, ascending; else Lloyd-Max's of a normal distribution, the
        last one the largest of this width, and of its magnitude, the first one 0.
    signed: whether a code of weights is a sign, in the top bit, and the place of a magnitude, for
        levels that are symmetric; otherwise it is the place of the level.
    trained: the method that trained these levels.

    Raises N2uqError for levels that do not ascend, fit or mirror.
    """

    def __init__(self, *, weight_width: int = 8, act_width: int = 0, signed: bool = False,
                 weights: ArrayLike | None = None, activations: ArrayLike | None = None,
                 trained: str = "", **point: Any) -> None:
        super().__init__(**point)
        self.weight_width, self.act_width, self.signed = weight_width, act_width, signed
        self.trained = trained
        for what, width, least in (("weights", weight_width, 2), ("activations", act_width, 0)):
            if not least <= width <= 16:
                raise N2uqError(f"{self.method}: width of {what} must be {least}..16, not {width}")
        if activations is not None and not act_width:
            raise N2uqError(f"{self.method}: levels of activations need a width, not 0")
        most = 2**(weight_width - 1) - 1
        if weights is None:
            half = np.array(lloyd_max(2**self.weight_bits // 2, zero=False))
            weights = scaled(np.concatenate([-half[::-1], half]), most)
        levels = self._checked("weights", weights, self.weight_bits, -most - 1, most)
        if signed:
            if (levels != -levels[::-1]).any():
                raise N2uqError(f"{self.method}: weights with a sign must be symmetric, "
                                f"not {levels.tolist()}")
            magnitudes = levels[len(levels) // 2:]
            levels = np.concatenate([magnitudes, -magnitudes])
        self._weights, self._activations = levels, super().activations
        if act_width:
            if activations is None:
                activations = scaled(np.array([0.0, *lloyd_max(2**self.act_bits - 1, zero=True)]),
                                     2**act_width - 1)
            self._activations = self._checked("activations", activations, self.act_bits, 0,
                                              2**act_width - 1)

    def _checked(self, what: str, levels: ArrayLike, bits: int, lo: int, hi: int) -> np.ndarray:
        values = np.asarray(levels)
        if values.shape != (2**bits,) or values.dtype.kind not in "iu":
            raise N2uqError(f"{self.method}: {what} must be {2**bits} integers, "
                            f"not {values.tolist()}")
        values = values.astype(np.int64)
        if (np.diff(values) < 0).any() or values[0] < lo or values[-1] > hi:
            raise N2uqError(f"{self.method}: {what} must ascend within {lo}..{hi}, "
                            f"not {values.tolist()}")
        return values

    @property
    def weights(self) -> np.ndarray:
        return self._weights

    @property
    def activations(self) -> np.ndarray:
        return self._activations

    @property
    def widths(self) -> str:
        """The widths of levels, as in names, and whose they are."""
        return (f"w{self.weight_width}" + f" a{self.act_width}" * bool(self.act_width)
                + f" of {self.trained}" * bool(self.trained))

    @classmethod
    def with_levels(cls, trained: Trained, **point: Any) -> Iterator[Design]:
        """Constant tables of these levels in every form; those of equidistant levels are LSQ's."""
        weights, acts = np.array(trained.weights), np.array(trained.activations)
        width = max(2, int(max(-weights[0] - 1, weights[-1])).bit_length() + 1)
        uniform = (acts == np.arange(len(acts))).all()
        held = {"weights": weights, "weight_width": width, "trained": trained.method, **point}
        if not uniform:
            held |= {"activations": acts, "act_width": int(acts[-1]).bit_length()}
        for form in cls.forms(weights, bool(uniform), **point):
            design = cls(**held, **form)
            if uniform and (np.diff(weights) == 1).all():
                design.method, design.uniform = trained.method, True
            yield design

    @classmethod
    def forms(cls, weights: np.ndarray, uniform: bool, **point: int) -> Iterator[dict[str, Any]]:
        """Parameters that tell apart the forms for such weights, and activations uniform or not."""
        yield {}
