"""The command line: arguments in, tables or JSON out; every fault is one line and exit code 2.

A file per command.  Results go to standard output, all else to standard error.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

import typer

from .. import __version__
from . import process

__all__ = ["COMMANDS", "app", "main"]

# Each command's module, which holds a function of the same name.
COMMANDS = {
    "nets": "nets", "train": "train", "import": "import_net", "lower": "lower", "build": "build",
    "verify": "verify", "run": "run", "board": "board", "cycles": "cycles", "fold": "fold",
    "explore": "explore", "estimator": "estimator", "cost": "cost", "activity": "activity",
    "report": "report", "package": "package", "pack": "pack", "export": "export",
    "compare": "compare", "demo": "demo"}
BEFORE = {"sim": "verify", "simulate": "cycles"}  # what these were called


def app(asked: str = "") -> typer.Typer:
    """The command line; only the command that is `asked` for, if there is one of that name.

    To load and to describe all of them takes longer than to refuse a file.
    """
    made = typer.Typer(
        help="Trained N2UQ networks as verified hardware.\n\nExit codes: 0, all is well; 1, a bit "
        "in simulation differs from golden; 2, a fault, named in one line; 130, Ctrl-C.",
        no_args_is_help=True, pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]})
    made.callback()(_options)
    known = COMMANDS | BEFORE
    for name in [asked] if asked in known else known:
        command = getattr(import_module(f".{known[name]}", __name__), known[name])
        made.command(name, hidden=name in BEFORE)(command)
    return made


def _version(asked: bool) -> None:
    if asked:
        print(f"n2uq-hw {__version__}")
        raise typer.Exit


def _options(version: Annotated[bool, typer.Option(
        "--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    pass


def main() -> None:
    """Run the command line.

    Exit code: 0, 1 for a mismatch, 2 for a fault, 128 + its number for a signal (Ctrl-C: 130).
    """
    process.run(app(*sys.argv[1:2]))
