"""The command blocks of README and docs: found, run, compared and rewritten.

A block is a fence of one of these languages, with at most one mark in the line above it:

- ``console``: lines ``$ COMMAND`` (continued by ``> ``), each followed by what it prints;
- ``pycon``: lines ``>>> STATEMENT`` (continued by ``... ``), likewise, in one namespace per page;
- any language below ``<!-- file NAME -->``: a file that the reader writes.

Blocks of a page run from top to bottom in one folder that is empty at first.  Other marks, joined
by commas: ``slow``: the slow tests run it; ``kept``: hours, only `figures.py --kept` runs it;
``varies``: its numbers depend on the machine; ``exit N``: the command fails with that code;
``needs NAME``: a program or one of FILES, without which it is skipped.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGES", "ROOT", "Block", "Session", "blocks", "masked", "replaced"]

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.stem: path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
FENCE = re.compile(r"(?:^<!-- (?P<marks>[^>\n]*) -->\n)?^```(?P<language>\w+)\n"
                   r"(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
CHECKPOINTS = ROOT.parent / "shared" / "checkpoints"
FILES = {"resnet18_w2a2.pth": CHECKPOINTS / "resnet18_w2a2_quantized_downsample.pth",
         "images_and_logits.npz": CHECKPOINTS / "resnet18_w2a2_quantized_downsample.npz"}
PROMPTS = {"console": ("$ ", "> "), "pycon": (">>> ", "... ")}
SPEED = re.compile(r"(simulated cycles per second +)[\d,]+")  # the machine's, not the design's
NUMBER = re.compile(r"-?\d[\d,.]*")


@dataclass(frozen=True, eq=False)
class Block:
    """A fenced block: its page, marks and text; `span`: where its text lies in the page."""

    page: str
    language: str
    marks: dict[str, str]
    body: str
    span: tuple[int, int]
    line: int

    @property
    def runs(self) -> bool:
        """Whether it does anything."""
        return self.language in PROMPTS or "file" in self.marks


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, from top to bottom."""
    text = PAGES[page].read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        marks = dict([*part.strip().split(" ", 1), ""][:2]
                     for part in (match["marks"] or "").split(",") if part)
        yield Block(page, match["language"], marks, match["body"], match.span("body"),
                    text.count("\n", 0, match.start("body")))


def steps(block: Block) -> Iterator[tuple[str, str]]:
    """What is typed, prompts included, and what stands below it."""
    first, more = PROMPTS[block.language]
    typed, shown = "", ""
    for line in block.body.splitlines(keepends=True):
        goes_on = line.startswith(more) or line.strip() == more.strip()
        if line.startswith(first) or (goes_on and typed and not shown):
            if line.startswith(first) and typed:
                yield typed, shown
                typed, shown = "", ""
            typed += line
        else:
            shown += line
    yield typed, shown


def typed_text(block: Block, typed: str) -> str:
    """The command or statement without its prompts."""
    return "".join(line[len(PROMPTS[block.language][0 if k == 0 else 1]):] or "\n"
                   for k, line in enumerate(typed.splitlines(keepends=True)))


class Session:
    """Runs the blocks of a page in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names = folder, {"__name__": "__main__"}
        for name, path in FILES.items():
            if path.is_file() and not (folder / name).exists():
                (folder / name).symlink_to(path)
        self.env = {key: value for key, value in os.environ.items() if key != "N2UQ_MNIST"}
        self.env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                     "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}

    def lacks(self, block: Block) -> str:
        """What the block needs and is not there; "" for nothing."""
        need = block.marks.get("needs", "")
        return "" if not need or shutil.which(need) or (self.folder / need).exists() else need

    def run(self, block: Block) -> str:
        """The block's text with what its commands print now."""
        if "file" in block.marks:
            path = self.folder / block.marks["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body, encoding="utf-8")
            return block.body
        run = self._shell if block.language == "console" else self._python
        output = ""
        for typed, _ in steps(block):
            shown = run(typed_text(block, typed), int(block.marks.get("exit", 0)))
            output += typed + (shown if not shown or shown.endswith("\n") else shown + "\n")
        return output

    def _shell(self, command: str, code: int) -> str:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], cwd=self.folder, env=self.env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != code:
            raise RuntimeError(f"{command}exit code {done.returncode}, not {code}:\n{done.stdout}")
        return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())

    def _python(self, statement: str, code: int) -> str:
        shown = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(shown):
            try:
                exec(compile(statement, "<page>", "single"), self.names)
            except Exception as error:
                if not code:
                    raise
                print(f"{type(error).__name__}: {error}")
        return shown.getvalue()


def masked(block: Block, text: str) -> str:
    """The text without what may differ from run to run."""
    if "varies" in block.marks:
        return " ".join(NUMBER.sub("#", text).split())
    return SPEED.sub(r"\1#", text)


def replaced(page: str, outputs: dict[Block, str]) -> str:
    """The page with new texts in some of its blocks."""
    text = PAGES[page].read_text(encoding="utf-8")
    for block, body in sorted(outputs.items(), key=lambda item: -item[0].span[0]):
        text = text[:block.span[0]] + body + text[block.span[1]:]
    return text
