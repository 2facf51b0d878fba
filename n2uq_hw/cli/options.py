"""Options that commands share: each is declared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import N2uqError


def within(least: float, most: float, unit: str = "") -> Callable[[typer.CallbackParam, Any], Any]:
    """A callback for an option that is a number in such a range: neither NaN nor infinite."""
    def check(param: typer.CallbackParam, value: Any) -> Any:
        if value is not None and not least <= value <= most:
            raise N2uqError(f"{param.opts[0]} must be in {least:,.15g}..{most:,.15g}"
                            f"{' ' * bool(unit)}{unit}, not {value:.15g}")
        return value
    return check


NetName = Annotated[str, typer.Argument(metavar="NET", help="A shipped net's name, or a net file.")]
BuildDir = Annotated[Path, typer.Argument(metavar="DIR", help="What `n2uq-hw build` made.")]
DataPath = Annotated[Path | None, typer.Option(
    "--data", envvar="N2UQ_MNIST", help="An .npz with integer `images` [N, C, H, W] and, if known, "
    "`labels`: classes [N], or [N, H, W] of a map, or floats that are values; or the folder of the "
    "MNIST IDX files, for nets that were trained on them.")]
MnistPath = Annotated[Path | None, typer.Option(
    "--data", envvar="N2UQ_MNIST", help="Folder of the MNIST IDX files.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Calibrate = Annotated[Path | None, typer.Option(
    "--calibrate", help="An .npz with `images`: hold the residual stream in twice the range that "
    "they reach, to the next power of two, instead of in what no image can exceed.")]
FractionBits = Annotated[int | None, typer.Option(
    "--residual-fraction-bits", help="Of the residual stream; default: as few as keep its "
    "rounding below 1/2048 of the narrowest quantizer's interval.")]
ResidualBits = Annotated[int | None, typer.Option(
    "--residual-bits", help="The widest that the residual stream may be; default: as its range "
    "asks.")]
StemBits = Annotated[int, typer.Option(
    "--stem-bits", help="Of full-precision convolutions' weights, 2 to 24; 8 are cheaper, and cost "
    "agreement with the float model.")]
HeadBits = Annotated[int, typer.Option(
    "--head-bits", help="Of full-precision linear layers' weights, 2 to 24.")]
OutputBits = Annotated[int | None, typer.Option(
    "--output-fraction-bits", help="Of the logits; default: those of the residual stream if there "
    "is one, 8 or more, and as many as give 12 significant bits; none where the accumulators are "
    "the logits times one factor.")]
FifoBudget = Annotated[float, typer.Option(
    "--fifo-budget", callback=within(0, 1000, "percent"),
    help="Percent by which outputs and images may come later than with FIFOs that "
    "never fill: what that spares of the FIFOs where branches meet.")]
LeastFifos = Annotated[bool, typer.Option(
    "--least-fifos", help="Search for the least FIFOs however long it takes; without it, those of "
    "a large network are near them.")]
Clock = Annotated[float, typer.Option(
    "--clock", callback=within(0.001, 100_000, "MHz"), help="MHz.")]
Cycles = within(1, 10**12)
Simulator = Annotated[str, typer.Option(help="verilator or icarus.")]


def floats(what: str, text: str) -> tuple[float, ...]:
    """The numbers in a `text` such as 0.5,0.5."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise N2uqError(f"{what} must be numbers with commas between, not {text!r}") from None


def numbers(what: str, text: str) -> tuple[int, ...]:
    """The whole numbers in a `text` such as 2,3,4."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise N2uqError(f"{what} must be whole numbers with commas between, not {text!r}"
                        ) from None
