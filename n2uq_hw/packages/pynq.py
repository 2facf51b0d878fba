"""A driver for PYNQ: overlay, DMA and registers from Python on the board."""

from __future__ import annotations

from ..builds.emit import Build
from ..hw.accelerator import WRAPPER, module_name
from ..templates import render
from .c import device

__all__ = ["files"]


def files(build: Build) -> dict[str, str]:
    """`pynq/driver.py`, which needs NumPy and pynq alone."""
    wrapper = module_name(build.graph, WRAPPER)
    return {"pynq/driver.py": render("driver.py.j2", **device(build), wrapper=wrapper)}
