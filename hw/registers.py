"""The registers of the AXI4-Lite slave: one table, of which gateware, drivers and docs are made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ..ir import Graph, is_writable
from .passes import saturates

__all__ = ["ACCESSES", "ADDRESS_BITS", "COUNTERS", "EXTERNAL", "MAGIC", "MAP_VERSION", "REGISTERS",
           "TABLES", "Access", "Field", "Region", "Register", "identity",
           "registers_of"]

ADDRESS_BITS = 12   # of the region of registers, 4 KiB; what lies above is for other regions
MAGIC = 0x4E325551  # "N2UQ" in ASCII, N in the high byte
MAP_VERSION = 1     # goes up when a register moves or changes its meaning

Access = Literal["constant", "counter", "bit", "pulse", "sticky", "live"]
ACCESSES: dict[Access, str] = {  # what software may do with a field
    "constant": "read", "counter": "read", "bit": "read, write", "pulse": "write 1",
    "sticky": "read, write 1 to clear", "live": "read"}


@dataclass(frozen=True)
class Field:
    """`width` bits of a register from bit `low` on.

    Members
    -------
    access: "constant", a number of the build; "counter", what the last snapshot took; "bit", as it
        was written; "pulse", which acts in the cycle after it is written as 1, and reads as 0;
        "sticky", set by the hardware and cleared by writing 1; where both happen in a cycle, set;
        "live", what the hardware shows.
    source, at: the signal that the field shows, from its bit `at` on.
    """

    name: str
    low: int
    width: int
    access: Access
    text: str
    source: str = ""
    at: int = 0

    @property
    def bits(self) -> str:
        """Such as 31:0, or 2."""
        return f"{self.low + self.width - 1}:{self.low}" if self.width > 1 else str(self.low)

    @property
    def mask(self) -> int:
        """Its bits as ones."""
        return ((1 << self.width) - 1) << self.low


@dataclass(frozen=True)
class Register:
    """32 bits at byte address `offset`; bits of no field read as 0."""

    name: str
    offset: int
    fields: tuple[Field, ...]

    def constant(self, constants: Mapping[str, int]) -> int:
        """What its constant fields read as, by the numbers that `identity` gives."""
        return sum((constants[field.source] >> field.at << field.low) & field.mask
                   for field in self.fields if field.access == "constant")


# The width of each counter, and what it counts.  Those of 64 bits never wrap; the others wrap at
# 2**32, but `saturated` stays there.
COUNTERS: dict[str, tuple[int, str]] = {
    "cycles": (64, "clock cycles"),
    "images_in": (32, "images taken, by their last beat"),
    "images_out": (32, "images given, by their last beat"),
    "starved": (64, "cycles in which the input was ready and nothing was offered"),
    "blocked": (64, "cycles in which the output offered a beat and nobody took it"),
    "saturated": (32, "elements that left the range of their format and were held in it, since the "
                      "last reset of either kind; 0 in a network that is not calibrated"),
}
# Of these the slave counts itself; `saturated` is counted in the accelerator.
EXTERNAL = ("saturated",)


def _constant(name: str, text: str, source: str, at: int = 0) -> tuple[Field, ...]:
    return (Field(name, 0, 32, "constant", text, source, at),)


def _counter_registers(first: int) -> Iterator[Register]:
    """A register, or two, low before high, for each counter; each in 8 bytes of its own."""
    for k, (name, (width, text)) in enumerate(COUNTERS.items()):
        for at in range(0, width, 32):
            half = "" if width == 32 else ("_low", "_high")[at // 32]
            words = text if width == 32 else f"{text}; bits {at + 31}..{at}"
            yield Register(name + half, first + 8 * k + at // 8, (
                Field("count", 0, 32, "counter", words, name, at),))


REGISTERS: tuple[Register, ...] = (
    Register("id", 0x00, _constant("magic", "N2UQ in ASCII, N in the high byte", "magic")),
    Register("map_version", 0x04, _constant(
        "version", "version of this table", "map_version")),
    Register("package_version", 0x08, (
        Field("patch", 0, 8, "constant", "third number of the n2uq-hw version", "version"),
        Field("minor", 8, 8, "constant", "second number", "version", 8),
        Field("major", 16, 8, "constant", "first number", "version", 16))),
    Register("features", 0x0C, (
        Field("saturated", 0, 1, "constant", "whether the network counts saturated elements",
              "features"),)),
    Register("hash_low", 0x10, _constant(
        "hash", "SHA-256 of the integer graph, hexadecimal digits 9 to 16", "hash")),
    Register("hash_high", 0x14, _constant("hash", "digits 1 to 8", "hash", 32)),
    Register("control", 0x18, (
        Field("reset", 0, 1, "bit", "while 1, the accelerator is in reset and both streams refuse; "
              "images inside are lost, frame_error and image_done are 0", "soft_reset"),
        Field("snapshot", 1, 1, "pulse", "copy all counters, as they are in one cycle, to where "
              "they are read", "snapshot"),
        Field("clear", 2, 1, "pulse", "counters but saturated begin at 0; with snapshot, that "
              "takes what they held, and no event is lost or counted twice", "clear"))),
    Register("status", 0x1C, (
        Field("frame_error", 0, 1, "sticky", "s_axis_tlast was not with exactly the last beat of "
              "an image", "frame_error"),)),
    Register("interrupt_enable", 0x20, (
        Field("image_done", 0, 1, "bit", "interrupt is high while this bit and that of "
              "interrupt_status are 1", "interrupt_enable"),)),
    Register("interrupt_status", 0x24, (
        Field("image_done", 0, 1, "sticky", "the last beat of a result was taken", "image_done"),)),
    *_counter_registers(0x40),
)


# Beside those, of an accelerator with parameters that can be written.
TABLES = Register("tables", 0x28, (
    Field("switch", 0, 1, "pulse", "the two banks change places at the next image that begins; "
          "ignored while busy is 1", "switch"),
    Field("busy", 1, 1, "live", "images that began before the last switch are inside, and use the "
          "bank that is not to be written yet", "busy"),
    Field("bank", 2, 1, "live", "the bank that images use which begin now; the other is written",
          "bank"),
    Field("refused", 3, 1, "sticky", "a word or a switch was ignored, for busy was 1 or not all "
          "bytes of the word were written", "refused")))


def registers_of(graph: Graph) -> tuple[Register, ...]:
    """The registers of the accelerator of `graph`."""
    return (*REGISTERS, *([TABLES] if is_writable(graph) else []))


@dataclass(frozen=True)
class Region:
    """Where the words of the tables lie on the bus: `columns` of ``2**row_bits`` words each."""

    columns: int
    row_bits: int

    @property
    def words(self) -> int:
        """All words, those included that columns of fewer rows lack."""
        return self.columns << self.row_bits

    @property
    def first(self) -> int:
        """Byte address of the first word: 0x1000, or that power of two which holds all words."""
        return max(1 << ADDRESS_BITS, 4 << (self.words - 1).bit_length())

    @property
    def address_bits(self) -> int:
        """Of an address on the bus."""
        return self.first.bit_length()


def identity(graph: Graph, version: str) -> dict[str, int]:
    """The constants of a build of `graph` by n2uq-hw `version`, by the source of their fields."""
    numbers = (*map(int, re.findall(r"\d+", version)), 0, 0, 0)[:3]
    major, minor, patch = (min(number, 255) for number in numbers)
    return {"magic": MAGIC, "map_version": MAP_VERSION,
            "version": major << 16 | minor << 8 | patch, "features": int(saturates(graph)),
            "hash": int(graph.digest[:16], 16)}
