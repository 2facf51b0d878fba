"""Torch layers with the authors' names; a float model as one of them."""

from .convert import convert
from .layers import (
    LTQ,
    PACT,
    Add,
    LearnableBias,
    Network,
    QuantizedConv2d,
    QuantizedLinear,
    count_below,
    gste,
    module_for,
    net_of,
    quantize_weight,
    settle_codes,
    weight_codes,
)
from .low_bit import IntConv2d, IntLinear, PiecewiseLinear, Quant, Steps
from .moves import Concat, Permute, Pointwise

__all__ = ["LTQ", "PACT", "Add", "Concat", "IntConv2d", "IntLinear", "LearnableBias", "Network",
           "Permute", "PiecewiseLinear", "Pointwise", "Quant", "QuantizedConv2d",
           "QuantizedLinear", "Steps", "convert", "count_below", "gste", "module_for",
           "net_of", "quantize_weight", "settle_codes", "weight_codes"]
