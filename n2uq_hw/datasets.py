"""A data set of one's own: an .npz, images by class, IDX files, or CIFAR-10.

Nothing is unpickled: CIFAR-10's archive for Python is refused, its binary one is read.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import data
from .data import Dataset
from .errors import N2uqError

__all__ = ["Splits", "read"]

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
TEST = ("test", "val", "valid", "validation")  # folders of the test split
LARGEST = 2**24     # pixels of an image
MOST = 2**33        # bytes of a data set
CIFAR = 3 * 32 * 32  # bytes of an image
BATCHES = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
STRIPS = ("train-images.npz", "train-labels.npy", "test-images.npz", "test-labels.npy")
PICKLED = ("must be CIFAR-10's binary archive, cifar-10-binary.tar.gz, not the one for Python, "
           "which is pickled and could run code")


@dataclass(frozen=True)
class Splits:
    """`train` images, and those of `test` where there are any."""

    train: Dataset
    test: Dataset | None = None


def read(path: Path) -> Splits:
    """The data set at `path`.

    Parameters
    ----------
    path: an .npz with integer `images` [N, C, H, W] and `labels` [N], and perhaps `test_images`,
        `test_labels`, and `max`, the largest value of a pixel; a folder of IDX files by MNIST's
        names; CIFAR-10's cifar-10-binary.tar.gz, or a folder with it, its files, or strips of
        lossless images (train-images.npz, ...); or a folder with a folder of images for each class,
        in `train` and `test` if it has these.

    Raises N2uqError for a path that holds none of these, and for a file that is not whole.
    """
    try:
        if path.is_dir():
            return _folder(path)
        if path.name.endswith((".tar.gz", ".tgz", ".tar")):
            return _archive(path)
    except OSError as error:
        raise N2uqError(f"{path}: cannot be read: {error.strerror or error}") from None
    return _npz(path)


def _dataset(what: object, images: np.ndarray, labels: np.ndarray | None, most: int = 0,
             classes: int = 0) -> Dataset:
    """Checked; pixels lie in 0..`most`, or up to the next 2^k - 1."""
    if labels is None:
        raise N2uqError(f"{what}: must hold labels, and has none")
    if images.dtype.kind not in "ui" or images.min() < 0:
        raise N2uqError(f"{what}: images must be integers from 0, not {images.dtype}"
                        f"{f' from {images.min()}' if images.dtype.kind in 'ui' else ''}")
    if labels.ndim != 1 or labels.dtype.kind not in "ui" or labels.min() < 0:
        raise N2uqError(f"{what}: labels must be classes [N] from 0, not {labels.dtype} "
                        f"{list(labels.shape)}")
    largest = int(images.max())
    if most and largest > most:
        raise N2uqError(f"{what}: pixels must lie in 0..{most}, not reach {largest}")
    most = most or (255 if images.dtype == np.uint8 else max(1, 2**largest.bit_length() - 1))
    if most > 65535:
        raise N2uqError(f"{what}: pixels must lie in 0..65535, not reach {largest}")
    return Dataset(images, labels.astype(np.int64), most, classes or int(labels.max()) + 1)


def _npz(path: Path) -> Splits:
    samples = data.read_npz(path)
    with np.load(path, allow_pickle=False) as file:
        most = file["max"] if "max" in file else np.array(0)
        if most.shape or most.dtype.kind not in "ui" or not 0 <= most <= 65535:
            raise N2uqError(f"{path}: max must be an integer in 1..65535, not {most}")
        train = _dataset(path, samples.images, samples.labels, int(most))
        names = ("test_images", "test_labels")
        if not all(name in file for name in names):
            return Splits(train)
        images, labels = (file[name] for name in names)
    return Splits(train, _like(path, train, images, labels))


def _like(what: object, train: Dataset, images: np.ndarray, labels: np.ndarray) -> Dataset:
    """A test split of the same images and classes."""
    images, known = data.from_arrays(str(what), {"images": images, "labels": labels})
    test = _dataset(what, images, known, train.max, train.classes)
    if images.shape[1:] != train.images.shape[1:] or test.labels.max() >= train.classes:
        raise N2uqError(f"{what}: test images must be {list(train.images.shape[1:])} of classes "
                        f"0..{train.classes - 1}, not {list(images.shape[1:])} of classes up to "
                        f"{test.labels.max()}")
    return test


def _folder(path: Path) -> Splits:
    names = {each.name for each in path.iterdir()}
    if any(name.startswith("train-images-idx3-ubyte") for name in names):
        return _idx(path, names)
    if {*STRIPS} <= names:
        return _strips(path)
    for name in ("cifar-10-binary.tar.gz", "cifar-10-batches-bin"):
        if name in names:
            return read(path / name)
    if {*BATCHES} <= names:
        return _binary(path, {name: (path / name).read_bytes()
                              for name in (*BATCHES, "test_batch.bin") if name in names})
    if names & {"cifar-10-python.tar.gz", "data_batch_1", "cifar-10-batches-py"}:
        raise N2uqError(f"{path}: {PICKLED}")
    train = path / "train" if "train" in names else path
    tests = [path / name for name in TEST if name in names] if train != path else []
    classes = [each.name for each in _classes(train)]
    return Splits(_by_class(train, classes), _by_class(tests[0], classes) if tests else None)


def _idx(path: Path, names: set[str]) -> Splits:
    parts: list[Dataset] = []
    for stem in ("train", "t10k"):
        if stem == "t10k" and not any(name.startswith("t10k-images") for name in names):
            return Splits(parts[0])
        images = data.read_idx(path, f"{stem}-images-idx3-ubyte", 3)[:, None]
        labels = data.read_idx(path, f"{stem}-labels-idx1-ubyte", 1)
        images, known = data.from_arrays(path, {"images": images, "labels": labels})
        parts.append(_dataset(path, images, known) if not parts
                     else _like(path, parts[0], images, labels))
    return Splits(*parts)


def _archive(path: Path) -> Splits:
    """CIFAR-10's binary archive."""
    if not path.is_file():
        raise N2uqError(f"{path}: no such file")
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                if name in ("data_batch_1", "batches.meta"):
                    raise N2uqError(f"{path}: {PICKLED}")
                if name in (*BATCHES, "test_batch.bin"):
                    if not member.isfile() or member.size != 10_000 * (CIFAR + 1):
                        raise N2uqError(f"{path}: {name} must be a file of "
                                        f"{10_000 * (CIFAR + 1)} bytes, not {member.size}")
                    opened = archive.extractfile(member)
                    assert opened is not None
                    files[name] = opened.read()
    except (tarfile.TarError, EOFError, zipfile.BadZipFile, OSError) as error:
        raise N2uqError(f"{path}: must be a whole tar archive: {error}") from None
    return _binary(path, files)


def _binary(path: Path, files: dict[str, bytes]) -> Splits:
    if missing := [name for name in BATCHES if name not in files]:
        raise N2uqError(f"{path}: must hold {missing[0]}, and does not")
    rows = {}
    for name, content in files.items():
        if not content or len(content) % (CIFAR + 1):
            raise N2uqError(f"{path}: {name} must hold rows of {CIFAR + 1} bytes, "
                            f"not {len(content)} bytes")
        rows[name] = np.frombuffer(content, np.uint8).reshape(-1, CIFAR + 1)
    train = np.concatenate([rows[name] for name in BATCHES])
    parts = [train] + ([rows["test_batch.bin"]] if "test_batch.bin" in rows else [])
    if any(part[:, 0].max() > 9 for part in parts):
        raise N2uqError(f"{path}: labels must lie in 0..9")
    return Splits(*(_dataset(path, part[:, 1:].reshape(-1, 3, 32, 32), part[:, 0], 255, 10)
                    for part in parts))


def _strips(path: Path) -> Splits:
    """Strips of images one below the other, as bytes of a lossless format by ascending names."""
    parts = []
    for split in ("train", "test"):
        source = path / f"{split}-images.npz"
        try:
            labels = np.load(path / f"{split}-labels.npy", allow_pickle=False)
            with np.load(source, allow_pickle=False) as strips:
                images = np.concatenate([_picture(source, strips[name].tobytes())
                                         for name in sorted(strips.files)])
            images = images.reshape(len(labels), -1, *images.shape[1:])
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise N2uqError(f"{source}: must hold strips of as many images as there are labels: "
                            f"{error}") from None
        parts.append(_dataset(source, np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels,
                              255, 10))
    return Splits(*parts)


def _picture(what: object, source: Any) -> np.ndarray:
    """[H, W, C] of a picture, gray or RGB."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            if picture.width * picture.height > LARGEST:
                raise N2uqError(f"{what}: an image must have at most {LARGEST} pixels, not "
                                f"{picture.width} × {picture.height}")
            gray = picture.mode in ("1", "L", "I", "I;16", "LA")
            pixels = np.asarray(picture.convert("L" if gray else "RGB"))
    except (OSError, ValueError, UnidentifiedImageError, SyntaxError) as error:
        raise N2uqError(f"{what}: must be an image: {error}") from None
    return pixels[:, :, None] if gray else pixels


def _classes(folder: Path) -> list[Path]:
    classes = sorted(each for each in folder.iterdir()
                     if each.is_dir() and not each.name.startswith("."))
    if len(classes) < 2:
        raise N2uqError(f"{folder}: must hold IDX files, CIFAR-10, or a folder of images for each "
                        f"of two or more classes, not {len(classes)} folders")
    return classes


def _files(folder: Path) -> Iterator[Path]:
    return (each for each in sorted(folder.iterdir()) if each.suffix.lower() in ENDINGS)


def _by_class(folder: Path, classes: list[str]) -> Dataset:
    """Images of one size; a class is its folder's place among the folders by name."""
    images: list[np.ndarray] = []
    labels: list[int] = []
    for each in _classes(folder):
        if each.name not in classes:
            raise N2uqError(f"{each}: must be a class that the training images have, one of "
                            f"{', '.join(classes)}")
        for path in _files(each):
            pixels = _picture(path, path)
            if images and pixels.shape != images[0].shape:
                raise N2uqError(f"{path}: must have the size and colors of the first image, "
                                f"{list(images[0].shape)}, not {list(pixels.shape)}")
            images.append(pixels)
            labels.append(classes.index(each.name))
            if pixels.size * len(images) > MOST:
                raise N2uqError(f"{folder}: images must take at most {MOST} bytes")
    if not images:
        raise N2uqError(f"{folder}: must hold images ({' '.join(sorted(ENDINGS))}), and has none")
    return _dataset(folder, np.stack(images).transpose(0, 3, 1, 2), np.array(labels), 255,
                    len(classes))
