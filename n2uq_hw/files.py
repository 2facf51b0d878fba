"""Files and folders, whole or not at all; text is UTF-8 in every locale."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .errors import N2uqError

__all__ = ["MANIFEST", "changed_files", "load_arrays", "read_text", "readable", "save_arrays",
           "whole_directory", "write_file"]

MANIFEST = "manifest.json"  # the files of a folder that we made, and their SHA-256
# What commands add to a folder later.  It is of the Verilog that was there, and goes with it.
ADDED = ("measured.json", "report.html", "simulation", "simulation_debug", "synthesis")
_EXCHANGE, _AT_FDCWD = 2, -100  # of renameat2(2)


def readable(path: Path) -> Path:
    """`path`, if it is a file that can be read; else N2uqError says what it is instead."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            with path.open("rb"):
                return path
    except FileNotFoundError:
        if path.is_symlink():
            raise N2uqError(f"{path}: a link to {path.readlink()}, which is not there") from None
        raise N2uqError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise N2uqError(f"{path}: cannot be read: {_reason(error)}") from None
    raise N2uqError(f"{path}: must be a file, and is a "
                    f"{'folder' if stat.S_ISDIR(mode) else 'device or pipe'}")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file; raises N2uqError for what is none."""
    try:
        return readable(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise N2uqError(f"{path}: must be UTF-8 text, and is not at byte {error.start}") from None
    except OSError as error:
        raise N2uqError(f"{path}: cannot be read: {_reason(error)}") from None


def write_file(path: Path, content: str | bytes) -> None:
    """Write text in UTF-8, or bytes.  An interrupted or failed write leaves what `path` held.

    A link stays: what it leads to is written.  Raises N2uqError.
    """
    part = None
    try:
        target = Path(os.path.realpath(path))
        whole = content.encode() if isinstance(content, str) else content
        if target.exists() and not target.is_file():  # such as /dev/stdout
            target.write_bytes(whole)
            return
        part = target.with_name(f".{target.name[:80]}.{secrets.token_hex(4)}.part")
        part.write_bytes(whole)
        part.replace(target)
    except (OSError, ValueError) as error:
        raise N2uqError(f"{path}: cannot be written: {_reason(error)}") from None
    finally:
        if part is not None:
            with suppress(OSError):
                part.unlink()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def changed_files(folder: Path) -> tuple[str, ...]:
    """The files of the manifest of `folder` that are not as it says; raises N2uqError."""
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sha256"].items()
        return tuple(name for name, digest in listed if _digest(folder / name) != digest)
    except FileNotFoundError as error:
        raise N2uqError(f"{folder}: must be a build directory, but has no "
                        f"{os.path.relpath(error.filename, folder)}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise N2uqError(f"{folder}: not a whole build directory: {error}") from None


@contextmanager
def whole_directory(out: Path, **about: Any) -> Iterator[Path]:
    """A new folder to fill; when the block ends well, it takes the place of `out` at once.

    It gets a manifest: `about`, and the SHA-256 of each file.  An `out` that exists must be empty
    or have such a manifest.  What was not made here stays in it: other files, which no new file may
    replace, and, as ``<name>.edited``, files of ours that were edited.  A link leads to its folder.

    Whatever ends the program, `out` is the old folder or the new one.  Where the system cannot
    exchange two folders it takes two renames, and the next call mends what ended between them.
    Several at a time leave the whole of the last one.  Raises N2uqError.
    """
    place = Path(os.path.realpath(out))
    part = None
    try:
        _mend(place)
        _acceptable(out, place)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{place.name[:80]}.{secrets.token_hex(4)}.new")
        with ExitStack() as stack:
            with _locked(place.parent):  # lest another takes it for left behind
                part.mkdir()
                stack.enter_context(_locked(part))
            yield part
            files = sorted(path for path in part.rglob("*") if path.is_file())
            (part / MANIFEST).write_text(json.dumps(about | {"sha256": {
                str(path.relative_to(part)): _digest(path) for path in files}}, indent=1) + "\n",
                encoding="utf-8")
            with _locked(place.parent):  # one after the other
                _acceptable(out, place)
                if place.exists():
                    shutil.copymode(place, part)
                    _keep(place, part)
                    _exchange(part, place)
                    _keep(part, place, beside=True)  # what came meanwhile
                else:
                    part.rename(place)
    except (OSError, shutil.Error) as error:
        raise N2uqError(f"{out}: cannot be written: {_reason(error)}") from None
    except N2uqError as error:
        if str(part) not in str(error):
            raise
        raise N2uqError(str(error).replace(str(part), str(out))) from None
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _acceptable(out: Path, place: Path) -> None:
    """Refuse an `out` that is, or lies in, something else."""
    for folder in place.parents:
        if folder.exists() and not folder.is_dir():
            raise N2uqError(f"{folder}: must be a folder, to hold {out}, and is a file")
    if place.is_mount() or (place.exists() and (
            not place.is_dir() or (any(place.iterdir()) and not (place / MANIFEST).is_file()))):
        raise N2uqError(f"{out}: must be new, empty or an earlier build, and is not")


_MINE = threading.local()  # `held`: the folders whose lock this thread has


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which no process holds that has ended.

    Whoever has it may ask for it again: a folder can be made whole within one that is being made.
    """
    handle = os.open(folder, os.O_RDONLY)
    state = os.fstat(handle)
    key, held = (state.st_dev, state.st_ino), _MINE.__dict__.setdefault("held", set())
    again = key in held
    try:
        if not again:
            with suppress(OSError):  # some file systems have none
                fcntl.flock(handle, fcntl.LOCK_EX)
            held.add(key)
        yield
    finally:
        if not again:
            held.discard(key)
        os.close(handle)


def _mend(place: Path) -> None:
    """Finish or remove what a call for `place` left that was killed."""
    if not place.parent.is_dir():
        return
    with _locked(place.parent):
        for left in place.parent.glob(f".{_escaped(place.name[:80])}.????????.*"):
            with suppress(OSError):
                handle = os.open(left, os.O_RDONLY)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if it is at work
                    if left.suffix == ".old" and not place.exists():
                        left.rename(place)
                    elif left.suffix in (".old", ".new"):
                        shutil.rmtree(left)
                finally:
                    os.close(handle)


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _keep(old: Path, new: Path, *, beside: bool = False) -> None:
    """Give `new` what `old` has and was not made here: hard links, where there can be any.

    Where `new` has another file of that name it is refused, or kept `beside` that.
    """
    listed: dict[str, str] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        listed = dict(json.loads((old / MANIFEST).read_text(encoding="utf-8"))["sha256"])
    for folder, folders, names in os.walk(old):
        at = Path(folder).relative_to(old)
        if not at.parts:
            folders[:] = [name for name in folders if name not in ADDED]
            names = [name for name in names if name not in (*ADDED, MANIFEST)]
        # Links to folders are kept as links; empty folders of the user's stay, too.
        links = [name for name in folders if (old / at / name).is_symlink()]
        ours = {part for name in listed for part in map(str, Path(name).parents)}
        if str(at) not in ours and at.parts:
            (new / at).mkdir(parents=True, exist_ok=True)
        for name in (*names, *links):
            source, target = old / at / name, new / at / name
            edited = str(at / name) in listed
            if edited and (source.is_symlink() or _digest(source) == listed[str(at / name)]):
                continue  # as it was made
            if os.path.lexists(target) and not _same(source, target):
                if not edited and not beside:
                    raise N2uqError(f"{new / at / name}: must not be replaced, for it was not made "
                                    "here; move it away")
                target = next(free for k in count() for free in [
                    target.with_name(f"{target.name}.edited{k or ''}")]
                    if not os.path.lexists(free) or _same(source, free))
            if os.path.lexists(target):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target, follow_symlinks=False)
            except OSError:
                shutil.copy2(source, target, follow_symlinks=False)


def _same(one: Path, two: Path) -> bool:
    """Whether two names are of one file, of equal files or of equal links."""
    if one.is_symlink() or two.is_symlink():
        return one.is_symlink() and two.is_symlink() and one.readlink() == two.readlink()
    return one.is_file() and two.is_file() and (one.samefile(two) or _digest(one) == _digest(two))


def _exchange(part: Path, place: Path) -> None:
    """Let two folders change places, at once or in two renames that `_mend` can finish."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2") and libc.renameat2(
            _AT_FDCWD, os.fsencode(part), _AT_FDCWD, os.fsencode(place), _EXCHANGE) == 0:
        return
    if hasattr(libc, "renameat2") and ctypes.get_errno() not in (
            errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    old = part.with_suffix(".old")
    place.rename(old)
    part.rename(place)
    old.rename(part)


def save_arrays(path: Path, arrays: dict[str, np.ndarray], key: str,
                described: dict[str, Any]) -> None:
    """Write `arrays`, and `described` as JSON in the metadata under `key`, to a safetensors file.

    Equal contents give equal bytes.  An interrupted or failed write leaves what `path` held.
    """
    try:
        whole = save({k: np.ascontiguousarray(v) for k, v in arrays.items()},
                     metadata={key: json.dumps(described, sort_keys=True)})
    except (SafetensorError, TypeError, ValueError) as error:
        raise N2uqError(f"{path}: cannot be written: {error}") from None
    write_file(path, whole)


def load_arrays(path: Path, key: str, form: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays by name, and the description, whose "format" must be `form`."""
    arrays: dict[str, Any] = {}
    try:
        with safe_open(readable(path), "np") as file:
            text = (file.metadata() or {}).get(key)
            for name in sorted(file.keys()):
                arrays[name] = None
                with suppress(TypeError, AttributeError):
                    arrays[name] = file.get_tensor(name)
                # Where ml_dtypes is installed, NumPy has more types, which are of kind V.
                if arrays[name] is None or arrays[name].dtype.kind == "V":
                    raise N2uqError(f"{path}: {name} must have a NumPy type, not "
                                    f"{file.get_slice(name).get_dtype()}")
    except (SafetensorError, OSError) as error:
        raise N2uqError(f"{path}: not a whole safetensors file: {error}") from None
    if text is None:
        raise N2uqError(f"{path}: holds no {key} description in its metadata")
    try:
        described = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise N2uqError(f"{path}: the {key} description must be JSON: {error}") from None
    if not isinstance(described, dict):
        raise N2uqError(f"{path}: the {key} description must be an object, "
                        f"not {type(described).__name__}")
    if described.get("format") != form:
        raise N2uqError(f"{path}: {key} format must be {form}, not {described.get('format')!r}")
    return arrays, described
