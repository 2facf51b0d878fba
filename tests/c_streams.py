"""Builds of streams of every width, and their C header as a library that ctypes calls."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

from n2uq_hw.builds.emit import Build
from n2uq_hw.ir import Graph, Input, Saturate
from n2uq_hw.ir.folding import unfolded
from n2uq_hw.packages import c

__all__ = ["DRIVER", "STREAMS", "build_of", "library"]

# What a program needs of the header, as functions that ctypes finds.
EXPORTS = """
#ifdef __cplusplus
extern "C" {{
#endif
void pack({p}_pixel *image, uint8_t *beats) {{ {p}_pack(image, beats); }}
void planes({p}_pixel *image, uint8_t *beats) {{ {p}_pack_planes(image, beats); }}
void unpack(uint8_t *beats, {p}_result *results) {{ {p}_unpack(beats, results); }}
"""
DRIVER = """
static {p}_device device;
void attach(volatile uint32_t *base, uint32_t (*read)(void *, uint32_t),
            void (*write)(void *, uint32_t, uint32_t))
{{ device.base = base; device.read = read; device.write = write; device.context = NULL; }}
const char *check(void) {{ return {p}_check(&device); }}
void reset(int on) {{ {p}_reset(&device, on); }}
void snapshot(int clear, uint64_t *counts) {{
    {p}_counters now = {p}_snapshot(&device, clear);
    counts[0] = now.cycles; counts[1] = now.images_in; counts[2] = now.images_out;
    counts[3] = now.starved; counts[4] = now.blocked; counts[5] = now.saturated;
}}
int frame_error(void) {{ return {p}_frame_error(&device); }}
void interrupts(int on) {{ {p}_interrupts(&device, on); }}
int image_done(void) {{ return {p}_image_done(&device); }}
"""


def build_of(name: str, shape: tuple[int, int, int], reach: tuple[int, int],
             held: tuple[int, int], lanes: tuple[int, int], control: bool = False) -> Build:
    """A build of a Saturate alone, without files: only its streams matter."""
    nodes = (Input("x", shape=shape, lo=reach[0], hi=reach[1]),
             Saturate("held", ("x",), lo=held[0], hi=held[1]))
    folding = {node.name: unfolded(node, pe=pe) for node, pe in zip(nodes, lanes, strict=True)}
    return Build(Path(), Graph(name, nodes).verify(), folding, {}, (), control)


def library(build: Build, folder: Path, compiler: str, standard: str, *more: str) -> ctypes.CDLL:
    """The header, and what `EXPORTS` and `more` make of it, without a warning."""
    ((path, text),) = c.files(build).items()
    name = Path(path).stem
    (folder / Path(path).name).write_text(text)
    ends = "#ifdef __cplusplus\n}\n#endif\n"
    source = folder / ("t.c" if compiler == "gcc" else "t.cpp")
    source.write_text(f'#include "{name}.h"\n#include "{name}.h"\n'
                      + "".join(part.format(p=name) for part in (EXPORTS, *more)) + ends)
    subprocess.run([compiler, standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-fPIC",
                    "-shared", source.name, "-o", f"{source.name}.so"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / f"{source.name}.so"))


# Shape, range of pixels, range of results, lanes of each side.
STREAMS = {
    "bits": ((3, 2, 4), (0, 1), (0, 1), (4, 1)),
    "odd": ((2, 5, 3), (0, 16), (1, 9), (1, 3)),
    "signed": ((3, 4, 3), (-9, 9), (-5, 4), (3, 1)),
    "wide": ((1, 2, 24), (-60, 60), (-50, 63), (24, 8)),
    "words": ((2, 1, 4), (-70_000, 5), (-40_000, 5), (2, 4)),
    "large": ((1, 1, 3), (-2**40, 2**41), (-2**40, 2**36), (3, 1)),
    "bytes": ((1, 3, 2), (0, 255), (0, 200), (2, 2)),
    "all_bits_of_a_word": ((1, 1, 2), (-128, 127), (-128, 127), (1, 2))}
