"""A build's Verilog in simulation against the golden model, every bit of every output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from ..data import channels_last
from ..errors import N2uqError
from ..files import write_file
from ..hw.accelerator import WRAPPER, module_name, signal_names
from ..hw.control import bus
from ..hw.passes import hardware_graph, saturates
from ..hw.saturate import COUNT_BITS
from ..ir import Flatten, Fork, Graph, OffsetMatVec, Saturate, channels_first, golden
from ..ir.folding import Folding
from ..jobs import Failure, Job, Progress, run_jobs, side_by_side
from ..shipping import Reads
from ..sim.rtl.harness import DRAIN
from ..sim.rtl.netlists import cell_models, shortened, unset
from ..sim.rtl.runner import (
    MAX_IDLE,
    Await,
    Dut,
    Probe,
    Run,
    Sink,
    Source,
    Tap,
    pack,
    prepare,
    simulate,
    unpack,
)
from ..sim.rtl.switching import Switching
from ..sim.timing.forecast import cycles_per_image, mac_utilization
from ..tables import Shown, Table
from ..tools import scratch
from .emit import Build, Port, load_build, port, ports, report
from .synth import synthesize_build
from .task import Task, figure, measure

__all__ = ["NETLISTS", "Trial", "Verdict", "golden_saturated", "netlist_verilog", "streams",
           "trace", "verify"]

NETLISTS = ("xcup", "ecp5", "ice40")  # families whose cells have models

ELEMENTS = 2**25  # of all edges, for the images that golden keeps at a time
LIMIT = 24 * 3600.0  # seconds for a share on a cluster
BITS = 2**27      # of the beats of a share, a byte each in memory
LISTEN = 100_000  # cycles for a beat too many, or those of an image if these are more


SATURATED = Probe("saturated", COUNT_BITS)


@dataclass(frozen=True, repr=False)
class Verdict(Shown):
    """What a simulation showed.  Cycle counts are of this run, stalls included.

    `shares`: how many simulations the images were shared among; cycle counts are of the first.
    `mismatches`: images of which any output bit differs; 1 if only `saturated` does.
    `cycles_first_output`: from the first input beat to the first output beat, both counted.
    `cycles_per_image`: between the last beats of successive images, over the second half of them.
    `mac_utilization`: of the slowest MatVec, useful share of its PE·SIMD multiplies.
    `cycles_per_second`: of all simulators together.
    `accuracy`, `mean_error`: against labels of classes or of values, None without; `counted`,
    `rule`: as in `Task`.
    `saturated`: elements that Saturate nodes changed, by the hardware's counter; None without.
    `saturated_exact`: whether golden counts as many in every share; None without.
    `netlist`: the family of devices whose cells were simulated, "" for the Verilog as built.
    `power_up`: the seed from which registers started, None for their own values.
    """

    images: int
    mismatches: int
    cycles_first_output: int
    cycles_per_image: float
    mac_utilization: float
    accuracy: float | None
    cycles_per_second: float
    stalls: float
    seed: int
    simulator: str
    layers: dict[str, float] = field(default_factory=dict)
    first_mismatch: str = ""
    saturated: int | None = None
    saturated_exact: bool | None = None
    shares: int = 1
    mean_error: float | None = None
    counted: str = "images"
    rule: str = ""
    netlist: str = ""
    power_up: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return dict(self.__dict__)

    def rows(self) -> list[tuple[str, str]]:
        """What was found: names and values in words."""
        exact = "DIFFERENT" if self.mismatches else "every output bit as in golden"
        counted = [] if self.saturated is None else [
            ("saturated elements", f"{self.saturated:,} "
             f"({'as in golden' if self.saturated_exact else 'DIFFERENT'})")]
        return [("images", f"{self.images}, {self.mismatches} mismatches ({exact})"),
                (measure(self.counted, self.rule),
                 figure(self.counted, self.accuracy, self.mean_error) or "–"), *counted,
                ("cycles to the first output", f"{self.cycles_first_output:,}"),
                ("cycles per image", f"{self.cycles_per_image:,.2f}"),
                ("MAC utilization of the slowest layer", f"{self.mac_utilization:.4f}"),
                ("simulated cycles per second", f"{self.cycles_per_second:,.0f}")]

    def parts(self) -> list[str | Table]:
        """A row per thing found, and the first bit that differs."""
        table = Table("", "", left=2)
        for row in self.rows():
            table.add_row(*row)
        shares = f", {self.shares} shares; cycles are those of the first" * (self.shares > 1)
        netlist = f", netlist for {self.netlist}" * bool(self.netlist)
        start = f", registers from seed {self.power_up}" * (self.power_up is not None)
        return [f"{self.simulator}{netlist}{start}, stalls {self.stalls}, seed {self.seed}{shares}",
                table, *filter(None, [self.first_mismatch])]


@dataclass(frozen=True)
class _Share:
    """Images first..end of a set in a simulation of their own; `got` and `wrong` are of these."""

    first: int
    end: int
    got: np.ndarray
    wrong: np.ndarray
    counted: int | None
    accepted: int
    ends: np.ndarray
    first_output: int
    cycles: int
    seconds: float


@dataclass(frozen=True)
class Trial:
    """A build and images [N, H, W, C], what golden gives for them, and how they are simulated.

    `netlist`: as for `verify`.
    `power_up`, `resets`: as for `simulate`; registers that `power_up` starts lose their own start.
    """

    build: Build
    nhwc: np.ndarray
    expected: np.ndarray
    stalls: float
    seed: int
    simulator: str
    netlist: str = ""
    power_up: int | None = None
    resets: Sequence[int] = ()

    def shares(self, jobs: int | None) -> int:
        """In how many shares so many simulators take the images."""
        if jobs is None:
            return 1
        bits = sum(side.beats * (side.tdata + 1)
                   for side in ports(self.build.graph, self.build.folding))
        return min(max(jobs, -(-len(self.nhwc) * bits // BITS)), len(self.nhwc))

    @cached_property
    def verilog(self) -> list[Path]:
        """The files to simulate: the build's, or others that are made of them and kept."""
        if self.netlist:
            return netlist_verilog(self.build, self.netlist)
        if self.power_up is None:
            return self.build.verilog
        folder = _work(self.build) / "unset"
        folder.mkdir(parents=True, exist_ok=True)
        for path in self.build.verilog:
            text = path.read_text(encoding="utf-8")
            write_file(folder / path.name, unset(text) if path.suffix == ".v" else text)
        return [folder / path.name for path in self.build.verilog]

    @cached_property
    def cycles(self) -> list[int]:
        """Of each unit per image: what is inside may take them all, one after the other."""
        return [row["cycles"] for row in report(self.build.graph, self.build.folding)["layers"]]

    @property
    def listens(self) -> int:
        """Cycles after the last output in which a beat too many comes, if it comes at all.

        Where those of all units are many, an image's must do.
        """
        cycles = max(*self.cycles, min(sum(self.cycles), LISTEN))
        return DRAIN + ceil(cycles / (1 - self.stalls))

    def run(self, first: int, end: int, progress: Progress | None, *, taps: tuple[Tap, ...] = (),
            waves: tuple[Tap, ...] = (), switching: bool = False) -> Run:
        """Simulate images first..end, and record transfers of `taps`, and changes of `waves`."""
        build = self.build
        return simulate(self.verilog, [_dut(build, self.nhwc[first:end], taps, waves)],
                        work=_work(build, taps + waves) / self.simulator,
                        stalls=(self.stalls, self.stalls), seed=self.seed,
                        simulator=self.simulator, progress=progress, power_up=self.power_up,
                        resets=self.resets, short=bool(self.netlist), switching=switching,
                        max_idle=MAX_IDLE + sum(self.cycles), listen=self.listens)

    def share(self, first: int, end: int, progress: Progress) -> _Share:
        """Simulate images first..end, and compare every bit of every beat with golden."""
        run, graph = self.run(first, end, progress), self.build.graph
        record, truth = run.sinks[graph.name][0], self.expected[first:end]
        _, output = ports(graph, self.build.folding)
        wrong = self._wrong(run, first, end)
        got = unpack(record.beats[:, :output.bits], output.lanes, output.width, output.signed
                     ).astype(truth.dtype).reshape(truth.shape)
        return _Share(
            first, end, got, wrong, _saturated(graph, run), int(run.sources[graph.name][0][0]),
            record.cycles[output.beats - 1::output.beats], int(record.cycles[0]),
            run.cycles + self.listens, run.seconds)

    def _wrong(self, run: Run, first: int, end: int) -> np.ndarray:
        """Of which images any bit differs: data, the bits that pad it to bytes, and tlast."""
        graph, truth = self.build.graph, self.expected[first:end]
        _, output = ports(graph, self.build.folding)
        record = run.sinks[graph.name][0]
        return (record.beats != _beats(truth, output)).reshape(end - first, -1).any(axis=1)

    def check(self) -> None:
        """Raise N2uqError for what cannot be simulated."""
        _check(len(self.nhwc), self.stalls, None, self.simulator, self.netlist, self.power_up)

    def switching(self, progress: Progress | None) -> tuple[np.ndarray, Switching, int]:
        """Simulate all images: which differ from golden, how nets switch, and the cycles."""
        run = self.run(0, len(self.nhwc), progress, switching=True)
        assert run.switching is not None
        return self._wrong(run, 0, len(self.nhwc)), run.switching, run.cycles

    def jobs(self, cuts: Sequence[tuple[int, int]]) -> list[Job]:
        """A job for each of `cuts`, with the build but for what was made of it."""
        folder = self.build.path
        files = tuple(sorted(name for path in folder.rglob("*") if path.is_file() and not (
            name := str(path.relative_to(folder))).startswith(("simulation", "synthesis"))))
        return [Job("", _simulated, (
            Reads(folder, files), self.nhwc[first:end], self.expected[first:end], self.stalls,
            self.seed, self.simulator, self.netlist, self.power_up)) for first, end in cuts]

    def elsewhere(self, cuts: Sequence[tuple[int, int]], cluster: str, progress: Progress
                  ) -> list[_Share]:
        """`share` for each of `cuts`, on the workers of a cluster."""
        with scratch() as kept:
            results = run_jobs(self.jobs(cuts), kept, workers=1, limit=LIMIT, cluster=cluster,
                               progress=lambda done: progress("simulate", done))
        shares = []
        for (first, end), result in zip(cuts, results, strict=True):
            if isinstance(result, Failure):
                raise N2uqError(f"images {first} to {end - 1}: {result.text}")
            truth = self.expected[first:end]
            shares.append(_Share(**result | {
                "first": first, "end": end, "wrong": np.array(result["wrong"], bool),
                "got": np.array(result["got"], truth.dtype).reshape(truth.shape),
                "ends": np.array(result["ends"])}))
        return shares

    def located(self, share: _Share) -> str:
        """Where the first wrong image leaves golden: layer, pixel, channel, both values.

        Of a netlist, whose inner streams have no names: the element of the output.
        """
        at_image = int(share.wrong.argmax())
        image = share.first + at_image
        inner = "" if self.netlist else self._inner(share, at_image)
        wrong = (share.got[at_image] != self.expected[image]).reshape(-1)
        if inner or not wrong.any():
            return inner or (f"image {image}: only bits beside the output differ, tdata padding or "
                             "tlast")
        at = int(wrong.argmax())
        only, what = ("", "the netlist") if self.netlist else ("only ", "RTL")
        return (f"image {image}: {only}the output differs, at element {at}: "
                f"{share.got[at_image].reshape(-1)[at]} in {what}, "
                f"{self.expected[image].reshape(-1)[at]} in golden")

    def _inner(self, share: _Share, at_image: int) -> str:
        """Where the inner streams of an image first leave golden, if they do."""
        image = share.first + at_image
        graph, folding = hardware_graph(self.build.graph, self.build.folding)
        taps = streams(graph, folding)
        run = self.run(share.first, image + 1, None, taps=taps)
        truth = golden.run_all(graph, self.nhwc[image:image + 1])
        for name in (tap.name for tap in taps):
            edge, stream = graph.edges[name], port(graph, folding, name)
            beats = run.taps[graph.name][name].beats
            values = unpack(beats, stream.lanes, stream.width, stream.signed).reshape(-1)[
                at_image * edge.size:(at_image + 1) * edge.size]
            right = truth[name].reshape(-1)[:len(values)]
            if (values != right).any():
                at = int((values != right).argmax())
                row, column, channel = (int(v) for v in np.unravel_index(at, edge.shape))
                return (f"image {image}: layer {name} first differs at pixel ({row}, {column}), "
                        f"channel {channel}: {values[at]} in RTL, {right[at]} in golden")
        return ""


def _simulated(folder: Path, nhwc: np.ndarray, expected: np.ndarray, stalls: float, seed: int,
               simulator: str, netlist: str, power_up: int | None) -> dict[str, Any]:
    """A share of the images as a job: JSON of a `_Share` of all that it is given."""
    trial = Trial(load_build(folder), nhwc, expected, stalls, seed, simulator, netlist, power_up)
    share = trial.share(0, len(nhwc), lambda stage, done: None)
    return vars(share) | {name: getattr(share, name).reshape(-1).tolist()
                          for name in ("got", "wrong", "ends")}


def netlist_verilog(build: Build, family: str) -> list[Path]:
    """What Yosys made of the accelerator for `cost`, its cells, and the build's own wrapper."""
    netlist = Path(synthesize_build(build, family).netlist)
    text, names = shortened(netlist.read_text(encoding="utf-8"))
    if names:
        netlist = _work(build) / "netlist" / netlist.name
        netlist.parent.mkdir(parents=True, exist_ok=True)
        write_file(netlist, text)
    # The registers behind AXI4-Lite share a file with the accelerator, of which Verilator takes the
    # first module of a name: the netlist's.
    wrapper = f"{module_name(build.graph, WRAPPER)}.v"
    return [netlist, *(path for path in build.verilog if build.control or path.name == wrapper),
            *cell_models(family)]


def verify(build: Build, images: np.ndarray, labels: np.ndarray | None, *, stalls: float = 0.0,
           seed: int = 0, simulator: str = "verilator", netlist: str = "",
           power_up: int | None = None, jobs: int | None = None, cluster: str = "",
           progress: Progress | None = None) -> Verdict:
    """Run `images` [N, C, H, W] through the build's AXI4-Stream ports and compare every bit.

    Parameters
    ----------
    labels: those of a `Task`.
    stalls: probability of a stalled cycle on either side, 0..0.95.
    seed: of the stall pattern, which begins anew in each share.
    netlist: the family, of `NETLISTS`, of the cells that Yosys made of the accelerator for `cost`:
        these run in place of its Verilog, in the wrapper as built.  Minutes for large networks.
    power_up: a seed, 1 to 2^31 - 1: registers, and memories without contents, start at random, as
        if nothing but the reset set them; None: as they do on an FPGA.
    jobs: simulators side by side, each with a share of the images, from reset on; at least as many
        shares, more where one would have over `BITS` bits.  None: one simulation of all images.
    cluster: as for `run_jobs`: its workers simulate, a share each.

    On a mismatch its share is simulated again up to that image with taps on the inner streams, and
    `first_mismatch` names image, layer, pixel, channel and both values.
    """
    _check(len(images), stalls, jobs, simulator, netlist, power_up)
    task = Task(build.graph, labels)
    nhwc = channels_last(images, build.graph.input.shape, build.graph.name)
    trial = Trial(build, nhwc, golden.run(build.graph, nhwc), stalls, seed, simulator, netlist,
                  power_up)
    count = trial.shares(jobs)
    cuts = [k * len(images) // count for k in range(count + 1)]
    told = progress or (lambda stage, fraction: None)
    if cluster:
        shares = trial.elsewhere(list(pairwise(cuts)), cluster, told)
    else:
        if netlist:
            told(f"yosys {netlist}", 0.0)
        files = trial.verilog
        if count > 1:  # the simulator is there when they begin
            prepare(files, [_dut(build, nhwc[:0])], work=_work(build) / simulator,
                    simulator=simulator, short=bool(netlist), power_up=power_up, progress=told)
        shares = side_by_side(trial.share, list(pairwise(cuts)), jobs or 1, told)
    wrong = np.concatenate([each.wrong for each in shares])
    counted = [each.counted for each in shares]
    counts = [golden_saturated(build.graph, nhwc[each.first:each.end]) for each in shares]
    first = _miscounted(shares, counts)
    if wrong.any():
        bad = next(each for each in shares if each.wrong.any())
        first = trial.located(bad)
    head = shares[0]
    per_image = cycles_per_image(head.ends, head.accepted)
    layers = mac_utilization(build.graph, build.folding, per_image)
    predictions = task.predictions(np.concatenate([each.got for each in shares]))
    seconds = sum(each.seconds for each in shares) / min(jobs or 1, count)
    return Verdict(
        images=len(images), mismatches=int(wrong.sum()) or int(counted != counts),
        cycles_first_output=head.first_output - head.accepted + 1,
        cycles_per_image=per_image, mac_utilization=max(layers.values(), default=0.0),
        accuracy=task.accuracy(predictions), mean_error=task.mean_error(predictions),
        counted=task.counted, rule=task.rule,
        cycles_per_second=sum(each.cycles for each in shares) / max(seconds, 1e-9), stalls=stalls,
        seed=seed, simulator=simulator, layers=layers, first_mismatch=first,
        saturated=_sum(counted),
        saturated_exact=None if counted[0] is None else counted == counts, shares=count,
        netlist=netlist, power_up=power_up)


def _check(images: int, stalls: float = 0.0, jobs: int | None = None,
           simulator: str = "verilator", netlist: str = "", power_up: int | None = None) -> None:
    if netlist and netlist not in NETLISTS:
        raise N2uqError(f"netlist must be one of {', '.join(NETLISTS)}, not {netlist}")
    if netlist and (simulator != "verilator" or power_up is not None):
        raise N2uqError("netlist: must run in Verilator, its registers started as the device "
                        "starts them, not " + ("at random" if power_up is not None else
                                               f"in {simulator}"))
    if power_up is not None and not 1 <= power_up < 2**31:
        raise N2uqError(f"power_up must be a seed in 1..2^31 - 1, not {power_up}")
    if not 0 <= stalls <= 0.95:
        raise N2uqError(f"stalls must be a probability in 0..0.95, not {stalls}")
    if jobs is not None and jobs < 1:
        raise N2uqError(f"jobs must be at least 1, not {jobs}")
    if images < 1:
        raise N2uqError(f"images must be at least 1, not {images}")


def _miscounted(shares: Sequence[_Share], counts: Sequence[int | None]) -> str:
    """The first share whose saturation counter is not golden's; "" for none."""
    return next((f"the saturation counter differs in images {each.first} to {each.end - 1}: "
                 f"{each.counted} in RTL, {right} in golden"
                 for each, right in zip(shares, counts, strict=True) if each.counted != right), "")


def _sum(counts: list[int | None]) -> int | None:
    """Of what there is; None for nothing."""
    there = [count for count in counts if count is not None]
    return sum(there) if there else None


def golden_saturated(graph: Graph, images: np.ndarray) -> int | None:
    """How many elements the Saturate nodes change in `images` [N, H, W, C]; None without them.

    A count stays at the counters' end, as the hardware's do.
    """
    nodes = [node for node in graph.nodes if isinstance(node, Saturate)]
    if not nodes:
        return None
    step = max(1, ELEMENTS // sum(edge.size for edge in graph.edges.values()))
    counts = dict.fromkeys((node.name for node in nodes), 0)
    for start in range(0, len(images), step):
        values = golden.run_all(graph, images[start:start + step])
        for node in nodes:
            x = values[node.inputs[0]]
            counts[node.name] += int(((x < node.lo) | (x > node.hi)).sum())
    most = 2**COUNT_BITS - 1
    return min(sum(min(count, most) for count in counts.values()), most)


def _saturated(graph: Graph, run: Run) -> int | None:
    """The accelerator's saturation counter at the end of `run`; None if it has none."""
    if not saturates(graph):
        return None
    return int(unpack(run.probes[graph.name][SATURATED.name][None], 1, COUNT_BITS, False)[0, 0])


def _beats(tensor: np.ndarray, port: Port) -> np.ndarray:
    """The beats of integers [N, H, W, C] on an AXI4-Stream side: tdata, and tlast above it."""
    bits = pack(tensor.reshape(-1, port.lanes), port.width)
    fill = bits[:, -1:] if port.signed else np.zeros((len(bits), 1), np.uint8)
    last = np.arange(1, len(bits) + 1)[:, None] % port.beats == 0
    return np.hstack([bits, fill.repeat(port.tdata - port.bits, axis=1), last.astype(np.uint8)])


def _work(build: Build, taps: tuple[Tap, ...] = ()) -> Path:
    return build.path / ("simulation_debug" if taps else "simulation")


def _dut(build: Build, nhwc: np.ndarray, taps: tuple[Tap, ...] = (),
         waves: tuple[Tap, ...] = ()) -> Dut:
    source, output = ports(build.graph, build.folding)
    # What no output needs is counted too: the rest of an image that strides leave out.
    counted = tuple(
        Await(node.name, f"accelerator.{node.name}__o__valid", f"accelerator.{node.name}__o__ready",
              len(nhwc) * port(build.graph, build.folding, node.name).beats)
        for node in build.graph.nodes if isinstance(node, Saturate))
    return Dut(
        name=build.graph.name, module=module_name(build.graph, WRAPPER),
        taps=taps, waves=waves, awaits=counted, probes=(SATURATED,) if counted else (),
        clock="aclk", reset="aresetn", reset_active_low=True,
        tied=tuple(f"s_axi_control_{signal}" for flow, _, signal in bus()
                   if flow == "input") if build.control else (),
        sources=(Source("s_axis_tdata", "s_axis_tvalid", "s_axis_tready", source.tdata + 1,
                        _beats(nhwc, source), last="s_axis_tlast"),),
        sinks=(Sink("m_axis_tdata", "m_axis_tvalid", "m_axis_tready", output.tdata + 1,
                    len(nhwc) * output.beats, last="m_axis_tlast"),))


def trace(build: Build, images: np.ndarray, name: str, progress: Progress | None = None
          ) -> np.ndarray:
    """What the unit of node `name` makes of `images` [N, C, H, W] in RTL, as `Graph.trace` has it.

    Units that a build merges have no stream of their own: such a name is refused.
    """
    graph, folding = hardware_graph(build.graph, build.folding)
    taps = streams(graph, folding)
    if name not in (names := [tap.name for tap in taps]):
        raise N2uqError(f"{graph.name}: traced must be one of the units {', '.join(names)}, "
                        f"not {name!r}")
    nhwc = channels_last(images, build.graph.input.shape, build.graph.name)
    _check(len(nhwc))
    trial = Trial(build, nhwc, nhwc, 0.0, 0, "verilator")
    record = trial.run(0, len(nhwc), progress, taps=taps).taps[graph.name][name]
    edge, stream, node = graph.edges[name], port(graph, folding, name), graph[name]
    values = unpack(record.beats, stream.lanes, stream.width, stream.signed
                    ).reshape(-1, *edge.shape)
    if isinstance(node, OffsetMatVec):  # the thresholds behind it are moved by as much
        values = values - node.offset
    return channels_first(values)


def streams(graph: Graph, folding: Folding) -> tuple[Tap, ...]:
    """A tap on each unit's output of a hardware graph: one simulator serves all who ask for one."""
    signals = {name: f"accelerator.{signal}__o" for name, signal in signal_names(graph).items()}
    return tuple(
        Tap(node.name, valid=f"{signals[node.name]}__valid", ready=f"{signals[node.name]}__ready",
            data=f"{signals[node.name]}__payload", width=port(graph, folding, node.name).bits)
        for node in graph.nodes[1:] if not isinstance(node, Flatten | Fork))
