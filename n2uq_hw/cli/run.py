"""`n2uq-hw run`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson, within
from .output import bars, say, show, show_json

if TYPE_CHECKING:
    import numpy as np

    from ..boards.emit import BoardBuild
    from ..data import Samples


def run(
        folder: Annotated[Path, typer.Argument(
            metavar="DIR", help="A build directory, or that of a board.")],
        images: Annotated[Path, typer.Argument(
            metavar="IMAGES", help="An .npz with integer `images` [N, C, H, W] and, if known, "
            "`labels`.")],
        out: Annotated[Path | None, typer.Option(
            help="Write the outputs, and the classes if there are any, to this .npz file.")] = None,
        jobs: Annotated[int | None, typer.Option(
            callback=within(1, 4096), help="Models side by side. Default: one per core.")] = None,
        port: Annotated[str | None, typer.Option(
            help="Run on a board at this serial port, such as /dev/ttyUSB0, or on the virtual one: "
            "virtual. Every output bit is compared with golden.")] = None,
        as_json: AsJson = False) -> None:
    """Run images through a build's Verilog and say what comes out, how right, and how fast.

    Nothing is compared with golden without --port; `verify` does that.
    """
    from .. import data
    from ..api import load_build
    from ..boards.emit import is_board, load_board

    samples = data.read_npz(images)
    if port is not None:
        return _on_board(load_board(folder), samples, port, out, as_json)
    build = load_build(load_board(folder).build.path if is_board(folder) else folder)
    for name in build.changed:
        say(f"note: {folder / name} is not as it was built")
    got = build.predict(samples.images, samples.labels, jobs=jobs)
    _write(out, got.outputs, got.classes)
    if as_json:
        return show_json(got.as_dict())
    show(*got.parts())


def _write(out: Path | None, outputs: np.ndarray, classes: np.ndarray | None) -> None:
    import numpy as np

    from ..files import write_file

    if out is not None:
        held = io.BytesIO()
        if classes is None:
            np.savez(held, outputs=outputs)
        else:
            np.savez(held, outputs=outputs, classes=classes)
        write_file(out, held.getvalue())


def _on_board(board: BoardBuild, samples: Samples, port: str, out: Path | None,
              as_json: bool) -> None:
    """Exit code 1 where a bit differs."""
    from ..boards.run import run_board

    with bars() as progress:
        got = run_board(board, samples.images, samples.labels, port=port, progress=progress)
    _write(out, got.outputs, got.classes)
    if as_json:
        show_json(got.as_dict())
    else:
        show(*got.parts())
    if got.mismatches:
        raise typer.Exit(1)
