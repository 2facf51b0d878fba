"""The registers behind AXI4-Lite against a model of them, in every cycle."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from controlled import Controlled

pytestmark = pytest.mark.slow  # compiles two simulators


def test_registers_equal_a_model_in_every_cycle(
        tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """And a counter that is wrong by one is noticed."""
    failed = Controlled(tmp_path_factory).failures(
        tmp_path, "control_bench", "traffic", "counts", "soft_reset", "frame_error", "interrupt",
        "miscounted")
    said = (tmp_path / "said").read_text()
    assert failed == ["miscounted"], re.findall("^.*(?:Error|FAIL).*$", said, re.MULTILINE)
    assert re.search("one too many.*AssertionError: s_axi_control_rdata is", said, re.DOTALL)
