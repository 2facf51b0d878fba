"""The host: images to a board over its serial port, and results back, whatever the line does."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..errors import N2uqError, installed
from ..hw.link import WINDOW, Kind
from .link import Decoder, Frame, encode

__all__ = ["Line", "Port", "Traffic", "exchange", "greet", "open_port"]

TRIES = 20  # of the same image


class Port(Protocol):
    """What is needed of a serial port: pyserial's has it.  `read` waits for a byte a short time."""

    @property
    def in_waiting(self) -> int: ...

    def write(self, data: bytes, /) -> int | None: ...

    def read(self, size: int = 1, /) -> bytes: ...


@dataclass
class Traffic:
    """What happened on the line.

    Members
    -------
    sent: frames, repeated ones among them.
    repeated: frames that were sent again.
    faults: frames that the board refused.
    broken: frames from the board that were not whole.
    silent: times that nothing came in time.
    seconds: for all images.
    """

    sent: int = 0
    repeated: int = 0
    faults: int = 0
    broken: int = 0
    silent: int = 0
    seconds: float = 0.0


def open_port(name: str, baud: int) -> Port:
    """The serial port of that name; raises N2uqError."""
    with installed("to talk to a board", "board"):
        import serial
    try:
        port: Port = serial.Serial(name, baud, timeout=0.02)
    except (serial.SerialException, OSError, ValueError) as error:
        code = getattr(error, "errno", None)
        raise N2uqError(f"{name}: cannot be opened: {os.strerror(code) if code else error}"
                        ) from None
    return port


class Line:
    """Frames over a port.

    Parameters
    ----------
    patience: seconds after which an answer is taken for lost.
    """

    def __init__(self, port: Port, *, patience: float = 1.0) -> None:
        self.port, self.patience = port, patience
        self.decoder, self.traffic = Decoder(), Traffic()

    def send(self, frame: Frame) -> None:
        """Send a frame."""
        self.port.write(encode(frame))
        self.traffic.sent += 1

    def receive(self) -> list[Frame]:
        """The frames that came by now, after a short wait at most."""
        frames = self.decoder.feed(self.port.read(max(1, self.port.in_waiting)))
        self.traffic.broken = self.decoder.broken
        return frames


def greet(line: Line) -> bytes:
    """The identity of the board; raises N2uqError if none answers."""
    for attempt in range(TRIES):
        # Two sequences by turns: an answer that is late is of the one before.
        hello = Frame(Kind.HELLO, 0xA0 + attempt, b"")
        line.send(hello)
        until = time.monotonic() + line.patience
        while time.monotonic() < until:
            for frame in line.receive():
                if frame.kind == Kind.IDENTITY and frame.seq == hello.seq:
                    return frame.payload
    raise N2uqError(f"board: must answer a greeting, and did not {TRIES} times in "
                    f"{TRIES * line.patience:g} s")


def exchange(line: Line, images: Sequence[bytes], size: int,
             told: Callable[[int], None] = lambda done: None) -> list[bytes]:
    """The result of each image, `size` bytes each.

    At most `WINDOW` images are under way.  The board answers in order, so what was sent before an
    image that is answered, and is not answered itself, was lost: it is sent again, as is what the
    board refuses, and what is not answered in time.  Raises N2uqError for an image that fails
    20 times.
    """
    results: dict[int, bytes] = {}
    tries = [0] * len(images)
    under_way: OrderedDict[int, float] = OrderedDict()  # image: when it was sent, in that order
    began, following = time.monotonic(), 0

    def send(image: int) -> None:
        tries[image] += 1
        if tries[image] > TRIES:
            raise N2uqError(f"image {image}: must be answered, and was not {TRIES} times")
        line.traffic.repeated += tries[image] > 1
        under_way.pop(image, None)
        under_way[image] = time.monotonic()
        line.send(Frame(Kind.IMAGE, image % 256, images[image]))

    while len(results) < len(images):
        while following < len(images) and len(under_way) < WINDOW:
            send(following)
            following += 1
        now = time.monotonic()
        lost = [image for image, when in under_way.items() if now - when > line.patience]
        line.traffic.silent += len(lost)
        for frame in line.receive():
            image = next((each for each in under_way if each % 256 == frame.seq), None)
            line.traffic.faults += frame.kind == Kind.FAULT
            if image is None:
                continue
            if frame.kind == Kind.FAULT:
                lost.append(image)
            elif frame.kind == Kind.RESULT and len(frame.payload) == size:
                lost += list(under_way)[:list(under_way).index(image)]
                results[image] = frame.payload
                del under_way[image]
                told(len(results))
        for image in dict.fromkeys(lost):
            if image in under_way:
                send(image)
    line.traffic.seconds += time.monotonic() - began
    return [results[image] for image in range(len(images))]
