"""Fuzzing finds what is wrong, makes it small, and keeps it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import fuzz
from n2uq_hw.model import BatchNorm, Quant, load_net
from n2uq_hw.model.low_bit import IntConv


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "KEPT", tmp_path / "kept")


def test_right_nets_are_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tally = fuzz.Tally()
    assert fuzz.run("nets", 0.01, 1, tally) and tally.cases["nets"] == fuzz.CASES
    assert "nets: 10 cases, 0 s left" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(st.data())
def test_no_step_is_met_in_rounded_floats(of: st.DataObject) -> None:
    """There the formulas give either level: with a scale of 0.3, floor of 0 was -1 in one net."""
    net = fuzz.Grown(of.draw).net()
    steady = net.input.scale == 1.0
    for layer in net.layers:
        steady |= isinstance(layer, BatchNorm)
        if isinstance(layer, Quant):
            assert steady or layer.rounding != "floor"
            steady = float(net.params[f"{layer.name}.scale"][0]) in (0.25, 1.0)


def test_a_wrong_lowering_is_found_and_made_small(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
        ) -> None:
    """Wrong for strides above 1 alone: one convolution is left, with one such stride."""
    forward = fuzz.Net.forward

    def wrong(net: fuzz.Net, images: np.ndarray) -> np.ndarray:
        strides = (layer.stride for layer in net.layers if isinstance(layer, IntConv))
        return forward(net, images) + any(stride != (1, 1) for stride in strides)

    monkeypatch.setattr(fuzz.Net, "forward", wrong)
    assert not fuzz.run("nets", 60, 1, fuzz.Tally())
    assert "FAILED nets, seed" in capsys.readouterr().out
    kept, = (tmp_path / "kept").glob("*.safetensors")
    convolutions = [layer for layer in load_net(kept).layers if isinstance(layer, IntConv)]
    assert len(convolutions) == 1 and sorted(convolutions[0].stride) == [1, 2]
    assert "golden differs by 1" in kept.with_suffix(".log").read_text()


def test_a_reader_that_is_not_one_line_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                ) -> None:
    (whole := tmp_path / "whole.bin").write_bytes(bytes(range(40)))

    def read(path: Path) -> None:
        if len(path.read_bytes()) < 30:
            raise ValueError("too short")

    monkeypatch.setattr(fuzz, "examples", lambda folder: {"binary": (whole, read)})
    assert not fuzz.run("files", 60, 1, fuzz.Tally())
    kept, = (tmp_path / "kept").glob("*.bin")
    assert len(kept.read_bytes()) < 30 and len(whole.read_bytes()) == 40


def test_time_and_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryError), fuzz.limits():
        bytearray(2 * fuzz.ROOM)
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    with pytest.raises(TimeoutError, match="not within 1 s"), fuzz.limits():
        while True:
            pass


def test_an_unknown_kind(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        fuzz.main(["networks"])
    assert end.value.code == 2
    assert "kind must be one of nets, graphs, files, not networks" in capsys.readouterr().err
