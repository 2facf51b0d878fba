"""The cocotb side of a simulation: clock, resets, and the wait for the harness to stop.

All beats move inside the simulation (`templates/harness.sv.j2`); Python wakes only here.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import ReadOnly, RisingEdge, Timer

__all__ = ["run"]


@cocotb.test()
async def run(dut: Any) -> None:
    """Reset, run `resets[0]` cycles, reset, run `resets[1]` cycles, ... reset, run to the end.

    Of `period` ns each, as the harness has its clock.
    """
    plan = json.loads(Path("plan.json").read_text(encoding="utf-8"))
    dut.last.value = 0
    dut.rst.value = 1
    began = time.perf_counter()
    for cycles in plan["resets"]:
        await Timer(4 * plan["period"], "ns")
        dut.rst.value = 0
        if cycles:
            await Timer(cycles * plan["period"], "ns")
        dut.rst.value = 1
    dut.last.value = 1
    await Timer(4 * plan["period"], "ns")
    dut.rst.value = 0
    await RisingEdge(dut.stop)
    await ReadOnly()
    Path("outcome.json").write_text(json.dumps({
        "stalled": bool(dut.stalled.value), "seconds": time.perf_counter() - began}),
        encoding="utf-8")
