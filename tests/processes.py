"""The processes that a test started, and theirs, by a mark in the environment of them all."""

from __future__ import annotations

import time
from pathlib import Path


def marked(mark: str) -> list[str]:
    """The command lines of all running processes with `mark` in their environment."""
    return [_read(path.with_name("cmdline")) for path in Path("/proc").glob("[0-9]*/environ")
            if mark in _read(path)]


def left(mark: str, seconds: float) -> list[str]:
    """Those that are there still when so much time has passed."""
    until = time.monotonic() + seconds
    while (running := marked(mark)) and time.monotonic() < until:
        time.sleep(0.02)
    return running


def _read(path: Path) -> str:
    """A file of a process; "" for one of others, or one that has ended."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
