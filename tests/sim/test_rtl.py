"""Simulation of hand-written devices, good and bad, with both simulators."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2uq_hw.errors import N2uqError
from n2uq_hw.sim.rtl.harness import (
    Await,
    Dut,
    Probe,
    Record,
    Run,
    Sink,
    Source,
    Tap,
    pack,
    read_record,
    stall_pattern,
    unpack,
)
from n2uq_hw.sim.rtl.runner import simulate

HANDSHAKE = "(input clk, input rst, input [W-1:0] i, input i_valid, output i_ready, "
DEVICES = {
    # one register, full throughput
    "slice": """
        module slice #(parameter W = 16) """ + HANDSHAKE + """
                output reg [W-1:0] o, output reg o_valid, input o_ready);
            assign i_ready = !o_valid || o_ready;
            always @(posedge clk)
                if (rst) o_valid <= 0;
                else if (i_ready) begin o_valid <= i_valid; o <= i; end
        endmodule""",
    # no state: every stall of either side is seen on the other
    "wires": """
        module wires #(parameter W = 16) """ + HANDSHAKE + """
                output [W-1:0] o, output o_valid, input o_ready);
            assign o = i; assign o_valid = i_valid; assign i_ready = o_ready;
        endmodule""",
    "wide": """
        module wide """ + HANDSHAKE.replace("W-1", "3000") + """
                output [3000:0] o, output o_valid, input o_ready);
            assign o = ~i; assign o_valid = i_valid; assign i_ready = o_ready;
        endmodule""",
    # 3 bits in, each bit to an output of its own
    "split": """
        module split (input aclk, input aresetn, input [2:0] i, input i_valid, output i_ready,
                output [2:0] o, output [2:0] o_valid, input [2:0] o_ready);
            reg [2:0] full, held;
            assign i_ready = &(~full | o_ready), o = held, o_valid = full;
            always @(posedge aclk)
                if (!aresetn) full <= 0;
                else if (i_ready) begin full <= {3{i_valid}}; held <= i; end
                else full <= full & ~o_ready;
        endmodule
        module splitter (input aclk, input aresetn, input [2:0] i, input i_valid, output i_ready,
                output a, output a_valid, input a_ready, output b, output b_valid, input b_ready,
                output c, output c_valid, input c_ready);
            split inner (aclk, aresetn, i, i_valid, i_ready, {c, b, a},
                {c_valid, b_valid, a_valid}, {c_ready, b_ready, a_ready});
        endmodule""",
    # loses, breaks or doubles beat 3, or takes no more after it
    "faulty": """
        module faulty #(parameter KIND = 0) """ + HANDSHAKE.replace("W-1", "15") + """
                output [15:0] o, output o_valid, input o_ready);
            reg [15:0] n; reg again;
            wire third = n == 3;
            assign o_valid = i_valid && !(third && (KIND == 0 || KIND == 3));
            assign i_ready = third && KIND == 0 ? 1
                : third && KIND == 3 ? 0 : third && KIND == 2 ? o_ready && again : o_ready;
            assign o = third && KIND == 1 ? i ^ 16'h0100 : i;
            always @(posedge clk)
                if (rst) begin n <= 0; again <= 0; end
                else begin
                    if (i_valid && i_ready) n <= n + 1;
                    if (third && o_valid && o_ready) again <= 1;
                end
        endmodule
        module drops """ + HANDSHAKE.replace("W-1", "15") + """
                output [15:0] o, output o_valid, input o_ready);
            faulty #(0) f (clk, rst, i, i_valid, i_ready, o, o_valid, o_ready);
        endmodule
        module corrupts """ + HANDSHAKE.replace("W-1", "15") + """
                output [15:0] o, output o_valid, input o_ready);
            faulty #(1) f (clk, rst, i, i_valid, i_ready, o, o_valid, o_ready);
        endmodule
        module doubles """ + HANDSHAKE.replace("W-1", "15") + """
                output [15:0] o, output o_valid, input o_ready);
            faulty #(2) f (clk, rst, i, i_valid, i_ready, o, o_valid, o_ready);
        endmodule
        module hangs """ + HANDSHAKE.replace("W-1", "15") + """
                output [15:0] o, output o_valid, input o_ready);
            faulty #(3) f (clk, rst, i, i_valid, i_ready, o, o_valid, o_ready);
        endmodule""",
    # gives a beat again when there was none for 400 cycles
    "repeats": """
        module repeats """ + HANDSHAKE.replace("W-1", "15") + """
                output [15:0] o, output o_valid, input o_ready);
            reg [15:0] quiet;
            assign o = i, o_valid = i_valid || quiet == 399, i_ready = o_ready;
            always @(posedge clk) quiet <= rst || i_valid ? 0 : quiet + 1;
        endmodule""",
    # gives the first 100 beats, then takes one every 50 cycles, and of all so many
    "slows": """
        module slows #(parameter TAKES = 200) """ + HANDSHAKE.replace("W-1", "15") + """
                output [15:0] o, output o_valid, input o_ready);
            reg [15:0] n; reg [5:0] wait_;
            assign o = i, o_valid = i_valid && n < 100;
            assign i_ready = n < 100 ? o_ready : wait_ == 49 && n < TAKES;
            always @(posedge clk)
                if (rst) begin n <= 0; wait_ <= 0; end
                else begin
                    if (i_valid && i_ready) n <= n + 1;
                    wait_ <= wait_ == 49 ? 0 : wait_ + 1;
                end
        endmodule
        module stops """ + HANDSHAKE.replace("W-1", "15") + """
                output [15:0] o, output o_valid, input o_ready);
            slows #(150) s (clk, rst, i, i_valid, i_ready, o, o_valid, o_ready);
        endmodule""",
    # one output gives the time for ever, one `GIVES` beats in a while, or its valid is unknown
    "spins": """
        module spins #(parameter GIVES = 3, parameter UNKNOWN = 0) """
            + HANDSHAKE.replace("W-1", "15") + """
                output reg [15:0] t, output t_valid, input t_ready,
                output [15:0] o, output o_valid, input o_ready);
            reg [15:0] n;
            assign t_valid = 1;
            assign o = i, o_valid = n == GIVES ? UNKNOWN ? 1'bx : 0 : i_valid && t[6:0] == 0;
            assign i_ready = o_valid && o_ready;
            always @(posedge clk)
                if (rst) begin t <= 0; n <= 0; end
                else begin
                    t <= t + 1;
                    if (o_valid && o_ready) n <= n + 1;
                end
        endmodule
        module spins_on """ + HANDSHAKE.replace("W-1", "15") + """
                output [15:0] t, output t_valid, input t_ready,
                output [15:0] o, output o_valid, input o_ready);
            spins #(200) s (clk, rst, i, i_valid, i_ready, t, t_valid, t_ready,
                            o, o_valid, o_ready);
        endmodule
        module unknown """ + HANDSHAKE.replace("W-1", "15") + """
                output [15:0] t, output t_valid, input t_ready,
                output [15:0] o, output o_valid, input o_ready);
            spins #(3, 1) s (clk, rst, i, i_valid, i_ready, t, t_valid, t_ready,
                             o, o_valid, o_ready);
        endmodule""",
}
VALUES = np.random.default_rng(1).integers(0, 1 << 16, (200, 1))
ICARUS = pytest.mark.skipif(shutil.which("iverilog") is None,
                            reason="Icarus Verilog is not installed")
SIMULATORS = ["verilator", pytest.param("icarus", marks=ICARUS)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("devices")
    for name, text in DEVICES.items():
        (folder / f"{name}.v").write_text(text)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def device(module: str, beats: np.ndarray | None = None, count: int | None = None,
           taps: tuple[Tap, ...] = ()) -> Dut:
    beats = pack(VALUES, 16) if beats is None else beats
    width = beats.shape[1]
    return Dut(module, module, (Source("i", "i_valid", "i_ready", width, beats),),
               (Sink("o", "o_valid", "o_ready", width, len(beats) if count is None else count),),
               taps)


def splitter() -> Dut:
    return Dut("splitter", "splitter",
               (Source("i", "i_valid", "i_ready", 3, pack(VALUES & 7, 3)),),
               tuple(Sink(o, f"{o}_valid", f"{o}_ready", 1, len(VALUES)) for o in "abc"),
               (Tap("inner", "i_valid", "inner.i_ready", "inner.i", 3),),
               clock="aclk", reset="aresetn", reset_active_low=True)


@given(st.integers(1, 63), st.booleans(), st.data())
def test_pack_round_trip(width: int, signed: bool, data: st.DataObject) -> None:
    low, high = (-(1 << width - 1), (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)
    lanes = data.draw(st.integers(1, 5))
    values = np.array(data.draw(st.lists(st.lists(
        st.integers(low, high), min_size=lanes, max_size=lanes), min_size=1)), np.int64)
    bits = pack(values, width)
    assert bits.shape == (len(values), lanes * width)
    assert np.array_equal(unpack(bits, lanes, width, signed), values)


def test_pack_puts_lane_0_low() -> None:
    assert pack(np.array([[1, -2]]), 2).tolist() == [[1, 0, 0, 1]]


def test_pack_refuses_what_does_not_fit() -> None:
    with pytest.raises(N2uqError, match="must fit 2 bits"):
        pack(np.array([[4]]), 2)


def test_stall_pattern_follows_its_definition() -> None:
    from n2uq_hw.sim.rtl.harness import _seed
    state, expected = _seed(5, 3), []
    for _ in range(300):
        expected.append(state < round(0.3 * 2**32))
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
    assert stall_pattern(5, 3, 0.3, 300).tolist() == expected
    assert abs(stall_pattern(5, 3, 0.3, 100_000).mean() - 0.3) < 0.01
    assert not stall_pattern(0, 0, 0.0, 1000).any() and stall_pattern(0, 0, 1.0, 1000).all()


def values(record: Record) -> np.ndarray:
    return unpack(record.beats, 1, 16, False)


@pytest.fixture(scope="module")
def good(files: list[Path], work: Path):
    """A run of all the good devices in one simulation."""
    def run(**options) -> Run:
        wide = np.random.default_rng(2).integers(0, 2, (20, 3001)).astype(np.uint8)
        return simulate(files, [device("slice"), device("wires"), splitter(),
                                device("wide", wide)], work=work, **options)
    return run


@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize("stalls", [(0, 0), (0.6, 0), (0, 0.6), (0.4, 0.3)])
@pytest.mark.parametrize("resets", [(), (37, 1, 0, 90)])
def test_good_devices(good, simulator: str, stalls: tuple[float, float], resets: tuple[int, ...]
                      ) -> None:
    run = good(simulator=simulator, stalls=stalls, resets=resets, seed=7)
    for name in ("slice", "wires"):
        assert np.array_equal(values(run.sinks[name][0]), VALUES)
    split = np.hstack([record.beats for record in run.sinks["splitter"]])
    assert np.array_equal(split, pack(VALUES & 7, 3))
    sent = np.random.default_rng(2).integers(0, 2, (20, 3001))
    assert np.array_equal(run.sinks["wide"][0].beats, 1 - sent)
    tap = run.taps["splitter"]["inner"]
    assert np.array_equal(tap.beats, pack(VALUES & 7, 3))
    assert np.array_equal(tap.cycles, run.sources["splitter"][0])
    assert run.cycles == 1 + max(r.cycles[-1] for rs in run.sinks.values() for r in rs)
    if stalls == (0, 0):
        assert np.array_equal(run.sources["slice"][0], np.arange(200))
        assert np.array_equal(run.sinks["slice"][0].cycles, np.arange(1, 201))


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_stalls_are_the_documented_ones(good, simulator: str) -> None:
    # "wires" has ports 2 (source) and 3 (sink)
    run = good(simulator=simulator, stalls=(0, 0.5), seed=3)
    ready = np.flatnonzero(~stall_pattern(3, 3, 0.5, 1000))[:200]
    assert np.array_equal(run.sinks["wires"][0].cycles, ready)
    run = good(simulator=simulator, stalls=(0.5, 0), seed=3)
    offered = np.flatnonzero(~stall_pattern(3, 2, 0.5, 1000))[:200]
    assert np.array_equal(run.sources["wires"][0], offered)


def test_second_run_does_not_compile(good) -> None:
    good()
    stages: list[tuple[str, float]] = []
    run = good(stalls=(0.1, 0.2), seed=9, resets=(5,),
               progress=lambda stage, fraction: stages.append((stage, fraction)))
    assert run.compile_seconds == 0.0
    assert stages[0] == ("simulate", 0.0) and stages[-1] == ("simulate", 1.0)
    assert {stage for stage, _ in stages} == {"simulate"}


@pytest.mark.slow
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_progress_tells_each_stage_from_0_to_1(files: list[Path], tmp_path: Path, simulator: str
                                               ) -> None:
    told: list[tuple[str, float]] = []
    simulate(files, [device("slice")], work=tmp_path, simulator=simulator,
             progress=lambda stage, fraction: told.append((stage, fraction)))
    stages = ["verilate"] * (simulator == "verilator") + ["compile", "simulate"]
    assert list(dict.fromkeys(stage for stage, _ in told)) == stages
    for stage in stages:
        fractions = [fraction for name, fraction in told if name == stage]
        assert fractions[0] == 0.0 and fractions[-1] == 1.0 and fractions == sorted(fractions)


def test_other_beats_and_counts_do_not_compile(files: list[Path], work: Path) -> None:
    simulate(files, [device("slice")], work=work)
    run = simulate(files, [device("slice", pack(VALUES[:5], 16))], work=work)
    assert run.compile_seconds == 0.0 and np.array_equal(values(run.sinks["slice"][0]), VALUES[:5])
    assert not [path for path in work.iterdir() if path.is_dir()]  # nothing half done stays


@pytest.fixture(scope="module")
def faulty(files: list[Path], work: Path):
    def run(module: str) -> Record:
        duts = [device(name, None if name == module else pack(VALUES[:2], 16))
                for name in ("drops", "corrupts", "doubles", "hangs")]
        return simulate(files, duts, work=work, max_idle=500).sinks[module][0]
    return run


def test_corrupt_beat_shows(faulty) -> None:
    wrong = values(faulty("corrupts")) ^ VALUES
    assert np.flatnonzero(wrong).tolist() == [3] and wrong[3] == 0x100


def test_beat_too_many_is_named(faulty) -> None:
    with pytest.raises(N2uqError, match="doubles: o must give 200 beats, not 201"):
        faulty("doubles")


def test_a_late_beat_too_many_is_heard(files: list[Path], work: Path) -> None:
    """It comes 400 cycles after the last."""
    for listen in (395, 405):
        def run(listen: int = listen) -> Run:
            return simulate(files, [device("repeats")], work=work, listen=listen, max_idle=100)
        if listen == 395:
            assert np.array_equal(values(run().sinks["repeats"][0]), VALUES)
            continue
        with pytest.raises(N2uqError, match=r"^repeats: o must give 200 beats, not 201$"):
            run()


@pytest.mark.parametrize("module, beats", [("drops", 199), ("hangs", 3)])
def test_deadlock_is_named(faulty, module: str, beats: int) -> None:
    message = f"{module}: deadlock, output o gave {beats} of 200 beats, then nothing for 500 cycles"
    with pytest.raises(N2uqError, match=message):
        faulty(module)


@pytest.fixture(scope="module")
def ends(files: list[Path], work: Path):
    """A run of devices that take beats after their last output."""
    def run(simulator: str = "verilator", taken: int = 150, awaited: int = 200) -> Run:
        slows = replace(device("slows", count=100), probes=(Probe("n", 16),),
                        awaits=(Await("inner", "i_valid", "i_ready", awaited),))
        return simulate(files, [device("stops", pack(VALUES[:taken], 16), count=100), slows],
                        work=work, simulator=simulator, resets=(30, 200), max_idle=500)
    return run


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_a_run_ends_when_all_was_taken(ends, simulator: str) -> None:
    """What comes after the last output is awaited, and a probe reads what it left."""
    run = ends(simulator)
    assert run.cycles == 100
    for name, taken in ("stops", 150), ("slows", 200):
        assert len(run.sources[name][0]) == taken
        assert np.array_equal(values(run.sinks[name][0]), VALUES[:100])
    assert np.array_equal(run.probes["slows"]["n"], pack(np.array([[200]]), 16)[0])


@pytest.mark.parametrize("change,message", [
    ({"taken": 151}, "stops: deadlock, input i took 150 of 151 beats, then nothing for 500 cycles"),
    ({"awaited": 201}, "slows: deadlock, inner moved fewer than 201 beats, then nothing")])
def test_what_does_not_move_is_named(ends, change: dict, message: str) -> None:
    with pytest.raises(N2uqError, match=message):
        ends(**change)


@pytest.mark.parametrize("module,moved,simulator", [
    ("spins", 3, SIMULATORS[0]), *(pytest.param(module, moved, "icarus", marks=ICARUS)
                                   for module, moved in [("spins_on", 200), ("unknown", 3)])])
def test_beats_for_ever_are_no_movement(
        files: list[Path], work: Path, module: str, moved: int, simulator: str,
        monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends, though another output lacks some, and its logs are short."""
    sizes = {}

    def record(path: Path, *args: Any) -> Record:
        sizes[path.name] = path.stat().st_size
        return read_record(path, *args)
    monkeypatch.setattr("n2uq_hw.sim.rtl.runner.read_record", record)
    both = replace(device(module), sinks=(Sink("t", "t_valid", "t_ready", 16, 7),
                                          Sink("o", "o_valid", "o_ready", 16, 200)))
    with pytest.raises(N2uqError, match=f"^{module}: t must give 7 beats, not 23 or more$"):
        simulate(files, [both], work=work, simulator=simulator, max_idle=500)
    line = 2 * (5 + 2) + 1
    assert sizes == {"port1.log": 23 * line, "port2.log": moved * line}


def test_verilog_that_does_not_compile(tmp_path: Path) -> None:
    bad = tmp_path / "bad.v"
    bad.write_text("module slice(input clk, oops\n")
    with pytest.raises(N2uqError, match=r"^verilator: .*bad\.v") as error:
        simulate([bad], [device("slice")], work=tmp_path / "work")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "work").exists()


def test_folders_may_have_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "my designs"
    folder.mkdir()
    (folder / "slice.v").write_text(DEVICES["slice"])
    run = simulate([folder / "slice.v"], [device("slice")], work=folder / "work")
    assert np.array_equal(values(run.sinks["slice"][0]), VALUES)


@pytest.mark.parametrize("change,message", [
    ({"stalls": (0, 1.5)}, "must lie in 0 to 1"), ({"simulator": "spice"}, "not spice"),
    ({"resets": (-1,)}, "must not be negative"), ({"duts": []}, "names must be given"),
    ({"verilog": [Path(__file__), Path(__file__)]}, "file names must differ"),
    ({"verilog": [Path("none.v")]}, "none.v: must be a Verilog file")])
def test_arguments_are_checked(tmp_path: Path, change: dict, message: str) -> None:
    arguments = {"verilog": [], "duts": [device("slice")], "work": tmp_path, **change}
    with pytest.raises(N2uqError, match=message):
        simulate(arguments.pop("verilog"), arguments.pop("duts"), **arguments)
