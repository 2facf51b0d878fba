"""Compiles a simulation once and runs it: `simulate`."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import find_libpython
import numpy as np
from cocotb_tools import config

from n2uq_hw import tools
from n2uq_hw.errors import N2uqError
from n2uq_hw.jobs import Progress

from ..contract import bound
from .harness import (
    DRAIN,
    PERIOD,
    Await,
    Dut,
    Probe,
    Record,
    Run,
    Sink,
    Source,
    Tap,
    harness_verilog,
    pack,
    read_cycles,
    read_record,
    stall_pattern,
    streams,
    unpack,
    write_inputs,
)
from .netlists import CELLS
from .switching import DUMP, counted

__all__ = ["MAX_IDLE", "Await", "Dut", "Probe", "Progress", "Record", "Run", "Sink", "Source",
           "Tap", "compiled", "make", "memories", "pack", "prepare", "simulate", "stall_pattern",
           "unpack"]

MAX_IDLE = 10_000
_TIMESCALE = ("1ns", "1ps")
# Bytes of C++ that are compiled at once: the headers take g++ as long as 200 kB of a design.
ALONE = 2**22
RUNTIME = "-O2"  # how Verilator's run-time library is compiled, once for all simulations


def simulate(verilog: Sequence[Path], duts: Sequence[Dut], *, work: Path,
             stalls: tuple[float, float] = (0, 0), seed: int = 0, simulator: str = "verilator",
             resets: Sequence[int] = (), max_idle: int = MAX_IDLE, listen: int = DRAIN,
             short: bool = False, power_up: int | None = None, switching: bool = False,
             progress: Progress | None = None) -> Run:
    """Run all `duts` side by side, until each output gave its beats and each input took its own.

    Parameters
    ----------
    verilog: the files with the devices' modules; .hex files are there for $readmemh.
    work: folder for the compiled simulator, which is kept and serves again for the same
        Verilog and streams, whatever the beats, counts, stalls, seed and resets.
    stalls: probability that a source, and that a sink, stalls in a cycle, 0 to 1.
    seed: of the stalls, see `harness.stall_pattern`.
    simulator: "verilator" or "icarus".
    resets: cycles to run before each extra reset, counted from the reset before; the run that
        counts begins after the last.
    max_idle: the run has failed when no expected beat moved for so many cycles.
    listen: cycles in which a beat too many is noticed, after all has come and was taken.
    short: compile in half of the time what then takes up to five times as long: for few cycles.
    power_up: the seed from which what the Verilog starts with no value starts, and what it leaves
        undefined is drawn; None: 0 for all.  In Icarus all of it is undefined whatever this is.
    switching: count the toggles of all signals of the devices, from reset to the last beat; cells
        of a vendor's library count by their ports' nets alone.
    progress: is told the stage, "verilate", "compile" or "simulate", and the fraction done, 0 to 1.

    Raises
    ------
    N2uqError: tools missing or failing, Verilog that does not compile, a device that gives no
        more beats before its count or a beat after it, or does not take all of its beats.
    """
    _check(verilog, duts, stalls, resets, simulator)
    report = progress or (lambda stage, fraction: None)
    work = work.resolve()
    began = time.perf_counter()
    try:
        program, compiled = _program(
            verilog, harness_verilog(duts, DUMP if switching else ""), work, simulator, report,
            short=short, random=power_up is not None, dump=switching)
        compile_seconds = time.perf_counter() - began if compiled else 0.0
        with tools.scratch(work, "run-") as run:
            write_inputs(run, duts, stalls, seed, max_idle, listen)
            (run / "plan.json").write_text(json.dumps(
                {"period": PERIOD, "resets": [int(cycles) for cycles in resets]}), encoding="utf-8")
            for path in memories(verilog):
                shutil.copy(path, run)
            if not switching:
                outcome = _execute(program, run, simulator, duts, report, power_up)
                return _result(run, duts, outcome, max_idle, compile_seconds)
            with counted(run) as found:
                outcome = _execute(program, run, simulator, duts, report, power_up)
            return replace(_result(run, duts, outcome, max_idle, compile_seconds),
                           switching=found[0])
    except OSError as error:
        name = error.filename2 or error.filename or work
        raise N2uqError(f"{name}: {error.strerror or error}") from None


def prepare(verilog: Sequence[Path], duts: Sequence[Dut], *, work: Path,
            simulator: str = "verilator", short: bool = False, power_up: int | None = None,
            progress: Progress | None = None) -> None:
    """Compile what `simulate` will run for these devices, unless it is there; raises as it does.

    Then `simulate` may be called several times at once.
    """
    _check(verilog, duts, (0, 0), (), simulator)
    _program(verilog, harness_verilog(duts), work.resolve(), simulator,
             progress or (lambda stage, fraction: None), short=short, random=power_up is not None)


def memories(verilog: Sequence[Path]) -> list[Path]:
    """The files among `verilog` that it reads when it starts."""
    return [path for path in verilog if path.suffix == ".hex"]


def _check(verilog: Sequence[Path], duts: Sequence[Dut], stalls: tuple[float, float],
           resets: Sequence[int], simulator: str) -> None:
    """Raise N2uqError for arguments that make no simulation."""
    if simulator not in ("verilator", "icarus"):
        raise N2uqError(f"simulator: must be verilator or icarus, not {simulator or 'nothing'}")
    for path in verilog:
        if not path.is_file():
            raise N2uqError(f"{path}: must be a Verilog file, and is not there")
    files = ["harness.sv", *(path.name for path in verilog)]
    if len(set(files)) != len(files):
        raise N2uqError(f"verilog: file names must differ, not be {files}")
    names = [dut.name for dut in duts]
    if not names or len(set(names)) != len(names):
        raise N2uqError(f"devices: names must be given and differ, not {names}")
    if not all(0 <= probability <= 1 for probability in stalls):
        raise N2uqError(f"stalls: probabilities must lie in 0 to 1, not {stalls}")
    if any(cycles < 0 for cycles in resets):
        raise N2uqError(f"resets: cycles must not be negative, not {list(resets)}")
    for _, dut, stream in streams(duts):
        if stream.width < 1:
            raise N2uqError(f"{dut.name}: {stream.data} must have 1 bit or more")
        if isinstance(stream, Source) and stream.beats.shape[1:] != (stream.width,):
            raise N2uqError(f"{dut.name}: beats of {stream.data} must be [n, {stream.width}] "
                            f"bits, not {list(stream.beats.shape)}")


def _program(verilog: Sequence[Path], harness: str, work: Path, simulator: str,
             report: Progress, *, short: bool = False, random: bool = False, dump: bool = False
             ) -> tuple[Path, bool]:
    """The compiled simulator, and whether it had to be compiled."""
    icarus = simulator == "icarus"
    if icarus:
        for name in ("iverilog", "vvp"):
            tools.need(name, "simulation with Icarus")
    else:
        tools.verilator()
    versions = tools.versions()
    held = memories(verilog)
    sources = ["harness.sv", *(path.name for path in verilog
                              if path not in held and path.suffix != ".vh")]

    checks = "" if icarus else bound("".join(  # Icarus binds nothing
        path.read_text(encoding="utf-8") for path in verilog if path not in held))

    def translate(build: Path) -> None:
        for name, text in (("harness.sv", harness), ("n2uq_checks.sv", checks)):
            (build / name).write_text(text, encoding="utf-8")
        by = _compile_icarus if icarus else partial(_verilate, level=0 if short else 1,
                                                      unknown="unique" if random else "fast",
                                                      dump=dump)
        by([*sources, *(["n2uq_checks.sv"] if checks else [])], build, report)

    return compiled(simulator, [
        harness, checks, short, random, str(config.libs_dir), versions["cocotb"],
        versions["iverilog"] if icarus else tools.verilator().version], verilog, work, translate)


def compiled(kind: str, about: Sequence[str | bool], files: Sequence[Path], work: Path,
             translate: Callable[[Path], None]) -> tuple[Path, bool]:
    """The program of a `kind` for these files, kept in `work`, and whether it was compiled now.

    `translate` makes ``simulator`` in the folder that it is given, which holds the files.  `about`
    and the files tell programs apart.
    """
    key = hashlib.sha256(json.dumps([
        kind, *about, tools.versions()["g++"],
        [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files],
    ]).encode()).hexdigest()[:16]
    program = work / f"{kind}-{key}"
    if program.is_file():
        return program, False
    # Not in `work`: make refuses folders with a space in their names.
    with tools.scratch() as build:
        for path in files:
            shutil.copy(path, build)
        translate(build)
        if not (build / "simulator").is_file():
            raise N2uqError(f"{'iverilog' if kind == 'icarus' else 'g++'}: must make a simulator, "
                            "and made none without a fault")
        work.mkdir(parents=True, exist_ok=True)
        # Whole or not there: others may look for the program at the same time.
        part = work / f".{program.name}.{os.getpid()}"
        try:
            shutil.copy(build / "simulator", part)
            part.replace(program)
        finally:
            part.unlink(missing_ok=True)
    return program, True


def _verilate(sources: Sequence[str], build: Path, report: Progress, *, level: int,
              unknown: str, dump: bool) -> None:
    """Compile `sources` in the folder `build` to `simulator`, with Verilator and g++ -O`level`.

    `unknown`: what becomes of undefined bits, as Verilator's --x-assign has it.
    `dump`: whether signals can be dumped, but for those within a vendor's cells.

    Not by cocotb's own runner: that makes every signal public, which costs Verilator most of
    its optimizations, where the bench sees four signals of the harness.
    """
    verilator = tools.verilator()
    libs = config.libs_dir
    report("verilate", 0.0)
    tools.run([
        verilator.command, "-cc", "--exe", "--vpi", "-O3", "-Wno-fatal", "--timing",
        "--x-assign", unknown, "--x-initial", "unique", "--top-module", "harness",
        "--prefix", "Vtop", "-Mdir", ".", "-o", "simulator", "--timescale", "/".join(_TIMESCALE),
        "-LDFLAGS", f"-Wl,-rpath,{libs} -L{libs} -lcocotbvpi_verilator",
        *(_dumping(sources, build) if dump else []),
        str(Path(config.share_dir) / "lib" / "verilator" / "verilator.cpp"), *sources,
    ], cwd=build, env=verilator.env, name="verilator")
    report("verilate", 1.0)
    make(build, verilator, "dumps" if dump else "timing", level, report)


def _dumping(sources: Sequence[str], build: Path) -> list[str]:
    """Options of Verilator with which it can dump every signal, however wide and whatever its name.

    Not those of cells, of which a netlist has the nets, nor those of the checks.
    """
    hidden = [name for name in sources if (CELLS / name).exists()
              or name in ("cells_sim.v", "n2uq_checks.sv")]
    (build / "dump.vlt").write_text("`verilator_config\n" + "".join(
        f'tracing_off -file "*{name}"\n' for name in hidden), encoding="utf-8")
    return ["--trace-vcd", "--trace-underscore", "--trace-max-width", "0", "--trace-max-array",
            "0", "--no-trace-params", "dump.vlt"]


def make(build: Path, verilator: tools.Verilator, kind: str, level: int, report: Progress) -> None:
    """Compile what Verilator wrote in `build`, with g++ -O`level`; a run-time library per kind."""
    runtime = _runtime(verilator, kind)
    for path in runtime.glob("*.o"):
        shutil.copy(path, build)  # newer than Vtop.mk, so that make leaves it alone
    texts = list(build.glob("Vtop*.cpp"))
    alone = sum(text.stat().st_size for text in texts) <= ALONE
    objects = 1 if alone else len(texts)

    def poll() -> None:
        report("compile", min(1.0, len(list(build.glob("Vtop*.o"))) / objects))

    poll()
    tools.run(["make", f"-j{os.cpu_count() or 1}", "-f", "Vtop.mk", f"OPT_FAST=-O{level}",
               f"OPT_GLOBAL={RUNTIME}", *["VM_PARALLEL_BUILDS=0"] * alone], cwd=build,
              env=verilator.env, name="g++", poll=poll)
    report("compile", 1.0)
    if not runtime.is_dir():
        _keep_runtime(build, runtime)


def _runtime(verilator: tools.Verilator, kind: str) -> Path:
    """The user's folder of Verilator's run-time library as objects, the same for every design.

    Compiling it anew would take most of the time of a small simulation.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home
        cache = Path(os.devnull)
    key = hashlib.sha256(json.dumps([
        kind, RUNTIME, verilator.command, verilator.version, verilator.env.get("MAKEFLAGS", ""),
        tools.versions()["g++"]]).encode()).hexdigest()[:16]
    return cache / "n2uq-hw" / f"verilated-{key}"


def _keep_runtime(build: Path, runtime: Path) -> None:
    """Keep the run-time objects of `build`; a cache that cannot be written is no fault."""
    with suppress(OSError):
        runtime.parent.mkdir(parents=True, exist_ok=True)
        with tools.scratch(runtime.parent) as folder:
            part = folder / runtime.name
            part.mkdir()
            for path in build.glob("verilated*.o"):
                shutil.copy(path, part)
            part.replace(runtime)


def _compile_icarus(sources: Sequence[str], build: Path, report: Progress) -> None:
    """Compile `sources` in the folder `build` to `simulator`, with Icarus Verilog."""
    report("compile", 0.0)
    (build / "options").write_text("+timescale+{}/{}\n".format(*_TIMESCALE), encoding="utf-8")
    tools.run([tools.need("iverilog", "simulation with Icarus"), "-g2012", "-s", "harness",
               "-f", "options", "-o", "simulator", *sources], cwd=build, name="iverilog")
    report("compile", 1.0)


def _environment(simulator: str) -> dict[str, str]:
    """What cocotb wants to find in the environment of a simulator."""
    libpython = find_libpython.find_libpython()
    if libpython is None:
        raise N2uqError("libpython: cocotb needs Python's shared library, and there is none")
    base: Mapping[str, str] = tools.verilator().env if simulator == "verilator" else os.environ
    return {**base, "GPI_USERS": f"{libpython};{config.pygpi_entry_point()}",
            "PYGPI_PYTHON_BIN": sys.executable, "PYTHONPATH": os.pathsep.join(sys.path),
            "COCOTB_TOPLEVEL": "harness", "COCOTB_TEST_MODULES": "n2uq_hw.sim.rtl.bench",
            "COCOTB_TRUST_INERTIAL_WRITES": "1", "TOPLEVEL_LANG": "verilog"}


def _execute(program: Path, run: Path, simulator: str, duts: Sequence[Dut],
             report: Progress, power_up: int | None) -> dict[str, float]:
    """Run the compiled simulator in the folder `run` and return what the bench left."""
    logs: list[tuple[Path, int]] = []
    total = 1
    for port, _, stream in streams(duts):
        beats, width = ((stream.count, stream.width) if isinstance(stream, Sink)
                        else (len(stream.beats), 0))
        logs.append((run / f"port{port}.log", 11 + 2 * -(-width // 8)))
        total += beats

    def poll() -> None:
        # The logs grow as beats come and go, a line each; no need to wake the simulation.
        moved = sum(path.stat().st_size // line for path, line in logs if path.exists())
        report("simulate", min(1.0, moved / total))

    drawn = [] if power_up is None else ["+verilator+rand+reset+2", f"+verilator+seed+{power_up}"]
    command = [str(program), *drawn] if simulator == "verilator" else [
        tools.need("vvp", "simulation with Icarus"), "-m",
        str(config.lib_name_path("vpi", "icarus")), str(program)]
    report("simulate", 0.0)
    log = tools.run(command, cwd=run, env=_environment(simulator), name="simulation", poll=poll)
    report("simulate", 1.0)
    try:
        outcome: dict[str, float] = json.loads((run / "outcome.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        raise N2uqError(f"simulation: {tools.fault(log)}") from None
    return outcome


def _result(run: Path, duts: Sequence[Dut], outcome: Mapping[str, float], max_idle: int,
            compile_seconds: float) -> Run:
    """Read the logs in `run` and judge whether the run is complete."""
    sinks: dict[str, list[Record]] = {dut.name: [] for dut in duts}
    sources: dict[str, list[np.ndarray]] = {dut.name: [] for dut in duts}
    faults: list[tuple[int, str]] = []  # the lowest is behind the others
    end, idle = 0, f"then nothing for {max_idle} cycles"
    for port, dut, stream in streams(duts):
        log, what = run / f"port{port}.log", f"{dut.name}: {stream.data}"
        if isinstance(stream, Source):
            cycles, count = read_cycles(log, what), len(stream.beats)
            sources[dut.name].append(cycles)
            lack = 2, f"{dut.name}: deadlock, input {stream.data} took"
        else:
            record, count = read_record(log, stream.width, what), stream.count
            sinks[dut.name].append(record)
            cycles = record.cycles
            end = max([end, *cycles[:count][-1:] + 1])
            lack = 1, f"{dut.name}: deadlock, output {stream.data} gave"
        if len(cycles) > count:
            more = " or more" if len(cycles) == count + DRAIN else ""
            faults.append((0, f"{what} must give {count} beats, not {len(cycles)}{more}"))
        elif len(cycles) < count and not outcome["stalled"]:
            raise N2uqError(f"{what}: {log} was cut short; is the disk full?")
        elif len(cycles) < count:
            faults.append((lack[0], f"{lack[1]} {len(cycles)} of {count} beats, {idle}"))
    if outcome["stalled"]:
        faults += [(3, f"{dut.name}: deadlock, {it.name} moved fewer than {it.count} beats, {idle}")
                   for dut in duts for it in dut.awaits]
    if faults:
        raise N2uqError(min(faults, key=lambda fault: fault[0])[1])

    def read(kind: str, least: int, flags: bool = False) -> dict[str, dict[str, Record]]:
        numbers = itertools.count()
        return {dut.name: {
            it.name: read_record(run / f"{kind}{next(numbers)}.log",
                                 -(-it.width // 8) * 8 + 2 if flags else it.width,
                                 f"{dut.name}: {it.name}", least)
            for it in getattr(dut, f"{kind}s")} for dut in duts}

    return Run({name: tuple(records) for name, records in sinks.items()},
               {name: tuple(cycles) for name, cycles in sources.items()}, read("tap", 0),
               {name: {probe: record.beats[0] for probe, record in probes.items()}
                for name, probes in read("probe", 1).items()},
               read("wave", 1, flags=True),
               int(end), outcome["seconds"], compile_seconds)
