"""Serial lines that are not what they should be."""

from __future__ import annotations

from typing import Any

import numpy as np


class Damaging:
    """A port through which bytes get lost, changed and added, about one in `every` each way."""

    def __init__(self, port: Any, *, every: int, seed: int) -> None:
        self.port, self.every = port, every
        self.rng = np.random.default_rng(seed)
        self.damages = 0

    @property
    def in_waiting(self) -> int:
        return self.port.in_waiting

    def write(self, data: bytes) -> int:
        self.port.write(self._damaged(data))
        return len(data)

    def read(self, size: int = 1) -> bytes:
        return self._damaged(self.port.read(size))

    def _damaged(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            how = self.rng.integers(3) if self.rng.random() < 1 / self.every else None
            self.damages += how is not None
            if how == 1:
                byte ^= 1 << int(self.rng.integers(8))
            if how == 2:
                out.append(int(self.rng.integers(256)))
            if how != 0:
                out.append(byte)
        return bytes(out)
