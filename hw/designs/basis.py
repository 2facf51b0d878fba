"""LQ-Nets: weights, and activations, that are sums of a learned basis by the bits of codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
from amaranth.hdl import Cat
from amaranth.hdl import Value as HdlValue
from numpy.typing import ArrayLike

from ...errors import N2uqError
from .design import DESIGNS, Datapath, Design, Term, Trained
from .weighted import Weighted, selected_sum, shared_sums

__all__ = ["Basis", "fit_basis"]

ROUNDS = 500  # after which a basis of up to 5 bits stays as it is
NORMAL = tuple(NormalDist().inv_cdf((k + 0.5) / 4096) for k in range(4096))
LANES = 3  # whose bits of weights and activations fill a LUT of 6 inputs


def fit_basis(values: ArrayLike, bits: int, *, signed: bool = True) -> np.ndarray:
    """The basis whose levels leave `values` the least squared error, float64 [bits], ascending.

    Levels are ``Σ_i ±v_i`` if signed, ``Σ_i (v_i or 0)`` otherwise.  By the quantization error
    minimization of Zhang et al. (LQ-Nets, ECCV 2018, algorithm 1): values go to the nearest level,
    then the basis is that of least squares.  It is a local minimum, found from equidistant levels.

    Raises N2uqError where an element of the basis would not be above 0.
    """
    x = np.asarray(values, float).ravel()
    signs = _bits(bits) * 2 - 1 if signed else _bits(bits)
    basis = 2.0 ** np.arange(bits) * np.abs(x).max(initial=0) / (2**bits - 1)
    for _ in range(ROUNDS):
        levels = signs @ basis
        order = np.argsort(levels)
        middles = (levels[order][1:] + levels[order][:-1]) / 2
        before, chosen = basis, signs[order[np.searchsorted(middles, x)]]
        basis = np.linalg.lstsq(chosen, x, rcond=None)[0]
        if (basis == before).all():
            break
    if not (basis > 0).all():
        raise N2uqError(f"basis: must be above 0, and that of these values is {basis.tolist()}")
    return np.sort(basis)


@cache
def _normal_basis(bits: int, signed: bool) -> tuple[float, ...]:
    """That of normal values, or of their magnitudes."""
    values = np.array(NORMAL)
    return tuple(fit_basis(values if signed else np.abs(values), bits, signed=signed).tolist())


def _bits(bits: int) -> np.ndarray:
    """int64 [2^bits, bits]: the bits of each code, the lowest first."""
    return np.arange(2**bits)[:, None] >> np.arange(bits) & 1


class Basis(Weighted):
    """Weights ``Σ_i ±v_i``, by the bits of a code; activations uniform or ``Σ_j (u_j or 0)``.

    Where both have a basis, bits are counted: for each bit i of weights and j of activations
    ``Σ ±a_j``, times ``v_i·u_j``.  That is ``2·H_ij + R_j``: three lanes at a time, R is the parity
    of the activations, whatever the weights, and shared, and H -2..1, two LUTs.

    Where activations are uniform, for each bit of weights ``Σ (bit ? a : 0)``, times ``2·v_i``, by
    sums of pairs of activations, less ``Σa`` times ``Σv``: the sums of pairs and ``Σa`` are shared.

    Latency, beside that of `Weighted`: 1 cycle for the codes, 1 for pairs and
    ``⌈log2(⌈lanes/2⌉)⌉``; where bits are counted 4 and ``⌈log2(⌈⌈lanes/3⌉/6⌉)⌉``.

    Parameters
    ----------
    weight_width: bits of the levels of weights, with their sign; 2..16.
    act_width: bits of those of activations, unsigned, at most 16; 0: uniform, 0..2^act_bits - 1.
    basis, act_basis: integers v and u, each above 0, ascending; by default those of a normal
        distribution, scaled so that their sum is the largest level of the width.

    Raises N2uqError for a basis that does not ascend, or does not fit.
    """

    method = "LQ-Nets"

    def __init__(self, *, weight_width: int = 8, act_width: int = 0,
                 basis: ArrayLike | None = None, act_basis: ArrayLike | None = None,
                 **point: Any) -> None:
        super().__init__(**point)
        self.weight_width, self.act_width = weight_width, act_width
        for what, width, least in (("weights", weight_width, 2), ("activations", act_width, 0)):
            if not least <= width <= 16:
                raise N2uqError(f"{self.method}: width of {what} must be {least}..16, not {width}")
        if act_basis is not None and not act_width:
            raise N2uqError(f"{self.method}: a basis of activations needs a width, not 0")
        most, limit = 2**(weight_width - 1) - 1, 2**act_width - 1
        self.basis = self._checked("weights", basis, self.weight_bits, True, most)
        self.act_basis = (self._checked("activations", act_basis, self.act_bits, False, limit)
                          if act_width else 2 ** np.arange(self.act_bits))
        total = int(self.basis.sum())
        if act_width:
            products = np.multiply.outer(self.basis, self.act_basis)
            self.fill([*products.ravel(), *products.sum(axis=0)],
                      [1] * products.size + [0] * self.act_bits,
                      least=0, greatest=most * limit)
        else:
            self.fill([*self.basis, -total], [1] * self.weight_bits + [0],
                      least=[0] * self.weight_bits + [-most],
                      greatest=[most] * self.weight_bits + [0])

    def _checked(self, what: str, basis: ArrayLike | None, bits: int, signed: bool, most: int
                 ) -> np.ndarray:
        if basis is None:
            parts = np.cumsum([0, *_normal_basis(bits, signed)])
            basis = np.diff(np.rint(parts * (most / parts[-1])).astype(np.int64))
        values = np.asarray(basis)
        if values.shape != (bits,) or values.dtype.kind not in "iu":
            raise N2uqError(f"{self.method}: basis of {what} must be {bits} integers, "
                            f"not {values.tolist()}")
        if values[0] < 1 or (np.diff(values) < 0).any() or values.sum() > most:
            raise N2uqError(f"{self.method}: basis of {what} must ascend from 1 and add up to "
                            f"{most} at most, not {values.tolist()}")
        return values.astype(np.int64)

    @classmethod
    def variants(cls, **point: Any) -> Iterator[Design]:
        """Levels of 8 bits, with uniform activations and with a basis for both."""
        for act_width in (0, 8):
            for writable in (False, True):
                yield cls(act_width=act_width, writable=writable, **point)

    @classmethod
    def with_levels(cls, trained: Trained, **point: Any) -> Iterator[Design]:
        """Where they are of a basis on both sides: constant tables of it."""
        if trained.basis:
            design = cls(weight_width=sum(trained.basis).bit_length() + 1, basis=trained.basis,
                         act_width=sum(trained.act_basis).bit_length(), act_basis=trained.act_basis,
                         **point)
            design.trained = trained.method
            yield design

    @property
    def name(self) -> str:
        return (f"lq w{self.weight_width}" + f" a{self.act_width}" * bool(self.act_width)
                + f" of {self.trained}" * bool(self.trained) + " writable" * self.writable)

    @property
    def weights(self) -> np.ndarray:
        return (2 * _bits(self.weight_bits) - 1) @ self.basis

    @property
    def activations(self) -> np.ndarray:
        return _bits(self.act_bits) @ self.act_basis

    def bounds(self, sums: Sequence[Term]) -> tuple[int, int]:
        most, limit = int(self.basis.sum()), int(self.act_basis.sum())
        if self.writable:
            most, limit = 2**(self.weight_width - 1) - 1, 2**self.act_width - 1
        if self.act_width:  # as many lanes as the last sum, of parities, tells
            limit *= self.lanes * sums[-1].hi // self.sums[-1].hi
        else:
            limit = sums[-1].hi
        return -most * limit, most * limit

    def shared(self, d: Datapath, a: Sequence[Term]) -> list[Any]:
        if not self.act_width:
            return list(shared_sums(d, a))
        sums = []
        for j in range(self.act_bits):
            bits = [code.value[j] for code in a]
            parities = []
            for at in range(0, len(bits), LANES):
                parity = bits[at]
                for bit in bits[at + 1:at + LANES]:
                    parity = parity ^ bit
                parities.append(d.register(Term(parity, 0, 1, a[0].cycle), "parity"))
            sums.append(_count(d, parities))
        return sums

    def partial(self, d: Datapath, w: Sequence[Term], a: Sequence[Term], shared: Sequence[Any]
                ) -> list[Term]:
        if self.act_width:
            halves = [self._halves(d, [code.value[i] for code in w], [x.value[j] for x in a],
                                   a[0].cycle)
                      for i in range(self.weight_bits) for j in range(self.act_bits)]
            return [*halves, *(d.until(term, halves[0].cycle) for term in shared)]
        pairs, total = shared
        return [*(selected_sum(d, [Term(code.value[i], 0, 1, code.cycle) for code in w], pairs)
                  for i in range(self.weight_bits)), total]

    def _halves(self, d: Datapath, w: Sequence[HdlValue], a: Sequence[HdlValue], cycle: int
                ) -> Term:
        """``(Σ ±a - Σ parity)/2``: counts of the low and the high bits of the lanes' parts."""
        parts = []
        for at in range(0, len(w), LANES):
            signs, bits = w[at:at + LANES], a[at:at + LANES]
            size = len(bits)
            codes = _bits(2 * size)
            total = ((2 * codes[:, :size] - 1) * codes[:, size:]).sum(axis=1)
            half = d.case((total >> 1).tolist(), Cat(*signs, *bits), cycle)
            parts.append(d.register(half, "half"))
        low, high = (_count(d, [Term(part.value[bit], 0, 1, part.cycle) for part in parts])
                     for bit in (0, -1))
        return d.register(Term(low.value - (high.value << 1), sum(part.lo for part in parts),
                               sum(part.hi for part in parts), low.cycle), "half")


def _count(d: Datapath, bits: Sequence[Term]) -> Term:
    """How many of the bits are set: tables of six, a LUT for each of three bits, then adders."""
    counts = []
    for at in range(0, len(bits), 6):
        part = bits[at:at + 6]
        counts.append(d.register(d.case(_bits(len(part)).sum(axis=1).tolist(),
                                        Cat(bit.value for bit in part), part[0].cycle), "count"))
    return d.sum(counts, "count")


DESIGNS.append(Basis)
