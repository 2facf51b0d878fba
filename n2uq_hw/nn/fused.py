"""bias–PReLU–bias and learned thresholds in one pass over memory, forward and backward.

Elementwise layers cost what they read and write.  In a compiled function they read and write once;
values are those of the separate layers to the bit, gradients to the last places of their sums.
`fused` gives None where the function does not apply (a GPU, other types, more than 4 bits, no
compiler); the layers then run one by one.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import tools
from ..errors import N2uqError

__all__ = ["fused"]

INTERVALS = (1, 3, 7, 15)  # of the quantizers that fused.cpp has functions for
FLAGS = ("-O2", "-march=native", "-ffp-contract=off", "-Wno-psabi", "-fopenmp")


def _processor() -> str:
    """A word for what -march=native means: machines of several kinds may share a user's cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        said = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        said = platform.processor()
    return "_" + hashlib.sha256(said.encode()).hexdigest()[:8]


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = tools.library(Path(__file__).with_name("fused.cpp"), "training", *FLAGS,
                                f"-DPROCESSOR={_processor()}")
    except N2uqError:
        return None
    for name, pointers in (("n2uq_forward", 5), ("n2uq_backward", 7)):
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_void_p] * pointers, None
    return library


def fused(x: Tensor, bend: Tensor | None, quantizer: tuple[Tensor, ...] = ()) -> Tensor | None:
    """`x` [N, C, ...] through bias–PReLU–bias and a quantizer; None where it does not apply.

    Parameters
    ----------
    bend: [3, C], bias, slope and bias; None for none.
    quantizer: `start` [1], `a` [n], `scale1` [1] and `scale2` [1] of an LTQ; () for none.
    """
    tensors = [x, *quantizer] if bend is None else [x, bend, *quantizer]
    if (any(each.device.type != "cpu" or each.dtype != torch.float32 for each in tensors)
            or x.dim() < 2 or not x.numel() or not x.is_contiguous()
            or (quantizer and len(quantizer[1]) not in INTERVALS)
            or torch.compiler.is_compiling() or _library() is None):
        return None
    return _Fused.apply(x, bend, *quantizer)


def _pack(start: np.ndarray, a: np.ndarray, scale1: np.ndarray, scale2: np.ndarray
          ) -> np.ndarray:
    """Thresholds, ends of the intervals, slopes and scales, as fused.cpp reads them."""
    n = len(a)
    half = a / np.float32(2)
    # float32, one after the other, as the reference adds.
    thresholds = np.add.accumulate(np.concatenate([start + half[:1], half[:-1] + half[1:]]))
    points = np.add.accumulate(np.concatenate([start, a]))
    level = np.float32(2 / n)
    return np.concatenate([thresholds, points, level / a, scale1, [level], scale2],
                          dtype=np.float32)


def _call(name: str, *arrays: Tensor | np.ndarray | None) -> None:
    pointers = [each.data_ptr() if isinstance(each, Tensor)
                else None if each is None else each.ctypes.data for each in arrays]
    library = _library()
    assert library is not None
    getattr(library, name)(*pointers)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bend: Tensor | None, *quantizer: Tensor) -> Tensor:
        threads = torch.get_num_threads()
        # Without a bend a channel is any part of the values.
        shape = (len(x), x.shape[1], x[0, 0].numel()) if bend is not None else (
            (1, threads, x.numel() // threads) if x.numel() % threads == 0 else (1, 1, x.numel()))
        values = [each.numpy() for each in quantizer]
        ctx.sizes = np.array([*shape, len(values[1]) if values else 0, threads], np.int64)
        ctx.packed = _pack(*values) if values else np.zeros(4, np.float32)
        bend = None if bend is None else bend.contiguous()
        y = torch.empty_like(x)
        _call("n2uq_forward", ctx.sizes, x, y, bend, ctx.packed)
        ctx.save_for_backward(x, bend, *quantizer[1:2])
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, bend, *widths = ctx.saved_tensors
        channels, n = int(ctx.sizes[1]), int(ctx.sizes[3])
        sums = np.zeros((5 + 2 * n) * channels)
        dx = torch.empty_like(x)
        _call("n2uq_backward", ctx.sizes, x, grads[0].contiguous(), dx, bend, ctx.packed, sums)
        each = sums[:5 * channels].reshape(5, channels)
        to_bend = None if bend is None else torch.from_numpy(each[:3].astype(np.float32))
        if not n:
            return dx, to_bend
        # An interval's slope shrinks with its own width; its left end moves with all before it.
        from_on, moved = np.pad(sums[5 * channels:].reshape(2, channels, n).sum(axis=1),
                                ((0, 0), (0, 1)))
        to_a = -from_on[1:] - (moved[:-1] - moved[1:]) / widths[0].numpy()
        quantizer = (-from_on[:1], to_a, each[3].sum(keepdims=True), each[4].sum(keepdims=True))
        return dx, to_bend, *(torch.from_numpy(part.astype(np.float32)) for part in quantizer)
