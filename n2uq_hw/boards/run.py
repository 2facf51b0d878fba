"""Images through a board, or through the virtual one, against golden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..builds.emit import ports
from ..builds.task import Task, figure, measure
from ..data import channels_last
from ..errors import N2uqError
from ..files import readable
from ..sim.rtl.runner import pack, unpack
from ..sim.rtl.serial import VirtualBoard, board_program
from ..tables import Shown, Table
from .bitstream import cell_models
from .devices import find_board
from .emit import BoardBuild
from .host import Line, Port, Traffic, exchange, greet, open_port

__all__ = ["VIRTUAL", "BoardRun", "run_board", "virtual_board"]

VIRTUAL = "virtual"
PATIENCE, PATIENCE_VIRTUAL = 1.0, 20.0  # seconds; a simulated bit takes its time
Progress = Callable[[str, float], None]


@dataclass(frozen=True, repr=False)
class BoardRun(Shown):
    """What a board made of images.

    Members
    -------
    outputs: integers, in the layout of `Graph.forward`.
    classes: as in `Predictions`; None where the outputs are values.
    mismatches: images of which any bit differs from golden.
    images_per_second: of wall time; of a virtual board, the simulator's.
    traffic: what happened on the line.
    accuracy, mean_error: against labels; None without.
    """

    name: str
    board: str
    outputs: np.ndarray
    classes: np.ndarray | None
    mismatches: int
    images_per_second: float
    traffic: Traffic
    accuracy: float | None = None
    mean_error: float | None = None
    counted: str = "images"
    rule: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        known = {key: value for key, value in vars(self).items()
                 if key not in ("outputs", "classes")}
        key, values = ("outputs", self.outputs) if self.classes is None else (
            "classes", self.classes)
        return known | {"traffic": asdict(self.traffic), "images": len(values),
                        key: values.tolist()}

    def parts(self) -> list[str | Table]:
        """A row per thing found."""
        table = Table("", "", left=2)
        table.add_row("images", f"{len(self.outputs):,}, {self.mismatches} mismatches "
                      "(every output bit against golden)")
        if text := figure(self.counted, self.accuracy, self.mean_error):
            table.add_row(measure(self.counted, self.rule), text)
        table.add_row("images per second", f"{self.images_per_second:,.1f}")
        told = self.traffic
        table.add_row("frames sent again, refused, broken, without an answer",
                      f"{told.repeated}, {told.faults}, {told.broken}, {told.silent}")
        return [f"{self.name} on {self.board}", table]


def virtual_board(board: BoardBuild, *, netlist: bool = False,
                  progress: Progress = lambda stage, fraction: None) -> VirtualBoard:
    """The board's top in Verilator, with a pseudo-terminal as its serial port.

    With `netlist`, what Yosys made of it, in the vendor's cells; of those of ECP5 and Gowin, Yosys
    has no model of block RAM.
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
    nhwc = channels_last(images, graph.input.shape, graph.name)
    if not graph.input.lo <= nhwc.min() <= nhwc.max() <= graph.input.hi:
        raise N2uqError(f"images of {graph.name} must lie in {graph.input.lo}..{graph.input.hi}, "
                        f"not {nhwc.min()}..{nhwc.max()}")
    payloads = [np.packbits(pack(image.reshape(-1, source.lanes), source.width), axis=1,
                            bitorder="little").tobytes() for image in nhwc]
    line = Line(open_port(port, board.told["baud"]) if isinstance(port, str) else port,
                patience=PATIENCE if patience is None else patience)
    identity = greet(line)
    if identity != board.identity:
        raise N2uqError(f"board: must hold build {board.identity.hex()}, that of {board.path}, "
                        f"but holds {identity.hex()}; {board.told['load']}")
    size = board.told["result_bytes"]
    answers = exchange(line, payloads, size,
                       lambda done: progress("board", done / len(payloads)))
    beats = np.frombuffer(b"".join(answers), np.uint8).reshape(-1, output.tdata // 8)
    bits = np.unpackbits(beats, axis=1, count=output.bits, bitorder="little")
    outputs = unpack(bits, output.lanes, output.width, output.signed).reshape(
        len(images), *graph.edges[graph.output].shape)
    expected = graph.forward(images)
    got = graph.arranged(outputs)
    predictions = task.predictions(outputs)
    return BoardRun(
        name=graph.name, board=board.told["title"], outputs=got,
        classes=None if task.is_values else predictions.reshape(
            len(images), *(size for size in predictions.shape[1:] if size > 1)),
        mismatches=int((got != expected).reshape(len(got), -1).any(axis=1).sum()),
        images_per_second=len(images) / max(line.traffic.seconds, 1e-9), traffic=line.traffic,
        accuracy=task.accuracy(predictions), mean_error=task.mean_error(predictions),
        counted=task.counted, rule=task.rule)

