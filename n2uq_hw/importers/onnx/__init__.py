"""Networks of others: QONNX, FINN, QCDQ, QDQ, QOperator and integer ONNX files, exactly."""

from . import elementwise, linear, lines, moves, quantizers
from .check import Check, Samples, check, read_samples
from .imported import Format, Imported, Unsupported, explained, import_onnx
from .trace import RULES, Row

__all__ = ["RULES", "Check", "Format", "Imported", "Row", "Samples", "Unsupported", "check",
           "elementwise", "explained", "import_onnx", "linear", "lines", "moves", "quantizers",
           "read_samples"]
