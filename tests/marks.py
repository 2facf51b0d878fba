"""Which of a test's parameters run in the fast tests; `make test-slow` runs the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

__all__ = ["few"]


def few(values: Iterable[Any], quick: Callable[[Any], bool]) -> list[Any]:
    """`values` as parameters, slow but for those that are `quick`; tuples are many at once."""
    return [value if quick(value) else pytest.param(
        *(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in values]
