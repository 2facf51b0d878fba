"""Images in, results out, over bytes that may get lost, changed or added on the way.

A frame lies between two END bytes::

    kind (1)  sequence (1)  length (2, low byte first)  payload (length)  CRC-32 (4, low byte first)

The CRC is that of zlib over all before it.  Within a frame END and ESC are two bytes, ESC and
`ESCAPED` of it.  So an END is never anything else, and what follows one is read right, whatever
came before.  Frames of no bytes, between the END of a frame and that of the next, mean nothing.

The host sends images and greetings; the board answers each frame with one of the same sequence: an
image with its result, a greeting with its identity, all else with a fault.
"""

from __future__ import annotations

from enum import IntEnum

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import crc, data, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..errors import check_range
from .fifo import FifoUnit
from .stream import beats, wraps

__all__ = ["CRC", "END", "ESC", "ESCAPED", "FRAME", "HEADER", "WINDOW", "Fault", "FrameReceiver",
           "FrameTransmitter", "Kind", "Link", "Stuff", "Unstuff"]

END, ESC = 0xC0, 0xDB
ESCAPED = {END: 0xDC, ESC: 0xDD}
HEADER, CRC_BYTES = 4, 4
FRAME = HEADER + CRC_BYTES  # bytes of a frame beside its payload, END and ESC
WINDOW = 4                  # images that may wait for their results
IDENTITY_BYTES = 8
CRC = crc.catalog.CRC32_ISO_HDLC(data_width=8)


class Kind(IntEnum):
    """What a frame is: the first two come from the host, the others from the board."""

    IMAGE = 1
    HELLO = 2
    RESULT = 3
    IDENTITY = 4
    FAULT = 5


class Fault(IntEnum):
    """The payload of a FAULT: why a frame was not taken."""

    GARBLED = 1  # its escapes, its length or its CRC; its sequence, too, may be wrong
    BUSY = 2     # it was right, but no room was left


BYTE = data.StructLayout({"data": 8, "end": 1, "bad": 1})  # `bad`: an ESC that escapes nothing
REPLY = data.StructLayout({"kind": 8, "seq": 8, "fault": 8})
REQUEST = data.StructLayout({"kind": 8, "seq": 8, "length": 16})


class Unstuff(wiring.Component):
    """Bytes of the wire as bytes of frames, `end` between them: no latency, II = 1."""

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(8, always_ready=True)),
                          "o": Out(stream.Signature(BYTE, always_ready=True))})

    def elaborate(self, platform):
        m = Module()
        byte, out, escaped = self.i.payload, self.o.payload, Signal()
        m.d.comb += [self.o.valid.eq(self.i.valid & (escaped | (byte != ESC))), out.data.eq(byte),
                     out.end.eq(byte == END)]
        with m.If(escaped):
            m.d.comb += out.bad.eq(1)
            for plain, code in ESCAPED.items():
                with m.If(byte == code):
                    m.d.comb += [out.data.eq(plain), out.bad.eq(0)]
        with m.If(self.i.valid):
            m.d.sync += escaped.eq(~escaped & (byte == ESC))
        return m


class Stuff(wiring.Component):
    """Bytes of frames as bytes of the wire: no latency, II = 1, or 2 for what is escaped."""

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(BYTE)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        byte, second, code, special = self.i.payload, Signal(), Signal(8), Signal()
        for plain, escape in ESCAPED.items():
            with m.If((byte.data == plain) & ~byte.end):
                m.d.comb += [code.eq(escape), special.eq(1)]
        m.d.comb += [self.o.valid.eq(self.i.valid),
                     self.i.ready.eq(self.o.ready & (~special | second)),
                     self.o.payload.eq(Mux(special, Mux(second, code, ESC),
                                           Mux(byte.end, END, byte.data)))]
        with m.If(self.i.valid & self.o.ready):
            m.d.sync += second.eq(special & ~second)
        return m


class FrameReceiver(wiring.Component):
    """Whole images alone: the bytes of one come out when its frame has ended, and was right.

    Two images fit in, one that leaves and one that comes.  Latency 3 cycles from the END.

    Members
    -------
    i: bytes of frames, at least 2 cycles apart.
    o: bytes of images.
    accepted: the sequence of an image, when its last byte is in.  It is taken at once; if not
        `ready`, the image is refused.
    reply: what to answer to any other frame.  One that has to wait gives way to a newer one.
    idle: no image waits for its result: a greeting may be answered.

    Parameters
    ----------
    size: bytes of an image, 1 to 65,535.
    """

    def __init__(self, *, size: int) -> None:
        self.size = size
        super().__init__({
            "i": In(stream.Signature(BYTE, always_ready=True)), "o": Out(stream.Signature(8)),
            "accepted": Out(stream.Signature(8)), "reply": Out(stream.Signature(REPLY)),
            "idle": In(1)})

    def elaborate(self, platform):
        m = Module()
        byte, valid = self.i.payload, self.i.valid
        m.submodules.crc = check = CRC.create()
        count = Signal(range(self.size + FRAME + 2))  # bytes of the frame so far
        kind, seq, length = Signal(8), Signal(8), Signal(16)
        spoilt, late = Signal(), Signal()
        image, hello, place, room = Signal(), Signal(), Signal(range(self.size)), Signal()
        commit, ends = Signal(), Signal()
        m.d.comb += [
            ends.eq(valid & byte.end), check.start.eq(ends), check.valid.eq(valid & ~byte.end),
            check.data.eq(byte.data)]
        whole = check.match_detected & ~spoilt & ~byte.bad & (count == length + FRAME)
        m.d.comb += [
            image.eq(whole & (kind == Kind.IMAGE) & (length == self.size)),
            hello.eq(whole & (kind == Kind.HELLO) & (length == 0)),
            self.accepted.payload.eq(seq), self.accepted.valid.eq(ends & image & ~late),
            commit.eq(self.accepted.valid & self.accepted.ready)]
        write = self._store(m, commit, room)
        for at, target in enumerate((kind, seq, length[:8], length[8:])):
            with m.If(valid & (count == at)):
                m.d.sync += target.eq(byte.data)
        with m.If(ends):
            m.d.sync += [count.eq(0), place.eq(0), spoilt.eq(0), late.eq(0)]
        with m.Elif(valid):
            m.d.sync += [count.eq(Mux(count == self.size + FRAME + 1, count, count + 1)),
                         spoilt.eq(spoilt | byte.bad)]
            with m.If((count >= HEADER) & (count < HEADER + self.size)):
                m.d.comb += write.en.eq(room)
                m.d.sync += [place.eq(place + 1), late.eq(late | ~room)]
        m.d.comb += [write.addr[:len(place)].eq(place), write.data.eq(byte.data)]
        self._answer(m, ends & ((count != 0) | byte.bad) & ~commit, seq, image, hello)
        return m

    def _store(self, m, commit, room):
        """Two banks; one is written until `commit`, one leaves at `o`; returns the write port."""
        bits = (self.size - 1).bit_length()
        m.submodules.store = store = memory.Memory(shape=8, depth=2 << bits, init=[])
        write, read = store.write_port(), store.read_port()
        held, coming, leaving = Signal(range(3)), Signal(), Signal()
        first, pop = Signal(range(self.size)), Signal()
        m.d.comb += [room.eq(held != 2), write.addr[bits].eq(coming),
                     pop.eq(self.o.valid & self.o.ready)]
        last = wraps(m, first, self.size, pop)
        done = pop & last
        m.d.sync += [held.eq(held + commit - done), coming.eq(coming ^ commit),
                     leaving.eq(leaving ^ done),
                     self.o.valid.eq(Mux(done, held == 2, held != 0))]
        m.d.comb += [read.addr.eq(Cat(Mux(pop, Mux(last, 0, first + 1), first)[:bits],
                                      leaving ^ done)),
                     self.o.payload.eq(read.data)]
        return write

    def _answer(self, m, due, seq, image, hello):
        """Offer a reply where one is `due`."""
        reply = self.reply.payload
        with m.If(self.reply.ready):
            m.d.sync += self.reply.valid.eq(0)
        with m.If(due):
            m.d.sync += [self.reply.valid.eq(1), reply.seq.eq(seq),
                         reply.kind.eq(Mux(hello & self.idle, Kind.IDENTITY, Kind.FAULT)),
                         reply.fault.eq(Mux(image | hello, Fault.BUSY, Fault.GARBLED))]


class FrameTransmitter(wiring.Component):
    """A frame per request, its payload from `i`: ``length + 10`` cycles if nothing holds it up."""

    def __init__(self) -> None:
        super().__init__({"request": In(stream.Signature(REQUEST)), "i": In(stream.Signature(8)),
                          "o": Out(stream.Signature(BYTE))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.crc = check = CRC.create()
        header, left, place = Signal(REQUEST), Signal(16), Signal(2)
        out, moved = self.o.payload, self.o.valid & self.o.ready
        m.d.comb += check.data.eq(out.data)
        with m.FSM():
            with m.State("OPEN"):
                m.d.comb += [self.o.valid.eq(self.request.valid), out.end.eq(1),
                             self.request.ready.eq(self.o.ready), check.start.eq(1)]
                m.d.sync += [header.eq(self.request.payload), left.eq(self.request.payload.length)]
                with m.If(moved):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [self.o.valid.eq(1), check.valid.eq(moved),
                             out.data.eq(header.as_value().word_select(place, 8))]
                with m.If(wraps(m, place, HEADER, moved) & moved):
                    m.next = "PAYLOAD"
            with m.State("PAYLOAD"):
                m.d.comb += [self.o.valid.eq(self.i.valid & (left != 0)), check.valid.eq(moved),
                             self.i.ready.eq(self.o.ready & (left != 0)),
                             out.data.eq(self.i.payload)]
                m.d.sync += left.eq(left - moved)
                with m.If(left == 0):
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [self.o.valid.eq(1), out.data.eq(check.crc.word_select(place, 8))]
                with m.If(wraps(m, place, CRC_BYTES, moved) & moved):
                    m.next = "CLOSE"
            with m.State("CLOSE"):
                m.d.comb += [self.o.valid.eq(1), out.end.eq(1)]
                with m.If(moved):
                    m.next = "OPEN"
        return m


class Link(wiring.Component):
    """Frames on one side, bytes of images and of results on the other.

    No part of an image leaves before its whole frame was right.  At most `WINDOW` images wait for
    their results; of more, a frame is refused as BUSY.

    Members
    -------
    i, o: bytes of the wire; those of `i` at least 2 cycles apart.
    images, results: bytes; results come in the order of the images.

    Parameters
    ----------
    size, answer: bytes of an image and of a result, 1 to 65,535.
    identity: the 8 bytes that answer a greeting.
    """

    def __init__(self, *, size: int, answer: int, identity: bytes) -> None:
        check_range("size", size, 1, 2**16 - 1, "bytes")
        check_range("answer", answer, 1, 2**16 - 1, "bytes")
        check_range("bytes of identity", len(identity), IDENTITY_BYTES, IDENTITY_BYTES)
        self.size, self.answer, self.identity = size, answer, identity
        super().__init__({
            "i": In(stream.Signature(8, always_ready=True)), "o": Out(stream.Signature(8)),
            "images": Out(stream.Signature(8)), "results": In(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.unstuff, m.submodules.stuff = unstuff, stuff = Unstuff(), Stuff()
        m.submodules.receiver = receiver = FrameReceiver(size=self.size)
        m.submodules.transmitter = transmitter = FrameTransmitter()
        m.submodules.waiting = waiting = FifoUnit(layout=beats(8, 1), depth=WINDOW)
        connect(m, flipped(self.i), unstuff.i)
        connect(m, unstuff.o, receiver.i)
        connect(m, receiver.o, flipped(self.images))
        connect(m, transmitter.o, stuff.i)
        connect(m, stuff.o, flipped(self.o))
        accepted, reply, request = receiver.accepted, receiver.reply, transmitter.request
        m.d.comb += [
            waiting.i.payload[0].eq(accepted.payload), waiting.i.valid.eq(accepted.valid),
            accepted.ready.eq(waiting.i.ready), receiver.idle.eq(~waiting.o.valid)]
        sent, fault, place = Signal(8), Signal(8), Signal(range(IDENTITY_BYTES))
        result = self.results.valid & waiting.o.valid & ~reply.valid
        m.d.comb += [
            request.valid.eq(reply.valid | result), reply.ready.eq(request.ready & reply.valid),
            waiting.o.ready.eq(request.ready & result)]
        with m.If(reply.valid):
            m.d.comb += [request.payload.kind.eq(reply.payload.kind),
                         request.payload.seq.eq(reply.payload.seq),
                         request.payload.length.eq(
                             Mux(reply.payload.kind == Kind.IDENTITY, IDENTITY_BYTES, 1))]
        with m.Else():
            m.d.comb += [request.payload.kind.eq(Kind.RESULT),
                         request.payload.seq.eq(waiting.o.payload[0]),
                         request.payload.length.eq(self.answer)]
        with m.If(request.valid & request.ready):
            m.d.sync += [sent.eq(request.payload.kind), fault.eq(reply.payload.fault), place.eq(0)]
        with m.Elif(transmitter.i.valid & transmitter.i.ready):
            m.d.sync += place.eq(place + 1)
        own = Const(int.from_bytes(self.identity, "little"), 8 * IDENTITY_BYTES)
        with m.If(sent == Kind.RESULT):
            connect(m, flipped(self.results), transmitter.i)
        with m.Else():
            m.d.comb += [transmitter.i.valid.eq(1), transmitter.i.payload.eq(
                Mux(sent == Kind.IDENTITY, own.word_select(place, 8), fault))]
        return m
