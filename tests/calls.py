"""Calls of jobs, in a module that their processes can import by name."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from n2uq_hw.errors import N2uqError


def number(value: int) -> dict[str, Any]:
    return {"value": value, "pair": (value, value)}


def dies() -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def raises() -> dict[str, Any]:
    raise ZeroDivisionError("all\ngone")


def faulty() -> dict[str, Any]:
    raise N2uqError("x must be 1, not 2")


class Lingers:
    def __del__(self) -> None:
        time.sleep(20)


def lingers() -> dict[str, Any]:
    Lingers()
    time.sleep(20)
    return {}
