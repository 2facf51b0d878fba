# amaranth: UnusedElaboratable=no
"""ROMs in the Verilog text and in files: every word, what the tools see, and the hex text."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Const, Module, Shape, Signal
from test_depthwise import depthwise
from test_matvec import matvec, odd
from test_threshold import nodes, threshold
from units import Bench, Case, bit_exact, stream_rules

from n2uq_hw.builds.emit import library_verilog
from n2uq_hw.builds.synth import synthesize
from n2uq_hw.cost import memories
from n2uq_hw.hw import memory
from n2uq_hw.hw.library import Library
from n2uq_hw.hw.memory import FILE_BITS, Port, bits_of, hex_rows, rom, words
from n2uq_hw.hw.stream import Unit, beats
from n2uq_hw.hw.threshold import ThresholdUnit
from n2uq_hw.ir import Graph, Input, Threshold, writable
from n2uq_hw.ir.folding import STYLES
from n2uq_hw.sim.rtl.runner import simulate
from n2uq_hw.tools import run_yosys


class RomUnit(Unit):
    """The words at the addresses that come."""

    def __init__(self, bits: np.ndarray, style: str = "auto") -> None:
        self.bits, self.style = bits, style
        super().__init__(beats(Shape((len(bits) - 1).bit_length()), 1),
                         beats(Shape(1), bits.shape[1]))

    def elaborate(self, platform):
        m = Module()
        enable = Signal()
        port = rom(m, "words", self.bits, platform, self.style)
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable),
                     port.addr.eq(self.i.payload[0]), port.en.eq(enable),
                     self.o.payload.as_value().eq(port.data)]
        with m.If(enable):
            m.d.sync += self.o.valid.eq(self.i.valid)
        return m


def contents(depth: int, width: int) -> np.ndarray:
    return np.random.default_rng(depth + width).integers(0, 2, (depth, width)).astype(np.uint8)


def reads(depth: int, width: int) -> Case:
    """Every address in order, and some at random."""
    bits = contents(depth, width)
    addresses = np.concatenate([np.arange(depth),
                                np.random.default_rng(0).integers(0, depth, 40)])
    return Case(f"rom{depth}x{width}", RomUnit(bits), addresses[:, None], bits[addresses])


def cases() -> list[Case]:
    rng = np.random.default_rng(0)
    return [*(reads(depth, width) for depth, width in
              [(2, 1), (3, 4), (16, 5), (17, 63), (5, 64), (100, 65), (9, 300)]),
            matvec("dense", odd(2, (4, 6), rng), 2, 3, "planes"),
            depthwise("each", odd(3, (9, 6), rng), 2),
            *(threshold(node, 2, style) for node in nodes() for style in STYLES
              if node.name in ("vee", "mixed", "unused"))]


@pytest.fixture(scope="module", params=[1, FILE_BITS], ids=["files", "text"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The same units with all ROMs in files, and with all in the text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "FILE_BITS", request.param)
        patch.setattr(memory, "WIDEST", 200)  # the words of 300 bits lie in two memories
        plain = Bench(cases(), tmp_path_factory)
    units = {path.name.partition(".")[0] for path in plain.files if path.suffix == ".hex"}
    assert units == (set(plain.cases) if request.param == 1 else set())
    return plain


test_bit_exact, test_stream_rules = bit_exact, stream_rules


def large(tmp_path: Path) -> tuple[list[Path], Case]:
    """A ROM of just as many bits as get a file, and what reads it."""
    case = reads(FILE_BITS // 64, 64)
    library = Library()
    library.signature(case.name, lambda: case.unit)
    files = library_verilog(library, "rom")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return [tmp_path / name for name in files], case


SIMULATORS = ["verilator", pytest.param(
    "icarus", marks=pytest.mark.skipif(shutil.which("iverilog") is None,
                                       reason="Icarus Verilog is not installed"))]


@pytest.mark.slow
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_simulators_find_the_file(tmp_path: Path, simulator: str) -> None:
    files, case = large(tmp_path)
    assert [path.name for path in files] == ["rom.v", "rom1024x64.words.hex"]
    dut = replace(case.dut, module=case.name)
    run = simulate(files, [dut], work=tmp_path / "work", simulator=simulator)
    assert np.array_equal(run.sinks[case.name][0].beats, case.expected)
    # Another content is another simulation, not one from the store.
    files[1].write_bytes(hex_rows(1 - case.unit.bits))
    run = simulate(files, [dut], work=tmp_path / "work", simulator=simulator)
    assert run.compile_seconds > 0
    assert np.array_equal(run.sinks[case.name][0].beats, 1 - case.expected)


@pytest.mark.slow
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_a_macro_names_the_folder_of_the_file(tmp_path: Path, simulator: str) -> None:
    (verilog, words), case = large(tmp_path)
    (tmp_path / "rtl here").mkdir()
    words.rename(tmp_path / "rtl here" / words.name)
    verilog.write_text(f'`define ROM_FOLDER "{tmp_path}/rtl here"\n{verilog.read_text()}')
    run = simulate([verilog], [replace(case.dut, module=case.name)], work=tmp_path / "work",
                   simulator=simulator)
    assert np.array_equal(run.sinks[case.name][0].beats, case.expected)
    assert "$mem" in run_yosys("read_verilog rom.v\nproc\nmemory -nomap\nstat", tmp_path)


@pytest.mark.parametrize("family,blocks", [("xcup", 4), ("ecp5", 4)])
def test_synthesis_sees_block_ram(tmp_path: Path, family: str, blocks: int) -> None:
    """1,024 words of 64 bits: 64 kbit of the 16 or 18 in a block."""
    files, case = large(tmp_path)
    result = synthesize(files, case.name, family, work=tmp_path / "work")
    assert result.total.bram == blocks and result.total.lut < 20
    before = json.dumps(result.as_dict())
    files[1].write_bytes(hex_rows(np.zeros_like(case.unit.bits)))
    zeros = synthesize(files, case.name, family, work=tmp_path / "work")
    assert json.dumps(zeros.as_dict()) != before and zeros.total.bram == 0


@pytest.mark.parametrize("family", memories.FAMILIES)
@pytest.mark.parametrize("depth,width,style,file_bits", [
    (8, 20, "block", FILE_BITS), (512, 18, "logic", 1)], ids=["block", "logic"])
def test_synthesis_obeys_the_style(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int,
                                   width: int, style: str, file_bits: int, family: str) -> None:
    """Block RAM for few bits, in the text, and logic for many, in a file."""
    monkeypatch.setattr(memory, "FILE_BITS", file_bits)
    library = Library()
    library.signature("unit", lambda: RomUnit(contents(depth, width), style))
    files = library_verilog(library, "rom")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    taken = synthesize([tmp_path / name for name in files], "unit", family,
                       work=tmp_path / "work").total.bram
    assert taken == memories.rom(depth, width, family, style=style).bram == (style == "block")
    assert memories.rom(depth, width, family).bram == (style == "logic")  # left to itself


@pytest.mark.parametrize("style,large", [
    ("parallel", {"table_0", "table_1"}), ("search", {"table_1_0_0", "table_2_0_0"})])
def test_both_banks_of_a_large_table_lie_in_files(tmp_path: Path, style: str, large: set[str]
                                                  ) -> None:
    """The one in use, its rows filled up to a power of two, and the other; each column has its
    file, and Yosys finds a RAM in it."""
    rng = np.random.default_rng(0)
    graph = writable(Graph("g", (Input("x", shape=(1, 1, 200), lo=-1000, hi=1000), Threshold(
        "q", ("x",), rng.integers(-900, 900, (200, 3)), np.ones((200, 3), np.int8),
        np.zeros(200, np.int64)))).verify(), "all")
    unit, library = ThresholdUnit(graph["q"], graph.edges["x"], graph.edges["q"], pe=1,
                                  style=style), Library()
    library.signature("unit", lambda: unit)
    files = library_verilog(library, "tables")
    columns = {f"{table.name}_{k}": words(bits) for table in unit.tables_
               for k, bits in enumerate(table.columns)}
    assert files.keys() == {"tables.v", *(f"unit.{name}.hex" for name in large)}
    for name in large:
        rows = columns[name]
        size = 2**(len(rows) - 1).bit_length()
        assert [int(row, 16) for row in files[f"unit.{name}.hex"].split()] == [
            *rows, *[0] * (size - len(rows)), *rows]
        (tmp_path / f"unit.{name}.hex").write_text(files[f"unit.{name}.hex"])
    (tmp_path / "tables.v").write_text(files["tables.v"])
    found = run_yosys("read_verilog tables.v\nproc\nmemory -nomap\nstat", tmp_path)
    assert len(files["tables.v"]) < 40_000 and "$mem" in found


def test_verilog_names_its_files(tmp_path: Path) -> None:
    text = large(tmp_path)[0][0].read_text()
    assert text.startswith("// Reads 1 file(s) with $readmemh.")
    assert "//   rom1024x64.words.hex\n" in text
    assert re.findall(r'\$readmemh\("(.*)", stored\)', text) == ["rom1024x64.words.hex"]


def test_small_memories_stay_in_the_text() -> None:
    case, library = reads(FILE_BITS // 64 - 1, 64), Library()
    library.signature(case.name, lambda: case.unit)
    files = library_verilog(library, "rom")
    assert list(files) == ["rom.v"] and files["rom.v"].startswith("module")


def test_two_memories_of_one_name() -> None:
    library = Library()
    library.memory("words", contents(2, 2), {})
    with pytest.raises(NameError, match="words: a memory of this name is there already"):
        library.memory("words", contents(2, 2), {})


def test_words_pack_the_first_value_low() -> None:
    assert words(bits_of(np.array([[1, 2, 3], [4, 0, 7]]), 3)) == [0o321, 0o704]
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2**13, (5, 40)).astype(np.uint32)
    assert words(bits_of(values, 13)) == [sum(int(v) << 13 * i for i, v in enumerate(row))
                                          for row in values]


@pytest.mark.parametrize("width", [1, 3, 4, 5, 8, 9, 31, 32, 63, 64, 65, 1000])
def test_hex_rows_are_the_words(width: int) -> None:
    bits = contents(7, width)
    lines = hex_rows(bits).decode().split("\n")
    assert lines.pop() == "" and [int(line, 16) for line in lines] == words(bits)
    assert {len(line) for line in lines} == {-(-width // 4)}


def test_words_of_a_wide_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any width, within a part and across several; the last part is short."""
    monkeypatch.setattr("n2uq_hw.hw.memory.WIDEST", 8)
    row = 0x1B2D9F53
    parts = [Const(row >> at, min(8, 29 - at)) for at in range(0, 29, 8)]
    port = Port(Signal(), Signal(), tuple(parts), (0,) * len(parts))
    assert Const.cast(port.data).value == row
    for width in range(1, 30):
        for k in range(29 // width):
            word = Const.cast(port.word(k, width))
            assert (len(word), word.value) == (width, row >> k * width & 2**width - 1)
