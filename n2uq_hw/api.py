"""The front door: from a net to a proven build.  The command line runs the same calls."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import data, nets, packages
from .builds import accuracy, emit, measured, synth
from .builds import activity as switching
from .builds import predict as prediction
from .builds import report as pages
from .builds import verify as simulation
from .builds import waves as waveforms
from .builds.accuracy import Agreement
from .builds.activity import Activity
from .builds.paths import TimingPath
from .builds.predict import Predictions
from .builds.tables import Tables
from .builds.tables import pack as pack_tables
from .builds.verify import Verdict
from .cluster import threads
from .cost.estimate import Cost
from .cost.memories import FAMILIES
from .errors import N2uqError, check_range, installed
from .exploring import search
from .exploring.search import Exploration
from .files import read_text, write_file
from .hw.accelerator import module_name, signal_names
from .hw.passes import hardware_graph
from .ir import Graph, writable
from .ir.folding import Folding
from .jobs import cache_folder
from .lowering import lower as lowering
from .lowering.formats import Formats
from .model import InputSpec, Net
from .packages import vivado
from .plan.choice import fold, sized
from .plan.plan import Plan
from .plan.problem import prices
from .progress import bars
from .sim.timing.forecast import Forecast, forecast
from .tables import Shown, Table

if TYPE_CHECKING:
    import torch

    from .boards.emit import BoardBuild
    from .importers.onnx import Imported

__all__ = [
    "Activity",
    "Build",
    "Costs",
    "Exploration",
    "Forecast",
    "Formats",
    "Graph",
    "InputSpec",
    "Net",
    "Plan",
    "Predictions",
    "Tables",
    "Verdict",
    "agreement",
    "board",
    "build",
    "explore",
    "export",
    "fold",
    "import_onnx",
    "load",
    "load_build",
    "lower",
    "pack",
    "trace",
    "writable",
]

VECTORS = 64       # test vectors that a build keeps
PNR_IMAGES = 8     # for the rate at the frequency that a placement reaches

Images = np.ndarray | Path | str


def load(source: str | Path) -> Net:
    """The trained net that `source` means: a shipped net's name (`n2uq-hw nets`), or a file.

    A file is a net file, or, where its name ends in .onnx, an ONNX file that `import_onnx` takes
    (needs onnx).  Raises N2uqError for a name that is not one, and for a file that is not whole.
    """
    if Path(source).suffix == ".onnx":
        return import_onnx(source).net
    return nets.find_net(str(source))


def import_onnx(path: str | Path, *, input_scale: float | None = None,
                input_bits: int | None = None, input_signed: bool = False) -> Imported:
    """The net in an ONNX file of a low-bit network, and what each of its nodes became (needs onnx).

    Parameters
    ----------
    path: QONNX, FINN, QCDQ, QDQ, QOperator or integers, at most 256 MiB; nothing is executed.
    input_scale, input_bits, input_signed: the integers of the input, where the file has no
        quantizer there; with one, they make it a part of the hardware.

    `Imported.prepare` makes the net's integers of the file's inputs.  Raises N2uqError for what is
    no whole file, and for nodes that have no integer form.
    """
    with installed("to read ONNX files", "onnx"):
        from .importers import onnx
    return onnx.import_onnx(Path(path), onnx.Format(input_scale, input_bits, input_signed))


def trace(module: torch.nn.Module, input: InputSpec | torch.Tensor | np.ndarray, *,
          name: str | None = None, meta: dict[str, Any] | None = None) -> Net:
    """The net that a torch module computes; its layers are named as its modules are (needs torch).

    Parameters
    ----------
    module: in evaluation mode, of the layers of `n2uq_hw.nn` and of torch's Conv1d, Conv2d,
        ConvTranspose1d, ConvTranspose2d (whose output is a multiple of its stride), Linear,
        BatchNorm, ReLU, ReLU6, PReLU, LeakyReLU, Hardtanh, Sigmoid, Tanh and other functions of one
        value, max and average pools, Flatten, nearest Upsample, PixelShuffle, ChannelShuffle,
        Dropout, Identity, sums, `cat` of channels, and functions that do the same; `forward` takes
        a batch of normalized images [N, C, H, W], or sequences [N, C, L], and returns one tensor.
        It runs once, without values.
    input: what pixels are, and how they become what the module sees; sequences are images of
        height 1.  An example batch stands for `InputSpec(shape)`, pixels 0..255 times 1/255, if its
        values are floats of 0..1, and for pixels that the module sees as they are if they are
        integers (0..255, or the next 2^k - 1); any other batch is refused.
    name: of the net; the class of the module, if left out.
    meta: notes that the net keeps, such as ``{"dataset": "digits"}``.

    The values are the module's but for two roundings to float32: a weight on a rounding boundary
    moves by 1e-5 of itself, and an eps other than 1e-5 goes into the variance.  Raises N2uqError
    for the first operation that no layer is, and says how many more there are.
    """
    with installed("to trace modules", "train"):
        from .nn.trace import trace as traced
    return traced(module, input, name, meta)


def lower(net: Net | str | Path, formats: Formats | None = None, *, top1: bool = False,
          calibrate: Images | None = None) -> Graph:
    """The integers of a trained net, exact but for what `formats` round (docs: How it works).

    Parameters
    ----------
    net: as `load` gives it, or what `load` takes.
    formats: of residual stream, stem, head and output; None for those that round least.
    top1: end in the class index instead of the logits.
    calibrate: images [N, C, H, W], or an .npz file of them: the residual stream is held in twice
        the range that they reach, instead of in what no image can exceed.

    The graph prints as a table; `Graph.forward` is golden, the specification.
    """
    net = net if isinstance(net, Net) else load(net)
    formats = formats or Formats()
    ranges = None
    if calibrate is not None:
        images = calibrate if isinstance(calibrate, np.ndarray) else data.read_npz(
            Path(calibrate)).images
        ranges = accuracy.calibrate(net, formats, images)
    return lowering.lower(net, formats, top1=top1, ranges=ranges)


def export(graph: Graph, path: str | Path, *, dialect: str = "qonnx", batch: int = 1) -> None:
    """Write `graph` as an ONNX file that computes golden's integers, every one (needs onnx).

    Parameters
    ----------
    path: the file; it appears whole or not at all.
    dialect: "qonnx", with MultiThreshold and Quant nodes as FINN and QONNX read them, or
        "integer", with standard operators alone.
    batch: images per run: the file takes float32 integers [batch, C, H, W].

    The output is golden's: integers, of which 1 stands for `graph.scale`, or class indices.  Raises
    N2uqError where floats of 53 bits do not hold a value.
    """
    if dialect not in ("qonnx", "integer"):
        raise N2uqError(f"dialect must be qonnx or integer, not {dialect!r}")
    with installed("to write ONNX files", "onnx"):
        from .exporters.onnx import export_onnx
    model = export_onnx(graph, "qonnx" if dialect == "qonnx" else "integer", batch)
    write_file(Path(path), model.SerializeToString())


def agreement(net: Net, graph: Graph, images: np.ndarray, labels: np.ndarray | None = None
              ) -> Agreement:
    """How golden agrees with the float model on `images` [N, C, H, W], `labels` [N] if known."""
    with bars() as progress:
        return accuracy.agreement(net, graph, images, labels, progress)


@dataclass(frozen=True, repr=False)
class Costs(Shown):
    """What synthesis counts, beside the estimates, and what placement reaches.

    Members
    -------
    name: of the network.
    synthesis: cells per unit and in all; `dsp`, whether multiplier blocks were allowed.
    estimates: per unit, what was estimated without DSP blocks; empty where nothing is fitted.
    placed: the device and its MHz, and `cycles_per_image` as simulated; None without.
    imported: figures of Vivado, by name; None without.
    paths: the longest paths between registers that were asked for, placed or of logic only.
    """

    name: str
    synthesis: synth.Synthesis
    dsp: bool
    estimates: dict[str, Cost] = field(default_factory=dict)
    placed: synth.Pnr | None = None
    cycles_per_image: float = 0.0
    imported: dict[str, Any] | None = None
    paths: tuple[TimingPath, ...] = ()

    @property
    def total(self) -> synth.Resources:
        """Cells of the whole accelerator."""
        return self.synthesis.total

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        summary = self.synthesis.as_dict()
        if self.estimates:
            summary["estimates"] = {name: cost._asdict() for name, cost in self.estimates.items()}
        if self.imported is not None:
            summary["imported"] = self.imported
        if self.paths:
            summary["paths"] = [asdict(path) | {"ns": path.ns} for path in self.paths]
        if self.placed is not None:
            pnr = self.placed.as_dict()
            del pnr["paths"]
            summary["pnr"] = pnr | {
                "cycles_per_image": self.cycles_per_image,
                "images_per_second": self.placed.fmax_mhz * 1e6 / self.cycles_per_image}
        return summary

    def parts(self) -> list[str | Table]:
        """A row per unit, counted beside estimated, and what was placed."""
        synthesis, kinds = self.synthesis, ("lut", "carry", "ff", "bram", "lutram", "dsp")
        also = ("lut", "ff", "bram", "lutram") if self.estimates else ()
        guessed = self.estimates | {"in all": Cost(*map(sum, zip(*self.estimates.values(),
                                                                  strict=True)))}
        table = Table("unit", *(k.upper() for k in kinds),
                      *(f"estimated {k.upper()}" for k in also))
        for name, used in [*synthesis.units.items(), ("in all", synthesis.total)]:
            table.add_row(name, *(f"{getattr(used, kind):,}" for kind in kinds),
                          *(f"{getattr(guessed[name], kind):,.0f}" for kind in also))
        other = self.imported
        if other is not None:
            table.add_row("Vivado", *(f"{other[kind]:,g}" if kind in other else "-"
                                      for kind in kinds), *("" for _ in also))
        shown: list[str | Table] = [
            f"{self.name} on {synthesis.family}, Yosys {synthesis.version}, DSP blocks "
            f"{'on' if self.dsp else 'off'}", table,
            "in all: the units and what connects them"]
        if other is not None:
            shown.append(f"Vivado {other['version']}, {other['part']}, out of context, asked for "
                         f"{1000 / other['period_ns']:.1f} MHz: {other['fmax_mhz']:.1f} MHz")
        if self.placed is not None:
            rate = self.placed.fmax_mhz * 1e6 / self.cycles_per_image
            shown.append(
                f"nextpnr-{synthesis.family} {self.placed.version}, {self.placed.device}, seed "
                f"{self.placed.seed}: {self.placed.fmax_mhz:.1f} MHz; "
                f"{self.cycles_per_image:,.2f} cycles per image, {rate:,.0f} images/s")
        return shown + self._paths_parts()

    def _paths_parts(self) -> list[str | Table]:
        """A row per path."""
        if not self.paths:
            return []
        table = Table("from", "to", "through", "LUTs", "carries", "ns", "logic", "wires", left=3)
        for path in self.paths:
            table.add_row(path.start, path.end, " ".join(path.units), str(path.luts),
                          str(path.carries), *(f"{ns:.2f}" for ns in (
                              path.ns, path.logic_ns, path.routing_ns)))
        of = "as placed" if self.placed else (
            "logic only: with Yosys' delays, of Artix-7; no path leads through a DSP block")
        return [f"the longest paths between registers, {of}", table]


def explore(net: Net | str | Path, family: str = "xcup", *, budget: int = 8,
            stem_bits: tuple[int, ...] = (16, 12, 8), head_bits: tuple[int, ...] = (8, 6, 4),
            styles: tuple[str, ...] | None = None, clock: float = 200.0,
            cycles: tuple[int, ...] = (1, 10**12), images: int = 1000,
            data_path: str | Path | None = None, out: str | Path | None = None, jobs: int = 0,
            cache: str | Path | None = None, cluster: str = "") -> Exploration:
    """Foldings, forms and bits of a net: all estimated, the promising ones synthesized.

    Parameters
    ----------
    net: as `load` gives it, or what `load` takes.
    family: "xcup" or "ecp5".
    budget: how many designs to synthesize with Yosys.
    stem_bits, head_bits: of the weights of full-precision convolutions and linear layers; all pairs
        are tried where the net has such layers.
    styles: what foldings are chosen from, of "least" (as `fold` does), "folded" (nothing in logic),
        the forms "planes", "product", "direct" and "pairs", and "logic"; all if left out.
    clock: MHz, for images per second.
    cycles: the fewest and the most cycles per image.
    images: most of the test images for golden's agreement with the float model.
    data_path: where they are (`n2uq-hw explore --data`); digits need none.
    out: a folder to write: explore.json, report.html with an interactive picture, foldings.
    jobs: processes side by side; 0 for one per core.
    cache: folder of results, by default ~/.cache/n2uq-hw; what is there is not made again.
    cluster: the address of a dask scheduler, tcp://HOST:PORT, whose workers run the jobs.
    """
    net = net if isinstance(net, Net) else load(net)
    options = search.Options(family, budget, tuple(stem_bits), tuple(head_bits),
                             search.STYLES if styles is None else tuple(styles), clock,
                             tuple(cycles))
    held = data.images_for(net.meta.get("dataset", ""),
                           None if data_path is None else Path(data_path))
    shown, labels = (None, None) if held is None or images < 1 else (
        held[0][:images], None if held[1] is None else held[1][:images])
    with bars() as progress:
        found = search.explore(net, options, cache_folder() if cache is None else Path(cache),
                               images=shown, labels=labels, workers=jobs, cluster=cluster,
                               progress=progress)
    if out is not None:
        found.write(out)
    return found


@dataclass(frozen=True, repr=False)
class Build(Shown, emit.Build):
    """A build directory: its graph, folding, Verilog and test vectors, and what can be done to it.

    What `verify` and `cost` find is kept in the directory, where `report` shows it.

    Members
    -------
    path: the directory.
    graph, folding: what the Verilog was made of.
    vectors: arrays by name: `images` [N, C, H, W], golden's `expected` [N, H, W, C], and, where
        they are known, `labels` [N].
    changed: files that are not as they were built.
    control: whether the Verilog has registers behind AXI4-Lite.
    """

    @property
    def plan(self) -> Plan:
        """The folding as `fold` gives it: what it takes, and what it costs by estimate."""
        return sized(self.graph, self.folding)

    def verify(self, images: np.ndarray | None = None, labels: np.ndarray | None = None, *,
               stalls: float = 0.0, seed: int = 0, simulator: str = "verilator",
               netlist: str = "", power_up: int | None = None, jobs: int | None = None,
               cluster: str = "") -> Verdict:
        """Simulate the Verilog and compare every bit of every output with golden.

        Parameters
        ----------
        images, labels: [N, C, H, W] and [N]; left out, the build's test vectors.
        stalls, seed: probability of a stalled cycle on either side, 0 to 0.95, and its pattern.
        simulator: "verilator" or "icarus".
        netlist: "xcup", "ecp5" or "ice40": simulate what `cost` counts there, the cells that Yosys
            makes of the accelerator, in Verilator and in models of these.
        power_up: a seed, 1 to 2^31 - 1: registers, and memories without contents, start at random,
            so that only the reset sets them.
        jobs: simulators side by side; 0 for one per core, or per thread of the cluster.
        cluster: the address of a dask scheduler, tcp://HOST:PORT, whose workers simulate.

        A bit that differs is no error: the verdict tells.  Raises N2uqError for arguments that make
        no simulation, and where a tool is missing or fails.
        """
        check_range("seed", seed, 0, 2**32 - 1)
        if images is None:
            images, labels = self.vectors["images"], self.vectors.get("labels")
        images, labels = _checked(self.graph, images, labels)
        of = measured.verilog_hash(self)
        with bars() as progress:
            verdict = simulation.verify(
                self, images, labels, stalls=stalls, seed=seed, simulator=simulator,
                netlist=netlist, power_up=power_up,
                jobs=(threads(cluster) if cluster else len(os.sched_getaffinity(0))) if jobs == 0
                else jobs, cluster=cluster, progress=progress)
        measured.keep_verdict(self, verdict, of)
        return verdict

    def predict(self, images: np.ndarray | None = None, labels: np.ndarray | None = None, *,
                jobs: int | None = None) -> Predictions:
        """What the Verilog makes of `images` [N, C, H, W]: outputs, classes, cycles per image.

        A function of the hardware, without stalls and without golden.  The first call compiles the
        Verilog; its processes then wait for the next call, `jobs` of them, one per core if left
        out.  `labels` give the accuracy.  Left out, the images are the build's test vectors.
        """
        if images is None:
            images, labels = self.vectors["images"], self.vectors.get("labels")
        images, labels = _checked(self.graph, images, labels)
        with bars() as progress:
            return prediction.predict(self, images, labels, jobs=jobs, progress=progress)

    def trace(self, images: np.ndarray, name: str) -> np.ndarray:
        """The integers on the output of one unit in RTL; golden's are `graph.trace(images, name)`.

        [N, C, H, W], or [N, C] of vectors, for images [N, C, H, W].  Raises N2uqError for a name
        that no unit has, such as that of a layer that lies in another's logic.
        """
        images, _ = _checked(self.graph, images, None)
        with bars() as progress:
            return simulation.trace(self, images, name, progress)

    def waves(self, images: np.ndarray, path: str | Path, *, stalls: float = 0.0, seed: int = 0
              ) -> None:
        """Write the waveforms of `images` [N, C, H, W], 1 to 64 of them, to an FST file.

        A scope per layer holds its units' streams: valid, ready, and each lane as a number.  Beside
        the file lie `path`.gtkw, which GTKWave opens, and `path`.sucl, Surfer's commands.  Needs
        pylibfst.
        """
        images, _ = _checked(self.graph, images, None)
        with bars() as progress:
            waveforms.write_waves(self, images, Path(path), stalls=stalls, seed=seed,
                                  progress=progress)

    def cycles(self, images: int = 4) -> Forecast:
        """What so many images, without a gap, will take in simulation: exact."""
        return forecast(self.graph, self.folding, images=images)

    def cost(self, family: str = "xcup", *, dsp: bool = True, pnr: bool = False, seed: int = 1,
             imported: str | Path | None = None, paths: int = 0) -> Costs:
        """Synthesize the Verilog with Yosys; `pnr`: place and route it with nextpnr too.

        Parameters
        ----------
        family: "xcup", "xc7", "ecp5" or "ice40"; to place, one of the last two.
        dsp: whether multiplier blocks may be used.
        seed: of the placer.
        imported: the JSON that `vivado/ooc.tcl` of a package wrote: shown beside.
        paths: show so many of the longest paths between registers, at most `synth.PATHS`: as
            placed on ecp5 and ice40, of logic only on xcup and xc7.
        """
        check_range("paths", paths, 0, synth.PATHS)
        pnr = pnr or bool(paths and family in synth.PLACED)
        figures = None if imported is None else vivado.load_figures(Path(imported), self)
        of, placed, rate = measured.verilog_hash(self), None, 0.0
        with bars() as progress:
            if pnr:  # first: it asks for more
                progress(f"yosys and nextpnr {family}", 0.0)
                placed = synth.place_and_route(self.verilog, module_name(self.graph), family,
                                               seed=seed, dsp=dsp, work=self.path / "synthesis")
                verdict = simulation.verify(self, *self.images(PNR_IMAGES, None),
                                            progress=progress)
                measured.keep_verdict(self, verdict, of)
                rate = verdict.cycles_per_image
            progress(f"yosys {family}", 0.0)
            synthesis = synth.synthesize_build(self, family, dsp=dsp)
            longest = () if not paths else placed.paths if placed else synth.logic_paths(synthesis)
        names = {name: node for node, name in signal_names(
            hardware_graph(self.graph, self.folding)[0]).items()}
        measured.keep_costs(self, synthesis, dsp, placed, of)
        # Beside what was counted, where there are estimates: the families that they are fitted to.
        guessed = {} if dsp or family not in FAMILIES else prices(self.graph, self.folding, family)
        return Costs(self.graph.name, synthesis, dsp, guessed, placed, rate, figures,
                     tuple(path.named(names) for path in longest[:paths]))

    def activity(self, images: np.ndarray | None = None, *, family: str = "xcup",
                 saif: str | Path | None = None) -> Activity:
        """Count how often nets switch on `images` [N, C, H, W], by unit: a proxy of energy.

        Parameters
        ----------
        images: left out, the build's test vectors.
        family: "xcup", "ecp5" or "ice40": simulate the cells that `cost` counts there; "": the
            Verilog as built, whose signals have no pins to count.
        saif: a file for toggles and levels of every net, written whole or not at all.

        Raises N2uqError where an output is not golden's.
        """
        images, _ = _checked(self.graph, self.vectors["images"] if images is None else images, None)
        with bars() as progress:
            return switching.activity(self, images, family=family, progress=progress,
                                      saif=None if saif is None else Path(saif))

    def report(self, images: np.ndarray | None = None, labels: np.ndarray | None = None, *,
               clock: float = pages.CLOCK) -> Path:
        """Write `report.html` into the directory, what was measured included; returns its path.

        `images` and `labels` are for golden's accuracy and for histograms; left out, the test
        vectors.  `clock` is in MHz, where nothing was placed.
        """
        check_range("clock", clock, 0.001, 100_000, "MHz")
        return pages.write_report(self, images, labels, clock=clock)

    def package(self, *targets: str, out: str | Path) -> list[str]:
        """Write the folder `out` for other flows, whole or not at all; returns the paths in it.

        `targets`: "fusesoc", "vivado", "litex", "c", "pynq".  What was not made here stays in the
        folder.
        """
        return packages.package(self, targets, Path(out))

    @property
    def described(self) -> dict[str, Any]:
        """What `report.json` says: a row per unit with shape, exact range, width, folding."""
        report: dict[str, Any] = json.loads(read_text(self.path / "report.json"))
        return report

    def parts(self) -> list[str | Table]:
        """A row per unit, and where the files are."""
        table = Table("unit", "kind", "shape", "bits", "PE", "SIMD", "style", "cycles", left=2)
        for row in self.described["layers"]:
            table.add_row(row["name"], row["kind"], "×".join(map(str, row["shape"])),
                          *(str(row[key]) for key in ("bits", "pe", "simd", "style", "cycles")))
        return [f"{self.graph.name} in {self.path}", table, "PE output channels × SIMD inputs per "
                "cycle; cycles per image in which the unit is busy"]


def build(graph: Graph, plan: Plan | Folding | None, out: str | Path, *, net: Net | None = None,
          images: np.ndarray | None = None, labels: np.ndarray | None = None,
          control: bool = False) -> Build:
    """Write Verilog, IR, folding, test vectors, manifest and report to the directory `out`.

    The directory appears whole or not at all; what is in it and was not built here stays.

    Parameters
    ----------
    plan: from `fold`, or a folding; None for as many cycles as the slowest sliding window takes.
    net: the trained net: the report then says how golden agrees with it.
    images, labels: integers [N, C, H, W] and [N], of which the first 64 become test vectors with
        golden's outputs; left out, those of the data set that the net names, else random ones.
    control: whether the Verilog has registers behind AXI4-Lite, and an interrupt (docs: Control).
        It has them where `writable` made the graph.
    """
    plan = plan if isinstance(plan, Plan) else fold(graph, folding=plan, search=False)
    if plan.graph.digest != graph.digest:
        raise N2uqError(f"plan must be of the graph that is built, {graph.name}, not of another, "
                        f"{plan.graph.name}")
    images, labels = _vectors(graph, images, labels)
    with bars() as progress:
        emit.emit(graph, plan.sizing, Path(out), images, labels,
                  lambda stage: progress(f"build: {stage}", 0.0), control=control)
        progress("build: report", 0.0)
        written = load_build(out)
        if net is not None and "labels" in written.vectors:
            measured.keep_agreement(written, accuracy.agreement(
                net, graph, written.vectors["images"], written.vectors["labels"]),
                accuracy.trained(net))
        written.report()
    return written


def pack(net: Net | Graph | str | Path, build: Build | str | Path) -> Tables:
    """The tables that turn a build's hardware into another training of its network.

    Parameters
    ----------
    net: as `lower` takes it, or a graph, lowered with the same formats as that of the build.
    build: of a graph that `writable` made, or its directory.

    Raises N2uqError, which names the layer, for what the build has no room for: other layers,
    shapes or formats, more steps, values beyond a width; and for what differs and is part of the
    Verilog.
    """
    graph = net if isinstance(net, Graph) else lower(net)
    return pack_tables(graph, build if isinstance(build, Build) else load_build(build))


def _checked(graph: Graph, images: np.ndarray, labels: np.ndarray | None
             ) -> tuple[np.ndarray, np.ndarray | None]:
    """Both, as files of them are checked."""
    arrays = {"images": np.asarray(images)}
    if labels is not None:
        arrays["labels"] = np.asarray(labels)
    return data.from_arrays(graph.name, arrays)


def board(graph: Graph, board: str, out: str | Path, *, cycles: int | None = None,
          baud: int = 1_000_000, bitstream: bool = True, images: np.ndarray | None = None,
          labels: np.ndarray | None = None) -> BoardBuild:
    """Write the board directory `out`: a bitstream, and the build in it (docs: Boards).

    Parameters
    ----------
    board: ulx3s, icebreaker, tangnano9k, or another name of `n2uq_hw.boards.devices`.
    cycles: per image at most; default: as many as the serial line takes for one, or the fewest that
        fit the device.
    baud: bits per second of the serial line.
    bitstream: without, no tool of the device is needed, and only the virtual board runs.
    images, labels: as for `build`.

    Raises N2uqError for what does not fit or is too slow; then nothing is written.
    """
    from .boards.devices import find_board
    from .boards.emit import emit_board

    device = find_board(board)
    images, labels = _vectors(graph, images, labels)
    with bars() as progress:
        return emit_board(graph, device, Path(out), images, labels, baud=baud, cycles=cycles,
                          bitstream=bitstream,
                          progress=lambda stage: progress(f"board: {stage}", 0.0))


def _vectors(graph: Graph, images: np.ndarray | None, labels: np.ndarray | None
             ) -> tuple[np.ndarray, np.ndarray | None]:
    """The images that become test vectors, and their labels: given, of the data set, or random."""
    if images is not None:
        images, labels = _checked(graph, images, labels)
    else:
        images, labels = data.images_for(graph.meta.get("dataset", ""), None) or (
            _random_images(graph), None)
    return images[:VECTORS], None if labels is None else labels[:VECTORS]


def _random_images(graph: Graph) -> np.ndarray:
    """Test vectors [N, C, H, W] of a net without a data set at hand, the same ones every time."""
    height, width, channels = graph.input.shape
    most = int(graph.edges[graph.input.name].hi.max())
    return np.random.default_rng(0).integers(0, most + 1, (VECTORS, channels, height, width))


def load_build(path: str | Path) -> Build:
    """The build directory `path`; raises N2uqError if it is none or not whole."""
    return Build(**vars(emit.load_build(Path(path))))
