"""What a layer of the net becomes: an edge of integers, and what real numbers these stand for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ..ir import Edge
from ..model import OPS, BatchNorm, Bias, Layer, Params, Pointwise, PReLU, ReLU6, layer_float
from ..model import ReLU as Relu
from .steps import Scalar

__all__ = ["BENDS", "Affine", "Joined", "Means", "Stage", "Value", "Waiting", "Waits",
           "taken"]

LINES = ("add", "sub", "rsub", "mul", "div", "neg")  # affine operations
# Monotone in float64 too, since each is rounded correctly; the others come from a library.
ROUNDED = (*LINES, "min", "max", "relu", "floor", "ceil", "round", "sign", "abs", "sqrt")


def taken(values: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """`values` [..., C] in another order of the channels; one value serves all."""
    return values if order is None or values.shape[-1] == 1 else values[..., order]


@dataclass(frozen=True, eq=False)
class Affine:
    """``slope·x + intercept`` per channel, under the name of the layer that it is part of."""

    name: str
    slope: np.ndarray
    intercept: np.ndarray
    affine = True
    monotone = True
    turns = ()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x * self.slope + self.intercept

    def take(self, order: np.ndarray) -> Affine:
        """The same of channels in another order."""
        return Affine(self.name, taken(self.slope, order), taken(self.intercept, order))


@dataclass(frozen=True, eq=False)
class Stage:
    """A scalar layer that waits for a quantizer or a format; parameters [1] or [C]."""

    layer: Layer
    params: Params

    @classmethod
    def of(cls, layer: Layer, params: Params, order: np.ndarray | None) -> Stage:
        """With parameters in the order of the stream; one way of saying ReLU and PReLU each."""
        p = {key: taken(value.reshape(-1), order) for key, value in params.items()}
        if isinstance(layer, Pointwise) and not layer.float32:
            if layer.op == "relu":
                layer = Relu(layer.name)
            elif layer.op == "leaky_relu":
                layer, p = PReLU(layer.name, layer.channels), {"weight": p["value"]}
        return cls(layer, p)

    @property
    def name(self) -> str:
        """The layer's."""
        return self.layer.name

    @property
    def affine(self) -> bool:
        """Whether it is a line."""
        layer = self.layer
        return isinstance(layer, BatchNorm | Bias) or (
            isinstance(layer, Pointwise) and layer.op in LINES and not layer.float32)

    @property
    def monotone(self) -> bool:
        """Whether it is monotone in float64, on either side of its turns."""
        layer = self.layer
        return not isinstance(layer, Pointwise) or layer.op in ROUNDED

    @property
    def turns(self) -> tuple[float, ...]:
        """Where it may begin to fall or to rise."""
        if isinstance(self.layer, PReLU):
            return (0.0,) if (self.params["weight"] < 0).any() else ()
        return OPS[self.layer.op].turns if isinstance(self.layer, Pointwise) else ()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return layer_float(self.layer, self.params, x)

    def take(self, order: np.ndarray) -> Stage:
        """The same of channels in another order."""
        return Stage(self.layer, {key: taken(value, order) for key, value in self.params.items()})


@dataclass(frozen=True, eq=False)
class Joined:
    """Branches side by side: what waits in each, with the places of its channels."""

    name: str
    branches: tuple[tuple[np.ndarray, tuple[Any, ...]], ...]
    turns = ()

    @property
    def affine(self) -> bool:
        """Whether every branch is a line."""
        return all(getattr(stage, "affine", True) for _, stages in self.branches
                   for stage in stages)

    @property
    def monotone(self) -> bool:
        """Whether every branch is monotone in float64."""
        return all(getattr(stage, "monotone", True) for _, stages in self.branches
                   for stage in stages)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y = np.empty(x.shape)
        for places, stages in self.branches:
            part = x[:, places]
            for stage in stages:
                part = stage(part)
            y[:, places] = part
        return y

    def take(self, order: np.ndarray) -> Joined:
        """The same of channels in another order."""
        branches = []
        for places, stages in self.branches:
            at = np.flatnonzero(np.isin(order, places))
            own = np.searchsorted(places, order[at])
            branches.append((at, tuple(stage.take(own) for stage in stages)))
        return Joined(self.name, tuple(branches))


@dataclass(frozen=True, eq=False)
class Means:
    """Means of windows of which some have fewer pixels, by the sum of integers: see `moves`.

    From `starts` [K] on, a sum is of `counts` [K] pixels and of pads that are `pads` [K] together;
    those pixels are `most` at most.  `origin`, `factors` and `divisor` as of a Value.
    """

    name: str
    starts: np.ndarray
    counts: np.ndarray
    pads: np.ndarray
    most: int
    origin: np.ndarray
    factors: tuple[np.ndarray, ...]
    divisor: int
    affine = False
    monotone = True

    @property
    def turns(self) -> tuple[float, ...]:
        """The last sums before those of fewer pixels."""
        return tuple(self.starts[1:] - 1.0)

    @property
    def uniform(self) -> bool:
        """Whether all channels have one function."""
        return all(each.size == 1 for each in (*self.factors, self.origin))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        kind = np.searchsorted(self.starts[1:], x, side="right")
        count = self.counts[kind]
        y = np.minimum(x - self.pads[kind], count * self.most) + count * self.origin
        for factor in self.factors:
            y = y * factor
        return y / (count * self.divisor)

    def take(self, order: np.ndarray) -> Means:
        """The same of channels in another order."""
        return replace(self, origin=taken(self.origin, order),
                       factors=tuple(taken(factor, order) for factor in self.factors))


Waits = Stage | Affine | Joined | Means
Waiting = tuple[Waits, ...]
BENDS = (PReLU, Relu, ReLU6)


@dataclass(frozen=True, eq=False)
class Value:
    """What a layer of the net has become: an edge, and what its integers stand for.

    real = (integer + origin) · factors[0] · factors[1] ... / divisor, multiplied in this order as
    the paper writes it (acc · Δ · δ), then through the scalar layers that wait for a quantizer or a
    format.  After a Flatten, element i of the stream is element `order[i]` of the net's vector.
    A sum that waits has `terms` instead of a node: its real value is theirs.
    """

    node: str
    edge: Edge
    factors: tuple[np.ndarray, ...]
    waiting: Waiting = ()
    order: np.ndarray | None = None
    origin: np.ndarray = field(default_factory=lambda: np.zeros(1))
    divisor: int = 1
    terms: tuple[Value, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether the real value is the integer times one factor."""
        return self.plain and len(self.factors) == 1 and self.factors[0].size == 1 \
            and not self.origin.any()

    @property
    def plain(self) -> bool:
        """Whether no layer waits."""
        return not self.waiting and not self.terms

    @property
    def uniform(self) -> bool:
        """Whether all channels have one function, as far as no layer waits."""
        return all(each.size == 1 for each in (*self.factors, self.origin))

    @property
    def factor(self) -> np.ndarray:
        """The product of all factors, [1] or [C]."""
        product = np.ones(1)
        for factor in self.factors:
            product = product * factor
        return product / self.divisor

    def stages(self, waiting: Waiting) -> list[Scalar]:
        """Origin, factors and waiting layers as functions of the integer."""
        stages: list[Scalar] = [partial(np.add, self.origin)] if self.origin.any() else []
        stages += [partial(np.multiply, factor) for factor in self.factors]
        if self.divisor != 1:
            stages.append(lambda x: x / self.divisor)
        return [*stages, *waiting]

    @property
    def operations(self) -> list[tuple[str, np.ndarray]] | None:
        """`stages` of all that waits as sums and products with constants: ("add", v), ("mul", v),
        ("div", v), as float64 computes them.  None where something else waits."""
        made = [("add", self.origin), *(("mul", factor) for factor in self.factors),
                ("div", np.array([float(self.divisor)]))]
        for stage in self.waiting:
            if isinstance(stage, Affine):
                made += [("mul", stage.slope), ("add", stage.intercept)]
            elif isinstance(stage, Stage) and isinstance(stage.layer, Pointwise) and stage.affine:
                value, op = stage.params.get("value", np.ones(1)), stage.layer.op
                made += {"sub": [("add", -value)], "neg": [("mul", -value)],
                         "rsub": [("mul", -np.ones(1)), ("add", value)]}.get(op, [(op, value)])
            else:
                return None
        return made

    def take(self, order: np.ndarray) -> Value:
        """The same real values of channels in another order, or of some, or of some again."""
        return replace(self, factors=tuple(taken(factor, order) for factor in self.factors),
                       waiting=tuple(stage.take(order) for stage in self.waiting),
                       origin=taken(self.origin, order))
