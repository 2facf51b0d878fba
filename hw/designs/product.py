"""Codebooks on one side or both, and a table of the products of their levels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...errors import N2uqError
from .codebook import CodebookDesign
from .design import DESIGNS, Design
from .tables import Tables, pieces

__all__ = ["ProductTable"]

LUT = 6  # inputs of a table that is split


class ProductTable(Tables, CodebookDesign):
    """The product of each pair of codes, from a table of ``2^(weight_bits + act_bits)`` entries.

    Parameters
    ----------
    split: bits of a uniform activation that index a table; 0: all, one table.
    rounded: bits of an entry: the nearest to a product times a scale, at which the largest just
        fits; 0: exact.
    chained: as of `Tables`.
    """

    method = "product table"

    def __init__(self, *, split: int = 0, rounded: int = 0, chained: bool = False,
                 **parameters: Any) -> None:
        super().__init__(**parameters)
        self.split, self.rounded, self.chained = split, rounded, chained
        if split and (self.act_width or rounded):
            raise N2uqError(f"{self.method}: split must be 0 where a product is no sum, "
                            f"not {split}")
        if rounded and not 2 <= rounded <= 16:
            raise N2uqError(f"{self.method}: bits of an entry must be 2..16, not {rounded}")
        self.fill(pieces(self.weight_bits - self.signed, self.weight_bits),
                  pieces(self.act_bits, split or self.act_bits))

    @classmethod
    def variants(cls, **point: Any) -> Iterator[Design]:
        """Constant and written, exact and rounded to 8 bits, uniform and nonuniform activations."""
        yield cls(signed=True, **point)
        yield cls(chained=True, **point)
        for writable in (False, True):
            for act_width, rounded in ((0, 0), (8, 0), (8, 8)):
                yield cls(act_width=act_width, rounded=rounded, writable=writable, **point)

    @classmethod
    def forms(cls, weights: np.ndarray, uniform: bool, **point: int) -> Iterator[dict[str, Any]]:
        yield {}
        yield {"chained": True}
        if (weights == -weights[::-1]).all():
            yield {"signed": True}
        if uniform and point["weight_bits"] + point["act_bits"] > LUT > point["weight_bits"]:
            yield {"split": LUT - point["weight_bits"]}

    @property
    def name(self) -> str:
        kind = f"rounded{self.rounded}" if self.rounded else self.widths
        parts = ["product", kind, f"split{self.split}" * bool(self.split),
                 "signed" * self.signed, "chained" * self.chained, "writable" * self.writable]
        return " ".join(filter(None, parts))

    @property
    def entry_bits(self) -> int:
        """Bits of an entry that is written, with its sign."""
        return self.rounded or self.weight_width + (self.act_width or self.act_bits)

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        half = 2**(self.entry_bits - 1)
        return dict.fromkeys(self.tables, (-half, half - 1)) if self.writable else super().ranges

    @property
    def scale(self) -> float:
        """What a product is multiplied with before it is rounded."""
        largest = np.abs(np.multiply.outer(self.weights, self.activations)).max()
        return float((2**(self.rounded - 1) - 1) / largest)

    def product(self, w: np.ndarray, a: np.ndarray) -> np.ndarray:
        exact = super().product(w, a)
        return np.rint(exact * self.scale).astype(np.int64) if self.rounded else exact

    def golden(self, w: np.ndarray, a: np.ndarray) -> np.ndarray:
        return self.product(w, a).sum(axis=-1)

    @property
    def rounding(self) -> float:
        exact = np.multiply.outer(self.weights, self.activations)
        wrong = self.products / self.scale - exact if self.rounded else 0 * exact
        return float(np.sqrt((wrong**2).mean()) / np.abs(exact).max())


DESIGNS.append(ProductTable)
