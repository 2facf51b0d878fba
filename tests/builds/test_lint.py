"""No linter has anything to say of the Verilog of the shipped networks; no name is a keyword."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import units
from keywords import KEYWORDS, identifiers

from n2uq_hw import nets
from n2uq_hw.builds.emit import accelerator_verilog
from n2uq_hw.hw.accelerator import WRAPPER, module_name
from n2uq_hw.ir import writable
from n2uq_hw.ir.folding import reach
from n2uq_hw.lowering.lower import lower
from n2uq_hw.plan.choice import fold
from n2uq_hw.tools import run_yosys

QUICK = {("digits_cnn_w2a2", "default")}
# In logic the others take minutes, and one beat of a CNN on MNIST is wider than Amaranth takes.
CASES = [(name, folding) for name in nets.shipped() for folding in ("default", "fastest", "logic")
         if folding != "logic" or name.startswith("digits")]
WRITTEN = "mnist_resnet8_w2a2", "written"  # has all kinds of parameters


@pytest.mark.parametrize("name,folding", [
    pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow])
    for case in (*CASES, WRITTEN)])
def test_shipped_networks(name: str, folding: str, tmp_path: Path) -> None:
    graph = lower(nets.find_net(name))
    if folding == "written":
        graph = writable(graph, "all")
    asked = {"fastest": {"cycles": reach(graph)[0]}, "logic": {"unroll": 2}}.get(folding, {})
    texts = accelerator_verilog(graph, fold(graph, search=False, **asked).folding)
    for file, text in texts.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    verilog = sorted(file for file in texts if file.endswith(".v"))
    for file in verilog:
        assert not identifiers(texts[file]) & KEYWORDS
    units.lint(tmp_path, *verilog, top=module_name(graph, WRAPPER))
    said = run_yosys(f"read_verilog {' '.join(verilog)}", tmp_path)
    assert "warning" not in said.lower(), re.findall("(?i)warning.*", said)[:9]
