"""The host's side of the link: frames as bytes, and bytes as frames."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from ..hw.link import END, ESC, ESCAPED, FRAME, HEADER

__all__ = ["Decoder", "Frame", "encode"]

_PLAIN = {code: plain for plain, code in ESCAPED.items()}


@dataclass(frozen=True)
class Frame:
    """A frame that came whole; `kind` and `seq` are bytes."""

    kind: int
    seq: int
    payload: bytes


def encode(frame: Frame) -> bytes:
    """The bytes of a frame on the wire, between two END."""
    body = bytes((frame.kind, frame.seq)) + len(frame.payload).to_bytes(2, "little") + frame.payload
    body += zlib.crc32(body).to_bytes(4, "little")
    for plain in (ESC, END):  # in this order, for the second brings ESC in
        body = body.replace(bytes((plain,)), bytes((ESC, ESCAPED[plain])))
    return bytes((END, *body, END))


def _unstuffed(body: bytes) -> bytes | None:
    """The bytes of a frame; None where an ESC escapes nothing."""
    out = bytearray()
    rest = iter(body)
    for byte in rest:
        if byte == ESC:
            byte = _PLAIN.get(next(rest, -1), -1)
            if byte < 0:
                return None
        out.append(byte)
    return bytes(out)


def decode(body: bytes) -> Frame | None:
    """The frame of the bytes between two END; None if it is not whole."""
    plain = _unstuffed(body)
    if plain is None or len(plain) < FRAME:
        return None
    length = int.from_bytes(plain[2:HEADER], "little")
    if (len(plain) != length + FRAME
            or zlib.crc32(plain[:-4]) != int.from_bytes(plain[-4:], "little")):
        return None
    return Frame(plain[0], plain[1], plain[HEADER:-4])


@dataclass
class Decoder:
    """Bytes as they come, in any portions; `broken` counts the frames that were not whole."""

    broken: int = 0
    _body: bytearray = field(default_factory=bytearray)

    def feed(self, portion: bytes) -> list[Frame]:
        """The frames that end in these bytes."""
        frames = []
        *ended, rest = (self._body + portion).split(bytes((END,)))
        for body in filter(None, ended):
            frame = decode(bytes(body))
            if frame is None:
                self.broken += 1
            else:
                frames.append(frame)
        self._body = bytearray(rest)
        return frames
