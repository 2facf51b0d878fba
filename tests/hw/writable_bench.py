"""cocotb's side of test_writable: tables are written and switched while images run.

Which image is the first with other tables is told from docs/writable.md, not from the gateware:
that which begins in the cycle in which the switch is answered, or the next one to begin.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

CONTROL, TABLES = 0x18, 0x28
SWITCH, BUSY, BANK, REFUSED = 1, 2, 4, 8


class Bench:
    """The device, images without end on its streams, which stall, and a master on the bus."""

    def __init__(self, dut: Any, stalls: float) -> None:
        self.dut, self.stalls = dut, stalls
        self.plan = json.loads(Path("plan.json").read_text())
        self.rng = random.Random(self.plan["seed"])       # of the software
        self.streams = random.Random(self.plan["seed"])   # of images and stalls: the same each time
        self.sent: list[int] = []      # images by number
        self.tables: list[int] = []    # and what each must meet
        self.current, self.asked, self.bank = 0, None, 0
        self.got: list[int] = []
        self.cycles: list[int] = []    # of each beat that came
        self.steady = 0                # beats that came while images were offered
        self.cycle = 0
        self.running = True

    async def start(self) -> None:
        dut = self.dut
        dut.aresetn.value = 0
        for name in ("s_axis_tvalid", "s_axis_tlast", "m_axis_tready", "s_axis_tdata"):
            getattr(dut, name).value = 0
        cocotb.start_soon(Clock(dut.aclk, 10, "ns").start())
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi_control"), dut.aclk,
                                    dut.aresetn, reset_active_level=False)
        for bus in (self.master.write_if, self.master.read_if):
            bus.log.setLevel("WARNING")
        for _ in range(4):
            await RisingEdge(dut.aclk)
        dut.aresetn.value = 1
        cocotb.start_soon(self.traffic())

    async def traffic(self) -> None:
        """A cycle after the other: drive both streams, and look what moved."""
        dut, beats_in = self.dut, len(self.plan["images"][0])
        beat, offered, answered = 0, False, 0
        while True:
            await RisingEdge(dut.aclk)
            self.cycle += 1
            more = self.running or beat or offered
            if not offered and self.streams.random() >= self.stalls and more:
                if beat == 0:
                    self.image = self.streams.randrange(len(self.plan["images"]))
                dut.s_axis_tdata.value = self.plan["images"][self.image][beat]
                dut.s_axis_tlast.value = beat == beats_in - 1
                offered = True
            dut.s_axis_tvalid.value = offered
            dut.m_axis_tready.value = self.streams.random() >= self.stalls
            await FallingEdge(dut.aclk)
            answer = int(dut.s_axi_control_bvalid.value)
            if answer and not answered and self.asked is not None:
                self.current, self.asked, self.bank = self.asked, None, BANK - self.bank
            answered = answer
            if offered and dut.s_axis_tready.value:
                if beat == 0:
                    self.sent.append(self.image)
                    self.tables.append(self.current)
                beat, offered = (beat + 1) % beats_in, False
            if dut.m_axis_tvalid.value and dut.m_axis_tready.value:
                self.got.append(int(dut.m_axis_tdata.value))
                self.cycles.append(self.cycle)

    async def read(self) -> int:
        return int.from_bytes((await self.master.read(TABLES, 4)).data, "little")

    async def write(self, address: int, value: int) -> None:
        assert not (await self.master.write(address, value.to_bytes(4, "little"))).resp

    async def fill(self, which: int) -> None:
        """Write tables `which` in any order; half of the words are wrong at first."""
        words = list(self.plan["tables"][which])
        self.rng.shuffle(words)
        for address, value in words[:20]:
            await self.write(address, value ^ 0x5A5A5A5A)
        self.rng.shuffle(words)
        for address, value in words:
            await self.write(address, value)

    async def switch(self, which: int) -> None:
        """To tables `which`, which the other bank holds; waits until it is through."""
        self.asked = which
        await self.write(TABLES, SWITCH)
        assert self.asked is None
        while await self.read() & BUSY:
            pass

    async def quiet(self) -> None:
        """End after the image at hand, and compare all that came."""
        self.running, self.steady = False, len(self.got)
        right = []
        for _ in range(50_000):
            await RisingEdge(self.dut.aclk)
            if len(self.got) == len(self.sent) * len(self.plan["expected"][0][0]):
                break
        for image, tables in zip(self.sent, self.tables, strict=True):
            right += self.plan["expected"][tables][image]
        assert len(self.got) == len(right), f"{len(self.got)} beats, not {len(right)}"
        wrong = [k for k, pair in enumerate(zip(self.got, right, strict=True)) if len({*pair}) > 1]
        assert not wrong, f"beat {wrong[0]} is not golden's, and {len(wrong) - 1} more"

    async def images(self, count: int) -> None:
        """Wait until so many more have begun."""
        count += len(self.sent)
        while len(self.sent) < count:
            await RisingEdge(self.dut.aclk)


async def bench(dut: Any, stalls: float = 0.3, *, fresh: bool = False) -> Bench:
    """With tables 0, which a `fresh` simulator has; no reset brings back what was written over."""
    made = Bench(dut, stalls)
    made.running = fresh
    await made.start()
    if not fresh:
        await made.fill(0)
        await made.switch(0)
        made.running = True
    return made


@cocotb.test()
async def alone(dut: Any) -> None:
    """The traffic without a word on the bus: its cycles are kept."""
    b = await bench(dut, fresh=True)
    await b.images(b.plan["alone"])
    await b.quiet()
    Path("cycles.json").write_text(json.dumps(b.cycles))


@cocotb.test()
async def swapped(dut: Any) -> None:
    """Every bit of every image, before and after each switch; and each in the cycle of `alone`."""
    b = await bench(dut, fresh=True)
    await b.images(20)
    for which in (1, 2, 0, 2):
        await b.fill(which)
        await b.images(b.rng.randrange(3))
        await b.switch(which)
        await b.images(b.rng.randrange(5))
    assert not await b.read() & REFUSED
    await b.quiet()
    assert len({*b.tables}) == 3
    cycles = json.loads(Path("cycles.json").read_text())
    assert len(cycles) >= b.steady
    assert b.cycles[:b.steady] == cycles[:b.steady]


@cocotb.test()
async def back_and_forth(dut: Any) -> None:
    """Both banks are full, and are switched as fast as they can be."""
    b = await bench(dut, stalls=0.1)
    await b.fill(1)
    for which in (1, 0) * 30:
        await b.switch(which)
    await b.quiet()
    assert min(b.tables.count(which) for which in (0, 1)) > 10


@cocotb.test()
async def refused(dut: Any) -> None:
    """While a switch is not through, words and switches change nothing, and it is said."""
    b = await bench(dut, stalls=0.95)
    await b.fill(1)
    await b.images(2)
    b.asked = 1
    await b.write(TABLES, SWITCH)
    assert await b.read() == BUSY | b.bank
    await b.write(*b.plan["tables"][2][0])
    assert await b.read() & REFUSED
    await b.write(TABLES, SWITCH)
    assert await b.read() & ~BUSY == b.bank | REFUSED
    await b.write(TABLES, REFUSED)
    assert not await b.read() & REFUSED
    while await b.read() & BUSY:
        pass
    await b.master.write(b.plan["tables"][2][0][0], b"\0")  # a byte of a word
    assert await b.read() == b.bank | REFUSED
    await b.fill(0)
    await b.switch(0)
    await b.quiet()


@cocotb.test()
async def soft_reset(dut: Any) -> None:
    """Keeps the tables, and the bank in use; images are counted anew."""
    b = await bench(dut)
    await b.fill(1)
    await b.switch(1)
    await b.images(3)
    await b.quiet()
    for which in (1, 0):
        await b.write(CONTROL, 1)
        if which != b.current:
            b.asked = which
            await b.write(TABLES, SWITCH)
        await b.write(CONTROL, 0)
        assert await b.read() == b.bank
        b.running = True
        await b.images(3)
        await b.quiet()


@cocotb.test()
async def no_word(dut: Any) -> None:
    """An address beyond the tables is answered with SLVERR."""
    b = await bench(dut)
    last = max(address for address, _ in b.plan["tables"][0])
    assert (await b.master.write(b.plan["end"], b"\0\0\0\0")).resp == 2
    assert (await b.master.read(last, 4)).resp == 2
    assert not (await b.master.write(last, b"\0\0\0\0")).resp
    b.running = False


@cocotb.test()
async def miswritten(dut: Any) -> None:
    """Must fail: a bit of a word is wrong."""
    b = await bench(dut)
    await b.fill(1)
    address, value = b.plan["tables"][1][-1]
    await b.write(address, value ^ (1 << 20))
    await b.switch(1)
    await b.images(40)
    await b.quiet()
