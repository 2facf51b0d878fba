"""Vivado: IP-XACT, Tcl for packaging and for synthesis out of context, and figures read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .. import __version__
from ..builds.emit import Build
from ..errors import N2uqError
from ..files import read_text
from ..hw.accelerator import prefix
from ..hw.registers import registers_of
from ..templates import render
from .pins import CONTROL, pins, top

__all__ = ["files", "load_figures"]

COUNTS = ("lut", "lutram", "ff", "bram", "dsp")  # as `builds.synth.Resources` counts them
TEXTS = ("top", "part", "version")
NUMBERS = ("period_ns", "fmax_mhz", *COUNTS)
# What IP-XACT calls each access of `hw.registers`.
ACCESS = {"constant": "read-only", "counter": "read-only", "bit": "read-write",
          "pulse": "write-only", "live": "read-only",
          "sticky": "read-write"}


def files(build: Build) -> dict[str, str]:
    """`component.xml`, and the scripts `vivado/package_ip.tcl` and `vivado/ooc.tcl`."""
    listed = pins(build)
    streams = ["s_axis", "m_axis"]
    control = [pin.name.removeprefix(CONTROL) for pin in listed.values()
               if pin.name.startswith(CONTROL)]
    values = {
        "name": prefix(build.graph), "version": __version__, "top": top(build), "streams": streams,
        "pins": list(listed.values()), "control": control, "registers": registers_of(build.graph),
        "access": ACCESS, "interrupt": "interrupt" in listed,
        "region": 1 << listed[f"{CONTROL}awaddr"].bits if control else 0,
        "interfaces": streams + ["s_axi_control"] * bool(control),
        "verilog": [path.name for path in build.verilog if path.suffix == ".v"],
        "memories": [path.name for path in build.verilog if path.suffix == ".hex"]}
    return {"component.xml": render("component.xml.j2", **values),
            "vivado/package_ip.tcl": render("package_ip.tcl.j2", **values),
            "vivado/ooc.tcl": render("ooc.tcl.j2", **values)}


def load_figures(path: Path, build: Build) -> dict[str, Any]:
    """The figures that `vivado/ooc.tcl` wrote of `build`; raises N2uqError for what is none."""
    try:
        figures = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise N2uqError(f"{path}: must be the JSON that ooc.tcl wrote: {error}") from None
    if not isinstance(figures, dict):
        raise N2uqError(f"{path}: must be an object of figures, not {type(figures).__name__}")
    for name in TEXTS:
        if not isinstance(figures.get(name), str):
            raise N2uqError(f"{path}: {name} must be a text, not {figures.get(name)!r}")
    for name in NUMBERS:
        value: Any = figures.get(name)
        if type(value) not in (int, float) or not 0 <= value < float("inf"):
            raise N2uqError(f"{path}: {name} must be a number from 0 on, not {value!r}")
    if not figures["period_ns"]:
        raise N2uqError(f"{path}: period_ns must be above 0")
    if figures["top"] != top(build):
        raise N2uqError(f"{path}: must be of {top(build)}, not of {figures['top']}")
    return {name: figures[name] for name in (*TEXTS, *NUMBERS)}
