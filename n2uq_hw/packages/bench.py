"""The test bench that every package has: plain Verilog, its vectors in files."""

from __future__ import annotations

import numpy as np

from ..builds.emit import Build, Port, ports
from ..data import channels_last
from ..hw.memory import bits_of, hex_rows
from ..hw.passes import unroll
from ..ir import Flatten
from ..ir.folding import fold_cycles
from ..templates import render
from .pins import others, top

__all__ = ["BENCH", "VECTORS", "files"]

BENCH = "n2uq_bench"  # its module and file
VECTORS = 8           # images that it runs, or as many as the build has
IDLE = 10_000         # cycles beside those of an image, without a beat, in which the design hangs


def files(build: Build) -> dict[str, str]:
    """Texts by path: the bench, the beats that it sends and those that it expects."""
    source, output = ports(build.graph, build.folding)
    nhwc = channels_last(build.vectors["images"][:VECTORS], build.graph.input.shape,
                         build.graph.name)
    sent, expected = nhwc, build.vectors["expected"][:VECTORS]
    return {
        f"bench/{BENCH}.v": render(
            "bench.v.j2", bench=BENCH, top=top(build), source=source, output=output,
            images=len(sent), idle=IDLE + _cycles(build), saturated=False,
            tied=[pin.name for pin in others(build, "input")],
            open=[pin.name for pin in others(build, "output")]),
        f"bench/{BENCH}_input.hex": _beats(sent, source),
        f"bench/{BENCH}_expected.hex": _beats(expected, output)}


def _beats(values: np.ndarray, port: Port) -> str:
    """A line of hex digits for each beat of `values` [N, H, W, C]: tdata, padded as the port is."""
    codes = values.astype(np.int64).reshape(-1, port.lanes)
    bits = bits_of(codes & (1 << port.width) - 1, port.width)
    padding = bits[:, -1:] if port.signed else np.zeros_like(bits[:, -1:])
    return hex_rows(np.hstack([bits, *[padding] * (port.tdata - port.bits)])).decode()


def _cycles(build: Build) -> int:
    """Cycles of an image in all units, one after the other: no beat takes longer."""
    graph, folding = unroll(build.graph, build.folding)
    return sum(fold_cycles(node, graph.reads(node), graph.edges[node.name], folding[node.name])
               for node in graph.nodes if not isinstance(node, Flatten))
