"""An AXI4-Lite slave beside the accelerator: its identity, counters, reset and interrupt."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.hdl import Value as HdlValue
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .registers import ADDRESS_BITS, COUNTERS, EXTERNAL, REGISTERS, TABLES, Field, Region
from .writable import INDEX_BITS, WORD

__all__ = ["ControlUnit", "bus"]

OKAY, SLVERR = 0, 2  # responses


def bus(address_bits: int = ADDRESS_BITS) -> list[tuple[str, int, str]]:
    """The signals of an AXI4-Lite slave: direction in Verilog, bits, name without a prefix.

    The slave looks at no `prot`.
    """
    def way(letter: str, outwards: bool, **payload: int) -> list[tuple[str, int, str]]:
        there, back = ("output", "input") if outwards else ("input", "output")
        return [*((there, bits, letter + name) for name, bits in payload.items()),
                (there, 1, f"{letter}valid"), (back, 1, f"{letter}ready")]
    return [*way("aw", False, addr=address_bits, prot=3), *way("w", False, data=32, strb=4),
            *way("b", True, resp=2), *way("ar", False, addr=address_bits, prot=3),
            *way("r", True, data=32, resp=2)]


class ControlUnit(wiring.Component):
    """The registers of `registers.REGISTERS` behind AXI4-Lite, and the way to the tables above.

    A read is answered a cycle after its address was taken, a write a cycle after both of its halves
    were, which may come in any order; the next is taken when the answer was.  So at most a read
    every 2 cycles, and a write every 3.  An address without a register is answered with SLVERR, a
    write to what cannot be written is ignored.  Bits 1..0 of addresses are ignored.

    Members
    -------
    aw*, w*, b*, ar*, r*: the channels of AXI4-Lite, 32 bits of data.
    starved, blocked, images_in, images_out: high in cycles that count.
    saturated: the accelerator's own counter.
    frame_error_set, image_done_set: high in a cycle in which this happened.
    soft_reset: high while the accelerator is to be in reset; from the cycle after the write on.
    frame_error, interrupt: as the registers say.
    image_begins: of an accelerator with tables, high in the cycle of an image's first beat.
    hold: of that, high while no image may begin, for too many are inside.
    tables_*: to `Accelerator.tables`.

    Parameters
    ----------
    constants: numbers of the build, as `registers.identity` gives them.
    region: where tables lie, of an accelerator that has them.
    """

    def __init__(self, constants: Mapping[str, int], region: Region | None = None) -> None:
        self.constants, self.region = constants, region
        self.registers = (*REGISTERS, TABLES) if region else REGISTERS
        self.address_bits = region.address_bits if region else ADDRESS_BITS
        more = {} if region is None else {
            "image_begins": In(1), "hold": Out(1), "tables_write": Out(1),
            "tables_address": Out((region.words - 1).bit_length()), "tables_data": Out(WORD),
            "tables_bank": Out(1), "tables_first": Out(INDEX_BITS)}
        counted = {name: In(width if name in EXTERNAL else 1)
                   for name, (width, _) in COUNTERS.items() if name != "cycles"}
        super().__init__({
            **{name: In(bits) if flow == "input" else Out(bits)
               for flow, bits, name in bus(self.address_bits) if not name.endswith("prot")},
            **counted, "frame_error_set": In(1), "image_done_set": In(1),
            "soft_reset": Out(1), "frame_error": Out(1), "interrupt": Out(1), **more})

    def elaborate(self, platform):
        m = Module()
        written = self._writes(m)
        pulses = {name: Signal(name=name) for name in ("snapshot", "clear")}
        kept: dict[str, Signal] = {
            "soft_reset": self.soft_reset, "frame_error": self.frame_error,
            "interrupt_enable": Signal(name="interrupt_enable"),
            "image_done": Signal(name="image_done")}
        signals = {**kept, **pulses, **self._counters(m, pulses["snapshot"], pulses["clear"])}
        if self.region:
            signals.update(self._tables(m, self.region, *self._word))
        shown = {}
        for register in self.registers:
            word = Signal(32, name=f"{register.name}_word")
            for field in register.fields:
                bits = slice(field.low, field.low + field.width)
                if field.access == "constant":
                    m.d.comb += word[bits].eq(self.constants[field.source] >> field.at)
                    continue
                source = signals[field.source]
                if field.access != "pulse":
                    m.d.comb += word[bits].eq(source[field.at:field.at + field.width])
                if field.access not in ("counter", "live"):
                    data, strobe = written[register.offset]
                    self._write(m, field, source, data[bits], strobe[bits])
            shown[register.offset] = word
        m.d.comb += self.interrupt.eq(kept["interrupt_enable"] & kept["image_done"])
        self._reads(m, shown)
        return m

    def _write(self, m: Module, field: Field, kept: Signal, data: HdlValue, strobe: HdlValue
               ) -> None:
        """What becomes of a field where software writes `data`, of which `strobe` has ones."""
        if field.access == "pulse":
            m.d.comb += kept.eq(data & strobe)
        elif field.access == "bit":
            m.d.sync += kept.eq((kept & ~strobe) | (data & strobe))
        else:
            happened = getattr(self, f"{field.source}_set")
            m.d.sync += kept.eq(((kept & ~(data & strobe)) | happened) & ~self.soft_reset)

    def _counters(self, m: Module, snapshot: Signal, clear: Signal) -> dict[str, Signal]:
        """Count, and what the last snapshot took of each."""
        taken = {}
        for name, (width, _) in COUNTERS.items():
            taken[name] = Signal(width, name=f"{name}_taken")
            if name in EXTERNAL:
                count = getattr(self, name)
            else:
                count = Signal(width, name=f"{name}_count")
                event = Const(1, 1) if name == "cycles" else getattr(self, name)
                with m.If(clear):
                    m.d.sync += count.eq(event)
                with m.Else():
                    m.d.sync += count.eq(count + event)
            with m.If(snapshot):
                m.d.sync += taken[name].eq(count)
        return taken

    def _writes(self, m: Module) -> dict[int, tuple[HdlValue, HdlValue]]:
        """The write channels; returns data, and ones where they are written, for each register."""
        address, has_address, has_data = Signal(self.address_bits - 2), Signal(), Signal()
        data, strobe, writes = Signal(32), Signal(4), Signal()
        m.d.comb += [self.awready.eq(~has_address & ~self.bvalid),
                     self.wready.eq(~has_data & ~self.bvalid),
                     writes.eq(has_address & has_data)]
        with m.If(self.awvalid & self.awready):
            m.d.sync += [address.eq(self.awaddr[2:]), has_address.eq(1)]
        with m.If(self.wvalid & self.wready):
            m.d.sync += [data.eq(self.wdata), strobe.eq(self.wstrb), has_data.eq(1)]
        with m.If(writes):
            m.d.sync += [has_address.eq(0), has_data.eq(0), self.bvalid.eq(1),
                         self.bresp.eq(SLVERR)]
        with m.Elif(self.bready):
            m.d.sync += self.bvalid.eq(0)
        written: dict[int, tuple[HdlValue, HdlValue]] = {}
        for register in self.registers:
            chosen = Signal(name=f"{register.name}_written")
            m.d.comb += chosen.eq(writes & (address == register.offset >> 2))
            with m.If(chosen):
                m.d.sync += self.bresp.eq(OKAY)
            written[register.offset] = data, Cat((bit & chosen).replicate(8) for bit in strobe)
        if self.region:
            inside = Signal(name="table_written")
            m.d.comb += [inside.eq(writes & address[-1] & (address[:-1] < self.region.words)),
                         self.tables_address.eq(address), self.tables_data.eq(data)]
            with m.If(inside):
                m.d.sync += self.bresp.eq(OKAY)
            self._word = inside, strobe.all()
        return written

    def _tables(self, m: Module, region: Region, written: HdlValue, whole: HdlValue
                ) -> dict[str, Signal]:
        """Which bank is in use, and from which image on.

        Images have numbers since reset.  `first` is that of the image which begins next, when the
        banks change places; until all before it have left, nothing is written and nothing switched.
        """
        begun, ended = (Signal(INDEX_BITS, name=name) for name in ("begun", "ended"))
        switch, busy, refused = (Signal(name=name) for name in ("switch", "busy", "refused"))
        self.refused_set = Signal(name="refused_set")
        m.d.comb += [
            self.hold.eq((begun + 1 - ended)[:INDEX_BITS] == 0),
            self.tables_write.eq(written & whole & ~busy),
            self.refused_set.eq((written & (busy | ~whole)) | (switch & busy))]
        m.d.sync += [begun.eq(begun + self.image_begins), ended.eq(ended + self.images_out)]
        with m.If(switch & ~busy):
            m.d.sync += [self.tables_bank.eq(~self.tables_bank), busy.eq(1),
                         self.tables_first.eq(begun + self.image_begins)]
        with m.Elif(ended == self.tables_first):
            m.d.sync += busy.eq(0)
        with m.If(self.soft_reset):
            m.d.sync += [signal.eq(0) for signal in (begun, ended, self.tables_first, busy)]
        return {"switch": switch, "busy": busy, "bank": self.tables_bank, "refused": refused}

    def _reads(self, m: Module, shown: Mapping[int, Signal]) -> None:
        """The read channels, with the word of each register."""
        m.d.comb += self.arready.eq(~self.rvalid)
        with m.If(self.arvalid & self.arready):
            m.d.sync += [self.rvalid.eq(1), self.rdata.eq(0), self.rresp.eq(SLVERR)]
            with m.Switch(self.araddr[2:]):
                for offset, word in shown.items():
                    with m.Case(offset >> 2):
                        m.d.sync += [self.rdata.eq(word), self.rresp.eq(OKAY)]
        with m.Elif(self.rready):
            m.d.sync += self.rvalid.eq(0)
