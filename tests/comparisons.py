"""What tests of comparisons share: settings that take seconds, and a row."""

from typing import Any

from n2uq_hw.compare.measure import Row, Settings

SMALL = Settings((), bits=(2,), lanes=(2,), families=("ecp5", "cmos"), dsps=("off",), seeds=(1,))


def row(design: str, luts: int | None, **more: Any) -> Row:
    uniform = design.startswith("uniform")
    values = {"ff": 10, "latency": 3, "method": "N2UQ" if uniform else "other"} | more
    return Row(design, "lane", 2, 2, 8, "ecp5", luts=luts, uniform=uniform, **values)
