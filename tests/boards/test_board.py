"""Boards: the top module in Verilator behind a serial port, its netlist, and the bitstream."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lines import Damaging

from n2uq_hw import api, data
from n2uq_hw.boards.bitstream import Bitstream, TooSlow, constraints
from n2uq_hw.boards.design import divisor_of, plan_for
from n2uq_hw.boards.devices import BOARDS, find_board
from n2uq_hw.boards.emit import BoardBuild, load_board
from n2uq_hw.boards.host import open_port
from n2uq_hw.boards.run import BoardRun, run_board, virtual_board
from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import Graph
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import Net

pytest.importorskip("serial", reason="needs pyserial, of the extra `board`")


def classes_shown(changes: list[int], got: BoardRun, inverted: int = 0) -> bool:
    """Whether the LEDs went through the classes of all images, in their order."""
    shown = [int(each) ^ inverted for each in got.classes]
    wanted = [value for at, value in enumerate(shown) if not at or shown[at - 1] != value]
    return changes[-len(wanted):] == wanted


@pytest.fixture(scope="module")
def block(net: Net) -> Graph:
    return lower(net)


@pytest.fixture(scope="module")
def small(block: Graph, tmp_path_factory: pytest.TempPathFactory) -> BoardBuild:
    """A small network for the iCEBreaker, without a bitstream."""
    return api.board(block, "icebreaker", tmp_path_factory.mktemp("board") / "b", bitstream=False)


@pytest.mark.slow
def test_a_virtual_board_computes_goldens_bits_over_a_bad_line(small: BoardBuild) -> None:
    images = small.build.vectors["images"][:24]
    virtual = virtual_board(small)
    try:
        clean = run_board(small, images, port=virtual.port, patience=20.0)
        assert clean.mismatches == 0
        assert np.array_equal(clean.outputs, small.build.graph.forward(images))
        assert (clean.traffic.repeated, clean.traffic.faults, clean.traffic.broken) == (0, 0, 0)
        assert classes_shown(virtual.leds, clean)
        port = Damaging(open_port(virtual.port, 1_000_000), every=120, seed=1)
        got = run_board(small, images, port=port, patience=3.0)
        assert got.mismatches == 0 and port.damages > 5 and got.traffic.repeated > 0
        again = run_board(small, images[:4], port=virtual.port, patience=20.0)
        assert again.mismatches == again.traffic.repeated == 0
    finally:
        virtual.close()


@pytest.mark.slow
def test_a_wrong_bit_and_a_wrong_build_are_seen(small: BoardBuild, block: Graph) -> None:
    images = small.build.vectors["images"][:2]
    virtual = virtual_board(small)
    try:
        other = BoardBuild(small.path, small.build, small.told | {"identity": "00" * 8})
        with pytest.raises(N2uqError, match=r"^board: must hold build 0{16}, that of "):
            run_board(other, images, port=virtual.port, patience=20.0)
    finally:
        virtual.close()


@pytest.mark.slow
def test_the_command_line_talks_to_a_board_and_tells_a_wrong_bit(
        small: BoardBuild, run: Callable[..., tuple[int, str, str]],
        monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez("images.npz", images=small.build.vectors["images"][:3])
    code, said, _ = run("run", small.path, "images.npz", "--port", "virtual", "--out", "o.npz")
    assert code == 0 and "3, 0 mismatches" in said
    expected = small.build.graph.forward(small.build.vectors["images"][:3])
    assert np.array_equal(np.load("o.npz")["outputs"], expected)
    wrong = expected.copy()
    wrong[1, 2] += 1
    monkeypatch.setattr(Graph, "forward", lambda self, images: wrong)
    code, said, _ = run("run", small.path, "images.npz", "--port", "virtual", "--json")
    assert code == 1 and json.loads(said)["mismatches"] == 1
    code, said, fault = run("run", small.path, "images.npz", "--port", "/dev/nothing")
    assert (code, said) == (2, "")
    assert fault == "error: /dev/nothing: cannot be opened: No such file or directory\n"
    code, said, fault = run("board", "digits_mlp_w2a2", "--board", "arty", "--out", "b")
    assert code == 2 and fault.startswith("error: board must be one of icebreaker, tangnano9k")
    assert not Path("b").exists()


def test_the_directory_is_whole_or_not_there(
        block: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise N2uqError("nextpnr-ice40: no place for it")

    monkeypatch.setattr("n2uq_hw.boards.emit.make_bitstream", fails)
    with pytest.raises(N2uqError, match="no place for it"):
        api.board(block, "icebreaker", tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_a_clock_that_is_missed_asks_for_a_slower_folding(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two reach 9 and 11 MHz of 25; whoever asks for cycles gets no more of them."""
    reached = iter([9.0, 11.0])

    def make(device, verilog, top) -> Bitstream:
        if (mhz := next(reached, None)) is not None:
            raise TooSlow(device, mhz)
        return Bitstream({"board.bit": b"bits"}, 26.0, {}, {})

    monkeypatch.setattr("n2uq_hw.boards.emit.make_bitstream", make)
    graph = api.lower("digits_cnn_w2a2")
    made = api.board(graph, "ulx3s", tmp_path / "b")
    (first, nine), (second, eleven) = made.told["missed"]
    assert (nine, eleven) == (9.0, 11.0) and first < second < made.told["cycles"]
    assert f"a folding of {first:,.0f} cycles was too slow | 9.0 MHz" in (
        made.path / "report.md").read_text()
    reached = iter([9.0])
    with pytest.raises(TooSlow, match=r"^ulx3s-85f: must run at 25 MHz, but reaches 9\.0 MHz; "
                                      r"another folding may$"):
        api.board(graph, "ulx3s", tmp_path / "c", cycles=4096)
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_what_is_there_is_told_and_edits_are_refused(small: BoardBuild, tmp_path: Path) -> None:
    told = json.loads((small.path / "board.json").read_text())
    assert (told["divisor"], told["baud"], told["mhz"]) == (12, 1_000_000, 12)
    assert "1,000,000 bit/s, 8N1, 12 cycles per bit" in (small.path / "report.md").read_text()
    again = api.board(small.build.graph, "icebreaker", tmp_path / "b", bitstream=False)
    for name in ("board.json", f"{small.top}.v", "report.md"):
        assert (again.path / name).read_bytes() == (small.path / name).read_bytes()
    (again.path / f"{small.top}.v").write_text("module\n")
    with pytest.raises(N2uqError, match=r"_board\.v: must be as it was made"):
        load_board(again.path)


def test_folding_keeps_up_with_the_line_and_speeds_that_do_not_divide_are_refused() -> None:
    device = find_board("ulx3s")
    assert divisor_of(device, 1_000_000) == 25 and divisor_of(device, 115_200) == 217
    plan = plan_for(api.lower("digits_cnn_w2a2"), device, 25)
    assert plan.cycles <= 10 * 25 * (64 + 10)
    with pytest.raises(N2uqError, match=r"^baud must divide 27 MHz within 2 %, not 4000000"):
        divisor_of(find_board("tangnano9k"), 4_000_000)
    with pytest.raises(N2uqError, match=r"^baud must be in 300\.\.3,000,000 on icebreaker, not 1$"):
        divisor_of(find_board("icebreaker"), 1)
    with pytest.raises(N2uqError, match=r"^board must be one of icebreaker, tangnano9k, ulx3s,"):
        find_board("arty")


def test_constraints_name_every_port_once() -> None:
    for device in BOARDS.values():
        text = constraints(device)
        for port, pin in device.pins.items():
            (line,) = [line for line in text.splitlines()
                       if line.startswith(("LOCATE", "set_io", "IO_LOC")) and port in line.replace(
                           '"', " ").split()]
            assert line.replace('"', " ").replace(";", "").split()[-1] == pin
        assert len(set(device.pins.values())) == len(device.pins)


def test_pins_are_those_of_amaranth_boards() -> None:
    """What these pins were taken from."""
    icebreaker = pytest.importorskip("amaranth_boards.icebreaker").ICEBreakerPlatform
    from amaranth_boards.tang_nano_9k import TangNano9kPlatform
    from amaranth_boards.ulx3s import ULX3S_85F_Platform

    broken_off = [*(each for each in icebreaker.resources if each.name != "led"),
                  *icebreaker.break_off_pmod]
    for name, platform, resources in (
            ("ulx3s", ULX3S_85F_Platform, ULX3S_85F_Platform.resources),
            ("tangnano9k", TangNano9kPlatform, TangNano9kPlatform.resources),
            ("icebreaker", icebreaker, broken_off)):
        device, names = find_board(name), {}
        mapping = {pin: place for connector in platform.connectors for pin, place in connector}
        for resource in resources:
            for io in resource.ios:
                for pins in getattr(io, "ios", [io]):
                    if hasattr(pins, "map_names"):
                        key = (resource.name, resource.number, getattr(io, "name", ""))
                        names[key] = pins.map_names(mapping, resource)[0], pins.invert
        clock = platform.default_clk
        assert names[clock, 0, ""][0] == device.clk
        assert names["uart", 0, "rx"][0] == device.rx and names["uart", 0, "tx"][0] == device.tx
        leds = {pin for (kind, _, _), pin in names.items() if kind == "led"}
        assert leds == {(pin, device.leds_low) for pin in device.leds}


DIGITS = [("digits_cnn_w2a2", "ulx3s"), ("digits_cnn_w2a2", "tangnano9k"),
          ("digits_mlp_w2a2", "icebreaker")]


@pytest.mark.slow
@pytest.mark.parametrize("net, name", DIGITS)
def test_all_digits_are_right_over_a_bad_line(net: str, name: str, tmp_path: Path) -> None:
    """360 images, every bit, at the real number of cycles per bit."""
    board = api.board(api.lower(net), name, tmp_path / "b", bitstream=False)
    digits = data.load("digits")
    virtual = virtual_board(board)
    try:
        clean = run_board(board, digits.images, digits.labels, port=virtual.port, patience=60.0)
        assert clean.mismatches == 0 and clean.traffic.repeated == 0
        low = (1 << len(find_board(name).leds)) - 1 if find_board(name).leds_low else 0
        assert classes_shown(virtual.leds, clean, low)
        port = Damaging(open_port(virtual.port, 1_000_000), every=1000, seed=2)
        got = run_board(board, digits.images, digits.labels, port=port, patience=10.0)
        assert got.mismatches == 0 and np.array_equal(got.outputs, clean.outputs)
        assert port.damages > 30 and got.traffic.repeated > 15
    finally:
        virtual.close()


@pytest.mark.slow
@pytest.mark.parametrize("net, name", DIGITS)
def test_bitstreams_meet_their_clock_and_netlists_compute_the_same(
        net: str, name: str, tmp_path: Path) -> None:
    board = api.board(api.lower(net), name, tmp_path / "b")
    assert board.told["fmax_mhz"] >= board.told["mhz"]
    assert (board.path / board.told["load"].split()[-1]).stat().st_size > 50_000
    virtual = virtual_board(board, netlist=True)
    try:
        digits = data.load("digits")
        got = run_board(board, digits.images[:6], digits.labels[:6], port=virtual.port,
                        patience=200.0)
        assert got.mismatches == got.traffic.repeated == 0
    finally:
        virtual.close()
