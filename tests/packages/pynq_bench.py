"""cocotb's side of test_pynq: the drivers as they are, on the Verilog.

In the place of PYNQ's DMA and register access stand `Send`, `Receive` and `Registers`, which do the
few calls that driver.py makes: transfer, wait; read, write.
"""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import cocotb
import numpy as np
from cocotb.task import bridge, resume
from cocotb.triggers import RisingEdge
from control_bench import Bench, bench


class Send:
    """A DMA's channel into s_axis: tlast comes with the last beat of a transfer."""

    def __init__(self, b: Bench, width: int) -> None:
        self.b, self.width = b, width

    def transfer(self, buffer: np.ndarray) -> None:
        octets = self.b.plan["bytes_in"]
        rows = np.array(buffer).reshape(-1, self.width)[:, :octets]
        self.b.queue += [(int.from_bytes(row.tobytes(), "little"), int(k == len(rows) - 1))
                         for k, row in enumerate(rows)]

    @resume
    async def wait(self) -> None:
        while self.b.queue:
            await RisingEdge(self.b.dut.aclk)


class Receive:
    """A DMA's channel from m_axis: a transfer ends with tlast."""

    def __init__(self, b: Bench, width: int) -> None:
        self.b, self.width, self.buffer = b, width, np.zeros(0, np.uint8)

    def transfer(self, buffer: np.ndarray) -> None:
        self.buffer = buffer

    @resume
    async def wait(self) -> None:
        count = self.b.plan["beats_out"]
        while len(self.b.got) < count:
            await RisingEdge(self.b.dut.aclk)
        self.buffer[:] = np.frombuffer(b"".join(
            beat.to_bytes(self.width, "little") for beat in self.b.got[:count]), np.uint8)
        del self.b.got[:count]


class Registers:
    """An IP block's registers."""

    def __init__(self, b: Bench) -> None:
        self.b = b

    @resume
    async def read(self, offset: int) -> int:
        return await self.b.read(offset)

    @resume
    async def write(self, offset: int, value: int) -> None:
        await self.b.write(offset, value)


def overlay(b: Bench, bytes_in: int, bytes_out: int) -> SimpleNamespace:
    """What pynq.Overlay gives, and a module pynq."""
    pynq = ModuleType("pynq")
    pynq.allocate = lambda shape, dtype: np.zeros(shape, dtype)
    sys.modules["pynq"] = pynq
    return SimpleNamespace(counted_axis_0=Registers(b), axi_dma_0=SimpleNamespace(
        sendchannel=Send(b, bytes_in), recvchannel=Receive(b, bytes_out)))


def counted(b: Bench, counts: dict[str, int], images: int) -> None:
    """Counters as the model has them: it took its snapshot in the same cycle."""
    assert counts == b.model.taken
    assert counts["images_in"] == counts["images_out"] == images
    assert counts["starved"] > 0 < counts["blocked"]


def drive(b: Bench, widths: tuple[int, int]) -> None:
    from driver import Accelerator

    device = overlay(b, *(given or b.plan[key] for given, key in zip(
        widths, ("bytes_in", "bytes_out"), strict=True)))
    accelerator = Accelerator(device, input_beat_bytes=widths[0], output_beat_bytes=widths[1])
    images = np.array(b.plan["pixels"])
    for _ in range(2):
        assert (accelerator.predict(images) == np.array(b.plan["integers"])).all()
        counted(b, accelerator.counters(clear=True), len(images))
        assert not accelerator.frame_error()
        accelerator.reset()
    for wrong in (images[:, :2], images + 100, images / 2):
        try:
            accelerator.predict(wrong)
        except ValueError as error:
            assert "images must" in str(error)
        else:
            raise AssertionError("images that do not fit were taken")
    b.model.constants = dict(b.model.constants)
    device.counted_axis_0 = SimpleNamespace(read=lambda offset: 0)
    try:
        Accelerator(device)
    except RuntimeError as error:
        assert "another network" in str(error)
    else:
        raise AssertionError("another network was taken")


@cocotb.test()
async def driver(dut: Any) -> None:
    """driver.py, with beats as wide as tdata."""
    await bridge(drive)(await bench(dut, 0.3), (0, 0))


@cocotb.test()
async def wide_driver(dut: Any) -> None:
    """driver.py, with beats of more bytes in memory."""
    await bridge(drive)(await bench(dut, 0.3), (8, 4))


def drive_c(b: Bench) -> None:
    code = ctypes.CDLL("./t.c.so")
    registers = Registers(b)
    calls = (ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)(
        lambda _, address: registers.read(address)),
        ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)(
        lambda _, address, value: registers.write(address, value)))
    code.attach(None, *calls)
    code.check.restype = ctypes.c_char_p
    assert code.check() is None
    code.interrupts(1)
    send, receive = Send(b, b.plan["bytes_in"]), Receive(b, b.plan["bytes_out"])
    for image, right in zip(b.plan["pixels"], np.array(b.plan["integers"]), strict=True):
        pixels = np.array(image, np.int8)
        beats = np.zeros(b.plan["beats_in"] * b.plan["bytes_in"], np.uint8)
        code.planes(pixels.ctypes, beats.ctypes)
        answer = np.zeros(b.plan["beats_out"] * b.plan["bytes_out"], np.uint8)
        receive.transfer(answer)
        send.transfer(beats)
        receive.wait()
        results = np.zeros(right.shape, np.int8)
        code.unpack(answer.ctypes, results.ctypes)
        assert (results == right).all()
        assert code.image_done() == 1 and code.image_done() == 0
    counts = np.zeros(6, np.uint64)
    code.snapshot(0, counts.ctypes)
    counted(b, dict(zip(("cycles", "images_in", "images_out", "starved", "blocked", "saturated"),
                        counts.tolist(), strict=True)), len(b.plan["pixels"]))
    assert code.frame_error() == 0


@cocotb.test()
async def c_driver(dut: Any) -> None:
    """The C header, its registers behind two functions."""
    await bridge(drive_c)(await bench(dut, 0.3))
