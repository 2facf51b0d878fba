"""What an ONNX tensor is of a value of the net: its axes in ONNX order, whatever moved them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .reading import Node, NoForm

__all__ = ["Atom", "Axes", "Levels", "Tensor", "atoms", "new_image", "new_vector"]


@dataclass(frozen=True, eq=False)
class Atom:
    """An axis, or a part of one, that moves as a whole; one of size 1 is left out everywhere."""

    size: int


Axes = tuple[Atom, ...]


def atoms(size: int) -> Axes:
    """The axis of so many elements."""
    return (Atom(size),) if size > 1 else ()


def _product(axes: Sequence[Atom]) -> int:
    return math.prod(atom.size for atom in axes)


@dataclass(frozen=True, eq=False)
class Levels:
    """Comparisons with several thresholds along an axis of their own, which a sum will count.

    `thresholds` and `weights` are [channels, T] or [1, T]: a weight is what a comparison counts.
    """

    axis: int
    thresholds: np.ndarray
    weights: np.ndarray
    base: float = 0.0


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the ONNX graph, as a view of the value of a layer.

    The value is an image of `channels`, `height` and `width`, or, where `vector`, [N, C]; `dims`
    are the axes of the ONNX tensor, of which the first begins with `batch`.  The tensor holds
    value · `factor`, or, where `coded` is a scale and a zero point, value / scale + zero point.

    Members
    -------
    layer: "" for the images.
    pads: zeros around it, (top, bottom, left, right) of the image.
    base: what is added to all of a padded value, the zeros too, [1] or [C].
    ending: what stood behind the last layer and was left off.
    tail: what followed that, and was left off, too.
    levels: what it is compared with, where it is to be counted.
    columns: the convolution whose windows a matrix product will take, channels last.
    """

    layer: str
    channels: Axes
    height: Axes
    width: Axes
    dims: tuple[Axes, ...]
    batch: Axes = ()
    vector: bool = False
    factor: float = 1.0
    coded: tuple[float, float] | None = None
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    base: np.ndarray = field(default_factory=lambda: np.zeros(1))
    ending: str = ""
    tail: Tensor | None = None
    levels: Levels | None = None
    columns: Node | None = None

    @property
    def axes(self) -> Axes:
        """Those of the value, in its order."""
        return (*self.channels, *self.height, *self.width)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the ONNX tensor."""
        return tuple(_product(dim) for dim in self.dims)

    @property
    def size(self) -> int:
        """Channels of the value."""
        return _product(self.channels)

    def transposed(self, order: Sequence[int]) -> Tensor:
        """The axes in another order."""
        if sorted(order) != list(range(len(self.dims))):
            raise NoForm(f"perm must order {len(self.dims)} axes, not be {list(order)}")
        return replace(self, dims=tuple(self.dims[axis] for axis in order))

    def reshaped(self, shape: Sequence[int]) -> Tensor:
        """The same elements in other axes; an axis splits where it must."""
        wanted = list(shape)
        if wanted.count(-1) == 1:
            known = -math.prod(wanted)
            wanted[wanted.index(-1)] = math.prod(self.shape) // max(known, 1)
        if math.prod(wanted) != math.prod(self.shape) or min(wanted, default=1) < 1:
            raise NoForm(f"shape must have the {math.prod(self.shape):,} elements of "
                         f"{list(self.shape)}, not be {list(shape)}")
        queue = [atom for dim in self.dims for atom in dim]
        dims: list[Axes] = []
        tensor = self
        for size in wanted:
            taken: list[Atom] = []
            while _product(taken) < size:
                need, atom = size // _product(taken), queue.pop(0)
                if size % _product(taken) or (need % atom.size and atom.size % need):
                    raise NoForm(f"shape must split or join the axes of {list(self.shape)}, "
                                 f"not be {list(shape)}")
                if atom.size > need:
                    parts = Atom(need), Atom(atom.size // need)
                    tensor = tensor._split(atom, parts)
                    queue.insert(0, parts[1])
                    atom = parts[0]
                taken.append(atom)
            dims.append(tuple(taken))
        return replace(tensor, dims=tuple(dims))

    def _split(self, atom: Atom, parts: Axes) -> Tensor:
        def split(axes: Axes) -> Axes:
            return tuple(part for each in axes for part in (parts if each is atom else (each,)))
        if atom in self.batch:
            raise NoForm("the batch must stay as it is, not be split")
        return replace(self, channels=split(self.channels), height=split(self.height),
                       width=split(self.width), dims=tuple(map(split, self.dims)))

    def joined(self) -> Tensor:
        """With axes joined that lie side by side both in the value and in the tensor."""
        places = [(axes, k) for axes in (self.channels, self.height, self.width)
                  for k in range(len(axes) - 1)]
        for axes, k in places:
            one, two = axes[k:k + 2]
            for dim in self.dims:
                if one in dim and dim.index(one) + 1 < len(dim) and dim[dim.index(one) + 1] is two:
                    whole = Atom(one.size * two.size)

                    def join(of: Axes, one: Atom = one, two: Atom = two, whole: Atom = whole
                             ) -> Axes:
                        return tuple(whole if each is one else each for each in of
                                     if each is not two)
                    return replace(
                        self, channels=join(self.channels), height=join(self.height),
                        width=join(self.width), dims=tuple(map(join, self.dims))).joined()
        return self

    def pattern(self) -> tuple[object, ...]:
        """What two tensors that can be added have in common: where each axis of the value is."""
        joined = self.joined()
        axes = joined.axes
        return (self.vector, *(tuple(atom.size for atom in part) for part in (
            joined.channels, joined.height, joined.width)),
            *(tuple(axes.index(atom) if atom in axes else -1 for atom in dim)
              for dim in joined.dims))

    def of(self, layer: str) -> Tensor:
        """The value of another layer that changes no axis."""
        return Tensor(layer, self.channels, self.height, self.width, self.dims, self.batch,
                      self.vector)

    def aligned(self, array: np.ndarray) -> np.ndarray:
        """A constant that goes with this tensor element by element, in the axes of the value.

        Its sizes are those of `axes`, or 1 where it is the same all along.
        """
        if array.ndim > len(self.dims):
            raise NoForm(f"a constant must have at most {len(self.dims)} axes as the tensor it "
                         f"goes with, not {array.ndim}")
        array = array.reshape((1,) * (len(self.dims) - array.ndim) + array.shape)
        sizes: list[int] = []
        for dim, size in zip(self.dims, array.shape, strict=True):
            if size not in (1, _product(dim)):
                raise NoForm(f"a constant must be of sizes {list(self.shape)} or 1, "
                             f"not {list(array.shape)}")
            sizes += [atom.size if size > 1 else 1 for atom in dim]
        order = [atom for dim in self.dims for atom in dim]
        if any(size > 1 and atom in self.batch for atom, size in zip(order, sizes, strict=True)):
            raise NoForm("a constant must be the same for all of the batch, and is not")
        array = array.reshape(sizes)
        axes = [*self.batch, *self.axes]
        array = array.transpose([order.index(atom) for atom in axes])
        return array.reshape(array.shape[len(self.batch):])


def new_image(layer: str, like: Tensor, channels: int, height: int, width: int, *,
              swapped: bool = False) -> Tensor:
    """The value of a layer of an image, in axes ordered as those of `like`.

    `swapped`: the height of the value is the last axis of the tensor.
    """
    c, h, w = atoms(channels), atoms(height), atoms(width)
    spatial = ((w, h) if swapped else (h, w)) if len(like.dims) == 4 else (h + w,)
    return Tensor(layer, c, h, w, (like.batch, c, *spatial), like.batch)


def new_vector(layer: str, like: Tensor, features: int) -> Tensor:
    """The value of a matrix product, in the last axis."""
    axis = atoms(features)
    return Tensor(layer, axis, (), (), (*like.dims[:-1], axis), like.batch, vector=True)
