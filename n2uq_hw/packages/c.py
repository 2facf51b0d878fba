"""A header for C and C++: images into beats, beats into results, and a driver of the registers."""

from __future__ import annotations

import re
from typing import Any

from .. import __version__
from ..builds.emit import Build, Port, ports
from ..builds.tables import HEADER, MAGIC
from ..hw.accelerator import prefix
from ..hw.registers import identity, registers_of
from ..ir import Graph
from ..templates import render

__all__ = ["device", "files"]


def files(build: Build) -> dict[str, str]:
    """`c/n2uq_<name>.h`, which needs nothing but <stddef.h> and <stdint.h>.

    C99 and C++11.  The driver of the registers is in it where the build has them.
    """
    name = f"n2uq_{prefix(build.graph)}"
    text = render("driver.h.j2", **device(build), p=name, P=name.upper(),
                  types=[_c_type(port) for port in ports(build.graph, build.folding)])
    return {f"c/{name}.h": text}


def device(build: Build) -> dict[str, Any]:
    """What a driver of `build` must know, in any language."""
    graph = build.graph
    source, output = ports(graph, build.folding)
    constants = identity(graph, __version__)
    return {"name": re.sub(r"[^\w .,()+-]", "_", graph.name), "version": __version__,
            "input": source, "output": output,
            "scale": float(graph.meta.get("output_scale", 1.0)), "meaning": _meaning(graph),
            "tables": {"header": HEADER, "magic": f"0x{MAGIC:08X}"},
            "control": build.control, "registers": registers_of(graph), "constants": constants,
            "offsets": {register.name: register.offset for register in registers_of(graph)}}


def _meaning(graph: Graph) -> str:
    """What a result is: a "class", "logits" of one image, else "values"."""
    said = graph.meta.get("output", "logits")
    vector = graph.edges[graph.output].shape[:2] == (1, 1)
    return str(said) if vector and said in ("class", "logits") else "values"


def _c_type(port: Port) -> str:
    """The narrowest integer type that holds an element."""
    bits = next(bits for bits in (8, 16, 32, 64) if port.width <= bits)
    return f"{'' if port.signed else 'u'}int{bits}_t"
