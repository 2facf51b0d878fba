"""Names of users and ours: none of theirs ever meets one of ours, in the graph or in Verilog."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable

__all__ = ["fresh", "identifier", "identifiers", "is_name"]

LONGEST = 80  # letters of an identifier; files bear two of them, and 255 is all that these may have


def is_name(name: object) -> bool:
    """Whether `name` can be that of a net, layer or node: text that prints, spaces within it."""
    return isinstance(name, str) and name.isprintable() and name == name.strip() != ""


def fresh(name: str, taken: Collection[str]) -> str:
    """`name`, or with as many _ behind it as set it apart from all that are `taken`."""
    while name in taken:
        name += "_"
    return name


def identifier(name: str) -> str:
    """What `name` becomes in Verilog and in file names: at most LONGEST of A-Z, a-z, 0-9 and _.

    A name that is all that already stays as it is.
    """
    text = re.sub(r"\W", lambda at: "_" if at[0].isascii() else f"u{ord(at[0]):x}", name,
                  flags=re.ASCII)
    text = f"_{text}" if text[0].isdigit() else text
    if len(text) > LONGEST:
        text = f"{text[:LONGEST - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return text


def identifiers(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """The `identifier` of each of `names`, set apart from earlier ones and from all `taken`.

    They differ in more than case: files are named after them.
    """
    used, words = {name.lower() for name in taken}, {}
    for name in names:
        text = identifier(name)
        words[name] = text + fresh(text.lower(), used)[len(text):]
        used.add(words[name].lower())
    return words
