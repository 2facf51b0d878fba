"""IP-XACT as ipyxact reads it; the Tcl in an interpreter whose Vivado commands are stand-ins."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import flows
import numpy as np
import pytest
from commands import fault, strict
from conftest import Cli

from n2uq_hw.api import Build, Costs, load_build
from n2uq_hw.builds.emit import emit
from n2uq_hw.builds.synth import Resources, Synthesis
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.registers import REGISTERS
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import Net
from n2uq_hw.packages.vivado import load_figures
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.tools import run_yosys

# As Vivado prints them, for UltraScale+ and for 7 series: its LUTs and registers have other names.
REPORTS = {"CLB": """
+----------------------------+------+-------+-----------+-------+
|          Site Type         | Used | Fixed | Available | Util% |
+----------------------------+------+-------+-----------+-------+
| CLB LUTs                   | 1290 |     0 |     70560 |  1.83 |
|   LUT as Logic             | 1034 |     0 |     70560 |  1.47 |
|   LUT as Memory            |  256 |     0 |     28800 |  0.89 |
| CLB Registers              |  758 |     0 |    141120 |  0.54 |
|   Register as Flip Flop    |  758 |     0 |    141120 |  0.54 |
| Block RAM Tile             |  2.5 |     0 |       216 |  1.16 |
|   RAMB36/FIFO*             |    2 |     0 |       216 |  0.93 |
| DSPs                       |    1 |     0 |       360 |  0.28 |
+----------------------------+------+-------+-----------+-------+
"""}
REPORTS["Slice"] = REPORTS["CLB"].replace("CLB ", "Slice ")


@pytest.fixture(scope="module")
def package(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vivado") / "small"
    flows.packaged(built, folder, "vivado")
    return folder


@pytest.fixture(scope="module")
def controlled(net: Net, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of a build with registers."""
    folder = tmp_path_factory.mktemp("controlled")
    graph = lower(net)
    emit(graph, size_fifos(graph, choose(graph)), folder / "b", images[:2], None, control=True)
    flows.packaged(folder / "b", folder / "p", "vivado")
    return folder / "p"


def component(package: Path) -> Any:
    ipyxact = pytest.importorskip("ipyxact.ipyxact")
    read = ipyxact.Component()
    read.load(str(package / "component.xml"))
    return read


def yosys_ports(package: Path, folder: Path) -> dict[str, tuple[str, int]]:
    """Direction and width of the top's ports, as Yosys reads them."""
    (folder / "axis.v").write_text((package / "rtl" / "small_axis.v").read_text())
    run_yosys("read_verilog axis.v\nproc\nwrite_json axis.json", folder)
    listed = json.loads((folder / "axis.json").read_text())["modules"]["small_axis"]["ports"]
    return {name: (port["direction"].removesuffix("put"), len(port["bits"]))
            for name, port in listed.items()}


@pytest.mark.parametrize("registers", [False, True])
def test_component(package: Path, controlled: Path, tmp_path: Path, registers: bool) -> None:
    folder = controlled if registers else package
    read = component(folder)
    assert (read.vendor, read.library, read.name, read.version) == ("n2uq", "hw", "small", "0.1.0")
    # ipyxact knows vectors and modules as a later edition has them.
    space = {"": "http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009"}
    plain = ElementTree.parse(folder / "component.xml")
    bits = {port.findtext("name", None, space): 1 + int(port.findtext(".//vector/left", "0", space))
            for port in plain.iterfind(".//port", space)}
    ports = {port.name: (port.wire.direction, bits[port.name]) for port in read.model.ports.port}
    assert ports == yosys_ports(folder, tmp_path)
    assert [at.text for at in plain.iterfind(".//view/modelName", space)] == ["small_axis"] * 2
    buses = {bus.name: bus for bus in read.busInterfaces.busInterface}
    control = {"s_axi_control", "interrupt"} if registers else set()
    assert set(buses) == {"s_axis", "m_axis", "aclk", "aresetn"} | control
    for name, bus in buses.items():
        maps = {each.logicalPort.name: each.physicalPort.name for each in bus.portMaps.portMap}
        assert set(maps.values()) <= set(ports)
        if name not in ("aclk", "aresetn", "interrupt"):
            assert maps == {port.removeprefix(f"{name}_").upper(): port
                            for port in ports if port.startswith(f"{name}_")}
    (files,) = read.fileSets.fileSet
    assert {file.name for file in files.file} == {"rtl/small.v", "rtl/small_axis.v"}
    text = (folder / "component.xml").read_text()
    associated = "s_axis:m_axis:s_axi_control" if registers else "s_axis:m_axis"
    assert f"ASSOCIATED_BUSIF\">{associated}<" in text
    assert "ASSOCIATED_RESET\">aresetn<" in text and "POLARITY\">ACTIVE_LOW<" in text
    assert ("memoryMaps" in text) == registers


def test_memory_map(controlled: Path) -> None:
    (space,) = component(controlled).memoryMaps.memoryMap
    (block,) = space.addressBlock
    read = {(register.name, int(register.addressOffset), field.name, int(field.bitOffset),
             int(field.bitWidth)) for register in block.register for field in register.field}
    assert read == {(register.name, register.offset, field.name, field.low, field.width)
                    for register in REGISTERS for field in register.fields}
    assert max(register.offset for register in REGISTERS) < int(block.range)


def interpret(script: Path, answers: dict[str, str], *arguments: str) -> list[tuple[str, ...]]:
    """The commands that a script gives that are not Tcl's own; `answers` by the first word."""
    tkinter = pytest.importorskip("tkinter")
    tcl, calls = tkinter.Tcl(), list[tuple[str, ...]]()

    def command(*words: str) -> str:
        calls.append(words)
        return answers.get(words[0], f"<{words[0]}>")
    tcl.createcommand("unknown", command)
    tcl.call("set", "argv", arguments)
    tcl.evalfile(str(script))
    return calls


def figures(package: Path, folder: Path, report: str) -> Path:
    answers = {"report_utilization": report, "get_property": "-1.25", "version": "2025.1"}
    calls = interpret(package / "vivado" / "ooc.tcl", answers, "xczu3eg-sbva484-1-e", "4.0",
                      str(folder / "vivado.json"))
    steps = ["create_project", "read_verilog", "synth_design", "create_clock", "opt_design",
             "place_design", "route_design", "report_utilization"]
    assert [words[0] for words in calls if words[0] in steps] == [
        step for step in steps for _ in range(2 if step == "read_verilog" else 1)]
    (synthesis,) = (words for words in calls if words[0] == "synth_design")
    assert synthesis[1:] == ("-top", "small_axis", "-part", "xczu3eg-sbva484-1-e", "-mode",
                             "out_of_context")
    for words in calls:
        assert words[0] != "read_verilog" or Path(words[1]).is_file()
    return folder / "vivado.json"


@pytest.mark.parametrize("family", REPORTS)
def test_figures_of_ooc(package: Path, built: Path, tmp_path: Path, family: str) -> None:
    path = figures(package, tmp_path, REPORTS[family])
    assert strict(path.read_text()) == load_figures(path, load_build(built)) == {
        "top": "small_axis", "part": "xczu3eg-sbva484-1-e", "version": "2025.1", "lut": 1034,
        "lutram": 256, "ff": 758, "bram": 5, "dsp": 1, "period_ns": 4.0,
        "fmax_mhz": 190.476}  # 1 / (4 ns + 1.25 ns)


def test_a_report_without_a_row_is_an_error(package: Path, tmp_path: Path) -> None:
    tkinter = pytest.importorskip("tkinter")
    with pytest.raises(tkinter.TclError, match="has no row DSPs"):
        figures(package, tmp_path, REPORTS["CLB"].replace("DSPs", "DSP48"))
    assert not (tmp_path / "vivado.json").exists()


def test_package_ip(controlled: Path) -> None:
    calls = interpret(controlled / "vivado" / "package_ip.tcl", {})
    assert calls[0] == ("create_project", "-in_memory", "-part", "xc7z020clg400-1")
    added = [words[-1] for words in calls if words[0] == "add_files"]
    assert {Path(name).name for name in added} == {"small.v", "small_axis.v"}
    assert all(Path(name).is_file() for name in added)
    assert [words[2] for words in calls if words[0] == "ipx::associate_bus_interfaces"] == [
        "s_axis", "m_axis", "s_axi_control"]
    assert calls[-1] == ("ipx::save_core", "<ipx::current_core>")


def test_memory_files_go_along(net: Net, images: np.ndarray, tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2uq_hw.hw.memory.FILE_BITS", 50)
    graph = lower(net)
    emit(graph, size_fifos(graph, choose(graph)), tmp_path / "b", images[:2], None)
    build = flows.packaged(tmp_path / "b", tmp_path / "p", "fusesoc", "vivado")
    memories = {path.name for path in build.verilog if path.suffix == ".hex"}
    assert memories
    core = (tmp_path / "p" / "small.core").read_text()
    assert set(re.findall(r"rtl/(\S+\.hex): \{file_type: user, copyto: \1\}", core)) == memories
    calls = interpret(tmp_path / "p" / "vivado" / "package_ip.tcl", {})
    assert {Path(words[-1]).name for words in calls if words[0] == "add_files"} == memories | {
        "small.v", "small_axis.v"}
    (files,) = component(tmp_path / "p").fileSets.fileSet
    assert {file.name for file in files.file} >= {f"rtl/{name}" for name in memories}


GOOD = {"top": "small_axis", "part": "xc7z020clg400-1", "version": "2025.1", "lut": 1234, "ff": 1,
        "lutram": 0, "bram": 2, "dsp": 0, "period_ns": 5.0, "fmax_mhz": 212.3}


def test_what_vivado_found_stands_beside() -> None:
    used = Resources(lut=1500, carry=3, ff=2)
    costs = Costs("small", Synthesis("small", "xc7", used, {"fc": used}, {}, 1, "0.70", ""), False,
                  imported=GOOD)
    _, table, _, line = costs.parts()
    assert table.rows[-1] == ("Vivado", "1,234", "-", "1", "2", "0", "0")
    assert line == "Vivado 2025.1, xc7z020clg400-1, out of context, asked for 200.0 MHz: 212.3 MHz"
    assert costs.as_dict()["imported"] == GOOD


@pytest.mark.parametrize("change,message", [
    (lambda f: f.update(top="other_axis"), "must be of small_axis, not of other_axis"),
    (lambda f: f.pop("ff"), "ff must be a number from 0 on, not None"),
    (lambda f: f.update(lut=-1), "lut must be a number from 0 on, not -1"),
    (lambda f: f.update(fmax_mhz=float("nan")), "fmax_mhz must be a number from 0 on, not nan"),
    (lambda f: f.update(dsp=True), "dsp must be a number from 0 on, not True"),
    (lambda f: f.update(part=7), "part must be a text, not 7"),
    (lambda f: f.update(period_ns=0), "period_ns must be above 0")])
def test_figures_that_are_none(built: Path, tmp_path: Path,
                               change: Callable[[dict[str, Any]], Any], message: str) -> None:
    wrong: dict[str, Any] = dict(GOOD)
    change(wrong)
    (tmp_path / "v.json").write_text(json.dumps(wrong))
    build: Build = load_build(built)
    with pytest.raises(N2uqError) as error:
        load_figures(tmp_path / "v.json", build)
    assert str(error.value) == f"{tmp_path / 'v.json'}: {message}"


def test_the_command_refuses_before_it_works(run: Cli, built: Path, tmp_path: Path) -> None:
    for text, message in [("[1]", "v.json: must be an object of figures, not list"),
                          ("{", "v.json: must be the JSON that ooc.tcl wrote: "),
                          (None, "v.json: no such file")]:
        (tmp_path / "v.json").unlink(missing_ok=True)
        if text is not None:
            (tmp_path / "v.json").write_text(text)
        assert fault(run("cost", built, "--import", "v.json")).startswith(message)
