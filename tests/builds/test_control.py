"""Builds with registers: what describes them, and that all else is as without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import units
from controlled import small
from systemrdl import RDLCompiler
from systemrdl.node import FieldNode, RegNode

from n2uq_hw import __version__, api
from n2uq_hw.builds.emit import accelerator_verilog, load_build
from n2uq_hw.builds.verify import verify
from n2uq_hw.hw.accelerator import control_name
from n2uq_hw.hw.registers import REGISTERS, identity
from n2uq_hw.ir import Graph, Input, Saturate
from n2uq_hw.plan.choice import choose


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> api.Build:
    images = np.random.default_rng(5).integers(-9, 10, (6, 3, 4, 5))
    return api.build(small(), None, tmp_path_factory.mktemp("build") / "b", images=images,
                     control=True)


def test_the_rdl_has_the_registers_of_the_gateware(build: api.Build) -> None:
    compiler = RDLCompiler()
    compiler.compile_file(str(build.path / "control.rdl"))
    top = compiler.elaborate().top
    described = {}
    for node in top.children():
        assert isinstance(node, RegNode)
        fields = [field for field in node.children() if isinstance(field, FieldNode)]
        described[node.inst_name, node.absolute_address] = [
            (field.inst_name, field.low, field.width, field.is_sw_readable, field.is_sw_writable,
             field.get_property("onwrite") is not None) for field in fields]
    assert described == {(register.name, register.offset): [
        (field.name, field.low, field.width, field.access != "pulse",
         field.access in ("bit", "pulse", "sticky"), field.access == "sticky")
        for field in register.fields] for register in REGISTERS}
    # Of a constant register the resets of its fields are what is read.
    constants = identity(build.graph, __version__)
    assert constants["hash"] == int(build.graph.digest[:16], 16)
    for node, register in zip(top.children(), REGISTERS, strict=True):
        if register.fields[0].access == "constant":
            assert sum(field.get_property("reset") << field.low for field in node.children()
                       ) == register.constant(constants)


def test_registers_stand_apart() -> None:
    """Every byte is of one register at most, every bit of one field; all below the second region.
    """
    offsets = [register.offset for register in REGISTERS]
    assert offsets == sorted(set(offsets)) and all(offset % 4 == 0 for offset in offsets)
    assert max(offsets) < 4096
    for register in REGISTERS:
        masks = [field.mask for field in register.fields]
        assert sum(masks) < 2**32 and sum(masks) == np.bitwise_or.reduce(masks)


@pytest.mark.slow
def test_verify_ties_the_registers_off(build: api.Build) -> None:
    verdict = verify(build, build.vectors["images"], None, stalls=0.3)
    assert verdict.mismatches == 0 and verdict.saturated_exact
    assert (build.predict().outputs == build.graph.forward(build.vectors["images"])).all()


def test_files_say_what_the_registers_are(build: api.Build) -> None:
    assert build.control and load_build(build.path).control
    plain = accelerator_verilog(build.graph, build.folding)
    assert not any("s_axi_" in text for text in plain.values())
    text = (build.path / "control.md").read_text()
    assert text.count("\n|") == 2 + sum(len(register.fields) for register in REGISTERS)
    assert f"0x{build.graph.digest[:8].upper()}" in text


def test_no_linter_has_anything_to_say(build: api.Build, tmp_path: Path) -> None:
    for path in build.verilog:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    units.lint(tmp_path, *(path.name for path in build.verilog), top="counted_axis")


def test_a_node_of_the_same_name_is_none() -> None:
    nodes = (Input("x", shape=(1, 1, 2), lo=0, hi=3), Saturate("Control", ("x",), lo=0, hi=2))
    graph = Graph("n", nodes).verify()
    assert control_name(graph) == "n_control_"
    verilog = accelerator_verilog(graph, choose(graph), control=True)
    assert "module n_control_(" in verilog["n.v"] and "n_control_ control (" in verilog["n_axis.v"]


def test_without_the_option_there_is_nothing(tmp_path: Path) -> None:
    built = api.build(small(), None, tmp_path / "b")
    assert not built.control and not list(built.path.glob("control*"))
