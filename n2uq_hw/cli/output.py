"""What commands print: tables and JSON on standard output, notes on standard error."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import rich.table

from ..builds.task import measure
from ..progress import bars, console
from ..tables import Table

if TYPE_CHECKING:
    from ..builds.verify import Verdict
    from ..sim.timing.fifos import Sizing

__all__ = ["bars", "fifo_parts", "fifos", "figure", "percent", "say", "show", "show_json",
           "verdict_rows"]


def show(*parts: str | Table) -> None:
    """Lines and tables on standard output."""
    shown = console()
    for part in parts:
        shown.print(part if isinstance(part, str) else _fitted(part),
                    soft_wrap=isinstance(part, str))


def _fitted(table: Table) -> rich.table.Table:
    """The table for a terminal: cells that are too wide for it fold."""
    fitted = rich.table.Table(show_header=any(table.columns), box=None, header_style="bold",
                              pad_edge=False)
    for k, column in enumerate(table.columns):
        fitted.add_column(column, justify="left" if k < table.left else "right", overflow="fold")
    for row in table.rows:
        fitted.add_row(*row)
    return fitted


def show_json(value: Any) -> None:
    """JSON that any reader takes: no NaN, no infinities."""
    print(json.dumps(value, indent=1, allow_nan=False))


def percent(share: float | None) -> str:
    """A share in percent; a dash for None."""
    return "–" if share is None else f"{100 * share:.2f} %"


def figure(counted: str, accuracy: float | None, mean_error: float | None) -> str:
    """The one that a `Task` has, which counts `counted`; "" if it is not known."""
    if counted == "values":
        return "" if mean_error is None else f"{mean_error:.4f}"
    return "" if accuracy is None else percent(accuracy)


def say(text: str) -> None:
    """One printable line on standard error."""
    line = re.sub(r"\s*\n\s*", " ", text.strip())
    print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line), file=sys.stderr)


def fifos(sized: Sizing) -> dict[str, Any]:
    """What was chosen, for JSON: nothing if there was nothing to choose."""
    return {"fifo_sizing": sized.as_dict()} if sized.least else {}


def fifo_parts(sized: Sizing) -> list[str | Table]:
    """The same as a table and a line."""
    if not sized.least or sized.trace is None:
        return []
    table = Table("FIFO", "depth", "least", "most held")
    for name, depth in sized.depths.items():
        table.add_row(name, *(f"{beats:,}" for beats in (
            depth, sized.least[name], sized.trace.high[name])))
    return [table, f"least: lest the graph deadlocks; {sized.bits:,} bits in all; "
            f"{sized.cycles_per_image:,.2f} cycles per image, {sized.full:,.2f} with FIFOs that "
            "never fill" + ("" if sized.minimal else "; --least-fifos may spare some entries")]


def verdict_rows(verdict: Verdict) -> list[tuple[str, str]]:
    """Rows of a name and a value."""
    exact = "every output bit as in golden" if not verdict.mismatches else "DIFFERENT"
    counted = [] if verdict.saturated is None else [
        ("saturated elements", f"{verdict.saturated:,} "
         f"({'as in golden' if verdict.saturated_exact else 'DIFFERENT'})")]
    return [("images", f"{verdict.images}, {verdict.mismatches} mismatches ({exact})"),
            (measure(verdict.counted, verdict.rule),
             figure(verdict.counted, verdict.accuracy, verdict.mean_error) or "–"), *counted,
            ("cycles to the first output", f"{verdict.cycles_first_output:,}"),
            ("cycles per image", f"{verdict.cycles_per_image:,.2f}"),
            ("MAC utilization of the slowest layer", f"{verdict.mac_utilization:.4f}"),
            ("simulated cycles per second", f"{verdict.cycles_per_second:,.0f}")]
