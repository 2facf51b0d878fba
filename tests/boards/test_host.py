"""The host against a board in Python, over a line that drops, flips and inserts bytes."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from lines import Damaging

from n2uq_hw.boards.host import Line, exchange, greet
from n2uq_hw.boards.link import Decoder, Frame, encode
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.link import Fault, Kind

IDENTITY = b"identity"


def result(image: bytes) -> bytes:
    """What stands for the network."""
    return zlib.crc32(image).to_bytes(4, "little")


class Board:
    """A board in Python: a port that answers what is written to it."""

    def __init__(self, answers: bool = True) -> None:
        self.decoder, self.out, self.answers = Decoder(), bytearray(), answers

    @property
    def in_waiting(self) -> int:
        return len(self.out)

    def write(self, data: bytes) -> int:
        broken = self.decoder.broken
        for frame in self.decoder.feed(data):
            if frame.kind == Kind.IMAGE:
                answer = Frame(Kind.RESULT, frame.seq, result(frame.payload))
            else:
                answer = Frame(Kind.IDENTITY, frame.seq, IDENTITY)
            self.out += encode(answer) * self.answers
        for _ in range(self.decoder.broken - broken):
            self.out += encode(Frame(Kind.FAULT, 0, bytes((Fault.GARBLED,))))
        return len(data)

    def read(self, size: int = 1) -> bytes:
        portion = bytes(self.out[:size])
        del self.out[:size]
        return portion


def images(count: int) -> list[bytes]:
    rng = np.random.default_rng(count)
    return [bytes(rng.integers(0, 256, 40).astype(np.uint8)) for _ in range(count)]


def test_results_come_back_in_order_more_than_sequences() -> None:
    line, sent = Line(Board()), images(600)
    assert greet(line) == IDENTITY
    assert exchange(line, sent, 4) == [result(image) for image in sent]
    assert line.traffic.sent == 601
    assert (line.traffic.repeated, line.traffic.faults, line.traffic.broken) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_every_result_is_right_whatever_the_line_does(seed: int) -> None:
    port = Damaging(Board(), every=300, seed=seed)
    line, sent = Line(port, patience=0.02), images(300)
    assert greet(line) == IDENTITY
    assert exchange(line, sent, 4) == [result(image) for image in sent]
    assert port.damages > 40 and line.traffic.repeated > 20
    assert line.traffic.faults + line.traffic.broken > 20


def test_a_board_that_is_silent_is_named() -> None:
    with pytest.raises(N2uqError, match=r"^board: must answer a greeting, and did not 20 times"):
        greet(Line(Board(answers=False), patience=0.001))
    with pytest.raises(N2uqError, match=r"^image 0: must be answered, and was not 20 times$"):
        exchange(Line(Board(answers=False), patience=0.001), images(1), 4)
