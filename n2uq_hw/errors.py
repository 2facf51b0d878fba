"""The one exception that users meet."""

from __future__ import annotations

from typing import Any

__all__ = ["N2uqError", "check_range"]


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
