"""Networks that others made, as a user builds them: what they cost, counted and estimated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import strict
from conftest import Cli
from shared import FORMATS, MODELS, NAMES, needs_models

KINDS = ("lut", "carry", "ff", "bram", "lutram", "dsp")
GUESSED = ("lut", "ff", "bram", "lutram")
CLOSE = 0.25    # of Yosys's LUTs and flip-flops, by which an estimate of a whole network may miss
SLOWEST = 10**9  # cycles per image that any folding keeps: it has the fewest lanes


def options(name: str) -> list[Any]:
    """The format of a network's input, as the command line takes it."""
    pairs = [(f"--{key.replace('_', '-')}", value) for key, value in FORMATS.get(name, {}).items()]
    return [word for pair in pairs for word in (pair[:1] if pair[1] is True else pair)]


@needs_models
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_cost_and_report(run: Cli, name: str, tmp_path: Path) -> None:
    """The commands that a user types, on the folding with the fewest lanes, the soonest mapped.

    Yosys took 28 s of CPU for brevitas_mlp_w2a2, of 993 LUTs, and 94 s for zoo_tfc_w1a1, of 559
    and 5 block RAMs, on a busy machine.  The largest here, ort_cnn_qdq_int8, has 8,170 LUTs.
    """
    assert run("import", MODELS / f"{name}.onnx", "--out", f"{name}.safetensors",
               *options(name))[0] == 0
    assert run("build", f"{name}.safetensors", "--cycles", SLOWEST, "--out", "built")[0] == 0
    code, printed, error = run("cost", "built", "--no-dsp")
    assert (code, error) == (0, "")
    first, head, *_ = printed.splitlines()
    assert first.startswith(f"{name} on xcup, Yosys ") and first.endswith("DSP blocks off")
    assert head.split("  ")[0] == "unit" and all(
        f"estimated {kind.upper()}" in head for kind in GUESSED)
    costs = strict(run("cost", "built", "--no-dsp", "--json")[1])
    total = costs["total"]
    assert min(total["lut"], total["ff"], total["bram"] + total["lutram"]) > 0 == total["dsp"]
    guessed = {kind: sum(unit[kind] for unit in costs["estimates"].values()) for kind in GUESSED}
    for kind in ("lut", "ff"):
        assert guessed[kind] == pytest.approx(total[kind], rel=CLOSE)
    assert [line.split()[2:] for line in printed.splitlines() if line.startswith("in all ")] == [
        [*(f"{total[kind]:,}" for kind in KINDS), *(f"{guessed[kind]:,.0f}" for kind in GUESSED)]]
    assert run("report", "built")[0] == 0
    page = (tmp_path / "built" / "report.html").read_text("utf-8")
    assert name in page and all(f"{total[kind]:,}" in page for kind in ("lut", "ff", "bram"))
