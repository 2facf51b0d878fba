"""What parameters that can be written cost: the digits MLP, the same folding each time.

    python -m bench.writable [--keep]

``--keep`` writes the rows to docs/results, where the table of docs/writable.md has them from.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import n2uq_hw as n2
from n2uq_hw import tools
from n2uq_hw.ir import WRITABLE

NET, CYCLES, FAMILY = "digits_mlp_w2a2", 64, "xcup"


def measured() -> list[dict[str, Any]]:
    """A row for each part of the parameters that can be written."""
    rows = []
    for what in ("nothing", *WRITABLE):
        graph = n2.lower(NET)
        if what != "nothing":
            graph = n2.writable(graph, what)
        with tempfile.TemporaryDirectory(prefix="n2uq-") as folder:
            plan = n2.fold(graph, cycles=CYCLES, search=False)
            cost = n2.build(graph, plan, Path(folder) / "build").cost(FAMILY, dsp=False)
        estimate = {of: round(count) for of, count in plan.estimate._asdict().items()}
        rows.append({"written": what, **asdict(cost.total), "estimate": estimate})
        print(what, cost, sep="\n", file=sys.stderr)
    return rows


def main() -> None:
    """Measure, print, and keep."""
    rows = measured()
    if "--keep" in sys.argv:
        sys.path.append(str(Path(__file__).parents[1] / "docs"))
        import tables

        tables.write("writable", {
            "command": "python -m bench.writable --keep", "date": str(date.today()),
            "n2uq-hw": n2.__version__, "versions": tools.wheels("pyosys"), "rows": rows})


if __name__ == "__main__":
    main()
