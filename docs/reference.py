"""Directive ``commands``: what ``n2uq-hw --help`` says, as sections of a page."""

from __future__ import annotations

import inspect
from typing import Any

import typer.main
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from n2uq_hw.cli import app

__all__ = ["setup", "text"]


def text() -> str:
    """The reference in Markdown: a section for each command that is not hidden."""
    group: Any = typer.main.get_command(app)
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


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directive known."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
