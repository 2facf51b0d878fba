"""The integer formats of what a trained net computes in reals: residual stream, stem and head."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import N2uqError

__all__ = ["EXACT", "LEAST", "LIMITS", "OUTPUT_BITS", "SIGNIFICANT", "Formats",
           "output_fraction_bits"]

LIMITS = {"residual_fraction_bits": (0, 30), "residual_bits": (2, 48), "stem_bits": (2, 24),
          "head_bits": (2, 24), "output_fraction_bits": (0, 30)}
LEAST = 8             # fraction bits of an output, where its width allows
SIGNIFICANT = 12      # bits of an output, of a range of 8 times its spread
EXACT = 26            # the same, of nets that have a formula for every integer
OUTPUT_BITS = 28      # of the widest output


@dataclass(frozen=True)
class Formats:
    """Fixed point for what the net leaves real-valued.

    Parameters
    ----------
    residual_fraction_bits: fraction bits of the residual stream, the same for all its tensors;
        None for `Precision.residual`.
    residual_bits: most bits of a tensor of the residual stream; None for what its range needs.
    stem_bits, head_bits: bits of the weights of full-precision convolutions and linear layers;
        symmetric, one scale per output channel.  Padded pixels get `Precision.pixels` fraction
        bits, and as many more or fewer as the stem has more or fewer than 16.
        Every later layer amplifies the stem's rounding: 8 bits of it change 3 % of the trained
        ResNet-18's classes, 16 bits none; the head's 8 bits change none.
    output_fraction_bits: fraction bits of the logits; None for `output_fraction_bits` of their
        range, or for the accumulators themselves where these are the logits times one factor.
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


def output_fraction_bits(reach: float, spread: float, least: int,
                         significant: int = SIGNIFICANT) -> int:
    """Fraction bits of logits: `least` and `LEAST`, and so many `significant` bits in all.

    Parameters
    ----------
    reach: the largest magnitude that any image can give a logit.
    spread: what logits differ by from image to image, were the inputs of their sums independent.
    least: fraction bits of the residual stream that the logits come from; 0 without.

    The outputs stay within `OUTPUT_BITS`, sign included.
    """
    fine = math.ceil(significant - 4 - math.log2(spread)) if spread > 0 else 0
    most = OUTPUT_BITS - 1 - math.ceil(math.log2(reach)) if reach > 0 else LEAST
    return min(max(least, LEAST, fine), most)
