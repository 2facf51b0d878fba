"""Transposed convolutions: a convolution that makes a block of pixels of each, and DepthToSpace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Blocks", "block_weights", "blocks"]


class Blocks(NamedTuple):
    """One axis of a transposed convolution, whose pixel s·i + a is pixel a of block i.

    Members
    -------
    places: which weight each of the small convolutions [stride, K] has, -1 for none.
    pads: zeros before and after the axis.
    size: number of blocks.
    cut: pixels at the end of the last blocks that the transposed convolution does not have.
    """

    places: np.ndarray
    pads: tuple[int, int]
    size: int
    cut: int


def blocks(size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int], more: int
           ) -> Blocks:
    """Blocks of an axis of `size` pixels; `pads` cut off pixels, `more` adds some at the end.

    Pixel s·i + a of the result reads the pixels i - d, for all d, with the weights at s·d + a + p:
    of every a these are the weights of a small convolution.
    """
    whole = (size - 1) * stride + (kernel - 1) * dilation + 1 - sum(pads) + more
    offsets = np.arange(kernel) * dilation - pads[0]  # s·d + a of each weight
    first, last = min(int(offsets.min()) // stride, 0), max(int(offsets.max()) // stride, 0)
    places = np.full((stride, last - first + 1), -1)
    places[offsets % stride, last - offsets // stride] = np.arange(kernel)
    many = max(-(-whole // stride), size + first)
    return Blocks(places, (last, many - size - first), many, many * stride - whole)


def block_weights(weights: np.ndarray, groups: int, axes: Sequence[Blocks], *, zeros: bool = True
                  ) -> np.ndarray:
    """[Cin, Cout/groups, ...] of the transposed convolution -> [Cout·strides, Cin/groups, ...].

    Where there is none, a weight is 0; without `zeros`, that of another place, as scales may be.
    """
    rank = len(axes)
    weights = weights.reshape(groups, -1, *weights.shape[1:]).swapaxes(1, 2)
    weights = weights.reshape(-1, *weights.shape[2:])
    for axis, (places, _, _, _) in enumerate(axes):
        held = ((places >= 0) | (not zeros)).reshape(*places.shape, *(1,) * (rank - 1 - axis))
        weights = weights.take(places.clip(0), axis=2 + 2 * axis) * held
    split = range(2, 2 + 2 * rank, 2)
    weights = weights.transpose(0, *split, 1, *(place + 1 for place in split))
    return weights.reshape(len(weights) * math.prod(len(each.places) for each in axes),
                           *weights.shape[rank + 1:])
