"""The command line: arguments in, tables or JSON out; every fault is one line and exit code 2.

A file per command.  Results go to standard output, all else to standard error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from .. import __version__
from . import (
    board,
    build,
    compare,
    cost,
    cycles,
    demo,
    estimator,
    export,
    fold,
    import_net,
    lower,
    nets,
    pack,
    package,
    report,
    train,
    verify,
)
from . import (
    run as run_images,
)
from .process import run

__all__ = ["app", "main"]

COMMANDS: dict[str, Callable[..., None]] = {
    "nets": nets.nets, "train": train.train, "import": import_net.import_net,
    "lower": lower.lower, "build": build.build, "verify": verify.verify, "run": run_images.run,
    "board": board.board, "cycles": cycles.cycles,
    "fold": fold.fold, "estimator": estimator.estimator, "cost": cost.cost,
    "report": report.report, "package": package.package,
    "pack": pack.pack, "export": export.export,
    "compare": compare.compare, "demo": demo.demo}
BEFORE: dict[str, Callable[..., None]] = {  # what these were called
    "sim": verify.verify, "simulate": cycles.cycles}

app = typer.Typer(
    help="Trained N2UQ networks as verified hardware.\n\nExit codes: 0, all is well; 1, a bit in "
    "simulation differs from golden; 2, a fault, named in one line; 130, Ctrl-C.",
    no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]})
for name, command in COMMANDS.items():
    app.command(name)(command)
for name, command in BEFORE.items():
    app.command(name, hidden=True)(command)


def _version(asked: bool) -> None:
    if asked:
        print(f"n2uq-hw {__version__}")
        raise typer.Exit


@app.callback()
def _options(version: Annotated[bool, typer.Option(
        "--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    pass


def main() -> None:
    """Run the command line.

    Exit code: 0, 1 for a mismatch, 2 for a fault, 128 + its number for a signal (Ctrl-C: 130).
    """
    run(app)
