"""Waveforms, read back: every lane of every stream is golden's, where valid meets ready."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pylibfst
import pytest

from n2uq_hw import api
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.passes import hardware_graph
from n2uq_hw.sim.rtl.harness import PERIOD

Changes = dict[str, list[tuple[int, str]]]


def read(path: Path) -> tuple[dict[str, int], Changes]:
    """Widths, and changes (time, bits) of each signal, by its whole name."""
    lib, ffi = pylibfst.lib, pylibfst.ffi
    file = lib.fstReaderOpen(str(path).encode())
    assert file != ffi.NULL
    signals = pylibfst.get_scopes_signals2(file)[1]
    changes: Changes = defaultdict(list)
    lib.fstReaderSetFacProcessMaskAll(file)
    pylibfst.fstReaderIterBlocks(file, lambda _, time, handle, value: changes[
        signals.by_handle[handle].name].append((time, pylibfst.string(value))))
    lib.fstReaderClose(file)
    return {name: signal.length for name, signal in signals.by_name.items()}, changes


def at(changes: list[tuple[int, str]], cycles: int) -> list[str]:
    """The value in each cycle."""
    values, held = dict(changes), "x"
    seen = []
    for cycle in range(cycles):
        held = values.get(cycle * PERIOD, held)
        seen.append(held)
    return seen


def test_every_stream_carries_goldens_integers(built: Path, images: np.ndarray, tmp_path: Path
                                               ) -> None:
    build = api.load_build(built)
    build.waves(images[:2], tmp_path / "w.fst", stalls=0.3, seed=4)
    widths, changes = read(tmp_path / "w.fst")
    cycles = max(time for time, _ in changes["small.clk"]) // PERIOD
    graph, _ = hardware_graph(build.graph, build.folding)
    for name, scope in (("conv1", "conv1.conv1"), ("conv1_window", "conv1.conv1_window"),
                        ("quan2", "quan2.quan2"), ("fc", "fc.fc")):
        edge, path = graph.edges[name], f"small.{scope}"
        lanes = sorted((key for key in widths if key.rpartition(".")[0] == path
                        and key.rpartition(".")[2].startswith(("lane", "data"))),
                       key=lambda key: int(key.rpartition("lane")[2] or 0)
                       if "lane" in key else 0)
        moved = [v == r == "1" for v, r in zip(at(changes[f"{path}.valid"], cycles),
                                               at(changes[f"{path}.ready"], cycles), strict=True)]
        beats = [[int(text, 2) - (2**edge.width if edge.signed and text[0] == "1" else 0)
                  for text, move in zip(at(changes[lane], cycles), moved, strict=True) if move]
                 for lane in lanes]
        golden = np.moveaxis(graph.trace(images[:2], name).reshape(
            2, edge.channels, *edge.shape[:2]), 1, -1)
        assert all(widths[lane] == edge.width for lane in lanes)
        assert np.array_equal(np.array(beats).T.reshape(-1), golden.reshape(-1)), name
    held = (tmp_path / "w.fst.gtkw").read_text()
    assert all(f"{name}[" in held or f"{name}\n" in held for name in widths)
    signed = [name for name in widths if name.rpartition(".")[2] not in ("clk", "valid", "ready")
              and graph.edges[name.split(".")[-2]].signed]
    assert signed
    for name in signed:  # the last format above it is that of signed decimals
        above = held[:held.index(f"{name}[")].rpartition("@")[2]
        assert above.startswith("420\n"), name
    lines = (tmp_path / "w.fst.sucl").read_text().splitlines()
    shown = [line.removeprefix("variable_add ") for line in lines if line.startswith("variable")]
    assert set(shown) == set(widths) and len(shown) == len(widths)
    for name, width in widths.items():
        format_ = lines[lines.index(f"variable_add {name}") + 1]
        assert format_ == "item_set_format Signed" if name in signed else (
            format_ == "item_set_format Unsigned") == (width > 1), name
    build.waves(images[:2], tmp_path / "again.fst", stalls=0.3, seed=4)
    assert read(tmp_path / "again.fst") == (widths, changes)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_makes_no_waveform(built: Path, images: np.ndarray, tmp_path: Path,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    build = api.load_build(built)
    with pytest.raises(N2uqError, match="images of waveforms must be 1 to 64, not 80"):
        build.waves(np.tile(images, (2, 1, 1, 1)), tmp_path / "w.fst")
    monkeypatch.setitem(sys.modules, "pylibfst", None)
    with pytest.raises(N2uqError, match="pylibfst: needed to write waveforms, and not installed"):
        build.waves(images[:1], tmp_path / "w.fst")
    assert not [*tmp_path.iterdir()]
