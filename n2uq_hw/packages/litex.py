"""LiteX: a module with streams and DMA, an example SoC, and its host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..builds.emit import Build, Port, folder_macro
from ..hw.accelerator import prefix
from ..templates import render
from .c import device
from .pins import CONTROL, Pin, others, top

__all__ = ["TCP", "Memory", "files", "memory_of"]

WORD = 32       # bits that its DMA moves at once
BUFFER = 2**16  # bytes of the example's memory, or more
TCP = 1234      # where its simulation listens

CHANNELS = ("aw", "ar", "w", "b", "r")  # of AXI4-Lite, longer names first


@dataclass(frozen=True)
class Memory:
    """How beats lie in memory: `bits` of each, `beats` of them in the words of an image."""

    bits: int
    beats: int
    octets: int


def memory_of(port: Port) -> Memory:
    """8, 16 or a multiple of 32 bits per beat, and whole words per image."""
    bits = next((bits for bits in (8, 16) if port.tdata <= bits), -(-port.tdata // WORD) * WORD)
    words = -(-port.beats * bits // WORD)
    return Memory(bits, words * WORD // bits, words * WORD // 8)


def files(build: Build) -> dict[str, str]:
    """`litex/n2uq_<name>.py`, `litex/soc.py` and `litex/host.py`."""
    told = device(build)
    source, output = memory_of(told["input"]), memory_of(told["output"])
    names = {pin.name for pin in (*others(build, "input"), *others(build, "output"))}
    control = [pin for way in ("input", "output") for pin in others(build, way)
               if pin.name.startswith(CONTROL)]
    values = told | {
        "prefix": prefix(build.graph), "top": top(build), "tcp": TCP,
        "stored_in": source.bits, "stored_out": output.bits, "padded_in": source.beats,
        "image_bytes": source.octets, "result_bytes": output.octets,
        "control_pins": [_connected(pin) for pin in control],
        "region": 1 << max((pin.bits for pin in control if pin.name.endswith("addr")), default=0),
        "folder": folder_macro(prefix(build.graph)),
        "memories": any(path.suffix == ".hex" for path in build.verilog),
        "interrupt": "interrupt" in names, "saturated": "saturated" in names,
        "buffer": max(BUFFER, 1 << (source.octets + output.octets - 1).bit_length())}
    return {f"litex/n2uq_{prefix(build.graph)}.py": render("litex_module.py.j2", **values),
            "litex/soc.py": render("litex_soc.py.j2", **values),
            "litex/host.py": render("litex_host.py.j2", **values)}


def _connected(pin: Pin) -> dict[str, Any]:
    """A port of AXI4-Lite, and the signal of `bus` that it is connected to."""
    signal = pin.name.removeprefix(CONTROL)
    channel = next(name for name in CHANNELS if signal.startswith(name))
    field = signal.removeprefix(channel)
    low = f"[:{pin.bits}]" if field == "addr" else ""  # of an address, those of its region
    return {"direction": pin.direction, "name": pin.name,
            "signal": f"self.bus.{channel}.{field}{low}"}
