"""Progress of long work: bars on a terminal or in a notebook, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["bars", "console"]

UNLIMITED = 10_000  # columns, where no terminal bounds them
Report = Callable[[str, float], None]


def console(stderr: bool = False) -> Console:
    """A terminal as wide as it is; elsewhere as wide as the text.  Text is text, not markup."""
    from rich.console import Console

    terminal = Console(stderr=stderr, highlight=False, markup=False, emoji=False,
                       force_jupyter=False)
    if not terminal.is_terminal:
        terminal.width = UNLIMITED
    return terminal


@contextmanager
def bars() -> Iterator[Report]:
    """A function (stage, fraction done) that shows a bar per stage while the block runs."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    if _in_notebook():
        with _notebook_bars() as report:
            yield report
        return
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


def _in_notebook() -> bool:
    """Whether IPython runs this, and with a front end that shows HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return bool(shell) and hasattr(shell, "kernel")


@contextmanager
def _notebook_bars() -> Iterator[Report]:
    ipython: Any = import_module("IPython.display")  # no dependency, and without types
    stages: dict[str, float] = {}
    handle = ipython.display(ipython.HTML(""), display_id=True)

    def report(stage: str, fraction: float) -> None:
        if stages.get(stage) == (done := round(fraction, 2)):
            return  # each update is a message to the front end
        stages[stage] = done
        handle.update(ipython.HTML("<br>".join(
            f'<progress max="1" value="{value}"></progress> {escape(name)}'
            for name, value in stages.items())))

    try:
        yield report
    finally:
        handle.update(ipython.HTML(""))
