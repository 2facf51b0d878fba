"""Progress of long work, on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["bars", "console"]

UNLIMITED = 10_000  # columns, where no terminal bounds them


def console(stderr: bool = False) -> Console:
    """A terminal as wide as it is; elsewhere as wide as the text.  Text is text, not markup."""
    found = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = UNLIMITED
    return found


@contextmanager
def bars() -> Iterator[Callable[[str, float], None]]:
    """A function (stage, fraction done) that shows a bar per stage if stderr is a terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    shown = console(stderr=True)
    with Progress(*columns, console=shown, transient=True, disable=not shown.is_terminal
                  ) as progress:
        tasks: dict[str, Any] = {}

        def report(stage: str, fraction: float) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=1.0)
            progress.update(tasks[stage], completed=fraction)
        yield report
