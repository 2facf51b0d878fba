"""The top of a bitstream as a process with a serial port: a board without a board."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

from n2uq_hw import tools
from n2uq_hw.errors import N2uqError
from n2uq_hw.signals import uninterrupted

from .runner import Progress, compiled, make, memories

__all__ = ["VirtualBoard", "board_program"]

BENCH = Path(__file__).with_name("serial.cpp")


def board_program(verilog: Sequence[Path], top: str, work: Path, progress: Progress) -> Path:
    """The compiled model of module `top`, with ports clk, rx, tx and leds, kept in `work`.

    `verilog` may be the netlist of a synthesis and the vendor's models of its cells.
    """
    verilator = tools.verilator()

    def translate(build: Path) -> None:
        held = {path.name for path in memories(verilog)}
        progress("verilate", 0.0)
        tools.run([verilator.command, "-cc", "--exe", "-O3", "-Wno-fatal", "-Wno-lint",
                   "--no-timing", "--top-module", top, "--prefix", "Vtop", "-Mdir", ".", "-o",
                   "simulator", *(path.name for path in verilog if path.name not in held
                                  and path.suffix == ".v"), BENCH.name],
                  cwd=build, env=verilator.env, name="verilator")
        progress("verilate", 1.0)
        make(build, verilator, "model", 1, progress)

    return compiled("serial", [top, verilator.version], [*verilog, BENCH], work, translate)[0]


class VirtualBoard:
    """A running board: `port` is the path of its serial port.

    It ends with this object, and with this process.

    Parameters
    ----------
    program, verilog: of `board_program`, and what that was made of.
    divisor: cycles per bit.
    busy: cycles in which the board may work without a sign of it.
    """

    def __init__(self, program: Path, verilog: Sequence[Path], *, divisor: int, busy: int) -> None:
        with uninterrupted():
            self._folder = tempfile.TemporaryDirectory(prefix="n2uq-board-")
            for path in memories(verilog):  # read when the process starts
                shutil.copy(path, self._folder.name)
            self._process = subprocess.Popen(
                [program, str(divisor), str(busy)], cwd=self._folder.name,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True, env=tools.verilator().env)
            self._end = weakref.finalize(self, _kill, self._process, self._folder)
        assert self._process.stdout is not None
        self.port = self._process.stdout.readline().decode().strip()
        if not self.port:
            said = self._process.stderr
            text = said.read().decode(errors="replace") if said is not None else ""
            raise N2uqError(f"virtual board: {tools.fault(text)}")

    @property
    def leds(self) -> list[int]:
        """What the pins of the LEDs have shown so far, each change of it."""
        text = Path(self._folder.name, "leds").read_text(encoding="utf-8")
        return [int(line, 16) for line in text.split()]

    def close(self) -> None:
        """End the process."""
        self._end()


def _kill(process: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    process.kill()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    process.wait()
    folder.cleanup()
