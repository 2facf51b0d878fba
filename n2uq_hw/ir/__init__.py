"""The integer dataflow graph, its golden model, and what a folding of it is."""

from .graph import Graph, channels_first, describe, dump, load_graph
from .nodes import (
    Add,
    ArgMax,
    Concat,
    DepthToSpace,
    DepthwiseMatVec,
    Edge,
    Fifo,
    Flatten,
    Fork,
    Input,
    MatVec,
    MaxPool,
    Node,
    OffsetMatVec,
    Pad,
    Permute,
    PiecewiseLinear,
    Saturate,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    Unrolled,
    Upsample,
    WidthConvert,
    bits_for,
    dtype_for,
    weight_bits,
)
from .ranges import infer, lines, threshold_values

__all__ = [
    "Add", "ArgMax", "Concat", "DepthToSpace", "DepthwiseMatVec", "Edge", "Fifo", "Flatten",
    "Fork", "Graph", "Input", "MatVec", "MaxPool", "Node", "OffsetMatVec", "Pad", "Permute",
    "PiecewiseLinear", "Saturate", "Scale", "SlidingWindow", "SumPool", "Threshold", "Unrolled",
    "Upsample", "WidthConvert", "bits_for", "channels_first", "describe", "dtype_for", "dump",
    "infer", "lines", "load_graph", "threshold_values", "weight_bits",
]
