"""Codebooks on one side or both: codes are decoded, and levels multiplied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from amaranth.hdl import Mux

from ...errors import N2uqError
from .codebook import CodebookDesign
from .design import DESIGNS, Datapath, Design, Term

__all__ = ["FORMS", "Decode"]

FORMS = ("operator", "planes")


class Decode(CodebookDesign):
    """Levels from tables, as k-means and LCQ have them, times each other.

    - "operator": ``Σ w·a``, as synthesis multiplies: levels and products end in registers, as DSP
      blocks have them.
    - "planes": ``Σ_c 2^c·Σ(a_c ? w : 0)`` over the bits a_c of activations, or of their levels:
      what adders of LUTs multiply, without a register that would keep tables and gates out of them.

    Latency: 1 cycle for the codes, ``⌈log2(lanes)⌉`` for the sum; for operator 2 for level and
    product, for planes ``⌈log2(planes)⌉``.
    """

    method = "codebook"

    def __init__(self, *, form: str = FORMS[0], **levels: Any) -> None:
        super().__init__(**levels)
        if form not in FORMS:
            raise N2uqError(f"{self.method}: form must be one of {', '.join(FORMS)}, not {form}")
        self.form = form
        self.tables = {"weights": self.weights}
        if self.act_width:
            self.tables["activations"] = self.activations

    @classmethod
    def variants(cls, **point: Any) -> Iterator[Design]:
        """Weights of 4, 8 and 16 bits, activations uniform or of 8, where a code has fewer bits."""
        for weight_width, act_width in ((4, 0), (8, 0), (16, 0), (8, 8)):
            if point["weight_bits"] < weight_width:
                for writable in (False, True):
                    for form in FORMS:
                        yield cls(weight_width=weight_width, act_width=act_width, form=form,
                                  writable=writable, **point)

    @classmethod
    def forms(cls, weights: np.ndarray, uniform: bool, **point: int) -> Iterator[dict[str, Any]]:
        for form in FORMS:
            yield {"form": form}

    @property
    def name(self) -> str:
        return " ".join(["decode", self.widths, self.form, *["writable"] * self.writable])

    def shared(self, d: Datapath, a: Sequence[Term]) -> list[Term]:
        return [self._level(d, "activations", code) for code in a] if self.act_width else list(a)

    def _level(self, d: Datapath, table: str, code: Term) -> Term:
        level = d.lookup(table, code.value, code.cycle)
        return d.register(level, "level") if self.form == "operator" else level

    def partial(self, d: Datapath, w: Sequence[Term], a: Sequence[Term], shared: Sequence[Term]
                ) -> list[Term]:
        pairs = list(zip((self._level(d, "weights", code) for code in w), shared, strict=True))
        if self.form == "planes":
            return [d.sum(d.sum((Term(Mux(x.value[c], level.value, 0), min(level.lo, 0),
                                      max(level.hi, 0), level.cycle) for level, x in pairs),
                                f"plane{c}").times(2**c)
                          for c in range(shared[0].hi.bit_length()))]
        products = []
        for level, given in pairs:
            x = d.until(given, level.cycle)
            ends = np.multiply.outer((level.lo, level.hi), (x.lo, x.hi))
            products.append(d.register(Term(level.value * x.value, int(ends.min()),
                                            int(ends.max()), level.cycle), "product"))
        return [d.sum(products)]


DESIGNS.append(Decode)
