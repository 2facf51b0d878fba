"""`n2uq-hw export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import N2uqError
from ..lowering.formats import Formats
from .options import (
    Calibrate,
    NetName,
    Top1,
    takes_formats,
    within,
)
from .output import show


@takes_formats
def export(
        net: NetName,
        qonnx: Annotated[Path | None, typer.Option(
            help="Write this ONNX file with QONNX's operators: MultiThreshold and Quant.")] = None,
        integer: Annotated[Path | None, typer.Option(
            help="Write this ONNX file with standard operators alone.")] = None,
        batch: Annotated[int, typer.Option(
            callback=within(1, 65536), help="Images per run of the file.")] = 1,
        top1: Top1 = False, calibrate: Calibrate = None,
        *, formats: Formats) -> None:
    """Write a network's integers as an ONNX file, which computes golden's outputs. Needs onnx."""
    from .. import api

    if qonnx is None and integer is None:
        raise N2uqError("export must have a file to write: --qonnx FILE, --integer FILE, or both")
    graph = api.lower(net, formats, top1=top1, calibrate=calibrate)
    for path, dialect in ((qonnx, "qonnx"), (integer, "integer")):
        if path is not None:
            api.export(graph, path, dialect=dialect, batch=batch)
            height, width, channels = graph.input.shape
            show(f"{path}: {graph.name}, integers {batch}×{channels}×{height}×{width} in "
                 f"{graph.input.lo}..{graph.input.hi}; 1 of the output is {graph.scale:.6g}")
