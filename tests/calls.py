"""Calls of jobs, in a module that their processes can import by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

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


def counted(value: int, seconds: float, log: str) -> dict[str, Any]:
    """Takes so long; each call that ends leaves a line in `log`."""
    time.sleep(seconds)
    with Path(log).open("a") as file:
        file.write(f"{value}\n")
    return {"value": value, "text": "µ", "float": 0.1 * value}


def shipped(files: Path, array: np.ndarray, out: Path) -> dict[str, Any]:
    """What is in a folder and an array, and a file for each of the two."""
    text = {str(path.relative_to(files)): path.read_text() for path in sorted(files.rglob("*"))
            if path.is_file()} if files.is_dir() else {files.name: files.read_text()}
    total = int(array.sum())
    (out / f"{total}").mkdir(exist_ok=True)
    (out / f"{total}" / "sum.txt").write_text(str(total))
    return {"files": text, "sum": total}
