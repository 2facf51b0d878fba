"""Data sets as integers: digits from scikit-learn, MNIST from IDX files in a folder."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import N2uqError

__all__ = ["DATASETS", "Dataset", "Samples", "channels_last", "from_arrays", "images_for", "load",
           "read_idx", "read_npz"]

DATASETS = ("digits", "mnist")
DIGITS_TEST = 360   # images of the fixed test split
SPLIT_SEED = 0
_IDX = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class Dataset:
    """`images` uint8 [N, C, H, W] in 0..`max`, `labels` int64 [N] in 0..`classes` - 1."""

    images: np.ndarray
    labels: np.ndarray
    max: int
    classes: int = 10


def load(name: str, folder: Path | None = None, split: str = "test") -> Dataset:
    """The "train" or "test" split of a data set.

    Parameters
    ----------
    name: "digits" (1 × 8 × 8, 0..16; needs no folder) or "mnist" (1 × 28 × 28, 0..255).
    folder: where the MNIST IDX files are, plain or gzipped, under their published names.
    split: "train" (1437 digits, or MNIST's 60000) or "test" (360 digits, or MNIST's 10000).

    Raises N2uqError for a name, a split or a file that is not one.
    """
    if name not in DATASETS:
        raise N2uqError(f"data set must be one of {', '.join(DATASETS)}, not {name!r}")
    if split not in _IDX:
        raise N2uqError(f"split must be one of {', '.join(_IDX)}, not {split!r}")
    if name == "digits":
        return _digits(split)
    if folder is None:
        raise N2uqError("mnist needs the folder of its IDX files, not None")
    images = read_idx(folder, f"{_IDX[split]}-images-idx3-ubyte", 3)
    labels = read_idx(folder, f"{_IDX[split]}-labels-idx1-ubyte", 1)
    if len(images) != len(labels) or images.shape[1:] != (28, 28):
        raise N2uqError(f"{folder}: mnist must hold as many labels as 28 × 28 images, not "
                        f"{len(labels)} for {list(images.shape)}")
    if labels.max(initial=0) > 9:
        raise N2uqError(f"{folder}: mnist labels must lie in 0..9, not {labels.max()}")
    return Dataset(images[:, None], labels.astype(np.int64), 255)


def images_for(dataset: str, source: Path | None) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Test images [N, C, H, W] and labels [N, ...] for a net; None if there are none at hand.

    Parameters
    ----------
    dataset: the data set that the net was trained on, "" if it is not known.
    source: an .npz file (see `read_npz`), or the folder of the data set's files, or None.
    """
    if source is not None and not source.is_dir():
        samples = read_npz(source)
        return samples.images, samples.labels
    if dataset not in DATASETS or (dataset == "mnist" and source is None):
        return None
    held = load(dataset, source)
    return held.images, held.labels


@dataclass(frozen=True)
class Samples:
    """Images [N, C, H, W] and what is known of them.

    `labels` [N, ...], integers of classes or floats of values; `logits` float [N, C] or, of a map,
    [N, C, H, W], of the reference model; `mean` and `std` float [C], by which that model's images
    were normalized, pixels of 0..1.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    logits: np.ndarray | None = None
    mean: np.ndarray | None = None
    std: np.ndarray | None = None


def read_npz(path: Path) -> Samples:
    """The arrays of an .npz file by the names of `Samples`; others are left alone."""
    if path.is_file() and not zipfile.is_zipfile(path):
        raise N2uqError(f"{path}: must be a whole .npz file, and is not")
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels = from_arrays(path, file)
            extras = {key: file[key] for key in ("logits", "mean", "std") if key in file}
    except FileNotFoundError:
        raise N2uqError(f"{path}: no such file or folder") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise N2uqError(f"{path}: must be an .npz file of plain arrays: {error}") from None
    for key, count, axes in (("logits", len(images), (2, 4)), ("mean", images.shape[1], (1,)),
                             ("std", images.shape[1], (1,))):
        if key in extras and (extras[key].dtype.kind != "f" or extras[key].ndim not in axes
                              or len(extras[key]) != count or not np.isfinite(extras[key]).all()):
            raise N2uqError(f"{path}: {key} must be {count} finite floats"
                            f"{' per class' if key == 'logits' else ''}, not {extras[key].dtype} "
                            f"{list(extras[key].shape)}")
    return Samples(images, labels, **extras)


def from_arrays(path: Path | str, arrays: Mapping[str, np.ndarray]
                ) -> tuple[np.ndarray, np.ndarray | None]:
    """`images` and, where there are any, `labels` of the `arrays` in the file `path`."""
    if "images" not in arrays:
        raise N2uqError(f"{path}: must hold an array named images, and does not")
    images, labels = arrays["images"], arrays.get("labels")
    if images.ndim != 4 or not len(images):
        raise N2uqError(f"{path}: images must be [N, C, H, W] with N at least 1, "
                        f"not {list(images.shape)}")
    if labels is None:
        return images, None
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if labels.dtype.kind not in "uif" or labels.shape[:1] != images.shape[:1]:
        kind = "floats" if labels.dtype.kind == "f" else "integers"
        raise N2uqError(f"{path}: labels must be {len(images)} {kind}, "
                        f"not {labels.dtype} {list(labels.shape)}")
    if not (finite := np.isfinite(labels)).all():
        raise N2uqError(f"{path}: labels must be finite, not {labels[~finite][0]}")
    return images, labels


def channels_last(images: np.ndarray, shape: tuple[int, int, int], name: str) -> np.ndarray:
    """Integer images [N, C, H, W] as [N, H, W, C] for the net `name` of input `shape` (H, W, C)."""
    height, width, channels = shape
    if images.dtype.kind not in "ui" or images.shape[1:] != (channels, height, width):
        raise N2uqError(f"images of {name} must be integers [N, {channels}, {height}, {width}], "
                        f"not {images.dtype} {list(images.shape)}")
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _digits(split: str) -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The same share of every class in both splits; both in random order.
    rng = np.random.default_rng(SPLIT_SEED)
    shuffled = rng.permutation(len(digits.target))
    rank = np.empty(len(shuffled), np.int64)
    for label in range(10):
        of_class = shuffled[digits.target[shuffled] == label]
        rank[of_class] = np.arange(len(of_class)) * 10 + label
    order = np.argsort(rank)
    test, train = rng.permutation(order[:DIGITS_TEST]), rng.permutation(order[DIGITS_TEST:])
    chosen = test if split == "test" else train
    return Dataset(digits.images[chosen, None].astype(np.uint8),
                   digits.target[chosen].astype(np.int64), 16)


def read_idx(folder: Path, stem: str, dimensions: int) -> np.ndarray:
    """The uint8 array of `dimensions` axes in the IDX file ``stem`` or ``stem.gz`` in `folder`."""
    paths = [p for p in (folder / stem, folder / f"{stem}.gz") if p.is_file()]
    if not paths:
        raise N2uqError(f"{folder / stem}: no such file, nor with .gz")
    try:
        raw = paths[0].read_bytes()
        raw = gzip.decompress(raw) if paths[0].suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise N2uqError(f"{paths[0]}: cannot be read: {error}") from None
    start = 4 + 4 * dimensions
    if raw[:4] != bytes([0, 0, 8, dimensions]):
        raise N2uqError(f"{paths[0]}: IDX magic must be 000008{dimensions:02x}, "
                        f"not {raw[:4].hex() or 'an empty file'}")
    if len(raw) < start:
        raise N2uqError(f"{paths[0]}: IDX header must have {start} bytes, not {len(raw)}")
    sizes = [int.from_bytes(raw[at:at + 4], "big") for at in range(4, start, 4)]
    if len(raw) - start != math.prod(sizes):
        raise N2uqError(f"{paths[0]}: must hold {' × '.join(map(str, sizes))} bytes of data, "
                        f"not {len(raw) - start}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(sizes).copy()
