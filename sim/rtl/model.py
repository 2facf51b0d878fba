"""An accelerator as a process that stays: images in, outputs and cycles out, no stalls.

The same Verilog as in `runner.simulate`, without harness and cocotb: beats go through two pipes.
"""

from __future__ import annotations

import shutil
import subprocess
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from threading import Lock

import numpy as np

from n2uq_hw import tools
from n2uq_hw.errors import N2uqError
from n2uq_hw.signals import uninterrupted

from .runner import Progress, compiled, make, memories

__all__ = ["Model", "Shape", "model_program"]

BENCH = Path(__file__).with_name("model.cpp")


@dataclass(frozen=True)
class Shape:
    """Beats per image and bytes per beat of the input and of the output."""

    beats_in: int
    beats_out: int
    bytes_in: int
    bytes_out: int


def model_program(verilog: Sequence[Path], module: str, work: Path, progress: Progress) -> Path:
    """The compiled model of the AXI4-Stream `module`, kept in the folder `work`.

    It is there once for the same Verilog and tools.  Raises N2uqError for missing or failing tools.
    """
    verilator = tools.verilator()

    def translate(build: Path) -> None:
        held = {path.name for path in memories(verilog)}
        progress("verilate", 0.0)
        tools.run([verilator.command, "-cc", "--exe", "-O3", "-Wno-fatal", "--no-timing",
                   "--top-module", module, "--prefix", "Vtop", "-Mdir", ".", "-o", "simulator",
                   *(path.name for path in verilog if path.name not in held), BENCH.name],
                  cwd=build, env=verilator.env, name="verilator")
        progress("verilate", 1.0)
        make(build, verilator, "model", 1, progress)

    return compiled("model", [module, verilator.version], [*verilog, BENCH], work, translate)[0]


class Model:
    """A running model: `run` may be called again and again, from any thread.

    The process ends with this object, and with this process.
    """

    def __init__(self, program: Path, verilog: Sequence[Path], shape: Shape, max_idle: int) -> None:
        self.shape, self._lock = shape, Lock()
        sizes = (shape.beats_in, shape.beats_out, shape.bytes_in, shape.bytes_out, max_idle)
        with tools.scratch() as folder, uninterrupted():
            for path in memories(verilog):  # read when the process starts
                shutil.copy(path, folder)
            self._process = subprocess.Popen(
                [program, *map(str, sizes)], cwd=folder, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                env=tools.verilator().env)
            self._end = weakref.finalize(self, _kill, self._process)
            self._read(8)

    def close(self) -> None:
        """End the process."""
        self._end()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._end.alive and self._process.poll() is None

    def run(self, beats: np.ndarray, images: int, told: Callable[[int], None] = lambda done: None
            ) -> tuple[int, np.ndarray, np.ndarray]:
        """Send the beats of `images`, uint8 [images · beats_in · bytes_in]; wait for all outputs.

        Returns
        -------
        The cycle in which the first beat was taken; that of each image's last beat, int64 [images];
        the output beats, uint8 [images, beats_out, bytes_out].  `told` is called with the number of
        images done.  Raises N2uqError where the model ends.
        """
        with self._lock, closing(self._answers(beats, images)) as answers:
            first = int(np.frombuffer(next(answers), "<i8")[0])
            size = self.shape.beats_out * self.shape.bytes_out
            ends = np.empty(images, np.int64)
            outputs = np.empty((images, size), np.uint8)
            for image, answer in enumerate(answers):
                ends[image] = np.frombuffer(answer, "<i8", 1)[0]
                outputs[image] = np.frombuffer(answer, np.uint8, offset=8)
                told(image + 1)
        return first, ends, outputs.reshape(images, self.shape.beats_out, -1)

    def _answers(self, beats: np.ndarray, images: int) -> Generator[bytes]:
        """What comes back for a request: the first cycle, then image by image."""
        whole = False
        try:
            pipe = self._process.stdin
            assert pipe is not None
            try:
                pipe.write(np.int64(images).tobytes() + beats.tobytes())
                pipe.flush()
            except BrokenPipeError:
                raise self._fault() from None
            yield self._read(8)
            for _ in range(images):
                yield self._read(8 + self.shape.beats_out * self.shape.bytes_out)
            whole = True
        finally:
            if not whole:  # interrupted: what it still has to say is of no use
                self.close()

    def _read(self, size: int) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None
        if len(answer := pipe.read(size)) < size:
            raise self._fault()
        return answer

    def _fault(self) -> N2uqError:
        said = self._process.stderr
        text = said.read().decode(errors="replace") if said is not None else ""
        code = self._process.wait()
        how = f"ended by {Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return N2uqError(f"simulation: {tools.fault(text) if text else how}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    process.wait()
