"""Torch layers with the authors' names."""

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

__all__ = ["LTQ", "PACT", "Add", "LearnableBias", "Network", "QuantizedConv2d", "QuantizedLinear",
           "count_below", "gste", "module_for", "net_of", "quantize_weight", "settle_codes",
           "weight_codes"]
