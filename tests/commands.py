"""The command line as a process, and what tests ask of its outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "n2uq_hw"]


def child(folder: Path, *arguments: str, code: int = 0, **env: str
          ) -> subprocess.CompletedProcess[str]:
    """The command line as a process in `folder`."""
    done = subprocess.run([*COMMAND, *arguments], cwd=folder, env={**os.environ, **env},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def strict(text: str) -> Any:
    """JSON without the NaN and the infinities that Python lets pass."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def fault(result: tuple[int, str, str]) -> str:
    """What follows "error: " of a result that is one printable line and no more."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.endswith("\n") and err[:-1].isprintable()
    return err[len("error: "):-1]
