# amaranth: UnusedElaboratable=no
"""The tables of another training for a build with parameters that can be written."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import N2uqError
from ..files import write_file
from ..hw.accelerator import Accelerator
from ..hw.registers import identity
from ..hw.writable import Column
from ..ir import Graph, adopt, is_writable
from ..tables import Shown, Table
from .emit import Build

__all__ = ["HEADER", "MAGIC", "SUFFIXES", "Tables", "pack"]

MAGIC = 0x4E325554  # "N2UT" in ASCII, N in the high byte
HEADER = 4          # words: MAGIC, registers hash_low and hash_high of the build, words that follow
SUFFIXES = ".bin", ".npz"


@dataclass(frozen=True, repr=False)
class Tables(Shown):
    """What is written for another training: pairs of byte address and word, and its graph.

    Members
    -------
    graph: whose golden is what the hardware computes then.
    address, data: uint32 [n]: what to write to AXI4-Lite, in any order, before the switch.
    hash: of the build that takes them, as its registers have it.
    columns: the memories that they fill.
    """

    graph: Graph
    address: np.ndarray
    data: np.ndarray
    hash: int
    columns: tuple[Column, ...] = ()

    @property
    def words(self) -> np.ndarray:
        """uint32: `HEADER` words, then each address with its word behind it."""
        header = [MAGIC, self.hash & 2**32 - 1, self.hash >> 32, 2 * len(self.address)]
        pairs = np.stack([self.address, self.data], axis=1).reshape(-1)
        return np.concatenate([np.array(header, np.uint32), pairs])

    def parts(self) -> list[str | Table]:
        """A row for each layer that is written."""
        table = Table("layer", "memory", "columns", "rows", "bits", left=2)
        for (node, name), columns in groupby(self.columns, lambda each: (each.node, each.table)):
            held = list(columns)
            table.add_row(node, name, str(len(held)), str(len(held[0].values)),
                          str(sum(each.width for each in held)))
        return [f"{self.graph.name}, {len(self.data):,} words", table]

    def save(self, path: str | Path) -> None:
        """Write `words`, little-endian, to a .bin file; to an .npz file the arrays by name."""
        path = Path(path)
        if path.suffix not in SUFFIXES:
            raise N2uqError(f"{path}: must end in {' or '.join(SUFFIXES)}")
        if path.suffix == ".bin":
            return write_file(path, self.words.astype("<u4").tobytes())
        file = io.BytesIO()
        np.savez_compressed(file, address=self.address, data=self.data,
                            hash=np.uint64(self.hash),
                            output_scale=self.graph.meta.get("output_scale", 1.0))
        return write_file(path, file.getvalue())


def pack(graph: Graph, build: Build) -> Tables:
    """The tables of `graph` for `build`, whose network it is in another training.

    Raises N2uqError, which names the layer, for what the build has no room for, and for what
    differs though it cannot be written.
    """
    if not is_writable(build.graph):
        raise N2uqError(f"{build.path}: must be a build with --writable")
    taken = adopt(build.graph, graph)
    built, new = (Accelerator(each, build.folding) for each in (build.graph, taken))
    region, shapes = built.region, [[(column.node, column.table, column.width, len(column.values))
                                     for column in each.columns] for each in (built, new)]
    assert region is not None and shapes[0] == shapes[1]
    address = [region.first + 4 * ((column.number << region.row_bits) + np.arange(
        len(column.values))) for column in new.columns]
    return Tables(taken, np.concatenate(address).astype(np.uint32),
                  np.concatenate([column.values for column in new.columns]),
                  identity(build.graph, __version__)["hash"], tuple(new.columns))
