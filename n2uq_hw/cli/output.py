"""What commands print: tables and JSON on standard output, notes on standard error."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

from ..progress import bars, console
from ..tables import Table, percent

if TYPE_CHECKING:
    import rich.table

    from ..ir import Graph
    from ..sim.timing.fifos import Sizing

__all__ = ["bars", "fifos", "percent", "say", "show", "show_json", "warn"]


def show(*parts: str | Table) -> None:
    """Lines and tables on standard output."""
    shown = console()
    for part in parts:
        shown.print(part if isinstance(part, str) else _fitted(part),
                    soft_wrap=isinstance(part, str))


def _fitted(table: Table) -> rich.table.Table:
    """The table for a terminal: cells that are too wide for it fold."""
    import rich.table

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


def say(text: str) -> None:
    """One printable line on standard error."""
    line = re.sub(r"\s*\n\s*", " ", text.strip())
    print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line), file=sys.stderr)


def warn(graph: Graph) -> None:
    """What lowering has to say of the network, a line each."""
    for warning in graph.meta.get("warnings", ()):
        say(f"note: {graph.name}: {warning}")


def fifos(sized: Sizing) -> dict[str, Any]:
    """What was chosen, for JSON: nothing if there was nothing to choose."""
    return {"fifo_sizing": sized.as_dict()} if sized.least else {}
