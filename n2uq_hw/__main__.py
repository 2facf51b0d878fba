"""``python -m n2uq_hw`` is ``n2uq-hw``."""

from .cli import main

main()
