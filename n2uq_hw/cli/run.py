"""`n2uq-hw run`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .. import data
from ..files import write_file
from .options import AsJson, BuildDir, within
from .output import say, show, show_json


def run(
        folder: BuildDir,
        images: Annotated[Path, typer.Argument(
            metavar="IMAGES", help="An .npz with integer `images` [N, C, H, W] and, if known, "
            "`labels`.")],
        out: Annotated[Path | None, typer.Option(
            help="Write the outputs, and the classes if there are any, to this .npz file.")] = None,
        jobs: Annotated[int | None, typer.Option(
            callback=within(1, 4096), help="Models side by side. Default: one per core.")] = None,
        as_json: AsJson = False) -> None:
    """Run images through a build's Verilog and say what comes out, how right, and how fast.

    Nothing is compared with golden; `verify` does that.
    """
    from ..api import load_build

    build, samples = load_build(folder), data.read_npz(images)
    for name in build.changed:
        say(f"note: {folder / name} is not as it was built")
    got = build.predict(samples.images, samples.labels, jobs=jobs)
    if out is not None:
        held = io.BytesIO()
        if got.classes is None:
            np.savez(held, outputs=got.outputs)
        else:
            np.savez(held, outputs=got.outputs, classes=got.classes)
        write_file(out, held.getvalue())
    if as_json:
        return show_json(got.as_dict())
    show(*got.parts())
