"""Files that are damaged, and disks that are full: what every format of file must stand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from n2uq_hw.errors import N2uqError


def faults_of_damage(path: Path, load: Callable[[Path], object], *, end: int | None = None,
                     values: tuple[int, int] = (32, 127), most: int = 3, times: int = 300) -> int:
    """How often `load` refuses `path` with a few of its bytes before `end` changed to `values`.

    Each refusal is one line that names the file.
    """
    whole, rng, faults = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(times):
        damaged = bytearray(whole)
        for at in rng.integers(0, end or len(whole), rng.integers(1, most + 1)):
            damaged[at] = rng.integers(*values)
        path.write_bytes(damaged)
        try:
            load(path)
        except N2uqError as error:
            faults += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    return faults


def check_full_disk(path: Path, save: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
                    ) -> None:
    """`save` leaves the old file, and no other, where the disk is full; no folder is a fault."""
    path.write_bytes(b"old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(N2uqError, match=r"cannot be written: .*No space left on device"):
            save(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name] and path.read_bytes() == b"old"
    with pytest.raises(N2uqError, match="cannot be written"):
        save(path.parent / "none" / path.name)
