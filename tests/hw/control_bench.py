"""cocotb's side of test_control: a model of the registers that is asked in every cycle.

The model is written from docs/control.md, not from the gateware.  `plan.json` says what images
are sent, what must come, and the constants.
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

CONTROL, STATUS, ENABLE, INTERRUPT = 0x18, 0x1C, 0x20, 0x24
COUNTERS = {"cycles": (0x40, 64), "images_in": (0x48, 32), "images_out": (0x50, 32),
            "starved": (0x58, 64), "blocked": (0x60, 64), "saturated": (0x68, 32)}
BUS = {"aw": "addr valid ready", "w": "data strb valid ready", "b": "resp valid ready",
       "ar": "addr valid ready", "r": "data resp valid ready"}
SIGNALS = [*(f"s_axi_control_{channel}{name}" for channel, names in BUS.items()
             for name in names.split()),
           "s_axis_tvalid", "s_axis_tready", "s_axis_tlast", "m_axis_tvalid", "m_axis_tready",
           "m_axis_tlast", "m_axis_tdata", "saturated", "frame_error", "interrupt"]


class Model:
    """The registers as documented, a clock edge at a time."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.constants = {int(offset): value for offset, value in plan["constants"].items()}
        self.beats = plan["beats_in"], plan["beats_out"]
        self.moved = [0, 0]  # beats of the image at hand
        self.counts = dict.fromkeys(COUNTERS, 0)
        self.taken = dict(self.counts)
        self.reset = self.enable = self.done = self.error = 0
        self.address = self.data = self.answer = self.value = None
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int) -> tuple[int, int]:
        """Data and response of a read."""
        offset &= ~3
        if offset in self.constants:
            return self.constants[offset], 0
        for name, (first, width) in COUNTERS.items():
            if first <= offset < first + width // 8:
                return self.taken[name] >> 8 * (offset - first) & 2**32 - 1, 0
        held = {CONTROL: self.reset, STATUS: self.error, ENABLE: self.enable,
                INTERRUPT: self.done}
        return (held[offset], 0) if offset in held else (0, 2)

    def check(self, s: dict[str, int]) -> None:
        """What the slave must show before an edge."""
        def same(name: str, right: int) -> None:
            assert s[name] == right, f"{name} is {s[name]:#x}, not {right:#x}"
        a = "s_axi_control_"
        same(f"{a}awready", self.address is None and self.answer is None)
        same(f"{a}wready", self.data is None and self.answer is None)
        same(f"{a}bvalid", self.answer is not None)
        if self.answer is not None:
            same(f"{a}bresp", self.answer)
        same(f"{a}arready", self.value is None)
        same(f"{a}rvalid", self.value is not None)
        if self.value is not None:
            same(f"{a}rdata", self.value[0])
            same(f"{a}rresp", self.value[1])
        same("interrupt", self.enable & self.done)
        same("frame_error", self.error)
        if self.reset:
            same("s_axis_tready", 0)
            same("m_axis_tvalid", 0)
        elif s["m_axis_tvalid"]:
            same("m_axis_tlast", self.moved[1] == self.beats[1] - 1)

    def edge(self, s: dict[str, int]) -> None:
        """What an edge does, by the signals before it."""
        self.check(s)
        a = "s_axi_control_"
        if self.value is not None and s[f"{a}rready"]:
            self.reads.append(self.value)
            self.value = None
        elif self.value is None and s[f"{a}arvalid"]:
            self.value = self.read(s[f"{a}araddr"])
        taken, given = (s[f"{side}_axis_tvalid"] & s[f"{side}_axis_tready"] for side in "sm")
        last = [self.moved[k] == self.beats[k] - 1 for k in (0, 1)]
        events = {"cycles": 1, "images_in": taken & last[0], "images_out": given & last[1],
                  "starved": s["s_axis_tready"] & ~s["s_axis_tvalid"] & 1,
                  "blocked": s["m_axis_tvalid"] & ~s["m_axis_tready"] & 1}
        wrong = taken & (s["s_axis_tlast"] != last[0])
        clears = {STATUS: 0, INTERRUPT: 0}
        was_reset, zero = self.reset, False
        if self.address is not None and self.data is not None:
            offset, (data, strobe) = self.address & ~3, self.data
            low = strobe & 1
            self.answer = self.read(offset)[1]
            self.address = self.data = None
            if low and offset == CONTROL:
                self.reset = data & 1
                if data & 2:
                    self.taken = {**self.counts, "saturated": s["saturated"]}
                zero = bool(data & 4)
            if low and offset == ENABLE:
                self.enable = data & 1
            if low and offset in clears:
                clears[offset] = data & 1
        else:
            if self.answer is not None and s[f"{a}bready"]:
                self.answer = None
            elif self.answer is None:
                if self.address is None and s[f"{a}awvalid"]:
                    self.address = s[f"{a}awaddr"]
                if self.data is None and s[f"{a}wvalid"]:
                    self.data = s[f"{a}wdata"], s[f"{a}wstrb"]
        for name, event in events.items():
            self.counts[name] = (0 if zero else self.counts[name]) + int(event)
        self.error = int(((self.error and not clears[STATUS]) or wrong) and not was_reset)
        self.done = int(((self.done and not clears[INTERRUPT]) or events["images_out"])
                        and not was_reset)
        for k, moves in enumerate((taken, given)):
            self.moved[k] = 0 if was_reset or (moves and last[k]) else self.moved[k] + moves


class Bench:
    """The device with its clock, a model beside it, streams that stall, and an AXI-Lite master."""

    def __init__(self, dut: Any, stalls: float) -> None:
        self.dut, self.plan = dut, json.loads(Path("plan.json").read_text())
        self.model, self.got, self.results = Model(self.plan), [], []
        self.stalls, self.rng = stalls, random.Random(self.plan["seed"])
        self.queue: list[tuple[int, int]] = []

    async def start(self) -> None:
        """Reset, and let everything run."""
        dut = self.dut
        dut.aresetn.value = 0
        for name in ("s_axis_tvalid", "s_axis_tlast", "m_axis_tready", "s_axis_tdata"):
            getattr(dut, name).value = 0
        cocotb.start_soon(Clock(dut.aclk, 10, "ns").start())
        # Of its own accord the master drives nothing until there was an edge.
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi_control"), dut.aclk,
                                    dut.aresetn, reset_active_level=False)
        for _ in range(4):
            await RisingEdge(dut.aclk)
        dut.aresetn.value = 1
        cocotb.start_soon(self.watch())  # from the first cycle out of reset on
        await RisingEdge(dut.aclk)
        cocotb.start_soon(self.source())
        cocotb.start_soon(self.sink())
        write, read = self.master.write_if, self.master.read_if
        for channel in (write.aw_channel, write.w_channel, write.b_channel, read.ar_channel,
                        read.r_channel):
            channel.set_pause_generator(self.pauses())

    def pauses(self) -> Any:
        rng = random.Random(self.rng.random())
        while True:
            yield rng.random() < self.stalls

    async def watch(self) -> None:
        """Compare, and count, in every cycle; the results are kept."""
        handles = {name: getattr(self.dut, name) for name in SIGNALS}
        while True:
            await FallingEdge(self.dut.aclk)
            s = {name: int(handle.value) for name, handle in handles.items()}
            if s["m_axis_tvalid"] and s["m_axis_tready"]:
                self.got.append(s["m_axis_tdata"])
            self.model.edge(s)

    async def source(self) -> None:
        """Offer the beats of `queue`; one that is offered stays, but in reset."""
        dut = self.dut
        while True:
            await RisingEdge(dut.aclk)
            if self.queue and dut.s_axis_tvalid.value and self.was_taken:
                self.queue.pop(0)
                dut.s_axis_tvalid.value = 0
            self.was_taken = False
            if self.queue and (self.rng.random() >= self.stalls or self.offered):
                beat, last = self.queue[0]
                dut.s_axis_tdata.value, dut.s_axis_tlast.value = beat, last
                dut.s_axis_tvalid.value = 1
                self.offered = True
            else:
                dut.s_axis_tvalid.value = 0
            await FallingEdge(dut.aclk)
            self.was_taken = bool(dut.s_axis_tvalid.value and dut.s_axis_tready.value)
            if self.was_taken:
                self.offered = False

    offered = was_taken = False

    async def sink(self) -> None:
        while True:
            await RisingEdge(self.dut.aclk)
            self.dut.m_axis_tready.value = self.rng.random() >= self.stalls

    def send(self, *images: int, wrong_last: bool = False) -> None:
        """Queue images by number."""
        for image in images:
            beats = self.plan["images"][image]
            last = [k == len(beats) - 1 for k in range(len(beats))]
            if wrong_last:
                last[self.rng.randrange(len(beats))] ^= True
            self.queue += zip(beats, map(int, last), strict=True)

    async def cycles(self, count: int) -> None:
        for _ in range(count):
            await RisingEdge(self.dut.aclk)

    async def results_of(self, *images: int) -> None:
        """Wait for the results of these images, and compare."""
        right = [beat for image in images for beat in self.plan["expected"][image]]
        for _ in range(20_000):
            if len(self.got) >= len(right):
                break
            await RisingEdge(self.dut.aclk)
        assert self.got == right, "results are not golden's"
        self.got.clear()

    async def read(self, offset: int) -> int:
        answer = await self.master.read(offset, 4)
        assert not answer.resp
        return int.from_bytes(answer.data, "little")

    async def write(self, offset: int, value: int) -> None:
        assert not (await self.master.write(offset, value.to_bytes(4, "little"))).resp

    async def counters(self) -> dict[str, int]:
        """A snapshot through the bus."""
        await self.write(CONTROL, 2)
        return {name: sum([await self.read(first + 4 * k) << 32 * k for k in range(width // 32)])
                for name, (first, width) in COUNTERS.items()}


async def bench(dut: Any, stalls: float = 0.4) -> Bench:
    made = Bench(dut, stalls)
    await made.start()
    return made


async def at_random(b: Bench, count: int) -> None:
    """So many reads and writes, anywhere and of any bytes; none that resets."""
    mapped = [*b.model.constants, CONTROL, STATUS, ENABLE, INTERRUPT,
              *range(0x40, 0x6C, 4)]
    for _ in range(count):
        offset = b.rng.choice(mapped) if b.rng.random() < 0.8 else 4 * b.rng.randrange(1024)
        if b.rng.random() < 0.5:
            await b.master.read(offset, 4)
            continue
        first = b.rng.randrange(4)
        data = bytearray(b.rng.randbytes(b.rng.randint(1, 4 - first)))
        if offset == CONTROL and first == 0:
            data[0] &= ~1
        await b.master.write(offset + first, bytes(data))


@cocotb.test()
async def traffic(dut: Any) -> None:
    """Reads and writes at random while both streams stall: all is as the model says."""
    b = await bench(dut)
    images = range(len(b.plan["images"]))
    b.send(*images)
    await at_random(b, 150)
    await b.results_of(*images)
    for _ in range(4):
        b.send(*images, wrong_last=True)
        await at_random(b, 100)
        await b.results_of(*images)
    assert len(b.model.reads) > 200


@cocotb.test()
async def counts(dut: Any) -> None:
    """A snapshot by hand: images, saturated elements, and cycles since the one before."""
    b = await bench(dut, stalls=0.2)
    images = range(len(b.plan["images"]))
    b.send(*images)
    await b.results_of(*images)
    await b.write(CONTROL, 6)  # takes and clears
    first = await b.counters()
    assert first["images_in"] == first["images_out"] == 0
    assert first["saturated"] == sum(b.plan["saturated"]) > 0
    b.send(*images)
    await b.results_of(*images)
    then = await b.counters()
    assert then["images_in"] == then["images_out"] == len(images)
    assert then["saturated"] == 2 * first["saturated"]
    assert then["cycles"] > then["starved"] > first["starved"]
    assert then["blocked"] > 0


@cocotb.test()
async def soft_reset(dut: Any) -> None:
    """In the middle of images, with results on their way: the next images are right."""
    b = await bench(dut, stalls=0.3)
    images = range(len(b.plan["images"]))
    for k in range(8):
        b.send(*images, wrong_last=True)
        await b.cycles(b.rng.randrange(20, 200))
        await b.write(CONTROL, 1)
        assert await b.read(CONTROL) == 1
        b.queue.clear()
        b.offered = False
        await b.cycles(b.rng.randrange(5))
        await b.write(CONTROL, 0)
        b.got.clear()
        assert await b.read(STATUS) == 0 == await b.read(INTERRUPT)
        b.send(k % len(images), 0)
        await b.results_of(k % len(images), 0)
    assert await b.read(STATUS) == 0


@cocotb.test()
async def frame_error(dut: Any) -> None:
    """A tlast that is missing or too early is kept, until it is cleared."""
    b = await bench(dut, stalls=0.1)
    for wrong in (False, True, False, True):
        b.send(0, wrong_last=wrong)
        await b.results_of(0)
        assert await b.read(STATUS) == wrong
        await b.write(STATUS, 1)
        assert await b.read(STATUS) == 0


@cocotb.test()
async def interrupt(dut: Any) -> None:
    """Goes high with the image, if it is enabled, and low when it is cleared."""
    b = await bench(dut, stalls=0.1)
    for enabled in (0, 1):
        await b.write(ENABLE, enabled)
        b.send(0)
        await b.results_of(0)
        await b.cycles(3)
        assert int(dut.interrupt.value) == enabled
        assert await b.read(INTERRUPT) == 1
        await b.write(INTERRUPT, 0)
        assert await b.read(INTERRUPT) == 1
        await b.write(INTERRUPT, 1)
        assert await b.read(INTERRUPT) == 0 == int(dut.interrupt.value)


@cocotb.test()
async def miscounted(dut: Any) -> None:
    """Must fail: one starved cycle too many is put into the counter."""
    b = await bench(dut)
    b.send(0)
    await b.results_of(0)
    await b.counters()
    await RisingEdge(dut.aclk)
    await FallingEdge(dut.aclk)
    dut._log.info("one too many")
    dut.control.starved_count.value = int(dut.control.starved_count.value) + 1
    await b.counters()
