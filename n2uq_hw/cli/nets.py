"""`n2uq-hw nets`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..tables import Table
from .options import AsJson, MnistPath
from .output import bars, percent, show, show_json


def nets(
        measure: Annotated[bool, typer.Option(
            help="Measure the accuracies anew: floats, golden, and RTL in simulation.")] = False,
        data_path: MnistPath = None, as_json: AsJson = False) -> None:
    """List the shipped networks and the accuracy that they reach."""
    from ..builds import accuracy

    if measure:
        with bars() as progress:
            accuracy.measure_shipped(data_path, progress)
    rows = accuracy.shipped_table()
    if as_json:
        return show_json(rows)
    table = Table("net", "layers", "weights", "images", "float", "golden", "RTL", "RTL images",
                  "mismatches", left=2)
    for name, row in rows.items():
        table.add_row(name, row["layers"], f"{row['weights']:,}", str(row.get("images", "–")),
                      *(percent(row.get(key)) for key in ("float", "golden", "rtl")),
                      str(row.get("rtl_images", "–")), str(row.get("mismatches", "–")))
    show(table, "layers: 16c3 is a 3 × 3 convolution to 16 channels, p2 a 2 × 2 max-pool, 10 a "
           "linear layer; the rest is test accuracy of the float model, of golden (integers) and "
           "of the Verilog in simulation")
