"""Networks of others: QONNX, FINN, QCDQ, QDQ, QOperator and integer ONNX files, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .imported import Format, Imported, Unsupported, explained, import_onnx
    from .reference import Check, Samples, check, lowered, read_samples
    from .trace import RULES, Row

__all__ = ["RULES", "Check", "Format", "Imported", "Row", "Samples", "Unsupported", "check",
           "explained", "import_onnx", "lowered", "read_samples"]


def __getattr__(name: str) -> Any:
    """The names above, loaded when asked for: what `reading` refuses needs nothing else."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import imported, reference, trace

    return next(getattr(module, name) for module in (imported, reference, trace)
                if hasattr(module, name))
