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
from .moves import Concat, Permute, Pointwise

__all__ = ["LTQ", "PACT", "Add", "Concat", "LearnableBias", "Network", "Permute", "Pointwise",
           "QuantizedConv2d", "QuantizedLinear", "convert", "count_below", "gste", "module_for",
           "net_of", "quantize_weight", "settle_codes", "weight_codes"]
