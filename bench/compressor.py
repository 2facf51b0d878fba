# amaranth: UnusedElaboratable=no
"""PEs as compressor trees on UltraScale+: LUTs, flip-flops and cycles, beside FINN's.

    python -m bench.compressor [--forms] [--keep]

Each PE takes a beat of N2UQ weights and activations and accumulates 8 beats.  It is synthesized
with LUT6_2 and CARRY4; a LUT6_2 counts as one LUT.  FINN's LUTs per PE are those of its compressor
generator (pull request 1560), with accumulator, through the same Yosys.  ``--forms`` measures
MacArray's forms in the same run, too: a quarter of an hour.  ``--keep`` writes the rows to
docs/results, where the table of docs/compressor.md has them from.
"""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path
from typing import Any

from amaranth.hdl import Shape
from rich.console import Console
from rich.table import Table

from n2uq_hw import __version__, tools
from n2uq_hw.builds import synth
from n2uq_hw.builds.emit import library_verilog
from n2uq_hw.hw.compressor import product_columns
from n2uq_hw.hw.compressor_mac import CompressorMac, compressor_latency
from n2uq_hw.hw.library import Library
from n2uq_hw.hw.mac import MacArray

WORK = Path("build/bench/compressor")
FINN = {(16, 2): 85, (36, 2): 160, (64, 2): 267, (16, 3): 168, (36, 3): 326, (64, 3): 578,
        (16, 4): 275, (36, 4): 588, (64, 4): 998}
FORMS = "planes", "product", "direct"  # "pairs" has a part outside of a PE
BEATS_BITS = 3


def resources(text: str) -> synth.Resources:
    """The cells of module `pe`."""
    WORK.mkdir(parents=True, exist_ok=True)
    path = WORK / "pe.v"
    path.write_text(text, encoding="utf-8")
    return synth.synthesize([path], "pe", "xcup", dsp=False, work=WORK).total


def form_luts(simd: int, bits: int, acc: Shape) -> int:
    """LUTs of the MacArray with the fewest, shared ``Σa`` not counted."""
    least = 1 - 2**bits
    luts = []
    for form in FORMS:
        library = Library()
        library.signature("pe", lambda form=form: MacArray(
            simd=simd, code_bits=bits, activation=Shape(bits), acc=acc, step=2, least=least,
            form=form))
        total = resources(library_verilog(library, "pe")["pe.v"])
        luts.append(total.lut + total.lutram)
    return min(luts)


def rows_of(forms: bool, console: Console) -> list[dict[str, Any]]:
    """A row for each number of lanes and bits."""
    rows = []
    for (simd, bits), finn in FINN.items():
        acc = Shape(product_columns(simd, bits, bits)[1] + BEATS_BITS)
        mac = CompressorMac(simd=simd, code_bits=bits, activation=Shape(bits), acc=acc)
        total = resources(mac.verilog("pe"))
        rows.append({
            "lanes": simd, "bits": bits, "luts": total.lut + total.lutram, "ff": total.ff,
            "cycles": compressor_latency(simd, bits, bits), "finn": finn,
            **({"forms": form_luts(simd, bits, acc)} if forms else {})})
        console.log(str(rows[-1]), highlight=False)
    return rows


def keep(rows: list[dict[str, Any]]) -> None:
    """Write what the table of the page needs."""
    sys.path.append(str(Path(__file__).parents[1] / "docs"))
    import tables

    tables.write("compressor", {
        "command": "python -m bench.compressor --keep", "date": str(date.today()),
        "n2uq-hw": __version__, "versions": tools.wheels("pyosys", "scipy"), "rows": rows})


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.compressor", description=__doc__)
    parser.add_argument("--forms", action="store_true")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args(argv)
    console = Console(highlight=False)
    rows = rows_of(args.forms, console)
    table = Table(box=None, pad_edge=False)
    for column in (*rows[0], "ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*map(str, row.values()), f"{row['luts'] / row['finn']:.2f}")
    console.print(table)
    if args.keep:
        keep(rows)


if __name__ == "__main__":
    main()
