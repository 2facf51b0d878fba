"""The build directory: Verilog, IR, folding, test vectors, manifest and report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from .. import __version__
from ..data import channels_last, from_arrays, images_for
from ..errors import N2uqError
from ..files import changed_files, read_text, readable, whole_directory, write_file
from ..hw.accelerator import WRAPPER, Accelerator, control_name, module_name, prefix
from ..hw.control import ControlUnit, bus
from ..hw.library import Library
from ..hw.memory import hex_rows
from ..hw.passes import hardware_graph, lanes_of, saturates, unroll
from ..hw.registers import ADDRESS_BITS, identity
from ..hw.writable import INDEX_BITS, WORD
from ..ir import Flatten, Graph, describe, golden, is_writable, load_graph
from ..ir.folding import Folding, fold_cycles, style_of
from ..plan.choice import load_folding, save_folding
from ..sim.timing.fifos import Sizing
from ..templates import render
from ..tools import rtlil_to_verilog
from .control import describe_registers
from .task import Task

__all__ = ["LINT", "Build", "Port", "accelerator_verilog", "emit", "folder_macro",
           "library_verilog", "load_build", "port", "ports", "report"]

LINT = "lint.vlt"  # what Verilator's lint need not say of a build


@dataclass(frozen=True)
class Port:
    """One AXI4-Stream side: `lanes` elements of `width` bits per beat, `beats` per image."""

    shape: tuple[int, int, int]
    lanes: int
    width: int
    signed: bool

    @property
    def bits(self) -> int:
        """Payload bits of a beat."""
        return self.lanes * self.width

    @property
    def tdata(self) -> int:
        """Payload bits padded to whole bytes."""
        return -(-self.bits // 8) * 8

    @property
    def beats(self) -> int:
        """Beats per image."""
        return self.shape[0] * self.shape[1] * self.shape[2] // self.lanes


def port(graph: Graph, folding: Folding, name: str) -> Port:
    """The stream on edge `name` of a hardware graph."""
    edge = graph.edges[name]
    return Port(edge.shape, lanes_of(graph, folding, name), edge.width, edge.signed)


def ports(graph: Graph, folding: Folding) -> tuple[Port, Port]:
    """The input and the output side of the accelerator."""
    hardware, folds = hardware_graph(graph, folding)
    return port(hardware, folds, hardware.input.name), port(hardware, folds, hardware.output)


def folder_macro(name: str) -> str:
    """The macro that says where `<name>.v` finds its memory files; unset, where the tool runs."""
    return f"{name.upper()}_FOLDER"


def library_verilog(library: Library, name: str) -> dict[str, str]:
    """Texts by file name: `<name>.v` with all modules of `library`, and the files these read."""
    rtlil = "\n".join(library.rtlil().values())
    verilog = "\n".join([*([rtlil_to_verilog(rtlil)] if rtlil else []),
                         *(text for _, text in sorted(library.written.items()))])
    memories = sorted(library.memories.items())
    rows = [{"module": module, "file": f"{module}.hex", "depth": len(bits), "width": bits.shape[1],
             "address": (len(bits) - 1).bit_length(), "attributes": attributes, "written": written}
            for module, (bits, attributes, written) in memories]
    return {f"{name}.v": render("library.v.j2", verilog=verilog, memories=rows,
                                 folder=folder_macro(name)),
            **{f"{module}.hex": hex_rows(bits).decode() for module, (bits, *_) in memories}}


def accelerator_verilog(graph: Graph, folding: Folding, control: bool = False) -> dict[str, str]:
    """Texts by file name: `<name>.v`, its memory files, and the AXI4-Stream `<name>_axis.v`.

    With `control`, and where anything can be written, the last has registers behind AXI4-Lite
    (hw/registers.py) beside its streams.
    """
    library, slave = Library(), None
    accelerator = Accelerator(graph, folding)
    library.signature(module_name(graph), lambda: accelerator)
    if control or accelerator.columns:
        region = accelerator.region
        slave = {"module": control_name(accelerator.graph),
                 "ports": bus(region.address_bits if region else ADDRESS_BITS),
                 "most": 2**INDEX_BITS - 1, "tables": region and {
                     "address": (region.words - 1).bit_length(), "data": WORD, "first": INDEX_BITS}}
        library.signature(control_name(accelerator.graph),
                          lambda: ControlUnit(identity(graph, __version__), region))
    source, output = ports(graph, folding)
    files = library_verilog(library, prefix(graph))
    wrapper = render("axis.v.j2", name=module_name(graph, WRAPPER),
                     accelerator=module_name(graph), version=__version__, input=source,
                     output=output, saturated=saturates(graph), control=slave)
    return {**files, f"{module_name(graph, WRAPPER)}.v": wrapper}


def report(graph: Graph, folding: Folding) -> dict[str, Any]:
    """What was built: a row per unit with shape, exact range, width, folding and cycles."""
    graph, folding = unroll(graph, folding)
    rows = []
    for node, row in zip(graph.nodes, describe(graph), strict=True):
        if isinstance(node, Flatten):
            continue
        fold = folding[node.name]
        rows.append(row | {
            "pe": fold.pe, "simd": fold.simd, "style": style_of(fold),
            "cycles": fold_cycles(node, graph.reads(node), graph.edges[node.name], fold)})
    return {"name": graph.name, "version": __version__, "macs": sum(row["macs"] for row in rows),
            "weight_bits": sum(row["weight_bits"] * row["weights"] for row in rows),
            "output": graph.meta.get("output", ""),
            "output_scale": graph.meta.get("output_scale", 1.0), "layers": rows,
            "slowest": max(rows, key=lambda row: row["cycles"])["name"]}


def emit(graph: Graph, sized: Sizing, out: Path, images: np.ndarray, labels: np.ndarray | None,
         progress: Callable[[str], None] = lambda stage: None, *, control: bool = False
         ) -> dict[str, Any]:
    """Write the build directory `out`, whole or not at all; returns the report.

    Parameters
    ----------
    graph, sized: what to build, and its folding with a depth for every FIFO where branches meet, as
        `size_fifos` returns it.
    images: integers [N, C, H, W] to keep as test vectors, with golden's results.
    labels: those of a `Task`.
    progress: is told each stage as it begins.
    control: whether the wrapper has registers behind AXI4-Lite; files control.* describe them.
    """
    Task(graph, labels)  # says what is wrong with them
    folding = sized.folding
    control = control or is_writable(graph)
    progress("Verilog")
    texts = accelerator_verilog(graph, folding, control)
    progress("test vectors")
    expected = golden.run(graph, channels_last(images, graph.input.shape, graph.name))
    vectors = {"images": images, "expected": expected}
    if labels is not None:
        vectors["labels"] = labels
    described = report(graph, folding) | {
        "memories": [name for name in texts if name.endswith(".hex")]}
    progress("files")
    tools = {name: version(name) for name in ("amaranth", "pyosys")}
    with whole_directory(out, **{"n2uq-hw": __version__}, name=graph.name, tools=tools) as part:
        (part / "rtl").mkdir()
        for name, text in texts.items():
            write_file(part / "rtl" / name, text)
        write_file(part / LINT, render(LINT))
        graph.save(part / "graph.safetensors")
        save_folding(folding, graph, part / "folding.yaml")
        # safetensors' own file writer makes files that only their owner can read.
        write_file(part / "vectors.safetensors",
                   save({k: np.ascontiguousarray(v) for k, v in vectors.items()}))
        write_file(part / "report.json", json.dumps(described, indent=1) + "\n")
        write_file(part / "report.md", render("report.md.j2", **described))
        for name, text in (describe_registers(graph, __version__) if control else {}).items():
            write_file(part / name, text)
    return described


@dataclass(frozen=True)
class Build:
    """A build directory, read back."""

    path: Path
    graph: Graph
    folding: Folding
    vectors: dict[str, np.ndarray]
    changed: tuple[str, ...]  # files that are not as they were built
    control: bool = False  # whether it has registers behind AXI4-Lite

    @property
    def verilog(self) -> list[Path]:
        """The Verilog files, and the memory files that they read."""
        return sorted((self.path / "rtl").glob("*.v")) + sorted((self.path / "rtl").glob("*.hex"))

    def images(self, count: int | None, source: Path | None
               ) -> tuple[np.ndarray, np.ndarray | None]:
        """`count` images to run, and labels if known: of `source`, else the data set of the net,
        else the build's own test vectors; all of the vectors for None.
        """
        samples = images_for(self.graph.meta.get("dataset", ""), source)
        if samples is None:
            samples = self.vectors["images"], self.vectors.get("labels")
        images, labels = samples
        count = len(self.vectors["images"]) if count is None and source is None else count
        if count is not None and not 1 <= count <= len(images):
            raise N2uqError(f"images must be 1 to the {len(images)} at hand, not {count}"
                            + ("" if source else " (--data names more)"))
        return images[:count], None if labels is None else labels[:count]


def _has_control(path: Path, graph: Graph) -> bool:
    """Whether the wrapper of a build directory has AXI4-Lite ports."""
    return "s_axi_control_awaddr," in read_text(path / "rtl" / f"{module_name(graph, WRAPPER)}.v")


def load_build(path: Path) -> Build:
    """Read the build directory `path`; raises N2uqError if it is none or not whole."""
    changed = changed_files(path)
    try:
        graph = load_graph(path / "graph.safetensors")
        vectors = load_file(readable(path / "vectors.safetensors"))
    except (OSError, SafetensorError) as error:
        raise N2uqError(f"{path}: not a whole build directory: {error}") from None
    from_arrays(path / "vectors.safetensors", vectors)
    # The streams of the Verilog are as wide as its own folding says.
    if "folding.yaml" in changed:
        raise N2uqError(f"{path / 'folding.yaml'}: must be what the Verilog was built with, and "
                        "was edited; `n2uq-hw build --folding` builds another")
    return Build(path, graph, load_folding(path / "folding.yaml", graph), vectors, changed,
                 control=_has_control(path, graph))
