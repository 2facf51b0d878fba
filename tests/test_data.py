"""The data sets: digits by their counts, IDX files by tiny synthetic ones."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from n2uq_hw import data
from n2uq_hw.errors import N2uqError

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx(values: np.ndarray) -> bytes:
    """The IDX file of a uint8 array."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three synthetic test images, one file plain and one gzipped."""
    images = np.arange(3 * 28 * 28, dtype=np.int64).reshape(3, 28, 28) % 251
    (tmp_path / IMAGES).write_bytes(idx(images.astype(np.uint8)))
    (tmp_path / f"{LABELS}.gz").write_bytes(gzip.compress(idx(np.array([3, 0, 9], np.uint8))))
    return tmp_path


def test_digits_split_is_fixed_and_stratified() -> None:
    train, test = data.load("digits", split="train"), data.load("digits", split="test")
    assert train.images.shape == (1437, 1, 8, 8) and test.images.shape == (360, 1, 8, 8)
    assert (train.images.dtype, train.labels.dtype) == (np.uint8, np.int64)
    assert train.max == int(train.images.max()) == 16
    assert np.bincount(test.labels).tolist() == [36] * 10
    assert (data.load("digits", split="test").images == test.images).all()
    # Every image of scikit-learn's set is in exactly one split.
    from sklearn.datasets import load_digits
    both = np.concatenate([train.images, test.images]).reshape(1797, 64)
    whole = load_digits().data.astype(np.uint8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, whole))


def test_idx_files_plain_and_gzipped(folder: Path) -> None:
    loaded = data.load("mnist", folder, "test")
    assert loaded.images.shape == (3, 1, 28, 28) and loaded.images[0, 0, 0, 5] == 5
    assert loaded.labels.tolist() == [3, 0, 9] and loaded.max == 255


@pytest.mark.parametrize("name,content,message", [
    (IMAGES, b"", "magic must be 00000803, not an empty file"),
    (IMAGES, b"\0\0\x0d\x03" + bytes(12), "magic must be 00000803, not 00000d03"),
    (IMAGES, b"\0\0\x08\x03\0\0\0\x01\0\0", "header must have 16 bytes, not 10"),
    (IMAGES, idx(np.zeros((3, 28, 28), np.uint8))[:-1],
     "must hold 3 × 28 × 28 bytes of data, not 2351"),
    (IMAGES, idx(np.zeros((3, 28, 28), np.uint8)) + b"\0",
     "must hold 3 × 28 × 28 bytes of data, not 2353"),
    # Sizes whose product is 0 modulo 2**64
    (IMAGES, b"\0\0\x08\x03" + b"\x80\0\0\0" * 3, "bytes of data, not 0"),
    (IMAGES, idx(np.zeros((2, 28, 28), np.uint8)), "as many labels as 28 × 28 images, not 3 for"),
    (IMAGES, idx(np.zeros((3, 8, 8), np.uint8)), r"not 3 for \[3, 8, 8\]"),
    (f"{LABELS}.gz", b"no gzip", "cannot be read"),
    (f"{LABELS}.gz", gzip.compress(idx(np.zeros(3, np.uint8)), mtime=0)[:-9], "cannot be read"),
    (f"{LABELS}.gz", gzip.compress(bytes(9000), mtime=0)[:10] + b"\xff" * 20, "cannot be read"),
    (f"{LABELS}.gz", gzip.compress(idx(np.array([1, 2, 10], np.uint8)), mtime=0),
     "labels must lie in 0..9, not 10"),
])
def test_faulty_files_are_one_line(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(N2uqError, match=message) as caught:
        data.load("mnist", folder, "test")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("arguments,message", [
    (("mnist", Path("nowhere")), "train-images-idx3-ubyte: no such file, nor with .gz"),
    (("mnist",), "mnist needs the folder of its IDX files"),
    (("cifar",), "data set must be one of digits, mnist, not 'cifar'"),
])
def test_missing_things_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(N2uqError, match=message):
        data.load(*arguments, split="train")


def test_split_is_checked() -> None:
    with pytest.raises(N2uqError, match="split must be one of train, test, not 'validation'"):
        data.load("digits", split="validation")
