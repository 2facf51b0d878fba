"""Images through a board, or through the virtual one, against golden."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..builds.answers import Answers, answered, beat_bytes, checked_images, elements
from ..builds.emit import ports
from ..builds.task import Task
from ..errors import N2uqError
from ..files import readable
from ..jobs import Progress
from ..sim.rtl.netlists import cell_models
from ..sim.rtl.serial import VirtualBoard, board_program
from ..tables import Table
from .devices import find_board
from .emit import BoardBuild
from .host import Line, Port, Traffic, exchange, greet, open_port

__all__ = ["VIRTUAL", "BoardRun", "run_board", "virtual_board"]

VIRTUAL = "virtual"
PATIENCE, PATIENCE_VIRTUAL = 1.0, 20.0  # seconds; a simulated bit takes its time


@dataclass(frozen=True, repr=False, kw_only=True)
class BoardRun(Answers):
    """What a board made of images.

    Members
    -------
    outputs, classes, accuracy, mean_error: see `Answers`.
    mismatches: images of which any bit differs from golden.
    images_per_second: of wall time; of a virtual board, the simulator's.
    traffic: what happened on the line.
    """

    board: str
    mismatches: int
    images_per_second: float
    traffic: Traffic

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return super().as_dict() | {"traffic": asdict(self.traffic)}

    def parts(self) -> list[str | Table]:
        """A row per thing found."""
        table = Table("", "", left=2)
        table.add_row("images", f"{len(self.outputs):,}, {self.mismatches} mismatches "
                      "(every output bit against golden)")
        self.add_figure(table)
        table.add_row("images per second", f"{self.images_per_second:,.1f}")
        told = self.traffic
        table.add_row("frames sent again, refused, broken, without an answer",
                      f"{told.repeated}, {told.faults}, {told.broken}, {told.silent}")
        return [f"{self.name} on {self.board}", table]


def virtual_board(board: BoardBuild, *, netlist: bool = False,
                  progress: Progress = lambda stage, fraction: None) -> VirtualBoard:
    """The board's top in Verilator, with a pseudo-terminal as its serial port.

    With `netlist`, what Yosys made of it, in models of the vendor's cells.
    """
    verilog = board.verilog
    if netlist:
        verilog = [readable(board.path / "netlist.v"),
                   *cell_models(find_board(board.told["board"]).family)]
    program = board_program(verilog, board.top, (board.path / "simulation").resolve(), progress)
    return VirtualBoard(program, verilog, divisor=board.told["divisor"],
                        busy=2_000_000 + 10 * int(board.told["cycles"]))


def run_board(board: BoardBuild, images: np.ndarray, labels: np.ndarray | None = None, *,
              port: str | Port, patience: float | None = None,
              progress: Progress = lambda stage, fraction: None) -> BoardRun:
    """Send integer `images` [N, C, H, W] to the board at `port`, and compare with golden.

    Parameters
    ----------
    labels: those of a `Task`.
    port: its name, "virtual", or an open one.
    patience: seconds without an answer after which an image is sent again.

    Raises N2uqError where no board answers, or one with another build.
    """
    if port == VIRTUAL:
        virtual = virtual_board(board, progress=progress)
        try:
            return run_board(board, images, labels, port=virtual.port, progress=progress,
                             patience=PATIENCE_VIRTUAL if patience is None else patience)
        finally:
            virtual.close()
    graph = board.build.graph
    source, output = ports(graph, board.build.folding)
    task = Task(graph, labels)
    nhwc = checked_images(graph, images)
    payloads = [beats.tobytes() for beats in np.split(beat_bytes(nhwc, source), len(nhwc))]
    line = Line(open_port(port, board.told["baud"]) if isinstance(port, str) else port,
                patience=PATIENCE if patience is None else patience)
    identity = greet(line)
    if identity != board.identity:
        raise N2uqError(f"board: must hold build {board.identity.hex()}, that of {board.path}, "
                        f"but holds {identity.hex()}; {board.told['load']}")
    size = board.told["result_bytes"]
    replies = exchange(line, payloads, size,
                       lambda done: progress("board", done / len(payloads)))
    beats = np.frombuffer(b"".join(replies), np.uint8).reshape(-1, output.tdata // 8)
    answers = answered(graph, task, elements(beats, output).reshape(
        len(images), *graph.edges[graph.output].shape))
    wrong = answers["outputs"] != graph.forward(images)
    return BoardRun(
        **answers, board=board.told["title"],
        mismatches=int(wrong.reshape(len(wrong), -1).any(axis=1).sum()),
        images_per_second=len(images) / max(line.traffic.seconds, 1e-9), traffic=line.traffic)

