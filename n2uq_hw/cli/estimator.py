"""`n2uq-hw estimator`."""

from __future__ import annotations

from statistics import median
from typing import Annotated

import typer

from ..errors import N2uqError
from ..tables import Table
from .options import AsJson
from .output import show, show_json


def estimator(
        family: Annotated[str, typer.Option(help="The device family: xcup or ecp5.")] = "xcup",
        as_json: AsJson = False) -> None:
    """Show how far the estimates of `fold` are from what Yosys counts, per kind of unit."""
    from ..cost.memories import FAMILIES
    from ..cost.samples import errors, load_samples

    if family not in FAMILIES:
        raise N2uqError(f"--family must be one of {', '.join(FAMILIES)}, not {family or 'nothing'}")
    version, samples = load_samples()
    rows = errors(samples, family)
    if as_json:
        return show_json({"yosys": version, "family": family,
                            "kinds": [row.as_dict() for row in rows]})
    table = Table("kind of unit", "units", "LUT median", "worst", "held out", "LUT median",
                  "worst", "FF median", "worst", "BRAM differs")
    for row in rows:
        held = row.lut[:row.held_out]
        table.add_row(row.kind, str(row.units), *(
            str(cell) if isinstance(cell, int) else f"{100 * cell:.1f} %" for cell in (
                median(row.lut), max(row.lut), row.held_out, median(held), max(held),
                median(row.ff), max(row.ff))), str(row.blocks))
    show(f"estimates for {family} against Yosys {version}, {len(samples)} units", table,
           "held out: units that nothing was fitted to, the columns after it are of them alone; "
           "LUTs include those that are memory; units below 20 cells count as 20")
