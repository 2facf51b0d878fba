"""Options that commands share: each is declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import N2uqError, check_range
from ..lowering.formats import Formats


def within(least: float, most: float, unit: str = "") -> Callable[[typer.CallbackParam, Any], Any]:
    """A callback for an option that is a number in such a range: neither NaN nor infinite."""
    def check(param: typer.CallbackParam, value: Any) -> Any:
        if value is not None:
            check_range(param.opts[0], value, least, most, unit)
        return value
    return check


NetName = Annotated[str, typer.Argument(metavar="NET", help="A shipped net's name, or a net file.")]
BuildDir = Annotated[Path, typer.Argument(metavar="DIR", help="A build directory.")]
DataPath = Annotated[Path | None, typer.Option(
    "--data", envvar="N2UQ_MNIST", help="An .npz with integer `images` [N, C, H, W] and, if known, "
    "`labels`: classes [N], or [N, H, W] of a map, or floats that are values. For nets trained on "
    "MNIST: the folder of its IDX files.")]
MnistPath = Annotated[Path | None, typer.Option(
    "--data", envvar="N2UQ_MNIST", help="Folder of the MNIST IDX files.")]
Top1 = Annotated[bool, typer.Option(help="Give the class index instead of the logits.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Calibrate = Annotated[Path | None, typer.Option(
    "--calibrate", help="An .npz with `images`. The residual stream then holds twice the range "
    "that they reach, up to the next power of two, and saturates beyond. Default: the range that "
    "no image can exceed.")]
FractionBits = Annotated[int | None, typer.Option(
    "--residual-fraction-bits", help="Fraction bits of the residual stream. Default: the fewest "
    "that keep its rounding below 1/2048 of the narrowest quantizer's interval.")]
ResidualBits = Annotated[int | None, typer.Option(
    "--residual-bits", help="Most bits of the residual stream. Default: as many as its range "
    "needs.")]
StemBits = Annotated[int, typer.Option(
    "--stem-bits", help="Bits of the weights of full-precision convolutions, 2 to 24. Fewer are "
    "cheaper, and agree less with the float model.")]
HeadBits = Annotated[int, typer.Option(
    "--head-bits", help="Bits of the weights of full-precision linear layers, 2 to 24.")]
OutputBits = Annotated[int | None, typer.Option(
    "--output-fraction-bits", help="Fraction bits of the logits. Default: those of the residual "
    "stream if there is one; else at least 8, and at least 12 significant bits; none where the "
    "accumulators are the logits times one factor.")]
FifoBudget = Annotated[float, typer.Option(
    "--fifo-budget", callback=within(0, 1000, "percent"),
    help="Allowed delay in percent, in exchange for shallower FIFOs where branches meet.")]
LeastFifos = Annotated[bool, typer.Option(
    "--least-fifos", help="Search for the smallest FIFOs however long it takes. Without it, those "
    "of a large network are a few percent deeper.")]
Clock = Annotated[float, typer.Option(
    "--clock", callback=within(0.001, 100_000, "MHz"), help="Clock frequency in MHz.")]
Cluster = Annotated[str, typer.Option(
    "--cluster", metavar="ADDRESS", help="Run the jobs on this cluster of dask, tcp://HOST:PORT, "
    "instead of on this machine. Needs distributed.")]
Cycles = within(1, 10**12)
Simulator = Annotated[str, typer.Option(help="The simulator: verilator or icarus.")]
_FORMATS = {
    "residual_fraction_bits": FractionBits, "residual_bits": ResidualBits, "stem_bits": StemBits,
    "head_bits": HeadBits, "output_fraction_bits": OutputBits}


def takes_formats(command: Callable[..., None]) -> Callable[..., None]:
    """A command with an option for each field of the `Formats` that it takes as `formats`."""
    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        formats = Formats(**{name: values.pop(name) for name in _FORMATS})
        command(**values, formats=formats)

    options = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation,
                                 default=getattr(Formats, name))
               for name, annotation in _FORMATS.items()]
    signature = inspect.signature(command, eval_str=True)
    with_options.__dict__["__signature__"] = signature.replace(parameters=[
        option for parameter in signature.parameters.values()
        for option in (options if parameter.name == "formats" else [parameter])])
    return with_options


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
