"""Networks as floats: layers and their formulas, coded nets, the paper's architectures."""

from .layers import (
    LTQ,
    Add,
    AvgPool,
    BatchNorm,
    Bias,
    Conv,
    Flatten,
    FloatConv,
    FloatLinear,
    Layer,
    Linear,
    MaxPool,
    Pact,
    Padding,
    Params,
    PReLU,
    ReLU,
    ReLU6,
    Shapes,
    Size,
    convolve,
    frame,
    layer_float,
    ltq_levels,
    ltq_thresholds,
    pact_levels,
    pair,
    ungrouped,
    weight_codes,
)
from .low_bit import (
    Concat,
    DepthToSpace,
    IntConv,
    IntLinear,
    Permute,
    Pointwise,
    Quant,
    Steps,
    Upsample,
)
from .net import IMAGES, InputSpec, Net, images_name, load_net, sources, walk
from .pointwise import OPS, Op

__all__ = ["IMAGES", "LTQ", "OPS", "Add", "AvgPool", "BatchNorm", "Bias", "Concat", "Conv",
           "DepthToSpace", "Flatten", "FloatConv", "FloatLinear", "InputSpec", "IntConv",
           "IntLinear", "Layer", "Linear", "MaxPool", "Net", "Op", "PReLU", "Pact", "Padding",
           "Params", "Permute", "Pointwise", "Quant", "ReLU", "ReLU6", "Shapes", "Size", "Steps",
           "Upsample", "convolve", "frame", "images_name", "layer_float", "load_net",
           "ltq_levels", "ltq_thresholds", "pact_levels", "pair", "sources", "ungrouped",
           "walk", "weight_codes"]
