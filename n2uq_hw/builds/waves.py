"""Waveforms of a build: a scope per layer, valid and ready, every lane as a decimal number."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from vcd.gtkw import GTKWSave

from ..data import channels_last
from ..errors import N2uqError, installed
from ..files import write_file
from ..hw.passes import hardware_graph
from ..ir import Graph
from ..jobs import Progress
from ..sim.rtl.harness import PERIOD
from ..sim.rtl.runner import Record
from .emit import Build, Port, port
from .verify import Trial, streams

__all__ = ["MOST", "write_waves"]

MOST = 64  # images: waveforms are for looking at


@dataclass(frozen=True)
class _Signal:
    """A signal in the file: its scopes, name, bits, whether it is signed, and its changes.

    `cycles` int64 [n], and `values` as text of 0 and 1.
    """

    scopes: tuple[str, ...]
    name: str
    width: int
    signed: bool
    cycles: np.ndarray
    values: list[bytes]


def write_waves(build: Build, images: np.ndarray, path: Path, *, stalls: float = 0.0,
                seed: int = 0, progress: Progress | None = None) -> None:
    """Simulate `images` [N, C, H, W] and write an FST file; beside it GTKWave's save file,
    `path`.gtkw, and Surfer's commands, `path`.sucl.

    The scopes are the network's layers, those of dotted names nested; in each lie the streams of
    its units.  A stream has `valid`, `ready` and a number per lane.  Raises N2uqError for more than
    `MOST` images, and where pylibfst is not installed.
    """
    fst = _library()
    if not 1 <= len(images) <= MOST:
        raise N2uqError(f"images of waveforms must be 1 to {MOST}, not {len(images)}")
    nhwc = channels_last(images, build.graph.input.shape, build.graph.name)
    graph, folding = hardware_graph(build.graph, build.folding)
    waves = streams(graph, folding)
    run = Trial(build, nhwc, nhwc, stalls, seed, "verilator").run(
        0, len(nhwc), progress, waves=waves)
    signals = [signal for wave in waves for signal in _signals(
        graph, wave.name, port(graph, folding, wave.name), run.waves[graph.name][wave.name])]
    _write(fst, path, graph.name, signals, run.cycles)
    write_file(path.with_name(f"{path.name}.gtkw"), _gtkw(path, graph.name, signals))
    write_file(path.with_name(f"{path.name}.sucl"), _surfer(graph.name, signals))


def _library() -> Any:
    with installed("to write waveforms", "waves"):
        import pylibfst
    return pylibfst


def _scopes(graph: Graph, name: str) -> tuple[str, ...]:
    """The layer that a unit belongs to, such as conv1 of conv1_window, then the unit."""
    names = {node.name for node in graph.nodes}
    parts = name.split("_")
    layer = next((prefix for k in range(1, len(parts))
                  if (prefix := "_".join(parts[:k])) in names), name)
    return (*layer.split("."), name.rpartition(".")[2])


def _signals(graph: Graph, name: str, stream: Port, record: Record) -> Iterator[_Signal]:
    """Valid, ready and the lanes of one stream."""
    scopes, bits = _scopes(graph, name), record.beats
    ready, valid = bits[:, -2], bits[:, -1]
    for label, flag in (("valid", valid), ("ready", ready)):
        yield _changes(scopes, label, False, record.cycles, flag[:, None])
    for lane in range(stream.lanes):
        lane_bits = bits[:, lane * stream.width:(lane + 1) * stream.width]
        label = f"lane{lane}" if stream.lanes > 1 else "data"
        yield _changes(scopes, label, stream.signed, record.cycles, lane_bits)


def _changes(scopes: tuple[str, ...], name: str, signed: bool, cycles: np.ndarray,
             bits: np.ndarray) -> _Signal:
    """A signal of uint8 bits [n, width], lowest first, at these cycles; what repeats is left out.
    """
    new = np.append(True, (np.diff(bits.astype(np.int8), axis=0) != 0).any(axis=1))
    rows = np.ascontiguousarray(bits[new, ::-1] + ord("0"), np.uint8)
    return _Signal(scopes, name, bits.shape[1], signed, cycles[new],
                   [row.tobytes() for row in rows])


def _write(fst: Any, path: Path, name: str, signals: list[_Signal], cycles: int) -> None:
    """The FST file, whole or not at all."""
    lib, folder = fst.lib, path.resolve().parent
    try:
        handle, part = tempfile.mkstemp(dir=folder, prefix=f".{path.name[:80]}.", suffix=".part")
    except OSError as error:
        raise N2uqError(f"{path}: cannot be written: {error.strerror}") from None
    os.close(handle)
    try:
        file = lib.fstWriterCreate(part.encode(), 1)
        if file == fst.ffi.NULL:
            raise N2uqError(f"{path}: cannot be written by pylibfst")
        lib.fstWriterSetTimescale(file, -9)
        lib.fstWriterSetDate(file, b"")  # the same run gives the same file
        clock, handles = _declare(fst, file, name, signals)
        changes: dict[int, list[tuple[int, bytes]]] = {}
        for signal, of in zip(signals, handles, strict=True):
            for cycle, value in zip(signal.cycles.tolist(), signal.values, strict=True):
                changes.setdefault(cycle, []).append((of, value))
        for cycle in range(cycles + 1):
            lib.fstWriterEmitTimeChange(file, cycle * PERIOD)
            lib.fstWriterEmitValueChange(file, clock, b"1")
            for of, value in changes.get(cycle, ()):
                lib.fstWriterEmitValueChange(file, of, value)
            lib.fstWriterEmitTimeChange(file, cycle * PERIOD + PERIOD // 2)
            lib.fstWriterEmitValueChange(file, clock, b"0")
        lib.fstWriterClose(file)
        Path(part).chmod(0o666 & ~_umask())
        Path(part).replace(path)
    finally:
        for left in (part, f"{part}.hier"):
            with suppress(OSError):
                Path(left).unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _declare(fst: Any, file: Any, name: str, signals: list[_Signal]) -> tuple[int, list[int]]:
    """The tree of scopes; handles of the clock and of each signal."""
    lib, none = fst.lib, fst.ffi.NULL

    def variable(label: str, width: int, signed: bool) -> int:
        kind = lib.FST_SDT_VHDL_SIGNED if signed else lib.FST_SDT_VHDL_UNSIGNED
        return int(lib.fstWriterCreateVar2(
            file, lib.FST_VT_VCD_WIRE, lib.FST_VD_IMPLICIT, width, label.encode(), 0, none,
            lib.FST_SVT_NONE, kind if width > 1 else lib.FST_SDT_NONE))

    def scope(label: str) -> None:
        lib.fstWriterSetScope(file, lib.FST_ST_VCD_MODULE, label.encode(), none)

    scope(name)
    clock, handles = variable("clk", 1, False), []
    open_scopes: tuple[str, ...] = ()
    for signal in signals:
        pairs = zip(open_scopes, signal.scopes, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        for _ in open_scopes[shared:]:
            lib.fstWriterSetUpscope(file)
        for label in signal.scopes[shared:]:
            scope(label)
        open_scopes = signal.scopes
        handles.append(variable(signal.name, signal.width, signal.signed))
    for _ in range(len(open_scopes) + 1):
        lib.fstWriterSetUpscope(file)
    return clock, handles


def _gtkw(path: Path, name: str, signals: list[_Signal]) -> str:
    """GTKWave's save file: a closed group per unit, numbers as decimals, signed where they are."""
    text = StringIO()
    save = GTKWSave(text)
    save.dumpfile(str(path.resolve()))
    save.trace(f"{name}.clk", datafmt="bin")
    for scopes, group in groupby(signals, key=lambda signal: signal.scopes):
        with save.group(".".join(scopes), closed=True):
            for signal in group:
                span = f"[{signal.width - 1}:0]" if signal.width > 1 else ""
                datafmt = "bin" if signal.width == 1 else "signed" if signal.signed else "dec"
                save.trace(f"{'.'.join((name, *scopes, signal.name))}{span}", datafmt=datafmt)
    return text.getvalue()


def _surfer(name: str, signals: list[_Signal]) -> str:
    """Surfer's commands: a divider per unit, numbers as decimals, signed where they are."""
    lines = [f"variable_add {name}.clk"]
    for scopes, group in groupby(signals, key=lambda signal: signal.scopes):
        lines.append(f"divider_add {'.'.join(scopes)}")
        for signal in group:
            lines.append(f"variable_add {'.'.join((name, *scopes, signal.name))}")
            if signal.width > 1:
                lines.append(f"item_set_format {'Signed' if signal.signed else 'Unsigned'}")
    return "\n".join((*lines, "zoom_fit", ""))
