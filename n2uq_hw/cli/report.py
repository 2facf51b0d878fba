"""`n2uq-hw report`."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import BuildDir, Clock, DataPath
from .output import show


def report(
        folder: BuildDir,
        images: Annotated[int | None, typer.Option(
            help="How many images to draw histograms of. Default: all of --data, else the build's "
            "test vectors.")] = None,
        clock: Clock = 200.0,
        data_path: DataPath = None) -> None:
    """Write DIR/report.html: verdicts, network, thresholds, time, cells and accuracy on one page.

    The page shows what `verify` and `cost` measured on this Verilog. It needs no network.
    """
    from ..api import load_build

    build = load_build(folder)
    held = (None, None) if images is None and data_path is None else build.images(
        images, data_path)
    show(str(build.report(*held, clock=clock)))
