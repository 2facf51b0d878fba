"""What golden computes, as truth tables: of every output element, over the inputs it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ...errors import N2uqError
from ...ir import Edge, Node, golden

__all__ = ["MOST", "Element", "truth_tables"]

MOST = 2**18  # images that golden is asked for


@dataclass(frozen=True)
class Element:
    """An element of an output image.

    Members
    -------
    reads: the elements of the input images, in stream order and input after input, that it
        depends on; ascending.
    table: its value for each of their values, int64, an axis for each: element k's axis runs over
        its codes as the hardware has them, ``0 .. 2^width - 1``.
    """

    reads: tuple[int, ...]
    table: np.ndarray


def truth_tables(node: Node, edges: tuple[Edge, ...]) -> list[Element]:
    """The elements of `node`'s output image, from golden at every image that its inputs can have.

    Codes outside an edge's range count as the next one inside it.  Raises N2uqError for more than
    `MOST` images.
    """
    lo = np.concatenate([np.broadcast_to(e.lo, e.shape).ravel() for e in edges])
    hi = np.concatenate([np.broadcast_to(e.hi, e.shape).ravel() for e in edges])
    widths = np.concatenate([np.full(e.size, e.width) for e in edges])
    signed = np.concatenate([np.full(e.size, e.signed) for e in edges])
    counts = (hi - lo + 1).tolist()
    if prod(counts) > MOST:
        raise N2uqError(f"{node.name}: inputs must have at most {MOST:,} images for a proof, not "
                        f"{prod(counts):,}")
    images = np.stack(np.unravel_index(np.arange(prod(counts)), counts), axis=1) + lo
    ends = np.cumsum([e.size for e in edges])[:-1]
    xs = [part.reshape(-1, *e.shape) for part, e in zip(np.split(images, ends, axis=1), edges,
                                                        strict=True)]
    values = golden.evaluate(node, edges, *xs).reshape(len(images), -1).astype(np.int64)
    elements = []
    for value in values.T:
        table, reads = value.reshape(counts), list[int]()
        for k in range(len(counts)):
            if (table != table.take([0], axis=k)).any():
                reads.append(k)
            else:
                table = table.take([0], axis=k)
        table = table.reshape([counts[k] for k in reads])
        for axis, k in enumerate(reads):
            codes = np.arange(2**widths[k])
            numbers = codes - (codes >= 2**(widths[k] - 1)) * 2**widths[k] if signed[k] else codes
            table = table.take(np.clip(numbers - lo[k], 0, counts[k] - 1), axis=axis)
        elements.append(Element(tuple(reads), table))
    return elements
