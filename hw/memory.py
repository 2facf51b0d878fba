"""Read-only memories: in the Verilog text while small, in a hex file beside it when large."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from amaranth.hdl import Cat, ClockSignal, Instance, Module, Signal
from amaranth.hdl import Value as HdlValue
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..ir.folding import AUTO, BLOCK, LOGIC
from .library import Library

__all__ = ["ATTRIBUTES", "FILE_BITS", "bits_of", "hex_rows", "rom", "words"]

# From here on a memory gets a file: 16 kB of digits, which nobody reads in the Verilog any more,
# and less than the largest Verilog module around it.
FILE_BITS = 2**16

# Up to here no family's synthesis takes block RAM of its own accord.
LOGIC_BITS = 2**11

WIDEST = 2**15  # bits of a word; of a wider one memories lie side by side, for Amaranth has a limit

# What synthesis reads of a style (`folding.MEMORIES`): Xilinx's attribute, which Yosys knows too,
# and that of IEEE 1364.1, for Xilinx's name of a ROM in logic means LUT RAM to Yosys.
ATTRIBUTES: dict[str, dict[str, str | int]] = {
    AUTO: {}, BLOCK: {"rom_style": "block"}, LOGIC: {"logic_block": 1}}

_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


def bits_of(values: np.ndarray, width: int) -> np.ndarray:
    """Unsigned `values` [rows, n] of `width` bits as uint8 bits [rows, n·width], first one low."""
    bits = np.empty((*values.shape, width), np.uint8)
    for place in range(width):
        bits[:, :, place] = values >> values.dtype.type(place) & 1
    return bits.reshape(len(values), -1)


def words(bits: np.ndarray) -> list[int]:
    """One integer for each row of `bits` [rows, width], the first bit lowest."""
    return [int.from_bytes(row.tobytes(), "little")
            for row in np.packbits(bits, axis=1, bitorder="little")]


def hex_rows(bits: np.ndarray) -> bytes:
    """The text that $readmemh reads: ``⌈width/4⌉`` hex digits a row of `bits` [rows, width]."""
    rows, width = bits.shape
    digits = -(-width // 4)
    low = np.packbits(bits, axis=1, bitorder="little")
    nibbles = np.stack([low & 15, low >> 4], axis=2).reshape(rows, -1)[:, :digits]
    text = np.full((rows, digits + 1), ord("\n"), np.uint8)
    text[:, :-1] = _DIGITS[nibbles[:, ::-1]]
    return text.tobytes()


@dataclass(frozen=True)
class Port:
    """The read port of a ROM, `addr` and `en`; a row is that of its `parts`, `widest` bits each,
    WIDEST if 0; `ones` are the bits of each that are 1 in all rows.
    """

    addr: Any
    en: Any
    parts: tuple[Any, ...]
    ones: tuple[int, ...]
    widest: int = 0

    @property
    def data(self) -> HdlValue:
        """The row."""
        return Cat(self.parts)

    def word(self, k: int, width: int) -> HdlValue:
        """Bits ``k·width`` to ``(k + 1)·width`` of the row.

        Of the parts that have some alone: what Amaranth does to an expression, it does to all of
        it, and again wherever it is used.
        """
        start, end = k * width, (k + 1) * width
        widest = self.widest or WIDEST
        first, last = start // widest, -(-end // widest)
        return Cat(part[max(start - at * widest, 0):end - at * widest]
                   for at, part in enumerate(self.parts[first:last], first))

    def registered(self, m: Module, name: str) -> Port:
        """The port with a register behind it: a row two cycles after its address.

        Logic gets a whole cycle then, where block RAM alone takes most of one.  Bits that never
        change start as they are, so that synthesis finds them.
        """
        parts = [Signal(len(part), name=f"{name}__row_{k}", init=ones, reset_less=True)
                 for k, (part, ones) in enumerate(zip(self.parts, self.ones, strict=True))]
        with m.If(self.en):
            m.d.sync += [row.eq(part) for row, part in zip(parts, self.parts, strict=True)]
        return replace(self, parts=tuple(parts))


def rom(m: Module, name: str, bits: np.ndarray, platform: Any, style: str = AUTO) -> Port:
    """The port of a ROM that becomes submodule `name` of `m`, or submodules if it is wide.

    It gives the row of `bits` [depth, width] at `addr`, one cycle after, and holds while `en` is
    low.  Of a ROM in logic the address is held, not the row: what makes the address and the ROM
    itself have a cycle each if the port is `registered`, for fewer flip-flops.  From FILE_BITS bits
    on, if `platform` is a Library, the ROM is a module that reads the file which the Library's user
    writes; else its contents are part of `m`.  `style` says whether synthesis may choose, "auto",
    or must take "block" RAM or "logic".
    """
    depth, width = bits.shape
    ones = tuple(words(np.atleast_2d(bits.all(axis=0))[:, at:at + WIDEST])[0]
                 for at in range(0, max(width, 1), WIDEST))
    if width <= WIDEST:
        port = _part(m, name, bits, platform, style)
        return Port(port.addr, port.en, (port.data,), ones)
    addr, en = Signal(range(depth), name=f"{name}__addr"), Signal(name=f"{name}__en")
    parts = [_part(m, f"{name}_{k}", part, platform, style) for k, part in enumerate(
        np.split(bits, range(WIDEST, width, WIDEST), axis=1))]
    m.d.comb += [each for part in parts for each in (part.addr.eq(addr), part.en.eq(en))]
    return Port(addr, en, tuple(part.data for part in parts), ones)


def _part(m: Module, name: str, bits: np.ndarray, platform: Any, style: str) -> Any:
    """The port, `addr`, `en` and `data`, of a ROM of rows of at most WIDEST bits."""
    depth, width = bits.shape
    port: Any = wiring.Signature({"addr": In(range(depth)), "en": In(1), "data": Out(width)}
                                 ).create(path=(name,))
    if not isinstance(platform, Library) or bits.size < FILE_BITS or depth == 1:
        m.submodules[name] = table = memory.Memory(
            shape=width, depth=depth, init=words(bits),
            attrs=ATTRIBUTES[style] if depth > 1 else {})
        if style == BLOCK or (style == AUTO and bits.size > LOGIC_BITS):
            port = table.read_port()  # is named as this variable
            return port
        read = table.read_port(domain="comb")
        held = Signal(range(depth), name=f"{name}__held")
        with m.If(port.en):
            m.d.sync += held.eq(port.addr)
        m.d.comb += [read.addr.eq(held), port.data.eq(read.data)]
        return port
    m.submodules[name] = Instance(platform.memory(name, bits, ATTRIBUTES[style]),
                                  i_clk=ClockSignal(), i_en=port.en, i_addr=port.addr,
                                  o_data=port.data)
    return port
