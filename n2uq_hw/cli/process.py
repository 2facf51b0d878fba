"""The process around a command: signals, faults in one line, exit codes."""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NoReturn

import typer

from ..errors import N2uqError
from ..signals import STOPS
from .output import say

NEAREST = {"×": "x", "–": "-", "µ": "u", "·": ".", "σ": "sigma", "α": "alpha", "→": "->",
           "…": "...", "✔": "ok"}


@contextmanager
def _stoppable() -> Iterator[None]:
    """Signals that stop the program end it as an exception does, so that all cleans up."""
    codes: list[int] = []

    def stop(number: int, frame: object) -> NoReturn:
        for each in STOPS:
            signal.signal(each, signal.SIG_IGN)  # nothing stops the cleaning
        if not codes:
            say("interrupted")
            codes.append(128 + number)
        raise SystemExit(codes[0])

    def swallowed(what: Any) -> None:
        # Raised in a destructor, from which Python goes on; hence once more, a little later.
        if what.exc_type is SystemExit:
            signal.signal(signal.SIGALRM, stop)
            signal.setitimer(signal.ITIMER_REAL, 0.01)

    sys.unraisablehook = swallowed
    before = {each: signal.getsignal(each) for each in STOPS}
    for each in STOPS:
        if before[each] != signal.SIG_IGN:  # as under nohup
            signal.signal(each, stop)
    try:
        yield
    finally:
        sys.unraisablehook = sys.__unraisablehook__
        if not codes:
            for each in STOPS:
                signal.signal(each, before[each])


def _given(option: Any) -> str:
    """The value that a faulty `option` was given; typer says only which values it may have."""
    words = [part for word in sys.argv for part in word.split("=", 1)]
    return next((f", not {value!r}" for name, value in pairwise(words)
                 if option is not None and name in option.opts), "")


def _code(app: typer.Typer) -> int:
    try:
        code = app(prog_name="n2uq-hw", standalone_mode=False)
        if sys.stdout:
            sys.stdout.flush()
        return int(code or 0)
    except SystemExit as end:
        if end.code != 1:  # a signal
            raise
        return 128 + signal.SIGPIPE  # typer met a pipe that nobody reads, and closed it
    except N2uqError as error:
        fault = str(error)
    except typer.TyperException as error:
        fault = error.format_message() + _given(getattr(error, "param", None))
        if not fault:  # no arguments: the help was printed
            return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except OSError as error:
        name = error.filename2 or error.filename
        fault = f"{name or 'standard output'}: {error.strerror or error}"
        if name is None:
            # Python would try to write the rest when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except MemoryError:
        fault = "memory: needed more than there is"
    say(f"error: {fault}")
    return 2


def _nearest(error: UnicodeError) -> tuple[str, int]:
    """What a terminal shows that lacks a character: the nearest in ASCII, or its escape."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(NEAREST.get(c) or ascii(c)[1:-1]
                   for c in error.object[error.start:error.end]), error.end


codecs.register_error("nearest", _nearest)


def run(app: typer.Typer) -> NoReturn:
    """Run `app` on this process's arguments, and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="nearest")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # such as for gateware that an error left unused
    with _stoppable():
        code = _code(app)
    sys.exit(code)
