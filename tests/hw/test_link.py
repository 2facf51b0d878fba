"""The link's gateware against the host's codec, and both against bytes lost, changed and added."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from n2uq_hw.boards.link import Decoder, Frame, encode
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.link import END, ESC, Fault, Kind, Link
from n2uq_hw.hw.uart import UartReceiver, UartTransmitter

pytestmark = pytest.mark.slow  # with the boards: a minute of CPU

SIZE, ANSWER, IDENTITY = 24, 5, bytes((END, ESC, 2, 3, 4, 5, 6, 7))
DAMAGES = ("drop", "flip", "insert", "end", "escape")


def expected(image: bytes) -> bytes:
    """What stands for the accelerator: a result that tells images apart, END and ESC in it."""
    return zlib.crc32(image).to_bytes(4, "little") + bytes((END if image[0] % 2 else ESC,))


def damaged(frame: bytes, how: str, rng: np.random.Generator) -> bytes:
    """A byte of the frame dropped or flipped, or one more."""
    at = int(rng.integers(2, len(frame) - 1))  # an END beside an END changes nothing
    if how == "drop":
        return frame[:at] + frame[at + 1:]
    if how == "flip":
        return frame[:at] + bytes((frame[at] ^ 1 << int(rng.integers(8)),)) + frame[at + 1:]
    more = {"insert": int(rng.integers(256)), "end": END, "escape": ESC}[how]
    return frame[:at] + bytes((more,)) + frame[at:]


def respond(wire: bytes, *, gap: int = 3, stalls: float = 0.0, seed: int = 0, slow: int = 0
            ) -> tuple[list[Frame], list[bytes]]:
    """The frames that a Link answers to the bytes, and the images that it lets through.

    A byte comes every `gap` cycles; an image takes `slow` cycles at least; streams stall.
    """
    link = Link(size=SIZE, answer=ANSWER, identity=IDENTITY)
    rng = np.random.default_rng(seed)
    sent, images = bytearray(), []
    over = len(wire) * gap + 200 + 4 * slow

    async def feed(ctx):
        for byte in wire:
            ctx.set(link.i.payload, byte)
            ctx.set(link.i.valid, 1)
            await ctx.tick()
            ctx.set(link.i.valid, 0)
            await ctx.tick().repeat(gap - 1)

    async def drain(ctx):
        for _ in range(over):
            ready = rng.random() >= stalls
            ctx.set(link.o.ready, ready)
            _, _, valid, byte = await ctx.tick().sample(link.o.valid, link.o.payload)
            if valid and ready:
                sent.append(byte)

    async def compute(ctx):
        image = bytearray()
        while True:
            ready = rng.random() >= stalls
            ctx.set(link.images.ready, ready)
            _, _, valid, byte = await ctx.tick().sample(link.images.valid, link.images.payload)
            if not (valid and ready):
                continue
            image.append(byte)
            if len(image) < SIZE:
                continue
            images.append(bytes(image))
            ctx.set(link.images.ready, 0)
            await ctx.tick().repeat(slow + 1)
            for out in expected(images[-1]):
                ctx.set(link.results.payload, out)
                ctx.set(link.results.valid, 1)
                await ctx.tick().until(link.results.ready)
                ctx.set(link.results.valid, 0)
            image.clear()

    simulator = Simulator(link)
    simulator.add_clock(1e-6)
    simulator.add_testbench(feed, background=True)
    simulator.add_testbench(compute, background=True)
    simulator.add_testbench(drain)
    simulator.run()
    decoder = Decoder()
    frames = decoder.feed(bytes(sent))
    assert decoder.broken == 0
    return frames, images


def image_of(rng: np.random.Generator) -> bytes:
    """A random image with many bytes that need escapes."""
    return bytes(rng.choice([END, ESC, 0xDC, 0xDD, 0, 7], SIZE).astype(np.uint8))


@pytest.mark.parametrize("stalls", [0, 0.5])
def test_images_become_results_in_order_and_greetings_identities(stalls: float) -> None:
    rng = np.random.default_rng(1)
    images = [image_of(rng) for _ in range(4)]
    hello = Frame(Kind.HELLO, END, b"")
    wire = encode(hello) + b"".join(
        encode(Frame(Kind.IMAGE, 250 + k, image)) for k, image in enumerate(images))
    frames, through = respond(wire, stalls=stalls, gap=4)
    assert through == images
    assert frames == [Frame(Kind.IDENTITY, END, IDENTITY), *(
        Frame(Kind.RESULT, 250 + k, expected(image)) for k, image in enumerate(images))]


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_answered_with_a_fault_and_the_next_frame_is_right(how: str) -> None:
    """No image goes in but those of whole frames; each of these is answered with its result."""
    rng = np.random.default_rng(DAMAGES.index(how))
    wire, whole = b"", []
    for seq in range(8):
        image = image_of(rng)
        frame = encode(Frame(Kind.IMAGE, seq, image))
        if seq % 2:
            whole.append((seq, image))
            wire += frame
        else:
            wire += damaged(frame, how, rng)
    frames, through = respond(wire, gap=4)
    assert through == [image for _, image in whole]
    assert [frame for frame in frames if frame.kind == Kind.RESULT] == [
        Frame(Kind.RESULT, seq, expected(image)) for seq, image in whole]
    faults = [frame for frame in frames if frame.kind != Kind.RESULT]
    assert len(faults) >= 4 and {(frame.kind, frame.payload) for frame in faults} == {
        (Kind.FAULT, bytes((Fault.GARBLED,)))}


def test_garbage_and_frames_that_are_no_images() -> None:
    rng = np.random.default_rng(5)
    image = image_of(rng)
    garbage = bytes(rng.integers(0, 256, 100).astype(np.uint8))
    wrong = [Frame(Kind.IMAGE, 1, image[1:]), Frame(Kind.IMAGE, 2, image + b"a"),
             Frame(Kind.HELLO, 3, image), Frame(Kind.RESULT, 4, image), Frame(Kind.IMAGE, 5, b"")]
    good = encode(Frame(Kind.IMAGE, 9, image))
    wire = (garbage + good + b"".join(map(encode, wrong)) + bytes((END, END, ESC, END)) + good[1:])
    frames, through = respond(wire, gap=4)
    assert through == [image, image]
    assert [frame.seq for frame in frames if frame.kind == Kind.RESULT] == [9, 9]
    assert [frame.seq for frame in frames if frame.kind == Kind.FAULT][-6:-1] == [1, 2, 3, 4, 5]


def test_what_finds_no_room_is_refused_whole() -> None:
    rng = np.random.default_rng(6)
    images = [image_of(rng) for _ in range(8)]
    wire = b"".join(encode(Frame(Kind.IMAGE, k, image)) for k, image in enumerate(images))
    frames, through = respond(wire + encode(Frame(Kind.HELLO, 99, b"")), slow=200)
    done = [frame.seq for frame in frames if frame.kind == Kind.RESULT]
    assert 3 <= len(done) < 8 and through == [images[k] for k in done]
    assert [frame.payload for frame in frames if frame.kind == Kind.RESULT] == [
        expected(images[k]) for k in done]
    busy = [frame for frame in frames if frame.kind == Kind.FAULT]
    assert busy and busy[-1].seq == 99
    assert {frame.payload for frame in busy} == {bytes((Fault.BUSY,))}
    assert {frame.seq for frame in busy}.isdisjoint(done)


@pytest.mark.parametrize("divisor, drift", [(4, 0), (12, 0), (25, 1), (25, -1)])
def test_bytes_cross_the_wire(divisor: int, drift: int) -> None:
    """Back to back, from a transmitter some percent too fast or too slow."""
    transmitter = UartTransmitter(divisor=divisor + drift)
    receiver = UartReceiver(divisor=divisor)
    values = [0, 255, 0x55, 0xAA, 1, 128, 0x7F]
    got, cycles = [], []

    async def send(ctx):
        for value in values:
            ctx.set(transmitter.i.payload, value)
            ctx.set(transmitter.i.valid, 1)
            await ctx.tick().until(transmitter.i.ready)
        ctx.set(transmitter.i.valid, 0)

    async def receive(ctx):
        for cycle in range((10 * divisor + 20) * len(values) + 20):
            ctx.set(receiver.rx, ctx.get(transmitter.tx))
            _, _, valid, byte = await ctx.tick().sample(receiver.o.valid, receiver.o.payload)
            if valid:
                got.append(byte)
                cycles.append(cycle)

    m = Module()
    m.submodules += transmitter, receiver
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send, background=True)
    simulator.add_testbench(receive)
    simulator.run()
    assert got == values
    assert set(np.diff(cycles)) <= {10 * (divisor + drift) + k for k in (0, 1, 2)}
    assert cycles[0] <= 9.5 * (divisor + max(drift, 0)) + 6


def test_a_byte_without_its_stop_bit_and_a_short_pulse_are_none() -> None:
    receiver, got = UartReceiver(divisor=8), []
    levels = [1] * 20 + [0] * 3 + [1] * 100 + [0] * 80 + [1] * 40
    levels += [0] * 8 + [1] * 100

    async def bench(ctx):
        for level in levels:
            ctx.set(receiver.rx, level)
            _, _, valid, byte = await ctx.tick().sample(receiver.o.valid, receiver.o.payload)
            if valid:
                got.append(byte)

    simulator = Simulator(receiver)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert got == [255]


def test_a_frame_is_what_the_page_says() -> None:
    body = bytes((1, 7, 2, 0, END, ESC))
    check = zlib.crc32(body).to_bytes(4, "little")
    assert not {END, ESC} & set(check)
    assert encode(Frame(1, 7, body[4:])) == bytes(
        (END, 1, 7, 2, 0, ESC, 0xDC, ESC, 0xDD, *check, END))


def test_sizes_that_a_frame_does_not_hold_are_refused() -> None:
    with pytest.raises(N2uqError, match=r"^size must be in 1\.\.65,535 bytes, not 65536$"):
        Link(size=65536, answer=1, identity=IDENTITY)
    with pytest.raises(N2uqError, match=r"^divisor must be in 4\.\.65,536 cycles per bit, not 3$"):
        UartReceiver(divisor=3)
