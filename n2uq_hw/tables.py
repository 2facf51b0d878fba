"""Tables as data: on a terminal, in a text, in a notebook."""

from __future__ import annotations

from html import escape

__all__ = ["Table"]


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
