"""`n2uq-hw cost`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson, BuildDir
from .output import show, show_json


def cost(
        folder: BuildDir,
        family: Annotated[str, typer.Option(
            help="The device family: xcup, xc7, ecp5 or ice40.")] = "xcup",
        dsp: Annotated[bool, typer.Option(help="Allow multiplier blocks.")] = True,
        pnr: Annotated[bool, typer.Option(
            "--pnr", help="Place and route too, on ecp5 or ice40: gives Fmax and images per "
            "second.")] = False,
        seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the placer.")] = 1,
        imported: Annotated[Path | None, typer.Option(
            "--import", help="Show beside it what Vivado found: the JSON that vivado/ooc.tcl of a "
            "package wrote.")] = None,
        paths: Annotated[int, typer.Option(
            "--paths", min=0, max=100, metavar="N", help="Show the N longest paths between "
            "registers: placed on ecp5 and ice40, of logic only on xcup and xc7.")] = 0,
        as_json: AsJson = False) -> None:
    """Synthesize a build with Yosys: LUTs, flip-flops and memories per unit and in all."""
    from ..api import load_build

    costs = load_build(folder).cost(family, dsp=dsp, pnr=pnr, seed=seed, imported=imported,
                                    paths=paths)
    if as_json:
        return show_json(costs.as_dict())
    show(*costs.parts())
