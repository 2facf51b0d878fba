"""The reference: directive ``commands``, and the project's docstrings as lists.

``commands`` puts what ``n2uq-hw --help`` says, a section per command, in its place.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer.main
from amaranth.lib import wiring
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from n2uq_hw.cli import app

__all__ = ["setup", "text"]


def text() -> str:
    """The reference in Markdown: a section for each command that is not hidden."""
    group: Any = typer.main.get_command(app())
    parts = [inspect.cleandoc(group.help or "")]
    for name, command in group.commands.items():
        if command.hidden:
            continue
        context = typer.Context(command, info_name=name)
        usage = " ".join(("n2uq-hw", name, *command.collect_usage_pieces(context)))
        records = [parameter.get_help_record(context) for parameter in command.params]
        parts += [f"## {name}", inspect.cleandoc(command.help or ""), f"```text\n{usage}\n```",
                  *(f"`{record[0]}`\n: {record[1]}" for record in records if record)]
    return "\n\n".join(parts)


class Commands(SphinxDirective):
    """The sections in the place of the directive."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(text(), allow_section_headings=True)


def listed(app: Sphinx, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Make a list of `name: text` in each section of a docstring, and of lines "`name`: text"."""
    rewritten, section, inside = list[str](), False, False
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        entry = re.fullmatch(r"(`\w+`(?:, `\w+`)*): (.*)", line) or (
            section and re.fullmatch(r"([\w, *]+): (.*)", line))
        if re.fullmatch("-{4,}", line):
            section = True
        elif re.fullmatch("-{4,}", after):
            rewritten += [f"**{line}**", ""]
        elif entry:
            rewritten += [""] * (not inside) + [f"* ``{entry[1].replace('`', '')}``: {entry[2]}"]
            inside = True
        else:
            inside &= bool(line)
            section &= bool(line)
            rewritten.append("  " + line.strip() if inside else line)
    lines[:] = rewritten


def signed(app: Sphinx, what: str, name: str, item: Any, *more: Any) -> tuple[str, None] | None:
    """What a unit is made from; Amaranth's metaclass hides it."""
    if not (isinstance(item, type) and issubclass(item, wiring.Component)):
        return None
    signature = inspect.signature(item.__init__)
    kept = list(signature.parameters.values())[1:]
    return str(signature.replace(parameters=kept, return_annotation=inspect.Signature.empty)), None


def setup(app: Sphinx) -> dict[str, bool]:
    """Make them known."""
    app.add_directive("commands", Commands)
    app.connect("autodoc-process-docstring", listed)
    app.connect("autodoc-process-signature", signed)
    return {"parallel_read_safe": True}
