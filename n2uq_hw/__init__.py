"""Trained N2UQ networks as verified hardware (Liu et al., CVPR 2022, arXiv 2111.14826).

    import n2uq_hw as n2

    net = n2.load("digits_cnn_w2a2")
    graph = n2.lower(net)
    plan = n2.fold(graph, cycles=2304)
    build = n2.build(graph, plan, "build/digits")
    build.verify(stalls=0.3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import (
        Activity,
        Build,
        Costs,
        Exploration,
        Forecast,
        Formats,
        Graph,
        InputSpec,
        Net,
        Plan,
        Predictions,
        Tables,
        Verdict,
        agreement,
        board,
        build,
        explore,
        export,
        fold,
        import_onnx,
        load,
        load_build,
        lower,
        pack,
        trace,
        writable,
    )
    from .errors import N2uqError

__all__ = ["Activity", "Build", "Costs", "Exploration", "Forecast", "Formats", "Graph",
           "InputSpec", "N2uqError", "Net", "Plan", "Predictions", "Tables", "Verdict", "agreement",
           "board", "build", "explore", "export", "fold", "import_onnx", "load", "load_build",
           "lower", "pack", "trace", "writable"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The names above, imported when they are asked for: `import n2uq_hw` itself is light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(".errors" if name == "N2uqError" else ".api", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
