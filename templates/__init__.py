"""Jinja2 texts: Verilog wrapper, test bench, reports."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

__all__ = ["render"]

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True, keep_trailing_newline=True,
    autoescape=select_autoescape(("html.j2",)))


def _markdown(text: str) -> str:
    """`text` as Markdown shows it, in a table too."""
    return re.sub(r"[\\|`*<>\[\]~#&]|\b_|_\b", r"\\\g<0>", text)


_ENVIRONMENT.filters["markdown"] = _markdown


def render(template: str, **values: Any) -> str:
    """The text of the template file `template` with `values` filled in; none may be missing."""
    return _ENVIRONMENT.get_template(template).render(**values)
