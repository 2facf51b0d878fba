"""Calls as bytes for other machines: what is large, and what is a file, goes apart, by its hash."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import tools
from .errors import N2uqError

__all__ = ["Packer", "Parcel", "Reads", "Writes", "called", "merge", "python", "stored",
           "tree"]

LARGE = 2**14  # bytes of an array that goes apart: many jobs have the same


@dataclass(frozen=True)
class Reads:
    """A file or folder that a call reads: it is given a path, here or of a copy elsewhere.

    Members
    -------
    path: where it is here.
    names: of a folder, the files to take along, relative to it; all if empty.
    """

    path: Path
    names: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[type[Path], tuple[str]]:
        return Path, (str(self.path),)  # on this machine it is just that


@dataclass(frozen=True)
class Writes:
    """A folder that a call adds files and folders to, named by their content.

    Elsewhere it is an empty one; what is in it afterwards comes back, and joins the others.
    """

    path: Path

    def __reduce__(self) -> tuple[type[Path], tuple[str]]:
        return Path, (str(self.path),)


@dataclass(frozen=True)
class Parcel:
    """A call: `text` is its pickle, `parts` the hashes of what it needs beside."""

    text: bytes
    parts: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of the call and all that it is given."""
        return hashlib.sha256(self.text).hexdigest()


@dataclass
class Packer:
    """Makes parcels; each part is held once, in `parts`, by its hash."""

    parts: dict[str, bytes] = field(default_factory=dict)
    _known: dict[Any, tuple[Any, str]] = field(default_factory=dict)

    def pack(self, call: Callable[..., Any], args: Sequence[Any]) -> Parcel:
        """`call(*args)`, with the arrays and files of `args`, wherever these are in it."""
        held = io.BytesIO()
        pickler = _Pickler(held, self)
        pickler.dump((call, tuple(args)))
        return Parcel(held.getvalue(), tuple(sorted(pickler.needs)))

    def part(self, key: Any, value: Any, content: Callable[[], bytes]) -> str:
        """The hash of a part; `key` tells values apart, and `value` is held so that it stays."""
        if key not in self._known:
            data = content()
            digest = hashlib.sha256(data).hexdigest()
            self.parts[digest] = data
            self._known[key] = value, digest
        return self._known[key][1]


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, packer: Packer) -> None:
        super().__init__(file, protocol=5)
        self.packer, self.needs = packer, set[str]()

    def persistent_id(self, value: Any) -> tuple[str, str] | None:
        if isinstance(value, Writes):
            return "writes", str(value.path)
        if isinstance(value, Reads):
            kind, digest = "tree", self.packer.part(value, value, lambda: tree(
                value.path, value.names))
        elif type(value) is np.ndarray and value.nbytes >= LARGE and not value.dtype.hasobject:
            kind, digest = "array", self.packer.part(id(value), value, lambda: _saved(value))
        else:
            return None
        self.needs.add(digest)
        return kind, digest


class _Unpickler(pickle.Unpickler):
    def __init__(self, text: bytes, store: Path, out: Path) -> None:
        super().__init__(io.BytesIO(text))
        self.store, self.out = store, out

    def persistent_load(self, known: tuple[str, str]) -> Any:
        kind, name = known
        if kind == "array":
            return np.load(self.store / name, allow_pickle=False)
        if kind == "tree":
            whole = self.store / name
            only = whole / FILE
            return next(only.iterdir()) if only.is_dir() else whole
        place = self.out / hashlib.sha256(name.encode()).hexdigest()
        place.mkdir(parents=True, exist_ok=True)
        return place


FILE = ".one"  # holds what is a file by itself


def called(text: bytes, store: Path, out: Path) -> dict[str, Any]:
    """Make the call of a parcel whose parts are in `store`; what it writes comes to be in `out`."""
    call, args = _Unpickler(text, store, out).load()
    result: dict[str, Any] = call(*args)
    return result


def python(files: Path, *arguments: str) -> dict[str, Any]:
    """The JSON that Python prints last, run in a copy of the folder `files` with `arguments`."""
    with tools.scratch() as folder:
        copy = folder / "files"
        shutil.copytree(files, copy, symlinks=True)
        text = tools.run([sys.executable, *arguments], cwd=copy, name=" ".join(arguments[:2]), env={
            **os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"})
        result: dict[str, Any] = json.loads(text.splitlines()[-1])
        return result


def _saved(array: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, array, allow_pickle=False)
    return held.getvalue()


def tree(path: Path, names: Sequence[str] = ()) -> bytes:
    """A file or folder as a tar archive: the same bytes for the same names and contents."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT) as archive:
        whole = path.is_dir()
        files = [path / name for name in sorted(names)] if names else (
            sorted(path.rglob("*")) if whole else [path])
        for file in files:
            if file.is_dir() and not file.is_symlink():
                continue
            info = archive.gettarinfo(file, str(file.relative_to(path)) if whole
                                      else f"{FILE}/{file.name}")
            info.mtime = info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mode = 0o755 if info.mode & 0o100 else 0o644
            if info.isreg():
                with file.open("rb") as content:
                    archive.addfile(info, content)
            else:
                archive.addfile(info)
    return held.getvalue()


def _extract(data: bytes, folder: Path) -> None:
    """The files and links of an archive, none outside of `folder`."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            place = folder / member.name
            if not place.parent.resolve().is_relative_to(folder.resolve()) or ".." in place.parts:
                raise N2uqError(f"{member.name}: must lie in its archive's folder, and does not")
            place.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                place.symlink_to(member.linkname)
            else:
                place.write_bytes(content.read())
                place.chmod(member.mode)


def stored(store: Path, digest: str, data: bytes) -> None:
    """Put a part into `store`, whole or not at all: an array as a file, a tree as a folder."""
    place = store / digest
    if place.exists():
        return
    store.mkdir(parents=True, exist_ok=True)
    with tools.scratch(store) as part:
        if data.startswith(b"\x93NUMPY"):
            (part / "part").write_bytes(data)
        else:
            (part / "part").mkdir()
            _extract(data, part / "part")
        with suppress(OSError):  # another was first
            (part / "part").rename(place)
    if not place.exists():
        raise OSError(f"{place}: could not be made")


def merge(folders: Mapping[str, bytes], places: Sequence[Path]) -> None:
    """Add what calls wrote, trees by the hash of their folder's path, to those of `places`."""
    by_hash = {hashlib.sha256(str(path).encode()).hexdigest(): path for path in places}
    for name, data in folders.items():
        place = by_hash[name]
        place.mkdir(parents=True, exist_ok=True)
        with tools.scratch(place) as part:
            _extract(data, part)
            for entry in sorted(part.iterdir()):
                if not (place / entry.name).exists():
                    with suppress(OSError):  # another was first
                        shutil.move(entry, place / entry.name)
