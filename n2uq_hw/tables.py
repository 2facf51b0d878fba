"""Tables as data: on a terminal, in a text, in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["Shown", "Table", "percent"]


def percent(share: float | None) -> str:
    """A share in percent; a dash for None."""
    return "–" if share is None else f"{100 * share:.2f} %"


class Shown:
    """What prints as lines and tables; a notebook shows it so too."""

    def parts(self) -> Sequence[str | Table]:
        """Lines and tables, in their order."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join(map(str, self.parts()))

    def _repr_html_(self) -> str:
        return "".join(part._repr_html_() if isinstance(part, Table) else f"<p>{escape(part)}</p>"
                       for part in self.parts())


class Table:
    """Cells of text in columns, of which the first `left` are words and the others numbers.

    Columns without any name make a table without a head.
    """

    def __init__(self, *columns: str, left: int = 1) -> None:
        self.columns, self.left = columns, left
        self.rows: list[tuple[str, ...]] = []

    def add_row(self, *cells: str) -> None:
        """One cell per column."""
        self.rows.append(cells)

    @property
    def lines(self) -> list[tuple[str, ...]]:
        """The head, if there is one, and the rows."""
        return [self.columns, *self.rows] if any(self.columns) else self.rows

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.lines, strict=True)]
        return "\n".join("  ".join(
            cell.ljust(width) if k < self.left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
            for line in self.lines)

    def _repr_html_(self) -> str:
        def row(cells: tuple[str, ...], tag: str) -> str:
            return "<tr>" + "".join(
                f'<{tag} style="text-align: {"left" if k < self.left else "right"}">'
                f"{escape(cell)}</{tag}>" for k, cell in enumerate(cells)) + "</tr>"

        head = f"<thead>{row(self.columns, 'th')}</thead>" if any(self.columns) else ""
        return f"<table>{head}<tbody>{''.join(row(r, 'td') for r in self.rows)}</tbody></table>"
