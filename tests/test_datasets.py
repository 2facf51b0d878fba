"""Data sets of one's own: what is read, to the pixel, and what is refused."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared import SHARED

from n2uq_hw import data, datasets
from n2uq_hw.errors import N2uqError

CIFAR = SHARED / "data" / "cifar10"
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 3, 5, 4), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def same(dataset: data.Dataset | None, images: np.ndarray, labels: np.ndarray, classes: int,
         most: int = 255) -> None:
    assert dataset is not None
    np.testing.assert_array_equal(dataset.images, images)
    assert dataset.labels.tolist() == labels.tolist() and dataset.labels.dtype == np.int64
    assert (dataset.max, dataset.classes) == (most, classes)


def test_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    splits = datasets.read(path)
    same(splits.train, IMAGES, LABELS, 3)
    assert splits.test is None
    np.savez(path, images=IMAGES.astype(np.int32) * 3, labels=LABELS, test_images=IMAGES[:2],
             test_labels=LABELS[:2])
    splits = datasets.read(path)
    same(splits.train, IMAGES.astype(int) * 3, LABELS, 3, 1023)
    same(splits.test, IMAGES[:2], LABELS[:2], 3, 1023)
    np.savez(path, images=IMAGES % 17, labels=LABELS, max=16)
    same(datasets.read(path).train, IMAGES % 17, LABELS, 3, 16)


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for k, name in enumerate(("cat", "dog", "owl")):
            (tmp_path / split / name).mkdir(parents=True)
            for place in np.flatnonzero(k == LABELS):
                Image.fromarray(IMAGES[place].transpose(1, 2, 0)).save(
                    tmp_path / split / name / f"{place}.png")
            (tmp_path / split / name / "notes.txt").write_text("no image")
    order = np.argsort(LABELS, kind="stable")
    splits = datasets.read(tmp_path)
    same(splits.train, IMAGES[order], LABELS[order], 3)
    same(splits.test, IMAGES[order], LABELS[order], 3)
    same(datasets.read(tmp_path / "test").train, IMAGES[order], LABELS[order], 3)
    Image.fromarray(IMAGES[0, 0]).save(tmp_path / "train" / "owl" / "z.png")
    with pytest.raises(N2uqError, match=r"z\.png: must have the size and colors of the first"):
        datasets.read(tmp_path)
    (tmp_path / "train" / "owl" / "z.png").write_bytes(b"no picture")
    with pytest.raises(N2uqError, match=r"z\.png: must be an image: "):
        datasets.read(tmp_path)


def test_idx_files_of_any_size(tmp_path: Path) -> None:
    for stem, count in (("train", 6), ("t10k", 2)):
        head = bytes([0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 5, 0, 0, 0, 4])
        (tmp_path / f"{stem}-images-idx3-ubyte").write_bytes(head + IMAGES[:count, 0].tobytes())
        (tmp_path / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(
            bytes([0, 0, 8, 1, 0, 0, 0, count]) + LABELS[:count].astype(np.uint8).tobytes()))
    splits = datasets.read(tmp_path)
    same(splits.train, IMAGES[:, :1], LABELS, 3)
    same(splits.test, IMAGES[:2, :1], LABELS[:2], 3)


def binary(images: np.ndarray, labels: np.ndarray) -> bytes:
    return np.concatenate([labels[:, None].astype(np.uint8), images.reshape(len(images), -1)],
                          axis=1).tobytes()


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_cifar10_as_its_archive_and_as_files(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (60, 3, 32, 32), np.uint8)
    labels = np.arange(60) % 10
    files = {name: binary(images[k * 10:k * 10 + 10], labels[k * 10:k * 10 + 10])
             for k, name in enumerate((*datasets.BATCHES, "test_batch.bin"))}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    splits = datasets.read(tmp_path)
    same(splits.train, images[:50], labels[:50], 10)
    same(splits.test, images[50:], labels[50:], 10)
    whole = archive(tmp_path / "cifar-10-binary.tar.gz", {
        name: content * 1000 for name, content in files.items()})
    splits = datasets.read(whole)
    assert splits.test is not None and splits.train.images.shape == (50_000, 3, 32, 32)
    np.testing.assert_array_equal(splits.test.images[10:20], images[50:])
    with pytest.raises(N2uqError, match=r"data_batch_1\.bin must be a file of 30730000 bytes"):
        datasets.read(archive(tmp_path / "short.tar.gz", files))
    for name in ("data_batch_1", "batches.meta"):
        with pytest.raises(N2uqError, match="not the one for Python, which is pickled and could"):
            datasets.read(archive(tmp_path / "cifar-10-python.tar.gz", {name: b"cos\nsystem\n"}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data_batch_1").write_bytes(b"")
    with pytest.raises(N2uqError, match="must be CIFAR-10's binary archive"):
        datasets.read(tmp_path / "other")


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.is_dir(), reason="no CIFAR-10")
def test_cifar10_as_strips() -> None:
    """All 60,000, by the means that its authors' copies have."""
    splits = datasets.read(CIFAR)
    assert splits.test is not None and splits.train.images.shape == (50_000, 3, 32, 32)
    np.testing.assert_allclose(splits.train.images.mean(axis=(0, 2, 3)),
                               [125.307, 122.950, 113.865], atol=1e-3)
    np.testing.assert_allclose(splits.test.images.mean(axis=(0, 2, 3)),
                               [126.025, 123.709, 114.854], atol=1e-3)
    assert np.bincount(splits.train.labels).tolist() == [5000] * 10


@pytest.mark.parametrize("arrays,message", [
    ({"images": IMAGES}, "must hold labels, and has none"),
    ({"images": IMAGES / 2, "labels": LABELS}, "images must be integers from 0, not float64"),
    ({"images": IMAGES.astype(int) - 9, "labels": LABELS}, "images must be integers from 0, not i"),
    ({"images": IMAGES, "labels": LABELS - 1}, r"labels must be classes \[N\] from 0"),
    ({"images": IMAGES, "labels": LABELS / 2}, r"labels must be classes \[N\] from 0"),
    ({"images": IMAGES, "labels": LABELS, "max": 3}, r"pixels must lie in 0\.\.3, not reach"),
    ({"images": IMAGES, "labels": LABELS, "max": 0.5}, r"max must be an integer in 1\.\.65535"),
    ({"images": IMAGES.astype(int) + 65536, "labels": LABELS}, r"pixels must lie in 0\.\.65535"),
    ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES[:, :1], "test_labels": LABELS},
     r"test images must be \[3, 5, 4\] of classes 0\.\.2, not \[1, 5, 4\]"),
    ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES, "test_labels": LABELS + 1},
     r"test images must be \[3, 5, 4\] of classes 0\.\.2, not \[3, 5, 4\] of classes up to 3"),
])
def test_arrays_that_are_none(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(N2uqError, match=f"a.npz: {message}"):
        datasets.read(tmp_path / "a.npz")


def test_places_that_hold_none(tmp_path: Path) -> None:
    with pytest.raises(N2uqError, match="no such file"):
        datasets.read(tmp_path / "none.npz")
    with pytest.raises(N2uqError, match="no such file"):
        datasets.read(tmp_path / "none.tar.gz")
    with pytest.raises(N2uqError, match="two or more classes, not 0 folders"):
        datasets.read(tmp_path)
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b half")
    with pytest.raises(N2uqError, match="must be a whole tar archive"):
        datasets.read(tmp_path / "a.tar.gz")
