"""The network as a picture: a box per unit from top to bottom, lines for the streams between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from markupsafe import Markup

__all__ = ["Box", "Line", "diagram", "short"]

WIDTH, HEIGHT, GAP = 252, 42, 26  # of a box; between two, where a line has its label
PATH, LABEL = 30, 34              # of a column that only lines run in; of a label beside boxes
ROWS = 8                          # of a part: what is tall stands in parts side by side
TURN = 5                          # above and below boxes, where a line goes to another column
LETTERS = 23                      # of a name in a box


@dataclass(frozen=True)
class Box:
    """A unit: its `name`, a line of `text`, `share` of the cycles that it needs, a `link`.

    `marked`: it has a frame of another color.
    """

    name: str
    text: str
    share: float
    link: str
    label: str
    marked: bool = False


@dataclass(frozen=True)
class Line:
    """A stream from one box to another, with a short `text`."""

    source: str
    target: str
    text: str


def short(name: str, letters: int) -> str:
    """The name, or as many letters of both of its ends."""
    half = letters // 2
    return name if len(name) <= letters else f"{name[:letters - half - 1]}…{name[-half:]}"


def layers(boxes: Sequence[Box], lines: Sequence[Line]) -> dict[str, int]:
    """The row of each box: one below the lowest that it reads.  Boxes are in topological order."""
    rows: dict[str, int] = {}
    for box in boxes:
        rows[box.name] = max((rows[line.source] + 1 for line in lines
                              if line.target == box.name), default=0)
    return rows


class Columns:
    """Which rows of each column are taken."""

    def __init__(self) -> None:
        self.taken: list[set[int]] = []

    def place(self, rows: range, least: int = 0) -> int:
        """The first column from `least` on in which `rows` are free; they are taken then."""
        while len(self.taken) <= least:
            self.taken.append(set())
        column = next((k for k, taken in enumerate(self.taken)
                       if k >= least and taken.isdisjoint(rows)), len(self.taken))
        if column == len(self.taken):
            self.taken.append(set())
        self.taken[column] |= set(rows)
        return column


def columns(boxes: Sequence[Box], lines: Sequence[Line], rows: Mapping[str, int]
            ) -> tuple[dict[str, int], dict[Line, int]]:
    """The column of each box, and of each line that passes rows between its ends.

    The longest path from top to bottom has the first column; each other path the next that is free.
    """
    held, at = Columns(), dict[str, int]()
    tip = max(rows, key=lambda name: rows[name])
    longest = [tip]
    while above := [line.source for line in lines
                    if line.target == longest[-1] and rows[line.source] == rows[longest[-1]] - 1]:
        longest.append(above[0])
    for name in longest:
        at[name] = held.place(range(rows[name], rows[name] + 1))
    for box in boxes:
        if box.name in at:
            continue
        chain, end = [box.name], rows[box.name] + 1
        while True:
            behind = [line for line in lines if line.source == chain[-1]]
            following = [line.target for line in behind if line.target not in at]
            if not following:
                end = max([end, *(rows[line.target] for line in behind)])
                break
            chain.append(following[0])
            end = rows[chain[-1]] + 1
        column = held.place(range(rows[chain[0]], end), 1)
        at |= dict.fromkeys(chain, column)
    passing = {}
    for line in lines:
        between = range(rows[line.source] + 1, rows[line.target])
        if len(between):
            own = {at[line.source], at[line.target]} - {0}
            column = next(iter(own)) if len(own) == 1 else held.place(between, 1)
            passing[line] = column
    return at, passing


def diagram(boxes: Sequence[Box], lines: Sequence[Line]) -> Markup:
    """The picture as HTML: SVG parts of at most ROWS rows, each going on where the last one ends.

    Colors are the variables `--low` and `--high` of the page, mixed by each box's share.
    """
    rows = layers(boxes, lines)
    at, passing = columns(boxes, lines, rows)
    count = 1 + max([*at.values(), *passing.values()])
    wide = set(at.values())
    left = [0]
    for k in range(count):
        left.append(left[-1] + (WIDTH + LABEL if k in wide else PATH))
    total, pitch = left[-1] + 2, HEIGHT + GAP

    def middle(column: int) -> float:
        return 1 + left[column] + (WIDTH / 2 if column in wide else PATH / 2)

    def drawn(line: Line) -> tuple[str, str]:
        column = passing.get(line)
        return _line(line, (middle(at[line.source]), (rows[line.source] + 1) * pitch),
                     (middle(at[line.target]), rows[line.target] * pitch + GAP),
                     None if column is None else (middle(column), column not in wide))

    joined = [(rows[line.source], rows[line.target], drawn(line)) for line in lines]
    placed = [(rows[box.name], _box(box, 1 + left[at[box.name]], GAP + rows[box.name] * pitch))
              for box in boxes]
    parts, last = [], max(rows.values())
    for first, end in pairwise(k * (last + 1) // -(-(last + 1) // ROWS)
                               for k in range(-(-(last + 1) // ROWS) + 1)):
        top, bottom = first * pitch, end * pitch + (4 if end > last else 0)
        # Labels come last, on top of the paths that they would be crossed by.
        streams = [texts for start, stop, texts in joined if start < end and stop >= first]
        inside = [path for path, _ in streams] + [label for _, label in streams]
        inside += [text for row, text in placed if first <= row < end]
        parts.append(Markup(
            f'<svg class="network" role="group" aria-label="Units of rows {first + 1} to {end} of '
            f'{last + 1}" viewBox="0 {top} {total} {bottom - top}" '
            f'style="max-width: {round(1.15 * total)}px; min-width: {round(0.8 * total)}px">\n'
            + "\n".join(inside) + "\n</svg>"))
    return Markup(f'<div class="parts" tabindex="0" role="region" aria-label="The network" '
                  f'style="columns: {round(0.85 * total)}px">\n' + "\n".join(parts) + "\n</div>")


def _box(box: Box, x: float, y: float) -> str:
    return (
        f'<a href="{escape(box.link)}" aria-label="{escape(box.label)}">'
        f"<title>{escape(box.label)}</title>"
        f'<rect class="box{" marked" * box.marked}" x="{x:g}" y="{y:g}" width="{WIDTH}" '
        f'height="{HEIGHT}" rx="6" style="--share: {100 * min(box.share, 1):.1f}%"/>'
        f'<text class="name" x="{x + 9:g}" y="{y + 17:g}">{escape(short(box.name, LETTERS))}</text>'
        f'<text class="share" x="{x + WIDTH - 9:g}" y="{y + 17:g}">{100 * box.share:.1f} %</text>'
        f'<text class="what" x="{x + 9:g}" y="{y + 33:g}">{escape(box.text)}</text></a>')


def _across(x: float, to: float) -> str:
    """The part of a path that goes down, from one column to another, with round corners."""
    if x == to:
        return ""
    side = 1 if to > x else -1
    return f"v{TURN - 3}q0 3 {3 * side} 3H{to - 6 * side:g}q{6 * side} 0 {6 * side} 6"


def _line(line: Line, start: tuple[float, int], end: tuple[float, int],
          passing: tuple[float, bool] | None) -> tuple[str, str]:
    """Path and label of a line from the point `start` to `end`.

    `passing`: the middle of the column in which it passes rows, and whether that has no boxes.
    """
    (x0, y0), (x1, y1) = start, end
    label = f"{line.source} to {line.target}: {line.text}"
    if passing is None:
        path = f"M{x0:g} {y0}{_across(x0, x1)}V{y1}"
        at = f'x="{x1 + 5:g}" y="{(y0 + y1) / 2 + 3.5:g}"'
    else:
        x, narrow = passing
        path = f"M{x0:g} {y0}{_across(x0, x)}V{y1 - GAP}"
        if x != x1:
            side = 1 if x1 > x else -1
            path += (f"V{y1 - TURN - 6}q0 6 {6 * side} 6H{x1 - 3 * side:g}"
                     f"q{3 * side} 0 {3 * side} 3")
        path += f"V{y1}"
        y = y0 + GAP + HEIGHT / 2
        at = (f'text-anchor="middle" transform="translate({x - 4:g} {y:g}) rotate(-90)"' if narrow
              else f'x="{x + 5:g}" y="{y:g}"')
    return (f'<path class="stream" d="{path}"><title>{escape(label)}</title></path>',
            f'<text class="edge" {at}>{escape(line.text)}</text>')
