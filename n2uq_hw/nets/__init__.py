"""Trained networks that ship with the package, and the table of what they reach."""

from __future__ import annotations

from pathlib import Path

from ..errors import N2uqError
from ..model import Net, load_net

__all__ = ["ACCURACY", "find_net", "shipped"]

ACCURACY = Path(__file__).parent / "accuracy.json"  # what `n2uq-hw nets --measure` found


def shipped() -> dict[str, Path]:
    """The shipped net files by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.safetensors"))}


def find_net(name: str) -> Net:
    """The net that `name` means: a shipped one, or a file."""
    if name in shipped():
        return load_net(shipped()[name])
    if Path(name).suffix or Path(name).exists():
        return load_net(Path(name))
    raise N2uqError(f"net must be a file or one of {', '.join(shipped())}, not {name}")
