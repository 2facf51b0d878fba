"""Dot products in N2UQ's uniform codes and in nonuniform ones, to compare what they cost.

A design is one class, golden and gateware side by side: see `design.Design`.  To add one, derive a
class and put it into `DESIGNS`; it then appears in every test and table.
"""

from .design import DESIGNS, Design, Lanes, Trained, designs
from .uniform import Uniform

from .decode import Decode  # isort: skip
from .product import ProductTable  # isort: skip
from .apot import Apot  # isort: skip
from .basis import Basis  # isort: skip
from .buckets import Buckets  # isort: skip

__all__ = ["DESIGNS", "Apot", "Basis", "Buckets", "Decode", "Design", "Lanes", "ProductTable",
           "Trained", "Uniform", "designs"]
