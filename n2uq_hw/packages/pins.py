"""The ports of a build's top module, as its Verilog declares them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..builds.emit import Build
from ..errors import N2uqError
from ..files import read_text
from ..hw.accelerator import WRAPPER, module_name

__all__ = ["CONTROL", "STREAMS", "Pin", "others", "pins", "top"]

STREAMS = {  # ports that every build has
    "aclk", "aresetn", "s_axis_tdata", "s_axis_tvalid", "s_axis_tready", "s_axis_tlast",
    "m_axis_tdata", "m_axis_tvalid", "m_axis_tready", "m_axis_tlast", "frame_error"}
CONTROL = "s_axi_control_"  # what ports of AXI4-Lite begin with, where a build has registers
_PORT = re.compile(r"^\s*(input|output)\s+(?:wire|reg)\s+(?:\[(\d+):0\]\s+)?(\w+),?$", re.MULTILINE)


@dataclass(frozen=True)
class Pin:
    """A port: "input" or "output", and its `bits`."""

    direction: str
    bits: int
    name: str

    @property
    def vector(self) -> str:
        """Its range in Verilog; "" of a single bit."""
        return f"[{self.bits - 1}:0]" if self.bits > 1 else ""


def top(build: Build) -> str:
    """The top module."""
    return module_name(build.graph, WRAPPER)


def pins(build: Build) -> dict[str, Pin]:
    """The ports of the top module by name, in their order; raises N2uqError without the streams."""
    path: Path = build.path / "rtl" / f"{top(build)}.v"
    listed = {name: Pin(direction, int(high or 0) + 1, name)
              for direction, high, name in _PORT.findall(read_text(path))}
    if missing := sorted(STREAMS - listed.keys()):
        raise N2uqError(f"{path}: must have port {missing[0]}, as it was built, and has none")
    return listed


def others(build: Build, direction: str) -> list[Pin]:
    """The ports of that direction beside clock, reset, streams and frame_error."""
    return [pin for pin in pins(build).values()
            if pin.direction == direction and pin.name not in STREAMS]
