"""Where the tests find MNIST, if it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

MNIST = Path(os.environ.get("N2UQ_MNIST")
             or Path(__file__).parents[2] / "shared" / "data" / "mnist")
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason="no MNIST: name it in N2UQ_MNIST")
