"""Tables that are written while the network runs: two banks, and which of them an image uses.

A table [rows, width] lies in columns of at most `WORD` bits, each a memory of its own with both
banks in it, the bank the top bit of its address.  One is in use; the other is written.  A switch
makes them change places at the next image that enters the accelerator, and at that image in every
unit: each counts its images, and compares their number with that of the image at the input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Cat, ClockSignal, Instance, Module, Mux, Signal
from amaranth.hdl import Value as HdlValue
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..ir.folding import AUTO, BLOCK, LOGIC
from .library import Library
from .memory import Port, words
from .stream import wraps

__all__ = ["INDEX_BITS", "WORD", "Column", "Table", "Writable", "columns_of",
           "row_bits"]

WORD = 32       # bits of a column, as of a word on the bus
INDEX_BITS = 8  # of an image's number: fewer than 2**INDEX_BITS are inside at a time
# From so many words on, those of all columns, a table gets files: in the Verilog each has a line,
# together 16 kB, as from `memory.FILE_BITS` on.
FILE_WORDS = 2**9

ATTRIBUTES: dict[str, dict[str, str | int]] = {
    AUTO: {}, BLOCK: {"ram_style": "block"}, LOGIC: {"ram_style": "distributed"}}
FILLED = {"filled": 1}  # for rtlil.py, which else leaves the first values of a RAM out


@dataclass(frozen=True)
class Table:
    """Bits [rows, width] of the memory `name` of a unit, the first bit of a row low."""

    name: str
    bits: np.ndarray
    style: str = AUTO

    @property
    def columns(self) -> list[np.ndarray]:
        """The bits by column."""
        return np.split(self.bits, range(WORD, self.bits.shape[1], WORD), axis=1)


@dataclass(frozen=True)
class Column:
    """A memory on the bus: `values` of its rows, from word address `number`·2^n on."""

    number: int
    node: str
    table: str
    part: int
    width: int
    values: np.ndarray


def columns_of(units: dict[str, Any]) -> Iterator[Column]:
    """The columns of all units, by node, in the order of their numbers."""
    number = 0
    for node, unit in units.items():
        for table in unit.tables_:
            for part, bits in enumerate(table.columns):
                yield Column(number, node, table.name, part, bits.shape[1],
                             np.array(words(bits), np.uint32))
                number += 1


def row_bits(columns: Iterable[Column]) -> int:
    """Bits of the address of a row on the bus, in the longest column."""
    return max((len(column.values) - 1).bit_length() for column in columns)


def _row_bits(tables: list[Table]) -> int:
    """Bits of the address of a row, in the longest table."""
    return max((len(table.bits) - 1).bit_length() for table in tables)


class _Banks(memory.Memory):
    """A column of `bits`, in the text; or, with a name, in a file if the platform is a Library."""

    def __init__(self, name: str, bits: np.ndarray, attributes: dict[str, str | int]) -> None:
        self.name, self.bits = name, bits
        super().__init__(shape=bits.shape[1], depth=len(bits), init=words(bits),
                         attrs=FILLED | attributes)

    def elaborate(self, platform):
        if not self.name or not isinstance(platform, Library):
            return super().elaborate(platform)
        (read,), (write,) = self.read_ports, self.write_ports
        attributes = {name: value for name, value in self.attrs.items() if name not in FILLED}
        return Instance(platform.memory(self.name, self.bits, attributes, written=True),
                        i_clk=ClockSignal(), i_en=read.en, i_addr=read.addr, o_data=read.data,
                        i_write=write.en, i_write_addr=write.addr, i_write_data=write.data)


class Writable:
    """What a unit with tables has beside its streams: mixed into its class.

    Members
    -------
    tables_: its tables; none where nothing can be written.
    tables: where there are, the bus that writes them: an enable for each column, the row and the
        word; the bank in use by images from number `first` on, counted from the last reset.
    """

    tables_: list[Table]
    tables: Any

    @staticmethod
    def bus(tables: list[Table]) -> dict[str, wiring.Member]:
        """The port `tables` of a unit with these tables; none without."""
        if not tables:
            return {}
        return {"tables": In(wiring.Signature({
            "en": Out(sum(len(table.columns) for table in tables)), "row": Out(_row_bits(tables)),
            "data": Out(WORD), "bank": Out(1), "first": Out(INDEX_BITS)}))}

    def bank(self, m: Module, pixels: int, done: HdlValue) -> Signal:
        """The bank of the image at hand, of which `done` says that one of its `pixels` was read.

        An image's number is that at the input since reset, for none is lost.  The bank changes with
        it, in the cycle after the last read of the image before.
        """
        pixel, index = Signal(range(pixels)), Signal(INDEX_BITS)
        held, bank = Signal(name="bank_held"), Signal()
        last = wraps(m, pixel, pixels, done)
        with m.If(done & last):
            m.d.sync += index.eq(index + 1)
        m.d.comb += bank.eq(Mux(index == self.tables.first, self.tables.bank, held))
        m.d.sync += held.eq(bank)
        return bank

    def table(self, m: Module, name: str) -> Port:
        """The read port of table `name`, as `rom` gives it, with the bank above the row's address.

        A column is written in the bank that `tables.bank` does not name.
        """
        at, found = 0, None
        for table in self.tables_:
            if table.name == name:
                found = table
                break
            at += len(table.columns)
        assert found is not None
        depth = len(found.bits)
        size = (depth - 1).bit_length()
        addr, en = Signal(size + 1, name=f"{name}__addr"), Signal(name=f"{name}__en")
        parts = []
        in_file = (2**size + depth) * len(found.columns) >= FILE_WORDS
        for k, bits in enumerate(found.columns):
            banks = np.concatenate([np.pad(bits, ((0, 2**size - depth), (0, 0))), bits])
            m.submodules[f"{name}_{k}"] = column = _Banks(
                f"{name}_{k}" * in_file, banks, ATTRIBUTES[found.style])
            read, write = column.read_port(), column.write_port()
            m.d.comb += [
                read.addr.eq(addr), read.en.eq(en), write.en.eq(self.tables.en[at + k]),
                write.addr.eq(Cat(self.tables.row[:size], ~self.tables.bank)),
                write.data.eq(self.tables.data)]
            parts.append(read.data)
        return Port(addr, en, tuple(parts), (0,) * len(parts), WORD)
