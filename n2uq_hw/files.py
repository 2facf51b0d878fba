"""Files of named arrays with a JSON description: one safetensors file, whole or not at all."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .errors import N2uqError

__all__ = ["load_arrays", "save_arrays"]


def save_arrays(path: Path, arrays: dict[str, np.ndarray], key: str,
                described: dict[str, Any]) -> None:
    """Write `arrays`, and `described` as JSON in the metadata under `key`.

    Equal contents give equal bytes.  An interrupted or failed write leaves what `path` held.
    """
    part = path.parent / f"{path.name}.part"
    try:
        # safetensors' own file writer makes files that only their owner can read.
        part.write_bytes(save({k: np.ascontiguousarray(v) for k, v in arrays.items()},
                              metadata={key: json.dumps(described, sort_keys=True)}))
        part.replace(path)
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise N2uqError(f"{path}: cannot be written: {reason}") from None
    finally:
        with suppress(OSError):
            part.unlink()


def load_arrays(path: Path, key: str, form: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays by name, and the description, whose "format" must be `form`."""
    arrays = {}
    try:
        with safe_open(path, "np") as file:
            text = (file.metadata() or {}).get(key)
            for name in sorted(file.keys()):
                try:
                    arrays[name] = file.get_tensor(name)
                except (TypeError, AttributeError):
                    raise N2uqError(f"{path}: {name} must have a NumPy type, not "
                                    f"{file.get_slice(name).get_dtype()}") from None
    except FileNotFoundError:
        raise N2uqError(f"{path}: no such file") from None
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
