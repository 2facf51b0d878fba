"""README and docs: every command block does what stands below it, every link leads somewhere."""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import notebooks
import pages
import pytest

from n2uq_hw import cli
from n2uq_hw.ir import Node
from n2uq_hw.model import Layer

FIRST = ("README", "start")  # pages whose short blocks run in the fast tests
LANGUAGES = {"console", "pycon", "python", "verilog", "yaml", "text", "sh"}


def todo(page: str, slow: bool) -> list[pages.Block]:
    """The blocks that run, fast ones alone or with those that are slow."""
    return [block for block in pages.blocks(page) if block.runs and "kept" not in block.marks
            and (slow or "slow" not in block.marks)]


def run(page: str, folder: Path, slow: bool) -> None:
    """Run the blocks of a page; each must print what the page says."""
    session = pages.Session(folder)
    for block in todo(page, slow):
        if not session.lacks(block):
            shown, printed = (pages.masked(block, text)
                              for text in (block.body, session.run(block)))
            assert printed == shown, "\n".join((
                f"{pages.PAGES[page]}:{block.line}: `make docs-figures` would change this:",
                *difflib.unified_diff(shown.splitlines(), printed.splitlines(), lineterm="", n=1)))


@pytest.mark.parametrize("page", [
    pytest.param(page, marks=[] if page in FIRST else [pytest.mark.slow]) for page in pages.PAGES
    if any(block.language in pages.PROMPTS for block in todo(page, slow=False))])
def test_short_blocks_print_what_the_page_says(page: str, tmp_path: Path) -> None:
    run(page, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in pages.PAGES if any(
    "slow" in block.marks for block in todo(page, slow=True))])
def test_all_blocks_print_what_the_page_says(page: str, tmp_path: Path) -> None:
    run(page, tmp_path, slow=True)


@pytest.mark.slow
def test_the_notebook_runs_and_prints_what_it_shows(tmp_path: Path) -> None:
    shown = notebooks.printed(nbformat.read(notebooks.NOTEBOOK, 4))
    printed = notebooks.printed(notebooks.executed(tmp_path))
    assert printed == shown, "`make docs-figures` would change docs/notebook.ipynb"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Links, references and pictures within the site; its reference of commands and names."""
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "trees",
         "docs", tmp_path / "site"], cwd=pages.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "site" / "cli.html").read_text("utf-8")
    assert 'id="verify"' in commands and "--stalls" in commands and 'id="simulate"' not in commands
    names = (tmp_path / "site" / "api.html").read_text("utf-8")
    for kind in (*Layer.__subclasses__(), *Node.__subclasses__()):
        if kind.__module__.startswith("n2uq_hw.model") or kind.__module__ == "n2uq_hw.ir.nodes":
            assert f'id="{kind.__module__}.{kind.__qualname__}"' in names


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = pages.PAGES["README"].read_text("utf-8")
    assert len(text.splitlines()) <= 150
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert len(links) > 10
    for link in links:
        assert (pages.ROOT / link.partition("#")[0]).is_file(), link


@pytest.mark.parametrize("page", pages.PAGES)
def test_every_block_is_known_and_every_picture_has_a_maker(page: str) -> None:
    text = pages.PAGES[page].read_text("utf-8")
    blocks = list(pages.blocks(page))
    opened = re.findall(r"^```(\w+)$", text, re.MULTILINE)
    assert [block.language for block in blocks] == opened  # the parser overlooks none
    assert set(opened) <= LANGUAGES
    for block in blocks:
        assert block.language not in ("python", "verilog") or "file" in block.marks, block.line
        assert block.marks.keys() <= {"slow", "kept", "varies", "exit", "needs", "file"}
        if "kept" in block.marks:  # says when
            assert re.match(r"```\n\n\*Measured on \d{4}-\d\d-\d\d", text[block.span[1]:])
    commands = "".join(block.body for block in blocks if block.runs)
    for name in re.findall(r"figures/([\w.-]+)", text):
        assert (pages.ROOT / "docs" / "figures" / name).is_file(), name
        assert name in commands or f'"{name}"' in (pages.ROOT / "docs/figures.py").read_text(), name
    runs = any(block.language in pages.PROMPTS for block in todo(page, slow=True))
    assert bool(re.search(r"^\*Outputs and pictures of this page: `make docs-figures` on \d{4}",
                          text, re.MULTILINE)) == runs


@pytest.mark.parametrize("page", pages.PAGES)
def test_files_and_targets_that_a_page_names_exist(page: str) -> None:
    text = pages.PAGES[page].read_text("utf-8")
    for path in re.findall(r"`((?:n2uq_hw|hw|sim|tests|bench|docs|templates)/[\w/.-]*)`", text):
        assert (pages.ROOT / path).exists(), path
    makefile = (pages.ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_start_names_every_command() -> None:
    rows = re.findall(r"^\| (`.*?) \|", pages.PAGES["start"].read_text("utf-8"), re.MULTILINE)
    assert cli.COMMANDS.keys() <= set(re.findall(r"`([\w-]+)`", " ".join(rows)))


def page_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> list[pages.Block]:
    path = tmp_path / "page.md"
    path.write_text(text, "utf-8")
    monkeypatch.setitem(pages.PAGES, "page", path)
    return list(pages.blocks("page"))


def test_a_session_runs_commands_statements_and_files(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = page_of(tmp_path, monkeypatch, """# Page

<!-- file a/b.txt -->
```text
one
```

```console
$ cat a/b.txt \\
>     a/b.txt
old
$ true
```

```pycon
>>> for k in range(2):
...     print(k)
...
>>> k + 1
```

<!-- exit 3 -->
```console
$ exit 3
```
""")
    session = pages.Session(tmp_path)
    outputs = {block: session.run(block) for block in blocks}
    assert list(outputs.values()) == [
        "one\n", "$ cat a/b.txt \\\n>     a/b.txt\none\none\n$ true\n",
        ">>> for k in range(2):\n...     print(k)\n...\n0\n1\n>>> k + 1\n2\n", "$ exit 3\n"]
    again = page_of(tmp_path, monkeypatch, pages.replaced("page", outputs))
    assert [block.body for block in again] == list(outputs.values())


@pytest.mark.parametrize("command", ["exit 1", "false | cat"])
def test_a_command_that_fails_fails_the_page(
        command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = page_of(tmp_path, monkeypatch, f"```console\n$ {command}\n```\n")
    with pytest.raises(RuntimeError, match="exit code 1, not 0"):
        pages.Session(tmp_path).run(block)


def test_an_output_that_changed_fails_the_page(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page_of(tmp_path, monkeypatch, "```console\n$ echo new\nold\n```\n")
    with pytest.raises(AssertionError, match="`make docs-figures` would change this"):
        run("page", tmp_path, slow=False)


def test_what_is_masked_is_speed_and_numbers_that_vary(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, varies = page_of(tmp_path, monkeypatch, """```console
$ x
simulated cycles per second  1,234
a 12
```

<!-- varies -->
```console
$ x
a 12.5   -3
```
""")
    assert pages.masked(plain, plain.body) == "$ x\nsimulated cycles per second  #\na 12\n"
    assert pages.masked(varies, varies.body) == "$ x a # #"
