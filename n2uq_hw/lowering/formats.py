"""The integer formats of what a trained net computes in reals: residual stream, stem and head."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import N2uqError
from ..model import LTQ, Add, Net

__all__ = ["BUDGET", "OUTPUT_BITS", "Formats", "fraction_bits", "output_fraction_bits"]

# What rounding may move the residual stream by, of an interval between thresholds.  It flips about
# that share of the levels, and a 2-bit net amplifies flips: of a trained ResNet-18's classes, 2 %
# change at 9 fraction bits and none at the 16 that this asks for.
BUDGET = 2**-11
STEPS_PER_BLOCK = 2   # roundings of at most a step: the sum's last convolution, bias-PReLU-bias
LIMITS = {"residual_fraction_bits": (0, 30), "residual_bits": (2, 48), "stem_bits": (2, 24),
          "head_bits": (2, 24), "output_fraction_bits": (0, 30)}
LEAST = 8             # fraction bits of an output, where its width allows
SIGNIFICANT = 12      # bits of an output, of a range of 8 times its spread
OUTPUT_BITS = 28      # of the widest output


@dataclass(frozen=True)
class Formats:
    """Fixed point for what the net leaves real-valued.

    Parameters
    ----------
    residual_fraction_bits: of the residual stream, one scale 2**-bits for all its tensors; None
        for `fraction_bits` of the net.
    residual_bits: the widest that a tensor of the residual stream may be; None: as its range asks.
    stem_bits, head_bits: of full-precision convolutions' and linear layers' weights, symmetric,
        one scale per output channel.  Above 8, padded pixels get `stem_bits` - 8 fraction bits.
        Every later layer amplifies the stem's rounding: 8 bits of it change 3 % of the trained
        ResNet-18's classes, 16 bits none; the head's 8 bits change none.
    output_fraction_bits: of logits; None for `output_fraction_bits` of their range, or for the
        accumulators themselves where these are the logits times one factor.
    """

    residual_fraction_bits: int | None = None
    residual_bits: int | None = None
    stem_bits: int = 16
    head_bits: int = 8
    output_fraction_bits: int | None = None

    def __post_init__(self) -> None:
        for key, (least, most) in LIMITS.items():
            value = getattr(self, key)
            if value is not None and not least <= value <= most:
                raise N2uqError(f"{key.replace('_', '-')} must be in {least}..{most}, not {value}")


def fraction_bits(net: Net) -> int:
    """The fewest fraction bits that keep the error of the residual stream within `BUDGET`.

    Every block rounds `STEPS_PER_BLOCK` times, by at most a step each; slopes of 1 carry all of it
    to the last block.  Together that stays below `BUDGET` of an interval between thresholds, the
    mean one of the quantizer whose intervals are the narrowest.
    """
    intervals = [float(np.maximum(p["a"], 1e-3).mean()) / max(abs(float(p["scale1"][0])), 1e-6)
                 for layer in net.layers if isinstance(layer, LTQ) for p in [net.of(layer)]]
    roundings = STEPS_PER_BLOCK * (1 + sum(isinstance(layer, Add) for layer in net.layers))
    wanted = math.ceil(math.log2(roundings / (BUDGET * min(intervals, default=1.0))))
    return min(max(wanted, 0), LIMITS["residual_fraction_bits"][1])


def output_fraction_bits(reach: float, spread: float, least: int) -> int:
    """Fraction bits of logits: `least` and `LEAST`, and `SIGNIFICANT` bits in all.

    Parameters
    ----------
    reach: the largest magnitude that any image can give a logit.
    spread: what logits differ by from image to image, were the inputs of their sums independent.
    least: fraction bits of the residual stream that the logits come from; 0 without.

    The outputs stay within `OUTPUT_BITS`, sign included.
    """
    significant = math.ceil(SIGNIFICANT - 4 - math.log2(spread)) if spread > 0 else 0
    most = OUTPUT_BITS - 1 - math.ceil(math.log2(reach)) if reach > 0 else LEAST
    return min(max(least, LEAST, significant), most)
