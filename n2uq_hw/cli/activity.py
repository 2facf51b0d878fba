"""`n2uq-hw activity`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson, BuildDir, DataPath
from .output import show, show_json


def activity(
        folder: BuildDir,
        family: Annotated[str, typer.Option(
            help="Whose cells Yosys makes of the accelerator: xcup, ecp5 or ice40.")] = "xcup",
        rtl: Annotated[bool, typer.Option(
            "--rtl", help="Simulate the Verilog as built in place of a netlist: for a SAIF file "
            "whose names Vivado's own synthesis keeps.")] = False,
        images: Annotated[int, typer.Option(min=1, help="How many images to simulate.")] = 4,
        saif: Annotated[Path | None, typer.Option(
            help="Write toggles and levels of every net to this file, for power reports.")] = None,
        data_path: DataPath = None,
        as_json: AsJson = False) -> None:
    """Count how often the nets of a build switch on images, by unit: a proxy of energy."""
    from ..api import load_build

    build = load_build(folder)
    found = build.activity(build.images(images, data_path)[0], family="" if rtl else family,
                           saif=saif)
    if as_json:
        return show_json(found.as_dict())
    show(*found.parts())
