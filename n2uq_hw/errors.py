"""The one exception that users meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["N2uqError", "check_range", "installed"]


class N2uqError(Exception):
    """A fault in what the user gave or has: one line that names the thing, the rule and the value.

    The command line prints it without a traceback and exits with code 2.
    """


def check_range(name: str, value: Any, least: float, most: float, unit: str = "") -> None:
    """Raise N2uqError unless `value` is a number in `least`..`most`; NaN and text are not."""
    if not isinstance(value, int | float) or not least <= value <= most:
        raise N2uqError(f"{name} must be in {least:,.15g}..{most:,.15g}{' ' * bool(unit)}{unit}, "
                        + (f"not {value:.15g}" if isinstance(value, int | float)
                           else f"not {value!r}"))


@contextmanager
def installed(purpose: str, extra: str) -> Iterator[None]:
    """Imports of what is in the `extra` of the package: raise N2uqError where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise N2uqError(f"{error.name}: needed {purpose}, and not installed "
                        f"(pip install 'n2uq-hw[{extra}]')") from None
