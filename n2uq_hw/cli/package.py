"""`n2uq-hw package`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import BuildDir
from .output import say, show


def package(
        folder: BuildDir,
        targets: Annotated[str, typer.Option(
            "--for", metavar="FLOWS", help="The flows to serve, with commas between: fusesoc, "
            "vivado, litex, c, pynq.")],
        out: Annotated[Path, typer.Option(help="The folder to write.")]) -> None:
    """Write a folder for another flow: Verilog, a test bench, and what the flow needs beside."""
    from ..api import load_build

    build = load_build(folder)
    for name in build.changed:
        say(f"note: {folder / name} is not as it was built")
    written = build.package(*(part.strip() for part in targets.split(",")), out=out)
    show(f"{build.graph.name} in {out}", *written)
