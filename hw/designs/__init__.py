"""Dot products in N2UQ's uniform codes and in nonuniform ones, to compare what they cost.

A design is one class, golden and gateware side by side: see `design.Design`.  To add one, derive a
class and put it into `DESIGNS`; it then appears in every test and table.
"""

from .apot import Apot
from .basis import Basis
from .buckets import Buckets
from .decode import Decode
from .design import DESIGNS, Design, Lanes, Trained, designs
from .product import ProductTable
from .uniform import Uniform

__all__ = ["DESIGNS", "Apot", "Basis", "Buckets", "Decode", "Design", "Lanes", "ProductTable",
           "Trained", "Uniform", "designs"]
