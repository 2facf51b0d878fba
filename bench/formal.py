"""``make formal``: what is proven of every kind of unit, for all inputs.

    python -m bench.formal [--fast] [--jobs N] [--seconds S] [--keep] [NAME ...]

A NAME is the beginning of a unit's in the table.  ``--fast`` proves those that the tests prove.
``--keep`` writes the rows to docs/results, where the table of docs/formal.md has them from.  The
exit code is 1 if a property does not hold, or if its time (`--seconds`, 600) is up.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from n2uq_hw import __version__, tools
from n2uq_hw.sim.formal.claims import claims, prove

WORDS = {True: "proven", False: "BROKEN", None: "time is up"}


def rows_of(name: str, seconds: float) -> list[dict[str, Any]]:
    """The rows of the claim of this name."""
    claim = next(claim for claim in claims() if claim.name == name)
    return [{"unit": name, "property": p.property, "how": p.how, "images": p.verdict.images,
             "seconds": round(p.verdict.seconds, 1), "found": WORDS[p.verdict.proven],
             "trace": list(p.verdict.trace)} for p in prove(claim, seconds=seconds)]


def keep(rows: list[dict[str, Any]]) -> None:
    """Write what the table of the page needs."""
    sys.path.append(str(Path(__file__).parents[1] / "docs"))
    import tables

    tables.write("formal", {
        "command": "make formal", "date": str(date.today()), "n2uq-hw": __version__,
        "versions": tools.wheels("pyosys", "bitwuzla"),
        "rows": [{k: v for k, v in row.items() if k != "trace"} for row in rows]})


def main(argv: list[str] | None = None) -> int:
    """Prove, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.formal", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args(argv)
    chosen = [claim.name for claim in claims() if (claim.fast or not args.fast) and (
        not args.names or claim.name.startswith(tuple(args.names)))]
    console = Console(width=None if sys.stdout.isatty() else 118, highlight=False)
    table = Table(box=None, pad_edge=False)
    for column in ("unit", "property", "how", "images", "seconds", ""):
        table.add_column(column, justify="right" if column in ("images", "seconds") else "left")
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        for proven in pool.map(rows_of, chosen, [args.seconds] * len(chosen)):
            rows += proven
            for row in proven:
                print(f"{row['unit']}: {row['property']}: {row['found']}", file=sys.stderr)
                table.add_row(row["unit"], row["property"], row["how"], str(row["images"] or ""),
                              f"{row['seconds']:.1f}", row["found"])
    console.print(table)
    for row in rows:
        for k, state in enumerate(row["trace"]):
            print(f"{row['unit']}: cycle {k}: {state}")
    if args.keep:
        keep(rows)
    return int(any(row["found"] != WORDS[True] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
