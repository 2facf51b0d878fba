"""Element-wise operations between a matrix product and the next quantizer, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["OPS", "Op"]


@dataclass(frozen=True)
class Op:
    """``y = function(x)``, or ``function(x, value)`` where `valued`.

    It is monotone, rising or falling, on either side of each of `turns`, ascending.
    """

    function: Callable[..., np.ndarray]
    valued: bool = False
    turns: tuple[float, ...] = ()


def _erf(x: np.ndarray) -> np.ndarray:
    """SciPy's, which takes a good part of a second to import, and which few nets need."""
    from scipy.special import erf

    return erf(x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """Without overflow on either side."""
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


OPS: dict[str, Op] = {
    "add": Op(np.add, True),
    "sub": Op(np.subtract, True),
    "rsub": Op(lambda x, value: value - x, True),
    "mul": Op(np.multiply, True),
    "div": Op(np.divide, True),
    "rdiv": Op(lambda x, value: value / x, True, (0.0,)),
    "pow": Op(np.power, True, (0.0,)),
    "min": Op(np.minimum, True),
    "max": Op(np.maximum, True),
    "leaky_relu": Op(lambda x, value: np.where(x < 0, x * value, x), True, (0.0,)),
    "elu": Op(lambda x, value: np.where(x < 0, value * np.expm1(np.minimum(x, 0)), x), True,
              (0.0,)),
    "neg": Op(np.negative),
    "abs": Op(np.abs, turns=(0.0,)),
    "sign": Op(np.sign),
    "relu": Op(lambda x: np.maximum(x, 0)),
    "floor": Op(np.floor),
    "ceil": Op(np.ceil),
    "round": Op(np.rint),
    "sqrt": Op(np.sqrt),
    "exp": Op(np.exp),
    "log": Op(np.log),
    "erf": Op(_erf),
    "sigmoid": Op(_sigmoid),
    "tanh": Op(np.tanh),
    "softplus": Op(lambda x: np.logaddexp(x, 0)),
    "softsign": Op(lambda x: x / (1 + np.abs(x))),
    "hard_swish": Op(lambda x: x * np.clip(x / 6 + 0.5, 0, 1), turns=(-1.5,)),
    "silu": Op(lambda x: x * _sigmoid(x), turns=(-1.2784645427610738,)),
    "gelu": Op(lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))), turns=(-0.7517915246935645,)),
}
